"""Expressions of the IR as text of TileLang, within a T.Parallel loop or outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import BOOL, F32, I32, I64
from nsalang.lowering import text as both
from nsalang.lowering.arguments import is_passed_as
from nsalang.lowering.text import SUM, Text, call, infix, number, prefix, subscript
from nsalang.lowering.tilelang.dtypes import cast, typed
from nsalang.lowering.tilelang.elements import base, index, variable
from nsalang.lowering.tilelang.far import complement, is_far
from nsalang.lowering.tilelang.groups import group
from nsalang.lowering.tilelang.simplifier import is_negated, joined, shifts_far, simplified_wrongly, steps, wrapped
from nsalang.lowering.tilelang.state import Printer

INFIX: dict[ir.BinaryOp, str] = {**both.INFIX, "div": "/"}
CALLS = {"min": "T.min", "max": "T.max", "tdiv": "T.truncdiv", "tmod": "T.truncmod"}
FUNCTIONS: dict[ir.UnaryOp, str] = {
    "abs": "T.abs", "exp": "T.exp", "exp2": "T.exp2", "log": "T.log", "log2": "T.log2", "sqrt": "T.sqrt", "rsqrt": "T.rsqrt",
    "erf": "T.erf", "floor": "T.floor", "ceil": "T.ceil",
}  # fmt: skip
IEEE: dict[ir.BinaryOp, str] = {"add": "T.ieee_add", "sub": "T.ieee_sub", "mul": "T.ieee_mul", "div": "T.ieee_fdiv"}


def access(p: Printer, tensor: str, indices: Sequence[ir.Expr]) -> Text:
    at = [index(p, i) if isinstance(i, ir.Index) else expr(p, i) for i in indices]
    return subscript(Text(p.arguments.use("tensor", tensor)), ", ".join(map(str, at)) or "0")


def load(p: Printer, x: ir.Load, zero: Text | None = None) -> Text:
    """An element, or where the mask is false ``zero``, or what the load holds there."""
    element = access(p, x.tensor, x.indices)
    if x.mask is None:
        return element
    return call("T.if_then_else", mask(p, x.mask), element, zero or typed(x.fill or ir.Const(x.dtype, (), 0)))


def mask(p: Printer, x: ir.Expr) -> Text:
    """A mask. Where lanes end at a dimension that divides by a power of two, whole groups of so many lanes are in or out, and the first lane
    of a group decides: that shows TileLang that an access to the group can be a vector."""
    match x:
        case ir.Binary(op="and") if x.dtype is BOOL:
            return joined(mask(p, x.a), mask(p, x.b), x)
        case ir.Binary(op="lt", a=ir.Index(axes=(axis,)), b=ir.Dim(name=dim)) if (size := group(p.kernel, axis, dim)) > 1:
            begin, lane = p.bases[axis], Text(p.lane[axis])
            first = infix("*", infix("//", lane, Text(str(size))), Text(str(size)))
            return infix("<", first if begin is None else infix("+", begin, first), expr(p, x.b))
    return expr(p, x)


def expr(p: Printer, x: ir.Expr) -> Text:
    match x:
        case ir.Const():
            if x.dtype is I32 and x.value == I32.min:
                # Beside another operand it would be negated, and there is no such number.
                return complement(x)
            plain = (x.dtype in (I32, I64) and not is_far(x)) or (x.dtype is F32 and math.isfinite(x.value))
            return number(x.value) if plain else typed(x)
        case ir.Dim():
            return Text(p.arguments.use("dim", x.name))
        case ir.Scalar():
            text = Text(p.arguments.use("scalar", x.name))
            return text if is_passed_as(p.kernel, x) else cast(text, x.dtype)
        case ir.Index():
            text = index(p, x)
            begin = base(p, x)
            narrow = x.axes and (begin is None or text.level == SUM and str(begin).isdigit())
            return cast(text, I64) if x.dtype is I64 and narrow else text
        case ir.Var():
            if x.name in p.scalars:
                return Text(p.scalars[x.name])
            return variable(p, x.name, x.axes)
        case ir.Unary():
            return unary(p, x)
        case ir.Binary():
            return binary(p, x)
        case ir.Fma():
            return call("T.ieee_fmaf", *(operand(p, v) for v in (x.a, x.b, x.c)))
        case ir.Where():
            return call("T.if_then_else", expr(p, x.cond), operand(p, x.a), operand(p, x.b))
        case ir.Cast():
            assert x.mode != "convert", "a conversion that legalize left"
            return cast(operand(p, x.x), x.dtype)
        case ir.Bitcast():
            return call("T.reinterpret", operand(p, x.x), f'"{x.dtype.tilelang}"')
        case ir.Full():
            return operand(p, x.value)
        case ir.Spread():
            return spread(p, x)
        case ir.Load():
            # Of an address that is computed ahead of its loop; all others have names.
            return load(p, x)
        case ir.Dot() | ir.Reduce() | ir.Scan():
            raise AssertionError(f"flatten left a {type(x).__name__} inside an expression")
        case ir.Search() | ir.Border():
            raise AssertionError(f"expand left a {type(x).__name__}")
        case _:
            assert_never(x)


def spread(p: Printer, x: ir.Spread) -> Text:
    """What the group of the lane being printed has."""
    before = p.lane
    p.lane = {**before, x.group: str(infix("//", Text(before[x.over]), number(p.kernel.schedule.step(x.group))))}
    found = expr(p, x.x)
    p.lane = before
    return found


def operand(p: Printer, x: ir.Expr) -> Text:
    """An argument of a function of TileLang's: a number needs its type there."""
    return typed(x) if isinstance(x, ir.Const) else expr(p, x)


