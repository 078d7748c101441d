"""mqa_logits for cuda:sm_90, in TileLang.

A block makes one s x 128 t; blocks run through the last index fastest.
clean = True, D = 128, H = 64.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and k divide by 16 bytes, last strides are 1, and also those of k_scale, w, first, last and out.
8 accesses: 4 proved, 4 guarded by a tail.
4 warps.
h: 64, for a span of 64
d: 128, for a span of 128
t: 128, rows of a contraction
s: 1, columns of a contraction
warps: 4, for accumulators and results of 8192 elements
stages: 1, the blocks that contractions read take 24576 bytes of 230400
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
        with T.Kernel(S * T.ceildiv(T2, 128), threads=128) as pid:
            first_tile = T.alloc_fragment((1,), "int32")
            last_tile = T.alloc_fragment((1,), "int32")
            inside = T.alloc_fragment((128, 1), "bool")
            inside_max_terms = T.alloc_fragment((128, 1), "int32")
            inside_max_t = T.alloc_fragment((128,), "int32")
            inside_max = T.alloc_fragment((1,), "int32")
            inside_max_t_shared = T.alloc_shared((128,), "int32")
            q_tile = T.alloc_shared((64, 128), "float8_e4m3fn")
            k_tile = T.alloc_shared((128, 128), "float8_e4m3fn")
            q_dot_matrix = T.alloc_fragment((128, 64), "float32")
            q_dot = T.reshape(q_dot_matrix, (128, 1, 64))
            score = T.alloc_fragment((128, 1, 64), "float32")
            w_tile = T.alloc_fragment((1, 64), "float32")
            score_sum_terms = T.alloc_fragment((128, 1, 64), "float32")
            score_sum = T.alloc_fragment((128, 1), "float32")
            k_scale_tile = T.alloc_fragment((128,), "float32")
            t_block = T.alloc_var("int32", T.truncmod(pid, T.ceildiv(T2, 128)))  # mqa_logits:6
            t = t_block * 128
            T.assume(t % 128 == 0)
            s = T.alloc_var("int32", T.truncdiv(pid, T.ceildiv(T2, 128)))
            for i in T.Parallel(1):  # mqa_logits:7
                first_tile[i] = first[s + i]
            for i in T.Parallel(1):
                last_tile[i] = last[s + i]
            for i, j in T.Parallel(128, 1):
                inside[i, j] = first_tile[j] <= t + i and t + i < last_tile[j]
            for i, j in T.Parallel(128, 1):  # mqa_logits:8
                inside_max_terms[i, j] = T.cast((t + i < T2) & inside[i, j], "int32")
            T.reduce_max(inside_max_terms, inside_max_t, dim=1)
            for i in T.Parallel(128):
                inside_max_t_shared[i] = inside_max_t[i]
            T.reduce_max(inside_max_t_shared, inside_max, dim=0)
            T.sync_threads()
            if inside_max[0] != 0:
                for i, j, k2 in T.Parallel(1, 64, 128):  # mqa_logits:9
                    q_tile[j, k2] = q[s + i, j, k2]
                for i, j in T.Parallel(128, 128):
                    k_tile[i, j] = T.if_then_else(t + i < T2, k[t + i, j], T.float8_e4m3fn(0.0))
                T.gemm(k_tile, q_tile, q_dot_matrix, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullRow)
                for i, j, k2 in T.Parallel(128, 1, 64):
                    score[i, j, k2] = T.max(q_dot[i, j, k2], 0.0)
                for i, j in T.Parallel(1, 64):  # mqa_logits:10
                    w_tile[i, j] = w[s + i, j]
                for i, j, k2 in T.Parallel(128, 1, 64):
                    score_sum_terms[i, j, k2] = score[i, j, k2] * w_tile[j, k2]
                T.reduce_sum(score_sum_terms, score_sum, dim=2)
                for i in T.Parallel(128):
                    k_scale_tile[i] = T.if_then_else(t + i < T2, k_scale[t + i], T.float32(0.0))
                for i, j in T.Parallel(128, 1):
                    if t + i < T2:
                        out[s + j, t + i] = T.if_then_else(inside[i, j], score_sum[i, j] * k_scale_tile[i], -T.infinity("float32"))
            else:
                for i, j in T.Parallel(128, 1):  # mqa_logits:12
                    if t + i < T2:
                        out[s + j, t + i] = -T.infinity("float32")

    return mqa_logits
