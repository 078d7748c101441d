"""rmsnorm for cuda:sm_90, in TileLang.

A block makes 4 m; blocks run through the last index fastest.
Dimensions and offsets fit 32 bits; addresses, strides and rows of x, w and y divide by 16 bytes, last strides are 1.
4 accesses: 4 guarded by a tail.
4 warps.
n.2: 1024, a loop along the innermost axis
n: 1024, a loop along the innermost axis
m: 4, what is left of 4096 elements
warps: 4, for 4096 elements of the widest value
"""

import tilelang.language as T


def entry():
    @T.prim_func
    def rmsnorm(
        x_ptr: T.handle, w_ptr: T.handle, y_ptr: T.handle, M: T.int32, N: T.int32, x_stride0: T.int32, y_stride0: T.int32, eps: T.float32
    ):
        x = T.make_tensor(x_ptr, (M, N), "bfloat16", (x_stride0, 1))
        w = T.make_tensor(w_ptr, (N,), "bfloat16", (1,))
        y = T.make_tensor(y_ptr, (M, N), "bfloat16", (y_stride0, 1))
        T.assume(N % 8 == 0)
        T.assume(x_stride0 % 8 == 0)
        T.assume(y_stride0 % 8 == 0)
        with T.Kernel(T.ceildiv(M, 4), threads=128) as pid:
            squares = T.alloc_fragment((4,), "float32")
            x_tile = T.alloc_fragment((4, 1024), "bfloat16")
            v = T.alloc_fragment((4, 1024), "float32")
            v_sum_terms = T.alloc_fragment((4, 1024), "float32")
            v_sum = T.alloc_fragment((4,), "float32")
            scale = T.alloc_fragment((4,), "float32")
            x_tile_2 = T.alloc_fragment((4, 1024), "bfloat16")
            w_tile = T.alloc_fragment((1024,), "bfloat16")
            m = pid * 4  # rmsnorm:2
            T.clear(squares)  # rmsnorm:3
            for n_block in T.serial(T.ceildiv(N, 1024)):  # rmsnorm:4
                n = n_block * 1024
                for i, j in T.Parallel(4, 1024):  # rmsnorm:5
                    x_tile[i, j] = T.if_then_else(m + i < M and n + j // 8 * 8 < N, x[m + i, n + j], T.bfloat16(0.0))
                for i, j in T.Parallel(4, 1024):
                    v[i, j] = T.cast(x_tile[i, j], "float32")
                for i, j in T.Parallel(4, 1024):  # rmsnorm:6
                    v_sum_terms[i, j] = v[i, j] * v[i, j]
                T.reduce_sum(v_sum_terms, v_sum, dim=1)
                for i in T.Parallel(4):
                    squares[i] = squares[i] + v_sum[i]
            for i in T.Parallel(4):  # rmsnorm:7
                scale[i] = 1.0 / T.sqrt(squares[i] / T.cast(N, "float32") + eps)
            for n2_block in T.serial(T.ceildiv(N, 1024)):  # rmsnorm:8
                n2 = n2_block * 1024
                for i, j in T.Parallel(4, 1024):  # rmsnorm:9
                    x_tile_2[i, j] = T.if_then_else(m + i < M and n2 + j // 8 * 8 < N, x[m + i, n2 + j], T.bfloat16(0.0))
                for i in T.Parallel(1024):
                    w_tile[i] = T.if_then_else(n2 + i // 8 * 8 < N, w[n2 + i], T.bfloat16(0.0))
                for i, j in T.Parallel(4, 1024):
                    if m + i < M and n2 + j // 8 * 8 < N:
                        y[m + i, n2 + j] = T.cast(T.cast(x_tile_2[i, j], "float32") * scale[i] * T.cast(w_tile[j], "float32"), "bfloat16")

    return rmsnorm
