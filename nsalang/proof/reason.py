"""Linear reasoning about integer facts without a solver: small, sound, and silent where it does not see the answer.

Facts become linear inequalities over products of symbols, quotients get their defining inequalities, and Fourier and Motzkin's elimination
looks for a contradiction with the negated goal. An inequality is multiplied by a product of non-negative symbols where that makes a product
which occurs already. ``minimum``, ``where`` and disjunctions are split into cases, a few deep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from math import gcd
from typing import TypeAlias

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType
from nsalang.ir.intervals import conjuncts
from nsalang.ir.operations import UNARY

Product: TypeAlias = tuple[int, ...]
"""Symbols by number, sorted; () is 1."""
Sum: TypeAlias = dict[Product, int]
"""A linear form; as an inequality it says that it is >= 0."""

MOST_ROWS = 90
FUEL = 40
"""How many eliminations are worth trying before a solver is asked."""
MOST_CASES = 3
MOST_PRODUCTS = 40


def negated(e: ir.Expr) -> ir.Expr:
    """The negation of a bool, pushed to its leaves."""
    match e:
        case ir.Const():
            return ir.const(not e.value, BOOL)
        case ir.Unary(op="not"):
            return e.x
        case ir.Binary(op="and" | "or") if e.dtype is BOOL:
            return ir.Binary(BOOL, e.axes, "or" if e.op == "and" else "and", negated(e.a), negated(e.b))
        case ir.Binary(op="lt" | "le" | "gt" | "ge" | "eq" | "ne") if e.a.dtype.is_integer:
            other: dict[str, ir.BinaryOp] = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
            return ir.Binary(BOOL, e.axes, other[e.op], e.a, e.b)
    return ir.Unary(BOOL, e.axes, "not", e)


def _between(low: ir.Expr, x: ir.Expr, high: ir.Expr) -> tuple[ir.Expr, ir.Expr]:
    return ir.binary("le", low, x), ir.binary("le", x, high)


def bit_facts(node: ir.Expr) -> tuple[ir.Expr, ...]:
    """What bounds an integer operation that has no linear form: the bits of a number that is not negative, and exponents of floats."""
    match node:
        case ir.Unary() if node.x.dtype.is_float and node.dtype.is_integer and (exponents := UNARY[node.op].ends) is not None:
            low, high = exponents((0, 0))
            return _between(ir.const(low), node, ir.const(high))
        case ir.Binary(op="and" | "or" | "xor" | "shr") if node.dtype.is_integer:
            zero = ir.Const(node.dtype, (), 0)
            a, b = (ir.binary("le", zero, x) for x in (node.a, node.b))
            if node.op == "and":
                return tuple(implies(c, every(_between(zero, node, x))) for c, x in ((a, node.a), (b, node.b)))
            both = every((a, b))
            if node.op == "shr":
                kept = every(_between(zero, node, node.a))
                negative = every(_between(node.a, node, ir.Const(node.dtype, (), -1))) if node.dtype.kind == "signed" else kept
                return implies(a, kept), ir.binary("or", a, negative)
            found = [implies(both, ir.binary("le", zero, node))]
            if node.dtype.kind == "signed":
                found.append(implies(both, ir.binary("le", node, ir.binary("add", node.a, node.b))))
            if node.op == "or":
                found += [implies(both, ir.binary("le", x, node)) for x in (node.a, node.b)]
            return tuple(found)
    return ()


def implies(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return ir.binary("or", negated(a), b)


def every(parts: Iterable[ir.Expr]) -> ir.Expr:
    """The conjunction; True of nothing."""
    found = list(parts)
    return reduce(lambda a, b: ir.binary("and", a, b), found) if found else ir.const(True, BOOL)


def disjuncts(e: ir.Expr) -> tuple[ir.Expr, ...]:
    if isinstance(e, ir.Binary) and e.op == "or" and e.dtype is BOOL:
        return (*disjuncts(e.a), *disjuncts(e.b))
    return (e,)


def plus(a: Sum, b: Sum, factor: int = 1) -> Sum:
    found = dict(a)
    for m, c in b.items():
        found[m] = found.get(m, 0) + factor * c
        if not found[m]:
            del found[m]
    return found


def times(a: Sum, b: Sum) -> Sum:
    found: Sum = {}
    for m, c in a.items():
        for n, d in b.items():
            found = plus(found, {tuple(sorted(m + n)): c * d})
    return found


@dataclass(slots=True)
class Reason:
    """What follows from ``facts``. ``dtypes``: element types of scalars by name, whose ranges are facts."""

    facts: Sequence[ir.Expr]
    dtypes: Mapping[str, DType]
    symbols: dict[ir.Expr, int] = field(default_factory=dict)
    rows: list[Sum] = field(default_factory=list)
    cases: list[tuple[list[Sum], list[Sum]]] = field(default_factory=list)
    said: set[ir.Expr] = field(default_factory=set)
    least: dict[int, int] = field(default_factory=dict)
    fuel: int = FUEL

    def __post_init__(self) -> None:
        waiting: list[ir.Expr] = []
        for fact in chain.from_iterable(conjuncts(f) for f in self.facts):
            self._fact(fact, waiting)
        for _ in range(2):
            waiting = [w for w in waiting if not self._unit(w)]
        for w in waiting:
            options = disjuncts(w)
            if len(options) == 2:
                sides = [[s for c in conjuncts(o) for s in self._rows_of(c)] for o in options]
                if all(sides):
                    self.cases.append((sides[0], sides[1]))

    def _fact(self, fact: ir.Expr, waiting: list[ir.Expr]) -> None:
        if fact in self.said:
            return
        self.said.add(fact)
        if isinstance(fact, ir.Unary) and fact.op == "not":
            pushed = negated(fact.x)
            if pushed != fact:
                for part in conjuncts(pushed):
                    self._fact(part, waiting)
            return
        if isinstance(fact, ir.Binary) and fact.op == "or" and fact.dtype is BOOL:
            waiting.append(fact)
        elif isinstance(fact, ir.Binary) and fact.op == "ne" and fact.a.dtype.is_integer:
            waiting.append(ir.binary("or", ir.binary("lt", fact.a, fact.b), ir.binary("gt", fact.a, fact.b)))
        else:
            for row in self._rows_of(fact):
                self._add(row)

    def _unit(self, fact: ir.Expr) -> bool:
        """A disjunction of which all sides but one are refuted says the last one."""
        options = disjuncts(fact)
        if any(o in self.said for o in options):
            return True
        left = [o for o in options if not self._refuted(o)]
        if len(left) == 1:
            waiting: list[ir.Expr] = []
            for part in conjuncts(left[0]):
                self._fact(part, waiting)
        return len(left) == 1

    def _refuted(self, fact: ir.Expr) -> bool:
        parts = conjuncts(fact)
        if any(negated(part) in self.said or (isinstance(part, ir.Const) and not part.value) for part in parts):
            return True
        for part in parts:
            rows = self._rows_of(part)
            if rows and self._contradiction([*self.rows, *rows]):
                return True
        return False

    def _add(self, row: Sum) -> None:
        self.rows.append(row)
        if len(row.keys() - {()}) == 1 and all(len(m) <= 1 for m in row):  # a row of two symbols bounds neither
            for m, c in row.items():
                if m and c > 0:
                    bound = -(row.get((), 0) // c)
                    self.least[m[0]] = max(self.least.get(m[0], bound), bound)

    # ------------------------------------------------------------------------------------------------------------- linear forms

    def _rows_of(self, fact: ir.Expr) -> list[Sum]:
        """Inequalities that a comparison says; none for what is no comparison of integers."""
        if not isinstance(fact, ir.Binary) or fact.op not in ir.COMPARISONS or not fact.a.dtype.is_integer:
            return []
        a, b = self.sum(fact.a), self.sum(fact.b)
        one: Sum = {(): 1}
        match fact.op:
            case "le":
                return [plus(b, a, -1)]
            case "lt":
                return [plus(plus(b, a, -1), one, -1)]
            case "ge":
                return [plus(a, b, -1)]
            case "gt":
                return [plus(plus(a, b, -1), one, -1)]
            case "eq":
                return [plus(a, b, -1), plus(b, a, -1)]
        return []

    def sum(self, e: ir.Expr) -> Sum:
        """An integer expression as a linear form; what is no sum or product is a symbol."""
        match e:
            case ir.Const():
                return {(): int(e.value)} if e.value else {}
            case ir.Full():
                return self.sum(e.value)
            case ir.Unary(op="neg") if e.dtype.kind == "signed":
                return plus({}, self.sum(e.x), -1)
            case ir.Binary(op="add" | "sub" | "mul" as op) if e.dtype.kind == "signed":
                a, b = self.sum(e.a), self.sum(e.b)
                return times(a, b) if op == "mul" else plus(a, b, 1 if op == "add" else -1)
            case ir.Binary(op="shl", b=ir.Const(value=int(amount))) if e.dtype.kind == "signed" and 0 <= amount < 64:
                return times(self.sum(e.a), {(): 2**amount})
            case ir.Cast(mode="convert") if e.dtype.kind == "signed" and e.x.dtype.is_integer:
                return self.sum(e.x)
            case ir.Binary(op="floordiv" | "mod") if e.dtype.kind == "signed":
                return self._quotient(e)
            case ir.Binary(op="shr", b=ir.Const(value=int(amount))) if 0 <= amount < 63 and e.dtype.kind == "signed":
                return self.sum(ir.binary("floordiv", e.a, ir.Const(e.a.dtype, (), 2**amount)))
            case ir.Binary(op="and", b=ir.Const(value=int(mask))) if mask >= 0 and mask & (mask + 1) == 0 and e.dtype.kind == "signed":
                return self.sum(ir.binary("mod", e.a, ir.Const(e.a.dtype, (), mask + 1)))
        return {(self._symbol(e),): 1}

    def _symbol(self, e: ir.Expr) -> int:
        if e in self.symbols:
            return self.symbols[e]
        n = self.symbols[e] = len(self.symbols)
        me: Sum = {(n,): 1}
        match e:
            case ir.Dim():
                self._add(me)
            case ir.Load() | ir.Scalar() | ir.Var() | ir.Bitcast() | ir.Cast() | ir.Binary() if e.dtype.is_integer or e.dtype is BOOL:
                dtype = self.dtypes.get(e.name, e.dtype) if isinstance(e, ir.Scalar) else e.dtype
                if dtype is not BOOL and dtype.bits < 64:
                    self._add(plus(me, {(): int(dtype.min)}, -1))
                    self._add(plus({(): int(dtype.max)}, me, -1))
        match e:
            case ir.Cast() if e.x.dtype is BOOL:
                self._add(me)
                self._add(plus({(): 1}, me, -1))
            case ir.Unary() if e.x.dtype.is_float and e.dtype.is_integer:
                for fact in bit_facts(e):
                    for row in self._rows_of(fact):
                        self._add(row)
            case ir.Binary(op="min" | "max"):
                a, b = self.sum(e.a), self.sum(e.b)
                sign = -1 if e.op == "min" else 1
                over_a, over_b = plus(times(me, {(): sign}), a, -sign), plus(times(me, {(): sign}), b, -sign)
                self._add(over_a)
                self._add(over_b)
                self.cases.append(([plus({}, over_a, -1)], [plus({}, over_b, -1)]))
            case ir.Where():
                a, b = self.sum(e.a), self.sum(e.b)
                sides = []
                for value, condition in ((a, e.cond), (b, negated(e.cond))):
                    rows = [plus(me, value, -1), plus(value, me, -1)]
                    sides.append(rows + [r for c in conjuncts(condition) for r in self._rows_of(c)])
                self.cases.append((sides[0], sides[1]))
            case ir.Unary(op="abs") if e.dtype.kind == "signed":
                x = self.sum(e.x)
                self._add(me)
                self._add(plus(me, x, -1))
                self._add(plus(me, x))
        return n

    def _quotient(self, e: ir.Binary) -> Sum:
        """``a = b * q + r`` with ``0 <= r < b`` where b is certainly positive; else a symbol of its own."""
        whole = ir.Binary(e.dtype, e.axes, "floordiv", e.a, e.b)
        if whole not in self.symbols:
            b = self.sum(e.b)
            if not self._contradiction([*self.rows, plus({}, b, -1)]):
                return {(self._symbol(e),): 1}
            a = self.sum(e.a)
            quotient: Sum = {(self._symbol(whole),): 1}
            rest = plus(a, times(b, quotient), -1)
            self._add(rest)
            self._add(plus(plus(b, rest, -1), {(): 1}, -1))
            if self._contradiction([*self.rows, plus({(): -1}, a, -1)]):
                self._add(quotient)
        q: Sum = {(self.symbols[whole],): 1}
        return q if e.op == "floordiv" else plus(self.sum(e.a), times(self.sum(e.b), q), -1)

    # ------------------------------------------------------------------------------------------------------------------ proofs

    def proves(self, goal: ir.Expr) -> bool:
        """Whether a bool certainly follows."""
        if goal in self.said:
            return True
        match goal:
            case ir.Const():
                return bool(goal.value) or self._impossible([], 0, 0)
            case ir.Unary(op="not"):
                pushed = negated(goal.x)
                return pushed != goal and self.proves(pushed)
            case ir.Binary(op="and") if goal.dtype is BOOL:
                return self.proves(goal.a) and self.proves(goal.b)
            case ir.Binary(op="or") if goal.dtype is BOOL:
                return any(self.proves(option) for option in disjuncts(goal))
            case ir.Binary() if goal.op in ir.COMPARISONS and goal.a.dtype.is_integer:
                if goal.op == "eq":
                    both = (ir.binary("le", goal.a, goal.b), ir.binary("ge", goal.a, goal.b))
                    return all(self.proves(part) for part in both)
                rows = self._rows_of(negated(goal))
                return bool(rows) and self._impossible(rows, 0, 0)
        return False

    def _impossible(self, rows: list[Sum], depth: int, first: int) -> bool:
        """Whether the facts and ``rows`` contradict each other, by cases where need be."""
        everything = [*self.rows, *rows]
        if self._contradiction(everything):
            return True
        if depth == MOST_CASES:
            return False
        relevant = {m for row in rows for m in row if m}
        for number in range(first, len(self.cases)):
            one, two = self.cases[number]
            if not any(m in relevant for row in (*one, *two) for m in row if m) and depth:
                continue
            if self._impossible([*rows, *one], depth + 1, number + 1) and self._impossible([*rows, *two], depth + 1, number + 1):
                return True
        return False

    def _contradiction(self, rows: list[Sum]) -> bool:
        self.fuel -= 1
        return self.fuel >= 0 and eliminate([*rows, *self._multiplied(rows)])

    def _multiplied(self, rows: list[Sum]) -> list[Sum]:
        """Inequalities times non-negative symbols, where that gives a product that occurs."""
        found: list[Sum] = []
        known = {m for row in rows for m in row if len(m) > 1}
        if not known:
            return []
        done: set[tuple[int, Product]] = set()
        for _ in range(2):
            for m in sorted(known):
                for place, symbol in enumerate(m):
                    rest = m[:place] + m[place + 1 :]
                    if not rest or any(self.least.get(s, -1) < 0 for s in rest):
                        continue
                    for number, row in enumerate(rows):
                        if (number, rest) not in done and (symbol,) in row and all(len(n) <= 1 for n in row):
                            done.add((number, rest))
                            found.append(times(row, {rest: 1}))
            known |= {m for row in found for m in row if len(m) > 1}
            if len(found) > MOST_PRODUCTS:
                break
        return found[:MOST_PRODUCTS]


def eliminate(rows: Iterable[Sum]) -> bool:
    """Whether inequalities over integers have no common solution, as far as rational elimination sees it."""
    current: dict[tuple[tuple[Product, int], ...], int] = {}

    def put(row: Sum) -> bool:
        constant = row.get((), 0)
        rest = [(m, c) for m, c in row.items() if m]
        if not rest:
            return constant < 0
        divisor = gcd(*(c for _, c in rest))
        key = tuple(sorted((m, c // divisor) for m, c in rest))
        value = constant // divisor
        if key not in current or value < current[key]:
            current[key] = value
        return False

    for row in rows:
        if put(row):
            return True
    while current:
        signs: dict[Product, list[int]] = {}
        for key in current:
            for m, c in key:
                signs.setdefault(m, [0, 0])[c > 0] += 1
        variable = min(signs, key=lambda m: (signs[m][0] * signs[m][1] - sum(signs[m]), m))
        with_it = [(dict(k), v) for k, v in current.items() if any(m == variable for m, _ in k)]
        for k, _ in with_it:
            del current[tuple(sorted(k.items()))]
        ups = [(k, v) for k, v in with_it if k[variable] > 0]
        downs = [(k, v) for k, v in with_it if k[variable] < 0]
        if len(current) + len(ups) * len(downs) > MOST_ROWS:
            return False
        for up, high in ups:
            for down, low in downs:
                p, n = up[variable], -down[variable]
                if put(
                    plus(
                        {m: c * n for m, c in {**up, (): high * n}.items() if m} | {(): high * n},
                        {**{m: c * p for m, c in down.items()}, (): low * p},
                    )
                ):
                    return True
    return False
