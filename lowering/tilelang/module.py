"""A kernel on which all passes ran, printed as a TileLang program. It prints what the IR says and chooses nothing."""

from __future__ import annotations

from nsalang import ir
from nsalang.base.target import Target
from nsalang.ir.machine import address_names, assigned_twice, machine_axes, read_axes
from nsalang.lowering import grid as grids
from nsalang.lowering.arguments import arguments as all_arguments
from nsalang.lowering.header import docstring, shared_memory
from nsalang.lowering.program import Generated, Program
from nsalang.lowering.text import Emitter, Names, Text, call, infix, number
from nsalang.lowering.tilelang.expressions import expr
from nsalang.lowering.tilelang.matrices import continued, matrices
from nsalang.lowering.tilelang.signature import RESERVED, assume, index_dtype, parameter, product, tensor
from nsalang.lowering.tilelang.state import Printer
from nsalang.lowering.tilelang.statements import statements


def lower(kernel: ir.Kernel, target: Target) -> Generated:
    """The TileLang program of a kernel, as a module that a person could have written. ``kernel``: after all passes."""
    names = Names.avoiding(*RESERVED, "entry")
    function = names.pick(kernel.name)
    arguments = all_arguments(kernel, names)
    nodes = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Value | ir.Store)]
    ranks = [len(machine_axes(kernel, n.axes)) or int(isinstance(n, ir.Store) and n.mode == "add") for n in nodes]
    lanes = tuple(names.pick("ijkpuvw"[k] if k < 7 else "i") for k in range(max(ranks, default=0)))
    p = Printer(
        kernel,
        target,
        names,
        arguments,
        out=Emitter(kernel),
        places=Emitter(kernel),
        twice=assigned_twice(kernel),
        lanes=lanes,
        matrices=matrices(kernel),
        continued=continued(kernel),
        addresses=address_names(kernel),
    )
    p.out.depth = p.places.depth = 3
    if shared := shared_memory(kernel):
        # TileLang takes all pointers for addresses of different memory otherwise.
        p.places.line(f"T.annotate_restrict_buffers({', '.join(arguments.use('tensor', name) for name in shared)})")
    grid(p)
    statements(p, kernel.body)
    # What the buffers' shapes and strides name is passed, too.
    tensors = Emitter(kernel)
    tensors.depth = 2
    pointers = {t.name: names.pick(f"{arguments.use('tensor', t.name)}_ptr") for t in kernel.arrays}
    accessed = {n.tensor for n in nodes if isinstance(n, ir.Load | ir.Store)}
    for t in kernel.arrays:
        if t.name in accessed:
            tensors.line(f"{arguments.use('tensor', t.name)} = {tensor(p, t, pointers[t.name])}")
    blocks = product([count(p, i) for i in kernel.grid if grids.programs(kernel, i) != ir.Const(i.extent.dtype, (), 1)])
    passed = arguments.passed()
    for _, a in passed:
        if a.kind in ("i32", "i64") and (divisor := max(a.divisor, 16 if a.aligned else 1)) > 1:
            tensors.line(f"T.assume({a.name} % {divisor} == 0)")

    head = Emitter(kernel)
    docstring(head, kernel, target, "TileLang", "block")
    head.line()
    head.line("import tilelang.language as T")
    head.line()
    head.line()
    head.line("def entry():")
    head.depth = 1
    head.line("@T.prim_func")
    parameters = [f"{pointers[b.name] if b.kind == 'tensor' else a.name}: {parameter(a.kind)}" for b, a in passed]
    head.line(f"def {function}({', '.join(parameters)}):")
    head.out += tensors.out
    head.depth = 2
    number_of_block = f" as {p.pid}" if p.pid else ""
    head.line(f"with T.Kernel({blocks}, threads={kernel.schedule.warps * target.facts.warp}){number_of_block}:")
    head.out += p.places.out
    first = len(head.out)
    head.out += p.out.out or ["            pass"]
    head.depth = 1
    head.line()
    head.line(f"return {function}")
    program = Program(
        "tilelang",
        str(target),
        "entry",
        head.source(),
        tuple(a for _, a in passed),
        warps=kernel.schedule.warps,
        stages=kernel.schedule.stages,
    )
    lines = tuple((number + first, span) for number, span in p.out.spans)
    return Generated(program, tuple(b for b, _ in passed), grids.grid_of(kernel), lines)


def grid(p: Printer) -> None:
    """Where the index variables of this block begin, from its number: the last varies fastest."""
    read = [i for i in p.kernel.grid if read_axes(p.kernel, i.name)]
    if not read:
        return
    p.pid = p.names.pick("pid")
    pid = Text(p.pid)
    if p.kernel.schedule.wide:
        pid = Text(p.names.pick("block"))
        p.out.line(f'{pid} = T.cast({p.pid}, "int64")')
    for position, index in reversed([*enumerate(p.kernel.grid)]):
        if index in read:
            mine = pid
            for later in reversed(p.kernel.grid[position + 1 :]):
                mine = call("T.truncdiv", mine, count(p, later))
            if position:
                mine = call("T.truncmod", mine, count(p, index))
            name = p.names.pick(ir.plain(index.name))
            length = p.kernel.schedule.length(index.name) if index.tiled else 1
            divided = mine is not pid
            if divided:
                # A register of its own: written out in every offset, the division would be one of 64 bits there.
                held = p.names.pick(f"{name}_block") if length > 1 else name
                p.out.line(f'{held} = T.alloc_var("{index_dtype(p)}", {mine})', index.span)
                mine = Text(held)
            if length > 1 or not divided:
                p.out.line(f"{name} = {infix('*', mine, number(length)) if length > 1 else mine}", index.span)
            if length > 1 and divided:
                assume(p, name, length)
            p.bases[index.name] = Text(name)


def count(p: Printer, index: ir.GridIndex) -> Text:
    length = p.kernel.schedule.length(index.name) if index.tiled else 1
    if length == 1 or isinstance(index.extent, ir.Const):
        return expr(p, grids.programs(p.kernel, index))
    return call("T.ceildiv", expr(p, index.extent), str(length))
