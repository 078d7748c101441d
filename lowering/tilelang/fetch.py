"""Loads that run ahead of their loop, as groups of asynchronous copies, and how many turns a loop makes."""

from __future__ import annotations

from nsalang import ir
from nsalang.base.dtypes import I64
from nsalang.lowering.text import SIGN, Text, call, infix, number
from nsalang.lowering.tilelang.buffers import buffer, parallel
from nsalang.lowering.tilelang.dtypes import typed
from nsalang.lowering.tilelang.elements import variable
from nsalang.lowering.tilelang.expressions import expr, load, operand
from nsalang.lowering.tilelang.state import Printer


def blocks(p: Printer, s: ir.For, lo: Text, hi: Text, length: int) -> Text:
    """How many turns a loop over blocks makes."""
    if isinstance(s.lo, ir.Const) and isinstance(s.hi, ir.Const):
        return number(max(0, -(-(int(s.hi.value) - int(s.lo.value)) // length)))
    if s.long:
        extent = infix("-", *(call("T.cast", x, '"int64"') for x in (call("T.max", hi, lo), lo)))
        return call("T.cast", call("T.ceildiv", extent, str(length)) if length > 1 else extent, '"int32"')
    extent = hi if isinstance(s.lo, ir.Const) and s.lo.value == 0 else infix("-", hi, lo)
    return call("T.ceildiv", extent, str(length)) if length > 1 else extent


def fetch(p: Printer, s: ir.For, base: Text, hi: Text, version: Text) -> None:
    """What is early for one step that may not exist: its loads, as a group of asynchronous copies, after what their addresses are made of."""
    before, versions = dict(p.bases), dict(p.versions)
    p.bases[s.index] = None if base == number(0) and s.kind == "tile" else base
    exists = f"if {infix('<', base, hi)}:"
    held, loads = early_parts(s)
    for span in (x for x in s.early if isinstance(x, ir.SpanAxis)):
        p.bases[span.axis] = None if span.start == ir.const(0, span.start.dtype) else expr(p, span.start)
    if held:
        with p.out.block(exists, s.span):
            for assign in held:
                if assign.name in s.ahead:
                    buffer(p, assign, s.stages)
                    p.versions[assign.name] = version
                else:
                    buffer(p, assign)
                with parallel(p, assign.value.axes, assign):
                    p.out.line(f"{variable(p, assign.name, assign.value.axes)} = {operand(p, assign.value)}", assign.span)
        p.out.line("T.sync_threads()", s.span)
    with p.out.block(exists, s.span):
        for assign, x in loads:
            buffer(p, assign, s.stages)
            p.versions[assign.name] = version
            with parallel(p, x.axes, assign, p.target.facts.asynchronous):
                # A plain zero, so that the copy itself writes it; beside a short integer it would make an i32 of that.
                short = x.dtype.is_integer and x.dtype.bits < 32
                zero = typed(ir.Const(x.dtype, (), 0)) if short else Text("0")
                p.out.line(f"{variable(p, assign.name, x.axes)} = {load(p, x, zero)}", assign.span)
    if p.target.facts.asynchronous:
        p.out.line("T.ptx_commit_group()", s.span)
    p.bases, p.versions = before, versions


def early_parts(s: ir.For) -> tuple[list[ir.Assign], list[tuple[ir.Assign, ir.Load]]]:
    """What stands before the barrier in what is early, and the loads behind it."""
    at = next((i for i, x in enumerate(s.early) if isinstance(x, ir.Barrier)), 0)
    held = [x for x in s.early[:at] if isinstance(x, ir.Assign)]
    return held, [(x, x.value) for x in s.early[at:] if isinstance(x, ir.Assign) and isinstance(x.value, ir.Load)]


def fetch_next(p: Printer, s: ir.For, counter: Text, base: Text, hi: Text, length: int) -> None:
    """At the beginning of a step: begin to load what a later one needs, and wait for what this one needs."""
    later = s.stages - 1
    fetch(p, s, infix("+", base, number(later * length)), hi, version(p, infix("+", counter, number(later)), s))
    if p.target.facts.asynchronous:
        p.out.line(f"T.ptx_wait_group({later})", s.span)
    p.out.line("T.sync_threads()", s.span)
    for name in s.ahead:
        p.versions[name] = version(p, counter, s)


def version(p: Printer, step: Text, s: ir.For) -> Text:
    """Which of the buffers holds a step. TileLang takes no 64-bit index of a shared buffer beside lanes of 32 bits."""
    which = infix("%", step, number(s.stages))
    return call("T.cast", which, '"int32"') if s.hi.dtype is I64 else which


def atom(p: Printer, x: Text, name: str, s: ir.Stmt) -> Text:
    """A name for what would be written out several times."""
    if x.level >= SIGN and "(" not in str(x):
        return x
    picked = p.names.pick(name)
    p.out.line(f"{picked} = {x}", s.span)
    return Text(picked)
