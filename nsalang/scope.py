"""What is known at one point of a kernel while it is typed: names, guards, axes, and the statements made so far."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from nsalang import ir
from nsalang.constants import Exact, round_to
from nsalang.dtypes import F32, I64, DType
from nsalang.source import Diagnostic, NsaError, Span
from nsalang.target import Target


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor parameter, or a view; it has a value only where it is indexed."""

    name: str
    dtype: DType
    shape: tuple[ir.Expr, ...]
    extents: tuple[str, ...]
    role: str


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
    """The state of one check. ``out`` is the statement list being filled; ``guards`` are the conditions under which the current text runs."""

    target: Target
    names: dict[str, Binding]
    known: frozenset[str]
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
    tainted: set[str] = field(default_factory=set)
    requires: list[ir.Require] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    poisoned: set[str] = field(default_factory=set)

    def lookup(self, name: str, span: Span) -> Operand:
        """What a name stands for. Raises NSA0201 or NSA0202."""
        found = self.names.get(name)
        if isinstance(found, Poison) or name in self.poisoned:
            raise Poisoned
        if found is not None:
            return found
        if name in self.ended:
            raise NsaError.at("NSA0202", f"'{name}' is not defined here: {self.ended[name]}", span)
        raise unknown("name", name, span, [*self.names, *self.known])

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

    def later(self, what: str, part: int, span: Span) -> None:
        """Report a construct that is parsed and typed but not lowered yet."""
        self.problems.append(
            Diagnostic("NSA0401", f"{what} is checked, but this version cannot lower it yet (it comes with part {part})", span)
        )

    def guard(self, axes: tuple[str, ...]) -> ir.Expr | None:
        """The conjunction of the guards in force, for an access with these axes: a condition's other axes guard by ``any``."""
        total: ir.Expr | None = None
        for condition in self.guards:
            over = tuple(a for a in condition.axes if a not in axes)
            if over:
                rest = tuple(a for a in condition.axes if a in axes)
                condition = ir.Reduce(condition.dtype, rest, "any", condition, over, span=condition.span)
            total = condition if total is None else self.binary("and", total, condition)
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

    def is_tainted(self, node: ir.Node | None) -> bool:
        """Whether a value depends on how the grid's axes are cut into tiles: it holds a reduction over one of them."""
        if node is None:
            return False
        if isinstance(node, ir.Reduce) and self.grid_axes.intersection(node.over):
            return True
        if isinstance(node, ir.Var) and node.name in self.tainted:
            return True
        # The guard of a read decides what is read, not what is chosen: the condition itself does.
        return any(self.is_tainted(child) for child in ir.children(node) if not (isinstance(node, ir.Load) and child is node.guard))


def unknown(kind: str, name: str, span: Span, candidates: list[str], code: str = "NSA0201", note: str | None = None) -> NsaError:
    """An unknown name, with the nearest known one."""
    near = difflib.get_close_matches(name, [c for c in candidates if c != name], 1, 0.6)
    return NsaError.at(code, f"unknown {kind} '{name}'", span, note=note, help=f"did you mean '{near[0]}'?" if near else None)


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
        from nsalang.dtypes import BOOL

        return as_dtype(operand, BOOL if operand.is_bool else F32 if operand.is_float else I64, span)
    if isinstance(operand, TensorRef):
        indices = ", ".join("…" for _ in operand.shape)
        raise NsaError.at("NSA0322", f"'{operand.name}' is a tensor: index it", span, help=f"{operand.name}[{indices}]")
    if isinstance(operand, Nothing):
        raise NsaError.at("NSA0322", "None has no value: this optional parameter is absent here", span, help="test it with 'is None' first")
    if isinstance(operand, DType):
        raise NsaError.at("NSA0322", f"'{operand}' is a dtype, not a value", span, help=f"{operand}(x) converts")
    return operand
