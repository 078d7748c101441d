"""Shapes of expressions: what a sum is made of, what a step adds, how big an expression is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TypeAlias

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType

LARGEST = 24
"""Nodes of a float expression, or of an integer one that branches made, that are kept as they are."""

ZERO, ONE = ir.const(0), ir.const(1)
Term: TypeAlias = tuple[int, ir.Expr]
"""1 or -1, and what is added or subtracted."""


def divided(node: ir.Expr) -> tuple[ir.Expr, ...]:
    """Divisors in an expression are not 0, and what is split has parts: those are obligations of their own. What a ``where`` may skip is left out."""
    found: list[ir.Expr] = []
    if isinstance(node, ir.Where):
        return divided(node.cond)
    if isinstance(node, ir.Binary) and node.op in ("floordiv", "mod") and not isinstance(node.b, ir.Const):
        found.append(ir.binary("ne", node.b, ir.Const(node.b.dtype, (), 0)))
    if isinstance(node, ir.Load) and node.tensor == "border":
        found += [ir.binary("le", ir.const(0), node.indices[0]), ir.binary("lt", ir.const(0), node.indices[1])]
    for child in ir.children(node):
        found += divided(child)  # type: ignore[arg-type]
    return tuple(found)


def narrowed(x: ir.Expr, dtype: DType) -> bool:
    """Whether conversions inside, which are obligations of their own, already made it fit."""
    if isinstance(x, ir.Where):
        return narrowed(x.a, dtype) and narrowed(x.b, dtype)
    if isinstance(x, ir.Const):
        return dtype.min <= x.value <= dtype.max
    while isinstance(x, ir.Cast) and x.mode == "convert":
        if x.dtype.kind == "signed" and x.dtype.bits <= dtype.bits:
            return True
        x = x.x
    return False


def tidy(e: ir.Expr) -> ir.Expr:
    """A sum in which what cancels is gone and constants are one; anything else as it is."""
    terms: dict[ir.Expr, int] = {}
    constant = seen = 0

    def gather(node: ir.Expr, factor: int) -> None:
        nonlocal constant, seen
        match node:
            case ir.Binary(op="add" | "sub") if node.dtype.kind == "signed":
                gather(node.a, factor)
                gather(node.b, factor if node.op == "add" else -factor)
            case ir.Const():
                constant += factor * int(node.value)
                seen += 1
            case _:
                terms[node] = terms.get(node, 0) + factor

    gather(e, 1)
    if all(terms.values()) and seen <= 1:
        return e
    found: ir.Expr | None = None
    for term, factor in terms.items():
        for _ in range(abs(factor)):
            zero = ir.const(0) if factor < 0 and found is None else found
            found = term if zero is None else ir.binary("add" if factor > 0 else "sub", zero, term)
    if found is None:
        return ir.const(constant)
    return found if constant == 0 else ir.binary("add" if constant > 0 else "sub", found, ir.const(abs(constant)))


def between(low: ir.Expr, x: ir.Expr, high: ir.Expr) -> tuple[ir.Expr, ir.Expr]:
    return ir.binary("le", low, x), ir.binary("le", x, high)


def counted(x: ir.Expr) -> ir.Expr | None:
    """The predicate that a sum of zeros and ones counts."""
    match x:
        case ir.Cast() if x.x.dtype is BOOL:
            return x.x
        case ir.Where(a=ir.Const(value=1), b=ir.Const(value=0)):
            return x.cond
        case ir.Cast() if x.dtype.is_integer and x.x.dtype.is_integer:
            return counted(x.x)
    return None


def added(step: ir.Expr, symbol: ir.Expr) -> ir.Expr | None:
    """``e`` where the step is ``symbol + e``."""
    if isinstance(step, ir.Binary) and step.op == "add":
        return step.b if step.a == symbol else step.a if step.b == symbol else None
    return None


def scaled(x: ir.Expr, factor: ir.Expr) -> ir.Expr:
    return x if factor == ir.const(1) else ir.binary("mul", x, factor)


def added_one(step: ir.Expr, symbol: ir.Expr) -> ir.Expr | None:
    """The predicate under which a step adds 1 to ``symbol``, and otherwise nothing."""
    if isinstance(step, ir.Where):
        one = added(step.a, symbol)
        return step.cond if step.b == symbol and isinstance(one, ir.Const) and one.value == 1 else None
    more = added(step, symbol)
    return None if more is None else counted(more)


def replace_terms(node: ir.Expr, values: Mapping[ir.Load, ir.Load]) -> ir.Expr:
    """Unknowns replaced by others."""
    return ir.rewrite(node, lambda n: values.get(n, n) if isinstance(n, ir.Load) else n)


def size(node: ir.Expr) -> int:
    """How many nodes, counted up to a little more than matters."""
    return sum(1 for _ in islice(ir.walk(node), 2 * LARGEST))


def described(node: ir.Node) -> str:
    """The text of a node, as the author wrote it."""
    return node.span.text if node.span is not None else type(node).__name__.lower()


def add(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return b if a == ZERO else a if b == ZERO else ir.binary("add", a, b)


def sub(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return a if b == ZERO else ir.binary("sub", a, b)


def times(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return b if a == ONE else a if b == ONE else ir.binary("mul", a, b)


def signed_terms(node: ir.Expr) -> list[Term]:
    """What an integer adds up and subtracts, in order; a product by a negative number is subtracted."""
    match node:
        case ir.Binary(op="add" | "sub") if node.dtype.kind == "signed":
            turn = 1 if node.op == "add" else -1
            return [*signed_terms(node.a), *((turn * sign, term) for sign, term in signed_terms(node.b))]
        case ir.Unary(op="neg") if node.dtype.kind == "signed":
            return [(-sign, term) for sign, term in signed_terms(node.x)]
        case ir.Binary(op="mul", a=ir.Const(value=int(factor)), b=x) | ir.Binary(op="mul", a=x, b=ir.Const(value=int(factor))) if (
            factor < 0 and node.dtype.kind == "signed"
        ):
            return [(-1, times(x, ir.Const(node.dtype, (), -factor)))]
    return [(1, node)]


def residues(node: ir.Expr) -> ir.Expr:
    """Quotients and remainders of sums without what the divisor takes out of them, which holds for every divisor but 0: ``(x % n + s) % n`` is
    ``(x + s) % n``, ``(a * n + b) % n`` is ``b % n`` and ``(a * n + b) // n`` is ``a + b // n``."""

    def rule(n: ir.Node) -> ir.Node:
        if not isinstance(n, ir.Binary) or n.op not in ("mod", "floordiv") or n.dtype.kind != "signed":
            return n
        rest: list[Term] = []
        multiples: list[Term] = []
        for sign, term in signed_terms(n.a):
            if isinstance(term, ir.Binary) and term.op == "mod" and term.b == n.b and n.op == "mod":
                rest.append((sign, term.a))
            elif isinstance(term, ir.Binary) and term.op == "mul" and n.b in (term.a, term.b):
                multiples.append((sign, term.b if term.a == n.b else term.a))
            else:
                rest.append((sign, term))
        zero = ir.Const(n.dtype, (), 0)
        left = ir.binary(n.op, tidy(_total(zero, rest)), n.b)
        return ir.binary("add", _total(zero, multiples), left) if multiples and n.op == "floordiv" else left

    return ir.rewrite(node, rule)


def _total(zero: ir.Expr, terms: list[Term]) -> ir.Expr:
    found: ir.Expr | None = None
    for sign, term in terms:
        start = zero if found is None and sign < 0 else found
        found = term if start is None else ir.binary("add" if sign > 0 else "sub", start, term)
    return zero if found is None else found
