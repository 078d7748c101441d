"""The arguments of a call by parameter: who takes what, and const, dtype and scalar values checked. Tensors are checked in binding.py."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nsalang import syntax
from nsalang.base.dtypes import ALL, DType
from nsalang.base.source import NsaError
from nsalang.host.extents import Number, rounded
from nsalang.types.signature import RESERVED_ANNOTATIONS, Parameter, Setting, Signature, annotation_of

if TYPE_CHECKING:
    import torch

OPTIONS = ("backend", "target", "schedule", "autotune", "deterministic", "check", "allow")
"""Names of the call options, which no parameter of a kernel may have."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """A kernel's parameter names as a call needs them: in source order, which are taken by position, and where each stands.

    ``rank``: which position a parameter is taken by, past all positions for an output.
    """

    kernel: str
    names: tuple[str, ...]
    positional: tuple[int, ...]
    rank: tuple[int, ...] = field(repr=False)
    index: Mapping[str, int] = field(repr=False)
    constants: frozenset[str]

    @staticmethod
    def of(function: syntax.Function) -> Parameters:
        """Read off the annotations. Raises NSA0319 for an annotation that is no type, NSA0519 for a parameter named like a call option."""
        constants, positional = set(), []
        for i, parameter in enumerate(function.parameters):
            if parameter.name in OPTIONS:
                raise NsaError.at(
                    "NSA0519", f"no parameter can be called '{parameter.name}': it is an option of every call", parameter.name_span
                )
            annotation = annotation_of(parameter)
            if annotation.extents is None and annotation.dtype_name in RESERVED_ANNOTATIONS:
                constants.add(parameter.name)
            if annotation.role != "out":
                positional.append(i)
        names = tuple(p.name for p in function.parameters)
        rank = tuple(positional.index(i) if i in positional else len(names) for i in range(len(names)))
        return Parameters(function.name, names, tuple(positional), rank, {n: i for i, n in enumerate(names)}, frozenset(constants))

    def arrange(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Any]:
        """One value a parameter, in source order, None where none is given. Raises NSA0501 and NSA0502."""
        values: list[Any] = [None] * len(self.names)
        if len(args) > len(self.positional):
            taken = ", ".join(self.names[i] for i in self.positional) or "none"
            outputs = [n for i, n in enumerate(self.names) if i not in self.positional]
            hint = f"outputs are given by name: {', '.join(f'{n}=…' for n in outputs)}" if outputs else None
            raise NsaError.at(
                "NSA0502",
                f"'{self.kernel}' takes {len(self.positional)} arguments by position ({taken}), and {len(args)} were given",
                help=hint,
            )
        for i, value in zip(self.positional, args, strict=False):
            values[i] = value
        for name, value in kwargs.items():
            place = self.index.get(name)
            if place is None:
                raise unknown_argument(self.kernel, name, (*self.names, *OPTIONS))
            if self.rank[place] < len(args):
                raise NsaError.at("NSA0502", f"argument '{name}' of '{self.kernel}' was given by position and by name")
            values[place] = value
        return values


def unknown_argument(kernel: str, name: str, candidates: Iterable[str]) -> NsaError:
    """NSA0501, with the nearest name that exists."""
    near = difflib.get_close_matches(name, list(candidates), 1, 0.6)
    return NsaError.at("NSA0501", f"'{kernel}' has no parameter '{name}'", help=f"did you mean '{near[0]}'?" if near else None)


def shown(value: object) -> str:
    """A value in a message: short, and never the contents of a tensor."""
    import torch

    if isinstance(value, torch.Tensor):
        return "a tensor"
    if isinstance(value, torch.dtype | DType):
        return str(value)
    text = repr(value)
    return text if len(text) <= 40 and isinstance(value, int | float | bool | str) else f"an object of type '{type(value).__name__}'"


def constant(parameter: Parameter, value: object) -> Setting:
    """The value of a const or dtype parameter, checked. Raises NSA0516."""
    if parameter.kind == "dtype":
        found = _dtype(value)
        if found is None:
            raise NsaError.at(
                "NSA0516",
                f"argument '{parameter.name}' is a dtype parameter, and {shown(value)} is no dtype of the language",
                parameter.span,
                help=f"dtypes are {', '.join(ALL)}",
            )
        return found
    wanted = "a number or a bool"
    plain = _plain(value)
    if parameter.has_default:
        default = parameter.default
        if isinstance(default, bool):
            wanted = "True or False"
            plain = plain if isinstance(plain, bool) else None
        elif isinstance(default, int):
            wanted = "an integer"
            plain = plain if isinstance(plain, int) and not isinstance(plain, bool) else None
        elif isinstance(default, float):
            wanted = "a number"
            plain = None if plain is None or isinstance(plain, bool) else float(plain)
    if plain is None or math.isnan(plain):
        raise NsaError.at(
            "NSA0516", f"argument '{parameter.name}' is a const parameter and takes {wanted}, not {shown(value)}", parameter.span
        )
    return plain


def _plain(value: object) -> Number | None:
    """A Python number from a Python or numpy number, else None."""
    if isinstance(value, bool | int | float):
        # An IntEnum or numpy.float64 is one too, but prints otherwise, and its text is part of keys.
        return bool(value) if isinstance(value, bool) else int(value) if isinstance(value, int) else float(value)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        item = value.item()  # type: ignore[attr-defined]
        return item if isinstance(item, bool | int | float) else None
    return None


def _dtype(value: object) -> DType | None:
    """A dtype given as itself, by its name, or as torch's."""
    import torch

    if isinstance(value, DType):
        return value
    if isinstance(value, str):
        return ALL.get(value)
    if isinstance(value, torch.dtype):
        return from_torch(value)
    name = getattr(value, "__name__", None)
    return ALL.get(name) if isinstance(name, str) and type(value).__module__.startswith("nsalang") else None


