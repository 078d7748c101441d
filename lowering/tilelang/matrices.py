"""Where the variables of matrix products lie in TileLang."""

from __future__ import annotations

from collections.abc import Sequence

from nsalang import ir
from nsalang.ir.machine import machine_axes
from nsalang.passes.tilelang.products import Product, products


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
