"""Prove what the author's text must fulfil, on its untiled meaning and for all sizes that its ``require``s allow.

Range on every axis of every access, divisors and shifts, integers that must fit or stay within 64 bits, no element written twice by two
instances or twice by one statement, no read of what another instance writes, every element of an ``Out`` written, views inside their base and
apart from each other, and hypotheses that can hold at all. Constants first, then what a fact says, then linear reasoning, then one query.

``settle`` gives the verdicts, and changes nothing; the pass ``prove`` acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import permutations
from typing import Literal

from nsalang import ir
from nsalang.base.dtypes import I64, DType
from nsalang.ir.intervals import conjuncts
from nsalang.proof import smt
from nsalang.proof.claims import coverage, hypotheses, overlaps, races, views
from nsalang.proof.ends import Ranges
from nsalang.proof.lemmas import Book, bare, complete, substitute
from nsalang.proof.loops import Carried
from nsalang.proof.obligations import Obligation
from nsalang.proof.reason import Reason, every
from nsalang.proof.trials import holds, satisfied
from nsalang.proof.walk import Walk, start

Verdict = Literal["PROVED", "REFUTED", "UNKNOWN"]
Why = Literal["constant", "interval", "fact", "lemma", "Z3", "require"]
ENOUGH = 100_000
"""Z3's resource units where a check at launch will do."""


@dataclass(frozen=True, slots=True)
class Result:
    """An obligation with its verdict. ``why``: what settled it (``interval``: linear reasoning without a solver; ``lemma``: that, with instances
    of promises and lemmas; ``require``: what `Obligation.bound` says, which a launch checks). ``units``: what the solver spent; ``seconds``: of the clock in the solver, not compared. ``model``: the smallest counterexample
    that was found, by the names of dimensions, scalars, index variables and elements. ``unguarded``: it also follows from `Obligation.unguarded`."""

    obligation: Obligation
    verdict: Verdict
    why: Why
    units: int
    seconds: float = field(compare=False)
    model: Mapping[str, int]
    unguarded: bool = False


@dataclass(frozen=True, slots=True)
class _Settled:
    results: tuple[Result, ...]
    book: Book


def settle(kernel: ir.Kernel) -> tuple[Result, ...]:
    """The verdict on every obligation of a typed kernel, in program order. Kept for the kernel, whatever its schedule."""
    return _of(kernel).results


def _of(kernel: ir.Kernel) -> _Settled:
    return _settle(replace(kernel, schedule=ir.Schedule(), hoists=()), kernel.span and kernel.span.source, kernel.span)


@lru_cache(maxsize=256)
def _settle(kernel: ir.Kernel, source: object, span: object) -> _Settled:
    """``source`` and ``span`` are there for the cache: equal kernels of two files are equal trees, and what is said of each names its own file."""
    dtypes = element_types(kernel)
    walk = start(kernel, invariants)
    walk.block(kernel.body)
    obligations = [*hypotheses(kernel), *views(kernel), *walk.obligations, *races(kernel, walk)]
    obligations += [*overlaps(kernel, walk), *coverage(kernel, walk)]
    results = [decide(o, dtypes, walk.book) for o in obligations]
    for i, (o, r) in enumerate(zip(obligations, results, strict=True)):
        if o.unguarded is not None and r.verdict == "PROVED" and reasoned(o.goal, o.unguarded, dtypes, walk.book).why:
            results[i] = replace(r, unguarded=True)
    return _Settled(_with(walk.book.cost, results), walk.book)


def _with(cost: smt.Cost, results: list[Result]) -> tuple[Result, ...]:
    """What the search for invariants took is a part of what the first query took that has them, as far as that can be told."""
    if cost.units:
        at = next((i for i, r in enumerate(results) if r.why == "Z3"), len(results) - 1)
        results[at] = replace(results[at], units=results[at].units + cost.units, seconds=results[at].seconds + cost.seconds)
    return tuple(results)


