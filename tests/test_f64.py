"""f64: what it computes on every backend, what becomes of other dtypes and of it, and what is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

import nsalang
from nsalang.base.dtypes import F64
from nsalang.base.source import NsaError
from nsalang.bench.compare import absolute, difference, is_exact
from nsalang.ir.operations import FUNCTIONS, UNARY
from nsalang.toolchain import tilelang_compile, triton_compile

torch = pytest.importorskip("torch")

ENGINES = ("interpreter", "triton", "tilelang")
TAKING = [op for op in FUNCTIONS if F64 in UNARY[op].takes]
OUTPUTS = ", ".join(f"y_{op}: Out[f64[N]]" for op in TAKING)
STORES = "\n".join(f"        y_{op}[n] = {op}(x[n])" for op in TAKING)
CURVES = f"def curves(x: f64[N], {OUTPUTS}):\n    for n in grid(tile(N)):\n{STORES}\n"
SPECIAL = torch.tensor(
    [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-30, -1e-300, 5e-324, 3e307, -3e307, 0.5, 1.5, -2.5, -0.3, 2.0**-1022, 2.0**52 + 1, -(2.0**51) - 0.5],
    dtype=torch.float64,
)  # fmt: skip
X = torch.cat([torch.linspace(-12, 12, 501, dtype=torch.float64), torch.linspace(-700, 700, 201, dtype=torch.float64), SPECIAL])

ARITHMETIC = """
def arithmetic(a: f64[N], b: f64[N], s: f64, add: Out[f64[N]], sub: Out[f64[N]], mul: Out[f64[N]], div: Out[f64[N]], low: Out[f64[N]],
               high: Out[f64[N]], tenth: Out[f64[N]], scaled: Out[f64[N]], less: Out[bool[N]], same: Out[bool[N]], most: Out[f64[N]],
               least: Out[f64[N]], bits: Out[i64[N]], chosen: Out[f64[N]]):
    for n in grid(tile(N)):
        add[n] = a[n] + b[n]
        sub[n] = a[n] - b[n]
        mul[n] = a[n] * b[n]
        div[n] = a[n] / b[n]
        low[n] = minimum(a[n], b[n])
        high[n] = maximum(a[n], b[n])
        tenth[n] = a[n] + 0.1
        scaled[n] = b[n] * s + 5e-324
        less[n] = a[n] < b[n]
        same[n] = a[n] == b[n]
        most[n] = minimum(a[n], f64.max / 3)
        least[n] = maximum(-a[n], f64.min)
        bits[n] = bitcast(a[n], i64)
        chosen[n] = where(a[n] > b[n], f64(0.1), 1 / 3)
"""
REDUCED = """
def reduced(x: f64[M, N], total: Out[f64[M]], product: Out[f64[M]], top: Out[f64[M]], low: Out[f64[M]], size: Out[f64[M]], first: Out[i64[M]],
            running: Out[f64[M, N]], before: Out[f64[M, N]], back: Out[f64[M, N]]):
    n = span(N)
    for m in grid(tile(M)):
        total[m] = sum(x[m, n], axis=n)
        product[m] = prod(x[m, n], axis=n)
        top[m] = max(x[m, n], axis=n)
        low[m] = min(x[m, n], axis=n)
        size[m] = absmax(x[m, n], axis=n)
        first[m] = argmax(x[m, n], axis=n)
        running[m, n] = cumsum(x[m, n], axis=n)
        before[m, n] = cumsum(x[m, n], axis=n, exclusive=True)
        back[m, n] = cumsum(x[m, n], axis=n, reverse=True)
"""
CARRIED = """
def carried(x: f64[M, N], cu: f64[P], w: u8[M * 8], d: f64, y: Out[f64[M]], z: Out[f64[M]], at: Out[i64[M]], v: Out[f64[M]]):
    require(N > 0)
    promise(sorted(cu))
    raw = view(w, f64[M])
    for m in grid(tile(M)):
        best, acc = full(m, f64.min, dtype=f64), zeros(m, dtype=f64)
        for n in tile(N):
            best = maximum(best, max(x[m, n], axis=n))
            acc = acc + sum(where(x[m, n] > d, x[m, n], d / 3), axis=n)
        y[m], z[m] = best - acc, where(acc > 0.3, acc, f64.max)
        at[m] = searchsorted(cu, x[m, 0])
        v[m] = raw[m] + 1e-17


