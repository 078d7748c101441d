"""Whole files: every kernel and program of one is typed."""

from __future__ import annotations

from collections.abc import Mapping

from nsalang import syntax
from nsalang.base.dtypes import ALL
from nsalang.base.source import Diagnostic, NsaError, Source, Span
from nsalang.base.target import Target
from nsalang.types import programs
from nsalang.types.missing_grid import missing_grids
from nsalang.types.settings import DEFAULT, Settings
from nsalang.types.signature import (  # fmt: skip
    Setting,
    functions,
    is_kernel,
)
from nsalang.types.typecheck import kernel_names, program_names, specialise, specialised

SAMPLE = 64
"""What a specialised dimension, or a const parameter without default, is taken to be where a file is only checked."""


def check_file(file: syntax.File, target: Target = DEFAULT, captured: Mapping[str, object] | None = None, only: str | None = None) -> None:
    """Type every kernel and program of a file (or one of them) with default constants, with all optional parameters and without any. Raises
    NsaError with all that is wrong."""
    problems: dict[Diagnostic, None] = {}
    of_kernels: set[tuple[str, Span | None]] = set()
    for name in (*kernel_names(file), *program_names(file)) if only is None else (only,):
        function = functions(file)[name]
        optional = frozenset(p.name for p in function.parameters if p.optional)
        try:
            dims = specialised(file, function)
            constants: dict[str, Setting] = {
                p.name: ALL["f32"] if p.annotation.id == "dtype" else SAMPLE for p in function.parameters
                if isinstance(p.annotation, syntax.Name) and p.annotation.id in ("const", "dtype") and p.default is None
            }  # fmt: skip
        except NsaError:
            dims, constants = (), {}  # a wrong annotation: reported by specialise
        for present in {optional, frozenset[str]()}:
            settings = Settings(target, constants, dict.fromkeys(dims, SAMPLE), present, captured or {})
            try:
                if is_kernel(function):
                    specialise(file, name, settings)
                else:
                    programs.specialise(file, name, settings)
            except NsaError as error:
                # What is wrong in a kernel is not said again of the programs that call it.
                problems.update(dict.fromkeys(d for d in error.diagnostics if is_kernel(function) or (d.code, d.span) not in of_kernels))
        if is_kernel(function):
            of_kernels |= {(d.code, d.span) for d in problems}
    said = {(d.code, d.span) for d in problems}  # by a helper's calls, with a note
    problems.update(dict.fromkeys(d for d in missing_grids(file) if only is None and (d.code, d.span) not in said))
    if problems:
        raise NsaError(*problems)


def check_text(source: Source) -> None:
    """Parse and check a text."""
    from nsalang.syntax.parser import parse

    check_file(parse(source))
