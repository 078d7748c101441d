"""Turns of loops: whether two of them may write one element.

Where a store writes one element in two turns of the loops around it, different threads may do so, and the turns need an order.
An element that is known tells the loops' indices one after the other: `y[i, n]` tells i and n, `y[8 * i + r]` tells both where r is below 8, `y[i + n]`
tells neither. What is assigned in a loop, and what is read, may be anything in another turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from nsalang import ir
from nsalang.ir.intervals import FULL
from nsalang.ir.linear import Facts


class Turns:
    """What is known of the integers of one kernel, after all passes."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel = kernel

    @cached_property
    def facts(self) -> Facts:
        return Facts(self.kernel)  # in most kernels no loop stores anything

    @cached_property
    def axes(self) -> dict[str, ir.AxisInfo]:
        return ir.axes_of(self.kernel)

    def may_repeat(self, store: ir.Store, loops: Sequence[str]) -> bool:
        """Whether two turns of ``loops``, the sequential indices around ``store``, may write one element. The prover says that one turn does not."""
        if not loops:
            return False
        sums = [_terms(self.facts.resolved(i)) for i in store.indices]
        moving = {*loops, *store.axes}
        while told := {name for terms in sums for name in moving if self._is_told(name, terms, moving)}:
            moving -= told
        return not moving.isdisjoint(loops)

    def _is_told(self, name: str, terms: Sequence[tuple[int, ir.Expr]], moving: set[str]) -> bool:
        """Whether a sum has one value for one value of an index alone, what does not move being given."""
        factor, others = 0, 0
        for c, x in terms:
            if isinstance(x, ir.Index) and x.name == name:
                factor += c
            elif _moves(x, moving):
                others += abs(c) * self._width(x)
        return abs(factor) > others

    def _width(self, x: ir.Expr) -> int:
        """By how much two values of an integer differ at most."""
        axis = self.axes.get(x.name) if isinstance(x, ir.Index) else None
        if axis is not None and axis.length is not None and isinstance(axis.start, ir.Const):
            return axis.length - 1  # lanes that a tile pads write nothing
        found = FULL if any(isinstance(n, ir.Var | ir.Load) for n in ir.walk(x)) else self.facts.bounds.of(x)
        return found.hi - found.lo


def _moves(x: ir.Expr, moving: set[str]) -> bool:
    return any(isinstance(n, ir.Var | ir.Load) or (isinstance(n, ir.Index) and n.name in moving) for n in ir.walk(x))


def _terms(x: ir.Expr, factor: int = 1) -> list[tuple[int, ir.Expr]]:
    """A sum of products with constants, without the constants alone."""
    match x:
        case ir.Const():
            return []
        case ir.Binary(op="add" | "sub" as op) if x.dtype.kind == "signed":
            return [*_terms(x.a, factor), *_terms(x.b, factor if op == "add" else -factor)]
        case ir.Binary(op="mul", a=ir.Const(value=int(c)), b=y) | ir.Binary(op="mul", a=y, b=ir.Const(value=int(c))) if (
            x.dtype.kind == "signed"
        ):
            return _terms(y, factor * c)
        case ir.Unary(op="neg") if x.dtype.kind == "signed":
            return _terms(x.x, -factor)
        case ir.Cast(x=y) if x.mode != "wrap" and x.dtype.kind == y.dtype.kind == "signed":
            return _terms(y, factor)
    return [(factor, x)]
