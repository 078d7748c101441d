"""What every call does with its tensors before its code runs, plan or no plan: their key, their memory, autograd. Microseconds count here.

This module imports torch, and is imported by the first call: an import statement costs each call 0.2 µs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from nsalang.base.source import NsaError
from nsalang.host.memory import ALIGNMENT, overlap_error
from nsalang.launch.options import DEFAULT, Options
from nsalang.launch.tensors import allocation_error, check_memory, has_tangent

if TYPE_CHECKING:
    from nsalang.build.pipeline import Unit
    from nsalang.launch.plans import Apart, Fresh, Given

P = TypeVar("P")
Parameter = torch.nn.Parameter
PLAIN = torch._C._disabled_torch_dispatch_impl
increment_version = torch._C._increment_version  # what torch.autograd.graph.increment_version calls


class Call:
    """The parts of a call that need torch."""

    @staticmethod
    def find(kept: Mapping[object, P], values: Sequence[Any], options: Options, checked: bool) -> tuple[object, P | None, list[int]]:
        """The key of a call, None where a value cannot be part of one; the plan that is kept under it; and the address of each tensor.

        The key has all of a number, and of a tensor everything but its contents and where exactly it lies.
        """
        parts: list[object] = [None if options is DEFAULT else options, checked]
        addresses: list[int] = []
        try:
            for value in values:
                kind = type(value)
                if kind is Tensor or kind is Parameter or isinstance(value, Tensor):
                    if kind is not Tensor and kind.__torch_dispatch__ is not PLAIN:
                        return None, None, []
                    address = value.data_ptr()
                    if not address and value.numel():
                        return None, None, []
                    addresses.append(address)
                    parts.append((value.shape, value.stride(), value.dtype, value.device, address % ALIGNMENT, value.is_neg()))
                    continue
                addresses.append(0)
                if value is None:
                    parts.append(None)
                elif kind is float:
                    parts.append((value if value == value else "nan", math.copysign(1.0, value)))
                else:
                    parts.append((kind, repr(value) if kind.__module__ == "numpy" else value))  # of numpy, -0.0 and 0.0 are one value
            key = tuple(parts)
            return key, kept.get(key), addresses
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            # Something that has no strides, no address or no hash: making the plan says what is wrong with it.
            return None, None, []

    @staticmethod
    def allocate(fresh: Sequence[Fresh], values: list[Any], device: torch.device, unit: Unit) -> bool:
        """Allocate outputs and scratch. Gives whether all lie at multiples of ALIGNMENT: torch's own allocators see to that.

        Raises NSA0515 in a mode of torch in which a new tensor is no plain memory."""
        aligned = True
        for place, shape, dtype in fresh:
            values[place] = made = torch.empty(shape, dtype=dtype, device=device)
            try:
                if type(made) is Tensor:
                    address = made.data_ptr()
                    aligned = aligned and not address % ALIGNMENT
                    continue
            except RuntimeError:  # wrapped by torch.func, which gives no address
                pass
            names = unit.function.parameters
            name, span = (names[place].name, names[place].name_span) if place < len(names) else ("scratch", unit.function.name_span)
            raise allocation_error(name, span)
        return aligned

    @staticmethod
    def check(apart: Sequence[Apart], given: Sequence[Given], values: Sequence[Any], addresses: Sequence[int], unit: Unit) -> None:
        """Raises NSA0513 where a written argument reaches into the memory of another, NSA0515 where the memory of a tensor is not there any more
        or cannot be written, NSA0403 where a gradient is asked for. Tells autograd what is written."""
        if not addresses and apart:
            addresses = [v.data_ptr() if isinstance(v, Tensor) else 0 for v in values]
        for a, a_bytes, b, b_bytes in apart:
            first, second = addresses[a], addresses[b]
            if first < second + b_bytes and second < first + a_bytes:
                first_of, second_of = unit.function.parameters[a], unit.function.parameters[b]
                raise overlap_error(first_of.name, second_of.name, first_of.name_span)
        written: list[Tensor] = []
        differentiable = forward_ad._current_level >= 0
        for place, size, item, is_written, may_be_foreign in given:
            value = values[place]
            storage = value.untyped_storage()
            if storage.nbytes() < value.storage_offset() * item + size or (may_be_foreign and not storage.resizable()):
                about = unit.function.parameters[place]
                check_memory(about.name, value, is_written, about.name_span)
            if value.requires_grad:
                differentiable = True
            if is_written:
                written.append(value)
        if differentiable:
            check_gradients(given, values, unit)
        if written:
            increment_version(written)


def check_gradients(given: Sequence[Given], values: Sequence[Any], unit: Unit) -> None:
    """Raises NSA0403 where autograd is to differentiate a call."""
    for place, _, _, is_written, _ in given:
        value = values[place]
        name = unit.function.parameters[place].name
        if torch.is_grad_enabled() and value.requires_grad:
            what = "is to write" if is_written else "is given"
            raise NsaError.at(
                "NSA0403",
                f"'{unit.name}' has no gradient yet, and {what} a tensor '{name}' that requires one",
                unit.function.name_span,
                help="call it under torch.no_grad(), or on tensors that require none (x.detach())",
            )
        if forward_ad._current_level >= 0 and has_tangent(value):
            raise NsaError.at(
                "NSA0403",
                f"'{unit.name}' has no gradient yet, and argument '{name}' has a tangent of torch.autograd.forward_ad",
                unit.function.name_span,
                help="call it on its primal: torch.autograd.forward_ad.unpack_dual(x).primal",
            )
