"""Small kernels as trees of tuples, and their text. Nothing here uses nsalang.

Integers: ``("c", 3) ("d", dim) ("s", scalar) ("i", index) ("v", name)``, ``(op, a, b)`` for ``+ - * // % min max >> <<``, ``("load", tensor,
indices)``, ``("where", c, a, b)``, ``("cast"|"wrap", dtype, a)``, ``("abs"|"neg", a)``, ``("clamp", a, low, high)``, ``("cdiv", a, b)``,
``("find", tensor, x)``, ``("sum"|"rank", mask, axis)``, ``("isum", a, axis)``, ``("scan", a, axis, exclusive, reverse)``, ``("dot", a, b, axis)``,
``("border", n, parts, g)``.
Conditions: comparisons, ``& | ~``, ``("any", mask, axis)``. Floats: ``("f", text)``, ``load``, ``where``, ``("f32", integer)``, ``("fadd", a, b)``,
``("fsum", value, axis)``, ``("v", name)``.
Statements: ``("let", name, e)``, ``("set", name, e)`` (carried), ``("store", mode, tensor, indices, value)``, ``("if", c, body, else)``,
``("for", kind, index, lo, hi, body)``, ``("span", index, start, length, stop or None)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

Tree: TypeAlias = "tuple[Any, ...]"

COMPARE = ("<", "<=", ">", ">=", "==", "!=")
LIMITS = {"u8": (0, 2**8 - 1), "i8": (-(2**7), 2**7 - 1), "i32": (-(2**31), 2**31 - 1), "i64": (-(2**63), 2**63 - 1)}


OPERATORS = ("//", "%", "<<", ">>", "min", "max", "where", "abs", "neg", "cast", "wrap", "clamp", "cdiv", "isum", "scan", "dot")
"""Of integers: what a long run counts kernels by."""


@dataclass(frozen=True)
class Model:
    """A kernel. ``tensors``: name, dtype, extents, role. ``promises``: ``("each", tensor, ((op, e), …))``, ``("distinct", tensor)``,
    ``("sorted", tensor)``. ``views``: name, dtype, extents, role, base, offset, strides (bytes)."""

    tensors: Tree
    scalars: Tree
    requires: Tree
    promises: Tree
    partial: Tree
    spans: Tree
    grid: Tree
    body: Tree
    views: Tree = ()
    note: str = ""

    @property
    def dims(self) -> tuple[str, ...]:
        shapes = [e for t in self.tensors for e in t[2]]
        return tuple(sorted({n[1] for e in shapes for n in nodes(e) if n[0] == "d"}))


def nodes(tree: object) -> Iterator[Tree]:
    """Every tuple that begins with a string, outermost first."""
    if isinstance(tree, tuple):
        if tree and isinstance(tree[0], str):
            yield tree
        for part in tree:
            yield from nodes(part)


# ------------------------------------------------------------------------------------------------------------------------- text


def text_of(e: Tree) -> str:
    """An expression as nsalang text, bracketed throughout."""
    match e:
        case ("c", value):
            return str(value) if value >= 0 else f"({value})"
        case ("d" | "s" | "i" | "v" | "f", name):
            return str(name)
        case ("load", tensor, indices):
            return f"{tensor}[{', '.join(bare(i) for i in indices)}]"
        case ("where", c, a, b):
            return f"where({bare(c)}, {bare(a)}, {bare(b)})"
        case ("min" | "max" as op, a, b):
            return f"{op}imum({bare(a)}, {bare(b)})"
        case ("cast", dtype, a):
            return f"{dtype}({bare(a)})"
        case ("wrap", dtype, a):
            return f"wrap({bare(a)}, {dtype})"
        case ("abs", a):
            return f"abs({bare(a)})"
        case ("neg", a):
            return f"(-{text_of(a)})"
        case ("clamp", a, low, high):
            return f"clamp({bare(a)}, {bare(low)}, {bare(high)})"
        case ("cdiv", a, b):
            return f"cdiv({bare(a)}, {bare(b)})"
        case ("dot", a, b, axis):
            return f"dot({bare(a)}, {bare(b)}, axis={axis})"
        case ("scan", a, axis, exclusive, reverse):
            return f"cumsum({bare(a)}, axis={axis}{', exclusive=True' if exclusive else ''}{', reverse=True' if reverse else ''})"
        case ("f32", a):
            return f"f32({bare(a)})"
        case ("find", tensor, x):
            return f"searchsorted({tensor}, {bare(x)})"
        case ("sum" | "rank" | "any" | "fsum" | "isum" as op, mask, axis):
            return f"{op.removeprefix('f').removeprefix('i')}({bare(mask)}, axis={axis})"
        case ("~", a):
            return f"~{text_of(a)}"
        case ("fadd", a, b):
            return f"({text_of(a)} + {text_of(b)})"
        case (op, a, b):
            return f"({text_of(a)} {op} {text_of(b)})"
    raise AssertionError(e)


def bare(e: Tree) -> str:
    text = text_of(e)
    return text[1:-1] if text.startswith("(") and e[0] not in ("c", "load") and text.endswith(")") else text


def said(promise: Tree) -> str:
    match promise:
        case ("each", tensor, ((op, e),)):
            return f"{tensor} {op} {bare(e)}"
        case ("each", tensor, ((low_op, low), (op, e))):
            flipped = {">=": "<=", ">": "<"}[low_op]
            return f"{text_of(low)} {flipped} {tensor} {op} {bare(e)}"
        case (kind, tensor):
            return f"{kind}({tensor})"
    raise AssertionError(promise)
