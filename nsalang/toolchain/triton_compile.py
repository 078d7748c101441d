"""Generated Triton programs: compiled for a device without having it, loaded from the compiled files, run on the CPU by a worker process."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import linecache
import shutil
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsalang.base.source import NsaError
from nsalang.base.target import Target, parse_target
from nsalang.lowering.program import Argument, Program
from nsalang.toolchain import Files, Launch
from nsalang.toolchain.triton_types import signature
from nsalang.toolchain.workspace import disk_is_full, no_space, tells_of_full_disk, workspace

KINDS = ("ttir", "ttgir", "ptx", "cubin", "amdgcn", "hsaco")
"""What :func:`emit` can show; ptx and cubin for cuda targets, amdgcn and hsaco for hip targets."""

_lock = threading.Lock()
_BIGGEST_GRID = 2**31 - 1


def version() -> str:
    """Triton's version, without importing it. Raises NSA0604 where it is not installed."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError as error:
        raise _missing() from error


def _missing() -> NsaError:
    return NsaError.at("NSA0604", "the backend 'triton' needs the package triton", help="pip install triton, or use backend='tilelang'")


def _gpu_target(target: Target) -> Any:
    from triton.backends.compiler import GPUTarget

    return GPUTarget(target.kind, target.capability if target.kind == "cuda" else target.arch, target.facts.warp)


@contextmanager
def _jit_function(program: Program) -> Iterator[Any]:
    """The kernel as a Triton function. Its text is where inspect finds it for as long as the context lasts; no file is needed."""
    try:
        import triton.language as tl
        from triton import knobs
        from triton.runtime.jit import JITFunction
    except ImportError as error:
        raise _missing() from error
    if knobs.runtime.interpret or not isinstance(tl.standard.max, JITFunction):
        raise NsaError.at(
            "NSA0602", "Triton cannot compile under TRITON_INTERPRET", help="unset it; the target 'cpu' needs no such setting"
        )
    # The name reaches the debug information, so it is the same on every machine; a relative one would get the current directory before it.
    digest = hashlib.sha256(program.source.encode()).hexdigest()[:12]
    name = f"/nsalang/{program.entry}-{digest}.py"
    module = types.ModuleType(f"nsalang_program_{digest}")
    linecache.cache[name] = (len(program.source), None, program.source.splitlines(keepends=True), name)
    try:
        exec(compile(program.source, name, "exec"), module.__dict__)
        yield module.__dict__[program.entry]
    finally:
        linecache.cache.pop(name, None)


def _cache_in(folder: Path) -> type[Any]:
    """A cache manager for Triton that finds nothing and keeps what it is given in ``folder``: the user's ~/.triton stays as it is."""
    from triton.runtime.cache import CacheManager

    class Scratch(CacheManager):  # type: ignore[misc, no-any-unimported, unused-ignore]
        def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
            pass

        def get_file(self, filename: str) -> str | None:
            return None

        def put(self, data: object, filename: str, binary: bool = True) -> str:
            path = folder / filename
            path.write_bytes(data if isinstance(data, bytes) else str(data).encode())
            return str(path)

        def get_group(self, filename: str) -> dict[str, str] | None:
            return None

        def put_group(self, filename: str, group: dict[str, str]) -> None:
            pass

    return Scratch


def _compile(program: Program) -> tuple[dict[str, str | bytes], dict[str, Any]]:
    """All that Triton makes of a program, by kind, and its metadata."""
    target = parse_target(program.target)
    assert program.backend == "triton" and target.kind != "cpu"
    with _lock, workspace() as folder, _jit_function(program) as function:
        import triton
        from triton import knobs
        from triton.compiler.compiler import ASTSource

        names = [a.name for a in program.arguments]
        assert function.arg_names == names, f"'{program.entry}' takes {function.arg_names}, the program says {names}"
        divisors = [16 if argument.aligned else argument.divisor for argument in program.arguments]
        attrs = {(i,): [["tt.divisibility", divisor]] for i, divisor in enumerate(divisors) if divisor > 1}
        source = ASTSource(function, dict(zip(names, signature(program), strict=True)), {}, attrs)
        options = {"num_warps": program.warps, "num_stages": program.stages, "enable_fp_fusion": program.fp_fusion}
        try:
            with knobs.cache.scope():
                knobs.cache.manager_class = _cache_in(folder)
                kernel = triton.compile(source, target=_gpu_target(target), options=options)
        except Exception as error:
            raise _compile_error(program, error) from error
        metadata = kernel.metadata._asdict()
        if metadata["shared"] > target.facts.shared_memory:
            raise NsaError.at(
                "NSA0602",
                f"Triton needs {metadata['shared']} bytes of shared memory for '{program.entry}', and a block on {target} can have"
                f" {target.facts.shared_memory}",
                help="pin shorter tiles, or fewer stages",
            )
        return dict(kernel.asm), metadata


