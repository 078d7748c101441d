"""Fold constants and drop what does nothing: identities, branches that are never taken, variables that nobody reads.

Everything is exact: floats round once to their dtype, `x + 0.0` stays (it turns -0 into +0), `x * 0.0` stays (x may be NaN).
Leaves no operation on constants alone (transcendental functions excepted), no empty loop or branch, and no assignment that no store, condition or
bound depends on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from fractions import Fraction

from nsalang import ir
from nsalang.base.dtypes import BOOL, F32, DType
from nsalang.base.target import Target
from nsalang.ir import Binary, Cast, Const, Expr, Fma, Full, Unary, Where
from nsalang.passes import fold


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    shapes = tuple(ir.rewrite(t, rule) for t in kernel.tensors)
    views = tuple(ir.rewrite(v, rule) for v in kernel.views)
    grid = tuple(ir.rewrite(g, rule) for g in kernel.grid)
    body = tuple(s for statement in kernel.body for s in _statements(statement))
    body = _alive(body)
    same = body == kernel.body and shapes == kernel.tensors and views == kernel.views and grid == kernel.grid
    return kernel if same else dataclasses.replace(kernel, tensors=shapes, views=views, grid=grid, body=body)


def _statements(statement: ir.Stmt) -> tuple[ir.Stmt, ...]:
    # A statement list is a child of some node: rewriting one that holds only this statement lets the rule drop it.
    made = ir.rewrite(ir.If(_TRUE, (statement,)), lambda n: n if isinstance(n, ir.If) and n.cond is _TRUE else rule(n))
    return made.body


_TRUE = ir.const(True, BOOL)


def rule(node: ir.Node) -> ir.Node | tuple[ir.Node, ...]:
    """What stands for a node whose children are simple already."""
    match node:
        case Unary() | Binary() | Fma() | Where() | Cast() | Full() | ir.Border():
            return expression(node)
        case ir.If(cond=Const(value=taken)):
            return node.body if taken else node.orelse
        case ir.If(body=(), orelse=()):
            return ()
        case ir.For(body=()):
            return ()
        case ir.For(lo=Const(value=lo), hi=Const(value=hi)) if hi <= lo:
            return ()
        case _:
            return node


def expression(node: Expr) -> Expr:
    """The simplest equal of an expression whose operands are simple."""
    match node:
        case Unary():
            return _same_axes(node, _unary(node))
        case Binary():
            return _same_axes(node, _binary(node))
        case Fma(a=Const(value=a), b=Const(value=b), c=Const(value=c)) if all(map(math.isfinite, (a, b, c))):
            exact = Fraction(a) * Fraction(b) + Fraction(c)
            return Const(F32, (), fold.rounded(exact, 0.0, F32), span=node.span) if exact else node
        case Where():
            return _same_axes(node, _where(node))
        case Cast():
            return _same_axes(node, _cast(node))
        case ir.Border(parts=Const(value=int(parts))) if parts > 0:
            return _same_axes(node, _border(node, parts))
        case Full(value=value) if set(value.axes) == set(node.axes):
            return value
        case _:
            return node


def _same_axes(node: Expr, made: Expr | None) -> Expr:
    """``made`` repeated over the axes that ``node`` has and it has not."""
    if made is None or made is node:
        return node
    if set(made.axes) == set(node.axes):
        return made
    assert set(made.axes) < set(node.axes), (made.axes, node.axes)
    return Full(node.dtype, node.axes, made.value if isinstance(made, Full) else made, span=node.span)


def _constant(node: Expr, value: int | float | bool | None) -> Expr | None:
    return None if value is None else Const(node.dtype, (), value, span=node.span)


def value_of(node: Expr) -> int | float | bool | None:
    """The constant that an expression is in every lane, or None."""
    if isinstance(node, Full):
        node = node.value
    return node.value if isinstance(node, Const) else None


def _is(node: Expr, value: int | float) -> bool:
    """Whether a node is this constant; 0.0 is not -0.0."""
    found = value_of(node)
    return found is not None and found == value and math.copysign(1.0, found) == math.copysign(1.0, value)


def equal(a: Expr, b: Expr) -> bool:
    """Whether two expressions are the same text; unlike ``==`` this tells 0.0 from -0.0 and 1 from True."""
    return a is b or (a == b and repr(a) == repr(b))


def _unary(node: Unary) -> Expr | None:
    x, known = node.x, value_of(node.x)
    if known is not None and node.dtype is x.dtype:
        return _constant(node, fold.unary(node.op, known, node.dtype))
    match node.op, x:
        case ("neg", Unary(op="neg", x=y)) | ("not", Unary(op="not", x=y)) | ("invert", Unary(op="invert", x=y)):
            return y
        case "abs", Unary(op="abs"):
            return x
        case "abs", Unary(op="neg", x=y):
            return Unary(node.dtype, node.axes, "abs", y, span=node.span)
        case "not", Binary(op=op, a=a, b=b) if op in _OPPOSITE and (op in ("eq", "ne") or not a.dtype.is_float):
            return Binary(BOOL, x.axes, _OPPOSITE[op], a, b, span=node.span)
    return None


_OPPOSITE: dict[str, ir.BinaryOp] = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}


def _binary(node: Binary) -> Expr | None:
    a, b, op = node.a, node.b, node.op
    x, y = value_of(a), value_of(b)
    if x is not None and y is not None:
        return _constant(node, fold.binary(op, x, y, a.dtype))
    if a.dtype is BOOL:
        return _logic(op, a, b)
    if a.dtype.is_float:
        return _float(node)
    return _integer(node)


def _logic(op: ir.BinaryOp, a: Expr, b: Expr) -> Expr | None:
    for known, other in ((value_of(a), b), (value_of(b), a)):
        if known is None:
            continue
        if op in ("and", "or"):
            return other if known is (op == "and") else Const(BOOL, (), bool(known))
        if op in ("xor", "ne", "eq"):
            return other if known is (op == "eq") else Unary(BOOL, other.axes, "not", other, span=other.span)
    return a if op in ("and", "or") and equal(a, b) else None


def _nested(node: Binary, inner: ir.BinaryOp) -> Expr | None:
    """``(x inner c) op d`` and its mirror images as ``x inner (c op d)``, for ``inner`` that commutes."""
    for left, right in ((node.a, node.b), (node.b, node.a)):
        d = value_of(right)
        if d is None or not isinstance(left, Binary) or left.op != inner:
            continue
        for x, constant in ((left.a, left.b), (left.b, left.a)):
            c = value_of(constant)
            if c is not None:
                made = fold.binary(node.op, c, d, node.dtype)
                if made is not None:
                    return expression(Binary(node.dtype, node.axes, inner, x, Const(node.dtype, (), made, span=right.span), span=node.span))
    return None


def _float(node: Binary) -> Expr | None:
    a, b = node.a, node.b
    match node.op:
        case "mul":
            return a if _is(b, 1.0) else b if _is(a, 1.0) else None
        case "sub":
            return a if _is(b, 0.0) else None
        case "add":
            return a if _is(b, -0.0) else b if _is(a, -0.0) else None
        case "div":
            if _is(b, 1.0):
                return a
            inverse = _inverse(value_of(b), node.dtype)
            return (
                None
                if inverse is None
                else Binary(node.dtype, node.axes, "mul", a, Const(node.dtype, (), inverse, span=b.span), span=node.span)
            )
        case "min" | "max":
            return _nested(node, node.op)
        case _:
            return None


def _inverse(divisor: int | float | None, dtype: DType) -> float | None:
    """1 / divisor where that is exact, so that a product is the quotient bit for bit: for powers of two."""
    if divisor is None or not math.isfinite(divisor) or divisor == 0:
        return None
    fraction, exponent = math.frexp(divisor)
    in_range = abs(exponent) < dtype.bias - 1
    return 1.0 / divisor if abs(fraction) == 0.5 and in_range else None


def _integer(node: Binary) -> Expr | None:
    a, b = node.a, node.b
    x, y = value_of(a), value_of(b)
    signed = node.dtype.kind == "signed"
    zero = Const(node.dtype, (), 0, span=node.span)
    match node.op:
        case "add":
            return a if y == 0 else b if x == 0 else _nested(node, "add")
        case "sub":
            if y == 0:
                return a
            if signed and y is not None:
                shifted = Binary(node.dtype, node.axes, "add", a, Const(node.dtype, (), -y, span=b.span), span=node.span)
                return _nested(shifted, "add")
            return zero if equal(a, b) and not _reads(a) else None
        case "mul":
            if x == 0 or y == 0:
                return zero
            return a if y == 1 else b if x == 1 else _nested(node, "mul")
        case "floordiv" | "tdiv":
            if signed and isinstance(a, Binary) and a.op == "mul" and y and equal(a.b, b):
                return a.a
            return a if y == 1 else None
        case "mod" | "tmod":
            return zero if y == 1 else None
        case "shl" | "shr":
            return a if y == 0 else None
        case "or" | "xor":
            return a if y == 0 else b if x == 0 else None
        case "and":
            return zero if x == 0 or y == 0 else None
        case "min" | "max":
            return a if equal(a, b) else _nested(node, node.op)
        case "ge" if a.dtype.kind == "unsigned" and y == 0:
            return Const(BOOL, (), True, span=node.span)
        case "lt" if a.dtype.kind == "unsigned" and y == 0:
            return Const(BOOL, (), False, span=node.span)
        case _:
            return None


def _reads(node: Expr) -> bool:
    return any(isinstance(n, ir.Load) for n in ir.walk(node))


def _border(node: ir.Border, parts: int) -> Expr | None:
    n, g = value_of(node.n), value_of(node.g)
    if g == 0 or g == parts:
        return node.n if g else Const(node.dtype, (), 0, span=node.span)
    if n is None or g is None or n < 0:
        return None
    each, more = divmod(int(n), parts)
    return _constant(node, int(g) * each + min(int(g), more))


def _where(node: Where) -> Expr | None:
    known = value_of(node.cond)
    if known is not None:
        return node.a if known else node.b
    if equal(node.a, node.b):
        return node.a
    if isinstance(node.cond, Unary) and node.cond.op == "not":
        return _where_or(Where(node.dtype, node.axes, node.cond.x, node.b, node.a, span=node.span))
    if node.dtype is BOOL:
        a, b = value_of(node.a), value_of(node.b)
        if a is True and b is False:
            return node.cond
        if b is False:
            return Binary(BOOL, node.axes, "and", node.cond, node.a, span=node.span)
        if a is True:
            return Binary(BOOL, node.axes, "or", node.cond, node.b, span=node.span)
    return None


def _where_or(node: Where) -> Expr:
    return _where(node) or node


def _cast(node: Cast) -> Expr | None:
    x, known = node.x, value_of(node.x)
    if x.dtype is node.dtype:
        return x
    if known is not None:
        if known != known:
            return None
        return _constant(node, fold.cast(known, x.dtype, node.dtype, node.mode == "wrap"))
    if isinstance(x, Cast) and includes(x.dtype, x.x.dtype):
        if x.x.dtype is node.dtype:
            return x.x
        saturates = node.dtype.is_integer and x.dtype.is_float and not x.x.dtype.is_float
        if x.mode != "raw" and node.mode != "raw" and not saturates:
            return _cast_or(Cast(node.dtype, node.axes, x.x, node.mode, span=node.span))
    return None


def _cast_or(node: Cast) -> Expr:
    return _cast(node) or node


def includes(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow`` is one of ``wide``."""
    if wide is narrow:
        return True
    if narrow is BOOL:
        return wide is not BOOL and not wide.is_fp8
    if wide is BOOL or wide.is_float != narrow.is_float:
        return wide.is_float and wide.working is wide and narrow.is_integer and narrow.bits <= wide.mantissa + 1
    if wide.is_integer:
        return wide.min <= narrow.min and narrow.max <= wide.max
    least_wide, least_narrow = (1 - t.bias - t.mantissa for t in (wide, narrow))
    return wide.mantissa >= narrow.mantissa and wide.max >= narrow.max and least_wide <= least_narrow and wide.bits > 8


