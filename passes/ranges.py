"""Ask whether an index lies in a range by one comparison of unsigned numbers instead of two of signed ones: as one, a negative index is larger than any.

It comes after `width`: both sides must be of one length, and what is below the range must stay below it. Ranges begin at 0, and their ends are
known not to be negative: dimensions are, data are not. A gather asks this of each of its rows, for as many loads as a thread makes of it.
TileLang unrolls loops over lanes, and TVM cannot fold the unsigned form of a negative number: there a range stays two comparisons where that may
come about, and a conversion to an unsigned dtype is of the low bits.
Leaves ``0 <= x & x < n`` as ``u32(x) < u32(n)`` wherever both stand in one conjunction, the rest of which keeps its order.
"""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.base.dtypes import I32, I64, U8, U16, U32, DType
from nsalang.base.target import Target
from nsalang.ir.intervals import Bounds, conjuncts
from nsalang.passes.hoist import same
from nsalang.passes.simplify import expression
from nsalang.passes.unrolled import Unrolled


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    bounds = Bounds(kernel)
    unrolled = Unrolled.of(kernel, bounds) if kernel.schedule.backend == "tilelang" else None

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Binary(op="and"):
                return _conjunction(node, bounds, unrolled)
            case ir.Cast() if unrolled and _is_unsigned(node.dtype) and _is_signed(node.x.dtype) and unrolled.may_fold_below_zero(node.x):
                wide = I64 if node.dtype.bits > 16 else I32
                inside = node.x if node.x.dtype is wide else ir.Cast(wide, node.axes, node.x, "wrap", span=node.span)
                return dataclasses.replace(
                    node, x=ir.Binary(wide, node.axes, "and", inside, ir.const(2**node.dtype.bits - 1, wide), span=node.span)
                )
            case _:
                return node

    body = tuple(ir.rewrite(s, rule) for s in kernel.body)
    return kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body)


def _is_unsigned(dtype: DType) -> bool:
    return dtype in (U8, U16, U32)


def _is_signed(dtype: DType) -> bool:
    return dtype.is_integer and not _is_unsigned(dtype)


def _conjunction(node: ir.Binary, bounds: Bounds, unrolled: Unrolled | None) -> ir.Expr:
    parts = list(conjuncts(node))
    found = [
        (a, b)
        for a in parts
        for b in parts
        if _is_range(a, b, bounds) and not (unrolled and isinstance(b, ir.Binary) and unrolled.may_fold_below_zero(b.a))
    ]
    if not found:
        return node
    for begin, end in found:
        assert isinstance(end, ir.Binary)
        if begin in parts and end in parts:
            parts[parts.index(begin)] = ir.binary(end.op, _bits(end.a), _bits(end.b), order=node.axes, span=begin.span)
            parts.remove(end)
    made: ir.Expr | None = None
    for part in parts:
        made = ir.both(made, part, node.axes)
    assert made is not None
    return made


def _bits(x: ir.Expr) -> ir.Expr:
    return expression(ir.Cast(U32, x.axes, x, "wrap", span=x.span))


def _is_range(begin: ir.Expr, end: ir.Expr, bounds: Bounds) -> bool:
    """Whether the two are ``0 <= x`` and ``x < n``, or ``x <= n``."""
    return (
        isinstance(begin, ir.Binary)
        and isinstance(end, ir.Binary)
        and begin.op == "le"
        and end.op in ("lt", "le")
        and begin.a == ir.const(0, I32)
        and begin.b == end.a
        and bounds.of(end.b).lo >= 0
    )
