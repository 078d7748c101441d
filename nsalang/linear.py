"""Small sound proofs about indices: polynomials over dimensions, with ``N`` written as ``G * (N // G) + N % G`` where a kernel divides by G.

``Facts.at_least_zero(e)`` proves ``e >= 0`` for all lanes that exist, by putting the ends of the index variables' ranges in place of them,
innermost first, and looking at the signs that are left. It finds what is structural (``g * G + G <= N`` where G divides N); what it does not
find is not refuted. No solver, no search.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import TypeAlias

from nsalang import ir
from nsalang.dtypes import I64
from nsalang.intervals import Bounds, conjuncts

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

    def split(self, atom: str) -> tuple[Poly, Poly] | None:
        """(A, B) with ``self == A * atom + B``; None where the atom occurs in a power."""
        with_atom: dict[Monomial, int] = {}
        without: dict[Monomial, int] = {}
        for m, c in self.terms:
            if m.count(atom) > 1:
                return None
            if atom in m:
                with_atom[tuple(a for a in m if a != atom)] = c
            else:
                without[m] = c
        return Poly.of(with_atom), Poly.of(without)


def number(value: int) -> Poly:
    return Poly.of({(): value})


def atom(key: str) -> Poly:
    return Poly.of({(key,): 1})


class Facts:
    """What is known about the integers of one kernel: its requires, the ranges of its index variables, and what variables stand for."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.bounds = Bounds(kernel)
        self._expressions: dict[str, ir.Expr] = {}
        self._ranges: dict[str, tuple[Poly, tuple[Poly, ...]]] = {}
        self._order: list[str] = []
        self._definitions = _definitions(kernel)
        self._divisors = _divisors(kernel)
        for index in kernel.grid:
            self._range(index.name, ir.const(0), (index.extent,))
        for statement in kernel.body:
            for node in ir.walk(statement):
                if isinstance(node, ir.For):
                    self._range(node.index, node.lo, (node.hi,))
                elif isinstance(node, ir.SpanAxis):
                    end = ir.binary("add", node.start, ir.const(node.length))
                    self._range(node.axis, node.start, (end,) if node.stop is None else (end, node.stop))

    def _range(self, name: str, lo: ir.Expr, stops: tuple[ir.Expr, ...]) -> None:
        self._order.append(name)
        self._ranges[name] = (self.poly(lo), tuple(self.poly(s) - number(1) for s in stops))

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
            self._expressions[node.name] = node
            return atom(node.name)
        whole = ir.binary("floordiv", node, divisor)
        self._expressions[f"{node.name}//"] = whole
        product = self.poly(divisor) * atom(f"{node.name}//")
        if exact:
            return product
        self._expressions[f"{node.name}%"] = ir.binary("mod", node, divisor)
        return product + atom(f"{node.name}%")

    def _remainder(self, node: ir.Binary) -> Poly:
        a, b = self.poly(node.a), self.poly(node.b)
        divisor = self._divisors.get(node.a.name, (None, False))[0] if isinstance(node.a, ir.Dim) else None
        if divisor == node.b or (isinstance(node.b, ir.Const) and node.b.value and a.content % int(node.b.value) == 0):
            return a - b * self.poly(ir.Binary(node.dtype, node.axes, "floordiv", node.a, node.b))
        if self.bounds.of(node.b).lo <= 0:
            return self._opaque(node)
        # A variable of its own, in 0 .. b: newer than all that stands in b, so that it is put away first.
        name = repr(node)
        if name not in self._ranges:
            self._order.append(name)
            self._ranges[name] = (number(0), (b - number(1),))
            self._expressions[f"@{name}"] = node
        return atom(f"@{name}")

    def _opaque(self, node: ir.Expr) -> Poly:
        key = repr(node)
        self._expressions[key] = node
        return atom(key)

    # ------------------------------------------------------------------------------------------------------------------ proofs

    def divides(self, divisor: int, node: ir.Expr) -> bool:
        """Whether an expression is certainly a multiple of ``divisor``."""
        return self.poly(node).content % divisor == 0

    def multiple(self, node: ir.Expr) -> int:
        """The greatest number that certainly divides an expression; 0 for the constant 0."""
        return self.poly(node).content

    def covered(self, goal: Poly, known: tuple[ir.Expr, ...]) -> bool:
        """Whether ``goal >= 0`` holds in every lane that exists, given conditions that hold there."""
        if self.at_least_zero(goal):
            return True
        return any(self.at_least_zero(goal - given) for condition in known for given in self.inequalities(condition))

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

    def at_least_zero(self, p: Poly) -> bool:
        """Whether a polynomial is certainly >= 0 in every lane that exists."""
        for name in reversed(tuple(self._order)):
            key = f"@{name}"
            if key not in p.atoms:
                continue
            parts = p.split(key)
            if parts is None:
                return False
            factor, rest = parts
            lo, his = self._ranges[name]
            if self._constant_sign(factor):
                return self.at_least_zero(factor * lo + rest)
            if self._constant_sign(number(-1) * factor):
                return any(self.at_least_zero(factor * hi + rest) for hi in his)
            return False
        return self._constant_sign(p)

    def _constant_sign(self, p: Poly) -> bool:
        """``p >= 0`` by the intervals of its atoms alone."""
        total = 0
        for monomial, coefficient in p.terms:
            low = high = coefficient
            for key in monomial:
                node = self._expressions.get(key) or self._index_expression(key)
                interval = self.bounds.of(node)
                ends = [x * y for x in (low, high) for y in (interval.lo, interval.hi)]
                low, high = min(ends), max(ends)
            total += low
        return total >= 0

    def _index_expression(self, key: str) -> ir.Expr:
        name = key.removeprefix("@")
        found = ir.Index(I64, (), name)
        self._expressions[key] = found
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
    for require in kernel.requires:
        for part in conjuncts(require.condition):
            match part:
                case ir.Binary(op="eq", a=ir.Binary(op="mod", a=ir.Dim(name=name), b=ir.Const() as divisor), b=ir.Const(value=0)):
                    old = found.get(name)
                    if old is not None and isinstance(old[0], ir.Const):
                        both = int(old[0].value) * int(divisor.value) // gcd(int(old[0].value), int(divisor.value))
                        found[name] = (ir.const(both), True)
                    else:
                        found[name] = (divisor, True)
                case ir.Binary(op="eq", a=ir.Binary(op="mod", a=ir.Dim(name=name), b=ir.Dim() as by), b=ir.Const(value=0)):
                    found.setdefault(name, (by, True))
                case _:
                    pass
    for node in ir.walk(kernel):
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
