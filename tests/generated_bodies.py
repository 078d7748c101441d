"""Parts of generated kernels: loops, spans, carried counters, searches, splits."""

from __future__ import annotations

from generated_indices import ONE, ZERO, Axis, add, c, mul
from generated_stores import Stores
from kernel_trees import Tree, nodes


class Bodies(Stores):
    """Statements around others."""

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
