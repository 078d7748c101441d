"""What a launch does, seen by a watch in the interpreter: which instance writes and reads which bytes, what lies outside, what has no result.

What counts is what the run does, whatever the model says that the launch was made from: a model may be spurious where lemmas, invariants or
floats left something open.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nsalang import ir
from nsalang.interp.fault import Fault
from nsalang.interp.lanes import State
from nsalang.interp.run import interpret
from nsalang.proof.obligations import Obligation
from nsalang.refute.evaluate import Element, Number, evaluate
from nsalang.refute.models import EXTREMES, LARGEST, PATTERNS, Launch, everything, inside, launches

MOST_INSTANCES = 5000
BUDGET = 1 << 26
"""Lanes that the replays of one counterexample compute, at most; every expression and statement counts as ``EACH`` more."""
EACH = 1024
AT_ONCE = 1 << 22
"""Lanes of one expression, at most."""


@dataclass(frozen=True, slots=True)
class Event:
    """What was seen: the index variables of the lane, of the other lane or instance where there are two, the element, and the operand's value."""

    launch: Launch | None
    at: Mapping[str, int]
    other: Mapping[str, int] = field(default_factory=dict)
    indices: tuple[int, ...] = ()
    value: int | None = None
    element: Element = lambda tensor, indices: None


class _Spent(Exception):
    """The replay asks for more lanes than it has."""


@dataclass(slots=True)
class _Budget:
    left: int = BUDGET

    def spend(self, lanes: int) -> None:
        self.left -= lanes + EACH
        if lanes > AT_ONCE or self.left < 0:
            raise _Spent


class _Seen(Exception):
    def __init__(self, event: Event) -> None:
        self.event = event


def seen(kernel: ir.Kernel, obligation: Obligation, model: Mapping[str, int]) -> Event | None:
    """What violates the obligation, when launches that follow the model run; None: nothing does, as far as they could run."""
    budget = _Budget()
    given = {*(t.name for t in kernel.tensors), *(v.name for v in kernel.views)}
    loads = [n for e in (*obligation.facts, obligation.goal) for n in ir.walk(e) if isinstance(n, ir.Load)]
    # A model of nothing but whole numbers says all that the obligation depends on.
    certain = not any(n.dtype.is_float or n.tensor not in given for n in loads)
    patterns = (0, 3) if certain else (*PATTERNS, *EXTREMES) if obligation.kind in ("overflow", "fits", "range") else PATTERNS
    for launch in launches(kernel, model, patterns):
        extents = [evaluate(g.extent, launch.names) for g in kernel.grid]
        count = math.prod(int(e or 0) for e in extents)
        if sum(int(e or 0) for e in extents) > LARGEST:
            return None
        chosen: dict[str, set[int]] | None = {g.name: {model[k] for k in (g.name, f"{g.name}'") if k in model} for g in kernel.grid}
        if obligation.kind == "coverage" or (chosen is not None and not all(chosen.values())):
            chosen = None
        attempts: list[tuple[Mapping[str, int] | int | None, dict[str, set[int]] | None]] = []
        single = {g.name: 1 for g in kernel.grid if g.tiled}
        lanes_only = obligation.kind not in ("race", "order", "coverage", "twice")
        if chosen is not None:
            attempts += [(single, chosen), *([(1, chosen)] if lanes_only else [])]
        if count <= MOST_INSTANCES:
            attempts += [(single, None), *([(None, None)] if lanes_only else [])]
        for tile, only in attempts:
            event = _run(kernel, obligation, launch, model, tile, only, budget)
            if event is not None:
                return event
    return None


def _run(
    kernel: ir.Kernel,
    obligation: Obligation,
    launch: Launch,
    model: Mapping[str, int],
    tile: Mapping[str, int] | int | None,
    chosen: Mapping[str, set[int]] | None,
    budget: _Budget,
) -> Event | None:
    tensors = {name: t.clone() for name, t in launch.tensors.items()}
    places = everything(kernel, tensors, launch.dims, launch.scalars)
    if places is None:
        return None
    untouched = {name: t.clone() for name, t in places.items()}
    watch = _Watch(kernel, obligation, chosen, budget)

    def element(tensor: str, indices: tuple[int, ...]) -> Number | None:
        t = untouched.get(tensor)
        return t[indices].item() if t is not None and inside(t, indices) and not t.dtype.is_floating_point else None

    try:
        interpret(kernel, tensors, launch.scalars, launch.dims, tile=tile, watch=watch)
    except _Seen as found:
        return replace(found.event, launch=launch, element=element)
    except (Fault, _Spent):
        return None
    except (RuntimeError, OverflowError, MemoryError):  # torch's: a tensor that no memory holds, or a number that it has no place for
        return None
    if obligation.kind != "coverage":
        return None
    unwritten = watch.unwritten(places[obligation.tensor])
    if unwritten is None:
        return None
    named = tuple(model.get(f"{obligation.tensor}@{p}", -1) for p in range(unwritten.dim()))
    first = tuple(int(i) for i in unwritten.nonzero()[0])
    return Event(launch, {}, {}, named if inside(unwritten, named) and bool(unwritten[named]) else first, element=element)