def _compile_error(program: Program, error: Exception) -> NsaError:
    """One sentence and, where Triton says it, the line of the generated source."""
    if disk_is_full(error) or tells_of_full_disk(str(error)):
        return no_space("Triton could not write there")
    sentence, note = "", None
    cause: BaseException | None = error
    while cause is not None:
        node, text = getattr(cause, "node", None), getattr(cause, "src", None)
        message = str(getattr(cause, "error_message", None) or ("" if node is not None else cause))
        sentence = next((line.strip() for line in reversed(message.splitlines()) if line.strip()), sentence)
        first = program.source.find(text.split("\n")[0] + "\n") if isinstance(text, str) else -1
        if first >= 0 and node is not None and hasattr(node, "lineno"):
            number = program.source.count("\n", 0, first) + node.lineno
            note = f"line {number} of the generated source: {program.source.splitlines()[number - 1].strip()}"
        cause = cause.__cause__
    sentence = sentence or type(error).__name__
    return NsaError.at("NSA0602", f"Triton cannot compile '{program.entry}' for {program.target}: {sentence}", note=note)


def compile_program(program: Program) -> dict[str, bytes]:
    """Compile a Triton program into the files that :func:`load_program` takes.

    cuda: ``kernel.ptx``, ``kernel.cubin``; hip: ``kernel.amdgcn``, ``kernel.hsaco``; and always ``kernel.json``, which for the target cpu is
    all: nothing is compiled there. Raises NSA0602 when Triton refuses the program, NSA0604 when there is no Triton.
    """
    target = parse_target(program.target)
    if target.kind == "cpu":
        version()
        return {"kernel.json": b'{"target": "cpu"}'}
    made, metadata = _compile(program)
    # The rest depends on the machine that compiles: paths of libraries, the environment.
    kept = {k: v for k, v in metadata.items() if k == k.lower() and k not in ("hash", "extern_libs")}
    files = {"kernel.json": json.dumps(kept, default=vars, sort_keys=True).encode()}
    for kind in ("ptx", "cubin") if target.kind == "cuda" else ("amdgcn", "hsaco"):
        files[f"kernel.{kind}"] = _bytes(made[kind])
    return files


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def emit(program: Program, kind: str) -> str | bytes:
    """One of KINDS of a program: text, or bytes for cubin and hsaco. Raises NSA0606 when the target has no such kind, and what compiling does."""
    target = parse_target(program.target)
    kinds = {"cuda": ("ttir", "ttgir", "ptx", "cubin"), "hip": ("ttir", "ttgir", "amdgcn", "hsaco"), "cpu": ()}[target.kind]
    if kind not in kinds:
        can = f"Triton can emit {', '.join(kinds)} for it" if kinds else "Triton compiles nothing for it"
        raise NsaError.at("NSA0606", f"the target {target} has no {kind}", help=can)
    made, _metadata = _compile(program)
    return made[kind]


@dataclass(frozen=True, slots=True)
class _Signature:
    """As much of a source as a launcher of Triton's looks at."""

    signature: dict[str, str]
    constants: dict[Any, Any]


def load_program(program: Program, files: Files) -> Launch:
    """The function that launches a compiled program: on torch's current stream of the first tensor's device, or in a worker process for cpu.

    A launch of no instances does nothing. Raises NSA0605 when there is no device of the program's target.
    """
    from nsalang.toolchain import triton_process

    if parse_target(program.target).kind == "cpu":

        def launch(programs: int, arguments: Sequence[Any]) -> None:
            if programs:
                triton_process.run(program, programs, arguments)

        return launch
    return _device_launch(program, files)


