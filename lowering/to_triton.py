"""A kernel on which all passes ran, printed as a Triton program. It prints what the IR says and chooses nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import BOOL, F32, I32, DType
from nsalang.base.source import Span
from nsalang.base.target import Target
from nsalang.lowering import emit
from nsalang.lowering.emit import Arguments, Emitter, Generated, Names, Text, call, infix, method, number, prefix, subscript
from nsalang.lowering.program import Program

INFIX: dict[ir.BinaryOp, str] = {**emit.INFIX, "tdiv": "//", "tmod": "%"}
# div_rn and sqrt_rn are IEEE; `/` and tl.sqrt are approximations.
CALLS = {"min": "tl.minimum", "max": "tl.maximum", "div": "tl.div_rn"}
FUNCTIONS: dict[ir.UnaryOp, str] = {
    "abs": "tl.abs", "exp": "tl.exp", "exp2": "tl.exp2", "log": "tl.log", "log2": "tl.log2", "sqrt": "tl.sqrt_rn", "rsqrt": "tl.rsqrt",
    "floor": "tl.floor", "ceil": "tl.ceil",
}  # fmt: skip
LITERALS = (I32, F32, BOOL)
"""The types that Triton gives to Python numbers."""


def lower(kernel: ir.Kernel, target: Target) -> Generated:
    """The Triton program of a kernel, as a module that a person could have written. ``kernel``: after all passes."""
    schedule = kernel.schedule
    names = Names.avoiding("tl", "triton")
    entry = names.pick(kernel.name)
    arguments = emit.arguments(kernel, names)
    printer = Printer(kernel, target, names, arguments, Emitter(kernel), {}, {}, emit.assigned_twice(kernel), emit.barriers(kernel))
    printer.emitter.depth = 1
    printer.grid()
    printer.statements(kernel.body)
    body = printer.emitter
    passed = arguments.passed()

    head = Emitter(kernel)
    emit.docstring(head, kernel, target, "Triton", "program")
    head.line()
    head.line("import triton")
    head.line("import triton.language as tl")
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
    return Generated(program, tuple(b for b, _ in passed), emit.grid_of(kernel), lines)


def dtype_name(dtype: DType, target: Target) -> str:
    """A dtype as Triton writes it; e4m3 is the format that the target has."""
    return target.facts.e4m3.triton if dtype.name == "e4m3" else dtype.triton


@dataclass(slots=True)
class Printer:
    """The state of printing one kernel. ``variables``, ``indices``: local names."""

    kernel: ir.Kernel
    target: Target
    names: Names
    arguments: Arguments
    emitter: Emitter
    variables: dict[str, str]
    indices: dict[str, str]
    twice: frozenset[str]
    barriers: frozenset[int]

    # ------------------------------------------------------------------------------------------------------------------ the grid

    def grid(self) -> None:
        """The index variables of this program, from its number: the last varies fastest."""
        wanted = [i for i in self.kernel.grid if emit.read_axes(self.kernel, i.name)]
        if not wanted:
            return
        pid: Text = call("tl.program_id", "0")
        if self.kernel.schedule.wide:
            pid = method(pid, "to", "tl.int64")
        if len(self.kernel.grid) > 1:
            name = self.names.pick("pid")
            self.emitter.line(f"{name} = {pid}")
            pid = Text(name)
        for position, index in reversed([*enumerate(self.kernel.grid)]):
            if index in wanted:
                later = [self._programs(i) for i in self.kernel.grid[position + 1 :]]
                mine = pid
                for count in reversed(later):
                    mine = infix("//", mine, count)
                if position:
                    mine = infix("%", mine, self._programs(index))
                if index.tiled:
                    begin = infix("*", mine, number(self.kernel.schedule.length(index.name)))
                    self.block_axis(index.name, begin, index.span)
                else:
                    name = self.indices[index.name] = self.names.pick(ir.plain(index.name))
                    self.emitter.line(f"{name} = {mine}", index.span)

    def block_axis(self, axis: str, start: Text | None, span: Span | None, constant: bool = False) -> None:
        """The variables of an axis, which begins at ``start`` (None: at 0), and of the first lanes of its groups, as far as the code reads them.
        ``constant``: nothing in ``start`` has 64 bits."""
        for each in emit.read_axes(self.kernel, axis):
            lanes = call("tl.arange", "0", str(self.kernel.schedule.length(each)))
            if (step := self.kernel.schedule.step(each)) > 1:
                lanes = infix("*", lanes, number(step))
            if constant and emit.used_indices(self.kernel)[each]:
                lanes = method(lanes, "to", "tl.int64")
            if each not in self.indices:
                self.indices[each] = self.names.pick(ir.plain(each))
            self.emitter.line(f"{self.indices[each]} = {lanes if start is None else infix('+', start, lanes)}", span)

    def _programs(self, index: ir.GridIndex) -> Text:
        length = self.kernel.schedule.length(index.name) if index.tiled else 1
        if isinstance(index.extent, ir.Const):
            return self.expr(emit.programs(self.kernel, index))
        extent = self.expr(index.extent)
        if not self.kernel.schedule.wide and any(isinstance(n, ir.Scalar) for n in ir.walk(index.extent)):
            extent = method(extent, "to", "tl.int32")
        return extent if length == 1 else call("tl.cdiv", extent, str(length))

    # ---------------------------------------------------------------------------------------------------------------- statements

    def statements(self, body: Sequence[ir.Stmt]) -> None:
        for statement in body:
            if id(statement) in self.barriers:
                self.emitter.line("tl.debug_barrier()", statement.span)
            self.statement(statement)

    def statement(self, s: ir.Stmt) -> None:
        out = self.emitter
        match s:
            case ir.Assign():
                value = self.value(s)
                out.line(f"{self.variable(s.name)} = {value}", s.span)
            case ir.Store():
                out.line(str(self.store(s)), s.span)
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
        from_zero = isinstance(s.start, ir.Const) and s.start.value == 0
        self.block_axis(s.axis, None if from_zero else self.expr(s.start), s.span, isinstance(s.start, ir.Const))

    def loop(self, s: ir.For) -> None:
        wide = emit.used_indices(self.kernel).get(s.index, False)
        lo, hi = self.expr(s.lo), self.expr(s.hi)
        if wide and isinstance(s.lo, ir.Const) and isinstance(s.hi, ir.Const):
            lo = call("tl.full", "()", lo, "tl.int64")
        bounds = [hi] if s.kind == "range" and lo.text == "0" else [lo, hi]
        name = self.names.pick(ir.plain(s.index))
        self.indices[s.index] = name
        loop, stages = ("tl.range", {"num_stages": str(s.stages)}) if s.stages else ("range", {})
        if s.kind == "range":
            with self.emitter.block(f"for {name} in {call(loop, *bounds, **stages)}:", s.span):
                self.statements(s.body)
            return
        length = self.kernel.schedule.length(s.index)
        start = self.names.pick(f"{name}_start")
        with self.emitter.block(f"for {start} in {call(loop, *bounds, str(length), **stages)}:", s.span):
            self.block_axis(s.index, Text(start), s.span)
            self.statements(s.body)

    def branch(self, s: ir.If) -> None:
        for head, span, body in emit.arms(s, self.barriers, self.expr):
            with self.emitter.block(head, span):
                self.statements(body)

    def variable(self, name: str) -> str:
        if name not in self.variables:
            self.variables[name] = self.names.pick(ir.plain(name))
        return self.variables[name]

    # -------------------------------------------------------------------------------------------------------------------- memory

    def value(self, s: ir.Assign) -> Text:
        match s.value:
            case ir.Load() as load:
                return self.load(load)
            case ir.Reduce() as reduce:
                return self.reduce(reduce)
            case ir.Scan() as scan:
                return self.scan(scan)
            case ir.Dot() as dot:
                return self.dot(dot)
            case ir.Const() as constant if s.name in self.twice:
                return self.typed(constant)
            case value:
                return self.expr(value)

    def load(self, x: ir.Load) -> Text:
        named: dict[str, Text] = {}
        if x.mask is not None:
            named["mask"] = self.lifted(x.mask, x.axes)
            if x.fill is not None:
                named["other"] = self.expr(x.fill)
        return call("tl.load", self.pointer(x.tensor, x.indices, x.axes), **named)

    def store(self, s: ir.Store) -> Text:
        named = {"mask": self.lifted(s.mask, s.axes)} if s.mask is not None else {}
        pointer = self.pointer(s.tensor, s.indices, s.axes)
        if s.mode == "add":
            # It gives back what was there; nobody waits for that.
            return call("tl.atomic_add", pointer, self.operand(s.value, s), **named, sem='"relaxed"')
        return call("tl.store", pointer, self.lifted(s.value, s.axes), **named)

    def pointer(self, tensor: str, indices: Sequence[ir.Expr], axes: Sequence[str]) -> Text:
        """The addresses of an access, with all of its axes."""
        out = Text(self.arguments.use("tensor", tensor))
        own: set[str] = set()
        for axis, index in enumerate(indices):
            own.update(index.axes)
            if index == ir.Const(index.dtype, (), 0):
                continue
            term = self.lifted(index, axes)
            if self.arguments.has_stride(tensor, axis):
                term = infix("*", term, Text(self.arguments.use("stride", tensor, axis)))
            out = infix("+", out, term)
        if own != set(axes):
            out = call("tl.broadcast_to", out, self.shape(axes))
        return out

    # --------------------------------------------------------------------------------------------------------------- expressions

    def lifted(self, x: ir.Expr, axes: Iterable[str]) -> Text:
        """``x`` with the dimensions of ``axes``, length 1 where it lacks one. A scalar goes with everything as it is."""
        text = self.expr(x)
        mine, wanted = emit.machine_axes(self.kernel, x.axes), emit.machine_axes(self.kernel, axes)
        if not mine or mine == wanted:
            return text
        return subscript(text, ", ".join(":" if a in mine else "None" for a in wanted))

    def shape(self, axes: Iterable[str]) -> str:
        sizes = emit.machine_shape(self.kernel, axes)
        return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"

    def expr(self, x: ir.Expr) -> Text:
        match x:
            case ir.Const():
                return number(x.value)
            case ir.Dim():
                return Text(self.arguments.use("dim", x.name))
            case ir.Scalar():
                text = Text(self.arguments.use("scalar", x.name))
                return text if emit.is_passed_as(self.kernel, x) else method(text, "to", self.dtype(x.dtype))
            case ir.Index():
                return Text(self.indices[x.name])
            case ir.Var():
                return Text(self.variable(x.name))
            case ir.Unary():
                return self.unary(x)
            case ir.Binary():
                return self.binary(x)
            case ir.Fma():
                return call("tl.fma", *(self.operand(v, x) for v in (x.a, x.b, x.c)))
            case ir.Where():
                a, b = self.lifted(x.a, x.axes), self.lifted(x.b, x.axes)
                if isinstance(x.a, ir.Const) and isinstance(x.b, ir.Const):
                    a = self.typed(x.a)
                return call("tl.where", self.lifted(x.cond, x.axes), a, b)
            case ir.Cast():
                assert x.mode != "convert", "a conversion that legalize left"
                return method(self.typed(x.x) if isinstance(x.x, ir.Const) else self.expr(x.x), "to", self.dtype(x.dtype))
            case ir.Bitcast():
                inner = self.typed(x.x) if isinstance(x.x, ir.Const) else self.expr(x.x)
                return method(inner, "to", self.dtype(x.dtype), bitcast="True")
            case ir.Full():
                if not x.value.axes:
                    return call("tl.full", self.shape(x.axes), self.expr(x.value), self.dtype(x.dtype))
                return call("tl.broadcast_to", self.lifted(x.value, x.axes), self.shape(x.axes))
            case ir.Spread():
                return self.spread(x)
            case ir.Load() | ir.Dot() | ir.Reduce() | ir.Scan():
                raise AssertionError(f"flatten left a {type(x).__name__} inside an expression")
            case ir.Search() | ir.Border():
                raise AssertionError(f"expand left a {type(x).__name__}")
            case _:
                assert_never(x)

    def spread(self, x: ir.Spread) -> Text:
        """Behind each dimension of groups one of the lanes in a group: together they run as the lanes of the axis do."""
        inner: ir.Expr = x
        groups: set[str] = set()
        while isinstance(inner, ir.Spread):
            groups.add(inner.group)
            inner = inner.x
        places: list[str] = []
        sizes: list[str] = []
        for axis in emit.machine_axes(self.kernel, inner.axes):
            places += [":", "None"] if axis in groups else [":"]
            sizes.append(str(self.kernel.schedule.length(axis)))
            sizes += [str(self.kernel.schedule.step(axis))] if axis in groups else []
        every = call("tl.broadcast_to", subscript(self.expr(inner), ", ".join(places)), f"({', '.join(sizes)})")
        return call("tl.reshape", every, self.shape(x.axes))

    def operand(self, x: ir.Expr, within: ir.Expr | ir.Store) -> Text:
        """An argument of a function of Triton's, which takes a Python number for i32 or f32 whatever the others are."""
        if isinstance(x, ir.Const):
            return self.typed(x)
        return self.lifted(x, within.axes)

    def typed(self, x: ir.Const) -> Text:
        """A constant that has its dtype wherever it stands."""
        subnormal = isinstance(x.value, float) and 0 < abs(x.value) < 2.0**-126
        if x.dtype in LITERALS and not subnormal:
            return number(x.value)
        return call("tl.full", "()", number(x.value), self.dtype(x.dtype))

    def dtype(self, dtype: DType) -> str:
        return dtype_name(dtype, self.target)

    def unary(self, x: ir.Unary) -> Text:
        match x.op:
            case "neg":
                # `-x` is 0 - x, which gives +0 for +0.
                return infix("*", self.expr(x.x), number(-1.0)) if x.dtype.is_float else prefix("-", self.expr(x.x))
            case "not" | "invert":
                return prefix("~", self.expr(x.x))
            case _:
                return call(FUNCTIONS[x.op], self.expr(x.x))

    def binary(self, x: ir.Binary) -> Text:
        match x.op:
            case "min" | "max" | "div":
                return call(CALLS[x.op], self.operand(x.a, x), self.operand(x.b, x))
            case "floordiv" | "mod":
                return self.floored(x)
            case "shl" | "shr":
                amount = self.lifted(x.b, x.axes)
                if not isinstance(x.b, ir.Const) and x.b.dtype is not x.dtype:
                    amount = method(amount, "to", self.dtype(x.dtype))
                base = self.typed(x.a) if isinstance(x.a, ir.Const) else self.lifted(x.a, x.axes)
                return infix(INFIX[x.op], base, amount)
            case _:
                return infix(INFIX[x.op], self.lifted(x.a, x.axes), self.lifted(x.b, x.axes))

    def floored(self, x: ir.Binary) -> Text:
        """Division in an extent of the grid, which no pass rewrites. Triton's truncates, which differs below zero."""
        a, b = self.expr(x.a), self.expr(x.b)
        if emit.never_negative(x.a) and emit.never_negative(x.b):
            return infix("//" if x.op == "floordiv" else "%", a, b)
        rest = infix("%", infix("+", infix("%", a, b), b), b)
        return rest if x.op == "mod" else infix("//", infix("-", a, rest), b)

    # -------------------------------------------------------------------------------------------------------------- contractions

    def dot(self, x: ir.Dot) -> Text:
        """A matrix product of blocks; with batch axes that are longer than 1, one for each of their lanes."""
        free = {i for i in (*x.a.axes, *x.b.axes) if (i in x.a.axes) != (i in x.b.axes)}
        assert x.left is not None and set(x.left) in (free & {*x.a.axes}, free & {*x.b.axes}), "a contraction whose rows are not settled"
        first, second = (x.a, x.b) if set(x.left) <= {*x.a.axes} else (x.b, x.a)
        rows, columns, over = self.long(x.left), self.long(free - {*x.left}), self.long((x.over,))
        shared = self.long(i for i in x.a.axes if i in x.b.axes and i != x.over)
        batch = (shared,) if shared else ()
        result = (*batch, rows, columns)
        operands = [self.matrix(first, (*batch, rows, over)), self.matrix(second, (*batch, over, columns))]
        named: dict[str, str] = {}
        if x.a.dtype is F32:
            named["input_precision"] = '"tf32"' if x.precision == "tf32" and self.target.facts.tf32 else '"ieee"'
        if x.promote:
            named["max_num_imprecise_acc"] = str(min(x.promote, self.kernel.schedule.length(x.over)))
        # The sum of one block's products of bytes fits in 32 bits; in what has 64, it is added afterwards.
        wide = x.dtype.bits == 64
        if x.acc is not None and not wide:
            operands.append(self.matrix(x.acc, result))
            if not x.dtype.is_float:
                named["out_dtype"] = self.dtype(x.dtype)
        out = call("tl.dot", *operands, **named)
        if wide:
            out = method(out, "to", self.dtype(x.dtype))
        shape = emit.machine_shape(self.kernel, x.axes)
        if self.sizes(result) != shape:
            assert tuple(i for group in result for i in group) == self.long(x.axes), (
                "a contraction that does not lie in the order of its axes"
            )
            out = call("tl.reshape", out, str(shape))
        return infix("+", self.expr(x.acc), out) if x.acc is not None and wide else out

    def long(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Those of ``axes`` that have more than one lane, outermost first."""
        return tuple(i for i in emit.machine_axes(self.kernel, axes) if self.kernel.schedule.length(i) > 1)

    def sizes(self, groups: Sequence[tuple[str, ...]]) -> tuple[int, ...]:
        return tuple(math.prod(self.kernel.schedule.length(i) for i in group) for group in groups)

    def matrix(self, x: ir.Expr, groups: Sequence[tuple[str, ...]]) -> Text:
        """``x`` as a block with one dimension for each of ``groups``, in their order."""
        out = self.expr(x)
        axes = self.long(x.axes)
        lying = sorted(groups, key=lambda group: axes.index(group[0]) if group else -1)
        assert tuple(i for group in lying for i in group) == axes, "an operand whose axes are mixed"
        shape = self.sizes(lying)
        if shape != emit.machine_shape(self.kernel, x.axes):
            out = call("tl.reshape", out, str(shape))
        order = [str(lying.index(group)) for group in groups]
        if order != sorted(order):
            out = call("tl.trans", out, *order[: len(order) if len(order) > 2 else 0])
        return out

    # ---------------------------------------------------------------------------------------------------------------- reductions

    def reduce(self, x: ir.Reduce) -> Text:
        axes = emit.machine_axes(self.kernel, x.x.axes)
        assert set(x.over) <= set(axes), "a reduction over an axis that its operand lacks"
        assert x.op in ("sum", "max", "min"), f"legalize left '{x.op}'"
        name = f"tl.{x.op}"
        out = self.expr(x.x)
        if len(x.over) == len(axes) > 1:
            out = call(name, out)
        else:
            for position in sorted((axes.index(a) for a in x.over), reverse=True):
                out = call(name, out, axis=str(position))
        # Triton reduces narrow types in wider ones, and gives those.
        if x.x.dtype.bits < 32:
            out = method(out, "to", self.dtype(x.dtype))
        return out

    def scan(self, x: ir.Scan) -> Text:
        axes = emit.machine_axes(self.kernel, x.axes)
        at = axes.index(x.over)
        named = {"axis": str(at)} | ({"reverse": "True"} if x.reverse else {})
        operand = (
            self.expr(x.x)
            if emit.machine_axes(self.kernel, x.x.axes) == axes
            else call("tl.broadcast_to", self.lifted(x.x, axes), self.shape(axes))
        )
        total = call("tl.cumsum", operand, **named)
        if x.x.dtype.bits < 32:
            total = method(total, "to", self.dtype(x.dtype))
        if not x.exclusive:
            return total
        if not x.dtype.is_float:
            return infix("-", total, operand)
        # The sum of the lanes before: the neighbour's, for a difference would round again and make NaN of infinities.
        length = self.kernel.schedule.length(x.over)
        sums = self.names.pick("sums")
        lane = self.names.pick("lane")
        self.emitter.line(f"{sums} = {total}", x.span)
        self.emitter.line(f"{lane} = {call('tl.arange', '0', str(length))}", x.span)
        edge = length - 1 if x.reverse else 0
        near = f"tl.minimum({lane} + 1, {edge})" if x.reverse else f"tl.maximum({lane} - 1, 0)"
        spread = "" if len(axes) == 1 else f"[{', '.join(':' if a == x.over else 'None' for a in axes)}]"
        where = f"{near}{spread}" if len(axes) == 1 else f"tl.broadcast_to({near}{spread}, {self.shape(axes)})"
        return call("tl.where", f"{lane}{spread} == {edge}", "0.0", call("tl.gather", sums, where, axis=str(at)))
