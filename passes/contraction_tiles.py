"""Lengths, warps and stages for the axes of contractions: what a tensor core takes, what registers hold, what shared memory holds.

The rule. The result of a contraction has up to 128 rows and 128 columns; several axes on one side share them, spans first. A loop over an axis that is
summed over takes 128 bytes of an operand's row: 64 values of bf16, 128 of fp8 (64 where the axis is a side of another contraction). The
accumulators that a loop carries and the widest other result fit 144 registers of each thread of 8 warps, else there are fewer rows: 64 for an accumulator of 512
columns. The blocks that contractions read fit shared memory, those that a loop reads once for each stage: 3 stages, or 2 where rows are gathered
or longer than 256 bytes; else fewer rows, shorter loops, fewer stages. A program has 8 warps where its accumulators and results have more than 16384 elements, else 4.
As measured on an H200: a result whose columns are reduced next has 64 rows where a loop walks them, so that several programs of an SM take turns at the
tensor core and at reducing (on TileLang 128 rows and 64 columns where a row sums over less than 128 bytes); else 64 columns on TileLang, where 128 threads
each reduce half a row, and 256 rows on Triton with 4 warps. Where one contraction sums over columns of another (attention), Triton takes 64 rows, and TileLang 2 stages and 4 warps up to 24576 elements.
Least are 16 rows, 16 columns, 16 summed over (32 for 8 bits). Grid tiles on both sides of a contraction have one lane.
A grid tile on the rows whose extent is a dimension is of a class: a launch cuts it to the power of two at or above the dimension, so that few
heads or tokens do not compute 64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from nsalang import ir
from nsalang.base.target import Target
from nsalang.passes.contractions import LEAST, Contractions, budget, rows_and_columns
from nsalang.passes.order import dots_of
from nsalang.passes.pins import Pins, power_above

ROWS = COLUMNS = 128
LOOP_BYTES = 128
"""Of an operand's row that a step of a loop sums over."""
REGISTERS = 8 * 32 * 144
"""Elements of f32 that accumulators and the widest result may have."""
FOUR_WARPS = 16384
FOUR_WARPS_CHAINED = 24576
"""The same for chained contractions on TileLang."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Lengths of all axes of contractions, the rest of what they decide, and a line of reason for each. ``classes`` as in ir.Schedule."""

    lengths: dict[str, int]
    warps: int
    stages: int
    classes: tuple[tuple[str, int, int], ...]
    why: tuple[str, ...]


def choose(kernel: ir.Kernel, target: Target, pins: Pins) -> Chosen | None:
    """The choices for a kernel with contractions; None for one without. Raises NSA0408 for a pin that no tensor core, or no backend, takes, NSA0412 where the
    blocks do not fit shared memory, or the accumulators under a pin no registers."""
    return _Choice(kernel, target, pins).choose() if dots_of(kernel) else None


@dataclass(frozen=True, slots=True)
class _Try:
    """One point of the search: rows, columns, by what loops are shorter, stages."""

    rows: int
    columns: int
    shorter: int
    stages: int


