"""What TileLang makes of whole blocks by functions of its own: products, reductions, scans."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nsalang import ir
from nsalang.base.dtypes import F32, I32
from nsalang.lowering import emit
from nsalang.lowering import tilelang_dots as dots
from nsalang.lowering.emit import Text, call, infix, number, subscript
from nsalang.lowering.tilelang_buffers import Buffers


class Blocks(Buffers):
    """The statements that are no loops over lanes."""

    # ------------------------------------------------------------------------------------------------------------------ products

    def dot(self, s: ir.Assign, x: ir.Dot) -> None:
        product = dots.Product.of(x)
        self.buffer(s)
        length = self.kernel.schedule.length(x.over)
        policy = f"T.GemmWarpPolicy.{dots.policy(self.kernel, product, self.target)}"

        def gemm(into: str, clear: bool, first: int = 0, count: int = length) -> None:
            (left, a), (right, b) = (
                self.matrix(product.left, x.over, product.rows, first, count),
                self.matrix(product.right, x.over, product.columns, first, count),
            )
            options = {"transpose_A": a, "transpose_B": not b, "clear_accum": clear}
            named = {name: "True" for name, value in options.items() if value}
            self.emitter.line(str(call("T.gemm", left, right, into, **named, policy=policy)), s.span)

        parts = x.promote if 0 < x.promote < length else length
        target = self.results[s.name]
        if parts == length and x.dtype in (F32, I32):
            if x.acc is not None and s.name not in self.continued:
                self.start(s, x, x.acc)
            gemm(target, x.acc is None)
            return
        part = ir.Var(I32 if x.dtype.is_integer else x.dtype, x.axes, f"{s.name}.part")
        self.matrices[part.name] = self.matrices[s.name]
        self.buffer(ir.Assign(part.name, part))
        for first in range(0, length, parts):
            gemm(self.results[part.name], True, first, parts)
            with self.parallel(x.axes, s):
                place, new = self.values.variable(s.name, x.axes), self.values.expr(part)
                new = new if part.dtype is x.dtype else self.values.cast(new, x.dtype)
                old = place if first else None if x.acc is None else self.values.expr(x.acc)
                self.emitter.line(f"{place} = {new if old is None else infix('+', old, new)}", s.span)

    def start(self, s: ir.Assign, x: ir.Dot, acc: ir.Expr) -> None:
        """What a product is added to, in the place of the result."""
        if isinstance(acc, ir.Var) and acc.name == s.name:
            return
        with self.parallel(x.axes, s):
            self.emitter.line(f"{self.values.variable(s.name, x.axes)} = {self.whole(acc)}", s.span)

    def matrix(self, x: ir.Var, over: str, free: Sequence[str], first: int, count: int) -> tuple[Text, bool]:
        """An operand, of which ``count`` contracted lanes from ``first`` on are wanted, and whether they are its rows."""
        flipped = dots.transposed(self.kernel, over, free)
        at = [str(self.values.versions[x.name])] if x.name in self.values.versions else []
        lanes = ":" if count == self.kernel.schedule.length(over) else f"{first}:{first + count}"
        if at or lanes != ":":
            at += [lanes, ":"] if flipped else [":", lanes]
        buffer = Text(self.results[x.name] if x.name in self.results else self.values.buffers[x.name])
        return (subscript(buffer, ", ".join(at)) if at else buffer), flipped

    # ---------------------------------------------------------------------------------------------------------------- reductions

    def operand_buffer(self, x: ir.Expr, name: str, s: ir.Assign) -> str:
        """A buffer that holds ``x``: the variable's own, or a new one."""
        values = self.values
        if isinstance(x, ir.Var) and x.name in values.buffers and x.name not in {*values.matrices, *values.versions}:
            return values.buffers[x.name]
        buffer = self.place(name, emit.machine_shape(self.kernel, x.axes), x.dtype)
        with self.parallel(x.axes, s):
            self.emitter.line(f"{self.values.element(buffer, x.axes)} = {self.values.operand(x)}", s.span)
        return buffer

    def reduce(self, s: ir.Assign, x: ir.Reduce) -> None:
        """One axis after the other, the innermost first."""
        axes = list(emit.machine_axes(self.kernel, x.x.axes))
        assert set(x.over) <= set(axes), "a reduction over an axis that its operand lacks"
        assert x.op in ("sum", "max", "min"), f"legalize left '{x.op}'"
        assert x.x.dtype is x.dtype, "legalize left a reduction into another dtype"
        source = self.operand_buffer(x.x, f"{ir.plain(s.name)}_terms", s)
        over = sorted((a for a in axes if a in x.over), key=axes.index, reverse=True)
        for axis in over:
            at = axes.index(axis)
            axes.remove(axis)
            shape = tuple(self.kernel.schedule.length(a) for a in axes) or (1,)
            if axis != over[-1]:
                target = self.place(f"{ir.plain(s.name)}_{'_'.join(map(ir.plain, axes))}", shape, x.dtype)
            elif axes:
                target = self.buffer(s)
            else:
                known = s.name not in self.twice
                target = self.place(ir.plain(s.name) if known else f"{ir.plain(s.name)}_value", shape, x.dtype)
            if axis in self.rows:
                source = self.through_shared(source, x, (*axes[:at], axis, *axes[at:]), s)
            self.emitter.line(f"T.reduce_{x.op}({source}, {target}, dim={at})", s.span)
            source = target
        if not axes and s.name in self.twice:
            self.scalar(s, Text(f"{source}[0]"))
        elif not axes:
            self.values.buffers[s.name] = source

    @property
    def rows(self) -> frozenset[str]:
        """Axes that are rows of a product, which lie in threads in a way that TileLang cannot reduce over."""
        return frozenset(a for _, x in dots.products(self.kernel) for a in dots.Product.of(x).rows)

    def through_shared(self, source: str, x: ir.Reduce, axes: Sequence[str], s: ir.Assign) -> str:
        place = self.place(f"{source}_shared", emit.machine_shape(self.kernel, axes), x.dtype, "shared")
        with self.parallel(axes, s):
            self.emitter.line(f"{self.values.element(place, axes)} = {self.values.element(source, axes)}", s.span)
        return place

    def scan(self, s: ir.Assign, x: ir.Scan) -> None:
        """Through shared memory, as rows of a matrix: there TileLang scans."""
        axes = emit.machine_axes(self.kernel, x.axes)
        others = [a for a in axes if a != x.over]
        length = self.kernel.schedule.length(x.over)
        rows = math.prod(self.kernel.schedule.length(a) for a in others)
        shape = (rows, length) if others else (length,)
        sums = self.place(f"{ir.plain(s.name)}_sums", shape, x.dtype, "shared")
        out = self.buffer(s)

        def at(shift: str = "") -> str:
            row = Text("0")
            for k, a in enumerate(others):
                row = (
                    Text(self.values.lane[a])
                    if k == 0
                    else infix("+", infix("*", row, number(self.kernel.schedule.length(a))), Text(self.values.lane[a]))
                )
            lane = self.values.lane[x.over] + shift
            return f"{row}, {lane}" if others else lane

        with self.parallel(axes, s):
            self.emitter.line(f"{sums}[{at()}] = {self.values.operand(x.x)}", s.span)
        self.emitter.line(f"T.cumsum({sums}, dim={len(shape) - 1}{', reverse=True' if x.reverse else ''})", s.span)
        with self.parallel(axes, s):
            value = Text(f"{sums}[{at()}]")
            if x.exclusive:
                value = Text(f"{sums}[{at(' + 1' if x.reverse else ' - 1')}]")
            if x.dtype.is_float:
                # Sums start from +0.0, so a sum of nothing but -0.0 is +0.0, too.
                value = call("T.ieee_add", value, self.values.typed(ir.Const(x.dtype, (), 0.0)))
            if x.exclusive:
                lane = self.values.lane[x.over]
                inside = f"{lane} < {length - 1}" if x.reverse else f"{lane} > 0"
                value = call("T.if_then_else", inside, value, self.values.typed(ir.Const(x.dtype, (), 0)))
            self.emitter.line(f"{self.values.element(out, axes)} = {value}", s.span)
