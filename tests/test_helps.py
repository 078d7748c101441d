"""What is said of the first mistakes of people who come from Python, torch, numpy and Triton: each help names what the language has instead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nsalang
from nsalang.base.dtypes import ALL
from nsalang.base.source import NsaError, Source
from nsalang.interp.fault import Fault
from nsalang.types.check import check_text
from nsalang.types.habits import DTYPES, OTHERWISE

KERNEL = """\
def f(x: f32[M, N], y: Out[f32[M]], z: Out[f32[M, N]]):
    for m, n in grid(tile(M), tile(N)):
        {}
        y[m] = 0
        z[m, n] = x[m, n]
"""
UNKNOWN, CALL, ATTRIBUTE = "NSA0201", "NSA0311", "NSA0205"


def said(text: str) -> tuple[str, str, tuple[str, ...]]:
    """Code, sentence and helps of the one error of a text."""
    with pytest.raises(NsaError) as caught:
        check_text(Source(text, "a.nsa"))
    (one,) = caught.value.diagnostics
    return one.code, one.sentence, one.helps


@pytest.mark.parametrize(
    ("line", "code", "help"),
    [
        ("print(x[m, n])", UNKNOWN, "a kernel prints nothing: write the value to an Out"),
        ("a = len(x)", UNKNOWN, "an extent has a name: the M of f32[M]"),
        ("a = relu(x[m, n])", UNKNOWN, "maximum(x, 0)"),
        ("a = int(x[m, n])", UNKNOWN, "did you mean 'i32'?"),
        ("a = float32(x[m, n])", UNKNOWN, "did you mean 'f32'?"),
        ("a = max0(x[m, n])", UNKNOWN, "did you mean 'max'?"),
        ("a = x[m, k]", UNKNOWN, "an axis is made by a loop or a span: 'for k in tile(N):', 'k = span(N)'"),
        ("a = x[k, n]", UNKNOWN, "an axis is made by a loop or a span: 'for k in tile(M):', 'k = span(M)'"),
        ("a = torch.exp(x[m, n])", CALL, "functions have plain names: exp(…)"),
        ("a = x[m, n].float()", CALL, "a conversion is f32(x)"),
        ("a = x[m, n].to(f32)", CALL, "a conversion is f32(x)"),
        ("a = clamp(x[m, n], min=0, max=1)", CALL, None),
        ("a = x.shape[0]", ATTRIBUTE, "the extents of 'x' have names: M, N"),
        ("a = x.T[n, m]", ATTRIBUTE, "axes have names: x[n, m] reads a transposed tensor"),
        ("a = x[m, None]", "NSA0304", "leave it out: values broadcast by the names of their axes"),
        ("a = max(x[m, n], axis=1)", "NSA0307", "the value is f32 over (m, n)"),
        ("a = zeros((m, n))", "NSA0325", "axes stand side by side: zeros(m, n)"),
        ("a = zeros(m, f32)", "NSA0307", "a dtype is given by name: dtype=f32"),
        ("for i in range(0, 10, 2):\n            a = i", CALL, "a loop goes in steps of 1: compute lo + i * step in it"),
    ],
)
def test_a_habit_is_told_what_the_language_has(line: str, code: str, help: str | None) -> None:
    found, _, helps = said(KERNEL.format(line))
    assert (found, helps) == (code, () if help is None else (help,))


@pytest.mark.parametrize(("name", "near"), [("print", "split"), ("int", "min"), ("float", "floor"), ("softmax", "absmax")])
def test_a_name_that_is_not_near_is_not_proposed(name: str, near: str) -> None:
    assert near not in "".join(said(KERNEL.format(f"a = {name}(x[m, n])"))[2])


def test_a_name_is_not_taken_for_a_function() -> None:
    assert said(KERNEL.format("a = mean"))[2] == ()
    assert said("def f(x: T[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = 0\n")[1:] == ("unknown dtype 'T'", ())


@pytest.mark.parametrize(
    ("dtype", "ours"), [("bfloat16", "bf16"), ("float8_e4m3fn", "e4m3"), ("int64", "i64"), ("uint8", "u8"), ("half", "f16")]
)
def test_a_dtype_of_torch_is_told_its_name(dtype: str, ours: str) -> None:
    text = f"def f(x: {dtype}[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = 0\n"
    assert said(text) == ("NSA0319", f"unknown dtype '{dtype}'", (f"did you mean '{ours}'?",))


@pytest.mark.parametrize(
    ("written", "name"), [("nl.f32[N]", "f32"), ("nl.Out[f32[N]]", "Out"), ("Out[nl.f32[N]]", "f32"), ("nl.i32", "i32")]
)
def test_a_type_with_a_module_before_it(written: str, name: str) -> None:
    text = f"def f(x: {written}, y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = 0\n"  # and nothing is said of N
    assert said(text) == ("NSA0319", "the type of parameter 'x' can't be understood", (f"names of the language stand alone: {name}",))


def test_the_tables_name_nothing_that_the_language_has() -> None:
    from nsalang.types.functions import FUNCTIONS, PLACES

    assert set(DTYPES.values()) <= ALL.keys()
    assert not (DTYPES.keys() | OTHERWISE.keys()) & {*FUNCTIONS, *PLACES, *ALL}


def test_a_grid_is_told_where_a_second_one_and_lengths_stand() -> None:
    second = "def f(y: Out[f32[M]]):\n    for m in grid(tile(M)):\n        y[m] = 0\n    for m in grid(tile(M)):\n        y[m] = 1\n"
    assert said(second) == ("NSA0314", "nothing stands after the grid", ("a second grid is a kernel of its own",))
    length = "def f(y: Out[f32[M]]):\n    for m in grid(tile(M, 64)):\n        y[m] = 0\n"
    assert said(length)[2] == ("lengths of tiles are chosen, or pinned from outside: schedule={'m': 64}",)
    lower = "def f(y: Out[f32[m]]):\n    for m in grid(tile(m)):\n        y[m] = 0\n"
    assert said(lower)[1] == "'m' is a dimension"


# ------------------------------------------------------------------------------------------------------- kernels in Python files

PYTHON = """\
import math
import nsalang
from nsalang.dims import N
from nsalang.language import Out, f32, grid, tile

