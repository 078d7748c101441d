"""A kernel on which all passes ran, printed as a TileLang program. It prints what the IR says and chooses nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import I64
from nsalang.base.target import Target
from nsalang.lowering import emit
from nsalang.lowering import tilelang_dots as dots
from nsalang.lowering.emit import Emitter, Generated, Names, Text, call, infix, number
from nsalang.lowering.program import Kind, Program
from nsalang.lowering.tilelang_ahead import Ahead, ahead
from nsalang.lowering.tilelang_barriers import NONE, around
from nsalang.lowering.tilelang_blocks import Blocks
from nsalang.lowering.tilelang_bools import bool_axes
from nsalang.lowering.tilelang_buffers import tuple_of
from nsalang.lowering.tilelang_values import Values
from nsalang.lowering.turns import long_loops

SCALARS: dict[Kind, str] = {"pointer": "T.handle", "i32": "T.int32", "i64": "T.int64", "f32": "T.float32", "bool": "T.bool"}
RESERVED = frozenset(
    "T abs min max exp exp2 log log2 sqrt rsqrt floor ceil tanh pow round half float double int char short long signed unsigned void auto const "
    "static struct union enum template typename this new delete switch case default do goto inline namespace operator private public register "
    "restrict sizeof typedef using virtual volatile extern warpSize y0 y1 yn j0 j1 jn gamma signgam index main".split()
)
"""Names that the C++ which TileLang makes gives another meaning."""


def lower(kernel: ir.Kernel, target: Target) -> Generated:
    """The TileLang program of a kernel, as a module that a person could have written. ``kernel``: after all passes."""
    names = Names.avoiding(*RESERVED, "entry")
    function = names.pick(kernel.name)
    arguments = emit.arguments(kernel, names)
    nodes = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Value | ir.Store)]
    ranks = [len(emit.machine_axes(kernel, n.axes)) or int(isinstance(n, ir.Store) and n.mode == "add") for n in nodes]
    lanes = tuple(names.pick("ijkpuvw"[k] if k < 7 else "i") for k in range(max(ranks, default=0)))
    barriers = emit.barriers(kernel)
    printer = Printer(
        kernel,
        target,
        names,
        Values(kernel, arguments),
        Emitter(kernel),
        Emitter(kernel),
        lanes,
        emit.assigned_twice(kernel),
        barriers,
        dots.matrices(kernel),
        dots.continued(kernel),
        bools=bool_axes(kernel) if target.kind == "cuda" else frozenset(),
        addresses=emit.address_names(kernel),
        around=NONE if target.kind == "cpu" else around(kernel, barriers),
        long=long_loops(kernel),
    )
    printer.emitter.depth = printer.places.depth = 3
    if shared := emit.shared_memory(kernel):
        # TileLang takes all pointers for addresses of different memory otherwise.
        printer.places.line(f"T.annotate_restrict_buffers({', '.join(arguments.use('tensor', name) for name in shared)})")
    printer.grid()
    printer.statements(kernel.body)
    # What the buffers' shapes and strides name is passed, too.
    tensors = Emitter(kernel)
    tensors.depth = 2
    pointers = {t.name: names.pick(f"{arguments.use('tensor', t.name)}_ptr") for t in kernel.arrays}
    accessed = {n.tensor for n in nodes if isinstance(n, ir.Load | ir.Store)}
    for tensor in kernel.arrays:
        if tensor.name not in accessed:
            continue
        tensors.line(f"{arguments.use('tensor', tensor.name)} = {printer.tensor(tensor, pointers[tensor.name])}")
    count = printer.programs()
    passed = arguments.passed()
    for _, a in passed:
        if a.kind in ("i32", "i64") and (divisor := max(a.divisor, 16 if a.aligned else 1)) > 1:
            tensors.line(f"T.assume({a.name} % {divisor} == 0)")

    head = Emitter(kernel)
    emit.docstring(head, kernel, target, "TileLang", "block")
    head.line()
    head.line("import tilelang.language as T")
    head.line()
    head.line()
    head.line("def entry():")
    head.depth = 1
    head.line("@T.prim_func")
    parameters = [f"{pointers[b.name] if b.kind == 'tensor' else a.name}: {SCALARS[a.kind]}" for b, a in passed]
    head.line(f"def {function}({', '.join(parameters)}):")
    head.out += tensors.out
    head.depth = 2
    number_of_block = f" as {printer.pid}" if printer.pid else ""
    head.line(f"with T.Kernel({count}, threads={kernel.schedule.warps * target.facts.warp}){number_of_block}:")
    head.out += printer.places.out
    first = len(head.out)
    head.out += printer.emitter.out or ["            pass"]
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
    lines = tuple((number + first, span) for number, span in printer.emitter.spans)
    return Generated(program, tuple(b for b, _ in passed), emit.grid_of(kernel), lines)


class Printer(Blocks):
    """Prints one kernel: the grid, statements, loops, and what goes to memory."""

    # ------------------------------------------------------------------------------------------------------------------ the grid

    def grid(self) -> None:
        """Where the index variables of this block begin, from its number: the last varies fastest."""
        read = [i for i in self.kernel.grid if emit.read_axes(self.kernel, i.name)]
        if not read:
            return
        self.pid = self.names.pick("pid")
        pid = Text(self.pid)
        if self.kernel.schedule.wide:
            pid = Text(self.names.pick("block"))
            self.emitter.line(f'{pid} = T.cast({self.pid}, "int64")')
        for position, index in reversed([*enumerate(self.kernel.grid)]):
            if index in read:
                mine = pid
                for later in reversed(self.kernel.grid[position + 1 :]):
                    mine = call("T.truncdiv", mine, self.count(later))
                if position:
                    mine = call("T.truncmod", mine, self.count(index))
                name = self.names.pick(ir.plain(index.name))
                length = self.kernel.schedule.length(index.name) if index.tiled else 1
                divided = mine is not pid
                if divided:
                    # A register of its own: written out in every offset, the division would be one of 64 bits there.
                    held = self.names.pick(f"{name}_block") if length > 1 else name
                    self.emitter.line(f'{held} = T.alloc_var("{self.index_dtype}", {mine})', index.span)
                    mine = Text(held)
                if length > 1 or not divided:
                    self.emitter.line(f"{name} = {infix('*', mine, number(length)) if length > 1 else mine}", index.span)
                if length > 1 and divided:
                    self.assume(name, length)
                self.values.bases[index.name] = Text(name)

    @property
    def index_dtype(self) -> str:
        return "int64" if self.kernel.schedule.wide else "int32"

    def assume(self, name: str, divisor: int) -> None:
        """What TileLang no longer sees of a value that came through a register; it needs it to access several elements at once."""
        self.emitter.line(f"T.assume({name} % {divisor} == 0)")

    def count(self, index: ir.GridIndex) -> Text:
        length = self.kernel.schedule.length(index.name) if index.tiled else 1
        if length == 1 or isinstance(index.extent, ir.Const):
            return self.values.expr(emit.programs(self.kernel, index))
        return call("T.ceildiv", self.values.expr(index.extent), str(length))

    def programs(self) -> Text:
        """The number of blocks."""
        counts = [self.count(i) for i in self.kernel.grid if emit.programs(self.kernel, i) != ir.Const(i.extent.dtype, (), 1)]
        out = counts[0] if counts else number(1)
        for other in counts[1:]:
            out = infix("*", out, other)
        return out

    # ---------------------------------------------------------------------------------------------------------------- statements

    def statements(self, body: Sequence[ir.Stmt]) -> None:
        for statement in body:
            if id(statement) in self.barriers | self.around.before:
                self.emitter.line("T.sync_threads()", statement.span)
            self.statement(statement)
            if id(statement) in self.around.behind:
                self.emitter.line("T.sync_threads()", statement.span)

    def statement(self, s: ir.Stmt) -> None:
        match s:
            case ir.Assign():
                self.assign(s)
            case ir.Store():
                self.store(s)
            case ir.SpanAxis():
                if emit.read_axes(self.kernel, s.axis):
                    self.span_axis(s)
            case ir.For():
                self.loop(s)
            case ir.If():
                self.branch(s)
            case _:
                assert_never(s)

    def span_axis(self, s: ir.SpanAxis) -> None:
        start = self.values.expr(s.start)
        if isinstance(s.start, ir.Const):
            self.values.bases[s.axis] = None if s.start.value == 0 else start
            return
        if str(start) in self.values.arguments.used:
            self.values.bases[s.axis] = start  # TileLang would take a name for it for a new name of the argument
            return
        name = self.names.pick(ir.plain(s.axis))
        self.values.bases[s.axis] = Text(name)
        self.emitter.line(f"{name} = {start}", s.span)
        if (divisor := self.values.divisor(s.start)) > 1 and len(self.kernel.grid) > 1:
            self.assume(name, divisor)

    def loop(self, s: ir.For) -> None:
        lo, hi = self.values.expr(s.lo), self.values.expr(s.hi)
        from_zero = isinstance(s.lo, ir.Const) and s.lo.value == 0
        length = self.kernel.schedule.length(s.index) if s.kind == "tile" else 1
        name = self.names.pick(ir.plain(s.index))
        if s.kind == "range" and not s.ahead and (from_zero or id(s) not in self.long):
            self.values.bases[s.index] = Text(name)
            bounds = [hi] if from_zero else [lo, hi]
            with self.emitter.block(f"for {name} in {call('T.serial', *bounds)}:", s.span):
                self.statements(s.body)
            return
        counter = Text(self.names.pick(f"{name}_{'block' if s.kind == 'tile' else 'step'}"))

        def start(step: Text) -> Text:
            """Where the block of a step begins."""
            here = infix("*", step, number(length)) if length > 1 else step
            return here if from_zero else infix("+", lo, here)

        unread, self.unread = self.unread, self.unread
        if s.ahead:
            lo, hi = (self.atom(x, f"{name}_{end}", s) for x, end in ((lo, "begin"), (hi, "end")))
            early = ahead(self.kernel, s)
            self.unread |= early.unread
            # TileLang may lay these buffers over others that are dead by now, a reduction's workspace for one, and adds no barrier for copies.
            self.emitter.line("T.sync_threads()", s.span)
            for step in range(s.stages - 1):
                here = number(step * length)
                self.fetch(s, early, here if from_zero else infix("+", lo, here) if step else lo, hi, number(step))
        blocks = self.blocks(s, lo, hi, length)
        with self.emitter.block(f"for {counter} in {call('T.serial', blocks)}:", s.span):
            if s.ahead or emit.read_axes(self.kernel, s.index):
                self.emitter.line(f"{name} = {start(counter)}", s.span)
            if s.ahead:
                self.fetch_next(s, early, counter, Text(name), hi, length)
            self.values.bases[s.index] = Text(name)
            self.statements(s.body)
            if s.ahead:
                self.emitter.line("T.sync_threads()", s.span)
        self.unread = unread

    def blocks(self, s: ir.For, lo: Text, hi: Text, length: int) -> Text:
        """How many turns a loop over blocks makes."""
        if isinstance(s.lo, ir.Const) and isinstance(s.hi, ir.Const):
            return number(max(0, -(-(int(s.hi.value) - int(s.lo.value)) // length)))
        if id(s) in self.long:
            extent = infix("-", *(call("T.cast", x, '"int64"') for x in (call("T.max", hi, lo), lo)))
            return call("T.cast", call("T.ceildiv", extent, str(length)) if length > 1 else extent, '"int32"')
        extent = hi if isinstance(s.lo, ir.Const) and s.lo.value == 0 else infix("-", hi, lo)
        return call("T.ceildiv", extent, str(length)) if length > 1 else extent

    def fetch_next(self, s: ir.For, early: Ahead, counter: Text, name: Text, hi: Text, length: int) -> None:
        """At the beginning of a step: begin to load what a later one needs, and wait for what this one needs."""
        later = s.stages - 1
        self.fetch(s, early, infix("+", name, number(later * length)), hi, self.version(infix("+", counter, number(later)), s))
        if self.target.facts.asynchronous:
            self.emitter.line(f"T.ptx_wait_group({later})", s.span)
        self.emitter.line("T.sync_threads()", s.span)
        for variable in s.ahead:
            self.values.versions[variable] = self.version(counter, s)

    def version(self, step: Text, s: ir.For) -> Text:
        """Which of the buffers holds a step. TileLang takes no 64-bit index of a shared buffer beside lanes of 32 bits."""
        which = infix("%", step, number(s.stages))
        return call("T.cast", which, '"int32"') if s.hi.dtype is I64 else which

    def atom(self, x: Text, name: str, s: ir.Stmt) -> Text:
        """A name for what would be written out several times."""
        if x.level >= emit.SIGN and "(" not in str(x):
            return x
        picked = self.names.pick(name)
        self.emitter.line(f"{picked} = {x}", s.span)
        return Text(picked)

    def fetch(self, s: ir.For, early: Ahead, base: Text, hi: Text, version: Text) -> None:
        """The loads of one step that may not exist, as a group of asynchronous copies, after what their addresses are made of."""
        before, versions = dict(self.values.bases), dict(self.values.versions)
        self.values.bases[s.index] = None if base == number(0) and s.kind == "tile" else base
        for span in early.spans:
            self.values.bases[span.axis] = None if span.start == ir.const(0, span.start.dtype) else self.values.expr(span.start)
        exists = f"if {infix('<', base, hi)}:"
        if early.held:
            with self.emitter.block(exists, s.span):
                for assign, value in early.held:
                    if assign.name in s.ahead:
                        self.buffer(assign, s.stages)
                        self.values.versions[assign.name] = version
                    else:
                        self.buffer(assign)
                    with self.parallel(value.axes, assign):
                        self.emitter.line(f"{self.values.variable(assign.name, value.axes)} = {self.whole(value)}", assign.span)
            # Other threads read it for their addresses.
            self.emitter.line("T.sync_threads()", s.span)
        with self.emitter.block(exists, s.span):
            for assign, load in early.loads:
                self.buffer(assign, s.stages)
                self.values.versions[assign.name] = version
                with self.parallel(load.axes, assign, self.target.facts.asynchronous):
                    # A plain zero, so that the copy itself writes it; beside a short integer it would make an i32 of that.
                    short = load.dtype.is_integer and load.dtype.bits < 32
                    zero = self.values.typed(ir.Const(load.dtype, (), 0)) if short else Text("0")
                    self.emitter.line(f"{self.values.variable(assign.name, load.axes)} = {self.values.load(load, zero)}", assign.span)
        if self.target.facts.asynchronous:
            self.emitter.line("T.ptx_commit_group()", s.span)
        self.values.bases, self.values.versions = before, versions

    def branch(self, s: ir.If) -> None:
        for head, span, body in emit.arms(s, self.barriers, self.values.expr):
            with self.emitter.block(head, span):
                self.statements(body)

    def assign(self, s: ir.Assign) -> None:
        if s.name in self.unread or s.name in self.values.versions:
            return
        if s.place == "shared" and isinstance(s.value, ir.Dot | ir.Reduce | ir.Scan):
            # These are made in registers.
            made = ir.Var(s.value.dtype, s.value.axes, f"{s.name}.value")
            if isinstance(s.value, ir.Dot):
                self.matrices[made.name] = self.matrices[s.name]
            self.assign(replace(s, name=made.name, place=None))
            s = replace(s, value=made)
        match s.value:
            case ir.Dot() as dot:
                self.dot(s, dot)
            case ir.Reduce() as reduce:
                self.reduce(s, reduce)
            case ir.Scan() as scan:
                self.scan(s, scan)
            case ir.Full(value=ir.Const() as constant) if s.value.axes:
                buffer = self.buffer(s)
                zero = constant.value == 0 and math.copysign(1.0, constant.value) > 0
                self.emitter.line(f"T.clear({buffer})" if zero else f"T.fill({buffer}, {self.values.typed(constant)})", s.span)
            case value if value.axes:
                self.buffer(s)
                with self.parallel(value.axes, s):
                    self.emitter.line(f"{self.values.variable(s.name, value.axes)} = {self.whole(value)}", s.span)
            case value:
                self.scalar(s, self.whole(value), any(map(_is_opaque, ir.walk(value))))

    # -------------------------------------------------------------------------------------------------------------------- memory

    def store(self, s: ir.Store) -> None:
        if s.axes:
            with self.parallel(s.axes, s):
                self.masked_store(s)
        elif s.mode == "add":
            # Outside a parallel loop every thread would add.
            with self.emitter.block(f"for {self.lanes[0]} in T.Parallel(1):", s.span):
                self.masked_store(s)
        else:
            self.masked_store(s)

    def masked_store(self, s: ir.Store) -> None:
        place = self.values.access(s.tensor, s.indices)
        line = str(call("T.atomic_add", place, self.values.operand(s.value))) if s.mode == "add" else f"{place} = {self.whole(s.value)}"
        if s.mask is None:
            self.emitter.line(line, s.span)
            return
        with self.emitter.block(f"if {self.values.mask(s.mask)}:", s.span):
            self.emitter.line(line, s.span)

    def tensor(self, t: ir.Tensor | ir.View, pointer: str) -> Text:
        """The buffer behind a pointer: its extents and strides, in elements."""
        stored = t.storage or t.dtype
        last = len(t.shape) - 1
        strides = [
            self.values.arguments.use("stride", t.name, axis) if self.values.arguments.has_stride(t.name, axis) else "1"
            for axis in range(len(t.shape))
        ]
        assert all(s != "1" or axis == last for axis, s in enumerate(strides))
        extents = [str(self.values.expr(e)) for e in t.shape]
        return call("T.make_tensor", pointer, tuple_of(extents or [1]), f'"{stored.tilelang}"', tuple_of(strides or [1]))


def _is_opaque(x: ir.Node) -> bool:
    """Whether TileLang gains nothing from seeing through a name of this: it would divide in every offset, and its prover takes seconds for bits."""
    return isinstance(x, ir.Bitcast) or (isinstance(x, ir.Binary) and x.op in ("tdiv", "tmod"))
