"""mqa_logits for cuda:sm_90, in TileLang.

A block makes one s x one c; blocks run through the last index fastest.
clean = True, C = 2048, D = 128, H = 64.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and k divide by 16 bytes, last strides are 1, and also those of k_scale, w, first, last and out.
9 accesses: 4 proved, 5 guarded by a tail.
4 warps.
h: 64, for a span of 64
d: 128, for a span of 128
t: 128, rows of a contraction
s: 1, columns of a contraction
t.3: 1024, a loop along the innermost axis
t.2: 1024, a loop along the innermost axis
warps: 4, for accumulators and results of 8192 elements
stages: 3, the blocks that contractions read take 57344 bytes of 230400
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
        with T.Kernel(S * ((T2 + 2047) // 2048), threads=128) as pid:
            first_tile = T.alloc_fragment((1,), "int32")
            first_min = T.alloc_fragment((1,), "int32")
            last_tile = T.alloc_fragment((1,), "int32")
            last_max = T.alloc_fragment((1,), "int32")
            query = T.alloc_shared((64, 128), "float8_e4m3fn")
            weight = T.alloc_fragment((1, 64), "float32")
            k_tile = T.alloc_shared((3, 128, 128), "float8_e4m3fn")
            query_dot_matrix = T.alloc_fragment((128, 64), "float32")
            query_dot = T.reshape(query_dot_matrix, (128, 1, 64))
            score = T.alloc_fragment((128, 1, 64), "float32")
            inside = T.alloc_fragment((128, 1), "bool")
            score_sum_terms = T.alloc_fragment((128, 1, 64), "float32")
            score_sum = T.alloc_fragment((128, 1), "float32")
            k_scale_tile = T.alloc_fragment((128,), "float32")
            c = T.alloc_var("int32", T.truncmod(pid, (T2 + 2047) // 2048))  # mqa_logits:6
            s = T.alloc_var("int32", T.truncdiv(pid, (T2 + 2047) // 2048))
            begin = c * 2048  # mqa_logits:7
            end = T.min(c * 2048 + 2048, T2)
            for i in T.Parallel(1):  # mqa_logits:8
                first_tile[i] = first[s + i]
            T.reduce_min(first_tile, first_min, dim=0)
            lo = T.min(T.max(first_min[0], begin), end)
            for i in T.Parallel(1):  # mqa_logits:9
                last_tile[i] = last[s + i]
            T.reduce_max(last_tile, last_max, dim=0)
            hi = T.min(T.max(last_max[0], lo), end)
            for i, j, k2 in T.Parallel(1, 64, 128):  # mqa_logits:10
                query[j, k2] = q[s + i, j, k2]
            for i, j in T.Parallel(1, 64):
                weight[i, j] = w[s + i, j]
            T.sync_threads()  # mqa_logits:11
            if lo < hi:
                for i, j in T.Parallel(128, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # mqa_logits:12
                    k_tile[0, i, j] = T.if_then_else(lo + i < hi, k[lo + i, j], 0)
            T.ptx_commit_group()  # mqa_logits:11
            if lo + 128 < hi:
                for i, j in T.Parallel(128, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # mqa_logits:12
                    k_tile[1, i, j] = T.if_then_else(lo + 128 + i < hi, k[lo + 128 + i, j], 0)
            T.ptx_commit_group()  # mqa_logits:11
            for t_block in T.serial(T.ceildiv(hi - lo, 128)):
                t = lo + t_block * 128
                if t + 256 < hi:
                    for i, j in T.Parallel(128, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # mqa_logits:12
                        k_tile[(t_block + 2) % 3, i, j] = T.if_then_else(t + 256 + i < hi, k[t + 256 + i, j], 0)
                T.ptx_commit_group()  # mqa_logits:11
                T.ptx_wait_group(2)
                T.sync_threads()
                T.gemm(
                    k_tile[t_block % 3, :, :], query, query_dot_matrix, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullRow
                )  # mqa_logits:12
                for i, j, k2 in T.Parallel(128, 1, 64):
                    score[i, j, k2] = T.max(query_dot[i, j, k2], 0.0)
                for i, j in T.Parallel(128, 1):  # mqa_logits:13
                    inside[i, j] = first_tile[j] <= t + i and t + i < last_tile[j]
                for i, j, k2 in T.Parallel(128, 1, 64):  # mqa_logits:14
                    score_sum_terms[i, j, k2] = score[i, j, k2] * weight[j, k2]
                T.reduce_sum(score_sum_terms, score_sum, dim=2)
                for i in T.Parallel(128):
                    k_scale_tile[i] = T.if_then_else(t + i < hi, k_scale[t + i], T.float32(0.0))
                for i, j in T.Parallel(128, 1):
                    if t + i < hi:
                        out[s + j, t + i] = T.if_then_else(inside[i, j], score_sum[i, j] * k_scale_tile[i], -T.infinity("float32"))
                T.sync_threads()  # mqa_logits:11
            T.sync_threads()  # mqa_logits:16
            for t2_block in T.serial(T.ceildiv(lo - begin, 1024)):
                t2 = begin + t2_block * 1024
                T.sync_threads()  # mqa_logits:17
                for i, j in T.Parallel(1, 1024):
                    if t2 + j < lo:
                        out[s + i, t2 + j] = -T.infinity("float32")
            T.sync_threads()  # mqa_logits:18
            for t3_block in T.serial(T.ceildiv(end - hi, 1024)):
                t3 = hi + t3_block * 1024
                T.sync_threads()  # mqa_logits:19
                for i, j in T.Parallel(1, 1024):
                    if t3 + j < end:
                        out[s + i, t3 + j] = -T.infinity("float32")

    return mqa_logits
