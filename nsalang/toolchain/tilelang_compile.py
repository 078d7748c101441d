"""Generated TileLang programs: lowered for a device without having it, compiled by nvcc or g++, loaded from the compiled files.

TileLang's own launcher needs TileLang imported and checks every argument against what it can solve. Here a program is a device function and the
names of its parameters, so a stored one is loaded and launched with nothing but the CUDA driver (or, on the CPU, the dynamic linker).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import linecache
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import Target, parse_target
from nsalang.lowering.program import Argument, Program
from nsalang.toolchain import Files, Launch
from nsalang.toolchain.tilelang_cpu import cpu_language, header, narrowed, pipeline
from nsalang.toolchain.tilelang_mends import mended, with_exponentials
from nsalang.toolchain.workspace import no_space, tells_of_full_disk, workspace

KINDS = ("cuda", "hip", "ptx", "cubin", "c")
"""What :func:`emit` can show; cuda, ptx and cubin for cuda targets, hip for hip targets, c for the cpu."""

NVCC_FLAGS = ("-O3", "-std=c++20", "-fmad=false", "-w")
"""Nothing is contracted into an FMA. Division and square root are IEEE and subnormals stay without further flags."""

GXX_FLAGS = ("-O2", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared", "-w")

_FORMATS = {
    "handle": "Q", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
    "float32": "f", "bool": "?",
}  # fmt: skip
"""The struct format of a device function's parameter, by its type in TileLang."""

_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Lowered:
    """A device function: text, symbol, parameters in order (name, struct format), threads of a block, bytes of shared memory."""

    text: str
    symbol: str
    parameters: tuple[tuple[str, str], ...]
    threads: int
    shared: int


def version() -> str:
    """TileLang's version, without importing it. Raises NSA0604 where it is not installed."""
    try:
        return importlib.metadata.version("tilelang")
    except importlib.metadata.PackageNotFoundError as error:
        raise _missing() from error


def _missing() -> NsaError:
    return NsaError.at("NSA0604", "the backend 'tilelang' needs the package tilelang", help="pip install tilelang, or use backend='triton'")


def _tilelang() -> Any:
    """The package. Importing it makes its cache's folders, which are not used and need not be writable: they are made elsewhere."""
    with _lock:
        if "tilelang" in sys.modules:
            return sys.modules["tilelang"]
        wanted = os.environ.get("TILELANG_CACHE_DIR")
        with workspace() as folder:
            os.environ["TILELANG_CACHE_DIR"] = str(folder)
            try:
                return importlib.import_module("tilelang")
            except ImportError as error:
                raise _missing() from error
            finally:
                del os.environ["TILELANG_CACHE_DIR"]
                if wanted is not None:
                    os.environ["TILELANG_CACHE_DIR"] = wanted


def _device_target(target: Target) -> Any:
    from tilelang import tvm

    if target.kind == "cpu":
        return tvm.target.Target("c", "c")
    if target.kind == "hip":
        return tvm.target.Target({"kind": "hip", "mcpu": target.arch, "thread_warp_size": target.facts.warp})
    return tvm.target.Target({"kind": "cuda", "arch": cuda_arch(target)})


