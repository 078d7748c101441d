"""One order of all axes, which is the order of every value's dimensions in the machine, so that no value is ever transposed between operations.

It comes before the tiles because the last axis is the one along which addresses are consecutive. Accesses vote: `x[m, n]` puts m before n, each
pair going to the majority; what they leave open goes by kind (grid, loop, span), then by declaration.
A contraction's vote outweighs all accesses: its batch axes first, then its rows, then its columns, and a side of several axes before the axis that
is summed over, so that each operand is one plain block. Its columns are the side with an axis that is reduced next, since a thread holds whole
rows; where that decides nothing, the sides go as the accesses put them.
The last axis of an access of most axes is an innermost one; tensors whose own last index runs along such an axis can be accessed by vectors. Beside
contractions, these are the tensors with blocks along an axis that is summed over, and the outputs whose rows are aligned where theirs are; of other
blocks, only the elements of a row lie side by side.
Leaves schedule.order with every axis of the kernel once, schedule.vectors and rows, and Dot.left. Raises NSA0412 where no order fits all contractions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import combinations, product

from nsalang import ir
from nsalang.base.source import NsaError
from nsalang.base.target import Target
from nsalang.passes.contract import batch_axes, sides

KINDS = ("grid", "loop", "span")
STRONG = 1_000_000
"""A contraction's vote."""
Votes = dict[tuple[str, str], int]


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    axes = ir.axes_of(kernel)
    dots = dots_of(kernel)
    votes: Votes = {}
    for node in ir.walk(kernel):
        if isinstance(node, ir.Load | ir.Store):
            for first, second in combinations(node.indices, 2):
                for a in first.axes:
                    for b in second.axes:
                        if a != b:
                            votes[a, b] = votes.get((a, b), 0) + 1
    declared = sorted(axes, key=lambda a: (KINDS.index(axes[a].kind), list(axes).index(a)))
    for dot, rows, columns in _oriented(kernel, dots, votes, declared):
        several = [side for side in (rows, columns) if len(side) > 1]
        pairs = [(batch_axes(dot), (*rows, *columns)), (rows, columns), *((side, (dot.over,)) for side in several)]
        for before, after in pairs:
            for a, b in product(before, after):
                votes[a, b] = votes.get((a, b), 0) + STRONG
    left = list(declared)
    order: list[str] = []
    while left:
        # Where votes go round in a circle, contractions have their way, and the first by kind and declaration breaks it.
        free = _unopposed(left, votes, 1) or _unopposed(left, votes, STRONG // 2)
        chosen = (free or left)[0]
        order.append(chosen)
        left.remove(chosen)
    vectors = _vectors(kernel, tuple(order))
    schedule = dataclasses.replace(kernel.schedule, order=tuple(order), vectors=vectors, rows=_rows(kernel, vectors))
    if dots:
        kernel = dataclasses.replace(kernel, body=tuple(ir.rewrite(s, lambda n: _turned(n, order)) for s in kernel.body))
    return kernel if schedule == kernel.schedule else dataclasses.replace(kernel, schedule=schedule)


def _unopposed(left: list[str], votes: Votes, margin: int) -> list[str]:
    """The axes before which no other wants to be, by such a margin."""
    return [a for a in left if all(votes.get((b, a), 0) < votes.get((a, b), 0) + margin for b in left if b != a)]


def dots_of(kernel: ir.Kernel) -> tuple[ir.Dot, ...]:
    """The contractions of a kernel, in program order."""
    return tuple(n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Dot))


def _oriented(
    kernel: ir.Kernel, dots: tuple[ir.Dot, ...], votes: Votes, declared: list[str]
) -> Iterator[tuple[ir.Dot, tuple[str, ...], tuple[str, ...]]]:
    """Each contraction with its rows and its columns."""
    if not dots:
        return
    reduced = _reduced_next(kernel)
    for dot in dots:
        a, b = sides(dot)
        swap = sum(votes.get((y, x), 0) - votes.get((x, y), 0) for x, y in product(a, b))
        if swap == 0:
            swap = 1 if min(map(declared.index, b)) < min(map(declared.index, a)) else -1
        next_ = reduced.get(id(dot), frozenset())
        on_a, on_b = not next_.isdisjoint(a), not next_.isdisjoint(b)
        if on_a != on_b:
            swap = 1 if on_a else -1
        yield dot, *((b, a) if swap > 0 else (a, b))


