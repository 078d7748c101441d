"""sparse_mla_part for cuda:sm_90, in TileLang.

A block makes one s x one g x 64 h; blocks run through the last index fastest.
D = 512, R = 64, length = None.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q, kv and part divide by 16 bytes, last strides are 1, and also those of idx and lse.
7 accesses: 2 proved, 5 guarded by a tail.
8 warps.
c: 512, for a span of 512
r: 64, for a span of 64
k: 64, summed over by a contraction, 128 bytes of a row
h: 64, rows of a contraction
warps: 8, for accumulators and results of 36864 elements
stages: 2, the blocks that contractions read take 229376 bytes of 230400
"""

import tilelang.language as T


def entry():
    @T.prim_func
    def sparse_mla_part(
        q_ptr: T.handle,
        kv_ptr: T.handle,
        idx_ptr: T.handle,
        part_ptr: T.handle,
        lse_ptr: T.handle,
        S: T.int32,
        H: T.int32,
        T2: T.int32,
        K: T.int32,
        P: T.int32,
        q_stride0: T.int32,
        q_stride1: T.int32,
        kv_stride0: T.int32,
        idx_stride0: T.int32,
        part_stride0: T.int32,
        part_stride1: T.int32,
        part_stride2: T.int32,
        lse_stride0: T.int32,
        lse_stride1: T.int32,
        scale: T.float32,
    ):
        q = T.make_tensor(q_ptr, (S, H, 576), "bfloat16", (q_stride0, q_stride1, 1))
        kv = T.make_tensor(kv_ptr, (T2, 576), "bfloat16", (kv_stride0, 1))
        idx = T.make_tensor(idx_ptr, (S, K), "int32", (idx_stride0, 1))
        part = T.make_tensor(part_ptr, (S, P, H, 512), "float32", (part_stride0, part_stride1, part_stride2, 1))
        lse = T.make_tensor(lse_ptr, (S, P, H), "float32", (lse_stride0, lse_stride1, 1))
        T.assume(q_stride0 % 8 == 0)
        T.assume(q_stride1 % 8 == 0)
        T.assume(kv_stride0 % 8 == 0)
        T.assume(part_stride0 % 4 == 0)
        T.assume(part_stride1 % 4 == 0)
        T.assume(part_stride2 % 4 == 0)
        with T.Kernel(S * P * T.ceildiv(H, 64), threads=256) as pid:
            query = T.alloc_shared((64, 512), "bfloat16")
            query_r = T.alloc_shared((64, 64), "bfloat16")
            top = T.alloc_fragment((64,), "float32")
            total = T.alloc_fragment((64,), "float32")
            acc = T.alloc_fragment((64, 512), "float32")
            part_2 = T.alloc_var("int32")
            rest = T.alloc_var("int32")
            keys = T.alloc_shared((2, 64, 512), "bfloat16")
            rope = T.alloc_shared((2, 64, 64), "bfloat16")
            t = T.alloc_fragment((64,), "int32")
            live = T.alloc_fragment((64,), "bool")
            score_2 = T.alloc_fragment((64, 64), "float32")
            score = T.alloc_fragment((64, 64), "float32")
            score_max = T.alloc_fragment((64,), "float32")
            new2 = T.alloc_fragment((64,), "float32")
            p = T.alloc_fragment((64, 64), "float32")
            fix = T.alloc_fragment((64,), "float32")
            p_sum = T.alloc_fragment((64,), "float32")
            p_factor = T.alloc_shared((64, 64), "bfloat16")
            norm = T.alloc_fragment((64,), "float32")
            h_block = T.alloc_var("int32", T.truncmod(pid, T.ceildiv(H, 64)))  # sparse_mla_part:4
            h = h_block * 64
            T.assume(h % 64 == 0)
            g = T.alloc_var("int32", T.truncmod(T.truncdiv(pid, T.ceildiv(H, 64)), P))
            s = T.alloc_var("int32", T.truncdiv(T.truncdiv(pid, T.ceildiv(H, 64)), P))
            for i, j in T.Parallel(64, 512):  # sparse_mla_part:5
                query[i, j] = T.if_then_else(h + i < H, q[s, h + i, j], T.bfloat16(0.0))
            for i, j in T.Parallel(64, 64):
                query_r[i, j] = T.if_then_else(h + i < H, q[s, h + i, 512 + j], T.bfloat16(0.0))
            T.fill(top, T.float32(-3.4028234663852886e38))  # sparse_mla_part:6
            T.clear(total)
            T.clear(acc)
            part_2 = T.truncdiv(K, P)  # sparse_mla_part:7
            rest = T.truncmod(K, P)
            lo = T.cast(g, "int64") * T.cast(part_2, "int64") + T.cast(T.min(g, rest), "int64")
            hi = T.cast(g + 1, "int64") * T.cast(part_2, "int64") + T.cast(T.min(g + 1, rest), "int64")
            k_begin = T.cast(T.min(lo, 2147352575), "int32")  # sparse_mla_part:8
            k_end = T.cast(T.min(hi, 2147352575), "int32")
            T.sync_threads()
            if k_begin < k_end:
                for i, j in T.Parallel(64, 512, annotations={"parallel_async_without_async_commit_wait": True}):  # sparse_mla_part:11
                    keys[0, i, j] = T.if_then_else(
                        T.cast(T.if_then_else(T.cast(k_begin + i, "int64") < hi, idx[s, k_begin + i], T.int32(-1)), "uint32")
                        < T.cast(T2, "uint32"),
                        kv[T.if_then_else(T.cast(k_begin + i, "int64") < hi, idx[s, k_begin + i], T.int32(-1)), j],
                        0,
                    )
                for i, j in T.Parallel(64, 64, annotations={"parallel_async_without_async_commit_wait": True}):
                    rope[0, i, j] = T.if_then_else(
                        T.cast(T.if_then_else(T.cast(k_begin + i, "int64") < hi, idx[s, k_begin + i], T.int32(-1)), "uint32")
                        < T.cast(T2, "uint32"),
                        kv[T.if_then_else(T.cast(k_begin + i, "int64") < hi, idx[s, k_begin + i], T.int32(-1)), 512 + j],
                        0,
                    )
            T.ptx_commit_group()  # sparse_mla_part:8
            for k_block in T.serial(T.ceildiv(k_end - k_begin, 64)):
                k = k_begin + k_block * 64
                if k + 64 < k_end:
                    for i, j in T.Parallel(64, 512, annotations={"parallel_async_without_async_commit_wait": True}):  # sparse_mla_part:11
                        keys[(k_block + 1) % 2, i, j] = T.if_then_else(
                            T.cast(T.if_then_else(T.cast(k + 64 + i, "int64") < hi, idx[s, k + 64 + i], T.int32(-1)), "uint32")
                            < T.cast(T2, "uint32"),
                            kv[T.if_then_else(T.cast(k + 64 + i, "int64") < hi, idx[s, k + 64 + i], T.int32(-1)), j],
                            0,
                        )
                    for i, j in T.Parallel(64, 64, annotations={"parallel_async_without_async_commit_wait": True}):
                        rope[(k_block + 1) % 2, i, j] = T.if_then_else(
                            T.cast(T.if_then_else(T.cast(k + 64 + i, "int64") < hi, idx[s, k + 64 + i], T.int32(-1)), "uint32")
                            < T.cast(T2, "uint32"),
                            kv[T.if_then_else(T.cast(k + 64 + i, "int64") < hi, idx[s, k + 64 + i], T.int32(-1)), 512 + j],
                            0,
                        )
                T.ptx_commit_group()  # sparse_mla_part:8
                T.ptx_wait_group(1)
                T.sync_threads()
                for i, _ in T.Parallel(64, 1):  # sparse_mla_part:9
                    t[i] = T.if_then_else(T.cast(k + i, "int64") < hi, idx[s, k + i], T.int32(-1))
                for i in T.Parallel(64):  # sparse_mla_part:10
                    live[i] = T.cast(t[i], "uint32") < T.cast(T2, "uint32")
                # sparse_mla_part:12
                T.gemm(query, keys[k_block % 2, :, :], score_2, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullCol)
                T.gemm(query_r, rope[k_block % 2, :, :], score_2, transpose_B=True, policy=T.GemmWarpPolicy.FullCol)
                for i, j in T.Parallel(64, 64):  # sparse_mla_part:13
                    score[i, j] = T.if_then_else(live[j], score_2[i, j] * (scale * 1.4426950216293335), -T.infinity("float32"))
                T.reduce_max(score, score_max, dim=1)  # sparse_mla_part:14
                for i in T.Parallel(64):
                    new2[i] = T.max(top[i], score_max[i])
                for i, j in T.Parallel(64, 64):  # sparse_mla_part:15
                    p[i, j] = T.exp2(score[i, j] - new2[i])
                for i in T.Parallel(64):
                    fix[i] = T.exp2(top[i] - new2[i])
                T.reduce_sum(p, p_sum, dim=1)  # sparse_mla_part:16
                for i in T.Parallel(64):
                    total[i] = total[i] * fix[i] + p_sum[i]
                for i, j in T.Parallel(64, 64):  # sparse_mla_part:17
                    p_factor[i, j] = T.cast(p[i, j], "bfloat16")
                for i, j in T.Parallel(64, 512):
                    acc[i, j] = acc[i, j] * fix[i]
                T.gemm(p_factor, keys[k_block % 2, :, :], acc, policy=T.GemmWarpPolicy.FullCol)
                for i in T.Parallel(64):  # sparse_mla_part:18
                    top[i] = new2[i]
                T.sync_threads()  # sparse_mla_part:8
            for i in T.Parallel(64):  # sparse_mla_part:19
                norm[i] = 1.0 / total[i]
            for i, j in T.Parallel(64, 512):  # sparse_mla_part:20
                if h + i < H:
                    part[s, g, h + i, j] = T.if_then_else(total[i] == 0.0, T.float32(0.0), acc[i, j] * norm[i])
            for i, _ in T.Parallel(64, 1):  # sparse_mla_part:21
                if h + i < H:
                    lse[s, g, h + i] = T.if_then_else(total[i] == 0.0, -T.infinity("float32"), top[i] + T.log2(total[i]))

    return sparse_mla_part
