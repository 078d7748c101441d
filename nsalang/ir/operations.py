"""What each operation means, one row each: all that evaluates, bounds, checks or spells an operation reads it here.

A new function is its name in base/names (``Function``), its row in UNARY, and how each backend spells it or how `legalize` expands it
(passes/functions, EXPANSIONS); a new reduction its name there (``Reduction``), its row in REDUCTIONS, and each backend's REDUCTIONS. Tests compare the parts of a row with each other, so that none is forgotten and none is wrong.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from nsalang.base import names
from nsalang.base.dtypes import BF16, BOOL, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, DType
from nsalang.base.names import Function
from nsalang.ir.kinds import ALL, INF, NAN, NEG, NEGATIVE, NINF, NZERO, PINF, POS, PZERO, ZERO

if TYPE_CHECKING:
    from torch import Tensor

ADDABLE = (F32, I32, I64, U32)
"""Element types that every target adds to atomically."""

SIGNED = (I8, I16, I32, I64)
INTEGERS = (*SIGNED, U8, U16, U32)
FLOATS = (F16, BF16, F32, F64)
"""The formats with arithmetic."""

Operator: TypeAlias = Literal["neg", "not", "invert"]
"""Unary operations that the language has a sign for."""
UnaryOp: TypeAlias = Function | Operator
Ends: TypeAlias = tuple[int, int]
Reals: TypeAlias = tuple[float, float]
Kinds: TypeAlias = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Bound:
    """An error bound: ``text`` is for people; ``error(x, y)`` the allowed absolute error at the arguments ``x`` with the exact results ``y``,
    both f64."""

    text: str
    error: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Unary:
    """A unary operation.

    ``takes``: the dtypes of its operand. ``gives``: the dtype of its result, None where that is the operand's.
    ``integer``: its value on a mathematical integer, or on a bool as 0 or 1; None where it takes floats alone. ``ends``: between which integers its
    result lies for an integer between two others (of a float: for any); None where it gives floats alone.
    ``real``: its value on a float, in double precision, NaN where there is none. ``tensor``: the same on tensors, of integers too where it takes
    them: exact in the operand's format where ``bound`` is None, else in f64. ``kinds``: of which kinds its result is for an operand of each kind
    (see ir/kinds), as any machine within ``bound`` computes it. ``between``: between which floats a result lies for an operand between two
    others, unless it is NaN. All three are None where it does not take floats, and the last two where it does not give them.
    ``bound``: how far a machine's result may be off; None where it is the exact one, rounded once.
    ``machine``: whether machines have it; `legalize` expands the others (passes/functions).
    """

    takes: tuple[DType, ...]
    integer: Callable[[int], int] | None
    ends: Callable[[Ends], Ends] | None
    real: Callable[[float], float] | None
    tensor: Callable[[Tensor], Tensor]
    kinds: Kinds | None
    between: Callable[[float, float], Reals] | None
    bound: Bound | None = None
    machine: bool = True
    gives: DType | None = None

    @property
    def may_leave(self) -> bool:
        """Whether the result for a signed integer may be none of its dtype."""
        return self.ends is not None and self.integer is not None and not _inside(self.ends((int(I64.min), int(I64.max))))


def _inside(ends: Ends) -> bool:
    return I64.min <= ends[0] and ends[1] <= I64.max


# ---------------------------------------------------------------------------------------------------------- values of functions


def _finite(function: Callable[[float], float]) -> Callable[[float], float]:
    """A rounding to whole numbers: infinities and NaN stay, and so does the sign."""
    return lambda x: math.copysign(float(function(x)), x) if math.isfinite(x) else x


def _positive(function: Callable[[float], float], at_zero: float) -> Callable[[float], float]:
    """A function of positive numbers: NaN below 0, and of NaN."""
    return lambda x: function(x) if x > 0 else math.nan if x < 0 or math.isnan(x) else at_zero


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.78 else math.inf if not math.isnan(x) else x


def _exp2(x: float) -> float:
    return math.pow(2.0, x) if x < 1024 else math.inf if not math.isnan(x) else x


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -709 else 0.0 if not math.isnan(x) else x


def _sqrt(x: float) -> float:
    return math.sqrt(x) if x >= 0 else math.nan


def _rsqrt(x: float) -> float:
    return 1 / math.sqrt(x) if x > 0 else math.copysign(math.inf, x) if x == 0 else math.nan


def pow2_ceil_bits(x: float) -> int:
    """The bits of the least power of two that is not below abs(x), in f32."""
    bits = int(struct.unpack("I", struct.pack("f", x))[0]) & 0x7FFFFFFF
    return bits if bits > 0x7F800000 else (bits + 0x7FFFFF) & 0x7F800000


def _pow2_ceil(x: float) -> float:
    return float(struct.unpack("f", struct.pack("I", pow2_ceil_bits(x)))[0])


def _pow2_ceil_bits_of(x: Tensor) -> Tensor:
    import torch

    bits = x.float().contiguous().view(torch.int32).to(torch.int64) & 0x7FFFFFFF
    return torch.where(bits > 0x7F800000, bits, (bits + 0x7FFFFF) & 0x7F800000)


def _pow2_ceil_of(x: Tensor) -> Tensor:
    import torch

    return _pow2_ceil_bits_of(x).to(torch.int32).view(torch.float32)


def _root(x: Tensor) -> Tensor:
    """By numpy, in double precision: torch's is not IEEE on every CPU. Rounded, it is that of a shorter float, of which no root lies so close to a tie."""
    import numpy as np
    import torch

    with np.errstate(invalid="ignore"):
        return torch.as_tensor(np.sqrt(x.double().numpy())).to(x.dtype)


