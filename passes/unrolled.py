"""Which values become numbers when a backend unrolls loops over lanes: those of index variables and constants alone.

TVM folds such a value in each lane, also where a `where` never chooses it, and cannot make an unsigned number of a negative one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import assert_never

from nsalang import ir
from nsalang.ir.intervals import Bounds

MOST = 64
"""Ways through the choices of a value that are looked at."""


@dataclass(frozen=True, slots=True)
class Unrolled:
    """Asks of the integers of one kernel. ``scalars``: the value of each variable without axes that is assigned once, which TVM sees through."""

    bounds: Bounds
    scalars: Mapping[str, ir.Expr]

    @staticmethod
    def of(kernel: ir.Kernel, bounds: Bounds) -> Unrolled:
        assigned = [n for n in ir.walk(kernel) if isinstance(n, ir.Assign)]
        count = Counter(n.name for n in assigned)
        return Unrolled(bounds, {n.name: n.value for n in assigned if count[n.name] == 1 and not n.value.axes})

    def may_fold_below_zero(self, x: ir.Expr) -> bool:
        """Whether an integer may become a negative number when lanes are unrolled and choices are made."""
        ways = list(islice(self.ways(x), MOST + 1))
        return len(ways) > MOST or any(self.bounds.of(way).lo < 0 for way in ways)

    def ways(self, x: ir.Expr) -> Iterator[ir.Expr]:
        """What ``x`` may become that is made of index variables and constants alone, once for each way through its choices."""
        match x:
            case ir.Const() | ir.Index():
                yield x
            case ir.Where():
                yield from self.ways(x.a)
                yield from self.ways(x.b)
            case ir.Load():
                if x.mask is not None:
                    yield x.fill or ir.Const(x.dtype, (), 0)
            case ir.Full():
                yield from self.ways(x.value)
            case ir.Var() if x.name in self.scalars:
                yield from self.ways(self.scalars[x.name])
            case ir.Unary() | ir.Cast() | ir.Bitcast():
                yield from (replace(x, x=inner) for inner in self.ways(x.x))
            case ir.Binary():
                yield from (replace(x, a=a, b=b) for a, b in product(self.ways(x.a), self.ways(x.b)))
            case (
                ir.Dim() | ir.Scalar() | ir.Var() | ir.Spread() | ir.Fma() | ir.Dot() | ir.Reduce() | ir.Scan() | ir.Search() | ir.Border()
            ):
                return
            case _:
                assert_never(x)
