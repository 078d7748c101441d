"""The tile IR: a typed kernel over named axes, specialised for one variant, to which passes add facts and choices.

A value has a dtype and a set of axes; an axis is an index variable that stands for a block (a ``tile`` of the grid or of a loop, or a ``span``).
Scalar index variables (a plain grid extent, ``range``) are values without axes. Axis names are unique in a kernel: the second ``n`` is ``n.2``
(``plain`` gives the name to print). Signed integers are mathematical, typed i64, until the pass ``width`` gives each its machine width.

Nodes are frozen; ``rewrite`` returns the same object where nothing changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from nsalang.base.dtypes import BOOL, I64, DType
from nsalang.base.source import Span
from nsalang.ir.operations import ReduceOp as ReduceOp
from nsalang.ir.operations import UnaryOp as UnaryOp
from nsalang.ir.operators import BinaryOp as BinaryOp
from nsalang.ir.operators import Comparison


def plain(name: str) -> str:
    """The source's name of an axis or a variable: ``n`` for ``n.2``."""
    return name.split(".")[0]


@dataclass(frozen=True, slots=True)
class Node:
    """``span`` says which text a node comes from; it is not compared. Nodes that a pass makes take the span of what they stand for."""

    span: Span | None = field(kw_only=True, default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Value(Node):
    """What every expression has: the element type, and the axes in the order in which the kernel declares them."""

    dtype: DType
    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of an access: the verdict about its indices, and what its mask is made of, none of it where there is no mask.

    ``verdict``: PROVED by ``prove`` for every lane that exists; HOISTED where a launch check (``Kernel.hoists``) saves a mask in this variant;
    GUARDED where the compiler added one; UNKNOWN where the prover could not tell and the user allowed it: then the mask holds the bounds.
    ``mask``: ``author`` (a ``where`` or ``if``), ``tail`` (lanes that a tile pads), ``bounds`` (the tensor's extents).
    """

    verdict: Literal["PROVED", "HOISTED", "GUARDED", "UNKNOWN"]
    mask: tuple[Literal["author", "tail", "bounds"], ...] = ()


# ------------------------------------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True, slots=True)
class Const(Value):
    """A constant without axes; a float ``value`` is exactly representable in ``dtype`` (it was rounded once), inf included."""

    value: int | float | bool


@dataclass(frozen=True, slots=True)
class Dim(Value):
    """A dimension that stays dynamic: a non-negative integer known at launch."""

    name: str


@dataclass(frozen=True, slots=True)
class Scalar(Value):
    """A scalar parameter."""

    name: str


@dataclass(frozen=True, slots=True)
class Index(Value):
    """The value of an index variable: ``axes`` is ``(name,)`` for a tile or a span, ``()`` for a scalar index."""

    name: str


@dataclass(frozen=True, slots=True)
class Var(Value):
    """A local variable (see Assign)."""

    name: str


COMPARISONS = get_args(Comparison)


@dataclass(frozen=True, slots=True)
class Unary(Value):
    """``not`` is for bool, ``invert`` for unsigned integers; transcendental functions for f32 (and f16, bf16 until ``legalize`` widens them)."""

    op: UnaryOp
    x: Expr


@dataclass(frozen=True, slots=True)
class Binary(Value):
    """Both operands have one dtype (shifts: the amount is any integer). ``div`` is IEEE for floats; ``floordiv`` and ``mod`` floor
    (``tdiv`` and ``tmod``, which ``legalize`` makes, truncate as machines do);
    ``and or xor`` are logical on bool, bitwise on integers; ``min max`` ignore NaN and hold +0 > -0; comparisons give bool."""

    op: BinaryOp
    a: Expr
    b: Expr


@dataclass(frozen=True, slots=True)
class Fma(Value):
    """``a * b + c`` rounded once, f32."""

    a: Expr
    b: Expr
    c: Expr


@dataclass(frozen=True, slots=True)
class Where(Value):
    cond: Expr
    a: Expr
    b: Expr


@dataclass(frozen=True, slots=True)
class Cast(Value):
    """Conversion to ``dtype``. mode ``convert``: the language's (nearest even; fp8 saturates; float to int truncates and saturates, NaN gives 0;
    a signed integer must fit). ``wrap``: modulo 2**bits. ``raw``: the machine's plain conversion, the value being known to be in range."""

    x: Expr
    mode: Literal["convert", "wrap", "raw"] = "convert"


@dataclass(frozen=True, slots=True)
class Bitcast(Value):
    x: Expr


@dataclass(frozen=True, slots=True)
class Load(Value):
    """An element of ``tensor`` at ``indices`` (one an axis of the tensor).

    ``guard`` is what the author's ``where`` and ``if`` around it say (lanes where it is false are not read and hold 0 of the dtype, of which
    the author's ``where`` then selects none). ``mask`` is None until the pass ``guard`` has run; then it is the whole predicate that the machine
    must apply, or None where no lane can be outside. ``fill`` is what a masked lane holds (None: anything).
    """

    tensor: str
    indices: tuple[Expr, ...]
    guard: Expr | None = None
    mask: Expr | None = None
    fill: Const | None = None
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class Search(Value):
    """How many elements of the sorted ``tensor`` (one axis) are at most ``x``: torch's searchsorted with ``right=True``. i64, between 0 and the
    extent. ``guard`` as for Load. Only before the pass ``expand``."""

    tensor: str
    x: Expr
    guard: Expr | None = None


@dataclass(frozen=True, slots=True)
class Border(Value):
    """Where part ``g`` begins when ``n`` things are cut into ``parts`` even parts, the first ``n % parts`` of which have one more:
    ``g * (n // parts) + min(g, n % parts)``. i64. Only before the pass ``expand``."""

    n: Expr
    parts: Expr
    g: Expr


@dataclass(frozen=True, slots=True)
class Dot(Value):
    """``sum(a * b)`` over the shared axis ``over``, in f32 (i8: exact integers), plus ``acc``, which the pass ``contract`` fuses into it.

    ``a`` and ``b`` have one dtype; axes on one side are free, axes on both sides that are not contracted are batch axes. ``precision`` is about
    f32 operands; ``promote``: partial products are added up in f32 registers every so many terms (0: as the tensor core does).
    ``left``: the axes of the rows of the matrix product, those of the other side being its columns; set by ``order``.
    ``warps`` (set by the pass of that name): each has whole rows of the result, or they stand beside each other, over its columns.
    """

    a: Expr
    b: Expr
    over: str
    acc: Expr | None = None
    precision: Literal["ieee", "tf32"] = "ieee"
    promote: int = 0
    left: tuple[str, ...] | None = None
    warps: Literal["rows", "columns"] | None = None


@dataclass(frozen=True, slots=True)
class Reduce(Value):
    """Reduction over the axes ``over``. After ``legalize`` only sum, max and min are left."""

    op: ReduceOp
    x: Expr
    over: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scan(Value):
    """Running sum along the axis ``over``: inclusive, or exclusive; from the end with ``reverse``."""

    x: Expr
    over: str
    exclusive: bool = False
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Full(Value):
    """``value`` (without axes of ``axes``) repeated over ``axes``."""

    value: Expr


@dataclass(frozen=True, slots=True)
class Spread(Value):
    """``x``, which has one lane for each group of lanes of the axis ``over``, in every lane of its group; ``group`` is the axis of
    ``x`` that has those lanes (see Schedule). Only after the pass ``spread``, of a variable
    or of a value that is spread along another axis."""

    x: Expr
    over: str
    group: str


Expr: TypeAlias = (
    Const
    | Dim
    | Scalar
    | Index
    | Var
    | Unary
    | Binary
    | Fma
    | Where
    | Cast
    | Bitcast
    | Load
    | Search
    | Border
    | Dot
    | Reduce
    | Scan
    | Full
    | Spread
)

# ------------------------------------------------------------------------------------------------------------------- statements


Place: TypeAlias = Literal["registers", "shared"]
PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """``name = value``. All values assigned to one name have one dtype and one set of axes; an outer name assigned in a loop is carried by it.
    ``place`` is where a value with axes lies, as the pass ``place`` decides: registers, unless it says ``shared``; ``registers`` was pinned.
    ``alone``, ``widest`` (set by the pass ``lanes``): axes along which no two lanes go side by side in a vector; how many do at most, 0: as many as fit."""

    name: str
    value: Expr
    place: Place | None = None
    alone: tuple[str, ...] = ()
    widest: int = 0


@dataclass(frozen=True, slots=True)
class Store(Node):
    """``tensor[indices] = value``; ``axes`` are those of the indices, the value and the guard together. ``guard`` and ``mask`` as for Load.

    mode ``set``: every element has one writer (proved). ``scatter``: lanes and instances may write one element, and one of them wins.
    ``add``: an atomic addition, of which any number may meet in one element. ``alone``, ``widest``: as for Assign.
    """

    tensor: str
    indices: tuple[Expr, ...]
    value: Expr
    axes: tuple[str, ...]
    guard: Expr | None = None
    mask: Expr | None = None
    mode: Literal["set", "scatter", "add"] = "set"
    proof: Proof | None = None
    alone: tuple[str, ...] = ()
    widest: int = 0


@dataclass(frozen=True, slots=True)
class SpanAxis(Node):
    """``axis = span(start, length, stop)``: lanes ``start .. start + length``, of which those at or past ``stop`` do not exist."""

    axis: str
    start: Expr
    length: int
    stop: Expr | None = None


@dataclass(frozen=True, slots=True)
class For(Node):
    """kind ``range``: a scalar loop over lo..hi; ``tile``: a loop over consecutive blocks of lo..hi, ``index`` being an axis.
    ``carried`` are the variables that live before the loop and are assigned in it. ``ahead`` (set by ``place``): variables of the body, each a
    load into shared memory or what its address is made of, that are read ``stages - 1`` steps ahead into one of ``stages`` buffers while the step
    computes. Triton finds them itself: there ``stages`` is what is pinned for this loop. 0: nothing of its own. ``early`` (set by ``fetch``): what
    is done for a step before it, ``stages - 1`` steps ahead: axes, values that addresses are made of and a barrier behind them, the loads. ``long``
    (set by ``turns``): it may make more turns than 32 bits count."""

    index: str
    kind: Literal["range", "tile"]
    lo: Expr
    hi: Expr
    body: tuple[Stmt, ...]
    carried: tuple[str, ...] = ()
    stages: int = 0
    ahead: tuple[str, ...] = ()
    early: tuple[Stmt, ...] = ()
    long: bool = False


@dataclass(frozen=True, slots=True)
class If(Node):
    """A branch on a scalar condition (others became ``where``)."""

    cond: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


@dataclass(frozen=True, slots=True)
class Barrier(Node):
    """All threads of an instance wait for each other, with what they wrote (set by the pass ``barriers``). It means nothing."""


Stmt: TypeAlias = Assign | Store | SpanAxis | For | If | Barrier

# ----------------------------------------------------------------------------------------------------------------- construction


def const(value: int | float | bool, dtype: DType = I64, span: Span | None = None) -> Const:
    return Const(dtype, (), value, span=span)


def join(*groups: tuple[str, ...], order: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The union of axes; in ``order`` where given, else by first appearance."""
    seen = dict.fromkeys(a for g in groups for a in g)
    return tuple(a for a in order if a in seen) if order else tuple(seen)


def binary(op: BinaryOp, a: Expr, b: Expr, order: tuple[str, ...] = (), span: Span | None = None) -> Binary:
    """A Binary whose type follows from its operands."""
    assert op in ("shl", "shr") or a.dtype is b.dtype, (op, a.dtype, b.dtype)
    return Binary(BOOL if op in COMPARISONS else a.dtype, join(a.axes, b.axes, order=order), op, a, b, span=span or a.span)


def both(a: Expr | None, b: Expr | None, order: tuple[str, ...] = (), span: Span | None = None) -> Expr | None:
    """Conjunction in which None is true; otherwise as ``binary``."""
    return b if a is None else a if b is None else binary("and", a, b, order, span)
