"""Where the values of contractions lie, and which loads a loop reads ahead.

It comes after `guard`: only a load whose masked lanes hold 0 can go to shared memory without passing registers. Both backends: `where(c, x[i], 0)`
whose load is masked by `c` and holds 0 there is the load itself. TileLang: the operands of a contraction are variables of their own in shared
memory, each assigned once; a load goes there directly, any other value from registers. What is spread, and what says where or whether a block is
read, lies there too: a thread that has some columns of a product is seldom the one that reads those rows. In a loop over tiles, blocks that operands
are, or are computed from, and that depend on its index are read `stages - 1` steps ahead, where the way to their addresses is pure: made of the index, of
what the loop does not change, and of loads, all of tensors that nobody writes. An address is computed by the thread that uses it; what has a division
by what is not known in it is computed once a row, before. Stages are those of the schedule, or as many as shared memory has room for, where there is
room for two only of the longest blocks. Triton does all of this by itself.
Leaves Assign.place, For.stages and For.ahead. Raises NSA0412 where the blocks do not fit shared memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

from nsalang import ir
from nsalang.intervals import conjuncts
from nsalang.passes.contraction_tiles import budget
from nsalang.passes.hoist import Names, Room, expressions, same
from nsalang.passes.order import dots_of
from nsalang.passes.simplify import value_of
from nsalang.source import NsaError
from nsalang.target import Target


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    contracts, on_tilelang = bool(dots_of(kernel)), kernel.schedule.backend == "tilelang"
    if contracts:
        body = tuple(ir.rewrite(s, _without_where) for s in kernel.body)
        kernel = kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body)
    if on_tilelang:
        kernel = _shared(kernel, spread_names(kernel))
    if not (contracts and on_tilelang):
        return kernel
    kernel = _one_name_a_value(kernel)
    placed = _Operands(kernel)
    kernel = _shared(dataclasses.replace(kernel, body=placed.block(kernel.body, {})), placed.shared)
    return _Ahead(kernel, target).run()


def spread_names(kernel: ir.Kernel) -> set[str]:
    """The variables that are spread."""
    return {n.x.name for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Spread) and isinstance(n.x, ir.Var)}


def _shared(kernel: ir.Kernel, names: set[str]) -> ir.Kernel:
    """With these variables in shared memory."""

    def rule(node: ir.Node) -> ir.Node:
        return dataclasses.replace(node, place="shared") if isinstance(node, ir.Assign) and node.name in names else node

    return dataclasses.replace(kernel, body=tuple(ir.rewrite(s, rule) for s in kernel.body)) if names else kernel


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


def is_written(kernel: ir.Kernel) -> Callable[[str], bool]:
    """Whether the kernel may write the memory of a tensor."""
    constant = {t.name for t in kernel.tensors if t.role == "in"}
    return lambda name: kernel.memory(name) not in constant


class _Operands:
    """Gives the operands of contractions names of their own."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.names = Names(kernel)
        self.written = is_written(kernel)
        self.count: dict[str, int] = {}
        for node in ir.walk(kernel):
            if isinstance(node, ir.Assign):
                self.count[node.name] = self.count.get(node.name, 0) + 1
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
            match node:
                case ir.For():
                    inner = self.block(node.body, dict(known))
                    node = node if same(inner, node.body) else dataclasses.replace(node, body=inner)
                case ir.If():
                    inner, other = self.block(node.body, dict(known)), self.block(node.orelse, dict(known))
                    if not (same(inner, node.body) and same(other, node.orelse)):
                        node = dataclasses.replace(node, body=inner, orelse=other)
                case _:
                    pass
            made.append(node)
        return tuple(made)

    def operand(self, x: ir.Expr, known: dict[str, ir.Var], made: list[ir.Stmt]) -> ir.Expr:
        if isinstance(x, ir.Var) and self.count[x.name] == 1:
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


def _name(x: ir.Expr) -> str:
    """``x_tile`` for a block of x, else a factor by the first variable in it."""
    if isinstance(x, ir.Load):
        return f"{x.tensor}_tile"
    source = next((n.name for n in ir.walk(x) if isinstance(n, ir.Var)), "")
    return f"{ir.plain(source)}_factor" if source else "factor"


ALIGNED = 1024
"""Bytes of shared memory at a multiple of which blocks begin, behind what lies before them."""


@dataclass(frozen=True, slots=True)
class _Early:
    """What a loop may read ahead: loads into shared memory by name, and which variables hold what their addresses are made of, where that has
    a division by what is not known; every lane of every address would divide otherwise."""

    loads: dict[str, frozenset[str]] = field(default_factory=dict)

    def names(self, loop: ir.For, chosen: set[str]) -> tuple[str, ...]:
        """The chosen loads and what they need, in the order of the body."""
        needed = {n for name, held in self.loads.items() if name in chosen for n in (name, *held)}
        return tuple(s.name for s in loop.body if isinstance(s, ir.Assign) and s.name in needed)


