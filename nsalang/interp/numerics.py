"""What each operation of the IR computes, on torch CPU tensors: formats, roundings, saturation, NaN and signed zero.

A value of a float dtype or of bool is a tensor of the torch dtype of that name; integers of every width are int64 (unsigned ones in
0 .. 2**bits - 1). Operations on a dtype that is its own working dtype (f32) are single IEEE operations; those on f16 and bf16
are the f32 operation, rounded once more. An integer becomes f16 or bf16 through f32, as on all targets. Functions that can go wrong on some lanes (a division by 0, a value that does
not fit) return with their result which lanes those are (None: none), and the caller decides whether such a lane matters.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from nsalang.base.dtypes import BOOL, E8M0, I64, DType
from nsalang.interp import wide
from nsalang.interp.wide import either as _either
from nsalang.interp.wide import some as _some
from nsalang.ir import BinaryOp, ReduceOp, UnaryOp
from nsalang.ir.operations import REDUCTIONS, UNARY, Reduction

Partial: TypeAlias = tuple[Tensor, Tensor | None]
"""A result, and the lanes on which it has none (None: it has one on all)."""

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

# ---------------------------------------------------------------------------------------------------------------------- formats


def native(dtype: DType) -> torch.dtype:
    """The torch dtype of values of ``dtype``: int64 for every integer."""
    return torch.int64 if dtype.is_integer else memory_dtype(dtype)


def memory_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of tensors of ``dtype``."""
    result: torch.dtype = getattr(torch, dtype.torch)
    return result


def memory(tensor: Tensor) -> Tensor:
    """The same memory as signed integers of the element's width: what is moved keeps its bits, and torch indexes every such type."""
    return tensor.view(_BITS[tensor.element_size()])


def from_memory(bits: Tensor, dtype: DType) -> Tensor:
    """The values that integers of the element's width (see ``memory``) stand for."""
    if dtype.is_integer:
        wide = bits.to(torch.int64)
        return wide & (2**dtype.bits - 1) if dtype.kind == "unsigned" else wide
    if dtype is BOOL:
        return bits != 0
    return bits.contiguous().view(native(dtype))


def to_memory(value: Tensor, dtype: DType) -> Tensor:
    """The inverse of ``from_memory``; integers lose what does not fit."""
    if dtype.is_integer:
        return _wrap_signed(value, dtype.bits).to(_BITS[dtype.bytes])
    return memory(value.contiguous())


def bitcast(value: Tensor, source: DType, dtype: DType) -> Tensor:
    """The value of ``dtype`` with the same bits; both have one width."""
    assert source.bits == dtype.bits, (source, dtype)
    return from_memory(to_memory(value, source), dtype)


def constant(value: float | bool, dtype: DType) -> Tensor:
    """A constant without axes, rounded to ``dtype`` (its working dtype first)."""
    if dtype.is_float:
        return torch.tensor(float(value), dtype=native(dtype.working)).to(native(dtype))
    return torch.tensor(value, dtype=native(dtype))


def nan(dtype: DType) -> Tensor:
    return torch.tensor(float("nan"), dtype=torch.float32).to(native(dtype))


def poison(dtype: DType) -> Tensor:
    """What a lane that nobody may look at holds: NaN, or the largest value."""
    return nan(dtype) if dtype.is_float else torch.tensor(True if dtype is BOOL else int(dtype.max), dtype=native(dtype))


def _wrap_signed(x: Tensor, bits: int) -> Tensor:
    if bits == 64:
        return x
    half = 1 << (bits - 1)
    return ((x + half) & (2 * half - 1)) - half


def wrap(x: Tensor, dtype: DType) -> Tensor:
    """An integer modulo 2**bits, as ``dtype`` has it."""
    return x & (2**dtype.bits - 1) if dtype.kind == "unsigned" else _wrap_signed(x, dtype.bits)


def fit(x: Tensor, dtype: DType, beyond: Tensor | None = None) -> Partial:
    """An integer result in ``dtype``: unsigned ones wrap, signed ones must fit. ``beyond``: the lanes on which the exact result left 64 bits, so
    that ``x`` is not it."""
    wrapped = wrap(x, dtype)
    if dtype.kind == "unsigned":
        return wrapped, None
    return wrapped, beyond if dtype.bits == 64 else _either(_some(wrapped != x), beyond)


