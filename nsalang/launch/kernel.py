"""What a user holds: kernels that can be called, from Python functions (``jit``) and from ``.nsa`` files (``load``)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from nsalang import syntax
from nsalang.base.source import NsaError, Source
from nsalang.base.target import Target
from nsalang.build.compiled import Compiled
from nsalang.build.pipeline import Choice, Meaning, Unit
from nsalang.launch.arguments import Parameters, shown
from nsalang.launch.entry import Entry
from nsalang.launch.launcher import Launcher
from nsalang.launch.options import DEFAULT, Options, options_of
from nsalang.types.signature import functions, is_helper

if TYPE_CHECKING:
    from nsalang.launch.sequence import CompiledProgram, ProgramLauncher
    from nsalang.report.proofs import Report


class Kernel(Entry):
    """A kernel: see ``Entry`` for its calls."""

    launcher: Launcher

    def __init__(self, unit: Unit, options: Options = DEFAULT) -> None:
        super().__init__(unit, Launcher(unit, Parameters.of(unit.function)), options)

    def __reduce__(self) -> tuple[Any, ...]:
        unit = self.unit
        return _kernel_of, (unit.file.source, unit.name, dict(unit.captured), self._options, self.__module__, self.__qualname__)

    def compile(
        self,
        *,
        target: str | Target | None = None,
        backend: str = "auto",
        schedule: Mapping[str, int | str] | None = None,
        wide: bool = False,
        aligned: bool = True,
        exact: bool = True,
        allow: Literal["unknown"] | None = None,
        **values: Any,
    ) -> Compiled:
        """One variant, for a target that need not be there ("cuda:sm_90" where left out). ``values``: const and dtype parameters,
        specialised dimensions, and True for each optional parameter that is present. ``wide``: offsets of 64 bits; ``aligned``: addresses and
        strides divide by 16 bytes; ``exact``: what the kernel hoists (``.kernel.hoists``) holds. A launch picks them; the defaults are the
        fastest. ``allow``: as for a call.

        Raises NsaError: NSA0501 for a name that is none of these, NSA0518 for a specialised dimension that is missing.
        """
        meaning, choice = self._variant(target, values, backend, schedule, allow)
        return self.launcher.compiled(meaning, replace(choice, wide=wide, aligned=aligned, exact=exact))

    def report(self, meaning: Meaning, choice: Choice, allow_unknown: bool = False) -> Report:
        from nsalang.report.rows import report_on

        return report_on(self.unit, meaning, choice, allow_unknown)


class Program(Entry):
    """A program, which calls kernels of its file: see ``Entry`` for its own calls. ``schedule`` pins axes of all its kernels, or of one:
    ``{"combine": {"h": 16}}``."""

    kind = "program"
    launcher: ProgramLauncher

    def __init__(self, unit: Unit, kernels: Mapping[str, Kernel], options: Options = DEFAULT) -> None:
        from nsalang.launch.sequence import ProgramLauncher

        launchers = {name: kernel.launcher for name, kernel in kernels.items()}
        super().__init__(unit, ProgramLauncher(unit, Parameters.of(unit.function), launchers), options)

    def __reduce__(self) -> tuple[Any, ...]:
        return _program_of, (self.unit.file.source, self.unit.name)

    def compile(
        self,
        *,
        target: str | Target | None = None,
        backend: str = "auto",
        schedule: Mapping[str, int | str | Mapping[str, int | str]] | None = None,
        wide: bool = False,
        aligned: bool = True,
        exact: bool = True,
        allow: Literal["unknown"] | None = None,
        **values: Any,
    ) -> CompiledProgram:
        """One variant, for a target that need not be there ("cuda:sm_90" where left out): every call with the name of its kernel and that
        kernel's variant. Options and ``values`` as for ``Kernel.compile``; constants and dimensions of the kernels follow from the program's."""
        meaning, choice = self._variant(target, values, backend, schedule, allow)
        return self.launcher.compiled(meaning, replace(choice, wide=wide, aligned=aligned, exact=exact))

    def report(self, meaning: Meaning, choice: Choice, allow_unknown: bool = False) -> Report:
        from nsalang.report.rows import report_on_calls

        return report_on_calls(self.launcher, meaning, choice, allow_unknown)


class Module:
    """The kernels and programs of one file, by name as attributes. ``checked``: that each ``def`` which needs a grid has one."""

    def __init__(self, file: syntax.File, checked: bool = True) -> None:
        from nsalang.types.missing_grid import check_grids
        from nsalang.types.typecheck import kernel_names, program_names

        if checked:
            check_grids(file)
        kernels = {name: Kernel(Unit(file, name)) for name in kernel_names(file)}
        found = {name: Program(Unit(file, name), kernels) for name in program_names(file)}
        self._entries: dict[str, Kernel | Program] = {
            n: kernels[n] if n in kernels else found[n] for n in functions(file) if n in kernels or n in found
        }
        self._others = tuple(name for name in functions(file) if name not in self._entries)
        self._helpers = tuple(name for name in self._others if is_helper(functions(file)[name]))
        self._source = file.source

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _module_of, (self._source,)

    def __getattr__(self, name: str) -> Any:
        entries: dict[str, Kernel | Program] = self.__dict__.get("_entries", {})
        if name in entries:
            return entries[name]
        source = self.__dict__.get("_source")
        file = "the module" if source is None else source.name
        if name in self.__dict__.get("_others", ()):
            kind = "it is a helper, which returns values" if name in self.__dict__.get("_helpers", ()) else "it calls no kernel either"
            raise AttributeError(f"'{name}' of {file} has no grid: {kind}")
        near = difflib.get_close_matches(name, entries, 1, 0.6)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise AttributeError(f"{file} has no kernel '{name}' (it has {', '.join(entries) or 'none'}){hint}")

    def __dir__(self) -> list[str]:
        return sorted(self._entries)

    def __iter__(self) -> Iterator[Kernel | Program]:
        return iter(self._entries.values())

    def __repr__(self) -> str:
        return f"<nsalang module {self._source.name}: {', '.join(self._entries)}>"


def load(path: str | PathLike[str]) -> Module:
    """The kernels of a ``.nsa`` file; nothing is compiled yet. Raises NsaError for a file that is missing, not UTF-8, empty or wrong."""
    from nsalang.syntax.parser import parse, read_source

    return Module(parse(read_source(str(path))))


def load_text(text: str, name: str = "<string>") -> Module:
    """The kernels of a text; ``name`` stands in its messages. Raises NsaError for what is no text, or a wrong one."""
    from nsalang.syntax.parser import parse

    if not isinstance(text, str):
        raise NsaError.at("NSA0504", f"load_text takes the text of kernels, not {shown(text)}")
    return Module(parse(Source(text, name)))


@overload
def jit(function: Callable[..., Any], /) -> Kernel: ...
@overload
def jit(
    *,
    backend: str = "auto",
    target: str | Target | None = None,
    schedule: Mapping[str, int | str] | None = None,
    allow: Literal["unknown"] | None = None,
    deterministic: bool | None = None,
    check: bool | None = None,
) -> Callable[[Callable[..., Any]], Kernel]: ...
def jit(
    function: Callable[..., Any] | None = None,
    /,
    *,
    backend: str = "auto",
    target: str | Target | None = None,
    schedule: Mapping[str, int | str] | None = None,
    allow: Literal["unknown"] | None = None,
    deterministic: bool | None = None,
    check: bool | None = None,
) -> Kernel | Callable[[Callable[..., Any]], Kernel]:
    """Make a kernel of a Python function: its text is read and parsed, and it is never run by Python. Options become defaults of its calls.

    Plain numbers, bools and dtypes of the enclosing scope are captured, as they are now. Raises NsaError for wrong syntax; types are
    checked at the first use, or by ``check``.
    """
    name = getattr(function, "__name__", "jit")
    options = options_of(name, DEFAULT, backend, target, schedule, allow, deterministic, check)
    if function is None:
        return lambda f: _kernel(f, options)
    return _kernel(function, options)


def _kernel(function: Callable[..., Any], options: Options) -> Kernel:
    from nsalang.base.placeholders import Outside
    from nsalang.syntax.capture import capture, watched
    from nsalang.syntax.parser import parse

    source, captured = capture(function)
    kernel = Kernel(Unit(parse(source), function.__name__, captured), options)
    kernel._watched = watched(function, [n for n, v in captured.items() if not isinstance(v, Outside)])
    kernel.__module__ = function.__module__
    kernel.__qualname__ = function.__qualname__
    return kernel


# ------------------------------------------------------------------------------------------------ what pickle makes of its texts


def _module_of(source: Source) -> Module:
    from nsalang.syntax.parser import parse

    return Module(parse(source), checked=False)


def _program_of(source: Source, name: str) -> Program:
    found: Program = getattr(_module_of(source), name)
    return found


def _kernel_of(source: Source, name: str, captured: Mapping[str, object], options: Options, module: str, qualname: str) -> Kernel:
    from nsalang.syntax.parser import parse

    kernel = Kernel(Unit(parse(source), name, captured), DEFAULT if options == DEFAULT else options)
    kernel.__module__, kernel.__qualname__ = module, qualname
    return kernel


__all__ = ["Entry", "Kernel", "Module", "Program", "jit", "load", "load_text"]