class _Ahead:
    """Chooses what loops read ahead, within shared memory."""

    def __init__(self, kernel: ir.Kernel, target: Target) -> None:
        self.operands = Names(kernel)
        self.blocks: set[str] = set()
        self.kernel, self.target = self.with_blocks(kernel), target
        self.written = is_written(kernel)
        self.of = {group: of for group, of, _ in kernel.schedule.groups}

    def run(self) -> ir.Kernel:
        loops = [n for s in self.kernel.body for n in ir.walk(s) if isinstance(n, ir.For) and n.kind == "tile"]
        ahead = {id(n): self.candidates(n) for n in loops}
        assigned = {n.name: n for s in self.kernel.body for n in ir.walk(s) if isinstance(n, ir.Assign)}
        shared = {n.name for n in assigned.values() if n.place == "shared"}
        every = {name for early in ahead.values() for name in early.loads}
        most = budget(self.target)

        def early(chosen: set[str]) -> set[str]:
            return {name for n in loops for name in ahead[id(n)].names(n, chosen)}

        def need(stages: int, chosen: set[str]) -> int:
            """Bytes of all that lies in shared memory, but for addresses, which may stay in registers."""
            twice = early(chosen) if stages > 1 else set()
            return sum(self.bytes(assigned[n]) * (stages if n in twice else 1) for n in shared | twice)

        def fits(stages: int, chosen: set[str]) -> bool:
            """Whether there is room for addresses, too."""
            others = self.addresses(early(chosen) if stages > 1 else set())
            return need(stages, chosen) + sum(self.bytes(assigned[n]) for n in others) + (ALIGNED if others else 0) <= most

        wanted = self.kernel.schedule.stages
        is_pinned = any(name == "stages" for name, _ in self.kernel.schedule.pinned)
        tries = (wanted,) if is_pinned else range(wanted, 0, -1)
        chosen, stages = every, next((n for n in tries if fits(n, every)), 0)
        if stages < 2 <= wanted and every:
            # Not all of it, but the longest blocks.
            part: set[str] = set()
            for name in sorted(every, key=lambda n: self.bytes(assigned[n]), reverse=True):
                part |= {name} if fits(tries[0] if is_pinned else 2, part | {name}) else set()
            chosen, stages = (part, tries[0] if is_pinned else 2) if part else (chosen, stages)
        if not stages:
            chosen = every & shared
            stages = next((n for n in tries if need(n, chosen) <= most), 0)
        if not stages:
            self.refuse([n for n in assigned.values() if n.name in shared], chosen, need(wanted, chosen), most)

        body = self.staged(self.kernel.body, {id(n): ahead[id(n)].names(n, chosen) for n in loops}, stages)
        schedule = self.kernel.schedule
        if stages != schedule.stages:
            why = (
                *(w for w in schedule.why if not w.startswith("stages:")),
                f"stages: {stages}, more would take {need(stages + 1, every)} bytes of {most}",
            )
            schedule = dataclasses.replace(schedule, stages=stages, why=why)
        twice = early(chosen) if stages > 1 else set()
        # Where there is no room for addresses, they stay in registers.
        others = self.addresses(twice) if fits(stages, chosen) else set()
        return _shared(dataclasses.replace(self.kernel, body=body, schedule=schedule), twice | others)

    def with_blocks(self, kernel: ir.Kernel) -> ir.Kernel:
        """A name for each block that an operand is computed from in a loop over tiles, so that it can be read ahead."""

        def rule(node: ir.Node) -> ir.Node:
            if not isinstance(node, ir.For) or node.kind != "tile":
                return node
            made: list[ir.Stmt] = []
            for s in node.body:
                if isinstance(s, ir.Assign) and s.place == "shared" and not isinstance(s.value, ir.Load):
                    room = Room(self.operands)
                    s = dataclasses.replace(s, value=ir.rewrite(s.value, lambda n: self.block(n, room)))  # noqa: B023 - called at once
                    made += room.made
                made.append(s)
            return node if len(made) == len(node.body) else dataclasses.replace(node, body=tuple(made))

        body = tuple(ir.rewrite(s, rule) for s in kernel.body)
        return kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body)

    def block(self, node: ir.Node, room: Room) -> ir.Node:
        if not isinstance(node, ir.Load) or len(node.axes) < 2:
            return node
        held = room.name(node, f"{node.tensor}_tile")
        self.blocks.add(held.name)
        return held

    def staged(self, body: tuple[ir.Stmt, ...], ahead: dict[int, tuple[str, ...]], stages: int) -> tuple[ir.Stmt, ...]:
        made: list[ir.Stmt] = []
        for node in body:
            match node:
                case ir.For():
                    names = ahead.get(id(node), ()) if stages > 1 else ()
                    inner = self.staged(node.body, ahead, stages)
                    node = dataclasses.replace(node, body=inner, stages=stages if names else 1, ahead=names)
                case ir.If():
                    inner, other = self.staged(node.body, ahead, stages), self.staged(node.orelse, ahead, stages)
                    node = dataclasses.replace(node, body=inner, orelse=other)
                case _:
                    pass
            made.append(node)
        return tuple(made)

    def candidates(self, loop: ir.For) -> _Early:
        """The variables of a loop's body that can be read ahead."""
        assigned: dict[str, int] = {}
        for n in ir.walk(loop):
            if isinstance(n, ir.Assign):
                assigned[n.name] = assigned.get(n.name, 0) + 1
        inner = {n.index for s in loop.body for n in ir.walk(s) if isinstance(n, ir.For)} | {
            n.axis for n in ir.walk(loop) if isinstance(n, ir.SpanAxis)
        }
        pure: set[str] = set()
        moving: set[str] = set()
        dividing: dict[str, ir.Assign] = {}
        found: dict[str, frozenset[str]] = {}
        read: set[str] = set()

        def is_pure(x: ir.Expr) -> bool:
            for n in ir.walk(x):
                if isinstance(n, ir.Dot | ir.Reduce | ir.Scan) or (isinstance(n, ir.Load) and self.written(n.tensor)):
                    return False
                if isinstance(n, ir.Var) and n.name in assigned and n.name not in pure:
                    return False
                if isinstance(n, ir.Index) and self.of.get(n.name, n.name) in inner:
                    return False
            return True

        def moves(x: ir.Expr) -> bool:
            return any(
                (isinstance(n, ir.Index) and self.of.get(n.name, n.name) == loop.index) or (isinstance(n, ir.Var) and n.name in moving)
                for n in ir.walk(x)
            )

        def divides(x: ir.Expr) -> bool:
            """Whether it has a division by what is not known in it, in lanes."""
            return any(
                isinstance(n, ir.Binary) and n.op in ("floordiv", "mod") and n.axes and not isinstance(n.b, ir.Const) for n in ir.walk(x)
            )

        def held(x: ir.Expr) -> frozenset[str]:
            """The variables with divisions that a value is made of."""
            names = {n.name for n in ir.walk(x) if isinstance(n, ir.Var) and n.name in dividing}
            return frozenset(names).union(*(held(dividing[n].value) for n in names))

        for node in loop.body:
            if isinstance(node, ir.Assign) and assigned[node.name] == 1 and is_pure(node.value):
                pure.add(node.name)
                if moves(node.value):
                    moving.add(node.name)
                value = node.value
                if divides(value) or held(value):
                    dividing[node.name] = node
                is_block = node.place == "shared" or node.name in self.blocks
                if is_block and isinstance(value, ir.Load) and repr(value) not in read and not divides(value) and moves(value):
                    needed = held(value)
                    shorter = all(0 < len(dividing[n].value.axes) < len(value.axes) for n in needed)
                    if shorter and (value.mask is None or _is_zero(value.fill)):
                        found[node.name] = needed
            read.update(repr(n) for n in ir.walk(node) if isinstance(n, ir.Load))
        return _Early(found)

    def addresses(self, early: set[str]) -> set[str]:
        """Variables of fewer axes that say where or whether a block is read or written, but for what is read ``early``. A thread that has some rows
        of a product is seldom the one that reads them, and in registers such a variable would make it so."""
        assigned: dict[str, list[ir.Assign]] = {}
        found: set[str] = set()

        def look(node: ir.Node) -> None:
            if isinstance(node, ir.Assign):
                assigned.setdefault(node.name, []).append(node)
                if node.name in early:
                    return
            if isinstance(node, ir.Load | ir.Store):
                parts = [*node.indices, *(() if node.mask is None else (node.mask,))]
                names = [n for p in parts for n in ir.walk(p) if isinstance(n, ir.Var)]
                found.update(n.name for n in names if n.axes and len(n.axes) < len(node.axes))
            for child in ir.children(node):
                look(child)

        for s in self.kernel.body:
            look(s)
        return {n for n in found if n not in early and len(assigned[n]) == 1 and assigned[n][0].place is None}

    def bytes(self, node: ir.Assign) -> int:
        return prod(self.kernel.schedule.length(a) for a in node.value.axes) * node.value.dtype.bytes

    def refuse(self, shared: list[ir.Assign], early: set[str], need: int, most: int) -> None:
        """Raises NSA0412."""
        stages = self.kernel.schedule.stages
        parts = [
            f"'{ir.plain(n.name)}' {self.bytes(n)}" + (f" in {stages} stages" if n.name in early and stages > 1 else "") for n in shared
        ]
        sentence = (
            f"what the contractions of '{self.kernel.name}' read ({', '.join(parts)}) takes {need} bytes of shared memory, "
            f"and {self.target} has {most} for it"
        )
        pinned = [name for name, _ in self.kernel.schedule.pinned]
        raise NsaError.at("NSA0412", sentence, shared[0].span, help=f"the schedule pins {', '.join(pinned)}" if pinned else None)


def _is_zero(fill: ir.Const | None) -> bool:
    return fill is not None and fill.value == 0
