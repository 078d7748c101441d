"""The backends: one object each, by which everything else asks for what a backend does. Packages are imported when they are first needed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from nsalang import ir
from nsalang.base.target import Target
from nsalang.lowering.program import Program
from nsalang.toolchain import Files, Launch

if TYPE_CHECKING:
    from nsalang.lowering.program import Generated

BackendName: TypeAlias = Literal["triton", "tilelang"]
BACKENDS: tuple[BackendName, ...] = ("triton", "tilelang")


class Backend(ABC):
    """``package``: what must be installed. ``code``: what can be shown of a program beside its source, by kind of target.
    ``refuses_layouts``: it may find no layout in registers for some values, and takes the program with one of them in shared memory."""

    name: ClassVar[BackendName]
    package: ClassVar[str]
    code: ClassVar[Mapping[str, tuple[str, ...]]]
    refuses_layouts: ClassVar[bool] = False

    def installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.package) is not None
        except ValueError:  # a module that a test put into sys.modules has no spec
            return True

    @abstractmethod
    def version(self, target: Target) -> dict[str, str]:
        """Packages and compilers that decide what is made of a program. Raises NSA0604 where the backend is not installed."""

    @abstractmethod
    def lower(self, kernel: ir.Kernel, target: Target) -> Generated:
        """The source for a kernel on which all passes ran."""

    @abstractmethod
    def compile(self, program: Program) -> Files: ...

    @abstractmethod
    def emit(self, program: Program, kind: str) -> str | bytes:
        """Code of a kind in ``code`` that the compiled files don't hold."""

    @abstractmethod
    def load(self, program: Program, files: Files) -> Launch:
        """The function that runs the code on this machine. Raises NSA0605 where there is no such device."""

    def finds_layouts(self, program: Program) -> bool:
        """Whether layouts in registers are found for all values of a program, tried without the compiler of the target."""
        return True


class Triton(Backend):
    name = "triton"
    package = "triton"
    code: ClassVar[Mapping[str, tuple[str, ...]]] = {"cuda": ("ptx", "cubin"), "hip": ("amdgcn", "hsaco")}

    def version(self, target: Target) -> dict[str, str]:
        from nsalang.toolchain import triton_compile

        return {"triton": triton_compile.version()}

    def lower(self, kernel: ir.Kernel, target: Target) -> Generated:
        from nsalang.lowering.triton import module

        return module.lower(kernel, target)

    def compile(self, program: Program) -> Files:
        from nsalang.toolchain import triton_compile

        return triton_compile.compile_program(program)

    def emit(self, program: Program, kind: str) -> str | bytes:
        from nsalang.toolchain import triton_compile

        return triton_compile.emit(program, kind)

    def load(self, program: Program, files: Files) -> Launch:
        from nsalang.toolchain import triton_compile

        return triton_compile.load_program(program, files)


class TileLang(Backend):
    name = "tilelang"
    package = "tilelang"
    refuses_layouts = True
    code: ClassVar[Mapping[str, tuple[str, ...]]] = {"cuda": ("cuda", "ptx", "cubin"), "hip": ("hip",)}

    def version(self, target: Target) -> dict[str, str]:
        from nsalang.toolchain import tilelang_lower

        found = {"tilelang": tilelang_lower.version()}
        compiler = {"cuda": "nvcc", "cpu": "g++"}.get(target.kind)
        if compiler is not None:
            found[compiler] = _compiler_version(compiler)
        return found

    def lower(self, kernel: ir.Kernel, target: Target) -> Generated:
        from nsalang.lowering.tilelang import module

        return module.lower(kernel, target)

    def compile(self, program: Program) -> Files:
        from nsalang.toolchain import tilelang_compile

        return tilelang_compile.compile_program(program)

    def emit(self, program: Program, kind: str) -> str | bytes:
        from nsalang.toolchain import tilelang_compile

        return tilelang_compile.emit(program, kind)

    def load(self, program: Program, files: Files) -> Launch:
        from nsalang.toolchain import tilelang_compile

        return tilelang_compile.load_program(program, files)

    def finds_layouts(self, program: Program) -> bool:
        from nsalang.base.source import NsaError
        from nsalang.toolchain import tilelang_lower

        try:
            tilelang_lower.lower(program)
        except NsaError:
            return False
        return True


BACKEND: Mapping[BackendName, Backend] = {"triton": Triton(), "tilelang": TileLang()}


def _compiler_version(name: str) -> str:
    """What a compiler says of itself, in its last line; empty where there is none: then only the cache can have code."""
    path = shutil.which(name) or shutil.which(name, path=os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin"))
    if path is None:
        return ""
    said = subprocess.run([path, "-dumpfullversion" if name == "g++" else "--version"], capture_output=True, text=True, check=False).stdout
    return said.strip().rsplit("\n", 1)[-1]
