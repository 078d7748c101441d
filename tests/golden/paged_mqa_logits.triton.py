"""paged_mqa_logits for cuda:sm_90, in Triton.

A program makes one b x 256 t; programs run through the last index fastest.
P = 64, clean = False, D = 128, H = 64, X = 1.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and values divide by 16 bytes, last strides are 1, and also those of w and out.
7 accesses: 3 proved, 4 guarded by a tail.
4 warps.
x: 1, for a span of 1
h: 64, for a span of 64
d: 128, for a span of 128
t: 256, rows of a contraction
warps: 4, for accumulators and results of 16384 elements
stages: 1, the blocks that contractions read take 40960 bytes of 230400
"""

import triton
import triton.language as tl


@triton.jit
def paged_mqa_logits(
    q,
    cache,
    w,
    lengths,
    table,
    out,
    values,
    scales,
    NB,
    L,
    q_stride0,
    q_stride1,
    q_stride2,
    w_stride0,
    w_stride1,
    lengths_stride0,
    table_stride0,
    table_stride1,
    out_stride0,
    out_stride1,
    values_stride0,
    values_stride1,
    scales_stride0,
    scales_stride1,
):
    pid = tl.program_id(0)
    t = pid % tl.cdiv(L, 256) * 256 + tl.arange(0, 256)  # paged_mqa_logits:9
    b = pid // tl.cdiv(L, 256)
    x = tl.arange(0, 1)  # paged_mqa_logits:8
    h = tl.arange(0, 64)
    d = tl.arange(0, 128)
    lengths_value = tl.load(lengths + b * lengths_stride0)  # paged_mqa_logits:10
    inside = t.to(tl.int64)[:, None] <= (lengths_value.to(tl.int64) - 1 + x.to(tl.int64))[None, :]
    inside_max = tl.max(((t < L)[:, None] & inside).to(tl.int32))  # paged_mqa_logits:11
    if inside_max != 0:
        page = tl.load(table + b * table_stride0 + t // 64 * table_stride1, mask=t < L, other=0)  # paged_mqa_logits:12
        live = (t < lengths_value) & (0 <= page) & (page < NB)  # paged_mqa_logits:13
        key = tl.load(
            values + page[:, None] * values_stride0 + (t % 64)[:, None] * values_stride1 + d[None, :],
            mask=(live & (t < L))[:, None],
            other=0.0,
        )  # paged_mqa_logits:14
        key_scale = tl.load(scales + page * scales_stride0 + t % 64 * scales_stride1, mask=live & (t < L), other=0.0)
        # paged_mqa_logits:15
        q_tile = tl.load(q + b * q_stride0 + x[:, None, None] * q_stride1 + h[None, :, None] * q_stride2 + d[None, None, :])
        q_dot = tl.reshape(tl.dot(key, tl.trans(tl.reshape(q_tile, (64, 128)))), (256, 1, 64))
        score = tl.maximum(q_dot, 0.0)
        w_tile = tl.load(w + b * w_stride0 + x[:, None] * w_stride1 + h[None, :])  # paged_mqa_logits:16
        score_sum = tl.sum(score * w_tile[None, :, :], axis=2)
        tl.store(
            out + b * out_stride0 + x[None, :] * out_stride1 + t[:, None],
            tl.where(inside & live[:, None], (score_sum + 0.0) * key_scale[:, None], float("-inf")),
            mask=(t < L)[:, None],
        )
