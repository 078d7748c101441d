"""What each binary operator means, one row each, as nsalang/ir/operations.py has it for functions and reductions."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nsalang.base.dtypes import BOOL, DType
from nsalang.ir.operations import FLOATS, INTEGERS, Ends

Comparison: TypeAlias = Literal["lt", "le", "gt", "ge", "eq", "ne"]
BinaryOp: TypeAlias = Literal[
    "add", "sub", "mul", "div", "floordiv", "mod", "tdiv", "tmod", "and", "or", "xor", "shl", "shr", "min", "max", Comparison,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Binary:
    """A binary operator.

    ``takes``: the dtypes of its operands (a shift's amount is any integer). ``integer``: its value on mathematical integers, or bools as 0 and 1,
    and for the bits of their dtype; None where there is none. ``ends``: between which integers a result lies for operands between two others each;
    None where nothing is known. ``real``: its value on floats in double precision, NaN where there is none: rounded to f32, f16 or bf16 it is the
    exact one, rounded once. ``compares``: a comparison, of numbers or bools. Each is None where the operator takes no such operands or gives no such
    result. ``machine``: whether machines have it; `legalize` expands the others.
    """

    takes: tuple[DType, ...]
    integer: Callable[[int, int, int], int | None] | None = None
    ends: Callable[[Ends, Ends], Ends | None] | None = None
    real: Callable[[float, float], float] | None = None
    compares: Callable[[float, float], bool] | None = None
    machine: bool = True


def divide(a: int, b: int) -> int:
    """``a / b`` towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _divide_reals(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if not a or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _extreme(pick: Callable[[Iterable[tuple[float, float]]], tuple[float, float]]) -> Callable[[float, float], float]:
    """The smaller or larger of two floats: NaN is ignored, and +0 > -0."""

    def real(a: float, b: float) -> float:
        if math.isnan(a) or math.isnan(b):
            return b if math.isnan(a) else a
        return pick((x, math.copysign(1.0, x)) for x in (a, b))[0]

    return real


def _corners(function: Callable[[int, int], int], a: Iterable[int], b: Iterable[int]) -> Ends:
    found = [function(x, y) for x in a for y in b]
    return min(found), max(found)


def _quotient(function: Callable[[int, int], int]) -> Callable[[Ends, Ends], Ends]:
    def ends(a: Ends, b: Ends) -> Ends:
        # The quotient is extreme at a corner, with divisors next to zero as further corners.
        divisors = {y for y in (*b, -1, 1) if b[0] <= y <= b[1] and y != 0}
        return _corners(function, a, divisors) if divisors else (0, 0)

    return ends


def _remainder(truncates: bool) -> Callable[[Ends, Ends], Ends]:
    def ends(a: Ends, b: Ends) -> Ends:
        size = max(abs(b[0]), abs(b[1]), 1) - 1
        if a[0] >= 0 and (truncates or b[0] >= 0):
            return 0, min(size, a[1])
        if truncates:
            return -size, size if a[1] > 0 else 0
        return 0 if b[0] >= 0 else -size, 0 if b[1] <= 0 else size

    return ends


def _and(a: Ends, b: Ends) -> Ends | None:
    tops = [e[1] for e in (a, b) if e[0] >= 0]
    return (0, min(tops)) if tops else None


def _or(a: Ends, b: Ends) -> Ends | None:
    return None if a[0] < 0 or b[0] < 0 else (0, (1 << max(a[1], b[1]).bit_length()) - 1)


def _shl(a: Ends, b: Ends) -> Ends | None:
    return None if b[0] < 0 or b[1] > 63 else _corners(operator.lshift, a, b)


def _shr(a: Ends, b: Ends) -> Ends | None:
    return None if b[0] < 0 else _corners(lambda x, y: x >> min(y, 63), a, b)


_NUMBERS, _BITS, _EVERY = (*INTEGERS, *FLOATS), (BOOL, *INTEGERS), (BOOL, *INTEGERS, *FLOATS)


BINARY: dict[BinaryOp, Binary] = {
    "add": Binary(_NUMBERS, lambda a, b, bits: a + b, lambda a, b: (a[0] + b[0], a[1] + b[1]), operator.add),
    "sub": Binary(_NUMBERS, lambda a, b, bits: a - b, lambda a, b: (a[0] - b[1], a[1] - b[0]), operator.sub),
    "mul": Binary(_NUMBERS, lambda a, b, bits: a * b, lambda a, b: _corners(operator.mul, a, b), operator.mul),
    "div": Binary(FLOATS, real=_divide_reals),
    "floordiv": Binary(INTEGERS, lambda a, b, bits: a // b if b else None, _quotient(operator.floordiv), machine=False),
    "mod": Binary(INTEGERS, lambda a, b, bits: a % b if b else None, _remainder(False), machine=False),
    "tdiv": Binary(INTEGERS, lambda a, b, bits: divide(a, b) if b else None, _quotient(divide)),
    "tmod": Binary(INTEGERS, lambda a, b, bits: a - b * divide(a, b) if b else None, _remainder(True)),
    "and": Binary(_BITS, lambda a, b, bits: a & b, _and),
    "or": Binary(_BITS, lambda a, b, bits: a | b, _or),
    "xor": Binary(_BITS, lambda a, b, bits: a ^ b, _or),
    "shl": Binary(INTEGERS, lambda a, b, bits: a << b if 0 <= b < bits else None, _shl),
    "shr": Binary(INTEGERS, lambda a, b, bits: a >> b if 0 <= b < bits else None, _shr),
    "min": Binary(_NUMBERS, lambda a, b, bits: min(a, b), lambda a, b: (min(a[0], b[0]), min(a[1], b[1])), _extreme(min)),
    "max": Binary(_NUMBERS, lambda a, b, bits: max(a, b), lambda a, b: (max(a[0], b[0]), max(a[1], b[1])), _extreme(max)),
    "lt": Binary(_NUMBERS, compares=operator.lt),
    "le": Binary(_NUMBERS, compares=operator.le),
    "gt": Binary(_NUMBERS, compares=operator.gt),
    "ge": Binary(_NUMBERS, compares=operator.ge),
    "eq": Binary(_EVERY, compares=operator.eq),
    "ne": Binary(_EVERY, compares=operator.ne),
}
