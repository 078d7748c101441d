"""What a Triton program reads and writes while the interpreter runs it, element by element; only the worker imports this."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from triton.runtime import interpreter


class Trace:
    """The accesses of one launch. ``base``, ``size``: the memory in which all tensors lie; nothing outside is touched."""

    def __init__(self, base: int, size: int) -> None:
        self.base, self.size, self.program = base, size, 0
        self.heads: list[tuple[int, int, bool, int]] = []
        self.addresses: list[Any] = []

    def note(self, pointers: Any, mask: Any, written: bool) -> Any:
        """Note the active lanes of an access; a mask of those that lie in the memory."""
        places = np.asarray(pointers.data).astype(np.int64) - self.base
        active = np.broadcast_to(np.asarray(mask.data).astype(bool), places.shape)
        chosen = places[active]
        self.heads.append((self.program, _line(), written, chosen.size))
        self.addresses.append(chosen.reshape(-1))
        itemsize = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        inside = active & (places >= 0) & (places + itemsize <= self.size)
        return interpreter.TensorHandle(inside, mask.dtype)

    def save(self, path: str) -> None:
        counts = np.array([h[3] for h in self.heads], dtype=np.int64)
        columns = [np.repeat(np.array([h[i] for h in self.heads], dtype=np.int64), counts) for i in range(3)]
        address = np.concatenate([np.zeros(0, dtype=np.int64), *self.addresses])
        np.savez(path, program=columns[0], line=columns[1], written=columns[2].astype(bool), address=address)


def _line() -> int:
    """The line of the generated source that is running."""
    frame: Any = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith("<nsalang "):
        frame = frame.f_back
    return 0 if frame is None else int(frame.f_lineno)


@contextmanager
def recorded(request: dict[str, Any], base: int) -> Iterator[Trace]:
    """The interpreter tells of each access, as long as the block runs; then the trace is written to the request's file."""
    builder, trace = interpreter.InterpreterBuilder, Trace(base, request["size"])
    load, store, add = builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw

    def traced_load(self: Any, ptrs: Any, mask: Any, *rest: Any) -> Any:
        return load(self, ptrs, trace.note(ptrs, mask, False), *rest)

    def traced_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        return store(self, ptrs, value, trace.note(ptrs, mask, True), *rest)

    def traced_add(self: Any, op: Any, ptr: Any, value: Any, mask: Any, *rest: Any) -> Any:
        return add(self, op, ptr, value, trace.note(ptr, mask, True), *rest)

    replaced: dict[str, Callable[..., Any]] = {
        "create_masked_load": traced_load,
        "create_masked_store": traced_store,
        "create_atomic_rmw": traced_add,
    }
    before = {name: getattr(builder, name) for name in replaced}
    try:
        for name, function in replaced.items():
            setattr(builder, name, function)
        yield trace
    finally:
        for name, function in before.items():
            setattr(builder, name, function)
    trace.save(request["trace"])
