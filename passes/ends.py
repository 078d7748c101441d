"""The ends of axes, as `guard` needs them: masks repeat them wherever lanes are used, so they become what means the same in the whole body."""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.ir.linear import Facts
from nsalang.passes.hoist import Names, same
from nsalang.passes.simplify import expression


def name_bounds(kernel: ir.Kernel) -> tuple[ir.Stmt, ...]:
    """The body with every bound of a tile and a span a constant, a dimension, or a variable that never changes."""
    return _named(kernel.body, Names(kernel), assigned_often(kernel))


def assigned_often(kernel: ir.Kernel) -> set[str]:
    """Variables with more than one assignment, whose value depends on when one looks."""
    seen: set[str] = set()
    often: set[str] = set()
    for node in ir.walk(kernel):
        if isinstance(node, ir.Assign):
            (often if node.name in seen else seen).add(node.name)
    return often


def _named(body: tuple[ir.Stmt, ...], names: Names, often: set[str]) -> tuple[ir.Stmt, ...]:
    """Masks repeat the ends of axes wherever lanes are used, so these become constants, dimensions, or variables that never change."""
    made: list[ir.Stmt] = []

    def hold(value: ir.Expr, base: str) -> ir.Expr:
        if all(
            isinstance(n, ir.Const | ir.Dim | ir.Scalar | ir.Index | ir.Binary) or (isinstance(n, ir.Var) and n.name not in often)
            for n in ir.walk(value)
        ):
            return value
        name = names.fresh(base)
        made.append(ir.Assign(name, value, span=value.span))
        return ir.Var(value.dtype, value.axes, name, span=value.span)

    for node in body:
        match node:
            case ir.For():
                lo, hi = node.lo, node.hi
                if node.kind == "tile":
                    base = ir.plain(node.index)
                    lo, hi = hold(lo, f"{base}_start"), hold(hi, f"{base}_stop")
                inner = _named(node.body, names, often)
                if lo is not node.lo or hi is not node.hi or not same(inner, node.body):
                    node = dataclasses.replace(node, lo=lo, hi=hi, body=inner)
            case ir.If():
                inner, other = _named(node.body, names, often), _named(node.orelse, names, often)
                if not (same(inner, node.body) and same(other, node.orelse)):
                    node = dataclasses.replace(node, body=inner, orelse=other)
            case ir.SpanAxis():
                base = ir.plain(node.axis)
                start = hold(node.start, f"{base}_start")
                stop = None if node.stop is None else hold(node.stop, f"{base}_stop")
                if start is not node.start or stop is not node.stop:
                    node = dataclasses.replace(node, start=start, stop=stop)
            case _:
                pass
        made.append(node)
    return tuple(made)


def tail(facts: Facts, axis: ir.AxisInfo, length: int) -> ir.Expr | None:
    """The condition under which a lane of an axis exists, or None where all lanes do."""
    index = ir.Index(axis.start.dtype, (axis.name,), axis.name)
    if axis.kind != "span":
        extent = facts.poly(axis.stop) - facts.poly(axis.start)
        return None if extent.content % length == 0 else ir.binary("lt", index, axis.stop)
    end = axis.stop
    if isinstance(end, ir.Binary) and end.op == "min" and length == axis.length:
        end = end.b
    elif length == axis.length:
        return None
    return ir.binary("lt", index, expression(end))
