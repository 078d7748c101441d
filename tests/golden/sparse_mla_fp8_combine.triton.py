"""sparse_mla_fp8_combine for cuda:sm_90, in Triton.

A program makes one b x one x x 8 h; programs run through the last index fastest.
lse_unit = 0.6931471805599453, lse = None, sink = None.
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
def sparse_mla_fp8_combine(
    part,
    part_lse,
    o,
    X,
    G,
    H,
    part_stride0,
    part_stride1,
    part_stride2,
    part_stride3,
    part_lse_stride0,
    part_lse_stride1,
    part_lse_stride2,
    part_lse_stride3,
    o_stride0,
    o_stride1,
    o_stride2,
):
    pid = tl.program_id(0)
    h = pid % tl.cdiv(H, 8) * 8 + tl.arange(0, 8)  # sparse_mla_fp8_combine:4
    x = pid // tl.cdiv(H, 8) % X
    b = pid // tl.cdiv(H, 8) // X
    c = tl.arange(0, 512)  # sparse_mla_fp8_combine:3
    top = tl.full((8,), -3.4028234663852886e38, tl.float32)  # sparse_mla_fp8_combine:5
    for g in range(G):  # sparse_mla_fp8_combine:6
        part_lse_tile = tl.load(
            part_lse + b * part_lse_stride0 + x * part_lse_stride1 + g * part_lse_stride2 + h * part_lse_stride3, mask=h < H, other=0.0
        )  # sparse_mla_fp8_combine:7
        top = tl.maximum(top, part_lse_tile)
    total = tl.full((8,), 0.0, tl.float32)  # sparse_mla_fp8_combine:8
    acc = tl.full((8, 512), 0.0, tl.float32)
    for g2 in range(G):  # sparse_mla_fp8_combine:9
        part_lse_tile_2 = tl.load(
            part_lse + b * part_lse_stride0 + x * part_lse_stride1 + g2 * part_lse_stride2 + h * part_lse_stride3, mask=h < H, other=0.0
        )  # sparse_mla_fp8_combine:10
        weight = tl.exp2(part_lse_tile_2 - top)
        total = total + weight  # sparse_mla_fp8_combine:11
        part_tile = tl.load(
            part + b * part_stride0 + x * part_stride1 + g2 * part_stride2 + h[:, None] * part_stride3 + c[None, :],
            mask=(h < H)[:, None],
            other=0.0,
        )  # sparse_mla_fp8_combine:12
        acc = acc + weight[:, None] * part_tile
    share = total  # sparse_mla_fp8_combine:13
    norm = tl.div_rn(1.0, share)  # sparse_mla_fp8_combine:16
    tl.store(
        o + b * o_stride0 + x * o_stride1 + h[:, None] * o_stride2 + c[None, :],
        tl.where((total == 0.0)[:, None], 0.0, acc * norm[:, None]).to(tl.bfloat16),
        mask=(h < H)[:, None],
    )  # sparse_mla_fp8_combine:17
