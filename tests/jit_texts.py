"""Kernels for tests of what a user holds."""

from __future__ import annotations

import nsalang

SOFTMAX = '''
def softmax(x: f32[M, N], y: Out[f32[M, N]]):
    """Row by row."""
    for m in grid(tile(M)):
        top, total = full(m, f32.min), zeros(m)
        for n in tile(N):
            new = maximum(top, max(x[m, n], axis=n))
            total = total * exp(top - new) + sum(exp(x[m, n] - new), axis=n)
            top = new
        for n in tile(N):
            y[m, n] = exp(x[m, n] - top) / total
'''
GROUP = """
def group(x: bf16[M, N], bias: f32[N] | None, y: Out[bf16[M, N]], s: Out[f32[M, N // G]], G: const = 8, half: const = False):
    require(N % G == 0)
    for m, g in grid(tile(M), N // G):
        n = span(g * G, G)
        v = f32(x[m, n])
        if bias is not None:
            v = v + bias[n]
        if half:
            v = v / 2
        y[m, n] = bf16(v)
        s[m, g] = absmax(v, axis=n)
"""
ROWS = """
def rows(x: f32[M, D], y: Out[f32[M]]):
    d = span(D)
    for m in grid(tile(M)):
        y[m] = max(x[m, d], axis=d)
"""
BACKENDS = ("triton", "tilelang")


def code_of(error: BaseException) -> str:
    assert isinstance(error, nsalang.NsaError)
    return error.diagnostics[0].code
