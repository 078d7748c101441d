"""A kernel's text to everything: typed IR, passes, a backend's source, target code, a function that launches it. Alone imports both passes and lowering."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from nsalang import ir, syntax
from nsalang.build.cache import Cache, cache_root, key_of
from nsalang.types.signature import Setting, Signature, functions
from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import Target
from nsalang.toolchain import Files, Launch, Program

if TYPE_CHECKING:
    from nsalang.types import programs, typecheck
    from nsalang.lowering.emit import Generated

Backend: TypeAlias = Literal["triton", "tilelang"]
BACKENDS: tuple[Backend, ...] = ("triton", "tilelang")
PACKAGES: Mapping[Backend, str] = {"triton": "triton", "tilelang": "tilelang"}

EMITS = ("ast", "ir", "source", "ptx", "cubin", "amdgcn", "hsaco", "cuda", "hip")
"""What can be shown of a kernel; the first three for every target and backend."""
_CODE: Mapping[tuple[str, Backend], tuple[str, ...]] = {
    ("cuda", "triton"): ("ptx", "cubin"),
    ("hip", "triton"): ("amdgcn", "hsaco"),
    ("cuda", "tilelang"): ("cuda", "ptx", "cubin"),
    ("hip", "tilelang"): ("hip",),
}

Made = TypeVar("Made")

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

    backend: Backend
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


def _settings(unit: Unit, meaning: Meaning) -> typecheck.Settings:
    from nsalang.types import typecheck

    return typecheck.Settings(
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
    if kernel.schedule.backend == "triton":
        from nsalang.lowering import to_triton

        return to_triton.lower(kernel, target)
    from nsalang.lowering import to_tilelang

    return to_tilelang.lower(kernel, target)


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
        key, cache = self.key, Cache(cache_root())
        found = cache.get(key)
        if found is not None:
            return found
        files = dict(self._made(_compile))
        about = {
            "kernel": self.kernel.name,
            "target": str(self.target),
            "backend": self.choice.backend,
            **versions(self.choice.backend, self.target),
        }
        try:
            cache.put(key, files, about)
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
            return self._made(lambda program: _emit(program, kind))
        return stored if kind in ("cubin", "hsaco") else stored.decode()

    def _made(self, make: Callable[[Program], Made]) -> Made:
        """What a backend makes of the program."""
        try:
            return make(self.program)
        except NsaError as error:
            raise NsaError(*(replace(d, helps=(*d.helps, *self._about_places(d))) for d in error.diagnostics)) from error

    def _about_places(self, refused: Diagnostic) -> tuple[str, ...]:
        """What to do about places where TileLang refuses a program."""
        if refused.code != "NSA0602":
            return ()
        if self.choice.backend == "tilelang" and "layout" in refused.sentence:
            from nsalang.build.remedies import place_that_settles

            if (name := place_that_settles(self)) is not None:
                return (f"with '{name}' in shared memory it does not: --pin {name}=shared, or schedule={{'{name}': 'shared'}}",)
        places = [f"{name}={place}" for name, place in self.choice.pinned if isinstance(place, str)]
        if places:
            return (
                f"the schedule pins places ({', '.join(places)}), which may leave TileLang without a layout for other values: pin less",
            )
        return ()

    def load(self) -> Launch:
        """The function that runs the code on this machine. Raises NSA0605 where there is no such device."""
        program, files = self.program, self.artifact
        if program.backend == "triton":
            from nsalang.toolchain import triton_compile

            return triton_compile.load_program(program, files)
        from nsalang.toolchain import tilelang_compile

        return tilelang_compile.load_program(program, files)


def compile_kernel(unit: Unit, meaning: Meaning, choice: Choice, after: After = nothing, kernel: ir.Kernel | None = None) -> Compiled:
    """Text to a backend's source. ``kernel``: what ``typed`` gives for this meaning, where the caller has it already."""
    start = kernel if kernel is not None else typed(unit, meaning)
    done = prepare(start, meaning.target, choice, after)
    return Compiled(unit, meaning.target, choice, start, done, lower(done, meaning.target))


def check_emit(kind: str, target: Target, backend: Backend) -> None:
    """Raises NSA0606 where a kind is unknown, or not there for a target and a backend; says which are."""
    possible = (*EMITS[:3], *_CODE.get((target.kind, backend), ()))
    if kind in possible:
        return
    if kind not in EMITS:
        raise NsaError.at("NSA0606", f"'{kind}' is nothing that can be emitted", help=f"there are {', '.join(EMITS)}")
    fits = [f"{b} for {t}" for (t, b), kinds in _CODE.items() if kind in kinds]
    raise NsaError.at(
        "NSA0606",
        f"the backend '{backend}' has no '{kind}' for the target {target}; it has {', '.join(possible)}",
        help=f"'{kind}' is made by {' and '.join(fits)}",
    )


