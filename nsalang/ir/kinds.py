"""Kinds of float as bits of a set: which of NaN, the infinities, the zeros, and other numbers of either sign a value can be."""

from __future__ import annotations

import math

NAN, NINF, NEG, NZERO, PZERO, POS, PINF = (1 << i for i in range(7))
"""NaN, then from -inf to +inf."""
ALL = 127
ZERO, INF = NZERO | PZERO, NINF | PINF
NEGATIVE, POSITIVE = NINF | NEG | NZERO, PZERO | POS | PINF
MEMBERS = (NAN, NINF, NEG, NZERO, PZERO, POS, PINF)
EXACT = {NINF: -math.inf, NZERO: -0.0, PZERO: 0.0, PINF: math.inf}


def kind_of(x: float) -> int:
    if math.isnan(x):
        return NAN
    if math.isinf(x):
        return PINF if x > 0 else NINF
    if x == 0:
        return NZERO if math.copysign(1.0, x) < 0 else PZERO
    return POS if x > 0 else NEG


def opposite(kinds: int) -> int:
    """The kinds of ``-x``."""
    return sum(1 << (0 if k == NAN else 7 - i) for i, k in enumerate(MEMBERS) if kinds & k)


def within(lo: float, hi: float, nan: bool, minus_zero: bool) -> int:
    """The kinds of what lies between two numbers, or is NaN, or is -0, where that is so."""
    found = (NAN if nan else 0) | (NZERO if minus_zero else 0)
    found |= (NINF if lo == -math.inf else 0) | (NEG if lo < 0 and hi > -math.inf else 0)
    found |= PZERO if lo <= 0 <= hi else 0
    return found | (POS if hi > 0 and lo < math.inf else 0) | (PINF if hi == math.inf else 0)