def sums(x: f64[M, N], y: Out[f64[1]], s: f64):
    m, n = span(M), span(N)
    for k in grid(1):
        scale = s * 0.1
        y[k] = sum(x[m, n]) * scale + abs(scale - 1 / 3)
"""
OTHERS = ("bool", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "f16", "bf16", "f32", "e4m3", "e5m2")
INTO = "def into(x: f64[N], {}):\n    for n in grid(tile(N)):\n{}\n".format(
    ", ".join(f"y_{t}: Out[{t}[N]]" for t in OTHERS), "\n".join(f"        y_{t}[n] = {f'{t}(x[n])' if t != 'bool' else 'x[n] != 0'}" for t in OTHERS)
)  # fmt: skip
FROM = "def into(x: {0}[N], y: Out[f64[N]]):\n    for n in grid(tile(N)):\n        y[n] = f64(x[n])\n"
EDGES = [
    127.5,
    128.0,
    -128.5,
    -129.0,
    255.5,
    256.0,
    -0.9,
    2.0**31 - 0.5,
    2.0**31,
    -(2.0**31) - 0.5,
    2.0**32 - 0.5,
    2.0**32,
    2.0**63,
    -(2.0**63),
]
"""Numbers around the ends of integers, some of which no f32 is."""
TIES = [1 + 2.0**-24 + 2.0**-50, 1 + 2.0**-11 + 2.0**-40, 65519.9999999, 448.1, 1e300, -1e300, 1e-46, 7e-46, 2.0**-149]


def run(text: str, engine: str, *arguments: Any, name: str | None = None) -> Any:
    entry = getattr(nsalang.load_text(text), name or re.match(r"\s*def (\w+)", text)[1])  # type: ignore[index]
    return entry.interpret(*arguments) if engine == "interpreter" else entry(*arguments, backend=engine)


def same(a: Any, b: Any) -> Any:
    """Equal to the bit, any NaN as any other."""
    if not a.is_floating_point():
        return a == b
    a, b = a.double(), b.double()
    return ((a == b) & (a.signbit() == b.signbit())) | (a.isnan() & b.isnan())


@pytest.mark.parametrize("engine", ENGINES)
def test_functions_of_f64_have_its_precision(engine: str) -> None:
    from nsalang.interp.bounds import agrees

    for op, got in zip(TAKING, run(CURVES, engine, X), strict=True):
        exact = UNARY[op].tensor(X)
        right = same(got, exact) if UNARY[op].bound is None else agrees(op, X, got)
        assert got.dtype is torch.float64 and bool(right.all()), (op, X[~right], got[~right], exact[~right])


@pytest.mark.parametrize("engine", ENGINES)
def test_arithmetic_of_f64_is_exact(engine: str) -> None:
    a = torch.cat([torch.randn(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e10, SPECIAL])
    b = a.roll(7).flip(0)
    s = 1 / 3
    add, sub, mul, div, low, high, tenth, scaled, less, equal, most, least, bits, chosen = run(ARITHMETIC, engine, a, b, s)
    pairs = ((a == 0) & (b == 0)) | a.isnan() | b.isnan()
    for found, expected in (
        (add, a + b), (sub, a - b), (mul, a * b), (div, a / b), (tenth, a + 0.1), (scaled, b * s + 5e-324), (less, a < b), (equal, a == b),
        (low[~pairs], torch.minimum(a, b)[~pairs]), (high[~pairs], torch.maximum(a, b)[~pairs]), (bits[~a.isnan()], a.view(torch.int64)[~a.isnan()]),
        (most, torch.fmin(a, torch.full_like(a, float(F64.max / 3)))), (least, torch.fmax(-a, torch.full_like(a, float(F64.min)))),
        (chosen, torch.where(a > b, torch.tensor(0.1, dtype=a.dtype), torch.tensor(1 / 3, dtype=a.dtype))),
    ):  # fmt: skip
        right = same(found, expected)
        assert bool(right.all()), (found[~right], expected[~right])


@pytest.mark.parametrize("n", [1, 7, 16])
@pytest.mark.parametrize("engine", ENGINES)
def test_reductions_and_scans_of_f64(engine: str, n: int) -> None:
    x = torch.rand(37, n, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 1e-9
    x[3] = -x[3]
    x[5] = -0.0
    total, product, top, low, size, first, running, before, back = run(REDUCED, engine, x)
    for found, expected in (
        (total, x.sum(1)),
        (product, x.prod(1)),
        (running, x.cumsum(1)),
        (before, x.cumsum(1) - x),
        (back, x.flip(1).cumsum(1).flip(1)),
    ):
        assert torch.allclose(found, expected, rtol=1e-14, atol=1e-14)
    for found, expected in ((top, x.amax(1)), (low, x.amin(1)), (size, x.abs().amax(1)), (first, x.argmax(1))):
        assert bool(same(found, expected).all()), (found, expected)
    assert not bool(total[5].signbit())
    x[7, 0], x[8] = math.nan, math.nan
    _, _, top, low, *_ = run(REDUCED, engine, x)
    assert top[8] == -math.inf and low[8] == math.inf and (n == 1 or not top[7].isnan())


@pytest.mark.parametrize("engine", ENGINES)
def test_loops_views_searches_and_scalars_of_f64(engine: str) -> None:
    x = torch.rand(9, 21, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    cu, raw, d = torch.tensor([0.0, 0.1, 0.1 + 1e-16, 0.5], dtype=torch.float64), torch.rand(9, dtype=torch.float64), 0.1 + 1e-12
    x[:4, 0] = cu
    y, z, at, v = run(CARRIED, engine, x, cu, raw.view(torch.uint8), d, name="carried")
    acc = torch.where(x > d, x, d / 3).sum(1)
    assert torch.allclose(y, x.amax(1) - acc, rtol=1e-14) and torch.allclose(z, acc, rtol=1e-14)
    assert at.tolist() == torch.searchsorted(cu, x[:, 0].contiguous(), right=True).tolist() and bool(same(v, raw + 1e-17).all())
    total = run(CARRIED, engine, x, d, name="sums")
    assert torch.allclose(total, x.sum() * (d * 0.1) + abs(d * 0.1 - 1 / 3), rtol=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
def test_conversions_of_f64(engine: str) -> None:
    x = torch.cat([torch.tensor(EDGES + TIES, dtype=torch.float64), -torch.tensor(TIES, dtype=torch.float64), SPECIAL])
    for name, got in zip(OTHERS, run(INTO, engine, x), strict=True):
        expected = run(INTO, "interpreter", x)[OTHERS.index(name)]
        if name == "f32":
            assert bool(same(expected, x.float()).all())
        if name in ("f16", "bf16"):
            assert bool(same(expected, x.float().to(expected.dtype)).all())
        if name[0] in "iu":
            low, high = torch.iinfo(expected.dtype).min, torch.iinfo(expected.dtype).max
            ends = [0 if v != v else min(max(math.trunc(min(max(v, -(2.0**70)), 2.0**70)), low), high) for v in x.tolist()]
            assert expected.tolist() == ends, name
        right = same(got.float() if name[0] == "e" else got, expected.float() if name[0] == "e" else expected)
        assert bool(right.all()), (name, x[~right], got[~right], expected[~right])


@pytest.mark.parametrize("source", [*OTHERS, "e8m0"])
@pytest.mark.parametrize("engine", ENGINES)
def test_conversions_to_f64(engine: str, source: str) -> None:
    dtype = nsalang.base.dtypes.ALL[source]
    kind = getattr(torch, dtype.torch)
    if dtype.is_integer:
        x = torch.tensor([int(dtype.min), int(dtype.max), int(dtype.max) - 1, 0, 1], dtype=kind)
        expected = torch.tensor([float(v) for v in x.tolist()], dtype=torch.float64)
    else:
        x = torch.tensor([1.0, 0.5, 4.0, 0.0078125, math.nan] if source != "bool" else [True, False]).to(kind)
        expected = (x.float() if source[0] == "e" else x).double()
    assert bool(same(run(FROM.format(source), engine, x), expected).all())


@pytest.mark.parametrize(
    ("body", "code", "line", "says"),
    [
        ("y[n] = tanh(x[n])", "NSA0302", 4, "tanh"),
        ("y[n] = pow2_ceil(x[n])", "NSA0302", 4, "pow2_ceil"),
        ("i[n] = ceil_log2(x[n])", "NSA0302", 4, "ceil_log2"),
        ("y[n] = fma(x[n], x[n], x[n])", "NSA0302", 4, "fma"),
        ("y[n] = x[n] + z[n]", "NSA0301", 4, "mixes f64 over (n) with f32"),
        ("y[n] = z[n]", "NSA0305", 4, "holds f64"),
        ("k = span(8)\n        y[n] = dot(x[n] + zeros(k, dtype=f64), full(k, 1, dtype=f64), axis=k)", "NSA0302", 5, "'dot' takes"),
        ("atomic_add(o[n], x[n])", "NSA0334", 4, "atomic_add"),
        ("y[n] = bitcast(x[n], i32)", "NSA0329", 4, "64"),
    ],
)
def test_what_f64_has_not(body: str, code: str, line: int, says: str) -> None:
    text = f"def f(x: f64[N], z: f32[N], y: Out[f64[N]], i: Out[i64[N]], o: InOut[f64[N]]):\n    partial(y, i)\n    for n in grid(tile(N)):\n        {body}\n"
    with pytest.raises(NsaError) as caught:
        nsalang.load_text(text).f.compile(target="cpu", backend="triton")
    said = str(caught.value)
    assert code in said and f":{line}:" in said and says in said, said
    assert said.count("error[") == 1


@pytest.mark.parametrize("target", ["cuda:sm_90", "hip:gfx942"])
def test_f64_compiles_for_devices(target: str) -> None:
    for text in (CURVES, ARITHMETIC, REDUCED.replace("[M, N]", "[M, 64]").replace("span(N)", "span(64)"), INTO):
        entry = getattr(nsalang.load_text(text), re.match(r"\s*def (\w+)", text)[1])  # type: ignore[index]
        made = triton_compile.compile_program(entry.compile(target=target, backend="triton").program)
        assert "kernel.cubin" in made or "kernel.hsaco" in made
        program = entry.compile(target=target, backend="tilelang").program
        lowered = str(tilelang_compile.emit(program, target.split(":")[0]))
        assert "double" in lowered
        if target.startswith("cuda") and text.lstrip().startswith("def reduced"):
            assert "kernel.cubin" in tilelang_compile.compile_program(program)
        elif target.startswith("hip") and text is ARITHMETIC:  # seven digits of a third would be another number
            assert "__longlong_as_double" in lowered and "3.333333e-01" not in lowered


def test_a_wrong_f64_does_not_look_right() -> None:
    entry = nsalang.load_text(REDUCED).reduced
    kernel = entry.compile(target="cpu", backend="triton", N=4).typed
    assert not is_exact(kernel)
    bound = absolute(kernel)
    x = torch.rand(1000, dtype=torch.float64) + 1
    assert difference("triton", "y", x, x * (1 + 1e-15), exact=False, absolute=bound).ok
    assert not difference("triton", "y", x, x * (1 + 1e-12), exact=False, absolute=bound).ok
    assert not difference("triton", "y", x, x.float().double(), exact=False, absolute=bound).ok
    assert not difference("triton", "y", x, x.float().double(), exact=True).ok
    rough = "def f(x: f32[M, N], y: Out[f64[M]]):\n    n = span(N)\n    for m in grid(tile(M)):\n        y[m] = f64(sum(x[m, n], axis=n))\n"
    bound = absolute(nsalang.load_text(rough).f.compile(target="cpu", backend="triton", N=4).typed)
    assert difference("triton", "y", x, x.float().double(), exact=False, absolute=bound).ok
