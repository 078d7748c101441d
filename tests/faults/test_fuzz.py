"""What random expressions over data found: the smallest of each, with what is right. By the kind of the fault."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import nsalang

LEAST, MOST = -(2**63), 2**63 - 1
FAR = (LEAST, LEAST + 1, -(2**62), -1, 0, 1, 2**62, MOST - 1, MOST)
NEAR = (-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1)
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Case:
    id: str
    text: str
    inputs: tuple[torch.Tensor, ...]
    right: list[list[int]]


def i64(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def i32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


FLOATS = (NAN, INF, -INF, 0.0, 5.5, -2147483648.0, -2147483904.0)
TRUNCATED = (0, 2**31 - 1, -(2**31), 0, 5, -(2**31), -(2**31))
CASES = (
    Case(
        "S4-remainder_by_the_ends",
        "def k(x: i64[N], y: Out[i64[4, N]]):\n    for n in grid(N):\n        y[0, n] = x[n] % 9223372036854775807\n"
        "        y[1, n] = x[n] % -9223372036854775807\n        y[2, n] = x[n] // 9223372036854775807\n"
        "        y[3, n] = x[n] // -9223372036854775807\n",
        (i64(*FAR),),
        [[v % MOST for v in FAR], [v % -MOST for v in FAR], [v // MOST for v in FAR], [v // -MOST for v in FAR]],
    ),
    Case(
        "S4-a_bound_next_to_the_least",
        "def k(x: i64[N], y: Out[i64[2, N]]):\n    for n in grid(N):\n        y[0, n] = maximum(x[n], -9223372036854775807) // -1\n"
        "        y[1, n] = abs(maximum(x[n], -9223372036854775807)) + minimum(x[n] >> 1, 0)\n",
        (i64(*FAR),),
        [[-max(v, -MOST) for v in FAR], [abs(max(v, -MOST)) + min(v >> 1, 0) for v in FAR]],
    ),
    Case(
        "S4-least_of_32_bits",
        "def k(x: i32[N], y: Out[i64[3, N]]):\n    for n in grid(N):\n        y[0, n] = x[n] // -2147483648\n        y[1, n] = x[n] % -2147483648\n"
        "        y[2, n] = where(x[n] == -2147483648, 3, 4)\n",
        (i32(*NEAR),),
        [[v // -(2**31) for v in NEAR], [v % -(2**31) for v in NEAR], [3 if v == -(2**31) else 4 for v in NEAR]],
    ),
    Case(
        "S4-far_number_in_an_index",
        "def k(x: i32[N], t: i32[7], y: Out[i64[1, N]]):\n    for n in grid(N):\n        e = x[n] // 4611686018427387905\n"
        "        y[0, n] = where((0 <= e) & (e < 7), t[e], -1)\n",
        (i32(*NEAR), torch.arange(10, 17, dtype=torch.int32)),
        [[-1 if v < 0 else 10 for v in NEAR]],
    ),
    Case(
        "S4-far_shift_in_an_index",
        "def k(x: i32[N], s: u8[N], t: i32[7], y: Out[i64[3, N]]):\n    for n in grid(N):\n        y[0, n] = t[clamp(i64(x[n]) >> 47, 0, 6)]\n"
        "        y[1, n] = t[clamp(i64(x[n]) >> (s[n] & 63), 0, 6)]\n        y[2, n] = t[clamp((i64(x[n]) >> 63) + 2, 0, 6)]\n",
        (i32(*NEAR, *NEAR), torch.tensor([40] * 6 + [31, 32, 62, 63, 29, 30], dtype=torch.uint8), torch.arange(7, dtype=torch.int32)),
        [
            [min(max(v >> 47, 0), 6) for v in (*NEAR, *NEAR)],
            [min(max(v >> s, 0), 6) for v, s in zip((*NEAR, *NEAR), [40] * 6 + [31, 32, 62, 63, 29, 30], strict=True)],
            [(v >> 63) + 2 for v in (*NEAR, *NEAR)],
        ],
    ),
    Case(
        "S4-negation_of_a_test_that_must_see_nan",
        "def k(g: f32[N], u: u8[N], y: Out[i64[1, N]]):\n    for n in grid(N):\n"
        "        y[0, n] = where(~(g[n] < -2147483648.0), i64(u[n]), 0) + i32(g[n])\n",
        (torch.tensor(FLOATS), torch.full((len(FLOATS),), 9, dtype=torch.uint8)),
        [[(0 if f < -2147483648.0 else 9) + t for f, t in zip(FLOATS, TRUNCATED, strict=True)]],
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_every_machine_gives_what_is_right(case: Case) -> None:
    kernel = nsalang.load_text(case.text).k
    assert kernel.interpret(*case.inputs).tolist() == case.right, "the interpreter"
    for backend in ("triton", "tilelang"):
        assert kernel(*case.inputs, backend=backend).tolist() == case.right, backend
