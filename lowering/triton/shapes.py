"""Shapes of blocks, and index variables as blocks: TileLang has loops over lanes instead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nsalang import ir
from nsalang.base.source import Span
from nsalang.ir.machine import machine_axes, machine_shape, read_axes, used_indices
from nsalang.lowering.text import Text, call, infix, method, number, subscript
from nsalang.lowering.triton.state import Printer


def lifted(p: Printer, text: Text, own: Iterable[str], axes: Iterable[str]) -> Text:
    """A value with the axes ``own`` as one with the dimensions of ``axes``, length 1 where it lacks one. A scalar goes with everything as it is."""
    mine, wanted = machine_axes(p.kernel, own), machine_axes(p.kernel, axes)
    if not mine or mine == wanted:
        return text
    return subscript(text, ", ".join(":" if a in mine else "None" for a in wanted))


def shape(p: Printer, axes: Iterable[str]) -> str:
    sizes = machine_shape(p.kernel, axes)
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def long(p: Printer, axes: Iterable[str]) -> tuple[str, ...]:
    """Those of ``axes`` that have more than one lane, outermost first."""
    return tuple(i for i in machine_axes(p.kernel, axes) if p.kernel.schedule.length(i) > 1)


def sizes(p: Printer, groups: Sequence[tuple[str, ...]]) -> tuple[int, ...]:
    return tuple(math.prod(p.kernel.schedule.length(i) for i in group) for group in groups)


def block_axis(p: Printer, axis: str, start: Text | None, span: Span | None, constant: bool = False) -> None:
    """The variables of an axis, which begins at ``start`` (None: at 0), and of the first lanes of its groups, as far as the code reads them.
    ``constant``: nothing in ``start`` has 64 bits."""
    for each in read_axes(p.kernel, axis):
        lanes = call("tl.arange", "0", str(p.kernel.schedule.length(each)))
        if (step := p.kernel.schedule.step(each)) > 1:
            lanes = infix("*", lanes, number(step))
        if constant and used_indices(p.kernel)[each]:
            lanes = method(lanes, "to", "tl.int64")
        if each not in p.indices:
            p.indices[each] = p.names.pick(ir.plain(each))
        p.out.line(f"{p.indices[each]} = {lanes if start is None else infix('+', start, lanes)}", span)
