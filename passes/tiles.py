"""Lengths of tiles and numbers of warps, by one rule; before `guard`, which has to know where a tile has a tail.

The rule. A program works on about 4096 elements of its widest value (the one with the most lanes), 32 for each of the threads of 4 warps.
A span has the power of two at or above its length. Tile axes that are the innermost of all their values come first: a loop along one takes up to
1024 lanes; a grid tile up to 1024 where it is the only tile of its values, 256 beside other grid tiles, and 64 beside a loop or in a transpose,
so that whole 128-byte lines are read and enough programs remain. The other tile axes, from the inside out, share what is left of the 4096, at
most 128 each. Where an extent is known to divide by a power of two of at least 32, a length divides it too, and the tail vanishes; a constant
extent is not exceeded by a factor of two. Pinned lengths win. There is a warp for every 512 elements of the widest value, up to 4, and from 8192 elements on 8.
The axes of contractions, and with them warps and stages, follow the rule of `contraction_tiles.py`; other axes get what that leaves.
Leaves schedule.lengths (powers of two, one for each axis), warps, stages, classes, and in why a line for each choice.
"""

from __future__ import annotations

import dataclasses
from math import prod

from nsalang import ir
from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import Target
from nsalang.ir.linear import Facts
from nsalang.passes import contraction_tiles
from nsalang.passes.pins import Pins, pins_of, power_above

