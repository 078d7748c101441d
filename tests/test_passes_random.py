"""Random expressions: every pass keeps their value, bit for bit, on edge values and on padded lanes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from staged import check, special, typed

from nsalang.base.source import NsaError
from nsalang.interp.fault import Fault

INTEGER_LEAVES = ["a[m, n]", "b[n]", "n", "m", "M", "N", "3", "-2", "8", "100", "c[m]", "i64(d[n])"]
FLOAT_LEAVES = ["x[m, n]", "w[n]", "f32(h[m, n])", "0.0", "1.0", "-1.5", "448.0", "0.5", "f32(n)", "f32(u[n])"]


def grow(leaves: list[str], unary: list[str], binary: list[str]) -> st.SearchStrategy[str]:
    def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        one = st.tuples(st.sampled_from(unary), inner).map(lambda p: p[0].replace("@", p[1]))
        two = st.tuples(st.sampled_from(binary), inner, inner).map(lambda p: p[0].replace("@", p[1]).replace("#", p[2]))
        return st.one_of(one, two, two)

    return st.recursive(st.sampled_from(leaves), extend, max_leaves=7)


INTEGERS = grow(
    INTEGER_LEAVES,
    [
        "(-@)",
        "abs(@)",
        "(@ // 8)",
        "(@ % 8)",
        "(@ // 7)",
        "(@ % -5)",
        "(@ * 4)",
        "(@ + 0)",
        "(@ & 15)",
        "(@ >> 2)",
        "where(@ > 3, @, 5)",
        "i64(wrap(@, i8))",
    ],
    [
        "(@ + #)",
        "(@ - #)",
        "(@ * #)",
        "minimum(@, #)",
        "maximum(@, #)",
        "where(# != 0, @ // #, 1)",
        "where(# > 0, @ % #, @)",
        "(@ | #)",
        "(@ ^ #)",
    ],
)
FLOATS = grow(
    FLOAT_LEAVES,
    ["(-@)", "abs(@)", "round(@)", "trunc(@)", "floor(@)", "sqrt(@)", "f32(bf16(@))", "f32(f16(@))", "f32(e4m3(@))", "clamp(@, -2, 3)", "(@ / 4)", "(@ * 1)",
     "maximum(@, 0)", "minimum(@, 7.5)", "(@ + 0)", "f32(i8(@))", "f32(i32(@))", "pow2_ceil(@)"],
    ["(@ + #)", "(@ - #)", "(@ * #)", "(@ / #)", "minimum(@, #)", "maximum(@, #)", "where(@ < #, @, #)", "fma(@, #, 1.0)", "f32(bf16(@) * bf16(#))"],
)  # fmt: skip


def body(expression: str, dtype: str, reductions: str) -> str:
    return (
        f"""
def k(a: i32[M, N], b: i8[N], c: i64[M], d: u8[N], x: f32[M, N], w: f32[N], h: bf16[M, N], u: u32[N],
      y: Out[{dtype}[M, N]], s: Out[{dtype}[M]], t: Out[{dtype}[N]]):
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = {expression} + {"0 * n" if dtype == "i64" else "0.0 * f32(n)"} + {"0 * m" if dtype == "i64" else "0.0 * f32(m)"}
"""
        if not reductions
        else f"""
def k(a: i32[M, N], b: i8[N], c: i64[M], d: u8[N], x: f32[M, N], w: f32[N], h: bf16[M, N], u: u32[N], s: Out[{dtype}[M]]):
    for m in grid(tile(M)):
        best = full(m, 0, dtype={dtype})
        for n in tile(N):
            v = {expression} + {"0 * n" if dtype == "i64" else "0.0 * f32(n)"} + {"0 * m" if dtype == "i64" else "0.0 * f32(m)"}
            best = {"minimum" if reductions == "min" else "maximum"}(best, {reductions}(v, axis=n))
        s[m] = best
"""
    )


def tensors() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return {
        "a": torch.tensor([[0, 1, -1, 7, -8], [100, 2**31 - 1, -(2**31), 3, -100], [5, -5, 8, -7, 0]], dtype=torch.int32),
        "b": torch.tensor([0, -128, 127, 3, -3], dtype=torch.int8),
        "c": torch.tensor([0, -9, 2**33]),
        "d": torch.tensor([0, 255, 7, 128, 1], dtype=torch.uint8),
        "x": special(
            typed("def k(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = x[n]\n").tensor("x").dtype, 3, 5
        ),
        "w": torch.tensor([float("nan"), -0.0, 2.5, float("-inf"), 3.0]),
        "h": torch.randn(3, 5, generator=random).mul(50).bfloat16(),
        "u": torch.tensor([0, 2**32 - 1, 1, 2**24 + 1, 5]).to(torch.uint32),
    }


def compare(text: str) -> None:
    try:
        kernel = typed(text)
    except NsaError:
        assume(False)
    used = {t.name for t in kernel.tensors}
    try:
        check(
            kernel, {"M": 3, "N": 5}, pins={"m": 2, "n": 4}, tensors={n: t for n, t in tensors().items() if n in used}, backends=("triton",)
        )
    except Fault as fault:
        # A program that faults before any pass has no meaning to keep.
        if fault.__traceback__ is not None and _stage_of(fault) == "meaning":
            assume(False)
        raise


def _stage_of(fault: Fault) -> str:
    frame = fault.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_name == "outputs":
            return "machine" if frame.tb_frame.f_locals["machine"] else "meaning"
        frame = frame.tb_next
    return "machine"


COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.parametrize("reduction", ["", "max", "absmax"])
@settings(COMMON, max_examples=25)
@given(expression=INTEGERS)
def test_integers(reduction: str, expression: str) -> None:
    compare(body(expression, "i64", reduction))


@pytest.mark.parametrize("reduction", ["", "max", "absmax"])
@settings(COMMON, max_examples=25)
@given(expression=FLOATS)
def test_floats(reduction: str, expression: str) -> None:
    compare(body(expression, "f32", reduction))


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["", "max", "min", "absmax"])
@settings(COMMON, max_examples=150)
@given(expression=st.one_of(INTEGERS.map(lambda e: (e, "i64")), FLOATS.map(lambda e: (e, "f32"))))
def test_many(reduction: str, expression: tuple[str, str]) -> None:
    compare(body(*expression, reduction))