def cuda_arch(target: Target) -> str:
    """The architecture that nvcc is given: with the instructions of that one generation (wgmma, tcgen05) from Hopper on."""
    return target.arch + ("a" if target.capability >= 90 else "")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TileLang prints the program on a failure, and progress; an error is reported once, by us."""
    logger = logging.getLogger("tilelang")
    before, propagate = logger.level, logger.propagate
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False
    children = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("tilelang.")]
    disabled = [child.disabled for child in children]
    for child in children:
        child.disabled = True
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.propagate = propagate
        for child, state in zip(children, disabled, strict=True):
            child.disabled = state


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """What native code writes to standard error is dropped: TileLang warns there that this machine has no ROCm, which nobody needs."""
    before = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _function(program: Program, target: Target) -> Any:
    """Execute the module and call its entry: a PrimFunc. The text is where inspect finds it only for as long as that takes."""
    digest = hashlib.sha256(program.source.encode()).hexdigest()[:12]
    name = f"<nsalang {program.entry} {digest}>"
    # inspect asks for an absolute path as well.
    names = (name, os.path.abspath(name))
    module: dict[str, Any] = {"__name__": f"nsalang_program_{digest}"}
    try:
        for key in names:
            linecache.cache[key] = (len(program.source), None, program.source.splitlines(keepends=True), key)
        exec(compile(program.source, name, "exec"), module)
        if target.kind == "cpu":
            module["T"] = cpu_language()
        return module[program.entry]()
    finally:
        for key in names:
            linecache.cache.pop(key, None)


def lower(program: Program) -> Lowered:
    """The device function that TileLang makes of a program. Raises NSA0602 where TileLang refuses it, NSA0604 where TileLang is missing."""
    lowered: Lowered = _with_passes(program, _lower)
    return lowered


def device_function(program: Program) -> Any:
    """The device function that code generation is given, after all of TileLang's passes: TVM's PrimFunc. Raises as :func:`lower`."""

    def prepared(function: Any, device: Any, on_cpu: bool) -> Any:
        from tilelang.engine.lower import _prepare_device_codegen_mod

        kernels, _ = _kernels(function, device, on_cpu)
        ((_, made),) = _prepare_device_codegen_mod(kernels).functions.items()
        return made

    return _with_passes(program, prepared)


def _with_passes(program: Program, make: Callable[[Any, Any, bool], Any]) -> Any:
    """What ``make`` makes of a program's function, the target and whether that is the CPU, under TileLang's options."""
    tilelang = _tilelang()
    target = parse_target(program.target)
    options: dict[str, Any] = {
        # Every access that needs a guard has one in the text.
        "tl.disable_safe_memory_legalize": True,
        "tl.disable_out_of_bound_warning": True,
        "tl.disable_data_race_check": True,
        "tl.disable_buffer_init_check": True,
        "tl.disable_tma_lower": True,
        # TileLang takes every base address to be aligned: a vector access to a slice that is not would fault. In a variant with aligned
        # tensors the others have a last stride that is an argument, so it makes no vectors of them.
        # Its HIP printer fails on a vector of more than 4 indices.
        "tirx.disable_vectorize": target.kind != "cuda" or not any(a.aligned for a in program.arguments if a.kind == "pointer"),
    }
    with _lock, _quiet(), _without_stderr() if target.kind == "hip" else contextlib.nullcontext():
        tilelang.disable_cache()
        device = _device_target(target)
        try:
            with tilelang.tvm.transform.PassContext(opt_level=3, config=options), device, mended():
                return make(_function(program, target), device, target.kind == "cpu")
        except NsaError:
            raise
        except Exception as error:
            raise compile_error(program, error) from error


def _kernels(function: Any, device: Any, on_cpu: bool) -> tuple[Any, Any]:
    """The module of device functions after all passes, and TileLang's context for its code, of which the CPU has none."""
    from tilelang import tvm
    from tilelang.backend.module import create_backend_context
    from tilelang.engine.lower import get_device_call, lower_to_host_device_ir
    from tvm import tirx

    if on_cpu:
        name = function.attrs["global_symbol"]
        mod = pipeline(tvm.IRModule({name: function}), device)
        kernels = tirx.transform.Filter(get_device_call(is_device_c=True))(mod)
        return tvm.IRModule({gv: narrowed(f) for gv, f in kernels.functions.items()}, attrs=kernels.attrs), None
    context = create_backend_context(device, None, "auto")
    _, kernels, _, _, _ = lower_to_host_device_ir(function, context)
    return kernels, context


def _lower(function: Any, device: Any, on_cpu: bool) -> Lowered:
    from tilelang import tvm
    from tilelang.engine.lower import _prepare_device_codegen_mod

    kernels, context = _kernels(function, device, on_cpu)
    ((_, kernel),) = kernels.functions.items()
    attributes = kernel.attrs
    extents = {str(k): v for k, v in attributes["thread_extent"].items()} if "thread_extent" in attributes else {}
    shared = int(attributes["dyn_shared_memory_buf"]) if "dyn_shared_memory_buf" in attributes else 0
    parameters = tuple((p.name, _FORMATS[str(p.dtype)]) for p in kernel.params)
    prepared = _prepare_device_codegen_mod(kernels)
    if on_cpu:
        # TileLang's own header has vectors and halves, of which narrowed code without vectors has none; it doubles the time that g++ takes.
        made = tvm.get_global_func("target.build.tilelang_c")(prepared, device).inspect_source()
        text = header() + made.replace("#include <tl_templates/cpp/common.h>\n", "")
    else:
        text = context.codegen_device(prepared, compile_device=False).inspect_source()
        if device.kind.name == "cuda":
            text = with_exponentials(text)
    threads = int(extents.get("threadIdx.x", 1)) * int(extents.get("threadIdx.y", 1)) * int(extents.get("threadIdx.z", 1))
    return Lowered(text, str(attributes["global_symbol"]), parameters, threads, shared)


def compile_error(program: Program, error: Exception) -> NsaError:
    """NSA0602 with the last sensible line of what TileLang said, and the line of the generated text where it can be told."""
    said = [line.rstrip() for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith(("File ", "^", "~"))]
    # What is indented belongs to a line before it.
    said = [line for line in said if not line[0].isspace()] or said
    sentence = said[-1].strip() if said else type(error).__name__
    notes: list[str] = []
    trace, number = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(f"{hashlib.sha256(program.source.encode()).hexdigest()[:12]}>"):
            number = trace.tb_lineno
        trace = trace.tb_next
    if not number and (found := re.search(r"<nsalang \w+ \w+>[:\", line]*?(\d+)", str(error))):
        number = int(found[1])
    lines = program.source.splitlines()
    if 0 < number <= len(lines):
        notes.append(f"generated line {number}: {lines[number - 1].strip()}")
    return NsaError(Diagnostic("NSA0602", f"TileLang refuses the program for {program.target}: {sentence[:300]}", None, tuple(notes)))


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
        "I": ctypes.c_uint32, "q": ctypes.c_int64, "f": ctypes.c_float, "?": ctypes.c_bool,
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
