"""What the lanes of a kernel hold that do not exist: the fills of masked loads, and what becomes of them in each operation (padding.py knows that)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from nsalang import ir
from nsalang.base.dtypes import BOOL, E8M0, DType
from nsalang.ir import kinds
from nsalang.ir.linear import Facts
from nsalang.ir.operations import FLOATS, REDUCTIONS
from nsalang.passes import assume, padding
from nsalang.passes.ends import tail
from nsalang.passes.padding import TOP, Held, Number
from nsalang.passes.simplify import expression, value_of

State = dict[tuple[str, "str | None"], Held]
"""What a variable holds in the lanes of an axis that do not exist; for None in any lane at all. What is not in it is unknown."""


class Padded:
    """``inside``: the condition under which a lane of an axis exists, None where all do; ``saved``: of the exact variant, the conditions that it goes
    without; ``fills``: what masked lanes of a load hold, where that is not 0."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel = kernel
        self.facts = Facts(kernel)
        axes = ir.axes_of(kernel)
        self.declared = tuple(axes)
        own = {name: axis for name, axis in axes.items() if axis.kind != "group"}
        self.inside = {name: tail(self.facts, axis, kernel.schedule.length(name)) for name, axis in own.items()}
        self.saved = self._saved(own) if kernel.schedule.exact else {}
        self.inside |= dict.fromkeys(self.saved)
        self.inside |= self._of_groups(self.inside)
        self.saved |= {name: t for name, t in self._of_groups(self.saved).items() if t is not None}
        extents = {name: self.facts.poly(axis.stop) - self.facts.poly(axis.start) for name, axis in own.items()}
        self.parted = {name for name, of, step in kernel.schedule.groups if extents[of].content % step}
        self.fills: dict[ir.Load, Number] = {}

    def _saved(self, axes: dict[str, ir.AxisInfo]) -> dict[str, ir.Expr]:
        """The tails that the exact variant goes without, by axis."""
        unaided = Facts(dataclasses.replace(self.kernel, hoists=()))
        checked = [a for a, require in assume.saved(self.kernel).items() if require in self.kernel.hoists]
        tails = {a: tail(unaided, axes[a], self.kernel.schedule.length(a)) for a in checked}
        return {a: t for a, t in tails.items() if t is not None}

    def _of_groups(self, tails: Mapping[str, ir.Expr | None]) -> dict[str, ir.Expr | None]:
        """The same conditions for the first lanes of groups: a group exists where its first lane does."""

        def first(tail: ir.Expr | None, of: str, name: str) -> ir.Expr | None:
            rule = lambda n: dataclasses.replace(n, name=name, axes=(name,)) if isinstance(n, ir.Index) and n.name == of else n  # noqa: E731
            return None if tail is None else dataclasses.replace(ir.rewrite(tail, rule), axes=(name,))

        return {name: first(tails[of], of, name) for name, of, _ in self.kernel.schedule.groups if of in tails}

    def held(self, x: ir.Expr, axis: str | None, state: State) -> Held:
        """What a value is in the lanes of an axis that do not exist; with None, in any lane."""
        known = value_of(x)
        if known is not None:
            return padding.constant(known)
        if axis not in x.axes:
            axis = None
        match x:
            case ir.Load():
                return TOP if axis is None or self.inside[axis] is None else padding.constant(self.fill(x))
            case ir.Var():
                return state.get((x.name, axis), TOP)
            case ir.Full():
                return self.held(x.value, axis, state)
            case ir.Spread():
                # A group may have lanes that exist and lanes that do not.
                return self.held(x.x, (None if x.group in self.parted else x.group) if axis == x.over else axis, state)
            case ir.Where():
                chosen = self.held(x.cond, axis, state).value
                if chosen is not None:
                    return self.held(x.a if chosen else x.b, axis, state)
                return self.held(x.a, axis, state).join(self.held(x.b, axis, state))
            case ir.Reduce():
                inner = self.held(x.x, axis, state)
                return padding.of_kinds(padding.reduced(x.op, inner.kinds)) if x.dtype.is_float else TOP
            case ir.Unary() | ir.Cast():
                inner = self.held(x.x, axis, state)
                exact = computed(x, x=inner)
                if exact.value is not None or not x.dtype.is_float:
                    return exact
                return padding.of_kinds(
                    padding.cast(inner.kinds, x.x.dtype, x.dtype) if isinstance(x, ir.Cast) else padding.unary(x.op, inner.kinds)
                )
            case ir.Binary():
                a, b = self.held(x.a, axis, state), self.held(x.b, axis, state)
                if x.dtype is BOOL:
                    if x.op in ("and", "or") and (x.op == "or") in [h.value for h in (a, b) if isinstance(h.value, bool)]:
                        return padding.constant(x.op == "or")
                    inside = None if axis is None else self.inside[axis]
                    if inside is not None and self.implied(inside, (x,)):
                        return padding.constant(False)
                exact = computed(x, a=a, b=b)
                if exact.value is not None or not x.dtype.is_float:
                    return exact
                return padding.of_kinds(padding.binary(x.op, a.kinds, b.kinds))
            case ir.Fma():
                product = padding.binary("mul", self.held(x.a, axis, state).kinds, self.held(x.b, axis, state).kinds)
                return padding.of_kinds(padding.binary("add", product, self.held(x.c, axis, state).kinds))
            case _:
                return TOP

    def fill(self, node: ir.Load) -> Number:
        """What masked lanes of a load (as its author wrote it) hold."""
        # e8m0 has no 0; this is its code 0.
        return self.fills.get(node, 2.0**-127 if node.dtype is E8M0 else zero(node.dtype))

    def identity(self, node: ir.Reduce | ir.Scan) -> Number:
        """What a reduction ignores. That of an integer's max is the least value of its operand, which may need fewer bits than i64's."""
        dtype = node.x.dtype
        if isinstance(node, ir.Scan):
            return zero(dtype)
        row = REDUCTIONS[node.op]
        if row.orders is not None and not dtype.is_float:
            return self.least(node) if row.orders == "max" else self.most(node)
        return row.neutral(dtype)

    def least(self, node: ir.Reduce) -> int:
        return int(node.x.dtype.min) if self.may_be_empty(node) else self.facts.bounds.of(node.x).lo

    def most(self, node: ir.Reduce) -> int:
        return int(node.x.dtype.max) if self.may_be_empty(node) else self.facts.bounds.of(node.x).hi

    def may_be_empty(self, node: ir.Reduce) -> bool:
        """Whether a block may have no lane at all; then the identity itself is the result."""
        stops = {
            n.axis for s in self.kernel.body for n in ir.walk(s) if isinstance(n, ir.SpanAxis) and (n.stop is not None or n.length == 0)
        }
        row = REDUCTIONS[node.op]
        return row.orders is not None and not row.picks and bool(stops.intersection(node.over))

    def implied(self, condition: ir.Expr, guard: tuple[ir.Expr, ...]) -> bool:
        """Whether the author's guard says a condition outright. Ranges of axes must not be used: they hold for lanes that exist."""
        goals = self.facts.inequalities(condition)
        said = [p for g in guard for p in self.facts.inequalities(g)]
        return bool(goals) and all(any((goal - given).terms == () for given in said) for goal in goals)


