"""What a loop reads ahead, as functions of its index alone.

``For.ahead`` names what is read ahead; its address may be made of names that the body assigns. Those are replaced by their values, and what nothing
else reads leaves the body.
Leaves ``For.early``: the axes that it runs over, values that the addresses are made of with a `Barrier` behind them (other threads read them), and
the loads, none of which the body has any more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from nsalang import ir
from nsalang.base.target import Target


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    if kernel.schedule.backend != "tilelang":
        return kernel
    body = _block(kernel, kernel.body)
    return dataclasses.replace(kernel, body=body) if body != kernel.body else kernel


def _block(kernel: ir.Kernel, body: Sequence[ir.Stmt], gone: frozenset[str] = frozenset()) -> tuple[ir.Stmt, ...]:
    """``gone``: names that are assigned early, or that nothing reads any more."""
    out: list[ir.Stmt] = []
    for s in body:
        match s:
            case ir.Assign():
                out += [] if s.name in gone else [s]
            case ir.For(ahead=(_, *_)):
                early, unread = _ahead(kernel, s)
                out.append(replace(s, early=early, body=_block(kernel, s.body, gone | unread | {*s.ahead})))
            case ir.For():
                out.append(replace(s, body=_block(kernel, s.body, gone)))
            case ir.If():
                out.append(replace(s, body=_block(kernel, s.body, gone), orelse=_block(kernel, s.orelse, gone)))
            case ir.Store() | ir.SpanAxis() | ir.Barrier():
                out.append(s)
            case _:
                assert_never(s)
    return tuple(out)


def _ahead(kernel: ir.Kernel, loop: ir.For) -> tuple[tuple[ir.Stmt, ...], frozenset[str]]:
    """What is early, and the variables of the body that nothing but that would read. The names that a load depends on are replaced by what the body assigns to them, but for those that are held."""
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

    held = [replace(s, value=inlined(s.value, own)) for s in assigns if s.name in own]
    loads: list[ir.Assign] = []
    for s in early:
        if isinstance(x := s.value, ir.Load):
            indices, mask = (inlined(i, computed) for i in x.indices), x.mask and inlined(x.mask, computed)
            guard = x.guard and inlined(x.guard, computed)
            loads.append(replace(s, value=replace(x, indices=tuple(indices), guard=guard, mask=mask)))
    values = [s.value for s in (*held, *loads)]
    axes = {n.name for x in values for n in ir.walk(x) if isinstance(n, ir.Index)} | {a for x in values for a in x.axes}
    spans = [replace(s, start=inlined(s.start, set())) for s in loop.body if isinstance(s, ir.SpanAxis) and s.axis in axes]
    barrier = [ir.Barrier(span=loop.span)] if held else []
    return (*spans, *held, *barrier, *loads), unread


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
