"""Reductions that TileLang has no function for, by a loop over the axis: Triton takes a function of two lanes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from nsalang import ir
from nsalang.lowering.tilelang.buffers import parallel
from nsalang.lowering.tilelang.elements import element
from nsalang.lowering.tilelang.state import Printer


def combine(p: Printer, sign: str, buffers: tuple[str, str], axes: Sequence[str], axis: str, s: ir.Assign) -> None:
    """One lane of ``axis`` after the other, from shared memory: by each thread for the lanes that it holds of the other axes."""
    source, target = buffers
    kept, step = [a for a in axes if a != axis], p.names.pick("step")
    with parallel(p, kept, s) if kept else nullcontext():
        into = element(p, target, kept) if kept else f"{target}[0]"
        first, each = (f"{source}[{', '.join(lane if a == axis else p.lane[a] for a in axes)}]" for lane in ("0", step))
        p.out.line(f"{into} = {first}", s.span)
        with p.out.block(f"for {step} in T.serial(1, {p.kernel.schedule.length(axis)}):", s.span):
            p.out.line(f"{into} = {into} {sign} {each}", s.span)