class _Choice(Contractions):
    # ---------------------------------------------------------------------------------------------------------------- the search

    def choose(self) -> Chosen:
        tries = list(self.tries())
        best, lengths = self.best(tries, {})
        largest = lengths
        sized = {a: n for a, n in self.kernel.schedule.sized if a in lengths and a not in self.pins}
        if sized:
            best, lengths = self.best(tries, sized)
        self.check_pins(lengths)
        self.check_warps(lengths)
        need = self.shared(lengths, best.stages)
        if need > budget(self.target):
            self.refuse(lengths, best.stages, need)
        warps = self.options.get("warps", self.warps(lengths))
        self.check_registers(lengths, warps)
        classes = tuple((a, least, largest[a]) for a, least in self.classed(largest) if least < largest[a])
        return Chosen(lengths, warps, best.stages, classes, tuple(self.reasons(lengths, sized, warps, best.stages, need)))

    def tries(self) -> Iterator[_Try]:
        wanted = 1
        if any(b.ahead for b in self.blocks):
            wide = any(b.ahead and (b.gathered or self.row_bytes(b) > 256) for b in self.blocks)
            wanted = 2 if wide or (self.chained and not self.on_triton) else 3
        several: tuple[int, ...] = tuple(range(wanted, 1, -1)) or (1,)
        one: tuple[int, ...] = (1,)
        if "stages" in self.options:
            several = one = (self.options["stages"],)
        most, columns = self.largest_result()
        for width in (columns, columns // 2, columns // 4):
            for shortest in ((1, 2), (4,)):
                for rows in (n for n in (256, ROWS, 64, 32, LEAST) if n <= most):
                    for stages in (several, one):
                        for shorter in shortest:
                            for n in stages:
                                yield _Try(rows, width, shorter, n)

    def largest_result(self) -> tuple[int, int]:
        """Rows and columns, at most."""
        if not self.reduced_columns():
            return (64 if self.chained and self.on_triton else ROWS), COLUMNS
        if self.row_axes.isdisjoint(self.loops):
            return (2 * ROWS, COLUMNS) if self.on_triton else (ROWS, COLUMNS // 2)
        short = all(self.spans.get(a, LOOP_BYTES) * width < LOOP_BYTES for a, width in self.summed.items())
        return (ROWS, COLUMNS // 2) if short and not self.on_triton else (64, COLUMNS)

    def best(self, tries: list[_Try], sized: Mapping[str, int]) -> tuple[_Try, dict[str, int]]:
        """The first that fits; where none does, that with the least shared memory."""
        found: list[tuple[int, int, _Try, dict[str, int]]] = []
        for one in tries:
            lengths = self.lengths(one, sized)
            need, registers = self.shared(lengths, one.stages), self.registers(lengths)
            if need <= budget(self.target) and registers <= REGISTERS:
                return one, lengths
            found.append((max(0, need - budget(self.target)), registers, one, lengths))
        _, _, one, lengths = min(found, key=lambda f: f[:2])
        return one, lengths

    def lengths(self, one: _Try, sized: Mapping[str, int]) -> dict[str, int]:
        found = {a: n for a, n in self.spans.items() if any(a in d.a.axes or a in d.b.axes for d in self.dots)}
        found.update({a: n for a, n in self.pins.items() if a in self.batch or a in self.summed or any(a in s for s in self.sides)})
        for axis in self.batch:
            found.setdefault(axis, 1)
        for axis, width in self.summed.items():
            if axis not in found:
                both = any(axis in side for side in self.sides)
                most = min(64, LOOP_BYTES // width) if both else LOOP_BYTES // width
                found[axis] = self.fitted(axis, most // one.shorter, self.least_summed(width))
        for rows_first in (True, False):
            for dot in self.dots:
                rows, columns = rows_and_columns(dot)
                side, total = (rows, one.rows) if rows_first else (columns, one.columns)
                for axis in sorted((a for a in side if a not in found), key=self.order.index, reverse=True):
                    taken = prod(found.get(a, 1) for a in side)
                    last = all(a in found or a == axis for a in side)
                    least = max(1, LEAST // taken) if last else 1
                    most = max(total // taken, least)
                    if axis in sized:
                        most = max(least, min(most, sized[axis]))
                    found[axis] = self.fitted(axis, most, least)
        return found

    def fitted(self, axis: str, most: int, least: int) -> int:
        return max(least, min(most, power_above(self.extents.get(axis, most))))

    def warps(self, lengths: Mapping[str, int]) -> int:
        most = FOUR_WARPS_CHAINED if self.chained and not self.on_triton else FOUR_WARPS
        wanted = 4 if self.registers(lengths) <= most or (self.on_triton and self.reduced_columns()) else 8
        for dot in self.dots:
            rows, columns = (prod(lengths[a] for a in side) for side in rows_and_columns(dot))
            wanted = min(wanted, max(1, self.warp_tiles(rows, columns)))
            narrow = not self.on_triton and self.target.kind == "cuda" and not self.target.facts.from_shared
            if narrow or any(self.is_made_in_registers(x) for x in (dot.a, dot.b)):
                # No warps beside each other: for such contractions TileLang finds no layouts there in some programs, and all of them would need what
                # one of them has made.
                wanted = min(wanted, max(1, rows // LEAST))
        return wanted

    def classed(self, lengths: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """Axes that have a class, each with its least length."""
        for index in self.kernel.grid:
            name = index.name
            if (
                index.tiled
                and name in self.row_axes
                and name not in self.summed
                and name not in self.pins
                and isinstance(index.extent, ir.Dim)
            ):
                yield name, max(max(1, LEAST // prod(lengths[a] for a in side if a != name)) for side in self.sides if name in side)

    # ------------------------------------------------------------------------------------------------------------------- reasons

    def reasons(self, lengths: Mapping[str, int], sized: Mapping[str, int], warps: int, stages: int, need: int) -> Iterator[str]:
        for axis, length in lengths.items():
            if axis in self.pins:
                yield f"{axis}: {length}, pinned"
            elif axis in self.spans:
                count = self.axes[axis].length
                assert count is not None
                yield f"{axis}: {length}, for a span of {count}" + (
                    ", the least that a tensor core takes" if length > power_above(count) else ""
                )
            elif axis in self.batch:
                yield f"{axis}: {length}, on both sides of a contraction"
            elif axis in self.summed:
                yield f"{axis}: {length}, summed over by a contraction, {length * self.summed[axis]} bytes of a row"
            elif axis in sized:
                yield f"{axis}: {length}, rows of a contraction, for an extent of at most {sized[axis]}"
            else:
                yield f"{axis}: {length}, {'rows' if axis in self.row_axes else 'columns'} of a contraction"
        yield f"warps: {warps}, " + (
            "pinned" if "warps" in self.options else f"for accumulators and results of {self.registers(lengths)} elements"
        )
        yield f"stages: {stages}, " + (
            "pinned" if "stages" in self.options else f"the blocks that contractions read take {need} bytes of {budget(self.target)}"
        )
