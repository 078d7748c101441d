"""Parts of generated kernels: values that are read, views of bytes, and integers that fit a narrow type."""

from __future__ import annotations

from generated_indices import ONE, ZERO, Axis, Indices, add, c, mul
from kernel_trees import Tree


class Values(Indices):
    """Values over some axes."""

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
