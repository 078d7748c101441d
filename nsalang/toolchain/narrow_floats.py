"""Float formats that numpy lacks: bf16 and the fp8 family as bit patterns, widened to float32 and rounded back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of one sign bit, an exponent and ``mantissa`` bits.

    ``lowest`` is the exponent of the least normal number; ``top`` the pattern to which too large values go (infinity in bf16 and f16, the
    largest finite number in fp8); ``largest`` the largest finite pattern; ``nan`` a NaN. ``fnuz``: no -0, no infinity, 0x80 the only NaN.
    """

    bits: int
    mantissa: int
    lowest: int
    top: int
    largest: int
    nan: int
    fnuz: bool = False

    @property
    def storage(self) -> type[np.unsignedinteger]:
        return np.uint16 if self.bits == 16 else np.uint8


FORMATS = {
    "bf16": Format(16, 7, -126, 0x7F80, 0x7F7F, 0x7FC0),
    "fp8e4nv": Format(8, 3, -6, 0x7E, 0x7E, 0x7F),
    "fp8e5": Format(8, 2, -14, 0x7B, 0x7B, 0x7E),
    "fp8e4b8": Format(8, 3, -7, 0x7F, 0x7F, 0x80, fnuz=True),
    "fp8e5b16": Format(8, 2, -15, 0x7F, 0x7F, 0x80, fnuz=True),
}
F16 = Format(16, 10, -14, 0x7C00, 0x7BFF, 0x7E00)


@cache
def _table(form: Format) -> NDArray[np.float32]:
    """The values of an 8-bit format by pattern."""
    code = np.arange(256)
    magnitude = code & 0x7F
    exponent = magnitude >> form.mantissa
    fraction = (magnitude & ((1 << form.mantissa) - 1)) + np.where(exponent > 0, 1 << form.mantissa, 0)
    value = np.ldexp(fraction.astype(np.float64), np.maximum(exponent, 1) - 1 + form.lowest - form.mantissa)
    if form.fnuz:
        value[0x80] = np.nan
    else:
        value[magnitude > form.largest] = np.nan
        if form.mantissa == 2:
            value[magnitude == form.largest + 1] = np.inf
    signed: NDArray[np.float32] = np.where(code >> 7, -value, value).astype(np.float32)
    return signed


def widen(data: Array, form: Format) -> NDArray[np.float32]:
    """Bit patterns to the float32 of the same value, exactly."""
    if form.bits == 16:
        wide: NDArray[np.float32] = (data.astype(np.uint32) << 16).view(np.float32)
        return wide
    values: NDArray[np.float32] = _table(form)[data.view(np.uint8)]
    return values


def narrow(values: Array, form: Format, toward_zero: bool = False) -> Array:
    """float32 or float64 values to bit patterns, rounded once: to the nearest, ties to even, or toward zero."""
    x = np.asarray(values)
    if form is FORMATS["bf16"] and x.dtype == np.float32 and not toward_zero:
        bits = np.ascontiguousarray(x).view(np.uint32)
        rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(x), np.uint16(form.nan), rounded.astype(np.uint16)).reshape(x.shape)
    x = x.astype(np.float64)
    magnitude = np.abs(x)
    magnitude = np.where(np.isfinite(x), magnitude, 0.0)
    exponent = np.where(magnitude == 0, form.lowest, np.maximum(np.frexp(magnitude)[1] - 1, form.lowest))
    scaled = np.ldexp(magnitude, form.mantissa - exponent)
    # The carry of a mantissa that rounds up to a power of two moves into the exponent by itself.
    digits = np.trunc(scaled) if toward_zero else np.rint(scaled)
    code = ((exponent - form.lowest).astype(np.int64) << form.mantissa) + digits.astype(np.int64)
    code = np.minimum(code, form.largest if toward_zero else form.top)
    code = np.where(np.isinf(x), form.top, code)
    sign = np.signbit(x) & (code != 0) if form.fnuz else np.signbit(x)
    code = np.where(sign, code | (1 << (form.bits - 1)), code)
    return np.where(np.isnan(x), form.nan, code).astype(form.storage)


def fused(a: Array, b: Array, c: Array) -> NDArray[np.float64]:
    """a * b + c of values with at most 24 significant bits, as a float64 that rounds to any format of at most 24 bits as the exact sum does.

    The product is exact; the sum is rounded to odd, which a second rounding to half the bits cannot notice.
    """
    product = a.astype(np.float64) * b.astype(np.float64)
    addend = c.astype(np.float64)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = np.ascontiguousarray(total).view(np.int64).reshape(total.shape)
    inexact = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    step = np.where((error > 0) == (total > 0), 1, -1)
    return (bits + np.where(inexact, step, 0)).view(np.float64)


def saturate(values: Array, bits: int, signed: bool) -> Array:
    """Floats to integers as the hardware converts: toward zero, NaN to 0, saturating; 8 bits are the low half of a saturated 16."""
    width = max(bits, 16)
    low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if signed else (0, 2**width - 1)
    kind = np.int64 if signed else np.uint64
    x = np.trunc(np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
    inside = (x > float(low)) & (x < float(high))
    out = np.where(inside, x, 0.0).astype(kind)
    out = np.where(x >= float(high), np.array(high, dtype=kind), np.where(x <= float(low), np.array(low, dtype=kind), out))
    return out.astype(np.dtype(f"{'int' if signed else 'uint'}{bits}"))
