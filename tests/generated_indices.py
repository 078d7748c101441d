"""Parts of generated kernels: names, dimensions and extents, and indices that are right by construction."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from kernel_trees import Tree

ZERO, ONE = ("c", 0), ("c", 1)
DIMS = ("M", "N", "S", "T", "P", "D")


def c(value: int) -> Tree:
    return ("c", value)


def add(a: Tree, b: Tree) -> Tree:
    if a[0] == "c" and b[0] == "c":
        return c(a[1] + b[1])
    return a if b == ZERO else b if a == ZERO else ("-", a, c(-b[1])) if b[0] == "c" and b[1] < 0 else ("+", a, b)


def mul(a: Tree, b: Tree) -> Tree:
    if a[0] == "c" and b[0] == "c":
        return c(a[1] * b[1])
    return a if b == ONE else b if a == ONE else ("*", a, b)


def within(e: Tree, limit: Tree) -> Tree:
    return ("&", ("<=", ZERO, e), ("<", e, limit))


@dataclass(frozen=True)
class Axis:
    """An index variable: its values are in ``0 .. limit``; ``scalar``: it has no lanes."""

    name: str
    limit: Tree
    kind: str

    @property
    def scalar(self) -> bool:
        return self.kind in ("plain", "range")

    @property
    def index(self) -> Tree:
        return ("i", self.name)


@dataclass
class Indices:
    """A kernel in the making: its parameters, and indices. ``r`` decides everything."""

    r: random.Random
    features: frozenset[str]
    tensors: list[Tree] = field(default_factory=list)
    scalars: list[Tree] = field(default_factory=list)
    requires: list[Tree] = field(default_factory=list)
    promises: list[Tree] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    spans: list[Tree] = field(default_factory=list)
    views: list[Tree] = field(default_factory=list)
    lets: list[Tree] = field(default_factory=list)
    dims: list[str] = field(default_factory=list)
    count: int = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def odds(self, p: float) -> bool:
        return self.r.random() < p

    def dim(self) -> Tree:
        if len(self.dims) < 3 and (not self.dims or self.odds(0.4)):
            self.dims.append(DIMS[len(self.dims)])
            return ("d", self.dims[-1])
        return ("d", self.r.choice(self.dims))

    def new(self, prefix: str, dtype: str, extents: tuple[Tree, ...], role: str = "in") -> str:
        name = self.name(prefix)
        self.tensors.append((name, dtype, extents, role))
        return name

    def require(self, condition: Tree) -> None:
        if condition not in self.requires:
            self.requires.append(condition)

    def extent(self) -> Tree:
        kind = self.r.randrange(8)
        d = self.dim()
        if kind == 0:
            return c(self.r.randint(1, 4))
        if kind == 1:
            return mul(c(2), d)
        if kind == 2:
            return add(d, c(self.r.randint(1, 2)))
        if kind == 3:
            k = self.r.choice([2, 3])
            self.require(("==", ("%", d, c(k)), ZERO))
            return ("//", d, c(k))
        return d

    def index(self, axes: list[Axis], depth: int = 0) -> tuple[Tree, Tree, Tree | None]:
        """An index over some axes, an extent that it never reaches, and the guard that it needs for that."""
        a = self.r.choice(axes)
        i, limit = a.index, a.limit
        forms: list[Callable[[], tuple[Tree, Tree, Tree | None]]] = [lambda: (i, limit, None)] * 4
        forms += [self._shifted(i, limit), self._mirrored(i, limit), self._quotient(i, limit), self._modulo(i), self._scaled(i, limit)]
        if len(axes) > 1:
            forms += [self._pair(a, self.r.choice([b for b in axes if b is not a]))] * 2
        if depth == 0:
            forms += [
                self._gather(axes),
                self._gather(axes),
                self._neighbour(i, limit),
                self._clamped(i, limit),
                self._ahead(i, limit),
                self._scalar(i),
            ]
            if "searchsorted" in self.features:
                forms.append(self._search(i))
        return self.r.choice(forms)()

    def _shifted(self, i: Tree, limit: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            by = c(self.r.randint(1, 3)) if self.odds(0.6) else self.dim()
            return add(i, by), add(limit, by), None

        return make

    def _mirrored(self, i: Tree, limit: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        return lambda: (("-", ("-", limit, ONE), i), limit, None)

    def _quotient(self, i: Tree, limit: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            k = self.r.choice([2, 3, 4])
            if limit[0] == "d" and self.odds(0.5):
                self.require(("==", ("%", limit, c(k)), ZERO))
                return ("//", i, c(k)), ("//", limit, c(k)), None
            if self.odds(0.2):
                return ("//", i, self.dim()), limit, None
            return ("//", i, c(k)), ("//", add(limit, c(k - 1)), c(k)), None

        return make

    def _modulo(self, i: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            by = c(self.r.choice([2, 3, 4])) if self.odds(0.6) else self.dim()
            return ("%", i, by), by, None

        return make

    def _scaled(self, i: Tree, limit: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            k = self.r.choice([2, 3])
            return add(mul(i, c(k)), c(self.r.randrange(k))), mul(limit, c(k)), None

        return make

    def _pair(self, a: Axis, b: Axis) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            kind = self.r.randrange(4)
            if kind == 0:
                return ("+", a.index, b.index), add(a.limit, b.limit), None
            if kind == 1:
                return ("min", a.index, b.index), a.limit, None
            if kind == 2:
                return ("-", a.index, b.index), a.limit, (">=", a.index, b.index)
            return add(mul(a.index, b.limit), b.index), mul(a.limit, b.limit), None

        return make

    def _gather(self, axes: list[Axis]) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            some = [self.index(axes, 1) for _ in range(self.r.choice([1, 1, 2]))]
            some = [s for s in some if s[2] is None] or [(axes[0].index, axes[0].limit, None)]
            idx = self.new("idx", "i32", tuple(s[1] for s in some))
            read: Tree = ("load", idx, tuple(s[0] for s in some))
            top = self.dim() if self.odds(0.8) else c(self.r.randint(1, 4))
            kind = self.r.randrange(5)
            if kind == 0:
                if top[0] == "d":
                    self.positive(top)
                return ("max", ZERO, ("min", read, add(top, c(-1)))), top, None
            if self.odds(0.7):
                name = self.name("t")
                self.lets.append(("let", name, read))
                read = ("v", name)
            if "promise" in self.features and kind in (1, 2):
                self.promises.append(("each", idx, ((">=", c(-1 if kind == 2 else 0)), ("<", top))))
                if kind == 1:
                    return read, top, None
                return read, top, (">=", read, ZERO)
            if kind == 3 and top[0] == "d":
                return ("%", read, top), top, None
            return read, top, within(read, top)

        return make

    def positive(self, top: Tree) -> None:
        self.require((">", top, ZERO))

    def _neighbour(self, i: Tree, limit: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            if self.odds(0.5):
                return ("-", i, ONE), limit, (">", i, ZERO)
            return ("+", i, ONE), limit, ("<", ("+", i, ONE), limit)

        return make

    def _clamped(self, i: Tree, limit: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            d = self.dim()
            self.positive(d)
            if self.odds(0.5):
                return ("min", i, ("-", d, ONE)), d, None
            return ("where", ("<", i, d), i, ZERO), d, None

        return make

    def _ahead(self, i: Tree, limit: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            d = self.dim()
            if self.odds(0.5) and limit[0] == "d":
                self.require(("<=", limit, d))
                return i, d, None
            return i, d, ("<", i, d)

        return make

    def _scalar(self, i: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            name = self.name("p")
            self.scalars.append((name, "i32"))
            d = self.dim()
            at = ("+", i, ("s", name))
            if self.odds(0.5):
                self.require((">=", ("s", name), ZERO))
                return at, d, ("<", at, d)
            return at, d, within(at, d)

        return make

    def _search(self, i: Tree) -> Callable[[], tuple[Tree, Tree, Tree | None]]:
        def make() -> tuple[Tree, Tree, Tree | None]:
            d = self.dim()
            cu = self.new("cu", "i32", (d,))
            return ("find", cu, i), add(d, ONE), None

        return make
