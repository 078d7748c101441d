"""Between which ends an integer lies: as numbers, and as expressions of dimensions and scalars alone, which a launch knows.

Ends are those of mathematical integers, not cut to 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType
from nsalang.ir.integers import binary as computed
from nsalang.ir.intervals import LEAST, LONGEST_TILE, MOST
from nsalang.proof.forms import tidy
from nsalang.proof.lemmas import DIMS, index, values, wide

Sides = tuple[ir.Expr, ir.Expr]
"""The least and the greatest value, as expressions of dimensions and scalars."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """The facts about one index variable: ``start <= index < stop``, and below ``extra`` too. ``whole``: a reduction over it sees all of it,
    not just the block of a tile."""

    name: str
    start: ir.Expr
    stop: ir.Expr
    extra: ir.Expr | None = None
    whole: bool = False

    def facts(self, at: ir.Expr | None = None) -> tuple[ir.Expr, ...]:
        here = at or index(self.name)
        made = (ir.binary("le", self.start, here), ir.binary("lt", here, self.stop))
        return made if self.extra is None else (*made, ir.binary("lt", here, self.extra))


def folded(op: ir.BinaryOp, a: ir.Expr, b: ir.Expr) -> ir.Expr:
    """An operation on sides; numbers are computed, however large, and what does nothing is left out."""
    if isinstance(a, ir.Const) and isinstance(b, ir.Const):
        found = computed(op, int(a.value), int(b.value), 64)
        assert found is not None, op
        return ir.const(found)
    one, zero = ir.const(1), ir.const(0)
    if op == "mul" and zero in (a, b):
        return zero
    if (op == "mul" and b == one) or (op in ("add", "sub") and b == zero) or (op in ("min", "max") and a == b):
        return a
    if (op == "mul" and a == one) or (op == "add" and a == zero):
        return b
    return ir.binary(op, a, b)


def ceiling(sides: Iterable[ir.Expr]) -> ir.Expr:
    return reduce(lambda a, b: folded("max", a, b), sides)


def floor(sides: Iterable[ir.Expr]) -> ir.Expr:
    return reduce(lambda a, b: folded("min", a, b), sides)


@dataclass(slots=True)
class Ends:
    """``ranges``: of the index variables. ``limits``: the ends of unknowns as numbers; ``sides``: as expressions."""

    kernel: ir.Kernel
    ranges: dict[str, Ranges] = field(default_factory=dict, kw_only=True)
    limits: dict[str, tuple[int, int]] = field(default_factory=dict, kw_only=True)
    sides: dict[str, Sides] = field(default_factory=dict, kw_only=True)

    def ends(self, e: ir.Expr) -> tuple[int, int]:
        """The least and the greatest value that an integer can have, not cut to 64 bits, by the ends of its parts."""
        match e:
            case ir.Const():
                return int(e.value), int(e.value)
            case ir.Dim():
                return 0, DIMS - 1
            case ir.Scalar():
                dtype = next((s.dtype for s in self.kernel.scalars if s.name == e.name), e.dtype)
                return (0, DIMS - 1) if e.name in self.kernel.dims else (int(dtype.min), int(dtype.max))
            case ir.Index() if e.name in self.ranges:
                r = self.ranges[e.name]
                low, high = self.ends(r.start)[0], self.ends(r.stop)[1] - 1
                return low, max(low, high)
            case ir.Load() if e.tensor in self.limits:
                return self.within(self.limits[e.tensor], e.dtype)
            case ir.Load() if e.dtype.kind == "signed" and any(t.name == e.tensor for t in self.kernel.arrays):
                return self.within(self.numbers(self._promised(e)), e.dtype)
            case ir.Load() if e.tensor.startswith(("count of ", "total of ", "search ", "rank of ")):
                return 0, DIMS
            case ir.Cast() if e.x.dtype is BOOL:
                return 0, 1
            case ir.Cast() if e.mode == "convert" and e.x.dtype.is_integer and e.dtype.kind == "signed":
                return self.within(self.ends(e.x), e.dtype)
            case ir.Where() | ir.Binary(op="min" | "max"):
                a, b = self.ends(e.a), self.ends(e.b)
                if isinstance(e, ir.Where):
                    return min(a[0], b[0]), max(a[1], b[1])
                pick = min if e.op == "min" else max
                return pick(a[0], b[0]), pick(a[1], b[1])
            case ir.Full():
                return self.ends(e.value)
            case ir.Unary(op="neg") if e.dtype.kind == "signed":
                low, high = self.within(self.ends(e.x), e.dtype)
                return -high, -low
            case ir.Unary(op="abs") if e.dtype.kind == "signed":
                low, high = self.within(self.ends(e.x), e.dtype)
                return 0, max(abs(low), abs(high))
            case ir.Binary() if e.dtype.kind == "signed":
                return self._computed(e)
        dtype = e.dtype
        return (int(dtype.min), int(dtype.max)) if dtype.is_integer else (LEAST, MOST)

    def _computed(self, e: ir.Binary) -> tuple[int, int]:
        a, b = self.within(self.ends(e.a), e.dtype), self.within(self.ends(e.b), e.dtype)
        match e.op:
            case "add":
                return a[0] + b[0], a[1] + b[1]
            case "sub":
                return a[0] - b[1], a[1] - b[0]
            case "mul":
                corners = [x * y for x in a for y in b]
            case "shl":
                corners = [x << y for x in a for y in (max(0, min(b[0], 63)), max(0, min(b[1], 63)))]
            case "floordiv":
                divisors = {y for y in (*b, -1, 1) if y and b[0] <= y <= b[1]}
                corners = [x // y for x in a for y in divisors] or [0]
            case "mod" if b[0] > 0:
                return 0, b[1] - 1
            case _:
                return int(e.dtype.min), int(e.dtype.max)
        return min(corners), max(corners)

    def within(self, ends: tuple[int, int], dtype: DType) -> tuple[int, int]:
        # What leaves its range here is an obligation of the part, or of the conversion.
        return max(ends[0], int(dtype.min)), min(max(ends[1], ends[0]), int(dtype.max))

    # ------------------------------------------------------------------------------------------------------------------- sides

    def outer(self, e: ir.Expr) -> Sides:
        """Expressions of dimensions and scalars between which an integer of symbols lies, wherever its index variables have their ranges."""
        match e:
            case ir.Const() | ir.Dim():
                return e, e
            case ir.Scalar() if e.dtype.kind == "signed":
                return wide(e), wide(e)
            case ir.Index() if e.name in self.ranges:
                r = self.ranges[e.name]
                return self.outer(r.start)[0], folded("sub", self.outer(r.stop)[1], ir.const(1))
            case ir.Load() if e.tensor in self.sides:
                return self.sides[e.tensor]
            case ir.Load() if any(t.name == e.tensor for t in self.kernel.arrays):
                return self._promised(e)
            case ir.Cast() if e.mode == "convert" and e.x.dtype.is_integer and e.dtype.kind == "signed":
                return self.outer(e.x)
            case ir.Full():
                return self.outer(e.value)
            case ir.Where():
                (low, high), (least, most) = self.outer(e.a), self.outer(e.b)
                return floor((low, least)), ceiling((high, most))
            case ir.Unary(op="neg") if e.dtype.kind == "signed":
                low, high = self.outer(e.x)
                return folded("sub", ir.const(0), high), folded("sub", ir.const(0), low)
            case ir.Unary(op="abs") if e.dtype.kind == "signed":
                low, high = self.outer(e.x)
                return ir.const(0), ceiling((high, folded("sub", ir.const(0), low)))
            case ir.Binary(op="min" | "max" | "add" as op) if e.dtype.kind == "signed":
                (low, high), (least, most) = self.outer(e.a), self.outer(e.b)
                return folded(op, low, least), folded(op, high, most)
            case ir.Binary(op="sub") if e.dtype.kind == "signed":
                (low, high), (least, most) = self.outer(e.a), self.outer(e.b)
                return folded("sub", low, most), folded("sub", high, least)
            case ir.Binary(op="mul") if e.dtype.kind == "signed":
                return self._product(self.outer(e.a), self.outer(e.b))
            case ir.Binary(op="floordiv", b=ir.Const(value=int(by))) if by > 0 and e.dtype.kind == "signed":
                low, high = self.outer(e.a)
                return folded("floordiv", low, e.b), folded("floordiv", high, e.b)
            case ir.Binary(op="mod") if e.dtype.kind == "signed" and self.ends(e.b)[0] > 0:
                return ir.const(0), folded("sub", self.outer(e.b)[1], ir.const(1))
        least_number, greatest = self.ends(e)
        return ir.const(least_number), ir.const(greatest)

    def _promised(self, e: ir.Load) -> Sides:
        """An element lies where promises of dimensions and scalars say, or within its dtype."""
        low, high = ir.const(int(e.dtype.min)), ir.const(int(e.dtype.max))
        for least, above in values(self.kernel, e.tensor):
            if not any(isinstance(n, ir.Index) for side in (least, above) for n in ir.walk(side)):
                return ceiling((low, tidy(least))), floor((high, folded("sub", tidy(above), ir.const(1))))
        return low, high

    def least(self, side: ir.Expr) -> int | None:
        """A number that a side never falls below; None: no such number is seen."""
        match side:
            case ir.Const():
                return int(side.value)
            case ir.Dim():
                return 0
            case ir.Cast(x=ir.Scalar()) | ir.Scalar():
                return self.ends(side)[0]
            case ir.Binary(op="add" | "min" | "max" | "mul" as op):
                a, b = self.least(side.a), self.least(side.b)
                if op == "max":
                    return max(x for x in (a, b) if x is not None) if (a, b) != (None, None) else None
                if a is None or b is None or (op == "mul" and min(a, b) < 0):
                    return None
                return {"add": a + b, "min": min(a, b), "mul": a * b}[op]
            case ir.Binary(op="sub", b=ir.Const(value=int(by))):
                a = self.least(side.a)
                return None if a is None else a - by
            case ir.Binary(op="floordiv", b=ir.Const(value=int(by))) if by > 0:
                a = self.least(side.a)
                return None if a is None else a // by
        return None

    def positive(self, side: ir.Expr) -> ir.Expr:
        """``max(side, 0)``."""
        low = self.least(side)
        return side if low is not None and low >= 0 else folded("max", side, ir.const(0))

    def _product(self, a: Sides, b: Sides) -> Sides:
        corners = [folded("mul", x, y) for x in a for y in b]
        low = [self.least(x) for x in (a[0], b[0])]
        if all(x is not None and x >= 0 for x in low):
            return corners[0], corners[3]
        return floor(corners), ceiling(corners)

    def lanes(self, axes: Iterable[str]) -> ir.Expr:
        """How many lanes of some axes a reduction adds up at most; of a tile's axis a block has no more than the longest tile."""
        found: ir.Expr = ir.const(1)
        for r in (self.ranges[a] for a in axes):
            length = tidy(ir.binary("sub", r.stop, r.start))
            if not isinstance(length, ir.Const):
                length = folded("sub", self.outer(r.stop)[1], self.outer(r.start)[0])
            if r.extra is not None:
                length = folded("min", length, folded("sub", self.outer(r.extra)[1], self.outer(r.start)[0]))
            length = self.positive(length)
            if not r.whole:
                length = folded("min", length, ir.const(LONGEST_TILE))
            found = folded("mul", found, length)
        return found

    def added_up(self, x: ir.Expr, over: Iterable[str]) -> Sides:
        """Between what the sum of ``x`` (over symbols) along some axes lies, and so does each of its prefixes."""
        return self.times(self.outer(x), self.lanes(over))

    def times(self, each: Sides, lanes: ir.Expr) -> Sides:
        low = folded("sub", ir.const(0), self.positive(folded("sub", ir.const(0), each[0])))
        return folded("mul", low, lanes), folded("mul", self.positive(each[1]), lanes)

    def numbers(self, sides: Sides) -> tuple[int, int]:
        """Sides of sums as numbers: a side of dimensions is no further from 0 than with the largest ones."""
        return self._extreme(sides[0])[0], self._extreme(sides[1])[1]

    def _extreme(self, side: ir.Expr) -> tuple[int, int]:
        """Between what a side lies, exactly: its parts are no obligations, so that nothing is cut."""
        match side:
            case ir.Binary(op="add" | "sub" | "mul" | "min" | "max" | "floordiv" as op):
                a, b = self._extreme(side.a), self._extreme(side.b)
                if op == "floordiv" and not b[0] > 0:
                    return min(a[0], -a[1]), max(a[1], -a[0])
                corners = [computed(op, x, y, 64) or 0 for x in a for y in b]
                return min(corners), max(corners)
        return self.ends(side)

    def products(self, n: ir.Dot) -> Sides:
        """Between what a contraction of integers lies."""
        return self.times(self.term(n), self.lanes((n.over,)))

    def term(self, n: ir.Dot) -> Sides:
        """Between what one term of a contraction lies: a product of two of i8."""
        a, b = n.a.dtype, n.b.dtype
        terms = [int(x) * int(y) for x in (a.min, a.max) for y in (b.min, b.max)]
        return ir.const(min(terms)), ir.const(max(terms))
