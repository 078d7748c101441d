"""What each operation of the IR computes, on torch CPU tensors: formats, roundings, saturation, NaN and signed zero.

A value of a float dtype or of bool is a tensor of the torch dtype of that name; integers of every width are int64 (unsigned ones in
0 .. 2**bits - 1). Operations on f32 are single IEEE operations; those on f16 and bf16 are the f32 operation, rounded once more.
An integer becomes f16 or bf16 through f32, as on all targets. Functions that can go wrong on some lanes (a division by 0, a value that does
not fit) return with their result which lanes those are (None: none), and the caller decides whether such a lane matters.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, assert_never

import torch
from torch import Tensor

from nsalang.base.dtypes import BOOL, E8M0, DType
from nsalang.interp import whole
from nsalang.ir import BinaryOp, ReduceOp, UnaryOp

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
    """A constant without axes, rounded to ``dtype`` (f32 first)."""
    if dtype.is_float:
        return torch.tensor(float(value), dtype=torch.float32).to(native(dtype))
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


def fit(x: Tensor, dtype: DType) -> Partial:
    """An integer result in ``dtype``: unsigned ones wrap, signed ones must fit."""
    wrapped = wrap(x, dtype)
    if dtype.kind == "unsigned" or dtype.bits == 64:
        return wrapped, None
    return wrapped, _some(wrapped != x)


def fitted(made: Partial, dtype: DType) -> Partial:
    """What was computed in 64 bits, in ``dtype``: unsigned ones wrap, signed ones must fit, and must not have left 64 bits."""
    data, beyond = made
    data, wrong = fit(data, dtype)
    return data, None if dtype.kind == "unsigned" else whole.either(beyond, wrong)


def _some(lanes: Tensor) -> Tensor | None:
    return lanes if bool(lanes.any()) else None


# ------------------------------------------------------------------------------------------------------------------ conversions


def cast(x: Tensor, source: DType, dtype: DType, mode: Literal["convert", "wrap", "raw"] = "convert") -> Partial:
    """Conversion. ``convert`` and ``raw`` between integers: the value must fit where either side is signed; otherwise unsigned wraps."""
    if dtype is BOOL:
        return x != 0 if source is not BOOL else x, None
    if dtype.is_integer:
        if source.is_float:
            whole = _truncated(x.float(), dtype)
            return whole, None
        x = x.to(torch.int64)
        if mode == "wrap" or (source.kind == "unsigned" and dtype.kind == "unsigned"):
            return wrap(x, dtype), None
        wrapped = wrap(x, dtype)
        return wrapped, _some(wrapped != x)
    single = x.float()
    if dtype.is_fp8:
        # The bounds of e8m0, which has neither sign nor zero, are its least and its largest power of two.
        low = 2.0**-127 if dtype is E8M0 else float(dtype.min)
        single = single.clamp(low, float(dtype.max))
    return single.to(native(dtype)), None


def _truncated(x: Tensor, dtype: DType) -> Tensor:
    low, high = int(dtype.min), int(dtype.max)
    # In f64 every f32 is exact and so is 2**63, the first value above i64.
    wide = torch.nan_to_num(x.double().trunc(), nan=0.0, posinf=2.0**80, neginf=-(2.0**80))
    inside = wide.clamp(-(2.0**63), 2.0**63 - 1024).to(torch.int64)
    result = torch.where(wide > float(high), high, torch.where(wide < float(low), low, inside))
    return torch.where(wide >= 2.0**63, high, result) if dtype.bits == 64 else result


# ------------------------------------------------------------------------------------------------------------------- operations


def _f32_bits(x: Tensor) -> Tensor:
    """Bits of |x|, as int64."""
    return x.float().contiguous().view(torch.int32).to(torch.int64) & 0x7FFFFFFF


def _pow2_ceil_bits(x: Tensor) -> Tensor:
    bits = _f32_bits(x)
    return torch.where(bits > 0x7F800000, bits, (bits + 0x7FFFFF) & 0x7F800000)


def unary(op: UnaryOp, x: Tensor, source: DType, dtype: DType) -> Partial:
    """``op`` of values of ``source``, giving ``dtype`` (only ``ceil_log2`` gives another dtype than its operand's)."""
    if op == "not":
        return ~x, None
    if op == "invert":
        return wrap(~x, dtype), None
    if op == "ceil_log2":
        return (_pow2_ceil_bits(x) >> 23) - 127, None
    if source.is_integer:
        assert op in ("neg", "abs"), op
        return fitted(whole.neg(x) if op == "neg" else whole.absolute(x), dtype)
    if op in ("neg", "abs"):
        return (-x if op == "neg" else x.abs()), None
    return _float_unary(op, x.float()).to(native(dtype)), None


def _float_unary(op: UnaryOp, x: Tensor) -> Tensor:
    match op:
        case "exp" | "exp2" | "log" | "log2" | "sigmoid" | "tanh" | "rsqrt":
            return exact(op, x.double()).float()
        case "sqrt":
            # torch's f32 root is not IEEE on every CPU; that of f64, rounded, is: no root of an f32 lies close enough to a tie.
            return x.double().sqrt().to(x.dtype)
        case "floor":
            return x.floor()
        case "ceil":
            return x.ceil()
        case "trunc":
            return x.trunc()
        case "round":
            return x.round()
        case "pow2_ceil":
            return _pow2_ceil_bits(x).to(torch.int32).view(torch.float32)
        case "neg" | "not" | "invert" | "abs" | "ceil_log2":
            raise AssertionError(op)
        case _:
            assert_never(op)


def exact(op: str, x: Tensor) -> Tensor:
    """A transcendental function in f64, whose error is far below what f32 shows."""
    function = {"exp": torch.exp, "exp2": torch.exp2, "log": torch.log, "log2": torch.log2, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    return 1 / x.sqrt() if op == "rsqrt" else function[op](x)


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
        return _float_binary(op, a.float(), b.float()).to(native(dtype)), None
    match op:
        case "and" | "or" | "xor":
            return (a & b if op == "and" else a | b if op == "or" else a ^ b), None
        case "min" | "max":
            return torch.minimum(a, b) if op == "min" else torch.maximum(a, b), None
        case "add" | "sub" | "mul":
            return fitted((whole.add if op == "add" else whole.sub if op == "sub" else whole.mul)(a, b), dtype)
        case "floordiv" | "mod" | "tdiv" | "tmod":
            zero = _some(b == 0)
            divisor = b if zero is None else torch.where(b == 0, 1, b)
            result, outside = fitted(whole.divided(op, a, divisor), dtype)
            return result, whole.either(zero, outside)
        case "shl" | "shr":
            wrong = _some((b < 0) | (b >= dtype.bits))
            amount = b.clamp(0, dtype.bits - 1)
            if op == "shr":
                return a >> amount, wrong
            result, outside = fitted(whole.shl(a, amount), dtype)
            return result, whole.either(wrong, outside)
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
    """f32 without NaN as int32 in the same order, -0 below +0."""
    bits = x.contiguous().view(torch.int32)
    return torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)


def identity(op: ReduceOp, dtype: DType) -> float | bool:
    """What ``op`` of nothing gives (an integer's max and min: the ends of its dtype)."""
    match op:
        case "sum" | "absmax":
            return 0
        case "max" | "argmax":
            return float("-inf") if dtype.is_float else int(dtype.min)
        case "min" | "argmin":
            return float("inf") if dtype.is_float else int(dtype.max)
        case "any":
            return False
        case "all":
            return True
        case _:
            assert_never(op)


def reduce(
    op: Literal["sum", "max", "min", "absmax", "any", "all"], x: Tensor, source: DType, dtype: DType, dims: tuple[int, ...]
) -> Partial:
    """Reduction over ``dims``. Sums of f16 and bf16 are f32, those of bool count; the others keep the dtype."""
    if op == "sum":
        if dtype.is_float:
            return x.float().sum(dims) + 0.0, None
        return fitted(whole.total(x.to(torch.int64), dims), dtype)
    if op in ("any", "all"):
        counts = x.to(torch.int64).sum(dims)
        size = 1
        for dim in dims:
            size *= x.shape[dim]
        return (counts > 0 if op == "any" else counts == size), None
    if op == "absmax":
        x, outside = unary("abs", x, source, dtype)
        return extreme("max", x, dtype, dims, identity(op, dtype)), None if outside is None else outside.any(dims)
    assert op == "max" or op == "min", op
    return extreme(op, x, dtype, dims, identity(op, dtype)), None


def dot(a: Tensor, b: Tensor, axes: tuple[list[int], list[int], list[int]], acc: Tensor | None, dtype: DType) -> Partial:
    """``acc + sum(a * b)``; ``axes`` numbers the dimensions of a, of b and of the result, which lacks the one that is summed over. A float sum
    is that of f64, rounded to f32, and one more f32 operation adds ``acc``; integers are exact."""
    x, y = (t.double() if dtype.is_integer else t.float().double() for t in (a, b))
    total = torch.einsum(x, axes[0], y, axes[1], axes[2])
    if dtype.is_integer:
        return fitted((total.to(torch.int64), None) if acc is None else whole.add(total.to(torch.int64), acc), dtype)
    single = total.float() + 0.0
    return single if acc is None else single + acc, None


def extreme(op: Literal["max", "min"], x: Tensor, dtype: DType, dims: tuple[int, ...], none: float) -> Tensor:
    """The largest or smallest value along ``dims`` without NaN, +0 > -0; ``none`` where there is none."""
    keep = [size for dim, size in enumerate(x.shape) if dim not in dims]
    if any(x.shape[dim] == 0 for dim in dims):
        return constant(none, dtype).expand(keep)
    if not dtype.is_float:
        return x.amax(dims) if op == "max" else x.amin(dims)
    single = x.float()
    best = single.amax(dims) if op == "max" else single.amin(dims)
    # torch lets NaN win and does not tell zeros apart; where neither came out, its answer is right.
    if not bool((best.isnan() | (best == 0)).any()):
        return best.to(native(dtype))
    keys = _ordered(torch.where(single.isnan(), float(none), single))
    best = keys.amax(dims) if op == "max" else keys.amin(dims)
    return torch.where(best >= 0, best, best ^ 0x7FFFFFFF).view(torch.float32).to(native(dtype))


def first_extreme(op: Literal["argmax", "argmin"], x: Tensor, dtype: DType, dim: int, real: int) -> Tensor:
    """Position along ``dim``, among its first ``real`` lanes, of the largest or smallest value: the least at ties (-0 and +0 tie), 0 where
    there is nothing but NaN, or nothing."""
    x = x.narrow(dim, 0, real)
    best = extreme("max" if op == "argmax" else "min", x, dtype, (dim,), identity(op, dtype))
    if real == 0:
        return torch.zeros(best.shape, dtype=torch.int64)
    shape = [1] * x.dim()
    shape[dim] = real
    position = torch.arange(real).view(shape)
    least = torch.where(x == best.unsqueeze(dim), position, real).amin(dim)
    return torch.where(least == real, 0, least)


def scan(x: Tensor, dtype: DType, dim: int, exclusive: bool, reverse: bool) -> Partial:
    """Running sum along ``dim``; f16 and bf16 give f32, bool counts."""
    if dtype.is_float:
        return _scanned(x.float(), dim, exclusive, reverse, lambda lanes: lanes.cumsum(dim)) + 0.0, None
    x = x.to(torch.int64)
    total = _scanned(x, dim, exclusive, reverse, lambda lanes: whole.running(lanes, dim)[0])
    beyond = _scanned(x, dim, exclusive, reverse, lambda lanes: _lanes(whole.running(lanes, dim)[1], lanes))
    return fitted((total, _some(beyond)), dtype)


def _scanned(x: Tensor, dim: int, exclusive: bool, reverse: bool, running: Callable[[Tensor], Tensor]) -> Tensor:
    """``running`` along ``dim``, in the order and up to the lane that a scan wants."""
    total = running(x.flip(dim) if reverse else x)
    if exclusive:
        size = x.shape[dim]
        total = torch.cat([torch.zeros_like(total.narrow(dim, 0, min(1, size))), total.narrow(dim, 0, max(0, size - 1))], dim)
    return total.flip(dim) if reverse else total


def _lanes(some: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=torch.bool) if some is None else some


# -------------------------------------------------------------------------------------------------------------------- searches


def search(table: Tensor, x: Tensor) -> Tensor:
    """How many elements of a sorted table of one axis are at most ``x``."""
    if table.dtype.is_floating_point:
        table, x = table.float(), x.float()
    return torch.searchsorted(table.contiguous(), x.contiguous(), right=True)
