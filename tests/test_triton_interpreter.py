"""The numbers of Triton's interpreter as corrected: every pattern of the narrow formats, and as many of the wide ones as a second allows."""

import math
from fractions import Fraction

import pytest
import torch
from triton_programs import HEAD, TORCH, TRITON, run

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal bit for bit, but for the payloads of NaN."""
    assert a.dtype == b.dtype
    nan = b.float().isnan()
    assert torch.equal(a.float().isnan(), nan)
    bits = BITS[a.element_size()]
    different = ((a.view(bits) != b.view(bits)) & ~nan).nonzero().flatten()
    assert not len(different), (
        f"{len(different)} of {a.numel()} differ, the first at {different[0]}: {a[different[0]]} for {b[different[0]]}"
    )


def all_of(name: str) -> torch.Tensor:
    """Every value of a format of at most 16 bits."""
    dtype = TORCH[name]
    if dtype.itemsize == 1:
        return torch.arange(256).to(torch.uint8).view(dtype)
    return torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype)


def floats(count: int = 1 << 19) -> torch.Tensor:
    """Random patterns, and values around what the narrow formats can hold."""
    g = torch.Generator().manual_seed(0)
    patterns = torch.randint(-(2**31), 2**31 - 1, (count,), generator=g).to(torch.int32).view(torch.float32)
    near = torch.randn(count, generator=g) * torch.exp2(torch.rand(count, generator=g) * 44 - 28)
    special = torch.tensor(
        [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 448.0, 464.0, 464.00003, 57344.0, 61440.0, 65504.0, 65520.0, 2.0**-149]
    )
    return torch.cat([patterns, near, special])


def ties(name: str) -> torch.Tensor:
    """Every value of a narrow format as float32, the middle between neighbours, and the float32 on either side of that."""
    values = all_of(name).float()
    values = values[values.isfinite()].sort().values
    middle = ((values[1:].double() + values[:-1].double()) / 2).float()
    return torch.cat([values, middle, torch.nextafter(middle, torch.tensor(torch.inf)), torch.nextafter(middle, torch.tensor(-torch.inf))])


def rounded(x: torch.Tensor, name: str) -> torch.Tensor:
    """What the language says: to nearest even; fp8 saturates, infinities too."""
    if name in ("e4m3", "e5m2"):
        top = torch.finfo(TORCH[name]).max
        x = torch.where(x.isnan(), x.float(), x.float().clamp(-top, top))
    return x.to(TORCH[name])


CAST = """
i = tl.program_id(0) * 65536 + tl.arange(0, 65536)
x = tl.load(x_ptr + i, mask=i < n)
tl.store(y_ptr + i, x.to({to}), mask=i < n)
"""


def cast(x: torch.Tensor, to: str) -> torch.Tensor:
    y = torch.zeros(x.numel(), dtype=TORCH[to])
    run(CAST.format(to=TRITON[to]), grid=-(-x.numel() // 65536), x_ptr=x, y_ptr=y, n=x.numel())
    return y


@pytest.mark.parametrize("to", ["f16", "bf16", "e4m3", "e5m2"])
def test_rounding_of_f32(to: str) -> None:
    x = torch.cat([floats(), *(ties(name) for name in ("e4m3", "e5m2", to))])
    same(cast(x, to), rounded(x, to))


@pytest.mark.parametrize("source", ["f16", "bf16", "e4m3", "e5m2"])
@pytest.mark.parametrize("to", ["f32", "f16", "bf16", "e4m3", "e5m2"])
def test_every_narrow_value_converts(source: str, to: str) -> None:
    if source != to:
        x = all_of(source)
        same(cast(x, to), rounded(x.float(), to))


@pytest.mark.parametrize("name", ["fp8e4b8", "fp8e5b16"])
def test_fnuz_formats(name: str) -> None:
    """Formats that only HIP has: through integers, since a cpu program has no pointer to them."""
    dtype = {"fp8e4b8": torch.float8_e4m3fnuz, "fp8e5b16": torch.float8_e5m2fnuz}[name]
    x = torch.cat([floats(1 << 17), torch.arange(256).to(torch.uint8).view(dtype).float()])
    y = torch.zeros(x.numel(), dtype=torch.uint8)
    body = CAST.format(to=f"tl.float{name[2:]}).to(tl.uint8, bitcast=True")
    run(body, grid=-(-x.numel() // 65536), x_ptr=x, y_ptr=y, n=x.numel())
    top = torch.finfo(dtype).max
    same(y.view(dtype), torch.where(x.isnan(), x, x.clamp(-top, top)).to(dtype))
    back = torch.zeros(256)
    codes = torch.arange(256).to(torch.uint8)
    run(f"i = tl.arange(0, 256)\ntl.store(y + i, tl.load(x + i).to(tl.float{name[2:]}, bitcast=True).to(tl.float32))", x=codes, y=back)
    same(back, codes.view(dtype).float())


@pytest.mark.parametrize("to", ["i8", "u8", "i16", "i32", "i64"])
@pytest.mark.parametrize("source", ["f32", "bf16", "f16"])
def test_float_to_integer_in_range(source: str, to: str) -> None:
    x = (floats(1 << 16) if source == "f32" else all_of(source)).nan_to_num()
    info = torch.iinfo(TORCH[to])
    x = torch.where((x.double() > float(info.min - 1)) & (x.double() < float(info.max + 1)), x, torch.zeros_like(x))
    assert torch.equal(cast(x, to), x.double().trunc().to(TORCH[to]))


def test_float_to_integer_saturates_as_hardware() -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 3e9, -3e9, 2.0**31, -(2.0**31)])
    most, least = 2**31 - 1, -(2**31)
    assert cast(x, "i32").tolist() == [0, most, least, most, least, most, least]


@pytest.mark.parametrize("to", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("source", ["i8", "u8", "i16", "i32"])
def test_integer_to_float(source: str, to: str) -> None:
    info = torch.iinfo(TORCH[source])
    x = torch.randint(info.min, info.max + 1, (70000,), generator=torch.Generator().manual_seed(1)).to(TORCH[source])
    same(cast(x, to), x.float().to(TORCH[to]))


ARITHMETIC = """
i = tl.program_id(0) * 8192 + tl.arange(0, 8192)
a = tl.load(x + i)
b = tl.load(y + i)
tl.store(z + i, {expression})
"""


@pytest.mark.parametrize("name", ["f32", "bf16", "f16"])
@pytest.mark.parametrize(
    "expression", ["a + b", "a - b", "a * b", "tl.where(a < b, a, b * 2.0)", "tl.where(a != b, a, 1.5)", "tl.abs(a) + 0.5"]
)
def test_arithmetic(name: str, expression: str) -> None:
    g = torch.Generator().manual_seed(2)
    a, b = (all_of("bf16")[torch.randperm(65536, generator=g)].to(TORCH[name]) for _ in "ab")
    z = torch.zeros_like(a)
    run(ARITHMETIC.format(expression=expression), grid=8, x=a, y=b, z=z)
    scope = {"a": a, "b": b, "tl": torch}
    same(z, eval(expression, scope).to(TORCH[name]))


@pytest.mark.parametrize(
    ("expression", "meaning"), [("tl.div_rn(a, b)", "a / b"), ("tl.sqrt_rn(a)", "a.double().sqrt().float()"), ("tl.floor(a)", "a.floor()")]
)
def test_ieee_functions(expression: str, meaning: str) -> None:
    g = torch.Generator().manual_seed(3)
    a, b = (torch.randint(-(2**31), 2**31 - 1, (65536,), generator=g).to(torch.int32).view(torch.float32) for _ in "ab")
    z = torch.zeros_like(a)
    run(ARITHMETIC.format(expression=expression), grid=8, x=a, y=b, z=z)
    same(z, eval(meaning, {"a": a, "b": b, "torch": torch}))


def exact_fma(a: float, b: float, c: float) -> float:
    """a * b + c of finite float32 values, rounded once to float32, by rational arithmetic."""
    value = Fraction(a) * Fraction(b) + Fraction(c)
    if not value:
        return a * b + c
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    if abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    quantum = Fraction(2) ** (max(exponent, -126) - 23)
    out = round(value / quantum) * quantum
    return float(out) if abs(out) < Fraction(2) ** 128 else float("inf") * (1 if out > 0 else -1)


def test_fma_rounds_once() -> None:
    g = torch.Generator().manual_seed(4)
    n = 8192
    a, b = (torch.randn(n, generator=g) * torch.exp2(torch.randint(-60, 60, (n,), generator=g)) for _ in "ab")
    # Sums that cancel, sums that fall just beside the middle between two floats, results below the least normal number.
    c = torch.cat(
        [torch.randn(2048, generator=g), -(a * b)[2048:4096], (a * b * 2**-24)[4096:6144], torch.randn(2048, generator=g) * 2.0**-126]
    )
    a[6144:] *= 2.0**-60
    b[6144:] *= 2.0**-75
    a[-1], b[-1], c[-1] = 1 + 2**-12, 1 + 2**-12, 2.0**-60
    z = torch.zeros(n)
    run(ARITHMETIC.format(expression="tl.fma(a, b, tl.load(w + i))"), grid=1, x=a, y=b, z=z, w=c)
    wanted = torch.tensor([exact_fma(*row) for row in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)], dtype=torch.float64)
    assert (a * b + c != wanted.float()).any(), "the values must tell one rounding from two"
    same(z, wanted.float())
    special = torch.tensor([torch.inf, torch.nan, 0.0, -0.0] * 2048)
    run(ARITHMETIC.format(expression="tl.fma(a, b, tl.load(w + i))"), grid=1, x=special, y=b, z=z, w=c)
    same(z, special * b + c)


NANS = torch.tensor([torch.nan, 1.0, -1.0, 0.0, -0.0, torch.inf, -torch.inf, 2.0**-149])


def wins(values: list[float], largest: bool) -> float:
    """The maximum or minimum by the language: NaN ignored, +0 above -0."""
    order = [v for v in values if not math.isnan(v)]
    return sorted(order, key=lambda v: (v, str(v)[0] != "-"))[-1 if largest else 0] if order else float("nan")


@pytest.mark.parametrize("name", ["f32", "bf16", "f16"])
def test_extremes_ignore_nan_and_order_zeros(name: str) -> None:
    a, b = (x.flatten().repeat(128).to(TORCH[name]) for x in torch.meshgrid(NANS, NANS, indexing="ij"))
    for function, largest in (("maximum", True), ("minimum", False)):
        z = torch.zeros(8192)
        run(ARITHMETIC.format(expression=f"tl.{function}(a, b).to(tl.float32)"), x=a, y=b, z=z)
        same(z, torch.tensor([wins([p, q], largest) for p, q in zip(a.tolist(), b.tolist(), strict=True)]))
    z = torch.zeros(8192)
    run(ARITHMETIC.format(expression="tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL).to(tl.float32)"), x=a, y=b, z=z)
    assert torch.equal(z.isnan(), a.isnan() | b.isnan())
    run(ARITHMETIC.format(expression="tl.clamp(a.to(tl.float32), -0.5, 0.75)"), x=a, y=b, z=z)
    same(z, torch.where(a.isnan(), torch.tensor(-0.5), a.float().clamp(-0.5, 0.75)))


@pytest.mark.parametrize("name", ["f32", "bf16", "f16"])
def test_reduced_extremes(name: str) -> None:
    rows = torch.tensor([[x, y, z, x] for x in NANS for y in NANS for z in NANS])
    x = rows.to(TORCH[name])
    y = torch.zeros(4, 512)
    body = """
    i = tl.arange(0, 512)
    j = tl.arange(0, 4)
    v = tl.load(x + i[:, None] * 4 + j[None, :])
    tl.store(y + i, tl.max(v, 1).to(tl.float32))
    tl.store(y + 512 + i, tl.min(v, axis=-1).to(tl.float32))
    tl.store(y + 1024 + i, tl.argmax(v, 1, tie_break_left=True).to(tl.float32))
    tl.store(y + 1536 + i, tl.argmin(v, 1).to(tl.float32))
    """
    run("\n".join(line[4:] for line in body.splitlines()), x=x, y=y)
    values = x.tolist()
    same(y[0], torch.tensor([wins(row, True) for row in values]))
    same(y[1], torch.tensor([wins(row, False) for row in values]))
    for line, largest in ((2, True), (3, False)):
        wanted = [next((i for i, v in enumerate(row) if v == wins(row, largest)), 0) for row in values]
        assert y[line].tolist() == wanted


@pytest.mark.parametrize("name", ["f32", "bf16", "i32", "i8"])
def test_reductions_and_scans(name: str) -> None:
    g = torch.Generator().manual_seed(5)
    x = torch.randint(-100, 100, (8, 64), generator=g).to(TORCH[name])
    wide = torch.int32 if name.startswith("i") else torch.float32
    sums, ends, total = torch.zeros(8, dtype=wide), torch.zeros(64, dtype=wide), torch.zeros(1, dtype=wide)
    scan, back = torch.zeros(8, 64, dtype=wide), torch.zeros(8, 64, dtype=wide)
    to = "tl.int32" if wide == torch.int32 else "tl.float32"
    body = f"""
