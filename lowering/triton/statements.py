"""Statements of the IR as Triton's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from nsalang import ir
from nsalang.ir.machine import read_axes, used_indices
from nsalang.lowering.text import Text, arms, call
from nsalang.lowering.triton.blocks import dot, reduce, scan
from nsalang.lowering.triton.dtypes import typed
from nsalang.lowering.triton.expressions import access, expr, load, mask, operand
from nsalang.lowering.triton.shapes import block_axis
from nsalang.lowering.triton.state import Printer


def statements(p: Printer, body: Sequence[ir.Stmt]) -> None:
    for s in body:
        statement(p, s)


def statement(p: Printer, s: ir.Stmt) -> None:
    match s:
        case ir.Assign():
            assign(p, s)
        case ir.Store():
            store(p, s)
        case ir.SpanAxis():
            if read_axes(p.kernel, s.axis):
                span_axis(p, s)
        case ir.For():
            loop(p, s)
        case ir.If():
            branch(p, s)
        case ir.Barrier():
            p.out.line("tl.debug_barrier()", s.span)
        case _:
            assert_never(s)


def assign(p: Printer, s: ir.Assign) -> None:
    match s.value:
        case ir.Dot() as x:
            made = dot(p, x)
        case ir.Reduce() as x:
            made = reduce(p, x)
        case ir.Scan() as x:
            made = scan(p, x)
        case ir.Load() as x:
            made = load(p, x)
        case ir.Const() as x if s.name in p.twice:
            made = typed(p, x)
        case x:
            made = expr(p, x)
    p.out.line(f"{p.variable(s.name)} = {made}", s.span)


def store(p: Printer, s: ir.Store) -> None:
    named = {"mask": mask(p, s.mask, s.axes)} if s.mask is not None else {}
    place = access(p, s.tensor, s.indices, s.axes)
    if s.mode == "add":
        # It gives back what was there; nobody waits for that.
        line = call("tl.atomic_add", place, operand(p, s.value, s), **named, sem='"relaxed"')
    else:
        line = call("tl.store", place, expr(p, s.value, s.axes), **named)
    p.out.line(str(line), s.span)


def span_axis(p: Printer, s: ir.SpanAxis) -> None:
    from_zero = isinstance(s.start, ir.Const) and s.start.value == 0
    block_axis(p, s.axis, None if from_zero else expr(p, s.start), s.span, isinstance(s.start, ir.Const))


def loop(p: Printer, s: ir.For) -> None:
    wide = used_indices(p.kernel).get(s.index, False)
    lo, hi = expr(p, s.lo), expr(p, s.hi)
    if wide and isinstance(s.lo, ir.Const) and isinstance(s.hi, ir.Const):
        lo = call("tl.full", "()", lo, "tl.int64")
    bounds = [hi] if s.kind == "range" and lo.text == "0" else [lo, hi]
    name = p.names.pick(ir.plain(s.index))
    p.indices[s.index] = name
    serial, stages = ("tl.range", {"num_stages": str(s.stages)}) if s.stages else ("range", {})
    if s.kind == "range":
        with p.out.block(f"for {name} in {call(serial, *bounds, **stages)}:", s.span):
            statements(p, s.body)
        return
    length = p.kernel.schedule.length(s.index)
    start = p.names.pick(f"{name}_start")
    with p.out.block(f"for {start} in {call(serial, *bounds, str(length), **stages)}:", s.span):
        block_axis(p, s.index, Text(start), s.span)
        statements(p, s.body)


def branch(p: Printer, s: ir.If) -> None:
    for head, span, body in arms(s, lambda x: expr(p, x)):
        with p.out.block(head, span):
            statements(p, body)
