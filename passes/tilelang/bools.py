"""Loops over lanes that ask for at most four lanes side by side in a thread, as many bools as TileLang has a vector for in CUDA's code: the layout
that a loop asks for is that of all values beside it. (What gets another layout nevertheless, toolchain/tilelang_mends.py makes short.)"""

from __future__ import annotations

from collections.abc import Iterator

from nsalang import ir
from nsalang.base.dtypes import BOOL
from nsalang.ir.machine import machine_axes

MOST = 4
"""Lanes of a vector of bools, at most."""
VECTOR = 16
"""Bytes of a vector access."""


def bool_axes(kernel: ir.Kernel) -> frozenset[str]:
    """The axes along which a vector would hold more than MOST bools. What is loaded for it lies as those lanes do, so that its loop is narrow too."""
    found: set[str] = set()
    for node in (n for s in kernel.body for n in ir.walk(s)):
        if isinstance(node, ir.Assign | ir.Store) and (axis := _innermost(kernel, node)) and _is_wide(kernel, node, axis):
            bools = any(v.dtype is BOOL and axis in v.axes for v in _values(node))
            found |= {axis} if bools else set()
    return frozenset(found)


def is_narrow(kernel: ir.Kernel, s: ir.Stmt, axes: frozenset[str]) -> bool:
    """Whether a statement's loop makes vectors of at most MOST lanes. ``axes``: what ``bool_axes`` gave."""
    return isinstance(s, ir.Assign | ir.Store) and (axis := _innermost(kernel, s)) in axes and _is_wide(kernel, s, axis)


def _innermost(kernel: ir.Kernel, s: ir.Assign | ir.Store) -> str:
    """The axis that a vector runs along; empty without one."""
    return next(reversed(machine_axes(kernel, s.axes if isinstance(s, ir.Store) else s.value.axes)), "")


def _is_wide(kernel: ir.Kernel, s: ir.Assign | ir.Store, axis: str) -> bool:
    """Whether TileLang makes vectors of more than MOST lanes of a statement: of aligned memory, of few bytes, where no lane goes a way of its own."""
    nodes = list(ir.walk(s))
    tensors = {n.tensor for n in nodes if isinstance(n, ir.Load | ir.Store)}
    if not kernel.schedule.aligned or not tensors <= set(kernel.schedule.vectors):
        return False
    chosen = any(isinstance(n, ir.Where) and axis in n.cond.axes for n in nodes)
    masks = [m for n in nodes if isinstance(n, ir.Load | ir.Store) and (m := n.mask) is not None]
    apart = chosen or any(isinstance(n, ir.Load | ir.Var) and axis in n.axes for m in masks for n in ir.walk(m))
    widest = max(v.dtype.bytes for v in (*_values(s), s.value) if isinstance(v, ir.Load | ir.Var) and axis in v.axes or v is s.value)
    return not apart and widest * MOST < VECTOR


def _values(s: ir.Assign | ir.Store) -> Iterator[ir.Value]:
    """What the lanes compute with; a tail's mask is the same for a whole vector."""
    pending: list[ir.Value] = [s.value]
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, ir.Load):
            pending += [c for c in ir.children(node) if isinstance(c, ir.Value)]
