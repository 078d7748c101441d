"""Integers that loops carry: between what they stay, and that those which fit are carried in 32 bits."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

import nsalang
from nsalang import ir
from nsalang.base.source import Source
from nsalang.interp.run import interpret
from nsalang.ir.intervals import FULL, Bounds, Interval
from nsalang.syntax.parser import parse
from nsalang.types.typecheck import Settings, specialise

HEAD = "def k(x: i32[M, N], c: i64[M], a: i8[M, N], y: Out[i64[M]]):\n    require(N <= 1000)\n    require(M <= 10)\n    for m in grid(M):\n"
CASES = {
    "steps": ("t = 5\nfor n in range(N):\n    if x[m, n] > 0:\n        t = t + 1", (5, 1005)),
    "down": ("t = 0\nfor i in range(M):\n    for n in range(N):\n        t = t - 2", (-20000, 0)),
    "begun_again": ("t = 0\nfor i in range(M):\n    t = i\n    for n in range(N):\n        t = t + 3", (0, 30009)),
    "counted": ("t = 0\nfor n in tile(N):\n    t = t + sum(x[m, n] > 0, axis=n)", (0, 1024)),
    "either": ("t = 1\nfor n in range(N):\n    t = where(x[m, n] > t, t + 2, t - 1)", (-999, 2001)),
    "of_another": ("u = 0\nt = 0\nfor n in range(N):\n    u = u + 1\n    t = u + t", (0, 1000000)),
    "between_ends": ("t = 0\nfor n in range(-3, clamp(x[m, 0], 0, 4)):\n    t = 10 + t", (0, 70)),
    "doubled": ("t = 1\nfor n in range(60):\n    t = t + t", (-(2**63), 2**63 - 1)),
    "of_data": ("t = 0\nfor n in range(N):\n    t = t + c[m]", (-(2**63), 2**63 - 1)),
    "in_a_ring": ("u = 0\nt = 0\nfor n in range(N):\n    u = t\n    t = u + 1", (-(2**63), 2**63 - 1)),
    "greatest": ("t = 0\nfor n in range(N):\n    t = maximum(t, t + 1)", (-(2**63), 2**63 - 1)),
}


def typed(text: str) -> ir.Kernel:
    kernel = specialise(parse(Source(text)), "k", Settings())
    loops = [n.index for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.For) and n.kind == "tile"]
    return dataclasses.replace(kernel, schedule=dataclasses.replace(kernel.schedule, lengths=tuple((i, 64) for i in loops)))


def indented(body: str) -> str:
    return "".join(f"        {line}\n" for line in body.splitlines())


@pytest.mark.parametrize("name", CASES)
def test_ends_of_what_a_loop_carries(name: str) -> None:
    body, (low, high) = CASES[name]
    found = Bounds(typed(f"{HEAD}{indented(body)}        y[m] = t\n")).variables["t"]
    assert found == Interval(low, high), found


def block(r: random.Random, depth: int) -> list[str]:
    lines: list[str] = []
    for _ in range(r.randint(1, 3)):
        v, w, n = r.choice("tuv"), r.choice("tuv"), r.randint(-4, 4)
        kind = r.randrange(7) if depth else r.randrange(5)
        if kind < 3:
            lines.append(
                f"{v} = {r.choice([f'{v} + {n}', f'{v} - {w}', f'{w} + {v}', f'{n} + {v}', f'where({w} > {n}, {v} + 1, {v} - {abs(n)})'])}"
            )
        elif kind == 3:
            lines.append(f"{v} = {r.choice([w, str(n), f'minimum({w}, {n})'])}")
        elif kind == 4:
            lines += [f"if {w} > {n}:", f"    {v} = {v} + 1", "else:", f"    {v} = {v} - {abs(n)}"]
        else:
            index = f"i{r.randrange(10**9)}"
            lines += [f"for {index} in range({r.choice([0, -1])}, {r.choice(['N', '2', '3'])}):"]
            lines += [f"    {line}" for line in [*block(r, depth - 1), f"{v} = {v} + {r.choice(['1', '-1', index])}"]]
    return lines


@pytest.mark.parametrize("seed", range(60))
def test_what_runs_lies_between_the_ends(seed: int) -> None:
    r = random.Random(seed)
    body = "\n".join(["t, u, v = 0, 1, -1", *block(r, 2), *block(r, 2)])
    kernel = typed(
        f"def k(y: Out[i64[M, 3]], N: i64):\n    require(0 <= N <= 3)\n    for m in grid(M):\n{indented(body)}        y[m, 0], y[m, 1], y[m, 2] = t, u, v\n"
    )
    bounds = Bounds(kernel)
    for n in range(4):
        y = torch.zeros(1, 3, dtype=torch.int64)
        interpret(kernel, {"y": y}, {"N": n}, {"M": 1})
        for name, value in zip("tuv", y[0].tolist(), strict=True):
            found = bounds.variables.get(name, FULL)  # a variable of one value is none
            assert found == FULL or value in found, (name, value, found, body)


def test_counters_and_sums_of_products_are_carried_in_32_bits() -> None:
    text = """
def count(x: i32[M, N], y: Out[i64[M]]):
    for m in grid(tile(M)):
        t = zeros(m, dtype=i64)
        for n in tile(N):
            t = t + sum(x[m, n] > 0, axis=n)
        y[m] = t


def gemm(a: i8[M, K], b: i8[K, N], y: Out[i32[M, N]]):
    require(K <= 4096)
    for m, n in grid(tile(M), tile(N)):
        acc = zeros(m, n, dtype=i64)
        for k in tile(K):
            acc = acc + dot(a[m, k], b[k, n], axis=k)
        y[m, n] = i32(acc)
"""
    kernels = nsalang.load_text(text)
    x = torch.randint(-5, 5, (3, 2000), dtype=torch.int32)
    a, b = torch.full((2, 4096), -128, dtype=torch.int8), torch.randint(-128, 128, (4096, 16), dtype=torch.int8)
    cases = ((kernels.count, ("triton", "tilelang"), (x,), (x > 0).sum(1)), (kernels.gemm, ("triton",), (a, b), a.int() @ b.int()))
    for kernel, backends, inputs, right in cases:
        for backend in backends:
            assert torch.equal(kernel(*inputs, backend=backend), right)
        code = kernel.compile(target="cuda:sm_90", backend="triton").source
        assert "full(" in code and "0, tl.int64)" not in code
