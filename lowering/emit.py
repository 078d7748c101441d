"""What both lowerings print with: lines with indentation and the source lines they come from, expressions with precedence, names, arguments."""

from __future__ import annotations

import builtins
import keyword
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from nsalang import ir
from nsalang.base.dtypes import I64
from nsalang.base.source import Span, function_at
from nsalang.base.target import Target
from nsalang.ir.summary import machine_facts, proofs
from nsalang.lowering.program import Argument, Kind, Program
from nsalang.lowering.turns import Turns
from nsalang.lowering.wrap import WIDTH, wrapped


@dataclass(frozen=True, slots=True)
class Binding:
    """Where the launcher takes an argument from: a tensor or a view, a dimension, the stride of ``axis`` of one (in elements), a scalar."""

    kind: Literal["tensor", "dim", "stride", "scalar"]
    name: str
    axis: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """A program and how to launch it.

    ``bindings``: one for each argument of the program, in order. ``grid``: how many programs each grid index takes, over Dim and Scalar;
    a launch has their product. ``lines``: (line of the generated source, what it was made from), sorted.
    """

    program: Program
    bindings: tuple[Binding, ...]
    grid: tuple[ir.Expr, ...]
    lines: tuple[tuple[int, Span], ...]


# Python's precedence, loosest first.
TERNARY, OR, AND, NOT, COMPARE, BITOR, BITXOR, BITAND, SHIFT, SUM, PRODUCT, SIGN, ATOM = range(13)
LEVELS = {
    "<": COMPARE, "<=": COMPARE, ">": COMPARE, ">=": COMPARE, "==": COMPARE, "!=": COMPARE, "|": BITOR, "^": BITXOR, "&": BITAND,
    "<<": SHIFT, ">>": SHIFT, "+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "%": PRODUCT,
}  # fmt: skip


