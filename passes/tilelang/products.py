"""Contractions as products of two matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nsalang import ir


@dataclass(frozen=True, slots=True)
class Product:
    """A Dot as the product of two matrices: axes of the rows and of the columns, and which operand has them."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    left: ir.Var
    right: ir.Var

    @staticmethod
    def of(x: ir.Dot) -> Product:
        assert x.left is not None, "order left a Dot without rows"
        assert isinstance(x.a, ir.Var) and isinstance(x.b, ir.Var), "flatten left an operand without a name"
        left, right = (x.a, x.b) if set(x.left) <= set(x.a.axes) else (x.b, x.a)
        columns = tuple(a for a in right.axes if a != x.over and a not in left.axes)
        return Product(x.left, columns, left, right)


def products(kernel: ir.Kernel) -> Iterator[tuple[ir.Assign, ir.Dot]]:
    """Every Dot and the statement that names it."""
    for statement in kernel.body:
        for node in ir.walk(statement):
            if isinstance(node, ir.Assign) and isinstance(node.value, ir.Dot):
                yield node, node.value


def shape(kernel: ir.Kernel, groups: Sequence[Sequence[str]]) -> tuple[int, ...]:
    return tuple(math.prod(kernel.schedule.length(a) for a in group) for group in groups)
