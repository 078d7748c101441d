"""The kernels of sparse attention in float64, written from their definitions alone; inputs of which nothing but what is named may matter; and the
measures of error that they are held to. Any device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TOKEN = 656
"""Bytes of a token in the fp8 cache of latent attention: 512 e4m3, 4 f32 scales, 64 bf16."""


def matmul(a: Tensor, b: Tensor) -> Tensor:
    return a.double() @ b.double()


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """q [B, S, H, D], k and v [B, L, G, D]: o [B, S, H, D] and the natural lse [B, H, S]."""
    heads, s, length = q.shape[2], q.shape[1], k.shape[1]
    keys, values = (x.double().repeat_interleave(heads // x.shape[2], dim=2) for x in (k, v))
    scores = torch.einsum("bshd,bthd->bhst", q.double(), keys) * scale
    if causal:
        ends = torch.arange(s, device=q.device)[:, None] + (length - s)
        scores = scores.masked_fill(torch.arange(length, device=q.device) > ends, -math.inf)
    lse = torch.logsumexp(scores, -1)
    weights = torch.where(lse[..., None] == -math.inf, 0.0, torch.exp(scores - lse[..., None]))
    o = torch.einsum("bhst,bthd->bshd", weights, values)
    return o, torch.where(lse == -math.inf, math.inf, lse)


def scores(q: Tensor, k: Tensor, k_scale: Tensor, w: Tensor) -> Tensor:
    """The indexer, one batch: q [S, H, D], k [T, D], k_scale [T], w [S, H]: f64 [S, T]."""
    products = torch.einsum("shd,td->sth", wide(q), wide(k)).clamp(min=0)
    return torch.einsum("sth,sh->st", products, w.double()) * k_scale.double()


def fp8_index(q: Tensor, w: Tensor, k: Tensor, k_scale: Tensor) -> Tensor:
    """[B, M, H, D], [B, M, H], [B, N, D], [B, N]: [B, M, N]."""
    return (
        torch.stack([scores(*each) for each in zip(q, k, k_scale, w, strict=True)])
        if len(q)
        else k_scale.new_zeros(0, q.shape[1], k.shape[1]).double()
    )


def mqa_logits(q: Tensor, k: Tensor, k_scale: Tensor, w: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """-inf outside of [first, last)."""
    t = torch.arange(len(k), device=q.device)
    inside = (first[:, None] <= t) & (t < last[:, None])
    return torch.where(inside, scores(q, k, k_scale, w), -math.inf)


def paged_mqa_logits(q: Tensor, cache: Tensor, w: Tensor, lengths: Tensor, table: Tensor, limit: int, page: int) -> Tensor:
    """q [B, X, H, D], cache u8 [NB, page * (D + 4)], table [B, W]: [B, X, limit], -inf where a query sees nothing or the page is not there."""
    d, queries = q.shape[-1], q.shape[1]
    values = cache[:, : page * d].reshape(-1, d).contiguous().view(q.dtype)
    scales = cache[:, page * d :].reshape(len(cache) * page, 4).contiguous().view(torch.float32).reshape(-1)
    out = torch.full((len(q), queries, limit), -math.inf, dtype=torch.float64, device=q.device)
    for b in range(len(q)):
        t = torch.arange(limit, device=q.device)
        pages = table[b, t // page].long()
        there = (t < lengths[b]) & (pages >= 0) & (pages < len(cache))
        seen, rows = t[there], (pages * page + t % page)[there]
        found = scores(q[b], values[rows], scales[rows], w[b])
        ends = lengths[b] - queries + torch.arange(queries, device=q.device)[:, None]
        out[b][:, seen] = torch.where(seen <= ends, found, -math.inf)
    return out


def sparse_attention(
    q: Tensor, rows: Tensor, idx: Tensor, scale: float, width: int, length: Tensor | None = None, limit: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """q [S, H, E], rows [T, E], of which the first ``width`` are the value; idx [S, K]: o [S, H, width] and the natural lse [S, H].

    An index counts as often as it occurs, where 0 <= t < T, t <= limit[s], and it stands before length[s].
    """
    o = torch.zeros(*q.shape[:2], width, dtype=torch.float64, device=q.device)
    lse = torch.full(q.shape[:2], math.inf, dtype=torch.float64, device=q.device)
    for s in range(len(q)):
        chosen = idx[s].long() if length is None else idx[s, : max(int(length[s]), 0)].long()
        chosen = chosen[(chosen >= 0) & (chosen < len(rows))]
        if limit is not None:
            chosen = chosen[chosen <= limit[s]]
        if not len(chosen):
            continue
        keys = rows[chosen].double()
        found = q[s].double() @ keys.T * scale
        lse[s] = torch.logsumexp(found, -1)
        o[s] = torch.softmax(found, -1) @ keys[:, :width]
    return o, lse


def with_sink(o: Tensor, lse: Tensor, sink: Tensor | None) -> Tensor:
    """o [..., S, H, D] and its lse [..., S, H] after a sink f32 [H]: 0 at +inf, o itself at -inf."""
    if sink is None:
        return o
    return torch.where(lse == math.inf, 0.0, 1 / (1 + torch.exp(sink.double() - lse)))[..., None] * o


def sparse_mla(
    q: Tensor,
    kv: Tensor,
    idx: Tensor,
    scale: float,
    length: Tensor | None = None,
    limit: Tensor | None = None,
    sink: Tensor | None = None,
    width: int = 512,
) -> tuple[Tensor, Tensor]:
    """Prefill and decode: q [S, H, 576], kv [T, 576], idx [S, K]: o [S, H, 512] and the natural lse [S, H]."""
    o, lse = sparse_attention(q, kv, idx, scale, width, length, limit)
    return with_sink(o, lse, sink), lse


def sparse_mqa_sink(q: Tensor, kv: Tensor, idx: Tensor, sink: Tensor, scale: float) -> Tensor:
    """q [B, S, H, D], kv [B, T, D], idx [B, S, K]: o [B, S, H, D]."""
    o = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    for b in range(len(q)):
        o[b] = with_sink(*sparse_attention(q[b], kv[b], idx[b], scale, q.shape[-1]), sink)
    return o


def unpacked(cache: Tensor) -> Tensor:
    """The tokens bf16 [NB * P, 576] of a cache u8 [NB, P, 656]."""
    tokens = cache.reshape(-1, TOKEN).contiguous()
    values, scales = tokens[:, :512].contiguous().view(torch.float8_e4m3fn), tokens[:, 512:528].contiguous().view(torch.float32)
    keys = (values.float() * scales.repeat_interleave(128, dim=1)).bfloat16()
    return torch.cat([keys, tokens[:, 528:].contiguous().view(torch.bfloat16)], dim=1)


def packed(kv: Tensor) -> Tensor:
    """Bytes u8 [T, 656] of tokens [T, 576]: each 128 of the first 512 with a scale of their own."""
    groups = kv[:, :512].float().reshape(len(kv), 4, 128)
    scales = groups.abs().amax(-1).clamp(min=1e-4) / 448
    codes = (groups / scales[..., None]).clamp(-448, 448).to(torch.float8_e4m3fn).reshape(len(kv), 512)
    parts = codes.view(torch.uint8), scales.view(torch.uint8), kv[:, 512:].bfloat16().contiguous().view(torch.uint8)
    return torch.cat([p.flatten(1) for p in parts], dim=1)


def sparse_mla_fp8(
    q: Tensor, cache: Tensor, idx: Tensor, scale: float, length: Tensor | None = None, sink: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """q [B, X, H, 576], cache u8 [NB, P, 656], idx [B, X, K], length [B]: o [B, X, H, 512] and the natural lse [B, H, X]."""
    b, x, heads, _ = q.shape
    ends = None if length is None else length.repeat_interleave(x)
    o, lse = sparse_mla(q.reshape(b * x, heads, 576), unpacked(cache), idx.reshape(b * x, -1), scale, ends, None, sink)
    return o.reshape(b, x, heads, 512), lse.reshape(b, x, heads).transpose(1, 2)


def bad_indices(rows: int) -> list[int]:
    """Indices that name no row of ``rows``."""
    return [-(2**31), -123456, -1, rows, rows + 7, 2**31 - 1]


def indices(shape: tuple[int, ...], rows: int, generator: torch.Generator, bad: float = 0.2) -> Tensor:
    """i32 indices: along the last axis without a repetition while there are rows, in any order, and ``bad`` of them naming no row."""
    *outer, k = shape
    count = math.prod(outer)
    chosen = torch.full((count, k), -1, dtype=torch.int64)
    for n in range(count):
        some = torch.randperm(rows, generator=generator)[:k]
        chosen[n, : len(some)] = some
    wrong = torch.tensor(bad_indices(rows))[torch.randint(0, 6, (count, k), generator=generator)]
    spoiled = (torch.rand(count, k, generator=generator) < bad) | (chosen < 0)
    mixed = torch.where(spoiled, wrong, chosen)
    order = torch.rand(count, k, generator=generator).argsort(-1)
    return mixed.gather(-1, order).reshape(shape).int()


def named(idx: Tensor, rows: int, length: Tensor | None = None, limit: Tensor | None = None) -> Tensor:
    """Which of the rows some index [S, K] names that counts: bool [rows]."""
    wanted = idx.long()
    counts = (wanted >= 0) & (wanted < rows)
    if length is not None:
        counts &= torch.arange(idx.shape[-1], device=idx.device) < length[..., None]
    if limit is not None:
        counts &= wanted <= limit[..., None]
    mask = torch.zeros(rows, dtype=torch.bool, device=idx.device)
    mask[wanted[counts]] = True
    return mask


def poison(rows: Tensor, keep: Tensor) -> Tensor:
    """The rows with NaN, inf and -inf in turn in each that is not to be kept."""
    fill = torch.tensor([math.nan, math.inf, -math.inf], device=rows.device).to(rows.dtype)[torch.arange(len(rows), device=rows.device) % 3]
    return torch.where(keep[:, None], rows, fill[:, None])


def wide(x: Tensor) -> Tensor:
    """f64; fp8 goes by way of f32, as torch has no other."""
    return x.float().double()


@dataclass(frozen=True, slots=True)
class Bound:
    """An element may be off by ``absolute``, or by ``relative`` of its reference; all of them together by ``cosine``: 1 - 2 sum(xy) / sum(x² + y²)."""

    absolute: float
    relative: float
    cosine: float


PREFILL = Bound(8e-4, 3.01 / 128, 7e-6)
FP8_DECODE = Bound(1e-3, 2.01 / 128, 5e-6)
LSE = Bound(1e-6, 2.01 / 65536, 1e-9)
FP8_LSE = Bound(1e-6, 8.01 / 65536, 1e-9)
LOGITS = 5e-6


def similarity_error(found: Tensor, wanted: Tensor) -> float:
    """1 - 2 sum(xy) / sum(x² + y²) over what is finite in the reference; 0 where that is nothing but zeros on both sides."""
    finite = torch.isfinite(wanted)
    x, y = found.double()[finite], wanted.double()[finite]
    total = (x * x + y * y).sum()
    return 0.0 if total == 0 else float(1 - 2 * (x * y).sum() / total)


def complaint(found: Tensor, wanted: Tensor, bound: Bound) -> str:
    """What is wrong with the result, or nothing."""
    if found.shape != wanted.shape:
        return f"shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}"
    x, y = found.double(), wanted.double()
    if torch.isnan(x).any():
        return f"{int(torch.isnan(x).sum())} NaN"
    apart = torch.isinf(x) | torch.isinf(y)
    if not torch.equal(x[apart], y[apart]):
        return "infinities at other places"
    off = (x - y).abs().masked_fill(apart, 0)
    wrong = (off > bound.absolute) & (off > bound.relative * y.abs())
    if wrong.any():
        return f"{int(wrong.sum())} of {wrong.numel()} elements off, the worst by {float(off.max()):.3g}"
    distance = similarity_error(x, y)
    return f"1 - cosine {distance:.3g}" if distance > bound.cosine else ""


def logits_complaint(found: Tensor, wanted: Tensor) -> str:
    """What is wrong with logits, -inf where the reference has it and nowhere else, or nothing."""
    if not torch.equal(found == -math.inf, wanted == -math.inf):
        return "-inf at other places"
    if not torch.isfinite(found[wanted > -math.inf]).all():
        return "what is not masked is not finite"
    distance = similarity_error(found, wanted)
    return f"1 - 2xy/(xx + yy) is {distance:.3g}" if distance > LOGITS else ""
