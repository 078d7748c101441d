"""What values can be in lanes that do not exist: a constant where one is known, else of which kinds of float.

`guard` asks it which reductions ignore such lanes by themselves. The kinds say more than constants do: `exp(x - top)` is 0 where `x` is -inf and
`top` is anything but NaN and -inf. A product is 0 only where both factors are known: 0 * inf and 0 * NaN are NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import DType
from nsalang.ir.kinds import (
    ALL,
    EXACT,
    INF,
    MEMBERS,
    NAN,
    NEG,
    NEGATIVE,
    NINF,
    NZERO,
    PINF,
    POS,
    PZERO,
    ZERO,
    kind_of,
    opposite,
)  # fmt: skip
from nsalang.ir.operations import FLOATS, REDUCTIONS, UNARY

Number = int | float | bool


@dataclass(frozen=True, slots=True)
class Held:
    """What some lanes hold: ``value`` in all of them, where that is known; ``kinds``: what a float among them can be."""

    value: Number | None = None
    kinds: int = ALL

    def join(self, other: Held) -> Held:
        same = repr(self.value) == repr(other.value)
        return Held(self.value if same else None, self.kinds | other.kinds)


TOP = Held()


def constant(value: Number) -> Held:
    if not isinstance(value, float):
        return Held(value)
    return Held(None if math.isnan(value) else value, kind_of(value))


def of_kinds(kinds: int) -> Held:
    return Held(EXACT.get(kinds), kinds)


def unary(op: ir.UnaryOp, kinds: int) -> int:
    table = UNARY[op].kinds
    if table is None:
        return ALL
    found = 0
    for k in MEMBERS:
        found |= table[k] if kinds & k else 0
    return found


def binary(op: ir.BinaryOp, a: int, b: int) -> int:
    match op:
        case "sub":
            return binary("add", a, opposite(b))
        case "add" | "mul" | "div" | "min" | "max":
            found = 0
            for x in MEMBERS:
                for y in MEMBERS:
                    if a & x and b & y:
                        found |= _pair(op, x, y)
            return found
        case "floordiv" | "mod" | "tdiv" | "tmod" | "and" | "or" | "xor" | "shl" | "shr" | "lt" | "le" | "gt" | "ge" | "eq" | "ne":
            return ALL  # of no floats
        case _:
            assert_never(op)


def _pair(op: str, x: int, y: int) -> int:
    """The kinds of ``x op y`` for one kind each."""
    if op in ("min", "max"):
        if NAN in (x, y):
            return y if x == NAN else x
        return max(x, y) if op == "max" else min(x, y)
    if NAN in (x, y):
        return NAN
    if op == "add":
        if x & INF or y & INF:
            return NAN if x & INF and y & INF and x != y else x if x & INF else y
        if x & ZERO or y & ZERO:
            return (x if x == y else PZERO) if x & ZERO and y & ZERO else y if x & ZERO else x
        return (NEG | NINF if x == NEG else POS | PINF) if x == y else NEG | PZERO | POS
    if op == "div":
        if (x & INF and y & INF) or (x & ZERO and y & ZERO):
            return NAN
        big, small = bool(x & INF or y & ZERO), bool(x & ZERO or y & INF)
    else:
        if (x & INF and y & ZERO) or (x & ZERO and y & INF):
            return NAN
        big, small = bool((x | y) & INF), bool((x | y) & ZERO)
    plus = PINF if big else PZERO if small else PZERO | POS | PINF
    return plus if bool(x & NEGATIVE) == bool(y & NEGATIVE) else opposite(plus)


def cast(kinds: int, source: DType, dtype: DType) -> int:
    """The kinds after a conversion to ``dtype``."""
    if dtype not in FLOATS:  # of which each has both infinities: a result that is too large becomes one
        return ALL
    if not source.is_float:
        whole = dtype.working is dtype  # which no integer leaves
        return PZERO | POS if source.kind in ("unsigned", "bool") and whole else NEG | PZERO | POS | (0 if whole else INF)
    if dtype is source or (dtype.working is dtype and source.mantissa <= dtype.mantissa):
        return kinds
    return kinds | (NZERO | NINF if kinds & NEG else 0) | (PZERO | PINF if kinds & POS else 0)


def reduced(op: ir.ReduceOp, kinds: int) -> int:
    """The kinds of a reduction over any number of such values, none included."""
    return REDUCTIONS[op].kinds(kinds)
