"""How long a backend will take for a program, guessed from its IR before it starts: only to warn of minutes."""

from __future__ import annotations

import math

from nsalang import ir
from nsalang.base.target import Target

BIG = 2**16
"""Lanes from which on a value counts: every thread's code is unrolled over its share of them."""

SLOW = 2**20
"""Lanes of big values, loads and reductions together, that take both backends about a minute (a sum over a span of 2**20: 94 s and more)."""


def slow(kernel: ir.Kernel, target: Target) -> str:
    """What makes the code of a scheduled kernel take minutes to compile, in words; empty where nothing does. Code for the CPU has loops."""
    if target.kind == "cpu":
        return ""
    lanes = 0
    largest: tuple[str, ...] = ()
    for node in ir.walk(kernel):
        if isinstance(node, ir.Load | ir.Reduce | ir.Scan | ir.Dot):
            axes = node.axes if isinstance(node, ir.Load | ir.Dot) else node.x.axes
            count = math.prod(kernel.schedule.length(a) for a in axes)
            if count >= BIG:
                lanes += count
                largest = max(largest, axes, key=lambda of: math.prod(kernel.schedule.length(a) for a in of))
    if lanes < SLOW:
        return ""
    shape = " × ".join(str(kernel.schedule.length(a)) for a in largest)
    return f"it holds values of {shape} lanes (along {', '.join(map(ir.plain, largest))})"