def _reduced_next(kernel: ir.Kernel) -> dict[int, frozenset[str]]:
    """For each contraction, by identity: which axes are reduced of a value that comes from it, before another contraction or a reduction."""
    sources: dict[str, set[int]] = {}

    def origins(node: ir.Node) -> set[int]:
        match node:
            case ir.Dot():
                return {id(node)} | (set() if node.acc is None else origins(node.acc))
            case ir.Reduce() | ir.Scan() | ir.Load() | ir.Search():
                return set()
            case ir.Var():
                return sources.get(node.name, set())
            case _:
                return {i for child in ir.children(node) for i in origins(child)}

    assigned = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Assign)]
    changed = True
    while changed:
        changed = False
        for statement in assigned:
            found = sources.get(statement.name, set()) | origins(statement.value)
            changed = changed or found != sources.get(statement.name, set())
            sources[statement.name] = found
    reduced: dict[int, frozenset[str]] = {}
    for node in (n for s in kernel.body for n in ir.walk(s)):
        if isinstance(node, ir.Reduce | ir.Scan):
            over = (node.over,) if isinstance(node, ir.Scan) else node.over
            for i in origins(node.x):
                reduced[i] = reduced.get(i, frozenset()) | frozenset(over)
    return reduced


def _turned(node: ir.Node, order: list[str]) -> ir.Node:
    """A contraction whose rows are the side that comes first in the order."""
    if not isinstance(node, ir.Dot):
        return node
    a, b = (tuple(sorted(side, key=order.index)) for side in sides(node))
    rows, columns = (a, b) if order.index(a[0]) < order.index(b[0]) else (b, a)
    batch = sorted(batch_axes(node), key=order.index)
    fits = sorted(node.axes, key=order.index) == [*batch, *rows, *columns] and all(
        len({order.index(x) < order.index(node.over) for x in side}) == 1 for side in (rows, columns)
    )
    if not fits:
        shape = ", ".join(ir.plain(x) for x in sorted(node.axes, key=order.index))
        sentence = f"no order of the axes suits all contractions of this kernel: this one's result would have the axes {shape}, with rows and columns mixed"
        raise NsaError.at("NSA0412", sentence, node.span, help="contract over fewer axes at a time, or store and load the value between")
    return dataclasses.replace(node, left=rows)


def innermost(kernel: ir.Kernel, order: tuple[str, ...]) -> set[str]:
    """The last axes of the accesses that have most axes."""
    accesses = [n for n in ir.walk(kernel) if isinstance(n, ir.Load | ir.Store) and n.axes and n.indices]
    most = max((len(n.axes) for n in accesses), default=0)
    return {ir.join(n.axes, order=order)[-1] for n in accesses if len(n.axes) == most}


def _vectors(kernel: ir.Kernel, order: tuple[str, ...]) -> tuple[str, ...]:
    accesses = [n for n in ir.walk(kernel) if isinstance(n, ir.Load | ir.Store) and n.indices]
    dots = dots_of(kernel)
    if not dots:
        last = innermost(kernel, order)
        found = {n.tensor for n in accesses if last.intersection(n.indices[-1].axes)}
        return tuple(t.name for t in kernel.arrays if t.name in found)
    summed, spans = {d.over for d in dots}, {n.axis for n in ir.walk(kernel) if isinstance(n, ir.SpanAxis)}
    blocks = [n for n in accesses if len(n.axes) > 1 and _runs_along(n.indices[-1])]
    found = {n.tensor for n in blocks if isinstance(n, ir.Load) and not summed.isdisjoint(n.axes)}
    extents = {repr(kernel.tensor(name).shape[-1]) for name in found}
    # A store must not cost the reads their alignment: its rows are aligned where theirs are, or as long as a span.
    for n in blocks:
        if isinstance(n, ir.Store) and (not spans.isdisjoint(n.indices[-1].axes) or repr(kernel.tensor(n.tensor).shape[-1]) in extents):
            found.add(n.tensor)
    return tuple(t.name for t in kernel.arrays if t.name in found)


def _rows(kernel: ir.Kernel, vectors: tuple[str, ...]) -> tuple[str, ...]:
    """Beside contractions: the other tensors that are read or written along their last index."""
    if not dots_of(kernel):
        return ()
    accesses = [n for n in ir.walk(kernel) if isinstance(n, ir.Load | ir.Store) and n.indices]
    found = {n.tensor for n in accesses if _runs_along(n.indices[-1])}
    return tuple(t.name for t in kernel.arrays if t.name in found and t.name not in vectors)


def _runs_along(index: ir.Expr) -> bool:
    """Whether an index is that of an axis, moved at most."""
    match index:
        case ir.Index():
            return bool(index.axes)
        case ir.Binary(op="add" | "sub", a=a, b=b):
            return (_runs_along(a) and not b.axes) or (index.op == "add" and _runs_along(b) and not a.axes)
        case _:
            return False
