"""What a kernel's IR reads and writes, block by block: the interpreter's run of it, in tiles as long as the code's.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsalang import ir
from nsalang.code.accesses import Accesses
from nsalang.host.extents import evaluate
from nsalang.interp.fault import Fault
from nsalang.interp.lanes import State
from nsalang.interp.run import interpret

MOST_LANES = 4_000_000
"""Lanes of accesses that a run may have: data can ask for loops without end."""


class TooLong(Exception):
    """A run that does not end within MOST_LANES."""


def expected(
    typed: ir.Kernel, final: ir.Kernel, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any], dims: Mapping[str, int]
) -> Accesses:
    """The writes of the typed kernel, which the author wrote; the reads of the kernel after all passes, under its masks, padded lanes included.

    The tensors are left as they were. Raises interp.Fault where a run goes wrong, TooLong where it does not end.
    """
    made = Accesses()
    lengths = {g.name: final.schedule.length(g.name) for g in final.grid if g.tiled}
    tiles = {a: final.schedule.length(a) for a in _tiled(final)}
    _run(typed, final, tensors, scalars, dims, made, "written", tiles, lengths)
    _run(final, final, tensors, scalars, dims, made, "read", None, lengths)
    return made


def _tiled(kernel: ir.Kernel) -> list[str]:
    loops = [n.index for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.For) and n.kind == "tile"]
    return [*(g.name for g in kernel.grid if g.tiled), *loops]


def _run(
    kernel: ir.Kernel, final: ir.Kernel, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any], dims: Mapping[str, int],
    made: Accesses, kind: str, tiles: Mapping[str, int] | None, lengths: Mapping[str, int],
) -> None:  # fmt: skip
    kept = {n: t.untyped_storage().clone() for n, t in tensors.items()}  # type: ignore[no-untyped-call]
    try:
        interpret(
            kernel, tensors, scalars, dims, tile=tiles, machine=tiles is None, watch=_Watch(final, dims, scalars, made, kind, lengths)
        )
    finally:
        for name, storage in kept.items():
            tensors[name].untyped_storage().copy_(storage)


class _Watch:
    """Notes each access with the number of the block that makes it."""

    def __init__(
        self, kernel: ir.Kernel, dims: Mapping[str, int], scalars: Mapping[str, Any], made: Accesses, kind: str, lengths: Mapping[str, int]
    ) -> None:
        self.made, self.kind, self.lengths = made, kind, lengths
        self.steps: dict[str, int] = {}
        self.now: dict[str, int] = {}
        self.lanes = 0
        step = 1
        for index in reversed(kernel.grid):
            self.steps[index.name] = step
            extent = max(0, int(evaluate(index.extent, dims, scalars)))
            step *= -(-extent // lengths.get(index.name, 1))

    def spend(self, lanes: int) -> None:
        """Any number: the launches are small."""

    def instance(self, name: str, value: int) -> bool:
        self.now[name] = value // self.lengths.get(name, 1)
        return True

    def fault(self, run: State, fault: Fault) -> None:
        raise fault

    def operation(self, run: State, node: ir.Expr, lanes: Tensor) -> None:
        """What an operation gives that goes wrong is looked at where it is used."""

    def access(self, run: State, node: ir.Load | ir.Store, places: list[Tensor], active: Tensor | None) -> None:
        count = places[0].numel() if places else int(active is None or bool(active.any()))
        self.lanes += count + 100
        if self.lanes > MOST_LANES:
            raise TooLong
        store = isinstance(node, ir.Store)
        # An atomic addition reads what it adds to, in code that has no such operation.
        if (
            not count
            or (self.kind == "written" and not store)
            or (self.kind == "read" and isinstance(node, ir.Store) and node.mode != "add")
        ):
            return
        tensor = run.tensors[node.tensor]
        address = torch.full((count,), tensor.data_ptr(), dtype=torch.int64)
        for place, stride in zip(places, tensor.stride(), strict=True):
            address += place.reshape(-1) * (stride * tensor.element_size())
        block = sum(self.steps[name] * value for name, value in self.now.items())
        self.made.add("written" if self.kind == "written" else "read", np.array(block), address.numpy())
