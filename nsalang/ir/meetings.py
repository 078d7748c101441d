"""Where the threads of an instance must wait for each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, assert_never

from nsalang import ir
from nsalang.ir.turns import Turns

State = frozenset[tuple[str, Literal["load", "set", "add"], int]]
"""Accesses since the last barrier: (memory, what is done to it, id of the statement)."""


def unordered(kernel: ir.Kernel) -> list[ir.Stmt]:
    """The statements before which a barrier is missing: all threads of an instance must have finished their accesses to some memory.

    A store and a load of one tensor or of two views of it, in either order, may be made by different threads for one element; so may two stores
    by different statements, or by one statement in two turns of a loop. Only of atomic additions any number can meet in any order.
    """
    found: dict[int, ir.Stmt] = {}
    turns = Turns(kernel)
    written = {kernel.memory(n.tensor) for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Store)}

    def clash(state: State, name: str, how: str, at: int, repeats: bool) -> bool:
        return any(t == name and (was != how or (how == "set" and (who != at or repeats))) for t, was, who in state)

    def access(state: State, statement: ir.Stmt, name: str, how: Literal["load", "set", "add"], repeats: bool) -> State:
        if clash(state, name, how, id(statement), repeats):
            found[id(statement)] = statement
            state = frozenset()
        return state | {(name, how, id(statement))}

    def loads(state: State, statement: ir.Stmt, values: Sequence[ir.Expr | None]) -> State:
        for value in values:
            for node in ir.walk(value) if value is not None else ():
                if isinstance(node, ir.Load) and kernel.memory(node.tensor) in written:
                    state = access(state, statement, kernel.memory(node.tensor), "load", False)
        return state

    def run(body: Sequence[ir.Stmt], state: State, loops: tuple[str, ...]) -> State:
        for s in body:
            match s:
                case ir.Assign():
                    state = loads(state, s, (s.value,))
                case ir.Store():
                    state = loads(state, s, (s.value, s.mask, *s.indices))
                    # A scatter may write one element twice whatever its indices are made of.
                    repeats = s.mode == "scatter" and bool(loops) or turns.may_repeat(s, loops)
                    state = access(state, s, kernel.memory(s.tensor), "add" if s.mode == "add" else "set", repeats)
                case ir.SpanAxis():
                    state = loads(state, s, (s.start, s.stop))
                case ir.For():
                    state = loads(state, s, (s.lo, s.hi))
                    # The second time around, the body follows itself.
                    turn = (*s.early, *s.body)
                    state = run(turn, run(turn, state, (*loops, s.index)), (*loops, s.index)) | state
                case ir.If():
                    state = loads(state, s, (s.cond,))
                    state = run(s.body, state, loops) | run(s.orelse, state, loops)
                case ir.Barrier():
                    state = frozenset()
                case _:
                    assert_never(s)
        return state

    run(kernel.body, frozenset(), ())
    return list(found.values())
