"""The interpreter: what a kernel means, on torch CPU tensors.

Meaning mode runs the lanes that exist, in tiles of a chosen length. Machine mode (after the pass ``guard`` or any later one) runs the lanes
that a machine has, padded ones included, applies the masks and fills that the passes wrote, and faults where they do not suffice.

A lane may have no defined value: a masked lane without a fill, a division by 0, a signed integer that does not fit. Such a lane is harmless
as long as nobody looks; it is carried along (through reductions too), and it is a fault to store it, to branch on it, or to let it choose
an address.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, assert_never

import torch
from torch import Tensor

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64, DType
from nsalang.interp import collisions, numerics
from nsalang.interp.fault import Fault
from nsalang.interp.views import views
from nsalang.interp.wide import LEAST, MOST, ascending
from nsalang.ir.intervals import padding


class Watch(Protocol):
    """Looks on while a kernel runs in meaning mode, and may raise. Where a fault is passed over, the run goes on without the lanes concerned."""

    def spend(self, lanes: int) -> None:
        """So many lanes are about to be computed."""

    def instance(self, name: str, value: int) -> bool:
        """Whether instances with this value of a grid index run (of a block: its first lane)."""

    def fault(self, run: Run, fault: Fault) -> None:
        """An access outside, or an undefined value that is stored."""

    def operation(self, run: Run, node: ir.Expr, lanes: Tensor) -> None:
        """An operation without a result in some lanes (in the node's axes), within the ``where``s and the guard written around it."""

    def access(self, run: Run, node: ir.Load | ir.Store, places: list[Tensor], active: Tensor | None) -> None:
        """A read, or a write before it happens: the indices of the active lanes (None: of all)."""


def interpret(
    kernel: ir.Kernel,
    tensors: Mapping[str, Tensor],
    scalars: Mapping[str, int | float | bool],
    dims: Mapping[str, int],
    *,
    tile: int | Mapping[str, int] | None = None,
    machine: bool = False,
    watch: Watch | None = None,
) -> None:
    """Run a kernel; its outputs are written in place. Tensors may have any strides, and the torch dtype of their parameter; ``tensors`` may hold
    views, and those that it lacks are made of their bases.

    ``tile``: length of every tile, or of each by its axis (its name in the source will do); None, or a missing axis: the whole range.
    ``machine``: lanes as the schedule's lengths say. Raises Fault.
    """
    for parameter in kernel.tensors:
        given = tensors[parameter.name]
        assert given.dtype == numerics.memory_dtype(parameter.dtype), f"{parameter.name} is {given.dtype}, not {parameter.dtype}"
        assert given.dim() == len(parameter.shape), f"{parameter.name} has {given.dim()} axes, not {len(parameter.shape)}"
    Run(kernel, {**tensors, **views(kernel, tensors, dims, scalars)}, scalars, dims, tile, machine, watch).kernel()


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
class Run:
    """One execution of a kernel; ``lanes`` and ``values`` hold the axes and variables of the running instance."""

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

    def kernel(self) -> None:
        def instances(indices: tuple[ir.GridIndex, ...]) -> None:
            if not indices:
                self.block(self.program.body)
                return
            extent = self.integer(indices[0].extent)
            if indices[0].tiled:
                self.tiles(indices[0].name, 0, extent, lambda: block(indices))
            else:
                for value in range(extent):
                    if self.watch is not None and not self.watch.instance(indices[0].name, value):
                        continue
                    self.values[indices[0].name] = Lane(torch.tensor(value), ())
                    instances(indices[1:])

        def block(indices: tuple[ir.GridIndex, ...]) -> None:
            if self.watch is None or self.watch.instance(indices[0].name, self.lanes[indices[0].name].start):
                instances(indices[1:])

        instances(self.program.grid)

    # -------------------------------------------------------------------------------------------------------------- statements

    def tiles(self, axis: str, low: int, high: int, body: Callable[[], None]) -> None:
        length = self.length(axis) or max(1, high - low)
        for start in range(low, high, length):
            real = min(length, high - start)
            self.begin(axis, Lanes(start, length if self.machine else real, real))
            body()

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

    def block(self, body: tuple[ir.Stmt, ...]) -> None:
        for statement in body:
            self.statement(statement)

    def statement(self, node: ir.Stmt) -> None:
        if self.watch is not None:
            self.watch.spend(1)
        match node:
            case ir.Assign():
                self.values[node.name] = self.value(node.value)
            case ir.Store():
                self.store(node)
            case ir.SpanAxis():
                start = self.integer(node.start)
                self.reaches(node, node.start, start + node.length)
                real = node.length if node.stop is None else max(0, min(node.length, self.integer(node.stop) - start))
                count = self.program.schedule.length(node.axis) if self.machine else real
                assert count >= real, f"{node.axis} has {node.length} lanes; the machine's length is {count}"
                self.begin(node.axis, Lanes(start, count, real))
            case ir.For():
                low, high = self.integer(node.lo), self.integer(node.hi)
                self.reaches(node, node.hi, high, high - low)
                if node.kind == "tile":
                    self.tiles(node.index, low, high, lambda: self.block((*node.early, *node.body)))
                    return
                for value in range(low, high):
                    self.values[node.index] = Lane(torch.tensor(value), ())
                    self.block((*node.early, *node.body))
            case ir.If():
                self.block(node.body if self.scalar(node.cond) else node.orelse)
            case ir.Barrier():
                pass
            case _:
                assert_never(node)

    def reaches(self, axis: ir.SpanAxis | ir.For, at: ir.Expr, *ends: int) -> None:
        """What a machine computes of the ends of an axis, with the lanes that pad it, stays within 64 bits; it begins or ends at an expression."""
        if any(not LEAST <= end <= MOST - padding(axis) for end in ends):
            self.told(at, torch.tensor(True))
            raise Fault("the axis that begins or ends here leaves 64 bits", at.span or axis.span)

    def scalar(self, node: ir.Expr) -> int | float | bool:
        value = self.value(node)
        assert value.axes == (), f"a scalar has axes {value.axes}"
        if value.lost is not None:
            raise value.why or Fault("an undefined value decides what runs", node.span)
        return value.data.item()

    def integer(self, node: ir.Expr) -> int:
        return int(self.scalar(node))

    # -------------------------------------------------------------------------------------------------------------- expressions

    def value(self, node: ir.Expr) -> Lane:
        """The value of an expression; its axes are the node's."""
        if self.watch is not None:
            self.watch.spend(math.prod(self.shape((*node.axes, node.over) if isinstance(node, ir.Dot) else node.axes)))
        match node:
            case ir.Const():
                if id(node) not in self.constants:
                    self.constants[id(node)] = Lane(numerics.constant(node.value, node.dtype), ())
                return self.constants[id(node)]
            case ir.Dim():
                return self.made(node, *numerics.fit(torch.tensor(self.dims[node.name]), node.dtype))
            case ir.Scalar():
                return Lane(numerics.constant(self.scalars[node.name], node.dtype), ())
            case ir.Index():
                if node.axes == ():
                    return self.values[node.name]
                lanes = self.lanes[node.name]
                values, beyond = ascending(lanes.start, lanes.count, lanes.step)
                return self.made(node, *numerics.fit(values, node.dtype, beyond))
            case ir.Var():
                return self.values[node.name]
            case ir.Unary():
                x = self.value(node.x)
                return self.made(node, *numerics.unary(node.op, x.data, node.x.dtype, node.dtype), x)
            case ir.Binary():
                return self.binary(node)
            case ir.Fma():
                a, b, c = self.aligned(node.axes, node.a, node.b, node.c)
                return self.made(node, numerics.fma(a.data, b.data, c.data), None, a, b, c)
            case ir.Where():
                return self.where(node)
            case ir.Cast():
                x = self.value(node.x)
                return self.made(node, *numerics.cast(x.data, node.x.dtype, node.dtype, node.mode), x)
            case ir.Bitcast():
                x = self.value(node.x)
                return self.made(node, numerics.bitcast(x.data, node.x.dtype, node.dtype), None, x)
            case ir.Load():
                return self.load(node)
            case ir.Search():
                return self.search(node)
            case ir.Border():
                n, parts, g = self.aligned(node.axes, node.n, node.parts, node.g)
                data, wrong = numerics.border(n.data, parts.data, g.data)
                return self.made(node, data.expand(self.shape(node.axes)), wrong, n, parts, g)
            case ir.Dot():
                return self.dot(node)
            case ir.Reduce():
                return self.reduce(node)
            case ir.Scan():
                x = self.value(node.x)
                data, wrong = numerics.scan(x.data, node.dtype, x.axes.index(node.over), node.exclusive, node.reverse)
                lost = None
                if x.lost is not None:
                    lost = numerics.scan(x.lost, I64, x.axes.index(node.over), node.exclusive, node.reverse)[0] > 0
                return self.made(node, data, wrong, Lane(data, x.axes, lost, x.why))
            case ir.Full():
                (x,) = self.aligned(node.axes, node.value)
                return self.made(node, x.data.expand(self.shape(node.axes)), None, x)
            case ir.Spread():
                return self.spread(node)
            case _:
                assert_never(node)

    def spread(self, node: ir.Spread) -> Lane:
        x, lanes, groups = self.value(node.x), self.lanes[node.over], self.lanes[node.group]
        mine = (torch.arange(lanes.start, lanes.start + lanes.count) - groups.start) // groups.step
        at = x.axes.index(node.group)
        lost = None if x.lost is None else x.lost.expand(x.data.shape).index_select(at, mine)
        return Lane(x.data.index_select(at, mine), node.axes, lost, x.why)

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

    def binary(self, node: ir.Binary) -> Lane:
        a, b = self.aligned(node.axes, node.a, node.b)
        data, wrong = numerics.binary(node.op, a.data, b.data, node.a.dtype)
        result = self.made(node, data, wrong, a, b)
        if result.lost is not None and node.dtype is BOOL and node.op in ("and", "or"):
            # One operand that is known to decide makes the other one irrelevant: `inside & (idx[n] < T)`.
            lost = result.lost
            for x in (a, b):
                decides = ~x.data if node.op == "and" else x.data
                lost = lost & ~(decides if x.lost is None else decides & ~x.lost)
            return Lane(data, node.axes, lost if bool(lost.any()) else None, result.why)
        return result

    def where(self, node: ir.Where) -> Lane:
        (cond,) = self.aligned(node.axes, node.cond)
        (a,) = self.under(cond, node.a, axes=node.axes)
        (b,) = self.under(Lane(~cond.data, cond.axes), node.b, axes=node.axes)
        data = torch.where(cond.data, a.data, b.data)
        if cond.lost is None and a.lost is None and b.lost is None:
            return Lane(data, node.axes)
        no = torch.tensor(False)
        lost = torch.where(cond.data, no if a.lost is None else a.lost, no if b.lost is None else b.lost)
        lost = (lost if cond.lost is None else lost | cond.lost).expand(data.shape)
        return Lane(data, node.axes, lost if bool(lost.any()) else None, cond.why or a.why or b.why)

    def dot(self, node: ir.Dot) -> Lane:
        """A contraction, which is undefined where a term of it is."""
        number = {axis: i for i, axis in enumerate((*node.axes, node.over))}
        a, b = self.value(node.a), self.value(node.b)
        places = ([number[x] for x in a.axes], [number[x] for x in b.axes], [number[x] for x in node.axes])
        acc = None if node.acc is None else self.align(self.value(node.acc), node.axes)
        left, right = (x.data.expand(self.shape(x.axes)) for x in (a, b))
        data, wrong = numerics.dot(left, right, places, None if acc is None else acc.data, node.dtype)
        terms = [] if acc is None else [acc]
        for x in (a, b):
            if x.lost is not None:
                rest = tuple(axis for axis in x.axes if axis != node.over)
                lost = x.lost.expand(self.shape(x.axes)).any(x.axes.index(node.over))
                terms.append(self.align(Lane(lost, rest, lost, x.why), node.axes))
        return self.made(node, data, wrong, *terms)

    def reduce(self, node: ir.Reduce) -> Lane:
        x = self.value(node.x)
        dims = tuple(x.axes.index(a) for a in node.over)
        lost = None if x.lost is None else x.lost.any(dims)
        if node.op == "argmax" or node.op == "argmin":
            (axis,) = node.over
            lanes = self.lanes[axis]
            position = numerics.first_extreme(node.op, x.data, node.x.dtype, dims[0], lanes.real)
            data, wrong = numerics.fit(position + lanes.start, node.dtype)
        else:
            data, wrong = numerics.reduce(node.op, x.data, node.x.dtype, node.dtype, dims)
        return self.made(node, data, wrong, Lane(data, node.axes, lost, x.why))

    # ----------------------------------------------------------------------------------------------------------------- accesses

    def active(self, node: ir.Load | ir.Store | ir.Search) -> Tensor | None:
        """The lanes of an access that happen (None: all), in the access's axes."""
        condition = node.mask if self.machine and not isinstance(node, ir.Search) else node.guard
        if condition is None:
            return None
        (lane,) = self.aligned(ir.join(node.axes, condition.axes), condition)
        if lane.lost is not None:
            raise lane.why or Fault("an undefined value decides whether an access happens", node.span, node.tensor)
        # A guard's axis that the access lacks: the access happens where any of its lanes wants it.
        extra = tuple(i for i, a in enumerate(lane.axes) if a not in node.axes)
        mask = lane.data.any(extra) if extra else lane.data
        return mask.expand(self.shape(node.axes))

    def addresses(self, node: ir.Load | ir.Store, tensor: Tensor, active: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        """The indices of an access, in range, and its active lanes; the indices of inactive lanes are 0."""
        found = []
        lanes = self.under(None if active is None else Lane(active, node.axes), *node.indices, axes=node.axes)
        for position, (x, extent) in enumerate(zip(lanes, tensor.shape, strict=True)):
            wrong = (x.data < 0) | (x.data >= extent)
            wrong = wrong if x.lost is None else wrong | x.lost
            if bool(wrong.any()):
                wrong = wrong if active is None else wrong & active
                if bool(wrong.any()):
                    fault = self.outside(node, lanes, wrong, x, position, extent)
                    if self.watch is None:
                        raise fault
                    self.watch.fault(self, fault)
                    everywhere = torch.ones(self.shape(node.axes), dtype=torch.bool)
                    active = (everywhere if active is None else active) & ~wrong
            found.append(x.data)
        if active is not None:
            found = [torch.where(active, x, 0) for x in found]
        if self.watch is not None:
            shape = self.shape(node.axes)
            places = [x.expand(shape) for x in found]
            self.watch.access(self, node, places if active is None else [x[active] for x in places], active)
        return found, active

    def outside(self, node: ir.Load | ir.Store, lanes: tuple[Lane, ...], wrong: Tensor, x: Lane, position: int, extent: int) -> Fault:
        first, at = self.first(node.axes, wrong)
        indices = tuple(int(i.data.expand(self.shape(node.axes))[first]) for i in lanes)
        if x.lost is not None and bool(x.lost.expand(self.shape(node.axes))[first]):
            message = "the index is undefined"
            return Fault(f"{message}: {x.why.message}" if x.why else message, node.span, node.tensor, indices, at)
        verb = "read" if isinstance(node, ir.Load) else "written"
        return Fault(f"{verb} outside: axis {position} has extent {extent}", node.span, node.tensor, indices, at)

    def first(self, axes: tuple[str, ...], lanes: Tensor) -> tuple[tuple[int, ...], dict[str, int]]:
        """The first of some lanes, and the index variables there."""
        first = tuple(int(i) for i in lanes.expand(self.shape(axes)).nonzero()[0])
        at = {n: int(v.data) for n, v in self.values.items() if n in self.scalar_indices()}
        return first, at | {ir.plain(a): self.lanes[a].start + i * self.lanes[a].step for a, i in zip(axes, first, strict=True)}

    def scalar_indices(self) -> set[str]:
        loops = {n.index for s in self.program.body for n in ir.walk(s) if isinstance(n, ir.For) and n.kind == "range"}
        return loops | {i.name for i in self.program.grid if not i.tiled}

    def load(self, node: ir.Load) -> Lane:
        tensor, shape = self.tensors[node.tensor], self.shape(node.axes)
        assert node.dtype is self.element(node.tensor), f"{node.tensor} is read as {node.dtype}"
        active = self.active(node)
        indices, active = self.addresses(node, tensor, active)
        if active is not None and not bool(active.any()):
            data = torch.zeros(shape, dtype=numerics.native(node.dtype))
        else:
            # With scalar indices alone torch gives a view, which a later store would change.
            bits = numerics.memory(tensor)[tuple(indices)]
            data = numerics.from_memory(bits if node.axes else bits.clone(), node.dtype).expand(shape)
        if active is None:
            return Lane(data, node.axes)
        if not self.machine:
            rest, lost = torch.zeros((), dtype=data.dtype), None
        elif node.fill is not None:
            rest, lost = numerics.constant(node.fill.value, node.dtype), None
        else:
            rest, lost = numerics.poison(node.dtype), ~active if not bool(active.all()) else None
        why = None if lost is None else Fault(f"a lane of {node.tensor} is used that the mask leaves undefined", node.span, node.tensor)
        return Lane(torch.where(active, data, rest), node.axes, lost, why)

    def search(self, node: ir.Search) -> Lane:
        active = self.active(node)
        (x,) = self.under(None if active is None else Lane(active, node.axes), node.x, axes=node.axes)
        table = numerics.from_memory(numerics.memory(self.tensors[node.tensor]), self.element(node.tensor))
        data = numerics.search(table, x.data).expand(self.shape(node.axes))
        if active is not None:
            data = torch.where(active, data, 0)
            if x.lost is not None:
                x = Lane(x.data, x.axes, x.lost & active, x.why)
        return self.made(node, data, None, x)

    def element(self, tensor: str) -> DType:
        parameter = self.program.tensor(tensor)
        return parameter.storage or parameter.dtype

    def store(self, node: ir.Store) -> None:
        tensor, shape, element = self.tensors[node.tensor], self.shape(node.axes), self.element(node.tensor)
        active = self.active(node)
        if self.machine:
            self.refuse_padded(node, active)
        indices, active = self.addresses(node, tensor, active)
        (x,) = self.under(None if active is None else Lane(active, node.axes), node.value, axes=node.axes)
        data, lost, why = x.data.expand(shape), x.lost, x.why
        if node.value.dtype is not element:
            assert node.value.dtype.is_integer and element.is_integer, f"{node.value.dtype} stored into {element}"
            data, wrong = numerics.cast(data, node.value.dtype, element)
            if wrong is not None:
                lost, why = wrong if lost is None else wrong | lost, why or Fault(f"the value does not fit {element}", node.span)
        if lost is not None:
            lost = lost.expand(shape) if active is None else lost & active
            if bool(lost.any()):
                first, at = self.first(node.axes, lost)
                where = tuple(int(i.expand(shape)[first]) for i in indices)
                message, span = ("an undefined value is stored", node.span) if why is None else (why.message, why.span)
                fault = Fault(message, span, node.tensor, where, at)
                if self.watch is None:
                    raise fault
                self.watch.fault(self, fault)
        bits = numerics.to_memory(data, element)
        places = [i.expand(shape) for i in indices]
        if active is not None:
            bits, places = bits[active], [i[active] for i in places]
        if not bits.numel():
            return
        match node.mode:
            case "set":
                numerics.memory(tensor)[tuple(places)] = bits
            case "scatter":
                collisions.put(numerics.memory(tensor), places, bits)
            case "add":
                collisions.add_at(tensor, places, numerics.from_memory(bits, element), element)
            case _:
                assert_never(node.mode)

    def refuse_padded(self, node: ir.Store, active: Tensor | None) -> None:
        for i, axis in enumerate(node.axes):
            lanes = self.lanes[axis]
            if lanes.real == lanes.count:
                continue
            padded = torch.ones(self.shape(node.axes), dtype=torch.bool) if active is None else active.clone()
            padded.narrow(i, 0, lanes.real).fill_(False)
            if bool(padded.any()):
                _, at = self.first(node.axes, padded)
                raise Fault(f"a lane of {ir.plain(axis)} that does not exist is written", node.span, node.tensor, at=at)
