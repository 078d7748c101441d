"""Which axes need indices of 64 bits in a schedule that is not wide: those whose ends come from data and may lie beyond every dimension.

An end may be cut to what 32 bits hold only where nobody can see that: where the body makes, in each of its turns and by no one's condition, an access
with the index itself, which the prover showed to be inside. Lanes that exist are then below a dimension, and where none exists none does with both
ends cut. What a loop counts, a value made of the index, or lanes that only a reduction sees, would come out wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

from nsalang import ir
from nsalang.base.dtypes import I32
from nsalang.host.extents import known_at_launch
from nsalang.ir.intervals import NARROW_DIM, Bounds
from nsalang.ir.linear import Facts
from nsalang.passes.simplify import heads


def far_axes(kernel: ir.Kernel, bounds: Bounds) -> frozenset[str]:
    """The indices that do not fit 32 bits, and of these the first lanes of their groups."""
    if kernel.schedule.wide:
        return frozenset()
    found: set[str] = set()
    for block in _blocks(kernel.body):
        for node in block:
            match node:
                case ir.SpanAxis():
                    ends = [node.start] if node.stop is None else [node.start, node.stop]
                    if not all(_is_near(e, bounds) for e in ends) and not _is_accessed(node.axis, block, kernel):
                        found.add(node.axis)
                case ir.For():
                    # A launch looks at those ends that it knows. An index that has no lanes ends below its end.
                    near = [e for e in (node.lo, node.hi) if bounds.of(e).within(I32)] if node.kind == "range" else []
                    ends = [e for e in (node.lo, node.hi) if not any(e is n for n in near) and not _is_near(e, bounds)]
                    if ends and not _are_known(ends, kernel) and not _is_accessed(node.index, node.body, kernel):
                        found.add(node.index)
    return frozenset(found.union(*(kernel.schedule.groups_of(a) for a in found)))


def _blocks(body: tuple[ir.Stmt, ...]) -> Iterator[tuple[ir.Stmt, ...]]:
    yield body
    for node in body:
        match node:
            case ir.For():
                yield from _blocks(node.body)
            case ir.If():
                yield from _blocks(node.body)
                yield from _blocks(node.orelse)


def _is_near(end: ir.Expr, bounds: Bounds) -> bool:
    found = bounds.of(end)
    return I32.min <= found.lo and found.hi <= NARROW_DIM


def _are_known(ends: list[ir.Expr], kernel: ir.Kernel) -> bool:
    facts = Facts(kernel)
    return all(known_at_launch(facts.resolved(e)) for e in ends)


def _is_accessed(axis: str, block: tuple[ir.Stmt, ...], kernel: ir.Kernel) -> bool:
    """Whether each run of a block accesses some tensor at the index itself, in every lane that exists."""
    return any(
        _index_of(i) == axis and _is_unconditional(node, axis, kernel)
        for statement in block
        for part in ((statement, *heads(statement)) if isinstance(statement, ir.Store) else heads(statement))
        for node in (ir.walk(part) if not isinstance(part, ir.Store) else (part,))
        if isinstance(node, ir.Load | ir.Store)
        for i in node.indices
    )


def _index_of(x: ir.Expr) -> str | None:
    while isinstance(x, ir.Cast) and x.dtype.kind == "signed" and x.x.dtype.kind == "signed" and x.dtype.bits >= x.x.dtype.bits:
        x = x.x
    return x.name if isinstance(x, ir.Index) else None


def _is_unconditional(node: ir.Load | ir.Store, axis: str, kernel: ir.Kernel) -> bool:
    """Whether an access that is proved has no mask but those of lanes that tiles pad, and lanes of all of its other axes exist."""
    assert node.proof is not None
    if node.proof.verdict == "UNKNOWN" or "author" in node.proof.mask or kernel.schedule.checked:
        return False
    empty = {s.axis for b in _blocks(kernel.body) for s in b if isinstance(s, ir.SpanAxis) and (s.stop is not None or s.length == 0)}
    return not empty & {a for a in node.axes if a != axis}
