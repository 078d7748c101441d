"""Masks: no access leaves its tensor, no lane that does not exist is written, and none reaches a reduction.

It comes after the tiles, which say where lanes are padded, and before the expansions of `legalize`, whose intermediate values need no masks.
An access is masked by what its author wrote, by the ends of its axes where these have a tail, and by the extents of the tensor where `needs`
finds no reason why the index is inside. A masked lane of a load holds 0, so a sum of it, or of its square, needs nothing more; other operands of
a reduction become `where(inside, x, identity)`. In lanes that do not exist nothing may trap either: divisors that may be 0 are replaced by 1 there.
Leaves Load.mask, Load.fill and Store.mask settled, every Reduce and Scan fed by lanes that exist or by its identity (NaN for argmax and argmin),
and bounds of loops and spans as expressions that mean the same in the whole body.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from nsalang import ir
from nsalang.dtypes import BOOL, E8M0, DType
from nsalang.intervals import conjuncts
from nsalang.linear import Facts, number
from nsalang.passes.hoist import Names, expressions, same
from nsalang.passes.simplify import expression, value_of
from nsalang.target import Target


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    named = dataclasses.replace(kernel, body=_name_bounds(kernel.body, Names(kernel), _assigned_often(kernel)))
    guards = _Guards(named)
    body = guards.block(named.body, (), {})
    return kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body)


# ----------------------------------------------------------------------------------------------------------- bounds of the axes


def _assigned_often(kernel: ir.Kernel) -> set[str]:
    """Variables with more than one assignment, whose value depends on when one looks."""
    seen: set[str] = set()
    often: set[str] = set()
    for node in ir.walk(kernel):
        if isinstance(node, ir.Assign):
            (often if node.name in seen else seen).add(node.name)
    return often


def _name_bounds(body: tuple[ir.Stmt, ...], names: Names, often: set[str]) -> tuple[ir.Stmt, ...]:
    """Masks repeat the ends of axes wherever lanes are used, so these become constants, dimensions, or variables that never change."""
    made: list[ir.Stmt] = []

    def hold(value: ir.Expr, base: str) -> ir.Expr:
        if all(
            isinstance(n, ir.Const | ir.Dim | ir.Scalar | ir.Index | ir.Binary) or (isinstance(n, ir.Var) and n.name not in often)
            for n in ir.walk(value)
        ):
            return value
        name = names.fresh(base)
        made.append(ir.Assign(name, value, span=value.span))
        return ir.Var(value.dtype, value.axes, name, span=value.span)

    for node in body:
        match node:
            case ir.For():
                lo, hi = node.lo, node.hi
                if node.kind == "tile":
                    base = ir.plain(node.index)
                    lo, hi = hold(lo, f"{base}_start"), hold(hi, f"{base}_stop")
                inner = _name_bounds(node.body, names, often)
                if lo is not node.lo or hi is not node.hi or not same(inner, node.body):
                    node = dataclasses.replace(node, lo=lo, hi=hi, body=inner)
            case ir.If():
                inner, other = _name_bounds(node.body, names, often), _name_bounds(node.orelse, names, often)
                if not (same(inner, node.body) and same(other, node.orelse)):
                    node = dataclasses.replace(node, body=inner, orelse=other)
            case ir.SpanAxis():
                base = ir.plain(node.axis)
                start = hold(node.start, f"{base}_start")
                stop = None if node.stop is None else hold(node.stop, f"{base}_stop")
                if start is not node.start or stop is not node.stop:
                    node = dataclasses.replace(node, start=start, stop=stop)
            case _:
                pass
        made.append(node)
    return tuple(made)


# ------------------------------------------------------------------------------------------------------------------- verdicts


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one access needs: the conditions that nothing implies, in the order of the tensor's axes."""

    conditions: tuple[ir.Expr, ...]


def needs(facts: Facts, kernel: ir.Kernel, access: ir.Load | ir.Store, known: tuple[ir.Expr, ...]) -> Verdict:
    """Which indices of an access must be compared with their extents, given the conditions that hold where it happens.

    The one place that decides about bounds: the prover of part 2 takes it over. Every lane that it is asked about exists.
    """
    missing: list[ir.Expr] = []
    for index, extent in zip(access.indices, kernel.tensor(access.tensor).shape, strict=True):
        p = facts.poly(index)
        if not facts.covered(p, known):
            missing.append(ir.binary("ge", index, ir.const(0), span=index.span))
        if not facts.covered(facts.poly(extent) - number(1) - p, known):
            missing.append(ir.binary("lt", index, extent, span=index.span))
    return Verdict(tuple(missing))


