"""Programs for tests, with the kernels that they call."""

from __future__ import annotations

import torch

import nsalang

TEXT = '''
def partial_sums(x: f32[M, N], part: Out[f32[M, P]]):
    for m, g in grid(tile(M), P):
        lo, hi = split(N, P, g)
        total = zeros(m)
        for n in tile(lo, hi):
            total = total + sum(x[m, n], axis=n)
        part[m, g] = total


def combine(part: f32[M, P], y: Out[f32[M]], top: Out[f32[M]] | None, bias: f32[M] | None, factor: f32 = 1.0, square: const = False):
    p = span(P)
    for m in grid(tile(M)):
        total = sum(part[m, p], axis=p) * factor
        if square:
            total = total * total
        if bias is not None:
            total = total + bias[m]
        y[m] = total
        if top is not None:
            top[m] = max(part[m, p], axis=p)


def row_sums(x: f32[M, N], y: Out[f32[M]], top: Out[f32[M]] | None, bias: f32[M] | None, scale: f32, P: const = 4, square: const = False):
    """The sum of each row, in P parts."""
    require(N > 0)
    part = empty(f32[M, P])
    partial_sums(x, part=part)
    combine(part, bias, y=y, top=top, factor=scale * 2, square=square)


def stats(x: f32[M, N], top: Out[f32[M]], total: Out[f32[M]]):
    for m in grid(tile(M)):
        best, sums = full(m, f32.min), zeros(m)
        for n in tile(N):
            new = maximum(best, max(x[m, n], axis=n))
            sums = sums * exp(best - new) + sum(exp(x[m, n] - new), axis=n)
            best = new
        top[m] = best
        total[m] = sums


def normalise(x: f32[M, N], top: f32[M], total: f32[M], y: Out[T[M, N]], T: dtype):
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = T(exp(x[m, n] - top[m]) / total[m])


def softmax(x: f32[M, N], y: Out[T[M, N]], T: dtype):
    top, total = empty(f32[M]), empty(f32[M])
    stats(x, top=top, total=total)
    normalise(x, top, total, y=y)


def twice(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[n] = x[n] * 2


def add_to(x: f32[N], y: InOut[f32[N]], sign: i32 = 1):
    for n in grid(tile(N)):
        y[n] = y[n] + x[n] * f32(sign)


def chain(x: f32[N], y: InOut[f32[N]], z: Out[f32[N]], times: const = 1):
    t = empty(f32[N])
    twice(x, y=t)
    if times == 2:
        u = empty(f32[N])
        twice(t, y=u)
        add_to(u, y, -1)
    else:
        add_to(t, y)
    twice(y, y=z)


def some(x: f32[N], y: Out[f32[N]]):
    partial(y)
    for n in grid(tile(N)):
        if x[n] > 0.0:
            y[n] = x[n]


def holes(x: f32[N], y: Out[f32[N]]):
    t = empty(f32[N])
    some(x, y=t)
    twice(t, y=y)


def gather(table: f32[T], slot: i32[N], y: Out[f32[N]]):
    promise(0 <= slot < T)
    for n in grid(tile(N)):
        y[n] = table[slot[n]]


def doubled_gather(table: f32[T], slot: i32[N], y: Out[f32[N]]):
    t = empty(f32[T])
    twice(table, y=t)
    gather(t, slot, y=y)


def halves(x: f32[N], y: Out[f32[N // 2]]):
    for n in grid(tile(N // 2)):
        y[n] = x[2 * n] + x[2 * n + 1]


def quarters(x: f32[N], y: Out[f32[N // 2 // 2]], extra: i32 = 0):
    t = empty(f32[(N + extra) // 2])
    halves(x, y=t)
    halves(t, y=y)


def helper(x):
    return x * 2


def nothing(x: f32[N]):
    pass
'''
K = nsalang.load_text(TEXT, "programs.nsa")
BACKENDS = ("tilelang", "triton")


def x_of(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
