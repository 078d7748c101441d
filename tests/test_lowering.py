"""Code from hand-built kernels as they are after all passes, on both backends: it runs on the cpu as torch does, compiles, and reads well."""

import pytest
import torch
from lowered import TILELANG, TRITON, Lowered
from machine_kernels import (
    N,
    act_quant,
    added,
    additions,
    at,
    c,
    elementwise,
    fn,
    idx,
    kernel,
    let,
    load,
    m,
    n,
    op,
    raw,
    reduce,
    softmax,
    store,
    tensor,
    tile,
    two_views,
    var,
    vector_add,
    widened,
)

from nsalang import ir
from nsalang.base.dtypes import BF16, BOOL, E4M3, E5M2, F16, F32, I8, I32, I64, U8, U32, DType
from nsalang.base.target import parse_target
from nsalang.passes import flatten, legalize


@pytest.fixture(params=[TRITON, TILELANG], ids=lambda b: b.name)
def on(request: pytest.FixtureRequest) -> Lowered:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("wide", [False, True])
def test_tails_and_strides(on: Lowered, wide: bool) -> None:
    k = vector_add()
    if wide:
        k = widened(k)
    x, y = torch.randn(13, 7).T, torch.randn(14, 39)[::2, ::3]
    z = torch.full((7, 20), torch.nan)[:, 3:16]
    on.run(k, {"x": x, "y": y, "z": z}, {"M": 7, "N": 13})
    assert torch.equal(z, x + y) and z._base is not None and z._base.isnan().sum() == 7 * 7


def test_a_loop_that_carries_rows(on: Lowered) -> None:
    x = torch.randn(6, 50)
    y = torch.zeros(6, 50)
    on.run(softmax(), {"x": x, "y": y}, {"M": 6, "N": 50})
    assert torch.allclose(y, torch.softmax(x, 1), rtol=1e-6, atol=0)


def test_act_quant_and_a_scalar_grid_index(on: Lowered) -> None:
    x = (torch.randn(21, 384) * 8).bfloat16()
    y, s = torch.zeros(21, 384).to(torch.float8_e4m3fn), torch.zeros(21, 3)
    on.run(act_quant(), {"x": x, "y": y, "s": s}, {"M": 21, "N": 384})
    v = x.float().view(21, 3, 128)
    scale = v.abs().amax(2).clamp(min=1e-4) * torch.tensor(1 / 448)
    assert torch.equal(s, scale)
    assert torch.equal(y.view(torch.uint8), (v / scale[..., None]).view(21, 384).to(y.dtype).view(torch.uint8))


@pytest.mark.parametrize(("dtype", "torch_dtype"), [(F32, torch.float32), (I32, torch.int32), (I64, torch.int64), (U32, torch.uint32)])
def test_atomic_additions(on: Lowered, dtype: DType, torch_dtype: torch.dtype) -> None:
    given, wanted = added(torch_dtype)
    on.run(additions(dtype), given, {"M": 21, "N": 37})
    for name, value in wanted.items():
        assert torch.equal(given[name].to(torch.int64), value), name


def test_views_are_tensors_with_strides(on: Lowered) -> None:
    memory = torch.zeros(21, 2, dtype=torch.int32)
    tensors = {"bytes": memory.view(torch.uint8).view(-1), "low": memory[:, 0], "high": memory[:, 1]}
    on.run(two_views("low", "high"), tensors, {"M": 21})
    assert torch.equal(memory, torch.arange(21, dtype=torch.int32)[:, None].expand(21, 2))


def test_casts(on: Lowered) -> None:
    x = torch.randn(300) * 20
    for dtype, torch_dtype in (
        (F16, torch.float16),
        (BF16, torch.bfloat16),
        (E4M3, torch.float8_e4m3fn),
        (E5M2, torch.float8_e5m2),
        (I8, torch.int8),
    ):
        z = on.apply(elementwise(dtype, raw(dtype, tile("x", F32)), ("x", F32)), torch.zeros(300).to(torch_dtype), x=x)
        assert torch.equal(z.float(), x.to(torch_dtype).float())
        back = on.apply(elementwise(F32, raw(F32, tile("x", dtype)), ("x", dtype)), torch.zeros(300), x=z)
        assert torch.equal(back, z.float())
    z = on.apply(elementwise(U8, raw(U8, op("gt", tile("x", F32), c(0.5, F32))), ("x", F32)), torch.zeros(300, dtype=torch.uint8), x=x)
    assert torch.equal(z, (x > 0.5).to(torch.uint8))


