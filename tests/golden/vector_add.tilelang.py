"""vector_add for cuda:sm_90, in TileLang.

A block makes 1024 n; blocks run through the last index fastest.
Dimensions and offsets fit 32 bits; addresses, strides and rows of a, b and c divide by 16 bytes, last strides are 1.
A launch has checked that N % 1024 == 0.
3 accesses: 3 hoisted (N % 1024 == 0).
2 warps.
n: 1024, the innermost axis, the only tile
warps: 2, for 1024 elements of the widest value
"""

import tilelang.language as T


def entry():
    @T.prim_func
    def vector_add(a_ptr: T.handle, b_ptr: T.handle, c_ptr: T.handle, N: T.int32):
        a = T.make_tensor(a_ptr, (N,), "float32", (1,))
        b = T.make_tensor(b_ptr, (N,), "float32", (1,))
        c = T.make_tensor(c_ptr, (N,), "float32", (1,))
        T.assume(N % 16 == 0)
        with T.Kernel(T.ceildiv(N, 1024), threads=64) as pid:
            a_tile = T.alloc_fragment((1024,), "float32")
            b_tile = T.alloc_fragment((1024,), "float32")
            n = pid * 1024  # vector_add:2
            for i in T.Parallel(1024):  # vector_add:3
                a_tile[i] = a[n + i]
            for i in T.Parallel(1024):
                b_tile[i] = b[n + i]
            for i in T.Parallel(1024):
                c[n + i] = a_tile[i] + b_tile[i]

    return vector_add