def computed(node: ir.Unary | ir.Binary | ir.Cast, **operands: Held) -> Held:
    """An operation on constants, where all operands are."""
    changes: dict[str, ir.Expr] = {}
    for name, held in operands.items():
        if held.value is None:
            return TOP
        changes[name] = ir.const(held.value, getattr(node, name).dtype)
    value = value_of(expression(dataclasses.replace(node, **changes)))  # type: ignore[arg-type]
    return TOP if value is None else padding.constant(value)


def is_identity(held: Held, identity: Number) -> bool:
    """Whether lanes hold an identity; for a sum -0.0 is one too."""
    if held.value is not None:
        return held.value == identity
    return identity == 0 and isinstance(identity, float) and held.kinds & ~kinds.ZERO == 0


def is_finite(held: Held, dtype: DType) -> bool:
    return not dtype.is_float or held.kinds & (kinds.NAN | kinds.INF) == 0


def joined(a: State, b: State) -> State:
    return {key: a[key].join(b[key]) for key in a if key in b}


def fits(value: Number, dtype: DType) -> bool:
    """Whether a load of this dtype can hold a fill."""
    if isinstance(value, float):
        return dtype in FLOATS
    if isinstance(value, bool):
        return dtype is BOOL
    return dtype.is_integer and int(dtype.min) <= value <= int(dtype.max)


def zero(dtype: DType) -> Number:
    return False if dtype is BOOL else 0.0 if dtype.is_float else 0
