"""Interval arithmetic over integer expressions: which values an index, a dimension, a variable or a product of them can have.

Intervals hold for lanes that exist, for the padded ones of the schedule's lengths, and for those at which a guard lets nobody look. A value that
would leave i64 is an error of the program (language.md, integers) only where somebody looks; elsewhere machines wrap, so such a result may be
anything. Variables are joined over all their assignments, whatever the order of execution.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from math import prod
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType
from nsalang.ir.growth import grown
from nsalang.ir.operations import REDUCTIONS, UNARY
from nsalang.ir.operators import BINARY

LEAST, MOST = -(2**63), 2**63 - 1
NARROW_DIM = 2**31 - 1 - 2**17
"""The largest dimension where the schedule is not wide: an index of at most one tile beyond it fits i32."""
LONGEST_TILE = 65536
"""The longest tile that a schedule may choose; what a tile's index can exceed its range by while lengths are not chosen."""
ROUNDS = 4
"""How often variables are joined before those that still grow are given up."""


def padding(s: ir.SpanAxis | ir.For) -> int:
    """How far past the end of an axis the lanes reach that a machine pads it with, at most."""
    if isinstance(s, ir.For):
        return LONGEST_TILE if s.kind == "tile" else 0
    return max(LONGEST_TILE, (1 << s.length.bit_length()) - s.length)


@dataclass(frozen=True, slots=True)
class Interval:
    """``lo <= value <= hi``, within i64."""

    lo: int
    hi: int

    def within(self, dtype: DType) -> bool:
        """Whether every value fits an integer dtype."""
        return dtype.min <= self.lo and self.hi <= dtype.max

    def join(self, other: Interval) -> Interval:
        return Interval(min(self.lo, other.lo), max(self.hi, other.hi))

    def __contains__(self, value: int) -> bool:
        return self.lo <= value <= self.hi


FULL = Interval(LEAST, MOST)


def cut(lo: int, hi: int) -> Interval:
    """An interval within i64; an empty one becomes its lower end alone (nothing runs there)."""
    lo = min(max(lo, LEAST), MOST)
    return Interval(lo, min(max(hi, lo), MOST))


def computed(lo: int, hi: int) -> Interval:
    """What a machine of 64 bits makes of exact results between these ends: anything, if some do not fit."""
    return Interval(lo, hi) if lo >= LEAST and hi <= MOST else FULL


def of_dtype(dtype: DType) -> Interval:
    """Every value that an integer dtype (or bool, as 0 and 1) has."""
    return Interval(int(dtype.min), int(dtype.max))