def tail(facts: Facts, axis: ir.AxisInfo, length: int) -> ir.Expr | None:
    """The condition under which a lane of an axis exists, or None where all lanes do."""
    index = ir.Index(axis.start.dtype, (axis.name,), axis.name)
    if axis.kind != "span":
        extent = facts.poly(axis.stop) - facts.poly(axis.start)
        return None if extent.content % length == 0 else ir.binary("lt", index, axis.stop)
    end = axis.stop
    if isinstance(end, ir.Binary) and end.op == "min" and length == axis.length:
        end = end.b
    elif length == axis.length:
        return None
    return ir.binary("lt", index, expression(end))


# -------------------------------------------------------------------------------------------------------------------- rewriting

Padding = dict[tuple[str, str], "int | float | bool"]
"""What a variable holds in the lanes of an axis that do not exist, where that is known."""


class _Guards:
    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel = kernel
        self.facts = Facts(kernel)
        self.often = _assigned_often(kernel)
        axes = ir.axes_of(kernel)
        self.declared = tuple(axes)
        self.inside = {name: tail(self.facts, axis, kernel.schedule.length(name)) for name, axis in axes.items()}

    def block(self, body: tuple[ir.Stmt, ...], known: tuple[ir.Expr, ...], padding: Padding) -> tuple[ir.Stmt, ...]:
        """``known``: conditions of the branches around. ``padding`` is brought up to date."""
        made: list[ir.Stmt] = []

        def rule(n: ir.Node) -> ir.Node:
            return self.rule(n, known, padding)

        for node in body:
            node = expressions(node, lambda e: ir.rewrite(e, rule))
            match node:
                case ir.Assign():
                    for axis in node.value.axes:
                        held = self.padded(node.value, axis, padding)
                        _set(padding, (node.name, axis), held)
                case ir.Store():
                    node = dataclasses.replace(node, mask=self.mask(node, known))
                case ir.For():
                    assigned = {n.name for n in ir.walk(node) if isinstance(n, ir.Assign)}
                    _forget(padding, assigned)
                    inner = self.block(node.body, known, dict(padding))
                    node = node if same(inner, node.body) else dataclasses.replace(node, body=inner)
                case ir.If():
                    held_true = tuple(c for c in conjuncts(node.cond) if not self.changes(c))
                    inner = self.block(node.body, (*known, *held_true), dict(padding))
                    other = self.block(node.orelse, known, dict(padding))
                    _forget(padding, {n.name for n in ir.walk(node) if isinstance(n, ir.Assign)})
                    if not (same(inner, node.body) and same(other, node.orelse)):
                        node = dataclasses.replace(node, body=inner, orelse=other)
                case _:
                    pass
            made.append(node)
        return tuple(made)

    def changes(self, condition: ir.Expr) -> bool:
        """Whether a condition may stop to hold in the branch that it opens."""
        return any(isinstance(n, ir.Load) or (isinstance(n, ir.Var) and n.name in self.often) for n in ir.walk(condition))

    def rule(self, node: ir.Node, known: tuple[ir.Expr, ...], padding: Padding) -> ir.Node:
        match node:
            case ir.Load():
                mask = self.mask(node, known)
                zero = 2.0**-127 if node.dtype is E8M0 else _zero(node.dtype)  # e8m0 has no 0; this is its code 0
                return node if mask is None else dataclasses.replace(node, mask=mask, fill=ir.const(zero, node.dtype))
            case ir.Reduce():
                return self.reduce(node, padding)
            case ir.Scan() if node.reverse:
                x = self.clean(node.x, (node.over,), _zero(node.x.dtype), padding)
                return node if x is node.x else dataclasses.replace(node, x=x)
            case ir.Binary(op="floordiv" | "mod" | "tdiv" | "tmod"):
                return self.division(node)
            case _:
                return node

    def mask(self, node: ir.Load | ir.Store, known: tuple[ir.Expr, ...]) -> ir.Expr | None:
        """The author's guard, the tails of the access's axes that it does not imply, and the bounds that nothing implies."""
        guard = conjuncts(node.guard)
        terms = []
        for axis in ir.join(node.axes, order=self.kernel.schedule.order):
            inside = self.inside[axis]
            if inside is not None and not self.implied(inside, guard):
                terms.append(inside)
        bounds = needs(self.facts, self.kernel, node, (*known, *guard)).conditions
        total = node.guard
        for term in (*terms, *bounds):
            total = term if total is None else ir.binary("and", total, term, self.declared, span=node.span)
        return total

    def implied(self, inside: ir.Expr, guard: tuple[ir.Expr, ...]) -> bool:
        """Whether the author's guard says outright that a lane exists. Ranges of axes must not be used: they hold for lanes that exist."""
        (goal,) = self.facts.inequalities(inside)
        return any((goal - given).terms == () for condition in guard for given in self.facts.inequalities(condition))

    # -------------------------------------------------------------------------------------------------------------- reductions

    def reduce(self, node: ir.Reduce, padding: Padding) -> ir.Expr:
        x = self.clean(node.x, node.over, self.identity(node), padding)
        return node if x is node.x else dataclasses.replace(node, x=x)

    def clean(self, x: ir.Expr, over: tuple[str, ...], identity: int | float | bool, padding: Padding) -> ir.Expr:
        """``x`` with the identity in the lanes that do not exist."""
        condition: ir.Expr | None = None
        for axis in ir.join(over, order=self.kernel.schedule.order):
            inside = self.inside[axis]
            if inside is not None and self.padded(x, axis, padding) != identity:
                condition = inside if condition is None else ir.binary("and", condition, inside, self.declared)
        if condition is None:
            return x
        return expression(ir.Where(x.dtype, x.axes, condition, x, ir.const(identity, x.dtype), span=x.span))

    def identity(self, node: ir.Reduce) -> int | float | bool:
        """What a reduction ignores. That of an integer's max is the least value of its operand, which may need fewer bits than i64's."""
        dtype = node.x.dtype
        match node.op:
            case "sum" | "absmax":
                return _zero(dtype)
            case "any":
                return False
            case "all":
                return True
            case "argmax" | "argmin" if dtype.is_float:
                return math.nan
            case "max" | "argmax":
                return -math.inf if dtype.is_float else self.least(node)
            case "min" | "argmin":
                return math.inf if dtype.is_float else self.most(node)

    def least(self, node: ir.Reduce) -> int:
        return int(node.x.dtype.min) if self.may_be_empty(node) else self.facts.bounds.of(node.x).lo

    def most(self, node: ir.Reduce) -> int:
        return int(node.x.dtype.max) if self.may_be_empty(node) else self.facts.bounds.of(node.x).hi

    def may_be_empty(self, node: ir.Reduce) -> bool:
        """Whether a block may have no lane at all; then the identity itself is the result."""
        stops = {
            n.axis for s in self.kernel.body for n in ir.walk(s) if isinstance(n, ir.SpanAxis) and (n.stop is not None or n.length == 0)
        }
        return node.op in ("max", "min") and bool(stops.intersection(node.over))

    def padded(self, x: ir.Expr, axis: str, padding: Padding) -> int | float | bool | None:
        """What a value is in the lanes of an axis that do not exist; None where that is unknown, or differs from lane to lane."""
        known = value_of(x)
        if known is not None or axis not in x.axes:
            return known
        match x:
            case ir.Load():
                return None if x.mask is None or x.fill is None else x.fill.value
            case ir.Var():
                return padding.get((x.name, axis))
            case ir.Unary() | ir.Cast():
                return self._evaluated(x, axis, padding, "x")
            case ir.Binary():
                if x.dtype is BOOL and x.op in ("and", "or"):
                    sides = (self.padded(x.a, axis, padding), self.padded(x.b, axis, padding))
                    decides = x.op == "or"
                    if decides in [s for s in sides if isinstance(s, bool)]:
                        return decides
                return self._evaluated(x, axis, padding, "a", "b")
            case ir.Where():
                chosen = self.padded(x.cond, axis, padding)
                if chosen is not None:
                    return self.padded(x.a if chosen else x.b, axis, padding)
                a, b = self.padded(x.a, axis, padding), self.padded(x.b, axis, padding)
                return a if a is not None and a == b else None
            case ir.Full():
                return self.padded(x.value, axis, padding)
            case _:
                return None

    def _evaluated(self, x: ir.Unary | ir.Binary | ir.Cast, axis: str, padding: Padding, *operands: str) -> int | float | bool | None:
        changes: dict[str, ir.Expr] = {}
        for name in operands:
            operand = getattr(x, name)
            held = self.padded(operand, axis, padding)
            if held is None:
                return None
            changes[name] = ir.const(held, operand.dtype)
        return value_of(expression(dataclasses.replace(x, **changes)))  # type: ignore[arg-type]

    # --------------------------------------------------------------------------------------------------------------- divisions

    def division(self, node: ir.Binary) -> ir.Expr:
        """A divisor that may be 0 where nobody looks becomes 1 there: machines may trap."""
        divisor = node.b
        if 0 not in self.facts.bounds.of(divisor):
            return node
        zero, one = ir.const(0, divisor.dtype), ir.const(1, divisor.dtype)
        safe = ir.Where(divisor.dtype, divisor.axes, ir.binary("eq", divisor, zero), one, divisor, span=divisor.span)
        return dataclasses.replace(node, b=safe)


def _zero(dtype: DType) -> int | float | bool:
    return False if dtype is BOOL else 0.0 if dtype.is_float else 0


def _set(padding: Padding, key: tuple[str, str], value: int | float | bool | None) -> None:
    if value is None:
        padding.pop(key, None)
    else:
        padding[key] = value


def _forget(padding: Padding, names: set[str]) -> None:
    for key in [k for k in padding if k[0] in names]:
        del padding[key]
