"""combine for cuda:sm_90, in Triton.

A program makes one s x 8 h; programs run through the last index fastest.
lse_unit = 0.6931471805599453, D = 512, lse = None, sink = None.
Dimensions and offsets fit 32 bits; addresses, strides and rows of part and o divide by 16 bytes, last strides are 1.
4 accesses: 4 guarded by a tail.
4 warps.
c: 512, for a span of 512
h: 8, what is left of 4096 elements
warps: 4, for 4096 elements of the widest value
"""

import triton
import triton.language as tl


@triton.jit
def combine(
    part,
    part_lse,
    o,
    P,
    H,
    part_stride0,
    part_stride1,
    part_stride2,
    part_lse_stride0,
    part_lse_stride1,
    part_lse_stride2,
    o_stride0,
    o_stride1,
):
    pid = tl.program_id(0)
    h = pid % tl.cdiv(H, 8) * 8 + tl.arange(0, 8)  # combine:4
    s = pid // tl.cdiv(H, 8)
    c = tl.arange(0, 512)  # combine:3
    top = tl.full((8,), -3.4028234663852886e38, tl.float32)  # combine:5
    for g in range(P):  # combine:6
        # combine:7
        part_lse_tile = tl.load(part_lse + s * part_lse_stride0 + g * part_lse_stride1 + h * part_lse_stride2, mask=h < H, other=0.0)
        top = tl.maximum(top, part_lse_tile)
    total = tl.full((8,), 0.0, tl.float32)  # combine:8
    acc = tl.full((8, 512), 0.0, tl.float32)
    for g2 in range(P):  # combine:9
        # combine:10
        part_lse_tile_2 = tl.load(part_lse + s * part_lse_stride0 + g2 * part_lse_stride1 + h * part_lse_stride2, mask=h < H, other=0.0)
        weight = tl.exp2(part_lse_tile_2 - top)
        total = total + weight  # combine:11
        part_tile = tl.load(
            part + s * part_stride0 + g2 * part_stride1 + h[:, None] * part_stride2 + c[None, :], mask=(h < H)[:, None], other=0.0
        )  # combine:12
        acc = acc + weight[:, None] * part_tile
    share = total  # combine:13
    norm = tl.div_rn(1.0, share)  # combine:16
    tl.store(
        o + s * o_stride0 + h[:, None] * o_stride1 + c[None, :],
        tl.where((total == 0.0)[:, None], 0.0, acc * norm[:, None]).to(tl.bfloat16),
        mask=(h < H)[:, None],
    )  # combine:17
