"""Operations on constants, by their rows in ir/operations.py and ir/operators.py. None: the result is no constant (NaN, or undefined)."""

from __future__ import annotations

import math
from fractions import Fraction

from nsalang.base.constants import round_to
from nsalang.base.dtypes import BOOL, E2M1, E8M0, DType
from nsalang.ir import COMPARISONS, BinaryOp, UnaryOp, integers
from nsalang.ir.operations import UNARY
from nsalang.ir.operators import BINARY

Number = int | float | bool


def rounded(exact: Fraction, like: float, dtype: DType) -> float:
    """An exact result in ``dtype``; ``like`` has its sign where it is zero."""
    return round_to(exact, dtype) if exact else math.copysign(0.0, like)


def integer(value: int, dtype: DType) -> int | None:
    """An integer result: unsigned ones wrap, signed ones must fit."""
    if dtype.kind == "unsigned":
        return value % (1 << dtype.bits)
    return value if int(dtype.min) <= value <= int(dtype.max) else None


def unary(op: UnaryOp, x: Number, dtype: DType) -> Number | None:
    """``dtype`` is that of the result, and of ``x``."""
    row = UNARY[op]
    if not dtype.is_float:
        if row.integer is None or isinstance(x, float):
            return None
        return bool(row.integer(int(x))) if dtype is BOOL else integer(row.integer(int(x)), dtype)
    if row.real is None or row.bound is not None:
        return None
    value = row.real(float(x))
    # The root in double is never so near a tie of a shorter format that rounding it again could matter.
    return rounded(Fraction(value), value, dtype) if math.isfinite(value) else _not_nan(value)


def binary(op: BinaryOp, a: Number, b: Number, operand: DType) -> Number | None:
    """``operand`` is the dtype of ``a``; comparisons give a bool."""
    if op in COMPARISONS:
        return integers.compare(op, a, b)
    if operand is BOOL:
        exact = integers.binary(op, int(a), int(b), 1)
        return None if exact is None else bool(exact)
    if operand.is_integer:
        exact = integers.binary(op, int(a), int(b), operand.bits)
        return None if exact is None else integer(exact, operand)
    function = BINARY[op].real
    if function is None:
        return None
    value = function(float(a), float(b))
    return rounded(Fraction(value), value, operand) if math.isfinite(value) else _not_nan(value)


def _not_nan(x: float) -> float | None:
    return None if math.isnan(x) else x


def cast(x: Number, source: DType, dtype: DType, wraps: bool) -> Number | None:
    if dtype in (E8M0, E2M1) or source in (E8M0, E2M1):
        return None
    if dtype is BOOL:
        return x != 0
    if dtype.is_integer:
        if not source.is_float:
            return (
                wrap(int(x), dtype) if wraps or source.kind == dtype.kind == "unsigned" else int(x) if dtype.min <= x <= dtype.max else None
            )
        return int(dtype.max if x > dtype.max else dtype.min if x < dtype.min else math.trunc(x))
    if not math.isinf(x):
        x = rounded(Fraction(x), float(x) if source.is_float else 0.0, dtype.working)
    if math.isinf(x):
        return math.copysign(float(dtype.max), x) if dtype.is_fp8 else float(x)
    return rounded(Fraction(x), float(x), dtype)


def wrap(x: int, dtype: DType) -> int:
    """Modulo 2**bits."""
    low = x % (1 << dtype.bits)
    return low - (1 << dtype.bits) if low > int(dtype.max) else low
