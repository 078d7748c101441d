"""Running sums: what an integer expression adds up to over the lanes of an axis before an index, as one function of that index.

The function adds up ``max(x, 0)`` over lanes, whatever they are, so that it rises by what its lanes hold: ``E(i) + x(i) <= E(j)`` for ``i < j``. It is
what a loop, a sum or a scan computes where none of the lanes that these add up is negative, which is shown for each of them. So what is placed at
running sums does not overlap, in one instance or in several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64
from nsalang.ir.intervals import conjuncts
from nsalang.proof import smt
from nsalang.proof.encoder import EXACT
from nsalang.proof.ends import MIRRORED, Known, Ranges
from nsalang.proof.lemmas import Definition, Prefix, bare, complete, element_types, exists, index, substitute, wide
from nsalang.proof.reason import Reason, every, implies

ENOUGH = 20_000
"""Z3's resource units for whether lanes are negative."""
LANE = "·"


@dataclass(frozen=True, slots=True)
class Running:
    """The sum of ``x`` over the lanes from ``start`` on, by its name and the index variables around it."""

    tensor: str
    outer: tuple[ir.Expr, ...]
    start: ir.Expr

    def to(self, stop: ir.Expr) -> ir.Load:
        """Over the lanes before ``stop``."""
        return ir.Load(I64, (), self.tensor, (*self.outer, bare(stop)))

    def between(self, made: ir.Expr, entry: ir.Expr, stop: ir.Expr) -> tuple[ir.Expr, ...]:
        """That ``made`` is ``entry`` and all lanes before ``stop``, of which there may be none."""
        full = ir.binary("eq", made, ir.binary("add", entry, self.to(stop)))
        none = ir.binary("eq", made, entry)
        return implies(ir.binary("le", self.start, stop), full), implies(ir.binary("le", stop, self.start), none)


class Place(Known, Protocol):
    """Where sums are made (`Symbols`): what holds there, and what is known of sums so far. ``sums``: the names of running sums; ``carries``: of a
    tile's carried sum, the axis, the summand of a lane, and what lies before the lane in its block."""

    @property
    def kernel(self) -> ir.Kernel: ...
    @property
    def sums(self) -> dict[object, str]: ...
    @property
    def carries(self) -> list[tuple[str, ir.Expr, ir.Expr]]: ...
    @property
    def lanes(self) -> Mapping[str, tuple[str, ir.Expr]]: ...

    def around(self, *about: ir.Expr, axes: tuple[str, ...] = ()) -> tuple[ir.Expr, ...]:
        """What holds of every launch, and the ranges of the index variables."""


def running(at: Place, axis: str, start: ir.Expr, x: ir.Expr, more: Sequence[ir.Expr] = ()) -> Running | None:
    """One function for one summand; None where a lane that is added up may be negative. ``more``: what holds of such lanes."""
    if x.dtype.kind != "signed" or isinstance(x, ir.Const):
        return None
    x, start = bare(wide(x)), bare(start)
    reads = [exists(at.kernel, n) for n in _evaluated(x) if n.tensor in {t.name for t in at.kernel.tensors}]
    if not _negative_nowhere(at, x, [*at.around(x, start, axes=(axis,)), *reads, *more]):
        return None
    outer = tuple(dict.fromkeys(n.name for e in (x, start) for n in ir.walk(e) if isinstance(n, ir.Index) and n.name != axis))
    key = (substitute(x, {axis: index(LANE)}), start)
    if key not in at.sums:
        at.sums[key] = f"{EXACT}running sum #{len(at.sums)}"
        made = ir.Load(I64, (), at.sums[key], (*(index(a) for a in outer), index(axis)))
        nothing = implies(ir.binary("le", index(axis), start), ir.binary("eq", made, ir.const(0)))
        facts = (ir.binary("le", ir.const(0), made), nothing)
        at.book.definitions[made.tensor] = Definition((*outer, axis), facts, prefix=Prefix(x, start))
    return Running(at.sums[key], tuple(index(a) for a in outer), start)


def _negative_nowhere(at: Place, x: ir.Expr, facts: Sequence[ir.Expr]) -> bool:
    if at.ends(x)[0] >= 0:
        return True
    goal, dtypes = ir.binary("le", ir.const(0), x), element_types(at.kernel)
    known = complete(at.book, facts, goal)
    return Reason(known, dtypes).proves(goal) or smt.prove(known, goal, dtypes, ENOUGH).answer == "proved"


def _evaluated(x: ir.Expr) -> Iterator[ir.Load]:
    """The elements that are read whenever ``x`` is computed."""
    if isinstance(x, ir.Load):
        yield x
    for child in (x.cond,) if isinstance(x, ir.Where) else ir.children(x):
        assert isinstance(child, ir.Expr)
        yield from _evaluated(child)


# ------------------------------------------------------------------------------------------------------------ reductions and scans