def _always(low: float, high: float) -> Callable[[float, float], Reals]:
    return lambda lo, hi: (low, high)


def _in_order(function: Callable[[float], float]) -> Callable[[float, float], Reals]:
    return lambda lo, hi: (function(lo), function(hi))


def _size_of_real(lo: float, hi: float) -> Reals:
    return 0.0 if lo <= 0 <= hi else min(abs(lo), abs(hi)), max(abs(lo), abs(hi))


def _size(ends: Ends) -> Ends:
    low, high = abs(ends[0]), abs(ends[1])
    return 0 if ends[0] <= 0 <= ends[1] else min(low, high), max(low, high)


# ------------------------------------------------------------------------------------------------------------------ unary rows

_EXP = {NAN: NAN, NINF: PZERO, NEG: PZERO | POS, NZERO: POS, PZERO: POS, POS: POS | PINF, PINF: PINF}
_LOG = {NAN: NAN, NINF: NAN, NEG: NAN, NZERO: NINF, PZERO: NINF, POS: NEG | ZERO | POS, PINF: PINF}
_WHOLE = {NAN: NAN, NINF: NINF, NEG: NEG | NZERO, NZERO: NZERO, PZERO: PZERO, POS: POS | PZERO, PINF: PINF}
_ANY, _NOT_NEGATIVE = _always(-math.inf, math.inf), _always(0.0, math.inf)
_BY_LOG = Bound("2**-20 and relative 2**-21", lambda x, y: y.abs() * 2.0**-21 + 2.0**-20)
_RELATIVE = Bound("relative 2**-21", lambda x, y: y.abs() * 2.0**-21)


def _whole(function: Callable[[float], float], tensor: Callable[[Tensor], Tensor], machine: bool) -> Unary:
    real = _finite(function)
    return Unary(FLOATS, None, None, real, tensor, _WHOLE, _in_order(real), machine=machine)


