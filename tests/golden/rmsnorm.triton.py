"""rmsnorm for cuda:sm_90, in Triton.

A program makes 4 m; programs run through the last index fastest.
Dimensions and offsets fit 32 bits; addresses, strides and rows of x, w and y divide by 16 bytes, last strides are 1.
A launch has checked that N % 1024 == 0.
4 accesses: 4 hoisted (N % 1024 == 0).
4 warps.
n.2: 1024, a loop along the innermost axis
n: 1024, a loop along the innermost axis
m: 4, what is left of 4096 elements
warps: 4, for 4096 elements of the widest value
"""

import triton
import triton.language as tl


@triton.jit
def rmsnorm(x, w, y, M, N, x_stride0, y_stride0, eps):
    m = tl.program_id(0) * 4 + tl.arange(0, 4)  # rmsnorm:2
    squares = tl.full((4,), 0.0, tl.float32)  # rmsnorm:3
    for n_start in range(0, N, 1024):  # rmsnorm:4
        n = n_start + tl.arange(0, 1024)
        x_tile = tl.load(x + m[:, None] * x_stride0 + n[None, :], mask=(m < M)[:, None], other=0.0)  # rmsnorm:5
        v = x_tile.to(tl.float32)
        v_sum = tl.sum(v * v, axis=1)  # rmsnorm:6
        squares = squares + v_sum
    scale = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(squares, N.to(tl.float32)) + eps))  # rmsnorm:7
    for n2_start in range(0, N, 1024):  # rmsnorm:8
        n2 = n2_start + tl.arange(0, 1024)
        x_tile_2 = tl.load(x + m[:, None] * x_stride0 + n2[None, :], mask=(m < M)[:, None], other=0.0)  # rmsnorm:9
        w_tile = tl.load(w + n2)
        tl.store(
            y + m[:, None] * y_stride0 + n2[None, :],
            (x_tile_2.to(tl.float32) * scale[:, None] * w_tile.to(tl.float32)[None, :]).to(tl.bfloat16),
            mask=(m < M)[:, None],
        )
