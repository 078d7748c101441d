"""How many lanes of an axis are in or out of a tensor together."""

from __future__ import annotations

import math

from nsalang import ir
from nsalang.ir.machine import dim_divisor


def group(kernel: ir.Kernel, axis: str, dim: str) -> int:
    """How many lanes of an axis, from a multiple of that number on, are all below a dimension or none; 1 where nothing is known."""
    info = ir.axes_of(kernel)[axis]
    starts_at_zero = isinstance(info.start, ir.Const) and info.start.value == 0
    divisor = dim_divisor(kernel, dim)
    return math.gcd(divisor, kernel.schedule.length(axis), 16) if starts_at_zero and info.kind in ("grid", "loop") else 1


def divisor(kernel: ir.Kernel, x: ir.Expr) -> int:
    """A number of which an integer is seen to be a multiple."""
    match x:
        case ir.Const(value=value):
            return abs(int(value))
        case ir.Dim(name=name):
            return dim_divisor(kernel, name)
        case ir.Binary(op="mul", a=a, b=b):
            return divisor(kernel, a) * divisor(kernel, b)
        case ir.Binary(op="add" | "sub" | "min" | "max", a=a, b=b):
            return math.gcd(divisor(kernel, a), divisor(kernel, b))
        case ir.Cast(x=inner):
            return divisor(kernel, inner)
        case _:
            return 1
