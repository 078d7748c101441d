"""Loops over lanes of which no two lie side by side in a vector, whatever TileLang tries.

TileLang plans the width of the vectors of each loop, and again from each loop of a program that shares variables in registers with it: for every
width from 128 lanes down, it asks Z3 whether all lanes of a vector take the same way. Where the lanes go ways of their own, every answer is no, and
dozens of loops make minutes of that. A loop whose innermost extent is 1 is not asked, and gets the same code.
"""

from __future__ import annotations

import math

from nsalang import ir
from nsalang.base.dtypes import BOOL
from nsalang.ir.machine import dim_divisor


def goes_lane_by_lane(kernel: ir.Kernel, s: ir.Stmt, axis: str) -> bool:
    """Whether neighbours along ``axis``, the innermost of a loop, can never be one vector: conditions tell them apart, or they are gathered."""
    return any(_gathers(n, axis) if isinstance(n, ir.Load | ir.Store) else False for n in ir.walk(s)) or any(
        _parts(kernel, c, axis) for n in ir.walk(s) for c in _conditions(n)
    )


def _conditions(node: ir.Node) -> tuple[ir.Expr, ...]:
    match node:
        case ir.Where():
            return (node.cond,)
        case ir.Load() | ir.Store() if node.mask is not None:
            return (node.mask,)
        case _:
            return ()


def _gathers(node: ir.Load | ir.Store, axis: str) -> bool:
    return any(_has_data(i, axis) for i in node.indices)


def _has_data(x: ir.Expr, axis: str) -> bool:
    """Whether a value has something in it that was computed or loaded for each lane of an axis."""
    return any(isinstance(n, ir.Var | ir.Load) and axis in n.axes for n in ir.walk(x))


def _parts(kernel: ir.Kernel, condition: ir.Expr, axis: str) -> bool:
    """Whether a condition tells neighbours along an axis apart, as far as TileLang can see."""
    match condition:
        case ir.Binary(op="and" | "or", a=a, b=b) if condition.dtype is BOOL:
            return _parts(kernel, a, axis) or _parts(kernel, b, axis)
        case ir.Unary(op="not", x=x):
            return _parts(kernel, x, axis)
        case _ if _has_data(condition, axis):
            return True
        case ir.Binary(a=a, b=b) if condition.op in ir.COMPARISONS and a.dtype.is_integer:
            # Lanes part at a place of which nothing is known, so not at a multiple of two of them only.
            return axis in condition.axes and math.gcd(_divisor(kernel, a, axis), _divisor(kernel, b, axis)) == 1
        case _:
            return False


def _divisor(kernel: ir.Kernel, x: ir.Expr, axis: str) -> int:
    """A number that divides an integer in the first lane of an axis. 2 where what it does with the lanes is not known."""
    match x:
        case ir.Const(value=value):
            return abs(int(value))
        case ir.Dim(name=name):
            return dim_divisor(kernel, name)
        case ir.Index(name=name) if kernel.schedule.grouped(name) == axis or name == axis:
            info, length = ir.axes_of(kernel)[axis], kernel.schedule.length(axis)
            start = _divisor(kernel, info.start, axis)
            return start if info.kind == "span" else math.gcd(start, length)
        case ir.Binary(op="mul", a=a, b=b) if axis not in x.axes:
            return _divisor(kernel, a, axis) * _divisor(kernel, b, axis)
        case ir.Binary(op="add" | "sub" | "min" | "max", a=a, b=b):
            return math.gcd(_divisor(kernel, a, axis), _divisor(kernel, b, axis))
        case ir.Cast(x=inner):
            return _divisor(kernel, inner, axis)
        case _:
            return 2 if axis in x.axes else 1