def test_bits_shifts_and_unsigned_numbers(on: Lowered) -> None:
    x = torch.randn(300)
    bits = ir.Bitcast(U32, ("m",), tile("x", F32))
    exponent = op("and", ir.Binary(U32, ("m",), "shr", bits, c(23)), c(255, U32))
    z = on.apply(elementwise(I32, raw(I32, exponent), ("x", F32)), torch.zeros(300, dtype=torch.int32), x=x)
    assert torch.equal(z, (x.view(torch.int32) >> 23) & 255)
    wrapping = op("add", op("mul", bits, c(2654435769, U32)), fn("invert", bits))
    z = on.apply(elementwise(I32, ir.Bitcast(I32, ("m",), wrapping), ("x", F32)), torch.zeros(300, dtype=torch.int32), x=x)
    b = x.view(torch.int32).long() & 0xFFFFFFFF
    assert torch.equal(z, ((b * 2654435769 + (~b & 0xFFFFFFFF)) & 0xFFFFFFFF).to(torch.uint32).view(torch.int32))
    amount = raw(I64, op("and", tile("y", I32), c(7)))
    y = torch.arange(300, dtype=torch.int32)
    shifted = ir.Binary(I32, ("m",), "shl", c(3), amount)
    z = on.apply(elementwise(I32, shifted, ("y", I32)), torch.zeros(300, dtype=torch.int32), y=y)
    assert torch.equal(z, 3 << (y & 7))


def test_signed_division_truncates(on: Lowered) -> None:
    x, y = torch.arange(-150, 150, dtype=torch.int32), torch.arange(300, dtype=torch.int32) % 7 - 8
    for name, meaning in (("tdiv", "trunc"), ("tmod", None)):
        k = elementwise(I32, op(name, tile("x", I32), tile("y", I32)), ("x", I32), ("y", I32))  # type: ignore[arg-type]
        z = on.apply(k, torch.zeros(300, dtype=torch.int32), x=x, y=y)
        assert torch.equal(z, torch.div(x, y, rounding_mode="trunc") if meaning else torch.fmod(x, y))


def test_negation_keeps_the_sign_of_zero(on: Lowered) -> None:
    x = torch.tensor([0.0, -0.0, 1.0, -torch.inf])
    z = on.apply(elementwise(F32, fn("neg", tile("x", F32)), ("x", F32)), torch.zeros(4), x=x)
    assert torch.equal(z.view(torch.int32), (-x).view(torch.int32))
    z = on.apply(
        elementwise(I32, fn("neg", tile("y", I32)), ("y", I32)),
        torch.zeros(4, dtype=torch.int32),
        y=torch.tensor([0, 1, -5, 7], dtype=torch.int32),
    )
    assert z.tolist() == [0, -1, 5, -7]


def test_bools_scalars_and_selection(on: Lowered) -> None:
    x = torch.randn(300)
    yes, mask = ir.Scalar(BOOL, (), "yes"), tile("b", BOOL)
    chosen = ir.Where(
        F32, ("m",), op("or", op("and", mask, yes), fn("not", mask)), op("mul", tile("x", F32), ir.Scalar(F32, (), "f")), c(-0.0, F32)
    )
    params = [ir.ScalarParam("yes", BOOL), ir.ScalarParam("f", F32), ir.ScalarParam("k", I8)]
    k = elementwise(F32, chosen, ("x", F32), ("b", BOOL), scalars=params)
    b = x > 0
    for flag in (True, False):
        z = on.apply(k, torch.zeros(300), {"yes": flag, "f": 2.5, "k": 3}, x=x, b=b)
        assert torch.equal(z, torch.where((b & flag) | ~b, x * 2.5, torch.tensor(-0.0)))
    out = on.apply(elementwise(BOOL, op("gt", tile("x", F32), c(0.0, F32)), ("x", F32)), torch.zeros(300, dtype=torch.bool), x=x)
    assert torch.equal(out, x > 0)
    k = elementwise(
        I8, ir.Where(I8, ("m",), op("lt", m, ir.Scalar(I32, (), "k")), ir.Scalar(I8, (), "k"), c(-1, I8)), scalars=[ir.ScalarParam("k", I8)]
    )
    k = ir.rewrite(k, lambda x: raw(I32, ir.Scalar(I8, (), "k")) if x == ir.Scalar(I32, (), "k") else x)
    z = on.apply(k, torch.zeros(5, dtype=torch.int8), {"k": 3})
    assert z.tolist() == [3, 3, 3, -1, -1]
    both = ir.Where(I64, ("m",), op("lt", m, c(2)), c(5, I64), c(-(2**40), I64))
    assert on.apply(elementwise(I64, both), torch.zeros(4, dtype=torch.int64)).tolist() == [5, 5, -(2**40), -(2**40)]