def from_torch(dtype: torch.dtype) -> DType | None:
    """The language's dtype for torch's; fnuz counts as e4m3, since the target decides which it is. uint8 is u8."""
    name = str(dtype).removeprefix("torch.").replace("float8_e4m3fnuz", "float8_e4m3fn")
    return next((d for d in ALL.values() if d.torch == name), None)


def scalar(parameter: Parameter, dtype: DType, value: object) -> Number:
    """A scalar argument in the range of its dtype, floats rounded to it. Raises NSA0504 for no number, NSA0505 where it does not fit."""
    plain = _plain(value)
    takes = {"bool": "True or False", "signed": "an integer", "unsigned": "an integer", "float": "a number"}[dtype.kind]
    fits = (
        plain is not None
        and {
            "bool": isinstance(plain, bool),
            "signed": isinstance(plain, int) and not isinstance(plain, bool),
            "unsigned": isinstance(plain, int) and not isinstance(plain, bool),
            "float": not isinstance(plain, bool),
        }[dtype.kind]
    )
    if not fits or plain is None:
        hint = "a scalar is a Python number; .item() reads one from a tensor" if shown(value) == "a tensor" else None
        raise NsaError.at(
            "NSA0504", f"argument '{parameter.name}' is a scalar {dtype} and takes {takes}, not {shown(value)}", parameter.span, help=hint
        )
    if dtype.is_integer and not dtype.min <= plain <= dtype.max:
        raise NsaError.at(
            "NSA0505", f"argument '{parameter.name}' is {plain}, which does not fit {dtype} ({dtype.min} to {dtype.max})", parameter.span
        )
    if dtype.is_float:
        try:
            number = rounded(float(plain), dtype)
        except OverflowError:
            number = math.inf
        if math.isinf(number) and not (isinstance(plain, float) and math.isinf(plain)):
            raise NsaError.at("NSA0505", f"argument '{parameter.name}' is {plain}, which does not fit {dtype}", parameter.span)
        return number
    return plain


def constants_of(signature: Signature, given: Mapping[str, object]) -> dict[str, Setting]:
    """Every const and dtype parameter that is given or has a default, in source order. Raises NSA0503 for a const without either, NSA0516."""
    found: dict[str, Setting] = {}
    for parameter in signature.parameters:
        if parameter.kind not in ("const", "dtype"):
            continue
        value = given.get(parameter.name)
        if value is not None:
            found[parameter.name] = constant(parameter, value)
        elif parameter.has_default and parameter.default is not None:
            found[parameter.name] = parameter.default
        elif parameter.kind == "const":
            what = f"const argument '{parameter.name}' of '{signature.name}' is missing"
            raise NsaError.at("NSA0503", what, parameter.span, help=f"give {parameter.name}=…")
    return found