# ------------------------------------------------------------------------------------------------------------------ conversions


def cast(x: Tensor, source: DType, dtype: DType, mode: Literal["convert", "wrap", "raw"] = "convert") -> Partial:
    """Conversion. ``convert`` and ``raw`` between integers: the value must fit where either side is signed; otherwise unsigned wraps."""
    if dtype is BOOL:
        return x != 0 if source is not BOOL else x, None
    if dtype.is_integer:
        if source.is_float:
            return _truncated(x, dtype), None
        x = x.to(torch.int64)
        if mode == "wrap" or (source.kind == "unsigned" and dtype.kind == "unsigned"):
            return wrap(x, dtype), None
        wrapped = wrap(x, dtype)
        return wrapped, _some(wrapped != x)
    made = x.to(native(dtype.working))
    if dtype.is_fp8:
        # The bounds of e8m0, which has neither sign nor zero, are its least and its largest power of two.
        low = 2.0**-127 if dtype is E8M0 else float(dtype.min)
        made = made.clamp(low, float(dtype.max))
    return made.to(native(dtype)), None


def _truncated(x: Tensor, dtype: DType) -> Tensor:
    low, high = int(dtype.min), int(dtype.max)
    # In double precision every float is exact and so is 2**63, the first value above i64.
    wide = torch.nan_to_num(x.double().trunc(), nan=0.0, posinf=2.0**80, neginf=-(2.0**80))
    inside = wide.clamp(-(2.0**63), 2.0**63 - 1024).to(torch.int64)
    result = torch.where(wide > float(high), high, torch.where(wide < float(low), low, inside))
    return torch.where(wide >= 2.0**63, high, result) if dtype.bits == 64 else result


# ------------------------------------------------------------------------------------------------------------------- operations


def unary(op: UnaryOp, x: Tensor, source: DType, dtype: DType) -> Partial:
    """``op`` of values of ``source``, giving ``dtype``."""
    row = UNARY[op]
    if source.is_float:
        # What is not exact is computed in double precision, whose error is far below what f32 shows.
        working = native(source.working)
        made = row.tensor(x.to(working) if row.bound is None else x.double())
        return made.to(working).to(native(dtype)) if dtype.is_float else made, None
    made = row.tensor(x)
    return (made, None) if dtype is BOOL else fit(made, dtype, wide.negated(x) if row.may_leave else None)


_COMPARE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "eq": torch.eq,
    "ne": torch.ne,
}
_ARITHMETIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}


def binary(op: BinaryOp, a: Tensor, b: Tensor, dtype: DType) -> Partial:
    """``op`` of operands of ``dtype`` (broadcast; a shift's amount is any integer). No result where a divisor is 0, a shift's amount is
    outside 0 .. bits - 1, or a signed result does not fit."""
    if op in _COMPARE:
        return _COMPARE[op](a, b), None
    if dtype.is_float:
        working = native(dtype.working)
        return _float_binary(op, a.to(working), b.to(working)).to(native(dtype)), None
    match op:
        case "and" | "or" | "xor":
            return (a & b if op == "and" else a | b if op == "or" else a ^ b), None
        case "min" | "max":
            return torch.minimum(a, b) if op == "min" else torch.maximum(a, b), None
        case "add" | "sub" | "mul":
            result = _ARITHMETIC[op](a, b)
            # Operands of at most 32 bits give a result within 64.
            return fit(result, dtype, wide.arithmetic(op, a, b, result) if dtype.bits == 64 else None)
        case "floordiv" | "mod" | "tdiv" | "tmod":
            zero = _some(b == 0)
            divisor = b if zero is None else torch.where(b == 0, 1, b)
            beyond = wide.quotient(a, b)
            if beyond is not None:  # torch's own division ends the process there
                divisor = torch.where(beyond, 1, divisor)
            if op == "mod":
                result = torch.remainder(a, divisor)
            elif op == "tmod":
                result = torch.fmod(a, divisor)
            else:
                result = torch.div(a, divisor, rounding_mode="floor" if op == "floordiv" else "trunc")
            if op in ("mod", "tmod"):
                result, outside = fit(result, dtype)  # x % -1 is 0
                return (result if beyond is None else torch.where(beyond, 0, result)), _either(zero, outside)
            result, outside = fit(result, dtype, beyond)
            return result, _either(zero, outside)
        case "shl" | "shr":
            wrong = _some((b < 0) | (b >= dtype.bits))
            amount = b.clamp(0, dtype.bits - 1)
            if op == "shr":
                return a >> amount, wrong
            # In i64 the shift of a u32 or i32 by up to 31 is exact.
            result, outside = fit(a << amount, dtype, wide.shifted(a, amount) if dtype.bits == 64 else None)
            return result, _either(wrong, outside)
        case _:
            raise AssertionError((op, dtype))


