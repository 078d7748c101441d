"""swiglu_quant for cuda:sm_90, in Triton.

A program makes 32 m x one g; programs run through the last index fastest.
G = 128, ue8m0 = False.
Dimensions and offsets fit 32 bits; addresses, strides and rows of x and y divide by 16 bytes, last strides are 1.
4 accesses: 4 guarded by a tail.
4 warps.
n: 128, for a span of 128
m: 32, what is left of 4096 elements
warps: 4, for 4096 elements of the widest value
"""

import triton
import triton.language as tl


@triton.jit
def swiglu_quant(x, y, s, M, H, x_stride0, y_stride0, s_stride0, s_stride1):
    pid = tl.program_id(0)
    g = pid % (H // 128)  # swiglu_quant:3
    m = pid // (H // 128) * 32 + tl.arange(0, 32)
    n = g * 128 + tl.arange(0, 128)  # swiglu_quant:4
    x_tile = tl.load(x + m[:, None] * x_stride0 + n[None, :], mask=(m < M)[:, None], other=0.0)  # swiglu_quant:5
    gate = x_tile.to(tl.float32)
    x_tile_2 = tl.load(x + m[:, None] * x_stride0 + (H + n)[None, :], mask=(m < M)[:, None], other=0.0)
    up = x_tile_2.to(tl.float32)
    v = tl.div_rn(gate, 1.0 + tl.exp(gate * -1.0)) * up  # swiglu_quant:6
    v_max = tl.max(tl.abs(v), axis=1)  # swiglu_quant:7
    scale = tl.maximum(v_max, 9.999999747378752e-05) * 0.0022321429569274187
    tl.store(
        y + m[:, None] * y_stride0 + n[None, :],
        tl.minimum(tl.maximum(tl.div_rn(v, scale[:, None]), -448.0), 448.0).to(tl.float8e4nv),
        mask=(m < M)[:, None],
    )  # swiglu_quant:10
    tl.store(s + m * s_stride0 + g * s_stride1, scale, mask=m < M)  # swiglu_quant:11
