"""Every pass keeps the meaning of conversions, rounding and integers of each width."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from staged import EVERY_F32, check, special, typed

from nsalang import ir
from nsalang.base.dtypes import E5M2, E8M0
from nsalang.base.source import NsaError
from nsalang.interp.numerics import memory_dtype
from nsalang.launch.kernel import load_text


@pytest.mark.parametrize("target", ["cuda:sm_90", "cuda:sm_80", "hip:gfx942"])
@pytest.mark.parametrize("dtype", ["e4m3", "e5m2", "e8m0"])
def test_fp8_both_ways(target: str, dtype: str) -> None:
    typed_as = "e5m2" if dtype == "e8m0" else dtype  # no text converts to e8m0 yet
    text = f"""
def codes(c: {typed_as}[A], x: f32[N], h: bf16[B], back: Out[f32[A]], half: Out[bf16[A]], y: Out[{typed_as}[N]], z: Out[{typed_as}[B]]):
    for a in grid(tile(A)):
        back[a], half[a] = f32(c[a]), bf16(c[a])
        for n in tile(N):
            y[n] = {typed_as}(x[n])
        for b in tile(B):
            z[b] = {typed_as}(h[b])
"""
    kernel = typed(text, target)
    if dtype == "e8m0":
        kernel = ir.rewrite(kernel, lambda n: dataclasses.replace(n, dtype=E8M0) if getattr(n, "dtype", None) is E5M2 else n)
    c = torch.arange(256).to(torch.uint8).view(memory_dtype(kernel.tensor("c").dtype))
    decoded = c.float()
    finite = decoded[decoded.isfinite()].sort().values
    between = torch.cat([(finite[1:] + finite[:-1]) / 2, finite])
    near = torch.cat([between, torch.nextafter(between, torch.tensor(float("inf"))), torch.nextafter(between, torch.tensor(float("-inf")))])
    x = torch.cat([near, EVERY_F32])
    h = torch.arange(0, 65536, 5).to(torch.uint16).view(torch.bfloat16)
    tensors = {"c": c, "x": x, "h": h}
    sizes = {"A": 256, "N": len(x), "B": len(h)}
    check(kernel, sizes, target=target, pins={"a": 256, "n": 8192, "b": 16384}, tensors=tensors, backends=("triton",), widths=(False,))


def test_a_format_that_cannot_be_stored_yet() -> None:
    module = load_text("def f(x: e2m1[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = f32(x[n])\n")
    with pytest.raises(NsaError, match=r"NSA0411\]: 'x' can't hold e2m1"):
        module.f.compile(target="cuda:sm_90", backend="triton")


@pytest.mark.parametrize("dtype", ["i8", "u8", "i16", "u16", "i32", "u32", "i64"])
def test_floats_to_integers_saturate(dtype: str) -> None:
    text = f"""
def whole(x: f32[N], y: Out[{dtype}[N]], z: Out[{dtype}[N]]):
    for n in grid(tile(N)):
        y[n] = {dtype}(x[n])
        z[n] = {dtype}(round(clamp(x[n], 0, 100)))
"""
    check(typed(text), {"N": len(EVERY_F32)}, pins={"n": 8192}, tensors={"x": EVERY_F32})


def test_rounding_functions_are_exact() -> None:
    text = """
def rounding(x: f32[N], a: Out[f32[N]], b: Out[f32[N]], c: Out[f32[N]], d: Out[f32[N]], e: Out[f32[N]], f: Out[i32[N]]):
    for n in grid(tile(N)):
        v = x[n]
        a[n], b[n], c[n], d[n], e[n], f[n] = round(v), trunc(v), floor(v), ceil(v), pow2_ceil(v), ceil_log2(v)
"""
    check(typed(text), {"N": len(EVERY_F32)}, pins={"n": 8192}, tensors={"x": EVERY_F32})


def test_tanh_and_sigmoid_within_their_bounds() -> None:
    text = """
def curves(x: f32[N], a: Out[f32[N]], b: Out[f32[N]]):
    for n in grid(tile(N)):
        a[n], b[n] = tanh(x[n]), sigmoid(x[n])
"""
    x = torch.cat([EVERY_F32, torch.linspace(-12, 12, 20001), torch.linspace(-0.7, 0.7, 10001)])
    check(typed(text), {"N": len(x)}, pins={"n": 32768}, tensors={"x": x}, ulps=5, backends=("triton",), widths=(False,))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_narrow_arithmetic_rounds_each_operation(dtype: str) -> None:
    text = f"""
def narrow(x: {dtype}[N], y: {dtype}[N], a: Out[{dtype}[N]], b: Out[{dtype}[N]], c: Out[{dtype}[N]], d: Out[i32[N]], e: Out[{dtype}[N]]):
    for n in grid(tile(N)):
        u, v = x[n], y[n]
        a[n] = u * v + u
        b[n] = u / v - abs(v)
        c[n] = maximum(minimum(u, v), -u)
        d[n] = i32(u < v)
        e[n] = {dtype}(i64(clamp(f32(u), -1e9, 1e9)) * 4097) * 3
"""
    kernel = typed(text)
    x = (
        torch.randint(0, 65536, (5000,), generator=torch.Generator().manual_seed(3))
        .to(torch.uint16)
        .view(memory_dtype(kernel.tensor("x").dtype))
    )
    y = torch.randint(0, 65536, (5000,), generator=torch.Generator().manual_seed(4)).to(torch.uint16).view(x.dtype)
    check(kernel, {"N": 5000}, pins={"n": 4096}, tensors={"x": x, "y": y})


def test_integers_wrap_and_reinterpret() -> None:
    text = """
def integers(a: i32[N], u: u32[N], b: u8[N], x: f32[N], p: Out[i8[N]], q: Out[u8[N]], r: Out[u32[N]], s: Out[i32[N]], t: Out[u32[N]], v: Out[f32[N]],
             w: Out[i32[N]]):
    for n in grid(tile(N)):
        p[n], q[n] = wrap(a[n] * 5, i8), u8(a[n] * 3)
        r[n] = (u[n] << 3) ^ (u[n] >> 5) * 77 + u32(b[n])
        s[n] = wrap(u[n], i32) // 16
        t[n] = bitcast(x[n], u32) & 255
        v[n] = bitcast(u[n] | 1, f32)
        w[n] = bitcast(x[n], i32) >> 3
"""
    u = torch.randint(0, 2**32, (50,), generator=torch.Generator().manual_seed(1)).to(torch.uint32)
    check(typed(text), {"N": 50}, pins={"n": 32}, tensors={"u": u, "x": special(typed(text).tensor("x").dtype, 50)})