def _float_binary(op: BinaryOp, a: Tensor, b: Tensor) -> Tensor:
    match op:
        case "add" | "sub" | "mul" | "div":
            return _ARITHMETIC[op](a, b)
        case "max" | "min":
            result = torch.fmax(a, b) if op == "max" else torch.fmin(a, b)
            if not bool((result == 0).any()):
                return result
            return torch.where((a == 0) & (b == 0), a + b if op == "max" else -(-a + -b), result)
        case _:
            raise AssertionError(op)


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """f32 ``a * b + c`` rounded once: the product is exact in f64, and the sum is rounded there to odd, which leaves the rounding to f32 as
    if it were the only one."""
    product, addend = a.double() * b.double(), c.double()
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.contiguous().view(torch.int64)
    inexact = (error != 0) & total.isfinite() & ((bits & 1) == 0)
    step = torch.where((error > 0) == (total > 0), 1, -1)
    return torch.where(inexact, bits + step, bits).view(torch.float64).float()


# ------------------------------------------------------------------------------------------------------------------- reductions


def _ordered(x: Tensor) -> Tensor:
    """Floats without NaN as integers of their width in the same order, -0 below +0."""
    bits = memory(x.contiguous())
    return torch.where(bits >= 0, bits, bits ^ torch.iinfo(bits.dtype).max)


def reduce(op: ReduceOp, x: Tensor, source: DType, dtype: DType, dims: tuple[int, ...]) -> Partial:
    """Reduction over ``dims`` that picks no index. Sums of f16 and bf16 are f32, those of bool count."""
    row = REDUCTIONS[op]
    if any(x.shape[d] == 0 for d in dims):
        return constant(row.identity(dtype), dtype).expand([size for d, size in enumerate(x.shape) if d not in dims]), None
    if op == "absmax":
        x, outside = unary("abs", x, source, dtype)
        return extreme("max", x, dtype, dims, row.identity(dtype)), None if outside is None else outside.any(dims)
    if row.orders is not None:
        return extreme(row.orders, x, dtype, dims, row.identity(dtype)), None
    if dtype.is_float:
        assert row.tensor is not None, op
        return row.tensor(x.to(native(dtype)), dims), None
    x = x.to(torch.int64)
    if op == "sum":
        return fit(x.sum(dims), dtype, None if dtype.kind == "unsigned" else wide.summed(x, dims))
    if dtype is BOOL:
        return (x.amax(dims) if op == "any" else x.amin(dims)) != 0, None
    return _exactly(row, x, dtype, dims)


def _exactly(row: Reduction, x: Tensor, dtype: DType, dims: tuple[int, ...]) -> Partial:
    """A reduction of integers by Python's."""
    kept = [d for d in range(x.dim()) if d not in dims]
    shape = [x.shape[d] for d in kept]
    rows = x.permute(*kept, *dims).reshape(math.prod(shape), -1).tolist()
    found = [row.integer(lanes) for lanes in rows]
    outside = torch.tensor([not wide.LEAST <= value <= wide.MOST for value in found]).view(shape)
    wrapped = torch.tensor([(value - wide.LEAST) % 2**64 + wide.LEAST for value in found], dtype=torch.int64).view(shape)
    return fit(wrapped, dtype, _some(outside))


