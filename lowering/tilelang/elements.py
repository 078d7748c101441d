"""The element of a variable in the lanes of the T.Parallel loop being printed: a Triton program has whole blocks instead."""

from __future__ import annotations

from collections.abc import Sequence

from nsalang import ir
from nsalang.ir.machine import machine_axes
from nsalang.lowering.text import PRODUCT, Text, infix, number, subscript
from nsalang.lowering.tilelang.state import Printer


def variable(p: Printer, name: str, axes: Sequence[str]) -> Text:
    """The element of a variable in the lanes being printed."""
    at = [p.versions[name]] if name in p.versions else []
    if name in p.lying:
        return subscript(Text(p.buffers[name]), ", ".join(map(str, [*at, *(flat(p, group) for group in p.lying[name])])))
    return element(p, p.buffers[name], axes, *at)


def flat(p: Printer, axes: Sequence[str]) -> Text:
    """The number of the lane in several axes, the last of which runs fastest."""
    out = Text("0")
    for a in axes:
        if (length := p.kernel.schedule.length(a)) > 1 or len(axes) == 1:
            out = Text(p.lane[a]) if str(out) == "0" else infix("+", infix("*", out, number(length)), Text(p.lane[a]))
    return out


def element(p: Printer, buffer: str, axes: Sequence[str], *at: Text) -> Text:
    """The element of a buffer in the lanes being printed. ``at``: which of several buffers."""
    mine = machine_axes(p.kernel, axes)
    return subscript(Text(buffer), ", ".join(map(str, [*at, *(p.lane[a] for a in mine)])) or "0")


def index(p: Printer, x: ir.Index) -> Text:
    """An index variable: where its block begins, and the lane; of groups, the first of each."""
    begin = base(p, x)
    if not x.axes:
        assert begin is not None
        return begin
    lane, step = Text(p.lane[x.name]), p.kernel.schedule.step(x.name)
    if step > 1:
        lane = infix("*", Text(str(lane), PRODUCT), number(step))
    return lane if begin is None else infix("+", begin, lane)


def base(p: Printer, x: ir.Index) -> Text | None:
    """Where the block of an index begins; groups begin where the axis does that they are of."""
    return p.bases[p.kernel.schedule.grouped(x.name)]
