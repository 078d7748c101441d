"""Where views lie: their shape, strides and offset in bytes at a launch, and for the interpreter tensors that share the base's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from nsalang import ir
from nsalang.host.extents import Number, Undefined, evaluate
from nsalang.host.memory import ALIGNMENT, Layout, view_layout

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Bytes:
    """A view at one launch: element ``i`` begins ``offset + sum(i * strides)`` bytes after the first of the base, in the row-major order of the
    base's elements."""

    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]

    def reach(self, itemsize: int) -> tuple[int, int]:
        """The first byte, and the one behind the last; (0, 0) for a view without elements."""
        if 0 in self.shape:
            return 0, 0
        steps = [(e - 1) * s for e, s in zip(self.shape, self.strides, strict=True)]
        return self.offset + sum(min(s, 0) for s in steps), self.offset + sum(max(s, 0) for s in steps) + itemsize


def numbers(view: ir.View, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> Bytes:
    """A view's numbers at a launch. Raises extents.Undefined where one of its expressions has no value."""

    def value(expr: ir.Expr) -> int:
        return int(evaluate(expr, dims, scalars))

    return Bytes(tuple(map(value, view.shape)), value(view.offset), tuple(map(value, view.strides)))


def views(
    kernel: ir.Kernel, tensors: Mapping[str, torch.Tensor], dims: Mapping[str, int], scalars: Mapping[str, Number]
) -> dict[str, torch.Tensor]:
    """The views of a kernel on CPU tensors, those left out that ``tensors`` holds already; they share their bases' memory.

    Raises interp.Fault for a view that reaches outside its base or is not aligned there, and NSA0521 where the base's own strides allow none.
    """
    import torch

    from nsalang.interp import numerics
    from nsalang.interp.fault import Fault

    made: dict[str, torch.Tensor] = {}
    for view in kernel.views:
        if view.name in tensors:
            continue
        base = tensors[view.base]
        dtype = view.storage or view.dtype
        try:
            found = numbers(view, dims, scalars)
        except Undefined as error:
            raise Fault(f"the view '{view.name}' {error}", view.span) from None
        negative = [e for e in found.shape if e < 0]
        first, last = found.reach(dtype.bytes)
        if negative:
            raise Fault(f"the view '{view.name}' has an extent of {negative[0]}", view.span, view.name)
        if first < 0 or last > prod(base.shape):
            raise Fault(
                f"the view '{view.name}' reaches over bytes {first} to {last} of '{view.base}', which has {prod(base.shape)}", view.span
            )
        if last and any(s % dtype.bytes for s in (found.offset, *(s for e, s in zip(found.shape, found.strides, strict=True) if e > 1))):
            raise Fault(f"the view '{view.name}' has elements that do not begin at multiples of their {dtype.bytes} bytes", view.span)
        layout = Layout(tuple(base.shape), base.stride(), base.element_size(), base.data_ptr() % ALIGNMENT)
        place, strides = view_layout(view, layout, found.shape, found.strides, found.offset, dtype.bytes)
        # Storage of its own begins at a multiple of every element's size, as torch demands of the offset in it.
        start = base.storage_offset() + place
        empty = torch.empty(0, dtype=numerics.memory_dtype(view.dtype))
        made[view.name] = (
            empty.new_empty(found.shape) if not last else empty.set_(base.untyped_storage(), start // dtype.bytes, found.shape, strides)
        )
    return made