def test_constants_of_narrow_types_in_functions(on: Lowered) -> None:
    x = torch.tensor([-3, 0, 5, 127], dtype=torch.int8)
    z = on.apply(elementwise(I8, op("max", tile("x", I8), c(1, I8)), ("x", I8)), torch.zeros(4, dtype=torch.int8), x=x)
    assert z.tolist() == [1, 1, 5, 127]
    tiny = 2.0**-140
    z = on.apply(elementwise(F32, op("max", tile("y", F32), c(tiny, F32)), ("y", F32)), torch.zeros(2), y=torch.tensor([0.0, 1.0]))
    assert z.tolist() == [tiny, 1.0]


def test_fma_is_fused(on: Lowered) -> None:
    x = torch.tensor([1 + 2.0**-12])
    z = on.apply(elementwise(F32, ir.Fma(F32, ("m",), tile("x", F32), tile("x", F32), c(-1.0, F32)), ("x", F32)), torch.zeros(1), x=x)
    assert z.item() == 2.0**-11 + 2.0**-24


def test_range_loops_and_scalar_branches(on: Lowered) -> None:
    i = idx("i", scalar=True)
    total, j = var("total", I32), var("j", I64)
    x = var("x_at", I32)
    k = kernel(
        [tensor("x", I32, "in", N), tensor("z", I32, "out", c(2)), tensor("w", I64, "out", c(1))],
        [],
        let("total", c(0), 2),
        let("j", c(0, I64), 2),
        ir.For(
            "i", "range", c(0), N,
            (
                let("x_at", load("x", I32, i), 4),
                ir.If(
                    op("gt", x, c(10)),
                    (let("total", op("add", total, x), 6),),
                    (ir.If(op("lt", x, c(0)), (let("total", op("sub", total, c(1)), 8), let("j", op("add", j, raw(I64, i)), 9)), (), span=at(7)),),
                    span=at(5),
                ),
            ),
            ("total", "j"), span=at(3),
        ),
        store("z", total, c(0), line=10),
        store("z", op("mul", total, c(2)), c(1), line=11),
        store("w", j, c(0), line=12),
        dims="N",
    )  # fmt: skip
    x_values = torch.tensor([3, 20, -5, 40, -1, 11], dtype=torch.int32)
    z, w = torch.zeros(2, dtype=torch.int32), torch.zeros(1, dtype=torch.int64)
    on.run(k, {"x": x_values, "z": z, "w": w}, {"N": 6})
    assert z.tolist() == [69, 138] and w.tolist() == [6]
    assert "elif" in on.lower(k).program.source
    for v in (k, widened(k)):
        on.compiles(v, "cuda:sm_90", "hip:gfx942")


@pytest.mark.parametrize("over", [("n",), ("m", "n"), ("m",)])
@pytest.mark.parametrize("name", ["sum", "max", "min"])
def test_reductions_over_axes(on: Lowered, name: str, over: tuple[str, ...]) -> None:
    d = idx("d")
    x = var("x_tile", F32, "m", "n", "d")
    left = tuple(a for a in ("m", "n", "d") if a not in over)
    out = tuple(idx(a) for a in left)
    k = kernel(
        [tensor("x", F32, "in", c(4), c(8), c(2)), tensor("z", F32, "out", *(c({"m": 4, "n": 8, "d": 2}[a]) for a in left))],
        [],
        *(ir.SpanAxis(a, c(0), size) for a, size in (("m", 4), ("n", 8), ("d", 2))),
        let("x_tile", load("x", F32, m, n, d)),
        let("r", reduce(name, x, *over)),  # type: ignore[arg-type]
        store("z", var("r", F32, *left), *out),
        dims="", m=4, n=8, d=2,
    )  # fmt: skip
    x_values = torch.randint(-50, 50, (4, 8, 2)).float()
    z = torch.zeros([{"m": 4, "n": 8, "d": 2}[a] for a in left])
    on.run(k, {"x": x_values, "z": z}, {})
    axes = tuple("mnd".index(a) for a in over)
    wanted = x_values.sum(axes) if name == "sum" else (x_values.amax(axes) if name == "max" else x_values.amin(axes))
    assert torch.equal(z, wanted)


