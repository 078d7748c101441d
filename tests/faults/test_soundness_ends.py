"""Relatives of the faults S1 and S2: integers next to the end of 64 bits, on either side, made by every operation of the language."""

from __future__ import annotations

import pytest

from nsalang.base.source import Source
from nsalang.passes.prove import judge
from nsalang.syntax.parser import parse
from nsalang.types.typecheck import Settings, kernel_names, specialise

TEXT = """
def tiles_too_many(a: i64[2], y: Out[i64[1]]):
    for q in grid(1):
        t = 0
        lo, hi = a[0], a[1]
        for i in tile(lo, hi):
            t = t + sum(i * 0, axis=i)
        y[q] = t

def steps_too_many(a: i64[2], y: Out[i64[1]]):
    for q in grid(1):
        t = 0
        for i in range(a[0], a[1]):
            t = maximum(t, i)
        y[q] = t

def steps_to_the_top(a: i64[1], y: Out[i64[1]]):
    for q in grid(1):
        t = 0
        for i in range(a[0], 9223372036854775807):
            t = maximum(t, i)
        y[q] = t

def tiles_to_the_top(a: i64[1], x: i32[N], y: Out[i64[1]]):
    promise(a >= 9223372036854775800)
    for q in grid(1):
        t = 0
        for i in tile(a[0], 9223372036854775807):
            t = maximum(t, max(i, axis=i))
        y[q] = t

def tiles_near(a: i64[1], y: Out[i64[1]]):
    promise(0 <= a <= 4611686018427387904)
    for q in grid(1):
        t = 0
        for i in tile(a[0], a[0] + 9):
            t = maximum(t, max(i, axis=i))
        y[q] = t

def tiles_of_i32(a: i32[2], y: Out[i64[1]]):
    for q in grid(1):
        t = 0
        for i in tile(a[0], a[1]):
            t = maximum(t, max(i, axis=i))
        y[q] = t

def span_to_the_top(a: i64[2], y: Out[i64[1]]):
    for q in grid(1):
        n = span(a[0], 8, a[1])
        y[q] = max(n, axis=n)

def border_of_no_part(n: i64, g: i64[1], y: Out[i64[1]]):
    require(0 <= n)
    for q in grid(1):
        lo, hi = split(n, 3, g[0])
        y[q] = lo

def borders(n: i64, P: i64, y: Out[i64[G]]):
    require(0 <= n)
    require(P > 0)
    require(G <= P)
    for g in grid(G):
        lo, hi = split(n, P, g)
        y[g] = hi - lo

def dot_and_data(a: i8[M, 64], b: i8[64, N], c: i64[M, N], y: Out[i64[M, N]]):
    k = span(64)
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = c[m, n] + dot(a[m, k], b[k, n], axis=k)

def dots_and_data(a: i8[M, K], b: i8[K, N], c: i64[M, N], y: Out[i64[M, N]]):
    for m, n in grid(tile(M), tile(N)):
        acc = c[m, n]
        for k in tile(K):
            acc = acc + dot(a[m, k], b[k, n], axis=k)
        y[m, n] = acc

def greatest_and_one(x: i64[M, 7], y: Out[i64[M]]):
    n = span(7)
    for m in grid(M):
        y[m] = max(x[m, n], axis=n) + 1

def least_of_maybe_none(x: i64[M, N], e: i64[M], y: Out[i64[M]]):
    promise(-5 <= x <= 5)
    for m in grid(M):
        n = span(0, 7, N)
        y[m] = -min(x[m, n], axis=n)

def greatest_of_maybe_none(x: i64[M, N], y: Out[i64[M]]):
    promise(-5 <= x <= 5)
    for m in grid(M):
        n = span(0, 7, N)
        y[m] = -max(x[m, n], axis=n)

def count_below_top(x: i32[M, N], y: Out[i64[M]]):
    for m in grid(M):
        n = span(0, 7, N)
        y[m] = 9223372036854775800 + sum(x[m, n] > 0, axis=n)

def count_past_top(x: i32[M, N], y: Out[i64[M]]):
    for m in grid(M):
        n = span(0, 8, N)
        y[m] = 9223372036854775800 + sum(x[m, n] > 0, axis=n)

def minus_search(cu: i32[B], a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = a[n] - searchsorted(cu, a[n])

def ceiling_by_3(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = cdiv(a[n], 3)

def ceiling_by_minus_1(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = cdiv(a[n], -1)

def ceiling_by_positive(a: i64[N], b: i64[N], y: Out[i64[N]]):
    promise(b >= 1)
    for n in grid(N):
        y[n] = cdiv(a[n], b[n])

def remainder_of_negative(a: i64[N], b: i64[N], y: Out[i64[N]]):
    promise(b <= -1)
    for n in grid(N):
        y[n] = a[n] % b[n]

def remainder_negated(a: i64[N], b: i64[N], y: Out[i64[N]]):
    promise(b <= -1)
    for n in grid(N):
        y[n] = -(a[n] % b[n])

def remainder_and_divisor(a: i64[N], b: i64[N], y: Out[i64[N]]):
    promise(b >= 1)
    for n in grid(N):
        y[n] = a[n] % b[n] + b[n]

def clamped_twice(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = clamp(a[n], -4611686018427387904, 4611686018427387903) * 2

def clamped_past(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = clamp(a[n], -4611686018427387904, 4611686018427387904) * 2

def least_left_out(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = where(a[n] != -9223372036854775808, -a[n], 0)

def one_left_in(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = where(a[n] > -9223372036854775807, -a[n], a[n] - 1)

def bits_as_signed(a: u32[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = (i64(bitcast(a[n], i32)) << 32) + i64(a[n])

def bits_too_high(a: u32[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = i64(a[n]) << 32

def wrapped_i32(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = i64(wrap(a[n], i32)) << 32

def kept_u32(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = i64(u32(a[n])) << 32

def top_byte(a: i64[N], y: Out[i8[N]]):
    for n in grid(N):
        y[n] = i8(a[n] >> 56)

def top_nine_bits(a: i64[N], y: Out[i8[N]]):
    for n in grid(N):
        y[n] = i8(a[n] >> 55)

def addend(a: i64[N], y: InOut[i64[4]]):
    for n in grid(N):
        atomic_add(y[n % 4], a[n])

def addend_past(a: i64[N], y: InOut[i64[4]]):
    for n in grid(N):
        atomic_add(y[n % 4], a[n] + 1)

def scan_exclusive(x: i64[M, 7], y: Out[i64[M, 7]]):
    n = span(0, 7)
    promise(0 <= x <= 1537228672809129301)
    for m in grid(M):
        y[m, n] = cumsum(x[m, n], axis=n, exclusive=True)

def scan_exclusive_past(x: i64[M, 7], y: Out[i64[M, 7]]):
    n = span(0, 7)
    promise(0 <= x <= 1537228672809129303)
    for m in grid(M):
        y[m, n] = cumsum(x[m, n], axis=n, exclusive=True)

def scan_reverse(x: i64[M, 7], y: Out[i64[M, 7]]):
    n = span(0, 7)
    promise(0 <= x <= 1317624576693539401)
    for m in grid(M):
        y[m, n] = cumsum(x[m, n], axis=n, reverse=True)

def scan_reverse_past(x: i64[M, 7], y: Out[i64[M, 7]]):
    n = span(0, 7)
    promise(0 <= x <= 1317624576693539402)
    for m in grid(M):
        y[m, n] = cumsum(x[m, n], axis=n, reverse=True)

def span_from_span(a: i64[1], x: i32[8, 8], y: Out[i64[1]]):
    for q in grid(1):
        n = span(a[0], 8)
        m = span(max(n, axis=n), 8)
        y[q] = max(m, axis=m)

def span_from_span_near(a: i64[1], x: i32[8, 8], y: Out[i64[1]]):
    promise(0 <= a <= 4611686018427387904)
    for q in grid(1):
        n = span(a[0], 8)
        m = span(max(n, axis=n), 8)
        y[q] = max(m, axis=m)

def index_doubled(a: i64[1], y: Out[i64[1]]):
    promise(0 <= a <= 9223372036854775000)
    for q in grid(1):
        t = 0
        for i in range(a[0], a[0] + 3):
            t = i * 2
        y[q] = t

def index_doubled_near(a: i64[1], y: Out[i64[1]]):
    promise(0 <= a <= 4611686018427387000)
    for q in grid(1):
        t = 0
        for i in range(a[0], a[0] + 3):
            t = i * 2
        y[q] = t

def float_saturates(f: f32[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = i64(f[n]) + 1

def float_of_i32(f: f32[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = i64(i32(f[n])) + 1

def product_of_three(a: i32[N], b: i32[N], c: i32[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = a[n] * b[n] * c[n]

def product_of_three_small(a: i32[N], b: i32[N], c: i8[N], y: Out[i64[N]]):
    promise(-1000000 <= a <= 1000000)
    for n in grid(N):
        y[n] = a[n] * b[n] * c[n]

def shifted_by_data(a: i64[N], b: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = a[n] >> b[n]

def shifted_by_6_bits(a: i64[N], b: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = a[n] >> (b[n] & 63)

def unsigned_shifted(a: u32[N], b: u32[N], y: Out[u32[N]]):
    for n in grid(N):
        y[n] = a[n] << b[n]

def product_of_unsigned(a: u32[N], b: u32[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = i64(a[n]) * i64(b[n])

def product_of_unsigned_small(a: u32[N], b: u32[N], y: Out[i64[N]]):
    promise(b <= 2147483648)
    for n in grid(N):
        y[n] = i64(a[n]) * i64(b[n])

def absmax_without_least(x: i64[M, 7], y: Out[i64[M]]):
    n = span(0, 7)
    promise(x >= -9223372036854775807)
    for m in grid(M):
        y[m] = absmax(x[m, n], axis=n)

def sum_of_seven(x: i64[M, 7], y: Out[i64[M]]):
    n = span(0, 7)
    promise(0 <= x <= 1317624576693539401)
    for m in grid(M):
        y[m] = sum(x[m, n], axis=n)

def doubled_64_times(y: Out[i64[N]]):
    for n in grid(N):
        t = 1
        for i in range(64):
            t = t * 2
        y[n] = t

def inverted(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = -(~a[n])
def place_of_scalars(x: i32[W, P], w0: i32, p0: i32, y: Out[i32[W, P]]):
    for w, p in grid(W, P):
        y[w, p] = (w0 + w) * P + p

def place_scaled(x: i32[W, P], s: i64, y: Out[i64[W, P]]):
    require(0 <= s)
    for w, p in grid(W, P):
        y[w, p] = (w * P + p) * s

def place_of_promised(x: i32[W, P], n: i32[W], y: Out[i32[W]]):
    promise(0 <= n <= P)
    for w in grid(W):
        y[w] = w * n[w]

def weighted_sum(x: i32[M, N], y: Out[i32[M]]):
    promise(-10 <= x <= 10)
    for m in grid(M):
        t = 0
        for n in range(N):
            t = t + x[m, n] * n
        y[m] = t

def product_of_scalars(W: i64, P: i64, y: Out[i32[N]]):
    for n in grid(N):
        y[n] = W * P


def product_of_lanes(x: i64[M, 7], y: Out[i64[M]]):
    n = span(7)
    promise(0 <= x <= 512)
    for m in grid(M):
        y[m] = prod(x[m, n], axis=n)

def product_of_lanes_small(x: i64[M, 7], y: Out[i64[M]]):
    n = span(7)
    promise(0 <= x <= 500)
    for m in grid(M):
        y[m] = prod(i64(i8(minimum(x[m, n], 127))), axis=n)

def byte_times_clamped(d: u8[N], x: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = i64(d[n]) * clamp(x[n], -288230376151711745, 1073741824)
"""
WRONG = {
    "byte_times_clamped": ("overflow", "i64(d[n]) * clamp(x[n], -288230376151711745, 1073741824)"),
    "product_of_lanes": ("overflow", "prod(x[m, n], axis=n)"),
    "tiles_too_many": ("overflow", "hi"),
    "steps_too_many": ("overflow", "a[1]"),
    "steps_to_the_top": ("overflow", "9223372036854775807"),
    "tiles_to_the_top": ("overflow", "9223372036854775807"),
    "span_to_the_top": ("overflow", "a[0]"),
    "border_of_no_part": ("overflow", "split(n, 3, g[0])"),
    "dot_and_data": ("overflow", "c[m, n] + dot(a[m, k], b[k, n], axis=k)"),
    "dots_and_data": ("overflow", "acc + dot(a[m, k], b[k, n], axis=k)"),
    "greatest_and_one": ("overflow", "max(x[m, n], axis=n) + 1"),
    "greatest_of_maybe_none": ("overflow", "-max(x[m, n], axis=n)"),
    "count_past_top": ("overflow", "9223372036854775800 + sum(x[m, n] > 0, axis=n)"),
    "ceiling_by_minus_1": ("overflow", "cdiv(a[n], -1)"),
    "remainder_and_divisor": ("overflow", "a[n] % b[n] + b[n]"),
    "clamped_past": ("overflow", "clamp(a[n], -4611686018427387904, 4611686018427387904) * 2"),
    "one_left_in": ("overflow", "a[n] - 1"),
    "bits_too_high": ("overflow", "i64(a[n]) << 32"),
    "kept_u32": ("overflow", "i64(u32(a[n])) << 32"),
    "top_nine_bits": ("fits", "i8(a[n] >> 55)"),
    "addend_past": ("overflow", "a[n] + 1"),
    "scan_exclusive_past": ("overflow", "cumsum(x[m, n], axis=n, exclusive=True)"),
    "scan_reverse_past": ("overflow", "cumsum(x[m, n], axis=n, reverse=True)"),
    "span_from_span": ("overflow", "max(n, axis=n)"),
    "index_doubled": ("overflow", "i * 2"),
    "float_saturates": ("overflow", "i64(f[n]) + 1"),
    "product_of_three": ("overflow", "a[n] * b[n] * c[n]"),
    "shifted_by_data": ("shift", "a[n] >> b[n]"),
    "unsigned_shifted": ("shift", "a[n] << b[n]"),
    "product_of_unsigned": ("overflow", "i64(a[n]) * i64(b[n])"),
    "doubled_64_times": ("overflow", "t * 2"),
    "inverted": ("overflow", "-(~a[n])"),
}
"""What is REFUTED of these kernels: all others are right."""
FILE = parse(Source(TEXT))


@pytest.mark.parametrize("name", kernel_names(FILE))
def test_verdict(name: str) -> None:
    judged = judge(specialise(FILE, name, Settings()))
    open_ = {(j.result.obligation.kind, j.result.obligation.what): j for j in judged if j.result.verdict != "PROVED"}
    if name not in WRONG:
        assert open_ == {}
        return
    found = open_[WRONG[name]]
    assert found.result.verdict == "REFUTED"
    assert found.diagnostic is not None and found.diagnostic.notes
