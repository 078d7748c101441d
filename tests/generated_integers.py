"""Parts of generated kernels: integers computed from data, with extreme values among them, right by construction.

Each expression comes with the least and the greatest value that it can have, as Python integers; where an operation could leave 64 bits, divide by
zero or shift too far, its operands are held first, in one of the ways in which authors do that.
"""

from __future__ import annotations

from dataclasses import dataclass

from generated_indices import ONE, ZERO, Axis, c
from generated_values import Values
from kernel_trees import LIMITS, Tree, nodes

LEAST, MOST = LIMITS["i64"]
EDGES = (-1, -1, 1, 2, 3, 7, 100, 2**31 - 1, -(2**31), 2**31, 2**62, -(2**62), 2**63 - 1, 1 - 2**63)
KINDS = (
    *("+", "-", "*", "min", "max", "where", "cast", "wrap", "abs", "neg", "clamp", "cdiv"),
    *(
        "//",
        "%",
        "<<",
        ">>",
        "sum",
        "scan",
        "dot",
        "abs",
        "clamp",
        "cdiv",
        "neg",
        "wrap",
        "wrap",
        "scan",
        "scan",
        "<<",
        "dot",
        "dot",
        "dot",
    ),
)
LONGEST = 1000
"""The longest axis that is summed over, where its length is a dimension: `require` says so."""


@dataclass(frozen=True)
class Number:
    """An integer expression, and what it is never beyond."""

    tree: Tree
    low: int
    high: int

    @property
    def fits(self) -> bool:
        return self.low >= LEAST and self.high <= MOST


