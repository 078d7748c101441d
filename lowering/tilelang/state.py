"""The state of printing one kernel for TileLang."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsalang import ir
from nsalang.base.target import Target
from nsalang.lowering.arguments import Arguments
from nsalang.lowering.text import Emitter, Names, Text


@dataclass(slots=True)
class Printer:
    """``places``: the buffers of a block, which stand before its code; ``twice``: variables that are assigned again; ``lanes``: loop variables by
    dimension; ``matrices``, ``continued``: see matrices;
    ``addresses``: what accesses name in their addresses and masks.

    ``buffers``: variables that are buffers; ``scalars``: those that are not; ``bases``: where an index begins (None: at 0); ``lane``: the loop
    variable of each axis in the T.Parallel loop being printed; ``lying``: the axes of both dimensions of a variable that lies as a matrix;
    ``versions``: which of several buffers a variable is in; ``results``: the matrix in registers behind the result or an operand of a Dot;
    ``tests``: the comparisons of floats, once they are asked for.
    """

    kernel: ir.Kernel
    target: Target
    names: Names
    arguments: Arguments
    out: Emitter
    places: Emitter
    twice: frozenset[str]
    lanes: tuple[str, ...]
    matrices: dict[str, tuple[tuple[str, ...], ...]]
    continued: dict[str, str]
    addresses: frozenset[str]
    buffers: dict[str, str] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    bases: dict[str, Text | None] = field(default_factory=dict)
    lane: dict[str, str] = field(default_factory=dict)
    lying: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    versions: dict[str, Text] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    tests: tuple[tuple[bool, float | None], ...] | None = None
    pid: str = ""
