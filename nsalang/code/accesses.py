"""The elements that code reads and writes, block by block, as addresses: what the IR says and what a backend's code does are compared as sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kind = Literal["read", "written"]


@dataclass(slots=True)
class Accesses:
    """What one run did. ``lost``: descriptions of accesses whose addresses could not be evaluated; ``seen``: of those that could."""

    blocks: dict[Kind, list[Array]] = field(default_factory=lambda: {"read": [], "written": []})
    addresses: dict[Kind, list[Array]] = field(default_factory=lambda: {"read": [], "written": []})
    lost: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    def add(self, kind: Kind, blocks: Array, addresses: Array) -> None:
        """Elements by their first byte, each with the block that touched it."""
        if addresses.size:
            self.blocks[kind].append(np.broadcast_to(blocks, addresses.shape).astype(np.int64).reshape(-1))
            self.addresses[kind].append(addresses.astype(np.int64).reshape(-1))

    def pairs(self, kind: Kind) -> Array:
        """The (block, address) pairs of a kind, each once, sorted."""
        if not self.addresses[kind]:
            return np.zeros(0, dtype=PAIR)
        made = np.empty(sum(a.size for a in self.addresses[kind]), dtype=PAIR)
        made["block"], made["address"] = np.concatenate(self.blocks[kind]), np.concatenate(self.addresses[kind])
        return np.unique(made)


PAIR = np.dtype([("block", np.int64), ("address", np.int64)])


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor in memory: what an address in a report is told as."""

    name: str
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int

    def element(self, address: int) -> tuple[int, ...] | None:
        """The indices of the element that begins at an address, None where none does."""
        if 0 in self.shape:
            return None
        grid = np.full(self.shape, self.address, dtype=np.int64)
        for axis, (extent, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            steps = np.arange(extent, dtype=np.int64) * stride * self.itemsize
            grid += steps.reshape([-1 if i == axis else 1 for i in range(len(self.shape))])
        found = np.argwhere(grid == address)
        return tuple(int(i) for i in found[0]) if len(found) else None

    def reach(self) -> tuple[int, int]:
        """The first byte and the one behind the last."""
        if 0 in self.shape:
            return self.address, self.address
        steps = [(e - 1) * s * self.itemsize for e, s in zip(self.shape, self.strides, strict=True)]
        return self.address + sum(min(s, 0) for s in steps), self.address + sum(max(s, 0) for s in steps) + self.itemsize


What = Literal["reads an element that the program does not", "writes an element that the program does not", "does not write an element"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One kind of difference in one tensor: the first block and element, and how many there are. ``element`` is None outside every tensor, where
    ``beyond`` says how many bytes the address lies from the tensor's first."""

    what: What
    tensor: str
    block: int
    element: tuple[int, ...] | None
    beyond: int
    count: int

    @property
    def kind(self) -> Kind:
        return "read" if self.what.startswith("reads") else "written"


def differences(expected: Accesses, found: Accesses, places: Mapping[str, Place]) -> list[Difference]:
    """Where code writes other elements than it must, or reads one that it must not; what is not evaluated is not asked for."""
    reads, writes = found.pairs("read"), found.pairs("written")
    right = expected.pairs("written")
    out: list[Difference] = []
    wrong: list[tuple[What, Array]] = [
        ("reads an element that the program does not", np.setdiff1d(reads, expected.pairs("read"))),
        ("writes an element that the program does not", np.setdiff1d(writes, right)),
    ]
    if not found.lost:
        wrong.append(("does not write an element", np.setdiff1d(right, writes)))
    for what, pairs in wrong:
        by_tensor: dict[str, list[tuple[int, int]]] = {}
        for block, address in pairs.tolist():
            by_tensor.setdefault(_nearest(address, places), []).append((block, address))
        for tensor, those in by_tensor.items():
            block, address = those[0]
            place = places[tensor]
            out.append(Difference(what, tensor, block, place.element(address), address - place.address, len(those)))
    return out


def _nearest(address: int, places: Mapping[str, Place]) -> str:
    """The tensor in which an address lies, or to which it is nearest."""

    def distance(place: Place) -> int:
        first, last = place.reach()
        return 0 if first <= address < last else min(abs(address - first), abs(address - last)) + 1

    return min(places, key=lambda name: distance(places[name]))