class Integers(Values):
    """Integers over some axes."""

    def edge(self) -> int:
        return self.r.choice(EDGES)

    def held(self, x: Number, low: int, high: int) -> Number:
        """The same between two ends, in one of three ways."""
        if low <= x.low and x.high <= high:
            return x
        kind = self.r.randrange(3)
        reduced = any(n[0] in ("isum", "scan", "dot") for n in nodes(x.tree))  # an axis of a reduction inside can't be in the condition
        if kind == 0 and low <= 0 <= high and not reduced:
            inside: Tree = ("&", ("<=", c(low), x.tree), ("<=", x.tree, c(high)))
            return Number(("where", inside, x.tree, ZERO), max(low, min(x.low, 0)), min(high, max(x.high, 0)))
        if kind == 1 and low <= 0 and high >= 1:
            by = self.r.randint(1, high)
            return Number(("%", x.tree, c(by)), 0, by - 1)
        return Number(("max", c(low), ("min", x.tree, c(high))), max(low, min(x.low, high)), min(high, max(x.high, low)))

    def datum(self, axes: list[Axis]) -> Number:
        """A load of any integer type; half of them promised to lie between two ends."""
        dtype = self.r.choice(["i64", "i64", "i32", "i32", "i8", "u8"])
        some = self.r.sample(axes, self.r.randint(1, len(axes)))
        name = self.new("q", dtype, tuple(a.limit for a in some))
        load: Tree = ("load", name, tuple(a.index for a in some))
        low, high = LIMITS[dtype]
        if dtype == "u8":
            return Number(("cast", "i64", load), low, high)
        if "promise" in self.features and self.odds(0.4):
            ends = sorted(max(low, min(high, self.edge())) for _ in range(2))
            self.promises.append(("each", name, ((">=", c(ends[0])), ("<=", c(ends[1])))))
            low, high = ends
        return Number(load, low, high)

    def number(self, axes: list[Axis], depth: int) -> Number:
        """An integer of up to ``depth`` operations above one another."""
        if depth == 0:
            if self.odds(0.25):
                value = self.edge()
                return Number(c(value), value, value)
            if self.odds(0.15):
                a = self.r.choice(axes)
                return Number(("%", a.index, c(8)), 0, 7)
            return self.datum(axes)
        kind = self.r.choice(KINDS)
        if kind == "sum":
            return self.summed(axes, depth)
        if kind == "scan":
            return self.scanned(axes, depth)
        if kind == "dot":
            return self.product()
        x = self.number(axes, depth - 1)
        if kind in ("+", "-", "*", "min", "max", "where"):
            return self.both(kind, x, self.number(axes, self.r.randrange(depth)), axes)
        if kind in ("//", "%"):
            return self.divided(kind, x, axes)
        if kind in ("<<", ">>"):
            return self.shifted(kind, x, axes)
        if kind in ("abs", "neg"):
            x = self.held(x, 1 - 2**63, MOST)
            if kind == "neg":
                return Number(("neg", x.tree), -x.high, -x.low)
            return Number(("abs", x.tree), max(0, x.low, -x.high), max(abs(x.low), abs(x.high)))
        if kind == "cdiv":
            x, by = self.held(x, 1 - 2**63, MOST), self.r.choice([2, 3, 7, 2**31])
            return Number(("cdiv", x.tree, c(by)), -(-x.low // by), -(-x.high // by))
        if kind == "clamp":
            low, high = sorted(self.edge() for _ in range(2))
            return Number(("clamp", x.tree, c(low), c(high)), max(low, min(x.low, high)), min(high, max(x.high, low)))
        dtype = self.r.choice(["i8", "i32"])
        low, high = LIMITS[dtype]
        if kind == "wrap":
            return x if low <= x.low and x.high <= high else Number(("wrap", dtype, x.tree), low, high)
        x = self.held(x, low, high)
        return Number(("cast", dtype, x.tree), x.low, x.high)

    def both(self, kind: str, x: Number, y: Number, axes: list[Axis]) -> Number:
        if kind == "where":
            op = self.r.choice(["<", "<=", "==", "!="])
            other = self.datum(axes)
            return Number(("where", (op, other.tree, c(self.edge())), x.tree, y.tree), min(x.low, y.low), max(x.high, y.high))
        if kind in ("min", "max"):
            pick = min if kind == "min" else max
            return Number((kind, x.tree, y.tree), pick(x.low, y.low), pick(x.high, y.high))
        made = self.joined(kind, x, y)
        if made.fits:
            return made
        most = 2**31 - 1 if kind == "*" else 2**62 - 1
        return self.joined(kind, self.held(x, -most, most), self.held(y, -most, most))

    def joined(self, kind: str, x: Number, y: Number) -> Number:
        tree: Tree = (kind, x.tree, y.tree)
        if kind == "+":
            return Number(tree, x.low + y.low, x.high + y.high)
        if kind == "-":
            return Number(tree, x.low - y.high, x.high - y.low)
        ends = [a * b for a in (x.low, x.high) for b in (y.low, y.high)]
        return Number(tree, min(ends), max(ends))

    def divided(self, kind: str, x: Number, axes: list[Axis]) -> Number:
        if self.odds(0.4):
            by = self.r.choice([2, 3, 7, -1, -2, -7, 100, 2**31, 2**62])
            if by == -1 and kind == "//":
                x = self.held(x, 1 - 2**63, MOST)
            made: Tree = (kind, x.tree, c(by))
            if kind == "%":
                return Number(made, min(0, by + 1), max(0, by - 1))
            ends = [x.low // by, x.high // by]
            return Number(made, min(ends), max(ends))
        y = self.datum(axes)
        if kind == "//" and self.odds(0.5):
            positive: Tree = ("where", (">", y.tree, ZERO), (kind, x.tree, y.tree), ONE)
            return Number(positive, min(x.low, 1), max(x.high, 1))
        if kind == "//":
            x = self.held(x, 1 - 2**63, MOST)
        most = max(abs(x.low), abs(x.high)) if kind == "//" else max(abs(y.low), abs(y.high))
        return Number(("where", ("!=", y.tree, ZERO), (kind, x.tree, y.tree), ONE), -max(most, 1), max(most, 1))

    def shifted(self, kind: str, x: Number, axes: list[Axis]) -> Number:
        top = self.r.choice([3, 8, 31, 32, 40, 63])
        by = self.datum(axes)
        held: Tree = ("%", by.tree, c(top + 1)) if self.odds(0.5) else ("max", ZERO, ("min", by.tree, c(top)))
        amount = c(top) if self.odds(0.3) else held
        if kind == ">>":
            return Number((kind, x.tree, amount), min(x.low, x.low >> top), max(x.high, x.high >> top))
        x = self.held(x, LEAST >> top, MOST >> top)
        return Number((kind, x.tree, amount), min(x.low, x.low << top), max(x.high, x.high << top))

    # ------------------------------------------------------------------------------------------------------------------ sums

    def lanes(self) -> tuple[Axis, int]:
        """A span to sum over, and how many lanes it has."""
        length = self.r.choice([1, 2, 3, 4, 7])
        axis = Axis(self.name("e"), c(length), "span")
        self.spans.append(("span", axis.name, ZERO, c(length), None))
        return axis, length

    def summed(self, axes: list[Axis], depth: int) -> Number:
        axis, n = self.lanes()
        x = self.number([*axes, axis], min(depth - 1, 1))
        if axis.index not in list(self.indices_of(x.tree)):
            x = Number(("+", x.tree, axis.index), x.low, x.high + n)
        x = self.held(x, LEAST // n + 1, MOST // n)
        return Number(("isum", x.tree, axis.name), n * min(x.low, 0), n * max(x.high, 0))

    def indices_of(self, tree: Tree) -> list[Tree]:
        return [n for n in nodes(tree) if n[0] == "i"]

    def scanned(self, axes: list[Axis], depth: int) -> Number:
        """A prefix sum, read at all lanes by a sum of their remainders."""
        axis, n = self.lanes()
        x = self.datum([*axes, axis])
        if axis.index not in list(self.indices_of(x.tree)):
            x = Number(("min", x.tree, axis.index), min(x.low, 0), min(x.high, n))
        x = self.held(x, LEAST // n + 1, MOST // n)
        made = Number(("scan", x.tree, axis.name, self.odds(0.4), self.odds(0.4)), n * min(x.low, 0), n * max(x.high, 0))
        seen = self.held(made, -(2**58), 2**58)
        return Number(("isum", seen.tree, axis.name), n * min(seen.low, 0), n * max(seen.high, 0))

    def product(self) -> Number:
        axis, n = self.lanes()
        a, b = (self.new("w", "i8", (axis.limit,)) for _ in range(2))
        return Number(("dot", ("load", a, (axis.index,)), ("load", b, (axis.index,)), axis.name), -n * 2**14, n * 2**14)

    # ------------------------------------------------------------------------------------------------------------ statements

    def reckon(self, axes: list[Axis]) -> list[Tree]:
        """A number of each instance, stored; or found on the way through a loop and stored then; or where something is read."""
        kind = self.r.randrange(4)
        indices, extents = tuple(a.index for a in axes), tuple(a.limit for a in axes)
        if kind == 0 and all(a.scalar for a in axes):
            return self.gathered_sum(axes)
        x = self.number(axes, self.r.choice([2, 3, 3, 4]))
        if kind == 1:
            size = self.r.choice([3, 7, 8])
            name = self.new("x", "f32", (c(size),))
            at: Tree = ("%", x.tree, c(size)) if self.odds(0.5) else ("max", ZERO, ("min", x.tree, c(size - 1)))
            return [("store", "set", self.new("y", "f32", extents, "out"), indices, ("load", name, (at,)))]
        dtype = self.r.choice(["i64", "i64", "i32", "i8"])
        x = self.held(x, *LIMITS[dtype])
        return [("store", "set", self.new("y", dtype, extents, "out"), indices, x.tree)]

    def gathered_sum(self, axes: list[Axis]) -> list[Tree]:
        """A sum over a loop whose length is a dimension."""
        d = self.dim()
        self.require(("<=", d, c(LONGEST)))
        axis, total = Axis(self.name("k"), d, self.r.choice(["tile", "range"])), self.name("total")
        x = self.datum([*axes, axis])
        if axis.index not in list(self.indices_of(x.tree)):
            x = Number(("min", x.tree, axis.index), min(x.low, 0), min(x.high, LONGEST))
        x = self.held(x, LEAST // LONGEST + 1, MOST // LONGEST)
        step: Tree = ("isum", x.tree, axis.name) if axis.kind == "tile" else x.tree
        made = Number(("v", total), LONGEST * min(x.low, 0), LONGEST * max(x.high, 0))
        dtype = "i32" if LIMITS["i32"][0] <= made.low and made.high <= LIMITS["i32"][1] and self.odds(0.7) else "i64"
        indices, extents = tuple(a.index for a in axes), tuple(a.limit for a in axes)
        return [
            ("start", total, ()),
            ("for", axis.kind, axis.name, ZERO, d, (("set", total, ("+", ("v", total), step)),)),
            ("store", "set", self.new("y", dtype, extents, "out"), indices, made.tree),
        ]
