"""Parts of generated kernels: stores that write each element of an Out once, that change an InOut in place, or that may collide."""

from __future__ import annotations

from generated_indices import ONE, ZERO, Axis, add, c, mul
from generated_integers import Integers
from kernel_trees import Tree, nodes


class Stores(Integers):
    """Statements that write."""

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
