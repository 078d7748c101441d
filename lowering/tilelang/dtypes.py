"""Dtypes as TileLang writes them, and numbers that have one."""

from __future__ import annotations

import math

from nsalang import ir
from nsalang.base.dtypes import F32, F64, DType
from nsalang.lowering.text import Text, call, number, prefix
from nsalang.lowering.tilelang.far import complement, is_far


def dtype(x: DType) -> str:
    return f'"{x.tilelang}"'


def cast(x: Text, to: DType) -> Text:
    return call("T.cast", x, dtype(to))


def typed(x: ir.Const) -> Text:
    """A constant that has its dtype wherever it stands."""
    if x.dtype.is_float and math.isinf(x.value):
        infinity = prefix("-", call("T.infinity", '"float32"')) if x.value < 0 else call("T.infinity", '"float32"')
        return infinity if x.dtype is F32 else cast(infinity, x.dtype)
    if is_far(x):
        return complement(x)
    if x.dtype is F64:  # T.float64 takes what an f32 holds
        return call("T.FloatImm", dtype(x.dtype), number(float(x.value)))
    return call(f"T.{x.dtype.tilelang}", number(float(x.value) if x.dtype.is_float else x.value))
