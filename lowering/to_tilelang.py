"""A kernel on which all passes ran, printed as a TileLang program. It prints what the IR says and chooses nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from typing_extensions import assert_never

from nsalang import ir
from nsalang.dtypes import F32, I32, I64, DType
from nsalang.lowering import emit
from nsalang.lowering import tilelang_dots as dots
from nsalang.lowering.emit import Emitter, Generated, Names, Text, call, infix, number, subscript
from nsalang.lowering.tilelang_ahead import Ahead, ahead
from nsalang.lowering.tilelang_bools import MOST, bool_axes, is_narrow
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
    nodes = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Value | ir.Store)]
    ranks = [len(emit.machine_axes(kernel, n.axes)) or int(isinstance(n, ir.Store) and n.mode == "add") for n in nodes]
    lanes = tuple(names.pick("ijkpuvw"[k] if k < 7 else "i") for k in range(max(ranks, default=0)))
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
        dots.matrices(kernel),
        dots.continued(kernel),
        bools=bool_axes(kernel) if target.kind == "cuda" else frozenset(),
    )
    printer.emitter.depth = printer.places.depth = 3
    if shared := emit.shared_memory(kernel):
        # TileLang takes all pointers for addresses of different memory otherwise.
        printer.places.line(f"T.annotate_restrict_buffers({', '.join(known['tensor', name, 0] for name in shared)})")
    printer.grid()
    printer.statements(kernel.body)
    # What the buffers' shapes and strides name is passed, too.
    tensors = Emitter(kernel)
    tensors.depth = 2
    pointers = {t.name: names.pick(f"{known['tensor', t.name, 0]}_ptr") for t in kernel.arrays}
    accessed = {n.tensor for n in nodes if isinstance(n, ir.Load | ir.Store)}
    for tensor in kernel.arrays:
        if tensor.name not in accessed:
            continue
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
    """The state of printing one kernel. ``places``: the buffers of a block, which stand before its code; ``lanes``: loop variables by dimension;
    ``matrices``, ``continued``: see tilelang_dots; ``results``: the matrix in registers behind the result or an operand of a Dot; ``unread``: what need not be computed;
    ``bools``: see tilelang_bools."""

    kernel: ir.Kernel
    target: Target
    names: Names
    values: Values
    emitter: Emitter
    places: Emitter
    lanes: tuple[str, ...]
    twice: frozenset[str]
    barriers: frozenset[int]
    matrices: dict[str, tuple[tuple[str, ...], ...]]
    continued: dict[str, str]
    results: dict[str, str] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    pid: str = ""
    bools: frozenset[str] = frozenset()

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
        length = self.kernel.schedule.length(s.index) if s.kind == "tile" else 1
        name = self.names.pick(ir.plain(s.index))
        if s.kind == "range" and not s.ahead:
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
        extent = hi if from_zero else infix("-", hi, lo)
        blocks = call("T.ceildiv", extent, str(length)) if length > 1 else extent
        if isinstance(s.lo, ir.Const) and isinstance(s.hi, ir.Const):
            blocks = number(max(0, -(-(int(s.hi.value) - int(s.lo.value)) // length)))
        with self.emitter.block(f"for {counter} in {call('T.serial', blocks)}:", s.span):
            if s.ahead or s.index in emit.used_indices(self.kernel):
                self.emitter.line(f"{name} = {start(counter)}", s.span)
            if s.ahead:
                self.fetch_next(s, early, counter, Text(name), hi, length)
            self.values.bases[s.index] = Text(name)
            self.statements(s.body)
            if s.ahead:
                self.emitter.line("T.sync_threads()", s.span)
        self.unread = unread

    def fetch_next(self, s: ir.For, early: Ahead, counter: Text, name: Text, hi: Text, length: int) -> None:
        """At the beginning of a step: begin to load what a later one needs, and wait for what this one needs."""
        later = s.stages - 1
        self.fetch(s, early, infix("+", name, number(later * length)), hi, self.version(infix("+", counter, number(later)), s))
        if self.asynchronous:
            self.emitter.line(f"T.ptx_wait_group({later})", s.span)
        self.emitter.line("T.sync_threads()", s.span)
        for a, _ in early.loads:
            self.values.versions[a.name] = self.version(counter, s)

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

    @property
    def named(self) -> dict[str, str]:
        """Which name the place of a variable has that another sum continues: the last one's."""
        found: dict[str, str] = {}
        for after, before in reversed(self.continued.items()):
            found[before] = found.get(after, after)
        return found

    @property
    def asynchronous(self) -> bool:
        return self.target.kind != "hip"

    def fetch(self, s: ir.For, early: Ahead, base: Text, hi: Text, version: Text) -> None:
        """The loads of one step that may not exist, as a group of asynchronous copies."""
        before, versions = dict(self.values.bases), dict(self.values.versions)
        self.values.bases[s.index] = None if base == number(0) and s.kind == "tile" else base
        for span in early.spans:
            self.values.bases[span.axis] = None if span.start == ir.const(0, span.start.dtype) else self.values.expr(span.start)
        with self.emitter.block(f"if {infix('<', base, hi)}:", s.span):
            for assign, load in early.loads:
                self.buffer(assign, s.stages)
                self.values.versions[assign.name] = version
                with self.parallel(load.axes, assign, self.asynchronous):
                    # A zero of any type, so that the copy itself writes it.
                    self.emitter.line(f"{self.values.variable(assign.name, load.axes)} = {self.values.load(load, Text('0'))}", assign.span)
        if self.asynchronous:
            self.emitter.line("T.ptx_commit_group()", s.span)
        self.values.bases, self.values.versions = before, versions

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

    def whole(self, value: ir.Expr) -> Text:
        """The value of an assignment or a store: typed where it is a number."""
        match value:
            case ir.Const():
                return self.values.typed(value)
            case _:
                return self.values.expr(value)

    def scalar(self, s: ir.Assign, value: Text, opaque: bool = False) -> None:
        """A variable of one value: an expression's name, or a register where it is assigned again or ``opaque``."""
        if s.name not in self.values.scalars:
            self.values.scalars[s.name] = self.names.pick(ir.plain(s.name))
            if s.name in self.twice or opaque:
                self.places.line(f'{self.values.scalars[s.name]} = T.alloc_var("{s.value.dtype.tilelang}")')
        self.emitter.line(f"{self.values.scalars[s.name]} = {value}", s.span)

    def buffer(self, s: ir.Assign, versions: int = 1) -> str:
        """The place of a variable with axes; its first assignment makes it."""
        if s.name in self.values.buffers:
            return self.values.buffers[s.name]
        name, value = ir.plain(self.named.get(s.name, s.name)), s.value
        shape = emit.machine_shape(self.kernel, value.axes)
        if s.place == "shared":
            if s.name in self.matrices:
                self.values.matrices[s.name] = self.matrices[s.name]
                shape = dots.shape(self.kernel, self.matrices[s.name])
            self.values.buffers[s.name] = self.place(name, (versions, *shape) if versions > 1 else shape, value.dtype, "shared")
        elif s.name in self.continued:
            first = self.continued[s.name]
            self.values.buffers[s.name], self.results[s.name] = self.values.buffers[first], self.results[first]
        elif s.name in self.matrices:
            matrix = dots.shape(self.kernel, self.matrices[s.name])
            self.results[s.name] = self.place(name if matrix == shape else f"{name}_matrix", matrix, value.dtype)
            self.values.buffers[s.name] = self.results[s.name] if matrix == shape else self.names.pick(name)
            if matrix != shape:
                self.places.line(f"{self.values.buffers[s.name]} = T.reshape({self.results[s.name]}, {_tuple(shape)})")
        else:
            self.values.buffers[s.name] = self.place(name, shape, value.dtype)
        return self.values.buffers[s.name]

    def place(self, name: str, shape: tuple[int, ...], dtype: DType, where: str = "fragment") -> str:
        picked = self.names.pick(name)
        self.places.line(f'{picked} = T.alloc_{where}({_tuple(shape)}, "{dtype.tilelang}")')
        return picked

    @contextmanager
    def parallel(self, axes: Sequence[str], s: ir.Stmt, asynchronous: bool = False) -> Iterator[None]:
        """A loop over the lanes of ``axes``, one after the other in any order."""
        machine = emit.machine_axes(self.kernel, axes)
        lanes = self.lanes[: len(machine)]
        before, self.values.lane = self.values.lane, dict(zip(machine, lanes, strict=True))
        extents = ", ".join(map(str, emit.machine_shape(self.kernel, axes)))
        options = ', annotations={"parallel_async_without_async_commit_wait": True}' if asynchronous else ""
        if is_narrow(self.kernel, s, self.bools):
            options += f", coalesced_width=T.int32({MOST})"
        with self.emitter.block(f"for {', '.join(lanes)} in T.Parallel({extents}{options}):", s.span):
            yield
        self.values.lane = before

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
            self.values.argument("stride", t.name, axis) if ("stride", t.name, axis) in self.values.known else "1"
            for axis in range(len(t.shape))
        ]
        assert all(s != "1" or axis == last for axis, s in enumerate(strides))
        extents = [str(self.values.expr(e)) for e in t.shape]
        return call("T.make_tensor", pointer, _tuple(extents or [1]), f'"{stored.tilelang}"', _tuple(strides or [1]))

    # ------------------------------------------------------------------------------------------------------------------ products

    def dot(self, s: ir.Assign, x: ir.Dot) -> None:
        product = dots.Product.of(x)
        self.buffer(s)
        length = self.kernel.schedule.length(x.over)
        rows = math.prod(map(self.kernel.schedule.length, product.rows))
        policy = f"T.GemmWarpPolicy.{'FullRow' if rows >= 16 * self.kernel.schedule.warps else 'FullCol'}"

        def gemm(into: str, clear: bool, first: int = 0, count: int = length) -> None:
            (left, a), (right, b) = (
                self.matrix(product.left, x.over, product.rows, first, count),
                self.matrix(product.right, x.over, product.columns, first, count),
            )
            options = {"transpose_A": a, "transpose_B": not b, "clear_accum": clear}
            named = {name: "True" for name, value in options.items() if value}
            self.emitter.line(str(call("T.gemm", left, right, into, **named, policy=policy)), s.span)

        parts = x.promote if 0 < x.promote < length else length
        target = self.results[s.name]
        if parts == length and x.dtype in (F32, I32):
            if x.acc is not None and s.name not in self.continued:
                self.start(s, x, x.acc)
            gemm(target, x.acc is None)
            return
        part = ir.Var(I32 if x.dtype.is_integer else x.dtype, x.axes, f"{s.name}.part")
        self.matrices[part.name] = self.matrices[s.name]
        self.buffer(ir.Assign(part.name, part))
        for first in range(0, length, parts):
            gemm(self.results[part.name], True, first, parts)
            with self.parallel(x.axes, s):
                place, new = self.values.variable(s.name, x.axes), self.values.expr(part)
                new = new if part.dtype is x.dtype else self.values.cast(new, x.dtype)
                old = place if first else None if x.acc is None else self.values.expr(x.acc)
                self.emitter.line(f"{place} = {new if old is None else infix('+', old, new)}", s.span)

    def start(self, s: ir.Assign, x: ir.Dot, acc: ir.Expr) -> None:
        """What a product is added to, in the place of the result."""
        if isinstance(acc, ir.Var) and acc.name == s.name:
            return
        with self.parallel(x.axes, s):
            self.emitter.line(f"{self.values.variable(s.name, x.axes)} = {self.whole(acc)}", s.span)

    def matrix(self, x: ir.Var, over: str, free: Sequence[str], first: int, count: int) -> tuple[Text, bool]:
        """An operand, of which ``count`` contracted lanes from ``first`` on are wanted, and whether they are its rows."""
        flipped = dots.transposed(self.kernel, over, free)
        at = [str(self.values.versions[x.name])] if x.name in self.values.versions else []
        lanes = ":" if count == self.kernel.schedule.length(over) else f"{first}:{first + count}"
        if at or lanes != ":":
            at += [lanes, ":"] if flipped else [":", lanes]
        buffer = Text(self.results[x.name] if x.name in self.results else self.values.buffers[x.name])
        return (subscript(buffer, ", ".join(at)) if at else buffer), flipped

    # ---------------------------------------------------------------------------------------------------------------- reductions

    def operand_buffer(self, x: ir.Expr, name: str, s: ir.Assign) -> str:
        """A buffer that holds ``x``: the variable's own, or a new one."""
        if isinstance(x, ir.Var) and x.name in self.values.buffers and x.name not in {*self.values.matrices, *self.values.versions}:
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
                target = self.buffer(s)
            else:
                known = s.name not in self.twice
                target = self.place(ir.plain(s.name) if known else f"{ir.plain(s.name)}_value", shape, x.dtype)
            if axis in self.rows:
                source = self.through_shared(source, x, (*axes[:at], axis, *axes[at:]), s)
            self.emitter.line(f"T.reduce_{x.op}({source}, {target}, dim={at})", s.span)
            source = target
        if not axes and s.name in self.twice:
            self.scalar(s, Text(f"{source}[0]"))
        elif not axes:
            self.values.buffers[s.name] = source

    @property
    def rows(self) -> frozenset[str]:
        """Axes that are rows of a product, which lie in threads in a way that TileLang cannot reduce over."""
        return frozenset(a for _, x in dots.products(self.kernel) for a in dots.Product.of(x).rows)

    def through_shared(self, source: str, x: ir.Reduce, axes: Sequence[str], s: ir.Assign) -> str:
        place = self.place(f"{source}_shared", emit.machine_shape(self.kernel, axes), x.dtype, "shared")
        with self.parallel(axes, s):
            self.emitter.line(f"{self.values.element(place, axes)} = {self.values.element(source, axes)}", s.span)
        return place

    def scan(self, s: ir.Assign, x: ir.Scan) -> None:
        """Through shared memory, as rows of a matrix: there TileLang scans."""
        axes = emit.machine_axes(self.kernel, x.axes)
        others = [a for a in axes if a != x.over]
        length = self.kernel.schedule.length(x.over)
        rows = math.prod(self.kernel.schedule.length(a) for a in others)
        shape = (rows, length) if others else (length,)
        sums = self.place(f"{ir.plain(s.name)}_sums", shape, x.dtype, "shared")
        out = self.buffer(s)

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


def _is_opaque(x: ir.Node) -> bool:
    """Whether TileLang gains nothing from seeing through a name of this: it would divide in every offset, and its prover takes seconds for bits."""
    return isinstance(x, ir.Bitcast) or (isinstance(x, ir.Binary) and x.op in ("tdiv", "tmod"))


def _tuple(items: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"
