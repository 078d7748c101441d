"""Dtypes as TileLang writes them, and numbers that have one."""

from __future__ import annotations

import math

from nsalang import ir
from nsalang.base.dtypes import F32, I32, I64, DType
from nsalang.lowering.text import Text, call, number, prefix


def dtype(x: DType) -> str:
    return f'"{x.tilelang}"'


def cast(x: Text, to: DType) -> Text:
    return call("T.cast", x, dtype(to))


def is_far(x: ir.Const) -> bool:
    """Whether TVM goes wrong at this number. By the ends of 64 bits its simplifier means infinity: it takes every integer to be less, and drops a
    remainder by them. Where an index fits 32 bits, one beyond them does not, and is still made one of 32."""
    return x.dtype is I64 and not I32.min <= x.value <= I32.max


def typed(x: ir.Const) -> Text:
    """A constant that has its dtype wherever it stands."""
    if x.dtype.is_float and math.isinf(x.value):
        infinity = prefix("-", call("T.infinity", '"float32"')) if x.value < 0 else call("T.infinity", '"float32"')
        return infinity if x.dtype is F32 else cast(infinity, x.dtype)
    if is_far(x):
        return complement(x)
    return call(f"T.{x.dtype.tilelang}", number(float(x.value) if x.dtype.is_float else x.value))


def complement(x: ir.Const) -> Text:
    """An integer that TVM does not calculate with: it doesn't look behind a complement."""
    return call("T.bitwise_not", call(f"T.{x.dtype.tilelang}", number(~int(x.value))))
