"""Kernels with contractions, small enough for the interpreter: what the tests of passes and lowerings share. Each has data of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

MATMUL = """
def matmul(a: T[M, K], b: T[K, N], c: Out[f32[M, N]], T: dtype = bf16):
    for m, n in grid(tile(M), tile(N)):
        acc = zeros(m, n)
        for k in tile(K):
            acc += dot(a[m, k], b[k, n], axis=k)
        c[m, n] = acc
"""
ATTENTION = """
def attention(q: bf16[S, H, D], k: bf16[L, H, D], v: bf16[L, H, D], o: Out[f32[S, H, D]], scale: f32, causal: const = False):
    d = span(D)
    for h, s in grid(H, tile(S)):
        query = q[s, h, d]
        top, total, acc = full(s, f32.min), zeros(s), zeros(s, d)
        for t in tile(clamp(max(s, axis=s) + 1 + L - S, 0, L) if causal else L):
            score = dot(query, k[t, h, d], axis=d) * scale
            if causal:
                score = where(t <= s + (L - S), score, -inf)
            new = maximum(top, max(score, axis=t))
            p, fix = exp2(score - new), exp2(top - new)
            total = total * fix + sum(p, axis=t)
            acc = acc * fix + dot(bf16(p), v[t, h, d], axis=t)
            top = new
        o[s, h, d] = where(total > 0, acc / total, 0)
"""
SPARSE_MLA = """
def sparse_mla(q: bf16[S, H, D + R], kv: bf16[T, D + R], idx: i32[S, K], o: Out[f32[S, H, D]], lse: Out[f32[S, H]],
               scale: f32, D: const = 32, R: const = 16):
    c, r = span(D), span(D, R)
    for s, h in grid(S, tile(H)):
        query, query_r = q[s, h, c], q[s, h, r]
        top, total, acc = full(h, f32.min), zeros(h), zeros(h, c)
        for k in tile(K):
            t = idx[s, k]
            live = (0 <= t) & (t < T)
            keys, rope = where(live, kv[t, c], 0), where(live, kv[t, r], 0)
            score = dot(query, keys, axis=c) + dot(query_r, rope, axis=r)
            score = where(live, score * scale, -inf)
            new = maximum(top, max(score, axis=k))
            p, fix = exp2(score - new), exp2(top - new)
            total = total * fix + sum(p, axis=k)
            acc = acc * fix + dot(bf16(p), keys, axis=k)
            top = new
        o[s, h, c] = where(total > 0, acc / total, 0)
        lse[s, h] = where(total > 0, top + log2(total), inf)
"""
INDEXER = """
def mqa_logits(q: e4m3[S, H, D], k: e4m3[T, D], k_scale: f32[T], w: f32[S, H], first: i32[S], last: i32[S], out: Out[f32[S, T]]):
    h, d = span(H), span(D)
    for s, t in grid(tile(S), tile(T)):
        inside = (first[s] <= t) & (t < last[s])
        if any(inside):
            score = maximum(dot(q[s, h, d], k[t, d], axis=d), 0)
            out[s, t] = where(inside, dot(score, w[s, h], axis=h) * k_scale[t], -inf)
        else:
            out[s, t] = -inf
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel's text, and a call of it. ``dims``: specialised ones among ``sizes``; ``tolerance``: of f32 results, relative to the largest;
    0 where sums are exact."""

    text: str
    sizes: Mapping[str, int]
    dims: Mapping[str, int] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    constants: Mapping[str, int | bool] = field(default_factory=dict)
    tolerance: float = 0.0


def indices(s: int, k: int, t: int) -> torch.Tensor:
    """Indices of rows, some of them -1 or one past the end, and one token without any."""
    random = torch.Generator().manual_seed(5)
    found = torch.randint(-1, t + 1, (s, k), generator=random).to(torch.int32)
    found[0] = -1
    return found


CASES: Mapping[str, Case] = {
    "matmul": Case(MATMUL, {"M": 21, "N": 37, "K": 70}),
    "matmul that divides": Case(MATMUL, {"M": 16, "N": 128, "K": 128}),
    "attention": Case(ATTENTION, {"S": 19, "L": 70, "H": 2, "D": 16}, {"D": 16}, {"scale": 0.0625}, tolerance=1e-6),
    "attention of 12 values": Case(ATTENTION, {"S": 5, "L": 64, "H": 1, "D": 12}, {"D": 12}, {"scale": 0.0625}, tolerance=1e-6),
    "causal attention": Case(
        ATTENTION, {"S": 40, "L": 100, "H": 1, "D": 16}, {"D": 16}, {"scale": 0.0625}, constants={"causal": True}, tolerance=1e-6
    ),
    "sparse MLA": Case(
        SPARSE_MLA, {"S": 3, "H": 5, "T": 40, "K": 75}, scalars={"scale": 0.03125}, tensors={"idx": indices(3, 75, 40)}, tolerance=1e-6
    ),
    "sparse MLA, no tail": Case(
        SPARSE_MLA, {"S": 2, "H": 20, "T": 40, "K": 128}, scalars={"scale": 0.03125}, tensors={"idx": indices(2, 128, 40)}, tolerance=1e-6
    ),
    "indexer": Case(
        INDEXER,
        {"S": 5, "T": 150, "H": 4, "D": 32},
        {"H": 4, "D": 32},
        tensors={
            "first": torch.tensor([0, 3, 100, 149, 0], dtype=torch.int32),
            "last": torch.tensor([150, 4, 60, 150, 129], dtype=torch.int32),
        },
    ),
    "indexer of 3 heads": Case(
        INDEXER,
        {"S": 2, "T": 40, "H": 3, "D": 24},
        {"H": 3, "D": 24},
        tensors={"first": torch.tensor([0, 3], dtype=torch.int32), "last": torch.tensor([40, 4], dtype=torch.int32)},
    ),
}
