"""sparse_mla for cuda:sm_90, in Triton.

A program makes one s x 64 h; programs run through the last index fastest.
D = 512, R = 64, lse_unit = 0.6931471805599453, lse = None, length = None, limit = None, sink = None.
Dimensions and offsets fit 32 bits; addresses, strides and rows of q, kv and o divide by 16 bytes, last strides are 1, and also those of idx.
A launch has checked that K % 64 == 0.
6 accesses: 3 hoisted (K % 64 == 0), 3 guarded by a tail.
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
def sparse_mla(q, kv, idx, o, H, T, K, q_stride0, q_stride1, kv_stride0, idx_stride0, o_stride0, o_stride1, scale):
    pid = tl.program_id(0)
    h = pid % tl.cdiv(H, 64) * 64 + tl.arange(0, 64)  # sparse_mla:5
    s = pid // tl.cdiv(H, 64)
    c = tl.arange(0, 512)  # sparse_mla:4
    r = 512 + tl.arange(0, 64)
    query = tl.load(q + s * q_stride0 + h[:, None] * q_stride1 + c[None, :], mask=(h < H)[:, None], other=0.0)  # sparse_mla:6
    query_r = tl.load(q + s * q_stride0 + h[:, None] * q_stride1 + r[None, :], mask=(h < H)[:, None], other=0.0)
    top = tl.full((64,), -3.4028234663852886e38, tl.float32)  # sparse_mla:7
    total = tl.full((64,), 0.0, tl.float32)
    acc = tl.full((64, 512), 0.0, tl.float32)
    for k_start in range(0, K, 64):  # sparse_mla:8
        k = k_start + tl.arange(0, 64)
        t = tl.load(idx + s * idx_stride0 + k)  # sparse_mla:9
        live = t.to(tl.uint32) < T.to(tl.uint32)  # sparse_mla:10
        keys = tl.load(kv + t[:, None] * kv_stride0 + c[None, :], mask=live[:, None], other=0.0)  # sparse_mla:13
        rope = tl.load(kv + t[:, None] * kv_stride0 + r[None, :], mask=live[:, None], other=0.0)
        query_dot = tl.dot(query, tl.trans(keys))  # sparse_mla:14
        score = tl.dot(query_r, tl.trans(rope), query_dot)
        score = tl.where(live[None, :], score * (scale * 1.4426950216293335), float("-inf"))  # sparse_mla:15
        score_max = tl.max(score, axis=1)  # sparse_mla:16
        new = tl.maximum(top, score_max)
        p = tl.exp2(score - new[:, None])  # sparse_mla:17
        fix = tl.exp2(top - new)
        p_sum = tl.sum(p, axis=1)  # sparse_mla:18
        total = total * fix + p_sum
        p_factor = p.to(tl.bfloat16)  # sparse_mla:19
        acc = tl.dot(p_factor, keys, acc * fix[:, None])
        top = new  # sparse_mla:20
    share = total  # sparse_mla:21
    norm = tl.div_rn(1.0, share)  # sparse_mla:24
    tl.store(
        o + s * o_stride0 + h[:, None] * o_stride1 + c[None, :],
        tl.where((total == 0.0)[:, None], 0.0, acc * norm[:, None]).to(tl.bfloat16),
        mask=(h < H)[:, None],
    )  # sparse_mla:25
