"""Searches become loops, borders become arithmetic.

It comes after `prove`, which knows what both are, and before `order` and the tiles, which shall see the accesses of a search. A search is a binary
one, for all lanes at once: from the highest power of two in the tensor's extent down, a step is taken where the element at its end is at most the
value that is sought; so a step sets one bit of the count. How many steps there are is computed from the extent: at least as many as it has bits. Equal searches in one straight line of
statements, or in a block inside it, are one; so are the divisions of equal borders.
Leaves no Search and no Border; the loads of a search are PROVED, since a step never ends outside the tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from nsalang import ir
from nsalang.base.dtypes import F32, I64
from nsalang.base.source import Span
from nsalang.base.target import Target
from nsalang.ir.intervals import Bounds
from nsalang.passes.hoist import Names, expressions, same
from nsalang.passes.simplify import expression, value_of

PROVED = ir.Proof("PROVED")


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    if not any(isinstance(n, ir.Search | ir.Border) for n in ir.walk(kernel)):
        return kernel
    expander = _Expander(kernel)
    kernel = dataclasses.replace(kernel, body=expander.block(kernel.body, _Known()))
    # What is left stands where no statement can: in extents and requirements.
    return ir.rewrite(kernel, lambda n: expander.border(n) if isinstance(n, ir.Border) else n)


@dataclass(slots=True)
class _Known:
    """Values that a variable holds, by their text, with the variables on which each depends (the holder too)."""

    values: dict[str, tuple[ir.Var, frozenset[str]]] = field(default_factory=dict)

    def inside(self) -> _Known:
        return _Known(dict(self.values))

    def forget(self, names: set[str]) -> None:
        self.values = {key: entry for key, entry in self.values.items() if not entry[1] & names}


class _Expander:
    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel = kernel
        self.names = Names(kernel)
        self.bounds = Bounds(kernel)
        self.declared = tuple(ir.axes_of(kernel))
        self.made: list[ir.Stmt] = []
        self.known = _Known()

    def block(self, body: tuple[ir.Stmt, ...], known: _Known) -> tuple[ir.Stmt, ...]:
        out: list[ir.Stmt] = []
        for node in body:
            self.made, self.known = [], known
            node = expressions(node, lambda e: ir.rewrite(e, self.rule))
            out += self.made
            match node:
                case ir.For():
                    known.forget(_assigned(node))
                    inner = self.block(node.body, known.inside())
                    node = node if same(inner, node.body) else dataclasses.replace(node, body=inner)
                case ir.If():
                    inner, other = self.block(node.body, known.inside()), self.block(node.orelse, known.inside())
                    known.forget(_assigned(node))
                    if not (same(inner, node.body) and same(other, node.orelse)):
                        node = dataclasses.replace(node, body=inner, orelse=other)
                case ir.Assign():
                    known.forget({node.name})
                case _:
                    pass
            out.append(node)
        return body if same(tuple(out), body) else tuple(out)

    def rule(self, node: ir.Node) -> ir.Node:
        match node:
            case ir.Search():
                return self.once(node, self.search)
            case ir.Border():
                part = self.hold(self.binary("floordiv", node.n, node.parts, node.span), "part")
                rest = self.hold(self.binary("mod", node.n, node.parts, node.span), "rest")
                return self.sum_of(node, part, rest)
            case _:
                return node

    # ---------------------------------------------------------------------------------------------------------------- borders

    def border(self, node: ir.Border) -> ir.Expr:
        """Border as one expression."""
        part = self.binary("floordiv", node.n, node.parts, node.span)
        return self.sum_of(node, part, self.binary("mod", node.n, node.parts, node.span))

    def sum_of(self, node: ir.Border, part: ir.Expr, rest: ir.Expr) -> ir.Expr:
        whole = self.binary("mul", node.g, part, node.span)
        return self.binary("add", whole, self.binary("min", node.g, rest, node.span), node.span)

    # --------------------------------------------------------------------------------------------------------------- searches

    def search(self, node: ir.Search) -> ir.Expr:
        """Statements that count, and the variable with the count: at first 0, and never more than the extent."""
        span, zero, one = node.span, ir.const(0), ir.const(1)
        tensor = self.kernel.tensor(node.tensor)
        extent = self.hold(tensor.shape[0], f"{node.tensor}_length")
        x = self.hold(node.x, "sought")
        guard = None if node.guard is None else self.hold(node.guard, "asked")
        highest = self.highest(extent, self.bounds.of(tensor.shape[0]).hi, span)
        if highest is None:
            return zero if not node.axes else ir.Full(I64, node.axes, zero, span=span)
        highest = self.hold(highest, "bits")
        found = ir.Var(I64, node.axes, self.names.fresh(f"{node.tensor}_count"), span=span)
        result = ir.Var(I64, node.axes, self.names.fresh(f"{node.tensor}_place"), span=span)
        step = ir.Var(I64, (), self.names.fresh("step"), span=span)
        turn = self.names.fresh("turn")

        # Their sum, since the count has no bit so low; and intervals see that this one needs no more bits.
        end = self.binary("or", found, step, span)
        inside = self.binary("le", end, extent, span)
        asked = inside if guard is None else self.binary("and", guard, inside, span)
        loaded: ir.Expr = ir.Load(
            tensor.dtype, node.axes, node.tensor, (self.binary("sub", end, one, span),), asked, proof=PROVED, span=span
        )
        if loaded.dtype is not x.dtype:
            loaded = ir.Cast(x.dtype, node.axes, loaded, span=span)
        # One condition in the other and not their conjunction, on which TileLang's prover would spend seconds.
        reached = self.binary("le", loaded, x, span)
        moved = ir.Where(I64, node.axes, asked, ir.Where(I64, node.axes, reached, end, found, span=span), found, span=span)
        self.made += [
            ir.Assign(step.name, self.binary("shl", one, highest, span), span=span),
            ir.Assign(found.name, ir.Full(I64, node.axes, zero, span=span) if node.axes else zero, span=span),
            ir.For(
                turn,
                "range",
                zero,
                self.binary("add", highest, one, span),
                (
                    ir.Assign(found.name, moved, span=span),
                    ir.Assign(step.name, self.binary("shr", step, one, span), span=span),
                ),
                (found.name, step.name),
                span=span,
            ),
            # No more than the extent anyway: this says so to intervals.
            ir.Assign(result.name, self.binary("min", found, extent, span), span=span),
        ]
        return result

    def highest(self, extent: ir.Expr, limit: int, span: Span | None) -> ir.Expr | None:
        """The number of the highest bit of an extent, or of one above it up to that of ``limit``; None where the extent is 0."""
        known = value_of(extent)
        if isinstance(known, int):
            return ir.const(known.bit_length() - 1) if known > 0 else None
        most = max(limit.bit_length() - 1, 0)
        size = ir.Cast(F32, (), self.binary("max", extent, ir.const(1), span), span=span)
        # Rounding does not take a number below a power of two that it is not below.
        log: ir.Expr = ir.Unary(I64, (), "ceil_log2", size, span=span)
        return self.binary("min", self.binary("max", log, ir.const(0), span), ir.const(most), span)

    # ----------------------------------------------------------------------------------------------------------------- sharing

    def hold(self, value: ir.Expr, base: str) -> ir.Expr:
        """A value that is needed several times: itself where it is an atom, else a variable, an old one where one holds it."""
        if isinstance(value, ir.Const | ir.Dim | ir.Scalar | ir.Index | ir.Var):
            return value

        def name(v: ir.Expr) -> ir.Expr:
            holder = ir.Var(v.dtype, v.axes, self.names.fresh(base), span=v.span)
            self.made.append(ir.Assign(holder.name, v, span=v.span))
            return holder

        return self.once(value, name) if not any(isinstance(n, ir.Load) for n in ir.walk(value)) else name(value)

    def once(self, value: ir.Expr, make: Callable[..., ir.Expr]) -> ir.Expr:
        """What ``make`` makes of a value, made once while nothing changes that it depends on."""
        key = repr(value)
        if key not in self.known.values:
            made = make(value)
            if not isinstance(made, ir.Var) or any(isinstance(n, ir.Load) for n in ir.walk(value)):
                return made
            depends = {n.name for n in ir.walk(value) if isinstance(n, ir.Var)}
            self.known.values[key] = (made, frozenset({made.name, *depends}))
        return self.known.values[key][0]

    def binary(self, op: ir.BinaryOp, a: ir.Expr, b: ir.Expr, span: Span | None) -> ir.Expr:
        return expression(ir.binary(op, a, b, self.declared, span))


def _assigned(node: ir.Stmt) -> set[str]:
    return {n.name for n in ir.walk(node) if isinstance(n, ir.Assign)}
