"""Runs cases on tensors that lie between pages that no one may touch: an access outside ends this process. Started by test_memory_edges.py.

    python edge_worker.py BACKEND COUNT LIE FILE:KERNEL …

Prints a line before each call and one after it. LIE is ``none``, or a wrong program on purpose: ``after`` tells the code of one row or column
too many, ``before`` turns the strides round.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
from edge_cases import LAYOUTS, NoSizes, call, cases, extent_in_bytes, load

from nsalang.base.source import NsaError
from nsalang.base.target import parse_target
from nsalang.build.pipeline import Meaning, typed
from nsalang.lowering.program import Program
from nsalang.proof.prover import settle
from nsalang.toolchain import Files, Launch

PAGE = os.sysconf("SC_PAGESIZE")
ANONYMOUS, FORBIDDEN, ALLOWED = 0x22, 0, 3
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Pages:
    """Tensors between forbidden pages, until ``free``."""

    def __init__(self, at_start: bool) -> None:
        self.at_start = at_start
        self.areas: list[tuple[int, int]] = []

    def place(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, strides: tuple[int, ...]) -> torch.Tensor:
        size = extent_in_bytes(shape, strides, dtype.itemsize)
        if not size:
            return torch.empty(shape, dtype=dtype)
        inner = -(-size // PAGE) * PAGE
        first = _libc.mmap(None, inner + 2 * PAGE, FORBIDDEN, ANONYMOUS, -1, 0)
        assert first not in (None, ctypes.c_void_p(-1).value), "mmap failed"
        self.areas.append((first, inner + 2 * PAGE))
        assert _libc.mprotect(first + PAGE, inner, ALLOWED) == 0
        address = first + PAGE if self.at_start else first + PAGE + inner - size
        buffer = (ctypes.c_char * size).from_address(address)
        flat = torch.frombuffer(buffer, dtype=dtype)
        assert flat.data_ptr() == address
        return flat.as_strided(shape, strides)

    def free(self) -> None:
        for address, size in self.areas:
            _libc.munmap(address, size)
        self.areas.clear()


def told(program: Program, arguments: Sequence[Any], lie: str) -> list[Any]:
    """The arguments, or what a wrong compiler would have made of them."""
    out = list(arguments)
    for i, about in enumerate(program.arguments):
        if lie == "after" and about.name.isupper() and about.kind != "pointer":
            out[i] += 1  # a dimension
        elif lie == "before" and "_stride" in about.name:
            out[i] = -out[i]
    return out


def run_triton(program: Program, programs: int, arguments: Sequence[Any]) -> None:
    """As triton_process.run, in this process and on the tensors where they lie."""
    from triton.runtime.interpreter import interpreter_builder

    from nsalang.toolchain import triton_worker
    from nsalang.toolchain.triton_types import signature

    kernel = triton_worker._load(program.source, program.entry, _loaded)
    numbers = [[k, v if isinstance(v, int | float) else v.data_ptr()] for k, v in zip(signature(program), arguments, strict=True)]
    values = triton_worker._arguments({"arguments": numbers}, 0)
    interpreter_builder.set_grid_dim(programs, 1, 1)
    for i in range(programs):
        interpreter_builder.set_grid_idx(i, 0, 0)
        kernel(*values)


_loaded: dict[str, Any] = {}


def main(backend: str, count: int, lie: str, names: Sequence[str]) -> int:
    import numpy as np

    from nsalang.toolchain import tilelang_compile, triton_compile, triton_interpreter, triton_process

    triton_interpreter.install()
    np.seterr(all="ignore")
    triton_process.run = run_triton
    for module in (triton_compile, tilelang_compile):
        module.load_program = _lying(module.load_program, lie)  # type: ignore[attr-defined]
    wrong = 0
    for name in names:
        path, _, entry = name.rpartition(":")
        try:
            made = cases(load(entry, Path(path)), "cpu", count)
        except NsaError as error:
            print(f"skip {entry}: {error.diagnostics[0].code}", flush=True)
            continue
        except NoSizes:
            # A kernel whose promises contradict each other. One that is right has sizes.
            kernel = load(entry, Path(path))
            if all(r.verdict == "PROVED" for r in settle(typed(kernel.unit, Meaning.of(parse_target("cpu"), {}, {}, frozenset())))):
                raise
            print(f"skip {entry}: no sizes", flush=True)
            continue
        for case in made:
            for layout in LAYOUTS if lie == "none" else ("end", "start"):
                print(f"case {case.title} {layout} {backend}", flush=True)
                pages = Pages(at_start=layout == "start")
                try:
                    problems = call(case, pages.place, layout, backend, "cpu")
                except NsaError as error:
                    # A kernel whose obligations fail, or that a backend cannot lower, is no case; every code but these is a fault of this file.
                    code = error.diagnostics[0].code
                    if code == "NSA0521":
                        print(f"refused {layout}", flush=True)  # a view that this layout of its base does not allow
                        continue
                    if code[3:5] not in ("08", "04") and code != "NSA0602":
                        raise
                    print(f"skip {entry}: {code}", flush=True)
                    break
                finally:
                    pages.free()
                wrong += bool(problems) and lie == "none"
                print(f"done {'; '.join(problems) if problems and lie == 'none' else 'ok'}", flush=True)
            else:
                continue
            break
    print("end", flush=True)
    return 1 if wrong else 0


def _lying(load_program: Any, lie: str) -> Any:
    def load(program: Program, files: Files) -> Launch:
        launch: Launch = load_program(program, files)
        return lambda programs, arguments: launch(programs, told(program, arguments, lie))

    return load


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
