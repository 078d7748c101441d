"""One order of all axes, which is the order of every value's dimensions in the machine, so that no value is ever transposed between operations.

It comes before the tiles because the last axis is the one along which addresses are consecutive. Accesses vote: `x[m, n]` puts m before n, each
pair going to the majority; what they leave open goes by kind (grid, loop, span), then by declaration.
Leaves schedule.order with every axis of the kernel once.
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
    if tuple(order) == kernel.schedule.order:
        return kernel
    return dataclasses.replace(kernel, schedule=dataclasses.replace(kernel.schedule, order=tuple(order)))
