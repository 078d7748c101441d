"""Exact constant expressions: literals, dtype limits and const parameters are rationals until they meet a value, and are rounded once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from nsalang.base.dtypes import DType
from nsalang.base.source import NsaError, Span


@dataclass(frozen=True, slots=True)
class Exact:
    """A constant: a rational, ``inf`` or ``-inf``, or a bool. ``is_float`` tells ``1.0`` from ``1``."""

    value: Fraction | float | bool
    is_float: bool = False

    @property
    def is_bool(self) -> bool:
        return isinstance(self.value, bool)

    @property
    def is_int(self) -> bool:
        return not self.is_bool and not self.is_float

    def __str__(self) -> str:
        if isinstance(self.value, Fraction):
            return str(self.value.numerator) if self.value.denominator == 1 and not self.is_float else repr(float(self.value))
        return str(self.value)


def exact(value: int | float | bool) -> Exact:
    """A Python number as a constant; a float by its shortest decimal text, so that 0.1 is 1/10."""
    if isinstance(value, bool):
        return Exact(value)
    if isinstance(value, int):
        return Exact(Fraction(value))
    return Exact(Fraction(repr(value)) if math.isfinite(value) else value, is_float=True)


def round_to(value: Fraction | float, dtype: DType) -> float:
    """The value of ``dtype`` nearest to a rational, ties to even; past the largest it is inf (the largest itself for fp8)."""
    if isinstance(value, float):  # inf
        return value
    if value == 0:
        return 0.0
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    exponent = max(exponent, 1 - dtype.bias)
    step = Fraction(2) ** (exponent - dtype.mantissa)
    rounded = round(magnitude / step) * step
    if rounded > dtype.max:
        rounded_float = float(dtype.max) if dtype.is_fp8 else math.inf
    else:
        rounded_float = float(rounded)
    return rounded_float if value > 0 else -rounded_float


def arithmetic(op: str, a: Exact, b: Exact, span: Span) -> Exact:
    """``a op b`` for the arithmetic and bit operators, exactly. Raises NSA0326 where there is no such number."""
    if a.is_bool or b.is_bool:
        if op in ("&", "|", "^") and a.is_bool and b.is_bool:
            return Exact({"&": a.value and b.value, "|": a.value or b.value, "^": a.value != b.value}[op])
        raise NsaError.at("NSA0301", f"'{op}' has no meaning for a bool constant", span)
    is_float = a.is_float or b.is_float or op == "/"
    x, y = a.value, b.value
    if isinstance(x, float) or isinstance(y, float):
        return _infinite(op, float(x), float(y), span)
    assert isinstance(x, Fraction) and isinstance(y, Fraction)
    try:
        return Exact(_rational(op, x, y), is_float)
    except ZeroDivisionError:
        raise NsaError.at("NSA0326", "this constant expression divides by zero", span) from None
    except ArithmeticError as problem:
        raise NsaError.at("NSA0326", str(problem), span) from None


def _rational(op: str, x: Fraction, y: Fraction) -> Fraction:
    match op:
        case "+":
            return x + y
        case "-":
            return x - y
        case "*":
            return x * y
        case "/":
            return x / y
        case "//":
            return Fraction(x // y)
        case "%":
            return x % y
        case "**":
            if y.denominator != 1:
                raise ArithmeticError("the exponent of '**' must be an integer, so that the result is exact")
            if abs(y) > 4096:
                raise ArithmeticError("this power is too large")
            return x ** int(y)
    if x.denominator != 1 or y.denominator != 1:
        raise ArithmeticError(f"'{op}' needs integers")
    i, j = int(x), int(y)
    if op in ("<<", ">>") and not 0 <= j <= 4096:
        raise ArithmeticError("this shift amount is out of range")
    return Fraction({"<<": lambda: i << j, ">>": lambda: i >> j, "&": lambda: i & j, "|": lambda: i | j, "^": lambda: i ^ j}[op]())


def _infinite(op: str, x: float, y: float, span: Span) -> Exact:
    result = {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "/": lambda: x / y if y else math.nan}.get(op, lambda: math.nan)()
    if math.isnan(result):
        raise NsaError.at("NSA0326", "this constant expression is not a number", span)
    return Exact(result if math.isinf(result) else Fraction(result), is_float=True)


def compare(op: str, a: Exact, b: Exact) -> bool:
    """``a op b`` for a comparison."""
    x, y = a.value, b.value
    match op:
        case "<":
            return x < y
        case "<=":
            return x <= y
        case ">":
            return x > y
        case ">=":
            return x >= y
        case "==":
            return x == y
        case "!=":
            return x != y
    raise AssertionError(op)


def negate(a: Exact) -> Exact:
    """``-a``."""
    assert not a.is_bool
    return Exact(-a.value, a.is_float)


def python_value(value: Exact) -> int | float | bool:
    if value.is_bool:
        return bool(value.value)
    return float(value.value) if value.is_float else int(value.value)
