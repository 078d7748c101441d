"""What a call on a GPU is (``Case``), its data, and the float64 references of sparse attention. Inputs are as spoiled as they may be: see
sparse_cases.py for the same on the CPU."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import references as ref
import torch
from torch import Tensor

BF16, F16, F32, I32, E4M3, U8 = torch.bfloat16, torch.float16, torch.float32, torch.int32, torch.float8_e4m3fn, torch.uint8
CHUNK = 1 << 31
"""Bytes of the greatest temporary of a reference."""

Shape = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong, or nothing, and the worst error in units of its bound."""

    complaint: str
    worst: float


@dataclass(frozen=True, slots=True)
class Made:
    """``check`` takes the outputs in order. ``keep``: which elements of the first output are defined, where not all are."""

    arguments: dict[str, Tensor]
    check: Callable[..., Verdict]
    keep: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """``shapes``: of tensor arguments; ``options``: the others. ``batch``: the axis of each argument that runs over rows of which each is a thing
    of its own, and ``batch_out`` of each output; ``pins``: the schedule under which its bits must not depend on the number of rows.
    ``layout``: "" (contiguous), "apart" (rows further apart, still aligned), "odd" (an element behind an aligned address)."""

    kernel: str
    title: str
    shapes: Mapping[str, Shape]
    options: Mapping[str, Any]
    make: Callable[[str], Made]
    variant: str = ""
    batch: Mapping[str, int] = field(default_factory=dict)
    batch_out: tuple[int, ...] = ()
    pins: Mapping[str, int] = field(default_factory=dict)
    layout: str = ""

    @property
    def name(self) -> str:
        return f"{self.kernel} {self.title}{f' {self.layout}' if self.layout else ''}"

    def empty(self) -> dict[str, Any]:
        """Arguments without contents on the CPU."""
        return {n: placed(torch.empty(s, dtype=d), self.layout, copy=False) for n, (s, d) in self.shapes.items()} | dict(self.options)

    def made(self, device: str) -> tuple[dict[str, Any], Made]:
        """All arguments, laid out as the case says, and the rest."""
        made = self.make(device)
        for n, t in made.arguments.items():
            assert (tuple(t.shape), t.dtype) == self.shapes[n], (self.name, n, t.shape, t.dtype)
        return {n: placed(t, self.layout) for n, t in made.arguments.items()} | dict(self.options), made


def placed(x: Tensor, layout: str, copy: bool = True) -> Tensor:
    """The same values in rows that lie apart; what has fewer than two axes, and bytes that are viewed as something else, stay as they are."""
    if not layout or x.dim() < 2 or x.dtype == U8:
        return x
    gap = 16 // x.element_size() if layout == "apart" else 1
    bits = x if x.element_size() > 1 else x.view(U8)
    wide = torch.empty(*x.shape[:-1], x.shape[-1] + 2 * gap, dtype=bits.dtype, device=x.device)[..., gap : gap + x.shape[-1]]
    if copy:
        wide.copy_(bits)
    return wide.view(x.dtype) if bits is not x else wide


# ---------------------------------------------------------------------------------------------------------------- data and references


def generator(device: str, *key: object) -> torch.Generator:
    return torch.Generator(device).manual_seed(zlib.crc32(repr(key).encode()))


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, device=g.device)


def quantized(values: Tensor) -> tuple[Tensor, Tensor]:
    scale = values.abs().amax(-1).clamp(min=1e-4) / 448
    return (values / scale[..., None]).to(E4M3), scale


def indices(g: torch.Generator, count: int, k: int, rows: int, bad: float) -> Tensor:
    """[count, k]: rows without a repetition in any order, as many as there are, ``bad`` of them replaced by what names none."""
    wrong = torch.tensor(ref.bad_indices(rows), device=g.device)[torch.randint(0, 6, (count, k), generator=g, device=g.device)]
    if not rows or not count or not k:
        return wrong.int()
    order = torch.rand(count, rows, generator=g, device=g.device).argsort(-1)[:, :k]
    chosen = torch.cat([order, wrong[:, order.shape[1] :]], 1)
    chosen = torch.where(torch.rand(count, k, generator=g, device=g.device) < bad, wrong, chosen)
    if order.shape[1] < k:
        chosen = chosen.gather(1, torch.rand(count, k, generator=g, device=g.device).argsort(-1))
    return chosen.int()


