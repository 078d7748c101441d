"""Error bounds of the transcendental functions: what every backend and every device fulfils, and what the tests hold them to.

The reference is the exact value of the function at the f32 argument. They cover ``ex2.approx``, ``lg2.approx``, ``rsqrt.approx`` and what
is composed from them in f32, CUDA's ``expf`` and ``logf``, and their equals on HIP and CPUs. Everywhere a result below 2**-126 in magnitude
may be 0, and an argument below it may count as 0. ``+ - * /``, ``fma`` and ``sqrt`` are IEEE and have no entry; of an f16 or bf16 function
the f32 result is rounded once more.

This module imports torch in its functions only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TINY = 2.0**-126


@dataclass(frozen=True, slots=True)
class Bound:
    """``text`` is for people; ``error(x, y)`` the allowed absolute error at the arguments ``x`` with the exact results ``y``, both f64."""

    text: str
    error: Callable[[Tensor, Tensor], Tensor]


BOUNDS: dict[str, Bound] = {
    "exp": Bound("relative (|x| + 4) * 2**-23", lambda x, y: y.abs() * (x.abs() + 4) * 2.0**-23),
    "exp2": Bound("relative 2**-21", lambda x, y: y.abs() * 2.0**-21),
    "log": Bound("2**-20 and relative 2**-21", lambda x, y: y.abs() * 2.0**-21 + 2.0**-20),
    "log2": Bound("2**-20 and relative 2**-21", lambda x, y: y.abs() * 2.0**-21 + 2.0**-20),
    "rsqrt": Bound("relative 2**-21", lambda x, y: y.abs() * 2.0**-21),
    "sigmoid": Bound("relative (|x| + 8) * 2**-23", lambda x, y: y.abs() * (x.abs() + 8) * 2.0**-23),
    "tanh": Bound("2**-21", lambda x, y: (y * 0) + 2.0**-21),
}


def agrees(name: str, x: Tensor, got: Tensor) -> Tensor:
    """Where ``got`` is within the bound of the function ``name`` at the f32 arguments ``x``: a bool tensor. NaN agrees with NaN, an
    infinity with itself and with a value that the error may carry past f32.max."""
    import torch

    from nsalang.interp.numerics import exact

    def inside(argument: Tensor) -> Tensor:
        exactly = exact(name, argument)
        allowed = BOUNDS[name].error(argument, exactly) + TINY
        same = (got == exactly.float()) | (got.isnan() & exactly.isnan())
        past = got.isinf() & (exactly.abs() + allowed >= torch.finfo(torch.float32).max) & (got.sign() == exactly.sign())
        return same | past | (got.isfinite() & ((got.double() - exactly).abs() <= allowed))

    wide = x.double()
    return inside(wide) | ((wide.abs() < TINY) & inside(wide * 0))


def sum_error(count: int) -> float:
    """How far two f32 sums of the same ``count`` terms in any two orders may differ, relative to the sum of the terms' magnitudes."""
    return 2 * max(0, count - 1) * 2.0**-24
