"""What every operator needs: its registration with torch, its kernel, its operands checked, and leading axes folded without copies."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import torch
from torch.autograd import forward_ad

from nsalang.base.source import NsaError
from nsalang.launch.kernel import Entry, load_text
from nsalang.launch.options import DEFAULT, Options, device_target, options_of
from nsalang.launch.tensors import has_tangent, odd_tensor

LIBRARY = torch.library.Library("nsalang", "FRAGMENT")  # type: ignore[no-untyped-call]
"""Holds the registrations; they end with it."""

FLOATS = (torch.bfloat16, torch.float16)
E4M3 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz)
BYTES = (torch.uint8, torch.int8, *E4M3)
"""Dtypes under which a cache of bytes is handed around."""


def operator(schema: str, compute: Callable[..., Any], shape: Callable[..., Any]) -> Any:
    """Define ``nsalang::NAME(…) -> …`` for CPU and GPU tensors. ``shape`` makes empty results of the same shapes, strides and dtypes, for tracing.

    Registered with the dispatcher itself: ``torch.library.custom_op`` adds five times the cost of this to every call, and
    ``torch.library.register_autograd`` once the cost. A backward pass through it raises NSA0403: without a formula torch would warn once, and
    leave gradients out.
    """
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    name = schema[: schema.index("(")]
    for key in ("CPU", "CUDA"):
        LIBRARY.impl(name, compute, key)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"nsalang::{name}", shape, lib=LIBRARY)
    plain, _, overload = name.partition(".")
    call = getattr(getattr(torch.ops.nsalang, plain), overload or "default")
    LIBRARY.impl(name, functools.partial(_differentiated, call, plain), "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
    return checked(call)


def _differentiated(call: Any, plain: str, keys: Any, *operands: Any) -> Any:
    """What autograd does of a call: nothing, or a node that has no backward. Raises NSA0403 where torch.func or a tangent asks for a derivative now."""
    wanted = torch.is_grad_enabled() and any(isinstance(t, torch.Tensor) and t.requires_grad for t in operands)
    if wanted and torch._C._functorch.peek_interpreter_stack() is not None:
        raise no_gradient(plain)
    if forward_ad._current_level >= 0 and any(isinstance(t, torch.Tensor) and has_tangent(t) for t in operands):
        raise no_gradient(plain)
    below = keys & torch._C._after_autograd_keyset
    return NoGradient.apply(call, plain, below, *operands) if wanted else call.redispatch(below, *operands)  # type: ignore[no-untyped-call]


class NoGradient(torch.autograd.Function):
    """A node of autograd's graph whose backward raises NSA0403."""

    @staticmethod
    def forward(ctx: Any, call: Any, plain: str, below: Any, *operands: Any) -> Any:
        ctx.plain = plain
        with torch._C._AutoDispatchBelowAutograd():
            return call.redispatch(below, *operands)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise no_gradient(ctx.plain)


def no_gradient(plain: str) -> NsaError:
    """NSA0403."""
    return NsaError.at(
        "NSA0403",
        f"nsalang.ops.{plain} has no gradient yet",
        help="call it under torch.no_grad(), or on tensors that require none (x.detach())",
    )


def checked(call: Any) -> Callable[..., Any]:
    """An operator that tells of a tensor in place of a number, or the other way round, as every other mistake is told: torch's dispatcher would raise
    an error of its own, with the values of all tensors in it. Raises NSA0504, and NSA0515 for tensors that are no plain memory."""
    arguments = [(a.name, str(a.type)) for a in call._schema.arguments]
    operands = tuple((n, WANTED[k.removeprefix("Optional[").removesuffix("]")], k.startswith("Optional[")) for n, k in arguments)

    def run(*values: Any) -> Any:
        for (name, (kinds, method, wanted), optional), value in zip(operands, values, strict=True):
            if not isinstance(value, kinds) and not (value is None and optional) and not (method and hasattr(value, method)):
                found = "None" if value is None else f"a value of type {type(value).__name__}"
                raise Operands(call._opname).error("NSA0504", f"'{name}' is {found}; expected {wanted}")
        try:
            return call(*values)
        except (NotImplementedError, ValueError, AssertionError):  # no kernel of the dispatcher takes them
            odd = [(n, what) for (n, *_), value in zip(operands, values, strict=True) if (what := odd_tensor(value))]
            if not odd:
                raise
            (name, (kind, hint)), *_ = odd
            sentence = f"nsalang.ops.{call._opname}: '{name}' is {kind}; nsalang reads plain strided memory"
            raise NsaError.at("NSA0515", sentence, help=hint) from None

    return run


