"""The forms in which a variant's code runs here: Triton under its interpreter, TileLang's C, and TileLang's device function evaluated.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from nsalang.build.compiled import Compiled
from nsalang.code.accesses import Accesses, Array, Place
from nsalang.code.device import Device
from nsalang.code.launches import Launch
from nsalang.code.store import Global
from nsalang.lowering.program import Program

Form = Literal["triton", "tilelang-c", "tilelang-cuda"]
FORMS: tuple[Form, ...] = ("triton", "tilelang-c", "tilelang-cuda")
"""Triton's code for the target, interpreted; TileLang's C for the cpu; TileLang's device function for the target."""

Spoil = Callable[[Any], Any]
"""Another device function in place of one: how tests make a faulty one."""


@dataclass(slots=True)
class Codes:
    """What is made once of a program, for all its launches. ``spoil`` changes device functions before they are evaluated."""

    spoil: Spoil | None = None
    functions: dict[Program, Any] = field(default_factory=dict)
    libraries: dict[tuple[Program, bool], Any] = field(default_factory=dict)

    def function(self, program: Program) -> Any:
        if program not in self.functions:
            from nsalang.toolchain.tilelang_lower import device_function

            made = device_function(program)
            self.functions[program] = made if self.spoil is None else self.spoil(made)
        return self.functions[program]

    def library(self, program: Program, several: bool) -> Any:
        if (program, several) not in self.libraries:
            from nsalang.toolchain.tilelang_trace import Traced

            self.libraries[program, several] = Traced(program, several)
        return self.libraries[program, several]


@dataclass(frozen=True, slots=True)
class Call:
    """A launch of a variant: the code's arguments in order (tensors and numbers), the number of blocks, and where tensors and views lie."""

    compiled: Compiled
    launch: Launch
    arguments: tuple[Any, ...]
    programs: int
    places: Mapping[str, Place]

    def numbers(self) -> dict[str, Any]:
        """Arguments by name, a tensor as its address."""
        named = zip(self.compiled.program.arguments, self.arguments, strict=True)
        return {a.name: v.data_ptr() if isinstance(v, torch.Tensor) else v for a, v in named}


def run(call: Call, form: Form, codes: Codes) -> tuple[Accesses, Mapping[tuple[str, int, int], int]]:
    """What the code does, the tensors left as they were; for Triton, the generated line of each (kind, block, address)."""
    kept = {n: t.untyped_storage().clone() for n, t in call.launch.tensors.items()}  # type: ignore[no-untyped-call]
    try:
        match form:
            case "triton":
                return _triton(call)
            case "tilelang-c":
                return _c(call, codes), {}
            case "tilelang-cuda":
                return _cuda(call, codes), {}
    finally:
        for name, storage in kept.items():
            call.launch.tensors[name].untyped_storage().copy_(storage)


def _triton(call: Call) -> tuple[Accesses, Mapping[tuple[str, int, int], int]]:
    from nsalang.toolchain.triton_process import traced

    found = traced(call.compiled.program, call.programs, call.arguments)
    made = Accesses()
    lines: dict[tuple[str, int, int], int] = {}
    for kind, chosen in (("written", found["written"]), ("read", ~found["written"])):
        made.add("written" if kind == "written" else "read", found["program"][chosen], found["address"][chosen])
    made.seen |= {f"{w} {line}" for w, line in set(zip(found["written"].tolist(), found["line"].tolist(), strict=True))}
    for written, block, address, line in zip(*(found[n].tolist() for n in ("written", "program", "address", "line")), strict=True):
        lines.setdefault(("written" if written else "read", block, address), line)
    return made, lines


def _c(call: Call, codes: Codes) -> Accesses:
    code = codes.library(call.compiled.program, call.programs > 1)
    parts = [place.reach() for place in call.places.values()]
    rows: Array = code(call.numbers(), [p for p in parts if p[0] < p[1]])
    made = Accesses()
    for kind, flag in (("written", 1), ("read", 0)):
        chosen = rows[rows[:, 2] == flag]
        made.add("written" if kind == "written" else "read", chosen[:, 0], chosen[:, 1])
    made.seen.add("the text")
    return made


def _cuda(call: Call, codes: Codes) -> Accesses:
    function = codes.function(call.compiled.program)
    extents = {str(k): int(v) for k, v in function.attrs["thread_extent"].items() if str(k).startswith("threadIdx")}
    parts: list[tuple[int, Array]] = []
    for tensor in call.launch.tensors.values():
        storage = tensor.untyped_storage()
        if storage.nbytes():
            memory = (ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
            parts.append((storage.data_ptr(), np.ctypeslib.as_array(memory)))
    numbers = call.numbers()
    threads = int(np.prod(list(extents.values()) or [1]))
    return Device(function, numbers, numbers, call.programs, threads, Global(parts)).run()
