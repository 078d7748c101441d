"""Small launches of a kernel: sizes around its tiles, and data at the edges of what it promises.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType
from nsalang.base.source import NsaError
from nsalang.host.extents import Undefined, evaluate
from nsalang.host.memory import contiguous
from nsalang.launch.checks import check_promises
from nsalang.launch.sizes import check_requires

LARGEST = 1 << 16
"""Elements of a tensor, and instances, that a launch may have; more where the kernel has nothing smaller."""
FLOATS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0)
EDGES = (float("nan"), float("inf"), float("-inf"), -0.0, 2.0**31, -(2.0**31), 1e10, 7.5)
ATTEMPTS = 3000
LAYOUTS = ("contiguous", "contiguous", "rows", "columns")


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch: dimensions, scalars, and the tensors by name, outputs among them."""

    dims: Mapping[str, int]
    scalars: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def title(self) -> str:
        return ", ".join(f"{n} = {v}" for n, v in {**self.dims, **self.scalars}.items())


def launches(typed: ir.Kernel, final: ir.Kernel, fixed: Mapping[str, int], seed: int, count: int) -> Iterator[Launch]:
    """At most ``count`` launches that the requirements and promises allow, the same for each seed. ``final``: the kernel with its tiles; ``fixed``:
    specialised dimensions."""
    draw = random.Random(f"{typed.name} {seed}")
    lengths = sorted({final.schedule.length(a) for a in _axes(final)})
    pool = sorted({0, 1, 2, 3, 7, 16, 17, 64, *(max(0, n + d) for n in lengths if n <= 1024 for d in (-1, 0, 1))})
    # What a requirement divides by: few other sizes fulfil it.
    divisors = {n.value for r in typed.requires for n in ir.walk(r.condition) if isinstance(n, ir.Const) and isinstance(n.value, int)}
    pool = sorted({*pool, *(n * k for n in divisors if 1 < n <= 1024 for k in (1, 2))})
    made = 0
    for largest in (LARGEST, 32 * LARGEST):
        for attempt in range(ATTEMPTS):
            if made == count:
                return
            launch = _launch(typed, final, fixed, draw, pool, largest, edges=made % 2 == 1, small=attempt > ATTEMPTS // 2)
            if launch is not None:
                made += 1
                yield launch
        if made:
            return


def _axes(kernel: ir.Kernel) -> list[str]:
    loops = [n.index for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.For) and n.kind == "tile"]
    return [*(g.name for g in kernel.grid if g.tiled), *loops]


