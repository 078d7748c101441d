"""What the tests of both lowerings do with a kernel on one backend: its code, checked for its looks, run on the CPU, compiled for devices."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from machine_kernels import finished

from nsalang import ir
from nsalang.base.target import parse_target
from nsalang.host.extents import evaluate
from nsalang.lowering.program import Binding, Generated
from nsalang.toolchain.backends import BACKEND, BackendName


@dataclasses.dataclass(frozen=True)
class Lowered:
    """``formatted``: whether what is run is checked for ruff's format, too; ``barrier``, ``load``, ``store``: what stands in the code for them."""

    name: BackendName
    formatted: bool
    barrier: str
    load: str
    store: str

    def lower(self, k: ir.Kernel, target: str = "cpu", formatted: bool = True) -> Generated:
        on = parse_target(target)
        k = dataclasses.replace(k, schedule=dataclasses.replace(k.schedule, backend=self.name))
        made = BACKEND[self.name].lower(finished(k, on), on)
        lines = made.program.source.split("\n")
        assert all(len(line) <= 140 for line in lines), made.program.source
        for arguments in (["check", "--select", "E,F,W,I"], ["format", "--diff"])[: 1 + formatted]:
            ruff = subprocess.run(
                [sys.executable, "-m", "ruff", *arguments, "--isolated", "--line-length", "140", "-"],
                input=made.program.source, text=True, capture_output=True, check=False,
            )  # fmt: skip
            assert not ruff.returncode, ruff.stdout + made.program.source
        return made

    def run(self, k: ir.Kernel, tensors: dict[str, torch.Tensor], dims: dict[str, int], scalars: dict[str, Any] | None = None) -> None:
        made = self.lower(k, formatted=self.formatted)
        scalars = scalars or {}
        sources: dict[str, Callable[[Binding], Any]] = {
            "tensor": lambda b: tensors[b.name],
            "dim": lambda b: dims[b.name],
            "stride": lambda b: tensors[b.name].stride(b.axis),
            "scalar": lambda b: scalars[b.name],
        }
        programs = 1
        for extent in made.grid:
            programs *= int(evaluate(extent, dims, scalars))
        # Triton's interpreter runs the source itself.
        files = BACKEND[self.name].compile(made.program) if self.name == "tilelang" else {}
        BACKEND[self.name].load(made.program, files)(programs, [sources[b.kind](b) for b in made.bindings])

    def apply(self, k: ir.Kernel, z: torch.Tensor, scalars: dict[str, Any] | None = None, **tensors: torch.Tensor) -> torch.Tensor:
        self.run(k, {**tensors, "z": z}, {"M": len(z)}, scalars)
        return z

    def compiles(self, k: ir.Kernel, *targets: str) -> None:
        """Becomes code for devices. TileLang's is compiled as far as that needs no compiler of the device: all but the first would cost as much again."""
        for target in targets:
            program = self.lower(k, target).program
            if self.name == "triton":
                assert BACKEND["triton"].compile(program)
            elif target == targets[0]:
                assert BACKEND["tilelang"].emit(program, target.split(":")[0])


TRITON = Lowered("triton", True, "tl.debug_barrier()", "tl.load(", "tl.store")
TILELANG = Lowered("tilelang", False, "T.sync_threads()", "= T.if_then_else(", "y[m + i")
