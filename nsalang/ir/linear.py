"""Integers as polynomials over dimensions, with ``N`` written as ``G * (N // G) + N % G`` where a kernel divides by G.

Two expressions with one polynomial are equal in every lane, padded ones included, and what divides all its coefficients divides its value: this is
how tails are seen to be empty, and masks to be said already. No solver, no search; whether an access is inside is the prover's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import TypeAlias

from nsalang import ir
from nsalang.ir.intervals import Bounds, conjuncts

Monomial: TypeAlias = tuple[str, ...]
"""A product of atoms, sorted; () is 1."""


@dataclass(frozen=True, slots=True)
class Poly:
    """A sum of ``coefficient * monomial`` without zero coefficients."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def of(terms: dict[Monomial, int]) -> Poly:
        return Poly(tuple(sorted((m, c) for m, c in terms.items() if c)))

    def __add__(self, other: Poly) -> Poly:
        terms = dict(self.terms)
        for m, c in other.terms:
            terms[m] = terms.get(m, 0) + c
        return Poly.of(terms)

    def __mul__(self, other: Poly) -> Poly:
        terms: dict[Monomial, int] = {}
        for m, c in self.terms:
            for n, d in other.terms:
                key = tuple(sorted(m + n))
                terms[key] = terms.get(key, 0) + c * d
        return Poly.of(terms)

    def __sub__(self, other: Poly) -> Poly:
        return self + number(-1) * other

    @property
    def content(self) -> int:
        """The greatest number that divides every coefficient (0 for the polynomial 0)."""
        return gcd(*(c for _, c in self.terms))

    @property
    def atoms(self) -> set[str]:
        return {a for m, _ in self.terms for a in m}


def number(value: int) -> Poly:
    return Poly.of({(): value})


def atom(key: str) -> Poly:
    return Poly.of({(key,): 1})