def test_sums_start_from_positive_zero(on: Lowered) -> None:
    k = kernel(
        [tensor("x", F32, "in", c(4)), tensor("z", F32, "out", c(1)), tensor("s", F32, "out", c(4))], [], ir.SpanAxis("m", c(0), 4),
        let("x_tile", load("x", F32, m)), let("r", reduce("sum", tile("x", F32), "m")), store("z", var("r", F32), c(0)),
        let("t", ir.Scan(F32, ("m",), tile("x", F32), "m")), store("s", var("t", F32, "m"), m), dims="", m=4,
    )  # fmt: skip
    if on.name == "triton":  # TileLang's lowering has the zero itself
        for change in (legalize.run, flatten.run):
            k = change(k, parse_target("cpu"))
    z, s = torch.ones(1), torch.ones(4)
    on.run(k, {"x": torch.full((4,), -0.0), "z": z, "s": s}, {})
    assert not z.signbit().any() and not s.signbit().any()


@pytest.mark.parametrize("dtype", [F32, I32])
@pytest.mark.parametrize("over", ["m", "n"])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_scans(on: Lowered, dtype: DType, over: str, exclusive: bool, reverse: bool) -> None:
    x = var("x_tile", dtype, "m", "n")
    k = kernel(
        [tensor("x", dtype, "in", c(4), c(8)), tensor("z", dtype, "out", c(4), c(8))], [],
        ir.SpanAxis("m", c(0), 4), ir.SpanAxis("n", c(0), 8),
        let("x_tile", load("x", dtype, m, n)), let("r", ir.Scan(dtype, ("m", "n"), x, over, exclusive, reverse)),
        store("z", var("r", dtype, "m", "n"), m, n), dims="", m=4, n=8,
    )  # fmt: skip
    values = torch.randint(-50, 50, (4, 8)).to(torch.float32 if dtype is F32 else torch.int32)
    if dtype is F32:
        values[1, 3] = torch.inf
    z = torch.zeros_like(values)
    on.run(k, {"x": values, "z": z}, {})
    axis = "mn".index(over)
    wanted = values.flip(axis) if reverse else values
    wanted = (
        torch.cat([torch.zeros_like(wanted.narrow(axis, 0, 1)), wanted.narrow(axis, 0, wanted.shape[axis] - 1)], axis)
        if exclusive
        else wanted
    )
    wanted = wanted.cumsum(axis)
    assert torch.equal(z, (wanted.flip(axis) if reverse else wanted).to(z.dtype))
    if dtype is F32 and exclusive:
        on.compiles(k, "cuda:sm_90")


def test_a_guard_with_an_axis_that_the_indices_lack(on: Lowered) -> None:
    x = var("x_at", F32, "m", "n")
    inside = op("and", op("lt", m, n), op("lt", n, c(6)))
    k = kernel(
        [tensor("x", F32, "in", c(4)), tensor("z", F32, "out", c(4), c(8))], [], ir.SpanAxis("m", c(0), 4), ir.SpanAxis("n", c(0), 8),
        let("x_at", load("x", F32, m, mask=inside, fill=c(7.0, F32))), store("z", x, m, n), dims="", m=4, n=8,
    )  # fmt: skip
    z = torch.zeros(4, 8)
    on.run(k, {"x": torch.arange(4.0), "z": z}, {})
    i, j = torch.meshgrid(torch.arange(4), torch.arange(8), indexing="ij")
    assert torch.equal(z, torch.where((i < j) & (j < 6), i.float(), torch.tensor(7.0)))
    on.compiles(k, "cuda:sm_90")


