"""Barriers that TileLang leaves out around branches and loops.

It takes a barrier anywhere in a branch or a loop for one that always runs: what was written to shared memory before has then been ordered, it
thinks, with what is read behind it or in the other arm. Where the branch is not taken, or the loop makes no turn, nothing orders them. So such a
statement has a barrier of its own right before it. An ``else`` with a barrier hides in the same way what the other arm wrote last: then one
stands behind the branch, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from nsalang import ir


@dataclass(frozen=True, slots=True)
class Around:
    """The ``id`` of each statement that has a barrier before it, and of each that has one behind it."""

    before: frozenset[int]
    behind: frozenset[int]


NONE = Around(frozenset(), frozenset())


def around(kernel: ir.Kernel, barriers: frozenset[int]) -> Around:
    """``barriers``: the statements before which memory asks for one (`lowering.barriers`)."""
    nodes = [n for s in kernel.body for n in ir.walk(s)]
    every = sum(_meets(n, barriers) for n in nodes)
    chained = {id(n.orelse[0]) for n in nodes if isinstance(n, ir.If) and len(n.orelse) == 1}  # an elif has nothing before it
    before: set[int] = set()
    behind: set[int] = set()
    for node in nodes:
        # A loop that reads ahead has its own.
        if not isinstance(node, ir.If) and not (isinstance(node, ir.For) and not node.ahead):
            continue
        inside = sum(_meets(n, barriers) for n in ir.walk(node) if n is not node)
        if not 0 < inside < every:
            continue
        if id(node) not in chained | barriers:
            before.add(id(node))
        if isinstance(node, ir.If) and any(_meets(n, barriers) for s in node.orelse for n in ir.walk(s)):
            behind.add(id(node))
    return Around(frozenset(before), frozenset(behind))


def _meets(node: ir.Node, barriers: frozenset[int]) -> bool:
    """Whether the threads of a block meet at a statement, or hand something to each other there through shared memory."""
    match node:
        case ir.Assign(place="shared") | ir.Assign(value=ir.Dot() | ir.Reduce() | ir.Scan()):
            return True
        case ir.For(ahead=(_, *_)):
            return True
    return id(node) in barriers
