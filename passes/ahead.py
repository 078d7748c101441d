"""Which blocks the loops of a TileLang program read ahead, within shared memory: a part of the pass ``place``, which says what can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

from nsalang import ir
from nsalang.base.source import NsaError
from nsalang.base.target import Target
from nsalang.passes.contractions import budget
from nsalang.passes.hoist import Names, Room, same

ALIGNED = 1024
"""Bytes of shared memory at a multiple of which blocks begin, behind what lies before them."""


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    """Raises NSA0408 for a pin of stages that a loop has no use for, NSA0412 where what lies in shared memory does not fit."""
    return _Ahead(kernel, target).run()


def shared(kernel: ir.Kernel, names: set[str]) -> ir.Kernel:
    """With these variables in shared memory."""

    def rule(node: ir.Node) -> ir.Node:
        return dataclasses.replace(node, place="shared") if isinstance(node, ir.Assign) and node.name in names else node

    return dataclasses.replace(kernel, body=tuple(ir.rewrite(s, rule) for s in kernel.body)) if names else kernel


def is_written(kernel: ir.Kernel) -> Callable[[str], bool]:
    """Whether the kernel may write the memory of a tensor."""
    constant = {t.name for t in kernel.tensors if t.role == "in"}
    return lambda name: kernel.memory(name) not in constant


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
        self.grouped = kernel.schedule.grouped

    def run(self) -> ir.Kernel:
        loops = [n for s in self.kernel.body for n in ir.walk(s) if isinstance(n, ir.For)]
        ahead = {id(n): self.candidates(n) for n in loops}
        self.check(loops, ahead)
        assigned = {n.name: n for s in self.kernel.body for n in ir.walk(s) if isinstance(n, ir.Assign)}
        placed = {n.name for n in assigned.values() if n.place == "shared"}
        every = {name for early in ahead.values() for name in early.loads}
        most = budget(self.target)

        def copies(stages: int, chosen: set[str]) -> dict[str, int]:
            """How many buffers what is read ahead has, by a pin of its loop or by the schedule's stages."""
            return {name: n.stages or stages for n in loops if (n.stages or stages) > 1 for name in ahead[id(n)].names(n, chosen)}

        def need(stages: int, chosen: set[str]) -> int:
            """Bytes of all that lies in shared memory, but for addresses, which may stay in registers."""
            several = copies(stages, chosen)
            return sum(self.bytes(assigned[n]) * several.get(n, 1) for n in placed | set(several))

        def fits(stages: int, chosen: set[str]) -> bool:
            """Whether there is room for addresses, too."""
            others = self.addresses(set(copies(stages, chosen)))
            return need(stages, chosen) + sum(self.bytes(assigned[n]) for n in others) + (ALIGNED if others else 0) <= most

        wanted = self.kernel.schedule.stages
        is_pinned = any(name == "stages" for name, _ in self.kernel.schedule.pinned)
        tries, least = ((wanted,), wanted) if is_pinned else (range(wanted, 0, -1), 2)
        chosen, stages = every, next((n for n in tries if fits(n, every)), 0)
        if stages < 2 <= wanted and every:
            # Not all of it, but the longest blocks.
            part: set[str] = set()
            for name in sorted(every, key=lambda n: self.bytes(assigned[n]), reverse=True):
                part |= {name} if fits(least, part | {name}) else set()
            chosen, stages = (part, least) if part else (chosen, stages)
        if not stages:
            chosen = every & placed
            stages = next((n for n in tries if need(n, chosen) <= most), 0)
        if not stages:
            several = copies(wanted, chosen)
            self.refuse({n: self.bytes(assigned[n]) for n in assigned if n in placed}, several, need(wanted, chosen), most)

        body = self.staged(self.kernel.body, {id(n): ahead[id(n)].names(n, chosen) for n in loops}, stages)
        schedule = self.kernel.schedule
        if stages != schedule.stages:
            why = (
                *(w for w in schedule.why if not w.startswith("stages:")),
                f"stages: {stages}, more would take {need(stages + 1, every)} bytes of {most}",
            )
            schedule = dataclasses.replace(schedule, stages=stages, why=why)
        several = copies(stages, chosen)
        # Where there is no room for addresses, they stay in registers.
        others = self.addresses(set(several)) if fits(stages, chosen) else set()
        return shared(dataclasses.replace(self.kernel, body=body, schedule=schedule), set(several) | others)

    def check(self, loops: list[ir.For], ahead: dict[int, _Early]) -> None:
        """Raises NSA0408 for pinned stages of loops of which none has anything to read ahead."""
        pinned = [n for n in loops if n.stages > 1]
        served = {ir.plain(n.index) for n in pinned if ahead[id(n)].loads}
        for loop in pinned:
            if ir.plain(loop.index) not in served:
                sentence = (
                    f"the schedule pins '{ir.plain(loop.index)}.stages' to {loop.stages}; this loop has no load that it could read ahead"
                )
                helps = "a load is read ahead into shared memory, where its address follows from the loop's index and from tensors that nobody writes"
                raise NsaError.at("NSA0408", sentence, loop.span, help=helps)

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
                    own = node.stages or stages
                    names = ahead[id(node)] if own > 1 else ()
                    inner = self.staged(node.body, ahead, stages)
                    node = dataclasses.replace(node, body=inner, stages=own if names else min(node.stages, 1), ahead=names)
                case ir.If():
                    inner, other = self.staged(node.body, ahead, stages), self.staged(node.orelse, ahead, stages)
                    node = dataclasses.replace(node, body=inner, orelse=other)
                case _:
                    pass
            made.append(node)
        return tuple(made)

    def candidates(self, loop: ir.For) -> _Early:
        """The variables of a loop's body that can be read ahead."""
        if loop.kind != "tile":
            return _Early()
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
                if isinstance(n, ir.Index) and self.grouped(n.name) in inner:
                    return False
            return True

        def moves(x: ir.Expr) -> bool:
            return any(
                (isinstance(n, ir.Index) and self.grouped(n.name) == loop.index) or (isinstance(n, ir.Var) and n.name in moving)
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
                names = [n for p in ir.address(node) for n in ir.walk(p) if isinstance(n, ir.Var)]
                found.update(n.name for n in names if n.axes and len(n.axes) < len(node.axes))
            for child in ir.children(node):
                look(child)

        for s in self.kernel.body:
            look(s)
        return {n for n in found if n not in early and len(assigned[n]) == 1 and assigned[n][0].place is None}

    def bytes(self, node: ir.Assign) -> int:
        return prod(self.kernel.schedule.length(a) for a in node.value.axes) * node.value.dtype.bytes

    def refuse(self, sizes: dict[str, int], copies: dict[str, int], need: int, most: int) -> None:
        """Raises NSA0412. ``sizes``: bytes of one of what lies in shared memory; ``copies``: of how much of it there are several."""
        parts = [f"'{ir.plain(name)}' {size}" + (f" in {copies[name]} stages" if name in copies else "") for name, size in sizes.items()]
        sentence = (
            f"what '{self.kernel.name}' keeps in shared memory ({', '.join(parts)}) takes {need} bytes of it, "
            f"and {self.target} has {most} for it"
        )
        span = next(n.span for n in ir.walk(self.kernel) if isinstance(n, ir.Assign) and n.name in sizes)
        pinned = [name for name, _ in self.kernel.schedule.pinned]
        raise NsaError.at("NSA0412", sentence, span, help=f"the schedule pins {', '.join(pinned)}" if pinned else None)


def _is_zero(fill: ir.Const | None) -> bool:
    return fill is not None and fill.value == 0
