"""The state of printing one kernel for Triton."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsalang import ir
from nsalang.base.target import Target
from nsalang.lowering.arguments import Arguments
from nsalang.lowering.text import Emitter, Names


@dataclass(slots=True)
class Printer:
    """``variables``, ``indices``: local names; ``twice``: variables that are assigned again; ``combining``: names of functions that combine two
    lanes, which stand above the kernel."""

    kernel: ir.Kernel
    target: Target
    names: Names
    arguments: Arguments
    out: Emitter
    twice: frozenset[str]
    variables: dict[str, str] = field(default_factory=dict)
    indices: dict[str, str] = field(default_factory=dict)
    combining: dict[ir.ReduceOp, str] = field(default_factory=dict)

    def variable(self, name: str) -> str:
        if name not in self.variables:
            self.variables[name] = self.names.pick(ir.plain(name))
        return self.variables[name]

    def combines(self, op: ir.ReduceOp) -> str:
        """The function that combines two lanes of a reduction."""
        if op not in self.combining:
            self.combining[op] = self.names.pick(f"{op}_of_two")
        return self.combining[op]
