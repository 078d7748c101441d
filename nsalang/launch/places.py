"""Where the tensors of a call lie: their layouts and views, which of them must not overlap, and how they are handed to the code."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsalang import ir
from nsalang.base.dtypes import ALL
from nsalang.base.source import NsaError
from nsalang.build.compiled import Compiled
from nsalang.build.pipeline import Unit
from nsalang.host.extents import Undefined
from nsalang.host.memory import ALIGNMENT, Layout, check_written, contiguous, passed_strides, view_layout
from nsalang.interp.views import numbers
from nsalang.launch.binding import Bound, Missing, torch_dtype
from nsalang.launch.plans import Apart, Given
from nsalang.types.signature import Signature

if TYPE_CHECKING:
    import torch

    from nsalang.launch.call import Call


def layouts_of(signature: Signature, bound: Bound, kernel: ir.Kernel) -> tuple[dict[str, Layout], dict[str, int]]:
    """Every tensor and view in memory, and at which byte of its base each view begins.

    Raises NSA0512 for strides with which a written one cannot be written, NSA0514 for a view whose numbers
    have no value, NSA0521 for one that its base's layout does not allow.
    """
    found: dict[str, Layout] = {}
    for tensor in kernel.tensors:
        given, shape = bound.tensors[tensor.name], bound.shapes[tensor.name]
        if isinstance(given, Missing):
            found[tensor.name] = Layout(shape, contiguous(shape), given.dtype.itemsize, 0)
            continue
        found[tensor.name] = Layout(shape, tuple(given.stride()), given.element_size(), given.data_ptr() % ALIGNMENT)
        parameter = signature.parameter(tensor.name)
        if tensor.role != "in" and parameter is not None:
            check_written(tensor.name, found[tensor.name], parameter.span)
    offsets: dict[str, int] = {}
    for view in kernel.views:
        base, itemsize = found[view.base], view.dtype.bytes
        try:
            lies = numbers(view, bound.dims, bound.scalars)
        except Undefined as error:
            raise NsaError.at("NSA0514", f"the view '{view.name}' {error} here", view.span) from None
        offsets[view.name], strides = view_layout(view, base, lies.shape, lies.strides, lies.offset, itemsize)
        found[view.name] = Layout(lies.shape, strides, itemsize, (base.address + offsets[view.name]) % ALIGNMENT)
        if view.role != "in":
            check_written(view.name, found[view.name], view.span)
    return found, offsets


def apart_of(bound: Bound, kernel: ir.Kernel, layouts: Mapping[str, Layout], place: Mapping[str, int]) -> tuple[Apart, ...]:
    """Pairs of given tensors that must not overlap, a written one first: an output that the call allocates overlaps nothing."""
    given = [t for t in kernel.tensors if not isinstance(bound.tensors[t.name], Missing) and layouts[t.name].size]
    pairs = [(a, b) if a.role != "in" else (b, a) for i, a in enumerate(given) for b in given[i + 1 :] if a.role != "in" or b.role != "in"]
    return tuple((place[a.name], layouts[a.name].size, place[b.name], layouts[b.name].size) for a, b in pairs)


def check_arguments(
    unit: Unit, bound: Bound, kernel: ir.Kernel, layouts: Mapping[str, Layout], place: Mapping[str, int], values: Sequence[Any]
) -> None:
    """What a call is refused for because of where its tensors lie, and of autograd: see ``Call.check``."""
    parts_of_calls().check(apart_of(bound, kernel, layouts, place), given_of(bound, kernel, layouts, place), values, [], unit)


def arguments_of(
    compiled: Compiled, bound: Bound, layouts: Mapping[str, Layout], offsets: Mapping[str, int], place: Mapping[str, int]
) -> tuple[tuple[Any, ...], tuple[tuple[int, int, torch.dtype | None], ...], tuple[tuple[int, int, int], ...]]:
    """The code's arguments in order, and where its tensors and views go."""
    out: list[Any] = []
    views: list[tuple[int, int, int]] = []
    slots: list[tuple[int, int, torch.dtype | None]] = []
    declared = {t.name: t.dtype for t in compiled.kernel.tensors}
    for binding, argument in zip(compiled.generated.bindings, compiled.program.arguments, strict=True):
        if binding.kind == "tensor" and binding.name in offsets:
            views.append((len(out), place[compiled.kernel.memory(binding.name)], offsets[binding.name]))
            out.append(None)
        elif binding.kind == "tensor":
            # Where the target lacks a format, the code reads its bytes.
            seen = torch_dtype(ALL[argument.dtype], compiled.target)
            own = torch_dtype(declared[binding.name], compiled.target)
            slots.append((len(out), place[binding.name], seen if seen is not own else None))
            out.append(None)
        elif binding.kind == "dim":
            out.append(bound.dims[binding.name])
        elif binding.kind == "stride":
            out.append(passed_strides(layouts[binding.name])[binding.axis])
        else:
            out.append(bound.scalars[binding.name])
    return tuple(out), tuple(slots), tuple(views)


def given_of(bound: Bound, kernel: ir.Kernel, layouts: Mapping[str, Layout], place: Mapping[str, int]) -> tuple[Given, ...]:
    """The tensors that are given, as every call looks at them."""
    return tuple(
        (place[t.name], layouts[t.name].size, layouts[t.name].itemsize, t.role != "in", t.role != "in" and bound.device.type == "cpu")
        for t in kernel.tensors
        if not isinstance(bound.tensors[t.name], Missing)
    )


@functools.cache
def parts_of_calls() -> type[Call]:
    """What calls need of torch, which the first of them imports."""
    from nsalang.launch.call import Call

    return Call
