"""TileLang's passes over a generated program: its text becomes a device function of TVM, for a target that this machine need not have, and that
the text which a compiler is given."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import linecache
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import Target, parse_target
from nsalang.lowering.program import Program
from nsalang.toolchain.tilelang_cpu import cpu_language, header
from nsalang.toolchain.tilelang_floats import narrowed
from nsalang.toolchain.tilelang_mends import PROGRAMS, for_cuda, mended, with_all_digits
from nsalang.toolchain.tilelang_pipeline import cpu_passes, prepared
from nsalang.toolchain.workspace import workspace

_FORMATS = {
    "handle": "Q", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
    "float32": "f", "float64": "d", "bool": "?",
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
    module: dict[str, Any] = {"__name__": f"{PROGRAMS}{digest}"}
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

    def made(function: Any, device: Any, on_cpu: bool) -> Any:
        kernels, _ = _kernels(function, device, on_cpu)
        ((_, kernel),) = prepared(kernels).functions.items()
        return kernel

    return _with_passes(program, made)


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
        mod = cpu_passes(tvm.IRModule({name: function}), device)
        kernels = tirx.transform.Filter(get_device_call(is_device_c=True))(mod)
        return tvm.IRModule({gv: narrowed(f) for gv, f in kernels.functions.items()}, attrs=kernels.attrs), None
    context = create_backend_context(device, None, "auto")
    _, kernels, _, _, _ = lower_to_host_device_ir(function, context)
    if device.kind.name == "hip":
        kernels = tvm.IRModule({gv: with_all_digits(f) for gv, f in kernels.functions.items()}, attrs=kernels.attrs)
    return kernels, context


def _lower(function: Any, device: Any, on_cpu: bool) -> Lowered:
    from tilelang import tvm

    kernels, context = _kernels(function, device, on_cpu)
    ((_, kernel),) = kernels.functions.items()
    attributes = kernel.attrs
    extents = {str(k): v for k, v in attributes["thread_extent"].items()} if "thread_extent" in attributes else {}
    shared = int(attributes["dyn_shared_memory_buf"]) if "dyn_shared_memory_buf" in attributes else 0
    parameters = tuple((p.name, _FORMATS[str(p.dtype)]) for p in kernel.params)
    ready = prepared(kernels)
    if on_cpu:
        # TileLang's own header has vectors and halves, of which narrowed code without vectors has none; it doubles the time that g++ takes.
        made = tvm.get_global_func("target.build.tilelang_c")(ready, device).inspect_source()
        text = header() + made.replace("#include <tl_templates/cpp/common.h>\n", "")
    else:
        text = context.codegen_device(ready, compile_device=False).inspect_source()
        if device.kind.name == "cuda":
            text = for_cuda(text)
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