def unary(p: Printer, x: ir.Unary) -> Text:
    match x.op:
        case "neg":
            return prefix("-", expr(p, x.x))
        case "not" | "invert":
            # T.Not turns the comparison below it around, which is wrong for NaN.
            return prefix("~", expr(p, x.x))
        case _:
            return call(FUNCTIONS[x.op], operand(p, x.x))


def binary(p: Printer, x: ir.Binary) -> Text:
    match x.op:
        case "min" | "max" | "tdiv" | "tmod":
            plain = operand if isinstance(x.a, ir.Const) and isinstance(x.b, ir.Const) else expr
            return call(CALLS[x.op], plain(p, x.a), plain(p, x.b))
        case "floordiv" | "mod":
            return floored(p, x)
        case "eq" | "ne" if x.a == x.b and x.a.dtype.is_float:
            is_nan = call("T.isnan", expr(p, x.a))
            return is_nan if x.op == "ne" else prefix("~", is_nan)
        case "add" | "sub" | "mul" | "div" if x.dtype.is_float and simplified_wrongly(x):
            return call(IEEE[x.op], operand(p, x.a), operand(p, x.b))
        case "and" | "or" if x.dtype is BOOL:
            return joined(expr(p, x.a), expr(p, x.b), x)
        case "shl" | "shr":
            return wrapped(shift(p, x), x)
        case "lt" | "le" | "gt" | "ge" if x.a.dtype.is_float and is_negated(p, x):
            # TileLang's simplifier knows the other side of a test as the test's negation, which for NaN it is not. It sees through no cast.
            test = infix(INFIX[x.op], expr(p, x.a), expr(p, x.b))
            return infix(">", cast(test, I32), number(0))
        case "eq" | "ne" if x.a.dtype.is_float and not x.axes and not isinstance(x.a, ir.Const) and not isinstance(x.b, ir.Const):
            # Of two names for one value it takes this for settled.
            test, nan = infix(INFIX[x.op], expr(p, x.a), expr(p, x.b)), call("T.isnan", expr(p, x.a))
            return infix("|", test, nan) if x.op == "ne" else infix("&", test, prefix("~", nan))
        case _:
            return wrapped(infix(INFIX[x.op], expr(p, x.a), expr(p, x.b)), x)


def shift(p: Printer, x: ir.Binary) -> Text:
    """The amount is within 0 .. bits - 1, where the proof has it, in a form that says so: the simplifier's bounds of a shift are wrong where its
    bounds of the amount reach below 0, and it drops the ``%`` that keeps an index inside.

    To the right by more than 31 goes in steps of at most 31: in an index TVM makes 32 bits of 64 where the values fit, whatever the amount.
    """
    amounts: list[Text]
    if isinstance(x.b, ir.Const):
        amounts = (
            [typed(ir.Const(x.dtype, (), n)) for n in steps(int(x.b.value))] if shifts_far(x) else [typed(ir.Const(x.dtype, (), x.b.value))]
        )
    else:
        amount = expr(p, x.b) if x.b.dtype is x.dtype else cast(expr(p, x.b), x.dtype)
        amount = infix("&", amount, typed(ir.Const(x.dtype, (), x.dtype.bits - 1)))
        amounts = [amount]
        if shifts_far(x):
            none, step = typed(ir.Const(x.dtype, (), 0)), typed(ir.Const(x.dtype, (), 31))
            rest = call("T.max", infix("-", amount, step), none)
            amounts = [
                call("T.min", amount, step),
                call("T.min", rest, step),
                call("T.max", infix("-", amount, typed(ir.Const(x.dtype, (), 62))), none),
            ]
    made = operand(p, x.a)
    for amount in amounts:
        made = infix(INFIX[x.op], made, amount)
    return made


def floored(p: Printer, x: ir.Binary) -> Text:
    """Division in an extent of a tensor: of dimensions, which are not negative."""
    assert not x.axes, f"legalize left '{x.op}'"
    return infix("//" if x.op == "floordiv" else "%", expr(p, x.a), expr(p, x.b))
