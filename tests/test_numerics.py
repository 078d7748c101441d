"""Number formats and single operations, against exact arithmetic."""

from __future__ import annotations

import bisect
import itertools
import math
import operator
import random
import struct
from fractions import Fraction

import pytest
import torch

from nsalang import ir
from nsalang.base.dtypes import BF16, E4M3, E4M3_FNUZ, E5M2, F16, F32, I8, I32, I64, U8, U16, U32, DType
from nsalang.interp import numerics
from nsalang.interp.bounds import BOUNDS, agrees
from nsalang.ir.operations import UNARY

INF, NAN = float("inf"), float("nan")


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bit for bit, any NaN being equal to any other."""
    a, b = a.float(), b.float()
    bits = a.contiguous().view(torch.int32) == b.contiguous().view(torch.int32)
    return bool((bits | (a.isnan() & b.isnan())).all())


def decoded(dtype: DType) -> list[float]:
    """The 256 values of an fp8 format, from its definition."""
    values = []
    for code in range(256):
        sign, exponent, mantissa = (
            code >> 7,
            (code >> dtype.mantissa) & ((1 << (7 - dtype.mantissa)) - 1),
            code & ((1 << dtype.mantissa) - 1),
        )
        fraction = mantissa / 2**dtype.mantissa
        magnitude = fraction * 2.0 ** (1 - dtype.bias) if exponent == 0 else (1 + fraction) * 2.0 ** (exponent - dtype.bias)
        value = -magnitude if sign else magnitude
        if dtype is E4M3 and code & 0x7F == 0x7F or dtype is E4M3_FNUZ and code == 0x80:
            value = NAN
        if dtype is E5M2 and exponent == 31:
            value = NAN if mantissa else math.copysign(INF, value)
        values.append(value)
    return values


@pytest.mark.parametrize("dtype", [E4M3, E4M3_FNUZ, E5M2], ids=["e4m3", "e4m3_fnuz", "e5m2"])
def test_fp8_values(dtype: DType) -> None:
    codes = torch.arange(256).to(torch.uint8).view(numerics.native(dtype))
    assert same(numerics.cast(codes, dtype, F32)[0], torch.tensor(decoded(dtype)))


def nearest(value: float, dtype: DType, table: list[tuple[float, int]]) -> int:
    """The code whose value is nearest (ties: the even code), saturating."""
    if math.isnan(value):
        return 0x80 if dtype is E4M3_FNUZ else 0x7F
    magnitude = min(abs(value), float(dtype.max))
    at = bisect.bisect_left(table, (magnitude, -1))
    near = [table[i] for i in (at - 1, at) if 0 <= i < len(table)]
    _, code = min(near, key=lambda entry: (abs(entry[0] - magnitude), entry[1] & 1))
    negative = math.copysign(1, value) < 0
    return code | 0x80 if negative and not (dtype is E4M3_FNUZ and code == 0) else code


@pytest.mark.parametrize("source", [F16, BF16], ids=str)
@pytest.mark.parametrize("dtype", [E4M3, E4M3_FNUZ, E5M2], ids=["e4m3", "e4m3_fnuz", "e5m2"])
def test_every_16_bit_pattern_to_fp8(source: DType, dtype: DType) -> None:
    table = sorted((v, c) for c, v in enumerate(decoded(dtype)) if c < 128 and math.isfinite(v))
    x = torch.arange(65536).to(torch.int32).to(torch.int16).view(numerics.native(source))
    got = numerics.cast(x, source, dtype)[0]
    expected = torch.tensor([nearest(v, dtype, table) for v in x.float().tolist()]).to(torch.uint8)
    ordinary = ~x.isnan()
    assert torch.equal(got.view(torch.uint8)[ordinary], expected[ordinary])
    assert bool(got.float()[~ordinary].isnan().all())


@pytest.mark.parametrize("source", [F16, BF16], ids=str)
def test_every_16_bit_pattern_to_integers_and_back(source: DType) -> None:
    x = torch.arange(65536).to(torch.int32).to(torch.int16).view(numerics.native(source))
    for dtype in (I8, I32, I64, U8, U16, U32):
        low, high = int(dtype.min), int(dtype.max)
        expected = [0 if math.isnan(v) else low if v < low else high if v > high else int(v) for v in x.float().tolist()]
        got, wrong = numerics.cast(x, source, dtype)
        assert got.tolist() == expected and wrong is None
    single = numerics.cast(x, source, F32)[0]
    assert same(numerics.cast(single, F32, source)[0], x)


def rounded(value: Fraction, mantissa: int, least: int, top: Fraction) -> float:
    """``value`` rounded to ``mantissa`` bits after the first, least exponent ``least``; above ``top`` and half a step: infinite."""
    if value == 0:
        return 0.0
    magnitude, exponent = abs(value), 0
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent = exponent if Fraction(2) ** exponent <= magnitude else exponent - 1
    step = Fraction(2) ** (max(exponent, least) - mantissa)
    result = round(magnitude / step) * step
    out = INF if result > top else float(result)
    return -out if value < 0 else out


def some_f32(count: int, seed: int) -> list[float]:
    chance = random.Random(seed)
    found = [struct.unpack("f", struct.pack("I", chance.getrandbits(32)))[0] for _ in range(count)]
    return [v for v in found if math.isfinite(v)]


def test_f32_to_narrow_rounds_to_nearest_even() -> None:
    values = some_f32(4000, 1) + [65519.0, 65520.0, 65521.0, 1.00390625, 1.01171875, -1.00390625, 2.0**-25, 2.0**-133, 2.0**-134]
    values += [v * 2.0**-120 for v in some_f32(500, 2) if math.isfinite(v)]
    x = torch.tensor(values, dtype=torch.float32)
    for dtype in (F16, BF16):
        expected = [rounded(Fraction(v), dtype.mantissa, 1 - dtype.bias, dtype.max) for v in x.tolist()]
        got = numerics.cast(x, F32, dtype)[0].float().tolist()
        assert [abs(v) for v in got] == [abs(v) for v in expected]


def test_integers_to_floats_round_once() -> None:
    values = [0, 1, -1, 2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**40 + 2**16, 2**40 + 2**16 + 1]
    got = numerics.cast(torch.tensor(values), I64, F32)[0].tolist()
    assert got == [rounded(Fraction(v), 23, -126, F32.max) for v in values]
    assert numerics.cast(torch.tensor([70000, -70000, 300]), I64, F16)[0].tolist() == [INF, -INF, 300]
    assert numerics.cast(torch.tensor([70000, -500, 300]), I64, E4M3)[0].float().tolist() == [448, -448, 288]


def test_floats_to_integers_saturate() -> None:
    x = torch.tensor([NAN, INF, -INF, 127.9, 128.0, -128.9, -129.0, -0.9, 2.0**31, -(2.0**31), 2.0**63, -(2.0**63), 2.0**62])
    top, low = 2**63 - 1, -(2**63)
    assert numerics.cast(x, F32, I8)[0].tolist() == [0, 127, -128, 127, 127, -128, -128, 0, 127, -128, 127, -128, 127]
    assert numerics.cast(x, F32, I32)[0].tolist()[8:] == [2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 2**31 - 1]
    assert numerics.cast(x, F32, I64)[0].tolist() == [0, top, low, 127, 128, -128, -129, 0, 2**31, -(2**31), top, low, 2**62]
    assert numerics.cast(x, F32, U8)[0].tolist() == [0, 255, 0, 127, 128, 0, 0, 0, 255, 0, 255, 0, 255]


def test_integer_casts_fit_or_wrap() -> None:
    x = torch.tensor([0, 127, 128, -128, -129, 255, 256, -1])
    kept, wrong = numerics.cast(x, I64, I8)
    assert wrong is not None and wrong.tolist() == [False, False, True, False, True, True, True, False]
    assert numerics.cast(x, I64, I8, "wrap")[0].tolist() == [0, 127, -128, -128, 127, -1, 0, -1] == kept.tolist()
    assert numerics.cast(x, I64, U8, "wrap")[0].tolist() == [0, 127, 128, 128, 127, 255, 0, 255]
    wrong = numerics.cast(x, I64, U8)[1]
    assert wrong is not None and wrong.tolist() == [False, False, False, True, True, False, True, True]
    assert numerics.cast(torch.tensor([511]), U32, U8) == (torch.tensor([255]), None)


SPECIAL = [NAN, -NAN, INF, -INF, 0.0, -0.0, 1.5, -1.5, 2.0**-133, 3.0]


@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
def test_minimum_and_maximum(dtype: DType) -> None:
    def chosen(a: float, b: float, sign: int) -> float:
        if math.isnan(a) or math.isnan(b):
            return b if math.isnan(a) else a
        return max(a, b, key=lambda v: (sign * v, sign * math.copysign(1, v)))

    pairs = list(itertools.product(torch.tensor(SPECIAL).to(numerics.native(dtype)).tolist(), repeat=2))
    a, b = (torch.tensor([p[i] for p in pairs]).to(numerics.native(dtype)) for i in (0, 1))
    for op, sign in (("max", 1), ("min", -1)):
        got = numerics.binary(op, a, b, dtype)[0]  # type: ignore[arg-type]
        assert same(got, torch.tensor([chosen(x, y, sign) for x, y in pairs]))


@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
def test_extremes_ignore_nan_and_order_zeros(dtype: DType) -> None:
    rows = [[NAN, NAN], [-0.0, 0.0], [0.0, -0.0], [-0.0, -0.0], [NAN, -1.0], [-INF, NAN], [INF, 2.0], [-3.0, -0.0]]
    x = torch.tensor(rows).to(numerics.native(dtype))
    for op, expected in (
        ("max", [-INF, 0.0, 0.0, -0.0, -1.0, -INF, INF, -0.0]),
        ("min", [INF, -0.0, -0.0, -0.0, -1.0, -INF, 2.0, -3.0]),
        ("absmax", [0.0, 0.0, 0.0, 0.0, 1.0, INF, INF, 3.0]),
    ):
        got = numerics.reduce(op, x, dtype, dtype, (1,))[0]  # type: ignore[arg-type]
        assert got.dtype == x.dtype and same(got, torch.tensor(expected)), op
    assert numerics.first_extreme("argmax", x, dtype, 1, 2).tolist() == [0, 0, 0, 0, 1, 0, 0, 1]
    assert numerics.first_extreme("argmin", x, dtype, 1, 2).tolist() == [0, 0, 0, 0, 1, 0, 1, 0]
    assert numerics.first_extreme("argmax", x, dtype, 1, 0).tolist() == [0] * 8


def test_sums_start_from_positive_zero() -> None:
    x = torch.full((1, 3), -0.0)
    assert not numerics.reduce("sum", x, F32, F32, (1,))[0].signbit()
    assert not numerics.reduce("sum", x[:, :0], F32, F32, (1,))[0].signbit()
    assert not numerics.scan(x, F32, 1, False, False)[0].signbit().any()
    assert numerics.reduce("sum", torch.ones(1, 3000, dtype=torch.bfloat16), BF16, F32, (1,))[0].tolist() == [3000.0]


def test_fma_rounds_once() -> None:
    values = some_f32(6000, 3)
    near = [1 + k * 2.0**-23 for k in range(-40, 40)]
    chance = random.Random(4)
    triples = [tuple(chance.sample(values, 3)) for _ in range(3000)]
    for _ in range(4000):
        p, q = chance.choice(near), chance.choice(near)
        triples.append((p, q, chance.choice([-1.0, 2.0**-24, -(2.0**-24), 2.0**-60, -(2.0**-60), 2.0**23, 2.0**-100, -(p * q)])))
        triples.append((p * 2.0**-70, q * 2.0**-70, chance.choice([2.0**-149, -(2.0**-149), 2.0**-126, 0.0])))
        # A tie of f32 that an addend decides which f64 does not see beside it.
        half, scale = 1 + chance.choice([1, 3, 5, 7]) * 2.0**-12, chance.choice([-1, 1]) * 2.0 ** chance.randrange(-40, 40)
        triples.append((half, half * scale, chance.choice([-1, 0, 1]) * abs(scale) * 2.0 ** -chance.randrange(50, 90)))
    a, b, c = (torch.tensor([t[i] for t in triples], dtype=torch.float32) for i in range(3))
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)]
    expected = [rounded(v, 23, -126, F32.max) for v in exact]
    got = numerics.fma(a, b, c).tolist()
    assert got == expected
    twice = (a.double() * b.double() + c.double()).float().tolist()
    assert twice != expected, "the samples must hold some that two roundings get wrong"
    assert math.isnan(numerics.fma(torch.tensor(INF), torch.tensor(0.0), torch.tensor(1.0)).item())
    assert numerics.fma(torch.tensor(INF), torch.tensor(1.0), torch.tensor(1.0)).item() == INF


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_narrow_arithmetic_rounds_each_operation(dtype: DType) -> None:
    chance = random.Random(5)
    a, b = (torch.tensor([chance.gauss(0, 9) for _ in range(3000)]).to(numerics.native(dtype)) for _ in range(2))
    for op, exact in (("add", operator.add), ("sub", operator.sub), ("mul", operator.mul), ("div", operator.truediv)):
        expected = [
            rounded(exact(Fraction(x), Fraction(y)), dtype.mantissa, 1 - dtype.bias, dtype.max)
            for x, y in zip(a.tolist(), b.tolist(), strict=True)
        ]
        got = numerics.binary(op, a, b, dtype)[0]  # type: ignore[arg-type]
        assert got.dtype == a.dtype and got.tolist() == expected, op


def test_integer_division_and_shifts() -> None:
    pairs = list(itertools.product([-9, -8, -1, 0, 1, 7, 8], [-4, -3, -1, 1, 3, 4]))
    a, b = (torch.tensor([p[i] for p in pairs]) for i in (0, 1))
    assert numerics.binary("floordiv", a, b, I64)[0].tolist() == [x // y for x, y in pairs]
    assert numerics.binary("mod", a, b, I64)[0].tolist() == [x % y for x, y in pairs]
    assert numerics.binary("tdiv", a, b, I64)[0].tolist() == [int(x / y) for x, y in pairs]
    assert numerics.binary("tmod", a, b, I64)[0].tolist() == [int(math.fmod(x, y)) for x, y in pairs]
    wrong = numerics.binary("floordiv", torch.tensor([5, 5]), torch.tensor([0, 2]), I64)[1]
    assert wrong is not None and wrong.tolist() == [True, False]
    shift = torch.tensor([0, 1, 31, 32, -1])
    data, wrong = numerics.binary("shl", torch.tensor(0xF0000001), shift, U32)
    assert wrong is not None and wrong.tolist() == [False, False, False, True, True]
    assert data.tolist()[:3] == [0xF0000001, 0xE0000002, 0x80000000]
    assert numerics.binary("shr", torch.tensor(-5), torch.tensor([0, 1, 2]), I64)[0].tolist() == [-5, -3, -2]
    assert numerics.binary("shr", torch.tensor(0xF0000000), torch.tensor([28]), U32)[0].tolist() == [15]


def test_unsigned_wraps_and_narrow_signed_must_fit() -> None:
    assert numerics.binary("sub", torch.tensor(3), torch.tensor(5), U8)[0].item() == 254
    assert numerics.binary("mul", torch.tensor(0xFFFFFFFF), torch.tensor(0xFFFFFFFF), U32)[0].item() == 1
    assert numerics.unary("neg", torch.tensor(1), U16, U16)[0].item() == 0xFFFF
    assert numerics.unary("invert", torch.tensor(1), U8, U8)[0].item() == 254
    wrong = numerics.binary("add", torch.tensor([2**31 - 1, 5]), torch.tensor([1, 1]), I32)[1]
    assert wrong is not None and wrong.tolist() == [True, False]


def test_pow2_ceil_and_ceil_log2() -> None:
    x = torch.tensor([1.0, 1.0000001, 1.5, 2.0, 3.0, 0.75, -3.0, 2.0**-126, 2.0**-127, 0.0, INF, 2.0**127, 1.5 * 2.0**127, NAN])
    expected = [1.0, 2.0, 2.0, 2.0, 4.0, 1.0, 4.0, 2.0**-126, 2.0**-126, 0.0, INF, 2.0**127, INF, NAN]
    assert same(numerics.unary("pow2_ceil", x, F32, F32)[0], torch.tensor(expected))
    logs = numerics.unary("ceil_log2", x, F32, I64)[0].tolist()
    assert logs[:9] == [0, 1, 1, 1, 2, 0, 2, -126, -126]
    assert logs[9:] == [-127, 128, 127, 128, 128]


def test_rounding_functions_and_bitcasts() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, -2.6])
    assert same(numerics.unary("round", x, F32, F32)[0], torch.tensor([0.0, 2.0, 2.0, -0.0, -2.0, 2.0, -3.0]))
    assert numerics.unary("trunc", x, F32, F32)[0].tolist() == [0, 1, 2, 0, -1, 2, -2]
    assert numerics.unary("floor", x, F32, F32)[0].tolist() == [0, 1, 2, -1, -2, 2, -3]
    assert numerics.unary("ceil", x, F32, F32)[0].tolist() == [1, 2, 3, 0, -1, 3, -2]
    assert numerics.bitcast(torch.tensor([-1.0, 1.0]), F32, U32).tolist() == [0xBF800000, 0x3F800000]
    assert numerics.bitcast(torch.tensor([0xBF800000]), U32, F32).tolist() == [-1.0]
    assert numerics.bitcast(torch.tensor([-1.0]).to(torch.float8_e4m3fn), E4M3, U8).tolist() == [0xB8]
    assert numerics.bitcast(torch.tensor([0xB8, 0x7E]), U8, E4M3).float().tolist() == [-1.0, 448.0]


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_hold_for_f32_and_bind(name: ir.UnaryOp) -> None:
    """torch's f32 functions and the approximations of GPUs (as their manuals state them) are inside; eight times the bound is not."""
    chance = random.Random(6)
    x = torch.tensor([chance.uniform(-90, 90) for _ in range(20000)] + [chance.gauss(0, 1) for _ in range(20000)])
    x = x.abs() if name in ("log", "log2", "rsqrt") else x
    x = torch.cat([x, torch.tensor([0.0, -0.0, INF, NAN, 1.0, 88.7, -88.7, 128.0, 127.99999, 3e38, 2.0**-130])])
    wide = x.double()
    real = UNARY[name].real
    assert real is not None
    assert bool(agrees(name, x, torch.tensor([real(v) for v in wide.tolist()]).float()).all())
    assert bool(agrees(name, x, getattr(torch, name)(x)).all())
    for sign in (1.0, -1.0):
        off = 1 + sign * 2.0**-22
        e = torch.exp2((x * torch.tensor(math.log2(math.e))).double()).mul(off).float()
        if name == "exp":
            assert bool(agrees(name, x, e).all())
        if name == "exp2":
            assert bool(agrees(name, x, (torch.exp2(wide) * off).float()).all())
        if name == "log":
            assert bool(agrees(name, x, ((torch.log2(wide) * off + sign * 2.0**-22).float() * torch.tensor(math.log(2)))).all())
        if name == "rsqrt":
            assert bool(agrees(name, x, ((1 / wide.sqrt()) * off).float()).all())
        if name in ("sigmoid", "tanh"):
            z = -x if name == "sigmoid" else 2 * x
            e = torch.exp2((z * torch.tensor(math.log2(math.e))).double()).mul(off).float()
            assert bool(agrees(name, x, 1 / (1 + e) if name == "sigmoid" else 1 - 2 / (e + 1)).all())
    middle = x[(x.abs() > 0.1) & (x.abs() < 20)]
    y = UNARY[name].tensor(middle.double())
    wrong = (y + 8 * BOUNDS[name].error(middle.double(), y)).float()
    assert not bool(agrees(name, middle, wrong).any())


def test_the_square_root_is_ieee() -> None:
    import numpy as np

    x = torch.cat([torch.rand(100_000) * 100, torch.rand(1000) * 2.0**-130, torch.tensor([0.0, -0.0, float("inf")])])
    got, _ = numerics.unary("sqrt", x, F32, F32)
    assert torch.equal(got.view(torch.int32), torch.from_numpy(np.sqrt(x.numpy())).view(torch.int32))
