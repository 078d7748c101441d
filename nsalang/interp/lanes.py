"""Lanes: the values that an expression has while a kernel runs, one for each index of its axes, and what a running instance holds.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from nsalang import ir
from nsalang.base.dtypes import DType
from nsalang.interp.fault import Fault


class Watch(Protocol):
    """Looks on while a kernel runs in meaning mode, and may raise. Where a fault is passed over, the run goes on without the lanes concerned."""

    def spend(self, lanes: int) -> None:
        """So many lanes are about to be computed."""

    def instance(self, name: str, value: int) -> bool:
        """Whether instances with this value of a grid index run (of a block: its first lane)."""

    def fault(self, run: State, fault: Fault) -> None:
        """An access outside, or an undefined value that is stored."""

    def operation(self, run: State, node: ir.Expr, lanes: Tensor) -> None:
        """An operation without a result in some lanes (in the node's axes), within the ``where``s and the guard written around it."""

    def access(self, run: State, node: ir.Load | ir.Store, places: list[Tensor], active: Tensor | None) -> None:
        """A read, or a write before it happens: the indices of the active lanes (None: of all)."""


_CAUSES = {
    **dict.fromkeys(("shl", "shr"), "a shift's amount is out of range, or "),
    **dict.fromkeys(("floordiv", "mod", "tdiv", "tmod"), "a divisor is 0, or "),
    "Border": "a negative number is split, or one into no parts, or ",
}


@dataclass(frozen=True, slots=True)
class Lanes:
    """The lanes of an axis: indices from ``start``, one every ``step``, ``count`` of them, of which the first ``real`` exist."""

    start: int
    count: int
    real: int
    step: int = 1

    def groups(self, step: int) -> Lanes:
        """The first lane of each group of these. Groups begin at multiples of ``step``, wherever a tile begins."""
        first = self.start // step

        def count(lanes: int) -> int:
            return -(-(self.start + lanes) // step) - first if lanes else 0

        return Lanes(first * step, count(self.count), count(self.real), step)


@dataclass(frozen=True, slots=True)
class Lane:
    """Values: one dimension for each of ``axes``. ``lost``: where they are undefined (None: nowhere), in the same shape; ``why``: the fault
    that it is to look there."""

    data: Tensor
    axes: tuple[str, ...]
    lost: Tensor | None = None
    why: Fault | None = None


@dataclass(slots=True)
class State(ABC):
    """What a running instance holds; ``lanes`` and ``values``: its axes and variables."""

    program: ir.Kernel
    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, int | float | bool]
    dims: Mapping[str, int]
    tile: int | Mapping[str, int] | None
    machine: bool
    watch: Watch | None = None
    guards: list[Lane] = field(default_factory=list)
    lanes: dict[str, Lanes] = field(default_factory=dict)
    values: dict[str, Lane] = field(default_factory=dict)
    constants: dict[int, Lane] = field(default_factory=dict)

    @abstractmethod
    def value(self, node: ir.Expr) -> Lane:
        """The value of an expression; its axes are the node's."""

    def begin(self, axis: str, lanes: Lanes) -> None:
        """From here on an axis has these lanes, and its groups with it."""
        self.lanes[axis] = lanes
        schedule = self.program.schedule
        for group in schedule.groups_of(axis):
            self.lanes[group] = lanes.groups(schedule.step(group))

    def length(self, axis: str) -> int | None:
        """Length of the tiles of an axis; None: the whole range."""
        if self.machine:
            return self.program.schedule.length(axis)
        if self.tile is None or isinstance(self.tile, int):
            return self.tile
        return self.tile.get(axis, self.tile.get(ir.plain(axis)))

    def shape(self, axes: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(self.lanes[a].count for a in axes)

    def made(self, node: ir.Expr, data: Tensor, wrong: Tensor | None, *operands: Lane) -> Lane:
        """An operation's result: undefined where it went wrong, and where an operand (aligned to the node's axes) is undefined."""
        lost, why = wrong, None
        if wrong is not None:
            for x in operands:  # what comes of an operand without a value is that operand's doing
                wrong = wrong if x.lost is None else wrong & ~x.lost
            self.told(node, wrong)
            why = Fault(f"{_CAUSES.get(getattr(node, 'op', type(node).__name__), '')}the result does not fit {node.dtype}", node.span)
        for x in operands:
            if x.lost is not None:
                lost, why = x.lost if lost is None else lost | x.lost, x.why or why
        return Lane(data, node.axes, None if lost is None else lost.expand(data.shape), why)

    def told(self, node: ir.Expr, wrong: Tensor) -> None:
        """Tell the watch of an operation that goes wrong where it is wanted."""
        if self.watch is None:
            return
        lanes = wrong.expand(self.shape(node.axes))
        for guard in self.guards:
            extra = tuple(i for i, a in enumerate(guard.axes) if a not in node.axes)
            wanted = guard.data.expand(self.shape(guard.axes))
            wanted = wanted.any(extra) if extra else wanted
            lanes = lanes & self.align(Lane(wanted, tuple(a for a in guard.axes if a in node.axes)), node.axes).data
        if bool(lanes.any()):
            self.watch.operation(self, node, lanes)

    def under(self, guard: Lane | None, *nodes: ir.Expr, axes: tuple[str, ...]) -> tuple[Lane, ...]:
        """Values where a condition around them holds, which the watch is told."""
        if self.watch is None or guard is None:
            return self.aligned(axes, *nodes)
        self.guards.append(guard)
        found = self.aligned(axes, *nodes)
        self.guards.pop()
        return found

    def align(self, x: Lane, axes: tuple[str, ...]) -> Lane:
        """``x`` with dimensions for ``axes``, of length 1 where it lacks one."""
        if x.axes == axes or not x.axes:
            return x

        def view(t: Tensor) -> Tensor:
            t = t.permute([x.axes.index(a) for a in axes if a in x.axes])
            for i, a in enumerate(axes):
                t = t if a in x.axes else t.unsqueeze(i)
            return t

        return Lane(view(x.data), axes, None if x.lost is None else view(x.lost), x.why)

    def aligned(self, axes: tuple[str, ...], *nodes: ir.Expr) -> tuple[Lane, ...]:
        return tuple(self.align(self.value(n), axes) for n in nodes)

    def first(self, axes: tuple[str, ...], lanes: Tensor) -> tuple[tuple[int, ...], dict[str, int]]:
        """The first of some lanes, and the index variables there."""
        first = tuple(int(i) for i in lanes.expand(self.shape(axes)).nonzero()[0])
        at = {n: int(v.data) for n, v in self.values.items() if n in self.scalar_indices()}
        return first, at | {ir.plain(a): self.lanes[a].start + i * self.lanes[a].step for a, i in zip(axes, first, strict=True)}

    def scalar_indices(self) -> set[str]:
        loops = {n.index for s in self.program.body for n in ir.walk(s) if isinstance(n, ir.For) and n.kind == "range"}
        return loops | {i.name for i in self.program.grid if not i.tiled}

    def element(self, tensor: str) -> DType:
        parameter = self.program.tensor(tensor)
        return parameter.storage or parameter.dtype
