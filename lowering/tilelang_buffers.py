"""The variables of a TileLang program: fragments, shared memory and registers, and the loops over their lanes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from nsalang import ir
from nsalang.base.dtypes import DType
from nsalang.base.target import Target
from nsalang.lowering import emit
from nsalang.lowering import tilelang_dots as dots
from nsalang.lowering.emit import Emitter, Names, Text
from nsalang.lowering.tilelang_barriers import NONE, Around
from nsalang.lowering.tilelang_bools import MOST, is_narrow
from nsalang.lowering.tilelang_lanes import goes_lane_by_lane
from nsalang.lowering.tilelang_values import Values


@dataclass(slots=True)
class Buffers:
    """The state of printing one kernel. ``places``: the buffers of a block, which stand before its code; ``lanes``: loop variables by dimension;
    ``matrices``, ``continued``: see tilelang_dots; ``results``: the matrix in registers behind the result or an operand of a Dot; ``unread``: what need not be computed;
    ``bools``: see tilelang_bools; ``addresses``: what accesses name in their addresses and masks; ``around``: see tilelang_barriers;
    ``long``: see turns.long_loops."""

    kernel: ir.Kernel
    target: Target
    names: Names
    values: Values
    emitter: Emitter
    places: Emitter
    lanes: tuple[str, ...]
    twice: frozenset[str]
    barriers: frozenset[int]
    matrices: dict[str, tuple[tuple[str, ...], ...]]
    continued: dict[str, str]
    results: dict[str, str] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    pid: str = ""
    bools: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    around: Around = NONE
    long: frozenset[int] = frozenset()

    @property
    def named(self) -> dict[str, str]:
        """Which name the place of a variable has that another sum continues: the last one's."""
        found: dict[str, str] = {}
        for after, before in reversed(self.continued.items()):
            found[before] = found.get(after, after)
        return found

    def whole(self, value: ir.Expr) -> Text:
        """The value of an assignment or a store: typed where it is a number."""
        match value:
            case ir.Const():
                return self.values.typed(value)
            case _:
                return self.values.expr(value)

    def scalar(self, s: ir.Assign, value: Text, opaque: bool = False) -> None:
        """A variable of one value: an expression's name, or a register where it is assigned again or ``opaque``."""
        if s.name not in self.twice and str(value) in self.values.arguments.used:
            # TileLang would take it for a new name of the argument.
            self.values.scalars[s.name] = str(value)
            return
        if s.name not in self.values.scalars:
            self.values.scalars[s.name] = self.names.pick(ir.plain(s.name))
            if s.name in self.twice or opaque:
                self.places.line(f'{self.values.scalars[s.name]} = T.alloc_var("{s.value.dtype.tilelang}")')
        self.emitter.line(f"{self.values.scalars[s.name]} = {value}", s.span)

    def buffer(self, s: ir.Assign, versions: int = 1) -> str:
        """The place of a variable with axes; its first assignment makes it."""
        if s.name in self.values.buffers:
            return self.values.buffers[s.name]
        name, value = ir.plain(self.named.get(s.name, s.name)), s.value
        shape = emit.machine_shape(self.kernel, value.axes)
        if s.place == "shared":
            if s.name in self.matrices:
                self.values.matrices[s.name] = self.matrices[s.name]
                shape = dots.shape(self.kernel, self.matrices[s.name])
            # All of the dynamic part is one buffer to TileLang, which would put a barrier between an address in it and the copy of a block into it.
            part = ', scope="shared"' if s.name in self.addresses else ""
            self.values.buffers[s.name] = self.place(name, (versions, *shape) if versions > 1 else shape, value.dtype, "shared", part)
        elif s.name in self.continued:
            first = self.continued[s.name]
            self.values.buffers[s.name], self.results[s.name] = self.values.buffers[first], self.results[first]
        elif s.name in self.matrices:
            matrix = dots.shape(self.kernel, self.matrices[s.name])
            self.results[s.name] = self.place(name if matrix == shape else f"{name}_matrix", matrix, value.dtype)
            self.values.buffers[s.name] = self.results[s.name] if matrix == shape else self.names.pick(name)
            if matrix != shape:
                self.places.line(f"{self.values.buffers[s.name]} = T.reshape({self.results[s.name]}, {tuple_of(shape)})")
        else:
            self.values.buffers[s.name] = self.place(name, shape, value.dtype)
        return self.values.buffers[s.name]

    def place(self, name: str, shape: tuple[int, ...], dtype: DType, where: str = "fragment", part: str = "") -> str:
        picked = self.names.pick(name)
        self.places.line(f'{picked} = T.alloc_{where}({tuple_of(shape)}, "{dtype.tilelang}"{part})')
        return picked

    @contextmanager
    def parallel(self, axes: Sequence[str], s: ir.Stmt, asynchronous: bool = False) -> Iterator[None]:
        """A loop over the lanes of ``axes``, one after the other in any order."""
        machine = emit.machine_axes(self.kernel, axes)
        lanes = self.lanes[: len(machine)]
        before, self.values.lane = self.values.lane, dict(zip(machine, lanes, strict=True))
        shape = emit.machine_shape(self.kernel, axes)
        options = ', annotations={"parallel_async_without_async_commit_wait": True}' if asynchronous else ""
        if self.target.kind != "cpu" and len(machine) == 1 and goes_lane_by_lane(self.kernel, s, machine[0]):
            lanes, shape = (*lanes, "_"), (*shape, 1)
        elif is_narrow(self.kernel, s, self.bools):
            options += f", coalesced_width=T.int32({MOST})"
        with self.emitter.block(f"for {', '.join(lanes)} in T.Parallel({', '.join(map(str, shape))}{options}):", s.span):
            yield
        self.values.lane = before


def tuple_of(items: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"
