"""Where the threads of an instance wait for each other.

A store and a load of one memory, or two stores, that different threads may make for one element have a ``Barrier`` between them
(nsalang/ir/meetings.py says which).
Leaves a `Barrier` before each such statement, and nothing else changed.
"""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.base.target import Target
from nsalang.ir.meetings import unordered
from nsalang.passes.hoist import blocks


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    late = {id(s) for s in unordered(kernel)}

    def block(body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        out: list[ir.Stmt] = []
        for s in body:
            if id(s) in late:
                out.append(ir.Barrier(span=s.span))
            out.append(blocks(s, block))
        return tuple(out)

    return dataclasses.replace(kernel, body=block(kernel.body)) if late else kernel
