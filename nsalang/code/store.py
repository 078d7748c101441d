"""The memory of all threads of all blocks of a launch: the caller's tensors, what a block shares, what a thread has of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from nsalang.code.accesses import Array
from nsalang.toolchain.narrow_floats import F16, FORMATS, narrow, saturate, widen

NARROW = {
    "bfloat16": FORMATS["bf16"], "float16": F16, "float8_e4m3fn": FORMATS["fp8e4nv"], "float8_e4m3": FORMATS["fp8e4nv"],
    "float8_e5m2": FORMATS["fp8e5"],
}  # fmt: skip
"""Floats that numpy has not, or not as TVM means them: their values are kept as float32."""


def element(dtype: str) -> str:
    """The type of one lane."""
    return re.sub(r"x\d+$", "", dtype)


def stored(dtype: str) -> np.dtype[Any]:
    """How a type lies in memory."""
    name = element(dtype)
    if name in NARROW:
        return np.dtype(NARROW[name].storage)
    return np.dtype(np.bool_ if name == "bool" else name)


def valued(dtype: str) -> np.dtype[Any]:
    """The numpy type of values of a type."""
    name = element(dtype)
    return np.dtype(np.float32) if name in NARROW else stored(name)


def from_bits(data: Array, dtype: str) -> Array:
    """What lies in memory, as values."""
    name = element(dtype)
    if name == "float16":
        return data.view(np.float16).astype(np.float32)
    return widen(data, NARROW[name]) if name in NARROW else data


def to_bits(values: Array, dtype: str) -> Array:
    """Values as they lie in memory."""
    name = element(dtype)
    return narrow(values, NARROW[name]) if name in NARROW else values.astype(stored(name))


def convert(values: Array, source: str, dtype: str) -> Array:
    """A conversion as C has it, and the hardware where C leaves it open."""
    wanted, name = valued(dtype), element(dtype)
    if name == "bool":
        return np.not_equal(values, 0)
    if name in NARROW:
        return from_bits(narrow(values.astype(np.float32), NARROW[name]), name)
    if wanted.kind in "iu" and valued(source).kind == "f":
        return saturate(values, wanted.itemsize * 8, wanted.kind == "i")
    made: Array = values.astype(wanted)
    return made


class Global:
    """The bytes of the caller's tensors, by address."""

    def __init__(self, parts: Sequence[tuple[int, Array]]) -> None:
        self.parts = parts

    def load(self, addresses: Array, active: Array, dtype: str) -> Array:
        """Values at addresses; 0 in lanes that are not active, and outside every tensor."""
        kind = stored(dtype)
        out = np.zeros(addresses.shape, dtype=kind)
        for first, data in self.parts:
            inside = active & (addresses >= first) & (addresses + kind.itemsize <= first + data.size)
            if inside.any():
                places = (addresses[inside] - first)[:, None] + np.arange(kind.itemsize)
                out[inside] = np.ascontiguousarray(data[places]).view(kind)[:, 0]
        return from_bits(out, dtype)

    def store(self, addresses: Array, active: Array, values: Array, dtype: str) -> None:
        bits = to_bits(values, dtype)
        for first, data in self.parts:
            inside = active & (addresses >= first) & (addresses + bits.itemsize <= first + data.size)
            if inside.any():
                places = (addresses[inside] - first)[:, None] + np.arange(bits.itemsize)
                data[places] = np.ascontiguousarray(bits[inside])[:, None].view(np.uint8)


class Rows:
    """Memory of which each block, or each thread, has its own: ``row`` says which of the rows a lane has."""

    def __init__(self, row: Array, count: int, size: int) -> None:
        self.row = row[:, None]
        self.data = np.zeros((count, -(-size // 16) * 16), dtype=np.uint8)

    def _at(self, offset: int, places: Array, dtype: str) -> tuple[Array, Array]:
        kind = stored(dtype)
        seen = self.data.view(kind)
        return seen, np.clip(places + offset // kind.itemsize, 0, seen.shape[1] - 1)

    def load(self, offset: int, places: Array, dtype: str) -> Array:
        seen, at = self._at(offset, places, dtype)
        return from_bits(seen[self.row, at], dtype)

    def store(self, offset: int, places: Array, active: Array, values: Array, dtype: str) -> None:
        seen, at = self._at(offset, places, dtype)
        lanes = active[:, 0]
        shape = (len(lanes), max(at.shape[1], values.shape[1]))
        seen[self.row[lanes], np.broadcast_to(at, shape)[lanes]] = np.broadcast_to(to_bits(values, dtype), shape)[lanes]
