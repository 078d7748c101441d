"""Ask whether an index lies in a range by one comparison of unsigned numbers instead of two of signed ones: as one, a negative index is larger than any.

It comes after `width`: both sides must be of one length, and what is below the range must stay below it. Ranges begin at 0, and their ends are
known not to be negative: dimensions are, data are not. A gather asks this of each of its rows, for as many loads as a thread makes of it.
Leaves ``0 <= x & x < n`` as ``u32(x) < u32(n)`` wherever both stand in one conjunction, the rest of which keeps its order.
"""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.base.dtypes import I32, U32
from nsalang.base.target import Target
from nsalang.ir.intervals import Bounds, conjuncts
from nsalang.passes.hoist import same
from nsalang.passes.simplify import expression


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    bounds = Bounds(kernel)
    body = tuple(ir.rewrite(s, lambda n: _conjunction(n, bounds) if isinstance(n, ir.Binary) and n.op == "and" else n) for s in kernel.body)
    return kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body)


def _conjunction(node: ir.Binary, bounds: Bounds) -> ir.Expr:
    parts = list(conjuncts(node))
    found = [(a, b) for a in parts for b in parts if _is_range(a, b, bounds)]
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
