"""What Triton makes of whole blocks by functions of its own: products, reductions, scans."""

from __future__ import annotations

from collections.abc import Sequence

from nsalang import ir
from nsalang.base.dtypes import F32
from nsalang.ir.machine import machine_axes, machine_shape
from nsalang.lowering.text import Text, call, infix
from nsalang.lowering.triton.dtypes import cast, dtype, typed
from nsalang.lowering.triton.expressions import expr
from nsalang.lowering.triton.shapes import long, shape, sizes
from nsalang.lowering.triton.state import Printer

REDUCTIONS: dict[ir.ReduceOp, str] = {"sum": "tl.sum", "max": "tl.max", "min": "tl.min"}
COMBINED: dict[ir.ReduceOp, str] = {"prod": "a * b"}
"""What Triton has no function for: how two lanes ``a`` and ``b`` become one."""


def dot(p: Printer, x: ir.Dot) -> Text:
    """A matrix product of blocks; with batch axes that are longer than 1, one for each of their lanes."""
    free = {i for i in (*x.a.axes, *x.b.axes) if (i in x.a.axes) != (i in x.b.axes)}
    assert x.left is not None and set(x.left) in (free & {*x.a.axes}, free & {*x.b.axes}), "a contraction whose rows are not settled"
    first, second = (x.a, x.b) if set(x.left) <= {*x.a.axes} else (x.b, x.a)
    rows, columns, over = long(p, x.left), long(p, free - {*x.left}), long(p, (x.over,))
    shared = long(p, (i for i in x.a.axes if i in x.b.axes and i != x.over))
    batch = (shared,) if shared else ()
    result = (*batch, rows, columns)
    operands = [matrix(p, first, (*batch, rows, over)), matrix(p, second, (*batch, over, columns))]
    named: dict[str, str] = {}
    if x.a.dtype is F32:
        named["input_precision"] = '"tf32"' if x.precision == "tf32" and p.target.facts.tf32 else '"ieee"'
    if x.promote:
        named["max_num_imprecise_acc"] = str(min(x.promote, p.kernel.schedule.length(x.over)))
    # The sum of one block's products of bytes fits in 32 bits; in what has 64, it is added afterwards.
    wide = x.dtype.bits == 64
    if x.acc is not None and not wide:
        operands.append(matrix(p, x.acc, result))
        if not x.dtype.is_float:
            named["out_dtype"] = dtype(p, x.dtype)
    out = call("tl.dot", *operands, **named)
    if wide:
        out = cast(p, out, x.dtype)
    shape = machine_shape(p.kernel, x.axes)
    if sizes(p, result) != shape:
        assert tuple(i for group in result for i in group) == long(p, x.axes), "a contraction that does not lie in the order of its axes"
        out = call("tl.reshape", out, str(shape))
    return infix("+", expr(p, x.acc), out) if x.acc is not None and wide else out


def matrix(p: Printer, x: ir.Expr, groups: Sequence[tuple[str, ...]]) -> Text:
    """``x`` as a block with one dimension for each of ``groups``, in their order."""
    out = expr(p, x)
    axes = long(p, x.axes)
    lying = sorted(groups, key=lambda group: axes.index(group[0]) if group else -1)
    assert tuple(i for group in lying for i in group) == axes, "an operand whose axes are mixed"
    shape = sizes(p, lying)
    if shape != machine_shape(p.kernel, x.axes):
        out = call("tl.reshape", out, str(shape))
    order = [str(lying.index(group)) for group in groups]
    if order != sorted(order):
        out = call("tl.trans", out, *order[: len(order) if len(order) > 2 else 0])
    return out


def reduce(p: Printer, x: ir.Reduce) -> Text:
    axes = machine_axes(p.kernel, x.x.axes)
    assert set(x.over) <= set(axes), "a reduction over an axis that its operand lacks"
    out = expr(p, x.x)
    combined = p.combines(x.op) if x.op in COMBINED else None

    def reduced(axis: str | None) -> Text:
        if combined is not None:
            return call("tl.reduce", out, str(axis), combined)
        return call(REDUCTIONS[x.op], out) if axis is None else call(REDUCTIONS[x.op], out, axis=axis)

    if len(x.over) == len(axes) > 1:
        out = reduced(None)
    else:
        for position in sorted((axes.index(a) for a in x.over), reverse=True):
            out = reduced(str(position))
    # Triton reduces narrow types in wider ones, and gives those.
    if x.x.dtype.bits < 32:
        out = cast(p, out, x.dtype)
    return out


def scan(p: Printer, x: ir.Scan) -> Text:
    axes = machine_axes(p.kernel, x.axes)
    at = axes.index(x.over)
    named = {"axis": str(at)} | ({"reverse": "True"} if x.reverse else {})
    operand = expr(p, x.x) if machine_axes(p.kernel, x.x.axes) == axes else call("tl.broadcast_to", expr(p, x.x, axes), shape(p, axes))
    total = call("tl.cumsum", operand, **named)
    if x.x.dtype.bits < 32:
        total = cast(p, total, x.dtype)
    if not x.exclusive:
        return total
    if not x.dtype.is_float:
        return infix("-", total, operand)
    # The sum of the lanes before: the neighbour's, for a difference would round again and make NaN of infinities.
    length = p.kernel.schedule.length(x.over)
    sums = p.names.pick("sums")
    lane = p.names.pick("lane")
    p.out.line(f"{sums} = {total}", x.span)
    p.out.line(f"{lane} = {call('tl.arange', '0', str(length))}", x.span)
    edge = length - 1 if x.reverse else 0
    near = f"tl.minimum({lane} + 1, {edge})" if x.reverse else f"tl.maximum({lane} - 1, 0)"
    spread = "" if len(axes) == 1 else f"[{', '.join(':' if a == x.over else 'None' for a in axes)}]"
    where = f"{near}{spread}" if len(axes) == 1 else f"tl.broadcast_to({near}{spread}, {shape(p, axes)})"
    return call("tl.where", f"{lane}{spread} == {edge}", typed(p, ir.Const(x.dtype, (), 0.0)), call("tl.gather", sums, where, axis=str(at)))
