"""Floats of 8 bits: what they become where a target has no instructions for them.

Software formats live in u8: while `legalize` runs, a value keeps its dtype and the bits are reached through Bitcast; `retype` then lets u8 take
the place of the dtype everywhere.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TypeVar

from nsalang import ir
from nsalang.base.dtypes import E2M1, E4M3, E5M2, E8M0, F16, F32, U8, U16, U32, DType
from nsalang.base.source import NsaError
from nsalang.base.target import Target
from nsalang.passes.functions import Holder
from nsalang.passes.hoist import same
from nsalang.passes.simplify import expression, value_of

Stored = TypeVar("Stored", ir.Tensor, ir.View)


class Narrow:
    """The 8-bit floats of one target."""

    def __init__(self, target: Target) -> None:
        self.software = (E8M0,) if target.facts.fp8 else (E8M0, E4M3, E5M2)
        self.clamps = target.facts.clamps_fp8

    def tensor(self, tensor: Stored) -> Stored:
        """The parameter or the view with the storage that the machine sees. Raises NSA0411 for a format that cannot be stored."""
        if tensor.dtype is E2M1:
            raise NsaError.at("NSA0411", f"'{tensor.name}' can't hold e2m1: this format is stored in pairs, in u8", tensor.span)
        return dataclasses.replace(tensor, storage=U8) if tensor.dtype in self.software else tensor

    # ------------------------------------------------------------------------------------------------------------- conversions

    def widen(self, x: ir.Expr, pass_: Holder) -> ir.Expr:
        """A float in f32: exact."""
        dtype = x.dtype
        if dtype not in self.software and dtype is not E2M1:
            return ir.Cast(F32, x.axes, x, "raw", span=x.span)
        known = value_of(x)
        if known is not None:
            return ir.const(float(known), F32, x.span)
        if dtype is E2M1:
            raise NsaError.at("NSA0411", "e2m1 can't be converted to f32 yet", x.span)
        code = ir.Bitcast(U8, x.axes, x, span=x.span)
        if dtype is E5M2:
            # e5m2 is the upper half of f16.
            return _cast(F32, ir.Bitcast(F16, x.axes, _op("shl", _cast(U16, code), ir.const(8, U16)), span=x.span))
        if dtype is E8M0:
            bits = pass_.hold(_cast(U32, code), "code")
            normal = _where(_op("eq", bits, _u(0)), _u(0x00400000), _op("shl", bits, _u(23)))
            return _float(_where(_op("eq", bits, _u(255)), _u(0x7FC00000), normal))
        # As f16 the value is 2**8 too small, its subnormals included; 0x7F alone is no number.
        half = pass_.hold(_cast(U16, code), "code")
        size = pass_.hold(_op("and", half, _h(0x7F)), "size")
        bits = _op("or", _op("shl", _op("and", half, _h(0x80)), _h(8)), _op("shl", size, _h(7)))
        number = _op("mul", _cast(F32, ir.Bitcast(F16, x.axes, bits, span=x.span)), ir.const(256.0, F32))
        return _where(_op("eq", size, _h(0x7F)), _float(_u(0x7FC00000)), number)

    def shrink(self, x: ir.Expr, dtype: DType, pass_: Holder) -> ir.Expr:
        """f32 to an 8-bit float: nearest even, saturating (inf too), NaN stays NaN."""
        if dtype is E2M1:
            raise NsaError.at("NSA0411", "a conversion to e2m1 is not lowered yet", x.span)
        if dtype in self.software:
            code = self._encode_e8m0(x, pass_) if dtype is E8M0 else self._encode(x, dtype, pass_)
            return ir.Bitcast(dtype, x.axes, _cast(U8, code), span=x.span)
        most = float(dtype.max)
        fact = pass_.reals.of(x)
        if self.clamps and not fact.within(-most, most):
            x = pass_.hold(x, "value")
            high, low = ir.const(most, F32), ir.const(-most, F32)
            if fact.nan:
                x = _where(_op("gt", x, high), high, _where(_op("lt", x, low), low, x))
            else:
                x = _op("min", _op("max", x, low), high)
        return ir.Cast(dtype, x.axes, x, "raw", span=x.span)

    def _encode(self, x: ir.Expr, dtype: DType, pass_: Holder) -> ir.Expr:
        """The code of an f32, as u32."""
        shift = 23 - dtype.mantissa
        least_normal = (127 + 1 - dtype.bias) << 23
        # Adding this number leaves the bits of a subnormal, rounded, at the low end.
        magic = 2.0 ** (1 - dtype.bias - dtype.mantissa + 23)
        top = {E4M3: 0x7E, E5M2: 0x7B}[dtype]
        fact = pass_.reals.of(x)
        x = pass_.hold(x, "value")
        bits = pass_.hold(ir.Bitcast(U32, x.axes, x, span=x.span), "bits")
        size = pass_.hold(_op("and", bits, _u(0x7FFFFFFF)), "size")
        tie = _op("and", _op("shr", size, _u(shift)), _u(1))
        rounded = _op("add", _op("add", size, _u((1 << (shift - 1)) - 1)), tie)
        normal = _op("sub", _op("shr", rounded, _u(shift)), _u((127 - dtype.bias) << dtype.mantissa))
        if not fact.within(-float(dtype.max), float(dtype.max)) or fact.nan:
            normal = _op("min", normal, _u(top))
        shifted = _op("add", ir.Unary(F32, x.axes, "abs", x, span=x.span), ir.const(magic, F32))
        small = _op("sub", ir.Bitcast(U32, x.axes, shifted, span=x.span), _u(_bits(magic)))
        code = _where(_op("lt", size, _u(least_normal)), small, normal)
        if fact.nan:
            code = _where(_op("gt", size, _u(0x7F800000)), _u(0x7F), code)
        return _op("or", code, _op("and", _op("shr", bits, _u(24)), _u(0x80)))

    def _encode_e8m0(self, x: ir.Expr, pass_: Holder) -> ir.Expr:
        """The exponent of the nearest power of two from 2**-127 to 2**127, as u32; a tie goes up, except below 2**-126."""
        x = pass_.hold(x, "value")
        fitting = _op("min", _op("max", x, ir.const(2.0**-127, F32)), ir.const(2.0**127, F32))
        bits = pass_.hold(ir.Bitcast(U32, x.axes, fitting, span=x.span), "bits")
        half = _where(_op("lt", bits, _u(0x00800000)), _u(0x3FFFFF), _u(0x400000))
        code = _op("shr", _op("add", bits, half), _u(23))
        return _where(_op("eq", x, x), code, _u(255))

    # ---------------------------------------------------------------------------------------------------------------- retyping

    def retype(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        """u8 in place of every software format."""
        made = tuple(ir.rewrite(s, self._retyped) for s in body)
        return body if same(made, body) else made

    def _retyped(self, node: ir.Node) -> ir.Node:
        if not isinstance(node, ir.Value):
            return node
        if isinstance(node, ir.Const) and node.dtype in self.software:
            return ir.Const(U8, (), code_of(float(node.value), node.dtype), span=node.span)
        if node.dtype in self.software:
            node = dataclasses.replace(node, dtype=U8)
        if isinstance(node, ir.Bitcast) and node.dtype is node.x.dtype:
            return node.x
        return node


def code_of(value: float, dtype: DType) -> int:
    """The code of a value that an 8-bit format has."""
    if dtype is E8M0:
        return int(math.log2(value)) + 127
    exponent = math.frexp(value)[1]
    sign = 0x80 if math.copysign(1.0, value) < 0 else 0
    if math.isinf(value):
        return sign | 0x7C
    exponent = max(exponent - 1, 1 - dtype.bias)
    steps = int(abs(value) / 2.0 ** (exponent - dtype.mantissa))
    return sign | (((exponent + dtype.bias) << dtype.mantissa) + steps - (1 << dtype.mantissa) if value else 0)


def _bits(value: float) -> int:
    """The f32 bits of a power of two."""
    return (math.frexp(value)[1] - 1 + 127) << 23


def _u(value: int) -> ir.Const:
    return ir.const(value, U32)


def _h(value: int) -> ir.Const:
    return ir.const(value, U16)


def _cast(dtype: DType, x: ir.Expr) -> ir.Expr:
    return expression(ir.Cast(dtype, x.axes, x, "raw", span=x.span))


def _op(op: ir.BinaryOp, a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return expression(ir.binary(op, a, b, a.axes or b.axes))


def _where(cond: ir.Expr, a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return expression(ir.Where(a.dtype, cond.axes, cond, a, b, span=cond.span))


def _float(bits: ir.Expr) -> ir.Expr:
    return ir.Bitcast(F32, bits.axes, bits, span=bits.span)
