"""Dtypes as Triton writes them, and numbers that have one."""

from __future__ import annotations

from nsalang import ir
from nsalang.base.dtypes import BOOL, F32, I32, DType
from nsalang.lowering.text import Text, call, method, number
from nsalang.lowering.triton.state import Printer

LITERALS = (I32, F32, BOOL)
"""The types that Triton gives to Python numbers."""


def dtype(p: Printer, x: DType) -> str:
    """A dtype as Triton writes it; e4m3 is the format that the target has."""
    return p.target.facts.e4m3.triton if x.name == "e4m3" else x.triton


def cast(p: Printer, x: Text, to: DType) -> Text:
    return method(x, "to", dtype(p, to))


def typed(p: Printer, x: ir.Const) -> Text:
    """A constant that has its dtype wherever it stands."""
    subnormal = isinstance(x.value, float) and 0 < abs(x.value) < 2.0**-126
    if x.dtype in LITERALS and not subnormal:
        return number(x.value)
    return call("tl.full", "()", number(x.value), dtype(p, x.dtype))
