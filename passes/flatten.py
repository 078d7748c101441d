"""Give a name to every load, contraction, reduction and scan, so that a lowering prints statements, and make equal ones once.

It comes last: what it separates, the passes before it like to see in one expression. Equal loads of an `in` tensor and equal reductions in one
straight line of statements, or in a block inside it, are one; loads of what the kernel writes are made each time, in the order of the text.
Leaves every Load, Dot, Reduce and Scan as the whole value of an Assign, and variables as the two operands of a Dot (its ``acc`` is any value).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from nsalang import ir
from nsalang.base.target import Target
from nsalang.passes.hoist import Names, expressions, same

Costly = ir.Load | ir.Dot | ir.Reduce | ir.Scan
SUFFIXES = ("_tile", "_value")


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    body = _Flat(kernel).block(kernel.body, _Made())
    return kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body)


@dataclass(slots=True)
class _Made:
    """Values that a variable holds, by their text, with the variables on which each depends (the holder too)."""

    values: dict[str, tuple[ir.Var, frozenset[str]]] = field(default_factory=dict)

    def inside(self) -> _Made:
        """What a block begins with; what is made in it is not there after it."""
        return _Made(dict(self.values))

    def forget(self, names: set[str]) -> None:
        self.values = {key: entry for key, entry in self.values.items() if not entry[1] & names}

    def keep(self, value: ir.Expr, holder: ir.Var) -> None:
        depends = {n.name for n in ir.walk(value) if isinstance(n, ir.Var)}
        if holder.name not in depends:
            self.values[repr(value)] = (holder, frozenset({holder.name, *depends}))


class _Flat:
    def __init__(self, kernel: ir.Kernel) -> None:
        self.names = Names(kernel)
        constant = {t.name for t in kernel.tensors if t.role == "in"}
        self.inputs = constant | {v.name for v in kernel.views if v.base in constant}

    def block(self, body: tuple[ir.Stmt, ...], made: _Made) -> tuple[ir.Stmt, ...]:
        out: list[ir.Stmt] = []
        for node in body:
            out += self.statement(node, made)
        return body if same(tuple(out), body) else tuple(out)

    def statement(self, node: ir.Stmt, made: _Made) -> list[ir.Stmt]:
        before: list[ir.Stmt] = []
        root = node.value if isinstance(node, ir.Assign) else None

        def rule(n: ir.Node) -> ir.Node:
            return self.named(self.factored(n, made, before), made, before) if isinstance(n, Costly) else n

        def change(e: ir.Expr) -> ir.Expr:
            if e is not root or not isinstance(e, Costly):
                return ir.rewrite(e, rule)
            whole = self.factored(expressions(e, lambda c: ir.rewrite(c, rule)), made, before)
            known = made.values.get(repr(whole)) if self.is_pure(whole) else None
            return whole if known is None else known[0]

        node = expressions(node, change)
        match node:
            case ir.Assign():
                made.forget({node.name})
                if isinstance(node.value, Costly) and self.is_pure(node.value):
                    made.keep(node.value, ir.Var(node.value.dtype, node.value.axes, node.name, span=node.span))
            case ir.For():
                made.forget(_assigned(node))
                inner = self.block(node.body, made.inside())
                node = node if same(inner, node.body) else dataclasses.replace(node, body=inner)
            case ir.If():
                inner, other = self.block(node.body, made.inside()), self.block(node.orelse, made.inside())
                made.forget(_assigned(node))
                if not (same(inner, node.body) and same(other, node.orelse)):
                    node = dataclasses.replace(node, body=inner, orelse=other)
            case _:
                pass
        return [*before, node]

    def is_pure(self, node: ir.Expr) -> bool:
        """Whether the same text gives the same value again; all loads in it but its own have a name."""
        return not isinstance(node, ir.Load) or node.tensor in self.inputs

    def factored(self, node: Costly, made: _Made, before: list[ir.Stmt]) -> Costly:
        """A contraction with a name for each operand."""
        if not isinstance(node, ir.Dot):
            return node
        a, b = (x if isinstance(x, ir.Var) else self.named(x, made, before) for x in (node.a, node.b))
        return node if a is node.a and b is node.b else dataclasses.replace(node, a=a, b=b)

    def named(self, node: ir.Expr, made: _Made, before: list[ir.Stmt]) -> ir.Var:
        known = made.values.get(repr(node)) if self.is_pure(node) else None
        if known is not None:
            return known[0]
        name = self.names.fresh(_name(node))
        before.append(ir.Assign(name, node, span=node.span))
        holder = ir.Var(node.dtype, node.axes, name, span=node.span)
        if self.is_pure(node):
            made.keep(node, holder)
        return holder


def _assigned(node: ir.Stmt) -> set[str]:
    return {n.name for n in ir.walk(node) if isinstance(n, ir.Assign)}


def _name(node: ir.Expr) -> str:
    """``x_tile`` for a block of x, ``x_value`` for one element; ``x_max`` for a reduction of what comes from x first."""
    if isinstance(node, ir.Load):
        return f"{node.tensor}_tile" if node.axes else f"{node.tensor}_value"
    source = next((n.name for n in ir.walk(node) if isinstance(n, ir.Var)), "")
    for suffix in SUFFIXES:
        source = source.removesuffix(suffix)
    match node:
        case ir.Reduce():
            what: str = node.op
        case ir.Scan():
            what = "sum"
        case ir.Dot():
            what = "dot"
        case _:
            what = "factor"
    return f"{ir.plain(source)}_{what}" if source else what