WANTED: Mapping[str, tuple[tuple[type, ...], str | None, str]] = {
    "Tensor": ((torch.Tensor,), None, "a tensor"),
    "int": ((int, torch.SymInt), "__index__", "an integer"),
    "float": ((float, int, torch.SymInt, torch.SymFloat), "__float__", "a number"),
    "bool": ((bool,), None, "True or False"),
    "str": ((str,), None, "a text"),
}
"""For each type of a schema the classes that torch takes, the method of what else it takes (numpy's numbers), and the words for it."""


def operator_with_lse(
    schema: str,
    empty: Callable[..., tuple[torch.Tensor, torch.Tensor | None]],
    run: Callable[..., None],
) -> Callable[..., torch.Tensor | tuple[torch.Tensor, torch.Tensor]]:
    """Define ``nsalang::NAME(…) -> Tensor`` and ``nsalang::NAME.lse(…) -> (Tensor, Tensor)`` by ``NAME(…)``, their common schema.

    ``empty(wants_lse, …)`` checks the operands and allocates o, and lse or None; ``run(o, lse, …)`` computes them. Returns a function that
    calls one of the two: ``call(return_lse, …)``.
    """
    name, parenthesis, parameters = schema.partition("(")

    def run_plain(*operands: Any) -> torch.Tensor:
        o, _ = empty(False, *operands)
        run(o, None, *operands)
        return o

    def run_both(*operands: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        o, lse = empty(True, *operands)
        run(o, lse, *operands)
        return o, lse

    plain = operator(f"{schema} -> Tensor", run_plain, lambda *operands: empty(False, *operands)[0])
    both = operator(f"{name}.lse{parenthesis}{parameters} -> (Tensor, Tensor)", run_both, lambda *operands: empty(True, *operands))

    def call(return_lse: bool, *operands: Any) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        found: torch.Tensor | tuple[torch.Tensor, torch.Tensor] = both(*operands) if return_lse else plain(*operands)
        return found

    return call


@functools.cache
def entry(file: str, name: str) -> Entry:
    """A kernel or program of the package ``nsalang.kernels``."""
    source = resources.files("nsalang.kernels") / f"{file}.nsa"
    found = getattr(load_text(source.read_text("utf-8"), str(source)), name)
    assert isinstance(found, Entry)
    return found


@functools.cache
def _options(backend: str) -> Options:
    return options_of("nsalang.ops", DEFAULT, backend, None, None)


def launch(file: str, name: str, backend: str, **values: Any) -> None:
    """Run a kernel or program, by way of its launcher alone. All outputs are among ``values``."""
    entry(file, name).launcher((), values, _options(backend))


def e4m3_of(device: torch.device) -> torch.dtype:
    """The e4m3 that a device has."""
    if torch.version.hip is None or device.type == "cpu":
        return torch.float8_e4m3fn
    found: torch.dtype = getattr(torch, device_target(device.type, device.index or 0).facts.e4m3.torch)
    return found


@functools.cache
def processors(device: torch.device) -> int:
    """How many multiprocessors a device has; 1 for the CPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


class Operands:
    """The tensors of one call, checked one after the other: the first extent under a name is what the others must agree with."""

    __slots__ = ("device", "first", "operator", "sizes")

    def __init__(self, operator: str) -> None:
        self.operator = operator
        self.sizes: dict[str, tuple[Any, str]] = {}
        self.device: torch.device | None = None
        self.first = ""

    def take(self, name: str, tensor: torch.Tensor | None, axes: Sequence[str | int], dtypes: Sequence[torch.dtype]) -> None:
        """Check an operand; None is an optional one that is absent. Raises NSA0506, NSA0508, NSA0509, NSA0511."""
        if tensor is None:
            return
        if tensor.dtype not in dtypes:
            wanted = " or ".join(str(d) for d in dtypes)
            raise self.error("NSA0506", f"'{name}' has dtype {tensor.dtype}; expected {wanted}")
        shape = tensor.shape
        if len(shape) != len(axes):
            raise self.error("NSA0508", f"'{name}' has {len(shape)} axes, shape {list(shape)}; expected {len(axes)}: {_text(axes)}")
        for i, axis in enumerate(axes):
            if isinstance(axis, str):
                known = self.sizes.get(axis)
                if known is None:
                    self.sizes[axis] = shape[i], name
                elif known[0] != shape[i]:
                    told = f"{axis} = {known[0]}, as '{known[1]}' has it"
                    raise self.error("NSA0509", f"axis {i} of '{name}', which is {_text(axes)}, has extent {shape[i]}; expected {told}")
            elif axis != shape[i]:
                raise self.error("NSA0509", f"axis {i} of '{name}', which is {_text(axes)}, has extent {shape[i]}; expected {axis}")
        if self.device is None:
            self.device, self.first = tensor.device, name
        elif tensor.device != self.device:
            raise self.error("NSA0511", f"'{name}' lies on device '{tensor.device}', and '{self.first}' on '{self.device}'")

    def size(self, axis: str) -> Any:
        """An extent that an operand has fixed: an int, or a symbol when traced."""
        return self.sizes[axis][0]

    def axes(self, name: str, tensor: torch.Tensor, *choices: int) -> int:
        """The number of axes of an operand. Raises NSA0508 where it is none of those."""
        if tensor.dim() not in choices:
            wanted = " or ".join(map(str, choices))
            raise self.error("NSA0508", f"'{name}' has {tensor.dim()} axes, shape {list(tensor.shape)}; expected {wanted}")
        return tensor.dim()

    def error(self, code: str, sentence: str) -> NsaError:
        return NsaError.at(code, f"nsalang.ops.{self.operator}: {sentence}")


def _text(axes: Sequence[str | int]) -> str:
    return f"[{', '.join(map(str, axes))}]"


def without_group(tensor: torch.Tensor, axis: int, axes: int) -> torch.Tensor:
    """The tensor without its axis of key heads, of which there is one, where it has ``axes`` axes; as it is where it has fewer."""
    return tensor.squeeze(axis) if tensor.dim() == axes and tensor.shape[axis] == 1 else tensor


def pieces(count: int, *tensors: torch.Tensor | None) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """The same tensors with their ``count`` leading axes, which all of them share, folded into one: all at once, or, where the strides of one of
    them do not allow it, in parts. No copies."""
    if count <= 1:
        yield tensors if count == 1 else tuple(None if t is None else t.unsqueeze(0) for t in tensors)
        return
    whole = tuple(None if t is None else folded(t, count) for t in tensors)
    if all(t is None or w is not None for t, w in zip(tensors, whole, strict=True)):
        yield whole
        return
    extent = next(t.shape[0] for t in tensors if t is not None)
    for i in range(extent):
        yield from pieces(count - 1, *(None if t is None else t[i] for t in tensors))


def folded(tensor: torch.Tensor, count: int) -> torch.Tensor | None:
    """A view of the tensor with its ``count`` leading axes as one, None where its strides do not allow it."""
    if not tensor.is_contiguous():
        kept = [(n, s) for n, s in zip(tensor.shape[:count], tensor.stride()[:count], strict=True) if n != 1]
        if any(outer[1] != inner[0] * inner[1] for outer, inner in itertools.pairwise(kept)):
            return None
    return tensor.view(math.prod(tensor.shape[:count]), *tensor.shape[count:])