ELEMENTS = 4096
LIMIT = 2**20
"""Elements of one value, as Triton allows."""


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    axes = ir.axes_of(kernel)
    pins = pins_of(kernel)
    values = _values(kernel)
    facts = Facts(kernel)
    chosen = contraction_tiles.choose(kernel, target, pins)
    lengths: dict[str, int] = {} if chosen is None else dict(chosen.lengths)
    why: list[str] = []
    for name, axis in axes.items():
        if name in lengths:
            continue
        if name in pins.lengths:
            lengths[name] = pins.lengths[name]
            why.append(f"{name}: {pins.lengths[name]}, pinned")
        elif axis.length is not None:
            lengths[name] = power_above(axis.length)
            why.append(f"{name}: {lengths[name]}, for a span of {axis.length}")
    free = [a for a in reversed(kernel.schedule.order) if a not in lengths]
    leading = [a for a in free if all(ir.join(v, order=kernel.schedule.order)[-1] == a for v in values if a in v)]
    for name in [*leading, *(a for a in free if a not in leading)]:
        beside = [v for v in values if name in v]
        left = min((max(1, ELEMENTS // prod(lengths.get(a, 1) for a in v)) for v in beside), default=ELEMENTS)
        others = {a for v in beside for a in v if a in free and a != name}
        if name not in leading:
            choice, reason = min(left, 128), f"what is left of {ELEMENTS} elements"
        elif axes[name].kind == "loop":
            choice, reason = min(max(left, 64), 1024), "a loop along the innermost axis"
        elif not others:
            choice, reason = min(max(left, 64), 1024), "the innermost axis, the only tile"
        else:
            looped = any(axes[a].kind == "loop" for a in others)
            choice, reason = (
                min(max(left, 64), 64 if looped or _last_elsewhere(kernel, others) else 256),
                "the innermost axis, beside other tiles",
            )
        lengths[name], reason = _fitting(facts, axes[name], choice, reason)
        why.append(f"{name}: {lengths[name]}, {reason}")
    _check_sizes(kernel, lengths, pins)
    if chosen is None:
        widest = max((prod(lengths[a] for a in v) for v in values), default=1)
        warps, stages = pins.options.get("warps", warps_for(widest, target)), pins.options.get("stages", 1)
        classes = kernel.schedule.classes
        why.append(f"warps: {warps}, {'pinned' if 'warps' in pins.options else f'for {widest} elements of the widest value'}")
    else:
        warps, stages, classes, why = chosen.warps, chosen.stages, chosen.classes, [*chosen.why[:-2], *why, *chosen.why[-2:]]
    ordered = tuple((a, lengths[a]) for a in axes)
    schedule = dataclasses.replace(kernel.schedule, lengths=ordered, warps=warps, stages=stages, classes=classes, why=tuple(why))
    return kernel if schedule == kernel.schedule else dataclasses.replace(kernel, schedule=schedule)


def power_in(n: int) -> int:
    """The greatest power of two that divides ``n``."""
    return n & -n


def warps_for(elements: int, target: Target) -> int:
    """Warps for a widest value of so many elements: 16 elements a thread at least, 32 from 4 warps on."""
    per_warp = 16 * target.facts.warp
    wanted = min(elements // per_warp, max(4, elements // (2 * per_warp)))
    return min(8, max(1, 1 << max(0, wanted.bit_length() - 1)))


def _last_elsewhere(kernel: ir.Kernel, axes: set[str]) -> bool:
    """Whether an access of several axes runs along one of these axes: a transpose, which wants a square tile."""
    accesses = [n for n in ir.walk(kernel) if isinstance(n, ir.Load | ir.Store) and len(n.axes) > 1]
    return any(axes.intersection(n.indices[-1].axes) for n in accesses)


def _fitting(facts: Facts, axis: ir.AxisInfo, choice: int, reason: str) -> tuple[int, str]:
    """A length that divides the extent where one of at least 32 does, and that is not far above a constant extent."""
    extent = facts.poly(axis.stop) - facts.poly(axis.start)
    known = power_in(extent.content)
    if known >= 32:
        return min(choice, known), f"{reason}, dividing its extent" if known < choice else reason
    if len(extent.terms) <= 1 and all(m == () for m, _ in extent.terms):
        least = power_above(max(1, extent.content))
        return (least, f"its extent is {extent.content}") if least < choice else (choice, reason)
    return choice, reason


def _values(kernel: ir.Kernel) -> list[tuple[str, ...]]:
    """The axis sets of all values, each once."""
    found: dict[tuple[str, ...], None] = {}
    for statement in kernel.body:
        for node in ir.walk(statement):
            if isinstance(node, ir.Value | ir.Store) and node.axes:
                found[node.axes] = None
    return list(found)


def _check_sizes(kernel: ir.Kernel, lengths: dict[str, int], pins: Pins) -> None:
    """Raises NSA0410 at the first value of each axis set that is too large, and NSA0408 where pins make it so, once for the same pins."""
    problems: dict[frozenset[str], Diagnostic] = {}
    given, axes = dict(kernel.schedule.pinned), ir.axes_of(kernel)
    for statement in kernel.body:
        for node in ir.walk(statement):
            if not isinstance(node, ir.Value | ir.Store) or prod(lengths[a] for a in node.axes) <= LIMIT:
                continue
            shape = " x ".join(f"{ir.plain(a)} {lengths[a]}" for a in node.axes)
            pinned = [a for a in node.axes if a in pins.lengths and axes[a].length is None]  # a span's length is what it is
            if pinned and prod(lengths[a] for a in node.axes if a not in pinned) <= LIMIT:
                said = " and ".join(f"'{a if a in given else ir.plain(a)}' to {lengths[a]}" for a in pinned)
                sentence = (
                    f"the schedule pins {said}, and a value over {shape} has more than {LIMIT} elements, more than one program can hold"
                )
                problem = Diagnostic("NSA0408", sentence, node.span, helps=("pin a shorter length",))
                problems.setdefault(frozenset(map(ir.plain, pinned)), problem)
            else:
                sentence = f"a value over {shape} has more than {LIMIT} elements, more than one program can hold"
                problems.setdefault(
                    frozenset(node.axes), Diagnostic("NSA0410", sentence, node.span, helps=("use tile(…) for a long axis",))
                )
    if problems:
        raise NsaError(*problems.values())
