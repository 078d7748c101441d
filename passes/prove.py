"""Verdicts on what the author's text must fulfil, before anything is chosen: no access outside, no two writers, nothing divided by 0, and so on.

It comes after `simplify`, which spares the prover what is constant, and before `expand` and the tiles: a proof is about what the author wrote, not
about the machine. What is REFUTED is an error that shows a counterexample; what is UNKNOWN is one too, unless schedule.allow_unknown: then an
access is guarded by its tensor's bounds, and any other obligation (a divisor, a race, coverage) is trusted.
A guard that asks whether any lane of a block is looked at costs more than reading: where the read is inside its tensor anyway it goes without,
and the lanes that its author does not look at hold what is there.
An integer whose bound speaks of dimensions and scalars alone is PROVED under a requirement that is added here and checked at launch.
Leaves Load.proof and Store.proof: PROVED, or UNKNOWN where that is allowed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nsalang import ir
from nsalang.base.source import Diagnostic, NsaError, Span
from nsalang.base.target import Target
from nsalang.ir.intervals import conjuncts
from nsalang.proof.obligations import Obligation, counts_lanes
from nsalang.proof.prover import Result, settle
from nsalang.refute.wording import text

PROVED, UNKNOWN = ir.Proof("PROVED"), ir.Proof("UNKNOWN")


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one obligation, and the error that tells a user what is not PROVED, if there is one to tell."""

    result: Result
    diagnostic: Diagnostic | None


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    allowed = kernel.schedule.allow_unknown
    judged = judge(kernel)
    errors = [j.diagnostic for j in judged if j.diagnostic is not None and not (allowed and j.result.verdict == "UNKNOWN")]
    if errors:
        raise NsaError(*errors)
    # A helper's text is at one place however often it is called: an access is PROVED where all that is said of its place is.
    open_ = {_place(j.result.obligation) for j in judged if j.result.obligation.kind == "range" and j.result.verdict != "PROVED"}
    settled = {_place(j.result.obligation) for j in judged if j.result.obligation.kind == "range"} - open_
    guarded = {_place(j.result.obligation) for j in judged if not j.result.unguarded}
    order = tuple(ir.axes_of(kernel))

    def rule(node: ir.Node) -> ir.Node:
        if not isinstance(node, ir.Load | ir.Store):
            return node
        places = {(_position(node.span), node.tensor, axis) for axis in range(len(node.indices))}
        if places <= settled - guarded and counts_lanes(node) and ir.join(*(i.axes for i in node.indices), order=order) == node.axes:
            node = dataclasses.replace(node, guard=None)
        return dataclasses.replace(node, proof=PROVED if places <= settled else UNKNOWN)

    return dataclasses.replace(ir.rewrite(kernel, rule), requires=(*kernel.requires, *_implied(kernel, [j.result for j in judged])))


def _implied(kernel: ir.Kernel, results: list[Result]) -> list[ir.Require]:
    """What the proofs rest on that a launch must check."""
    found: dict[ir.Expr, ir.Require] = {}
    for result in results:
        bound, o = result.obligation.bound, result.obligation
        if result.why == "require" and bound is not None:
            for part in conjuncts(bound):
                if part not in found and all(part != r.condition for r in kernel.requires):
                    found[part] = ir.Require(part, text(part), because=f"the size of '{o.what}'", span=o.span)
    return list(found.values())


def judge(kernel: ir.Kernel) -> tuple[Judgement, ...]:
    """Every obligation of a kernel with its verdict, in program order.

    A REFUTED one whose counterexample does not fault is UNKNOWN. Where another is REFUTED it nearly always follows from that, and has no error.
    """
    results = settle(kernel)
    if all(r.verdict == "PROVED" for r in results):
        return tuple(Judgement(r, None) for r in results)
    # Only kernels with errors pay for it.
    from nsalang.refute import search as refute

    shown = [refute.diagnose(kernel, r) if r.verdict == "REFUTED" else None for r in results]
    found: list[Judgement] = []
    for result, diagnostic in zip(results, shown, strict=True):
        if result.verdict == "REFUTED" and diagnostic is None:
            result = dataclasses.replace(result, verdict="UNKNOWN")
            diagnostic = None if any(shown) else refute.unknown(kernel, result)
        elif result.verdict == "UNKNOWN":
            diagnostic = refute.unknown(kernel, result)
        found.append(Judgement(result, diagnostic))
    return tuple(found)


def _position(span: Span | None) -> tuple[int, int, int, int]:
    return (0, 0, 0, 0) if span is None else (span.line, span.column, span.end_line, span.end_column)


def _place(obligation: Obligation) -> tuple[tuple[int, int, int, int], str, int]:
    return _position(obligation.span), obligation.tensor, obligation.position