i = tl.arange(0, 8)
j = tl.arange(0, 64)
at = i[:, None] * 64 + j[None, :]
v = tl.load(x + at)
tl.store(sums + i, tl.sum(v.to({to}), 1))
tl.store(ends + j, tl.sum(v.to({to}), 0))
tl.store(total, tl.sum(v.to({to})))
tl.store(scan + at, tl.cumsum(v.to({to}), 1))
tl.store(back + at, tl.cumsum(v.to({to}), 0, reverse=True))
"""
    run(body, x=x, sums=sums, ends=ends, total=total, scan=scan, back=back)
    w = x.to(wide)
    assert torch.equal(sums, w.sum(1).to(wide)) and torch.equal(ends, w.sum(0).to(wide)) and torch.equal(total, w.sum().to(wide)[None])
    assert torch.equal(scan, w.cumsum(1).to(wide)) and torch.equal(back, w.flip(0).cumsum(0).flip(0).to(wide))


def test_combining_functions_of_the_program() -> None:
    helper = HEAD + "def both(a, p, b, q):\n    return tl.maximum(a, b), p + q\n\n\n" + HEAD.split("\n\n\n")[1]
    before = helper + "def last(a, b):\n    if b > 0:\n        r = b\n    else:\n        r = a\n    return r\n\n\n"
    x = torch.randint(-9, 9, (4, 16), generator=torch.Generator().manual_seed(6)).to(torch.int32)
    top, total = torch.zeros(4, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    scan, kept = torch.zeros(4, 16, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    body = """
