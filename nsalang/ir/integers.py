"""Operations on mathematical integers, as folding, the prover, counterexamples and launches compute them. Bringing a result into a dtype is up to them."""

from __future__ import annotations

from nsalang.ir.operators import BINARY, BinaryOp


def binary(op: BinaryOp, a: int, b: int, bits: int) -> int | None:
    """The integer that an operation gives; ``bits``: of the dtype of ``a``.

    None where there is none: for a divisor of 0, for a shift by less than 0 or by ``bits`` or more, and for ``div`` and comparisons.
    """
    function = BINARY[op].integer
    return None if function is None else function(a, b, bits)


def compare(op: BinaryOp, a: float, b: float) -> bool:
    """A comparison of two numbers or bools; ``op`` is one of ``ir.COMPARISONS``."""
    function = BINARY[op].compares
    assert function is not None, op
    return bool(function(a, b))
