"""A kernel's text to everything: typed IR, passes, a backend's source, target code, a function that launches it. Alone imports both passes and lowering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from nsalang import ir, syntax
from nsalang.base.target import Target
from nsalang.toolchain.backends import BACKEND, BackendName
from nsalang.types.signature import Setting, Signature, functions

if TYPE_CHECKING:
    from nsalang.lowering.program import Generated
    from nsalang.types import programs
    from nsalang.types.settings import Settings


After: TypeAlias = Callable[[str, ir.Kernel], None]
"""Called with each stage's name and the kernel that it leaves, the first being typecheck: for dumps, timing and verifying."""


def nothing(stage: str, kernel: ir.Kernel) -> None:
    """The hook that does nothing."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A kernel of a parsed file, nothing of it decided yet. ``captured``: constants of the enclosing Python scope."""

    file: syntax.File
    name: str
    captured: Mapping[str, object] = field(default_factory=dict)

    @property
    def function(self) -> syntax.Function:
        return functions(self.file)[self.name]

    def signature(self, settings: Mapping[str, Setting]) -> Signature:
        """Parameters, with extents over dimensions; const parameters that are missing take their defaults."""
        from nsalang.types import typecheck

        return typecheck.signature(self.file, self.name, settings, self.captured)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the typed kernel depends on. ``settings``: const and dtype parameters; ``dims``: specialised dimensions; ``present``: optional parameters.

    ``texts`` of the settings tell apart what compares equal: True, 1 and 1.0.
    """

    target: Target
    settings: tuple[tuple[str, Setting], ...] = ()
    dims: tuple[tuple[str, int], ...] = ()
    present: frozenset[str] = frozenset()
    texts: tuple[str, ...] = ()

    @staticmethod
    def of(target: Target, settings: Mapping[str, Setting], dims: Mapping[str, int], present: frozenset[str]) -> Meaning:
        return Meaning(target, settings_key(settings), tuple(dims.items()), present, tuple(map(repr, settings.values())))


@dataclass(frozen=True, slots=True)
class Choice:
    """What the machine code depends on beside: the backend, facts about a launch, what the user pins (see ir.Pin), and whether
    accesses that the prover cannot settle are guarded, and all of them checked as they run.

    ``wide``, ``aligned``, ``exact``, ``sized``: see ir.Schedule. A kernel that hoists nothing has no exact variant: its code is the same with and without.
    """

    backend: BackendName
    wide: bool = False
    aligned: bool = True
    pinned: tuple[ir.Pin, ...] = ()
    exact: bool = False
    allow_unknown: bool = False
    checked: bool = False
    sized: tuple[tuple[str, int], ...] = ()


def typed(unit: Unit, meaning: Meaning) -> ir.Kernel:
    """The IR of a kernel for one meaning. Raises NsaError with all errors of the kernel."""
    from nsalang.types import typecheck

    return typecheck.specialise(unit.file, unit.name, _settings(unit, meaning))


def typed_program(unit: Unit, meaning: Meaning) -> programs.Program:
    """The calls of a program for one meaning. Raises NsaError with all errors of the program."""
    from nsalang.types import programs

    return programs.specialise(unit.file, unit.name, _settings(unit, meaning))


def _settings(unit: Unit, meaning: Meaning) -> Settings:
    from nsalang.types.settings import Settings

    return Settings(
        target=meaning.target,
        constants=dict(meaning.settings),
        dims=dict(meaning.dims),
        present=meaning.present,
        captured=dict(unit.captured),
    )


def prepare(kernel: ir.Kernel, target: Target, choice: Choice, after: After = nothing) -> ir.Kernel:
    """Run all passes on a typed kernel: what comes out holds every choice, and a lowering prints it."""
    from nsalang.passes import PASSES

    schedule = replace(
        kernel.schedule,
        backend=choice.backend,
        wide=choice.wide,
        aligned=choice.aligned,
        pinned=choice.pinned,
        exact=choice.exact,
        allow_unknown=choice.allow_unknown,
        checked=choice.checked,
        sized=choice.sized,
    )
    kernel = replace(kernel, schedule=schedule)
    after("typecheck", kernel)
    for stage, run in PASSES:
        kernel = run(kernel, target)
        after(stage, kernel)
    return kernel


def lower(kernel: ir.Kernel, target: Target) -> Generated:
    """The backend's source for a kernel on which all passes ran."""
    assert kernel.schedule.backend is not None
    return BACKEND[kernel.schedule.backend].lower(kernel, target)


def settings_key(settings: Mapping[str, Setting]) -> tuple[tuple[str, Setting], ...]:
    """Const and dtype parameters as Meaning holds them."""
    return tuple(settings.items())
