"""Generated Triton programs under the sanitizer of triton-viz, which asks Z3 for an address outside the tensors. Started by test_memory_edges.py.

    python triton_viz_worker.py LIE FILE:KERNEL …

It runs nothing, so results are not looked at. Ends with 1 and a report at the first address that is outside.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton_viz
from edge_cases import cases, load, strides_of
from edge_worker import told
from triton_viz.clients import Sanitizer
from triton_viz.clients.sanitizer.sanitizer import SymbolicExpr

from nsalang.lowering.program import Program
from nsalang.toolchain import Files, Launch, triton_compile

made = tempfile.TemporaryDirectory(prefix="nsalang-")


def accept_rounding_modes() -> None:
    """triton-viz 3.0 refuses the rounding mode of a conversion to fp8, which no address depends on."""
    before = SymbolicExpr.from_value

    def from_value(var: Any) -> Any:
        return before(0 if type(var).__name__ == "ROUNDING_MODE" else var)

    SymbolicExpr.from_value = staticmethod(from_value)


def loader(lie: str) -> Any:
    def load_program(program: Program, files: Files) -> Launch:
        path = Path(made.name, f"program{len(os.listdir(made.name))}.py")
        path.write_text(program.source)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)

        def launch(programs: int, arguments: Sequence[Any]) -> None:
            traced = triton_viz.trace(client=Sanitizer())(getattr(module, program.entry))
            traced[(programs,)](*told(program, arguments, lie))

        return launch

    return load_program


def main(lie: str, names: Sequence[str]) -> int:
    accept_rounding_modes()
    triton_compile.load_program = loader(lie)
    for name in names:
        path, _, entry = name.rpartition(":")
        found = cases(load(entry, Path(path)), "cpu", 4 if lie == "none" else 24)
        if lie != "none":
            found = [next(c for c in found if all(t.numel() for t in c.inputs.values()))]  # where nothing is, nothing is outside
        for case in found:
            for layout in ("end", "rows") if lie == "none" else ("end",):
                placed = {n: empty(tuple(t.shape), t.dtype, layout).copy_(t) for n, t in case.inputs.items()}
                placed |= {n: empty(shape, dtype, layout) for n, (shape, dtype) in case.outputs.items()}
                print(f"case {case.title} {layout}", flush=True)
                case.kernel(**placed, **case.scalars, backend="triton", target="cpu")
    print("end", flush=True)
    return 0


def empty(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> torch.Tensor:
    return torch.empty_strided(shape, strides_of(shape, layout), dtype=dtype)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