LIST, TEXT = [1.0], "text"

def helper(x):
    return x

@nsalang.jit
def f(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[n] = x[n] * {}
"""


@pytest.mark.parametrize(
    ("used", "what"), [("LIST[0]", "a value of type list"), ("TEXT", "a string"), ("helper(x[n])", "a function"), ("math.pi", "a module")]
)
def test_a_name_of_python_is_told_why_it_is_unknown(used: str, what: str, tmp_path: Path) -> None:
    import runpy

    file = tmp_path / "kernel.py"
    file.write_text(PYTHON.format(used))
    with pytest.raises(NsaError) as caught:
        runpy.run_path(str(file))["f"].check()
    name = used.split("(")[0].split("[")[0].split(".")[0]
    (one,) = caught.value.diagnostics
    assert one.code == "NSA0201"
    assert one.notes == (f"in Python '{name}' is {what}, and a kernel sees numbers, bools, dtypes and None of the scope around it",)


# ------------------------------------------------------------------------------------------------------------------- compilation


def test_what_is_wrong_in_the_text_comes_before_a_missing_size() -> None:
    text = "def f(x: f32[M, N], y: Out[f32[M]]):\n    for m in grid(tile(M)):\n        n = span(N)\n        y[m] = {}\n"
    wrong = nsalang.load_text(text.format("sum(x[m, n], axis=1)")).f
    with pytest.raises(NsaError, match="NSA0307"):
        wrong.compile()
    with pytest.raises(NsaError, match=r"NSA0518(.|\n)*give N="):
        nsalang.load_text(text.format("sum(x[m, n], axis=n)")).f.compile()


def test_an_extent_is_divided_rounding_up() -> None:
    text = """\
def even(x: f32[N], s: f32[cdiv(N, 128)], y: Out[f32[cdiv(N, 2)]]):
    for i in grid(tile(cdiv(N, 2))):
        y[i] = x[2 * i] * s[2 * i // 128]
"""
    kernel = nsalang.load_text(text).even
    assert kernel.signature.dims == ("N",)
    x, s = torch.arange(131.0), torch.tensor([1.0, 2.0])
    wanted = torch.where(torch.arange(66) < 64, 1, 2) * x[::2]
    assert torch.equal(kernel.interpret(x, s), wanted) and torch.equal(kernel(x, s, backend="tilelang"), wanted)
    with pytest.raises(NsaError, match=r"NSA0509.*expected cdiv\(N, 128\) = 2"):
        kernel.interpret(x, s[:1])


def test_a_fault_in_the_interpreter_is_an_error_at_its_line() -> None:
    text = "def f(x: f32[T], i: i32[N], y: Out[f32[N]]):\n    promise(0 <= i < T)\n    for n in grid(tile(N)):\n        y[n] = x[i[n]]\n"
    kernel = nsalang.load_text(text).f
    with pytest.raises(NsaError) as caught:
        kernel.interpret(torch.zeros(3), torch.tensor([0, -1], dtype=torch.int32))
    (one,) = caught.value.diagnostics
    assert (one.code, one.span.line if one.span else 0) == ("NSA0520", 4) and "x[-1], read outside" in one.sentence
    assert not isinstance(caught.value, Fault)
