"""TileLang programs written by hand, and how the tests run them on the CPU."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import torch

from nsalang.lowering.program import Argument, Program
from nsalang.toolchain.tilelang_compile import compile_program, load_program

NAMES = {
    "f32": ("float32", torch.float32), "bf16": ("bfloat16", torch.bfloat16), "f16": ("float16", torch.float16),
    "e4m3": ("float8_e4m3fn", torch.float8_e4m3fn), "e5m2": ("float8_e5m2", torch.float8_e5m2), "i32": ("int32", torch.int32),
    "i64": ("int64", torch.int64), "u8": ("uint8", torch.uint8), "i8": ("int8", torch.int8), "bool": ("bool", torch.bool),
}  # fmt: skip


def program(body: str, *tensors: tuple[str, str], target: str = "cpu", aligned: bool = False) -> Program:
    """A kernel over tensors (name, dtype) of M elements each, in blocks of 128, of which ``body`` is what one block does from ``m`` on."""
    parameters = ", ".join(f"{name}_ptr: T.handle" for name, _ in tensors)
    buffers = "\n".join(f'{name} = T.make_tensor({name}_ptr, (M,), "{NAMES[dtype][0]}", (1,))' for name, dtype in tensors)
    source = f"""import tilelang.language as T


def entry():
    @T.prim_func
    def kernel({parameters}, M: T.int32):
{textwrap.indent(buffers, "        ")}
        with T.Kernel(T.ceildiv(M, 128), threads=128) as pid:
            m = pid * 128
{textwrap.indent(textwrap.dedent(body).strip(), "            ")}

    return kernel
"""
    arguments = (*(Argument(name, "pointer", dtype, aligned) for name, dtype in tensors), Argument("M", "i32"))
    return Program("tilelang", target, "entry", source, arguments)


def elementwise(outputs: Sequence[tuple[str, str, str]], *inputs: tuple[str, str]) -> Program:
    """``outputs``: (name, dtype, expression over the inputs' names, which stand for their elements)."""
    names = [name for name, _ in inputs]
    lines = ["for i in T.Parallel(128):", "    if m + i < M:"]
    for name, _, expression in outputs:
        for x in names:
            expression = expression.replace(f"<{x}>", f"{x}[m + i]")
        lines.append(f"        {name}[m + i] = {expression}")
    return program("\n".join(lines), *inputs, *((name, dtype) for name, dtype, _ in outputs))


def apply(made: Program, *inputs: torch.Tensor, outputs: int = 1) -> list[torch.Tensor]:
    """Compile, load and run on the CPU: the outputs, which are the last tensors of the program."""
    dtypes = [NAMES[a.dtype][1] for a in made.arguments if a.kind == "pointer"][-outputs:]
    results = [torch.zeros(inputs[0].numel(), dtype=torch.uint8 if d.itemsize == 1 else d).view(d) for d in dtypes]
    launch = load_program(made, compile_program(made))
    launch(-(-inputs[0].numel() // 128), [*inputs, *results, inputs[0].numel()])
    return results