def element_types(kernel: ir.Kernel) -> dict[str, DType]:
    found = {t.name: t.dtype for t in kernel.tensors} | {v.name: v.dtype for v in kernel.views}
    return found | {s.name: s.dtype for s in kernel.scalars}


def smt2(kernel: ir.Kernel, result: Result) -> str:
    """The obligation of one of the kernel's results as SMT-LIB 2: ``unsat`` says that it is proved (for hypotheses: that they cannot hold).
    Empty where no query was needed."""
    if result.why != "Z3":
        return ""
    settled = _of(kernel)
    o = result.obligation
    facts = complete(settled.book, o.facts, o.goal)
    place = "" if o.span is None else f"; {o.span}\n"
    text = " ".join(o.what.split())
    head = (
        f"; kernel {kernel.name}, {o.kind}: {text}\n{place}; verdict {result.verdict} by {result.why}; unsat means that the goal follows\n"
    )
    return head + smt.text(facts, bare(o.goal), element_types(kernel))


def completed(kernel: ir.Kernel, facts: Sequence[ir.Expr], goal: ir.Expr) -> tuple[ir.Expr, ...]:
    """Facts of one of the kernel's obligations, with the instances of promises and lemmas for what they and the goal speak of."""
    return complete(_of(kernel).book, facts, goal)


@dataclass(frozen=True, slots=True)
class Reasoned:
    """What settles a goal without a solver, or None, and then what is left of the goal and the facts with all that lemmas add to them."""

    why: Why | None
    left: Sequence[ir.Expr] = ()
    facts: Sequence[ir.Expr] = ()


def reasoned(goal: ir.Expr, facts: Sequence[ir.Expr], dtypes: Mapping[str, DType], book: Book) -> Reasoned:
    goal, given = bare(goal), [bare(f) for f in facts]
    if all(isinstance(c, ir.Const) and c.value for c in conjuncts(goal)):
        return Reasoned("constant")
    said = {c for f in given for c in conjuncts(f)}
    left = [c for c in conjuncts(goal) if c not in said]
    if not left:
        return Reasoned("fact")
    if all(isinstance(c, ir.Const) and c.value or holds(c) for c in left):
        return Reasoned("constant")
    reason = Reason(given, dtypes)
    left = [c for c in left if not reason.proves(c)]
    if not left:
        return Reasoned("interval")
    completed = complete(book, given, goal)
    if len(completed) > len(set(given)):
        reason = Reason(completed, dtypes)
        left = [c for c in left if not reason.proves(c)]
        if not left:
            return Reasoned("lemma")
    return Reasoned(None, left, completed)


def decide(o: Obligation, dtypes: Mapping[str, DType], book: Book) -> Result:
    """One obligation, by the cheapest means that settles it; a refutation is made as small as it can be, so that the interpreter can run it."""

    def done(verdict: Verdict, why: Why, units: int = 0, seconds: float = 0.0, model: Mapping[str, int] | None = None) -> Result:
        return Result(o, verdict, why, units, seconds, model or {})

    if o.kind == "hypotheses":
        return done(*_possible(o, dtypes, book))
    found = reasoned(o.goal, o.facts, dtypes, book)
    if found.why is not None:
        return done("PROVED", found.why)
    goal, left, facts = bare(o.goal), found.left, found.facts
    limit = smt.LIMIT if o.bound is None else ENOUGH
    outcome = smt.prove(facts, left[0] if len(left) == 1 else goal, dtypes, limit)
    if outcome.answer == "proved":
        return done("PROVED", "Z3", outcome.units, outcome.seconds)
    if o.bound is not None:
        return done("PROVED", "require", outcome.units, outcome.seconds)
    if outcome.answer == "unknown":
        return done("UNKNOWN", "Z3", outcome.units, outcome.seconds)
    units, seconds, model = outcome.units, outcome.seconds, outcome.model
    for bound in (4, 16, 300):
        small = smt.prove(facts, goal, dtypes, small=bound)
        units, seconds = units + small.units, seconds + small.seconds
        if small.answer == "refuted":
            model = small.model
            break
    return done("REFUTED", "Z3", units, seconds, model)


