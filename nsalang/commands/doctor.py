"""``nsalang doctor``: what is installed, what the machine has, and so what will work."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess

import click

from nsalang import __version__
from nsalang.base.source import NsaError
from nsalang.base.target import KNOWN, parse_target
from nsalang.report.terminal import Session, session_options
from nsalang.toolchain.backends import BACKENDS, BackendName

PACKAGES = ("torch", "triton", "tilelang", "apache-tvm-ffi", "z3-solver", "lark", "numpy", "click", "rich", "platformdirs")


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output instead of tables.")
@session_options
@click.pass_obj
def command(session: Session, as_json: bool) -> None:
    """Say what is installed, which devices and compilers there are, whether the cache is writable, and what will work."""
    versions = [
        ("python", platform.python_version()),
        ("system", platform.platform()),
        ("nsalang", __version__),
        *((name, _version(name)) for name in PACKAGES),
    ]
    with session.progress("looking for compilers") as say:
        tools = [("nvcc", _tool("nvcc")), ("g++", _tool("g++")), ("cache", _cache_state())]
        say("looking for devices")
        devices = _devices()
        backends = {}
        for backend in BACKENDS:
            say(f"trying {backend}")
            backends[backend] = _backend(backend)
        works: list[dict[str, str]] = []
        for target in KNOWN:
            say(f"trying {target}")
            works.append({"target": target, **{backend: _trial(backend, target) for backend in BACKENDS}})
    if as_json:
        found = {
            "versions": dict(versions),
            "tools": dict(tools),
            "devices": devices,
            "backends": {n: dict(r) for n, r in backends.items()},
            "works": works,
        }
        click.echo(json.dumps(found, indent=1))
        return
    session.table("Versions", ["package", "version"], versions)
    session.table("This machine", ["what", "state"], [*tools, *(("device", d) for d in devices or ["none: the target cpu works without"])])
    session.table("Backends", ["what", "state"], [row for rows in backends.values() for row in rows])
    session.table("What will work (tried with the example vector_add)", ["target", *BACKENDS], [list(row.values()) for row in works])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _tool(name: str) -> str:
    path = shutil.which(name) or (shutil.which(name, path="/usr/local/cuda/bin") if name == "nvcc" else None)
    if path is None:
        return "not found"
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path} does not run: {error}"
    lines = text.splitlines()
    return f"{path}: {next((line.strip() for line in lines if 'release' in line), lines[0] if lines else '')}"


def _cache_state() -> str:
    from nsalang.build.cache import Cache, cache_root

    root = cache_root()
    place = root
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return f"{root}: not writable, every process compiles for itself (set NSALANG_CACHE_DIR)"
    try:
        entries = Cache(root).entries()
    except NsaError as error:
        return f"{root}: {error.diagnostics[0].sentence}"
    why, _ = Cache(root).exposed()
    risk = f" (others may put code there: {why})" if why else ""
    return f"{root}: writable{risk}, {len(entries)} entries, {sum(e.size for e in entries) / 1e6:.1f} MB"


def _devices() -> list[str]:
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    found = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        arch = getattr(properties, "gcnArchName", "").split(":")[0] or f"sm_{properties.major}{properties.minor}"
        found.append(f"{properties.name} ({arch}, {properties.total_memory / 2**30:.0f} GiB)")
    return found


def _backend(backend: str) -> list[tuple[str, str]]:
    """What the toolchain of a backend says of itself. A backend that breaks is a finding, not a failure of the doctor."""
    try:
        rows: list[tuple[str, str]] = importlib.import_module(f"nsalang.toolchain.{backend}_compile").doctor()
    except NsaError as error:
        return [(backend, error.diagnostics[0].sentence)]
    except Exception as error:  # noqa: BLE001
        return [(backend, f"does not work: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")]
    return rows


def _trial(backend: BackendName, target: str) -> str:
    """``runs``; how far code is made without the device, up to the last text before a compiler that Backends tells of; or why not."""
    from nsalang import load
    from nsalang.commands.bench import examples
    from nsalang.commands.run import here

    kernel = load(next(p for p in examples() if p.stem == "vector_add")).vector_add
    kind = parse_target(target).kind
    try:
        if target == here() or kind == "cpu":
            import torch

            a = torch.ones(3, device="cpu" if kind == "cpu" else "cuda")
            return "runs" if kernel(a, a, backend=backend, target=target).tolist() == [2, 2, 2] else "gives wrong results"
        made = {"cuda": {"triton": "ptx", "tilelang": "cuda"}, "hip": {"triton": "amdgcn", "tilelang": "hip"}}[kind][backend]
        kernel.compile(target=target, backend=backend).emit(made)
    except NsaError as error:
        return error.diagnostics[0].sentence
    except Exception as error:  # noqa: BLE001
        return f"does not work: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return {"cuda": "makes CUDA source, for nvcc", "hip": "makes HIP source"}.get(made, "compiles")
