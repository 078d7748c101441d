"""The interpreter on kernels built by hand: what they mean against torch, at several tile lengths, and what faults."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from ir_kernels import (
    G,
    M,
    N,
    act_quant,
    cast,
    f32,
    full,
    index,
    kernel,
    load,
    reduce,
    rows,
    softmax,
    store,
    tensor,
    unary,
    var,
    where,
)

from nsalang import ir
from nsalang.base.dtypes import BF16, BOOL, E4M3, F16, F32, I8, I32, I64, U8, U32, DType
from nsalang.base.source import Source, Span
from nsalang.interp.bounds import BOUNDS, sum_error
from nsalang.interp.fault import Fault
from nsalang.interp.run import interpret

TILES = (1, 7, None)
SHAPES = ((13, 37), (1, 1), (8, 0), (0, 5), (7, 14))
INF, NAN = float("inf"), float("nan")
m, n = index("m"), index("n")


def columns(*body: ir.Stmt, carried: tuple[str, ...] = ()) -> ir.For:
    return ir.For("n", "tile", ir.const(0), N, body, carried)


def strided(x: torch.Tensor) -> torch.Tensor:
    """The same values in memory with gaps, last axis first."""
    wide = torch.zeros(*reversed([2 * s + 1 for s in x.shape]), dtype=x.dtype)
    view = wide.permute(*reversed(range(x.dim())))[tuple(slice(1, 2 * s + 1, 2) for s in x.shape)]
    view.copy_(x)
    return view


@pytest.mark.parametrize(("rows_", "width"), SHAPES)
@pytest.mark.parametrize("tile", TILES)
def test_softmax(rows_: int, width: int, tile: int | None) -> None:
    torch.manual_seed(0)
    x = 4 * torch.randn(rows_, width)
    y, z = torch.full_like(x, NAN), strided(torch.full_like(x, NAN))
    interpret(softmax(), {"x": x, "y": y}, {}, {"M": rows_, "N": width}, tile=tile)
    interpret(softmax(), {"x": strided(x), "y": z}, {}, {"M": rows_, "N": width}, tile=tile)
    wide = x.double()
    exact = torch.softmax(wide, 1)
    # Each exp stands for at most one a tile and a last one; a row's total inherits their error.
    bound = 4 * (BOUNDS["exp"].error(wide.abs() + 12, torch.ones_like(wide)) + sum_error(width)) * exact
    assert bool(((y.double() - exact).abs() <= bound).all())
    assert torch.equal(y, z)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("ue8m0", [False, True])
def test_act_quant(tile: int | None, ue8m0: bool) -> None:
    torch.manual_seed(1)
    x = (torch.randn(9, 256) * torch.logspace(-9, 9, 9)[:, None]).bfloat16()
    x[2, :3], x[3], x[4, 5], x[5, 6] = torch.tensor([NAN, 1.0, -2.0]).bfloat16(), 0.0, INF, -0.0
    y, s = torch.empty(9, 256).to(torch.float8_e4m3fn), torch.empty(9, 2)
    interpret(act_quant(128, ue8m0), {"x": x, "y": y, "s": s}, {}, {"M": 9, "N": 256}, tile=tile)
    groups = x.float().view(9, 2, 128)
    scale = groups.abs().nan_to_num(0, posinf=INF).amax(2).clamp(min=1e-4) * torch.tensor(1 / 448, dtype=torch.float32)
    if ue8m0:
        mantissa, exponent = torch.frexp(scale)
        scale = torch.where(scale.isinf(), scale, torch.exp2(torch.where(mantissa == 0.5, exponent - 1, exponent).float()))
    assert torch.equal(s, scale)
    # minimum and maximum ignore NaN: clamp(NaN, -448, 448) is -448, so that inf / inf becomes that code as well.
    codes = (groups / scale[:, :, None]).nan_to_num(-448.0).clamp(-448, 448).to(torch.float8_e4m3fn)
    assert torch.equal(y.view(torch.uint8), codes.view(9, 256).view(torch.uint8))


def test_a_large_act_quant_is_quick() -> None:
    x = torch.randn(512, 2048).bfloat16()
    y, s = torch.empty(512, 2048).to(torch.float8_e4m3fn), torch.empty(512, 16)
    interpret(act_quant(), {"x": x, "y": y, "s": s}, {}, {"M": 512, "N": 2048})
    assert torch.equal(s, x.float().view(512, 16, 128).abs().amax(2).clamp(min=1e-4) * torch.tensor(1 / 448))


REDUCTIONS = [("max", F32), ("min", F32), ("absmax", F32), ("argmax", I64), ("argmin", I64), ("sum", F32)]


@pytest.mark.parametrize(("op", "dtype"), REDUCTIONS)
def test_span_reductions(op: ir.ReduceOp, dtype: DType) -> None:
    """Over a span that starts and stops where data says, empty ones included."""
    g = index("g", scalar=True)
    start, stop = load("first", I64, g), load("last", I64, g)
    k = kernel(
        "spans",
        (tensor("x", F32, "in", N), tensor("first", I64, "in", G), tensor("last", I64, "in", G), tensor("y", dtype, "out", G)),
        (ir.GridIndex("g", G, False),),
        ir.SpanAxis("n", start, 5, stop),
        store("y", reduce(op, load("x", F32, n), "n", dtype=dtype), g),
        dims="NG",
    )
    x = torch.tensor([1.0, NAN, NAN, -3.0, 3.0, 3.0, 0.5, NAN])
    first, last = torch.tensor([0, 1, 3, 4, 6, 3]), torch.tensor([8, 3, 8, 4, 8, 1])
    y = torch.empty(6, dtype=getattr(torch, dtype.torch))
    interpret(k, {"x": x, "first": first, "last": last, "y": y}, {}, {"N": 8, "G": 6})
    expected = {
        "max": [3.0, -INF, 3.0, -INF, 0.5, -INF], "min": [-3.0, INF, -3.0, INF, 0.5, INF], "absmax": [3.0, 0.0, 3.0, 0.0, 0.5, 0.0],
        "argmax": [4, 1, 4, 4, 6, 3], "argmin": [3, 1, 3, 4, 6, 3], "sum": [NAN, NAN, NAN, 0.0, NAN, 0.0],
    }[op]  # fmt: skip
    assert torch.equal(y.nan_to_num(77), torch.tensor(expected).to(y.dtype).nan_to_num(77))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("dtype", [F32, BF16, F16, I32], ids=str)
def test_row_maximum_keeps_the_dtype(tile: int | None, dtype: DType) -> None:
    typed = I64 if dtype is I32 else dtype
    read = load("x", dtype, m, n)
    least = ir.const(-(2**31)) if dtype is I32 else ir.const(-INF, dtype)
    top = var("top", typed, "m")
    new = ir.binary("max", top, reduce("max", cast(I64, read) if dtype is I32 else read, "n"))
    k = kernel(
        "row_max", (tensor("x", dtype, "in", M, N), tensor("y", dtype, "out", M)), (rows(),),
        ir.Assign("top", full(least, "m")), columns(ir.Assign("top", new), carried=("top",)), store("y", top, m),
    )  # fmt: skip
    torch.manual_seed(2)
    x = (100 * torch.randn(11, 23)).to(getattr(torch, dtype.torch))
    y = torch.empty(11, dtype=x.dtype)
    interpret(k, {"x": x, "y": y}, {}, {"M": 11, "N": 23}, tile=tile)
    assert torch.equal(y, x.amax(1))


@pytest.mark.parametrize("tile", TILES)
def test_sum_over_two_axes_and_counts(tile: int | None) -> None:
    read = load("x", F32, m, n)
    positive = ir.binary("gt", read, f32(0.0))
    axes_gone = kernel(
        "both", (tensor("x", F32, "in", M, N), tensor("y", F32, "inout", ir.const(1)), tensor("c", I64, "inout", ir.const(3))), (),
        ir.For("m", "tile", ir.const(0), M, (columns(
            store("y", ir.binary("add", load("y", F32, ir.const(0)), reduce("sum", read, "m", "n")), ir.const(0)),
            store("c", ir.binary("add", load("c", I64, ir.const(0)), reduce("sum", positive, "n", "m", dtype=I64)), ir.const(0)),
            ir.If(reduce("any", ir.binary("gt", read, f32(2.0)), "m", "n"), (store("c", ir.const(1), ir.const(1)),)),
            ir.If(reduce("all", positive, "m", "n"), (), (store("c", ir.const(1), ir.const(2)),)),
        ),)),
    )  # fmt: skip
    torch.manual_seed(3)
    x = torch.randn(10, 21)
    y, c = torch.zeros(1), torch.zeros(3, dtype=torch.int64)
    interpret(axes_gone, {"x": x, "y": y, "c": c}, {}, {"M": 10, "N": 21}, tile=tile)
    assert abs(y.item() - x.double().sum().item()) <= (sum_error(210) * x.abs().sum()).item()
    assert c.tolist() == [int((x > 0).sum()), 1, 1]


@pytest.mark.parametrize(("exclusive", "reverse"), list(itertools.product([False, True], repeat=2)))
def test_scan(exclusive: bool, reverse: bool) -> None:
    read = cast(I64, load("x", I32, m, n))
    k = kernel(
        "scan", (tensor("x", I32, "in", M, ir.const(6)), tensor("y", I32, "out", M, ir.const(6))), (rows(),),
        ir.SpanAxis("n", ir.const(0), 6), store("y", ir.Scan(I64, ("m", "n"), read, "n", exclusive, reverse), m, n), dims="M",
    )  # fmt: skip
    x = torch.tensor([[1, 2, 3, 4, 5, 6], [-1, 0, 7, 0, 0, 2]], dtype=torch.int32)
    y = torch.empty_like(x)
    interpret(k, {"x": x, "y": y}, {}, {"M": 2})
    along = x.flip(1) if reverse else x
    total = along.cumsum(1) - (along if exclusive else 0)
    assert torch.equal(y, (total.flip(1) if reverse else total).int())


def test_range_loops_and_scalars() -> None:
    """Fibonacci numbers, with an inner loop that does not run at first and a branch on a scalar."""
    i, a, b = index("i", scalar=True), var("a", I64), var("b", I64)
    k = kernel(
        "loop", (tensor("y", I32, "out", N),), (),
        ir.Assign("a", ir.const(0)), ir.Assign("b", ir.Scalar(I64, (), "start")),
        ir.For("i", "range", ir.const(0), N, (
            store("y", a, i), ir.Assign("t", a), ir.Assign("a", b), ir.Assign("b", ir.binary("add", var("t", I64), b)),
            ir.If(ir.binary("eq", i, ir.const(3)), (ir.Assign("a", ir.const(100)),), (ir.Assign("b", ir.binary("add", b, ir.const(0))),)),
        ), ("a", "b")),
        dims="N", scalars=(ir.ScalarParam("start", I64),),
    )  # fmt: skip
    y = torch.empty(6, dtype=torch.int32)
    interpret(k, {"y": y}, {"start": 1}, {"N": 6})
    assert y.tolist() == [0, 1, 1, 2, 100, 5]
    interpret(k, {"y": y[:0]}, {"start": 1}, {"N": 0})


def test_a_loaded_scalar_is_not_changed_by_a_later_store() -> None:
    zero = ir.const(0)
    k = kernel(
        "swap", (tensor("x", F32, "inout", ir.const(2)), tensor("u", F32, "inout")), (),
        ir.Assign("t", load("x", F32, zero)), ir.Assign("v", load("u", F32)),
        store("x", load("x", F32, ir.const(1)), zero), store("x", var("t", F32), ir.const(1)),
        store("u", f32(9.0)), store("x", ir.binary("add", load("x", F32, zero), var("v", F32)), zero), dims="",
    )  # fmt: skip
    x, u = torch.tensor([1.0, 2.0]), torch.tensor(5.0)
    interpret(k, {"x": x, "u": u}, {}, {})
    assert x.tolist() == [7.0, 1.0] and u.item() == 9.0


def gather(*, guard: bool) -> ir.Kernel:
    """y[m] = where(0 <= t < N, x[t], -1) of t = idx[m]"""
    t = cast(I64, load("idx", I32, m))
    live = ir.binary("and", ir.binary("le", ir.const(0), t), ir.binary("lt", t, N))
    x = dataclasses.replace(load("x", F32, t, guard=live if guard else None), span=Span(Source("y[m] = x[t]", "a.nsa"), 1, 8, 1, 12))
    return kernel(
        "gather", (tensor("x", F32, "in", N), tensor("idx", I32, "in", M), tensor("y", F32, "out", M)), (rows(),),
        store("y", where(live, x, f32(-1.0)), m),
    )  # fmt: skip


@pytest.mark.parametrize("tile", TILES)
def test_guarded_lanes_are_not_read(tile: int | None) -> None:
    idx = torch.tensor([3, -1, 0, 4, 99, 2, -7, 1], dtype=torch.int32)
    x, y = torch.tensor([0.5, 1.5, 2.5, 3.5]), torch.empty(8)
    interpret(gather(guard=True), {"x": x, "idx": idx, "y": y}, {}, {"M": 8, "N": 4}, tile=tile)
    assert y.tolist() == [3.5, -1, 0.5, -1, -1, 2.5, -1, 1.5]
    interpret(gather(guard=True), {"x": x[:0], "idx": idx, "y": y}, {}, {"M": 8, "N": 0}, tile=tile)
    assert y.tolist() == [-1] * 8


@pytest.mark.parametrize("tile", TILES)
def test_a_read_outside_faults(tile: int | None) -> None:
    idx = torch.tensor([3, 0, 4, -1], dtype=torch.int32)
    with pytest.raises(Fault) as caught:
        interpret(gather(guard=False), {"x": torch.zeros(4), "idx": idx, "y": torch.empty(4)}, {}, {"M": 4, "N": 4}, tile=tile)
    fault = caught.value
    assert (fault.tensor, fault.indices, fault.at) == ("x", (4,), {"m": 2})
    assert str(fault) == "a.nsa:1:8: x[4]: read outside: axis 0 has extent 4 at m = 2"


@pytest.mark.parametrize("shift", [0, 1, -1])
def test_an_off_by_one_write_faults(shift: int) -> None:
    row = index("m", scalar=True)
    k = kernel(
        "shifted", (tensor("y", F32, "out", M, ir.const(5)),), (ir.GridIndex("m", M, False),),
        ir.SpanAxis("n", ir.const(0), 5), store("y", full(f32(1.0), "n"), row, ir.binary("add", n, ir.const(shift))), dims="M",
    )  # fmt: skip
    y = torch.zeros(5, 5)
    if not shift:
        interpret(k, {"y": y}, {}, {"M": 5})
        assert bool((y == 1).all())
        return
    with pytest.raises(Fault) as caught:
        interpret(k, {"y": y}, {}, {"M": 5})
    assert caught.value.indices == ((0, 5) if shift == 1 else (0, -1))
    assert caught.value.at == {"m": 0, "n": 4 if shift == 1 else 0}


def test_store_guards_and_broadcast() -> None:
    k = kernel(
        "mask", (tensor("x", F32, "in", M), tensor("y", F32, "out", M, N)), (rows(), ir.GridIndex("n", N, True)),
        store("y", load("x", F32, m), m, n, guard=ir.binary("ge", m, n)),
    )  # fmt: skip
    x = torch.tensor([1.0, 2.0, 3.0])
    for tile in TILES:
        y = torch.zeros(3, 4)
        interpret(k, {"x": x, "y": y}, {}, {"M": 3, "N": 4}, tile=tile)
        assert torch.equal(y, torch.tril(x[:, None].expand(3, 4)))
    y = torch.zeros(3, 4)
    interpret(k, {"x": x, "y": y}, {}, {"M": 3, "N": 4}, tile={"m": 2, "n": 3})
    assert torch.equal(y, torch.tril(x[:, None].expand(3, 4)))


def narrowing(value: ir.Expr, dtype: DType = I8) -> ir.Kernel:
    return kernel("narrow", (tensor("x", I32, "in", M), tensor("y", dtype, "out", M)), (rows(),), store("y", value, m))


def test_signed_integers_must_fit_where_they_are_used() -> None:
    x = cast(I64, load("x", I32, m))
    small = ir.binary("lt", x, ir.const(128))
    given = torch.tensor([5, 127, 128], dtype=torch.int32)
    y = torch.zeros(3, dtype=torch.int8)
    for value in (x, cast(I8, x)):
        with pytest.raises(Fault, match="does not fit i8, .*at m = 2|does not fit i8 at m = 2"):
            interpret(narrowing(value), {"x": given, "y": y}, {}, {"M": 3})
    interpret(narrowing(where(small, cast(I8, x), ir.const(-1, I8))), {"x": given, "y": y}, {}, {"M": 3})
    assert y.tolist() == [5, 127, -1]
    interpret(narrowing(cast(I8, x, "wrap")), {"x": given, "y": y}, {}, {"M": 3})
    assert y.tolist() == [5, 127, -128]


def test_a_division_by_zero_faults_where_it_is_used() -> None:
    x = cast(I64, load("x", I32, m))
    given, y = torch.tensor([5, 0, -2], dtype=torch.int32), torch.zeros(3, dtype=torch.int8)
    quotient = ir.binary("floordiv", ir.const(7), x)
    with pytest.raises(Fault, match="divisor"):
        interpret(narrowing(quotient), {"x": given, "y": y}, {}, {"M": 3})
    interpret(narrowing(where(ir.binary("ne", x, ir.const(0)), quotient, ir.const(99))), {"x": given, "y": y}, {}, {"M": 3})
    assert y.tolist() == [1, 99, -4]


def test_software_fp8_reads_bytes() -> None:
    """A tensor whose machine type is u8: codes go through bits."""
    k = kernel(
        "bytes", tuple(dataclasses.replace(tensor(*t, M), storage=U8) for t in (("x", E4M3, "in"), ("y", E4M3, "out"))), (rows(),),
        store("y", ir.binary("xor", load("x", U8, m), ir.const(0x80, U8)), m),
    )  # fmt: skip
    x = torch.tensor([1.0, -2.5, 448.0]).to(torch.float8_e4m3fn)
    y = torch.zeros_like(x)
    interpret(k, {"x": x, "y": y}, {}, {"M": 3})
    assert y.float().tolist() == [-1.0, 2.5, -448.0]


def test_bits_booleans_and_fma() -> None:
    read = load("x", F32, m)
    bits = ir.Bitcast(U32, ("m",), read)
    half = ir.Bitcast(F32, ("m",), ir.binary("sub", bits, ir.const(1 << 23, U32)))
    flag = ir.binary("or", ir.binary("lt", read, f32(0.0)), unary("not", load("b", BOOL, m)))
    k = kernel(
        "bits", (tensor("x", F32, "in", M), tensor("b", BOOL, "in", M), tensor("y", F32, "out", M), tensor("c", BOOL, "out", M)), (rows(),),
        store("y", ir.Fma(F32, ("m",), half, f32(4.0), read), m), store("c", flag, m),
    )  # fmt: skip
    x, b = torch.tensor([1.0, -3.0, 5.5]), torch.tensor([True, True, False])
    y, c = torch.empty(3), torch.zeros(3, dtype=torch.bool)
    interpret(k, {"x": x, "b": b, "y": y, "c": c}, {}, {"M": 3})
    assert torch.equal(y, 3 * x) and c.tolist() == [False, True, True]
