"""Where a mathematical integer leaves 64 bits: its lanes, found with 64-bit tensors alone.

Each function gives the lanes on which the exact result of an operation is no i64 (None: on none of them); what the operation wrapped to is the
caller's. Sums and scans add the high and the low halves of their terms apart, which is exact for fewer than 2**31 terms.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST, MOST = -(2**63), 2**63 - 1
_HALF = 2**31


def some(lanes: Tensor) -> Tensor | None:
    """Lanes, or None where there are none."""
    return lanes if bool(lanes.any()) else None


def either(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a | b


def arithmetic(op: str, a: Tensor, b: Tensor, result: Tensor) -> Tensor | None:
    """``add``, ``sub`` and ``mul``."""
    if a.dim() == 0 and b.dim() == 0:
        x, y = int(a), int(b)
        exact = x + y if op == "add" else x - y if op == "sub" else x * y
        return None if LEAST <= exact <= MOST else torch.tensor(True)
    if op == "add":
        return some(((a ^ result) & (b ^ result)) < 0)
    if op == "sub":
        return some(((a ^ b) & (a ^ result)) < 0)
    if bool(_short(a).all()) and bool(_short(b).all()):
        return None
    factor = torch.where((a == 0) | (a == -1), 1, a)
    by_quotient = torch.div(result, factor, rounding_mode="trunc") != b
    return some(torch.where(a == 0, False, torch.where(a == -1, b == LEAST, by_quotient | (torch.remainder(result, factor) != 0))))


def _short(x: Tensor) -> Tensor:
    return (x >= -_HALF) & (x <= _HALF)


def negated(x: Tensor) -> Tensor | None:
    """``-x`` and ``abs(x)``."""
    return some(x == LEAST)


def quotient(a: Tensor, b: Tensor) -> Tensor | None:
    """``a // b``."""
    return some((a == LEAST) & (b == -1))


def shifted(x: Tensor, amount: Tensor) -> Tensor | None:
    """``x << amount``, the amount within 0 .. 63."""
    return some(((x << amount) >> amount) != x)


def _carried(high: Tensor, low: Tensor) -> Tensor | None:
    whole = high + (low >> 32)
    return some((whole < -_HALF) | (whole >= _HALF))


def summed(x: Tensor, dims: tuple[int, ...]) -> Tensor | None:
    """``x.sum(dims)``."""
    return _carried((x >> 32).sum(dims), (x & 0xFFFFFFFF).sum(dims))


def scanned(x: Tensor, dim: int) -> Tensor | None:
    """``x.cumsum(dim)``."""
    return _carried((x >> 32).cumsum(dim), (x & 0xFFFFFFFF).cumsum(dim))


def ascending(start: int, count: int, step: int) -> tuple[Tensor, Tensor | None]:
    """``start, start + step, …``: the values of an index variable, and those of its lanes that have none."""
    last = start + max(0, count - 1) * step
    lanes = torch.arange(count) * step
    if last <= MOST:
        return lanes + start, None
    return lanes + start, lanes > MOST - start
