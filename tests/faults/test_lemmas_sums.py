"""Lemmas of sums and nests of loops, each with kernels that need it, and with spoilt ones that must not be proved: one bound, promise or condition less, or one off."""

from __future__ import annotations

import pytest

from nsalang.base.source import Source
from nsalang.proof.prover import settle
from nsalang.syntax.parser import parse
from nsalang.types.typecheck import Settings, kernel_names, signature, specialise

RIGHT: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "prefix-by-tiles": (
        """
def f(start: i64[B], end: i64[B], out: Out[i64[L]]):
    partial(out)
    promise(0 <= start < 2**40)
    promise(0 <= end < 2**40)
    for b in grid(B):
        base = 0
        for c in tile(b):
            base = base + sum(maximum(end[c] - start[c], 0), axis=c)
        for t in tile(start[b], end[b]):
            p = base + (t - start[b])
            if p < L:
                out[p] = b
""",
        (
            ("maximum(end[c] - start[c], 0)", "end[c] - start[c]"),
            ("maximum(end[c] - start[c], 0)", "maximum(end[c] - start[c] - 1, 0)"),
            ("tile(b)", "tile(1, b)"),
            ("tile(start[b], end[b])", "tile(start[b], end[b] + 1)"),
        ),
    ),
    "prefix-by-range": (
        """
def f(pre: i32[B], seq: i32[B], out: Out[i32[L]]):
    partial(out)
    promise(0 <= pre <= seq)
    for b in grid(B):
        base = 0
        for c in range(b):
            base = base + seq[c] - pre[c]
        for t in tile(pre[b], seq[b]):
            p = base + t - pre[b]
            if p < L:
                out[p] = i32(t)
""",
        (("    promise(0 <= pre <= seq)\n", ""), ("range(b)", "range(b - 1)"), ("base + t - pre[b]", "base + t - pre[b] + b % 2")),
    ),
    "prefix-by-mask": (
        """
def f(length: i32[64], out: Out[i32[L]]):
    partial(out)
    promise(length >= 0)
    c = span(64)
    for b in grid(64):
        base = sum(where(c < b, length[c], 0), axis=c)
        for t in tile(length[b]):
            if base + t < L:
                out[base + t] = i32(t)
""",
        (("    promise(length >= 0)\n", ""), ("c < b", "c < b - 1"), ("c < b", "c > b - 2"), ("tile(length[b])", "tile(length[b] + 1)")),
    ),
    "prefix-behind": (
        """
def f(length: i32[64], out: Out[i32[L]]):
    partial(out)
    promise(length >= 0)
    c = span(64)
    for b in grid(64):
        base = sum(where(c > b, length[c], 0), axis=c)
        for t in tile(length[b]):
            if base + t < L:
                out[base + t] = i32(t)
""",
        (("    promise(length >= 0)\n", ""), ("c > b", "c > b + 1")),
    ),
    "prefix-by-scan": (
        """
def f(length: i32[64], out: Out[i32[L]]):
    partial(out)
    promise(length >= 0)
    c = span(64)
    for one in grid(1):
        base = cumsum(length[c], axis=c, exclusive=True)
        t = span(8)
        if (t < length[c]) & (base + t < L):
            out[base + t] = 1
""",
        (("    promise(length >= 0)\n", ""), ("t < length[c]", "t <= length[c]"), (", exclusive=True", ""), ("base + t < L", "base < L")),
    ),
    "prefix-by-reverse-scan": (
        """
def f(length: i32[64], out: Out[i32[L]]):
    partial(out)
    promise(length >= 0)
    c = span(64)
    for one in grid(1):
        base = cumsum(length[c], axis=c, exclusive=True, reverse=True)
        t = span(8)
        if (t < length[c]) & (base + t < L):
            out[base + t] = 1
""",
        (("    promise(length >= 0)\n", ""), ("t < length[c]", "t <= length[c]")),
    ),
    "prefix-in-a-tile": (
        """
def f(length: i32[B], out: Out[i32[L]]):
    partial(out)
    promise(0 <= length <= 8)
    t = span(8)
    for one in grid(1):
        used = 0
        for c in tile(B):
            base = used + cumsum(length[c], axis=c, exclusive=True)
            if (t < length[c]) & (base + t < L):
                out[base + t] = 1
            used = used + sum(length[c], axis=c)
""",
        (("promise(0 <= length <= 8)", "promise(-8 <= length <= 8)"), ("t < length[c]", "t <= length[c]"), (", exclusive=True", "")),
    ),
    "prefix-scaled": (
        """
def f(length: i64[B], mask: Out[i32[M]], N: i32):
    partial(mask)
    promise(0 <= length < 2**20)
    require(B < 2**20)
    require(0 <= N < 2**10)
    for b, i in grid(B, N):
        start = 0
        for r in tile(b):
            start = start + sum(length[r] + N, axis=r) * N
        wide = length[b] + N
        for t in tile(wide):
            if start + i * wide + t < M:
                mask[start + i * wide + t] = 1
""",
        (
            ("length[r] + N, axis", "length[r], axis"),
            ("promise(0 <= length < 2**20)", "promise(length < 2**20)"),
            ("i * wide + t", "i * wide - i + t"),
        ),
    ),
    "nest-down": (
        """
def f(next: i32[B, N], y: Out[i32[B]]):
    promise(-1 <= next < N)
    require(N > 0)
    for b in grid(B):
        at = 0
        for s in range(N):
            cur = next[b, at]
            for k in range(N):
                if cur >= 0:
                    cur = next[b, cur]
            if cur >= 0:
                at = cur
        y[b] = i32(at)
""",
        (
            ("promise(-1 <= next < N)", "promise(-1 <= next <= N)"),
            ("            if cur >= 0:\n                at = cur\n", "            at = cur\n"),
            ("                if cur >= 0:\n                    cur", "                if cur >= -1:\n                    cur"),
        ),
    ),
    "nest-both": (
        """
def f(next: i32[N], y: Out[i32[N]]):
    promise(-1 <= next < N)
    for b in grid(N):
        at, cur = b, b
        for s in range(N):
            for k in range(N):
                if cur >= 0:
                    cur = next[cur]
            at = cur if cur >= 0 else at
            cur = at
        y[b] = next[at]
""",
        (("promise(-1 <= next < N)", "promise(-2 <= next < N + 1)"), ("at = cur if cur >= 0 else at", "at = cur + 1 if cur >= 0 else at")),
    ),
    "nest-of-three": (
        """
def f(next: i32[N], y: Out[i64[N]]):
    promise(0 <= next < N)
    for b in grid(N):
        at = b
        for s in range(N):
            to = next[at]
            for k in range(N):
                low = next[to]
                for l in range(k):
                    low = next[low]
                to = low
            at = to
        y[b] = at
""",
        (("promise(0 <= next < N)", "promise(-1 <= next < N)"), ("at = to", "at = to + 1")),
    ),
    "places-running": (
        """
def f(off: i32[B + 1], extend: i32[B], out: Out[i32[L]]):
    partial(out)
    promise(off[b + 1] == off[b] + extend[b])
    promise(off[0] == 0)
    promise(extend >= 0)
    promise(off[B] <= L)
    for b in grid(B):
        for t in tile(extend[b]):
            out[off[b] + t] = i32(t)
""",
        (
            ("off[b] + extend[b])", "off[b] - extend[b])"),
            ("    promise(off[0] == 0)\n", ""),
            ("    promise(extend >= 0)\n", ""),
            ("promise(off[B] <= L)", "promise(off[B] <= L + 1)"),
            ("extend: i32[B]", "extend: i32[B - 1]"),
            ("promise(off[b + 1] == off[b] + extend[b])", "promise(off[b + 1] <= off[b] + extend[b])"),
            ("promise(off[b + 1] == off[b] + extend[b])", "promise(off[b + 2] == off[b] + extend[b])"),
        ),
    ),
    "places-all-written": (
        """
def f(off: i32[B + 1], extend: i32[B], out: Out[i32[L]]):
    promise(off[b] + extend[b] == off[b + 1])
    promise(extend[b] >= 0)
    promise(off[0] == 0)
    promise(off[B] == L)
    for b in grid(B):
        for t in tile(off[b], off[b + 1]):
            out[t] = i32(b)
""",
        (("off[0] == 0", "off[0] == 1"), ("off[B] == L", "off[B] <= L"), ("promise(extend[b] >= 0)", "promise(extend[b] >= -1)")),
    ),
    "places-first": (
        """
def f(cu: i32[B], out: Out[i32[B]]):
    promise(cu[0] == 0)
    for b in grid(B):
        out[cu[0] + b] = 1
""",
        (("cu[0] == 0", "cu[1] == 0"), ("cu[0] == 0", "cu[0] >= 0")),
    ),
    "one-lane": (
        """
def f(x: i64[64], e: i32[N], t: f32[100], y: Out[f32[N]]):
    promise(0 <= x < 100)
    b = span(64)
    for n in grid(N):
        y[n] = t[sum(where(b == e[n], x[b], 0), axis=b)]
""",
        (
            ("b == e[n]", "b == e[n] + b"),
            ("b == e[n]", "b >= e[n]"),
            ("promise(0 <= x < 100)", "promise(0 <= x <= 100)"),
            ("t: f32[100]", "t: f32[99]"),
        ),
    ),
    "one-lane-of-a-tile": (
        """
def f(x: i64[M], e: i32[N], t: f32[100], y: Out[f32[N]]):
    promise(1 <= x < 100)
    for n in grid(N):
        at = 0
        for b in tile(M):
            lane = sum(where(b == e[n], x[b], 0), axis=b)
            at = lane if lane > 0 else at
        y[n] = t[at]
""",
        (("promise(1 <= x < 100)", "promise(1 <= x <= 100)"), ("b == e[n]", "b <= e[n]"), ("b == e[n], x[b], 0", "b == e[n], x[b], 1")),
    ),
    "stride-at-launch": (
        """
def f(x: i32[M, N], y: Out[i32[M, N * S]], S: i32):
    require(S > 0)
    for m in grid(M):
        pos = 0
        for n in range(N):
            for s in range(S):
                y[m, pos + s] = x[m, n]
            pos += S
""",
        (("pos += S", "pos += S + 1"), ("range(S)", "range(S - 1)"), ("pos = 0", "pos = 1"), ("pos += S", "pos += S if n > 0 else 1")),
    ),
    "bound-by-a-condition": (
        """
def f(table: i32[B, W], cache: f32[NB, P], y: Out[i32[B, W * P]], P: const = 64):
    for b in grid(B):
        for t in tile(W * P):
            page = table[b, t // P]
            y[b, t] = where((0 <= page) & (page < NB), i32(page * P + t % P), -1)
""",
        (("(page < NB)", "(page < NB + page)"), ("(0 <= page) & ", ""), ("& (page < NB)", "& (page < 2**30)")),
    ),
}


def verdicts(text: str) -> set[str]:
    file = parse(Source(text, "sums.nsa"))
    (name,) = kernel_names(file)
    return {r.verdict for r in settle(specialise(file, name, Settings(dims=dict.fromkeys(signature(file, name, {}).specialised, 64))))}


@pytest.mark.parametrize("name", [pytest.param(n, id=f"P-{n}") for n in RIGHT])
def test_proved(name: str) -> None:
    assert verdicts(RIGHT[name][0]) == {"PROVED"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [pytest.param(n, *edit, id=f"S-{n}-{i}") for n, (_, edits) in RIGHT.items() for i, edit in enumerate(edits)],
)
def test_spoilt_is_not_proved(name: str, old: str, new: str) -> None:
    text = RIGHT[name][0]
    assert old in text and verdicts(text.replace(old, new)) != {"PROVED"}
