"""Functions of a working dtype (f32) in what machines have, and short names for building such expressions. Part of `legalize`.

The exact ones are exact to the bit, -0, NaN, infinities and subnormals included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

from nsalang import ir
from nsalang.base.constants import round_to
from nsalang.base.dtypes import BOOL, I64, U32, DType
from nsalang.ir.operations import pow2_ceil_bits
from nsalang.passes.reals import Reals
from nsalang.passes.simplify import expression

TANH_SMALL = (-0.3333333134651184, 0.13332924246788025, -0.053875137120485306, 0.021116213873028755, -0.006276387255638838)
"""tanh(x) = x + x**3 * p(x**2) for |x| < 0.6 with an error below 2**-25, p in rising powers."""


class Holder(Protocol):
    """What an expansion needs of the pass: names for values that occur twice, and facts about floats."""

    reals: Reals

    def hold(self, value: ir.Expr, base: str) -> ir.Expr: ...


def real(value: float, like: ir.Expr) -> ir.Const:
    """A constant of the dtype of another float, rounded once."""
    return ir.const(value if math.isinf(value) else math.copysign(round_to(Fraction(value), like.dtype), value), like.dtype)


def u32(value: int) -> ir.Const:
    return ir.const(value, U32)


def raw(dtype: DType, x: ir.Expr) -> ir.Expr:
    return expression(ir.Cast(dtype, x.axes, x, "raw", span=x.span))


def op2(op: ir.BinaryOp, a: ir.Expr, b: ir.Expr) -> ir.Expr:
    """A Binary one of whose operands has all the axes."""
    dtype = BOOL if op in ir.COMPARISONS else a.dtype
    return expression(ir.Binary(dtype, a.axes if len(a.axes) >= len(b.axes) else b.axes, op, a, b, span=a.span))


def select(cond: ir.Expr, a: ir.Expr, b: ir.Expr) -> ir.Expr:
    """``a`` or ``b`` by a condition that has all the axes."""
    return expression(ir.Where(a.dtype, cond.axes, cond, a, b, span=a.span))


def bits_of(x: ir.Expr) -> ir.Expr:
    return ir.Bitcast(x.dtype.pattern, x.axes, x, span=x.span)


def from_bits(bits: ir.Expr, dtype: DType) -> ir.Expr:
    return ir.Bitcast(dtype, bits.axes, bits, span=bits.span)


def pow2_bits(x: ir.Expr, pass_: Holder) -> ir.Expr:
    """Bits of the least power of two that is not below |x|; NaN stays."""
    if isinstance(x, ir.Const):  # a number of Triton's text has no bits to reinterpret
        return u32(pow2_ceil_bits(float(x.value)))
    fact = pass_.reals.of(x)
    bits = bits_of(x)
    if fact.lo < 0 or fact.minus_zero:
        bits = op2("and", bits, u32(0x7FFFFFFF))
    if fact.nan:
        bits = pass_.hold(bits, "bits")
    above = op2("and", op2("add", bits, u32(0x7FFFFF)), u32(0x7F800000))
    return select(op2("gt", bits, u32(0x7F800000)), bits, above) if fact.nan else above


def rounded(x: ir.Expr, pass_: Holder) -> ir.Expr:
    """Half to even: below 2**23, in f32, an addition of 2**23 rounds; the sign is put back, for -0."""
    x = pass_.hold(x, "value")
    size = pass_.hold(ir.Unary(x.dtype, x.axes, "abs", x, span=x.span), "size")
    large = real(2.0**x.dtype.mantissa, x)
    whole = select(op2("lt", size, large), op2("sub", op2("add", size, large), large), size)
    pattern = x.dtype.pattern
    sign = op2("and", bits_of(x), ir.const(int(pattern.min) or 1 << (pattern.bits - 1), pattern))
    return from_bits(op2("or", bits_of(whole), sign), x.dtype)


def sigmoid(x: ir.Expr, pass_: Holder) -> ir.Expr:
    """exp(-|x|) never overflows, so that small results keep their relative error."""
    x = pass_.hold(x, "value")
    minus = ir.Unary(x.dtype, x.axes, "neg", ir.Unary(x.dtype, x.axes, "abs", x, span=x.span), span=x.span)
    small = pass_.hold(ir.Unary(x.dtype, x.axes, "exp", minus, span=x.span), "small")
    return op2("div", select(op2("ge", x, real(0.0, x)), real(1.0, x), small), op2("add", small, real(1.0, x)))


def tanh(x: ir.Expr, pass_: Holder) -> ir.Expr:
    x = pass_.hold(x, "value")
    size = pass_.hold(ir.Unary(x.dtype, x.axes, "abs", x, span=x.span), "size")
    square = pass_.hold(op2("mul", x, x), "square")
    p: ir.Expr = real(TANH_SMALL[-1], x)
    for c in reversed(TANH_SMALL[:-1]):
        p = ir.Fma(x.dtype, x.axes, p, square, real(c, x), span=x.span)
    near = ir.Fma(x.dtype, x.axes, op2("mul", p, square), x, x, span=x.span)
    twice = ir.Unary(x.dtype, x.axes, "exp", op2("mul", size, real(2.0, x)), span=x.span)
    far = pass_.hold(op2("sub", real(1.0, x), op2("div", real(2.0, x), op2("add", twice, real(1.0, x)))), "far")
    signed = select(op2("lt", x, real(0.0, x)), ir.Unary(x.dtype, x.axes, "neg", far, span=x.span), far)
    return select(op2("lt", size, real(0.6, x)), near, signed)


def trunc(x: ir.Expr, pass_: Holder) -> ir.Expr:
    x = pass_.hold(x, "value")
    below, above = (ir.Unary(x.dtype, x.axes, op, x, span=x.span) for op in ("ceil", "floor"))
    return select(op2("lt", x, real(0.0, x)), below, above)


def ceil_log2(x: ir.Expr, pass_: Holder) -> ir.Expr:
    return op2("sub", raw(I64, op2("shr", pow2_bits(x, pass_), u32(23))), ir.const(127))


def pow2_ceil(x: ir.Expr, pass_: Holder) -> ir.Expr:
    return from_bits(pow2_bits(x, pass_), x.dtype)


EXPANSIONS: dict[ir.UnaryOp, Callable[[ir.Expr, Holder], ir.Expr]] = {
    "sigmoid": sigmoid, "tanh": tanh, "pow2_ceil": pow2_ceil, "ceil_log2": ceil_log2, "trunc": trunc, "round": rounded,
}  # fmt: skip
"""What machines do not have (``machine`` in nsalang.ir.operations), of a working dtype."""
