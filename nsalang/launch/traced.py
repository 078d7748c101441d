"""Calls under ``torch.compile``: an operator of torch for each kernel, its constants and its options, made when the call is traced."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from nsalang.base.source import NsaError
from nsalang.launch.binding import allocated
from nsalang.launch.options import Options, device_target
from nsalang.version import VERSION

if TYPE_CHECKING:
    from nsalang.launch.launcher import Launcher
    from nsalang.launch.sequence import ProgramLauncher
    from nsalang.types.signature import Parameter

LIBRARY = torch.library.Library("nsalang_kernels", "FRAGMENT")  # type: ignore[no-untyped-call]
"""Holds the registrations; they end with it."""


def operator_of(launcher: Launcher | ProgramLauncher, fixed: tuple[tuple[str, Any], ...], taken: tuple[str, ...], options: Options) -> str:
    """The name in torch.ops.nsalang_kernels of the operator of a call that fixes the parameters ``fixed`` and takes ``taken`` as arguments, in their order; it returns the outputs of
    the call that are not among them.

    Its name says all that it depends on: torch keeps graphs on disk, with the names of their operators.
    """
    unit = launcher.unit
    text = (VERSION, unit.file.source.text, unit.name, sorted(map(repr, unit.captured.items())), fixed, taken, options)
    name = f"{unit.name}_{hashlib.sha256(repr(text).encode()).hexdigest()[:24]}"
    if name not in _made:
        _define(name, launcher, dict(fixed), taken, options)
        _made.add(name)
    return name


_made: set[str] = set()


def _define(name: str, launcher: Launcher | ProgramLauncher, fixed: dict[str, Any], taken: tuple[str, ...], options: Options) -> None:
    signature, _ = launcher.signature(fixed)
    parameters = {p.name: p for p in signature.parameters}
    fresh = [
        p.name for p in signature.parameters if p.role == "out" and p.name not in taken and (fixed.get(p.name) is True or not p.optional)
    ]
    written = ", ".join(f"{_type(parameters[n], i)} a{i}" for i, n in enumerate(taken))
    LIBRARY.define(f"{name}({written}) -> ({', '.join(['Tensor'] * len(fresh))})", tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]

    def compute(*values: Any) -> Any:
        given = {**fixed, **dict(zip(taken, values, strict=True))}
        found = launcher((), given, options)
        outputs = [n for n in parameters if parameters[n].role == "out" and (n in taken or n in fresh)]
        by_name = dict(zip(outputs, found if isinstance(found, tuple) else (found,), strict=True)) if outputs else {}
        return _packed([by_name[n] for n in fresh])

    def shapes(*values: Any) -> Any:
        given = {**fixed, **dict(zip(taken, values, strict=True))}
        device = next((v.device for v in values if isinstance(v, torch.Tensor)), torch.get_default_device())
        target = options.target or device_target(device.type, device.index or 0)
        about, settings = launcher.signature(given)
        made = allocated(about, settings, given, target, fresh)
        return _packed([torch.empty(shape, dtype=dtype, device=device) for shape, dtype in made])

    def differentiated(keys: Any, *values: Any) -> Any:
        if torch.is_grad_enabled() and any(isinstance(v, torch.Tensor) and v.requires_grad for v in values):
            raise NsaError.at(
                "NSA0403",
                f"'{launcher.unit.name}' has no gradient yet, and is given a tensor that requires one",
                launcher.unit.function.name_span,
                help="call it under torch.no_grad(), or on tensors that require none (x.detach())",
            )
        return overload.redispatch(keys & torch._C._after_autograd_keyset, *values)

    overload = getattr(torch.ops.nsalang_kernels, name).default
    LIBRARY.impl(name, compute, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    LIBRARY.impl(name, differentiated, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"nsalang_kernels::{name}", shapes, lib=LIBRARY)


def _type(parameter: Parameter, place: int) -> str:
    """A parameter's type in a schema of torch."""
    if parameter.kind == "tensor":
        return "Tensor" if parameter.role == "in" else f"Tensor(a{place}!)"
    kind = "float" if parameter.dtype is None else parameter.dtype.kind
    return {"bool": "bool", "float": "float"}.get(kind, "SymInt")


def _packed(found: Sequence[Any]) -> Any:
    return found[0] if len(found) == 1 else tuple(found) if found else None
