"""Expressions over dimensions and scalars, on the host: their value at a launch, their text, and which dimension an extent determines."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from nsalang import ir
from nsalang.base.dtypes import F32, DType
from nsalang.ir import integers
from nsalang.ir.operations import UNARY
from nsalang.ir.operators import BINARY

Number: TypeAlias = "int | float | bool"


class Undefined(ArithmeticError):
    """An integer operation that has no value, told as "divides by zero" or "shifts by -1"."""


def rounded(value: float, dtype: DType) -> float:
    """The value of a float dtype nearest to ``value``. f32 without torch, which a launch needs at every float scalar."""
    if dtype is F32:
        return ctypes.c_float(value).value
    import torch

    return float(torch.tensor(value, dtype=torch.float64).to(getattr(torch, dtype.torch)))


def _settle(value: Number, dtype: DType) -> Number:
    """Bring a result into its dtype: unsigned integers wrap, floats round; signed integers are mathematical."""
    if dtype.kind == "unsigned":
        return int(value) & ((1 << dtype.bits) - 1)
    if dtype.is_float:
        return rounded(float(value), dtype)
    return value


def evaluate(expr: ir.Expr, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> Number:
    """The value of an expression without axes and without loads. Raises Undefined where an integer operation has none."""
    match expr:
        case ir.Const(value=value):
            return value
        case ir.Dim(name=name):
            return dims[name]
        case ir.Scalar(name=name):
            return scalars[name]
        case ir.Unary(op=op, x=x, dtype=dtype):
            return _settle(_unary(op, evaluate(x, dims, scalars)), dtype)
        case ir.Binary(op="and", a=a, b=b) if a.dtype.kind == "bool":
            return bool(evaluate(a, dims, scalars)) and bool(evaluate(b, dims, scalars))
        case ir.Binary(op="or", a=a, b=b) if a.dtype.kind == "bool":
            return bool(evaluate(a, dims, scalars)) or bool(evaluate(b, dims, scalars))
        case ir.Binary(op=op, a=a, b=b, dtype=dtype):
            return _settle(_binary(op, evaluate(a, dims, scalars), evaluate(b, dims, scalars), a.dtype), dtype)
        case ir.Where(cond=cond, a=a, b=b):
            return evaluate(a if evaluate(cond, dims, scalars) else b, dims, scalars)
        case ir.Cast(x=x, dtype=dtype):
            value = evaluate(x, dims, scalars)
            if dtype.is_integer and isinstance(value, float):
                value = 0 if math.isnan(value) else int(min(max(value, float(dtype.min)), float(dtype.max)))
            return _settle(bool(value) if dtype.kind == "bool" else value, dtype)
        case ir.Fma(a=a, b=b, c=c, dtype=dtype):
            # The product of two f32 is exact in a double; the one rounding of the sum before the last is harmless for a launch check.
            return _settle(float(evaluate(a, dims, scalars)) * float(evaluate(b, dims, scalars)) + float(evaluate(c, dims, scalars)), dtype)
    raise AssertionError(f"not an expression that the host can evaluate: {type(expr).__name__}")


def _unary(op: ir.UnaryOp, x: Number) -> Number:
    row = UNARY[op]
    if isinstance(x, float):
        assert row.real is not None, op
        return row.real(x) if row.gives is None else int(row.real(x))
    assert row.integer is not None, op
    return bool(row.integer(x)) if isinstance(x, bool) else row.integer(x)


def integer(x: Number) -> int:
    """An integer; a size that torch keeps as a symbol stays one."""
    return int(x) if isinstance(x, bool | float) else x


def _binary(op: ir.BinaryOp, a: Number, b: Number, dtype: DType) -> Number:
    if op in ir.COMPARISONS:
        return integers.compare(op, a, b)
    if dtype.is_integer:
        found = integers.binary(op, integer(a), integer(b), dtype.bits)
        if found is None:
            raise Undefined(f"shifts by {b}" if op in ("shl", "shr") else "divides by zero")
        return found
    if dtype.kind == "bool":
        exact = integers.binary(op, int(a), int(b), 1)
        assert exact is not None, op
        return bool(exact)
    real = BINARY[op].real
    assert real is not None, op
    return real(float(a), float(b))


@dataclass(frozen=True, slots=True)
class Affine:
    """``constant + sum of coefficient * dimension``, without zero coefficients."""

    constant: int
    terms: tuple[tuple[str, int], ...] = ()


def affine(expr: ir.Expr) -> Affine | None:
    """An extent as an affine form, or None: then it can be checked, but determines nothing."""
    match expr:
        case ir.Const(value=int(value)):
            return Affine(value)
        case ir.Dim(name=name):
            return Affine(0, ((name, 1),))
        case ir.Cast(x=x) if x.dtype.is_integer:
            return affine(x)
        case ir.Unary(op="neg", x=x):
            form = affine(x)
            return None if form is None else _combined(Affine(0), form, -1)
        case ir.Binary(op="add" | "sub" as op, a=a, b=b):
            left, right = affine(a), affine(b)
            return None if left is None or right is None else _combined(left, right, 1 if op == "add" else -1)
        case ir.Binary(op="mul", a=a, b=b):
            left, right = affine(a), affine(b)
            if left is None or right is None or (left.terms and right.terms):
                return None
            form, factor = (right, left.constant) if not left.terms else (left, right.constant)
            return _combined(Affine(0), form, factor)
    return None


def _combined(a: Affine, b: Affine, factor: int) -> Affine:
    terms = dict(a.terms)
    for name, coefficient in b.terms:
        terms[name] = terms.get(name, 0) + factor * coefficient
    return Affine(a.constant + factor * b.constant, tuple((n, c) for n, c in terms.items() if c))


def solve(form: Affine, extent: int, known: Mapping[str, int]) -> tuple[str, int | None] | None:
    """What ``form == extent`` says: (dimension, value) where exactly one dimension is unknown, else None.

    The value is None where no non-negative integer gives that extent.
    """
    unknown = [(name, coefficient) for name, coefficient in form.terms if name not in known]
    if len(unknown) != 1:
        return None
    name, coefficient = unknown[0]
    rest = extent - form.constant - sum(c * known[n] for n, c in form.terms if n in known)
    value, left = rest // coefficient, rest % coefficient  # no divmod, which symbols of torch lack
    return name, value if left == 0 and value >= 0 else None


def names(expr: ir.Expr) -> tuple[str, ...]:
    """The dimensions and scalars in an expression, in order of appearance."""
    return tuple(dict.fromkeys(n.name for n in ir.walk(expr) if isinstance(n, ir.Dim | ir.Scalar)))


def known_at_launch(expr: ir.Expr) -> bool:
    """Whether ``evaluate`` can: an expression made of dimensions and scalars."""
    return all(isinstance(n, ir.Const | ir.Dim | ir.Scalar | ir.Unary | ir.Binary | ir.Where | ir.Cast) for n in ir.walk(expr))
