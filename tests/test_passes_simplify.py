"""What the pass simplify folds, and what it must leave."""

from __future__ import annotations

import pytest
from staged import EVERY_F32, check, stages, typed

from nsalang import ir
from nsalang.base.dtypes import I64
from nsalang.base.target import parse_target
from nsalang.passes import simplify


def folded(expression: str, dtype: str = "f32") -> ir.Expr:
    text = f"""
def k(x: {dtype}[N], y: Out[{dtype}[N]], z: Out[i32[N]]):
    for n in grid(tile(N)):
        v = x[n]
        y[n] = {expression}
"""
    kernel = dict(stages(typed(text), "cuda:sm_90", "triton", False, {}, trust=True))["simplify"]
    return next(n.value for n in ir.walk(kernel) if isinstance(n, ir.Store))


@pytest.mark.parametrize(
    "expression",
    ["v * 0.0", "v + 0.0", "0.0 - v", "v / 3.0", "v - v", "maximum(v, -inf)", "minimum(maximum(v, 1.0), 0.5)", "v * 2.0 / 2.0"],
)
def test_what_is_not_exact_stays(expression: str) -> None:
    text = f"""
def k(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        v = x[n]
        y[n] = {expression}
"""
    check(typed(text), {"N": len(EVERY_F32)}, pins={"n": 8192}, tensors={"x": EVERY_F32}, backends=("tilelang",), widths=(False,))
    assert isinstance(folded(expression), ir.Binary)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [("v * 1.0", ir.Var), ("v - 0.0", ir.Var), ("f32(bf16(v)) * 1", ir.Cast), ("-(-v)", ir.Var), ("where(v < 0, v, v)", ir.Var)],
)
def test_identities(expression: str, kind: type) -> None:
    assert isinstance(folded(expression), kind)


def test_division_by_a_power_of_two_is_a_product() -> None:
    made = folded("v / 8")
    assert isinstance(made, ir.Binary) and made.op == "mul" and isinstance(made.b, ir.Const) and made.b.value == 0.125


def test_nested_maxima_become_one() -> None:
    made = folded("maximum(2, maximum(maximum(v, 0), 1))")
    assert isinstance(made, ir.Binary) and isinstance(made.b, ir.Const) and made.b.value == 2.0 and isinstance(made.a, ir.Var)


def test_borders_that_are_known() -> None:
    text = """
def k(y: Out[i64[N]]):
    for p, n in grid(4, tile(N)):
        first, second = split(N, 4, 0)
        third, last = split(N, 4, 3)
        lo, hi = split(10, 4, 1)
        some, more = split(N, 4, p)
        y[n] = first + second + third + last + lo + hi + some + more
"""
    kernel = simplify.run(typed(text), parse_target("cpu"))
    found = {n.name: n.value for n in ir.walk(kernel) if isinstance(n, ir.Assign)}
    known = {name: n.value for name, n in found.items() if isinstance(n, ir.Const)}
    assert known == {"first": 0, "lo": 3, "hi": 6} and found["last"] == ir.Dim(I64, (), "N")
    assert {name for name, n in found.items() if isinstance(n, ir.Border)} == {"second", "third", "some", "more"}


def test_dead_code_goes_also_carried() -> None:
    text = """
def k(x: f32[M, N], y: Out[f32[M]], never: const = False):
    c = span(64)
    for m in grid(tile(M)):
        total, unused = zeros(m), zeros(m)
        for n in tile(N):
            unused = unused + sum(x[m, n], axis=n)
            total = total + max(x[m, n], axis=n)
        for n in tile(0, 0):
            total = total + sum(x[m, n], axis=n)
        y[m] = total
"""
    kernel = dict(stages(typed(text), "cuda:sm_90", "triton", False, {}, trust=True))["simplify"]
    loops = [n for n in ir.walk(kernel) if isinstance(n, ir.For)]
    assert [loop.carried for loop in loops] == [("total",)]
    assert not any(isinstance(n, ir.SpanAxis) for n in ir.walk(kernel))
