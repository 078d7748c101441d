"""What TVM's operations give, on numpy arrays of lanes, as C has them on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nsalang.code.accesses import Array
from nsalang.ir.operations import UNARY
from nsalang.toolchain.narrow_floats import fused


class Opaque(Exception):
    """A value that is not evaluated, as of a matrix product."""


def truncated(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    rest = np.fmod(a, b)
    return ((a - rest) // b).astype(a.dtype)


def remainder(a: Array, b: Array) -> Array:
    return np.fmod(a, b)


def _amount(a: Array, b: Array) -> Array:
    return (b & (a.dtype.itemsize * 8 - 1)).astype(a.dtype)


BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": truncated, "Mod": remainder, "FloorDiv": np.floor_divide, "FloorMod": np.mod,
    "Max": np.fmax, "Min": np.fmin, "EQ": np.equal, "NE": np.not_equal, "LT": np.less, "LE": np.less_equal, "GT": np.greater,
    "GE": np.greater_equal, "And": np.logical_and, "Or": np.logical_or,
}  # fmt: skip


def _of_each(real: Callable[[float], float]) -> Callable[[Array], Array]:
    return lambda x: np.vectorize(real, otypes=[x.dtype])(x)


CALLS: dict[str, Callable[..., Array]] = {
    **{op: _of_each(row.real) for op, row in UNARY.items() if row.bound is not None and row.real is not None},
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor, "bitwise_not": np.bitwise_not,
    "shift_left": lambda a, b: np.left_shift(a, _amount(a, b)), "shift_right": lambda a, b: np.right_shift(a, _amount(a, b)),
    "truncdiv": truncated, "truncmod": remainder, "floordiv": np.floor_divide, "floormod": np.mod, "exp": np.exp, "exp2": np.exp2, "log": np.log,
    "log2": np.log2, "sqrt": np.sqrt, "ieee_fsqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "tanh": np.tanh, "fabs": np.abs, "abs": np.abs,
    "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint, "nearbyint": np.rint, "isnan": np.isnan, "isinf": np.isinf,
    "ieee_add": np.add, "ieee_sub": np.subtract, "ieee_mul": np.multiply, "ieee_fdiv": np.divide,
    "ieee_fmaf": lambda a, b, c, *_: fused(a, b, c).astype(np.float32), "likely": lambda x: x, "copysign": np.copysign,
}  # fmt: skip

REDUCERS: dict[str, Callable[[Array, Array], Array]] = {
    "SumOp": np.add, "MaxOp": np.fmax, "MinOp": np.fmin, "BitOrOp": np.bitwise_or, "BitAndOp": np.bitwise_and, "BitXorOp": np.bitwise_xor,
}  # fmt: skip


def all_reduced(reducer: str, threads: int, scale: int, offset: int, value: Array, block: int) -> Array:
    """``tl::AllReduce``: lanes of ``threads`` in a row, combined by butterflies down to a distance of ``scale``."""
    if reducer not in REDUCERS:
        raise Opaque(reducer)
    lanes = np.arange(len(value))
    inside = lanes % block - offset
    distance = threads // 2
    while distance >= scale:
        other = lanes - inside + (inside ^ distance)
        value = REDUCERS[reducer](value, value[np.clip(other, 0, len(value) - 1)]).astype(value.dtype)
        distance //= 2
    return value


def reinterpreted(value: Array, dtype: Any) -> Array:
    if np.dtype(dtype).itemsize != value.dtype.itemsize:
        raise Opaque("a reinterpretation of another size")
    return np.ascontiguousarray(value).view(dtype)
