"""Error bounds of the transcendental functions: what every backend and every device fulfils, and what the tests hold them to.

The reference is the exact value of the function at the argument in its working dtype, f32, of which they speak; in another they are as many units in the last place. They cover ``ex2.approx``, ``lg2.approx``, ``rsqrt.approx`` and what
is composed from them in f32, CUDA's ``expf`` and ``logf``, and their equals on HIP and CPUs. Everywhere a result below 2**-126 in magnitude
may be 0, and an argument below it may count as 0. ``+ - * /``, ``fma`` and ``sqrt`` are IEEE and have no entry; of an f16 or bf16 function
the f32 result is rounded once more.

This module imports torch in its functions only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsalang.ir.operations import UNARY, Bound, UnaryOp

if TYPE_CHECKING:
    from torch import Tensor

TINY = 2.0**-126
"""The least normal f32."""


BOUNDS: dict[UnaryOp, Bound] = {op: row.bound for op, row in UNARY.items() if row.bound is not None}


def agrees(name: UnaryOp, x: Tensor, got: Tensor) -> Tensor:
    """Where ``got`` is within the bound of the function ``name`` at the arguments ``x`` of a working dtype: a bool tensor. NaN agrees with NaN,
    an infinity with itself and with a value that the error may carry past the greatest number."""
    import torch

    working = torch.finfo(x.dtype)
    tiny, unit = working.tiny, working.eps / torch.finfo(torch.float32).eps

    def inside(argument: Tensor) -> Tensor:
        exactly = UNARY[name].tensor(argument)
        allowed = BOUNDS[name].error(argument, exactly) * unit + tiny
        same = (got == exactly.to(x.dtype)) | (got.isnan() & exactly.isnan())
        past = got.isinf() & (exactly.abs() + allowed >= working.max) & (got.sign() == exactly.sign())
        return same | past | (got.isfinite() & ((got.double() - exactly).abs() <= allowed))

    wide = x.double()
    return inside(wide) | ((wide.abs() < tiny) & inside(wide * 0))


def sum_error(count: int) -> float:
    """How far two f32 sums of the same ``count`` terms in any two orders may differ, relative to the sum of the terms' magnitudes."""
    return 2 * max(0, count - 1) * 2.0**-24