class Facts:
    """What is known about the integers of one kernel: its requires (in the exact variant also what it hoists), the intervals of its
    variables, and what they stand for."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.bounds = Bounds(kernel)
        self._definitions = _definitions(kernel)
        self._divisors = _divisors(kernel)

    # ------------------------------------------------------------------------------------------------------------- polynomials

    def poly(self, node: ir.Expr) -> Poly:
        """An integer expression as a polynomial; what is no sum, product or quotient is an atom."""
        match node:
            case ir.Const():
                return number(int(node.value))
            case ir.Dim():
                return self._dimension(node)
            case ir.Index():
                return atom(f"@{node.name}")
            case ir.Var(name=name) if name in self._definitions:
                return self.poly(self._definitions[name])
            case ir.Unary(op="neg") if node.dtype.kind == "signed":
                return number(-1) * self.poly(node.x)
            case ir.Binary(op="add" | "sub" | "mul" as op) if node.dtype.kind == "signed":
                a, b = self.poly(node.a), self.poly(node.b)
                return a + b if op == "add" else a - b if op == "sub" else a * b
            case ir.Binary(op="floordiv", a=ir.Dim() as a, b=b) if self._divisors.get(a.name, (None, False))[0] == b:
                return atom(f"{a.name}//")
            case ir.Binary(op="floordiv", b=ir.Const(value=int(divisor))) if divisor > 0:
                a = self.poly(node.a)
                if a.content % divisor == 0:
                    return Poly.of({m: c // divisor for m, c in a.terms})
                return self._opaque(node)
            case ir.Binary(op="mod") if node.dtype.kind == "signed":
                return self._remainder(node)
            case ir.Cast(x=x) if x.dtype.is_integer and node.dtype.kind == "signed" and node.mode != "wrap" and x.dtype.kind == "signed":
                return self.poly(x)
            case _:
                return self._opaque(node)

    def _dimension(self, node: ir.Dim) -> Poly:
        divisor, exact = self._divisors.get(node.name, (None, False))
        if divisor is None:
            return atom(node.name)
        product = self.poly(divisor) * atom(f"{node.name}//")
        return product if exact else product + atom(f"{node.name}%")

    def _remainder(self, node: ir.Binary) -> Poly:
        a, b = self.poly(node.a), self.poly(node.b)
        divisor = self._divisors.get(node.a.name, (None, False))[0] if isinstance(node.a, ir.Dim) else None
        if divisor == node.b or (isinstance(node.b, ir.Const) and node.b.value and a.content % int(node.b.value) == 0):
            return a - b * self.poly(ir.Binary(node.dtype, node.axes, "floordiv", node.a, node.b))
        return self._opaque(node)

    def _opaque(self, node: ir.Expr) -> Poly:
        return atom(repr(node))

    def resolved(self, node: ir.Expr) -> ir.Expr:
        """An expression with variables that are assigned once replaced by what they stand for."""

        def rule(n: ir.Node) -> ir.Node:
            return self.resolved(self._definitions[n.name]) if isinstance(n, ir.Var) and n.name in self._definitions else n

        return ir.rewrite(node, rule)

    def inequalities(self, condition: ir.Expr) -> list[Poly]:
        """Polynomials that are >= 0 where the condition holds."""
        found = []
        for part in conjuncts(condition):
            if isinstance(part, ir.Var) and part.name in self._definitions:
                found += self.inequalities(self._definitions[part.name])
            if isinstance(part, ir.Binary) and part.a.dtype.kind == "signed":
                a, b, one = self.poly(part.a), self.poly(part.b), number(1)
                table = {"lt": [b - a - one], "le": [b - a], "gt": [a - b - one], "ge": [a - b], "eq": [a - b, b - a]}
                found += table.get(part.op, [])
        return found


def _definitions(kernel: ir.Kernel) -> dict[str, ir.Expr]:
    """Integer and bool variables that are assigned once, from what does not change while they live."""
    assigned: dict[str, list[ir.Assign]] = {}
    for statement in kernel.body:
        for node in ir.walk(statement):
            if isinstance(node, ir.Assign):
                assigned.setdefault(node.name, []).append(node)
    found: dict[str, ir.Expr] = {}
    for name, made in assigned.items():
        if len(made) == 1 and made[0].value.dtype.kind in ("signed", "bool"):
            nodes = list(ir.walk(made[0].value))
            if all(not isinstance(n, ir.Load) and (not isinstance(n, ir.Var) or len(assigned.get(n.name, ())) == 1) for n in nodes):
                found[name] = made[0].value
    return found


def _divisors(kernel: ir.Kernel) -> dict[str, tuple[ir.Expr, bool]]:
    """For a dimension that is divided: by what, and whether a ``require`` says that nothing remains."""
    found: dict[str, tuple[ir.Expr, bool]] = {}
    hoists = kernel.hoists if kernel.schedule.exact else ()
    for require in (*kernel.requires, *hoists):
        for part in conjuncts(require.condition):
            match part:
                case ir.Binary(op="eq", a=ir.Binary(op="mod", a=ir.Dim(name=name), b=ir.Const() as divisor), b=ir.Const(value=0)):
                    old = found.get(name)
                    if old is not None and require in hoists and not isinstance(old[0], ir.Const):
                        continue
                    if old is not None and isinstance(old[0], ir.Const):
                        both = int(old[0].value) * int(divisor.value) // gcd(int(old[0].value), int(divisor.value))
                        found[name] = (ir.const(both), True)
                    else:
                        found[name] = (divisor, True)
                case ir.Binary(op="eq", a=ir.Binary(op="mod", a=ir.Dim(name=name), b=ir.Dim() as by), b=ir.Const(value=0)):
                    found.setdefault(name, (by, True))
                case _:
                    pass
    # What the exact variant alone may rely on must not shape the polynomials of the other.
    for node in ir.walk(replace(kernel, hoists=())):
        match node:
            case ir.Binary(op="floordiv" | "mod", a=ir.Dim(name=name), b=ir.Dim() as by):
                found.setdefault(name, (by, False))
            case ir.Binary(op="floordiv" | "mod", a=ir.Dim(name=name), b=ir.Const(value=int(value)) as constant) if value > 0:
                found.setdefault(name, (constant, False))
            case _:
                pass
    # A divisor is not taken apart itself, so that M // N beside N // M does not go round in a circle.
    return {
        name: (by, exact) for name, (by, exact) in found.items() if not isinstance(by, ir.Dim) or (by.name not in found and by.name != name)
    }
