"""One order of all axes, which is the order of every value's dimensions in the machine, so that no value is ever transposed between operations.

It comes before the tiles because the last axis is the one along which addresses are consecutive. Accesses vote: `x[m, n]` puts m before n, each
pair going to the majority; what they leave open goes by kind (grid, loop, span), then by declaration.
The last axis of an access of most axes is an innermost one; tensors whose own last index runs along such an axis can be accessed by vectors.
Leaves schedule.order with every axis of the kernel once, and schedule.vectors.
"""

from __future__ import annotations

import dataclasses
from itertools import combinations

from nsalang import ir
from nsalang.target import Target

KINDS = ("grid", "loop", "span")


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    axes = ir.axes_of(kernel)
    votes: dict[tuple[str, str], int] = {}
    for node in ir.walk(kernel):
        if isinstance(node, ir.Load | ir.Store):
            for first, second in combinations(node.indices, 2):
                for a in first.axes:
                    for b in second.axes:
                        if a != b:
                            votes[a, b] = votes.get((a, b), 0) + 1
    left = sorted(axes, key=lambda a: (KINDS.index(axes[a].kind), list(axes).index(a)))
    order: list[str] = []
    while left:
        # Where votes go round in a circle, the first by kind and declaration breaks it.
        free = [a for a in left if all(votes.get((b, a), 0) <= votes.get((a, b), 0) for b in left if b != a)]
        chosen = (free or left)[0]
        order.append(chosen)
        left.remove(chosen)
    schedule = dataclasses.replace(kernel.schedule, order=tuple(order), vectors=_vectors(kernel, tuple(order)))
    return kernel if schedule == kernel.schedule else dataclasses.replace(kernel, schedule=schedule)


def _vectors(kernel: ir.Kernel, order: tuple[str, ...]) -> tuple[str, ...]:
    accesses = [n for n in ir.walk(kernel) if isinstance(n, ir.Load | ir.Store) and n.axes and n.indices]
    most = max((len(n.axes) for n in accesses), default=0)
    innermost = {ir.join(n.axes, order=order)[-1] for n in accesses if len(n.axes) == most}
    found = {n.tensor for n in accesses if innermost.intersection(n.indices[-1].axes)}
    return tuple(t.name for t in kernel.tensors if t.name in found)
