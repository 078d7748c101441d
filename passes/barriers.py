"""Where the threads of an instance wait for each other.

A store and a load of one memory, or two stores, that different threads may make for one element have a ``Barrier`` between them
(nsalang/ir/meetings.py says which).
Leaves a `Barrier` before each such statement, and nothing else changed.
"""

from __future__ import annotations

import dataclasses
from typing import assert_never

from nsalang import ir
from nsalang.base.target import Target
from nsalang.ir.meetings import unordered


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    late = {id(s) for s in unordered(kernel)}

    def block(body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        out: list[ir.Stmt] = []
        for s in body:
            if id(s) in late:
                out.append(ir.Barrier(span=s.span))
            match s:
                case ir.For():
                    s = dataclasses.replace(s, body=block(s.body))
                case ir.If():
                    s = dataclasses.replace(s, body=block(s.body), orelse=block(s.orelse))
                case ir.Assign() | ir.Store() | ir.SpanAxis() | ir.Barrier():
                    pass
                case _:
                    assert_never(s)
            out.append(s)
        return tuple(out)

    return dataclasses.replace(kernel, body=block(kernel.body)) if late else kernel
