"""matmul for cuda:sm_90, in TileLang.

A block makes 128 m x 128 n; blocks run through the last index fastest.
T = bf16.
Dimensions and offsets fit 32 bits; addresses, strides and rows of a, b and c divide by 16 bytes, last strides are 1.
A launch has checked that N % 128 == 0 and K % 64 == 0.
3 accesses: 3 hoisted (N % 128 == 0 and K % 64 == 0).
4 warps.
k: 64, summed over by a contraction, 128 bytes of a row
m: 128, rows of a contraction
n: 128, columns of a contraction
warps: 4, for accumulators and results of 16384 elements
stages: 3, the blocks that contractions read take 98304 bytes of 230400
"""

import tilelang.language as T


def entry():
    @T.prim_func
    def matmul(
        a_ptr: T.handle,
        b_ptr: T.handle,
        c_ptr: T.handle,
        M: T.int32,
        K: T.int32,
        N: T.int32,
        a_stride0: T.int32,
        b_stride0: T.int32,
        c_stride0: T.int32,
    ):
        a = T.make_tensor(a_ptr, (M, K), "bfloat16", (a_stride0, 1))
        b = T.make_tensor(b_ptr, (K, N), "bfloat16", (b_stride0, 1))
        c = T.make_tensor(c_ptr, (M, N), "bfloat16", (c_stride0, 1))
        T.assume(K % 16 == 0)
        T.assume(N % 16 == 0)
        T.assume(a_stride0 % 8 == 0)
        T.assume(b_stride0 % 8 == 0)
        T.assume(c_stride0 % 8 == 0)
        with T.Kernel(T.ceildiv(M, 128) * T.ceildiv(N, 128), threads=128) as pid:
            acc = T.alloc_fragment((128, 128), "float32")
            a_tile = T.alloc_shared((3, 128, 64), "bfloat16")
            b_tile = T.alloc_shared((3, 64, 128), "bfloat16")
            n_block = T.alloc_var("int32", T.truncmod(pid, T.ceildiv(N, 128)))  # matmul:2
            n = n_block * 128
            T.assume(n % 128 == 0)
            m_block = T.alloc_var("int32", T.truncdiv(pid, T.ceildiv(N, 128)))
            m = m_block * 128
            T.assume(m % 128 == 0)
            T.clear(acc)  # matmul:3
            T.sync_threads()  # matmul:4
            if 0 < K:
                for i, j in T.Parallel(128, 64, annotations={"parallel_async_without_async_commit_wait": True}):  # matmul:5
                    a_tile[0, i, j] = T.if_then_else(m + i < M, a[m + i, j], 0)
                for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):
                    b_tile[0, i, j] = b[i, n + j]
            T.ptx_commit_group()  # matmul:4
            if 64 < K:
                for i, j in T.Parallel(128, 64, annotations={"parallel_async_without_async_commit_wait": True}):  # matmul:5
                    a_tile[1, i, j] = T.if_then_else(m + i < M, a[m + i, 64 + j], 0)
                for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):
                    b_tile[1, i, j] = b[64 + i, n + j]
            T.ptx_commit_group()  # matmul:4
            for k_block in T.serial(T.ceildiv(K, 64)):
                k = k_block * 64
                if k + 128 < K:
                    for i, j in T.Parallel(128, 64, annotations={"parallel_async_without_async_commit_wait": True}):  # matmul:5
                        a_tile[(k_block + 2) % 3, i, j] = T.if_then_else(m + i < M, a[m + i, k + 128 + j], 0)
                    for i, j in T.Parallel(64, 128, annotations={"parallel_async_without_async_commit_wait": True}):
                        b_tile[(k_block + 2) % 3, i, j] = b[k + 128 + i, n + j]
                T.ptx_commit_group()  # matmul:4
                T.ptx_wait_group(2)
                T.sync_threads()
                T.gemm(a_tile[k_block % 3, :, :], b_tile[k_block % 3, :, :], acc, policy=T.GemmWarpPolicy.FullRow)  # matmul:5
                T.sync_threads()  # matmul:4
            for i, j in T.Parallel(128, 128):  # matmul:6
                if m + i < M:
                    c[m + i, n + j] = T.cast(acc[i, j], "bfloat16")

    return matmul
