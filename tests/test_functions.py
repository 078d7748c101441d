"""Every function of one value that the language has, on every backend: within its bound, or exact to the bit."""

from __future__ import annotations

import pytest

import nsalang
from nsalang.base.source import NsaError
from nsalang.ir.operations import FUNCTIONS, UNARY
from nsalang.toolchain import tilelang_compile, triton_compile

torch = pytest.importorskip("torch")

OUTPUTS = ", ".join(f"y_{op}: Out[{UNARY[op].gives or 'f32'}[N]]" for op in FUNCTIONS)
STORES = "\n".join(f"        y_{op}[n] = {op}(x[n])" for op in FUNCTIONS)
CURVES = f"def curves(x: f32[N], {OUTPUTS}):\n    for n in grid(tile(N)):\n{STORES}\n"
X = torch.cat([
    torch.linspace(-12, 12, 3001), torch.linspace(-1.2, 1.2, 1001), torch.linspace(-90, 90, 501),
    torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-30, -1e-30, 3e38, -3e38, 0.5, 1.5, 2.5, 2.0**-126]),
])  # fmt: skip


@pytest.mark.parametrize("backend", ["interpreter", "triton", "tilelang"])
def test_functions_keep_their_bounds(backend: str) -> None:
    from nsalang.interp.bounds import agrees

    entry = nsalang.load_text(CURVES).curves
    run = entry.interpret(X) if backend == "interpreter" else entry(X, backend=backend)
    for op, got in zip(FUNCTIONS, run, strict=True):
        row = UNARY[op]
        if row.bound is not None:
            assert bool(agrees(op, X, got).all()), (op, X[~agrees(op, X, got)], got[~agrees(op, X, got)])
            continue
        expected = row.tensor(X)
        same = (got == expected) | (got.isnan() & expected.isnan()) if got.is_floating_point() else got == expected
        assert bool(same.all()), (op, X[~same], got[~same], expected[~same])
        assert not got.is_floating_point() or bool((got.signbit() == expected.signbit())[~expected.isnan()].all()), op


@pytest.mark.parametrize("target", ["cuda:sm_90", "hip:gfx942"])
def test_functions_compile_for_devices(target: str) -> None:
    entry = nsalang.load_text(CURVES).curves
    made = triton_compile.compile_program(entry.compile(target=target, backend="triton").program)
    assert "kernel.cubin" in made or "kernel.ptx" in made or "kernel.hsaco" in made
    text = str(tilelang_compile.emit(entry.compile(target=target, backend="tilelang").program, target.split(":")[0]))
    assert "__global__" in text


@pytest.mark.parametrize("op", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["bool", "i32", "u8", "e4m3", "f16"])
def test_functions_refuse_what_they_do_not_take(op: str, dtype: str) -> None:
    takes = [d.name for d in UNARY[op].takes]  # type: ignore[index]
    text = f"def f(x: {dtype}[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = f32({op}(x[n]))\n"
    if dtype in takes:
        nsalang.load_text(text).f.compile(target="cpu", backend="triton")
        return
    with pytest.raises(NsaError, match=rf"'{op}'|fp8|e4m3") as caught:
        nsalang.load_text(text).f.compile(target="cpu", backend="triton")
    said = str(caught.value)
    assert "NSA0302" in said and ":3:" in said, said


PAIRS = "def two(x):\n    return RETURNED\n\n\ndef f(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        TARGETS = two(x[n])\n        y[n] = a + b\n"


@pytest.mark.parametrize("returned", ["x, x + 1", "(x, x + 1)", "((x, x + 1))"])
@pytest.mark.parametrize("targets", ["a, b", "(a, b)"])
def test_parentheses_around_several_values_say_nothing(returned: str, targets: str) -> None:
    text = PAIRS.replace("RETURNED", returned).replace("TARGETS", targets)
    assert nsalang.load_text(text).f.interpret(torch.tensor([1.0, 2.0])).tolist() == [3.0, 5.0]
