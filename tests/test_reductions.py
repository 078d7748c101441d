"""Reductions on every backend: products, of which no backend has a function of its own."""

from __future__ import annotations

import math
from typing import Any

import pytest

import nsalang
from nsalang.base.source import NsaError
from nsalang.toolchain import tilelang_compile, triton_compile

torch = pytest.importorskip("torch")

PRODUCTS = """
def products(x: f32[M, N], h: f16[M, N], u: u32[M, N], i: i32[M, N], y: Out[f32[M]], g: Out[f32[M]], w: Out[u32[M]], j: Out[i64[M]],
             live: Out[f32[M]]):
    n = span(N)
    for m in grid(tile(M)):
        y[m] = prod(x[m, n], axis=n)
        g[m] = prod(h[m, n], axis=n)
        w[m] = prod(u[m, n], axis=n)
        j[m] = prod(clamp(i64(i[m, n]), -1, 1), axis=n)
        live[m] = prod(where(x[m, n] > 1, x[m, n], 1), axis=n)
"""
TOTAL = """
def total(x: f32[A, B], y: Out[f32[1]]):
    a, b = span(A), span(B)
    for s in grid(1):
        y[s] = prod(x[a, b])
"""


def inputs(m: int, n: int) -> tuple[Any, ...]:
    torch.manual_seed(7)
    x = torch.rand(m, n) + 0.5
    x[0, 0] = -x[0, 0]
    return (
        x,
        (torch.rand(m, n) + 0.5).half(),
        torch.randint(0, 2**32, (m, n)).to(torch.uint32),
        torch.randint(-3, 4, (m, n), dtype=torch.int32),
    )


def run(entry: Any, backend: str, *arguments: Any) -> Any:
    return entry.interpret(*arguments) if backend == "interpreter" else entry(*arguments, backend=backend)


@pytest.mark.parametrize("n", [1, 5, 16])
@pytest.mark.parametrize("backend", ["interpreter", "triton", "tilelang"])
def test_products(backend: str, n: int) -> None:
    x, h, u, i = inputs(37, n)
    y, g, w, j, live = run(nsalang.load_text(PRODUCTS).products, backend, x, h, u, i)
    assert torch.allclose(y, x.double().prod(1).float(), rtol=1e-5)
    assert torch.allclose(g, h.double().prod(1).float(), rtol=1e-5)
    assert torch.allclose(live, torch.where(x > 1, x, 1).double().prod(1).float(), rtol=1e-5)
    assert w.tolist() == [math.prod(row) % 2**32 for row in u.tolist()]
    assert j.tolist() == [math.prod(row) for row in i.clamp(-1, 1).tolist()]


@pytest.mark.parametrize("backend", ["interpreter", "triton", "tilelang"])
def test_a_product_over_all_axes(backend: str) -> None:
    x = torch.linspace(0.5, 1.7, 15).view(3, 5)
    y = run(nsalang.load_text(TOTAL).total, backend, x)
    assert torch.allclose(y, x.double().prod().float()[None], rtol=1e-5)


@pytest.mark.parametrize("target", ["cuda:sm_90", "hip:gfx942"])
def test_products_compile_for_devices(target: str) -> None:
    entry = nsalang.load_text(PRODUCTS).products
    assert triton_compile.compile_program(entry.compile(target=target, backend="triton", N=64).program)
    made = entry.compile(target=target, backend="tilelang", N=64).program
    assert "__global__" in str(tilelang_compile.emit(made, target.split(":")[0]))


@pytest.mark.parametrize(
    ("dtype", "message"), [("bool", "'prod' needs numbers"), ("u8", "'prod' of u8 would wrap at 8 bits"), ("e4m3", "'prod'")]
)
def test_what_has_no_product(dtype: str, message: str) -> None:
    text = f"def f(x: {dtype}[M, N], y: Out[f32[M]]):\n    n = span(N)\n    for m in grid(tile(M)):\n        y[m] = f32(prod(x[m, n], axis=n))\n"
    with pytest.raises(NsaError, match=message) as caught:
        nsalang.load_text(text).f.compile(target="cpu", backend="triton", N=4)
    assert "NSA0302" in str(caught.value) and ":4:" in str(caught.value)


@pytest.mark.parametrize(
    ("low", "high", "n", "verdict"), [(-1, 1, 64, "PROVED"), (0, 2, 62, "PROVED"), (0, 2, 64, "not"), (-4, 3, 32, "not")]
)
def test_a_product_of_integers_stays_within_64_bits(low: int, high: int, n: int, verdict: str) -> None:
    text = (
        "def f(x: i32[M, N], y: Out[i64[M]]):\n    n = span(N)\n    for m in grid(tile(M)):\n"
        f"        y[m] = prod(clamp(x[m, n], {low}, {high}), axis=n)\n"
    )
    entry = nsalang.load_text(text).f
    if verdict == "PROVED":
        entry.compile(target="cpu", backend="triton", N=n)
        return
    with pytest.raises(NsaError, match="64 bits|overflow"):
        entry.compile(target="cpu", backend="triton", N=n)
