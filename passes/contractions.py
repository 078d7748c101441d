"""What the contractions of a kernel are made of, and what lengths of their axes cost: the blocks that they read, shared memory, registers, the work of
warps; and which pins of a user no contraction takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from nsalang import ir
from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import Target
from nsalang.ir.linear import Facts
from nsalang.passes.contract import batch_axes
from nsalang.passes.order import dots_of
from nsalang.passes.pins import Pins, power_above

LEAST = 16
RESERVED = 2048
"""Bytes of shared memory that are left to the backend."""


def budget(target: Target) -> int:
    """Bytes of shared memory for the blocks of one program. The cpu has no such memory, and takes the tiles of the largest."""
    return (227 * 1024 if target.kind == "cpu" else target.facts.shared_memory) - RESERVED


def rows_and_columns(dot: ir.Dot) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The axes of the rows and of the columns, where `order` has set them."""
    assert dot.left is not None
    batch = batch_axes(dot)
    return dot.left, tuple(a for a in dot.axes if a not in dot.left and a not in batch)


def are_chained(dots: Sequence[ir.Dot]) -> bool:
    """Whether one contraction sums over columns of another, as attention does."""
    return any(d.over in rows_and_columns(other)[1] for d in dots for other in dots)


def is_loaded(value: ir.Expr) -> bool:
    """Whether every thread can load what it needs of a value: nothing in it is made by other threads."""
    return not any(isinstance(n, ir.Var) and n.axes for n in ir.walk(value))


@dataclass(frozen=True, slots=True)
class Block:
    """What a contraction reads: its axes, bytes of an element, and which loop reads it ahead ("": none). ``reads``: by how many operands; 0: it is
    only what one is computed from. ``computed``: from something that was loaded. ``name``: of a variable that is pinned to shared memory."""

    axes: tuple[str, ...]
    width: int
    ahead: str
    gathered: bool
    reads: int = 1
    computed: bool = False
    name: str = ""


