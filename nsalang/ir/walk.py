"""What walks over the IR: the nodes below one, a rebuilt tree, where the axes come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

from nsalang.ir.kernel import AxisInfo, Kernel
from nsalang.ir.nodes import Const, Expr, For, Load, Node, SpanAxis, Store, binary, const


@cache
def _fields(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind) if f.name not in ("span", "dtype", "axes", "schedule", "promises", "checks"))


N = TypeVar("N", bound=Node)


def rewrite(node: N, rule: Callable[[Node], Node | tuple[Node, ...]]) -> N:
    """Rebuild bottom-up: children first, then ``rule`` on the node. In a statement list a rule may return several statements, or none.
    Returns the same object where nothing changed."""
    result = _rewrite(node, rule)
    assert not isinstance(result, tuple), "a rule gave several nodes where one belongs"
    return result  # type: ignore[return-value]


def _rewrite(node: Node, rule: Callable[[Node], Node | tuple[Node, ...]]) -> Node | tuple[Node, ...]:
    changes: dict[str, object] = {}
    for name in _fields(type(node)):  # type: ignore[arg-type]
        old = getattr(node, name)
        if isinstance(old, Node):
            new: object = _rewrite(old, rule)
            assert isinstance(new, Node), "a rule gave several nodes where one belongs"
        elif isinstance(old, tuple) and old and isinstance(old[0], Node):
            items: list[Node] = []
            for item in old:
                made = _rewrite(item, rule)
                items.extend(made if isinstance(made, tuple) else (made,))
            new = old if len(items) == len(old) and all(a is b for a, b in zip(items, old, strict=True)) else tuple(items)
        else:
            continue
        if new is not old:
            changes[name] = new
    return rule(dataclasses.replace(node, **changes) if changes else node)  # type: ignore[arg-type]


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below, in order."""
    for name in _fields(type(node)):  # type: ignore[arg-type]
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Node))


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, parents first, in program order."""
    yield node
    for child in children(node):
        yield from walk(child)


def address(node: Load | Store) -> tuple[Expr, ...]:
    """What says where the machine accesses a tensor, and whether."""
    return node.indices if node.mask is None else (*node.indices, node.mask)


def axes_of(kernel: Kernel) -> dict[str, AxisInfo]:
    """All axes of a kernel by name, in the order of declaration; one of groups behind the axis that it is of."""
    zero = const(0)
    found: dict[str, AxisInfo] = {}
    for index in kernel.grid:
        if index.tiled:
            found[index.name] = AxisInfo(index.name, "grid", zero, index.extent, None)
    for statement in kernel.body:
        for node in walk(statement):
            if isinstance(node, SpanAxis) and node.axis not in found:
                count = const(node.length, node.start.dtype)
                end: Expr = count if isinstance(node.start, Const) and node.start.value == 0 else binary("add", node.start, count)
                if node.stop is not None:
                    end = binary("min", end, node.stop)
                found[node.axis] = AxisInfo(node.axis, "span", node.start, end, node.length)
            elif isinstance(node, For) and node.kind == "tile":
                found[node.index] = AxisInfo(node.index, "loop", node.lo, node.hi, None)
    if not kernel.schedule.groups:
        return found
    ordered: dict[str, AxisInfo] = {}
    for name, axis in found.items():
        ordered[name] = axis
        ordered |= {group: AxisInfo(group, "group", axis.start, axis.stop, None) for group in kernel.schedule.groups_of(name)}
    return ordered
