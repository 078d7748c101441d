"""A kernel on which all passes ran, printed as a TileLang program. It prints what the IR says and chooses nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from typing_extensions import assert_never

from nsalang import ir
from nsalang.dtypes import DType
from nsalang.lowering import emit
from nsalang.lowering.emit import Emitter, Generated, Names, Text, call, infix, number
from nsalang.lowering.tilelang_values import Values
from nsalang.target import Target
from nsalang.toolchain import Kind, Program

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
    known: dict[tuple[str, str, int], str] = {(b.kind, b.name, b.axis): a.name for b, a in arguments}
    ranks = [len(emit.machine_axes(kernel, n.axes)) for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Value | ir.Store)]
    lanes = tuple(names.pick("ijkluvw"[k] if k < 7 else "i") for k in range(max(ranks, default=0)))
    printer = Printer(
        kernel,
        target,
        names,
        Values(kernel, known),
        Emitter(kernel),
        Emitter(kernel),
        lanes,
        emit.assigned_twice(kernel),
        emit.barriers(kernel),
    )
    printer.emitter.depth = printer.places.depth = 3
    printer.grid()
    printer.statements(kernel.body)
    # What the buffers' shapes and strides name is passed, too.
    tensors = Emitter(kernel)
    tensors.depth = 2
    pointers = {t.name: names.pick(f"{known['tensor', t.name, 0]}_ptr") for t in kernel.tensors}
    for tensor in kernel.tensors:
        tensors.line(f"{known['tensor', tensor.name, 0]} = {printer.tensor(tensor, pointers[tensor.name])}")
    count = printer.programs()
    passed = [(b, a) for b, a in arguments if b.kind == "tensor" or a.name in printer.values.used]
    for _, a in passed:
        if a.kind in ("i32", "i64") and (divisor := max(a.divisor, 16 if a.aligned else 1)) > 1:
            tensors.line(f"T.assume({a.name} % {divisor} == 0)")

    head = Emitter(kernel)
    _docstring(head, kernel, target)
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
    head.line(f"with T.Kernel({count}, threads={kernel.schedule.warps * target.warp}){number_of_block}:")
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


def _docstring(out: Emitter, kernel: ir.Kernel, target: Target) -> None:
    title, *rest = emit.facts(kernel, target, "TileLang")
    launch = " x ".join(emit.launch_words(kernel)) or "everything"
    out.line(f'"""{title}')
    out.line()
    for line in (f"A block makes {launch}; blocks run through the last index fastest.", *rest):
        out.out.append(line.replace("\\", "/").replace('"""', "'''"))
    out.line('"""')


