"""TileLang programs for a GPU, run on the CPU: the same text becomes C++ in which every bf16, f16 and fp8 value is its bits.

``CpuLanguage`` stands in place of ``T`` when the text is executed: every place is local memory and every loop is serial. What becomes of narrow
floats behind that is in tilelang_floats.py.
"""

from __future__ import annotations

import functools
import importlib.resources
from dataclasses import dataclass
from typing import Any

from nsalang.toolchain.tilelang_floats import FORMATS


def header() -> str:
    """The text of narrow.h, which stands at the top of every generated C++ source."""
    return importlib.resources.files("nsalang.toolchain").joinpath("narrow.h").read_text(encoding="utf-8")


@functools.cache
def cpu_language() -> Any:
    """What stands for ``T`` when a module is executed for the CPU."""
    import tilelang.language as T

    class CpuLanguage:
        """tilelang.language with local memory and serial loops: one thread runs a whole block."""

        def __getattr__(self, name: str) -> Any:
            return getattr(T, name)

        def alloc_shared(self, shape: Any, dtype: Any, scope: str | None = None) -> Any:
            return T.alloc_local(shape, dtype)

        def alloc_fragment(self, shape: Any, dtype: Any, scope: str | None = None) -> Any:
            return T.alloc_local(shape, dtype)

        def Parallel(self, *extents: Any, **options: Any) -> Any:
            return T.grid(*extents) if len(extents) > 1 else T.serial(extents[0])

        def Pipelined(self, start: Any, stop: Any = None, **options: Any) -> Any:
            return T.serial(start) if stop is None else T.serial(start, stop)

        def vectorized(self, *extents: Any, **options: Any) -> Any:
            return T.serial(*extents)

        def use_swizzle(self, *args: Any, **options: Any) -> None:
            pass

        def annotate_layout(self, *args: Any, **options: Any) -> None:
            pass

        def annotate_restrict_buffers(self, *buffers: Any) -> None:
            pass

        def assume(self, condition: Any) -> None:
            pass

        def ptx_commit_group(self, *args: Any, **options: Any) -> None:
            pass

        def ptx_wait_group(self, *args: Any, **options: Any) -> None:
            pass

        def gemm(
            self, a: Any, b: Any, c: Any, transpose_A: bool = False, transpose_B: bool = False, clear_accum: bool = False, **options: Any
        ) -> None:
            _gemm(a, b, c, transpose_A, transpose_B, clear_accum)

        def sync_threads(self, *args: Any, **options: Any) -> None:
            pass

        def atomic_add(self, dst: Any, value: Any, **options: Any) -> None:
            """One thread runs everything, block after block: nothing can come between reading and writing."""
            T.buffer_store(dst.buffer, dst + value, list(dst.indices))

        def reduce_sum(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "sum")

        def reduce_max(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "max")

        def reduce_min(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "min")

        def reduce_absmax(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "absmax")

        def reduce_bitor(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "bitor")

        def reduce_bitand(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "bitand")

        def cumsum(self, src: Any, dst: Any = None, dim: int = 0, reverse: bool = False, **options: Any) -> None:
            _cumsum(src, src if dst is None else dst, dim, reverse)

    return CpuLanguage()


def _gemm(a: Any, b: Any, c: Any, transpose_a: bool, transpose_b: bool, clear: bool) -> None:
    """``c += a @ b``: products and sums in the type of ``c``, one term after the other. Operands may be parts of buffers."""
    import tilelang.language as T
    from tilelang.utils.language import to_buffer_region

    left, right, out = (to_buffer_region(x) for x in (a, b, c))
    (m, n), depth, dtype = (
        (int(r.extent) for r in out.region[-2:]),
        int(left.region[-2 if transpose_a else -1].extent),
        str(out.buffer.dtype),
    )

    def at(part: Any, row: Any, column: Any, transposed: bool) -> tuple[Any, ...]:
        first = [r.min for r in part.region]
        row, column = (column, row) if transposed else (row, column)
        return (*first[:-2], first[-2] + row, first[-1] + column)

    @T.macro  # type: ignore[untyped-decorator, unused-ignore]
    def run(left_buffer: Any, right_buffer: Any, out_buffer: Any) -> None:
        total = T.alloc_local((1,), dtype)
        for i, j in T.grid(m, n):
            if clear:
                total[0] = T.cast(0, dtype)
            else:
                total[0] = out_buffer[at(out, i, j, False)]
            for k in T.serial(depth):
                x = T.cast(left_buffer[at(left, i, k, transpose_a)], dtype)
                total[0] = total[0] + x * T.cast(right_buffer[at(right, k, j, transpose_b)], dtype)
            out_buffer[at(out, i, j, False)] = total[0]

    run(left.buffer, right.buffer, out.buffer)


