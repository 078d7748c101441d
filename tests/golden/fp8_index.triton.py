"""fp8_index for cuda:sm_90, in Triton.

A program makes one b x 2 m x one c; programs run through the last index fastest.
C = 2048, D = 128, H = 64.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q and k divide by 16 bytes, last strides are 1, and also those of w, k_scale and out.
5 accesses: 5 guarded by a tail.
4 warps.
h: 64, for a span of 64
d: 128, for a span of 128
n: 64, rows of a contraction
m: 2, columns of a contraction
warps: 4, for accumulators and results of 8192 elements
stages: 3, the blocks that contractions read take 40960 bytes of 230400
"""

import triton
import triton.language as tl


@triton.jit
def fp8_index(
    q,
    w,
    k,
    k_scale,
    out,
    M,
    N,
    q_stride0,
    q_stride1,
    q_stride2,
    w_stride0,
    w_stride1,
    k_stride0,
    k_stride1,
    k_scale_stride0,
    out_stride0,
    out_stride1,
):
    pid = tl.program_id(0)
    c = pid % ((N + 2047) // 2048)  # fp8_index:3
    m = pid // ((N + 2047) // 2048) % tl.cdiv(M, 2) * 2 + tl.arange(0, 2)
    b = pid // ((N + 2047) // 2048) // tl.cdiv(M, 2)
    h = tl.arange(0, 64)  # fp8_index:2
    d = tl.arange(0, 128)
    query = tl.load(
        q + b * q_stride0 + m[:, None, None] * q_stride1 + h[None, :, None] * q_stride2 + d[None, None, :],
        mask=(m < M)[:, None, None],
        other=0.0,
    )  # fp8_index:4
    weight = tl.load(w + b * w_stride0 + m[:, None] * w_stride1 + h[None, :], mask=(m < M)[:, None], other=0.0)
    for n_start in range(c * 2048, tl.minimum(c * 2048 + 2048, N), 64):  # fp8_index:5
        n = n_start + tl.arange(0, 64)
        k_tile = tl.load(
            k + b * k_stride0 + n[:, None] * k_stride1 + d[None, :], mask=(n < tl.minimum(c * 2048 + 2048, N))[:, None], other=0.0
        )  # fp8_index:6
        query_dot = tl.reshape(tl.dot(k_tile, tl.trans(tl.reshape(query, (128, 128)))), (64, 2, 64))
        score = tl.maximum(query_dot, 0.0)
        score_sum = tl.sum(score * weight[None, :, :], axis=2)  # fp8_index:7
        k_scale_tile = tl.load(k_scale + b * k_scale_stride0 + n, mask=n < tl.minimum(c * 2048 + 2048, N), other=0.0)
        tl.store(
            out + b * out_stride0 + m[None, :] * out_stride1 + n[:, None],
            (score_sum + 0.0) * k_scale_tile[:, None],
            mask=(n < tl.minimum(c * 2048 + 2048, N))[:, None] & (m < M)[None, :],
        )
