"""The interpreter: what a kernel means, on torch CPU tensors.

Meaning mode runs the lanes that exist, in tiles of a chosen length. Machine mode (after the pass ``guard`` or any later one) runs the lanes
that a machine has, padded ones included, applies the masks and fills that the passes wrote, and faults where they do not suffice.

A lane may have no defined value: a masked lane without a fill, a division by 0, a signed integer that does not fit. Such a lane is harmless
as long as nobody looks; it is carried along (through reductions too), and it is a fault to store it, to branch on it, or to let it choose
an address.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import assert_never

import torch
from torch import Tensor

from nsalang import ir
from nsalang.interp import collisions, numerics
from nsalang.interp.fault import Fault
from nsalang.interp.lanes import Lane, Lanes, Watch
from nsalang.interp.values import Values
from nsalang.interp.views import views
from nsalang.interp.wide import LEAST, MOST
from nsalang.ir.intervals import padding


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


class Run(Values):
    """One execution of a kernel."""

    __slots__ = ()

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

    def tiles(self, axis: str, low: int, high: int, body: Callable[[], None]) -> None:
        length = self.length(axis) or max(1, high - low)
        for start in range(low, high, length):
            real = min(length, high - start)
            self.begin(axis, Lanes(start, length if self.machine else real, real))
            body()

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
