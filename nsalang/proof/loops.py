"""What one iteration of a loop does to the integers that it carries: counting, and adding at most so much."""

from __future__ import annotations

from dataclasses import dataclass

from nsalang import ir
from nsalang.base.dtypes import BOOL
from nsalang.proof.ends import Ranges, Sides, ceiling, floor, folded
from nsalang.proof.forms import added, added_one, between, scaled, tidy
from nsalang.proof.lemmas import DIMS, index
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


def moves(at: Symbols, s: ir.For, r: Ranges, c: Carried) -> Sides | None:
    """Between what a variable changes in all iterations together, or in the first so many, where one iteration adds something to it."""
    one = change(at, c.step, c.symbol, s.index)
    if one is None or at.ends(r.stop)[1] - at.ends(r.start)[0] > 2 * DIMS:
        return None
    return at.times(one, at.positive(folded("sub", at.outer(r.stop)[1], at.outer(r.start)[0])))


def change(at: Symbols, step: ir.Expr, symbol: ir.Load, axis: str) -> Sides | None:
    """Between what a step adds to a symbol; of a sum over the loop's own lanes, for one lane."""
    if step == symbol:
        return ir.const(0), ir.const(0)
    match step:
        case ir.Where():
            a, b = change(at, step.a, symbol, axis), change(at, step.b, symbol, axis)
            return None if a is None or b is None else (floor((a[0], b[0])), ceiling((a[1], b[1])))
        case ir.Load() if step.tensor in at.changes:
            entry, by = at.changes[step.tensor]
            inner = change(at, entry, symbol, axis)
            return None if inner is None else plus(inner, by)
        case ir.Binary(op="add" | "sub"):
            for base, more in ((step.a, step.b), (step.b, step.a)) if step.op == "add" else ((step.a, step.b),):
                inner = change(at, base, symbol, axis)
                if inner is not None:
                    of, lane = at.summed.get(more.tensor, ("", None)) if isinstance(more, ir.Load) else ("", None)
                    low, high = lane if of == axis and lane is not None else at.outer(more)
                    if step.op == "sub":
                        low, high = folded("sub", ir.const(0), high), folded("sub", ir.const(0), low)
                    return plus(inner, (low, high))
    return None


def plus(a: Sides, b: Sides) -> Sides:
    return folded("add", a[0], b[0]), folded("add", a[1], b[1])


def moved(at: Symbols, entry: ir.Expr, by: Sides) -> Sides:
    return plus(at.outer(entry), by)


def counts(at: Symbols, s: ir.For, made: Chained, step: ir.Expr) -> ir.Expr | None:
    """The predicate that one iteration counts, by adding to the value ``inside``; or the constant that it adds."""
    if s.kind == "range":
        more = tidy(ir.binary("sub", step, made.inside))
        if isinstance(more, ir.Const):
            return more
        return added_one(step, made.inside)
    term = added(step, made.inside)
    term = term if isinstance(term, ir.Load) else None
    definition = None if term is None else at.book.definitions.get(term.tensor)
    count = None if definition is None or term is None or term.tensor not in at.summed else definition.count
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
