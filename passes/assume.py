"""Facts about speed that a launch can check: that the tiles of an axis divide its extent, so that no lane is padded and no mask is needed.

It comes after the tiles, whose lengths the facts are about, and before `guard`, which leaves out the tails that they save. An axis is worth a check
where its extent depends on dimensions and scalars alone and vectors run along it: there a mask splits vector accesses. A mask over rows costs
nothing, so rows keep theirs, and any number of them may take the exact variant. Beside contractions every loop over tiles is worth one, as that over
the indices of gathered rows: in its body each mask counts. Beside chained ones so are, on Triton, tiles of few rows: their masks stay in registers
through the loop (4 % of sparse attention with 16 heads on an H200; with 64 there is nothing to win). Never a fact about meaning: where a check fails the kernel
means the same, and the variant with masks runs.
Leaves Kernel.hoists, and schedule.exact off where there is nothing to rely on.
"""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.base.target import Target
from nsalang.host.extents import known_at_launch
from nsalang.ir.linear import Facts
from nsalang.ir.printer import show
from nsalang.passes.contractions import are_chained, rows_and_columns
from nsalang.passes.order import dots_of, innermost

FEW_ROWS = 64
"""Rows of a contraction for which Triton has other instructions than for more."""


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    hoists = tuple(dict.fromkeys(saved(kernel).values()))
    schedule = kernel.schedule if hoists else dataclasses.replace(kernel.schedule, exact=False)
    if hoists == kernel.hoists and schedule == kernel.schedule:
        return kernel
    return dataclasses.replace(kernel, hoists=hoists, schedule=schedule)


def saved(kernel: ir.Kernel) -> dict[str, ir.Require]:
    """For each axis whose tail a launch check can save: the check. ``kernel`` has its tiles."""
    facts, last = Facts(dataclasses.replace(kernel, hoists=())), innermost(kernel, kernel.schedule.order)
    accesses = [n for n in ir.walk(kernel) if isinstance(n, ir.Load | ir.Store) and n.tensor in kernel.schedule.vectors]
    along = {a for n in accesses for a in n.indices[-1].axes if a in last}
    if dots := dots_of(kernel):
        along |= {a for n in accesses if isinstance(n, ir.Store) for a in n.indices[-1].axes}
        along |= {name for name, axis in ir.axes_of(kernel).items() if axis.kind == "loop"}
        if kernel.schedule.backend == "triton" and are_chained(dots):
            along |= {a for d in dots for a in rows_and_columns(d)[0] if kernel.schedule.length(a) < FEW_ROWS}
    found: dict[str, ir.Require] = {}
    for name, axis in ir.axes_of(kernel).items():
        length = kernel.schedule.length(name)
        if axis.kind in ("span", "group") or name not in along or length == 1:
            continue
        stop, start = facts.resolved(axis.stop), facts.resolved(axis.start)
        if not (known_at_launch(stop) and known_at_launch(start)):
            continue
        extent = facts.poly(stop) - facts.poly(start)
        if extent.content % length == 0 or extent.atoms == set():
            continue
        size = stop if isinstance(start, ir.Const) and start.value == 0 else ir.binary("sub", stop, start)
        condition = ir.binary("eq", ir.binary("mod", size, ir.const(length)), ir.const(0))
        found[name] = ir.Require(condition, show(condition), span=axis.stop.span)
    return found