UNARY: dict[UnaryOp, Unary] = {
    "neg": Unary(
        (*INTEGERS, *FLOATS), lambda x: -x, lambda e: (-e[1], -e[0]), lambda x: -x, lambda x: -x,
        {NAN: NAN, NINF: PINF, NEG: POS, NZERO: PZERO, PZERO: NZERO, POS: NEG, PINF: NINF}, lambda lo, hi: (-hi, -lo),
    ),
    "not": Unary((BOOL,), lambda x: 1 - x, lambda e: (1 - e[1], 1 - e[0]), None, lambda x: ~x, None, None),
    "invert": Unary(INTEGERS, lambda x: -1 - x, lambda e: (-1 - e[1], -1 - e[0]), None, lambda x: ~x, None, None),
    "abs": Unary(
        (*INTEGERS, *FLOATS), abs, _size, abs, lambda x: x.abs(),
        {NAN: NAN, NINF: PINF, NEG: POS, NZERO: PZERO, PZERO: PZERO, POS: POS, PINF: PINF}, _size_of_real,
    ),
    "exp": Unary(
        FLOATS, None, None, _exp, lambda x: x.exp(), _EXP, _NOT_NEGATIVE,
        Bound("relative (|x| + 4) * 2**-23", lambda x, y: y.abs() * (x.abs() + 4) * 2.0**-23),
    ),
    "exp2": Unary(FLOATS, None, None, _exp2, lambda x: x.exp2(), _EXP, _NOT_NEGATIVE, _RELATIVE),
    "log": Unary(FLOATS, None, None, _positive(math.log, -math.inf), lambda x: x.log(), _LOG, _ANY, _BY_LOG),
    "log2": Unary(FLOATS, None, None, _positive(math.log2, -math.inf), lambda x: x.log2(), _LOG, _ANY, _BY_LOG),
    "sqrt": Unary(
        FLOATS, None, None, _sqrt, _root,
        {NAN: NAN, NINF: NAN, NEG: NAN, NZERO: NZERO, PZERO: PZERO, POS: POS, PINF: PINF}, _NOT_NEGATIVE,
    ),
    "rsqrt": Unary(
        FLOATS, None, None, _rsqrt, lambda x: 1 / x.sqrt(),
        {NAN: NAN, NINF: NAN, NEG: NAN, NZERO: NINF | PINF, PZERO: PINF, POS: POS, PINF: PZERO}, _ANY, _RELATIVE,
    ),
    "sigmoid": Unary(
        FLOATS, None, None, _sigmoid, lambda x: x.sigmoid(),
        {NAN: NAN, NINF: PZERO, NEG: PZERO | POS, NZERO: POS, PZERO: POS, POS: POS, PINF: POS}, _always(0.0, 1.0),
        Bound("relative (|x| + 8) * 2**-23", lambda x, y: y.abs() * (x.abs() + 8) * 2.0**-23), machine=False,
    ),
    "tanh": Unary(
        (F16, BF16, F32), None, None, math.tanh, lambda x: x.tanh(),
        {NAN: NAN, NINF: NEG, NEG: NEG | NZERO, NZERO: NZERO, PZERO: PZERO, POS: POS | PZERO, PINF: POS}, _always(-1.0, 1.0),
        Bound("2**-21", lambda x, y: (y * 0) + 2.0**-21), machine=False,
    ),
    "erf": Unary(
        FLOATS, None, None, math.erf, lambda x: x.erf(),
        {NAN: NAN, NINF: NEG, NEG: NEG | NZERO, NZERO: NZERO, PZERO: PZERO, POS: POS | PZERO, PINF: POS}, _always(-1.0, 1.0),
        Bound("relative 2**-22", lambda x, y: y.abs() * 2.0**-22),
    ),
    "pow2_ceil": Unary(
        (F32,), None, None, _pow2_ceil, _pow2_ceil_of,
        {NAN: NAN, NINF: PINF, NEG: POS | PINF, NZERO: PZERO, PZERO: PZERO, POS: POS | PINF, PINF: PINF}, _NOT_NEGATIVE, machine=False,
    ),
    # From 0 to infinity and NaN, by the exponent's bits.
    "ceil_log2": Unary(
        (F32,), None, lambda e: (-127, 128), lambda x: float((pow2_ceil_bits(x) >> 23) - 127),
        lambda x: (_pow2_ceil_bits_of(x) >> 23) - 127, None, None, machine=False, gives=I64,
    ),
    "floor": _whole(math.floor, lambda x: x.floor(), machine=True),
    "ceil": _whole(math.ceil, lambda x: x.ceil(), machine=True),
    "trunc": _whole(math.trunc, lambda x: x.trunc(), machine=False),
    "round": _whole(round, lambda x: x.round(), machine=False),
}  # fmt: skip

FUNCTIONS: tuple[Function, ...] = get_args(Function)
"""The unary operations that the language calls by name."""


# ------------------------------------------------------------------------------------------------------------------ reductions