def reduced(at: Place, made: ir.Load, x: ir.Expr, r: Ranges) -> tuple[ir.Expr, ...]:
    """Of a sum over a whole range: that it is a running sum, also where a comparison of the index picks the lanes."""
    stop = r.stop if r.extra is None else ir.binary("min", r.stop, r.extra)
    zero = ir.const(0)
    for picked, op, border, part in _picked(x, r.name):
        run = running(at, r.name, r.start, picked, (part,))
        if run is None:
            continue
        last = border if op in ("lt", "ge") else ir.binary("add", border, ir.const(1))
        inside = ir.binary("max", r.start, ir.binary("min", last, stop))
        before = run.to(inside)
        nothing = ir.binary("le", stop, r.start)
        same = before if op in ("lt", "le") else ir.binary("sub", run.to(stop), before)
        plain = (ir.binary("le", r.start, last), ir.binary("le", last, stop))
        at_last = run.to(last) if op in ("lt", "le") else ir.binary("sub", run.to(stop), run.to(last))
        one = ir.binary("max", substitute(bare(wide(picked)), {r.name: bare(border)}), zero)
        step = ir.binary("eq", run.to(ir.binary("add", border, ir.const(1))), ir.binary("add", run.to(border), one))
        return (
            *(() if op in ("lt", "ge") else (implies(ir.binary("le", r.start, border), step),)),
            implies(every(plain), ir.binary("eq", made, at_last)),
            ir.binary("or", nothing, ir.binary("eq", made, same)),
            implies(nothing, ir.binary("eq", made, zero)),
        )
    run = running(at, r.name, r.start, x)
    return () if run is None else run.between(made, zero, stop)


def one_lane(made: ir.Load, x: ir.Expr, r: Ranges) -> tuple[ir.Expr, ...]:
    """Of ``sum(where(n == e, x, 0), axis=n)``: there is at most one such lane."""
    if not (isinstance(x, ir.Where) and isinstance(x.b, ir.Const) and x.b.value == 0):
        return ()
    parts = conjuncts(x.cond)
    for part in parts:
        if not isinstance(part, ir.Binary) or part.op != "eq" or part.a.dtype is not I64:
            continue
        lane = part.b if _is(part.a, r.name) else part.a
        if not (_is(part.a, r.name) or _is(part.b, r.name)) or any(_is(n, r.name) for n in ir.walk(lane) if isinstance(n, ir.Index)):
            continue
        there = {r.name: lane}
        chosen = every((*r.facts(lane), *(substitute(p, there) for p in parts if p is not part)))
        nothing = ir.binary("eq", made, ir.Const(made.dtype, (), 0))
        value = ir.binary("eq", made, substitute(x.a, there))
        return (ir.binary("or", chosen, nothing), implies(chosen, value) if r.whole else ir.binary("or", nothing, value))
    return ()


def _picked(x: ir.Expr, axis: str) -> Iterator[tuple[ir.Expr, str, ir.Expr, ir.Expr]]:
    """``x`` as a summand of the lanes whose index compares so with what does not depend on it."""
    match x:
        case ir.Cast() if x.dtype.is_integer and x.x.dtype is BOOL:
            condition: ir.Expr = x.x
            value: ir.Expr = ir.const(1)
        case ir.Cast(mode="convert") if x.dtype.kind == "signed" and x.x.dtype.is_integer:
            yield from _picked(x.x, axis)
            return
        case ir.Where(b=ir.Const(value=0)):
            condition, value = x.cond, x.a
        case _:
            return
    parts = conjuncts(condition)
    for part in parts:
        match part:
            case ir.Binary(op="lt" | "le" | "gt" | "ge" as op, a=a, b=b) if a.dtype.kind == "signed":
                here, other = (a, b) if _is(a, axis) else (b, a)
                if _is(here, axis) and not any(isinstance(n, ir.Index) and n.name == axis for n in ir.walk(other)):
                    rest = [p for p in parts if p is not part]
                    chosen = ir.Where(I64, (), every(rest), wide(value), ir.const(0)) if rest else wide(value)
                    yield chosen, op if here is a else MIRRORED[op], wide(other), part


def _is(e: ir.Expr, axis: str) -> bool:
    return isinstance(e, ir.Index) and e.name == axis


def scanned(at: Place, n: ir.Scan, made: ir.Load, r: Ranges) -> tuple[ir.Expr, ...]:
    """Of a scan: that it is a running sum, of a whole range or of a tile whose loop carries what came before."""
    here = index(r.name)
    one = wide(bare(n.x))
    if not r.whole:
        base = next((position for axis, x, position in at.carries if axis == r.name and bare(x) == one), None)
        if base is None or n.reverse:
            return ()
        return (implies(every(r.facts()), ir.binary("eq", made, base if n.exclusive else ir.binary("add", base, one))),)
    run = running(at, r.name, r.start, n.x)
    if run is None:
        return ()
    stop = r.stop if r.extra is None else ir.binary("min", r.stop, r.extra)
    value: ir.Expr = run.to(here)
    if n.exclusive == n.reverse:
        value = ir.binary("add", value, one)
    if n.reverse:
        value = ir.binary("sub", run.to(stop), value)
    return (implies(every(r.facts()), ir.binary("eq", made, value)),)
