"""What one iteration of a loop does to the integers that it carries: counting, and adding at most so much."""

from __future__ import annotations

from dataclasses import dataclass

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64
from nsalang.proof.ends import NOTHING, Ends, Ranges, symbolic
from nsalang.proof.forms import added, added_one, between, scaled, tidy
from nsalang.proof.lemmas import DIMS, index, wide
from nsalang.proof.prefix import Running
from nsalang.proof.reason import every, implies
from nsalang.proof.symbols import Symbols


@dataclass(frozen=True, slots=True)
class Carried:
    """A loop's carried variable: its symbol inside the loop, its value before it, and its value after one iteration."""

    name: str
    symbol: ir.Load
    entry: ir.Expr
    step: ir.Expr


@dataclass(frozen=True, slots=True)
class Chained:
    """A carried variable that counts: its value inside the loop and after it, and what it counts."""

    inside: ir.Expr
    after: ir.Expr
    flag: ir.Expr


def nests(s: ir.For) -> bool:
    """Whether loops in the body carry something."""
    return any(isinstance(n, ir.For) and bool(n.carried) for b in s.body for n in ir.walk(b))


def moves(at: Symbols, s: ir.For, r: Ranges, c: Carried) -> tuple[int, int] | None:
    """By how much a variable changes at most in all iterations together, where one iteration adds something to it."""
    rounds = at.ends(r.stop)[1] - at.ends(r.start)[0]
    one = change(at, c.step, c.symbol, s.index)
    return None if one is None or rounds > 2 * DIMS else (min(0, one[0]) * max(0, rounds), max(0, one[1]) * max(0, rounds))


def change(at: Symbols, step: ir.Expr, symbol: ir.Load, axis: str) -> tuple[int, int] | None:
    """The ends of what a step adds to a symbol; of a sum over the loop's own lanes, for one lane."""
    if step == symbol:
        return 0, 0
    match step:
        case ir.Where():
            a, b = change(at, step.a, symbol, axis), change(at, step.b, symbol, axis)
            return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))
        case ir.Load() if step.tensor in at.changes:
            entry, (low, high), _ = at.changes[step.tensor]
            inner = change(at, entry, symbol, axis)
            return None if inner is None else (inner[0] + low, inner[1] + high)
        case ir.Binary(op="add" | "sub"):
            for base, more in ((step.a, step.b), (step.b, step.a)) if step.op == "add" else ((step.a, step.b),):
                inner = change(at, base, symbol, axis)
                if inner is not None:
                    low, high = at.ends(_term(at, more, axis))
                    if step.op == "sub":
                        low, high = -high, -low
                    return inner[0] + low, inner[1] + high
    return None


def _term(at: Symbols, more: ir.Expr, axis: str) -> ir.Expr:
    """What is added; of sums over the loop's own lanes, for one lane."""
    return per_lane(at, more, axis) or more


def pace(at: Symbols, step: ir.Expr, symbol: ir.Load, axis: str) -> Ends | None:
    """`change`, as expressions."""
    if step == symbol:
        return NOTHING
    match step:
        case ir.Where():
            a, b = pace(at, step.a, symbol, axis), pace(at, step.b, symbol, axis)
            return None if a is None or b is None else a.join(b)
        case ir.Load() if step.tensor in at.changes:
            entry, _, by = at.changes[step.tensor]
            inner = pace(at, entry, symbol, axis)
            return None if inner is None else inner + by
        case ir.Binary(op="add" | "sub"):
            for base, more in ((step.a, step.b), (step.b, step.a)) if step.op == "add" else ((step.a, step.b),):
                inner = pace(at, base, symbol, axis)
                if inner is not None:
                    by = symbolic(at, _term(at, more, axis))
                    return inner + (-by if step.op == "sub" else by)
    return None


def moved(at: Symbols, entry: ir.Expr, by: tuple[int, int]) -> tuple[int, int]:
    low, high = at.ends(entry)
    return low + by[0], high + by[1]


def counts(at: Symbols, s: ir.For, made: Chained, step: ir.Expr) -> ir.Expr | None:
    """The predicate that one iteration counts, by adding to the value ``inside``; or the constant that it adds."""
    if s.kind == "range":
        more = tidy(ir.binary("sub", step, made.inside))
        if all(isinstance(n, (ir.Const, ir.Dim, ir.Scalar, ir.Binary, ir.Cast)) for n in ir.walk(more)):
            return more
        return added_one(step, made.inside)
    term = added(step, made.inside)
    term = term if isinstance(term, ir.Load) else None
    definition = None if term is None else at.book.definitions.get(term.tensor)
    count = None if definition is None or term is None or term.tensor not in at.lanes else definition.count
    return count.flag if count is not None and count.axis == s.index and not count.slot else None