class Contractions:
    def __init__(self, kernel: ir.Kernel, target: Target, pins: Pins) -> None:
        self.kernel, self.target, self.pins, self.options = kernel, target, pins.lengths, pins.options
        self.loop_stages, self.places = pins.stages, pins.places
        self.on_triton = kernel.schedule.backend == "triton"
        self.dots = dots_of(kernel)
        self.axes = ir.axes_of(kernel)
        self.order = kernel.schedule.order
        self.summed = {d.over: d.a.dtype.bytes for d in self.dots}
        self.batch = {a for d in self.dots for a in batch_axes(d)}
        self.sides = [side for d in self.dots for side in rows_and_columns(d)]
        self.row_axes = {a for d in self.dots for a in rows_and_columns(d)[0]}
        self.loops = [n.index for n in ir.walk(kernel) if isinstance(n, ir.For) and n.kind == "tile"]
        self.assigned: dict[str, list[ir.Expr]] = {}
        for node in ir.walk(kernel):
            if isinstance(node, ir.Assign):
                self.assigned.setdefault(node.name, []).append(node.value)
        self.carried = {name for n in ir.walk(kernel) if isinstance(n, ir.For) for name in n.carried}
        self.chained = are_chained(self.dots)
        self.blocks = self._blocks()
        self.extents = self._extents()
        self.spans = self._spans()

    def _extents(self) -> dict[str, int]:
        """Constant extents of tile axes."""
        facts = Facts(self.kernel)
        found: dict[str, int] = {}
        for name, axis in self.axes.items():
            extent = facts.poly(axis.stop) - facts.poly(axis.start)
            if axis.kind != "span" and all(m == () for m, _ in extent.terms):
                found[name] = max(1, extent.content)
        return found

    def _spans(self) -> dict[str, int]:
        """Lengths of spans; the last one of a side, or one that is summed over, has more lanes than it needs where a tensor core takes no fewer."""
        found = {name: power_above(axis.length) for name, axis in self.axes.items() if axis.length is not None}
        for name, width in self.summed.items():
            if name in found:
                found[name] = max(found[name], self.least_summed(width))
        for side in self.sides:
            if all(a in found for a in side):
                while prod(found[a] for a in side) < LEAST:
                    found[side[-1]] *= 2
        return found

    def least_summed(self, width: int) -> int:
        return 32 if width == 1 else LEAST

    def _blocks(self) -> list[Block]:
        def loop_of(x: ir.Expr) -> str:
            """The innermost loop over an axis of a value."""
            return next((a for a in reversed(self.loops) if a in x.axes), "")

        found: dict[str, Block] = {}
        for dot in self.dots:
            for x in (dot.a, dot.b):
                if isinstance(x, ir.Var) and self.places.get(x.name) == "registers" and len(self.assigned[x.name]) == 1:
                    continue
                value: ir.Expr = x
                while isinstance(value, ir.Var) and len(self.assigned.get(value.name, ())) == 1:
                    value = self.assigned[value.name][0]
                load = value.a if isinstance(value, ir.Where) else value
                read = isinstance(load, ir.Load)
                by_data = isinstance(load, ir.Load) and any(
                    isinstance(n, ir.Var | ir.Load) and n.axes for i in load.indices for n in ir.walk(i)
                )
                before = found.get(repr(value))
                # Triton reads ahead whatever a contraction depends on.
                below = [n for n in ir.walk(value) if isinstance(n, ir.Load) and loop_of(n)] if not read and self.on_triton else []
                found[repr(value)] = (
                    Block(x.axes, x.dtype.bytes, loop_of(x) if read else "", by_data, computed=bool(below))
                    if before is None
                    else replace(before, reads=before.reads + 1)
                )
                for n in below:
                    found.setdefault(repr(n), Block(n.axes, n.dtype.bytes, loop_of(n), False, reads=0))
        operands = {x.name for d in self.dots for x in (d.a, d.b) if isinstance(x, ir.Var) and len(self.assigned[x.name]) == 1}
        pinned: list[Block] = []
        for name in (n for n, place in self.places.items() if place == "shared" and n not in operands):
            first, *others = self.assigned[name]
            ahead = loop_of(first) if isinstance(first, ir.Load) and not others else ""
            pinned.append(Block(first.axes, first.dtype.bytes, ahead, False, name=ir.plain(name)))
        return [*found.values(), *pinned]

    def row_bytes(self, block: Block) -> int:
        last = max(block.axes, key=self.order.index)
        return self.spans.get(last, 1) * block.width

    def reduced_columns(self) -> bool:
        """Whether spans on columns of a contraction are reduced next, by an instruction of no tensor core."""
        columns = {a for d in self.dots for a in rows_and_columns(d)[1]}
        return any(
            isinstance(n, ir.Reduce) and n.op == "sum" and any(a in columns and a in self.spans for a in n.over)
            for s in self.kernel.body
            for n in ir.walk(s)
        )

    def shared(self, lengths: Mapping[str, int], stages: int) -> int:
        """Bytes of all blocks that contractions read, and of what is pinned to shared memory. Axes of no contraction have no length yet: the pass
        `place` counts them."""
        return sum(prod(lengths.get(a, 1) for a in b.axes) * b.width * self.copies(b, stages) for b in self.blocks)

    def copies(self, block: Block, stages: int) -> int:
        """How many of a block there are. What Triton does was measured: with tcgen05, two more of a block that two contractions read; where there
        is no wgmma, a second of a computed operand, whose layout changes, and without stages of one that two contractions read, which is turned
        for one of them; and without stages nothing of what an operand is computed from."""
        stages = self.loop_stages.get(block.ahead, stages)
        if block.reads == 0:
            return stages if stages > 1 else 0
        if block.computed:
            return 2 if self.target.kind == "cuda" and not self.target.facts.from_shared else 1
        if self.on_triton and self.target.kind == "cuda" and not self.target.facts.from_shared and block.reads > 1 and stages == 1:
            return 2
        twice = self.on_triton and self.target.facts.tensor_memory and block.reads > 1 and stages > 1
        return (stages + 2 if twice else stages) if block.ahead else 1

    def registers(self, lengths: Mapping[str, int]) -> int:
        """Elements of what loops carry, and of the widest result beside it."""
        within = [d for name in self.carried for v in self.assigned.get(name, ()) for d in ir.walk(v) if isinstance(d, ir.Dot)]
        carried = [v[0].axes for name, v in self.assigned.items() if name in self.carried and v[0].axes]
        known = [axes for axes in carried if all(a in lengths for a in axes)]
        beside = [prod(lengths[a] for a in d.axes) for d in self.dots if not any(d is w for w in within)]
        return sum(prod(lengths[a] for a in axes) for axes in known if len(axes) > 1) + max(beside, default=0)

    def warp_tiles(self, rows: int, columns: int) -> int:
        """Into how many parts a result can be cut, each the work of a warp."""
        least_rows, least_columns = (16, 8) if self.on_triton else self.target.warp_tile
        return (rows // least_rows) * (columns // least_columns)

    def is_made_in_registers(self, x: ir.Expr) -> bool:
        return isinstance(x, ir.Var) and self.places.get(x.name) == "registers" and not is_loaded(self.assigned[x.name][0])

    def advice(self) -> str | None:
        pinned = [*self.pins, *self.options, *(f"{loop}.stages" for loop in self.loop_stages), *self.places]
        return f"pin less, or leave it to the compiler: {', '.join(pinned)}" if pinned else None

    # -------------------------------------------------------------------------------------------------------- what pins leave too few

    def check_registers(self, lengths: Mapping[str, int], warps: int) -> None:
        """Raises NSA0412 where a pin makes what loops add up in contractions more than the registers of all threads. The rule stays far below."""
        if not (self.pins or "warps" in self.options) or self.target.kind == "cpu":
            return
        if self.on_triton and self.target.facts.tensor_memory:
            return  # tensor memory holds it
        most = self.target.facts.registers * self.target.facts.warp * warps
        sums: dict[str, ir.Dot] = {}
        for name in self.carried:
            for value in self.assigned[name]:
                sums.update((name, n) for n in ir.walk(value) if isinstance(n, ir.Dot) and set(n.axes) <= set(value.axes))
        sizes = {name: prod(lengths.get(a, 1) for a in self.assigned[name][0].axes) for name in sorted(sums)}
        if (need := sum(sizes.values())) > most:
            parts = ", ".join(f"'{ir.plain(n)}' {_shape(self.assigned[n][0].axes, lengths)}" for n in sizes)
            sentence = (
                f"what the contractions of '{self.kernel.name}' add up ({parts}) takes {need} registers, and {warps} warps of {self.target} have {most}: "
                f"{self.target.facts.registers} a thread"
            )
            raise NsaError.at("NSA0412", sentence, sums[next(iter(sizes))].span, help=self.advice())

    def check_pins(self, lengths: Mapping[str, int]) -> None:
        """Raises NSA0408 where a pin leaves a contraction fewer lanes than a tensor core takes."""
        problems: dict[str, Diagnostic] = {}

        def refuse(axes: tuple[str, ...], what: str, least: int) -> None:
            for axis in axes:
                if axis in self.pins:
                    sentence = f"the schedule pins '{ir.plain(axis)}' to {self.pins[axis]}; a contraction needs at least {least} {what}"
                    problems.setdefault(axis, Diagnostic("NSA0408", sentence))

        for dot in self.dots:
            rows, columns = rows_and_columns(dot)
            for side, what in ((rows, "rows"), (columns, "columns")):
                if prod(lengths[a] for a in side) < LEAST:
                    refuse(side, what, LEAST)
            least = self.least_summed(dot.a.dtype.bytes)
            if lengths[dot.over] < least:
                refuse((dot.over,), "of what it sums over", least)
            for axis in batch_axes(dot):
                if lengths[axis] > 1 and axis in self.pins:
                    sentence = f"the schedule pins '{ir.plain(axis)}' to {self.pins[axis]}; an axis on both sides of a contraction has 1"
                    problems.setdefault(axis, Diagnostic("NSA0408", sentence))
        if problems:
            raise NsaError(*problems.values())

    def check_warps(self, lengths: Mapping[str, int]) -> None:
        """Raises NSA0408 where TileLang cannot give each of the pinned warps a part of a contraction; Triton lets several make the same part."""
        if "warps" not in self.options or self.on_triton or self.target.kind == "cpu":
            return
        for dot in self.dots:
            rows, columns = (prod(lengths[a] for a in side) for side in rows_and_columns(dot))
            if (most := self.warp_tiles(rows, columns)) < self.options["warps"]:
                sentence = (
                    f"the schedule pins 'warps' to {self.options['warps']}; a contraction of {rows} rows and {columns} columns has work for {most} "
                    f"in TileLang, where each makes at least {self.target.warp_tile[0]} rows and {self.target.warp_tile[1]} columns"
                )
                raise NsaError.at("NSA0408", sentence, dot.span, help="pin fewer warps, or leave it to the compiler: warps")

    def refuse(self, lengths: Mapping[str, int], stages: int, need: int) -> None:
        """Raises NSA0412."""
        parts = []
        for b in self.blocks:
            count = self.loop_stages.get(b.ahead, stages) if b.ahead else 1
            name = f"'{b.name}' " if b.name else ""
            parts.append(f"{name}{_shape(b.axes, lengths)}" + (f" in {count} stages" if count > 1 else ""))
        sentence = (
            f"the blocks that the contractions of '{self.kernel.name}' read ({'; '.join(parts)}) take {need} bytes of shared memory, "
            f"and {self.target} has {budget(self.target)} for them"
        )
        raise NsaError.at("NSA0412", sentence, self.dots[0].span, help=self.advice())


def _shape(axes: tuple[str, ...], lengths: Mapping[str, int]) -> str:
    return " x ".join(f"{ir.plain(a)} {lengths.get(a, 1)}" for a in axes)
