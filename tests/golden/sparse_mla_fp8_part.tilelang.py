"""sparse_mla_fp8_part for cuda:sm_90, in TileLang.

A block makes one b x one x x one g x 64 h; blocks run through the last index fastest.
length = None.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q, part, values and ropes divide by 16 bytes, last strides are 1, and also those of idx and lse.
8 accesses: 3 proved, 5 guarded by a tail.
8 warps.
c: 512, for a span of 512
r: 64, for a span of 64
k: 64, summed over by a contraction, 128 bytes of a row
h: 64, rows of a contraction
warps: 8, for accumulators and results of 36864 elements
stages: 2, the blocks that contractions read take 163840 bytes of 230400
c_first: 4, the first of every 128 of c
"""

import tilelang.language as T


def entry():
    @T.prim_func
    def sparse_mla_fp8_part(
        q_ptr: T.handle,
        cache_ptr: T.handle,
        idx_ptr: T.handle,
        part_ptr: T.handle,
        lse_ptr: T.handle,
        values_ptr: T.handle,
        scales_ptr: T.handle,
        ropes_ptr: T.handle,
        B: T.int32,
        X: T.int32,
        H: T.int32,
        NB: T.int32,
        P: T.int32,
        K: T.int32,
        G: T.int32,
        q_stride0: T.int32,
        q_stride1: T.int32,
        q_stride2: T.int32,
        idx_stride0: T.int32,
        idx_stride1: T.int32,
        part_stride0: T.int32,
        part_stride1: T.int32,
        part_stride2: T.int32,
        part_stride3: T.int32,
        lse_stride0: T.int32,
        lse_stride1: T.int32,
        lse_stride2: T.int32,
        values_stride0: T.int32,
        values_stride1: T.int32,
        scales_stride0: T.int32,
        scales_stride1: T.int32,
        scales_stride2: T.int32,
        ropes_stride0: T.int32,
        ropes_stride1: T.int32,
        scale: T.float32,
    ):
        q = T.make_tensor(q_ptr, (B, X, H, 576), "bfloat16", (q_stride0, q_stride1, q_stride2, 1))
        idx = T.make_tensor(idx_ptr, (B, X, K), "int32", (idx_stride0, idx_stride1, 1))
        part = T.make_tensor(part_ptr, (B, X, G, H, 512), "float32", (part_stride0, part_stride1, part_stride2, part_stride3, 1))
        lse = T.make_tensor(lse_ptr, (B, X, G, H), "float32", (lse_stride0, lse_stride1, lse_stride2, 1))
        values = T.make_tensor(values_ptr, (NB, P, 512), "float8_e4m3fn", (values_stride0, values_stride1, 1))
        scales = T.make_tensor(scales_ptr, (NB, P, 4), "float32", (scales_stride0, scales_stride1, scales_stride2))
        ropes = T.make_tensor(ropes_ptr, (NB, P, 64), "bfloat16", (ropes_stride0, ropes_stride1, 1))
        T.assume(q_stride0 % 8 == 0)
        T.assume(q_stride1 % 8 == 0)
        T.assume(q_stride2 % 8 == 0)
        T.assume(part_stride0 % 4 == 0)
        T.assume(part_stride1 % 4 == 0)
        T.assume(part_stride2 % 4 == 0)
        T.assume(part_stride3 % 4 == 0)
        T.assume(values_stride0 % 16 == 0)
        T.assume(values_stride1 % 16 == 0)
        T.assume(ropes_stride0 % 8 == 0)
        T.assume(ropes_stride1 % 8 == 0)
        with T.Kernel(B * X * G * T.ceildiv(H, 64), threads=256) as pid:
            query = T.alloc_shared((64, 512), "bfloat16")
            query_r = T.alloc_shared((64, 64), "bfloat16")
            top = T.alloc_fragment((64,), "float32")
            total = T.alloc_fragment((64,), "float32")
            acc = T.alloc_fragment((64, 512), "float32")
            part_2 = T.alloc_var("int32")
            rest = T.alloc_var("int32")
            t = T.alloc_fragment((64,), "int32")
            remainder = T.alloc_fragment((64,), "int32")
            page = T.alloc_shared((2, 64), "int64", scope="shared")
            remainder_2 = T.alloc_fragment((64,), "int32")
            slot = T.alloc_shared((2, 64), "int64", scope="shared")
            live = T.alloc_shared((2, 64), "bool", scope="shared")
            scales_group = T.alloc_shared((2, 64, 4), "float32")
            values_tile = T.alloc_shared((2, 64, 512), "float8_e4m3fn")
            keys = T.alloc_shared((64, 512), "bfloat16")
            rope = T.alloc_shared((64, 64), "bfloat16")
            score_2 = T.alloc_fragment((64, 64), "float32")
            score = T.alloc_fragment((64, 64), "float32")
            score_max = T.alloc_fragment((64,), "float32")
            new2 = T.alloc_fragment((64,), "float32")
            p = T.alloc_fragment((64, 64), "float32")
            fix = T.alloc_fragment((64,), "float32")
            p_sum = T.alloc_fragment((64,), "float32")
            p_factor = T.alloc_shared((64, 64), "bfloat16")
            norm = T.alloc_fragment((64,), "float32")
            h_block = T.alloc_var("int32", T.truncmod(pid, T.ceildiv(H, 64)))  # sparse_mla_fp8_part:7
            h = h_block * 64
            T.assume(h % 64 == 0)
            g = T.alloc_var("int32", T.truncmod(T.truncdiv(pid, T.ceildiv(H, 64)), G))
            x = T.alloc_var("int32", T.truncmod(T.truncdiv(T.truncdiv(pid, T.ceildiv(H, 64)), G), X))
            b = T.alloc_var("int32", T.truncdiv(T.truncdiv(T.truncdiv(pid, T.ceildiv(H, 64)), G), X))
            for i, j in T.Parallel(64, 512):  # sparse_mla_fp8_part:8
                query[i, j] = T.if_then_else(h + i < H, q[b, x, h + i, j], T.bfloat16(0.0))
            for i, j in T.Parallel(64, 64):
                query_r[i, j] = T.if_then_else(h + i < H, q[b, x, h + i, 512 + j], T.bfloat16(0.0))
            T.fill(top, T.float32(-3.4028234663852886e38))  # sparse_mla_fp8_part:9
            T.clear(total)
            T.clear(acc)
            part_2 = T.truncdiv(K, G)  # sparse_mla_fp8_part:10
            rest = T.truncmod(K, G)
            lo = T.cast(g, "int64") * T.cast(part_2, "int64") + T.cast(T.min(g, rest), "int64")
            hi = T.cast(g + 1, "int64") * T.cast(part_2, "int64") + T.cast(T.min(g + 1, rest), "int64")
            k_begin = T.cast(T.min(lo, 2147352575), "int32")  # sparse_mla_fp8_part:11
            k_end = T.cast(T.min(hi, 2147352575), "int32")
            T.sync_threads()
            if k_begin < k_end:
                for i, _ in T.Parallel(64, 1):  # sparse_mla_fp8_part:12
                    t[i] = T.if_then_else(T.cast(k_begin + i, "int64") < hi, idx[b, x, k_begin + i], T.int32(-1))
                for i in T.Parallel(64):  # sparse_mla_fp8_part:13
                    remainder[i] = T.truncmod(t[i], P)
                for i in T.Parallel(64):
                    page[0, i] = T.cast(T.truncdiv(t[i], P), "int64") - T.cast(T.cast(remainder[i] < 0, "int32"), "int64")
                for i in T.Parallel(64):
                    remainder_2[i] = T.truncmod(t[i], P)
                for i, _ in T.Parallel(64, 1):
                    slot[0, i] = T.if_then_else(
                        remainder_2[i] < 0, T.cast(remainder_2[i], "int64") + T.cast(P, "int64"), T.cast(remainder_2[i], "int64")
                    )
                for i in T.Parallel(64):  # sparse_mla_fp8_part:14
                    live[0, i] = 0 <= t[i] and page[0, i] < T.cast(NB, "int64")
            T.sync_threads()  # sparse_mla_fp8_part:11
            if k_begin < k_end:
                for i, j in T.Parallel(64, 4, annotations={"parallel_async_without_async_commit_wait": True}):  # sparse_mla_fp8_part:15
                    scales_group[0, i, j] = T.if_then_else(
                        live[0, i], scales[T.cast(page[0, i], "int32"), T.cast(slot[0, i], "int32"), T.truncdiv(j * 128, 128)], 0
                    )
                for i, j in T.Parallel(64, 512, annotations={"parallel_async_without_async_commit_wait": True}):
                    values_tile[0, i, j] = T.if_then_else(
                        live[0, i], values[T.cast(page[0, i], "int32"), T.cast(slot[0, i], "int32"), j], 0
                    )
            T.ptx_commit_group()  # sparse_mla_fp8_part:11
            for k_block in T.serial(T.ceildiv(k_end - k_begin, 64)):
                k = k_begin + k_block * 64
                if k + 64 < k_end:
                    for i, _ in T.Parallel(64, 1):  # sparse_mla_fp8_part:12
                        t[i] = T.if_then_else(T.cast(k + 64 + i, "int64") < hi, idx[b, x, k + 64 + i], T.int32(-1))
                    for i in T.Parallel(64):  # sparse_mla_fp8_part:13
                        remainder[i] = T.truncmod(t[i], P)
                    for i in T.Parallel(64):
                        page[(k_block + 1) % 2, i] = T.cast(T.truncdiv(t[i], P), "int64") - T.cast(
                            T.cast(remainder[i] < 0, "int32"), "int64"
                        )
                    for i in T.Parallel(64):
                        remainder_2[i] = T.truncmod(t[i], P)
                    for i, _ in T.Parallel(64, 1):
                        slot[(k_block + 1) % 2, i] = T.if_then_else(
                            remainder_2[i] < 0, T.cast(remainder_2[i], "int64") + T.cast(P, "int64"), T.cast(remainder_2[i], "int64")
                        )
                    for i in T.Parallel(64):  # sparse_mla_fp8_part:14
                        live[(k_block + 1) % 2, i] = 0 <= t[i] and page[(k_block + 1) % 2, i] < T.cast(NB, "int64")
                T.sync_threads()  # sparse_mla_fp8_part:11
                if k + 64 < k_end:
                    for i, j in T.Parallel(64, 4, annotations={"parallel_async_without_async_commit_wait": True}):  # sparse_mla_fp8_part:15
                        scales_group[(k_block + 1) % 2, i, j] = T.if_then_else(
                            live[(k_block + 1) % 2, i],
                            scales[
                                T.cast(page[(k_block + 1) % 2, i], "int32"),
                                T.cast(slot[(k_block + 1) % 2, i], "int32"),
                                T.truncdiv(j * 128, 128),
                            ],
                            0,
                        )
                    for i, j in T.Parallel(64, 512, annotations={"parallel_async_without_async_commit_wait": True}):
                        values_tile[(k_block + 1) % 2, i, j] = T.if_then_else(
                            live[(k_block + 1) % 2, i],
                            values[T.cast(page[(k_block + 1) % 2, i], "int32"), T.cast(slot[(k_block + 1) % 2, i], "int32"), j],
                            0,
                        )
                T.ptx_commit_group()  # sparse_mla_fp8_part:11
                T.ptx_wait_group(1)
                T.sync_threads()
                for i, j in T.Parallel(64, 512):  # sparse_mla_fp8_part:15
                    keys[i, j] = T.if_then_else(
                        live[k_block % 2, i],
                        T.cast(T.cast(values_tile[k_block % 2, i, j], "float32") * scales_group[k_block % 2, i, j // 128], "bfloat16"),
                        T.bfloat16(0.0),
                    )
                for i, j in T.Parallel(64, 64):  # sparse_mla_fp8_part:16
                    rope[i, j] = T.if_then_else(
                        live[k_block % 2, i],
                        ropes[T.cast(page[k_block % 2, i], "int32"), T.cast(slot[k_block % 2, i], "int32"), j],
                        T.bfloat16(0.0),
                    )
                T.gemm(query, keys, score_2, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullCol)  # sparse_mla_fp8_part:17
                T.gemm(query_r, rope, score_2, transpose_B=True, policy=T.GemmWarpPolicy.FullCol)
                for i, j in T.Parallel(64, 64):  # sparse_mla_fp8_part:18
                    score[i, j] = T.if_then_else(live[k_block % 2, j], score_2[i, j] * (scale * 1.4426950216293335), -T.infinity("float32"))
                T.reduce_max(score, score_max, dim=1)  # sparse_mla_fp8_part:19
                for i in T.Parallel(64):
                    new2[i] = T.max(top[i], score_max[i])
                for i, j in T.Parallel(64, 64):  # sparse_mla_fp8_part:20
                    p[i, j] = T.exp2(score[i, j] - new2[i])
                for i in T.Parallel(64):
                    fix[i] = T.exp2(top[i] - new2[i])
                T.reduce_sum(p, p_sum, dim=1)  # sparse_mla_fp8_part:21
                for i in T.Parallel(64):
                    total[i] = total[i] * fix[i] + p_sum[i]
                for i, j in T.Parallel(64, 64):  # sparse_mla_fp8_part:22
                    p_factor[i, j] = T.cast(p[i, j], "bfloat16")
                for i, j in T.Parallel(64, 512):
                    acc[i, j] = acc[i, j] * fix[i]
                T.gemm(p_factor, keys, acc, policy=T.GemmWarpPolicy.FullCol)
                for i in T.Parallel(64):  # sparse_mla_fp8_part:23
                    top[i] = new2[i]
                T.sync_threads()  # sparse_mla_fp8_part:11
            for i in T.Parallel(64):  # sparse_mla_fp8_part:24
                norm[i] = 1.0 / total[i]
            for i, j in T.Parallel(64, 512):  # sparse_mla_fp8_part:25
                if h + i < H:
                    part[b, x, g, h + i, j] = T.if_then_else(total[i] == 0.0, T.float32(0.0), acc[i, j] * norm[i])
            for i, _ in T.Parallel(64, 1):  # sparse_mla_fp8_part:26
                if h + i < H:
                    lse[b, x, g, h + i] = T.if_then_else(total[i] == 0.0, -T.infinity("float32"), top[i] + T.log2(total[i]))

    return sparse_mla_fp8_part
