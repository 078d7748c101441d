"""Which elements a promise about places speaks of, at a launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nsalang import ir
from nsalang.host.extents import Number, evaluate
from nsalang.ir.places import shift


def elements(promise: ir.Promise) -> list[ir.Load]:
    """The places in the order of the text."""
    assert promise.condition is not None
    return list(dict.fromkeys(n for n in ir.walk(promise.condition) if isinstance(n, ir.Load)))


def free_index(promise: ir.Promise, shapes: Mapping[str, Sequence[int]], dims: Mapping[str, int], scalars: Mapping[str, Number]) -> range:
    """The values of the free index for which every place exists; one value where there is no free index."""
    low, high, free = -(2**63), 2**63, False
    for element in elements(promise):
        for place, extent in zip(element.indices, shapes[element.tensor], strict=True):
            more = shift(place)
            at = int(evaluate(place if more is None else more, dims, scalars))
            if more is not None:
                low, high, free = max(low, -at), min(high, extent - at), True
            elif not 0 <= at < extent:
                return range(0)
    return range(low, high) if free else range(1)


def place(element: ir.Load, free: int, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> tuple[int, ...]:
    """Where an element lies for one value of the free index."""
    found = []
    for index in element.indices:
        more = shift(index)
        found.append(int(evaluate(index, dims, scalars)) if more is None else free + int(evaluate(more, dims, scalars)))
    return tuple(found)