class Bounds:
    """Intervals of the integer expressions of one kernel. Ask about expressions of that kernel, or built from its nodes."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel = kernel
        self.lengths = dict(kernel.schedule.lengths)
        self.dims = self._dimensions()
        self.scalars = {s.name: of_dtype(s.dtype) for s in kernel.scalars if s.dtype.is_integer}
        self.indices: dict[str, Interval] = {}
        self.variables: dict[str, Interval] = {}
        self._known: dict[int, tuple[ir.Expr, Interval]] = {}
        self._settled = False
        self._caps: dict[str, Interval] = {}
        self._empty = {
            n.axis for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.SpanAxis) and (n.stop is not None or n.length == 0)
        }
        self._solve()

    def of(self, expr: ir.Expr) -> Interval:
        """The values that an expression of integer or bool dtype can have."""
        if not self._settled:
            return self._find(expr)
        found = self._known.get(id(expr))
        if found is None:
            # The expression is kept beside its interval so that its id stays its own.
            found = self._known[id(expr)] = (expr, self._find(expr))
        return found[1]

    # ------------------------------------------------------------------------------------------------- dimensions and variables

    def _dimensions(self) -> dict[str, Interval]:
        top = MOST if self.kernel.schedule.wide else NARROW_DIM
        dims = {name: Interval(0, top) for name in self.kernel.dims}
        for tensor in self.kernel.arrays:
            for extent in tensor.shape:
                _limit(extent, top, dims)
        for require in self.kernel.requires:
            for part in conjuncts(require.condition):
                if isinstance(part, ir.Binary) and isinstance(part.a, ir.Dim) and isinstance(part.b, ir.Const):
                    old, value = dims.get(part.a.name, Interval(0, top)), int(part.b.value)
                    lo = {"gt": value + 1, "ge": value, "eq": value}.get(part.op, old.lo)
                    hi = {"lt": value - 1, "le": value, "eq": value}.get(part.op, old.hi)
                    dims[part.a.name] = cut(max(lo, old.lo), min(hi, old.hi))
        return dims

    def _solve(self) -> None:
        """Join every variable's assignments until nothing changes. What still grows after some rounds may be anything, or lies as far from where
        it begins as its additions reach, which is seen by what the others are: so the search is made again for what follows from that."""
        grows = self._join()
        while True:
            found = {n: c for n in sorted(grows - self._caps.keys()) if (c := self._capped(n)) is not None}
            if not found:
                break
            self._caps |= found
            self.variables = {}
            grows |= self._join()
        self._settled = True

    def _join(self) -> set[str]:
        """The variables that had to be given up."""
        given_up: set[str] = set()
        for turn in count():
            before = dict(self.variables)
            for index in self.kernel.grid:
                self._index(index.name, ir.const(0), index.extent, index.tiled)
            for statement in self.kernel.body:
                self._statement(statement)
            if self.variables == before:
                break
            if turn >= ROUNDS:
                grow = [n for n, v in self.variables.items() if v != before.get(n)]
                given_up.update(grow)
                self.variables |= {n: self._caps.get(n, FULL) for n in grow}
        return given_up

    def _capped(self, name: str) -> Interval | None:
        """Between what a variable stays that its loops add to."""

        def rounds(loop: ir.For) -> int:
            length = self.lengths.get(loop.index, 1) if loop.kind == "tile" else 1
            return -(-max(0, self.of(loop.hi).hi - self.of(loop.lo).lo) // length)

        def ends(e: ir.Expr) -> tuple[int, int]:
            found = self.of(e)
            return found.lo, found.hi

        found = grown(self.kernel.body, name, ends, rounds)
        return None if found is None or computed(*found) == FULL else Interval(*found)

    def _statement(self, node: ir.Stmt) -> None:
        match node:
            case ir.Assign():
                if node.value.dtype.is_integer:
                    found, cap = self.of(node.value), self._caps.get(node.name)
                    if cap is not None:
                        found = cut(min(max(found.lo, cap.lo), cap.hi), max(min(found.hi, cap.hi), cap.lo))
                    old = self.variables.get(node.name)
                    self.variables[node.name] = found if old is None else old.join(found)
            case ir.SpanAxis():
                start = self.of(node.start)
                self._lies(node.axis, cut(start.lo, start.hi + self.lengths.get(node.axis, 2 * node.length) - 1))
            case ir.For():
                self._index(node.index, node.lo, node.hi, node.kind == "tile")
                for inner in (*node.early, *node.body):
                    self._statement(inner)
            case ir.If():
                for inner in (*node.body, *node.orelse):
                    self._statement(inner)
            case ir.Store() | ir.Barrier():
                pass
            case _:
                assert_never(node)

    def _index(self, name: str, lo: ir.Expr, hi: ir.Expr, tiled: bool) -> None:
        tail = self.lengths.get(name, LONGEST_TILE) - 1 if tiled else 0
        self._lies(name, cut(self.of(lo).lo, self.of(hi).hi - 1 + tail))

    def _lies(self, axis: str, found: Interval) -> None:
        """Where the index of an axis lies, and so the first lanes of its groups."""
        self.indices |= dict.fromkeys((axis, *self.kernel.schedule.groups_of(axis)), found)

    # ------------------------------------------------------------------------------------------------------------- expressions

    def _find(self, node: ir.Expr) -> Interval:
        match node:
            case ir.Const():
                return cut(int(node.value), int(node.value)) if not node.dtype.is_float else FULL
            case ir.Dim():
                return self.dims.get(node.name, Interval(0, MOST))
            case ir.Scalar():
                return self.scalars.get(node.name, FULL)
            case ir.Index():
                return self.indices.get(node.name, FULL)
            case ir.Var():
                if not node.dtype.is_integer:
                    return of_dtype(BOOL) if node.dtype is BOOL else FULL
                return self.variables.get(node.name, of_dtype(node.dtype) if self._settled else cut(0, 0))
            case ir.Unary():
                return self._unary(node)
            case ir.Binary():
                return self._binary(node)
            case ir.Where():
                return self.of(node.a).join(self.of(node.b))
            case ir.Cast():
                inside = self.of(node.x) if not node.x.dtype.is_float else FULL
                if node.dtype.is_float or inside.within(node.dtype):
                    return inside
                return of_dtype(node.dtype)
            case ir.Full():
                return self.of(node.value)
            case ir.Spread():
                return self.of(node.x)
            case ir.Reduce():
                return self._reduce(node)
            case ir.Scan():
                inside = self.of(node.x)
                lanes = self._lanes((node.over,))
                return self._modular(node.dtype, computed(min(0, inside.lo * lanes), max(0, inside.hi * lanes)))
            case ir.Dot():
                return self._dot(node)
            case ir.Search():
                return cut(0, self.of(self.kernel.tensor(node.tensor).shape[0]).hi)
            case ir.Border():
                # Parts are even, so the border of one of them lies between 0 and n; beyond the last part it is extrapolated.
                n, parts, g = self.of(node.n), self.of(node.parts), self.of(node.g)
                return cut(0, n.hi) if n.lo >= 0 and parts.lo >= 0 and g.lo >= 0 and g.hi <= parts.lo else FULL
            case ir.Bitcast():
                inside = self.of(node.x) if node.x.dtype.is_integer else FULL
                return inside if node.dtype.is_integer and inside.within(node.dtype) else self._any(node.dtype)
            case ir.Load():
                return self._any(node.dtype)
            case ir.Fma():
                return FULL
            case _:
                assert_never(node)

    def _any(self, dtype: DType) -> Interval:
        return of_dtype(dtype) if not dtype.is_float else FULL

    def _lanes(self, axes: tuple[str, ...]) -> int:
        return prod(self.lengths.get(axis, LONGEST_TILE) for axis in axes)

    def _modular(self, dtype: DType, exact: Interval) -> Interval:
        """An unsigned result wraps; a signed one is exact."""
        return exact if dtype.kind != "unsigned" or exact.within(dtype) else of_dtype(dtype)

    def _unary(self, node: ir.Unary) -> Interval:
        x = self.of(node.x) if not node.x.dtype.is_float else FULL
        row = UNARY[node.op]
        if row.ends is None or node.dtype.is_float:
            return FULL
        return self._modular(node.dtype, computed(*row.ends((x.lo, x.hi))))

    def _dot(self, node: ir.Dot) -> Interval:
        if node.dtype.is_float:
            return FULL
        a, b, lanes = self.of(node.a), self.of(node.b), self._lanes((node.over,))
        added = cut(0, 0) if node.acc is None else self.of(node.acc)
        terms = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
        term = Interval(min(terms), max(terms))
        return computed(min(0, term.lo * lanes) + added.lo, max(0, term.hi * lanes) + added.hi)

    def _reduce(self, node: ir.Reduce) -> Interval:
        if node.dtype.is_float:
            return FULL
        x = self.of(node.x) if not node.x.dtype.is_float else FULL
        row = REDUCTIONS[node.op]
        if row.picks:
            return self.indices.get(node.over[0], FULL)
        if row.orders is not None and self._empty.intersection(node.over):
            return x.join(of_dtype(node.dtype))  # of no lanes it is the end of the dtype
        return self._modular(node.dtype, computed(*row.ends((x.lo, x.hi), self._lanes(node.over))))

    def _binary(self, node: ir.Binary) -> Interval:
        if node.dtype is BOOL:
            return of_dtype(BOOL)
        if node.dtype.is_float:
            return FULL
        row, a, b = BINARY[node.op], self.of(node.a), self.of(node.b)
        assert row.ends is not None, f"{node.op} gives no integer"
        found = row.ends((a.lo, a.hi), (b.lo, b.hi))
        return of_dtype(node.dtype) if found is None else self._modular(node.dtype, computed(*found))


def _limit(extent: ir.Expr, top: int, dims: dict[str, Interval]) -> None:
    """An extent is at most ``top``, as a dimension is; lower the ends of the dimensions in it that follow."""
    match extent:
        case ir.Dim(name=name) if name in dims:
            dims[name] = cut(dims[name].lo, min(dims[name].hi, top))
        case ir.Binary(op="mul", a=ir.Const(value=int(factor)), b=inner) | ir.Binary(op="mul", a=inner, b=ir.Const(value=int(factor))) if (
            factor > 0
        ):
            _limit(inner, top // factor, dims)
        case ir.Binary(op="add", a=inner, b=ir.Const(value=int(more))):
            _limit(inner, top - more, dims)
        case ir.Binary(op="add") if not any(isinstance(n, ir.Binary) and n.op == "sub" for n in ir.walk(extent)):
            _limit(extent.a, top, dims)
            _limit(extent.b, top, dims)
        case _:
            pass


def conjuncts(condition: ir.Expr | None) -> tuple[ir.Expr, ...]:
    """The conditions that a conjunction says, in order; none for None, which is true."""
    if condition is None:
        return ()
    if isinstance(condition, ir.Binary) and condition.op == "and" and condition.dtype is BOOL:
        return (*conjuncts(condition.a), *conjuncts(condition.b))
    return (condition,)


__all__ = ["FULL", "NARROW_DIM", "Bounds", "Interval", "conjuncts", "cut", "of_dtype"]
