"""Expressions of TileLang's final device function on numpy arrays, and the accesses that they make.

A value is an array (lanes or 1, vector elements or 1). What cannot be evaluated (an instruction without a meaning here) makes what depends on it
opaque, and each access with an opaque address or condition is noted as lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nsalang.code.accesses import Accesses, Array, Kind
from nsalang.code.slice import Slice, children, kind_of, name_of, pointed, visit
from nsalang.code.store import Global, Rows, convert, stored, valued
from nsalang.code.values import BINARY, CALLS, Opaque, all_reduced, reinterpreted


class Lanes:
    """All threads of all blocks. ``pointers`` and ``numbers``: the function's parameters by name."""

    def __init__(
        self, function: Any, pointers: Mapping[str, int], numbers: Mapping[str, float], blocks: int, threads: int, memory: Global
    ) -> None:
        self.function, self.slice, self.memory, self.threads = function, Slice(function), memory, threads
        self.block = np.repeat(np.arange(blocks, dtype=np.int64), threads)
        self.lanes = len(self.block)
        self.made = Accesses()
        self.opaque: set[Any] = set()
        self.rows: dict[Any, Rows] = {}
        self.env: dict[Any, Array] = {}
        self.bases: dict[Any, int] = {}
        for p in function.params:
            if p in self.slice.parameters:
                self.bases[p] = pointers[p.name]
            else:
                self.env[p] = np.full((1, 1), numbers[p.name]).astype(valued(str(p.dtype)))

    # ---------------------------------------------------------------------------------------------------------------- accesses

    def described(self, kind: Kind, name: str, node: Any) -> str:
        return f"{kind}: {name}: {str(node).strip().splitlines()[-1][:200]}"

    def note(self, kind: Kind, pointer: Any, offset: Any, dtype: str, count: int, active: Array, node: Any) -> Array | None:
        """An access to the caller's memory; its addresses, or None where they are lost."""
        root, begin = self.slice.root(pointer)
        size = stored(dtype).itemsize
        try:
            places = self.value(offset, active)
        except Opaque:
            self.made.lost.add(self.described(kind, pointer.name, node))
            return None
        self.made.seen.add(f"{kind} {hash(node)}")
        if count > 1:
            places = places.astype(np.int64) + np.arange(count)
        addresses = np.broadcast_to(self.bases[root] + begin + places.astype(np.int64) * size, (self.lanes, places.shape[1]))
        lanes = active[:, 0]
        chosen = addresses[lanes]
        self.made.add(kind, np.broadcast_to(self.block[lanes][:, None], chosen.shape), chosen)
        return addresses

    def touch(self, node: Any, active: Array) -> None:
        """Note the reads of the caller's memory in an expression whose value does not matter."""
        if not self.slice.has_global(node):
            return
        match kind_of(node):
            case "BufferLoad":
                for index in node.indices:
                    self.touch(index, active)
                if self.slice.is_global(node.buffer.data):
                    self.note("read", node.buffer.data, node.indices[0], str(node.buffer.dtype), 1, active, node)
            case "Select":
                self._touch_choice(node, node.condition, node.true_value, node.false_value, active)
            case "Call" if name_of(node) == "if_then_else":
                self._touch_choice(node, node.args[0], node.args[1], node.args[2], active)
            case "And":
                self._touch_choice(node, node.a, node.b, None, active)
            case "Or":
                self._touch_choice(node, node.a, None, node.b, active)
            case _:
                for child in children(node):
                    self.touch(child, active)

    def _touch_choice(self, node: Any, condition: Any, yes: Any, no: Any, active: Array) -> None:
        try:
            self.touch(condition, active)
            found = self.value(condition, active)
        except Opaque:
            self.lose(node)
            return
        for part, now in ((yes, active & found), (no, active & ~found)):
            if part is not None:
                self.touch(part, now)

    def lose(self, node: Any) -> None:
        """What may or may not run: its accesses are lost, and what it makes is opaque."""

        def look(inner: Any) -> None:
            match kind_of(inner):
                case "BufferStore":
                    root = self.slice.root(inner.buffer.data)[0]
                    if root in self.slice.parameters:
                        self.made.lost.add(self.described("written", inner.buffer.name, inner))
                    else:
                        self.opaque.add(root)
                case "BufferLoad":
                    if self.slice.is_global(inner.buffer.data):
                        self.made.lost.add(self.described("read", inner.buffer.name, inner))
                case "Bind":
                    self.opaque.add(inner.var)
                case "Call" if (place := pointed(inner)) is not None:
                    root = self.slice.root(place[0])[0]
                    if root in self.slice.parameters:
                        self.made.lost.add(self.described("read", place[0].name, inner))
                    else:
                        self.opaque.add(root)

        visit(node, look)

    # ------------------------------------------------------------------------------------------------------------- expressions

    def value(self, node: Any, active: Array) -> Array:
        """An expression's value, the reads in it noted. Raises Opaque."""
        kind = kind_of(node)
        if kind in BINARY:
            a = self.value(node.a, active)
            if kind in ("And", "Or") and self.slice.has_global(node.b):
                b = self.value(node.b, active & (a if kind == "And" else ~a))
            else:
                b = self.value(node.b, active)
            made: Array = BINARY[kind](a, b)
            return made if made.dtype == bool else made.astype(a.dtype, copy=False)
        match kind:
            case "IntImm" | "FloatImm":
                return np.full((1, 1), node.value).astype(valued(str(node.dtype)))
            case "Var":
                if node in self.opaque or node not in self.env:
                    raise Opaque(node.name)
                return self.env[node]
            case "Cast":
                return convert(self.value(node.value, active), str(node.value.dtype), str(node.dtype))
            case "Not":
                return np.equal(self.value(node.a, active), False)
            case "Ramp":
                base, stride = self.value(node.base, active), self.value(node.stride, active)
                ramp: Array = (base + stride * np.arange(int(node.lanes), dtype=base.dtype)).astype(base.dtype)
                return ramp
            case "Broadcast":
                return self.value(node.value, active)
            case "Select":
                return self._choice(node.condition, node.true_value, node.false_value, active)
            case "Let":
                self.set(node.var, node.value, active)
                return self.value(node.body, active)
            case "BufferLoad":
                return self._load(node, active)
            case "Call":
                return self._called(node, active)
            case _:
                raise Opaque(kind)

    def set(self, var: Any, value: Any, active: Array) -> None:
        try:
            made = self.value(value, active)
        except Opaque:
            self.opaque.add(var)
            return
        self.env[var] = made

    def _choice(self, condition: Any, yes: Any, no: Any, active: Array) -> Array:
        found = self.value(condition, active)
        made: Array = np.where(found, self.value(yes, active & found), self.value(no, active & ~found))
        return made

    def _load(self, node: Any, active: Array) -> Array:
        pointer, dtype = node.buffer.data, str(node.buffer.dtype)
        root, offset = self.slice.root(pointer)
        (index,) = node.indices
        if root in self.slice.parameters:
            self.touch(index, active)
            addresses = self.note("read", pointer, index, dtype, 1, active, node)
            if addresses is None or root in self.opaque:
                raise Opaque(pointer.name)
            return self.memory.load(addresses, np.broadcast_to(active, addresses.shape), dtype)
        if root in self.opaque or root not in self.rows:
            raise Opaque(pointer.name)
        return self.rows[root].load(offset, self.value(index, active), dtype)

    def _called(self, node: Any, active: Array) -> Array:
        name, kind = name_of(node), valued(str(node.dtype))
        if name == "if_then_else":
            return self._choice(node.args[0], node.args[1], node.args[2], active)
        if name == "infinity":
            return np.full((1, 1), np.inf, dtype=kind)
        if name == "reinterpret":
            return reinterpreted(self.value(node.args[0], active), kind)
        if name == "call_extern":
            found = re.fullmatch(r"tl::AllReduce<tl::(\w+), (\d+), (\d+), (\d+)(?:, .*)?>::run", str(node.args[0].value))
            if found is None:
                raise Opaque(str(node.args[0].value))
            value = self.value(node.args[1], active)
            whole = np.broadcast_to(value, (self.lanes, value.shape[1]))
            return all_reduced(found[1], int(found[2]), int(found[3]), int(found[4]), whole, self.threads)
        if name not in CALLS:
            raise Opaque(name)
        made: Array = CALLS[name](*(self.value(a, active) for a in node.args))
        return made.astype(kind, copy=False)