def test_barriers_between_accesses_to_one_tensor(on: Lowered) -> None:
    one: list[ir.Stmt] = [
        let("a", load("x", F32, m)),
        store("x", op("add", var("a", F32, "m"), c(1.0, F32)), m),
        let("b", load("x", F32, op("sub", c(3), m))),
    ]
    k = kernel(
        [tensor("x", F32, "inout", c(4)), tensor("z", F32, "out", c(4))],
        [],
        ir.SpanAxis("m", c(0), 4),
        *one,
        store("z", var("b", F32, "m"), m),
        dims="",
        m=4,
    )
    lines = [line.strip().split(" ")[0] for line in on.lower(k).program.source.split("\n")]
    assert lines.count(on.barrier) == 2
    x, z = torch.arange(4.0), torch.zeros(4)
    on.run(k, {"x": x, "z": z}, {})
    assert z.tolist() == [4, 3, 2, 1]
    loop = ir.For("i", "range", c(0), c(3), (let("a", load("x", F32, m)), store("x", op("mul", var("a", F32, "m"), c(2.0, F32)), m)))
    k = kernel([tensor("x", F32, "inout", c(4))], [], ir.SpanAxis("m", c(0), 4), loop, dims="", m=4)
    assert on.lower(k).program.source.count(on.barrier) == 2, "the next round's load follows this one's store"
    assert on.barrier not in on.lower(softmax()).program.source


def test_names_do_not_collide(on: Lowered) -> None:
    tl, pid = idx("tl"), var("pid", F32, "tl")
    k = kernel(
        [tensor("triton", F32, "in", N), tensor("range", F32, "out", N)], [ir.GridIndex("tl", N, True)],
        let("pid", load("triton", F32, tl, mask=op("lt", tl, N))),
        let("lambda", op("mul", pid, ir.Scalar(F32, (), "if"))),
        store("range", var("lambda", F32, "tl"), tl, mask=op("lt", tl, N)), dims="N", scalars=[ir.ScalarParam("if", F32)], tl=8,
    )  # fmt: skip
    x, y = torch.arange(20.0), torch.zeros(20)
    on.run(k, {"triton": x, "range": y}, {"N": 20}, {"if": 2.0})
    assert torch.equal(y, x * 2)


def test_each_line_knows_its_source(on: Lowered) -> None:
    made = on.lower(softmax())
    source = made.program.source.split("\n")
    found: dict[int, str] = {}
    for number, span in made.lines:
        found[span.line] = found.get(span.line, "") + source[number - 1]
    assert on.load in found[4] and found[7].lstrip().startswith("for ") and on.store in found[8]
    assert all(f"# kernel:{line}" in made.program.source for line in (2, 3, 4, 5, 6, 7, 8))


def test_extents_of_the_grid(on: Lowered) -> None:
    """Floor division, scalars and several scalar indices in extents: every program writes its own element."""
    k_scalar = ir.Scalar(I64, (), "k")
    halves = op("floordiv", op("sub", ir.Dim(I64, (), "N"), c(7, I64)), c(2, I64))
    extents: tuple[ir.Expr, ...] = (
        op("add", c(4, I64), halves),
        op("mod", op("sub", ir.Dim(I64, (), "N"), c(9, I64)), c(4, I64)),
        k_scalar,
    )
    grid = [ir.GridIndex(name, extent, name == "n") for name, extent in zip("ghn", extents, strict=True)]
    where = (idx("g", scalar=True), idx("h", scalar=True), n)
    value = op("add", op("add", op("mul", where[0], c(100)), op("mul", where[1], c(10))), n)
    k = kernel(
        [tensor("z", I32, "out", *extents)], grid, store("z", value, *where, mask=op("lt", n, raw(I32, k_scalar))), dims="N",
        scalars=[ir.ScalarParam("k", I32)], n=4,
    )  # fmt: skip
    shape = (4 + (4 - 7) // 2, (4 - 9) % 4, 6)
    assert shape == (2, 3, 6)
    z = torch.zeros(shape, dtype=torch.int32)
    on.run(k, {"z": z}, {"N": 4}, {"k": 6})
    g, h, i = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    assert torch.equal(z.long(), g * 100 + h * 10 + i)
    for v in (k, widened(k)):
        on.compiles(v, "cuda:sm_90", "hip:gfx950")
