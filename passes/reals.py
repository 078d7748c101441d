"""What floats a value can be, as far as `legalize` wants to know: its range, and whether it may be NaN or -0.

The ranges hold for machine arithmetic: every operation here is monotonic, and rounding is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from nsalang import ir
from nsalang.base.constants import round_to
from nsalang.base.dtypes import DType
from nsalang.ir import kinds
from nsalang.ir.intervals import Bounds
from nsalang.ir.operations import REDUCTIONS, UNARY
from nsalang.passes import fold, padding


@dataclass(frozen=True, slots=True)
class Real:
    """``lo <= x <= hi`` unless x is NaN, which it may be with ``nan``; ``minus_zero``: it may be -0."""

    lo: float = -math.inf
    hi: float = math.inf
    nan: bool = True
    minus_zero: bool = True

    def join(self, other: Real) -> Real:
        return Real(min(self.lo, other.lo), max(self.hi, other.hi), self.nan or other.nan, self.minus_zero or other.minus_zero)

    def within(self, lo: float, hi: float) -> bool:
        """Whether all but NaN lies between two numbers."""
        return lo <= self.lo and self.hi <= hi


ANY = Real()


class Reals:
    """Facts about expressions. ``given``: what is known of expressions by identity (results of expansions); ``variables``: of variables."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.variables: dict[str, Real] = {}
        self._given: dict[int, tuple[ir.Expr, Real]] = {}

    def give(self, node: ir.Expr, fact: Real) -> ir.Expr:
        """Say what is known of an expression whose text does not show it."""
        self._given[id(node)] = (node, fact)
        return node

    def of(self, node: ir.Expr) -> Real:
        """What is known of a float expression."""
        given = self._given.get(id(node))
        return given[1] if given is not None else self._find(node)

    def _find(self, node: ir.Expr) -> Real:
        match node:
            case ir.Const():
                value = float(node.value)
                if math.isnan(value):
                    return ANY
                return Real(value, value, False, value == 0 and math.copysign(1.0, value) < 0)
            case ir.Var():
                return self.variables.get(node.name, ANY)
            case ir.Full():
                return self.of(node.value)
            case ir.Spread():
                return self.of(node.x)
            case ir.Where():
                return self.of(node.a).join(self.of(node.b))
            case ir.Cast():
                return self._cast(node)
            case ir.Unary():
                return _unary(node.op, self.of(node.x)) if node.x.dtype.is_float else ANY
            case ir.Binary() if node.a.dtype.is_float:
                return self._binary(node)
            case ir.Reduce(op=op):
                x = self.of(node.x)
                row = REDUCTIONS[op]
                if not node.dtype.is_float:
                    return ANY
                found = row.kinds(kinds.within(x.lo, x.hi, x.nan, x.minus_zero))
                # What a backend gives before -0 is mended.
                return Real(*row.between(x.lo, x.hi), bool(found & kinds.NAN), x.minus_zero or bool(found & kinds.NZERO))
            case ir.Fma() | ir.Dot() | ir.Scan() | ir.Load() | ir.Scalar() | ir.Bitcast():
                return ANY  # of which nothing is known
            case ir.Binary() | ir.Dim() | ir.Index() | ir.Search() | ir.Border():
                return ANY  # no floats
            case _:
                assert_never(node)

    def _cast(self, node: ir.Cast) -> Real:
        def near(x: float, dtype: DType) -> float:
            return x if math.isinf(x) else round_to(Fraction(x), dtype)

        if not node.x.dtype.is_float:
            ends = self.bounds.of(node.x)
            return Real(near(float(ends.lo), node.dtype.working), near(float(ends.hi), node.dtype.working), False, False)
        x = self.of(node.x)
        lo, hi = near(x.lo, node.dtype), near(x.hi, node.dtype)
        # A small negative number may round to -0.
        return Real(lo, hi, x.nan, x.minus_zero or x.lo < 0 <= x.hi or (hi == 0 and x.hi < 0))

    def _binary(self, node: ir.Binary) -> Real:
        a, b = self.of(node.a), self.of(node.b)
        match node.op:
            case "max":
                lows = [max(a.lo, b.lo)] + [b.lo] * a.nan + [a.lo] * b.nan
                return Real(min(lows), max(a.hi, b.hi), a.nan and b.nan, a.minus_zero or b.minus_zero)
            case "min":
                highs = [min(a.hi, b.hi)] + [b.hi] * a.nan + [a.hi] * b.nan
                return Real(min(a.lo, b.lo), max(highs), a.nan and b.nan, a.minus_zero or b.minus_zero)
            case "add":
                opposite = (math.isinf(a.lo) and math.isinf(b.hi)) or (math.isinf(a.hi) and math.isinf(b.lo))
                return self._ends(node, a.nan or b.nan or opposite, a.minus_zero and b.minus_zero, (a.lo, b.lo), (a.hi, b.hi))
            case "mul":
                if node.a is node.b or node.a == node.b:
                    return Real(0.0, math.inf, a.nan, False)
                if a.lo >= 0 and b.lo >= 0 and not a.minus_zero and not b.minus_zero:
                    lost = (a.lo == 0 and math.isinf(b.hi)) or (b.lo == 0 and math.isinf(a.hi))
                    return self._ends(node, a.nan or b.nan or lost, False, (a.lo, b.lo), (a.hi, b.hi))
                return ANY
            case "div":
                if a.lo >= 0 and b.lo > 0 and not a.minus_zero:
                    lost = math.isinf(a.hi) and math.isinf(b.hi)
                    return self._ends(node, a.nan or b.nan or lost, False, (a.lo, b.hi), (a.hi, b.lo))
                return ANY
            case "sub":
                return ANY
            case "floordiv" | "mod" | "tdiv" | "tmod" | "and" | "or" | "xor" | "shl" | "shr" | "lt" | "le" | "gt" | "ge" | "eq" | "ne":
                return ANY  # no floats
            case _:
                assert_never(node.op)

    def _ends(self, node: ir.Binary, nan: bool, minus_zero: bool, low: tuple[float, float], high: tuple[float, float]) -> Real:
        """The range of a monotonic operation, from the operands that give its ends (undefined: unbounded)."""
        lo, hi = (fold.binary(node.op, *pair, node.dtype) for pair in (low, high))
        return Real(-math.inf if lo is None else float(lo), math.inf if hi is None else float(hi), nan, minus_zero)


def _unary(op: ir.UnaryOp, x: Real) -> Real:
    row = UNARY[op]
    if row.between is None:
        return ANY
    found = padding.unary(op, kinds.within(x.lo, x.hi, x.nan, x.minus_zero))
    return Real(*row.between(x.lo, x.hi), bool(found & kinds.NAN), bool(found & kinds.NZERO))
