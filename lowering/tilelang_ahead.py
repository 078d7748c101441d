"""Which values of a loop's body make the addresses of what is read ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nsalang import ir


@dataclass(frozen=True, slots=True)
class Ahead:
    """The loads of a loop that run ahead of it, as functions of the loop's index; ``spans``: axes of the body that they run over; ``unread``:
    variables of the body that nothing but these loads would read."""

    loads: tuple[tuple[ir.Assign, ir.Load], ...]
    spans: tuple[ir.SpanAxis, ...]
    unread: frozenset[str]


def ahead(kernel: ir.Kernel, loop: ir.For) -> Ahead:
    """The names that a load depends on are replaced by what the body assigns to them."""
    definitions = {s.name: s.value for s in loop.body if isinstance(s, ir.Assign)}
    assigned = [n.name for s in loop.body for n in ir.walk(s) if isinstance(n, ir.Assign)]

    def inlined(x: ir.Expr) -> ir.Expr:
        def rule(node: ir.Node) -> ir.Node:
            if isinstance(node, ir.Var) and node.name in definitions:
                assert assigned.count(node.name) == 1, f"'{node.name}' is assigned again, and what is read ahead depends on it"
                return inlined(definitions[node.name])
            assert not (isinstance(node, ir.Var) and node.name in assigned), f"'{node.name}' is assigned in an inner block"
            return node

        return ir.rewrite(x, rule)

    made: list[tuple[ir.Assign, ir.Load]] = []
    for s in loop.body:
        if isinstance(s, ir.Assign) and s.name in loop.ahead:
            assert isinstance(s.value, ir.Load) and s.place == "shared", f"'{s.name}' cannot be read ahead"
            x = s.value
            made.append((s, replace(x, indices=tuple(map(inlined, x.indices)), guard=None, mask=x.mask and inlined(x.mask))))
    assert {s.name for s, _ in made} == set(loop.ahead), "a load that is read ahead is not in the loop's body"
    axes = {n.name for _, x in made for n in ir.walk(x) if isinstance(n, ir.Index)} | {a for _, x in made for a in x.axes}
    spans = tuple(replace(s, start=inlined(s.start)) for s in loop.body if isinstance(s, ir.SpanAxis) and s.axis in axes)
    return Ahead(tuple(made), spans, _unread(kernel, loop, [n for s, _ in made for n in _names(s.value)]))


def _names(x: ir.Node) -> list[str]:
    return [n.name for n in ir.walk(x) if isinstance(n, ir.Var)]


def _unread(kernel: ir.Kernel, loop: ir.For, candidates: Sequence[str]) -> frozenset[str]:
    """Of ``candidates`` and what they are made of: those that no other statement reads."""
    own = {s.name: s for s in loop.body if isinstance(s, ir.Assign) and s.name not in loop.ahead and s.name not in loop.carried}
    unread: set[str] = set()
    pending = list(candidates)
    while pending:
        name = pending.pop()
        if name not in own or name in unread:
            continue
        skipped = {id(own[n]) for n in unread | {name}} | {id(s) for s in loop.body if isinstance(s, ir.Assign) and s.name in loop.ahead}
        if not any(name in _direct(s, skipped) for s in kernel.body):
            unread.add(name)
            pending += _names(own[name].value)
    return frozenset(unread)


def _direct(statement: ir.Node, skipped: set[int]) -> set[str]:
    """The names that a statement reads, but for those that only the ``skipped`` ones below it read."""
    if id(statement) in skipped:
        return set()
    if isinstance(statement, ir.Var):
        return {statement.name}
    return {name for child in ir.children(statement) for name in _direct(child, skipped)}
