"""Which torch tensors are plain memory of a device: what only looks like a tensor is told here, before an address is taken of it."""

from __future__ import annotations

import ctypes
import functools
import os

import torch
from torch.autograd import forward_ad

from nsalang.base.source import NsaError, Span

EXACT = (torch.Tensor, torch.nn.Parameter)
"""The classes of tensors that need no look at their class."""
HELP = "make a plain copy of it first"


def check_plain(name: str, value: torch.Tensor, span: Span | None) -> None:
    """Raises NSA0515 for what is no strided memory of its own, NSA0403 for what torch.func differentiates. Whether its memory is there is
    asked by ``check_memory``."""
    found = _odd(value)
    if found is not None:
        what, hint = found
        raise NsaError.at("NSA0515", f"argument '{name}' is {what}; nsalang reads plain strided memory", span, help=hint)
    if _functorch(value):
        raise NsaError.at(
            "NSA0403",
            f"argument '{name}' is differentiated by torch.func, and kernels have no gradient yet",
            span,
            help="call the kernel outside of torch.func.grad, vjp and jvp, or on what they do not differentiate",
        )


def has_tangent(value: torch.Tensor) -> bool:
    """Whether a tensor is dual to torch.autograd.forward_ad."""
    return forward_ad.unpack_dual(value).tangent is not None  # type: ignore[no-untyped-call]


def odd_tensor(value: object) -> tuple[str, str] | None:
    """What something is instead of plain memory, if it is a tensor, and what helps."""
    return _odd(value) if isinstance(value, torch.Tensor) else None


def _odd(value: torch.Tensor) -> tuple[str, str] | None:
    """What a tensor is instead of plain memory, and what helps."""
    kind = type(value)
    if torch.nn.parameter.is_lazy(value):
        return f"a {kind.__name__}, which has no shape yet", "initialise it first"
    if isinstance(value, torch._subclasses.FakeTensor):
        return "a FakeTensor, which has a shape and no memory", "call the kernel on real tensors, or inside of torch.compile"
    if value.is_nested:
        return "a nested tensor", "give its values() and offsets(), or one tensor of them: nested.to_padded_tensor(0.0)"
    if kind.__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl:
        return (
            f"a {kind.__name__}, a class of tensors that says itself what its operations mean",
            "give the plain tensor that it stands for",
        )
    if value.layout is not torch.strided:
        return str(value.layout), HELP
    if value.is_quantized:
        return "quantized", "give its int_repr()"
    if torch._is_functional_tensor(value):
        return "under torch.func.functionalize", "call the kernel outside of it"
    if _batched(value):
        return "batched by torch.vmap", "call the kernel outside of it, with the batch as an axis of its own"
    if value.is_neg() or value.is_conj():
        return "lazily negated" if value.is_neg() else "lazily conjugated", "make a plain copy of it first: .resolve_neg(), .resolve_conj()"
    if value._is_zerotensor():
        return "a zero that takes no memory", HELP
    return None


def _batched(value: torch.Tensor) -> bool:
    return bool(torch._C._functorch.is_batchedtensor(value))


def _functorch(value: torch.Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(value))


def check_memory(name: str, value: torch.Tensor, written: bool, span: Span | None) -> None:
    """Raises NSA0515 for a tensor whose memory does not hold what its shape and strides say, or is written and cannot be."""
    if not value.numel():
        return
    item, storage = value.element_size(), value.untyped_storage()
    size = (sum((e - 1) * s for e, s in zip(value.shape, value.stride(), strict=True)) + 1) * item
    held, first = storage.nbytes(), value.storage_offset() * item
    address = value.data_ptr()
    what = None
    if not held:
        what = f"has no memory any more: its storage was freed, and it needs {size} bytes"
    elif held < first + size:
        what = f"reaches over bytes {first} to {first + size} of a storage that has {held}"
    elif not address:
        what = "has a shape and no memory"
    if what is not None:
        raise NsaError.at("NSA0515", f"argument '{name}' {what}", span, help="give a tensor that owns what its shape says")
    if written and value.device.type == "cpu" and not storage.resizable():  # not allocated by torch
        check_foreign(name, address, size, span)


def allocation_error(name: str, span: Span | None) -> NsaError:
    """NSA0515 for an output that torch does not allocate as plain memory: under a mode of torch that changes what an empty tensor is."""
    return NsaError.at(
        "NSA0515",
        f"the output '{name}' cannot be allocated here: torch is in a mode (FakeTensorMode, torch.func, …) in which a new tensor is no plain memory",
        span,
        help="call the kernel outside of it",
    )


# ------------------------------------------------------------------------------------------------------ memory that others made


def check_foreign(name: str, address: int, size: int, span: Span | None) -> None:
    """Raises NSA0515 for memory of this process that cannot be written, such as a file mapped to be read alone. Torch does not know what it has not
    allocated: a write there would end the process. The kernel is asked, which answers with an error: a byte goes out through a pipe and
    comes back to where it was."""
    for at in (address, address + size - 1):
        if not _writable(at):
            raise NsaError.at(
                "NSA0515",
                f"argument '{name}' is written, and its memory is read-only",
                span,
                note="a file mapped for reading, as by numpy.memmap(mode='r'), is such memory",
                help="give a copy of it, or map it with mode='c' or 'r+'",
            )


def _writable(address: int) -> bool:
    """Whether a byte of this process can be read and written; it keeps its value."""
    libc, place = _libc(), ctypes.c_void_p(address)
    out, into = os.pipe()
    try:
        return bool(libc.write(into, place, ctypes.c_size_t(1)) == 1 and libc.read(out, place, ctypes.c_size_t(1)) == 1)
    finally:
        os.close(out)
        os.close(into)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
