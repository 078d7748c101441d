"""Whether stored files are what a backend writes for a program: their names, and the shape of what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nsalang.base.target import parse_target
from nsalang.lowering.program import Program
from nsalang.toolchain import Files

_NAMES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("triton", "cpu"): (),
    ("triton", "cuda"): ("kernel.ptx", "kernel.cubin"),
    ("triton", "hip"): ("kernel.amdgcn", "kernel.hsaco"),
    ("tilelang", "cpu"): ("kernel.c", "kernel.so"),
    ("tilelang", "cuda"): ("kernel.cu", "kernel.cubin"),
    ("tilelang", "hip"): ("kernel.hip",),
}
_BINARIES = (".cubin", ".hsaco", ".so")
_FORMATS = frozenset("QbBhHiIqf?")


def sound(program: Program, files: Files) -> bool:
    """Whether ``files`` can be a compiled ``program``. That the code in them is right is for their checksums to say."""
    target = parse_target(program.target)
    if files.keys() != {"kernel.json", *_NAMES[program.backend, target.kind]}:
        return False
    try:
        about = json.loads(files["kernel.json"])
        for name, data in files.items():
            if name.endswith(_BINARIES):
                if not data.startswith(b"\x7fELF"):
                    return False
            else:
                data.decode()
    except (ValueError, RecursionError):
        return False
    if not isinstance(about, dict):
        return False
    if target.kind == "cpu" and program.backend == "triton":
        return about == {"target": "cpu"}
    return _triton(program, about) if program.backend == "triton" else _tilelang(program, about)


def _triton(program: Program, about: dict[str, Any]) -> bool:
    target = parse_target(program.target)
    made_for = about.get("target")
    return (
        isinstance(made_for, dict)
        and made_for.get("backend") == target.kind
        and made_for.get("arch") == (target.capability if target.kind == "cuda" else target.arch)
        and about.get("name") == program.entry
        and about.get("num_warps") == program.warps
        and all(_counts(about.get(name)) for name in ("shared", "num_ctas", "profile_scratch_size", "profile_scratch_align"))
    )


def _tilelang(program: Program, about: dict[str, Any]) -> bool:
    known = {a.name for a in program.arguments}
    parameters = about.get("parameters")
    return (
        isinstance(parameters, list)
        and all(_is_parameter(p, known) for p in parameters)
        and isinstance(about.get("symbol"), str)
        and about["symbol"].isidentifier()
        and _counts(about.get("threads"))
        and _counts(about.get("shared"))
    )


def _is_parameter(found: object, known: set[str]) -> bool:
    match found:
        case [str(name), str(form)]:
            return name in known and form in _FORMATS
    return False


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
