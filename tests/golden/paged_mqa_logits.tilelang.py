"""paged_mqa_logits for cuda:sm_90, in TileLang.

A block makes one b x 128 t; blocks run through the last index fastest.
P = 64, clean = False, D = 128, H = 64, X = 1.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and values divide by 16 bytes, last strides are 1, and also those of w and out.
7 accesses: 3 proved, 4 guarded by a tail.
4 warps.
x: 1, for a span of 1
h: 64, for a span of 64
d: 128, for a span of 128
t: 128, rows of a contraction
warps: 4, for accumulators and results of 8192 elements
stages: 1, the blocks that contractions read take 24576 bytes of 230400
"""

import tilelang.language as T


def entry():
    @T.prim_func
    def paged_mqa_logits(
        q_ptr: T.handle,
        cache_ptr: T.handle,
        w_ptr: T.handle,
        lengths_ptr: T.handle,
        table_ptr: T.handle,
        out_ptr: T.handle,
        values_ptr: T.handle,
        scales_ptr: T.handle,
        B: T.int32,
        NB: T.int32,
        W: T.int32,
        L: T.int32,
        q_stride0: T.int32,
        q_stride1: T.int32,
        q_stride2: T.int32,
        w_stride0: T.int32,
        w_stride1: T.int32,
        lengths_stride0: T.int32,
        table_stride0: T.int32,
        table_stride1: T.int32,
        out_stride0: T.int32,
        out_stride1: T.int32,
        values_stride0: T.int32,
        values_stride1: T.int32,
        scales_stride0: T.int32,
        scales_stride1: T.int32,
    ):
        q = T.make_tensor(q_ptr, (B, 1, 64, 128), "float8_e4m3fn", (q_stride0, q_stride1, q_stride2, 1))
        w = T.make_tensor(w_ptr, (B, 1, 64), "float32", (w_stride0, w_stride1, 1))
        lengths = T.make_tensor(lengths_ptr, (B,), "int32", (lengths_stride0,))
        table = T.make_tensor(table_ptr, (B, W), "int32", (table_stride0, table_stride1))
        out = T.make_tensor(out_ptr, (B, 1, L), "float32", (out_stride0, out_stride1, 1))
        values = T.make_tensor(values_ptr, (NB, 64, 128), "float8_e4m3fn", (values_stride0, values_stride1, 1))
        scales = T.make_tensor(scales_ptr, (NB, 64), "float32", (scales_stride0, scales_stride1))
        T.assume(q_stride0 % 16 == 0)
        T.assume(q_stride1 % 16 == 0)
        T.assume(q_stride2 % 16 == 0)
        T.assume(values_stride0 % 16 == 0)
        T.assume(values_stride1 % 16 == 0)
        with T.Kernel(B * T.ceildiv(L, 128), threads=128) as pid:
            inside = T.alloc_fragment((128, 1), "bool")
            inside_max_terms = T.alloc_fragment((128, 1), "int32")
            inside_max_t = T.alloc_fragment((128,), "int32")
            inside_max = T.alloc_fragment((1,), "int32")
            inside_max_t_shared = T.alloc_shared((128,), "int32")
            page = T.alloc_shared((128,), "int32", scope="shared")
            live = T.alloc_shared((128,), "bool", scope="shared")
            key = T.alloc_shared((128, 128), "float8_e4m3fn")
            key_scale = T.alloc_fragment((128,), "float32")
            q_tile = T.alloc_shared((64, 128), "float8_e4m3fn")
            q_dot_matrix = T.alloc_fragment((128, 64), "float32")
            q_dot = T.reshape(q_dot_matrix, (128, 1, 64))
            score = T.alloc_fragment((128, 1, 64), "float32")
            w_tile = T.alloc_fragment((1, 64), "float32")
            score_sum_terms = T.alloc_fragment((128, 1, 64), "float32")
            score_sum = T.alloc_fragment((128, 1), "float32")
            t_block = T.alloc_var("int32", T.truncmod(pid, T.ceildiv(L, 128)))  # paged_mqa_logits:9
            t = t_block * 128
            T.assume(t % 128 == 0)
            b = T.alloc_var("int32", T.truncdiv(pid, T.ceildiv(L, 128)))
            lengths_value = lengths[b]  # paged_mqa_logits:10
            for i, j in T.Parallel(128, 1, coalesced_width=T.int32(4)):
                inside[i, j] = T.cast(t + i, "int64") <= T.cast(lengths_value, "int64") - 1 + T.cast(j, "int64")
            for i, j in T.Parallel(128, 1):  # paged_mqa_logits:11
                inside_max_terms[i, j] = T.cast((t + i < L) & inside[i, j], "int32")
            T.reduce_max(inside_max_terms, inside_max_t, dim=1)
            for i in T.Parallel(128):
                inside_max_t_shared[i] = inside_max_t[i]
            T.reduce_max(inside_max_t_shared, inside_max, dim=0)
            T.sync_threads()
            if inside_max[0] != 0:
                for i in T.Parallel(128):  # paged_mqa_logits:12
                    page[i] = T.if_then_else(t + i < L, table[b, T.truncdiv(t + i, 64)], T.int32(0))
                for i in T.Parallel(128):  # paged_mqa_logits:13
                    live[i] = t + i < lengths_value and 0 <= page[i] and page[i] < NB
                for i, j in T.Parallel(128, 128):  # paged_mqa_logits:14
                    key[i, j] = T.if_then_else(live[i] & (t + i < L), values[page[i], T.truncmod(t + i, 64), j], T.float8_e4m3fn(0.0))
                for i in T.Parallel(128):
                    key_scale[i] = T.if_then_else(live[i] & (t + i < L), scales[page[i], T.truncmod(t + i, 64)], T.float32(0.0))
                for i, j, k in T.Parallel(1, 64, 128):  # paged_mqa_logits:15
                    q_tile[j, k] = q[b, i, j, k]
                T.gemm(key, q_tile, q_dot_matrix, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullRow)
                for i, j, k in T.Parallel(128, 1, 64):
                    score[i, j, k] = T.max(q_dot[i, j, k], 0.0)
                for i, j in T.Parallel(1, 64):  # paged_mqa_logits:16
                    w_tile[i, j] = w[b, i, j]
                for i, j, k in T.Parallel(128, 1, 64):
                    score_sum_terms[i, j, k] = score[i, j, k] * w_tile[j, k]
                T.reduce_sum(score_sum_terms, score_sum, dim=2)
                for i, j in T.Parallel(128, 1):
                    if t + i < L:
                        out[b, j, t + i] = T.if_then_else(inside[i, j] & live[i], score_sum[i, j] * key_scale[i], -T.infinity("float32"))

    return paged_mqa_logits
