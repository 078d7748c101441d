"""paged_mqa_logits for cuda:sm_90, in TileLang.

A block makes one b x one c; blocks run through the last index fastest.
P = 64, clean = False, C = 1024, D = 128, H = 64, X = 1.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and values divide by 16 bytes, last strides are 1, and also those of w and out.
7 accesses: 3 proved, 4 guarded by a tail.
4 warps.
x: 1, for a span of 1
h: 64, for a span of 64
d: 128, for a span of 128
t: 64, rows of a contraction
warps: 4, for accumulators and results of 4096 elements
stages: 2, the blocks that contractions read take 24576 bytes of 230400
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
        with T.Kernel(B * ((L + 1023) // 1024), threads=128) as pid:
            query = T.alloc_shared((64, 128), "float8_e4m3fn")
            weight = T.alloc_fragment((1, 64), "float32")
            key = T.alloc_shared((2, 64, 128), "float8_e4m3fn")
            page = T.alloc_fragment((64,), "int32")
            live = T.alloc_fragment((64,), "bool")
            key_scale = T.alloc_fragment((64,), "float32")
            query_dot_matrix = T.alloc_fragment((64, 64), "float32")
            query_dot = T.reshape(query_dot_matrix, (64, 1, 64))
            score = T.alloc_fragment((64, 1, 64), "float32")
            inside = T.alloc_fragment((64, 1), "bool")
            score_sum_terms = T.alloc_fragment((64, 1, 64), "float32")
            score_sum = T.alloc_fragment((64, 1), "float32")
            c = T.alloc_var("int32", T.truncmod(pid, (L + 1023) // 1024))  # paged_mqa_logits:9
            b = T.alloc_var("int32", T.truncdiv(pid, (L + 1023) // 1024))
            begin = c * 1024  # paged_mqa_logits:10
            end = T.min(c * 1024 + 1024, L)
            lengths_value = lengths[b]  # paged_mqa_logits:11
            last = T.min(T.max(lengths_value, begin), end)
            for i, j, k in T.Parallel(1, 64, 128):  # paged_mqa_logits:12
                query[j, k] = q[b, i, j, k]
            for i, j in T.Parallel(1, 64):
                weight[i, j] = w[b, i, j]
            T.sync_threads()  # paged_mqa_logits:13
            if begin < last:
                for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # paged_mqa_logits:16
                    key[0, i, j] = T.if_then_else(
                        T.cast(T.if_then_else(begin + i < last, table[b, T.truncdiv(begin + i, 64)], T.int32(0)), "uint32")
                        < T.cast(NB, "uint32")
                        and begin + i < last,
                        values[
                            T.if_then_else(begin + i < last, table[b, T.truncdiv(begin + i, 64)], T.int32(0)), T.truncmod(begin + i, 64), j
                        ],
                        0,
                    )
            T.ptx_commit_group()  # paged_mqa_logits:13
            for t_block in T.serial(T.ceildiv(last - begin, 64)):
                t = begin + t_block * 64
                if t + 64 < last:
                    for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):  # paged_mqa_logits:16
                        key[(t_block + 1) % 2, i, j] = T.if_then_else(
                            T.cast(T.if_then_else(t + 64 + i < last, table[b, T.truncdiv(t + 64 + i, 64)], T.int32(0)), "uint32")
                            < T.cast(NB, "uint32")
                            and t + 64 + i < last,
                            values[
                                T.if_then_else(t + 64 + i < last, table[b, T.truncdiv(t + 64 + i, 64)], T.int32(0)),
                                T.truncmod(t + 64 + i, 64),
                                j,
                            ],
                            0,
                        )
                T.ptx_commit_group()  # paged_mqa_logits:13
                T.ptx_wait_group(1)
                T.sync_threads()
                for i, _ in T.Parallel(64, 1):  # paged_mqa_logits:14
                    page[i] = T.if_then_else(t + i < last, table[b, T.truncdiv(t + i, 64)], T.int32(0))
                for i in T.Parallel(64):  # paged_mqa_logits:15
                    live[i] = T.cast(page[i], "uint32") < T.cast(NB, "uint32")
                for i, _ in T.Parallel(64, 1):  # paged_mqa_logits:16
                    key_scale[i] = T.if_then_else(live[i] & (t + i < last), scales[page[i], T.truncmod(t + i, 64)], T.float32(0.0))
                # paged_mqa_logits:17
                T.gemm(key[t_block % 2, :, :], query, query_dot_matrix, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullRow)
                for i, j, k in T.Parallel(64, 1, 64):
                    score[i, j, k] = T.max(query_dot[i, j, k], 0.0)
                for i, j in T.Parallel(64, 1, coalesced_width=T.int32(4)):  # paged_mqa_logits:18
                    inside[i, j] = T.cast(t + i, "int64") <= T.cast(lengths_value, "int64") - 1 + T.cast(j, "int64")
                for i, j, k in T.Parallel(64, 1, 64):  # paged_mqa_logits:19
                    score_sum_terms[i, j, k] = score[i, j, k] * weight[j, k]
                T.reduce_sum(score_sum_terms, score_sum, dim=2)
                for i, j in T.Parallel(64, 1):
                    if t + i < last:
                        out[b, j, t + i] = T.if_then_else(inside[i, j] & live[i], score_sum[i, j] * key_scale[i], -T.infinity("float32"))
                T.sync_threads()  # paged_mqa_logits:13

    return paged_mqa_logits
