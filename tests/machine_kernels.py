"""Kernels as they are after all passes, built by hand, and short names to build more: what the lowerings are tested with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from nsalang import ir
from nsalang.base.dtypes import BF16, E4M3, F32, I32, I64, U8, DType
from nsalang.base.source import Source, Span
from nsalang.base.target import Target
from nsalang.passes import PASSES

INFINITY = float("inf")
SOURCE = Source("\n" * 40, "kernels.nsa")


def finished(k: ir.Kernel, target: Target) -> ir.Kernel:
    """A kernel whose values have names, with what the passes behind `flatten` add."""
    for _, run in PASSES[[name for name, _ in PASSES].index("flatten") + 1 :]:
        k = run(k, target)
    return k


def at(line: int) -> Span:
    return Span(SOURCE, line, 1, line, 2)


M, N, G = (ir.Dim(I32, (), name) for name in "MNG")


def idx(name: str, *, scalar: bool = False, dtype: DType = I32) -> ir.Index:
    return ir.Index(dtype, () if scalar else (name,), name)


def var(name: str, dtype: DType, *axes: str) -> ir.Var:
    return ir.Var(dtype, axes, name)


def c(value: float, dtype: DType = I32) -> ir.Const:
    return ir.Const(dtype, (), value)


def op(name: ir.BinaryOp, a: ir.Expr, b: ir.Expr) -> ir.Binary:
    return ir.binary(name, a, b, ("m", "tl", "g", "h", "n", "n.2", "d"))


def fn(name: ir.UnaryOp, x: ir.Expr) -> ir.Unary:
    return ir.Unary(x.dtype, x.axes, name, x)


def raw(dtype: DType, x: ir.Expr) -> ir.Cast:
    return ir.Cast(dtype, x.axes, x, "raw")


def let(name: str, value: ir.Expr, line: int = 2) -> ir.Assign:
    return ir.Assign(name, value, span=at(line))


def load(tensor: str, dtype: DType, *indices: ir.Expr, mask: ir.Expr | None = None, fill: ir.Const | None = None) -> ir.Load:
    return ir.Load(dtype, ir.join(*(i.axes for i in indices), mask.axes if mask else ()), tensor, indices, None, mask, fill)


def store(tensor: str, value: ir.Expr, *indices: ir.Expr, mask: ir.Expr | None = None, line: int = 3) -> ir.Store:
    axes = ir.join(*(i.axes for i in indices), value.axes, mask.axes if mask else ())
    return ir.Store(tensor, indices, value, axes, None, mask, span=at(line))


def reduce(name: ir.ReduceOp, x: ir.Expr, *over: str) -> ir.Reduce:
    return ir.Reduce(x.dtype, tuple(a for a in x.axes if a not in over), name, x, over)


def kernel(
    tensors: Sequence[ir.Tensor],
    grid: Sequence[ir.GridIndex],
    *body: ir.Stmt,
    dims: str = "MN",
    scalars: Sequence[ir.ScalarParam] = (),
    **lengths: int,
) -> ir.Kernel:
    """``n_2=8`` gives the axis n.2 its length; the order of lengths is that of the dimensions."""
    found = tuple((name.replace("_", "."), length) for name, length in lengths.items())
    schedule = ir.Schedule("triton", found, tuple(n for n, _ in found), wide=False, why=("tiles pinned by a test",))
    return ir.Kernel(
        "kernel", tuple(tensors), tuple(scalars), tuple(dims), (), (), tuple(grid), body, (("G", "128"),), schedule, span=at(1)
    )


def tensor(name: str, dtype: DType, role: str, *shape: ir.Expr) -> ir.Tensor:
    return ir.Tensor(name, dtype, shape, role)  # type: ignore[arg-type]


m, n = idx("m"), idx("n")
ROWS, COLUMNS = ir.GridIndex("m", M, True), ir.GridIndex("n", N, True)
INSIDE = op("and", op("lt", m, M), op("lt", n, N))


def vector_add() -> ir.Kernel:
    return kernel(
        [tensor("x", F32, "in", M, N), tensor("y", F32, "in", M, N), tensor("z", F32, "out", M, N)],
        [ROWS, COLUMNS],
        let("a", load("x", F32, m, n, mask=INSIDE)),
        let("b", load("y", F32, m, n, mask=INSIDE)),
        store("z", op("add", var("a", F32, "m", "n"), var("b", F32, "m", "n")), m, n, mask=INSIDE),
        m=4, n=8,
    )  # fmt: skip


def widened(k: ir.Kernel) -> ir.Kernel:
    """With 64-bit dimensions and indices."""

    def rule(x: ir.Node) -> ir.Node:
        if isinstance(x, ir.Dim | ir.Index) or (isinstance(x, ir.Const | ir.Binary) and x.dtype is I32):
            return dataclasses.replace(x, dtype=I64)
        return x

    out = ir.rewrite(k, rule)
    return dataclasses.replace(out, schedule=dataclasses.replace(out.schedule, wide=True))


def softmax() -> ir.Kernel:
    n2 = idx("n.2")
    x, p, q = var("x_tile", F32, "m", "n"), var("p", F32, "m", "n"), var("x_tile.2", F32, "m", "n.2")
    top, total, new = (var(name, F32, "m") for name in ("top", "total", "new"))
    rows = op("lt", m, M)
    inside2 = op("and", rows, op("lt", n2, N))
    low = c(-3.4028234663852886e38, F32)
    return kernel(
        [tensor("x", F32, "in", M, N), tensor("y", F32, "out", M, N)],
        [ROWS],
        let("top", ir.Full(F32, ("m",), low), 2),
        let("total", ir.Full(F32, ("m",), c(0.0, F32)), 2),
        ir.For(
            "n", "tile", c(0), N,
            (
                let("x_tile", load("x", F32, m, n, mask=INSIDE, fill=c(-INFINITY, F32)), 4),
                let("row", reduce("max", x, "n"), 4),
                let("new", op("max", top, var("row", F32, "m")), 4),
                let("p", ir.Where(F32, ("m", "n"), INSIDE, fn("exp", op("sub", x, new)), c(0.0, F32)), 5),
                let("row.2", reduce("sum", p, "n"), 5),
                let("total", op("add", op("mul", total, fn("exp", op("sub", top, new))), var("row.2", F32, "m")), 5),
                let("top", new, 6),
            ),
            ("top", "total"), span=at(3),
        ),
        ir.For(
            "n.2", "tile", c(0), N,
            (
                let("x_tile.2", load("x", F32, m, n2, mask=inside2), 8),
                store("y", op("div", fn("exp", op("sub", q, top)), total), m, n2, mask=inside2, line=8),
            ),
            span=at(7),
        ),
        m=4, n=16, n_2=32,
    )  # fmt: skip


def act_quant(e4m3: float = 448.0) -> ir.Kernel:
    g = idx("g", scalar=True)
    v, s = var("v", F32, "m", "n"), var("scale", F32, "m")
    rows = op("lt", m, M)
    groups = op("tdiv", N, c(128))
    return kernel(
        [tensor("x", BF16, "in", M, N), tensor("y", E4M3, "out", M, N), tensor("s", F32, "out", M, groups)],
        [ROWS, ir.GridIndex("g", groups, False)],
        ir.SpanAxis("n", op("mul", g, c(128)), 128, span=at(4)),
        let("x_tile", load("x", BF16, m, n, mask=rows, fill=c(0.0, BF16)), 5),
        let("v", raw(F32, var("x_tile", BF16, "m", "n")), 5),
        let("top", reduce("max", fn("abs", v), "n"), 6),
        let("scale", op("mul", op("max", var("top", F32, "m"), c(9.999999747378752e-05, F32)), c(0.0022321429569274187, F32)), 6),
        store("y", raw(E4M3, op("min", op("max", op("div", v, s), c(-e4m3, F32)), c(e4m3, F32))), m, n, mask=rows, line=7),
        store("s", s, m, g, mask=rows, line=8),
        m=8, n=128,
    )  # fmt: skip


def elementwise(
    out: DType, value: ir.Expr, *inputs: tuple[str, DType], extra: Sequence[ir.Stmt] = (), scalars: Sequence[ir.ScalarParam] = ()
) -> ir.Kernel:
    """z[m] = value over the loaded inputs, a vector each."""
    rows = op("lt", m, M)
    loads = [let(f"{name}_tile", load(name, dtype, m, mask=rows)) for name, dtype in inputs]
    tensors = [*(tensor(name, dtype, "in", M) for name, dtype in inputs), tensor("z", out, "out", M)]
    return kernel(tensors, [ROWS], *loads, *extra, store("z", value, m, mask=rows), dims="M", scalars=scalars, m=128)


def tile(name: str, dtype: DType) -> ir.Var:
    return var(f"{name}_tile", dtype, "m")


def additions(dtype: DType) -> ir.Kernel:
    """Atomic additions: rows to places from data, a row and a single place to which all lanes add, and numbers without axes."""
    place, x, total = var("i_tile", I32, "m"), var("x_tile", dtype, "m", "n"), var("total", dtype)

    def add(to: str, value: ir.Expr, *indices: ir.Expr, axes: tuple[str, ...], mask: ir.Expr | None, line: int) -> ir.Store:
        return ir.Store(to, indices, value, axes, None, mask, "add", span=at(line))

    return kernel(
        [tensor("x", dtype, "in", M, N), tensor("i", I32, "in", M), tensor("y", dtype, "inout", M, N), tensor("z", dtype, "inout", N),
         tensor("count", dtype, "inout", c(1)), tensor("all", dtype, "inout", c(1))],
        [ROWS, COLUMNS],
        let("i_tile", load("i", I32, m, mask=op("lt", m, M))),
        let("x_tile", load("x", dtype, m, n, mask=INSIDE, fill=c(0.0 if dtype.is_float else 0, dtype))),
        add("y", x, place, n, axes=("m", "n"), mask=op("and", INSIDE, op("ge", place, c(0))), line=4),
        add("z", x, n, axes=("m", "n"), mask=INSIDE, line=5),
        add("count", c(1.0 if dtype.is_float else 1, dtype), c(0), axes=(), mask=None, line=6),
        let("total", reduce("sum", x, "m", "n"), 7),
        add("all", total, c(0), axes=(), mask=op("gt", N, c(3)), line=7),
        m=8, n=16,
    )  # fmt: skip


def added(dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Tensors for ``additions`` of 21 rows of 37, and what its results must be."""
    x = torch.randint(0 if dtype is torch.uint32 else -50, 50, (21, 37))
    i = torch.randint(-2, 21, (21,), dtype=torch.int32)
    y = torch.zeros(21, 37, dtype=torch.int64)
    for row in range(21):
        if i[row] >= 0:
            y[i[row]] += x[row]
    zeros = {"y": (21, 37), "z": (37,), "count": (1,), "all": (1,)}
    given = {"x": x.to(dtype), "i": i, **{name: torch.zeros(shape, dtype=dtype) for name, shape in zeros.items()}}
    return given, {"y": y, "z": x.sum(0), "count": torch.tensor([3 * 3]), "all": x.sum()[None]}


def two_views(first: str, second: str, mode: str = "set") -> ir.Kernel:
    """A store to one view of a tensor of bytes, then to another."""
    views = tuple(ir.View(name, I32, (M,), "bytes", c(start), (c(8),), "inout") for name, start in (("low", 0), ("high", 4)))
    stores = [ir.Store(name, (m,), m, ("m",), None, op("lt", m, M), mode, span=at(3)) for name in (first, second)]  # type: ignore[arg-type]
    made = kernel([tensor("bytes", U8, "inout", op("mul", M, c(8)))], [ROWS], *stores, dims="M", m=128)
    return dataclasses.replace(made, views=views)
