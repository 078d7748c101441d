"""The passes in their order. Each is a module with one function ``run(kernel, target) -> kernel``; its docstring says what it leaves."""

from __future__ import annotations

from collections.abc import Callable

from nsalang import ir
from nsalang.passes import flatten, guard, legalize, order, simplify, tiles, width
from nsalang.target import Target

PASSES: tuple[tuple[str, Callable[[ir.Kernel, Target], ir.Kernel]], ...] = (
    ("simplify", simplify.run),  # first: fewer and plainer nodes for everyone
    ("order", order.run),  # before tiles: the innermost axis gets the long tile
    ("tiles", tiles.run),  # before guard: only lengths tell where lanes are padded
    ("guard", guard.run),  # before legalize: masks are about what the author wrote, not about intermediate values
    ("legalize", legalize.run),  # before width: it makes integer operations of its own
    ("width", width.run),  # before flatten: a value that is named has its final dtype
    ("flatten", flatten.run),  # last: names are for the lowerings alone
)
