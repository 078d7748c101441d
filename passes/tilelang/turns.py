"""How many turns a loop may make.

TileLang's loops count their turns, from the end minus the beginning of the author's. Both may fit 32 bits where that does not, as where data says that
a loop ends long before it begins.
Leaves ``For.long`` at such loops: they count in 64 bits.
"""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.base.dtypes import I32
from nsalang.base.target import Target
from nsalang.ir.intervals import Bounds, Interval


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    if kernel.schedule.backend != "tilelang":
        return kernel
    bounds = Bounds(kernel)

    def rule(node: ir.Node) -> ir.Node:
        if not isinstance(node, ir.For) or node.lo.dtype is not I32 or node.hi.dtype is not I32:
            return node
        lo, hi = bounds.of(node.lo), bounds.of(node.hi)
        tail = kernel.schedule.length(node.index) - 1 if node.kind == "tile" else 0
        return node if Interval(hi.lo - lo.hi, hi.hi - lo.lo + tail).within(I32) else dataclasses.replace(node, long=True)

    return ir.rewrite(kernel, rule)
