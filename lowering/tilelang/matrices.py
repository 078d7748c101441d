"""Where the variables of matrix products lie in TileLang, and the text of a product."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nsalang import ir
from nsalang.base.target import Target
from nsalang.ir.machine import machine_axes


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


def matrices(kernel: ir.Kernel) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The axes of both dimensions of each variable that is an operand or a result of a Dot, without those of length 1 that are on both sides."""
    found: dict[str, tuple[tuple[str, ...], ...]] = {}

    def add(name: str, *groups: tuple[str, ...]) -> None:
        first = found.setdefault(name, groups)
        assert [_long(kernel, g) for g in first] == [_long(kernel, g) for g in groups], f"'{name}' is two different matrices"

    for statement, x in products(kernel):
        product = Product.of(x)
        for operand, free in ((product.left, product.rows), (product.right, product.columns)):
            rest = machine_axes(kernel, free)
            add(operand.name, *(((x.over,), rest) if transposed(kernel, x.over, rest) else (rest, (x.over,))))
        add(statement.name, machine_axes(kernel, product.rows), machine_axes(kernel, product.columns))
    return found


def policy(kernel: ir.Kernel, product: Product, target: Target) -> str:
    """How warps share a result. Where there are fewer rows than for all warps, they stand beside each other; but what is reduced over the columns of
    one product and applied to another has no layout in TileLang unless both have the same warps at a row."""
    beside = {_warps_beside(kernel, p, target.warp_tile) for _, x in products(kernel) if (p := Product.of(x)).rows == product.rows}
    rows = math.prod(map(kernel.schedule.length, product.rows))
    return "FullRow" if rows >= target.warp_tile[0] * kernel.schedule.warps or len(beside) > 1 else "FullCol"


def _warps_beside(kernel: ir.Kernel, product: Product, least: tuple[int, int]) -> int:
    """How many warps TileLang puts beside each other under FullCol: each has a multiple of the ``least`` rows and columns."""
    (rows, columns), warps = shape(kernel, (product.rows, product.columns)), kernel.schedule.warps
    return max(
        (n for n in range(1, warps + 1) if warps % n == 0 and columns % (least[1] * n) == 0 and rows % (least[0] * warps // n) == 0),
        default=warps,
    )


def rows(kernel: ir.Kernel) -> frozenset[str]:
    """Axes that are rows of a product, which lie in threads in a way that TileLang cannot reduce over."""
    return frozenset(a for _, x in products(kernel) for a in Product.of(x).rows)


def transposed(kernel: ir.Kernel, over: str, free: Sequence[str]) -> bool:
    """Whether the contracted axis comes before the free ones."""
    order = kernel.schedule.order
    before = [order.index(over) < order.index(a) for a in free]
    assert all(before) or not any(before), "a contracted axis stands between the axes of a side"
    return all(before)


def _long(kernel: ir.Kernel, axes: Sequence[str]) -> list[str]:
    return [a for a in axes if kernel.schedule.length(a) > 1]


def shape(kernel: ir.Kernel, groups: Sequence[Sequence[str]]) -> tuple[int, ...]:
    return tuple(math.prod(kernel.schedule.length(a) for a in group) for group in groups)


def continued(kernel: ir.Kernel) -> dict[str, str]:
    """``y: x`` where ``y = dot(…, acc=x)`` is all that ever reads ``x``, and begins ``y``: the sum goes on in the same place."""
    nodes = [n for s in kernel.body for n in ir.walk(s)]
    reads = [n.name for n in nodes if isinstance(n, ir.Var)]
    writes = [n.name for n in nodes if isinstance(n, ir.Assign)]
    carried = {name for n in nodes if isinstance(n, ir.For) for name in n.carried}
    first: dict[str, ir.Assign] = {}
    for n in nodes:
        if isinstance(n, ir.Assign):
            first.setdefault(n.name, n)
    found: dict[str, str] = {}

    def visit(body: Sequence[ir.Stmt]) -> None:
        here: set[str] = set()
        for s in body:
            match s:
                case ir.Assign(value=ir.Dot(acc=ir.Var(name=x))):
                    once = x in here and reads.count(x) == writes.count(x) == 1
                    if once and first[s.name] is s and s.name not in carried and s.place != "shared":
                        found[s.name] = x
                case ir.For():
                    visit(s.body)
                case ir.If():
                    visit(s.body)
                    visit(s.orelse)
                case _:
                    pass
            if isinstance(s, ir.Assign) and s.place != "shared":
                here.add(s.name)

    visit(kernel.body)
    return found
