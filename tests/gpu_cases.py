"""Calls of the kernels of sparse attention at the sizes that matter on a GPU: shapes alone, so that they can be compiled without data, and how to
make the data and the float64 reference on a device."""

from __future__ import annotations

import math
from typing import Any

import references as ref
import torch
from gpu_data import (
    BF16,
    E4M3,
    F16,
    F32,
    I32,
    U8,
    Case,
    Made,
    Shape,
    Verdict,
    attends,
    cycled,
    generator,
    indices,
    normal,
    quantized,
    ratio,
    scored,
    scores,
    sinks,
    sparse_attention,
)
from torch import Tensor


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
