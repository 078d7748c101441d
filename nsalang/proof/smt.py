"""The one place that talks to Z3: integer and bool IR in, a verdict out.

Integers are mathematical. Each query has a context of its own, a fixed seed and a resource limit (never a clock), so that a verdict does not
depend on what was asked before. Division and modulo floor, as the language says: Z3's are Euclidean, which is the same for a positive divisor,
and a divisor that may be negative is spelled out. What cannot be expressed (floats, reductions) is an unknown of its own: that can only lose
facts, so PROVED stays sound, and a counterexample is replayed before anybody is told.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nsalang import ir
from nsalang.base.dtypes import DType
from nsalang.proof.encoder import Encoder

if TYPE_CHECKING:
    import z3

Answer = Literal["proved", "refuted", "unknown"]
LIMIT = 500_000
"""Z3's resource units for one query; good encodings stay under 45,000."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What Z3 said: ``seconds`` of the clock it took, ``model`` gives integer and bool symbols (and tensor elements, as ``name[1, 2]``) where it is refuted."""

    answer: Answer
    units: int
    seconds: float = 0.0
    model: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""


def prove(facts: Sequence[ir.Expr], goal: ir.Expr, dtypes: Mapping[str, DType], limit: int = LIMIT, small: int | None = None) -> Outcome:
    """Whether the facts imply the goal, for all integers.

    ``dtypes``: element types of tensors and scalars by name, whose ranges are facts. ``small``: look for a counterexample in which every symbol
    is at most this (a refutation only: "proved" then means that there is no small one).
    Linear first, with products named and ordered by lemmas; where that does not prove it, and for a small counterexample, with true products.
    """
    import z3

    units, seconds, context = 0, 0.0, z3.Context()
    for linear in (True, False) if small is None else (False,):
        encoder, clauses = _encoded(facts, goal, dtypes, linear, context)
        exact = not encoder.products
        solver = encoder.solver(limit)
        for clause in clauses:
            solver.add(clause)
        if small is not None:
            for symbol in encoder.integers.values():
                solver.add(symbol <= small, symbol >= -small)
        began = time.perf_counter()
        answer = solver.check()
        seconds += time.perf_counter() - began
        units = spent(solver)
        if answer == z3.unsat:
            return Outcome("proved", units, seconds)
        if not exact:
            continue  # a model of the lemmas may give products wrong values
        if answer == z3.sat:
            return Outcome("refuted", units, seconds, encoder.read(solver.model()))
        return Outcome("unknown", units, seconds, reason=solver.reason_unknown())
    raise AssertionError("true products are exact")


def _encoded(
    facts: Sequence[ir.Expr], goal: ir.Expr, dtypes: Mapping[str, DType], linear: bool, context: z3.Context
) -> tuple[Encoder, list[Any]]:
    import z3

    encoder = Encoder(context, dtypes, linear)
    clauses = [encoder.boolean(f) for f in facts]
    negated = z3.Not(encoder.boolean(goal))
    return encoder, [*clauses, *encoder.definitions(), negated]


def spent(solver: Any) -> int:
    """The resource units that all solvers of its context took."""
    statistics = solver.statistics()
    return statistics.get_key_value("rlimit count") if "rlimit count" in statistics.keys() else 0  # noqa: SIM118 (not a dict)


@dataclass(slots=True)
class Cost:
    """What several queries took: resource units, and seconds of the clock."""

    units: int = 0
    seconds: float = 0.0


def following(
    facts: Sequence[ir.Expr], goals: Sequence[ir.Expr], dtypes: Mapping[str, DType], cost: Cost, limit: int = LIMIT
) -> set[ir.Expr]:
    """Those of the goals that follow from the facts. One context for all of them, in which a counterexample rules out every goal that it breaks.
    What it takes is added to ``cost``."""
    import z3

    encoder = Encoder(z3.Context(), dtypes, linear=True)
    solver = encoder.solver(limit)
    clauses = [encoder.boolean(f) for f in facts]
    left = {goal: encoder.boolean(goal) for goal in dict.fromkeys(goals)}
    for clause in (*clauses, *encoder.definitions()):
        solver.add(clause)

    def check(term: Any) -> Any:
        began = time.perf_counter()
        answer = solver.check(term)
        cost.seconds += time.perf_counter() - began
        return answer

    found: set[ir.Expr] = set()
    while left:
        answer = check(z3.Or(*(z3.Not(term) for term in left.values())))
        if answer == z3.unsat:
            found = set(left)
            break
        if answer != z3.sat:
            found = {goal for goal, term in left.items() if check(z3.Not(term)) == z3.unsat}
            break
        model = solver.model()
        broken = [goal for goal, term in left.items() if not z3.is_true(model.eval(term, model_completion=True))]
        if not broken:
            break
        for goal in broken:
            del left[goal]
    cost.units += spent(solver)
    return found


def settling(
    facts: Sequence[ir.Expr], goal: ir.Expr, candidates: Sequence[ir.Expr], dtypes: Mapping[str, DType], limit: int = LIMIT
) -> list[ir.Expr]:
    """Those of the candidates that, as one more fact each, let the goal follow. One context for all of them."""
    import z3

    context, found = z3.Context(), set[ir.Expr]()
    for linear in (True, False):
        encoder = Encoder(context, dtypes, linear)
        terms = {c: encoder.boolean(c) for c in candidates if c not in found}
        clauses = [*(encoder.boolean(f) for f in facts), z3.Not(encoder.boolean(goal))]
        solver = encoder.solver(limit)
        for clause in (*clauses, *encoder.definitions()):
            solver.add(clause)
        found |= {c for c, term in terms.items() if solver.check(term) == z3.unsat}
        if not encoder.products:
            break
    return [c for c in candidates if c in found]


def text(facts: Sequence[ir.Expr], goal: ir.Expr, dtypes: Mapping[str, DType]) -> str:
    """The query as SMT-LIB 2, with true products, for any solver: ``unsat`` says that the facts imply the goal."""
    import z3

    encoder, clauses = _encoded(facts, goal, dtypes, False, z3.Context())
    solver = encoder.solver(LIMIT)
    for clause in clauses:
        solver.add(clause)
    lines = [line for line in solver.to_smt2().splitlines() if not line.startswith((";", "(set-info"))]
    return "\n".join(["(set-logic QF_UFNIA)", *lines, ""])


def version() -> str:
    """Z3's version: a part of the cache key."""
    import z3

    return z3.get_version_string()  # type: ignore[no-any-return]
