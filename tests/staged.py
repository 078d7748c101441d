"""Kernels through the passes, stage by stage, and whether each keeps the meaning: what the tests of passes share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import product

import torch

from nsalang import ir
from nsalang.base.dtypes import DType
from nsalang.base.source import Source
from nsalang.base.target import Target, parse_target
from nsalang.interp.numerics import memory, memory_dtype
from nsalang.interp.run import interpret
from nsalang.ir.verify import verify
from nsalang.launch.sizes import is_exact
from nsalang.passes import PASSES
from nsalang.syntax import parser
from nsalang.types import typecheck
from nsalang.types.settings import Settings

SPECIAL = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.5,
    -2.5,
    0.5,
    -0.5,
    1.5,
    3.0,
    float("inf"),
    float("-inf"),
    float("nan"),
    1e30,
    -1e30,
    1e-40,
    448.0,
    -449.0,
)


def typed(
    text: str, target: str = "cuda:sm_90", *, dims: Mapping[str, int] | None = None, **constants: int | float | bool | DType
) -> ir.Kernel:
    file = parser.parse(Source(text, "test.nsa"))
    name = next(item.name for item in file.items if hasattr(item, "name"))
    settings = Settings(target=parse_target(target), constants=constants, dims=dict(dims or {}), present=frozenset(), captured={})
    return typecheck.specialise(file, name, settings)


def trusted(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    """In place of the prover, for kernels that are right with the data of their test alone."""
    return ir.rewrite(kernel, lambda n: dataclasses.replace(n, proof=ir.Proof("PROVED")) if isinstance(n, ir.Load | ir.Store) else n)


def stages(
    kernel: ir.Kernel, target: str, backend: str, wide: bool, pins: Mapping[str, int], exact: bool = False, trust: bool = False
) -> list[tuple[str, ir.Kernel]]:
    schedule = dataclasses.replace(kernel.schedule, backend=backend, wide=wide, aligned=True, pinned=tuple(pins.items()), exact=exact)
    kernel = dataclasses.replace(kernel, schedule=schedule)
    made = [("typecheck", kernel)]
    for stage, run in PASSES:
        kernel = (trusted if trust and stage == "prove" else run)(kernel, parse_target(target))
        verify(kernel, stage)
        made.append((stage, kernel))
    return made


def last(text: str, target: str = "cuda:sm_90", backend: str = "triton", wide: bool = False, pins: Mapping[str, int] | None = None,
         dims: Mapping[str, int] | None = None, exact: bool = False, trust: bool = False,
         stage: str = PASSES[-1][0], **constants: int | float | bool | DType) -> ir.Kernel:  # fmt: skip
    """The kernel after all passes, or after ``stage``."""
    return dict(stages(typed(text, target, dims=dims, **constants), target, backend, wide, pins or {}, exact, trust))[stage]


def data(dtype: DType, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Random numbers whose sums are exact in any order, or special values."""
    random = torch.Generator().manual_seed(seed)
    if dtype.is_float:
        values = torch.randint(-64, 64, shape, generator=random) / 8
        return values.to(memory_dtype(dtype))
    low, high = max(int(dtype.min), -100), min(int(dtype.max), 100)
    return torch.randint(low, high + 1, shape, generator=random).to(memory_dtype(dtype))


def bits(x: torch.Tensor) -> torch.Tensor:
    """Bits, with one NaN for all."""
    if x.dtype.is_floating_point:
        x = torch.where(x.float().isnan(), torch.tensor(float("nan")), x.float())
        return x.contiguous().view(torch.int32)
    return memory(x)


