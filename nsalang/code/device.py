"""TileLang's final device function, evaluated on numpy arrays: all threads of all blocks at once, and only what addresses depend on.

Statements run one after the other for all threads, which is one of the orders that barriers allow. What cannot be evaluated (a matrix product, an
instruction without a meaning here) makes what depends on it opaque (lanes.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nsalang.code.accesses import Accesses, Array
from nsalang.code.lanes import Lanes
from nsalang.code.slice import ATOMIC, COPY, kind_of, name_of, pointed, visit
from nsalang.code.store import Global, Rows, stored, valued
from nsalang.code.values import Opaque

MOST_TURNS = 200_000
"""Turns of loops that one evaluation may have."""

_ADDS = {"atomic_add_elem_op": 1, "atomic_addx2_elem_op": 2, "atomic_addx4_elem_op": 4}


class Device(Lanes):
    """One evaluation."""

    def __init__(
        self, function: Any, pointers: Mapping[str, int], numbers: Mapping[str, float], blocks: int, threads: int, memory: Global
    ) -> None:
        super().__init__(function, pointers, numbers, blocks, threads, memory)
        self.matters: dict[Any, bool] = {}
        self.turns = 0

    def run(self) -> Accesses:
        with np.errstate(all="ignore"):
            self.statement(self.function.body, np.ones((self.lanes, 1), dtype=bool))
        return self.made

    # -------------------------------------------------------------------------------------------------------------- statements

    def statement(self, node: Any, active: Array) -> None:
        kind = kind_of(node)
        if kind in ("For", "While", "IfThenElse") and not self._matters(node):
            return
        match kind:
            case "SeqStmt":
                for part in node.seq:
                    self.statement(part, active)
            case "AttrStmt":
                if node.attr_key == "thread_extent":
                    self.env[node.node.var] = self._thread(node.node.thread_tag, str(node.node.var.dtype))
                self.statement(node.body, active)
            case "AllocBuffer":
                self._allocate(node.buffer)
            case "DeclBuffer":
                pass
            case "Bind":
                self._bind(node, active)
            case "For":
                self._for(node, active)
            case "While":
                self._while(node, active)
            case "IfThenElse":
                self._if(node, active)
            case "BufferStore":
                self._store(node, active)
            case "Evaluate":
                self._call(node.value, active)
            case other:
                raise AssertionError(f"TileLang's statement {other} has no evaluation")

    def _thread(self, tag: str, dtype: str) -> Array:
        lane = np.arange(self.lanes) % self.threads
        found = {"blockIdx.x": self.block, "threadIdx.x": lane}.get(tag)
        return (np.zeros(1) if found is None else found)[:, None].astype(valued(dtype))

    def _allocate(self, buffer: Any) -> None:
        root = self.slice.root(buffer.data)[0]
        if root in self.rows or root not in self.slice.needed:
            return
        size = stored(str(buffer.dtype)).itemsize
        for extent in buffer.shape:
            size *= int(extent)
        shared = str(buffer.scope() if callable(buffer.scope) else buffer.scope).startswith("shared")
        blocks = int(self.block[-1]) + 1 if self.lanes else 0
        self.rows[root] = Rows(self.block, blocks, size) if shared else Rows(np.arange(self.lanes), self.lanes, size)

    def _bind(self, node: Any, active: Array) -> None:
        if str(node.var.dtype) == "handle":
            return
        if node.var not in self.slice.needed:
            self.touch(node.value, active)
            return
        self.set(node.var, node.value, active)

    def _for(self, node: Any, active: Array) -> None:
        try:
            first, extent = self.value(node.min, active), self.value(node.extent, active)
        except Opaque:
            self.lose(node.body)
            return
        turn = 0
        while True:
            now = active & (turn < extent)
            if not now.any():
                return
            self.env[node.loop_var] = (first + np.array(turn)).astype(first.dtype)
            self._turn()
            self.statement(node.body, now)
            turn += 1

    def _while(self, node: Any, active: Array) -> None:
        while True:
            try:
                active = active & self.value(node.condition, active)
            except Opaque:
                self.lose(node.body)
                return
            if not active.any():
                return
            self._turn()
            self.statement(node.body, active)

    def _turn(self) -> None:
        self.turns += 1
        if self.turns > MOST_TURNS:
            raise AssertionError("the device function does not end")

    def _if(self, node: Any, active: Array) -> None:
        try:
            condition = self.value(node.condition, active)
        except Opaque:
            for part in (node.then_case, node.else_case):
                if part is not None:
                    self.lose(part)
            return
        for part, now in ((node.then_case, active & condition), (node.else_case, active & ~condition)):
            if part is not None and now.any():
                self.statement(part, now)

    def _matters(self, node: Any) -> bool:
        """Whether a statement has an access to the caller's memory, or makes something that is needed."""
        if node not in self.matters:
            found: list[bool] = []

            def look(inner: Any) -> None:
                match kind_of(inner):
                    case "BufferStore" | "BufferLoad":
                        root = self.slice.root(inner.buffer.data)[0]
                        if root in self.slice.parameters or (kind_of(inner) == "BufferStore" and root in self.slice.needed):
                            found.append(True)
                    case "Bind" if inner.var in self.slice.needed:
                        found.append(True)
                    case "AllocBuffer":
                        found.append(True)
                    case "Call" if (place := pointed(inner)) is not None:
                        root = self.slice.root(place[0])[0]
                        if root in self.slice.parameters or root in self.slice.needed:
                            found.append(True)

            visit(node, look)
            self.matters[node] = bool(found)
        return self.matters[node]

    # ---------------------------------------------------------------------------------------------------------------- accesses

    def _store(self, node: Any, active: Array) -> None:
        pointer, dtype = node.buffer.data, str(node.buffer.dtype)
        root, offset = self.slice.root(pointer)
        (index,) = node.indices
        wide = root in self.slice.needed
        self.touch(index, active)
        if not wide:
            self.touch(node.value, active)
        if root in self.slice.parameters:
            addresses = self.note("written", pointer, index, dtype, 1, active, node)
            if wide and addresses is not None:
                try:
                    value = self.value(node.value, active)
                except Opaque:
                    self.opaque.add(root)
                    return
                shape = np.broadcast_shapes(addresses.shape, value.shape)
                self.memory.store(np.broadcast_to(addresses, shape), np.broadcast_to(active, shape), np.broadcast_to(value, shape), dtype)
            return
        if not wide:
            return
        try:
            places, value = self.value(index, active), self.value(node.value, active)
        except Opaque:
            self.opaque.add(root)
            return
        self.rows[root].store(offset, places, active, value, dtype)

    def _call(self, call: Any, active: Array) -> None:
        if kind_of(call) != "Call":
            return
        name = name_of(call)
        if name == COPY:
            self._copy(call, active)
        elif name in _ADDS or name.startswith(ATOMIC):
            where = pointed(call.args[0])
            if name not in _ADDS or where is None or not self.slice.is_global(where[0]):
                self.lose(call)
                return
            for part in (where[1], *call.args[1:]):
                self.touch(part, active)
            self.note("written", where[0], where[1], where[2], _ADDS[name], active, call)
            self.opaque |= {self.slice.root(where[0])[0]} & self.slice.needed
        elif name == "call_extern" and "CumSum" in str(call.args[0].value):
            self._scan(call)
        else:
            for place in filter(None, map(pointed, call.args)):
                if self.slice.is_global(place[0]):
                    self.made.lost.add(self.described("read", place[0].name, call))
            self.opaque |= {n for a in call.args if kind_of(a) != "StringImm" for n in self.slice.names(a) if n in self.rows}

    def _copy(self, call: Any, active: Array) -> None:
        """An asynchronous copy to shared memory: what is not wanted is filled with zeros."""
        target, source = pointed(call.args[0]), pointed(call.args[1])
        if target is None or source is None:
            self.lose(call)
            return
        count, dtype = int(call.args[2]), source[2]
        root, offset = self.slice.root(target[0])
        now = active
        if len(call.args) > 3:
            try:
                now = active & self.value(call.args[3], active)
            except Opaque:
                self.lose(call)
                return
        self.touch(source[1], now)
        addresses = self.note("read", source[0], source[1], dtype, count, now, call)
        if root not in self.slice.needed:
            return
        if addresses is None:
            self.opaque.add(root)
            return
        places = self.value(target[1], active).astype(np.int64) + np.arange(count)
        self.rows[root].store(offset, places, active, self.memory.load(addresses, np.broadcast_to(now, addresses.shape), dtype), dtype)

    def _scan(self, call: Any) -> None:
        """``tl::CumSum1D`` over shared memory of a block."""
        text = str(call.args[0].value)
        (root, offset, dtype), (into, to, _) = self._shared(call.args[1]), self._shared(call.args[2])
        if into not in self.slice.needed:
            return
        found = re.fullmatch(r"tl::CumSum(1D<\d+, (true|false)>|2D<\d+, ([01]), (true|false)>)::run", text)
        if found is None or root in self.opaque or root not in self.rows or offset < 0 or to < 0:
            self.opaque.add(into)
            return
        shape = tuple(int(a) for a in call.args[3:])
        size = stored(dtype).itemsize
        count = int(np.prod(shape)) * size
        data = np.ascontiguousarray(self.rows[root].data[:, offset : offset + count]).view(stored(dtype)).reshape(-1, *shape)
        axis = 1 if len(shape) == 1 else 1 + int(found[3])
        reverse = "true" in (found[2], found[4])
        turned = np.flip(data, axis) if reverse else data
        total = np.cumsum(turned, axis=axis, dtype=data.dtype)
        total = np.flip(total, axis) if reverse else total
        self.rows[into].data[:, to : to + count] = np.ascontiguousarray(total).reshape(len(data), -1).view(np.uint8)

    def _shared(self, pointer: Any) -> tuple[Any, int, str]:
        """A pointer's root, its byte there (-1 where that is no constant), and the type of its elements."""
        found = pointed(pointer)
        if found is None:
            return pointer, -1, "int32"
        data, place, dtype = found
        root, begin = self.slice.root(data)
        return root, begin + int(place) * stored(dtype).itemsize if kind_of(place) == "IntImm" else -1, dtype