def choose_backend(name: str, target: Target) -> Backend:
    """``auto`` is triton on devices, where it is installed, and tilelang on the cpu, where its code is compiled C and Triton's is interpreted.

    Raises NSA0607 for an unknown name, NSA0604 where its package is not installed.
    """
    if name == "auto":
        order: tuple[Backend, ...] = ("tilelang", "triton") if target.kind == "cpu" else ("triton", "tilelang")
        for candidate in order:
            if _installed(PACKAGES[candidate]):
                return candidate
        raise NsaError.at(
            "NSA0604", "no backend is installed: neither the package triton nor the package tilelang", help="pip install triton tilelang"
        )
    if name not in BACKENDS:
        raise NsaError.at("NSA0607", f"unknown backend '{name}'", help="backends are triton, tilelang and auto")
    backend: Backend = name
    if not _installed(PACKAGES[backend]):
        other = next(b for b in BACKENDS if b != backend)
        raise NsaError.at(
            "NSA0604",
            f"the backend '{backend}' needs the package {PACKAGES[backend]}",
            help=f"pip install {PACKAGES[backend]}, or use backend='{other}'",
        )
    return backend


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that a test put into sys.modules has no spec
        return True


@functools.cache
def versions(backend: Backend, target: Target) -> dict[str, str]:
    """Packages and compilers that decide what a backend makes of a program. Raises NSA0604 where the backend is not installed."""
    if backend == "triton":
        from nsalang.toolchain import triton_compile

        return {"triton": triton_compile.version()}
    from nsalang.toolchain import tilelang_compile

    found = {"tilelang": tilelang_compile.version()}
    compiler = {"cuda": "nvcc", "cpu": "g++"}.get(target.kind)
    if compiler is not None:
        found[compiler] = _compiler_version(compiler)
    return found


def _compiler_version(name: str) -> str:
    """What a compiler says of itself, in its last line; empty where there is none: then only the cache can have code."""
    path = shutil.which(name) or shutil.which(name, path=os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin"))
    if path is None:
        return ""
    said = subprocess.run([path, "-dumpfullversion" if name == "g++" else "--version"], capture_output=True, text=True, check=False).stdout
    return said.strip().rsplit("\n", 1)[-1]


MAKES_CODE = (
    "base",
    "syntax",
    "ir",
    "host",
    "types",
    "interp",
    "proof",
    "refute",
    "passes",
    "lowering",
    "toolchain",
    "build",
    "version.py",
)
"""What of nsalang other code of a kernel can come from: commands, reports and benchmarks are no part of it."""


@functools.cache
def code_version() -> str:
    """A hash of nsalang's own code by content: what would make other code out of the same kernel. Kernels themselves are no part of it."""
    return hash_of_code(Path(__file__).resolve().parent.parent)


def hash_of_code(root: Path) -> str:
    """A hash of the files of the package under ``root`` that make code, by content."""
    digest = hashlib.sha256()
    found: list[tuple[str, Path]] = []
    for name in MAKES_CODE:
        here = root / name
        files = [p for p in here.rglob("*") if "__pycache__" not in p.parts] if here.is_dir() else [here]
        found += [(p.relative_to(root).as_posix(), p) for p in files if p.suffix in (".py", ".lark", ".json", ".h", ".c")]
    for name, path in sorted(found):
        digest.update(f"{name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@functools.cache
def _warn_uncached(root: Path, sentence: str) -> None:
    """Once a directory and reason: a run that compiles a hundred kernels need not say it a hundred times."""
    warnings.warn(
        f"compiled kernels are not kept: {sentence}; set NSALANG_CACHE_DIR to a directory that can be written", RuntimeWarning, stacklevel=2
    )


def _compile(program: Program) -> Files:
    if program.backend == "triton":
        from nsalang.toolchain import triton_compile

        return triton_compile.compile_program(program)
    from nsalang.toolchain import tilelang_compile

    return tilelang_compile.compile_program(program)


def _emit(program: Program, kind: str) -> str | bytes:
    if program.backend == "triton":
        from nsalang.toolchain import triton_compile

        return triton_compile.emit(program, kind)
    from nsalang.toolchain import tilelang_compile

    return tilelang_compile.emit(program, kind)


def settings_key(settings: Mapping[str, Setting]) -> tuple[tuple[str, Setting], ...]:
    """Const and dtype parameters as Meaning holds them."""
    return tuple(settings.items())
