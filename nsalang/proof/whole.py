"""Integers that the text computes stay within 64 bits, which is what machines have for the language's unbounded ones: what is to be shown of each.

A goal speaks of what an operation computes, before anything is cut to 64 bits: of its ends as Python's integers, or of exact terms of its operands.
Never of an unknown that stands for the result: such an unknown has the range of its dtype, which would settle its own goal. What an operand is made
of is another obligation, and may be used.
"""

from __future__ import annotations

from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import I64
from nsalang.ir.intervals import LEAST, LONGEST_TILE, MOST
from nsalang.proof.ends import folded
from nsalang.proof.forms import between
from nsalang.proof.reason import every
from nsalang.proof.symbols import Symbols

Goal = tuple[ir.Expr, tuple[ir.Expr, ...]]
"""What is to be shown, and what may be used for it: that parts of it stay within 64 bits."""


def stays(at: Symbols, node: ir.Expr) -> Goal | None:
    """What keeps an integer within 64 bits; None where its ends do, or it computes nothing."""
    if node.dtype is not I64:
        # Narrow signed values are read or converted, never computed; unsigned ones wrap; floats and bools are no integers.
        assert not (isinstance(node, (ir.Binary, ir.Scan)) and node.dtype.kind == "signed"), node
        return None
    match node:
        case ir.Const() | ir.Dim() | ir.Scalar() | ir.Index() | ir.Var() | ir.Full() | ir.Spread() | ir.Where() | ir.Load():
            return None  # a value that exists already; an index's ends are those of its axis
        case ir.Cast() | ir.Bitcast():
            return None  # a conversion must fit or saturates; bits have a value in their dtype
        case ir.Search():
            return None  # between 0 and an extent
        case ir.Fma():
            return None  # of floats
        case ir.Unary():
            return _unary(at, node)
        case ir.Binary():
            return _binary(at, node)
        case ir.Border():
            return _border(at, node)
        case ir.Reduce():
            return _reduce(at, node)
        case ir.Scan():
            return _ends_stay(*at.added_up(at.resolve(node.x), (node.over,)))
        case ir.Dot():
            low, high = at.products(node)
            more = (ir.const(0),) * 2 if node.acc is None else at.outer(at.resolve(node.acc))
            return _ends_stay(folded("add", low, more[0]), folded("add", high, more[1]))
        case _:
            assert_never(node)


def _unary(at: Symbols, node: ir.Unary) -> Goal | None:
    match node.op:
        case "neg" | "abs":
            return _exactly(at, node)
        case "ceil_log2":
            return None  # an exponent of a float
        case "not" | "invert":
            return None  # of bools and unsigned integers
        case "exp" | "exp2" | "log" | "log2" | "sqrt" | "rsqrt" | "sigmoid" | "tanh" | "pow2_ceil" | "floor" | "ceil" | "trunc" | "round":
            return None  # of floats
        case _:
            assert_never(node.op)


def _binary(at: Symbols, node: ir.Binary) -> Goal | None:
    match node.op:
        case "add" | "sub" | "mul" | "shl":
            return _exactly(at, node)
        case "floordiv" | "tdiv":
            a, b = at.resolve(node.a), at.resolve(node.b)
            if at.ends(a)[0] > LEAST or not at.ends(b)[0] <= -1 <= at.ends(b)[1]:
                return None
            return ir.binary("or", ir.binary("ne", a, ir.const(LEAST)), ir.binary("ne", b, ir.const(-1))), ()
        case "mod" | "tmod":
            return None  # smaller than its divisor, and 0 for -1, whatever a machine's instruction does
        case "and" | "or" | "xor" | "shr" | "min" | "max":
            return None  # no further from 0 than an operand, or bits of two of them
        case "div" | "lt" | "le" | "gt" | "ge" | "eq" | "ne":
            return None  # a float; a bool
        case _:
            assert_never(node.op)


def _exactly(at: Symbols, node: ir.Expr) -> Goal | None:
    """For an operation that is encoded as what it is: the result itself."""
    made = at.resolve(node)
    low, high = at.ends(made)
    if low >= LEAST and high <= MOST:
        return None
    parts = (made.a, made.b) if isinstance(made, ir.Binary) else ()
    beyond = [p for p in parts if at.ends(p)[0] < LEAST or at.ends(p)[1] > MOST]
    return _within(made), tuple(_within(p) for p in beyond)


def _within(x: ir.Expr) -> ir.Expr:
    return every(between(ir.const(LEAST), x, ir.const(MOST)))


def _border(at: Symbols, node: ir.Border) -> Goal | None:
    n, parts, g = at.resolve(node.n), at.resolve(node.parts), at.resolve(node.g)
    whole = ir.binary("mul", g, ir.binary("floordiv", n, parts))
    low, high = at.ends(whole)
    rest = at.ends(g)
    if min(low, low + rest[0]) >= LEAST and high + max(0, rest[1]) <= MOST:
        return None
    # Of a part that there is, the border is none past the end.
    inside = every((ir.binary("le", ir.const(0), g), ir.binary("le", g, parts)))
    start = ir.binary("add", whole, ir.binary("min", g, ir.binary("mod", n, parts)))
    return ir.binary("or", inside, every((_within(whole), _within(start)))), ()


def _reduce(at: Symbols, node: ir.Reduce) -> Goal | None:
    match node.op:
        case "sum":
            return _ends_stay(*at.added_up(at.resolve(node.x), node.over))
        case "absmax":
            x = at.resolve(node.x)
            return None if at.ends(x)[0] > LEAST else (ir.binary("ne", x, ir.const(LEAST)), ())
        case "max" | "min" | "argmax" | "argmin" | "any" | "all":
            return None  # one of the lanes, its index, or a bool
        case _:
            assert_never(node.op)


def _ends_stay(low: ir.Expr, high: ir.Expr) -> Goal | None:
    if isinstance(low, ir.Const) and isinstance(high, ir.Const) and int(low.value) >= LEAST and int(high.value) <= MOST:
        return None
    return every((ir.binary("le", ir.const(LEAST), low), ir.binary("le", high, ir.const(MOST)))), ()


def axis_stays(at: Symbols, statement: ir.SpanAxis | ir.For) -> ir.Expr | None:
    """What keeps the ends of an axis within 64 bits: where a span ends, how many iterations a loop has, where the last tile of one ends."""
    match statement:
        case ir.SpanAxis():
            made = [ir.binary("add", at.resolve(statement.start), ir.const(statement.length))]
        case ir.For():
            low, high = at.resolve(statement.lo), at.resolve(statement.hi)
            made = [ir.binary("sub", high, low)]
            if statement.kind == "tile":
                made.append(ir.binary("add", high, ir.const(LONGEST_TILE)))
        case _:
            assert_never(statement)
    beyond = [e for e in made if at.ends(e)[0] < LEAST or at.ends(e)[1] > MOST]
    return every(_within(e) for e in beyond) if beyond else None