def _possible(o: Obligation, dtypes: Mapping[str, DType], book: Book) -> tuple[Verdict, Why, int, float]:
    """Whether the facts can hold together; where they cannot, and the goal (what they are about exists) cannot either, nothing is wrong."""
    read = any(isinstance(n, ir.Load) for f in o.facts for n in ir.walk(f))
    facts = complete(book, o.facts, o.goal) if read else o.facts
    if satisfied(facts, dtypes):
        return "PROVED", "constant", 0, 0.0
    outcome = smt.prove(facts, o.goal, dtypes)
    if outcome.answer == "unknown":
        return "UNKNOWN", "Z3", outcome.units, outcome.seconds
    if outcome.answer == "refuted":
        return "PROVED", "Z3", outcome.units, outcome.seconds
    plain = [f for f in o.facts if not any(isinstance(n, ir.Load) for n in ir.walk(f))]
    if len(plain) < len(o.facts):
        empty = smt.prove(plain, o.goal, dtypes)
        if empty.answer == "proved":
            return "PROVED", "Z3", outcome.units + empty.units, outcome.seconds + empty.seconds
        return "REFUTED", "Z3", outcome.units + empty.units, outcome.seconds + empty.seconds
    return "REFUTED", "Z3", outcome.units, outcome.seconds


# ------------------------------------------------------------------------------------------------------------------- invariants


def invariants(walk: Walk, loop: ir.For, r: Ranges, carried: Sequence[Carried], inside: Sequence[ir.Expr]) -> tuple[ir.Expr, ...]:
    """What holds of a loop's carried integers at the start of every iteration: of a fixed set of candidates those that hold on entry and that one
    iteration keeps, given all of them."""
    kernel = walk.kernel
    dtypes = element_types(kernel)
    shapes = [e for t in kernel.tensors for e in t.shape]
    entries = [c.entry for c in carried if not isinstance(c.entry, ir.Const)]
    extents = list(dict.fromkeys([r.stop, *shapes, *(ir.Scalar(I64, (), s.name) for s in kernel.scalars if s.dtype is I64), *entries]))[:8]
    candidates: list[ir.Expr] = []
    for c in carried:
        v = c.symbol
        candidates += [ir.binary("le", ir.const(low), v) for low in (0, -1)]
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
    after: dict[ir.Expr, ir.Expr] = {c.symbol: c.step for c in carried}
    here = ir.Index(I64, (r.name,), r.name)

    def at(node: ir.Expr, values: Mapping[ir.Expr, ir.Expr], place: ir.Expr) -> ir.Expr:
        moved = substitute_outside(node, r.name, place, set(values))
        return ir.rewrite(moved, lambda n: values.get(n, n) if isinstance(n, ir.Load) else n)

    outside = [f for f in inside if not any(isinstance(n, ir.Index) and n.name == r.name for n in ir.walk(f))]
    entered = {c: at(c, on_entry, r.start) for c in candidates}
    kept = _surviving([*walk.assumed, *outside], candidates, entered, dtypes, walk.book)
    while kept:
        stepped = {c: at(c, after, ir.binary("add", here, ir.const(1))) for c in kept}
        still = _surviving([*walk.assumed, *inside, *kept], kept, stepped, dtypes, walk.book)
        if len(still) == len(kept):
            break
        kept = still
    return tuple(kept)


_ORDER: tuple[ir.BinaryOp, ...] = ("le", "lt")


def substitute_outside(node: ir.Expr, name: str, place: ir.Expr, terms: set[ir.Expr]) -> ir.Expr:
    """An index variable replaced, but not within the given unknowns."""
    if node in terms:
        return node
    if isinstance(node, ir.Binary):
        return replace(node, a=substitute_outside(node.a, name, place, terms), b=substitute_outside(node.b, name, place, terms))
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
