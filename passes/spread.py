"""What does not vary within groups of lanes is made once a group, and spread over its lanes: the scales of a block of 128 values, `s[m, c // 128]`.

It comes after the tiles, whose lengths say how many lanes a group may have, and before `assume` and `guard`, so that a load of a group has masks of
its own. A value is constant along groups of an axis where all that it has of that axis is `(axis + r) // n`, groups beginning at multiples of a power
of two that divides n, r, the length of the tile and the place where the axis begins. Such a value is computed at the first lane of each group: it has an axis of those
lanes (`Schedule.groups`) in place of its own, and a variable of its own, or the author's where nothing else is assigned to that. A value is worth it where a
thread would make several of one load in it, or an operation that takes time on a variable of groups, and all of its loads are constant along the same groups.
What is read for a group is what its first lane reads anyway, so nothing is left to prove; a guard must hold there wherever it holds in the group.
Leaves Schedule.groups, the axes of groups behind their axes in the order and among the lengths, and every Spread of a variable or of such a Spread.
"""

from __future__ import annotations

import dataclasses
from math import gcd, prod

from nsalang import ir
from nsalang.base.target import Target
from nsalang.ir.intervals import conjuncts
from nsalang.ir.linear import Facts
from nsalang.passes.hoist import Names, Room, blocks, expressions, same
from nsalang.passes.simplify import expression

LOADS = 4
"""Elements of a load that each thread would read, from which on it is made once a group."""
Held = dict[str, tuple[int, ir.Var]]
"""Variables that have one lane for each group of an axis: the lanes of a group, and the variable as it is then."""


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    divided = {a for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Binary) and n.op == "floordiv" for a in n.axes}
    for axis in [a for a in ir.axes_of(kernel) if a in divided]:
        kernel = _Axis(kernel, axis, target).run()
    return kernel