@dataclass(slots=True)
class Printer:
    """The state of printing one kernel. ``places``: the buffers of a block, which stand before its code; ``lanes``: loop variables by dimension."""

    kernel: ir.Kernel
    target: Target
    names: Names
    values: Values
    emitter: Emitter
    places: Emitter
    lanes: tuple[str, ...]
    twice: frozenset[str]
    barriers: frozenset[int]
    pid: str = ""

    # ------------------------------------------------------------------------------------------------------------------ the grid

    def grid(self) -> None:
        """Where the index variables of this block begin, from its number: the last varies fastest."""
        read = emit.used_indices(self.kernel)
        if not any(i.name in read for i in self.kernel.grid):
            return
        self.pid = self.names.pick("pid")
        pid = Text(self.pid)
        if self.kernel.schedule.wide:
            pid = Text(self.names.pick("block"))
            self.emitter.line(f'{pid} = T.cast({self.pid}, "int64")')
        for position, index in reversed([*enumerate(self.kernel.grid)]):
            if index.name in read:
                mine = pid
                for later in reversed(self.kernel.grid[position + 1 :]):
                    mine = call("T.truncdiv", mine, self.count(later))
                if position and emit.programs(self.kernel, index) != ir.Const(index.extent.dtype, (), 1):
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
            if id(statement) in self.barriers:
                self.emitter.line("T.sync_threads()", statement.span)
            self.statement(statement)

    def statement(self, s: ir.Stmt) -> None:
        match s:
            case ir.Assign():
                self.assign(s)
            case ir.Store():
                self.store(s)
            case ir.SpanAxis():
                if s.axis in emit.used_indices(self.kernel):
                    self.span_axis(s)
            case ir.For():
                self.loop(s)
            case ir.If():
                self.branch(s, "if")
            case _:
                assert_never(s)

    def span_axis(self, s: ir.SpanAxis) -> None:
        start = self.values.expr(s.start)
        if isinstance(s.start, ir.Const):
            self.values.bases[s.axis] = None if s.start.value == 0 else start
            return
        name = self.names.pick(ir.plain(s.axis))
        self.values.bases[s.axis] = Text(name)
        self.emitter.line(f"{name} = {start}", s.span)
        if (divisor := self.values.divisor(s.start)) > 1 and len(self.kernel.grid) > 1:
            self.assume(name, divisor)

    def loop(self, s: ir.For) -> None:
        lo, hi = self.values.expr(s.lo), self.values.expr(s.hi)
        from_zero = isinstance(s.lo, ir.Const) and s.lo.value == 0
        name = self.names.pick(ir.plain(s.index))
        self.values.bases[s.index] = Text(name)
        if s.kind == "range":
            bounds = [hi] if from_zero else [lo, hi]
            with self.emitter.block(f"for {name} in {call('T.serial', *bounds)}:", s.span):
                self.statements(s.body)
            return
        length = self.kernel.schedule.length(s.index)
        extent = hi if from_zero else infix("-", hi, lo)
        blocks = call("T.ceildiv", extent, str(length))
        if isinstance(s.lo, ir.Const) and isinstance(s.hi, ir.Const):
            blocks = number(max(0, -(-(int(s.hi.value) - int(s.lo.value)) // length)))
        counter = self.names.pick(f"{name}_block")
        stages = self.kernel.schedule.stages
        over = call("T.Pipelined", blocks, num_stages=str(stages)) if stages > 1 else call("T.serial", blocks)
        with self.emitter.block(f"for {counter} in {over}:", s.span):
            if s.index in emit.used_indices(self.kernel):
                step = infix("*", Text(counter), number(length))
                self.emitter.line(f"{name} = {step if from_zero else infix('+', lo, step)}", s.span)
            self.statements(s.body)

    def branch(self, s: ir.If, word: str) -> None:
        with self.emitter.block(f"{word} {self.values.expr(s.cond)}:", s.span):
            self.statements(s.body)
        match s.orelse:
            case ():
                pass
            case (ir.If() as other,) if id(other) not in self.barriers:
                self.branch(other, "elif")
            case _:
                with self.emitter.block("else:"):
                    self.statements(s.orelse)

    def assign(self, s: ir.Assign) -> None:
        match s.value:
            case ir.Reduce() as reduce:
                self.reduce(s, reduce)
            case ir.Scan() as scan:
                self.scan(s, scan)
            case ir.Full(value=ir.Const() as constant) if s.value.axes:
                buffer = self.buffer(s.name, s.value)
                zero = constant.value == 0 and math.copysign(1.0, constant.value) > 0
                self.emitter.line(f"T.clear({buffer})" if zero else f"T.fill({buffer}, {self.values.typed(constant)})", s.span)
            case value if value.axes:
                buffer = self.buffer(s.name, value)
                with self.parallel(value.axes, s):
                    self.emitter.line(f"{self.values.element(buffer, value.axes)} = {self.whole(value)}", s.span)
            case value:
                self.scalar(s, self.whole(value), any(isinstance(n, ir.Binary) and n.op in ("tdiv", "tmod") for n in ir.walk(value)))

    def whole(self, value: ir.Expr) -> Text:
        """The value of an assignment or a store: typed where it is a number."""
        match value:
            case ir.Load():
                return self.load(value)
            case ir.Const():
                return self.values.typed(value)
            case _:
                return self.values.expr(value)

    def scalar(self, s: ir.Assign, value: Text, divides: bool = False) -> None:
        """A variable of one value: an expression's name, or a register where it is assigned again or ``divides`` (see ``grid``)."""
        if s.name not in self.values.scalars:
            self.values.scalars[s.name] = self.names.pick(ir.plain(s.name))
            if s.name in self.twice or divides:
                self.places.line(f'{self.values.scalars[s.name]} = T.alloc_var("{s.value.dtype.tilelang}")')
        self.emitter.line(f"{self.values.scalars[s.name]} = {value}", s.span)

    def buffer(self, name: str, value: ir.Expr) -> str:
        """The fragment of a variable with axes; its first assignment makes the place."""
        if name not in self.values.buffers:
            self.values.buffers[name] = self.place(ir.plain(name), emit.machine_shape(self.kernel, value.axes), value.dtype)
        return self.values.buffers[name]

    def place(self, name: str, shape: tuple[int, ...], dtype: DType, where: str = "fragment") -> str:
        picked = self.names.pick(name)
        self.places.line(f'{picked} = T.alloc_{where}({_tuple(shape)}, "{dtype.tilelang}")')
        return picked

    @contextmanager
    def parallel(self, axes: Sequence[str], s: ir.Stmt) -> Iterator[None]:
        """A loop over the lanes of ``axes``, one after the other in any order."""
        machine = emit.machine_axes(self.kernel, axes)
        lanes = self.lanes[: len(machine)]
        before, self.values.lane = self.values.lane, dict(zip(machine, lanes, strict=True))
        extents = ", ".join(map(str, emit.machine_shape(self.kernel, axes)))
        with self.emitter.block(f"for {', '.join(lanes)} in T.Parallel({extents}):", s.span):
            yield
        self.values.lane = before

    # -------------------------------------------------------------------------------------------------------------------- memory

    def load(self, x: ir.Load) -> Text:
        element = self.values.access(x.tensor, x.indices)
        if x.mask is None:
            return element
        return call("T.if_then_else", self.values.mask(x.mask), element, self.values.typed(x.fill or ir.Const(x.dtype, (), 0)))

    def store(self, s: ir.Store) -> None:
        if s.axes:
            with self.parallel(s.axes, s):
                self.masked_store(s)
        else:
            self.masked_store(s)

    def masked_store(self, s: ir.Store) -> None:
        line = f"{self.values.access(s.tensor, s.indices)} = {self.whole(s.value)}"
        if s.mask is None:
            self.emitter.line(line, s.span)
            return
        with self.emitter.block(f"if {self.values.mask(s.mask)}:", s.span):
            self.emitter.line(line, s.span)

    def tensor(self, t: ir.Tensor, pointer: str) -> Text:
        """The buffer behind a pointer: its extents and strides, in elements."""
        stored = t.storage or t.dtype
        last = len(t.shape) - 1
        strides = [
            self.values.argument("stride", t.name, axis) if ("stride", t.name, axis) in self.values.known else "1"
            for axis in range(len(t.shape))
        ]
        assert all(s != "1" or axis == last for axis, s in enumerate(strides))
        extents = [str(self.values.expr(e)) for e in t.shape]
        return call("T.make_tensor", pointer, _tuple(extents or [1]), f'"{stored.tilelang}"', _tuple(strides or [1]))

    # --------------------------------------------------------------------------------------------------------------- expressions

    # ---------------------------------------------------------------------------------------------------------------- reductions

    def operand_buffer(self, x: ir.Expr, name: str, s: ir.Assign) -> str:
        """A buffer that holds ``x``: the variable's own, or a new one."""
        if isinstance(x, ir.Var) and x.name in self.values.buffers:
            return self.values.buffers[x.name]
        buffer = self.place(name, emit.machine_shape(self.kernel, x.axes), x.dtype)
        with self.parallel(x.axes, s):
            self.emitter.line(f"{self.values.element(buffer, x.axes)} = {self.values.operand(x)}", s.span)
        return buffer

    def reduce(self, s: ir.Assign, x: ir.Reduce) -> None:
        """One axis after the other, the innermost first."""
        axes = list(emit.machine_axes(self.kernel, x.x.axes))
        assert set(x.over) <= set(axes), "a reduction over an axis that its operand lacks"
        assert x.op in ("sum", "max", "min"), f"legalize left '{x.op}'"
        assert x.x.dtype is x.dtype, "legalize left a reduction into another dtype"
        source = self.operand_buffer(x.x, f"{ir.plain(s.name)}_terms", s)
        over = sorted((a for a in axes if a in x.over), key=axes.index, reverse=True)
        for axis in over:
            at = axes.index(axis)
            axes.remove(axis)
            shape = tuple(self.kernel.schedule.length(a) for a in axes) or (1,)
            if axis != over[-1]:
                target = self.place(f"{ir.plain(s.name)}_{'_'.join(map(ir.plain, axes))}", shape, x.dtype)
            elif axes:
                target = self.buffer(s.name, x)
            else:
                known = s.name not in self.twice
                target = self.place(ir.plain(s.name) if known else f"{ir.plain(s.name)}_value", shape, x.dtype)
            self.emitter.line(f"T.reduce_{x.op}({source}, {target}, dim={at})", s.span)
            source = target
        if not axes and s.name in self.twice:
            self.scalar(s, Text(f"{source}[0]"))
        elif not axes:
            self.values.buffers[s.name] = source

    def scan(self, s: ir.Assign, x: ir.Scan) -> None:
        """Through shared memory, as rows of a matrix: there TileLang scans."""
        axes = emit.machine_axes(self.kernel, x.axes)
        others = [a for a in axes if a != x.over]
        length = self.kernel.schedule.length(x.over)
        rows = math.prod(self.kernel.schedule.length(a) for a in others)
        shape = (rows, length) if others else (length,)
        sums = self.place(f"{ir.plain(s.name)}_sums", shape, x.dtype, "shared")
        out = self.buffer(s.name, x)

        def at(shift: str = "") -> str:
            row = Text("0")
            for k, a in enumerate(others):
                row = (
                    Text(self.values.lane[a])
                    if k == 0
                    else infix("+", infix("*", row, number(self.kernel.schedule.length(a))), Text(self.values.lane[a]))
                )
            lane = self.values.lane[x.over] + shift
            return f"{row}, {lane}" if others else lane

        with self.parallel(axes, s):
            self.emitter.line(f"{sums}[{at()}] = {self.values.operand(x.x)}", s.span)
        self.emitter.line(f"T.cumsum({sums}, dim={len(shape) - 1}{', reverse=True' if x.reverse else ''})", s.span)
        with self.parallel(axes, s):
            value = Text(f"{sums}[{at()}]")
            if x.exclusive:
                value = Text(f"{sums}[{at(' + 1' if x.reverse else ' - 1')}]")
            if x.dtype.is_float:
                # Sums start from +0.0, so a sum of nothing but -0.0 is +0.0, too.
                value = call("T.ieee_add", value, self.values.typed(ir.Const(x.dtype, (), 0.0)))
            if x.exclusive:
                lane = self.values.lane[x.over]
                inside = f"{lane} < {length - 1}" if x.reverse else f"{lane} > 0"
                value = call("T.if_then_else", inside, value, self.values.typed(ir.Const(x.dtype, (), 0)))
            self.emitter.line(f"{self.values.element(out, axes)} = {value}", s.span)


def _tuple(items: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"