def dot(a: Tensor, b: Tensor, axes: tuple[list[int], list[int], list[int]], acc: Tensor | None, dtype: DType) -> Partial:
    """``acc + sum(a * b)``; ``axes`` numbers the dimensions of a, of b and of the result, which lacks the one that is summed over. A float sum
    is that of f64, rounded to f32, and one more f32 operation adds ``acc``; integers are exact."""
    x, y = (t.double() if dtype.is_integer else t.float().double() for t in (a, b))
    total = torch.einsum(x, axes[0], y, axes[1], axes[2])
    if dtype.is_integer:
        whole = total.to(torch.int64)
        return fit(whole, dtype) if acc is None else binary("add", acc, whole, dtype)
    single = total.float() + 0.0
    return single if acc is None else single + acc, None


def extreme(op: Literal["max", "min"], x: Tensor, dtype: DType, dims: tuple[int, ...], none: float) -> Tensor:
    """The largest or smallest value along ``dims`` without NaN, +0 > -0; ``none`` where there is none."""
    keep = [size for dim, size in enumerate(x.shape) if dim not in dims]
    if any(x.shape[dim] == 0 for dim in dims):
        return constant(none, dtype).expand(keep)
    if not dtype.is_float:
        return x.amax(dims) if op == "max" else x.amin(dims)
    working = x.to(native(dtype.working))
    best = working.amax(dims) if op == "max" else working.amin(dims)
    # torch lets NaN win and does not tell zeros apart; where neither came out, its answer is right.
    if not bool((best.isnan() | (best == 0)).any()):
        return best.to(native(dtype))
    keys = _ordered(torch.where(working.isnan(), float(none), working))
    best = keys.amax(dims) if op == "max" else keys.amin(dims)
    return torch.where(best >= 0, best, best ^ torch.iinfo(best.dtype).max).view(working.dtype).to(native(dtype))


def first_extreme(op: Literal["argmax", "argmin"], x: Tensor, dtype: DType, dim: int, real: int) -> Tensor:
    """Position along ``dim``, among its first ``real`` lanes, of the largest or smallest value: the least at ties (-0 and +0 tie), 0 where
    there is nothing but NaN, or nothing."""
    x = x.narrow(dim, 0, real)
    best = extreme("max" if op == "argmax" else "min", x, dtype, (dim,), REDUCTIONS[op].identity(dtype))
    if real == 0:
        return torch.zeros(best.shape, dtype=torch.int64)
    shape = [1] * x.dim()
    shape[dim] = real
    position = torch.arange(real).view(shape)
    least = torch.where(x == best.unsqueeze(dim), position, real).amin(dim)
    return torch.where(least == real, 0, least)


def scan(x: Tensor, dtype: DType, dim: int, exclusive: bool, reverse: bool) -> Partial:
    """Running sum along ``dim``; f16 and bf16 give f32, bool counts."""
    x = x.to(native(dtype))
    if reverse:
        x = x.flip(dim)
    if exclusive:
        size = x.shape[dim]
        x = torch.cat([torch.zeros_like(x.narrow(dim, 0, min(1, size))), x.narrow(dim, 0, max(0, size - 1))], dim)
    total = x.cumsum(dim)
    beyond = None if dtype.is_float or dtype.kind == "unsigned" else wide.scanned(x, dim)
    if reverse:
        total, beyond = total.flip(dim), None if beyond is None else beyond.flip(dim)
    return (total + 0.0, None) if dtype.is_float else fit(total, dtype, beyond)


# ----------------------------------------------------------------------------------------------------------- searches and splits


def search(table: Tensor, x: Tensor) -> Tensor:
    """How many elements of a sorted table of one axis are at most ``x``."""
    if table.dtype.is_floating_point:
        wide = torch.promote_types(table.dtype, torch.float32)
        table, x = table.to(wide), x.to(wide)
    return torch.searchsorted(table.contiguous(), x.contiguous(), right=True)


def border(n: Tensor, parts: Tensor, g: Tensor) -> Partial:
    """Where part ``g`` of ``n`` things in ``parts`` even parts begins; nowhere where there is no part, or ``n`` is negative."""
    wrong = _some((parts <= 0) | (n < 0))
    parts = parts.clamp(min=1)
    each = torch.div(n, parts, rounding_mode="floor")
    whole, beyond = binary("mul", g, each, I64)
    found, also = binary("add", whole, torch.minimum(g, torch.remainder(n, parts)), I64)
    return found, _either(wrong, _either(beyond, also))
