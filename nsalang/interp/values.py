"""What expressions mean, on lanes: each operation by `numerics`, and reads of memory.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64
from nsalang.interp import numerics
from nsalang.interp.fault import Fault
from nsalang.interp.lanes import Lane, State
from nsalang.interp.wide import ascending


class Values(State):
    """The values of expressions in a running instance."""

    __slots__ = ()

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
