"""mqa_logits for cuda:sm_90, in Triton.

A program makes 2 s x one c; programs run through the last index fastest.
clean = True, C = 2048, D = 128, H = 64.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and k divide by 16 bytes, last strides are 1, and also those of k_scale, w, first, last and out.
9 accesses: 9 guarded by a tail.
4 warps.
h: 64, for a span of 64
d: 128, for a span of 128
t: 64, rows of a contraction
s: 2, columns of a contraction
t.3: 1024, a loop along the innermost axis
t.2: 1024, a loop along the innermost axis
warps: 4, for accumulators and results of 8192 elements
stages: 3, the blocks that contractions read take 40960 bytes of 230400
"""

import triton
import triton.language as tl


@triton.jit
def mqa_logits(q, k, k_scale, w, first, last, out, S, T, q_stride0, q_stride1, k_stride0, w_stride0, out_stride0):
    pid = tl.program_id(0)
    c = pid % ((T + 2047) // 2048)  # mqa_logits:6
    s = pid // ((T + 2047) // 2048) * 2 + tl.arange(0, 2)
    h = tl.arange(0, 64)  # mqa_logits:5
    d = tl.arange(0, 128)
    begin = c * 2048  # mqa_logits:7
    end = tl.minimum(c * 2048 + 2048, T)
    first_tile = tl.load(first + s, mask=s < S, other=2147483647)  # mqa_logits:8
    first_min = tl.min(first_tile, axis=0)
    lo = tl.minimum(tl.maximum(first_min, begin), end)
    last_tile = tl.load(last + s, mask=s < S, other=-2147483648)  # mqa_logits:9
    last_max = tl.max(last_tile, axis=0)
    hi = tl.minimum(tl.maximum(last_max, lo), end)
    query = tl.load(
        q + s[:, None, None] * q_stride0 + h[None, :, None] * q_stride1 + d[None, None, :], mask=(s < S)[:, None, None], other=0.0
    )  # mqa_logits:10
    weight = tl.load(w + s[:, None] * w_stride0 + h[None, :], mask=(s < S)[:, None], other=0.0)
    for t_start in range(lo, hi, 64):  # mqa_logits:11
        t = t_start + tl.arange(0, 64)
        k_tile = tl.load(k + t[:, None] * k_stride0 + d[None, :], mask=(t < hi)[:, None], other=0.0)  # mqa_logits:12
        query_dot = tl.reshape(tl.dot(k_tile, tl.trans(tl.reshape(query, (128, 128)))), (64, 2, 64))
        score = tl.maximum(query_dot, 0.0)
        inside = (first_tile[None, :] <= t[:, None]) & (t[:, None] < last_tile[None, :])  # mqa_logits:13
        score_sum = tl.sum(score * weight[None, :, :], axis=2)  # mqa_logits:14
        k_scale_tile = tl.load(k_scale + t, mask=t < hi, other=0.0)
        tl.store(
            out + s[None, :] * out_stride0 + t[:, None],
            tl.where(inside, (score_sum + 0.0) * k_scale_tile[:, None], float("-inf")),
            mask=(t < hi)[:, None] & (s < S)[None, :],
        )
    for t2_start in range(begin, lo, 1024):  # mqa_logits:16
        t2 = t2_start + tl.arange(0, 1024)
        tl.debug_barrier()  # mqa_logits:17
        tl.store(out + s[:, None] * out_stride0 + t2[None, :], float("-inf"), mask=(s < S)[:, None] & (t2 < lo)[None, :])
    for t3_start in range(hi, end, 1024):  # mqa_logits:18
        t3 = t3_start + tl.arange(0, 1024)
        tl.debug_barrier()  # mqa_logits:19
        tl.store(out + s[:, None] * out_stride0 + t3[None, :], float("-inf"), mask=(s < S)[:, None] & (t3 < end)[None, :])
