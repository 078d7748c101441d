"""One variant of a kernel, compiled: its code, through the cache; what to do where a backend refuses it; how it is launched."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nsalang import ir
from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import Target
from nsalang.build.backends import check_emit
from nsalang.build.cache import Cache, cache_root, key_of
from nsalang.build.cost import slow
from nsalang.build.key import code_version, versions
from nsalang.build.pipeline import After, Choice, Meaning, Unit, lower, nothing, prepare, typed
from nsalang.build.remedies import place_that_settles
from nsalang.lowering.program import Program
from nsalang.toolchain import Files, Launch
from nsalang.toolchain.backends import BACKEND
from nsalang.toolchain.stored import sound

if TYPE_CHECKING:
    from nsalang.lowering.program import Generated

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Compiled:
    """One variant of a kernel, down to a backend's source. Target code is made, through the cache, when ``artifact`` is first asked for.

    ``typed``: the kernel after typecheck; ``kernel``: after all passes.
    """

    unit: Unit
    target: Target
    choice: Choice
    typed: ir.Kernel
    kernel: ir.Kernel
    generated: Generated

    @property
    def program(self) -> Program:
        return self.generated.program

    @property
    def source(self) -> str:
        """The generated Python module."""
        return self.generated.program.source

    @property
    def key(self) -> str:
        """64 hex digits that name the target code in the cache: everything that it depends on, and nothing else."""
        program, choice = self.program, self.choice
        return key_of(
            {
                "kernel": repr(self.typed),
                "target": str(self.target),
                "backend": choice.backend,
                "facts": {"wide": choice.wide, "aligned": choice.aligned, "exact": self.kernel.schedule.exact},
                "pinned": [list(pin) for pin in choice.pinned],
                "schedule": repr(self.kernel.schedule),
                "source": program.source,
                "entry": program.entry,
                "arguments": [repr(argument) for argument in program.arguments],
                "launch": [program.warps, program.stages, program.fp_fusion],
                "versions": versions(choice.backend, self.target),
                "nsalang": code_version(),
            }
        )

    @property
    def artifact(self) -> Files:
        """The target code as files, from the cache or compiled now. Raises NsaError 06xx where the backend or its tools cannot."""
        return self._stored() or self._compiled()

    def _stored(self) -> Files | None:
        """The files from the cache. An entry that is whole and not what this program needs is deleted."""
        cache = Cache(cache_root())
        why, forbidden = cache.exposed()
        if why:
            _warn_exposed(cache.root, why, forbidden)
        found = None if forbidden else cache.get(self.key)
        if found is None or sound(self.program, found):
            return found
        cache.discard(self.key)
        return None

    def _compiled(self) -> Files:
        """The files compiled now, and kept."""
        files = dict(self._made(BACKEND[self.choice.backend].compile))
        cache = Cache(cache_root())
        about = {
            "kernel": self.kernel.name,
            "target": str(self.target),
            "backend": self.choice.backend,
            **versions(self.choice.backend, self.target),
        }
        if not cache.exposed()[1]:
            try:
                cache.put(self.key, files, about)
            except NsaError as error:
                _warn_uncached(cache.root, error.diagnostics[0].sentence)
        return files

    def emit(self, kind: str) -> str | bytes:
        """One of EMITS: text, or bytes for cubin and hsaco. Raises NSA0606 where target and backend have no such kind."""
        check_emit(kind, self.target, self.choice.backend)
        if kind == "ast":
            from nsalang.syntax.dump import dump

            return dump(self.unit.function)
        if kind == "ir":
            from nsalang.ir import printer

            return printer.print_kernel(self.kernel)
        if kind == "source":
            return self.source
        stored = self.artifact.get("kernel.cu" if kind == "cuda" else f"kernel.{kind}")
        if stored is None:
            return self._made(lambda program: BACKEND[self.choice.backend].emit(program, kind))
        return stored if kind in ("cubin", "hsaco") else stored.decode()

    def _made(self, make: Callable[[Program], Made]) -> Made:
        """What a backend makes of the program. Warns before it starts where that will take minutes."""
        if why := slow(self.kernel, self.target):
            _warn_slow(self.kernel.name, why, self.choice.backend)
        try:
            return make(self.program)
        except NsaError as error:
            raise NsaError(*(replace(d, helps=(*d.helps, *self._about_places(d))) for d in error.diagnostics)) from error

    def _about_places(self, refused: Diagnostic) -> tuple[str, ...]:
        """What to do about places where TileLang refuses a program."""
        if refused.code != "NSA0602":
            return ()
        layout = BACKEND[self.choice.backend].refuses_layouts and "layout" in refused.sentence
        if layout and (name := place_that_settles(self.typed, self.kernel, self.target, self.choice)) is not None:
            return (f"with '{name}' in shared memory it does not: --pin {name}=shared, or schedule={{'{name}': 'shared'}}",)
        places = [f"{name}={place}" for name, place in self.choice.pinned if isinstance(place, str)]
        if places:
            return (
                f"the schedule pins places ({', '.join(places)}), which may leave TileLang without a layout for other values: pin less",
            )
        return ()

    def load(self) -> Launch:
        """The function that runs the code on this machine. Raises NSA0605 where there is no such device."""
        stored = self._stored()
        if stored is not None:
            try:
                return self._loaded(stored)
            except NsaError:
                raise
            except Exception:  # noqa: BLE001 (whatever a library says of stored files that no compiler made: they are made anew)
                Cache(cache_root()).discard(self.key)
        return self._loaded(self._compiled())

    def _loaded(self, files: Files) -> Launch:
        return BACKEND[self.choice.backend].load(self.program, files)


def compile_kernel(unit: Unit, meaning: Meaning, choice: Choice, after: After = nothing, kernel: ir.Kernel | None = None) -> Compiled:
    """Text to a backend's source. ``kernel``: what ``typed`` gives for this meaning, where the caller has it already."""
    start = kernel if kernel is not None else typed(unit, meaning)
    done = prepare(start, meaning.target, choice, after)
    return Compiled(unit, meaning.target, choice, start, done, lower(done, meaning.target))


@functools.cache
def _warn_slow(kernel: str, why: str, backend: str) -> None:
    """Once a kernel: its variants are alike in this."""
    warnings.warn(
        f"NSA0413: '{kernel}' will take minutes to compile by {backend}: {why}; a loop 'for n in tile(…)' over a long axis compiles in seconds",
        RuntimeWarning,
        stacklevel=2,
    )


@functools.cache
def _warn_uncached(root: Path, sentence: str) -> None:
    """Once a directory and reason: a run that compiles a hundred kernels need not say it a hundred times."""
    warnings.warn(
        f"compiled kernels are not kept: {sentence}; set NSALANG_CACHE_DIR to a directory that can be written", RuntimeWarning, stacklevel=2
    )


@functools.cache
def _warn_exposed(root: Path, why: str, forbidden: bool) -> None:
    """Compiled code is loaded into this process: who can write to the cache can run what they like as this user."""
    done = "it is not used" if forbidden else "chmod go-w, or set NSALANG_CACHE_DIR to a directory of your own"
    warnings.warn(
        f"NSA0709: the cache directory '{root}' may hold code of others, which would run as you: {why}; {done}",
        RuntimeWarning,
        stacklevel=2,
    )
