"""mqa_logits for cuda:sm_90, in Triton.

A program makes 2 s x 256 t; programs run through the last index fastest.
clean = True, D = 128, H = 64.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and k divide by 16 bytes, last strides are 1, and also those of k_scale, w, first, last and out.
8 accesses: 8 guarded by a tail.
4 warps.
h: 64, for a span of 64
d: 128, for a span of 128
t: 256, rows of a contraction
s: 2, columns of a contraction
warps: 4, for accumulators and results of 32768 elements
stages: 1, the blocks that contractions read take 49152 bytes of 230400
"""

import triton
import triton.language as tl


@triton.jit
def mqa_logits(q, k, k_scale, w, first, last, out, S, T, q_stride0, q_stride1, k_stride0, w_stride0, out_stride0):
    pid = tl.program_id(0)
    t = pid % tl.cdiv(T, 256) * 256 + tl.arange(0, 256)  # mqa_logits:6
    s = pid // tl.cdiv(T, 256) * 2 + tl.arange(0, 2)
    h = tl.arange(0, 64)  # mqa_logits:5
    d = tl.arange(0, 128)
    first_tile = tl.load(first + s, mask=s < S, other=0)  # mqa_logits:7
    last_tile = tl.load(last + s, mask=s < S, other=0)
    inside = (first_tile[None, :] <= t[:, None]) & (t[:, None] < last_tile[None, :])
    inside_max = tl.max(((t < T)[:, None] & (s < S)[None, :] & inside).to(tl.int32))  # mqa_logits:8
    if inside_max != 0:
        q_tile = tl.load(
            q + s[:, None, None] * q_stride0 + h[None, :, None] * q_stride1 + d[None, None, :], mask=(s < S)[:, None, None], other=0.0
        )  # mqa_logits:9
        k_tile = tl.load(k + t[:, None] * k_stride0 + d[None, :], mask=(t < T)[:, None], other=0.0)
        q_dot = tl.reshape(tl.dot(k_tile, tl.trans(tl.reshape(q_tile, (128, 128)))), (256, 2, 64))
        score = tl.maximum(q_dot, 0.0)
        w_tile = tl.load(w + s[:, None] * w_stride0 + h[None, :], mask=(s < S)[:, None], other=0.0)  # mqa_logits:10
        score_sum = tl.sum(score * w_tile[None, :, :], axis=2)
        k_scale_tile = tl.load(k_scale + t, mask=t < T, other=0.0)
        tl.store(
            out + s[None, :] * out_stride0 + t[:, None],
            tl.where(inside, (score_sum + 0.0) * k_scale_tile[:, None], float("-inf")),
            mask=(t < T)[:, None] & (s < S)[None, :],
        )
    else:
        tl.store(out + s[None, :] * out_stride0 + t[:, None], float("-inf"), mask=(t < T)[:, None] & (s < S)[None, :])  # mqa_logits:12
