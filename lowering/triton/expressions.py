"""Expressions of the IR as text of Triton."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import F64
from nsalang.ir.machine import machine_axes
from nsalang.lowering import text as both
from nsalang.lowering.arguments import is_passed_as
from nsalang.lowering.grid import never_negative
from nsalang.lowering.text import Text, call, infix, method, number, prefix, subscript
from nsalang.lowering.triton.dtypes import LITERALS, cast, dtype, typed
from nsalang.lowering.triton.shapes import lifted, shape
from nsalang.lowering.triton.state import Printer

INFIX: dict[ir.BinaryOp, str] = {**both.INFIX, "tdiv": "//", "tmod": "%"}
# div_rn and sqrt_rn are IEEE; `/` and tl.sqrt are approximations.
CALLS = {"min": "tl.minimum", "max": "tl.maximum", "div": "tl.div_rn"}
FUNCTIONS: dict[ir.UnaryOp, str] = {
    "abs": "tl.abs", "exp": "tl.exp", "exp2": "tl.exp2", "log": "tl.log", "log2": "tl.log2", "sqrt": "tl.sqrt_rn", "rsqrt": "tl.rsqrt",
    "erf": "tl.erf", "floor": "tl.floor", "ceil": "tl.ceil",
}  # fmt: skip
WIDE = {"div": "tl.fdiv", "sqrt": "tl.sqrt"}
"""What of f64 has another name: there these are IEEE."""


def access(p: Printer, tensor: str, indices: Sequence[ir.Expr], axes: Sequence[str]) -> Text:
    """The addresses of an access, with all of its axes."""
    out = Text(p.arguments.use("tensor", tensor))
    own: set[str] = set()
    for axis, index in enumerate(indices):
        own.update(index.axes)
        if index == ir.Const(index.dtype, (), 0):
            continue
        term = expr(p, index, axes)
        if p.arguments.has_stride(tensor, axis):
            term = infix("*", term, Text(p.arguments.use("stride", tensor, axis)))
        out = infix("+", out, term)
    if own != set(axes):
        out = call("tl.broadcast_to", out, shape(p, axes))
    return out


def load(p: Printer, x: ir.Load) -> Text:
    named: dict[str, Text] = {}
    if x.mask is not None:
        named["mask"] = mask(p, x.mask, x.axes)
        if x.fill is not None:
            named["other"] = expr(p, x.fill)
    return call("tl.load", access(p, x.tensor, x.indices, x.axes), **named)


def mask(p: Printer, x: ir.Expr, axes: Iterable[str]) -> Text:
    return expr(p, x, axes)


def expr(p: Printer, x: ir.Expr, axes: Iterable[str] | None = None) -> Text:
    """``x`` with its own dimensions or those of ``axes``."""
    if axes is not None:
        return lifted(p, expr(p, x), x.axes, axes)
    match x:
        case ir.Const():
            return number(x.value) if x.dtype.working in LITERALS or not x.dtype.is_float else typed(p, x)
        case ir.Dim():
            return Text(p.arguments.use("dim", x.name))
        case ir.Scalar():
            text = Text(p.arguments.use("scalar", x.name))
            return text if is_passed_as(p.kernel, x) else cast(p, text, x.dtype)
        case ir.Index():
            return Text(p.indices[x.name])
        case ir.Var():
            return Text(p.variable(x.name))
        case ir.Unary():
            return unary(p, x)
        case ir.Binary():
            return binary(p, x)
        case ir.Fma():
            return call("tl.fma", *(operand(p, v, x) for v in (x.a, x.b, x.c)))
        case ir.Where():
            a, b = expr(p, x.a, x.axes), expr(p, x.b, x.axes)
            if isinstance(x.a, ir.Const) and isinstance(x.b, ir.Const):
                a = typed(p, x.a)
            return call("tl.where", expr(p, x.cond, x.axes), a, b)
        case ir.Cast():
            assert x.mode != "convert", "a conversion that legalize left"
            return cast(p, operand(p, x.x, x.x), x.dtype)
        case ir.Bitcast():
            return method(operand(p, x.x, x.x), "to", dtype(p, x.dtype), bitcast="True")
        case ir.Full():
            if not x.value.axes:
                return call("tl.full", shape(p, x.axes), expr(p, x.value), dtype(p, x.dtype))
            return call("tl.broadcast_to", expr(p, x.value, x.axes), shape(p, x.axes))
        case ir.Spread():
            return spread(p, x)
        case ir.Load() | ir.Dot() | ir.Reduce() | ir.Scan():
            raise AssertionError(f"flatten left a {type(x).__name__} inside an expression")
        case ir.Search() | ir.Border():
            raise AssertionError(f"expand left a {type(x).__name__}")
        case _:
            assert_never(x)


def spread(p: Printer, x: ir.Spread) -> Text:
    """Behind each dimension of groups one of the lanes in a group: together they run as the lanes of the axis do."""
    inner: ir.Expr = x
    groups: set[str] = set()
    while isinstance(inner, ir.Spread):
        groups.add(inner.group)
        inner = inner.x
    places: list[str] = []
    sizes: list[str] = []
    for axis in machine_axes(p.kernel, inner.axes):
        places += [":", "None"] if axis in groups else [":"]
        sizes.append(str(p.kernel.schedule.length(axis)))
        sizes += [str(p.kernel.schedule.step(axis))] if axis in groups else []
    every = call("tl.broadcast_to", subscript(expr(p, inner), ", ".join(places)), f"({', '.join(sizes)})")
    return call("tl.reshape", every, shape(p, x.axes))


def operand(p: Printer, x: ir.Expr, within: ir.Expr | ir.Store) -> Text:
    """An argument of a function of Triton's, which takes a Python number for i32 or f32 whatever the others are."""
    if isinstance(x, ir.Const):
        return typed(p, x)
    return expr(p, x, within.axes)


def unary(p: Printer, x: ir.Unary) -> Text:
    match x.op:
        case "neg":
            # `-x` is 0 - x, which gives +0 for +0.
            return infix("*", expr(p, x.x), number(-1.0)) if x.dtype.is_float else prefix("-", expr(p, x.x))
        case "not" | "invert":
            return prefix("~", expr(p, x.x))
        case _:
            return call((WIDE.get(x.op) if x.dtype is F64 else None) or FUNCTIONS[x.op], expr(p, x.x))


def binary(p: Printer, x: ir.Binary) -> Text:
    match x.op:
        case "min" | "max" | "div":
            return call((WIDE.get(x.op) if x.dtype is F64 else None) or CALLS[x.op], operand(p, x.a, x), operand(p, x.b, x))
        case "floordiv" | "mod":
            return floored(p, x)
        case "shl" | "shr":
            return shift(p, x)
        case _:
            return infix(INFIX[x.op], expr(p, x.a, x.axes), expr(p, x.b, x.axes))


def shift(p: Printer, x: ir.Binary) -> Text:
    amount = expr(p, x.b, x.axes)
    if not isinstance(x.b, ir.Const) and x.b.dtype is not x.dtype:
        amount = cast(p, amount, x.dtype)
    return infix(INFIX[x.op], operand(p, x.a, x), amount)


def floored(p: Printer, x: ir.Binary) -> Text:
    """Division in an extent of the grid, which no pass rewrites. Triton's truncates, which differs below zero."""
    a, b = expr(p, x.a), expr(p, x.b)
    if never_negative(x.a) and never_negative(x.b):
        return infix("//" if x.op == "floordiv" else "%", a, b)
    rest = infix("%", infix("+", infix("%", a, b), b), b)
    return rest if x.op == "mod" else infix("//", infix("-", a, rest), b)
