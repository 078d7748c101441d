"""What a TileLang program says of its launch and its arguments: a Triton program is told both from outside."""

from __future__ import annotations

from collections.abc import Sequence

from nsalang import ir
from nsalang.base.dtypes import ALL
from nsalang.lowering.program import Kind
from nsalang.lowering.text import Text, call, infix, number
from nsalang.lowering.tilelang.buffers import tuple_of
from nsalang.lowering.tilelang.expressions import expr
from nsalang.lowering.tilelang.state import Printer

RESERVED = frozenset(
    "T abs min max exp exp2 log log2 sqrt rsqrt floor ceil tanh pow round half float double int char short long signed unsigned void auto const "
    "static struct union enum template typename this new delete switch case default do goto inline namespace operator private public register "
    "restrict sizeof typedef using virtual volatile extern warpSize y0 y1 yn j0 j1 jn gamma signgam index main".split()
)
"""Names that the C++ which TileLang makes gives another meaning."""


def parameter(kind: Kind) -> str:
    return "T.handle" if kind == "pointer" else f"T.{ALL[kind].tilelang}"


def product(counts: Sequence[Text]) -> Text:
    """The number of blocks."""
    out = counts[0] if counts else number(1)
    for other in counts[1:]:
        out = infix("*", out, other)
    return out


def tensor(p: Printer, t: ir.Tensor | ir.View, pointer: str) -> Text:
    """The buffer behind a pointer: its extents and strides, in elements."""
    stored = t.storage or t.dtype
    last = len(t.shape) - 1
    strides = [p.arguments.use("stride", t.name, axis) if p.arguments.has_stride(t.name, axis) else "1" for axis in range(len(t.shape))]
    assert all(s != "1" or axis == last for axis, s in enumerate(strides))
    extents = [str(expr(p, e)) for e in t.shape]
    return call("T.make_tensor", pointer, tuple_of(extents or [1]), f'"{stored.tilelang}"', tuple_of(strides or [1]))


def index_dtype(p: Printer) -> str:
    return "int64" if p.kernel.schedule.wide else "int32"


def assume(p: Printer, name: str, divisor: int) -> None:
    """What TileLang no longer sees of a value that came through a register; it needs it to access several elements at once."""
    p.out.line(f"T.assume({name} % {divisor} == 0)")
