"""Where values lie, and which loads a loop reads ahead.

It comes after `guard`: only a load whose masked lanes hold 0 can go to shared memory without passing registers. Both backends: `where(c, x[i], 0)`
whose load is masked by `c` and holds 0 there is the load itself. TileLang: the operands of a contraction are variables of their own in shared
memory, each assigned once; a load goes there directly, any other value from registers. What is spread, and what says where or whether a block is
read, lies there too, and one of two reductions that meet along different axes: a thread that has some columns of a product is seldom the one that reads those rows. In a loop over tiles, blocks that operands
are, or are computed from, and that depend on its index are read `stages - 1` steps ahead, where the way to their addresses is pure: made of the index, of
what the loop does not change, and of loads, all of tensors that nobody writes. An address is computed by the thread that uses it; what has a division
by what is not known in it is computed once a row, before. Stages are those of the schedule, or as many as shared memory has room for, where there is
room for two only of the longest blocks. What is pinned to shared memory lies there, too, and loads of it are read ahead; a left operand that is pinned
to registers stays there. Triton does all of this by itself, but for the stages that are pinned for one loop.
Leaves Assign.place, For.stages and For.ahead. Raises NSA0408 for a pin that a contraction or a loop cannot have, NSA0412 where the blocks do not fit
shared memory.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from math import prod

from nsalang import ir
from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import Target
from nsalang.ir.intervals import conjuncts
from nsalang.passes import ahead
from nsalang.passes.ahead import is_written, shared
from nsalang.passes.contractions import LEAST, is_loaded
from nsalang.passes.hoist import Names, Room, blocks, expressions, same
from nsalang.passes.order import dots_of
from nsalang.passes.pins import Pins, pins_of
from nsalang.passes.simplify import value_of


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    pins = pins_of(kernel)
    wanted, on_tilelang = bool(dots_of(kernel) or pins.places or pins.stages), kernel.schedule.backend == "tilelang"
    if wanted:
        body = tuple(ir.rewrite(s, _without_where) for s in kernel.body)
        kernel = _pinned(kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body), pins)
    if on_tilelang:
        kernel = shared(kernel, _spread(kernel))
    if not (wanted and on_tilelang):
        return kernel
    kernel = _one_name_a_value(_Crossing(kernel).run())
    placed = _Operands(kernel)
    kernel = shared(dataclasses.replace(kernel, body=placed.block(kernel.body, {})), placed.shared)
    placed.check(kernel)
    return ahead.run(kernel, target)


def _pinned(kernel: ir.Kernel, pins: Pins) -> ir.Kernel:
    """The kernel with what is pinned in its statements, before any of them gets another name."""

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Assign() if node.name in pins.places:
                return dataclasses.replace(node, place=pins.places[node.name])
            case ir.For() if node.index in pins.stages:
                return dataclasses.replace(node, stages=pins.stages[node.index])
            case _:
                return node

    body = tuple(ir.rewrite(s, rule) for s in kernel.body)
    if same(body, kernel.body):
        return kernel
    loops = (f"{ir.plain(loop)}.stages: {n}, pinned" for loop, n in pins.stages.items())
    places = (f"{ir.plain(name)}: {place}, pinned" for name, place in pins.places.items())
    why = (*kernel.schedule.why, *dict.fromkeys((*loops, *places)))
    return dataclasses.replace(kernel, body=body, schedule=dataclasses.replace(kernel.schedule, why=why))


def _spread(kernel: ir.Kernel) -> set[str]:
    """The variables that are spread. Raises NSA0408 where one is pinned to registers."""
    names = {n.x.name for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Spread) and isinstance(n.x, ir.Var)}
    for n in ir.walk(kernel):
        if isinstance(n, ir.Assign) and n.name in names and n.place == "registers":
            sentence = f"the schedule pins '{ir.plain(n.name)}' to registers; it has a lane for each group, and the threads of a group read it from shared memory"
            raise NsaError.at("NSA0408", sentence, n.span)
    return names


class _Crossing:
    """Puts into shared memory what is reduced to other axes than a value that it meets: `sum(x, axis=j) * sum(x, axis=i)`. Beside a contraction,
    TileLang finds no layout in which a thread has both. The last of them stays in registers."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel, self.names = kernel, Names(kernel)
        assigned = [n for n in ir.walk(kernel) if isinstance(n, ir.Assign)]
        count = Counter(n.name for n in assigned)
        self.held = {n.name for n in assigned if count[n.name] == 1 and isinstance(n.value, ir.Reduce) and n.place is None}
        self.shared: set[str] = set()

    def run(self) -> ir.Kernel:
        body = self.block(self.kernel.body)
        return shared(self.kernel if same(body, self.kernel.body) else dataclasses.replace(self.kernel, body=body), self.shared)

    def block(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        made: list[ir.Stmt] = []
        for node in body:
            room = Room(self.names)
            node = expressions(node, lambda e: self.value(e, room))  # noqa: B023 - called at once
            made += room.made
            node = blocks(node, self.block)
            made.append(node)
        return tuple(made)

    def value(self, x: ir.Expr, room: Room) -> ir.Expr:
        met = [*self.reduced(x)]
        crossing = [n for at, n in enumerate(met) if any(not (set(n.axes) <= set(m.axes) or set(m.axes) <= set(n.axes)) for m in met[at:])]
        self.shared |= {n.name for n in crossing if isinstance(n, ir.Var)}
        chosen = {repr(n) for n in crossing if isinstance(n, ir.Reduce)}

        def rule(n: ir.Node) -> ir.Node:
            if not (isinstance(n, ir.Reduce) and repr(n) in chosen):
                return n
            name = room.name(n, "reduced")
            self.shared.add(name.name)
            return name

        return ir.rewrite(x, rule) if chosen else x

    def reduced(self, x: ir.Node) -> Iterator[ir.Reduce | ir.Var]:
        """What is reduced, and then met in the loop over the lanes of a value."""
        if isinstance(x, ir.Reduce) or (isinstance(x, ir.Var) and x.name in self.held):
            if x.axes:
                yield x
        else:
            for part in ir.children(x):
                yield from self.reduced(part)


def _without_where(node: ir.Node) -> ir.Node:
    """A load that holds 0 wherever the `where` around it would choose 0."""
    match node:
        case ir.Where(a=ir.Load() as load) if load.mask is not None and load.fill is not None and load.axes == node.axes:
            masked = conjuncts(load.mask)
            zero = value_of(node.b)
            implied = all(c in masked for c in conjuncts(node.cond))
            return load if implied and zero is not None and repr(zero) == repr(load.fill.value) else node
        case _:
            return node


def _one_name_a_value(kernel: ir.Kernel) -> ir.Kernel:
    """A variable of a loop's body that is assigned several times in one straight line gets a name for each, so that what it is made of can be said."""
    names = Names(kernel)

    def rule(node: ir.Node) -> ir.Node:
        if not isinstance(node, ir.For) or node.kind != "tile":
            return node
        direct = [s.name for s in node.body if isinstance(s, ir.Assign)]
        every = [n.name for s in node.body for n in ir.walk(s) if isinstance(n, ir.Assign)]
        often = {n for n in direct if direct.count(n) > 1 and direct.count(n) == every.count(n) and n not in node.carried}
        left = {n: direct.count(n) for n in often}
        now: dict[str, str] = {}
        made: list[ir.Stmt] = []
        for statement in node.body if often else ():
            changed = ir.rewrite(
                statement, lambda n: dataclasses.replace(n, name=now[n.name]) if isinstance(n, ir.Var) and n.name in now else n
            )
            if isinstance(changed, ir.Assign) and changed.name in often:
                left[changed.name] -= 1
                own = changed.name
                now[own] = names.fresh(own) if left[own] else own
                changed = dataclasses.replace(changed, name=now[own])
            made.append(changed)
        return dataclasses.replace(node, body=tuple(made)) if often else node

    return dataclasses.replace(kernel, body=tuple(ir.rewrite(s, rule) for s in kernel.body))


class _Operands:
    """Gives the operands of contractions names of their own."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.names = Names(kernel)
        self.written = is_written(kernel)
        self.count: dict[str, int] = {}
        for node in ir.walk(kernel):
            if isinstance(node, ir.Assign):
                self.count[node.name] = self.count.get(node.name, 0) + 1
        self.kept = {n.name: n.value for n in ir.walk(kernel) if isinstance(n, ir.Assign) and n.place == "registers"}
        self.shared: set[str] = set()

    def block(self, body: tuple[ir.Stmt, ...], known: dict[str, ir.Var]) -> tuple[ir.Stmt, ...]:
        """``known``: operands that have a name already, by their text; those of an inner block are not known after it."""
        made: list[ir.Stmt] = []
        for node in body:

            def rule(n: ir.Node) -> ir.Node:
                if not isinstance(n, ir.Dot):
                    return n
                a, b = (self.operand(x, known, made) for x in (n.a, n.b))
                return n if a is n.a and b is n.b else dataclasses.replace(n, a=a, b=b)

            node = expressions(node, lambda e: ir.rewrite(e, rule))
            node = blocks(node, lambda body: self.block(body, dict(known)))
            made.append(node)
        return tuple(made)

    def operand(self, x: ir.Expr, known: dict[str, ir.Var], made: list[ir.Stmt]) -> ir.Expr:
        if isinstance(x, ir.Var) and self.count[x.name] == 1:
            if x.name not in self.kept:
                self.shared.add(x.name)
            return x
        if repr(x) in known:
            return known[repr(x)]
        name = self.names.fresh(_name(x))
        self.count[name] = 1
        self.shared.add(name)
        made.append(ir.Assign(name, x, span=x.span))
        held = ir.Var(x.dtype, x.axes, name, span=x.span)
        if self.is_constant(x):
            known[repr(x)] = held
        return held

    def is_constant(self, x: ir.Expr) -> bool:
        """Whether the same text has the same value as long as the block runs."""
        return all(
            not (isinstance(n, ir.Var) and self.count[n.name] > 1) and not (isinstance(n, ir.Load) and self.written(n.tensor))
            for n in ir.walk(x)
        )

    def check(self, kernel: ir.Kernel) -> None:
        """Raises NSA0408 where an operand is pinned to registers, and no tensor core reads it from there."""
        schedule = kernel.schedule
        problems: dict[str, Diagnostic] = {}
        for dot in dots_of(kernel):
            for x in (dot.a, dot.b):
                if not (isinstance(x, ir.Var) and x.name in self.kept and self.count[x.name] == 1):
                    continue
                assert dot.left is not None
                rows = [a for a in dot.left if schedule.length(a) > 1]
                if not set(dot.left) <= set(x.axes):
                    limit = "it holds the columns of this contraction, and a tensor core reads them from shared memory"
                elif any(schedule.order.index(a) > schedule.order.index(dot.over) for a in rows):
                    limit = "its rows run fastest, and a tensor core reads such an operand from shared memory"
                elif 0 < dot.promote < schedule.length(dot.over):
                    limit = f"this contraction reads it in parts of {dot.promote}, and registers cannot be read in parts"
                elif prod(schedule.length(a) for a in rows) < LEAST * schedule.warps and not is_loaded(self.kept[x.name]):
                    limit = f"{schedule.warps} warps that read from registers what they have computed need {LEAST * schedule.warps} rows"
                else:
                    continue
                sentence = f"the schedule pins '{ir.plain(x.name)}' to registers; {limit}"
                problems.setdefault(x.name, Diagnostic("NSA0408", sentence, dot.span))
        if problems:
            raise NsaError(*problems.values())


def _name(x: ir.Expr) -> str:
    """``x_tile`` for a block of x, else a factor by the first variable in it."""
    if isinstance(x, ir.Load):
        return f"{x.tensor}_tile"
    source = next((n.name for n in ir.walk(x) if isinstance(n, ir.Var)), "")
    return f"{ir.plain(source)}_factor" if source else "factor"
