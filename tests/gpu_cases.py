"""Calls of the kernels of sparse attention at the sizes that matter on a GPU: shapes alone, so that they can be compiled without data, and how to
make the data and the float64 reference on a device. Inputs are as spoiled as they may be: see sparse_cases.py for the same on the CPU."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
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


# ------------------------------------------------------------------------------------------------------------------------------ kernels


def heads_class(h: int) -> int:
    return min(64, max(16, 1 << max(0, h - 1).bit_length()))


def matmul(m: int, n: int, k: int, dtype: torch.dtype = BF16, **more: Any) -> Case:
    def make(device: str) -> Made:
        g = generator(device, "matmul", m, n, k)
        a, b = normal(g, m, k).to(dtype), normal(g, k, n).to(dtype)

        def check(c: Tensor) -> Verdict:
            wanted, size = ref.matmul(a, b), a.double().abs() @ b.double().abs()
            step = {F32: 0.0, BF16: 2.0**-8, F16: 2.0**-11}[dtype]
            if c.shape != wanted.shape:
                return Verdict(f"shape {tuple(c.shape)}", math.inf)
            off = (c.double() - wanted).abs() / (step * wanted.abs() + (k + 1) * 2.0**-24 * size).clamp(min=1e-300)
            worst = float(off.max()) if off.numel() else 0.0
            return Verdict("" if worst <= 1 else f"off by {worst:.3g} times the bound", worst)

        return Made({"a": a, "b": b}, check)

    shapes = {"a": ((m, k), dtype), "b": ((k, n), dtype)}
    return Case("matmul", f"{m}x{n}x{k} {str(dtype)[6:]}", shapes, {}, make, str(dtype), {"a": 0}, (0,), {"m": 64}, **more)


def attention(
    b: int, s: int, length: int, h: int, g: int, d: int, causal: bool, dtype: torch.dtype = BF16, lse: bool = True, **more: Any
) -> Case:
    def make(device: str) -> Made:
        r = generator(device, "attention", b, s, length, h, g, d)
        q, k, v = ((normal(r, b, n, heads, d) * size).to(dtype) for n, heads, size in ((s, h, 1), (length, g, 1), (length, g, 0.1)))
        o = torch.empty(b, s, h, d, dtype=torch.float64, device=device)
        sums = torch.empty(b, h, s, dtype=torch.float64, device=device)
        for i in range(b):
            for j in range(g):
                part = slice(j * (h // g), (j + 1) * (h // g))
                found, total = ref.attention(q[i : i + 1, :, part], k[i : i + 1, :, j : j + 1], v[i : i + 1, :, j : j + 1], d**-0.5, causal)
                o[i, :, part], sums[i, part] = found[0], total[0]
        return Made({"q": q, "k": k, "v": v}, attends(o, sums, ref.PREFILL, ref.LSE))

    shapes = {"q": ((b, s, h, d), dtype), "k": ((b, length, g, d), dtype), "v": ((b, length, g, d), dtype)}
    options = {"scale": d**-0.5, "causal": causal, **({"lse": True} if lse else {})}
    title = f"{b}x{s}x{length} H{h}/{g} D{d}{' causal' if causal else ''} {str(dtype)[6:]}"
    return Case("attention", title, shapes, options, make, f"{dtype} {d} {causal} {lse}", {"q": 0, "k": 0, "v": 0}, (0, 0), **more)


def fp8_index(b: int, m: int, n: int, h: int, d: int = 128, **more: Any) -> Case:
    def make(device: str) -> Made:
        g = generator(device, "fp8_index", b, m, n, h, d)
        q, w = normal(g, b, m, h, d).to(E4M3), normal(g, b, m, h)
        k, k_scale = quantized(normal(g, b, n, d))
        wanted = torch.stack([scores(*each) for each in zip(q, k, k_scale, w, strict=True)])
        return Made({"q": q, "w": w, "k": k, "k_scale": k_scale}, scored(wanted, None))

    shapes = {"q": ((b, m, h, d), E4M3), "w": ((b, m, h), F32), "k": ((b, n, d), E4M3), "k_scale": ((b, n), F32)}
    return Case("fp8_index", f"{b}x{m}x{n} H{h} D{d}", shapes, {}, make, f"{h} {d}", dict.fromkeys(shapes, 0), (0,), **more)


def windows(s: int, t: int, device: str) -> tuple[Tensor, Tensor]:
    """Up to the own token, empty, all, one key, from before the first to past the last, the other way round, the middle third: in turn."""
    i = torch.arange(s, device=device)
    kinds = [None, (0, 0), (0, t), (t // 2, t // 2 + 1), (-(2**31), 2**31 - 1), (t, 0), (t // 3, 2 * t // 3)]
    first, last = torch.zeros(s, dtype=I32, device=device), (t - s + 1 + i).int()
    for n, kind in enumerate(kinds):
        if kind is not None:
            first[n::7], last[n::7] = kind
    return first, last


def mqa_logits(s: int, t: int, h: int, d: int = 128, clean: bool = True, hidden: bool = True, full: bool = False, **more: Any) -> Case:
    """``hidden``: windows lie within the middle third of the keys, and the others are NaN; ``full``: every token sees every key."""

    def make(device: str) -> Made:
        g = generator(device, "mqa_logits", s, t, h, d)
        q, w = normal(g, s, h, d).to(E4M3), normal(g, s, h)
        k, k_scale = quantized(normal(g, t, d))
        first, last = windows(s, t, device)
        where = torch.arange(t, device=device)
        if full:
            first, last = torch.zeros_like(first), torch.full_like(last, t)
        elif hidden:
            first, last = first.clamp(min=t // 3), last.clamp(max=2 * t // 3)
            there = (where >= t // 3) & (where < 2 * t // 3)
            k = torch.where(there[:, None], k.view(U8), torch.full_like(k.view(U8), 0x7F)).view(E4M3)
            k_scale = torch.where(there, k_scale, math.nan)
        wanted = torch.where((first[:, None] <= where) & (where < last[:, None]), scores(q, k, k_scale, w), -math.inf)
        keep = None if clean else wanted > -math.inf
        return Made({"q": q, "k": k, "k_scale": k_scale, "w": w, "first": first, "last": last}, scored(wanted, keep), keep)

    shapes = {
        "q": ((s, h, d), E4M3),
        "k": ((t, d), E4M3),
        "k_scale": ((t,), F32),
        "w": ((s, h), F32),
        "first": ((s,), I32),
        "last": ((s,), I32),
    }
    title = f"{s}x{t} H{h} D{d}{' clean' if clean else ''}{' full' if full else ' hidden' if hidden else ''}"
    return Case(
        "mqa_logits", title, shapes, {"clean": clean}, make, f"{h} {d} {clean}", {"q": 0, "w": 0, "first": 0, "last": 0}, (0,), **more
    )


def paged_mqa_logits(b: int, x: int, h: int, limit: int, page: int = 64, clean: bool = True, d: int = 128, **more: Any) -> Case:
    """Lengths from 0 to past the limit; pages in any order, of which every seventh is not there and one in four is in use by nobody, and of NaN."""
    width = -(-limit // page) + 1
    needed = b * -(-limit // page)
    blocks = needed + needed // 4 + 3

    def make(device: str) -> Made:
        g = generator(device, "paged", b, x, h, limit, page)
        k, k_scale = quantized(normal(g, blocks, page, d))
        cache = torch.cat([k.view(U8).reshape(blocks, page * d), k_scale.view(U8).reshape(blocks, page * 4)], 1)
        order = torch.randperm(blocks, generator=g, device=device)
        cache[order[needed:]] = 0xFF
        bad = torch.tensor(ref.bad_indices(blocks), device=device)
        table = bad[torch.arange(b * width, device=device) % 6].reshape(b, width)
        table[:, : width - 1] = order[:needed].reshape(b, width - 1)
        absent = torch.arange(b * width, device=device).reshape(b, width) % 7 == 3
        table = torch.where(absent, bad[(torch.arange(b * width, device=device) // 7 % 6).reshape(b, width)], table).int()
        lengths = cycled((limit, 0, limit // 2, limit - page - 1, limit + 9, 1, limit * 2 // 3), b, device)
        q, w = normal(g, b, x, h, d).to(E4M3), normal(g, b, x, h)
        wanted = ref.paged_mqa_logits(q, cache, w, lengths, table, limit, page)
        keep = None if clean else wanted > -math.inf
        return Made({"q": q, "cache": cache, "w": w, "lengths": lengths, "table": table}, scored(wanted, keep), keep)

    shapes = {
        "q": ((b, x, h, d), E4M3), "cache": ((blocks, page * (d + 4)), U8), "w": ((b, x, h), F32), "lengths": ((b,), I32),
        "table": ((b, width), I32),
    }  # fmt: skip
    options = {"L": limit, "P": page, "clean": clean}
    batch = {"q": 0, "w": 0, "lengths": 0, "table": 0}
    title = f"B{b} X{x} H{h} L{limit} page {page}{' clean' if clean else ''}"
    return Case("paged_mqa_logits", title, shapes, options, make, f"{x} {h} {d} {page} {clean}", batch, (0,), **more)


def sparse_mla(
    s: int, h: int, t: int, k: int, *, d: int = 512, r: int = 64, length: bool = False, limit: bool = False, sink: bool = False,
    lse: bool = True, base2: bool = False, bad: float = 0.2, parts: int = 0, **more: Any,
) -> Case:  # fmt: skip
    """``parts``: of the decode program; 0: the prefill kernel. With ``bad``, token 1 has no valid index; rows that nothing names are NaN and infinite."""
    given = {"length": length, "limit": limit, "sink": sink}

    def make(device: str) -> Made:
        g = generator(device, "sparse_mla", s, h, t, k, d, length, limit, sink)
        q, kv = ((normal(g, *shape) / 10 + 0.1).bfloat16() for shape in ((s, h, d + r), (t, d + r)))
        idx = indices(g, s, k, t, bad)
        if bad and s > 1:
            idx[1] = cycled(tuple(ref.bad_indices(t)), k, device)
        extra: dict[str, Tensor] = {}
        if length:
            extra["length"] = cycled((k, 0, k // 2, -5, k + 9, 1), s, device)
        if limit:
            extra["limit"] = cycled((t // 2, -1, t + 5, 0), s, device)
        if sink:
            extra["sink"] = sinks(g, h)
        ends, limits = extra.get("length"), extra.get("limit")
        kv = ref.poison(kv, ref.named(idx, t, ends, limits))
        o, sums = sparse_attention(q, kv, idx, 0.5, d, ends, limits)
        o = ref.with_sink(o, sums, extra.get("sink"))
        return Made({"q": q, "kv": kv, "idx": idx} | extra, attends(o, sums, ref.PREFILL, ref.LSE, math.log(2) if base2 else 1.0))

    shapes: dict[str, Shape] = {"q": ((s, h, d + r), BF16), "kv": ((t, d + r), BF16), "idx": ((s, k), I32)}
    shapes |= {n: (((h,), F32) if n == "sink" else ((s,), I32)) for n, wanted in given.items() if wanted}
    options: dict[str, Any] = (
        {"scale": 0.5} | ({"lse": True} if lse else {}) | ({"lse_unit": 1} if base2 else {}) | ({"P": parts} if parts else {})
    )
    if (d, r) != (512, 64):
        options |= {"D": d, "R": r}
    words = (
        [n for n, wanted in given.items() if wanted]
        + (["base 2"] if base2 else [])
        + ([] if lse else ["no lse"])
        + ([] if bad else ["all valid"])
    )
    title = " ".join([f"S{s} H{h} T{t} K{k}", *([f"D{d}"] if d != 512 else []), *([f"P{parts}"] if parts else []), *words])
    batch = {n: 0 for n in ("q", "idx", "length", "limit") if n in shapes}
    variant = f"{heads_class(h)} {length} {limit} {sink} {lse} {base2} {parts} {d}"
    return Case("sparse_mla_decode" if parts else "sparse_mla", title, shapes, options, make, variant, batch, (0, 0), **more)


def sparse_mla_fp8(
    b: int, x: int, h: int, rows: int, page: int, k: int, *, length: bool = False, sink: bool = False, lse: bool = True, parts: int = 8,
    bad: float = 0.2, **more: Any,
) -> Case:  # fmt: skip
    """Of ``rows`` tokens as many as fill pages. ``bad`` of 1: no valid index at all."""
    blocks = -(-rows // page)

    def make(device: str) -> Made:
        g = generator(device, "sparse_mla_fp8", b, x, h, rows, page, k)
        total = blocks * page
        q, kv = ((normal(g, *shape) / 10 + 0.1).bfloat16() for shape in ((b, x, h, 576), (total, 576)))
        idx = indices(g, b * x, k, total, bad).reshape(b, x, k)
        if bad:
            idx[1:2, :1] = -1
        extra: dict[str, Tensor] = {}
        if length:
            extra["length"] = cycled((k, 0, k // 2, -5, k + 9, 1), b, device)
        if sink:
            extra["sink"] = sinks(g, h)
        ends = extra["length"].repeat_interleave(x) if length else None
        flat = idx.reshape(b * x, k)
        keep = ref.named(flat, total, ends)
        rotten = torch.where(torch.arange(ref.TOKEN, device=device) % 2 == 0, 0xC0, 0x7F).to(U8)
        cache = torch.where(keep[:, None], ref.packed(kv), rotten)
        o, sums = sparse_attention(q.reshape(b * x, h, 576), ref.unpacked(cache), flat, 0.5, 512, ends)
        o = ref.with_sink(o, sums, extra.get("sink")).reshape(b, x, h, 512)
        sums = sums.reshape(b, x, h).transpose(1, 2)
        arguments = {"q": q, "cache": cache.reshape(blocks, page, ref.TOKEN), "idx": idx} | extra
        return Made(arguments, attends(o, sums, ref.FP8_DECODE, ref.FP8_LSE))

    shapes: dict[str, Shape] = {"q": ((b, x, h, 576), BF16), "cache": ((blocks, page, ref.TOKEN), U8), "idx": ((b, x, k), I32)}
    shapes |= {"length": ((b,), I32)} if length else {}
    shapes |= {"sink": ((h,), F32)} if sink else {}
    options = {"scale": 0.5, "G": parts} | ({"lse": True} if lse else {})
    words = [w for w, on in (("length", length), ("sink", sink), ("no lse", not lse), ("no valid index", bad == 1)) if on]
    title = " ".join([f"B{b} X{x} H{h} T{rows} page {page} K{k} P{parts}", *words])
    batch = {n: 0 for n in ("q", "idx", "length") if n in shapes}
    return Case("sparse_mla_fp8", title, shapes, options, make, f"{heads_class(h)} {length} {sink} {lse}", batch, (0, 0), **more)


def sparse_mqa_sink(b: int, s: int, h: int, t: int, k: int, d: int = 128, dtype: torch.dtype = F32, **more: Any) -> Case:
    def make(device: str) -> Made:
        g = generator(device, "sparse_mqa_sink", b, s, h, t, k, d)
        q, kv = normal(g, b, s, h, d).bfloat16(), normal(g, b, t, d).bfloat16()
        idx = indices(g, b * s, k, t, 0.2).reshape(b, s, k)
        idx[:, 1:2] = -1
        sink = sinks(g, h).to(dtype)
        kv = torch.stack([ref.poison(kv[i], ref.named(idx[i], t)) for i in range(b)])
        o = torch.stack([ref.with_sink(*sparse_attention(q[i], kv[i], idx[i], d**-0.5, d), sink) for i in range(b)])
        bound = ref.Bound(1e-2, 1e-2, 1e-5)
        return Made(
            {"q": q, "kv": kv, "idx": idx, "sink": sink}, lambda found: Verdict(ref.complaint(found, o, bound), ratio(found, o, bound))
        )

    shapes: dict[str, Shape] = {"q": ((b, s, h, d), BF16), "kv": ((b, t, d), BF16), "idx": ((b, s, k), I32), "sink": ((h,), dtype)}
    title = f"B{b} S{s} H{h} T{t} K{k} D{d} sink {str(dtype)[6:]}"
    return Case(
        "sparse_mqa_sink",
        title,
        shapes,
        {"scale": d**-0.5},
        make,
        f"{heads_class(h)} {d} {dtype}",
        dict.fromkeys(("q", "kv", "idx"), 0),
        (0,),
        **more,
    )


# ---------------------------------------------------------------------------------------------------------------------------- the lists

HEADS = (1, 8, 16, 40, 64, 128)
TAILS = ((128, 128), (256, 256), (512, 512), (592, 128), (1840, 256), (1592, 384), (1521, 512), (95, 128), (153, 256), (114, 384))
CORNERS = ((1, 128, 128), (1234, 4321, 4096), (4096, 2048, 2048), (62, 32, 2048), (62, 64, 8192))
"""Tokens, rows, indices."""
FP8_SIZES = (
    (512, 64, 2),
    (512, 64, 64),
    (512, 64, 69),
    (1024, 576, 2),
    (1024, 576, 61),
    (2046, 2048, 2),
    (2046, 2048, 64),
    (2046, 2048, 576),
)


def cases() -> Iterator[Case]:
    """The most important first: each kernel once, then all heads, tails, options, the great sizes, layouts."""
    yield sparse_mla(64, 128, 592, 128)
    yield mqa_logits(130, 1111, 64)
    yield matmul(1000, 520, 392)
    yield attention(64, 77, 150, 8, 2, 128, True)
    yield sparse_mla(64, 16, 1521, 512, parts=8)
    yield sparse_mla_fp8(64, 1, 128, 512, 64, 64)
    yield fp8_index(64, 3, 700, 64)
    yield paged_mqa_logits(64, 1, 64, 1500)
    yield sparse_mqa_sink(1, 512, 8, 1024, 256, dtype=BF16)
    yield sparse_mqa_sink(64, 5, 64, 700, 100)
    # 64 rows each: their bits in batches.
    yield matmul(64, 520, 392)
    yield matmul(64, 300, 4096, F16)
    yield mqa_logits(64, 1111, 64)
    yield mqa_logits(64, 600, 8, clean=False)
    yield sparse_mla(64, 16, 592, 200, length=True, limit=True, sink=True, base2=True)
    yield sparse_mla(64, 40, 592, 200)
    yield sparse_mla(64, 128, 592, 200, length=True, sink=True, base2=True, parts=8)
    yield sparse_mla_fp8(64, 1, 16, 512, 64, 64, length=True, sink=True)
    yield fp8_index(64, 2, 300, 8)
    yield paged_mqa_logits(64, 2, 32, 500, clean=False)
    yield attention(64, 33, 70, 4, 1, 64, False)
    yield sparse_mqa_sink(64, 3, 8, 300, 130, dtype=BF16)
    for h in (64, 16, 1, 8, 40):
        yield sparse_mla(62, h, 1521, 512)
    for t, k in TAILS:
        yield sparse_mla(62, 128, t, k)
    yield sparse_mla(4096, 128, 8192, 2048, bad=0.0)
    yield mqa_logits(2048, 8192, 32, 64, clean=False, full=True)
    for h in (1, 8, 16, 40, 128):
        yield mqa_logits(61, 600, h)
        yield fp8_index(2, 33, 517, h)
        yield sparse_mla(5, h, 700, 300, parts=4)
        yield sparse_mla_fp8(4, 3, h, 1024, 61, 576)
        yield paged_mqa_logits(7, 1, h, 500)
        yield sparse_mqa_sink(2, 9, h, 300, 130, 512)
    for h in (1, 8, 16, 64):
        yield attention(2, 130, 130, h, 1, 64, True)
    for h in (16, 128):
        yield sparse_mla(62, h, 592, 200, length=True)
        yield sparse_mla(62, h, 592, 200, limit=True)
        yield sparse_mla(62, h, 592, 200, sink=True)
        yield sparse_mla(62, h, 592, 200, length=True, limit=True, sink=True, base2=True)
        yield sparse_mla(62, h, 592, 200, lse=False)
        yield sparse_mla(62, h, 592, 200, length=True, sink=True, base2=True, parts=8)
        yield sparse_mla_fp8(74, 1, h, 512, 64, 64, length=True, sink=True)
    for rows, k, page in FP8_SIZES:
        yield sparse_mla_fp8(4, 3, 128, rows, page, k)
    yield sparse_mla_fp8(74, 3, 64, 1024, 61, 576)
    yield sparse_mla_fp8(321, 1, 64, 2046, 64, 2048, length=True)
    yield sparse_mla_fp8(4, 1, 128, 512, 64, 64, bad=1.0)
    for s, t, k in CORNERS:
        yield sparse_mla(s, 128, t, k)
    for s, h in ((1, 64), (213, 64), (213, 128), (1, 8)):
        yield sparse_mla(s, h, 1840, 256)
    yield sparse_mla(70_000, 16, 300, 100)
    for s, t, k in ((0, 9, 7), (2, 0, 7), (2, 9, 0), (3, 5, 40)):
        yield sparse_mla(s, 16, t, k)
        yield sparse_mla(s, 16, t, k, parts=4)
    yield sparse_mla_fp8(2, 1, 16, 0, 64, 5)
    yield sparse_mla_fp8(0, 1, 16, 64, 64, 5)
    yield mqa_logits(300, 700, 64, clean=False)
    yield mqa_logits(70, 5001, 64)
    yield mqa_logits(70, 5001, 8, clean=False, hidden=False)
    yield mqa_logits(300, 700, 64, hidden=False)
    yield mqa_logits(5, 3, 64)
    yield mqa_logits(0, 5, 64)
    yield mqa_logits(3, 0, 64)
    yield paged_mqa_logits(7, 2, 64, 1000)
    yield paged_mqa_logits(7, 2, 32, 1000, clean=False)
    yield paged_mqa_logits(9, 2, 64, 300, page=1)
    yield paged_mqa_logits(0, 1, 64, 100)
    yield fp8_index(16, 1, 5000, 64)
    yield fp8_index(1, 0, 64, 64)
    yield matmul(1, 1, 1)
    yield matmul(333, 257, 100, F16)
    yield matmul(130, 70, 90, F32)
    yield matmul(4, 5, 0)
    yield matmul(0, 5, 3)
    yield matmul(4096, 4096, 4096)
    yield attention(1, 300, 77, 6, 2, 128, False)
    yield attention(1, 200, 333, 4, 4, 128, True, F16)
    yield attention(1, 90, 50, 4, 1, 64, True)
    yield attention(1, 3, 0, 2, 1, 64, False)
    yield attention(1, 0, 4, 2, 1, 64, True)
    yield attention(4, 4096, 4096, 16, 16, 128, True)
    for layout in ("apart", "odd"):
        for case in (
            sparse_mla(62, 128, 592, 200), sparse_mla(62, 16, 592, 200), sparse_mla(5, 16, 700, 300, parts=4), mqa_logits(61, 600, 64),
            fp8_index(2, 33, 517, 64), attention(2, 77, 150, 8, 2, 128, True), matmul(300, 520, 392), sparse_mqa_sink(2, 9, 64, 300, 130),
            sparse_mla_fp8(4, 3, 64, 1024, 61, 576), paged_mqa_logits(7, 1, 64, 500),
        ):  # fmt: skip
            yield replace(case, layout=layout)
    yield mqa_logits(4096, 8192, 64, clean=False, full=True)
    yield mqa_logits(8192, 65536, 64, hidden=False)
    yield paged_mqa_logits(256, 1, 64, 8192)
    yield paged_mqa_logits(256, 2, 32, 8192)
    yield sparse_mqa_sink(1, 4096, 128, 8192, 1024, 512)
    yield sparse_mla_fp8(128, 2, 128, 32768, 64, 2048)


def small() -> Iterator[Case]:
    """For a sanitizer: every kernel with tails, and once without, few tokens; the variants are those of ``cases``."""
    yield sparse_mla(3, 16, 95, 70)
    yield mqa_logits(9, 70, 64)
    yield sparse_mla_fp8(2, 1, 16, 90, 61, 70)
    yield sparse_mla(3, 16, 95, 70, parts=8)
    yield paged_mqa_logits(3, 1, 64, 150)
    yield sparse_mqa_sink(1, 3, 8, 70, 66, dtype=BF16)
    yield attention(1, 70, 45, 4, 2, 128, True)
    yield fp8_index(2, 3, 37, 64)
    yield matmul(33, 17, 70)
    yield sparse_mla(2, 40, 114, 128)
    yield sparse_mla(2, 128, 64, 192, bad=0.0)
    yield sparse_mla(6, 16, 95, 70, length=True, limit=True, sink=True, base2=True)
    yield sparse_mla(6, 40, 95, 70, length=True, sink=True, base2=True, parts=8)
    yield sparse_mla_fp8(2, 1, 128, 90, 61, 70, length=True, sink=True)
    yield mqa_logits(66, 256, 64, clean=False)
    yield mqa_logits(5, 3, 8)
    yield fp8_index(2, 3, 130, 8)
    yield paged_mqa_logits(3, 2, 64, 150)
    yield sparse_mqa_sink(2, 3, 40, 70, 66, 512)
    yield attention(1, 128, 128, 4, 4, 128, False)
    yield matmul(128, 256, 192)
    yield matmul(33, 17, 70, F32)
    yield sparse_mla(2, 16, 0, 7)
    for case in (sparse_mla(3, 16, 95, 70), mqa_logits(9, 70, 64), attention(1, 70, 45, 4, 2, 128, True), matmul(33, 17, 70)):
        yield replace(case, layout="odd")


def tiny() -> Iterator[Case]:
    """The same in sizes for an interpreter, to try the script itself."""
    yield sparse_mla(64, 8, 40, 37, d=32, r=16)
    yield sparse_mla(6, 4, 40, 24, d=32, r=16, length=True, limit=True, sink=True, base2=True)
    yield sparse_mla(3, 8, 70, 50, d=32, r=16, parts=3)
    yield sparse_mla_fp8(3, 2, 4, 20, 7, 15, parts=2, length=True, sink=True)
    yield sparse_mqa_sink(2, 2, 9, 40, 37, 32)
    yield mqa_logits(9, 45, 8, 32)
    yield mqa_logits(64, 45, 8, 32, clean=False)
    yield fp8_index(2, 3, 37, 12, 32)
    yield paged_mqa_logits(5, 2, 4, 140, d=32)
    yield attention(2, 17, 33, 6, 2, 32, True)
    yield matmul(65, 17, 70)
    yield matmul(64, 17, 70)
    yield replace(sparse_mla(3, 9, 40, 37, d=32, r=16), layout="apart")
    yield replace(matmul(33, 17, 70), layout="odd")


LISTS: dict[str, Callable[[], Iterator[Case]]] = {"all": cases, "small": small, "tiny": tiny}
