"""sparse_mla_fp8_part for cuda:sm_90, in Triton.

A program makes one b x one x x one g x 64 h; programs run through the last index fastest.
length = None.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q, part, values and ropes divide by 16 bytes, last strides are 1, and also those of idx and lse.
8 accesses: 3 proved, 5 guarded by a tail.
8 warps.
c: 512, for a span of 512
r: 64, for a span of 64
k: 64, summed over by a contraction, 128 bytes of a row
h: 64, rows of a contraction
warps: 8, for accumulators and results of 36864 elements
stages: 1, the blocks that contractions read take 155648 bytes of 230400
c_first: 4, the first of every 128 of c
"""

import triton
import triton.language as tl


@triton.jit
def sparse_mla_fp8_part(
    q,
    cache,
    idx,
    part,
    lse,
    values,
    scales,
    ropes,
    X,
    H,
    NB,
    P,
    K,
    G,
    q_stride0,
    q_stride1,
    q_stride2,
    idx_stride0,
    idx_stride1,
    part_stride0,
    part_stride1,
    part_stride2,
    part_stride3,
    lse_stride0,
    lse_stride1,
    lse_stride2,
    values_stride0,
    values_stride1,
    scales_stride0,
    scales_stride1,
    scales_stride2,
    ropes_stride0,
    ropes_stride1,
    scale,
):
    pid = tl.program_id(0)
    h = pid % tl.cdiv(H, 64) * 64 + tl.arange(0, 64)  # sparse_mla_fp8_part:7
    g = pid // tl.cdiv(H, 64) % G
    x = pid // tl.cdiv(H, 64) // G % X
    b = pid // tl.cdiv(H, 64) // G // X
    c = tl.arange(0, 512)  # sparse_mla_fp8_part:6
    c_first = tl.arange(0, 4) * 128
    r = tl.arange(0, 64)
    # sparse_mla_fp8_part:8
    query = tl.load(q + b * q_stride0 + x * q_stride1 + h[:, None] * q_stride2 + c[None, :], mask=(h < H)[:, None], other=0.0)
    query_r = tl.load(q + b * q_stride0 + x * q_stride1 + h[:, None] * q_stride2 + (512 + r)[None, :], mask=(h < H)[:, None], other=0.0)
    top = tl.full((64,), -3.4028234663852886e38, tl.float32)  # sparse_mla_fp8_part:9
    total = tl.full((64,), 0.0, tl.float32)
    acc = tl.full((64, 512), 0.0, tl.float32)
    part_2 = K // G  # sparse_mla_fp8_part:10
    rest = K % G
    lo = g.to(tl.int64) * part_2.to(tl.int64) + tl.minimum(g, rest).to(tl.int64)
    hi = (g + 1).to(tl.int64) * part_2.to(tl.int64) + tl.minimum(g + 1, rest).to(tl.int64)
    for k_start in range(
        tl.minimum(lo, tl.full((), 2147352575, tl.int64)).to(tl.int32), tl.minimum(hi, tl.full((), 2147352575, tl.int64)).to(tl.int32), 64
    ):  # sparse_mla_fp8_part:11
        k = k_start + tl.arange(0, 64)
        t = tl.load(idx + b * idx_stride0 + x * idx_stride1 + k, mask=k.to(tl.int64) < hi, other=-1)  # sparse_mla_fp8_part:12
        remainder = t % P  # sparse_mla_fp8_part:13
        page = (t // P).to(tl.int64) - (remainder < 0).to(tl.int32).to(tl.int64)
        remainder_2 = t % P
        slot = tl.where(remainder_2 < 0, remainder_2.to(tl.int64) + P.to(tl.int64), remainder_2.to(tl.int64))
        live = (0 <= t) & (page < NB.to(tl.int64))  # sparse_mla_fp8_part:14
        scales_group = tl.load(
            scales
            + page.to(tl.int32)[:, None] * scales_stride0
            + slot.to(tl.int32)[:, None] * scales_stride1
            + (c_first // 128)[None, :] * scales_stride2,
            mask=live[:, None],
            other=0.0,
        )  # sparse_mla_fp8_part:15
        values_tile = tl.load(
            values + page.to(tl.int32)[:, None] * values_stride0 + slot.to(tl.int32)[:, None] * values_stride1 + c[None, :],
            mask=live[:, None],
            other=0.0,
        )
        keys = tl.where(
            live[:, None],
            (values_tile.to(tl.float32) * tl.reshape(tl.broadcast_to(scales_group[:, :, None], (64, 4, 128)), (64, 512))).to(tl.bfloat16),
            0.0,
        )
        rope = tl.load(
            ropes + page.to(tl.int32)[:, None] * ropes_stride0 + slot.to(tl.int32)[:, None] * ropes_stride1 + r[None, :],
            mask=live[:, None],
            other=0.0,
        )  # sparse_mla_fp8_part:16
        query_dot = tl.dot(query, tl.trans(keys))  # sparse_mla_fp8_part:17
        score = tl.dot(query_r, tl.trans(rope), query_dot)
        score = tl.where(live[None, :], score * (scale * 1.4426950216293335), float("-inf"))  # sparse_mla_fp8_part:18
        score_max = tl.max(score, axis=1)  # sparse_mla_fp8_part:19
        new = tl.maximum(top, score_max)
        p = tl.exp2(score - new[:, None])  # sparse_mla_fp8_part:20
        fix = tl.exp2(top - new)
        p_sum = tl.sum(p, axis=1)  # sparse_mla_fp8_part:21
        total = total * fix + p_sum
        p_factor = p.to(tl.bfloat16)  # sparse_mla_fp8_part:22
        acc = tl.dot(p_factor, keys, acc * fix[:, None])
        top = new  # sparse_mla_fp8_part:23
    norm = tl.div_rn(1.0, total)  # sparse_mla_fp8_part:24
    tl.store(
        part + b * part_stride0 + x * part_stride1 + g * part_stride2 + h[:, None] * part_stride3 + c[None, :],
        tl.where((total == 0.0)[:, None], 0.0, acc * norm[:, None]),
        mask=(h < H)[:, None],
    )  # sparse_mla_fp8_part:25
    tl.store(
        lse + b * lse_stride0 + x * lse_stride1 + g * lse_stride2 + h,
        tl.where(total == 0.0, float("-inf"), top + tl.log2(total)),
        mask=h < H,
    )  # sparse_mla_fp8_part:26