def chain(at: Symbols, s: ir.For, r: Ranges, c: Carried) -> Chained | None:
    """A variable that counts the lanes which fulfil a predicate."""
    flag = counts(at, s, Chained(c.symbol, c.symbol, c.symbol), c.step)
    if flag is None or c.symbol in ir.walk(flag) or any(isinstance(n, ir.Index) and n.name == s.index for n in ir.walk(c.entry)):
        return None
    if flag.dtype is not BOOL:
        rounds = ir.binary("max", ir.binary("sub", r.stop, r.start), ir.const(0))
        gone = ir.binary("sub", index(s.index), r.start)
        return Chained(ir.binary("add", c.entry, scaled(gone, flag)), ir.binary("add", c.entry, scaled(rounds, flag)), flag)
    before, total = at.count(r, flag, tuple(a for a in at.own_axes(c.entry) if a != s.index))
    base, whole = ir.binary("add", c.entry, before), ir.binary("add", c.entry, total)
    if s.kind == "range":
        return Chained(base, whole, flag)
    at.chains.append((s.index, flag, ir.binary("sub", base, c.symbol)))
    term = added(c.step, c.symbol)
    assert term is not None
    known = (*between(c.entry, c.symbol, base), ir.binary("le", ir.binary("add", c.symbol, term), whole))
    at.define(c.symbol, tuple(implies(every(r.facts()), f) for f in known))
    return Chained(c.symbol, whole, flag)


def summed(at: Symbols, s: ir.For, symbol: ir.Load, step: ir.Expr, newest: int) -> ir.Expr | None:
    """What an iteration (of a tile: one lane of it) adds to a carried integer, if that is all that it does; nothing that the iteration makes up."""
    more = added(step, symbol)
    if more is None and s.kind == "range":
        more = tidy(ir.binary("sub", step, symbol))
    if more is None or more.dtype is not I64:
        return None
    lane: ir.Expr | None = more if s.kind == "range" else per_lane(at, more, s.index)
    if lane is None or any(
        isinstance(n, ir.Load) and n.tensor.rpartition("#")[2].isdigit() and int(n.tensor.rpartition("#")[2]) > newest
        for n in ir.walk(lane)
    ):
        return None
    return None if symbol in ir.walk(lane) else lane


def so_far(at: Symbols, s: ir.For, run: Running, c: Carried, x: ir.Expr, r: Ranges) -> list[ir.Expr]:
    """A loop's carried sum at the start of an iteration; of a tile, as what lies before and behind a lane of the block."""
    here = run.to(index(s.index))
    base = ir.binary("add", c.entry, here)
    if s.kind == "range":
        return [ir.binary("eq", c.symbol, base)]
    at.carries.append((s.index, wide(x), ir.binary("sub", base, c.symbol)))
    block = (ir.binary("le", c.entry, c.symbol), ir.binary("le", c.symbol, base))
    return [
        *block,
        ir.binary("le", ir.binary("add", c.symbol, tidy(ir.binary("sub", c.step, c.symbol))), ir.binary("add", c.entry, run.to(r.stop))),
    ]


def per_lane(at: Symbols, e: ir.Expr, axis: str) -> ir.Expr | None:
    """What one lane adds to ``e``, where that is sums over the lanes of a block, times what is the same for all of them."""
    match e:
        case ir.Load() if at.lanes.get(e.tensor, ("",))[0] == axis:
            return wide(at.lanes[e.tensor][1])
        case ir.Cast(mode="convert") if e.x.dtype.is_integer and e.dtype.kind == "signed":
            return per_lane(at, e.x, axis)
        case ir.Unary(op="neg") if e.dtype.kind == "signed":
            x = per_lane(at, e.x, axis)
            return None if x is None else ir.Unary(I64, (), "neg", x)
        case ir.Binary(op="add" | "sub"):
            a, b = per_lane(at, e.a, axis), per_lane(at, e.b, axis)
            return None if a is None or b is None else ir.binary(e.op, a, b)
        case ir.Binary(op="mul"):
            for part, factor in ((e.a, e.b), (e.b, e.a)):
                x = per_lane(at, part, axis)
                if x is not None and not any(isinstance(n, ir.Index) and n.name == axis for n in ir.walk(factor)):
                    return ir.binary("mul", x, wide(factor))
    return None