def _launch(
    typed: ir.Kernel, final: ir.Kernel, fixed: Mapping[str, int], draw: random.Random, pool: list[int], largest: int, edges: bool, small: bool
) -> Launch | None:  # fmt: skip
    choice = [n for n in pool if 0 < n <= 4] if small else pool
    dims = {d: fixed[d] if d in fixed else draw.choice(choice) if draw.random() < 0.8 else draw.randrange(1, 40) for d in typed.dims}
    top = max(dims.values(), default=1)
    scalars: dict[str, Any] = {}
    for scalar in typed.scalars:
        if scalar.name in dims:
            scalars[scalar.name] = dims[scalar.name]
        elif scalar.dtype is BOOL:
            scalars[scalar.name] = draw.random() < 0.5
        elif scalar.dtype.is_float:
            scalars[scalar.name] = draw.choice(FLOATS)
        else:
            scalars[scalar.name] = draw.choice([0, 1, 2, 3, 7, top, top - 1, *([-1] if scalar.dtype.min < 0 else [])])
    try:
        check_requires(typed, dims, scalars)
        shapes = {t.name: tuple(int(evaluate(e, dims, scalars)) for e in t.shape) for t in typed.tensors}
        instances = prod(
            -(-max(int(evaluate(g.extent, dims, scalars)), 0) // (final.schedule.length(g.name) if g.tiled else 1)) for g in typed.grid
        )
    except (NsaError, Undefined):
        return None
    if any(e < 0 for s in shapes.values() for e in s) or max((prod(s) for s in shapes.values()), default=0) > largest:
        return None
    if not 0 < instances <= 64:  # a launch of none shows nothing
        return None
    tensors: dict[str, torch.Tensor] = {}
    orders = {p.tensors[0]: p.kind for p in typed.promises if p.kind in ("distinct", "sorted")}
    values = {t.name: _contents(typed, t, shapes[t.name], draw, dims, scalars, edges, orders.get(t.name)) for t in typed.tensors}
    for tensor in typed.tensors:
        found = values[tensor.name]
        if found is None:
            return None
        strides = _strides(shapes[tensor.name], draw.choice(LAYOUTS) if tensor.name not in {v.base for v in typed.views} else "contiguous")
        tensors[tensor.name] = torch.empty_strided(shapes[tensor.name], strides, dtype=found.dtype).copy_(found)
    try:
        check_promises(typed, tensors, dims, scalars)
    except NsaError:
        return None
    return Launch(dims, scalars, tensors)


def _strides(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    plain = contiguous(shape)
    if layout == "columns":
        return tuple(2 * s for s in plain)
    if layout == "rows" and len(shape) > 1:
        return (*(s + s // max(shape[-1], 1) * 3 for s in plain[:-1]), 1)
    return plain


def _contents(
    kernel: ir.Kernel, tensor: ir.Tensor, shape: tuple[int, ...], draw: random.Random, dims: Mapping[str, int], scalars: Mapping[str, Any],
    edges: bool, order: str | None,
) -> torch.Tensor | None:  # fmt: skip
    dtype, native = tensor.dtype, getattr(torch, tensor.dtype.torch)
    generator = torch.Generator().manual_seed(draw.randrange(1 << 30))
    if dtype is BOOL:
        return torch.rand(shape, generator=generator) < 0.5
    if dtype.name == "e8m0":
        return torch.randint(120, 135, shape, generator=generator, dtype=torch.uint8).view(native)
    if dtype.is_float:
        return _picked(FLOATS, EDGES if edges else (), shape, generator).to(native)
    common, rare = _integers(kernel, tensor.name, dtype, dims, scalars, edges)
    if not common and not rare:
        return None if prod(shape) else torch.zeros(shape, dtype=native)
    if order == "distinct":
        choice = sorted({*common, *rare})
        if len(choice) < prod(shape):
            return None
        return torch.tensor(draw.sample(choice, prod(shape)), dtype=native).reshape(shape)
    made = _picked(common or rare, rare, shape, generator).to(native)
    return made.sort().values if order == "sorted" and made.dim() else made


def _picked(common: Any, rare: Any, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    kind = torch.float64 if isinstance((*common, *rare)[0], float) else torch.int64
    many = torch.tensor(list(common), dtype=kind)
    made = many[torch.randint(0, len(many), shape, generator=generator)]
    if len(rare):
        few = torch.tensor(list(rare), dtype=kind)
        made = torch.where(torch.rand(shape, generator=generator) < 0.2, few[torch.randint(0, len(few), shape, generator=generator)], made)
    return made


def _integers(
    kernel: ir.Kernel, name: str, dtype: DType, dims: Mapping[str, int], scalars: Mapping[str, Any], edges: bool
) -> tuple[list[int], list[int]]:
    """Values that a tensor's own promises allow: those around the dimensions, and those at the dtype's ends."""
    low, high = int(dtype.min), int(dtype.max)
    numbers = {int(v) for v in scalars.values() if isinstance(v, int)}
    top = max((*dims.values(), *numbers), default=1)
    common = {
        v for v in (*range(-1, min(top, 200) + 2), *(d + k for d in (*dims.values(), *numbers) for k in (-1, 0, 1))) if low <= v <= high
    }
    rare = {v for v in (low, low + 1, -1, high, high - 1, 2**31 - 1, 2**31, 255, 128) if low <= v <= high} if edges else set()
    alone = [p for p in kernel.promises if p.kind == "each" and p.tensors == (name,)]
    axes = len(kernel.tensor(name).shape)

    def allowed(value: int) -> bool:
        one = torch.full((1,) * axes, value, dtype=getattr(torch, dtype.torch))
        single = ir.Kernel(kernel.name, kernel.tensors, kernel.scalars, kernel.dims, (), (), (), (), promises=tuple(alone))
        try:
            check_promises(single, {name: one}, dims, scalars)
        except NsaError:
            return False
        return True

    return tuple([v for v in sorted(part) if not alone or allowed(v)] for part in (common, rare))  # type: ignore[return-value]
