"""NAME=VALUE on the command line: const and dtype parameters, dimensions, scalars, tile lengths."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nsalang import ir, syntax
from nsalang.base.dtypes import ALL, BOOL
from nsalang.base.source import NsaError
from nsalang.commands.python_files import no_kernel
from nsalang.launch.arguments import constant
from nsalang.types.missing_grid import check_grids
from nsalang.types.signature import Parameter, Setting, Signature, called_kernels, functions, is_kernel, is_program

if TYPE_CHECKING:
    from nsalang.base.target import Target
    from nsalang.build.pipeline import Meaning
    from nsalang.launch.kernel import Entry, Kernel, Program

F = TypeVar("F", bound=Callable[..., Any])


def pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """``("M=4,N=8", "G=128")`` as a dict. Raises UsageError for anything else, and where a name has two values."""
    found: dict[str, str] = {}
    for part in (p.strip() for v in values for p in v.split(",")):
        name, equals, value = part.partition("=")
        names = name.strip().split(".") if option == "--pin" else [name.strip()]  # of a program's kernel: combine.m
        if not equals or not all(n.isidentifier() for n in names) or not value.strip():
            raise click.UsageError(f"{option} takes NAME=VALUE, not '{part}'")
        if found.setdefault(name.strip(), value.strip()) != value.strip():
            raise click.UsageError(f"{option} gives '{name.strip()}' twice: {found[name.strip()]} and {value.strip()}")
    return found


LONGEST = 100
"""Characters of a number: no dtype holds more digits, and Python reads a number of some thousand digits as none."""


def setting(text: str) -> Setting | None:
    """A value as written: a bool, an integer, a float, a dtype; None for anything else."""
    if text in ("true", "True", "false", "False"):
        return text in ("true", "True")
    if text in ALL:
        return ALL[text]
    if not text.isascii() or len(text) > LONGEST:  # Python reads digits of all scripts
        return None
    for kind in (lambda t: int(t, 0), float):
        try:
            value: int | float = kind(text)
        except ValueError:
            continue
        if isinstance(value, float) and math.isinf(value) and any(c.isdigit() for c in text):
            return None  # too large, and never meant to be infinite
        return value
    return None


@dataclass(frozen=True, slots=True)
class Given:
    """What -D and --size say, by kind of name."""

    constants: dict[str, Setting] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    scalars: dict[str, int | float | bool] = field(default_factory=dict)


def sort_out(raw: dict[str, str], signature: Signature) -> Given:
    """Which of the names given are const or dtype parameters, dimensions, scalars. Raises UsageError for an unknown name or a bad value."""
    given = Given()
    kinds = {p.name: p.kind for p in signature.parameters}
    for name, text in raw.items():
        value = setting(text)
        if value is None:
            raise click.UsageError(f"'{text}' is no value for {name}: numbers, true, false and dtypes ({', '.join(ALL)}) are")
        match kinds.get(name):
            case "const" | "dtype":
                given.constants[name] = value
            case "scalar" | None if name in signature.dims:  # a scalar may give a dimension: L: i32
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**48:
                    raise click.UsageError(f"the dimension {name} must be an integer of at least 0 and below 2**48, not '{text}'")
                given.dims[name] = value
                if name in kinds:
                    given.scalars[name] = scalar_of(name, signature.parameter(name), value, text)
            case "scalar":
                given.scalars[name] = scalar_of(name, signature.parameter(name), value, text)
            case "tensor":
                raise click.UsageError(f"'{name}' is a tensor: --input {name}=FILE gives its contents")
            case _:
                known = [*(n for n, k in kinds.items() if k != "tensor"), *signature.dims]
                near = difflib.get_close_matches(name, known, 1, 0.5)
                hint = f": did you mean '{near[0]}'?" if near else f" (it has {', '.join(known) or 'none'})"
                raise click.UsageError(f"'{signature.name}' has no parameter or dimension '{name}'{hint}")
    return given


def scalar_of(name: str, parameter: Parameter | None, value: Setting, text: str) -> int | float | bool:
    """The value of a scalar parameter. Raises UsageError where its dtype holds no such value."""
    dtype = parameter.dtype if parameter is not None else None
    if isinstance(value, int | float) and dtype is None:
        return value
    if dtype is not None and dtype.is_integer:
        low, high = int(dtype.min), int(dtype.max)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise click.UsageError(f"the scalar {name} is {dtype.name}, an integer from {low} to {high}: '{text}' is none")
    if isinstance(value, bool) or (isinstance(value, int | float) and dtype is not BOOL):
        return value
    kind = "true or false" if dtype is BOOL else "a number"
    raise click.UsageError(f"the scalar {name} must be {kind}, not '{text}'")


def const_settings(function: syntax.Function, raw: dict[str, str]) -> dict[str, Setting]:
    """Those of the names given that are const or dtype parameters: what a signature needs before dimensions are known."""
    found = {}
    for parameter in function.parameters:
        if isinstance(parameter.annotation, syntax.Name) and parameter.annotation.id in ("const", "dtype") and parameter.name in raw:
            value = setting(raw[parameter.name])
            if value is not None:
                found[parameter.name] = value
    return found


def signature_under(kernel: Entry, raw: dict[str, str]) -> Signature:
    """The signature under the const and dtype parameters among the names given. Raises UsageError for one of a wrong kind."""
    found, base = const_settings(kernel.unit.function, raw), kernel.signature
    for name, value in found.items():
        parameter = base.parameter(name)
        if parameter is not None:
            try:
                constant(parameter, value)
            except NsaError as error:
                raise click.UsageError(error.diagnostics[0].sentence) from None
    return kernel.unit.signature(found)


def meaning_of(kernel: Entry, raw: dict[str, str], present: Sequence[str], without: Sequence[str], target: Target) -> Meaning:
    """What -D, --with and --without make of a kernel for a target. Raises UsageError for what they cannot say, NSA0517, NSA0518."""
    signature = signature_under(kernel, raw)
    given = sort_out(raw, signature)
    chosen = present_of(signature, present, without)
    dims = {d: v for d, v in given.dims.items() if d in signature.specialised or d not in given.scalars}
    return kernel.meaning(target, {**given.constants, **dims, **dict.fromkeys(chosen, True)})


def known_to(kernel: Entry, raw: dict[str, str], kernels: Sequence[Entry]) -> dict[str, str]:
    """Of the names given, those that this kernel has, where several are compiled at once; each name must mean one of them at least."""
    if len(kernels) == 1:
        return raw
    names = {k: {*(p.name for p in k.signature.parameters), *k.signature.dims} for k in kernels}
    for name in raw:
        if not any(name in known for known in names.values()):
            raise click.UsageError(f"none of the kernels has a parameter or dimension '{name}'")
    return {n: v for n, v in raw.items() if n in names[kernel]}


def kernels_of(file: syntax.File, name: str | None) -> list[str]:
    """The kernel or program named, or all of a file but the kernels that its programs call.

    Raises UsageError for an unknown one, NSA0207 where the file has none, NSA0314 for a ``def`` that lacks its grid.
    """
    found = functions(file)
    known = [n for n, f in found.items() if is_kernel(f) or is_program(f)]
    if name not in known:  # what is wrong elsewhere is no matter to the kernel that is asked for
        check_grids(file)
    if not known:
        raise no_kernel(file.source.name, "a kernel is a def with one 'for … in grid(…)'")
    if name is None:
        parts = {n for f in found.values() if is_program(f) for n in called_kernels(f.body)}
        return [n for n in known if n not in parts or is_program(found[n])]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known) or 'none'}"
        raise click.UsageError(f"{file.source.name} has no kernel '{name}': {hint}")
    return [name]


def kernels_in(file: str, name: str | None) -> Sequence[Kernel | Program]:
    """The kernel named, or all of a ``.nsa`` file, or of a Python file, which is imported. Raises UsageError for an unknown name, and as
    ``kernels_of``."""
    if file.endswith(".py"):
        from nsalang.commands.python_files import python_kernels

        return python_kernels(file, name)
    from nsalang.launch.kernel import Module
    from nsalang.syntax.parser import parse, read_source

    tree = parse(read_source(file))
    names = kernels_of(tree, name)
    module = Module(tree, checked=name is None)
    return [getattr(module, known) for known in names]


def kernel_in(file: str, name: str | None) -> Kernel | Program:
    """The kernel or program named, or the only one of a file."""
    found = kernels_in(file, name)
    if len(found) != 1:
        raise click.UsageError(f"{file} has {len(found)} kernels: say which ({', '.join(k.unit.name for k in found)})")
    return found[0]


pin_option = click.option(
    "--pin",
    "--schedule",
    "pins",
    multiple=True,
    metavar="NAME=VALUE[,…]",
    help="Pin the length of an axis (m=32), warps or stages (k.stages: of the loop over k), or the place of a variable (x=shared, x=registers); "
    "of a program's kernel alone: KERNEL.NAME.",
)


seed_option = click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Of the random inputs.")


allow_option = click.option(
    "--allow", type=click.Choice(["unknown"]), help="Let what the prover cannot settle pass: it is guarded, or trusted."
)


def variant_options(function: F) -> F:
    """--pin, --aligned, --wide, --exact, --allow."""
    for decorate in (
        allow_option,
        click.option(
            "--exact/--no-exact", default=True, show_default=True, help="What the kernel hoists holds, such as extents that tiles divide."
        ),
        click.option("--wide/--narrow", default=False, show_default=True, help="Offsets need 64 bits."),
        click.option(
            "--aligned/--unaligned", default=True, show_default=True, help="Addresses and strides divide by 16 bytes, last strides are 1."
        ),
        pin_option,
    ):
        function = decorate(function)
    return function


def pinned(values: Iterable[str]) -> tuple[ir.Pin, ...]:
    """--pin as sorted pairs. Raises UsageError unless each value is a positive integer or a place."""
    found = pairs(values, "--pin")
    for name, text in found.items():
        number = setting(text)
        if text not in ir.PLACES and (not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**31):
            raise click.UsageError(f"--pin {name} must be a positive integer below 2**31 or a place ({', '.join(ir.PLACES)}), not '{text}'")
    return tuple(sorted((name, text if text in ir.PLACES else int(text, 0)) for name, text in found.items()))


def define_options(function: F) -> F:
    """-D, --with, --without."""
    for decorate in (
        click.option("--without", "without", multiple=True, metavar="NAME", help="An optional parameter that is absent (the default; prove takes both)."),
        click.option("--with", "present", multiple=True, metavar="NAME", help="An optional parameter that is given."),
        click.option(
            "-D", "--size", "defines", multiple=True, metavar="NAME=VALUE[,…]",
            help="The value of a const or dtype parameter, a dimension or a scalar; several times, or with commas.",
        ),
    ):  # fmt: skip
        function = decorate(function)
    return function


def present_of(signature: Signature, present: Sequence[str], without: Sequence[str]) -> frozenset[str]:
    """The optional parameters that --with and --without leave. Raises UsageError for a name that is no optional parameter."""
    optional = [p.name for p in signature.parameters if p.optional]
    for name in (*present, *without):
        if name not in optional:
            raise click.UsageError(f"'{signature.name}' has no optional parameter '{name}' (it has {', '.join(optional) or 'none'})")
    if both := set(present) & set(without):
        raise click.UsageError(f"--with and --without both name {min(both)}")
    return frozenset(present)
