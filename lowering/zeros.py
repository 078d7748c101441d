"""Which values can be -0.0: a sum of nothing else must be +0.0, which machines do not do by themselves."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet

from nsalang import ir


def never_negative_zero(x: ir.Expr, positive: AbstractSet[str]) -> bool:
    """Whether it shows that no lane of a float value is -0.0. ``positive``: variables of which that is known."""
    match x:
        case ir.Const(value=value):
            return math.copysign(1.0, value) > 0 or value != 0
        case ir.Var(name=name):
            return name in positive
        case ir.Unary(op="exp" | "exp2" | "abs"):
            return True
        case ir.Binary(op="mul", a=a, b=b):
            return a == b
        case ir.Where(a=a, b=b):
            return never_negative_zero(a, positive) and never_negative_zero(b, positive)
        case ir.Full(value=value):
            return never_negative_zero(value, positive)
        case ir.Cast(x=inner):
            return not inner.dtype.is_float or never_negative_zero(inner, positive)
        case _:
            return False
