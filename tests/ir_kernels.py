"""Kernels of the IR built by hand, and short names to build more."""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.base.dtypes import BF16, E4M3, F32, I64, DType

M, N, G = (ir.Dim(I64, (), name) for name in "MNG")
ORDER = ("m", "n", "n.2")


def index(name: str, *, scalar: bool = False, dtype: DType = I64) -> ir.Index:
    return ir.Index(dtype, () if scalar else (name,), name)


def load(tensor: str, dtype: DType, *indices: ir.Expr, guard: ir.Expr | None = None) -> ir.Load:
    return ir.Load(dtype, ir.join(*(i.axes for i in indices), order=ORDER), tensor, indices, guard)


def store(tensor: str, value: ir.Expr, *indices: ir.Expr, guard: ir.Expr | None = None) -> ir.Store:
    axes = ir.join(*(i.axes for i in indices), value.axes, guard.axes if guard else (), order=ORDER)
    return ir.Store(tensor, indices, value, axes, guard)


def var(name: str, dtype: DType, *axes: str) -> ir.Var:
    return ir.Var(dtype, axes, name)


def unary(op: ir.UnaryOp, x: ir.Expr, dtype: DType | None = None) -> ir.Unary:
    return ir.Unary(dtype or x.dtype, x.axes, op, x)


def cast(dtype: DType, x: ir.Expr, mode: str = "convert") -> ir.Cast:
    return ir.Cast(dtype, x.axes, x, mode)  # type: ignore[arg-type]


def reduce(op: ir.ReduceOp, x: ir.Expr, *over: str, dtype: DType | None = None) -> ir.Reduce:
    return ir.Reduce(dtype or x.dtype, tuple(a for a in x.axes if a not in over), op, x, over)


def where(cond: ir.Expr, a: ir.Expr, b: ir.Expr) -> ir.Where:
    return ir.Where(a.dtype, ir.join(cond.axes, a.axes, b.axes, order=ORDER), cond, a, b)


def full(value: ir.Expr, *axes: str) -> ir.Full:
    return ir.Full(value.dtype, axes, value)


def tensor(name: str, dtype: DType, role: str, *shape: ir.Expr) -> ir.Tensor:
    return ir.Tensor(name, dtype, shape, role)  # type: ignore[arg-type]


def kernel(
    name: str,
    tensors: tuple[ir.Tensor, ...],
    grid: tuple[ir.GridIndex, ...],
    *body: ir.Stmt,
    dims: str = "MN",
    scalars: tuple[ir.ScalarParam, ...] = (),
) -> ir.Kernel:
    return ir.Kernel(name, tensors, scalars, tuple(dims), (), (), grid, body)


def rows() -> ir.GridIndex:
    return ir.GridIndex("m", M, True)


def scheduled(k: ir.Kernel, **lengths: int) -> ir.Kernel:
    """With a schedule; ``n_2`` stands for the axis n.2."""
    found = tuple((name.replace("_", "."), length) for name, length in lengths.items())
    return dataclasses.replace(k, schedule=dataclasses.replace(k.schedule, lengths=found, order=tuple(n for n, _ in found)))


def f32(value: float) -> ir.Const:
    return ir.const(value, F32)


def softmax() -> ir.Kernel:
    """Two passes over a row in tiles, with a carried maximum and total."""
    m, n, n2 = index("m"), index("n"), index("n.2")
    top, total, new = var("top", F32, "m"), var("total", F32, "m"), var("new", F32, "m")
    x = load("x", F32, m, n)
    first = ir.For(
        "n", "tile", ir.const(0), N,
        (
            ir.Assign("new", ir.binary("max", top, reduce("max", x, "n"))),
            ir.Assign("total", ir.binary(
                "add",
                ir.binary("mul", total, unary("exp", ir.binary("sub", top, new))),
                reduce("sum", unary("exp", ir.binary("sub", x, new)), "n"),
            )),
            ir.Assign("top", new),
        ),
        ("top", "total"),
    )  # fmt: skip
    value = ir.binary("div", unary("exp", ir.binary("sub", load("x", F32, m, n2), top)), total)
    second = ir.For("n.2", "tile", ir.const(0), N, (store("y", value, m, n2),))
    return kernel(
        "softmax", (tensor("x", F32, "in", M, N), tensor("y", F32, "out", M, N)), (rows(),),
        ir.Assign("top", full(f32(float(F32.min)), "m")), ir.Assign("total", full(f32(0.0), "m")), first, second,
    )  # fmt: skip


def act_quant(group: int = 128, ue8m0: bool = False) -> ir.Kernel:
    """One e4m3 scale for every ``group`` values of a row."""
    m, g, n = index("m"), index("g", scalar=True), index("n")
    inverse = f32(0.0022321429569274187)  # 1 / 448 in f32
    v, scale = var("v", F32, "m", "n"), var("scale", F32, "m")
    amount: ir.Expr = ir.binary("mul", ir.binary("max", reduce("absmax", v, "n"), f32(9.999999747378752e-05)), inverse)
    amount = unary("pow2_ceil", amount) if ue8m0 else amount
    quotient = ir.Binary(F32, ("m", "n"), "div", v, scale)
    code = ir.binary("min", ir.binary("max", quotient, f32(-448.0)), f32(448.0))
    groups = ir.binary("floordiv", N, ir.const(group))
    return kernel(
        "act_quant",
        (tensor("x", BF16, "in", M, N), tensor("y", E4M3, "out", M, N), tensor("s", F32, "out", M, groups)),
        (rows(), ir.GridIndex("g", groups, False)),
        ir.SpanAxis("n", ir.binary("mul", g, ir.const(group)), group),
        ir.Assign("v", cast(F32, load("x", BF16, m, n))),
        ir.Assign("scale", amount),
        store("y", cast(E4M3, code), m, n),
        store("s", scale, m, g),
    )  # fmt: skip


def guarded_row_max(without: str = "") -> ir.Kernel:
    """The maximum of each row as it is after the pass ``guard``, over machine tiles of 4 x 8. ``without`` leaves out what a machine needs:
    the ``fill`` of a reduction's operand, the mask of the ``load`` or of the ``store``, or ``half`` of the load's mask."""
    m, n = index("m"), index("n")
    rows_, columns = ir.binary("lt", m, M), ir.binary("lt", n, N)
    mask = {"load": None, "half": rows_}.get(without, ir.binary("and", rows_, columns))
    x: ir.Expr = ir.Load(F32, ("m", "n"), "x", (m, n), None, mask, None)
    x = x if without == "fill" else where(columns, x, f32(float("-inf")))
    top = var("top", F32, "m")
    return scheduled(
        kernel(
            "row_max", (tensor("x", F32, "in", M, N), tensor("y", F32, "out", M)), (rows(),),
            ir.Assign("top", full(f32(float("-inf")), "m")),
            ir.For("n", "tile", ir.const(0), N, (ir.Assign("top", ir.binary("max", top, reduce("max", x, "n"))),), ("top",)),
            ir.Store("y", (m,), top, ("m",), None, None if without == "store" else rows_),
        ),
        m=4, n=8,
    )  # fmt: skip