ReduceOp: TypeAlias = names.Reduction
Number: TypeAlias = "int | float | bool"


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduction over axes.

    ``takes``: the dtypes of its operand; ``converts``: those that become another first. ``gives``: the dtype of its result.
    ``integer``: its value on mathematical integers (bools: 0 and 1), at least one of them. ``identity``: what it gives for nothing, in the dtype of
    the operand. ``neutral``: what lanes hold that do not count; of an integer any end of the other values serves where ``orders`` says which.
    ``ends``: between which integers a result lies, for so many lanes at most between two others, none of them included, unless ``orders``.
    ``tensor``: the value on floats in f32 over dimensions, None where that is the largest or smallest of them (``orders``), or where it takes none.
    ``kinds``: of which kinds (ir/kinds) the result can be for any number of operands of these, none included; ``between``: between which floats.
    ``picks``: it gives an index variable's value, of one axis. ``rounds``: what it gives of floats depends on their order.
    ``machine``: whether backends have it; `legalize` expands the others.
    """

    takes: tuple[DType, ...]
    gives: Callable[[DType], DType]
    integer: Callable[[Iterable[int]], int]
    identity: Callable[[DType], Number]
    ends: Callable[[Ends, int], Ends]
    kinds: Callable[[int], int]
    between: Callable[[float, float], Reals]
    neutral: Callable[[DType], Number]
    tensor: Callable[[Tensor, tuple[int, ...]], Tensor] | None = None
    converts: Mapping[DType, DType] = field(default_factory=dict)
    orders: Literal["max", "min"] | None = None
    picks: bool = False
    rounds: bool = False
    machine: bool = True

    @property
    def may_leave(self) -> bool:
        """Whether the result for signed integers may be none of their dtype."""
        return not self.picks and not _inside(self.ends((int(I64.min), int(I64.max)), 2))


def _same(dtype: DType) -> DType:
    return dtype


def _index(dtype: DType) -> DType:
    return I64


def _added(dtype: DType) -> DType:
    return I64 if dtype is BOOL else dtype.working if dtype.is_float else dtype


def _number(value: int) -> Callable[[DType], Number]:
    """A number as each dtype has it."""
    return lambda dtype: bool(value) if dtype is BOOL else float(value) if dtype.is_float else value


def _least(dtype: DType) -> Number:
    return -math.inf if dtype.is_float else int(dtype.min)


def _most(dtype: DType) -> Number:
    return math.inf if dtype.is_float else int(dtype.max)


def _ignored(dtype: DType) -> Number:
    """An extreme of floats ignores NaN."""
    return math.nan


def _as_they_are(ends: Ends, lanes: int) -> Ends:
    return ends


def _all_kinds(kinds: int) -> int:
    return ALL


def _sum_of_kinds(kinds: int) -> int:
    return ALL if kinds & NEGATIVE else kinds & NAN | PZERO | POS | PINF


def _product(ends: Ends, lanes: int) -> Ends:
    """Of at most so many lanes, whose number the prover may know as a huge one: past 64 bits it does not matter how far."""
    size = max(abs(ends[0]), abs(ends[1]), 1)
    most = size if size == 1 else int(min(size, 2**64) ** min(lanes, 65))
    return 0 if ends[0] >= 0 else -most, max(most, 1)


def _multiplied(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim)
    return x


_NUMBERS = (*INTEGERS, *FLOATS)
_HALVES = {F16: F32, BF16: F32}
_MAX = Reduction(
    _NUMBERS, _same, max, _least, _as_they_are, lambda k: k | NINF, lambda lo, hi: (-math.inf, hi), _least, orders="max",
)  # fmt: skip
_MIN = replace(
    _MAX, integer=min, identity=_most, kinds=lambda k: k | PINF, between=lambda lo, hi: (lo, math.inf), neutral=_most, orders="min",
)  # fmt: skip
_ANY_OF = Reduction(
    (BOOL,), _same, max, _number(0), lambda e, n: (0, e[1]), _all_kinds, _ANY, _number(0), machine=False,
)  # fmt: skip

REDUCTIONS: dict[ReduceOp, Reduction] = {
    "sum": Reduction(
        (*SIGNED, U32, F32, F64), _added, sum, _number(0), lambda e, n: (min(0, e[0] * n), max(0, e[1] * n)), _sum_of_kinds,
        lambda lo, hi: (0.0 if lo >= 0 else -math.inf, 0.0 if hi <= 0 else math.inf), _number(0),
        lambda x, dims: x.sum(dims) + 0.0, {BOOL: I64, **_HALVES}, rounds=True,
    ),
    "prod": Reduction(
        (*SIGNED, U32, F32, F64), _added, math.prod, _number(1), _product, _all_kinds, _ANY, _number(1), _multiplied, _HALVES, rounds=True,
    ),
    "max": _MAX,
    "min": _MIN,
    "absmax": Reduction(
        _NUMBERS, _same, lambda xs: max(map(abs, xs)), _number(0), lambda e, n: (0, max(abs(e[0]), abs(e[1]))),
        lambda k: k & NAN | (POS if k & ~(NAN | INF | ZERO) else 0) | (PINF if k & INF else 0) | PZERO,
        lambda lo, hi: (0.0, max(abs(lo), abs(hi))), _number(0), machine=False,
    ),
    "any": _ANY_OF,
    "all": replace(_ANY_OF, integer=min, identity=_number(1), ends=lambda e, n: (e[0], 1), neutral=_number(1)),
    "argmax": replace(_MAX, gives=_index, neutral=lambda d: _ignored(d) if d.is_float else _least(d), picks=True, machine=False),
    "argmin": replace(_MIN, gives=_index, neutral=lambda d: _ignored(d) if d.is_float else _most(d), picks=True, machine=False),
}  # fmt: skip
