"""Which values of a loop's body make the addresses of what is read ahead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nsalang import ir


@dataclass(frozen=True, slots=True)
class Ahead:
    """The loads of a loop that run ahead of it, as functions of the loop's index and of ``held``, which is computed before them; ``spans``: axes of
    the body that they run over; ``unread``: variables of the body that nothing but these would read."""

    held: tuple[tuple[ir.Assign, ir.Expr], ...]
    loads: tuple[tuple[ir.Assign, ir.Load], ...]
    spans: tuple[ir.SpanAxis, ...]
    unread: frozenset[str]


def ahead(kernel: ir.Kernel, loop: ir.For) -> Ahead:
    """The names that a load depends on are replaced by what the body assigns to them, but for those that are held."""
    assigns = [s for s in loop.body if isinstance(s, ir.Assign)]
    early = [s for s in assigns if s.name in loop.ahead]
    assert {s.name for s in early} == set(loop.ahead), "what is read ahead is not in the loop's body"
    assert all(s.place == "shared" for s in early), f"{loop.ahead} cannot be read ahead"
    definitions = {s.name: s.value for s in assigns}
    assigned = [n.name for s in loop.body for n in ir.walk(s) if isinstance(n, ir.Assign)]
    computed = {s.name for s in early if not isinstance(s.value, ir.Load)}
    unread = _unread(kernel, loop, [n for s in early for n in _names(s.value)])
    # What only held values are made of needs no second place.
    own = computed | {n for n in _below(definitions, computed) if n in unread and definitions[n].axes}

    def inlined(x: ir.Expr, known: set[str]) -> ir.Expr:
        def rule(node: ir.Node) -> ir.Node:
            if not isinstance(node, ir.Var) or node.name in known:
                return node
            if node.name in definitions:
                assert assigned.count(node.name) == 1, f"'{node.name}' is assigned again, and what is read ahead depends on it"
                return inlined(definitions[node.name], known)
            assert node.name not in assigned, f"'{node.name}' is assigned in an inner block"
            return node

        return ir.rewrite(x, rule)

    held = tuple((s, inlined(s.value, own)) for s in assigns if s.name in own)
    made: list[tuple[ir.Assign, ir.Load]] = []
    for s in early:
        if isinstance(x := s.value, ir.Load):
            indices, mask = (inlined(i, computed) for i in x.indices), x.mask and inlined(x.mask, computed)
            made.append((s, replace(x, indices=tuple(indices), guard=None, mask=mask)))
    values = [*(x for _, x in held), *(x for _, x in made)]
    axes = {n.name for x in values for n in ir.walk(x) if isinstance(n, ir.Index)} | {a for x in values for a in x.axes}
    spans = tuple(replace(s, start=inlined(s.start, set())) for s in loop.body if isinstance(s, ir.SpanAxis) and s.axis in axes)
    return Ahead(held, tuple(made), spans, unread)


def _below(definitions: Mapping[str, ir.Expr], names: Iterable[str]) -> set[str]:
    """All that some names are made of."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        for name in _names(definitions[pending.pop()]):
            if name in definitions and name not in found:
                found.add(name)
                pending.append(name)
    return found


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
