"""Integers at the ends of their widths: what the interpreter and the code of both backends give is what the language says. By the kind of the fault."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import nsalang

I32_MIN, I32_MAX, I64_MIN, I64_MAX = -(2**31), 2**31 - 1, -(2**63), 2**63 - 1
NAN, INF = float("nan"), float("inf")


def i32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def i64(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def u8(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)


def f32(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@dataclass(frozen=True)
class Case:
    id: str
    text: str
    inputs: tuple[torch.Tensor, ...]
    right: torch.Tensor


FAR = 2**31 - 20
EDGES = (I32_MIN, I32_MIN + 1, -7, -5, -2, -1, 1, 2, 5, 7, I32_MAX)
FAR_EDGES = (I64_MIN + 1, -(2**62), *EDGES, 2**62, I64_MAX)


def pairs(edges: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(a, b) for a in (0, *edges) for b in edges]


CASES = (
    Case(
        "S3-remainder_by_minus_one",
        "def k(x: i32[N], d: i32[N], y: Out[i32[N]]):\n    for n in grid(N):\n        y[n] = where(d[n] != 0, x[n] % d[n], 0)\n",
        (i32(*(a for a, _ in pairs(EDGES)), 3), i32(*(b for _, b in pairs(EDGES)), 0)),
        i32(*(a % b for a, b in pairs(EDGES)), 0),
    ),
    Case(
        "S3-remainder_by_minus_one_i64",
        "def k(x: i64[N], d: i64[N], y: Out[i64[N]]):\n    for n in grid(tile(N)):\n        y[n] = where(d[n] != 0, x[n] % d[n], 0)\n",
        (i64(I64_MIN, *(a for a, _ in pairs(FAR_EDGES)), 3), i64(-1, *(b for _, b in pairs(FAR_EDGES)), 0)),
        i64(0, *(a % b for a, b in pairs(FAR_EDGES)), 0),
    ),
    Case(
        "S3-quotient_by_minus_one",
        "def k(x: i32[N], d: i32[N], y: Out[i64[N]]):\n    for n in grid(tile(N)):\n        y[n] = where(d[n] != 0, x[n] // d[n], 0)\n",
        (i32(*(a for a, _ in pairs(EDGES)), 3), i32(*(b for _, b in pairs(EDGES)), 0)),
        i64(*(a // b for a, b in pairs(EDGES)), 0),
    ),
    Case(
        "S3-quotient_in_lanes_that_are_excluded",
        "def k(x: i64[N], d: i64[N], y: Out[i64[N]]):\n    for n in grid(tile(N)):\n"
        "        y[n] = where((d[n] != 0) & (d[n] != -1), x[n] // d[n], 7)\n",
        (i64(I64_MIN, 5, I64_MIN, I64_MAX), i64(-1, 0, 2, -2)),
        i64(7, 7, I64_MIN // 2, I64_MAX // -2),
    ),
    Case(
        "S3-long_shift",
        "def k(x: i32[N], y: Out[i32[N]]):\n    for n in grid(N):\n        y[n] = x[n] >> 40\n",
        (i32(5, -5, I32_MIN, I32_MAX),),
        i32(0, -1, -1, 0),
    ),
    Case(
        "S3-long_shift_of_data",
        "def k(x: i32[N], s: i32[N], y: Out[i64[N]]):\n    promise(0 <= s < 64)\n    for n in grid(tile(N)):\n        y[n] = x[n] >> s[n]\n",
        (i32(5, -5, I32_MIN, I32_MAX, I32_MIN), i32(32, 40, 63, 62, 31)),
        i64(0, -1, -1, 0, -1),
    ),
    Case(
        "S3-negated_least",
        "def k(x: i32[N], y: Out[i64[N]]):\n    for n in grid(tile(N)):\n        y[n] = -x[n] + abs(x[n]) + maximum(-x[n], x[n]) * 2\n",
        (i32(I32_MIN, I32_MAX, 0, -1),),
        i64(*(-a + abs(a) + max(-a, a) * 2 for a in (I32_MIN, I32_MAX, 0, -1))),
    ),
    Case(
        "S4-dropped_remainder",
        "def k(v: u8[N], x: u8[7], y: Out[u8[N]]):\n    for n in grid(N):\n        y[n] = x[(i64(v[n]) >> (n % 8)) % 7]\n",
        (torch.arange(200, 250, dtype=torch.uint8), torch.arange(7, dtype=torch.uint8)),
        u8(*((v >> (n % 8)) % 7 for n, v in enumerate(range(200, 250)))),
    ),
    Case(
        "S4-nan_to_integer",
        "def k(f: f32[N], x: f32[7], y: Out[f32[N]]):\n    for n in grid(N):\n        i = i32(f[n])\n"
        "        y[n] = where((i >= 0) & (i < 7), x[i], 0)\n",
        (f32(NAN, 1.0, -1.0, 6.5, 1e30, -1e30, INF, -INF), torch.arange(10.0, 17.0)),
        f32(10, 11, 0, 16, 0, 0, 0, 0),
    ),
    Case(
        "S4-nan_is_neither_less_nor_more",
        "def k(f: f32[N], g: f32[N], y: Out[f32[N]]):\n    for n in grid(N):\n        v, w = f[n], g[n]\n"
        "        a = where(v >= 1.0, 1.0, where(v < 1.0, 2.0, 3.0))\n"
        "        if v >= w:\n            a = a + 10.0\n        elif v < w:\n            a = a + 20.0\n        else:\n            a = a + 30.0\n"
        "        y[n] = a\n",
        (f32(NAN, 1.0, -1.0, -0.0), f32(1.0, NAN, 1.0, 0.0)),
        f32(33, 31, 22, 12),
    ),
    Case(
        "S5-cdiv_at_run_time",
        "def k(a: i64[N], b: i64[N], y: Out[i64[N]]):\n    promise(b != 0)\n    for n in grid(tile(N)):\n"
        "        y[n] = where((b[n] != -1) | (a[n] > -9223372036854775807), cdiv(a[n], b[n]), 0)\n",
        (i64(*(a for a, _ in pairs(FAR_EDGES[1:]))), i64(*(b for _, b in pairs(FAR_EDGES[1:])))),
        i64(*(-(-a // b) for a, b in pairs(FAR_EDGES[1:]))),
    ),
    Case(
        "S5-cdiv_of_constants",
        "def k(y: Out[i64[4]]):\n    for q in grid(1):\n        y[0] = cdiv(-5, -2)\n        y[1] = cdiv(5, -2)\n        y[2] = cdiv(-5, 2)\n"
        "        y[3] = cdiv(5, 2)\n",
        (),
        i64(3, -2, -2, 3),
    ),
    Case(
        "S5-extremes_of_nothing",
        "def k(a: i32[1], x: i32[8], z: u8[8], y: Out[i64[4]]):\n    promise(0 <= a <= 8)\n    for q in grid(1):\n        n = span(0, 8, a[0])\n"
        "        y[0] = max(x[n], axis=n)\n        y[1] = min(x[n], axis=n)\n        y[2] = i64(max(z[n], axis=n))\n        y[3] = i64(min(z[n], axis=n))\n",
        (i32(0), torch.arange(8, dtype=torch.int32), torch.arange(8, dtype=torch.uint8)),
        i64(I64_MIN, I64_MAX, 0, 255),
    ),
    Case(
        "S6-span",
        "def k(a: i32[1], y: Out[i32[8]]):\n    promise(a >= 0)\n    for q in grid(1):\n        n = span(a[0], 8)\n        y[n - a[0]] = 1\n",
        (i32(FAR),),
        i32(*[1] * 8),
    ),
    Case(
        "S6-range",
        "def k(a: i32[1], y: Out[i32[4]]):\n    promise(a >= 0)\n    partial(y)\n    for q in grid(1):\n        for n in range(a[0], a[0] + 4):\n"
        "            y[n - a[0]] = 1\n",
        (i32(FAR),),
        i32(1, 1, 1, 1),
    ),
    Case(
        "S6-tile",
        "def k(a: i32[1], y: Out[i32[4]]):\n    promise(a >= 0)\n    partial(y)\n    for q in grid(1):\n        for n in tile(a[0], a[0] + 4):\n"
        "            y[n - a[0]] = 1\n",
        (i32(FAR),),
        i32(1, 1, 1, 1),
    ),
    Case(
        "S6-loops_that_count",
        "def k(a: i32[1], y: Out[i64[3]]):\n    for q in grid(1):\n        c = 0\n        for n in range(a[0], a[0] + 4):\n            c = c + 1\n        d = 0\n"
        "        for n in tile(a[0], a[0] + 4):\n            d = d + sum(where(n >= 0, 1, 0), axis=n)\n        e = 0\n        for n in range(a[0], -5):\n"
        "            e = e + 1\n        y[0] = c\n        y[1] = d\n        y[2] = e\n",
        (i32(I32_MAX),),
        i64(4, 4, 0),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_interpreter_and_both_backends_give_what_is_right(case: Case) -> None:
    kernel = nsalang.load_text(case.text).k
    assert torch.equal(kernel.interpret(*case.inputs), case.right), "the interpreter"
    for backend in ("triton", "tilelang"):
        found = kernel(*case.inputs, backend=backend)
        assert torch.equal(found, case.right), f"{backend}: {found.tolist()} and not {case.right.tolist()}"