INFIX: dict[ir.BinaryOp, str] = {
    "add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
"""The operators that both languages have, with the same meaning."""


@dataclass(frozen=True, slots=True)
class Text:
    """Python text of an expression, and how tightly its outermost operator binds."""

    text: str
    level: int = ATOM

    def __str__(self) -> str:
        return self.text

    def within(self, level: int) -> str:
        """The text where an operand of ``level`` or tighter is needed."""
        return self.text if self.level >= level else f"({self.text})"


def infix(op: str, a: Text, b: Text) -> Text:
    """``a op b``. All operators group to the left; comparisons do not chain."""
    level = LEVELS[op]
    return Text(f"{a.within(level + (level == COMPARE))} {op} {b.within(level + 1)}", level)


def prefix(op: str, x: Text) -> Text:
    return Text(f"{op}{x.within(SIGN)}", SIGN)


def call(function: str, *arguments: Text | str, **named: Text | str) -> Text:
    parts = [str(a) for a in arguments] + [f"{name}={value}" for name, value in named.items()]
    return Text(f"{function}({', '.join(parts)})")


def method(x: Text, name: str, *arguments: Text | str, **named: Text | str) -> Text:
    return call(f"{x.within(ATOM)}.{name}", *arguments, **named)


def subscript(x: Text, inside: str) -> Text:
    return Text(f"{x.within(ATOM)}[{inside}]")


def number(value: float | bool) -> Text:
    """A literal of exactly this value."""
    if isinstance(value, bool | int):
        return Text(repr(value), SIGN if value < 0 else ATOM)
    if not math.isfinite(value):
        return Text(f'float("{value}")')
    return Text(repr(value).replace("e+", "e"), SIGN if math.copysign(1.0, value) < 0 else ATOM)


@dataclass(slots=True)
class Names:
    """Identifiers of one module: the source's where they are free, else with a number behind."""

    taken: set[str]

    @staticmethod
    def avoiding(*others: str) -> Names:
        """No name that Python, its builtins or ``others`` have."""
        return Names({*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *others})

    def pick(self, wanted: str) -> str:
        """A free name like ``wanted``, which is taken from now on."""
        name, number = wanted, 2
        while name in self.taken:
            name, number = f"{wanted}_{number}" if wanted[-1].isdigit() else f"{wanted}{number}", number + 1
        self.taken.add(name)
        return name


@dataclass(slots=True)
class Emitter:
    """Lines of a module, each with the span that it was made from. Notes ``# kernel:line`` where another line of the source begins."""

    kernel: ir.Kernel
    out: list[str] = field(default_factory=list)
    spans: list[tuple[int, Span]] = field(default_factory=list)
    depth: int = 0
    noted: tuple[str, int] = ("", 0)

    def line(self, text: str = "", span: Span | None = None) -> None:
        """One statement, broken where it is too long."""
        indent = " " * (4 * self.depth)
        note = self._note(span)
        first = len(self.out) + 1
        lines = wrapped(indent, text) if text else [""]
        if note and len(lines[-1]) + 2 + len(note) <= WIDTH:
            lines[-1] += f"  {note}"
        elif note:
            lines.insert(0, indent + note)
        self.out += lines
        if span is not None:
            self.spans += [(number, span) for number in range(first, len(self.out) + 1)]

    def _note(self, span: Span | None) -> str:
        if span is None or self.kernel.span is None:
            return ""
        # A helper's lines are counted from its own def.
        place = function_at(span) or (self.kernel.name, span.line - self.kernel.span.line + 1)
        if place == self.noted:
            return ""
        self.noted = place
        return f"# {place[0]}:{place[1]}"

    @contextmanager
    def block(self, head: str, span: Span | None = None) -> Iterator[None]:
        """``head`` and its indented body, which must not be empty."""
        self.line(head, span)
        self.depth += 1
        before = len(self.out)
        yield
        if len(self.out) == before:
            self.line("pass")
        self.depth -= 1

    def source(self) -> str:
        return "\n".join(self.out) + "\n"


def index_type(kernel: ir.Kernel) -> Kind:
    """How dimensions, strides and offsets are passed and computed."""
    return "i64" if kernel.schedule.wide else "i32"


@dataclass(slots=True)
class Arguments:
    """What the code of a kernel can be given, in order. ``used``: the names of those that it names."""

    given: list[tuple[Binding, Argument]]
    names: dict[tuple[str, str, int], str] = field(init=False)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names = {(b.kind, b.name, b.axis): a.name for b, a in self.given}

    def use(self, kind: str, name: str, axis: int = 0) -> str:
        """The name of an argument, which the code names."""
        found = self.names[kind, name, axis]
        self.used.add(found)
        return found

    def has_stride(self, tensor: str, axis: int) -> bool:
        """Whether a stride is an argument; else it is 1."""
        return ("stride", tensor, axis) in self.names

    def passed(self) -> list[tuple[Binding, Argument]]:
        """The tensors, and of the rest what the code names."""
        return [(b, a) for b, a in self.given if b.kind == "tensor" or a.name in self.used]


def arguments(kernel: ir.Kernel, names: Names) -> Arguments:
    """Everything that a kernel can be given: tensors, views, dimensions, strides, scalars."""
    index = index_type(kernel)
    aligned = kernel.schedule.vectors if kernel.schedule.aligned else ()
    rows = (*aligned, *kernel.schedule.rows) if kernel.schedule.aligned else ()
    out: list[tuple[Binding, Argument]] = []
    for tensor in kernel.arrays:
        stored = tensor.storage or tensor.dtype
        out.append((Binding("tensor", tensor.name), Argument(names.pick(tensor.name), "pointer", stored.name, tensor.name in aligned)))
    for dim in kernel.dims:
        divisor = dim_divisor(kernel, dim)
        out.append((Binding("dim", dim), Argument(names.pick(dim), index, aligned=divisor % 16 == 0, divisor=math.gcd(divisor, 16))))
    for tensor in kernel.arrays:
        for axis in range(len(tensor.shape) - (tensor.name in rows)):
            name = names.pick(f"{tensor.name}_stride{axis}")
            divisor = stride_divisor(kernel, tensor)
            out.append((Binding("stride", tensor.name, axis), Argument(name, index, aligned=divisor % 16 == 0, divisor=divisor)))
    for scalar in kernel.scalars:
        out.append((Binding("scalar", scalar.name), Argument(names.pick(scalar.name), PASSED_AS[scalar.dtype.name])))
    return Arguments(out)


PASSED_AS: dict[str, Kind] = {
    "bool": "bool", "i8": "i32", "i16": "i32", "i32": "i32", "i64": "i64", "u8": "i32", "u16": "i32", "u32": "i64", "f16": "f32", "bf16": "f32",
    "f32": "f32",
}  # fmt: skip
"""How a scalar parameter of each dtype reaches the code: in the least type that holds it and that a launch can pass."""


def is_passed_as(kernel: ir.Kernel, x: ir.Scalar) -> bool:
    """Whether a scalar's argument has the dtype with which the code reads it."""
    return PASSED_AS[next(p.dtype.name for p in kernel.scalars if p.name == x.name)] == x.dtype.name


def dim_divisor(kernel: ir.Kernel, name: str) -> int:
    """What a dimension is a multiple of, by what the kernel requires and by the facts of the variant; else 1."""
    divisor = 1
    for tensor in kernel.arrays:
        if tensor.shape and isinstance(tensor.shape[-1], ir.Dim) and tensor.shape[-1].name == name:
            divisor = math.lcm(divisor, stride_divisor(kernel, tensor))
    for require in (*kernel.requires, *(kernel.hoists if kernel.schedule.exact else ())):
        match require.condition:
            case ir.Binary(op="eq", a=ir.Binary(op="mod" | "tmod", a=ir.Dim(name=found), b=ir.Const(value=value)), b=ir.Const(value=0)) if (
                found == name
            ):
                divisor = math.lcm(divisor, int(value))
            case _:
                pass
    return divisor


def stride_divisor(kernel: ir.Kernel, tensor: ir.Tensor | ir.View) -> int:
    """What every stride that is an argument is a multiple of, in elements."""
    aligned = kernel.schedule.aligned and tensor.name in kernel.schedule.vectors
    return max(16 // (tensor.storage or tensor.dtype).bytes, 1) if aligned else 1


def machine_axes(kernel: ir.Kernel, axes: Iterable[str]) -> tuple[str, ...]:
    """The dimensions of a value with these axes, outermost first."""
    have = set(axes)
    return tuple(a for a in kernel.schedule.order if a in have)


def machine_shape(kernel: ir.Kernel, axes: Iterable[str]) -> tuple[int, ...]:
    return tuple(kernel.schedule.length(a) for a in machine_axes(kernel, axes))


def grid_of(kernel: ir.Kernel) -> tuple[ir.Expr, ...]:
    """The number of programs of each grid index, for the launcher."""
    return tuple(programs(kernel, index) for index in kernel.grid)


def programs(kernel: ir.Kernel, index: ir.GridIndex) -> ir.Expr:
    """``extent``, or with tiles ``cdiv(extent, length)``."""
    length = kernel.schedule.length(index.name) if index.tiled else 1
    if length == 1:
        return index.extent
    match index.extent:
        case ir.Const(value=value, dtype=dtype):
            return ir.Const(dtype, (), -(-int(value) // length))
        case extent:
            dtype = extent.dtype
            above = ir.Binary(dtype, (), "add", extent, ir.Const(dtype, (), length - 1))
            return ir.Binary(dtype, (), "tdiv", above, ir.Const(dtype, (), length))


def never_negative(x: ir.Expr) -> bool:
    """Whether it shows that an extent is not negative."""
    match x:
        case ir.Dim():
            return True
        case ir.Const(value=value):
            return value >= 0
        case ir.Binary(op="add" | "mul" | "floordiv" | "mod" | "min" | "max", a=a, b=b):
            return never_negative(a) and never_negative(b)
        case _:
            return False


def used_indices(kernel: ir.Kernel) -> dict[str, bool]:
    """The index variables that the code reads, by name: whether as 64-bit integers."""
    return {n.name: n.dtype is I64 for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Index)}


def read_axes(kernel: ir.Kernel, name: str) -> tuple[str, ...]:
    """An index variable and the groups of its lanes, of these those that the code reads."""
    used = used_indices(kernel)
    return tuple(n for n in (name, *kernel.schedule.groups_of(name)) if n in used)


def address_names(kernel: ir.Kernel) -> frozenset[str]:
    """Variables with axes that say where or whether a tensor is accessed."""
    accesses = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Load | ir.Store)]
    parts = [n for access in accesses for p in ir.address(access) for n in ir.walk(p)]
    return frozenset(n.name for n in parts if isinstance(n, ir.Var) and n.axes)


def assigned_twice(kernel: ir.Kernel) -> frozenset[str]:
    """Variables with several assignments: a backend must give the first the type of the others."""
    seen: set[str] = set()
    twice: set[str] = set()
    for statement in kernel.body:
        for node in ir.walk(statement):
            if isinstance(node, ir.Assign):
                (twice if node.name in seen else seen).add(node.name)
    return frozenset(twice)


def barriers(kernel: ir.Kernel) -> frozenset[int]:
    """The ``id`` of each statement before which all threads of an instance must have finished their accesses to some memory.

    A store and a load of one tensor or of two views of it, in either order, may be made by different threads for one element; so may two stores
    by different statements, or by one statement in two turns of a loop. Only of atomic additions any number can meet in any order.
    """
    found: set[int] = set()
    turns = Turns(kernel)
    # Accesses since the last barrier: (memory, what is done to it, id of the statement).
    State = frozenset[tuple[str, Literal["load", "set", "add"], int]]
    written = {kernel.memory(n.tensor) for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Store)}

    def clash(state: State, name: str, how: str, at: int, repeats: bool) -> bool:
        return any(t == name and (was != how or (how == "set" and (who != at or repeats))) for t, was, who in state)

    def access(state: State, statement: ir.Stmt, name: str, how: Literal["load", "set", "add"], repeats: bool) -> State:
        if clash(state, name, how, id(statement), repeats):
            found.add(id(statement))
            state = frozenset()
        return state | {(name, how, id(statement))}

    def loads(state: State, statement: ir.Stmt, values: Sequence[ir.Expr | None]) -> State:
        for value in values:
            for node in ir.walk(value) if value is not None else ():
                if isinstance(node, ir.Load) and kernel.memory(node.tensor) in written:
                    state = access(state, statement, kernel.memory(node.tensor), "load", False)
        return state

    def run(body: Sequence[ir.Stmt], state: State, loops: tuple[str, ...]) -> State:
        for s in body:
            match s:
                case ir.Assign():
                    state = loads(state, s, (s.value,))
                case ir.Store():
                    state = loads(state, s, (s.value, s.mask, *s.indices))
                    # A scatter may write one element twice whatever its indices are made of.
                    repeats = s.mode == "scatter" and bool(loops) or turns.may_repeat(s, loops)
                    state = access(state, s, kernel.memory(s.tensor), "add" if s.mode == "add" else "set", repeats)
                case ir.SpanAxis():
                    state = loads(state, s, (s.start, s.stop))
                case ir.For():
                    state = loads(state, s, (s.lo, s.hi))
                    # The second time around, the body follows itself.
                    state = run(s.body, run(s.body, state, (*loops, s.index)), (*loops, s.index)) | state
                case ir.If():
                    state = loads(state, s, (s.cond,))
                    state = run(s.body, state, loops) | run(s.orelse, state, loops)
        return state

    run(kernel.body, frozenset(), ())
    return frozenset(found)