class _Axis:
    """Spreads along one axis."""

    def __init__(self, kernel: ir.Kernel, axis: str, target: Target) -> None:
        self.kernel, self.axis = kernel, axis
        self.facts = Facts(kernel)
        self.length = kernel.schedule.length(axis)
        self.least = LOADS * kernel.schedule.warps * target.facts.warp
        self.names = Names(kernel)
        self.groups: dict[int, str] = {}
        self.held: Held = {}
        self.count: dict[str, int] = {}
        for node in ir.walk(kernel):
            if isinstance(node, ir.Assign):
                self.count[node.name] = self.count.get(node.name, 0) + 1
        self.begin = self.facts.poly(ir.axes_of(kernel)[axis].start).content

    def run(self) -> ir.Kernel:
        body = self.block(self.kernel.body)
        if not self.groups:
            return self.kernel
        old = self.kernel.schedule
        made = tuple((name, self.axis, step) for step, name in self.groups.items())
        at = old.order.index(self.axis) + 1
        schedule = dataclasses.replace(
            old,
            groups=(*old.groups, *made),
            order=(*old.order[:at], *(name for name, _, _ in made), *old.order[at:]),
            lengths=(*old.lengths, *((name, self.length // step) for name, _, step in made)),
            why=(
                *old.why,
                *(f"{name}: {self.length // step}, the first of every {step} of {ir.plain(self.axis)}" for name, _, step in made),
            ),
        )
        return dataclasses.replace(self.kernel, body=body, schedule=schedule)

    # -------------------------------------------------------------------------------------------------------------- statements

    def block(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        made: list[ir.Stmt] = []
        for node in body:
            room = Room(self.names)
            if isinstance(node, ir.Assign) and self.count[node.name] == 1 and (step := self.worth(node.value)):
                value = self.first(node.value, step)
                self.held[node.name] = step, ir.Var(value.dtype, value.axes, node.name)
                node = dataclasses.replace(node, value=value)
            else:
                node = expressions(node, lambda e: self.spread(e, room))  # noqa: B023 - called before the next turn
            node = blocks(node, self.block)
            made += [*room.made, node]
        return body if same(tuple(made), body) else tuple(made)

    def spread(self, node: ir.Expr, room: Room) -> ir.Expr:
        """A value in which all that is worth it is spread."""
        if isinstance(node, ir.Var) and node.name in self.held:
            step, var = self.held[node.name]
            return self.over(var, step)
        if step := self.worth(node):
            return self.over(room.name(self.first(node, step), _name(node)), step)
        return expressions(node, lambda e: self.spread(e, room))

    def over(self, x: ir.Var, step: int) -> ir.Spread:
        group = self.groups[step]
        return ir.Spread(x.dtype, tuple(self.axis if a == group else a for a in x.axes), x, self.axis, group, span=x.span)

    # ------------------------------------------------------------------------------------------------------------------ values

    def worth(self, node: ir.Expr) -> int:
        """The lanes of a group for which a value is to be made once; 0 where it is not."""
        step = self.step(node)
        if step < 2 or self.axis not in node.axes or isinstance(node, ir.Var) or _divides(node):
            return 0
        below = [n for n in ir.walk(node) if isinstance(n, ir.Value) and self.axis in n.axes]
        held = [n for n in below if isinstance(n, ir.Var) and n.name in self.held]
        loads = [n for n in below if isinstance(n, ir.Load)]
        is_worth = any(self.lanes(n) >= self.least for n in loads) or (bool(held) and any(map(_is_costly, below)))
        sources: list[ir.Expr] = [*held, *loads]
        return step if is_worth and all(self.step(n) == step for n in sources) else 0

    def lanes(self, node: ir.Load) -> int:
        """The lanes of a load as its author wrote it."""
        schedule = self.kernel.schedule
        return prod(schedule.length(a) * schedule.step(a) for a in node.axes)

    def step(self, node: ir.Expr) -> int:
        """The most lanes of a group along which a value is constant, the length of the tile where the value lacks the axis."""
        if self.axis not in node.axes:
            return self.length
        match node:
            case ir.Binary(op="floordiv", a=a, b=ir.Const(value=int(n))) if n > 1 and (shift := self.shift(a)) is not None:
                return gcd(n, shift, self.begin, self.length)
            case ir.Var():
                return self.held[node.name][0] if node.name in self.held else 1
            case ir.Index() | ir.Dot() | ir.Search() | ir.Border():
                return 1
            case ir.Scan() if node.over == self.axis:
                return 1
            case ir.Load():
                parts = [*node.indices, *(c for c in conjuncts(node.guard) if not self.ends(c))]
                return min(map(self.step, parts))
            case _:
                return min(self.step(c) for c in ir.children(node))  # type: ignore[arg-type]

    def shift(self, node: ir.Expr) -> int | None:
        """What divides an integer less the index of the axis, which then has nothing else of the axis (0: there is no more); else None."""
        index = ir.Index(node.dtype, (self.axis,), self.axis)
        own = [n for n in ir.walk(self.facts.resolved(node)) if isinstance(n, ir.Index | ir.Var | ir.Load) and self.axis in n.axes]
        rest = self.facts.poly(node) - self.facts.poly(index)
        return rest.content if own == [index] and rest.atoms.isdisjoint(self.facts.poly(index).atoms) else None

    def ends(self, condition: ir.Expr) -> bool:
        """Whether a condition holds up to some lane of the axis and no further: `k < n`."""
        match condition:
            case ir.Binary(op="lt" | "le", a=ir.Index(name=name), b=b):
                return name == self.axis and self.axis not in b.axes
            case ir.Binary(op="gt" | "ge", a=a, b=ir.Index(name=name)):
                return name == self.axis and self.axis not in a.axes
            case _:
                return False

    def first(self, node: ir.Expr, step: int) -> ir.Expr:
        """A value at the first lane of each group."""
        if step not in self.groups:
            self.groups[step] = self.names.fresh(f"{ir.plain(self.axis)}_first")
        group = self.groups[step]

        def at_first(n: ir.Expr) -> ir.Expr:
            if self.axis not in n.axes:
                return n
            match n:
                case ir.Index():
                    return dataclasses.replace(n, name=group, axes=(group,))
                case ir.Var():
                    return self.held[n.name][1]
                case _:
                    n = expressions(n, at_first)
                    return expression(dataclasses.replace(n, axes=tuple(group if a == self.axis else a for a in n.axes)))

        return at_first(node)


def _divides(node: ir.Node) -> bool:
    """Whether a value may divide by 0 in lanes that a `where` around it leaves out; what is in a load or a `where` has its condition with it."""
    match node:
        case ir.Load() | ir.Where():
            return False
        case ir.Binary(op="floordiv" | "mod", b=b) if not isinstance(b, ir.Const):
            return True
        case _:
            return any(map(_divides, ir.children(node)))


def _is_costly(node: ir.Value) -> bool:
    """Whether an operation takes longer than reading what a group has."""
    match node:
        case ir.Unary(op=op):
            return op not in ("neg", "not", "invert", "abs")
        case ir.Binary(op="div"):
            return True
        case _:
            return False


def _name(node: ir.Expr) -> str:
    """``x_group`` for what is made of a block of x."""
    source = next((n.tensor for n in ir.walk(node) if isinstance(n, ir.Load)), "value")
    return f"{source}_group"
