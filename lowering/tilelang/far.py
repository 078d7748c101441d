"""Integers of 64 bits that TVM goes wrong at, and how a program says them instead."""

from __future__ import annotations

from nsalang import ir
from nsalang.base.dtypes import I32, I64
from nsalang.lowering.text import Text, call, number


def is_far(x: ir.Const) -> bool:
    """Whether TVM goes wrong at this number. By the ends of 64 bits its simplifier means infinity: it takes every integer to be less, and drops a
    remainder by them. Where an index fits 32 bits, one beyond them does not, and is still made one of 32."""
    return x.dtype is I64 and not I32.min <= x.value <= I32.max


def complement(x: ir.Const) -> Text:
    """An integer that TVM does not calculate with: it doesn't look behind a complement."""
    return call("T.bitwise_not", call(f"T.{x.dtype.tilelang}", number(~int(x.value))))
