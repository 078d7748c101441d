"""How Triton writes the types of a program's arguments."""

from __future__ import annotations

from nsalang.base.target import parse_target
from nsalang.lowering.program import Program

_SCALARS = {"i32": "i32", "i64": "i64", "f32": "fp32", "bool": "i1"}
_ELEMENTS = {
    "bool": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "u8": "u8", "u16": "u16", "u32": "u32", "f16": "fp16", "bf16": "bf16",
    "f32": "fp32", "e4m3": "fp8e4nv", "e5m2": "fp8e5", "e8m0": "u8", "e2m1": "u8",
}  # fmt: skip


def signature(program: Program) -> list[str]:
    """The arguments in Triton's spelling: ``*bf16``, ``i32``, ``fp32``, ``i1``, ... ``e4m3`` is the format that the target has."""
    e4m3 = "fp8e4b8" if parse_target(program.target).facts.e4m3.bias == 8 else "fp8e4nv"
    out = []
    for argument in program.arguments:
        if argument.kind == "pointer":
            out.append("*" + (e4m3 if argument.dtype == "e4m3" else _ELEMENTS[argument.dtype]))
        else:
            out.append(_SCALARS[argument.kind])
    return out
