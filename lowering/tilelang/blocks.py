"""What TileLang makes of whole blocks by functions of its own: products, reductions, scans."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nsalang import ir
from nsalang.base.dtypes import F32, I32
from nsalang.ir.machine import machine_axes
from nsalang.lowering.text import Text, call, infix, number, subscript
from nsalang.lowering.tilelang import matrices as dots
from nsalang.lowering.tilelang.buffers import buffer, operand_buffer, parallel, place, scalar, start, through_shared
from nsalang.lowering.tilelang.combine import combine
from nsalang.lowering.tilelang.dtypes import cast, typed
from nsalang.lowering.tilelang.elements import element, variable
from nsalang.lowering.tilelang.expressions import expr, operand
from nsalang.lowering.tilelang.state import Printer
from nsalang.passes.tilelang.products import Product

POLICY = {"rows": "FullRow", "columns": "FullCol"}

REDUCTIONS: dict[ir.ReduceOp, str] = {"sum": "T.reduce_sum", "max": "T.reduce_max", "min": "T.reduce_min"}
COMBINED: dict[ir.ReduceOp, str] = {"prod": "*"}
"""What TileLang has no function for: the sign that makes one of two lanes."""


def dot(p: Printer, s: ir.Assign, x: ir.Dot) -> None:
    product = Product.of(x)
    buffer(p, s)
    length = p.kernel.schedule.length(x.over)
    assert x.warps is not None, "a product whose warps are not settled"
    policy = f"T.GemmWarpPolicy.{POLICY[x.warps]}"

    def gemm(into: str, clear: bool, first: int = 0, count: int = length) -> None:
        (left, a), (right, b) = (
            matrix(p, product.left, x.over, product.rows, first, count),
            matrix(p, product.right, x.over, product.columns, first, count),
        )
        options = {"transpose_A": a, "transpose_B": not b, "clear_accum": clear}
        named = {name: "True" for name, value in options.items() if value}
        p.out.line(str(call("T.gemm", left, right, into, **named, policy=policy)), s.span)

    parts = x.promote if 0 < x.promote < length else length
    target = p.results[s.name]
    if parts == length and x.dtype in (F32, I32):
        if x.acc is not None and s.name not in p.continued:
            start(p, s, x, x.acc)
        gemm(target, x.acc is None)
        return
    part = ir.Var(I32 if x.dtype.is_integer else x.dtype, x.axes, f"{s.name}.part")
    p.matrices[part.name] = p.matrices[s.name]
    buffer(p, ir.Assign(part.name, part))
    for first in range(0, length, parts):
        gemm(p.results[part.name], True, first, parts)
        with parallel(p, x.axes, s):
            place, new = variable(p, s.name, x.axes), expr(p, part)
            new = new if part.dtype is x.dtype else cast(new, x.dtype)
            old = place if first else None if x.acc is None else expr(p, x.acc)
            p.out.line(f"{place} = {new if old is None else infix('+', old, new)}", s.span)


def matrix(p: Printer, x: ir.Var, over: str, free: Sequence[str], first: int, count: int) -> tuple[Text, bool]:
    """An operand, of which ``count`` contracted lanes from ``first`` on are wanted, and whether they are its rows."""
    flipped = dots.transposed(p.kernel, over, free)
    at = [str(p.versions[x.name])] if x.name in p.versions else []
    lanes = ":" if count == p.kernel.schedule.length(over) else f"{first}:{first + count}"
    if at or lanes != ":":
        at += [lanes, ":"] if flipped else [":", lanes]
    buffer = Text(p.results[x.name] if x.name in p.results else p.buffers[x.name])
    return (subscript(buffer, ", ".join(at)) if at else buffer), flipped


def reduce(p: Printer, s: ir.Assign, x: ir.Reduce) -> None:
    """One axis after the other, the innermost first."""
    axes = list(machine_axes(p.kernel, x.x.axes))
    assert set(x.over) <= set(axes), "a reduction over an axis that its operand lacks"
    assert x.x.dtype is x.dtype, "legalize left a reduction into another dtype"
    source = operand_buffer(p, x.x, f"{ir.plain(s.name)}_terms", s)
    over = sorted((a for a in axes if a in x.over), key=axes.index, reverse=True)
    for axis in over:
        at = axes.index(axis)
        axes.remove(axis)
        shape = tuple(p.kernel.schedule.length(a) for a in axes) or (1,)
        if axis != over[-1]:
            target = place(p, f"{ir.plain(s.name)}_{'_'.join(map(ir.plain, axes))}", shape, x.dtype)
        elif axes:
            target = buffer(p, s)
        else:
            known = s.name not in p.twice
            target = place(p, ir.plain(s.name) if known else f"{ir.plain(s.name)}_value", shape, x.dtype)
        if axis in dots.rows(p.kernel) or x.op in COMBINED:
            source = through_shared(p, source, x, (*axes[:at], axis, *axes[at:]), s)
        if x.op in COMBINED:
            combine(p, COMBINED[x.op], (source, target), (*axes[:at], axis, *axes[at:]), axis, s)
        else:
            p.out.line(f"{REDUCTIONS[x.op]}({source}, {target}, dim={at})", s.span)
        source = target
    if not axes and s.name in p.twice:
        scalar(p, s, Text(f"{source}[0]"))
    elif not axes:
        p.buffers[s.name] = source


def scan(p: Printer, s: ir.Assign, x: ir.Scan) -> None:
    """Through shared memory, as rows of a matrix: there TileLang scans."""
    axes = machine_axes(p.kernel, x.axes)
    others = [a for a in axes if a != x.over]
    length = p.kernel.schedule.length(x.over)
    rows = math.prod(p.kernel.schedule.length(a) for a in others)
    shape = (rows, length) if others else (length,)
    sums = place(p, f"{ir.plain(s.name)}_sums", shape, x.dtype, "shared")
    out = buffer(p, s)

    def at(shift: str = "") -> str:
        row = Text("0")
        for k, a in enumerate(others):
            row = Text(p.lane[a]) if k == 0 else infix("+", infix("*", row, number(p.kernel.schedule.length(a))), Text(p.lane[a]))
        lane = p.lane[x.over] + shift
        return f"{row}, {lane}" if others else lane

    with parallel(p, axes, s):
        p.out.line(f"{sums}[{at()}] = {operand(p, x.x)}", s.span)
    p.out.line(f"T.cumsum({sums}, dim={len(shape) - 1}{', reverse=True' if x.reverse else ''})", s.span)
    with parallel(p, axes, s):
        value = Text(f"{sums}[{at()}]")
        if x.exclusive:
            value = Text(f"{sums}[{at(' + 1' if x.reverse else ' - 1')}]")
        if x.dtype.is_float:
            # Sums start from +0.0, so a sum of nothing but -0.0 is +0.0, too.
            value = call("T.ieee_add", value, typed(ir.Const(x.dtype, (), 0.0)))
        if x.exclusive:
            lane = p.lane[x.over]
            inside = f"{lane} < {length - 1}" if x.reverse else f"{lane} > 0"
            value = call("T.if_then_else", inside, value, typed(ir.Const(x.dtype, (), 0)))
        p.out.line(f"{element(p, out, axes)} = {value}", s.span)
