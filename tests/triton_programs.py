"""Triton programs as text, and how to run one."""

import torch

from nsalang.lowering.program import Argument, Program
from nsalang.toolchain.triton_compile import compile_program, load_program

HEAD = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"
TORCH = {
    "bool": torch.bool, "i8": torch.int8, "u8": torch.uint8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64, "f16": torch.float16,
    "bf16": torch.bfloat16, "f32": torch.float32, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in TORCH.items()}
TRITON = {
    "i8": "tl.int8", "u8": "tl.uint8", "i16": "tl.int16", "i32": "tl.int32", "i64": "tl.int64", "f16": "tl.float16", "bf16": "tl.bfloat16",
    "f32": "tl.float32", "e4m3": "tl.float8e4nv", "e5m2": "tl.float8e5",
}  # fmt: skip


def program(body: str, *arguments: Argument, target: str = "cpu", before: str = "") -> Program:
    names = ", ".join(a.name for a in arguments)
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    return Program("triton", target, "kernel", f"{before}{HEAD}def kernel({names}):\n{lines}", arguments)


def run(body: str, grid: int = 1, before: str = "", **values: object) -> None:
    """Run a kernel whose arguments are the given tensors and numbers, by name."""
    kinds = {bool: "bool", int: "i32", float: "f32"}
    arguments = [
        Argument(name, "pointer", NAMES[v.dtype]) if isinstance(v, torch.Tensor) else Argument(name, kinds[type(v)])  # type: ignore[arg-type]
        for name, v in values.items()
    ]
    made = program(body, *arguments, before=before)
    load_program(made, compile_program(made))(grid, list(values.values()))