def shared_memory(kernel: ir.Kernel) -> tuple[str, ...]:
    """The tensors and views that are accessed beside another name of the same memory, one of them to write."""
    accesses = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Load | ir.Store)]
    written = {kernel.memory(n.tensor) for n in accesses if isinstance(n, ir.Store)}
    names = [n for n in dict.fromkeys(n.tensor for n in accesses) if kernel.memory(n) in written]
    return tuple(n for n in names if any(kernel.memory(other) == kernel.memory(n) for other in names if other != n))


def facts(kernel: ir.Kernel, target: Target, backend: str) -> list[str]:
    """The variant in words, for the head of the module: constants, facts about the launch, proofs, reasons of the schedule."""
    schedule = kernel.schedule
    out = [f"{kernel.name} for {target}, in {backend}."]
    if kernel.constants:
        out.append(", ".join(f"{name} = {text}" for name, text in kernel.constants) + ".")
    size, layout, *hoists = machine_facts(kernel)
    out.append(f"{size}; {layout}.")
    out += [f"{fact}." for fact in hoists]
    out += [f"{summary}." for summary in (proofs(kernel),) if summary]
    out.append(f"{schedule.warps} warps.")
    return [*out, *schedule.why]


def docstring(out: Emitter, kernel: ir.Kernel, target: Target, backend: str, instance: str) -> None:
    """The docstring of the module. ``instance``: what the backend calls one of those that a launch has."""
    title, *rest = facts(kernel, target, backend)
    made = [
        f"{kernel.schedule.length(i.name)} {ir.plain(i.name)}"
        if i.tiled and kernel.schedule.length(i.name) > 1
        else f"one {ir.plain(i.name)}"
        for i in kernel.grid
    ]
    out.line(f'"""{title}')
    out.line()
    for line in (f"A {instance} makes {' x '.join(made) or 'everything'}; {instance}s run through the last index fastest.", *rest):
        out.out.append(line.replace("\\", "/").replace('"""', "'''"))
    out.line('"""')


def arms(s: ir.If, barriers: frozenset[int], text: Callable[[ir.Expr], Text]) -> Iterator[tuple[str, Span | None, tuple[ir.Stmt, ...]]]:
    """The parts of a branch in order: the head of each, where it comes from, and its body. An ``if`` that stands alone in an ``else`` is an
    ``elif``, unless there is a barrier before it."""
    word = "if"
    while True:
        yield f"{word} {text(s.cond)}:", s.span, s.body
        match s.orelse:
            case ():
                return
            case (ir.If() as other,) if id(other) not in barriers:
                s, word = other, "elif"
            case _:
                yield "else:", None, s.orelse
                return
