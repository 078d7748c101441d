"""How the warps of a block share a product.

Leaves ``Dot.warps``: each has whole rows of the result, or they stand beside each other.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from nsalang import ir
from nsalang.base.target import Target
from nsalang.passes.tilelang.products import Product, products, shape


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    if kernel.schedule.backend != "tilelang":
        return kernel
    rule = lambda n: dataclasses.replace(n, warps=_policy(kernel, Product.of(n), target)) if isinstance(n, ir.Dot) else n  # noqa: E731
    return ir.rewrite(kernel, rule)


def _policy(kernel: ir.Kernel, product: Product, target: Target) -> Literal["rows", "columns"]:
    """How warps share a result. Where there are fewer rows than for all warps, they stand beside each other; but what is reduced over the columns of
    one product and applied to another has no layout in TileLang unless both have the same warps at a row."""
    beside = {_warps_beside(kernel, p, target.warp_tile) for _, x in products(kernel) if (p := Product.of(x)).rows == product.rows}
    rows = math.prod(map(kernel.schedule.length, product.rows))
    return "rows" if rows >= target.warp_tile[0] * kernel.schedule.warps or len(beside) > 1 else "columns"


def _warps_beside(kernel: ir.Kernel, product: Product, least: tuple[int, int]) -> int:
    """How many warps TileLang puts beside each other under columns: each has a multiple of the ``least`` rows and columns."""
    (rows, columns), warps = shape(kernel, (product.rows, product.columns)), kernel.schedule.warps
    return max(
        (n for n in range(1, warps + 1) if warps % n == 0 and columns % (least[1] * n) == 0 and rows % (least[0] * warps // n) == 0),
        default=warps,
    )
