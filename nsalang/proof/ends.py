"""Ends of integers as expressions of dimensions and scalars: what facts say of sums, and what a launch can check where numbers alone don't settle
that an integer fits.

Each rule gives an expression that the mathematical integer never exceeds, or never falls below; None where none is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from nsalang import ir
from nsalang.base.dtypes import BOOL
from nsalang.ir.intervals import conjuncts
from nsalang.proof.forms import size, tidy
from nsalang.proof.lemmas import Book, index, values, wide
from nsalang.proof.reason import every
from nsalang.proof.trials import Open, evaluate, holds

End: TypeAlias = "ir.Expr | None"
LARGEST = 40
"""Nodes of an end that is worth checking."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """The facts about one index variable: ``start <= index < stop``, and below ``extra`` too. ``whole``: a reduction over it sees all of it,
    not just the block of a tile."""

    name: str
    start: ir.Expr
    stop: ir.Expr
    extra: ir.Expr | None = None
    whole: bool = False

    def facts(self, at: ir.Expr | None = None) -> tuple[ir.Expr, ...]:
        here = at or index(self.name)
        made = (ir.binary("le", self.start, here), ir.binary("lt", here, self.stop))
        return made if self.extra is None else (*made, ir.binary("lt", here, self.extra))

    @property
    def room(self) -> ir.Expr:
        """How many index values there are at most; of a block there are no more."""
        room = tidy(ir.binary("sub", self.stop, self.start))
        if self.extra is not None:
            room = ir.binary("min", room, tidy(ir.binary("sub", self.extra, self.start)))
        return ir.binary("max", room, ir.const(0))


@dataclass(frozen=True, slots=True)
class Ends:
    """``low <= x <= high``."""

    low: End
    high: End

    def __add__(self, other: Ends) -> Ends:
        return Ends(_both("add", self.low, other.low), _both("add", self.high, other.high))

    def __neg__(self) -> Ends:
        return Ends(_less(self.high), _less(self.low))

    @property
    def exact(self) -> bool:
        """Whether the integer is this expression of dimensions and scalars."""
        return self.low is not None and self.low == self.high

    def join(self, other: Ends) -> Ends:
        return Ends(_both("min", self.low, other.low), _both("max", self.high, other.high))

    def times(self, count: End) -> Ends:
        """Of a sum of up to ``count`` such integers; the count is not negative."""
        zero = ir.const(0)
        return Ends(_product(_both("min", self.low, zero), count), _product(_both("max", self.high, zero), count))

    def around(self, x: ir.Expr) -> tuple[ir.Expr, ...]:
        """That ``x`` lies between them."""
        low = () if self.low is None else (ir.binary("le", self.low, x),)
        return low if self.high is None else (*low, ir.binary("le", x, self.high))


NOTHING = Ends(ir.const(0), ir.const(0))


class Known(Protocol):
    """What is known where an expression stands (`Symbols`). ``reaches``: the ends of unknowns; ``supposed``: conditions under which alone the ends
    have to hold."""

    @property
    def ranges(self) -> Mapping[str, Ranges]: ...
    @property
    def reaches(self) -> Mapping[str, Ends]: ...
    @property
    def book(self) -> Book: ...
    @property
    def supposed(self) -> Sequence[ir.Expr]: ...

    def ends(self, e: ir.Expr) -> tuple[int, int]:
        """The same as numbers."""


def symbolic(at: Known, e: ir.Expr) -> Ends:
    """The ends of an integer over symbols."""
    made = _ends(at, e)
    low, high = at.ends(e)
    if isinstance(made.low, ir.Const):
        made = Ends(ir.const(max(low, int(made.low.value))), made.high)
    if isinstance(made.high, ir.Const):
        made = Ends(made.low, ir.const(min(high, int(made.high.value))))
    return Ends(*(None if x is None or size(x) > LARGEST else x for x in (made.low, made.high)))


def _ends(at: Known, e: ir.Expr) -> Ends:
    match e:
        case ir.Dim():
            return Ends(e, e)
        case ir.Scalar() if e.dtype.is_integer:
            return Ends(wide(e), wide(e))
        case ir.Index() if e.name in at.ranges:
            r = at.ranges[e.name]
            high = symbolic(at, r.stop).high
            return Ends(symbolic(at, r.start).low, None if high is None else tidy(ir.binary("sub", high, ir.const(1))))
        case ir.Load():
            return _element(at, e)
        case ir.Full():
            return symbolic(at, e.value)
        case ir.Cast(mode="convert") if e.x.dtype.is_integer and e.x.dtype is not BOOL and e.dtype.kind == "signed":
            return symbolic(at, e.x)
        case ir.Where():
            return symbolic(at, e.a).join(symbolic(at, e.b))
        case ir.Unary(op="neg") if e.dtype.kind == "signed":
            return -symbolic(at, e.x)
        case ir.Binary(op="add" | "sub" | "min" | "max" | "mul" | "floordiv") if e.dtype.kind == "signed":
            return _binary(at, e)
    return numeric(at, e)


def numeric(at: Known, e: ir.Expr) -> Ends:
    low, high = at.ends(e)
    return Ends(ir.const(low), ir.const(high))


def _element(at: Known, e: ir.Load) -> Ends:
    told = _told(at, e)
    known = _known_element(at, e)
    return Ends(known.low if told.low is None else told.low, known.high if told.high is None else told.high)


def _told(at: Known, e: ir.Load) -> Ends:
    """What the conditions say of an element, as ``0 <= page < NB`` does, in dimensions and scalars."""
    low: End = None
    high: End = None
    for part in (c for s in at.supposed for c in conjuncts(s)):
        if isinstance(part, ir.Binary) and part.op in MIRRORED and part.a.dtype.kind == "signed":
            for x, op, other in ((part.a, part.op, part.b), (part.b, MIRRORED[part.op], part.a)):
                if _bare(x) == e and _only_sizes(other):
                    least = other if op in ("ge", "eq") else ir.binary("add", wide(other), ir.const(1)) if op == "gt" else None
                    most = other if op in ("le", "eq") else ir.binary("sub", wide(other), ir.const(1)) if op == "lt" else None
                    low = low if least is None else wide(least)
                    high = high if most is None else wide(most)
    return Ends(low, high)


def _bare(e: ir.Expr) -> ir.Expr:
    while isinstance(e, ir.Cast) and e.mode == "convert" and e.dtype.kind == "signed" and e.x.dtype.is_integer:
        e = e.x
    return e


def _known_element(at: Known, e: ir.Load) -> Ends:
    if e.tensor in at.reaches:
        return at.reaches[e.tensor]
    kernel = at.book.kernel
    if kernel is not None and e.tensor.startswith("search "):
        return Ends(ir.const(0), kernel.tensor(e.tensor.removeprefix("search ")).shape[0])
    if kernel is not None and e.tensor in {t.name for t in kernel.tensors}:
        for low, high in values(kernel, e.tensor):
            return Ends(wide(low), tidy(ir.binary("sub", wide(high), ir.const(1))))
    return numeric(at, e)


def _binary(at: Known, e: ir.Binary) -> Ends:
    a, b = symbolic(at, e.a), symbolic(at, e.b)
    match e.op:
        case "add":
            return a + b
        case "sub":
            return a + -b
        case "min":
            return Ends(_both("min", a.low, b.low), _both("min", a.high, b.high))
        case "max":
            return Ends(_both("max", a.low, b.low), _both("max", a.high, b.high))
        case "mul" if isinstance(e.b, ir.Const) or isinstance(e.a, ir.Const):
            factor, x = (e.b, a) if isinstance(e.b, ir.Const) else (e.a, b)
            scaled = Ends(_product(x.low, factor), _product(x.high, factor))
            assert isinstance(factor, ir.Const)
            return scaled if factor.value >= 0 else Ends(scaled.high, scaled.low)
        case "mul" if a.exact and b.exact:
            product = _product(a.low, b.low)
            return Ends(product, product)
        case "mul" if _is_count(at, e.b, b):
            return a.times(b.high)
        case "mul" if _is_count(at, e.a, a):
            return b.times(a.high)
        case "floordiv" if isinstance(e.b, ir.Const) and e.b.value > 0:
            return Ends(_both("floordiv", a.low, e.b), _both("floordiv", a.high, e.b))
    return numeric(at, e)


def _is_count(at: Known, e: ir.Expr, ends: Ends) -> bool:
    """Whether an integer is never negative."""
    return at.ends(e)[0] >= 0 or (isinstance(ends.low, ir.Const) and ends.low.value >= 0)


def _both(op: ir.BinaryOp, a: End, b: End) -> End:
    if a is None or b is None:
        return None
    if isinstance(a, ir.Const) and isinstance(b, ir.Const):
        x, y = int(a.value), int(b.value)
        return ir.const({"add": x + y, "min": min(x, y), "max": max(x, y), "floordiv": x // y if y else 0}[op])
    return a if a == b and op in ("min", "max") else tidy(ir.binary(op, a, b))


def _less(e: End) -> End:
    if isinstance(e, ir.Const):
        return ir.const(-int(e.value))
    return None if e is None else tidy(ir.binary("sub", ir.const(0), e))


def _product(a: End, b: End) -> End:
    if a is None or b is None:
        return None
    if isinstance(a, ir.Const):
        a, b = b, a
    if isinstance(b, ir.Const):
        if isinstance(a, ir.Const):
            return ir.const(int(a.value) * int(b.value))
        return b if b.value == 0 else a if b.value == 1 else ir.binary("mul", a, b)
    return ir.binary("mul", a, b)


MIRRORED: dict[str, Literal["le", "lt", "ge", "gt", "eq"]] = {"le": "ge", "lt": "gt", "ge": "le", "gt": "lt", "eq": "eq"}
"""What `c op x` says of `x`."""


def held(ends: tuple[int, int], x: ir.Expr, condition: ir.Expr) -> tuple[int, int]:
    """The ends of an integer where a condition holds that compares it with constants; the least above the greatest where it cannot hold."""
    low, high = ends
    for part in conjuncts(condition):
        match part:
            case ir.Binary(op="le" | "lt" | "ge" | "gt" | "eq" as op, a=a, b=ir.Const(value=int(value))) if a == x:
                pass
            case ir.Binary(op="le" | "lt" | "ge" | "gt" | "eq" as mirrored, a=ir.Const(value=int(value)), b=b) if b == x:
                op = MIRRORED[mirrored]
            case _:
                continue
        if op != "eq" and op[0] == "l":
            high = min(high, value - (op == "lt"))
        elif op != "eq":
            low = max(low, value + (op == "gt"))
        else:
            low, high = max(low, value), min(high, value)
    return low, high


PLAIN = (1, 64)
"""Dimensions and scalars of a launch that no check may refuse: where an end excludes these, it says nothing that a user could keep to."""


def between_sizes(at: Known, value: ir.Expr, low: int, high: int) -> ir.Expr | None:
    """A condition on dimensions and scalars alone under which a value lies between two numbers; None where its ends speak of something else."""
    ends = symbolic(at, value)
    if ends.low is None or ends.high is None or not (_only_sizes(ends.low) and _only_sizes(ends.high)):
        return None
    wanted = ir.binary("le", ir.const(low), _neat(ends.low)), ir.binary("le", _neat(ends.high), ir.const(high))
    parts = [p for p in dict.fromkeys(_plainly(w) for w in wanted) if not holds(p) and not _is_sum_of_sizes(p)]
    return every(parts) if any(isinstance(n, (ir.Dim, ir.Scalar)) for p in parts for n in ir.walk(p)) else None


def kept_by(condition: ir.Expr, sizes: tuple[int, ...] = PLAIN) -> bool:
    """Whether a condition on dimensions and scalars holds where all of them are of one of these sizes."""
    names = {n.name for n in ir.walk(condition) if isinstance(n, (ir.Dim, ir.Scalar))}
    try:
        return all(evaluate(p, dict.fromkeys(names, size)) for p in conjuncts(condition) for size in sizes)
    except Open:
        return False


def _is_sum_of_sizes(e: ir.Binary) -> bool:
    """Whether it says that sums and products of dimensions are not below 0, or below less."""
    plain = (ir.Dim, ir.Const)
    nodes = list(ir.walk(e.b))
    made = all(isinstance(n, plain) or (isinstance(n, ir.Binary) and n.op in ("add", "mul")) for n in nodes)
    return made and isinstance(e.a, ir.Const) and e.a.value <= 0 and all(n.value >= 0 for n in nodes if isinstance(n, ir.Const))


def _neat(e: ir.Expr) -> ir.Expr:
    """Without zeros that are added, and ends that no dimension has."""

    def rule(n: ir.Node) -> ir.Node:
        match n:
            case ir.Binary(op="add", a=ir.Const(value=0), b=x) | ir.Binary(op="add" | "sub", a=x, b=ir.Const(value=0)):
                return x
            case ir.Binary(op="max", a=ir.Dim() as x, b=ir.Const(value=0)):
                return x
            case ir.Binary(op="min", a=ir.Dim(), b=ir.Const(value=0)):
                return ir.const(0)
            case ir.Binary(op="mul", a=ir.Const(value=0)) | ir.Binary(op="mul", b=ir.Const(value=0)):
                return ir.const(0)
        return n

    return ir.rewrite(e, rule)


def _plainly(e: ir.Binary) -> ir.Binary:
    """``D * 16384 <= 2147483647`` as ``D <= 131071``."""
    match e:
        case ir.Binary(op="le", a=ir.Binary(op="mul", a=x, b=ir.Const(value=int(factor))), b=ir.Const(value=int(most))) if factor > 0:
            return _plainly(ir.binary("le", x, ir.const(most // factor)))
        case ir.Binary(op="le", a=ir.Const(value=int(least)), b=ir.Binary(op="mul", a=x, b=ir.Const(value=int(factor)))) if factor < 0:
            return _plainly(ir.binary("le", x, ir.const(least // factor)))
        case ir.Binary(op="le", a=ir.Binary(op="sub", a=x, b=ir.Const(value=int(less))), b=ir.Const(value=int(most))):
            return _plainly(ir.binary("le", x, ir.const(most + less)))
    return e


def _only_sizes(e: ir.Expr) -> bool:
    return not any(isinstance(n, (ir.Load, ir.Index, ir.Var)) for n in ir.walk(e))