class _Watch:
    """Sees what the obligation forbids. Memory is told apart by its bytes, for each tensor that lies in one parameter's memory."""

    def __init__(self, kernel: ir.Kernel, obligation: Obligation, chosen: Mapping[str, set[int]] | None, budget: _Budget) -> None:
        self.spend = budget.spend
        self.kernel, self.obligation, self.chosen = kernel, obligation, chosen
        self.now: dict[str, int] = {}
        self.instances: list[dict[str, int]] = [{}]
        self.numbers: dict[tuple[int, ...], int] = {}
        self.writer = self.mode = self.about = self.reader = self.second = torch.zeros(0)
        self.memory = kernel.memory(obligation.tensor) if obligation.tensor else ""

    # What the interpreter tells.

    def instance(self, name: str, value: int) -> bool:
        if self.chosen is not None and name in self.chosen and value not in self.chosen[name]:
            return False
        self.now[name] = value
        return True

    def fault(self, run: State, fault: Fault) -> None:
        o = self.obligation
        if o.kind != "range" or fault.span != o.span or fault.tensor != o.tensor or not fault.indices:
            return
        if not 0 <= fault.indices[o.position] < run.tensors[o.tensor].shape[o.position]:
            raise _Seen(Event(None, self._named(fault.at), indices=fault.indices, value=fault.indices[o.position]))

    def operation(self, run: State, node: ir.Expr, lanes: Tensor) -> None:
        o = self.obligation
        if node.span != o.span:
            return
        operand: ir.Expr
        match node:
            case ir.Border() if o.kind == "divisor":
                n, parts = (run.aligned(node.axes, e)[0].data.expand(lanes.shape) for e in (node.n, node.parts))
                self._wrong(run, node, lanes & ((parts <= 0) | (n < 0)), parts)
                return
            case ir.Binary(op="floordiv" | "mod") if o.kind == "divisor":
                operand = node.b
            case ir.Binary(op="shl" | "shr") if o.kind == "shift":
                operand = node.b
            case ir.Cast() if o.kind == "fits":
                operand = node.x
            case _ if o.kind == "overflow":
                self._wrong(run, node, lanes, None)
                return
            case _:
                return
        (x,) = run.aligned(node.axes, operand)
        values = x.data.expand(lanes.shape)
        if o.kind == "divisor":
            lanes = lanes & (values == 0)
        elif o.kind == "shift":
            lanes = lanes & ((values < 0) | (values >= node.dtype.bits))
        elif x.lost is not None and o.kind == "fits":
            lanes = lanes & ~x.lost
        self._wrong(run, node, lanes, values)

    def _wrong(self, run: State, node: ir.Expr, lanes: Tensor, values: Tensor | None) -> None:
        """An operation goes wrong in these lanes, because of these operands."""
        if bool(lanes.any()):
            first = tuple(int(i) for i in lanes.nonzero()[0])
            raise _Seen(Event(None, self._at(run, node.axes, first), value=None if values is None else int(values[first])))

    def access(self, run: State, node: ir.Load | ir.Store, places: list[Tensor], active: Tensor | None) -> None:
        kind = self.obligation.kind
        if kind not in ("race", "twice", "order", "coverage") or self.kernel.memory(node.tensor) != self.memory:
            return
        here = node.span == self.obligation.span
        store = isinstance(node, ir.Store)
        if (
            (kind == "twice" and not here)
            or (kind in ("race", "coverage", "twice") and not store)
            or (kind == "order" and store and not here)
        ):
            return
        bytes_, size = self._bytes(run, node, places)
        if not bytes_.numel():
            return
        if kind == "twice":
            self._twice(run, node, places, active, bytes_[::size])
            return
        me = self._number()
        clash = torch.zeros(bytes_.shape, dtype=torch.bool)
        mode = 0
        if kind == "race":
            assert isinstance(node, ir.Store)
            mode = {"set": 0, "scatter": 1, "add": 2}[node.mode]
            writer = self.writer[bytes_]
            clash = (writer > 0) & (writer != me) & ((self.about[bytes_] > 0) | here) & ((self.mode[bytes_] != mode) | (mode == 0))
            other = writer
        elif kind == "order" and store:
            other = torch.where((self.reader[bytes_] > 0) & (self.reader[bytes_] != me), self.reader[bytes_], self.second[bytes_])
            clash = (other > 0) & (other != me)
        elif kind == "order":
            other = self.writer[bytes_]
            clash = (other > 0) & (other != me)
        if bool(clash.any()):
            k = int(clash.nonzero()[0])
            lane, them = self._lane(run, node, active, k // size), self.instances[int(other[k])]
            first = here if kind == "race" else store
            at, against = (lane, them) if first else (them, lane)
            raise _Seen(Event(None, at, against, tuple(int(p.reshape(-1)[k // size]) for p in places)))
        if store:
            self.writer[bytes_], self.mode[bytes_] = me, mode
            self.about[bytes_] = torch.maximum(self.about[bytes_], torch.tensor(int(here)))
        else:
            free = self.reader[bytes_]
            self.second[bytes_] = torch.where((free > 0) & (free != me), torch.tensor(me), self.second[bytes_])
            self.reader[bytes_] = torch.where(free == 0, torch.tensor(me), free)

    def unwritten(self, tensor: Tensor) -> Tensor | None:
        """Where a contiguous tensor has elements that nothing wrote."""
        if not tensor.numel():
            return None
        if not self.writer.numel():
            return torch.ones(tensor.shape, dtype=torch.bool)
        missing = (self.writer.reshape(-1, tensor.element_size()) == 0).any(1).reshape(tensor.shape)
        return missing if bool(missing.any()) else None

    def _twice(self, run: State, node: ir.Load | ir.Store, places: list[Tensor], active: Tensor | None, elements: Tensor) -> None:
        order = torch.argsort(elements, stable=True)
        same = (elements[order][1:] == elements[order][:-1]).nonzero()
        if same.numel():
            first, second = (int(order[int(same[0]) + i]) for i in (0, 1))
            one, two = (self._lane(run, node, active, k) for k in (first, second))
            raise _Seen(Event(None, one, two, tuple(int(p.reshape(-1)[first]) for p in places)))

    def _bytes(self, run: State, node: ir.Load | ir.Store, places: Sequence[Tensor]) -> tuple[Tensor, int]:
        """The bytes of the memory that an access touches, element after element, and how many an element has."""
        tensor, base = run.tensors[node.tensor], run.tensors[self.memory]
        size = tensor.element_size()
        if self.writer.numel() == 0:
            count = base.numel() * base.element_size()
            self.writer, self.mode, self.about, self.reader, self.second = (torch.zeros(count, dtype=torch.int64) for _ in range(5))
        flat = [p.reshape(-1) for p in places]
        start = torch.full(flat[0].shape if flat else (1,), tensor.data_ptr() - base.data_ptr(), dtype=torch.int64)
        for p, stride in zip(flat, tensor.stride(), strict=True):
            start = start + p * stride * size
        return (start[:, None] + torch.arange(size)).reshape(-1), size

    def _number(self) -> int:
        key = tuple(self.now[g.name] for g in self.kernel.grid)
        if key not in self.numbers:
            self.numbers[key] = len(self.instances)
            self.instances.append(dict(self.now))
        return self.numbers[key]

    def _lane(self, run: State, node: ir.Load | ir.Store, active: Tensor | None, k: int) -> dict[str, int]:
        shape = run.shape(node.axes)
        every = (torch.ones(shape, dtype=torch.bool) if active is None else active.expand(shape)).nonzero()
        return self._at(run, node.axes, tuple(int(i) for i in every[k]))

    def _at(self, run: State, axes: tuple[str, ...], lane: tuple[int, ...]) -> dict[str, int]:
        """All index variables that have a value there, by their names in the IR."""
        scalars = {n: int(v.data) for n, v in run.values.items() if n in run.scalar_indices()}
        return {**self.now, **scalars, **{a: run.lanes[a].start + i for a, i in zip(axes, lane, strict=True)}}

    def _named(self, at: Mapping[str, int]) -> dict[str, int]:
        """A fault's index variables, which have the source's names, by those of the IR too."""
        names = {n.name for e in (*self.obligation.facts, self.obligation.goal) for n in ir.walk(e) if isinstance(n, ir.Index)}
        return {**self.now, **at, **{n: at[ir.plain(n)] for n in names if n not in at and ir.plain(n) in at}}
