"""sparse_mqa_sink for cuda:sm_90, in Triton.

A program makes one b x one s x 64 h; programs run through the last index fastest.
A = f32, D = 512.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q, kv and o divide by 16 bytes, last strides are 1, and also those of idx and sink.
5 accesses: 1 proved, 4 guarded by a tail.
8 warps.
d: 512, for a span of 512
k: 64, summed over by a contraction, 128 bytes of a row
h: 64, rows of a contraction
warps: 8, for accumulators and results of 36864 elements
stages: 2, the blocks that contractions read take 204800 bytes of 230400
"""

import triton
import triton.language as tl


@triton.jit
def sparse_mqa_sink(
    q,
    kv,
    idx,
    sink,
    o,
    S,
    H,
    T,
    K,
    q_stride0,
    q_stride1,
    q_stride2,
    kv_stride0,
    kv_stride1,
    idx_stride0,
    idx_stride1,
    o_stride0,
    o_stride1,
    o_stride2,
    scale,
):
    pid = tl.program_id(0)
    h = pid % tl.cdiv(H, 64) * 64 + tl.arange(0, 64)  # sparse_mqa_sink:4
    s = pid // tl.cdiv(H, 64) % S
    b = pid // tl.cdiv(H, 64) // S
    d = tl.arange(0, 512)  # sparse_mqa_sink:3
    # sparse_mqa_sink:5
    query = tl.load(q + b * q_stride0 + s * q_stride1 + h[:, None] * q_stride2 + d[None, :], mask=(h < H)[:, None], other=0.0)
    top = tl.full((64,), -3.4028234663852886e38, tl.float32)  # sparse_mqa_sink:6
    total = tl.full((64,), 0.0, tl.float32)
    acc = tl.full((64, 512), 0.0, tl.float32)
    for k_start in range(0, K, 64):  # sparse_mqa_sink:7
        k = k_start + tl.arange(0, 64)
        t = tl.load(idx + b * idx_stride0 + s * idx_stride1 + k, mask=k < K, other=-1)  # sparse_mqa_sink:8
        live = t.to(tl.uint32) < T.to(tl.uint32)  # sparse_mqa_sink:9
        keys = tl.load(kv + b * kv_stride0 + t[:, None] * kv_stride1 + d[None, :], mask=live[:, None], other=0.0)  # sparse_mqa_sink:10
        query_dot = tl.dot(query, tl.trans(keys))  # sparse_mqa_sink:11
        score = tl.where(live[None, :], query_dot * (scale * 1.4426950216293335), float("-inf"))
        score_max = tl.max(score, axis=1)  # sparse_mqa_sink:12
        new = tl.maximum(top, score_max)
        p = tl.exp2(score - new[:, None])  # sparse_mqa_sink:13
        fix = tl.exp2(top - new)
        p_sum = tl.sum(p, axis=1)  # sparse_mqa_sink:14
        total = total * fix + p_sum
        p_factor = p.to(tl.bfloat16)  # sparse_mqa_sink:15
        acc = tl.dot(p_factor, keys, acc * fix[:, None])
        top = new  # sparse_mqa_sink:16
    sink_tile = tl.load(sink + h, mask=h < H, other=0.0)  # sparse_mqa_sink:17
    norm = tl.div_rn(1.0, total + tl.exp2(sink_tile * 1.4426950216293335 - top))
    tl.store(
        o + b * o_stride0 + s * o_stride1 + h[:, None] * o_stride2 + d[None, :],
        tl.where((total == 0.0)[:, None], 0.0, acc * norm[:, None]).to(tl.bfloat16),
        mask=(h < H)[:, None],
    )  # sparse_mqa_sink:18