def check(kernel: ir.Kernel, sizes: Mapping[str, int], *, target: str = "cuda:sm_90", pins: Mapping[str, int] | None = None,
          tensors: Mapping[str, torch.Tensor] | None = None, scalars: Mapping[str, int | float] | None = None, ulps: int = 0,
          backends: tuple[str, ...] = ("triton", "tilelang"), widths: tuple[bool, ...] = (False, True)) -> dict[str, torch.Tensor]:  # fmt: skip
    """Run a kernel at every stage; what it writes must be the same bits (``ulps``: units in the last place that f32 results may differ by).

    The exact variant runs too where the sizes allow it. The prover is not asked: it knows nothing of the test's data."""
    from nsalang.host.extents import evaluate

    given: dict[str, torch.Tensor] = {}
    for seed, t in enumerate(kernel.tensors):
        shape = tuple(int(evaluate(e, dict(sizes), dict(scalars or {}))) for e in t.shape)
        given[t.name] = (tensors or {}).get(t.name, data(t.dtype, shape, seed))
        assert tuple(given[t.name].shape) == shape, t.name

    def outputs(k: ir.Kernel, machine: bool) -> dict[str, torch.Tensor]:
        copies = {n: x.clone() for n, x in given.items()}
        interpret(k, copies, scalars or {}, sizes, machine=machine)
        return {t.name: copies[t.name] for t in kernel.tensors if t.role != "in"}

    expected = outputs(kernel, machine=False)
    for backend in backends:
        for wide, exact in product(widths, (False, True)):
            masked = False
            made = stages(kernel, target, backend, wide, pins or {}, exact, trust=True)
            if exact and not (made[-1][1].hoists and is_exact(made[-1][1], sizes, scalars or {})):
                continue
            for stage, k in made:
                masked = masked or stage == "guard"
                for name, found in outputs(k, machine=masked).items():
                    if ulps and found.dtype == torch.float32:
                        torch.testing.assert_close(found, expected[name], rtol=ulps * 2.0**-23, atol=1e-44, equal_nan=True)
                    else:
                        differ = (bits(found) != bits(expected[name])).nonzero()
                        assert not len(differ), f"{stage} ({backend}, wide={wide}, exact={exact}) changed {name} at {differ[:3].tolist()}"
    return expected


def special(dtype: DType, *shape: int) -> torch.Tensor:
    values = torch.tensor(SPECIAL).to(memory_dtype(dtype))
    count = 1
    for size in shape:
        count *= size
    return values.repeat(count // len(values) + 1)[:count].view(shape).clone()


EVERY_F32 = torch.cat([
    torch.tensor(SPECIAL),
    torch.randint(-(2**31), 2**31 - 1, (4000,), generator=torch.Generator().manual_seed(7)).to(torch.int32).view(torch.float32),
    torch.arange(-40, 40) / 8,
    torch.tensor([2.0**k * s for k in range(-149, 128) for s in (1.0, -1.0)]),
    torch.tensor([2.0**31, 2.0**31 - 128, -(2.0**31), 2.0**32, 2.0**63, -(2.0**63), 127.5, 128.0, -128.5, 255.5, 65535.5, 2.0**23 + 1, 8388607.5]),
])  # fmt: skip
# Quiet NaNs only: what IEEE 754-2008 says of signalling ones and maxNum, targets read differently.
EVERY_F32 = torch.where(EVERY_F32.isnan(), torch.tensor(float("nan")), EVERY_F32)


SOFTMAX = """
def softmax(x: f32[M, N], y: Out[f32[M, N]]):
    for m in grid(tile(M)):
        top, total = full(m, f32.min), zeros(m)
        for n in tile(N):
            new = maximum(top, max(x[m, n], axis=n))
            total = total * exp(top - new) + sum(exp(x[m, n] - new), axis=n)
            top = new
        for n in tile(N):
            y[m, n] = exp(x[m, n] - top) / total
"""

ACT_QUANT = """
def act_quant(x: bf16[M, N], y: Out[e4m3[M, N]], s: Out[f32[M, N // G]], G: const = 32, ue8m0: const = False):
    require(N % G == 0)
    for m, g in grid(tile(M), N // G):
        n = span(g * G, G)
        v = f32(x[m, n])
        scale = maximum(absmax(v, axis=n), 1e-4) * (1 / e4m3.max)
        if ue8m0:
            scale = pow2_ceil(scale)
        y[m, n] = e4m3(clamp(v / scale, -e4m3.max, e4m3.max))
        s[m, g] = scale
"""
