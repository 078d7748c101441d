"""Where the tensors of a call lie in memory: strides that write one element twice, arguments that overlap, alignment, offsets that need 64 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nsalang import ir
from nsalang.source import NsaError, Span

NARROW = 2**31 - 1
LONGEST_TILE = 2**17
"""No axis of a schedule is longer, so an index below NARROW - LONGEST_TILE stays below NARROW with its tile's tail."""
ALIGNMENT = 16
"""Bytes by which addresses and strides divide in an aligned variant: the widest load and store of a thread."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A tensor in memory: strides in elements, ``itemsize`` and ``address`` in bytes. ``address`` is taken modulo ALIGNMENT."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    address: int

    @property
    def is_empty(self) -> bool:
        return 0 in self.shape

    @property
    def size(self) -> int:
        """Bytes from the first element to the end of the last."""
        if self.is_empty:
            return 0
        return (sum((e - 1) * s for e, s in zip(self.shape, self.strides, strict=True)) + 1) * self.itemsize


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a new tensor, as torch.empty gives them."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * max(shape[i + 1], 1)
    return tuple(strides)


def writes_twice(layout: Layout) -> tuple[int, ...] | None:
    """The axis or axes whose steps reach one element twice, or seem to; None where every element is certainly another.

    Exact for one and two axes; with more, an axis must step over all that lies below it, as in every slice, transpose or permutation of a tensor.
    """
    if layout.is_empty:
        return None
    steps = sorted((s, e, i) for i, (e, s) in enumerate(zip(layout.shape, layout.strides, strict=True)) if e > 1)
    if steps and steps[0][0] == 0:
        return (steps[0][2],)
    if len(steps) == 2:
        (small, few, i), (large, many, j) = steps
        import math

        common = math.gcd(small, large)
        return tuple(sorted((i, j))) if large // common < few and small // common < many else None
    reach = 0
    for n, (step, extent, i) in enumerate(steps):
        if step <= reach:
            return tuple(sorted((steps[n - 1][2], i)))
        reach += (extent - 1) * step
    return None


def check_written(name: str, layout: Layout, span: Span) -> None:
    """Raises NSA0512 where two elements of a tensor that is written share memory."""
    axes = writes_twice(layout)
    if axes is None:
        return
    which = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes[0]} and {axes[1]}"
    raise NsaError.at(
        "NSA0512",
        f"argument '{name}' is written, and its strides {list(layout.strides)} let elements along {which} of its shape {list(layout.shape)} share memory",
        span,
        help="give a tensor of its own, not an expanded or overlapping view",
    )


def overlap_error(a: str, b: str, span: Span | None) -> NsaError:
    """NSA0513 for a written argument ``a`` that reaches into the memory of ``b``."""
    return NsaError.at(
        "NSA0513",
        f"arguments '{a}' and '{b}' overlap in memory, and '{a}' is written",
        span,
        note="the ranges from first to last byte count, so interleaved slices of one tensor overlap too",
        help="give one of them memory of its own",
    )


def is_aligned(layout: Layout) -> bool:
    """Whether address, strides and last extent divide by 16 bytes and the last stride is 1; strides of axes of at most one element do not matter."""
    if layout.shape and layout.shape[-1] * layout.itemsize % ALIGNMENT:
        return False
    if layout.is_empty:
        return True
    if layout.address % ALIGNMENT:
        return False
    last = len(layout.shape) - 1
    for i, (extent, stride) in enumerate(zip(layout.shape, layout.strides, strict=True)):
        if extent > 1 and (stride != 1 if i == last else stride * layout.itemsize % ALIGNMENT):
            return False
    return True


def passed_strides(layout: Layout) -> tuple[int, ...]:
    """Strides as arguments of the code: 0 for an axis of at most one element, since whatever stands there must not spoil what `is_aligned` says."""
    return tuple(s if e > 1 else 0 for e, s in zip(layout.shape, layout.strides, strict=True))


def needs_wide(kernel: ir.Kernel, layouts: Mapping[str, Layout], dims: Mapping[str, int]) -> bool:
    """Whether a dimension or an element offset, tails of tiles included, may not fit 32 bits. ``kernel`` has its schedule."""
    if any(value > NARROW - LONGEST_TILE for value in dims.values()):
        return True
    lengths = dict(kernel.schedule.lengths)
    tails: dict[tuple[str, int], int] = {}
    for tensor, axis, index in _accesses(kernel):
        longest = max((lengths.get(a, 1) for a in index.axes), default=1)
        tails[tensor, axis] = max(tails.get((tensor, axis), 1), longest)
    for name, layout in layouts.items():
        last = sum(
            (max(e, 1) - 1 + tails.get((name, i), 1) - 1) * s for i, (e, s) in enumerate(zip(layout.shape, layout.strides, strict=True))
        )
        if last > NARROW or max(layout.shape, default=0) > NARROW - LONGEST_TILE:
            return True
    return False


def _accesses(kernel: ir.Kernel) -> Iterator[tuple[str, int, ir.Expr]]:
    for node in ir.walk(kernel):
        if isinstance(node, ir.Load | ir.Store):
            for axis, index in enumerate(node.indices):
                yield node.tensor, axis, index
