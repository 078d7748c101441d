"""A pin that lets TileLang compile what it has just refused: it finds no layout in registers for some values that meet along different axes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nsalang import ir
from nsalang.base.source import NsaError

if TYPE_CHECKING:
    from nsalang.build.pipeline import Compiled

TRIES = 8
"""Each is the passes and TileLang's own, without the compiler of the target: a second, say."""


def place_that_settles(refused: Compiled) -> str | None:
    """The first variable that, pinned to shared memory, TileLang takes the program with. Those that meet values of more axes are tried, in their order."""
    from nsalang.build import pipeline as driver
    from nsalang.toolchain import tilelang_compile

    taken = {name for name, _ in refused.choice.pinned}
    for name in [n for n in dict.fromkeys(_spread(refused.kernel)) if n not in taken][:TRIES]:
        choice = dataclasses.replace(refused.choice, pinned=(*refused.choice.pinned, (name, "shared")))
        try:
            kernel = driver.prepare(refused.typed, refused.target, choice)
            tilelang_compile.lower(driver.lower(kernel, refused.target).program)
        except NsaError:
            continue  # refused as well, or no variable that has a place
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
