"""fp8_index for cuda:sm_90, in TileLang.

A block makes one b x 2 m x one c; blocks run through the last index fastest.
C = 2048, D = 128, H = 64.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and k divide by 16 bytes, last strides are 1, and also those of w, k_scale and out.
5 accesses: 5 guarded by a tail.
4 warps.
h: 64, for a span of 64
d: 128, for a span of 128
n: 64, rows of a contraction
m: 2, columns of a contraction
warps: 4, for accumulators and results of 8192 elements
stages: 3, the blocks that contractions read take 40960 bytes of 230400
"""

import tilelang.language as T


def entry():
    @T.prim_func
    def fp8_index(
        q_ptr: T.handle,
        w_ptr: T.handle,
        k_ptr: T.handle,
        k_scale_ptr: T.handle,
        out_ptr: T.handle,
        B: T.int32,
        M: T.int32,
        N: T.int32,
        q_stride0: T.int32,
        q_stride1: T.int32,
        q_stride2: T.int32,
        w_stride0: T.int32,
        w_stride1: T.int32,
        k_stride0: T.int32,
        k_stride1: T.int32,
        k_scale_stride0: T.int32,
        out_stride0: T.int32,
        out_stride1: T.int32,
    ):
        q = T.make_tensor(q_ptr, (B, M, 64, 128), "float8_e4m3fn", (q_stride0, q_stride1, q_stride2, 1))
        w = T.make_tensor(w_ptr, (B, M, 64), "float32", (w_stride0, w_stride1, 1))
        k = T.make_tensor(k_ptr, (B, N, 128), "float8_e4m3fn", (k_stride0, k_stride1, 1))
        k_scale = T.make_tensor(k_scale_ptr, (B, N), "float32", (k_scale_stride0, 1))
        out = T.make_tensor(out_ptr, (B, M, N), "float32", (out_stride0, out_stride1, 1))
        T.assume(q_stride0 % 16 == 0)
        T.assume(q_stride1 % 16 == 0)
        T.assume(q_stride2 % 16 == 0)
        T.assume(k_stride0 % 16 == 0)
        T.assume(k_stride1 % 16 == 0)
        with T.Kernel(B * T.ceildiv(M, 2) * ((N + 2047) // 2048), threads=128) as pid:
            query = T.alloc_shared((128, 128), "float8_e4m3fn")
            weight = T.alloc_fragment((2, 64), "float32")
            k_tile = T.alloc_shared((3, 64, 128), "float8_e4m3fn")
            query_dot_matrix = T.alloc_fragment((64, 128), "float32")
            query_dot = T.reshape(query_dot_matrix, (64, 2, 64))
            score = T.alloc_fragment((64, 2, 64), "float32")
            score_sum_terms = T.alloc_fragment((64, 2, 64), "float32")
            score_sum = T.alloc_fragment((64, 2), "float32")
            k_scale_tile = T.alloc_fragment((64,), "float32")
            c = T.alloc_var("int32", T.truncmod(pid, (N + 2047) // 2048))  # fp8_index:3
            m_block = T.alloc_var("int32", T.truncmod(T.truncdiv(pid, (N + 2047) // 2048), T.ceildiv(M, 2)))
            m = m_block * 2
            T.assume(m % 2 == 0)
            b = T.alloc_var("int32", T.truncdiv(T.truncdiv(pid, (N + 2047) // 2048), T.ceildiv(M, 2)))
            for i, j, k2 in T.Parallel(2, 64, 128):  # fp8_index:4
                query[i * 64 + j, k2] = T.if_then_else(m + i < M, q[b, m + i, j, k2], T.float8_e4m3fn(0.0))
            for i, j in T.Parallel(2, 64):
                weight[i, j] = T.if_then_else(m + i < M, w[b, m + i, j], T.float32(0.0))
            n_begin = c * 2048  # fp8_index:5
            n_end = T.min(c * 2048 + 2048, N)
            T.sync_threads()
            if n_begin < n_end:
                for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # fp8_index:6
                    k_tile[0, i, j] = T.if_then_else(n_begin + i < T.min(c * 2048 + 2048, N), k[b, n_begin + i, j], 0)
            T.ptx_commit_group()  # fp8_index:5
            if n_begin + 64 < n_end:
                for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # fp8_index:6
                    k_tile[1, i, j] = T.if_then_else(n_begin + 64 + i < T.min(c * 2048 + 2048, N), k[b, n_begin + 64 + i, j], 0)
            T.ptx_commit_group()  # fp8_index:5
            for n_block in T.serial(T.ceildiv(n_end - n_begin, 64)):
                n = n_begin + n_block * 64
                if n + 128 < n_end:
                    for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # fp8_index:6
                        k_tile[(n_block + 2) % 3, i, j] = T.if_then_else(n + 128 + i < T.min(c * 2048 + 2048, N), k[b, n + 128 + i, j], 0)
                T.ptx_commit_group()  # fp8_index:5
                T.ptx_wait_group(2)
                T.sync_threads()
                T.gemm(
                    k_tile[n_block % 3, :, :], query, query_dot_matrix, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullRow
                )  # fp8_index:6
                for i, j, k2 in T.Parallel(64, 2, 64):
                    score[i, j, k2] = T.max(query_dot[i, j, k2], 0.0)
                for i, j, k2 in T.Parallel(64, 2, 64):  # fp8_index:7
                    score_sum_terms[i, j, k2] = score[i, j, k2] * weight[j, k2]
                T.reduce_sum(score_sum_terms, score_sum, dim=2)
                for i, _ in T.Parallel(64, 1):
                    k_scale_tile[i] = T.if_then_else(n + i < T.min(c * 2048 + 2048, N), k_scale[b, n + i], T.float32(0.0))
                for i, j in T.Parallel(64, 2):
                    if n + i < T.min(c * 2048 + 2048, N) and m + j < M:
                        out[b, m + j, n + i] = score_sum[i, j] * k_scale_tile[i]
                T.sync_threads()  # fp8_index:5

    return fp8_index
