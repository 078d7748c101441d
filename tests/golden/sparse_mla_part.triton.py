"""sparse_mla_part for cuda:sm_90, in Triton.

A program makes one s x one g x 64 h; programs run through the last index fastest.
D = 512, R = 64, length = None.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q, kv and part divide by 16 bytes, last strides are 1, and also those of idx and lse.
7 accesses: 2 proved, 5 guarded by a tail.
8 warps.
c: 512, for a span of 512
r: 64, for a span of 64
k: 64, summed over by a contraction, 128 bytes of a row
h: 64, rows of a contraction
warps: 8, for accumulators and results of 36864 elements
stages: 2, the blocks that contractions read take 229376 bytes of 230400
"""

import triton
import triton.language as tl


@triton.jit
def sparse_mla_part(
    q,
    kv,
    idx,
    part,
    lse,
    H,
    T,
    K,
    P,
    q_stride0,
    q_stride1,
    kv_stride0,
    idx_stride0,
    part_stride0,
    part_stride1,
    part_stride2,
    lse_stride0,
    lse_stride1,
    scale,
):
    pid = tl.program_id(0)
    h = pid % tl.cdiv(H, 64) * 64 + tl.arange(0, 64)  # sparse_mla_part:4
    g = pid // tl.cdiv(H, 64) % P
    s = pid // tl.cdiv(H, 64) // P
    c = tl.arange(0, 512)  # sparse_mla_part:3
    r = 512 + tl.arange(0, 64)
    query = tl.load(q + s * q_stride0 + h[:, None] * q_stride1 + c[None, :], mask=(h < H)[:, None], other=0.0)  # sparse_mla_part:5
    query_r = tl.load(q + s * q_stride0 + h[:, None] * q_stride1 + r[None, :], mask=(h < H)[:, None], other=0.0)
    top = tl.full((64,), -3.4028234663852886e38, tl.float32)  # sparse_mla_part:6
    total = tl.full((64,), 0.0, tl.float32)
    acc = tl.full((64, 512), 0.0, tl.float32)
    part_2 = K // P  # sparse_mla_part:7
    rest = K % P
    lo = g.to(tl.int64) * part_2.to(tl.int64) + tl.minimum(g, rest).to(tl.int64)
    hi = (g + 1).to(tl.int64) * part_2.to(tl.int64) + tl.minimum(g + 1, rest).to(tl.int64)
    for k_start in range(
        tl.minimum(lo, tl.full((), 2147352575, tl.int64)).to(tl.int32), tl.minimum(hi, tl.full((), 2147352575, tl.int64)).to(tl.int32), 64
    ):  # sparse_mla_part:8
        k = k_start + tl.arange(0, 64)
        t = tl.load(idx + s * idx_stride0 + k, mask=k.to(tl.int64) < hi, other=-1)  # sparse_mla_part:9
        live = t.to(tl.uint32) < T.to(tl.uint32)  # sparse_mla_part:10
        keys = tl.load(kv + t[:, None] * kv_stride0 + c[None, :], mask=live[:, None], other=0.0)  # sparse_mla_part:11
        rope = tl.load(kv + t[:, None] * kv_stride0 + r[None, :], mask=live[:, None], other=0.0)
        query_dot = tl.dot(query, tl.trans(keys))  # sparse_mla_part:12
        score = tl.dot(query_r, tl.trans(rope), query_dot)
        score = tl.where(live[None, :], score * (scale * 1.4426950216293335), float("-inf"))  # sparse_mla_part:13
        score_max = tl.max(score, axis=1)  # sparse_mla_part:14
        new = tl.maximum(top, score_max)
        p = tl.exp2(score - new[:, None])  # sparse_mla_part:15
        fix = tl.exp2(top - new)
        p_sum = tl.sum(p, axis=1)  # sparse_mla_part:16
        total = total * fix + p_sum
        p_factor = p.to(tl.bfloat16)  # sparse_mla_part:17
        acc = tl.dot(p_factor, keys, acc * fix[:, None])
        top = new  # sparse_mla_part:18
    norm = tl.div_rn(1.0, total)  # sparse_mla_part:19
    tl.store(
        part + s * part_stride0 + g * part_stride1 + h[:, None] * part_stride2 + c[None, :],
        tl.where((total == 0.0)[:, None], 0.0, acc * norm[:, None]),
        mask=(h < H)[:, None],
    )  # sparse_mla_part:20
    # sparse_mla_part:21
    tl.store(lse + s * lse_stride0 + g * lse_stride1 + h, tl.where(total == 0.0, float("-inf"), top + tl.log2(total)), mask=h < H)
