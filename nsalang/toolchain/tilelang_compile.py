"""Generated TileLang programs, lowered: compiled by nvcc or g++, and loaded from the compiled files.

TileLang's own launcher needs TileLang imported and checks every argument against what it can solve. Here a program is a device function and the
names of its parameters, so a stored one is loaded and launched with nothing but the CUDA driver (or, on the CPU, the dynamic linker).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import parse_target
from nsalang.lowering.program import Argument, Program
from nsalang.toolchain import Files, Launch
from nsalang.toolchain.tilelang_lower import cuda_arch, lower, version
from nsalang.toolchain.workspace import no_space, tells_of_full_disk, workspace

KINDS = ("cuda", "hip", "ptx", "cubin", "c")
"""What :func:`emit` can show; cuda, ptx and cubin for cuda targets, hip for hip targets, c for the cpu."""

NVCC_FLAGS = ("-O3", "-std=c++20", "-fmad=false", "-w")
"""Nothing is contracted into an FMA. Division and square root are IEEE and subnormals stay without further flags."""

GXX_FLAGS = ("-O2", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared", "-w")


def _tool(name: str, why: str) -> str:
    path = shutil.which(name)
    if path is None and name == "nvcc":
        path = shutil.which("nvcc", path=os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin"))
    if path is None:
        raise NsaError.at("NSA0605", f"{name} was not found, which is needed to compile {why}", help=f"install {name} or put it on PATH")
    return path


def _run(program: Program, command: list[str], source: Path, made: Path) -> bytes:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=source.parent, check=False, env=environment)
    if done.returncode != 0 or not made.exists():
        if tells_of_full_disk(done.stderr + done.stdout):
            raise no_space("the compiler could not write there")
        said = [line for line in (done.stderr + done.stdout).splitlines() if "error" in line] or [
            done.stderr.strip()[-300:] or "no message"
        ]
        raise NsaError(
            Diagnostic("NSA0602", f"{Path(command[0]).name} refuses the program for {program.target}: {said[0][:300]}", None, ())
        )
    return made.read_bytes()


def _nvcc(program: Program, text: str, kind: str) -> bytes:
    """``text`` compiled to ``kind``, ptx or cubin."""
    tool = _tool("nvcc", "TileLang programs for CUDA")
    from tilelang.env import CUTLASS_INCLUDE_DIR, TILELANG_TEMPLATE_PATH

    arch = cuda_arch(parse_target(program.target)).removeprefix("sm_")
    with workspace() as folder:
        source, made = Path(folder, "kernel.cu"), Path(folder, f"kernel.{kind}")
        source.write_text(text, encoding="utf-8")
        code = f"arch=compute_{arch},code={'sm' if kind == 'cubin' else 'compute'}_{arch}"
        include = [f"-I{TILELANG_TEMPLATE_PATH}", f"-I{CUTLASS_INCLUDE_DIR}"]
        return _run(program, [tool, f"-{kind}", "-gencode", code, *NVCC_FLAGS, *include, "-o", made.name, source.name], source, made)


def compile_text(program: Program, text: str) -> bytes:
    """C++ for the CPU as a library. Raises NSA0602 where g++ refuses it, NSA0605 without g++."""
    return _gxx(program, text)


def _gxx(program: Program, text: str) -> bytes:
    tool = _tool("g++", "TileLang programs for the CPU")
    with workspace() as folder:
        source, made = Path(folder, "kernel.cc"), Path(folder, "kernel.so")
        source.write_text(text, encoding="utf-8")
        return _run(program, [tool, *GXX_FLAGS, "-o", made.name, source.name], source, made)


def compile_program(program: Program) -> dict[str, bytes]:
    """The files of a compiled program: ``kernel.json`` with the launch, and ``kernel.cu`` and ``kernel.cubin`` (cuda), ``kernel.c`` and
    ``kernel.so`` (cpu) or ``kernel.hip`` alone (hip: TileLang's text, not compiled).

    Raises NSA0602 where TileLang or the compiler refuses the program, NSA0604 without TileLang, NSA0605 without nvcc or g++."""
    kind = parse_target(program.target).kind
    lowered = lower(program)
    known = {a.name for a in program.arguments}
    strangers = [name for name, _ in lowered.parameters if name not in known]
    assert not strangers, f"the device function wants {strangers}, which are no arguments of the program"
    launch = {
        "symbol": lowered.symbol,
        "parameters": [list(p) for p in lowered.parameters],
        "threads": lowered.threads,
        "shared": lowered.shared,
        "tilelang": version(),
    }
    files = {"kernel.json": json.dumps(launch, sort_keys=True, indent=1).encode()}
    text = lowered.text.encode()
    if kind == "hip":
        return {"kernel.hip": text, **files}
    if kind == "cpu":
        return {"kernel.c": text, "kernel.so": _gxx(program, lowered.text), **files}
    return {"kernel.cu": text, "kernel.cubin": _nvcc(program, lowered.text, "cubin"), **files}


def emit(program: Program, kind: str) -> str | bytes:
    """One stage of the compilation: ``cuda``, ``ptx``, ``hip`` and ``c`` as text, ``cubin`` as bytes.

    Raises NSA0603 for a kind that the target lacks, and what :func:`compile_program` raises."""
    target = parse_target(program.target)
    kinds = {"cuda": ("cuda", "ptx", "cubin"), "hip": ("hip",), "cpu": ("c",)}[target.kind]
    if kind not in kinds:
        raise NsaError.at("NSA0603", f"TileLang makes no '{kind}' for {program.target}", help="it makes " + ", ".join(kinds))
    text = lower(program).text
    if kind in ("cuda", "hip", "c"):
        return text
    made = _nvcc(program, text, kind)
    return made.decode() if kind == "ptx" else made


def load_program(program: Program, files: Files) -> Launch:
    """A launcher for compiled files, without compiling and without TileLang.

    Raises NSA0604 for hip, NSA0606 where the driver refuses the code."""
    kind = parse_target(program.target).kind
    if kind == "hip":
        raise NsaError.at(
            "NSA0604", "TileLang programs for HIP are made as source only and cannot be run", help="use backend='triton' on HIP"
        )
    launch = json.loads(files["kernel.json"])
    parameters = [(str(name), str(form)) for name, form in launch["parameters"]]
    picks = _picks(program.arguments, parameters)
    if kind == "cpu":
        return _cpu_launch(files["kernel.so"], str(launch["symbol"]), [form for _, form in parameters], picks)
    from nsalang.toolchain.cuda_driver import launcher

    return launcher(
        files["kernel.cubin"],
        str(launch["symbol"]),
        "".join(form for _, form in parameters),
        picks,
        int(launch["threads"]),
        int(launch["shared"]),
    )


def _picks(arguments: tuple[Argument, ...], parameters: list[tuple[str, str]]) -> tuple[tuple[int, bool], ...]:
    """For each parameter of the device function: which argument it is, and whether that is a tensor."""
    index = {a.name: i for i, a in enumerate(arguments)}
    return tuple((index[name], arguments[index[name]].kind == "pointer") for name, _ in parameters)


def _cpu_launch(library: bytes, symbol: str, forms: list[str], picks: tuple[tuple[int, bool], ...]) -> Launch:
    import ctypes

    kinds: dict[str, Any] = {
        "Q": ctypes.c_void_p, "b": ctypes.c_int8, "B": ctypes.c_uint8, "h": ctypes.c_int16, "H": ctypes.c_uint16, "i": ctypes.c_int32,
        "I": ctypes.c_uint32, "q": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double, "?": ctypes.c_bool,
    }  # fmt: skip
    with workspace() as folder:
        path = Path(folder, "kernel.so")
        path.write_bytes(library)
        # The mapping outlives the file.
        function = ctypes.CDLL(str(path))[symbol]
    function.argtypes = [kinds[form] for form in forms]
    function.restype = ctypes.c_int32
    run: Callable[..., int] = function

    def launch(grid: int, arguments: Any) -> None:
        if grid > 0:
            run(*[arguments[i].data_ptr() if tensor else arguments[i] for i, tensor in picks])

    return launch


def doctor() -> list[tuple[str, str]]:
    """What this machine has for the backend: (item, state)."""
    try:
        found = version()
    except NsaError:
        found = "missing"
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin"))
    return [
        ("tilelang", found),
        ("nvcc (TileLang for CUDA)", nvcc or "missing"),
        ("g++ (TileLang for the CPU)", shutil.which("g++") or "missing"),
        ("hipcc (TileLang for HIP)", "not used: TileLang's code for HIP ends with its source"),
    ]
