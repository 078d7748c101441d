"""fp8_index for cuda:sm_90, in TileLang.

A block makes one b x one m x 128 n; blocks run through the last index fastest.
D = 128, H = 64.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and k divide by 16 bytes, last strides are 1, and also those of w, k_scale and out.
5 accesses: 2 proved, 3 guarded by a tail.
4 warps.
h: 64, for a span of 64
d: 128, for a span of 128
n: 128, rows of a contraction
m: 1, columns of a contraction
warps: 4, for accumulators and results of 8192 elements
stages: 1, the blocks that contractions read take 24576 bytes of 230400
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
        with T.Kernel(B * M * T.ceildiv(N, 128), threads=128) as pid:
            q_tile = T.alloc_shared((64, 128), "float8_e4m3fn")
            k_tile = T.alloc_shared((128, 128), "float8_e4m3fn")
            q_dot_matrix = T.alloc_fragment((128, 64), "float32")
            q_dot = T.reshape(q_dot_matrix, (128, 1, 64))
            score = T.alloc_fragment((128, 1, 64), "float32")
            w_tile = T.alloc_fragment((1, 64), "float32")
            score_sum_terms = T.alloc_fragment((128, 1, 64), "float32")
            score_sum = T.alloc_fragment((128, 1), "float32")
            k_scale_tile = T.alloc_fragment((128,), "float32")
            n_block = T.alloc_var("int32", T.truncmod(pid, T.ceildiv(N, 128)))  # fp8_index:3
            n = n_block * 128
            T.assume(n % 128 == 0)
            m = T.alloc_var("int32", T.truncmod(T.truncdiv(pid, T.ceildiv(N, 128)), M))
            b = T.alloc_var("int32", T.truncdiv(T.truncdiv(pid, T.ceildiv(N, 128)), M))
            for i, j, k2 in T.Parallel(1, 64, 128):  # fp8_index:4
                q_tile[j, k2] = q[b, m + i, j, k2]
            for i, j in T.Parallel(128, 128):
                k_tile[i, j] = T.if_then_else(n + i < N, k[b, n + i, j], T.float8_e4m3fn(0.0))
            T.gemm(k_tile, q_tile, q_dot_matrix, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullRow)
            for i, j, k2 in T.Parallel(128, 1, 64):
                score[i, j, k2] = T.max(q_dot[i, j, k2], 0.0)
            for i, j in T.Parallel(1, 64):  # fp8_index:5
                w_tile[i, j] = w[b, m + i, j]
            for i, j, k2 in T.Parallel(128, 1, 64):
                score_sum_terms[i, j, k2] = score[i, j, k2] * w_tile[j, k2]
            T.reduce_sum(score_sum_terms, score_sum, dim=2)
            for i in T.Parallel(128):
                k_scale_tile[i] = T.if_then_else(n + i < N, k_scale[b, n + i], T.float32(0.0))
            for i, j in T.Parallel(128, 1):
                if n + i < N:
                    out[b, m + j, n + i] = score_sum[i, j] * k_scale_tile[i]

    return fp8_index
