"""The passes in their order. Each is a module with one function ``run(kernel, target) -> kernel``; its docstring says what it leaves."""

from __future__ import annotations

from collections.abc import Callable

from nsalang import ir
from nsalang.base.target import Target
from nsalang.passes import (
    assume,
    barriers,
    check,
    contract,
    expand,
    flatten,
    guard,
    legalize,
    order,
    place,
    prove,
    ranges,
    simplify,
    spread,
    tiles,
    width,
)
from nsalang.passes.tilelang import around, fetch, lanes, turns, warps

PASSES: tuple[tuple[str, Callable[[ir.Kernel, Target], ir.Kernel]], ...] = (
    ("simplify", simplify.run),  # first: fewer and plainer nodes for everyone
    ("prove", prove.run),  # after simplify, which spares it what is constant; before all choices, of which a meaning does not depend
    ("check", check.run),  # after prove: what it adds needs no proof; before expand: a search is checked as one access
    ("expand", expand.run),  # before order: it makes loops and accesses of its own
    ("contract", contract.run),  # before order and tiles, which are about contractions that a tensor core takes
    ("order", order.run),  # before tiles: the innermost axis gets the long tile
    ("tiles", tiles.run),  # before assume and guard: only lengths tell where lanes are padded
    ("spread", spread.run),  # after tiles: a group has no more lanes than a tile; before guard, which masks what is loaded for a group
    ("assume", assume.run),  # before guard, which leaves out the tails that a launch check saves
    ("guard", guard.run),  # before legalize: masks are about what the author wrote, not about intermediate values
    ("place", place.run),  # after guard: only a load whose masked lanes are 0 can go straight to shared memory
    ("legalize", legalize.run),  # before width: it makes integer operations of its own
    ("width", width.run),  # before flatten: a value that is named has its final dtype
    ("ranges", ranges.run),  # after width: both sides of a comparison have one length
    ("flatten", flatten.run),  # after all that rewrites values: names are for the lowerings alone
    ("barriers", barriers.run),  # after flatten: every access stands in a statement of its own
    ("around", around.run),  # after barriers, which TileLang misses some of
    ("lanes", lanes.run),  # after flatten: it is about the statements that become loops over lanes
    ("turns", turns.run),  # after width: it is about integers of 32 bits
    ("warps", warps.run),  # after flatten: the operands of a product have names
    ("fetch", fetch.run),  # last: it takes statements apart that the passes before see as they stand
)
