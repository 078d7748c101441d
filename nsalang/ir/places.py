"""Places of elements in a promise: known at launch, or one free index plus what is known."""

from __future__ import annotations

from nsalang.ir.nodes import Binary, Cast, Const, Dim, Expr, Index, Scalar, binary, const
from nsalang.ir.walk import walk

FREE = "each0"


def shift(place: Expr) -> Expr | None:
    """What is added to the free index; None where it isn't there. Raises ValueError where a place is neither."""
    match place:
        case Index(name=name) if name == FREE:
            return const(0)
        case Binary(op="add", a=Index(name=name), b=more) | Binary(op="add", a=more, b=Index(name=name)) if name == FREE and known(more):
            return more
        case Binary(op="sub", a=Index(name=name), b=less) if name == FREE and known(less):
            return const(-int(less.value)) if isinstance(less, Const) else binary("sub", const(0), less)
        case Binary(op="add" | "sub" as op, a=a, b=b) if known(b) and not known(a):
            inner = shift(a)
            return None if inner is None else binary(op, inner, b)
    if known(place):
        return None
    raise ValueError(place)


def known(e: Expr) -> bool:
    """Whether a launch knows it, by dimensions and scalars alone."""
    return all(isinstance(n, (Const, Dim, Scalar, Binary, Cast)) for n in walk(e))
