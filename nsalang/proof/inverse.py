"""Which instance, iteration and lane writes an element: index expressions inverted, as a guess that the goal of coverage then verifies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64
from nsalang.proof.ends import Ranges
from nsalang.proof.forms import ONE, ZERO, Term, add, signed_terms, sub, tidy, times
from nsalang.proof.lemmas import ascending, lemma_name, substitute, wide
from nsalang.proof.walk import Walk


@dataclass(slots=True)
class Inverse:
    """Index variables for which index expressions have given values: a guess, which the goal then verifies."""

    walk: Walk
    ranges: Mapping[str, Ranges]
    witness: dict[str, ir.Expr] = field(default_factory=dict)

    def solve(self, pairs: list[tuple[ir.Expr, ir.Expr]]) -> None:
        for name, r in self.ranges.items():
            if tidy(sub(r.stop, r.start)) == ONE and not self.open(r.start):
                self.witness[name] = self.closed(r.start)  # nothing else it could be: it is no digit of a sum
        pairs = self._joined(pairs)
        for _ in range(len(pairs) + len(self.ranges)):
            for pair in list(pairs):
                if self._one(*pair):
                    pairs.remove(pair)
        for name, r in reversed(list(self.ranges.items())):
            if name in self.witness and self.open(r.start):
                self._start(r, self.witness[name])
        for name, r in self.ranges.items():
            self.witness.setdefault(name, substitute(r.start, self.witness))

    def _joined(self, pairs: list[tuple[ir.Expr, ir.Expr]]) -> list[tuple[ir.Expr, ir.Expr]]:
        """A quotient and a remainder of one number by one divisor give the number."""
        found = list(pairs)
        for one in pairs:
            for two in pairs:
                match one[0], two[0]:
                    case ir.Binary(op="floordiv", a=a, b=b), ir.Binary(op="mod", a=c, b=d) if (
                        a == c and b == d and one in found and two in found
                    ):
                        found.remove(one)
                        found.remove(two)
                        found = self._joined([*found, (a, add(times(one[1], b), two[1]))])
        return found

    def open(self, node: ir.Expr) -> bool:
        """Whether an index variable in it has no witness yet."""
        return any(isinstance(n, ir.Index) and n.name in self.ranges and n.name not in self.witness for n in ir.walk(node))

    def closed(self, node: ir.Expr) -> ir.Expr:
        return substitute(node, self.witness)

    def _one(self, node: ir.Expr, target: ir.Expr) -> bool:
        """Find index variables such that ``node == target``; True when nothing is left to find in it."""
        if not self.open(node):
            return True
        match node:
            case ir.Index():
                self.witness[node.name] = target
                self._start(self.ranges[node.name], target)
                return True
            case ir.Cast() if node.x.dtype.is_integer:
                return self._one(node.x, target)
            case ir.Unary(op="neg") | ir.Binary(op="add" | "sub") if node.dtype.kind == "signed":
                return self._sum(signed_terms(node), target)
            case ir.Binary(op="mul") if not self.open(node.b):
                return self._one(node.a, ir.binary("floordiv", target, self.closed(node.b)))
            case ir.Binary(op="mul") if not self.open(node.a):
                return self._one(node.b, ir.binary("floordiv", target, self.closed(node.a)))
            case ir.Binary(op="floordiv") if not self.open(node.b):
                return self._one(node.a, times(target, self.closed(node.b)))
            case ir.Binary(op="mod") if not self.open(node.b):
                return self._residue(node, target)
            case ir.Load() if (d := self.walk.book.definitions.get(node.tensor)) is not None and d.count is not None and d.count.slot:
                if any(self.open(i) for i in node.indices[:-1]) or not isinstance(node.indices[-1], ir.Index):
                    return False
                slot = ir.Load(I64, node.axes, d.count.slot, (*(self.closed(i) for i in node.indices[:-1]), target))
                return self._one(node.indices[-1], slot)
            case ir.Load(indices=(place,)) if self._distinct(node.tensor):
                return self._one(place, lemma_name(f"preimage {node.tensor}", I64, (wide(target),)))
        return False

    def _distinct(self, tensor: str) -> bool:
        return any(p.kind == "distinct" and p.tensors[0] == tensor for p in self.walk.kernel.promises)

    def _sum(self, terms: list[Term], target: ir.Expr) -> bool:
        """Signed terms that add up to ``target``: what is known goes to the other side; of several unknown ones, digits are told apart."""
        unknown = [t for t in terms if self.open(t[1])]
        rest = self._without(target, terms)
        if len(unknown) <= 1:
            return all(self._one(term, rest if sign > 0 else sub(ZERO, rest)) for sign, term in unknown)
        flags = [t for t in unknown if isinstance(t[1], ir.Cast) and t[1].x.dtype is BOOL]
        if flags:  # what is counted together with the lane itself is written where that lane counts
            rest = self._without(rest, [(sign, ir.const(1)) for sign, _ in flags])
            return self._sum([t for t in unknown if t not in flags], rest)
        pairs = [(term, [*unknown[:k], *unknown[k + 1 :]]) for k, term in enumerate(unknown)]
        if any(self._digits(big, small, rest) for big, small in pairs):
            return True
        short = sorted(pairs, key=lambda p: not (isinstance(p[0][1], ir.Index) and isinstance(self.ranges[p[0][1].name].stop, ir.Const)))
        return any(self._alone(one, others, rest) for one, others in short)

    def _without(self, target: ir.Expr, terms: list[Term]) -> ir.Expr:
        """``target`` less the terms that have a value."""
        for sign, term in terms:
            if not self.open(term):
                target = (sub if sign > 0 else add)(target, self.closed(term))
        return target

    def _alone(self, one: Term, others: list[Term], target: ir.Expr) -> bool:
        """A sum of which one term is put at its start."""
        _, term = one
        if not isinstance(term, ir.Index) or self.open(self.ranges[term.name].start):
            return False
        self.witness[term.name] = self.closed(self.ranges[term.name].start)
        return self._sum([one, *others], target)

    def _digits(self, big: Term, small: list[Term], target: ir.Expr) -> bool:
        """``x * factor`` and what stays below ``factor``: a quotient and a remainder. Where the small digits are subtracted, all signs are turned."""
        if len({sign for sign, _ in small}) > 1 or not isinstance(big[1], ir.Binary) or big[1].op != "mul":
            return False
        turned, digits = small[0][0] < 0, [term for _, term in small]
        whole = sub(ZERO, target) if turned else target
        for x, factor in ((big[1].a, big[1].b), (big[1].b, big[1].a)):
            if self.open(factor):
                continue
            last = digits[0]
            lowest = self.ranges[last.name].start if isinstance(last, ir.Index) and last.name in self.ranges and len(digits) == 1 else ZERO
            if self.open(lowest) or not all(self._smaller(d, factor) for d in digits):
                continue
            quotient = over(sub(whole, self.closed(lowest)), self.closed(factor))
            digit = quotient if (big[0] < 0) == turned else sub(ZERO, quotient)
            joined = self._joined([(x, digit), (last, sub(whole, times(quotient, self.closed(factor))))]) if len(digits) == 1 else []
            if len(joined) == 1:
                return self._one(*joined[0])
            if self._one(x, digit):
                return self._sum(small, self._without(target, [big]))
        return False

    def _residue(self, node: ir.Binary, target: ir.Expr) -> bool:
        """``(x + s) % n == target``: x is ``(target - s) % n``, counted from where it begins. A plain index is the target itself."""
        terms = signed_terms(node.a)
        unknown = [t for t in terms if self.open(t[1])]
        if len({sign for sign, _ in unknown}) > 1 or terms == [(1, node.a)]:
            return self._one(node.a, target)
        left = self._without(target, terms)
        left = left if unknown[0][0] > 0 else sub(ZERO, left)
        first: ir.Expr = ZERO
        if len(unknown) == 1 and isinstance(last := unknown[0][1], ir.Index) and not self.open(self.ranges[last.name].start):
            first = self.closed(self.ranges[last.name].start)
        left = add(first, ir.binary("mod", sub(left, first), self.closed(node.b)))
        return self._sum([(1, term) for _, term in unknown], left)

    def _smaller(self, small: ir.Expr, factor: ir.Expr) -> bool:
        """Whether a digit plausibly stays below a factor: an index variable always, a product only where the factor is that much greater."""
        if isinstance(small, ir.Index):
            return True
        inner = [n for n in ir.walk(small) if isinstance(n, ir.Binary) and n.op == "mul"]
        for n in inner:
            for part in (n.a, n.b):
                if part == factor:
                    return False
                if isinstance(part, ir.Const) and isinstance(factor, ir.Const) and part.value >= factor.value:
                    return False
        return True

    def _start(self, r: Ranges, target: ir.Expr) -> None:
        """``target`` lies in the range: which range it is, where ranges begin at multiples, at borders of parts, or at sorted elements.
        A start that is clamped lies where its bounds do."""
        start = r.start
        if not self.open(start):
            return
        if isinstance(start, ir.Binary) and start.op in ("min", "max"):
            for side in (start.a, start.b):
                self._start(replace(r, start=side), target)
            return
        terms = signed_terms(start)
        rest = self._without(target, terms)
        unknown = [t for t in terms if self.open(t[1])]
        if len(unknown) != 1:
            return
        sign, start = unknown[0]

        def which(x: ir.Expr, factor: ir.Expr) -> None:
            # The last multiple of the factor at or before the target; of blocks from the end, the first whose start is not behind it.
            quotient = over(rest, self.closed(factor))
            self._one(x, quotient if sign > 0 else sub(ZERO, quotient))

        match start:
            case ir.Index() if not self.open(span := tidy(sub(r.stop, r.start))):
                which(start, span)
            case ir.Binary(op="mul"):
                for x, factor in ((start.a, start.b), (start.b, start.a)):
                    if self.open(x) and not self.open(factor):
                        which(x, factor)
                        return
            case ir.Load(tensor="border", indices=(n, parts, ir.Index() as g)) if sign > 0 and not self.open(n) and not self.open(parts):
                self._one(g, lemma_name("owner", I64, (self.closed(n), self.closed(parts), rest)))
            case ir.Cast(x=ir.Load() as element) | (ir.Load() as element) if sign > 0:
                sorted_ = ascending(self.walk.book) | {p.tensors[0] for p in self.walk.kernel.promises if p.kind == "sorted"}
                if element.tensor in sorted_ and isinstance(element.indices[0], ir.Index):
                    found = lemma_name(f"search {element.tensor}", I64, (wide(rest),))
                    self._one(element.indices[0], sub(found, ONE))


def over(x: ir.Expr, factor: ir.Expr) -> ir.Expr:
    return x if factor == ONE else ir.binary("floordiv", x, factor)
