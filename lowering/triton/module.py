"""A kernel on which all passes ran, printed as a Triton program. It prints what the IR says and chooses nothing."""

from __future__ import annotations

from nsalang import ir
from nsalang.base.target import Target
from nsalang.ir.machine import assigned_twice, read_axes
from nsalang.lowering import grid as grids
from nsalang.lowering.arguments import arguments as all_arguments
from nsalang.lowering.header import docstring
from nsalang.lowering.program import Generated, Program
from nsalang.lowering.text import Emitter, Names, Text, call, infix, method, number
from nsalang.lowering.triton.blocks import COMBINED
from nsalang.lowering.triton.expressions import expr
from nsalang.lowering.triton.shapes import block_axis
from nsalang.lowering.triton.state import Printer
from nsalang.lowering.triton.statements import statements


def lower(kernel: ir.Kernel, target: Target) -> Generated:
    """The Triton program of a kernel, as a module that a person could have written. ``kernel``: after all passes."""
    schedule = kernel.schedule
    names = Names.avoiding("tl", "triton")
    entry = names.pick(kernel.name)
    arguments = all_arguments(kernel, names)
    p = Printer(kernel, target, names, arguments, Emitter(kernel), assigned_twice(kernel))
    p.out.depth = 1
    grid(p)
    statements(p, kernel.body)
    body = p.out
    passed = arguments.passed()

    head = Emitter(kernel)
    docstring(head, kernel, target, "Triton", "program")
    head.line()
    head.line("import triton")
    head.line("import triton.language as tl")
    head.line()
    head.line()
    for op, name in p.combining.items():
        head.line("@triton.jit")
        head.line(f"def {name}(a, b):")
        head.line(f"    return {COMBINED[op]}")
        head.line()
        head.line()
    head.line("@triton.jit")
    head.line(f"def {entry}({', '.join(a.name for _, a in passed)}):")
    first = len(head.out)
    head.out += body.out or ["    pass"]
    program = Program(
        "triton",
        str(target),
        entry,
        head.source(),
        tuple(a for _, a in passed),
        warps=schedule.warps,
        stages=schedule.stages,
        fp_fusion=False,
    )
    lines = tuple((number + first, span) for number, span in body.spans)
    return Generated(program, tuple(b for b, _ in passed), grids.grid_of(kernel), lines)


def grid(p: Printer) -> None:
    """The index variables of this program, from its number: the last varies fastest."""
    wanted = [i for i in p.kernel.grid if read_axes(p.kernel, i.name)]
    if not wanted:
        return
    pid: Text = call("tl.program_id", "0")
    if p.kernel.schedule.wide:
        pid = method(pid, "to", "tl.int64")
    if len(p.kernel.grid) > 1:
        name = p.names.pick("pid")
        p.out.line(f"{name} = {pid}")
        pid = Text(name)
    for position, index in reversed([*enumerate(p.kernel.grid)]):
        if index in wanted:
            mine = pid
            for later in reversed(p.kernel.grid[position + 1 :]):
                mine = infix("//", mine, count(p, later))
            if position:
                mine = infix("%", mine, count(p, index))
            if index.tiled:
                begin = infix("*", mine, number(p.kernel.schedule.length(index.name)))
                block_axis(p, index.name, begin, index.span)
            else:
                name = p.indices[index.name] = p.names.pick(ir.plain(index.name))
                p.out.line(f"{name} = {mine}", index.span)


def count(p: Printer, index: ir.GridIndex) -> Text:
    length = p.kernel.schedule.length(index.name) if index.tiled else 1
    if isinstance(index.extent, ir.Const):
        return expr(p, grids.programs(p.kernel, index))
    extent = expr(p, index.extent)
    if not p.kernel.schedule.wide and any(isinstance(n, ir.Scalar) for n in ir.walk(index.extent)):
        extent = method(extent, "to", "tl.int32")
    return extent if length == 1 else call("tl.cdiv", extent, str(length))
