"""Where the tensors of a call lie in memory: strides that write one element twice, arguments that overlap, alignment, offsets that need 64 bits,
views of a tensor's bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsalang import ir
from nsalang.base.source import NsaError, Span

if TYPE_CHECKING:
    import torch

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


def check_written(name: str, layout: Layout, span: Span | None) -> None:
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


def view_layout(
    view: ir.View, base: Layout, shape: Sequence[int], strides: Sequence[int], offset: int, itemsize: int
) -> tuple[int, tuple[int, ...]]:
    """Where a view lies: the byte offset of its first element from the base's address, and its strides in elements (0 for axes of at most one).

    ``strides`` and ``offset`` are in bytes, counted in the row-major order of the base's elements; ``itemsize`` is the view's. An address is the
    sum of a byte's digits (the indices of its element in the base, and its place in it), each times a stride. So the view has strides of its
    own where a step along one of its axes changes every digit alike, wherever it is made. Raises NSA0521 where it doesn't, where an element of
    the view is not in one piece or not aligned to its size, where an axis would need a negative stride, and outside the base.
    """
    if 0 in shape:
        return 0, (0,) * len(shape)
    span = view.span
    digits = _digits(base)
    total = digits[0][0] * digits[0][1]
    steps = [(e, s) for e, s in zip(shape, strides, strict=True) if e > 1]
    first = offset + sum(min((e - 1) * s, 0) for e, s in steps)
    last = offset + sum(max((e - 1) * s, 0) for e, s in steps) + itemsize
    if base.is_empty or first < 0 or last > total:
        size = 0 if base.is_empty else total
        raise _view_error(view, f"reaches over bytes {first} to {last} of '{view.base}', which has {size}", span)
    start = _split(offset, digits)
    reach = [(at, at) for at in start]
    found: list[int] = []
    for extent, step in [*zip(shape, strides, strict=True), (itemsize, 1)]:
        if extent <= 1:
            found.append(0)
            continue
        moved = [b - a for a, b in zip(start, _split(offset + step, digits), strict=True)]
        reach = [(lo + min((extent - 1) * d, 0), hi + max((extent - 1) * d, 0)) for (lo, hi), d in zip(reach, moved, strict=True)]
        found.append(sum(d * stride for d, (_, _, stride) in zip(moved, digits, strict=True)))
    found, within = found[:-1], found[-1]
    if any(lo < 0 or hi >= extent for (lo, hi), (extent, _, _) in zip(reach, digits, strict=True)) or (itemsize > 1 and within != 1):
        raise _view_error(
            view,
            f"has no strides of its own in '{view.base}', whose strides are {list(base.strides)}: its rows run across gaps of that tensor",
            span,
        )
    if any(s < 0 for s in found):
        raise _view_error(view, f"would need negative strides in '{view.base}', whose strides are {list(base.strides)}", span)
    place = sum(at * stride for at, (_, _, stride) in zip(start, digits, strict=True))
    if any(s % itemsize for s in found):
        odd = next(s for s in found if s % itemsize)
        what = f"has rows {odd} bytes apart in '{view.base}', which its elements of {itemsize} bytes do not divide"
        if len(digits) == 1:  # in one piece: no other layout helps, the sizes do not fit
            raise NsaError.at(
                "NSA0521",
                f"the view '{view.name}' {what}",
                span,
                help=f"give sizes with which they do; a require that {itemsize} divides the strides says so in the kernel",
            )
        raise _view_error(view, what, span)
    if (base.address + place) % itemsize:
        raise _view_error(view, f"begins at an address that its elements of {itemsize} bytes do not divide", span)
    return place, tuple(s // itemsize for s in found)


def _digits(base: Layout) -> list[tuple[int, int, int]]:
    """How a byte of a tensor, in row-major order, is found: (extent, weight, stride in bytes) of each digit of its number, the highest first.
    Axes that follow each other in memory without gaps are one digit."""
    found = [(base.itemsize, 1, 1)]
    for extent, stride in zip(reversed(base.shape), reversed(base.strides), strict=True):
        below, weight, step = found[0]
        if extent == 1:
            continue
        if stride * base.itemsize == below * step:
            found[0] = (below * extent, weight, step)
        else:
            found.insert(0, (extent, weight * below, stride * base.itemsize))
    return found


def _split(number: int, digits: Sequence[tuple[int, int, int]]) -> list[int]:
    """The digits of a byte's number; the highest takes what is left, less than 0 or more than its extent."""
    out = [number // digits[0][1]]
    for extent, weight, _ in digits[1:]:
        out.append(number // weight % extent)
    return out


def _view_error(view: ir.View, what: str, span: Span | None) -> NsaError:
    return NsaError.at("NSA0521", f"the view '{view.name}' {what}", span, help=f"give '{view.base}' as a contiguous tensor of its own")


def pointer(base: torch.Tensor, offset: int) -> torch.Tensor:
    """A byte of a tensor's memory, ``offset`` bytes after its first element: what a launcher takes for a view, of which it wants the address."""
    import torch

    at = base.storage_offset() * base.element_size() + offset
    byte = torch.empty(0, dtype=torch.uint8, device=base.device)
    return byte if not base.numel() else byte.set_(base.untyped_storage(), at, (1,), (1,))


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


def has_rows(layout: Layout) -> bool:
    """Whether the last stride is 1, or does not matter."""
    return layout.is_empty or not layout.shape or layout.shape[-1] <= 1 or layout.strides[-1] == 1


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
        longest = max((lengths.get(a, 1) * kernel.schedule.step(a) for a in index.axes), default=1)
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


# ------------------------------------------------------------------------------------------------------------- not enough memory


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Raises NSA0608 where torch has no memory for what is made inside; its other errors pass. Only commands use it: who calls from Python may
    wait for torch's own error."""
    import torch

    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if (
            not isinstance(error, torch.OutOfMemoryError)
            and "can't allocate memory" not in text
            and "size calculation overflowed" not in text
        ):
            raise
        asked = re.search(r"[Tt]ried to allocate [\d.]+ \w+", text)
        raise NsaError.at(
            "NSA0608", f"there is not enough memory for {what}", note=f"torch {asked[0].lower()}" if asked else None
        ) from None


def described(name: str, dtype: str, shape: Sequence[int], itemsize: int) -> str:
    """A tensor with its size, in words."""
    return f"'{name}', {dtype}{list(shape)}: {math.prod(shape) * itemsize:,} bytes"
