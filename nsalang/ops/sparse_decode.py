"""Operators of sparse attention over a latent cache, for few tokens: the indices of a token are split, and the parts combined."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nsalang.ops.dense import scale_of
from nsalang.ops.indexer import F32, I32, bytes_of
from nsalang.ops.operator import BYTES, Operands, folded, launch, operator_with_lse, pieces, processors, without_group
from nsalang.ops.sparse import BF16, check_width, lse_unit

TOKEN = 656
"""Bytes of a token in the fp8 cache: 512 e4m3, 4 f32 scales, 64 bf16."""
KEYS = 64
"""No part has fewer indices than a tile of them."""


def splits_of(tokens: int, heads: int, topk: int, device: torch.device) -> int:
    """In how many parts the indices of a token are taken: a power of two that gives every multiprocessor something to do."""
    instances = max(tokens * -(-heads // KEYS), 1)
    most = min(2 * processors(device) // instances, topk // KEYS, 64)
    return 1 << max(most.bit_length() - 1, 0)


def _take(
    taken: Operands,
    q: Tensor,
    indices: Tensor,
    attn_sink: Tensor | None,
    topk_length: Tensor | None,
    num_splits: int | None,
    width: str | int,
) -> None:
    """Check everything but the cache: a request has X tokens, or one where q has 3 axes."""
    queries = ("X",) if taken.axes("q", q, 3, 4) == 4 else ()
    taken.take("q", q, ("B", *queries, "H", width), BF16)
    if queries or taken.axes("indices", indices, 2, 3) == 3:
        taken.take("indices", indices, ("B", *(queries or (1,)), "K"), I32)
    else:
        taken.take("indices", indices, ("B", "K"), I32)
    taken.take("attn_sink", attn_sink, ("H",), F32)
    taken.take("topk_length", topk_length, ("B",), I32)
    if num_splits is not None and num_splits < 1:
        raise taken.error("NSA0514", f"num_splits is {num_splits}; it is positive, or None")


# ------------------------------------------------------------------------------------------------------------- sparse_mla_decode


def sparse_mla_decode(
    q: Tensor,
    kv_cache: Tensor,
    indices: Tensor,
    sm_scale: float | None = None,
    d_v: int = 512,
    attn_sink: Tensor | None = None,
    topk_length: Tensor | None = None,
    *,
    num_splits: int | None = None,
    lse_base: str = "e",
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """``sparse_mla`` for few tokens over one cache: each token's indices in ``num_splits`` parts, which run at once, and then their weighted sum.

    q: bf16 [B, X, H, E], X tokens of each request, or [B, H, E] for one. kv_cache: bf16, rows [T, E] or [T, 1, E] at any
    strides, or pages [NB, P, 1, E], each P rows behind the one before. indices: i32 [B, X, K] (with q [B, H, E]: [B, K] or [B, 1, K]), each page * P + slot.
    attn_sink: f32 [H]; topk_length: i32 [B]. ``num_splits``: None lets sizes and the device decide; fix it to get the same bits in a batch of any size.
    Returns o, bf16 [B, X, H, d_v] or [B, H, d_v]; with ``return_lse`` also lse, f32 [B, H, X], transposed in memory, or [B, H]. Rules as in
    ``sparse_mla``; partial results are f32. As ``flash_mla_with_kvcache`` of FlashMLA with indices.
    """
    base = lse_unit(lse_base)
    return _decode(return_lse, q, kv_cache, indices, sm_scale, d_v, attn_sink, topk_length, num_splits, base, backend)


def _decode_empty(
    wants_lse: bool,
    q: Tensor,
    kv_cache: Tensor,
    indices: Tensor,
    sm_scale: float | None,
    d_v: int,
    attn_sink: Tensor | None,
    topk_length: Tensor | None,
    num_splits: int | None,
    lse_unit: float,
    backend: str,
) -> tuple[Tensor, Tensor | None]:
    taken = Operands("sparse_mla_decode")
    _take(taken, q, indices, attn_sink, topk_length, num_splits, "E")
    shape: tuple[str | int, ...] = {2: ("T", "E"), 3: ("T", 1, "E"), 4: ("NB", "P", 1, "E")}[taken.axes("kv_cache", kv_cache, 2, 3, 4)]
    taken.take("kv_cache", kv_cache, shape, BF16)
    check_width(taken, q, d_v)
    o = torch.empty((*q.shape[:-1], d_v), dtype=q.dtype, device=q.device)
    if not wants_lse:
        return o, None
    lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    return o, lse if q.dim() == 3 else lse.transpose(1, 2)


def _decode_run(
    o: Tensor,
    lse: Tensor | None,
    q: Tensor,
    kv_cache: Tensor,
    indices: Tensor,
    sm_scale: float | None,
    d_v: int,
    attn_sink: Tensor | None,
    topk_length: Tensor | None,
    num_splits: int | None,
    lse_unit: float,
    backend: str,
) -> None:
    scale, tokens = scale_of(sm_scale, q), math.prod(q.shape[:-2])
    splits = num_splits or splits_of(tokens, q.shape[-2], indices.shape[-1], q.device)
    cache = without_group(kv_cache, kv_cache.dim() - 2, max(kv_cache.dim(), 3))
    if cache.dim() == 3:
        rows = folded(cache, 2)
        if rows is None:
            raise Operands("sparse_mla_decode").error(
                "NSA0515", f"the pages of 'kv_cache' lie apart; it has strides {list(kv_cache.stride())}"
            )
        cache = rows
    leading = q.dim() - 2
    chosen = indices.squeeze(1) if leading == 1 and indices.dim() == 3 else indices
    lse_rows, length = lse, topk_length
    if leading == 2:
        lse_rows = None if lse is None else lse.transpose(1, 2)
        length = None if topk_length is None else topk_length.repeat_interleave(q.shape[1]).view(q.shape[:2])
    for q_part, chosen_part, o_part, lse_part, length_part in pieces(leading, q, chosen, o, lse_rows, length):
        launch(
            "sparse_mla_decode",
            "sparse_mla_decode",
            backend,
            q=q_part,
            kv=cache,
            idx=chosen_part,
            o=o_part,
            lse=lse_part,
            length=length_part,
            sink=attn_sink,
            scale=scale,
            D=d_v,
            R=q.shape[-1] - d_v,
            P=splits,
            lse_unit=lse_unit,
        )


_decode = operator_with_lse(
    "sparse_mla_decode(Tensor q, Tensor kv_cache, Tensor indices, float? sm_scale, SymInt d_v, Tensor? attn_sink, Tensor? topk_length,"
    " int? num_splits, float lse_unit, str backend)",
    _decode_empty,
    _decode_run,
)

# --------------------------------------------------------------------------------------------------------- sparse_mla_fp8_decode


def sparse_mla_fp8_decode(
    q: Tensor,
    kv_cache: Tensor,
    indices: Tensor,
    sm_scale: float | None = None,
    attn_sink: Tensor | None = None,
    topk_length: Tensor | None = None,
    *,
    num_splits: int | None = None,
    lse_base: str = "e",
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """``sparse_mla_decode`` over a paged cache of 656-byte tokens: 512 e4m3, 4 f32 scales of 128 of them each, and 64 bf16.

    q: bf16 [B, X, H, 576], or [B, H, 576] for X = 1. kv_cache: bytes (u8, i8 or e4m3), [NB, P, 1, 656] or [NB, P, 656], P tokens a page; pages and tokens
    at any strides that 4 divides, the bytes of a token in a piece. indices: i32 [B, X, K] (with q [B, H, 576]: [B, K] or [B, 1, K]), each page * P + slot.
    attn_sink: f32 [H]; topk_length: i32 [B]. ``sm_scale`` is 576 ** -0.5 where left out. ``num_splits`` as in ``sparse_mla_decode``. Returns o, bf16
    [B, X, H, 512] or [B, H, 512]; with ``return_lse`` also lse, f32 [B, H, X] or [B, H]. A cached value counts as bf16(value * scale). Rules as in
    ``sparse_mla``. As ``flash_mla_with_kvcache`` of FlashMLA with ``is_fp8_kvcache`` and indices.
    """
    base = lse_unit(lse_base)
    return _fp8(return_lse, q, kv_cache, indices, sm_scale, attn_sink, topk_length, num_splits, base, backend)


def _fp8_empty(
    wants_lse: bool,
    q: Tensor,
    kv_cache: Tensor,
    indices: Tensor,
    sm_scale: float | None,
    attn_sink: Tensor | None,
    topk_length: Tensor | None,
    num_splits: int | None,
    lse_unit: float,
    backend: str,
) -> tuple[Tensor, Tensor | None]:
    taken = Operands("sparse_mla_fp8_decode")
    _take(taken, q, indices, attn_sink, topk_length, num_splits, 576)
    shape = ("NB", "P", TOKEN) if taken.axes("kv_cache", kv_cache, 3, 4) == 3 else ("NB", "P", 1, TOKEN)
    taken.take("kv_cache", kv_cache, shape, BYTES)
    heads = taken.size("H")
    lse = (q.shape[0], heads) if q.dim() == 3 else (q.shape[0], heads, q.shape[1])
    o = torch.empty((*q.shape[:-1], 512), dtype=q.dtype, device=q.device)
    return o, torch.empty(lse, dtype=torch.float32, device=q.device) if wants_lse else None


def _fp8_run(
    o: Tensor,
    lse: Tensor | None,
    q: Tensor,
    kv_cache: Tensor,
    indices: Tensor,
    sm_scale: float | None,
    attn_sink: Tensor | None,
    topk_length: Tensor | None,
    num_splits: int | None,
    lse_unit: float,
    backend: str,
) -> None:
    scale, splits = scale_of(sm_scale, q), num_splits or splits_of(math.prod(q.shape[:-2]), q.shape[-2], indices.shape[-1], q.device)
    if q.dim() == 3:
        q, o, lse = q.unsqueeze(1), o.unsqueeze(1), None if lse is None else lse.unsqueeze(2)
        indices = indices.unsqueeze(1) if indices.dim() == 2 else indices
    launch(
        "sparse_mla_fp8",
        "sparse_mla_fp8",
        backend,
        q=q,
        cache=bytes_of("sparse_mla_fp8_decode", kv_cache, 2),
        idx=indices,
        o=o,
        lse=lse,
        length=topk_length,
        sink=attn_sink,
        scale=scale,
        G=splits,
        lse_unit=lse_unit,
    )


_fp8 = operator_with_lse(
    "sparse_mla_fp8_decode(Tensor q, Tensor kv_cache, Tensor indices, float? sm_scale, Tensor? attn_sink, Tensor? topk_length, int? num_splits,"
    " float lse_unit, str backend)",
    _fp8_empty,
    _fp8_run,
)
