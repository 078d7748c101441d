"""mqa_logits for cuda:sm_90, in TileLang.

A block makes 2 s x one c; blocks run through the last index fastest.
clean = True, C = 2048, D = 128, H = 64.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and k divide by 16 bytes, last strides are 1, and also those of k_scale, w, first, last and out.
9 accesses: 9 guarded by a tail.
4 warps.
h: 64, for a span of 64
d: 128, for a span of 128
t: 64, rows of a contraction
s: 2, columns of a contraction
t.3: 1024, a loop along the innermost axis
t.2: 1024, a loop along the innermost axis
warps: 4, for accumulators and results of 8192 elements
stages: 3, the blocks that contractions read take 40960 bytes of 230400
"""

import tilelang.language as T


def entry():
    @T.prim_func
    def mqa_logits(
        q_ptr: T.handle,
        k_ptr: T.handle,
        k_scale_ptr: T.handle,
        w_ptr: T.handle,
        first_ptr: T.handle,
        last_ptr: T.handle,
        out_ptr: T.handle,
        S: T.int32,
        T2: T.int32,
        q_stride0: T.int32,
        q_stride1: T.int32,
        k_stride0: T.int32,
        w_stride0: T.int32,
        out_stride0: T.int32,
    ):
        q = T.make_tensor(q_ptr, (S, 64, 128), "float8_e4m3fn", (q_stride0, q_stride1, 1))
        k = T.make_tensor(k_ptr, (T2, 128), "float8_e4m3fn", (k_stride0, 1))
        k_scale = T.make_tensor(k_scale_ptr, (T2,), "float32", (1,))
        w = T.make_tensor(w_ptr, (S, 64), "float32", (w_stride0, 1))
        first = T.make_tensor(first_ptr, (S,), "int32", (1,))
        last = T.make_tensor(last_ptr, (S,), "int32", (1,))
        out = T.make_tensor(out_ptr, (S, T2), "float32", (out_stride0, 1))
        T.assume(q_stride0 % 16 == 0)
        T.assume(q_stride1 % 16 == 0)
        T.assume(k_stride0 % 16 == 0)
        with T.Kernel(T.ceildiv(S, 2) * ((T2 + 2047) // 2048), threads=128) as pid:
            first_tile = T.alloc_fragment((2,), "int32")
            first_min = T.alloc_fragment((1,), "int32")
            last_tile = T.alloc_fragment((2,), "int32")
            last_max = T.alloc_fragment((1,), "int32")
            query = T.alloc_shared((128, 128), "float8_e4m3fn")
            weight = T.alloc_fragment((2, 64), "float32")
            k_tile = T.alloc_shared((3, 64, 128), "float8_e4m3fn")
            query_dot_matrix = T.alloc_fragment((64, 128), "float32")
            query_dot = T.reshape(query_dot_matrix, (64, 2, 64))
            score = T.alloc_fragment((64, 2, 64), "float32")
            inside = T.alloc_fragment((64, 2), "bool")
            score_sum_terms = T.alloc_fragment((64, 2, 64), "float32")
            score_sum = T.alloc_fragment((64, 2), "float32")
            k_scale_tile = T.alloc_fragment((64,), "float32")
            c = T.alloc_var("int32", T.truncmod(pid, (T2 + 2047) // 2048))  # mqa_logits:6
            s_block = T.alloc_var("int32", T.truncdiv(pid, (T2 + 2047) // 2048))
            s = s_block * 2
            T.assume(s % 2 == 0)
            begin = c * 2048  # mqa_logits:7
            end = T.min(c * 2048 + 2048, T2)
            for i, _ in T.Parallel(2, 1):  # mqa_logits:8
                first_tile[i] = T.if_then_else(s + i < S, first[s + i], T.int32(2147483647))
            T.reduce_min(first_tile, first_min, dim=0)
            lo = T.min(T.max(first_min[0], begin), end)
            for i, _ in T.Parallel(2, 1):  # mqa_logits:9
                last_tile[i] = T.if_then_else(s + i < S, last[s + i], T.int32(-2147483648))
            T.reduce_max(last_tile, last_max, dim=0)
            hi = T.min(T.max(last_max[0], lo), end)
            for i, j, k2 in T.Parallel(2, 64, 128):  # mqa_logits:10
                query[i * 64 + j, k2] = T.if_then_else(s + i < S, q[s + i, j, k2], T.float8_e4m3fn(0.0))
            for i, j in T.Parallel(2, 64):
                weight[i, j] = T.if_then_else(s + i < S, w[s + i, j], T.float32(0.0))
            T.sync_threads()  # mqa_logits:11
            if lo < hi:
                for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # mqa_logits:12
                    k_tile[0, i, j] = T.if_then_else(lo + i < hi, k[lo + i, j], 0)
            T.ptx_commit_group()  # mqa_logits:11
            if lo + 64 < hi:
                for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # mqa_logits:12
                    k_tile[1, i, j] = T.if_then_else(lo + 64 + i < hi, k[lo + 64 + i, j], 0)
            T.ptx_commit_group()  # mqa_logits:11
            for t_block in T.serial(T.ceildiv(hi - lo, 64)):
                t = lo + t_block * 64
                if t + 128 < hi:
                    for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # mqa_logits:12
                        k_tile[(t_block + 2) % 3, i, j] = T.if_then_else(t + 128 + i < hi, k[t + 128 + i, j], 0)
                T.ptx_commit_group()  # mqa_logits:11
                T.ptx_wait_group(2)
                T.sync_threads()
                T.gemm(
                    k_tile[t_block % 3, :, :], query, query_dot_matrix, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullRow
                )  # mqa_logits:12
                for i, j, k2 in T.Parallel(64, 2, 64):
                    score[i, j, k2] = T.max(query_dot[i, j, k2], 0.0)
                for i, j in T.Parallel(64, 2):  # mqa_logits:13
                    inside[i, j] = first_tile[j] <= t + i and t + i < last_tile[j]
                for i, j, k2 in T.Parallel(64, 2, 64):  # mqa_logits:14
                    score_sum_terms[i, j, k2] = score[i, j, k2] * weight[j, k2]
                T.reduce_sum(score_sum_terms, score_sum, dim=2)
                for i, _ in T.Parallel(64, 1):
                    k_scale_tile[i] = T.if_then_else(t + i < hi, k_scale[t + i], T.float32(0.0))
                for i, j in T.Parallel(64, 2):
                    if t + i < hi and s + j < S:
                        out[s + j, t + i] = T.if_then_else(inside[i, j], score_sum[i, j] * k_scale_tile[i], -T.infinity("float32"))
                T.sync_threads()  # mqa_logits:11
            T.sync_threads()  # mqa_logits:16
            for t2_block in T.serial(T.ceildiv(lo - begin, 1024)):
                t2 = begin + t2_block * 1024
                T.sync_threads()  # mqa_logits:17
                for i, j in T.Parallel(2, 1024):
                    if s + i < S and t2 + j < lo:
                        out[s + i, t2 + j] = -T.infinity("float32")
            T.sync_threads()  # mqa_logits:18
            for t3_block in T.serial(T.ceildiv(end - hi, 1024)):
                t3 = hi + t3_block * 1024
                T.sync_threads()  # mqa_logits:19
                for i, j in T.Parallel(2, 1024):
                    if s + i < S and t3 + j < end:
                        out[s + i, t3 + j] = -T.infinity("float32")

    return mqa_logits
