"""What is known at one point of a kernel while it is typed: names, guards, axes, and the statements made so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from nsalang import ir
from nsalang.base.constants import Exact, round_to
from nsalang.base.dtypes import F32, I64, DType
from nsalang.base.source import Diagnostic, NsaError, Span
from nsalang.base.target import Target
from nsalang.syntax import Call, Function
from nsalang.types.habits import help_for


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor parameter, or a view of the parameter ``base``; it has a value only where it is indexed."""

    name: str
    dtype: DType
    shape: tuple[ir.Expr, ...]
    extents: tuple[str, ...]
    role: Literal["in", "out", "inout"]
    base: str | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """``None``: an absent optional parameter."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A name whose definition was wrong: using it is not reported again."""


Operand: TypeAlias = "Exact | ir.Expr | DType | TensorRef | Nothing"
Binding: TypeAlias = "Operand | Poison"


class Poisoned(Exception):
    """The expression uses a name whose definition was already reported."""


@dataclass(slots=True)
class Scope:
    """The state of one check. ``call`` gives the value of a call (types/dispatch: it needs what types expressions, and they need it). ``out`` is the statement list being filled; ``guards`` are the conditions under which the current text runs.
    ``loop_axes`` are those of all tile loops so far, of which ``open_loops`` are around the current text. ``functions`` are those of the file, ``constants`` the names that a helper sees, ``calls`` the helpers that are being written out,
    ``outside`` what the names are that Python has and a kernel cannot take."""

    target: Target
    names: dict[str, Binding]
    known: frozenset[str]
    call: Callable[[Scope, Call], Operand]
    ended: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    guards: list[ir.Expr] = field(default_factory=list)
    lanes: tuple[str, ...] = ()
    lanes_condition: ir.Expr | None = None
    carried: frozenset[str] = frozenset()
    in_declarations: bool = True
    parameters: frozenset[str] = frozenset()
    out: list[ir.Stmt] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    grid_axes: set[str] = field(default_factory=set)
    loop_axes: set[str] = field(default_factory=set)
    open_loops: tuple[str, ...] = ()
    tainted: dict[str, frozenset[str]] = field(default_factory=dict)
    shares: dict[str, bool] = field(default_factory=dict)
    requires: list[ir.Require] = field(default_factory=list)
    promises: list[ir.Promise] = field(default_factory=list)
    views: list[ir.View] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    poisoned: set[str] = field(default_factory=set)
    functions: Mapping[str, Function] = field(default_factory=dict)
    constants: Mapping[str, Binding] = field(default_factory=dict)
    calls: tuple[str, ...] = ()
    outside: dict[str, str] = field(default_factory=dict)

    def lookup(self, name: str, span: Span) -> Operand:
        """What a name stands for. Raises NSA0201 or NSA0202."""
        found = self.names.get(name)
        if isinstance(found, Poison) or name in self.poisoned:
            raise Poisoned
        if found is not None:
            return found
        if name in self.ended:
            raise NsaError.at("NSA0202", f"'{name}' is not defined here: {self.ended[name]}", span)
        raise self.unknown("name", name, span, [*self.names, *self.known])

    def unknown(self, kind: str, name: str, span: Span, candidates: list[str]) -> NsaError:
        """An unknown name of a text; where Python has it, a note says why the kernel doesn't."""
        if name not in self.outside:
            return unknown(kind, name, span, candidates)
        note = f"in Python '{name}' is {self.outside[name]}, and a kernel sees numbers, bools, dtypes and None of the scope around it"
        return unknown(kind, name, span, [], note=note)

    def unique(self, name: str) -> str:
        """An IR name for a source name: itself, or with .2, .3 …"""
        result, count = name, 1
        while result in self.taken:
            count += 1
            result = f"{name}.{count}"
        self.taken.add(result)
        return result

    def join(self, *values: ir.Value) -> tuple[str, ...]:
        """The axes of several values together, in the order of declaration."""
        return ir.join(*(v.axes for v in values), order=tuple(self.order))

    def axis(self, name: str, span: Span) -> str:
        """A new axis for a source name."""
        made = self.unique(name)
        self.order.append(made)
        return made

    def later(self, what: str, span: Span) -> None:
        """Report a construct that is parsed and typed but not lowered yet."""
        self.problems.append(Diagnostic("NSA0401", f"{what} is part of the language, and this version cannot compile it yet", span))

    def guard(self, axes: tuple[str, ...]) -> ir.Expr | None:
        """The conjunction of the guards in force, for an access with these axes: a condition's other axes guard by ``any``."""
        total: ir.Expr | None = None
        for condition in self.guards:
            over = tuple(a for a in condition.axes if a not in axes)
            if over:
                rest = tuple(a for a in condition.axes if a in axes)
                condition = ir.Reduce(condition.dtype, rest, "any", condition, over, span=condition.span)
            total = ir.both(total, condition, tuple(self.order))
        return total

    def binary(self, op: ir.BinaryOp, a: ir.Expr, b: ir.Expr, span: Span | None = None) -> ir.Expr:
        """A Binary whose axes are in the kernel's order."""
        return ir.binary(op, a, b, tuple(self.order), span or a.span)

    def negation(self, condition: ir.Expr) -> ir.Expr:
        """``not condition``."""
        return ir.Unary(condition.dtype, condition.axes, "not", condition, span=condition.span)

    @contextmanager
    def under(self, condition: ir.Expr) -> Iterator[None]:
        """Type a text that runs only where ``condition`` holds."""
        self.guards.append(condition)
        try:
            yield
        finally:
            self.guards.pop()

    def taint(self, name: str, value: ir.Expr) -> None:
        """Note for a variable which of the grid's axes were reduced on the way to its value, and whether it is a share of a sum."""
        self.shares[name] = self.shares.get(name, True) and self.is_share(value)
        found = self.taints(value)
        if found:
            self.tainted[name] = self.tainted.get(name, frozenset()) | found

    def is_share(self, node: ir.Expr) -> bool:
        """Whether the values of all tiles of the grid add up to the same however it is cut: sums over its axes, scaled and added."""
        match node:
            case ir.Const(value=value):
                return value == 0
            case ir.Var(name=name):
                return self.shares.get(name, False)
            case ir.Full(value=x) | ir.Unary(op="neg", x=x):
                return self.is_share(x)
            case ir.Cast(x=x):
                return self.is_share(x) and (not x.dtype.is_float or node.dtype.is_float)
            case ir.Reduce(op="sum", x=x, over=over):
                return self.is_share(x) or (not self.is_tainted(x) and not self.grid_axes.isdisjoint(over))
            case ir.Dot(a=a, b=b, over=axis) if axis in self.grid_axes and not self.is_tainted(a) and not self.is_tainted(b):
                return True
            case ir.Dot(a=a, b=b):
                return (self.is_share(a) and not self.is_tainted(b)) or (self.is_share(b) and not self.is_tainted(a))
            case ir.Binary(op="add" | "sub", a=a, b=b):
                return self.is_share(a) and self.is_share(b)
            case ir.Binary(op="mul", a=a, b=b):
                return (self.is_share(a) and not self.is_tainted(b)) or (self.is_share(b) and not self.is_tainted(a))
            case ir.Binary(op="div", a=a, b=b):
                return self.is_share(a) and not self.is_tainted(b)
            case ir.Where(cond=cond, a=a, b=b):
                return not self.is_tainted(cond) and self.is_share(a) and self.is_share(b)
            case _:
                return False

    def is_tainted(self, node: ir.Node | None) -> bool:
        """Whether a value depends on how the grid's axes are cut into tiles: it holds a reduction over one of them."""
        return not self.grid_axes.isdisjoint(self.taints(node))

    def taints(self, node: ir.Node | None) -> frozenset[str]:
        """The axes of the grid and of tile loops over which a value, or what it is computed from, was reduced or summed up."""
        if node is None:
            return frozenset()
        found = frozenset[str]()
        if isinstance(node, ir.Reduce | ir.Scan | ir.Dot):
            over = node.over if isinstance(node, ir.Reduce) else (node.over,)
            found = frozenset(a for a in over if a in self.grid_axes or a in self.loop_axes)
        elif isinstance(node, ir.Var):
            found = self.tainted.get(node.name, frozenset())
        for child in ir.children(node):
            # The guard of a read decides what is read, not what is chosen: the condition itself does.
            if not (isinstance(node, ir.Load | ir.Search) and child is node.guard):
                found |= self.taints(child)
        return found


