"""Every pass keeps the meaning of branches, loops, spans and lanes that do not exist."""

from __future__ import annotations

import torch
from staged import check, last, typed

from nsalang import ir


def test_branches_ranges_and_in_place() -> None:
    text = """
def steps(x: f32[N + 1], y: Out[f32[N]], z: InOut[f32[N]], limit: i32):
    for i in grid(N):
        v = x[i + 1] - x[i]
        if i < limit:
            y[i] = v
            z[i] = z[i] + 1
        else:
            total = 0.0
            for j in range(i, N):
                total = total + x[j + 1]
            y[i] = total
        z[i] = z[i] * 2
"""
    check(typed(text), {"N": 6}, scalars={"limit": 3})
    accesses = [n for n in ir.walk(last(text)) if isinstance(n, ir.Load | ir.Store)]
    assert all(n.mask is None for n in accesses), "every index is inside for plain reasons"
    assert len([n for n in accesses if isinstance(n, ir.Load) and n.tensor == "z"]) == 2, "z is read again after it was written"


def test_spans_that_stop_early_and_start_anywhere() -> None:
    text = """
def windows(x: f32[T], start: i32[S], y: Out[f32[S, K]], s: Out[f32[S]], a: Out[i32[S]], K: const = 6):
    partial(y)
    for i in grid(S):
        n = span(start[i], K, T)
        k = span(0, K, T - start[i])
        s[i] = sum(x[n], axis=n)
        a[i] = argmax(x[n], axis=n)
        y[i, k] = x[start[i] + k]
"""
    start = torch.tensor([0, 3, 5, 8, 9], dtype=torch.int32)
    check(typed(text), {"T": 9, "S": 5}, tensors={"start": start})


def test_divisors_of_lanes_that_do_not_exist() -> None:
    text = """
def ratios(a: i32[M, N], b: i32[M, N], c: i32[M], y: Out[i32[M]], z: Out[i32[M, N]]):
    for m in grid(tile(M)):
        total = full(m, 0, dtype=i64)
        for n in tile(N):
            total = total + sum(a[m, n] // b[m, n] + a[m, n] % c[m], axis=n)
            z[m, n] = where(a[m, n] != 0, b[m, n] // a[m, n], -1)
        y[m] = total
"""
    a = torch.tensor([[5, -7, 0], [9, 100, -3]], dtype=torch.int32)
    b, c = torch.tensor([[2, 3, -4], [1, -9, 5]], dtype=torch.int32), torch.tensor([3, -4], dtype=torch.int32)
    check(typed(text), {"M": 2, "N": 3}, pins={"m": 4, "n": 4}, tensors={"a": a, "b": b, "c": c})


def test_conditions_over_a_tile_of_the_grid() -> None:
    text = """
def banded(x: f32[S, T], lo: i32[S], hi: i32[S], y: Out[f32[S, T]]):
    for s, t in grid(tile(S), tile(T)):
        inside = (lo[s] <= t) & (t < hi[s])
        if any(inside, axis=(s, t)):
            y[s, t] = where(inside, sqrt(abs(x[s, t])), -inf)
        else:
            y[s, t] = -inf
"""
    lo, hi = torch.tensor([0, 2, 5, 1, 3], dtype=torch.int32), torch.tensor([3, 2, 7, 9, 4], dtype=torch.int32)
    check(typed(text), {"S": 5, "T": 9}, pins={"s": 2, "t": 4}, tensors={"lo": lo, "hi": hi})


def test_bool_and_half_tensors_and_branches_on_lanes() -> None:
    text = """
def masked(x: f16[M, N], keep: bool[M, N], y: Out[f16[M, N]], n_kept: Out[i32[M]], flag: Out[bool[M]]):
    for m in grid(tile(M)):
        count = full(m, 0, dtype=i64)
        for n in tile(N):
            v, k = x[m, n], keep[m, n]
            count = count + sum(k, axis=n)
            if k:
                v = v * 2
                y[m, n] = v
            else:
                y[m, n] = -v
        n_kept[m] = count
        flag[m] = count > 2
"""
    check(typed(text), {"M": 3, "N": 6}, pins={"m": 2, "n": 4})
