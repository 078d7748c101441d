"""Integers that loops carry and add to: between which ends they stay, by how often and by how much they change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from nsalang import ir

Ends = tuple[int, int]


def grown(body: tuple[ir.Stmt, ...], name: str, ends: Callable[[ir.Expr], Ends], rounds: Callable[[ir.For], int]) -> Ends | None:
    """The ends of a variable each of whose assignments begins anew or adds to it; None where one does something else.

    What it was begun with last, and each addition as often as the loops around it turn: whichever of them happen, and in which order.
    """
    begun: list[Ends] = []
    less = more = 0
    for value, times in _assigned(body, name, rounds, 1):
        step = _step(value, name, ends)
        if step is not None:
            less, more = less + times * min(0, step[0]), more + times * max(0, step[1])
        elif _uses(value, name):
            return None
        else:
            begun.append(ends(value))
    return (min(lo for lo, _ in begun) + less, max(hi for _, hi in begun) + more) if begun else None


def _assigned(body: tuple[ir.Stmt, ...], name: str, rounds: Callable[[ir.For], int], times: int) -> Iterator[tuple[ir.Expr, int]]:
    """What a variable is assigned, and how often at most."""
    for node in body:
        match node:
            case ir.Assign() if node.name == name:
                yield node.value, times
            case ir.For():
                yield from _assigned(node.body, name, rounds, times * rounds(node))
            case ir.If():
                yield from _assigned(node.body, name, rounds, times)
                yield from _assigned(node.orelse, name, rounds, times)
            case _:
                pass


def _step(value: ir.Expr, name: str, ends: Callable[[ir.Expr], Ends]) -> Ends | None:
    """The ends of what an expression adds to a variable; None where it is no sum with it."""
    match value:
        case ir.Var() if value.name == name:
            return 0, 0
        case ir.Full():
            return _step(value.value, name, ends)
        case ir.Cast() if value.mode != "wrap" and value.dtype.kind == value.x.dtype.kind == "signed":
            return _step(value.x, name, ends)
        case ir.Where():
            a, b = _step(value.a, name, ends), _step(value.b, name, ends)
            return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))
        case ir.Dot() if value.acc is not None:
            step, (low, high) = _step(value.acc, name, ends), ends(replace(value, acc=None))
            return None if step is None else (step[0] + low, step[1] + high)
        case ir.Binary(op="add" | "sub"):
            for base, by in ((value.a, value.b), (value.b, value.a)) if value.op == "add" else ((value.a, value.b),):
                step = _step(base, name, ends)
                if step is not None and not _uses(by, name):
                    low, high = ends(by)
                    return (step[0] + low, step[1] + high) if value.op == "add" else (step[0] - high, step[1] - low)
    return None


def _uses(value: ir.Expr, name: str) -> bool:
    return any(isinstance(n, ir.Var) and n.name == name for n in ir.walk(value))
