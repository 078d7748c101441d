"""Calls of the kernels of sparse attention, with everything that an input may do to them, and what they must give. Used on the CPU and on GPUs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import references as ref
import torch
from torch import Tensor

import nsalang

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = {
    "sparse_mla_part": "sparse_mla_decode",
    "combine": "sparse_mla_decode",
    "sparse_mla_fp8_part": "sparse_mla_fp8",
    "sparse_mla_fp8_combine": "sparse_mla_fp8",
}
KERNELS = (
    "attention",
    "fp8_index",
    "matmul",
    "mqa_logits",
    "paged_mqa_logits",
    "sparse_mla",
    "sparse_mla_part",
    "combine",
    "sparse_mla_fp8_part",
    "sparse_mla_fp8_combine",
    "sparse_mqa_sink",
)
"""Those with a grid; the programs are sparse_mla_decode and sparse_mla_fp8."""
NAN = math.nan


@dataclass(frozen=True, slots=True)
class Case:
    """A call. ``check`` takes the outputs in order, and says what is wrong with them, or nothing."""

    kernel: str
    arguments: dict[str, Any]
    check: Callable[..., str]

    def on(self, device: str) -> Case:
        """The same with its tensors on a device; outputs are checked where the reference is, on the CPU."""
        moved = {n: a.to(device) if isinstance(a, Tensor) else a for n, a in self.arguments.items()}
        return Case(self.kernel, moved, self.check)


def load(name: str) -> Any:
    """A kernel or program of the examples."""
    return getattr(nsalang.load(str(EXAMPLES / f"{FILES.get(name, name)}.nsa")), name)


def outputs(result: Any) -> tuple[Tensor, ...]:
    return tuple(t.cpu() for t in result) if isinstance(result, tuple) else (result.cpu(),)


def complaint(case: Case, result: Any) -> str:
    return case.check(*outputs(result))


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def seeded(*key: object) -> torch.Generator:
    return torch.Generator().manual_seed(sum(b * 31**i for i, b in enumerate(repr(key).encode())) % (1 << 31))


def matmul(m: int, n: int, k: int, dtype: torch.dtype = torch.bfloat16) -> Case:
    g = seeded("matmul", m, n, k)
    a, b = normal(g, m, k).to(dtype), normal(g, k, n).to(dtype)
    wanted = ref.matmul(a, b)
    size = a.double().abs() @ b.double().abs()

    def check(c: Tensor) -> str:
        bound = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype] * wanted.abs() + (k + 1) * 2.0**-24 * size
        off = (c.double() - wanted).abs()
        return "" if c.shape == wanted.shape and (off <= bound).all() else f"off by {off.max() if off.numel() else c.shape}"

    return Case("matmul", {"a": a, "b": b}, check)


def attention(
    b: int, s: int, length: int, h: int, g: int, d: int, causal: bool, dtype: torch.dtype = torch.bfloat16, lse: bool = True
) -> Case:
    r = seeded("attention", b, s, length, h, g, d)
    q, k, v = ((normal(r, b, n, heads, d) * size).to(dtype) for n, heads, size in ((s, h, 1), (length, g, 1), (length, g, 0.1)))
    scale = d**-0.5
    wanted, sums = ref.attention(q, k, v, scale, causal)

    def check(o: Tensor, found: Tensor | None = None) -> str:
        return ref.complaint(o, wanted, ref.PREFILL) or ("" if found is None else ref.complaint(found, sums, ref.LSE))

    return Case("attention", {"q": q, "k": k, "v": v, "scale": scale, "causal": causal, **({"lse": True} if lse else {})}, check)


def quantized(values: Tensor) -> tuple[Tensor, Tensor]:
    """e4m3 and the f32 scale of each row."""
    scale = values.abs().amax(-1).clamp(min=1e-4) / 448
    return (values / scale[..., None]).to(torch.float8_e4m3fn), scale


def spoiled(k: Tensor, scale: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """NaN in the keys and scales that are not to be kept."""
    bits = torch.where(keep[:, None], k.view(torch.uint8), torch.tensor(0x7F, dtype=torch.uint8))
    return bits.view(torch.float8_e4m3fn), torch.where(keep, scale, NAN)


def fp8_index(b: int, m: int, n: int, h: int, d: int = 128) -> Case:
    g = seeded("fp8_index", b, m, n, h, d)
    q, w = normal(g, b, m, h, d).to(torch.float8_e4m3fn), normal(g, b, m, h)
    k, k_scale = quantized(normal(g, b, n, d))
    wanted = ref.fp8_index(q, w, k, k_scale)
    return Case("fp8_index", {"q": q, "w": w, "k": k, "k_scale": k_scale}, lambda out: ref.logits_complaint(out, wanted))


def windows(s: int, t: int) -> tuple[Tensor, Tensor]:
    """Windows of every kind in turn: up to the own token, empty, all, one key, from before the first to past the last, the other way round."""
    kinds = [(0, t - s + 1), (0, 0), (0, t), (t // 2, t // 2 + 1), (-(2**31), 2**31 - 1), (t, 0), (t // 3, 2 * t // 3)]
    first, last = zip(*(kinds[i % 7] if i % 7 else (0, kinds[0][1] + i) for i in range(s)), strict=True) if s else ((), ())
    return torch.tensor(first, dtype=torch.int32), torch.tensor(last, dtype=torch.int32)


def mqa_logits(s: int, t: int, h: int, clean: bool, d: int = 128, hidden: bool = True, part: int = 2048) -> Case:
    """``hidden``: only keys of the window [t // 3, 2 t // 3) are named, the others are NaN; ``part``: how many keys a program scores."""
    g = seeded("mqa_logits", s, t, h, d)
    q, w = normal(g, s, h, d).to(torch.float8_e4m3fn), normal(g, s, h)
    k, k_scale = quantized(normal(g, t, d))
    first, last = windows(s, t)
    if hidden:
        first, last = first.clamp(min=t // 3), last.clamp(max=2 * t // 3)
        where = torch.arange(t)
        k, k_scale = spoiled(k, k_scale, (where >= t // 3) & (where < 2 * t // 3))
    wanted = ref.mqa_logits(q, k, k_scale, w, first, last)

    def check(out: Tensor) -> str:
        return ref.logits_complaint(out if clean else torch.where(wanted == -math.inf, wanted, out), wanted)

    arguments = {"q": q, "k": k, "k_scale": k_scale, "w": w, "first": first, "last": last, "clean": clean, "C": part}
    return Case("mqa_logits", arguments, check)


def paged_mqa_logits(lengths: list[int], x: int, h: int, limit: int, page: int, clean: bool, d: int = 128, spare: int = 3) -> Case:
    """Pages in any order, ``spare`` of them unused and of NaN; a bad page where a length ends, and one inside a request."""
    b, width = len(lengths), -(-limit // page) + 1
    g = seeded("paged", lengths, x, h, limit, page)
    used = [-(-min(n, limit) // page) for n in lengths]
    blocks = sum(used) + spare if any(used) or spare else 0
    order = torch.randperm(blocks, generator=g).tolist() if blocks else []
    bad = ref.bad_indices(blocks)
    table = torch.tensor([[bad[(i + j) % 6] for j in range(width)] for i in range(b)], dtype=torch.int32).reshape(b, width)
    cache = torch.full((blocks, page * (d + 4)), 0xFF, dtype=torch.uint8)
    for i, n in enumerate(lengths):
        for j in range(used[i]):
            if i % 2 and j == 1:
                continue
            table[i, j] = block = order.pop()
            there = min(page, min(n, limit) - j * page)
            k, k_scale = quantized(normal(g, there, d))
            cache[block, : there * d] = k.view(torch.uint8).flatten()
            cache[block, page * d : page * d + 4 * there] = k_scale.view(torch.uint8)
    q, w = normal(g, b, x, h, d).to(torch.float8_e4m3fn), normal(g, b, x, h)
    ends = torch.tensor(lengths, dtype=torch.int32)
    wanted = ref.paged_mqa_logits(q, cache, w, ends, table, limit, page)

    def check(out: Tensor) -> str:
        return ref.logits_complaint(out if clean else torch.where(wanted == -math.inf, wanted, out), wanted)

    arguments = {"q": q, "cache": cache, "w": w, "lengths": ends, "table": table, "L": limit, "P": page, "clean": clean}
    return Case("paged_mqa_logits", arguments, check)


def sinks(h: int, generator: torch.Generator) -> Tensor:
    """Among normal ones -inf and inf, and one beyond what exp2 has."""
    sink = normal(generator, h)
    sink[1::4], sink[2::4], sink[3::8] = -math.inf, math.inf, 200.0
    return sink


def lengths_of(n: int, k: int) -> Tensor:
    return torch.tensor([(k, 0, k // 2, -5, k + 9, 1)[i % 6] for i in range(n)], dtype=torch.int32)


def attends(wanted: Tensor, sums: Tensor, bound: ref.Bound, lse_bound: ref.Bound, unit: float) -> Callable[..., str]:
    """Checks o, and lse if there is one, in units of ``unit`` natural ones."""

    def check(o: Tensor, lse: Tensor | None = None) -> str:
        return ref.complaint(o, wanted, bound) or ("" if lse is None else ref.complaint(lse, sums / unit, lse_bound))

    return check


def sparse_mla(
    s: int,
    h: int,
    t: int,
    k: int,
    *,
    d: int = 512,
    r: int = 64,
    length: bool = False,
    limit: bool = False,
    sink: bool = False,
    lse: bool = True,
    base2: bool = False,
    bad: float = 0.2,
    parts: int = 0,
) -> Case:
    """``parts``: of the decode program; 0: the prefill kernel. Token 1 has no valid index; rows that no index names are NaN and infinite."""
    g = seeded("sparse_mla", s, h, t, k, d, length, limit, sink)
    q, kv = ((normal(g, *shape) / 10 + 0.1).bfloat16() for shape in ((s, h, d + r), (t, d + r)))
    idx = ref.indices((s, k), t, g, bad)
    if bad:
        idx[1:2] = torch.tensor((ref.bad_indices(t) * (k // 6 + 1))[:k], dtype=torch.int32)
    ends = lengths_of(s, k) if length else None
    limits = torch.tensor([(t // 2, -1, t + 5, 0)[i % 4] for i in range(s)], dtype=torch.int32) if limit else None
    extra = sinks(h, g) if sink else None
    kv = ref.poison(kv, ref.named(idx, t, ends, limits))
    wanted, sums = ref.sparse_mla(q, kv, idx, 0.5, ends, limits, extra, d)
    optional = {"length": ends, "limit": limits, "sink": extra, "lse": lse or None, "lse_unit": 1 if base2 else None}
    arguments = {"q": q, "kv": kv, "idx": idx, "scale": 0.5, **{n: v for n, v in optional.items() if v is not None}}
    if (d, r) != (512, 64):
        arguments |= {"D": d, "R": r}
    name = "sparse_mla_decode" if parts else "sparse_mla"
    if parts:
        arguments["P"] = parts
    return Case(name, arguments, attends(wanted, sums, ref.PREFILL, ref.LSE, math.log(2) if base2 else 1.0))


def sparse_mla_fp8(
    b: int, x: int, h: int, blocks: int, page: int, k: int, *, length: bool = False, sink: bool = False, lse: bool = True, parts: int = 8
) -> Case:
    g = seeded("sparse_mla_fp8", b, x, h, blocks, page, k)
    q, kv = ((normal(g, *shape) / 10 + 0.1).bfloat16() for shape in ((b, x, h, 576), (blocks * page, 576)))
    idx = ref.indices((b, x, k), blocks * page, g)
    idx[1:2, :1] = -1
    ends = lengths_of(b, k) if length else None
    extra = sinks(h, g) if sink else None
    flat = idx.reshape(b * x, k)
    keep = ref.named(flat, blocks * page, None if ends is None else ends.repeat_interleave(x))
    rotten = torch.arange(ref.TOKEN) % 2 == 0
    cache = torch.where(keep[:, None], ref.packed(kv), torch.where(rotten, 0xC0, 0x7F).to(torch.uint8))
    cache = torch.where(keep[:, None], cache, torch.full_like(cache, 0xFF)) if blocks % 2 else cache
    cache = cache.reshape(blocks, page, ref.TOKEN)
    wanted, sums = ref.sparse_mla_fp8(q, cache, idx, 0.5, ends, extra)
    optional = {"length": ends, "sink": extra, "lse": lse or None}
    arguments = {"q": q, "cache": cache, "idx": idx, "scale": 0.5, "G": parts, **{n: v for n, v in optional.items() if v is not None}}
    return Case("sparse_mla_fp8", arguments, attends(wanted, sums, ref.FP8_DECODE, ref.FP8_LSE, 1.0))


def sparse_mqa_sink(b: int, s: int, h: int, t: int, k: int, d: int = 128, dtype: torch.dtype = torch.float32) -> Case:
    g = seeded("sparse_mqa_sink", b, s, h, t, k, d)
    q, kv = (normal(g, *shape).bfloat16() for shape in ((b, s, h, d), (b, t, d)))
    idx = ref.indices((b, s, k), t, g)
    idx[:, 1:2] = -1
    sink = sinks(h, g).to(dtype)
    kv = torch.stack([ref.poison(kv[n], ref.named(idx[n], t)) for n in range(b)]) if b else kv
    wanted = ref.sparse_mqa_sink(q, kv, idx, sink, d**-0.5)
    bound = ref.Bound(1e-2, 1e-2, 1e-5)
    return Case(
        "sparse_mqa_sink", {"q": q, "kv": kv, "idx": idx, "sink": sink, "scale": d**-0.5}, lambda o: ref.complaint(o, wanted, bound)
    )
