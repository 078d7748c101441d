"""Operations on mathematical integers, as folding, the prover, counterexamples and launches compute them. Bringing a result into a dtype is up to them."""

from __future__ import annotations

import operator

from nsalang.ir import BinaryOp

_COMPARED = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne}


def binary(op: BinaryOp, a: int, b: int, bits: int) -> int | None:
    """The integer that an operation gives; ``bits``: of the dtype of ``a``.

    None where there is none: for a divisor of 0, for a shift by less than 0 or by ``bits`` or more, and for ``div`` and comparisons.
    """
    match op:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "floordiv":
            return a // b if b else None
        case "mod":
            return a % b if b else None
        case "tdiv":
            return divide(a, b) if b else None
        case "tmod":
            return a - b * divide(a, b) if b else None
        case "and":
            return a & b
        case "or":
            return a | b
        case "xor":
            return a ^ b
        case "shl":
            return a << b if 0 <= b < bits else None
        case "shr":
            return a >> b if 0 <= b < bits else None
        case "min":
            return min(a, b)
        case "max":
            return max(a, b)
        case _:
            return None


def divide(a: int, b: int) -> int:
    """``a / b`` towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def compare(op: BinaryOp, a: float, b: float) -> bool:
    """A comparison of two numbers or bools; ``op`` is one of ``ir.COMPARISONS``."""
    return bool(_COMPARED[op](a, b))
