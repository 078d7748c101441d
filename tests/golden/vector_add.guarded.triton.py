"""vector_add for cuda:sm_90, in Triton.

A program makes 1024 n; programs run through the last index fastest.
Dimensions and offsets fit 32 bits; addresses, strides and rows of a, b and c divide by 16 bytes, last strides are 1.
3 accesses: 3 guarded by a tail.
2 warps.
n: 1024, the innermost axis, the only tile
warps: 2, for 1024 elements of the widest value
"""

import triton
import triton.language as tl


@triton.jit
def vector_add(a, b, c, N):
    n = tl.program_id(0) * 1024 + tl.arange(0, 1024)  # vector_add:2
    a_tile = tl.load(a + n, mask=n < N, other=0.0)  # vector_add:3
    b_tile = tl.load(b + n, mask=n < N, other=0.0)
    tl.store(c + n, a_tile + b_tile, mask=n < N)
