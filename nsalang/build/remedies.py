"""A pin that lets TileLang compile what it has just refused: it finds no layout in registers for some values that meet along different axes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from nsalang import ir
from nsalang.base.source import NsaError
from nsalang.base.target import Target
from nsalang.build.pipeline import Choice, lower, prepare
from nsalang.toolchain.backends import BACKEND

TRIES = 8
"""Each is the passes and TileLang's own, without the compiler of the target: a second, say."""


def place_that_settles(typed: ir.Kernel, refused: ir.Kernel, target: Target, choice: Choice) -> str | None:
    """The first variable that, pinned to shared memory, TileLang takes the program with. Those that meet values of more axes are tried, in their order."""
    taken = {name for name, _ in choice.pinned}
    for name in [n for n in dict.fromkeys(_spread(refused)) if n not in taken][:TRIES]:
        tried = dataclasses.replace(choice, pinned=(*choice.pinned, (name, "shared")))
        try:
            program = lower(prepare(typed, target, tried), target).program
        except NsaError:
            continue  # no variable that has a place
        if BACKEND[choice.backend].finds_layouts(program):
            return name
    return None


def _spread(kernel: ir.Kernel) -> Iterator[str]:
    """The variables in registers that are used in a value of more axes."""
    held = {s.name for s in ir.walk(kernel) if isinstance(s, ir.Assign) and s.value.axes and s.place != "shared"}
    for value in ir.walk(kernel):
        if isinstance(value, ir.Value):
            for part in ir.children(value):
                if isinstance(part, ir.Var) and part.name in held and set(part.axes) < set(value.axes):
                    yield ir.plain(part.name)
