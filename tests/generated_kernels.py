"""Random small kernels that hold every kind of obligation: right by construction, and then, half of them, spoilt in one place.

``generate(random)`` is plain Python, for long runs; ``kernels()`` is the same as a hypothesis strategy. What a kernel does wrong is for the
oracle (``kernel_oracle``) to say: a spoilt one may still be right.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st
from kernel_trees import Model, Tree, nodes
from spoiled_kernels import spoil

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
class Build:
    """A kernel in the making. ``r`` decides everything."""

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

    # ------------------------------------------------------------------------------------------------------------ indices

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

    # ------------------------------------------------------------------------------------------------------------- values

    def read(self, axes: list[Axis], dtype: str = "f32") -> tuple[Tree, Tree | None]:
        """A load, and the guard under which it is right."""
        parts = [self.index(axes) for _ in range(self.r.choice([1, 1, 2, 2, 3]))]
        extents = tuple(p[1] for p in parts)
        seen = dtype == "f32" and "view" in self.features and self.odds(0.1)
        tensor = self.view(extents, "in") if seen else self.new("x", dtype, extents)
        guard: Tree | None = None
        for p in parts:
            if p[2] is not None:
                guard = p[2] if guard is None else ("&", guard, p[2])
        return ("load", tensor, tuple(p[0] for p in parts)), guard

    def value(self, axes: list[Axis]) -> Tree:
        """An f32 value of any of the axes."""
        made: Tree = ("f", self.r.choice(["1.0", "0.5"]))
        for _ in range(self.r.choice([1, 1, 2])):
            load, guard = self.read(axes)
            part = load if guard is None else ("where", guard, load, ("f", "0.0"))
            made = part if self.odds(0.6) else ("fadd", made, part)
        return made

    def view(self, extents: tuple[Tree, ...], role: str, base: str | None = None, before: Tree = ZERO) -> str:
        """An f32 view of bytes, which begin after ``before`` in the base."""
        strides, size = [], c(4)
        for e in reversed(extents):
            strides.append(size)
            size = mul(size, e)
        offset = before if base is not None or self.odds(0.5) else c(self.r.choice([4, 8, 12]))
        name = self.name("v")
        self.views.append(
            (name, "f32", extents, role, base or self.new("b", "u8", (add(size, offset),), role), offset, tuple(reversed(strides)))
        )
        return name

    def halves(self, axes: list[Axis]) -> list[Tree]:
        """Two views of one tensor, one of them written."""
        order = self.r.sample(axes, len(axes))
        indices, extents = tuple(a.index for a in order), tuple(a.limit for a in order)
        size: Tree = c(4)
        for e in extents:
            size = mul(size, e)
        base = self.new("b", "u8", (mul(c(2), size),), "inout")
        low, high = self.view(extents, "inout", base), self.view(extents, "inout", base, size)
        value: Tree = ("fadd", ("load", high, indices), self.value(axes)) if self.odds(0.7) else self.value(axes)
        return [("store", "set", low, indices, value)]

    def whole(self, axes: list[Axis]) -> Tree:
        """An integer that fits i8."""
        load, guard = self.read(axes, self.r.choice(["i32", "i8"]))
        other, also = self.read(axes, "i32")
        both = guard if also is None else also if guard is None else ("&", guard, also)
        kind = self.r.randrange(5)
        if kind == 0:
            made: Tree = ("%", load, c(self.r.randint(2, 9)))
            both = guard
        elif kind == 1:
            made = ("max", c(-100), ("min", load, c(100)))
            both = guard
        elif kind == 2:
            made = ("%", ("where", ("!=", other, ZERO), ("//", load, other), ONE), c(7))
        elif kind == 3:
            made = ("%", (">>", load, ("%", other, c(32))), c(5))
        else:
            made = ("cast", "i8", ("-", ("%", load, c(100)), ("%", other, c(100))))
        return made if both is None else ("where", both, made, ZERO)

    # --------------------------------------------------------------------------------------------------------------- stores

    def cover(self, axes: list[Axis]) -> list[Tree]:
        """Stores that write each element of an Out once; the axes are those of the instance and of what is around."""
        r = self.r
        order = r.sample(axes, len(axes))
        value = self.whole(axes) if self.odds(0.35) else self.value(axes)
        dtype = "f32" if self.is_float(value) else r.choice(["i8", "i32", "i64"])
        plain = tuple(a.index for a in order), tuple(a.limit for a in order)
        kind = r.randrange(10)
        if kind <= 2:
            return self.store(dtype, *plain, value)
        at = r.randrange(len(order))
        i, limit = order[at].index, order[at].limit

        def put(e: Tree, new: Tree) -> tuple[tuple[Tree, ...], tuple[Tree, ...]]:
            indices, extents = list(plain[0]), list(plain[1])
            indices[at], extents[at] = e, new
            return tuple(indices), tuple(extents)

        if kind == 3:
            return self.store(dtype, *put(("-", ("-", limit, ONE), i), limit), value)
        if kind == 4:
            first = self.store(dtype, *put(i, mul(c(2), limit)), value)
            second = add(i, limit) if self.odds(0.5) else None
            (_, mode, tensor, indices, _) = first[-1]
            if second is None:
                indices = put(mul(c(2), i), limit)[0]
                return [
                    *first[:-1],
                    ("store", mode, tensor, indices, value),
                    ("store", mode, tensor, put(add(mul(c(2), i), ONE), limit)[0], value),
                ]
            return [*first, ("store", mode, tensor, put(second, limit)[0], value)]
        if kind == 5 and len(order) > 1:
            a, b = order[0], order[1]
            rest = order[2:]
            flat = add(mul(a.index, b.limit), b.index)
            return self.store(dtype, (flat, *(x.index for x in rest)), (mul(a.limit, b.limit), *(x.limit for x in rest)), value)
        if kind == 6:
            k = r.choice([2, 3])
            if limit[0] == "d":
                self.require(("==", ("%", limit, c(k)), ZERO))
                indices, extents = put(("//", i, c(k)), ("//", limit, c(k)))
                return self.store(dtype, (*indices, ("%", i, c(k))), (*extents, c(k)), value)
        if kind == 7:
            d = self.dim()
            (store,) = self.store(dtype, *plain, value)
            other = self.zero(dtype)
            return [("if", ("<", i, d), (store,), ((*store[:4], other),))]
        if kind == 8:
            return self.partly(dtype, *put(*self.r.choice([((add(i, ONE)), limit), (("-", i, ONE), limit)])), value, at, i, limit)
        if kind == 9 and "promise" in self.features:
            slot = self.new("slot", "i32", (limit,))
            top = self.dim()
            self.promises += [("distinct", slot), ("each", slot, ((">=", ZERO), ("<", top)))]
            made = self.store(dtype, *put(("load", slot, (i,)), top), value)
            self.partial.append(made[-1][2])
            return made
        return self.store(dtype, *plain, value)

    def is_float(self, value: Tree) -> bool:
        return any(n[0] in ("f", "fadd") or (n[0] == "load" and self.dtype(n[1]) == "f32") for n in nodes(value))

    def dtype(self, tensor: str) -> str:
        return str(next(t[1] for t in (*self.tensors, *self.views) if t[0] == tensor))

    def zero(self, dtype: str) -> Tree:
        return ("f", "0.0") if dtype == "f32" else ZERO

    def store(self, dtype: str, indices: tuple[Tree, ...], extents: tuple[Tree, ...], value: Tree, role: str = "out") -> list[Tree]:
        return [("store", "set", self.new("y", dtype, extents, role), indices, value)]

    def partly(
        self, dtype: str, indices: tuple[Tree, ...], extents: tuple[Tree, ...], value: Tree, at: int, i: Tree, limit: Tree
    ) -> list[Tree]:
        role = self.r.choice(["out", "inout"])
        (store,) = self.store(dtype, indices, extents, value, role)
        if role == "out":
            self.partial.append(store[2])
        moved = indices[at]
        return [("if", (">", i, ZERO) if moved[0] == "-" else ("<", moved, limit), (store,), ())]

    def in_place(self, axes: list[Axis]) -> list[Tree]:
        """An InOut that is read and written."""
        indices = tuple(a.index for a in axes)
        limits = [a.limit for a in axes]
        kind = self.r.randrange(3)
        if kind == 0:
            x = self.new("z", "f32", tuple(limits), "inout")
            return [("store", "set", x, indices, ("fadd", ("load", x, indices), self.value(axes)))]
        x = self.new("z", "f32", (mul(c(2), limits[0]), *limits[1:]), "inout")
        far = (add(axes[0].index, limits[0]), *indices[1:])
        swap = [("store", "set", x, indices, ("fadd", ("load", x, far), ("f", "1.0")))]
        return swap if kind == 1 else [*swap, ("store", "set", x, far, self.value(axes))]

    def collide(self, axes: list[Axis]) -> list[Tree]:
        """Stores that may meet."""
        index, limit, guard = self.index(axes)
        mode = self.r.choice([f for f in ("atomic_add", "scatter") if f in self.features])
        x, value = self.new("z", "f32", (limit,), "inout"), self.value(axes)
        named = {n[1] for n in nodes((index, value, *self.lets)) if n[0] == "i"}
        if any(not a.scalar and a.name not in named for a in axes):
            mode = "scatter"  # how often an atomic addition happened would be for the schedule to choose
        store: Tree = ("store", mode, x, (index,), value)
        return [store] if guard is None else [("if", guard, (store,), ())]

    # ---------------------------------------------------------------------------------------------------------------- bodies

    def inner(self, axes: list[Axis]) -> list[Tree]:
        """A loop or a span inside the instance, and what it is good for."""
        r = self.r
        scalars = [a for a in axes if a.scalar]
        kind = r.choice(["tile", "tile", "range", "span", "group", "data", "nested", "carry", "rank", "count", "bisect", "split"])
        name = self.name("k")
        if kind in ("tile", "range"):
            axis = Axis(name, self.extent(), kind)
            return self.loop(axes, axis, ZERO, axis.limit)
        if kind == "span":
            length = c(r.randint(1, 4))
            self.spans.append(("span", name, ZERO, length, None))
            return self.flush([*self.cover([*axes, Axis(name, length, "span")])])
        if kind == "group" and scalars:
            g = r.choice(scalars)
            k = r.choice([2, 3])
            limit, stop = mul(g.limit, c(k)), None
            if self.odds(0.4):
                limit = stop = ("-", limit, ONE)
            axis = Axis(name, limit, "span")
            made: Tree = ("span", name, mul(g.index, c(k)), c(k), stop)
            rest = [a for a in axes if a is not g]
            stores = self.flush(
                self.store("f32", tuple(a.index for a in (*rest, axis)), tuple(a.limit for a in (*rest, axis)), self.value([*rest, axis]))
            )
            return [made, *stores]
        if kind == "data" and scalars:
            return self.ragged(axes, r.choice(scalars), name)
        if kind == "nested":
            outer = Axis(name, self.extent(), "range")
            axis = Axis(self.name("k"), outer.limit, r.choice(["tile", "range"]))
            low, high = (outer.index, outer.limit) if self.odds(0.5) else (ZERO, add(outer.index, ONE))
            body = self.loop([*axes, outer], axis, low, high, cover=False)
            return [("for", "range", name, ZERO, outer.limit, tuple(body))]
        if kind == "rank" and len(scalars) == len(axes):
            return self.compact(axes, name)
        if kind == "count" and len(scalars) == len(axes):
            return self.counter(axes, name)
        if kind == "bisect" and len(scalars) == len(axes):
            return self.bisect(axes, name)
        if kind == "split" and "split" in self.features and scalars:
            g = r.choice(scalars)
            n = self.dim()
            begin, end = self.name("lo"), self.name("hi")
            if g.limit[0] != "c":
                self.positive(g.limit)
            axis = Axis(name, n, "tile")
            rest = [a for a in axes if a is not g]
            body = self.flush(
                self.store("f32", tuple(a.index for a in (*rest, axis)), tuple(a.limit for a in (*rest, axis)), self.value([*rest, axis]))
            )
            return [("split", begin, end, n, g.limit, g.index), ("for", "tile", name, ("v", begin), ("v", end), tuple(body))]
        return self.flush(self.cover(axes))

    def flush(self, statements: list[Tree]) -> list[Tree]:
        """The names that were made on the way, then what uses them."""
        made, self.lets = self.lets, []
        return [*made, *statements]

    def loop(self, axes: list[Axis], axis: Axis, low: Tree, high: Tree, cover: bool = True) -> list[Tree]:
        tiles = tuple(a.name for a in axes if not a.scalar)
        if cover and low == ZERO and self.odds(0.5):
            return [("for", axis.kind, axis.name, low, high, tuple(self.flush(self.cover([*axes, axis]))))]
        total = self.name("sum")
        value = self.value([*axes, axis])
        step: Tree = ("fsum", value, axis.name) if axis.kind == "tile" else value
        if axis.kind == "tile" and not any(n == axis.index for n in nodes(value)):
            step = value
        if any(a.index in list(nodes(value)) for a in axes if not a.scalar) or not tiles:
            body = self.flush([("set", total, ("fadd", ("v", total), step))])
            lets = {s[1] for s in body if s[0] == "let"}
            if axis.kind == "tile" and step is value and lets:
                body = self.flush([])
            if body:
                return [("fstart", total, tiles), ("for", axis.kind, axis.name, low, high, tuple(body)), *self.total(axes, total)]
        self.lets.clear()
        return self.flush(self.cover(axes))

    def total(self, axes: list[Axis], name: str) -> list[Tree]:
        return self.store("f32", tuple(a.index for a in axes), tuple(a.limit for a in axes), ("v", name))

    def ragged(self, axes: list[Axis], s: Axis, name: str) -> list[Tree]:
        top = self.dim()
        low: Tree
        high: Tree
        if self.odds(0.5):
            cu = self.new("cu", "i32", (add(s.limit, ONE),))
            low, high = ("load", cu, (s.index,)), ("load", cu, (add(s.index, ONE),))
            if "promise" in self.features and self.odds(0.7):
                self.promises.append(("each", cu, ((">=", ZERO), ("<=", top))))
            else:
                low, high = ("max", low, ZERO), ("min", high, top)
        else:
            length = self.new("n", "i32", (s.limit,))
            low, high = ZERO, ("min", ("load", length, (s.index,)), top)
        kind = self.r.choice(["tile", "range"])
        axis = Axis(name, top, kind)
        if self.odds(0.5):
            return self.loop(axes, axis, low, high, cover=False)
        value = self.value([*axes, axis])
        (store,) = self.store("f32", tuple(a.index for a in (*axes, axis)), tuple(a.limit for a in (*axes, axis)), value)
        self.partial.append(store[2])
        return [("for", kind, name, low, high, tuple(self.flush([store])))]

    def compact(self, axes: list[Axis], name: str) -> list[Tree]:
        """The set elements, moved to the front: ``used`` of them so far."""
        limit = self.dim()
        indices, extents = tuple(a.index for a in axes), tuple(a.limit for a in axes)
        sel = self.new("sel", "i32", (*extents, limit))
        y = self.new("y", "i64", (*extents, limit), "out")
        used = self.name("used")
        mask: Tree = (">", ("load", sel, (*indices, ("i", name))), ZERO)
        live, to = self.name("live"), self.name("to")
        full = self.odds(0.5)
        if not full:
            self.partial.append(y)
        body: tuple[Tree, ...] = (
            ("let", live, mask),
            ("let", to, ("+", ("v", used), ("rank", ("v", live), name))),
            ("if", ("v", live), (("store", "set", y, (*indices, ("v", to)), ("i", name)),), ()),
            ("set", used, ("+", ("v", used), ("sum", ("v", live), name))),
        )
        made: list[Tree] = [("start", used, ()), ("for", "tile", name, ZERO, limit, body)]
        if full:
            rest = self.name("k")
            made.append(("for", "tile", rest, ("v", used), limit, (("store", "set", y, (*indices, ("i", rest)), c(-1)),)))
        return made

    def counter(self, axes: list[Axis], name: str) -> list[Tree]:
        limit = self.dim()
        indices, extents = tuple(a.index for a in axes), tuple(a.limit for a in axes)
        sel = self.new("sel", "i32", (*extents, limit))
        mask: Tree = (">", ("load", sel, (*indices, ("i", name))), ZERO)
        used = self.name("used")
        bound = limit
        if self.odds(0.5):
            bound = self.dim()
            mask = ("&", mask, ("<", ("v", used), bound))
        y = self.new("y", "i64", (*extents, bound), "out")
        self.partial.append(y)
        body = (("store", "set", y, (*indices, ("v", used)), ("i", name)), ("set", used, ("+", ("v", used), ONE)))
        return [("start", used, ()), ("for", "range", name, ZERO, limit, (("if", mask, body, ()),))]

    def bisect(self, axes: list[Axis], name: str) -> list[Tree]:
        limit = self.dim()
        if self.odds(0.5):
            self.positive(limit)
        indices, extents = tuple(a.index for a in axes), tuple(a.limit for a in axes)
        off, key = self.new("off", "i32", (limit,)), self.new("key", "i32", extents)
        low, high, mid = self.name("lo"), self.name("hi"), self.name("mid")
        lo, hi, m = ("v", low), ("v", high), ("v", mid)
        step = ("if", ("<=", ("load", off, (m,)), ("load", key, indices)), (("set", low, ("+", m, ONE)),), (("set", high, m),))
        body = (("let", mid, ("//", ("+", lo, hi), c(2))), ("if", ("<", lo, hi), (step,), ()))
        x = self.new("x", "f32", (add(limit, ONE),))
        return [("start", low, ()), ("start", high, ()), ("set", high, limit), ("for", "range", name, ZERO, c(4), body),
                *self.store("f32", indices, extents, ("load", x, (lo,)))]  # fmt: skip

    def kernel(self) -> Model:
        grid = []
        for _ in range(self.r.choice([1, 1, 2, 2, 3])):
            grid.append(Axis(self.name("a"), self.extent(), "tiled" if self.odds(0.5) else "plain"))
        body: list[Tree] = []
        makers = [self.cover, self.inner, self.inner, self.in_place]
        if {"atomic_add", "scatter"} & self.features:
            makers.append(self.collide)
        if "view" in self.features:
            makers.append(self.halves)
        for _ in range(self.r.choice([1, 1, 2])):
            body += self.flush(self.r.choice(makers)(list(grid)))
        for d in sorted(
            {
                n[1]
                for part in (self.tensors, self.requires, self.views, body, [g.limit for g in grid])
                for n in nodes(tuple(part))
                if n[0] == "d"
            }
        ):
            if not any(t[3] == "in" and ("d", d) in t[2] for t in self.tensors):
                self.tensors.append((f"dim{d}", "f32", (("d", d),), "in"))
        shape = tuple((g.name, g.limit, not g.scalar) for g in grid)
        return Model(tuple(self.tensors), tuple(self.scalars), tuple(self.requires), tuple(self.promises), tuple(self.partial),
                     tuple(self.spans), shape, tuple(body), tuple(self.views))  # fmt: skip


def generate(r: random.Random, features: frozenset[str] = frozenset()) -> Model:
    """A kernel; every second one is spoilt."""
    model = Build(r, features).kernel()
    return spoil(model, r) if r.random() < 0.5 else model


def kernels(features: frozenset[str] = frozenset()) -> st.SearchStrategy[Model]:
    """The same as a hypothesis strategy, which makes a failing kernel smaller."""
    return st.randoms(use_true_random=False).map(lambda r: generate(r, features))