i = tl.arange(0, 4)
j = tl.arange(0, 16)
at = i[:, None] * 16 + j[None, :]
v = tl.load(x + at)
m, s = tl.reduce((v, v), 1, both)
tl.store(top + i, m)
tl.store(total + i, s)
m, s = tl.associative_scan((v, v), 1, both)
tl.store(scan + at, m)
tl.store(kept + i, tl.reduce(v, 1, last))
"""
    run(body, before=before, x=x, top=top, total=total, scan=scan, kept=kept)
    assert torch.equal(top, x.amax(1)) and torch.equal(total.long(), x.sum(1)) and torch.equal(scan, x.cummax(1).values)
    assert kept.tolist() == [next((v for v in reversed(row) if v > 0), row[0]) for row in x.tolist()]


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "e4m3", "e5m2", "i8"])
def test_dot(name: str) -> None:
    g = torch.Generator().manual_seed(7)
    a, b = (torch.randint(-8, 8, (16, 32), generator=g).to(torch.float32).to(TORCH[name]) for _ in "ab")
    out = "i32" if name == "i8" else "f32"
    c = torch.zeros(16, 16, dtype=TORCH[out])
    body = f"""
i = tl.arange(0, 16)
k = tl.arange(0, 32)
a = tl.load(x + i[:, None] * 32 + k[None, :])
b = tl.load(y + i[None, :] * 32 + k[:, None])
tl.store(z + i[:, None] * 16 + i[None, :], tl.dot(a, b, out_dtype={TRITON[out]}))
"""
    run(body, x=a, y=b, z=c)
    assert torch.equal(c, (a.float() @ b.float().T).to(c.dtype))


def test_loop_variables_and_scalars_are_tensors() -> None:
    y = torch.zeros(4, dtype=torch.int64)
    body = """
total = tl.full((), 0, tl.int64)
for i in range(n):
    total += i.to(tl.int64) * 3000000000
for i in tl.range(2, n, 3):
    total += i.to(tl.int64)
tl.store(y, total)
tl.store(y + 1, n.to(tl.int64))
tl.store(y + 2, tl.where(yes, 1, 2).to(tl.int64))
if x > 0.5:
    tl.store(y + 3, (x * 8).to(tl.int64))
"""
    run(body, y=y, n=6, yes=True, x=0.625)
    assert y.tolist() == [15 * 3000000000 + 2 + 5, 6, 1, 5]
