"""What a compiled kernel is known by in the cache: nsalang itself by the content of what makes code, the backends by their versions."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from nsalang.base.target import Target
from nsalang.toolchain.backends import BACKEND, BackendName


@functools.cache
def versions(backend: BackendName, target: Target) -> dict[str, str]:
    """Packages and compilers that decide what a backend makes of a program. Raises NSA0604 where the backend is not installed."""
    return BACKEND[backend].version(target)


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
