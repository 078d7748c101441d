"""Writes of many lanes to elements that may be the same, on torch CPU tensors: ``scatter`` and ``atomic_add``.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nsalang.base.dtypes import DType
from nsalang.interp.numerics import from_memory, memory, to_memory


def put(target: Tensor, places: list[Tensor], bits: Tensor) -> None:
    """Write lanes to elements of a tensor of integers; of several lanes for one element the last wins. Each of ``places``, one an axis of
    ``target``, has the lanes' shape."""
    target, places, flat = _flat(target, places, bits)
    unique, group = torch.unique(flat, return_inverse=True)
    last = torch.zeros(unique.numel(), dtype=torch.int64).scatter_reduce_(0, group, torch.arange(flat.numel()), "amax", include_self=False)
    target[tuple(p[last] for p in places)] = bits.flatten()[last]


def add_at(target: Tensor, places: list[Tensor], values: Tensor, dtype: DType) -> None:
    """Add lanes to elements of a tensor of ``dtype``, those of one element one after the other in the order of the lanes; integers wrap."""
    stored, places, flat = _flat(memory(target), places, values)
    order = torch.argsort(flat, stable=True)
    flat, values, places = flat[order], values.flatten()[order], [p[order] for p in places]
    starts = torch.cat([torch.ones(1, dtype=torch.bool), flat[1:] != flat[:-1]]).nonzero().flatten()
    ends = torch.cat([starts[1:], torch.tensor([flat.numel()])])
    for turn in range(int((ends - starts).max())):
        now = (starts + turn)[starts + turn < ends]
        at = tuple(p[now] for p in places)
        stored[at] = to_memory(from_memory(stored[at], dtype) + values[now], dtype)


def _flat(target: Tensor, places: list[Tensor], lanes: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """The target with an axis at least, the places as vectors, and a number for each place, the same for the same. There are lanes."""
    if not places:
        target, places = target.unsqueeze(0), [torch.zeros(lanes.shape, dtype=torch.int64)]
    flat = torch.zeros(lanes.numel(), dtype=torch.int64)
    vectors = [p.flatten() for p in places]
    for extent, place in zip(target.shape, vectors, strict=True):
        flat = flat * extent + place
    return target, vectors, flat
