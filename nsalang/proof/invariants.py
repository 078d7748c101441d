"""Invariants of loops: of a fixed set of candidates about the integers that a loop carries those that hold on entry and that one iteration keeps, given
all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

from nsalang import ir
from nsalang.base.dtypes import I64, DType
from nsalang.proof import smt
from nsalang.proof.ends import Ranges
from nsalang.proof.lemmas import Book, bare, complete, element_types, substitute
from nsalang.proof.loops import Carried
from nsalang.proof.reason import Reason, every
from nsalang.proof.symbols import Symbols
from nsalang.proof.trials import holds


def entering(at: Symbols, loop: ir.For, r: Ranges, carried: Sequence[Carried], inside: Sequence[ir.Expr]) -> list[ir.Expr]:
    """The candidates that hold before the first iteration. ``inside``: what holds in the body."""
    kernel = at.kernel
    shapes = [e for t in kernel.tensors for e in t.shape]
    entries = [c.entry for c in carried if not isinstance(c.entry, ir.Const)]
    extents = list(dict.fromkeys([r.stop, *shapes, *(ir.Scalar(I64, (), s.name) for s in kernel.scalars if s.dtype is I64), *entries]))[:8]
    candidates: list[ir.Expr] = []
    for c in carried:
        v = c.symbol
        candidates += [ir.binary("le", ir.const(low), v) for low in (0, -1)]
        candidates.append(ir.binary("le", v, ir.const(2**31 - 1)))
        candidates += [ir.binary(op, v, e) for e in extents for op in _ORDER]
        candidates += [ir.binary("le", c.entry, v), ir.binary("le", v, c.entry)]
        candidates += [ir.binary("or", ir.binary("eq", v, c.entry), ir.binary("lt", v, e)) for e in extents]
        candidates.append(ir.binary("or", ir.binary("eq", v, c.entry), ir.binary("le", r.start, v)))
        if loop.kind == "range":
            moved = ir.binary("add", c.entry, ir.binary("sub", ir.Index(I64, (r.name,), r.name), r.start))
            candidates += [ir.binary("le", v, moved), ir.binary("le", moved, v)]
    candidates += [ir.binary(op, v.symbol, w.symbol) for v, w in permutations(carried, 2) for op in _ORDER]
    candidates = list(dict.fromkeys(candidates))
    on_entry: dict[ir.Expr, ir.Expr] = {c.symbol: c.entry for c in carried}
    outside = [f for f in inside if not any(isinstance(n, ir.Index) and n.name == r.name for n in ir.walk(f))]
    entered = {c: _moved(c, on_entry, r.name, r.start) for c in candidates}
    return _surviving([*at.assumed, *outside], candidates, entered, element_types(kernel), at.book)


def kept(at: Symbols, r: Ranges, carried: Sequence[Carried], inside: Sequence[ir.Expr], candidates: list[ir.Expr]) -> list[ir.Expr]:
    """Of candidates that hold on entry those that one iteration keeps."""
    after: dict[ir.Expr, ir.Expr] = {c.symbol: c.step for c in carried}
    following = ir.binary("add", ir.Index(I64, (r.name,), r.name), ir.const(1))
    while candidates:
        stepped = {c: _moved(c, after, r.name, following) for c in candidates}
        still = _surviving([*at.assumed, *inside, *candidates], candidates, stepped, element_types(at.kernel), at.book)
        if len(still) == len(candidates):
            break
        candidates = still
    return candidates


def _moved(node: ir.Expr, values: Mapping[ir.Expr, ir.Expr], axis: str, place: ir.Expr) -> ir.Expr:
    moved = _outside(node, axis, place, set(values))
    return ir.rewrite(moved, lambda n: values.get(n, n) if isinstance(n, ir.Load) else n)


_ORDER: tuple[ir.BinaryOp, ...] = ("le", "lt")


def _outside(node: ir.Expr, name: str, place: ir.Expr, terms: set[ir.Expr]) -> ir.Expr:
    """An index variable replaced, but not within the given unknowns."""
    if node in terms:
        return node
    if isinstance(node, ir.Binary):
        return replace(node, a=_outside(node.a, name, place, terms), b=_outside(node.b, name, place, terms))
    return substitute(node, {name: place})


def _surviving(
    facts: Sequence[ir.Expr], candidates: Sequence[ir.Expr], goals: Mapping[ir.Expr, ir.Expr], dtypes: Mapping[str, DType], book: Book
) -> list[ir.Expr]:
    """The candidates whose goals follow from the facts."""
    reason = Reason([bare(f) for f in facts], dtypes)
    sure = {c for c in candidates if holds(goals[c]) or reason.proves(bare(goals[c]))}
    rest = [c for c in candidates if c not in sure]
    if rest:
        wanted = [goals[c] for c in rest]
        completed = complete(book, facts, every(wanted))
        alive = smt.following(completed, [bare(g) for g in wanted], dtypes, book.cost)
        sure |= {c for c, g in zip(rest, wanted, strict=True) if bare(g) in alive}
    return [c for c in candidates if c in sure]
