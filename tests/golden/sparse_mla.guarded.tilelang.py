"""sparse_mla for cuda:sm_90, in TileLang.

A block makes one s x 64 h; blocks run through the last index fastest.
D = 512, R = 64, lse_unit = 0.6931471805599453, lse = None, length = None, limit = None, sink = None.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q, kv and o divide by 16 bytes, last strides are 1, and also those of idx.
6 accesses: 2 proved, 4 guarded by a tail.
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
    def sparse_mla(
        q_ptr: T.handle,
        kv_ptr: T.handle,
        idx_ptr: T.handle,
        o_ptr: T.handle,
        S: T.int32,
        H: T.int32,
        T2: T.int32,
        K: T.int32,
        q_stride0: T.int32,
        q_stride1: T.int32,
        kv_stride0: T.int32,
        idx_stride0: T.int32,
        o_stride0: T.int32,
        o_stride1: T.int32,
        scale: T.float32,
    ):
        q = T.make_tensor(q_ptr, (S, H, 576), "bfloat16", (q_stride0, q_stride1, 1))
        kv = T.make_tensor(kv_ptr, (T2, 576), "bfloat16", (kv_stride0, 1))
        idx = T.make_tensor(idx_ptr, (S, K), "int32", (idx_stride0, 1))
        o = T.make_tensor(o_ptr, (S, H, 512), "bfloat16", (o_stride0, o_stride1, 1))
        T.assume(q_stride0 % 8 == 0)
        T.assume(q_stride1 % 8 == 0)
        T.assume(kv_stride0 % 8 == 0)
        T.assume(o_stride0 % 8 == 0)
        T.assume(o_stride1 % 8 == 0)
        with T.Kernel(S * T.ceildiv(H, 64), threads=256) as pid:
            query = T.alloc_shared((64, 512), "bfloat16")
            query_r = T.alloc_shared((64, 64), "bfloat16")
            top = T.alloc_fragment((64,), "float32")
            total = T.alloc_fragment((64,), "float32")
            acc = T.alloc_fragment((64, 512), "float32")
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
            share = T.alloc_fragment((64,), "float32")
            norm = T.alloc_fragment((64,), "float32")
            h_block = T.alloc_var("int32", T.truncmod(pid, T.ceildiv(H, 64)))  # sparse_mla:5
            h = h_block * 64
            T.assume(h % 64 == 0)
            s = T.alloc_var("int32", T.truncdiv(pid, T.ceildiv(H, 64)))
            for i, j in T.Parallel(64, 512):  # sparse_mla:6
                query[i, j] = T.if_then_else(h + i < H, q[s, h + i, j], T.bfloat16(0.0))
            for i, j in T.Parallel(64, 64):
                query_r[i, j] = T.if_then_else(h + i < H, q[s, h + i, 512 + j], T.bfloat16(0.0))
            T.fill(top, T.float32(-3.4028234663852886e38))  # sparse_mla:7
            T.clear(total)
            T.clear(acc)
            T.sync_threads()  # sparse_mla:8
            if 0 < K:
                for i, j in T.Parallel(64, 512, annotations={"parallel_async_without_async_commit_wait": True}):  # sparse_mla:13
                    keys[0, i, j] = T.if_then_else(
                        T.cast(T.if_then_else(i < K, idx[s, i], T.int32(-1)), "uint32") < T.cast(T2, "uint32"),
                        kv[T.if_then_else(i < K, idx[s, i], T.int32(-1)), j],
                        0,
                    )
                for i, j in T.Parallel(64, 64, annotations={"parallel_async_without_async_commit_wait": True}):
                    rope[0, i, j] = T.if_then_else(
                        T.cast(T.if_then_else(i < K, idx[s, i], T.int32(-1)), "uint32") < T.cast(T2, "uint32"),
                        kv[T.if_then_else(i < K, idx[s, i], T.int32(-1)), 512 + j],
                        0,
                    )
            T.ptx_commit_group()  # sparse_mla:8
            for k_block in T.serial(T.ceildiv(K, 64)):
                k = k_block * 64
                if k + 64 < K:
                    for i, j in T.Parallel(64, 512, annotations={"parallel_async_without_async_commit_wait": True}):  # sparse_mla:13
                        keys[(k_block + 1) % 2, i, j] = T.if_then_else(
                            T.cast(T.if_then_else(k + 64 + i < K, idx[s, k + 64 + i], T.int32(-1)), "uint32") < T.cast(T2, "uint32"),
                            kv[T.if_then_else(k + 64 + i < K, idx[s, k + 64 + i], T.int32(-1)), j],
                            0,
                        )
                    for i, j in T.Parallel(64, 64, annotations={"parallel_async_without_async_commit_wait": True}):
                        rope[(k_block + 1) % 2, i, j] = T.if_then_else(
                            T.cast(T.if_then_else(k + 64 + i < K, idx[s, k + 64 + i], T.int32(-1)), "uint32") < T.cast(T2, "uint32"),
                            kv[T.if_then_else(k + 64 + i < K, idx[s, k + 64 + i], T.int32(-1)), 512 + j],
                            0,
                        )
                T.ptx_commit_group()  # sparse_mla:8
                T.ptx_wait_group(1)
                T.sync_threads()
                for i, _ in T.Parallel(64, 1):  # sparse_mla:9
                    t[i] = T.if_then_else(k + i < K, idx[s, k + i], T.int32(-1))
                for i in T.Parallel(64):  # sparse_mla:10
                    live[i] = T.cast(t[i], "uint32") < T.cast(T2, "uint32")
                # sparse_mla:14
                T.gemm(query, keys[k_block % 2, :, :], score_2, transpose_B=True, clear_accum=True, policy=T.GemmWarpPolicy.FullCol)
                T.gemm(query_r, rope[k_block % 2, :, :], score_2, transpose_B=True, policy=T.GemmWarpPolicy.FullCol)
                for i, j in T.Parallel(64, 64):  # sparse_mla:15
                    score[i, j] = T.if_then_else(live[j], score_2[i, j] * (scale * 1.4426950216293335), -T.infinity("float32"))
                T.reduce_max(score, score_max, dim=1)  # sparse_mla:16
                for i in T.Parallel(64):
                    new2[i] = T.max(top[i], score_max[i])
                for i, j in T.Parallel(64, 64):  # sparse_mla:17
                    p[i, j] = T.exp2(score[i, j] - new2[i])
                for i in T.Parallel(64):
                    fix[i] = T.exp2(top[i] - new2[i])
                T.reduce_sum(p, p_sum, dim=1)  # sparse_mla:18
                for i in T.Parallel(64):
                    total[i] = total[i] * fix[i] + p_sum[i]
                for i, j in T.Parallel(64, 64):  # sparse_mla:19
                    p_factor[i, j] = T.cast(p[i, j], "bfloat16")
                for i, j in T.Parallel(64, 512):
                    acc[i, j] = acc[i, j] * fix[i]
                T.gemm(p_factor, keys[k_block % 2, :, :], acc, policy=T.GemmWarpPolicy.FullCol)
                for i in T.Parallel(64):  # sparse_mla:20
                    top[i] = new2[i]
                T.sync_threads()  # sparse_mla:8
            for i in T.Parallel(64):  # sparse_mla:21
                share[i] = total[i]
            for i in T.Parallel(64):  # sparse_mla:24
                norm[i] = 1.0 / share[i]
            for i, j in T.Parallel(64, 512):  # sparse_mla:25
                if h + i < H:
                    o[s, h + i, j] = T.cast(T.if_then_else(total[i] == 0.0, T.float32(0.0), acc[i, j] * norm[i]), "bfloat16")

    return sparse_mla
