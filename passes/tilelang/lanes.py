"""Which lanes of a statement TileLang may put side by side in a vector.

Leaves ``alone`` and ``widest`` at each statement: the axes along which neighbours go ways of their own (alone.py), where a GPU's threads share the
lanes; and at most four lanes of bools in CUDA (bools.py).
"""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.base.target import Target
from nsalang.ir.machine import machine_axes
from nsalang.passes.tilelang.alone import goes_lane_by_lane
from nsalang.passes.tilelang.bools import MOST, bool_axes, is_narrow


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    if kernel.schedule.backend != "tilelang" or target.kind == "cpu":
        return kernel
    bools = bool_axes(kernel) if target.kind == "cuda" else frozenset()

    def rule(node: ir.Node) -> ir.Node:
        if not isinstance(node, ir.Assign | ir.Store):
            return node
        axes = machine_axes(kernel, {a for n in ir.walk(node) if isinstance(n, ir.Value | ir.Store) for a in n.axes})
        alone = tuple(a for a in axes if goes_lane_by_lane(kernel, node, a))
        widest = MOST if is_narrow(kernel, node, bools) else 0
        return dataclasses.replace(node, alone=alone, widest=widest) if alone or widest else node

    return ir.rewrite(kernel, rule)
