"""Kernels and programs under torch.compile(fullgraph=True): one operator of torch each, dynamic shapes, outputs given or not, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from launch_engine import engine_of

import nsalang

TEXT = """
def add(x: f32[N], y: f32[N], out: Out[f32[N]]):
    for n in grid(tile(N)):
        out[n] = x[n] + y[n]

def scale(x: InOut[f32[N]], factor: f32, k: const = 1):
    for n in grid(tile(N)):
        x[n] = x[n] * factor * k

def pairs(x: T[N], y: Out[T[N // 2]], first: Out[f32[N]] | None, least: f32 | None, T: dtype = f32):
    require(N % 2 == 0)
    for g in grid(N // 2):
        i = span(2 * g, 2)
        y[g] = T(sum(f32(x[i]), axis=i))
        if first is not None:
            first[i] = f32(x[i])
            if least is not None:
                first[i] = maximum(f32(x[i]), least)

def ramp(N: i32, y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[n] = f32(n)

def twice(x: f32[N], y: f32[N], out: Out[f32[N]]):
    t = empty(f32[N])
    add(x, y, out=t)
    add(t, t, out=out)
"""
x = torch.arange(8.0)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> nsalang.Module:
    engine_of(monkeypatch)
    torch._dynamo.reset()
    return nsalang.load_text(TEXT)


def scaled(module: Any, v: torch.Tensor, factor: float) -> Any:
    w = v.clone()
    assert module.scale(w, factor, k=3) is None
    return w


CALLS: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]] = {
    "kernel": (lambda m, a, b: m.add(a, b) * 2, [(x, x), (x[:4], x[:4]), (x[1:], x[:-1])]),
    "output": (lambda m, a, b: (m.add(a, y=b, out=torch.empty_like(a)), a + 1), [(x, x)]),
    "inout": (scaled, [(x, 2.0), (x[:4], 3.0)]),
    "optional": (lambda m, a, b: m.pairs(a, least=b, first=True), [(x, 2.0), (x, 3.0), (x[:6], 4.0)]),
    "absent": (lambda m, a: m.pairs(a), [(x,), (x[:6],), (x[:4],)]),
    "dtype": (lambda m, a: m.pairs(a.bfloat16(), T="bf16"), [(x,)]),
    "scalar": (lambda m, n: m.ramp(n), [(4,), (5,), (6,)]),
    "program": (lambda m, a, b: m.twice(a, b) * 2, [(x, x), (x[:4], x[:4])]),
    "options": (lambda m, a: m.add(a, a, backend="tilelang", schedule={"n": 16}, target="cpu", check=False), [(x,)]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_whole_graph(name: str, module: nsalang.Module) -> None:
    call, arguments = CALLS[name]
    compiled = torch.compile(lambda *given: call(module, *given), fullgraph=True, backend="aot_eager")
    for given in arguments:
        torch.testing.assert_close(compiled(*given), call(module, *given), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("code", "call", "given"),
    [
        ("NSA0501", lambda m, a: m.add(a, a, z=1), (x,)),
        ("NSA0502", lambda m, a: m.add(a, a, a), (x,)),
        ("NSA0509", lambda m, a, b: m.add(a, b), (x, x[:3])),
        ("NSA0403", lambda m, a: m.add(a, a), (x.clone().requires_grad_(),)),
    ],
)
def test_errors_are_those_of_a_call(code: str, call: Callable[..., Any], given: tuple[Any, ...], module: nsalang.Module) -> None:
    with pytest.raises(Exception, match=code):
        torch.compile(lambda *values: call(module, *values), fullgraph=True, backend="aot_eager")(*given)


def test_one_operator_for_each_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch keeps graphs by the names of their operators, on disk too."""
    from nsalang.launch.options import DEFAULT
    from nsalang.launch.traced import operator_of

    engine_of(monkeypatch)
    taken = ("x", "factor")
    made = {
        operator_of(nsalang.load_text(text).scale.launcher, fixed, taken, DEFAULT)
        for text in (TEXT, TEXT.replace("* k", "+ k"))
        for fixed in ((), (("k", 1),), (("k", 2),))
    }
    again = operator_of(nsalang.load_text(TEXT).scale.launcher, (), taken, DEFAULT)
    assert len(made) == 6 and again in made
