"""How Triton writes the types of a program's arguments."""

from __future__ import annotations

from nsalang.base.dtypes import ALL, DType
from nsalang.base.target import parse_target
from nsalang.lowering.program import Program

_SHORT = {"bfloat": "bf", "float": "fp", "uint": "u", "int": "i"}


def _spelled(dtype: DType) -> str:
    """``fp32`` for ``tl.float32``."""
    name = dtype.triton.removeprefix("tl.")
    long = next(word for word in _SHORT if name.startswith(word))
    return _SHORT[long] + name.removeprefix(long)


def signature(program: Program) -> list[str]:
    """The arguments in Triton's spelling: ``*bf16``, ``i32``, ``fp32``, ``i1``, ... ``e4m3`` is the format that the target has."""
    known = {**ALL, "e4m3": parse_target(program.target).facts.e4m3}
    return ["*" + _spelled(known[a.dtype]) if a.kind == "pointer" else _spelled(known[a.kind]) for a in program.arguments]
