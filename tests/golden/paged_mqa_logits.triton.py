"""paged_mqa_logits for cuda:sm_90, in Triton.

A program makes one b x one c; programs run through the last index fastest.
P = 64, clean = False, C = 1024, D = 128, H = 64, X = 1.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and values divide by 16 bytes, last strides are 1, and also those of w and out.
7 accesses: 3 proved, 4 guarded by a tail.
4 warps.
x: 1, for a span of 1
h: 64, for a span of 64
d: 128, for a span of 128
t: 64, rows of a contraction
warps: 4, for accumulators and results of 4096 elements
stages: 2, the blocks that contractions read take 24576 bytes of 230400
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
    c = pid % ((L + 1023) // 1024)  # paged_mqa_logits:9
    b = pid // ((L + 1023) // 1024)
    x = tl.arange(0, 1)  # paged_mqa_logits:8
    h = tl.arange(0, 64)
    d = tl.arange(0, 128)
    begin = c * 1024  # paged_mqa_logits:10
    end = tl.minimum(c * 1024 + 1024, L)
    lengths_value = tl.load(lengths + b * lengths_stride0)  # paged_mqa_logits:11
    last = tl.minimum(tl.maximum(lengths_value, begin), end)
    # paged_mqa_logits:12
    query = tl.load(q + b * q_stride0 + x[:, None, None] * q_stride1 + h[None, :, None] * q_stride2 + d[None, None, :])
    weight = tl.load(w + b * w_stride0 + x[:, None] * w_stride1 + h[None, :])
    for t_start in range(begin, last, 64):  # paged_mqa_logits:13
        t = t_start + tl.arange(0, 64)
        page = tl.load(table + b * table_stride0 + t // 64 * table_stride1, mask=t < last, other=0)  # paged_mqa_logits:14
        live = page.to(tl.uint32) < NB.to(tl.uint32)  # paged_mqa_logits:15
        key = tl.load(
            values + page[:, None] * values_stride0 + (t % 64)[:, None] * values_stride1 + d[None, :],
            mask=(live & (t < last))[:, None],
            other=0.0,
        )  # paged_mqa_logits:16
        key_scale = tl.load(scales + page * scales_stride0 + t % 64 * scales_stride1, mask=live & (t < last), other=0.0)
        query_dot = tl.reshape(tl.dot(key, tl.trans(tl.reshape(query, (64, 128)))), (64, 1, 64))  # paged_mqa_logits:17
        score = tl.maximum(query_dot, 0.0)
        inside = t.to(tl.int64)[:, None] <= (lengths_value.to(tl.int64) - 1 + x.to(tl.int64))[None, :]  # paged_mqa_logits:18
        score_sum = tl.sum(score * weight[None, :, :], axis=2)  # paged_mqa_logits:19
        tl.store(
            out + b * out_stride0 + x[None, :] * out_stride1 + t[:, None],
            tl.where(inside & live[:, None], (score_sum + 0.0) * key_scale[:, None], float("-inf")),
            mask=(t < last)[:, None],
        )