def _initial(op: str, dtype: str) -> Any:
    """What a reduction begins with: the operation's identity in ``dtype``."""
    import tilelang.language as T
    from tilelang import tvm

    if op in ("sum", "absmax", "bitor"):
        return T.cast(0, dtype)
    if op == "bitand":
        return T.cast(-1, dtype)
    if "float" in dtype:
        return T.cast(T.float32(float("-inf") if op == "max" else float("inf")), dtype)
    return tvm.tirx.min_value(dtype) if op == "max" else tvm.tirx.max_value(dtype)


def _combined(op: str, old: Any, new: Any) -> Any:
    import tilelang.language as T

    if op == "sum":
        return old + new
    if op == "bitor":
        return old | new
    if op == "bitand":
        return old & new
    if op == "min":
        return T.min(old, new)
    return T.max(old, T.abs(new) if op == "absmax" else new)


@dataclass(frozen=True, slots=True)
class _Walk:
    """How a buffer is walked along one of its dimensions: the extents of the other dimensions, and the index of an element."""

    shape: tuple[int, ...]
    axis: int

    @property
    def outer(self) -> tuple[int, ...]:
        return (self.shape[: self.axis] + self.shape[self.axis + 1 :]) or (1,)

    def others(self, at: Any) -> tuple[Any, ...]:
        """The index in the other dimensions, as one or several loop variables give it."""
        return () if len(self.shape) == 1 else (at,) if len(self.shape) == 2 else tuple(at)

    def element(self, at: Any, k: Any) -> tuple[Any, ...]:
        return (*self.others(at)[: self.axis], k, *self.others(at)[self.axis :])

    def result(self, at: Any, rank: int) -> tuple[Any, ...]:
        """Where the reduction's result stands, in a buffer that dropped the dimension or kept it with extent 1."""
        return self.element(at, 0) if rank == len(self.shape) else self.others(at)


def _walk(buffer: Any, dim: int) -> _Walk:
    shape = tuple(int(extent) for extent in buffer.shape)
    return _Walk(shape, dim % len(shape))


def _reduce(src: Any, dst: Any, dim: int, clear: bool, op: str) -> None:
    """Reduction of a buffer along ``dim`` in the order of the indices, in the type of ``dst``; narrow floats are summed in f32."""
    import tilelang.language as T

    walk, rank, result = _walk(src, dim), len(dst.shape), str(dst.dtype)
    wide = "float32" if op == "sum" and result in FORMATS else result
    extents, length, start = walk.outer, walk.shape[walk.axis], _initial(op, wide)

    @T.macro  # type: ignore[untyped-decorator, unused-ignore]
    def run(src: Any, dst: Any) -> None:
        total = T.alloc_local((1,), wide)
        for at in T.grid(*extents):
            if clear:
                total[0] = start
            else:
                total[0] = T.cast(dst[walk.result(at, rank)], wide)
            for k in T.serial(length):
                total[0] = _combined(op, total[0], T.cast(src[walk.element(at, k)], wide))
            dst[walk.result(at, rank)] = T.cast(total[0], result)

    run(src, dst)


def _cumsum(src: Any, dst: Any, dim: int, reverse: bool) -> None:
    """Running sum along ``dim``, from the end with ``reverse``."""
    import tilelang.language as T

    walk, dtype = _walk(src, dim), str(dst.dtype)
    extents, length = walk.outer, walk.shape[walk.axis]
    first, step = (length - 1, -1) if reverse else (0, 1)

    @T.macro  # type: ignore[untyped-decorator, unused-ignore]
    def run(src: Any, dst: Any) -> None:
        total = T.alloc_local((1,), dtype)
        for at in T.grid(*extents):
            total[0] = T.cast(0, dtype)
            for k in T.serial(length):
                total[0] = total[0] + T.cast(src[walk.element(at, first + step * k)], dtype)
                dst[walk.element(at, first + step * k)] = total[0]

    run(src, dst)
