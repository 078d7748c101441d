"""Contractions that a tensor core takes, and nothing else, stay contractions; what is added to one goes into it.

It comes before all choices, since tiles and places are chosen for tensor cores. A `Dot` becomes the sum of a product, in f32 (i8: in integers),
where one side has no free axis, and on TileLang where its operands are f32 and must not be rounded to tf32, or where a span is on both sides and
stays: there is no instruction for it, and tiles of such values are those of any other value. On Triton these two are its FMA and its batched
contraction. Operands of e4m3 become f16, which holds them exactly, on targets whose tensor cores do not take them.
`acc + dot(a, b)` starts the sum at `acc`; of two contractions the second starts at the first. A contraction that promotes its partial sums has
its own start, and only on sm_90, whose fp8 tensor cores add up short of f32, does promoting mean anything.
Leaves every Dot with a free axis on each side.
"""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.base.dtypes import F16, F32, I64, DType
from nsalang.base.target import Target
from nsalang.passes.hoist import same


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    contract = _Contract(kernel, target)
    body = tuple(ir.rewrite(s, contract.rule) for s in kernel.body)
    return kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body)


def batch_axes(dot: ir.Dot) -> tuple[str, ...]:
    """The axes that both sides have and that stay."""
    return tuple(a for a in dot.a.axes if a in dot.b.axes and a != dot.over)


def sides(dot: ir.Dot) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The free axes of ``a`` and of ``b``."""
    return tuple(x for x in dot.a.axes if x not in dot.b.axes), tuple(x for x in dot.b.axes if x not in dot.a.axes)


class _Contract:
    def __init__(self, kernel: ir.Kernel, target: Target) -> None:
        self.tilelang = kernel.schedule.backend == "tilelang"
        self.target = target
        axes = ir.axes_of(kernel)
        self.declared = tuple(axes)
        self.spans = {name for name, axis in axes.items() if axis.kind == "span"}

    def rule(self, node: ir.Node) -> ir.Node:
        match node:
            case ir.Dot():
                return self.product(node) if self.is_product(node) else self.fitted(node)
            case ir.Binary(op="add"):
                for dot, start in ((node.b, node.a), (node.a, node.b)):
                    fits = isinstance(dot, ir.Dot) and dot.acc is None and dot.promote == 0
                    if fits and start.axes == dot.axes and start.dtype is dot.dtype:
                        return dataclasses.replace(dot, acc=start, span=node.span)  # type: ignore[arg-type]
                return node
            case _:
                return node

    def is_product(self, dot: ir.Dot) -> bool:
        a, b = sides(dot)
        exact = dot.a.dtype is F32 and dot.precision == "ieee"
        return not (a and b) or (self.tilelang and (exact or not self.spans.isdisjoint(batch_axes(dot))))

    def product(self, dot: ir.Dot) -> ir.Expr:
        a, b = (_in(I64 if dot.dtype is I64 else F32, x) for x in (dot.a, dot.b))
        terms = ir.binary("mul", a, b, self.declared, dot.span)
        total = ir.Reduce(dot.dtype, dot.axes, "sum", terms, (dot.over,), span=dot.span)
        return total if dot.acc is None else ir.binary("add", dot.acc, total, self.declared, dot.span)

    def fitted(self, dot: ir.Dot) -> ir.Dot:
        if dot.a.dtype.is_fp8 and not self.target.facts.fp8:
            dot = dataclasses.replace(dot, a=_in(F16, dot.a), b=_in(F16, dot.b))
        short = dot.a.dtype.is_fp8 and self.target.facts.short_fp8
        return dot if short or dot.promote == 0 else dataclasses.replace(dot, promote=0)


def _in(dtype: DType, x: ir.Expr) -> ir.Expr:
    """A value in a dtype that holds it exactly."""
    return x if x.dtype is dtype else ir.Cast(dtype, x.axes, x, span=x.span)
