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
from typing import Literal

from nsalang import ir
from nsalang.base.dtypes import DType
from nsalang.ir.intervals import conjuncts
from nsalang.proof import smt
from nsalang.proof.claims import coverage, hypotheses, overlaps, races, views
from nsalang.proof.lemmas import Book, bare, complete, element_types
from nsalang.proof.obligations import Obligation
from nsalang.proof.reason import Reason
from nsalang.proof.trials import holds, satisfied
from nsalang.proof.walk import start

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
    walk = start(kernel)
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