# ------------------------------------------------------------------------------------------------------------ what nobody reads


def _alive(body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    """The statements on which a store depends, through variables, conditions and bounds."""
    while True:
        live, axes = _live(body)
        made = _kept(body, live, axes)
        if made == body:
            return body
        body = made


def _live(body: tuple[ir.Stmt, ...]) -> tuple[set[str], set[str]]:
    """Variables whose value matters, and axes that some value has."""
    live: set[str] = set()
    axes: set[str] = set()
    assigns: list[ir.Assign] = []
    for statement in body:
        for node in ir.walk(statement):
            if isinstance(node, ir.Assign):
                assigns.append(node)
            elif isinstance(node, ir.Store | ir.SpanAxis | ir.For | ir.If):
                live |= {n.name for part in heads(node) for n in ir.walk(part) if isinstance(n, ir.Var)}
            if isinstance(node, ir.Value | ir.Store):
                axes.update(node.axes)
    while True:
        more = {n.name for a in assigns if a.name in live for n in ir.walk(a.value) if isinstance(n, ir.Var)} - live
        if not more:
            return live, axes
        live |= more


def heads(node: ir.Stmt) -> Iterable[Expr]:
    """The expressions of a statement itself, not of the statements in it."""
    return (c for c in ir.children(node) if isinstance(c, ir.Value))  # type: ignore[misc]


def _kept(body: tuple[ir.Stmt, ...], live: set[str], axes: set[str]) -> tuple[ir.Stmt, ...]:
    made: list[ir.Stmt] = []
    for node in body:
        match node:
            case ir.Assign() if node.name not in live:
                continue
            case ir.SpanAxis() if node.axis not in axes:
                continue
            case ir.For():
                inner = _kept(node.body, live, axes)
                carried = tuple(c for c in node.carried if c in live)
                if inner:
                    made.append(
                        node if inner == node.body and carried == node.carried else dataclasses.replace(node, body=inner, carried=carried)
                    )
            case ir.If():
                inner, other = _kept(node.body, live, axes), _kept(node.orelse, live, axes)
                if inner or other:
                    made.append(node if (inner, other) == (node.body, node.orelse) else dataclasses.replace(node, body=inner, orelse=other))
            case _:
                made.append(node)
    return tuple(made)