def sparse_attention(
    q: Tensor, rows: Tensor, idx: Tensor, scale: float, width: int, length: Tensor | None = None, limit: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As references.sparse_attention, many tokens at a time."""
    s, h, e = q.shape
    k = idx.shape[1]
    o = torch.zeros(s, h, width, dtype=torch.float64, device=q.device)
    lse = torch.full((s, h), math.inf, dtype=torch.float64, device=q.device)
    if not len(rows) or not k:
        return o, lse
    wide = rows.double()
    step = max(1, CHUNK // (8 * k * max(e, h)))
    for a in range(0, s, step):
        chosen = idx[a : a + step].long()
        good = (chosen >= 0) & (chosen < len(rows))
        if length is not None:
            good &= torch.arange(k, device=q.device) < length[a : a + step, None]
        if limit is not None:
            good &= chosen <= limit[a : a + step, None]
        keys = wide[chosen.clamp(0, len(rows) - 1)].masked_fill(~good[..., None], 0)
        found = (q[a : a + step].double() @ keys.transpose(1, 2) * scale).masked_fill(~good[:, None], -math.inf)
        sums = torch.logsumexp(found, -1)
        empty = sums == -math.inf
        weights = torch.exp(found - sums[..., None]).masked_fill(empty[..., None], 0)
        o[a : a + step] = weights @ keys[..., :width]
        lse[a : a + step] = sums.masked_fill(empty, math.inf)
    return o, lse


def scores(q: Tensor, k: Tensor, k_scale: Tensor, w: Tensor) -> Tensor:
    """references.scores, some tokens at a time."""
    s, h, _ = q.shape
    step = max(1, CHUNK // (8 * max(h, 1) * max(len(k), 1)))
    parts = [ref.scores(q[a : a + step], k, k_scale, w[a : a + step]) for a in range(0, s, step)]
    return torch.cat(parts) if parts else torch.zeros(0, len(k), dtype=torch.float64, device=q.device)


def ratio(found: Tensor, wanted: Tensor, bound: ref.Bound) -> float:
    """The worst element in units of what it may be off by, or 1 - cosine in units of its bound, whichever is greater."""
    if found.shape != wanted.shape:
        return math.inf
    if not found.numel():
        return 0.0
    x, y = found.double(), wanted
    apart = torch.isinf(x) | torch.isinf(y)
    allowed = (bound.relative * y.abs()).clamp(min=bound.absolute)
    worst = float(((x - y).abs() / allowed).masked_fill(apart, 0).max())
    return max(worst, similarity(found, wanted) / bound.cosine)


def similarity(found: Tensor, wanted: Tensor) -> float:
    return ref.similarity_error(found, wanted) if found.shape == wanted.shape else math.inf


def attends(wanted: Tensor, sums: Tensor, bound: ref.Bound, lse_bound: ref.Bound, unit: float = 1.0) -> Callable[..., Verdict]:
    def check(o: Tensor, lse: Tensor | None = None) -> Verdict:
        said, worst = ref.complaint(o, wanted, bound), ratio(o, wanted, bound)
        if lse is not None:
            said = said or (f"lse: {c}" if (c := ref.complaint(lse, sums / unit, lse_bound)) else "")
            worst = max(worst, ratio(lse, sums / unit, lse_bound))
        return Verdict(said, worst)

    return check


def scored(wanted: Tensor, keep: Tensor | None) -> Callable[[Tensor], Verdict]:
    def check(out: Tensor) -> Verdict:
        seen = out if keep is None else torch.where(keep, out, -math.inf)
        return Verdict(ref.logits_complaint(seen, wanted), similarity(seen, wanted) / ref.LOGITS)

    return check


def sinks(g: torch.Generator, h: int) -> Tensor:
    sink = normal(g, h)
    sink[1::4], sink[2::4], sink[3::8] = -math.inf, math.inf, 200.0
    return sink


def cycled(values: tuple[int, ...], n: int, device: str) -> Tensor:
    return torch.tensor([values[i % len(values)] for i in range(n)], dtype=I32, device=device)
