"""Statements of the IR as TileLang's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import assert_never

from nsalang import ir
from nsalang.ir.machine import read_axes
from nsalang.lowering.text import Text, arms, call, infix, number
from nsalang.lowering.tilelang.blocks import dot, reduce, scan
from nsalang.lowering.tilelang.buffers import buffer, parallel, scalar, stored
from nsalang.lowering.tilelang.dtypes import typed
from nsalang.lowering.tilelang.elements import variable
from nsalang.lowering.tilelang.expressions import access, expr, mask, operand
from nsalang.lowering.tilelang.fetch import atom, blocks, fetch, fetch_next
from nsalang.lowering.tilelang.groups import divisor
from nsalang.lowering.tilelang.signature import assume
from nsalang.lowering.tilelang.simplifier import is_opaque
from nsalang.lowering.tilelang.state import Printer


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
            p.out.line("T.sync_threads()", s.span)
        case _:
            assert_never(s)


def assign(p: Printer, s: ir.Assign) -> None:
    if s.place == "shared" and isinstance(s.value, ir.Dot | ir.Reduce | ir.Scan):
        # These are made in registers.
        made = ir.Var(s.value.dtype, s.value.axes, f"{s.name}.value")
        if isinstance(s.value, ir.Dot):
            p.matrices[made.name] = p.matrices[s.name]
        assign(p, replace(s, name=made.name, place=None))
        s = replace(s, value=made)
    match s.value:
        case ir.Dot() as x:
            dot(p, s, x)
        case ir.Reduce() as x:
            reduce(p, s, x)
        case ir.Scan() as x:
            scan(p, s, x)
        case ir.Full(value=ir.Const() as x) if s.value.axes:
            place = buffer(p, s)
            zero = x.value == 0 and math.copysign(1.0, x.value) > 0
            p.out.line(f"T.clear({place})" if zero else f"T.fill({place}, {typed(x)})", s.span)
        case x if x.axes:
            buffer(p, s)
            with parallel(p, x.axes, s):
                p.out.line(f"{variable(p, s.name, x.axes)} = {operand(p, x)}", s.span)
        case x:
            scalar(p, s, operand(p, x), any(map(is_opaque, ir.walk(x))))


def store(p: Printer, s: ir.Store) -> None:
    with stored(p, s):
        place = access(p, s.tensor, s.indices)
        line = str(call("T.atomic_add", place, operand(p, s.value))) if s.mode == "add" else f"{place} = {operand(p, s.value)}"
        with p.out.block(f"if {mask(p, s.mask)}:", s.span) if s.mask is not None else nullcontext():
            p.out.line(line, s.span)


def span_axis(p: Printer, s: ir.SpanAxis) -> None:
    start = expr(p, s.start)
    if isinstance(s.start, ir.Const):
        p.bases[s.axis] = None if s.start.value == 0 else start
        return
    if str(start) in p.arguments.used:
        p.bases[s.axis] = start  # TileLang would take a name for it for a new name of the argument
        return
    name = p.names.pick(ir.plain(s.axis))
    p.bases[s.axis] = Text(name)
    p.out.line(f"{name} = {start}", s.span)
    if (known := divisor(p.kernel, s.start)) > 1 and len(p.kernel.grid) > 1:
        assume(p, name, known)


def loop(p: Printer, s: ir.For) -> None:
    lo, hi = expr(p, s.lo), expr(p, s.hi)
    from_zero = isinstance(s.lo, ir.Const) and s.lo.value == 0
    length = p.kernel.schedule.length(s.index) if s.kind == "tile" else 1
    name = p.names.pick(ir.plain(s.index))
    if s.kind == "range" and not s.ahead and (from_zero or not s.long):
        p.bases[s.index] = Text(name)
        bounds = [hi] if from_zero else [lo, hi]
        with p.out.block(f"for {name} in {call('T.serial', *bounds)}:", s.span):
            statements(p, s.body)
        return
    counter = Text(p.names.pick(f"{name}_{'block' if s.kind == 'tile' else 'step'}"))

    def start(step: Text) -> Text:
        """Where the block of a step begins."""
        here = infix("*", step, number(length)) if length > 1 else step
        return here if from_zero else infix("+", lo, here)

    if s.ahead:
        lo, hi = (atom(p, x, f"{name}_{end}", s) for x, end in ((lo, "begin"), (hi, "end")))
        # TileLang may lay these buffers over others that are dead by now, a reduction's workspace for one, and adds no barrier for copies.
        p.out.line("T.sync_threads()", s.span)
        for step in range(s.stages - 1):
            here = number(step * length)
            fetch(p, s, here if from_zero else infix("+", lo, here) if step else lo, hi, number(step))
    turns = blocks(p, s, lo, hi, length)
    with p.out.block(f"for {counter} in {call('T.serial', turns)}:", s.span):
        if s.ahead or read_axes(p.kernel, s.index):
            p.out.line(f"{name} = {start(counter)}", s.span)
        if s.ahead:
            fetch_next(p, s, counter, Text(name), hi, length)
        p.bases[s.index] = Text(name)
        statements(p, s.body)
        if s.ahead:
            p.out.line("T.sync_threads()", s.span)


def branch(p: Printer, s: ir.If) -> None:
    for head, span, body in arms(s, lambda x: expr(p, x)):
        with p.out.block(head, span):
            statements(p, body)
