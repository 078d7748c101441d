"""The state of printing one kernel for Triton."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsalang import ir
from nsalang.base.target import Target
from nsalang.lowering.arguments import Arguments
from nsalang.lowering.text import Emitter, Names


@dataclass(slots=True)
class Printer:
    """``variables``, ``indices``: local names; ``twice``: variables that are assigned again; ``barriers``: the ``id`` of statements with one before."""

    kernel: ir.Kernel
    target: Target
    names: Names
    arguments: Arguments
    out: Emitter
    twice: frozenset[str]
    barriers: frozenset[int]
    variables: dict[str, str] = field(default_factory=dict)
    indices: dict[str, str] = field(default_factory=dict)

    def variable(self, name: str) -> str:
        if name not in self.variables:
            self.variables[name] = self.names.pick(ir.plain(name))
        return self.variables[name]
