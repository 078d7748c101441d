"""Where integers of 64 bits leave their range, on torch CPU tensors and without wider ones.

Each function gives the result modulo 2**64 and the lanes on which the mathematical integer is another (None: none). Torch's own division dies of
-2**63 by -1, so that pair never reaches it.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

LEAST, MOST = -(2**63), 2**63 - 1
LOW = 2**32 - 1

Checked = tuple[Tensor, Tensor | None]


def _some(lanes: Tensor) -> Tensor | None:
    return lanes if bool(lanes.any()) else None


def either(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a | b


def add(a: Tensor, b: Tensor) -> Checked:
    total = a + b
    return total, _some(((a ^ total) & (b ^ total)) < 0)


def sub(a: Tensor, b: Tensor) -> Checked:
    total = a - b
    return total, _some(((a ^ b) & (a ^ total)) < 0)


def mul(a: Tensor, b: Tensor) -> Checked:
    product = a * b
    if not bool(((a.double() * b.double()).abs() >= 2.0**62).any()):
        return product, None
    # A product that wrapped is off by a multiple of 2**64, so that divided by one factor it does not give the other.
    factor = torch.where((a == 0) | (a == -1), 1, a)
    back = torch.div(torch.where(factor == a, product, 0), factor, rounding_mode="trunc")
    wrapped = (factor == a) & (back != b)
    return product, _some(wrapped | ((a == -1) & (b == LEAST)))


def neg(x: Tensor) -> Checked:
    return -x, _some(x == LEAST)


def absolute(x: Tensor) -> Checked:
    return x.abs(), _some(x == LEAST)


def shl(a: Tensor, amount: Tensor) -> Checked:
    """``amount`` within 0 .. 63."""
    shifted = a << amount
    return shifted, _some((shifted >> amount) != a)


def divided(op: Literal["floordiv", "tdiv", "mod", "tmod"], a: Tensor, b: Tensor) -> Checked:
    """``b`` is not 0. The remainder of a division by -1 is 0, also that of -2**63, which has no quotient."""
    minus = b == -1
    by = torch.where(minus, 1, b)
    if op == "mod" or op == "tmod":
        return (torch.remainder(a, by) if op == "mod" else torch.fmod(a, by)), None
    quotient = torch.div(a, by, rounding_mode="floor" if op == "floordiv" else "trunc")
    return torch.where(minus, -a, quotient), _some(minus & (a == LEAST))


def total(x: Tensor, dims: tuple[int, ...]) -> Checked:
    """The sum over ``dims``: the halves of 32 bits are added apart, of which 2**31 lanes have room."""
    return x.sum(dims), _beyond((x >> 32).sum(dims), (x & LOW).sum(dims))


def running(x: Tensor, dim: int) -> Checked:
    """The running sum along ``dim``."""
    return x.cumsum(dim), _beyond((x >> 32).cumsum(dim), (x & LOW).cumsum(dim))


def _beyond(high: Tensor, low: Tensor) -> Tensor | None:
    top = high + (low >> 32)
    return _some((top < -(2**31)) | (top >= 2**31))


def border(n: Tensor, parts: Tensor, g: Tensor) -> Checked:
    """Where part ``g`` of ``n`` things in ``parts`` even parts begins; nowhere where there is no part, or ``n`` is negative."""
    wrong = _some((parts <= 0) | (n < 0))
    parts = parts.clamp(min=1)
    rows, beyond = mul(g, torch.div(n, parts, rounding_mode="floor"))
    start, over = add(rows, torch.minimum(g, torch.remainder(n, parts)))
    return start, either(wrong, either(beyond, over))