def _device_launch(program: Program, files: Files) -> Launch:
    import torch

    if not torch.cuda.is_available():
        raise NsaError.at("NSA0605", f"a program for {program.target} needs a device, and torch sees none")
    pointers = [i for i, argument in enumerate(program.arguments) if argument.kind == "pointer"]
    assert pointers, "a program without tensors does nothing"
    first = pointers[0]
    current_device = torch.cuda.current_device
    stream_of = torch._C._cuda_getCurrentRawStream
    # Loading is not allowed while a CUDA graph is captured, so the current device's is loaded now.
    loaded: dict[int, tuple[Callable[..., None], Any, Any]] = {current_device(): _load(program, files)}

    def launch(programs: int, arguments: Sequence[Any]) -> None:
        if programs <= 0:
            return
        device = arguments[first].get_device()
        if device != current_device():
            with torch.cuda.device(device):
                launch(programs, arguments)
            return
        kernel = loaded.get(device)
        if kernel is None:
            kernel = loaded[device] = _load(program, files)
        values = list(arguments)
        # Addresses, not tensors: Triton's launcher would ask the driver about each tensor.
        for i in pointers:
            values[i] = values[i].data_ptr()
        if programs > _BIGGEST_GRID:
            raise NsaError.at("NSA0507", f"'{program.entry}' would need {programs} instances; a launch can have {_BIGGEST_GRID}")
        run, function, packed = kernel
        run(programs, 1, 1, stream_of(device), function, packed, None, None, None, *values)

    return launch


def _load(program: Program, files: Files) -> tuple[Callable[..., None], Any, Any]:
    """The compiled code on the current device: launcher, function handle, launch parameters."""
    try:
        from triton.compiler.compiler import CompiledKernel
        from triton.runtime.driver import driver
        from triton.runtime.errors import OutOfResources
    except ImportError as error:
        raise _missing() from error
    target = parse_target(program.target)
    here = driver.active.get_current_target()
    there = _gpu_target(target)
    runs = here.backend == there.backend and here.arch == there.arch
    if here.backend == there.backend == "cuda" and there.arch < 90:
        # Without the architecture's own instructions, code runs on later members of its family.
        runs = here.arch // 10 == there.arch // 10 and here.arch >= there.arch
    if not runs:
        name = f"{here.backend}:{f'sm_{here.arch}' if here.backend == 'cuda' else here.arch}"
        raise NsaError.at("NSA0605", f"a program for {program.target} cannot run on this device, which is {name}")
    source = _Signature(dict(zip((a.name for a in program.arguments), signature(program), strict=True)), {})
    with workspace() as folder:
        group = {}
        for name, content in files.items():
            path = folder / name
            path.write_bytes(content)
            group[name] = str(path)
        kernel = CompiledKernel(source, group, hashlib.sha256(files["kernel.json"]).hexdigest())
    try:
        return kernel.run, kernel.function, kernel.packed_metadata
    except OutOfResources as error:
        raise NsaError.at("NSA0602", f"'{program.entry}' does not fit this device: {error}") from error


_TRIAL = Program(
    "triton",
    "cuda:sm_90",
    "trial",
    "import triton\nimport triton.language as tl\n\n\n@triton.jit\ndef trial(x):\n    tl.store(x, 1.0)\n",
    (Argument("x", "pointer", "f32"),),
)


def doctor() -> list[tuple[str, str]]:
    """What Triton can do on this machine: (item, state). Takes a second; starts the worker where it can."""
    from dataclasses import replace

    try:
        out = [("triton", version())]
    except NsaError as error:
        return [("triton", error.diagnostics[0].sentence)]
    for name in ("cuda:sm_90", "hip:gfx942"):
        try:
            compile_program(replace(_TRIAL, target=name))
            out.append((f"triton for {name}", "compiles"))
        except NsaError as error:
            out.append((f"triton for {name}", error.diagnostics[0].sentence))
    try:
        import torch

        cell = torch.zeros(1)
        load_program(replace(_TRIAL, target="cpu"), {})(1, [cell])
        out.append(("triton on cpu", "runs" if cell.item() == 1 else "gives wrong results"))
    except NsaError as error:
        out.append(("triton on cpu", error.diagnostics[0].sentence))
    if not torch.cuda.is_available():
        return [*out, ("devices", "none")]
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    out.append(("C compiler (Triton's launcher)", compiler or "none: Triton cannot launch on a device"))
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        arch = getattr(properties, "gcnArchName", "").split(":")[0] or f"sm_{properties.major}{properties.minor}"
        out.append((f"device {i}", f"{properties.name} ({arch})"))
    return out