def unknown(kind: str, name: str, span: Span, candidates: list[str], code: str = "NSA0201", note: str | None = None) -> NsaError:
    """An unknown name, with what the language has for it, or the nearest known one."""
    return NsaError.at(code, f"unknown {kind} '{name}'", span, note=note, help=help_for(kind, name, candidates))


def as_dtype(value: Exact, dtype: DType, span: Span) -> ir.Const:
    """A constant that takes the dtype of the other side. Raises NSA0301 or NSA0313 where it can't."""
    if value.is_bool:
        if dtype.kind != "bool":
            raise NsaError.at("NSA0301", f"a bool constant can't be {dtype}", span)
        return ir.Const(dtype, (), bool(value.value), span=span)
    if dtype.kind == "bool":
        raise NsaError.at("NSA0301", f"the number {value} can't be bool", span)
    if dtype.is_integer:
        if value.is_float or (not isinstance(value.value, int) and getattr(value.value, "denominator", 0) != 1):
            raise NsaError.at("NSA0301", f"the constant {value} is no integer, and the other side is {dtype}", span)
        if not dtype.min <= value.value <= dtype.max:
            raise NsaError.at("NSA0313", f"the constant {value} doesn't fit {dtype} ({dtype.min} to {dtype.max})", span)
        return ir.Const(dtype, (), int(value.value), span=span)
    return ir.Const(dtype, (), round_to(value.value, dtype), span=span)


def as_value(operand: Operand, span: Span) -> ir.Expr:
    """An operand as a value: a bare constant becomes i64, f32 or bool. Raises NSA0322 for what has no value."""
    if isinstance(operand, Exact):
        from nsalang.base.dtypes import BOOL

        return as_dtype(operand, BOOL if operand.is_bool else F32 if operand.is_float else I64, span)
    if isinstance(operand, TensorRef):
        indices = ", ".join("…" for _ in operand.shape)
        raise NsaError.at("NSA0322", f"'{operand.name}' is a tensor: index it", span, help=f"{operand.name}[{indices}]")
    if isinstance(operand, Nothing):
        raise NsaError.at("NSA0322", "None has no value: this optional parameter is absent here", span, help="test it with 'is None' first")
    if isinstance(operand, DType):
        raise NsaError.at("NSA0322", f"'{operand}' is a dtype, not a value", span, help=f"{operand}(x) converts")
    return operand
