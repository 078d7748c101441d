"""Barriers that TileLang leaves out around branches and loops.

It takes a barrier anywhere in a branch or a loop for one that always runs: what was written to shared memory before has then been ordered, it
thinks, with what is read behind it or in the other arm. Where the branch is not taken, or the loop makes no turn, nothing orders them. So such a
statement has a barrier of its own right before it. An ``else`` with a barrier hides in the same way what the other arm wrote last: then one
stands behind the branch, too. A processor runs one thread, and needs none.
Leaves such a `Barrier` where there is none.
"""

from __future__ import annotations

import dataclasses
from typing import assert_never

from nsalang import ir
from nsalang.base.target import Target


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    if kernel.schedule.backend != "tilelang" or target.kind == "cpu":
        return kernel
    every = sum(_meets(n) for s in kernel.body for n in ir.walk(s))

    def hides(s: ir.For | ir.If) -> bool:
        """Whether threads meet in a statement, and elsewhere too. A loop that reads ahead has barriers of its own."""
        inside = sum(_meets(n) for n in ir.walk(s) if n is not s)
        return 0 < inside < every and not (isinstance(s, ir.For) and s.ahead)

    def block(body: tuple[ir.Stmt, ...], chained: bool = False) -> tuple[ir.Stmt, ...]:
        """``chained``: the body of an ``else`` that may be an ``elif``, which has nothing before it."""
        out: list[ir.Stmt] = []
        for before, s in zip((None, *body), body, strict=False):
            around = isinstance(s, ir.For | ir.If) and hides(s) and not (chained and len(body) == 1 and isinstance(s, ir.If))
            if around and not isinstance(before, ir.Barrier):
                out.append(ir.Barrier(span=s.span))
            match s:
                case ir.For():
                    out.append(dataclasses.replace(s, body=block(s.body)))
                case ir.If():
                    out.append(dataclasses.replace(s, body=block(s.body), orelse=block(s.orelse, chained=True)))
                    if around and any(_meets(n) for other in s.orelse for n in ir.walk(other)):
                        out.append(ir.Barrier(span=s.span))
                case ir.Assign() | ir.Store() | ir.SpanAxis() | ir.Barrier():
                    out.append(s)
                case _:
                    assert_never(s)
        return tuple(out)

    body = block(kernel.body)
    return dataclasses.replace(kernel, body=body) if body != kernel.body else kernel


def _meets(node: ir.Node) -> bool:
    """Whether the threads of a block meet at a statement, or hand something to each other there through shared memory."""
    match node:
        case ir.Barrier() | ir.Assign(place="shared") | ir.Assign(value=ir.Dot() | ir.Reduce() | ir.Scan()):
            return True
        case ir.For(ahead=(_, *_)):
            return True
    return False
