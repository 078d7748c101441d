"""Statements with room before them: how a pass gives a name to a value that it needs twice, or that must be computed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar, assert_never

from nsalang import ir


class Names:
    """Names that are not taken in a kernel."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.taken = {kernel.name, *kernel.dims, *(t.name for t in kernel.arrays), *(s.name for s in kernel.scalars)}
        self.taken.update(name for name, _ in kernel.constants)
        self.taken.update(name for name, _, _ in kernel.schedule.groups)
        for node in ir.walk(kernel):
            match node:
                case ir.Assign(name=name) | ir.GridIndex(name=name) | ir.SpanAxis(axis=name) | ir.For(index=name):
                    self.taken |= {name, ir.plain(name)}
                case _:
                    pass

    def fresh(self, base: str) -> str:
        """``base``, or with a number from 2 on."""
        name, count = base, 1
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name


class Room:
    """The place before one statement. Values that are named here twice get one name."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.made: list[ir.Stmt] = []
        self._known: dict[str, ir.Var] = {}

    def hold(self, value: ir.Expr, base: str) -> ir.Expr:
        """A value that may be written several times at no cost: itself where it is an atom, else a new variable."""
        if isinstance(value, ir.Const | ir.Dim | ir.Scalar | ir.Index | ir.Var):
            return value
        if isinstance(value, ir.Cast | ir.Full) and isinstance(self.inner(value), ir.Const | ir.Dim | ir.Scalar | ir.Index):
            return value
        return self.name(value, base)

    @staticmethod
    def inner(value: ir.Cast | ir.Full) -> ir.Expr:
        return value.x if isinstance(value, ir.Cast) else value.value

    def name(self, value: ir.Expr, base: str) -> ir.Var:
        """A variable that holds the value."""
        key = repr(value)
        if key not in self._known:
            name = self.names.fresh(base)
            self.made.append(ir.Assign(name, value, span=value.span))
            self._known[key] = ir.Var(value.dtype, value.axes, name, span=value.span)
        return self._known[key]


N = TypeVar("N", bound=ir.Node)


def expressions(node: N, change: Callable[[ir.Expr], ir.Expr]) -> N:
    """A statement or an expression with ``change`` applied to each expression directly in it; not to those of statements in it."""
    changes: dict[str, object] = {}
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if isinstance(value, ir.Value):
            made: object = change(value)  # type: ignore[arg-type]
            if made is not value:
                changes[field.name] = made
        elif field.name == "indices":
            items = tuple(change(v) for v in value)
            if any(a is not b for a, b in zip(items, value, strict=True)):
                changes[field.name] = items
    return dataclasses.replace(node, **changes) if changes else node  # type: ignore[arg-type]


def same(a: tuple[ir.Node, ...], b: tuple[ir.Node, ...]) -> bool:
    """Whether nothing changed: the same objects."""
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def blocks(node: ir.Stmt, change: Callable[[tuple[ir.Stmt, ...]], tuple[ir.Stmt, ...]]) -> ir.Stmt:
    """A statement with ``change`` applied to each block of statements directly in it."""
    match node:
        case ir.For():
            inner = change(node.body)
            return node if same(inner, node.body) else dataclasses.replace(node, body=inner)
        case ir.If():
            inner, other = change(node.body), change(node.orelse)
            unchanged = same(inner, node.body) and same(other, node.orelse)
            return node if unchanged else dataclasses.replace(node, body=inner, orelse=other)
        case ir.Assign() | ir.Store() | ir.SpanAxis() | ir.Barrier():
            return node
        case _:
            assert_never(node)
