"""Operators that score keys for a query: the lightning indexer of DeepSeek Sparse Attention (DeepSeek-V3.2 report)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nsalang.ops.operator import BYTES, E4M3, Operands, launch, operator, pieces

F32 = (torch.float32,)
I32 = (torch.int32,)

# --------------------------------------------------------------------------------------------------------------------- fp8_index


def fp8_index(q: Tensor, q_s: Tensor, k: Tensor, k_s: Tensor, *, backend: str = "auto") -> Tensor:
    """Scores of every query against every key: k_s[b, n] * Σ_h max(q[b, m, h] · k[b, n], 0) * q_s[b, m, h]; no mask.

    q: e4m3 [B, M, H, D]; q_s: f32 [B, M, H], the weights of the heads, with q's scale in them; k: e4m3 [B, N, D]; k_s: f32 [B, N]; all of them
    without B too. Any H. Returns f32 [B, M, N]. As ``fp8_index`` of DeepSeek-V3.2's inference code and of SGLang.
    """
    found: Tensor = _fp8_index(q, q_s, k, k_s, backend)
    return found


def _fp8_index_empty(q: Tensor, q_s: Tensor, k: Tensor, k_s: Tensor, backend: str) -> Tensor:
    taken = Operands("fp8_index")
    batch = ("B",) if taken.axes("q", q, 3, 4) == 4 else ()
    taken.take("q", q, (*batch, "M", "H", "D"), E4M3)
    taken.take("q_s", q_s, (*batch, "M", "H"), F32)
    taken.take("k", k, (*batch, "N", "D"), (q.dtype,))
    taken.take("k_s", k_s, (*batch, "N"), F32)
    return torch.empty((*q.shape[:-2], taken.size("N")), dtype=torch.float32, device=q.device)


def _fp8_index_run(q: Tensor, q_s: Tensor, k: Tensor, k_s: Tensor, backend: str) -> Tensor:
    out = _fp8_index_empty(q, q_s, k, k_s, backend)
    if q.dim() == 3:
        launch("fp8_index", "fp8_index", backend, q=q[None], w=q_s[None], k=k[None], k_scale=k_s[None], out=out[None])
    else:
        launch("fp8_index", "fp8_index", backend, q=q, w=q_s, k=k, k_scale=k_s, out=out)
    return out


_fp8_index = operator("fp8_index(Tensor q, Tensor q_s, Tensor k, Tensor k_s, str backend) -> Tensor", _fp8_index_run, _fp8_index_empty)

# -------------------------------------------------------------------------------------------------------------------- mqa_logits


def mqa_logits(
    q: Tensor,
    kv: Sequence[Tensor],
    weights: Tensor,
    cu_seq_len_k_start: Tensor,
    cu_seq_len_k_end: Tensor,
    clean_logits: bool = True,
    *,
    backend: str = "auto",
) -> Tensor:
    """Scores of ragged sequences: for start[s] <= t < end[s], k_scale[t] * Σ_h max(q[s, h] · k[t], 0) * weights[s, h].

    q: e4m3 [S, H, D]; kv: the pair k, e4m3 [T, D], and k_scale, f32 [T]; weights: f32 [S, H]; cu_seq_len_k_start and cu_seq_len_k_end: i32 [S].
    With leading B: [B, S, …] and kv [B, T, …], one launch for each of B, or kv [T, …] for all. Returns f32 [S, T] or [B, S, T]. Elsewhere it is
    -inf with ``clean_logits``, undefined without. As ``fp8_mqa_logits`` of DeepGEMM.
    """
    if not isinstance(kv, tuple | list) or len(kv) != 2 or not all(isinstance(t, Tensor) for t in kv):
        raise Operands("mqa_logits").error("NSA0504", "'kv' is the pair of keys and their scales, two tensors")
    found: Tensor = _mqa_logits(q, kv[0], kv[1], weights, cu_seq_len_k_start, cu_seq_len_k_end, clean_logits, backend)
    return found


def _mqa_logits_empty(
    q: Tensor, k: Tensor, k_scale: Tensor, weights: Tensor, start: Tensor, end: Tensor, clean: bool, backend: str
) -> Tensor:
    taken = Operands("mqa_logits")
    batch = ("B",) if taken.axes("q", q, 3, 4) == 4 else ()
    shared = not batch or taken.axes("kv[0]", k, 2, 3) == 2
    taken.take("q", q, (*batch, "S", "H", "D"), E4M3)
    taken.take("kv[0]", k, ("T", "D") if shared else ("B", "T", "D"), (q.dtype,))
    taken.take("kv[1]", k_scale, ("T",) if shared else ("B", "T"), F32)
    taken.take("weights", weights, (*batch, "S", "H"), F32)
    taken.take("cu_seq_len_k_start", start, (*batch, "S"), I32)
    taken.take("cu_seq_len_k_end", end, (*batch, "S"), I32)
    return torch.empty((*q.shape[:-2], taken.size("T")), dtype=torch.float32, device=q.device)


def _mqa_logits_run(
    q: Tensor, k: Tensor, k_scale: Tensor, weights: Tensor, start: Tensor, end: Tensor, clean: bool, backend: str
) -> Tensor:
    out = _mqa_logits_empty(q, k, k_scale, weights, start, end, clean, backend)
    if k.dim() == 3:
        for b in range(q.shape[0]):
            _mqa_logits_into(q[b], k[b], k_scale[b], weights[b], start[b], end[b], out[b], clean, backend)
        return out
    for part in pieces(q.dim() - 2, q, weights, start, end, out):
        q_part, w_part, start_part, end_part, out_part = part
        _mqa_logits_into(q_part, k, k_scale, w_part, start_part, end_part, out_part, clean, backend)
    return out


def _mqa_logits_into(
    q: Tensor | None,
    k: Tensor,
    k_scale: Tensor,
    weights: Tensor | None,
    start: Tensor | None,
    end: Tensor | None,
    out: Tensor | None,
    clean: bool,
    backend: str,
) -> None:
    launch("mqa_logits", "mqa_logits", backend, q=q, k=k, k_scale=k_scale, w=weights, first=start, last=end, out=out, clean=clean)


_mqa_logits = operator(
    "mqa_logits(Tensor q, Tensor k, Tensor k_scale, Tensor weights, Tensor cu_seq_len_k_start, Tensor cu_seq_len_k_end, bool clean_logits, str backend)"
    " -> Tensor",
    _mqa_logits_run,
    _mqa_logits_empty,
)

# -------------------------------------------------------------------------------------------------------------- paged_mqa_logits


def paged_mqa_logits(
    q: Tensor,
    kv_cache: Tensor,
    weights: Tensor,
    context_lens: Tensor,
    block_table: Tensor,
    max_context_len: int,
    clean_logits: bool = False,
    *,
    backend: str = "auto",
) -> Tensor:
    """Scores over a paged cache of index keys: token t of request b is slot t % P of page block_table[b, t // P].

    q: e4m3 [B, X, H, D], the last X tokens of each request, or [B, H, D] for one. kv_cache: bytes (u8, i8 or e4m3) [NB, P, 1, D + 4], [NB, P, D + 4] or
    [NB, P * (D + 4)], pages at any stride and each one in a piece: first the e4m3 values of its P tokens, then their f32 scales. (In the last form
    P follows from D.) weights: f32 [B * X, H] or [B, X, H]; context_lens: i32 [B]; block_table: i32 [B, W]; max_context_len <= W * P. Returns f32
    [B * X, max_context_len]. Query x sees t < context_lens[b] - X + x + 1. Elsewhere the result is -inf with ``clean_logits``, and without it -inf
    or undefined. A page outside of [0, NB) is never read and scores -inf. As ``fp8_paged_mqa_logits`` of DeepGEMM, without its schedule.
    """
    found: Tensor = _paged(q, kv_cache, weights, context_lens, block_table, max_context_len, clean_logits, backend)
    return found


def _page_size(taken: Operands, cache: Tensor, width: int) -> int:
    """Tokens of a page. Raises NSA0509."""
    if taken.axes("kv_cache", cache, 2, 3, 4) > 2:
        return cache.shape[1]
    token = width + 4
    if cache.shape[1] % token:
        raise taken.error("NSA0509", f"a page of 'kv_cache' has {cache.shape[1]} bytes, which is no multiple of the {token} of a token")
    return cache.shape[1] // token


def _paged_empty(
    q: Tensor, kv_cache: Tensor, weights: Tensor, context_lens: Tensor, block_table: Tensor, max_context_len: int, clean: bool, backend: str
) -> Tensor:
    taken = Operands("paged_mqa_logits")
    queries = ("X",) if taken.axes("q", q, 3, 4) == 4 else ()
    taken.take("q", q, ("B", *queries, "H", "D"), E4M3)
    width, batch = taken.size("D"), taken.size("B")
    page = _page_size(taken, kv_cache, width)
    taken.take(
        "kv_cache", kv_cache, ("NB", *{2: (page * (width + 4),), 3: ("P", width + 4), 4: ("P", 1, width + 4)}[kv_cache.dim()]), BYTES
    )
    count = taken.size("X") if queries else 1
    if taken.axes("weights", weights, 2, 3) == 3:
        taken.take("weights", weights, ("B", count, "H"), F32)
    else:
        taken.take("weights", weights, (batch * count, "H"), F32)
    taken.take("context_lens", context_lens, ("B",), I32)
    taken.take("block_table", block_table, ("B", "W"), I32)
    if max_context_len < 0 or max_context_len > taken.size("W") * page:
        raise taken.error(
            "NSA0514",
            f"max_context_len is {max_context_len}, and 'block_table' names {taken.size('W')} pages of {page} tokens for each request",
        )
    return torch.empty((batch * count, max_context_len), dtype=torch.float32, device=q.device)


def _paged_run(
    q: Tensor, kv_cache: Tensor, weights: Tensor, context_lens: Tensor, block_table: Tensor, max_context_len: int, clean: bool, backend: str
) -> Tensor:
    out = _paged_empty(q, kv_cache, weights, context_lens, block_table, max_context_len, clean, backend)
    if q.dim() == 3:
        q = q.unsqueeze(1)
    batch, queries = q.shape[:2]
    page = kv_cache.shape[1] if kv_cache.dim() > 2 else kv_cache.shape[1] // (q.shape[-1] + 4)
    launch(
        "paged_mqa_logits",
        "paged_mqa_logits",
        backend,
        q=q,
        cache=bytes_of("paged_mqa_logits", kv_cache, 1),
        w=weights if weights.dim() == 3 else weights.view(batch, queries, weights.shape[-1]),
        lengths=context_lens,
        table=block_table,
        out=out.view(batch, queries, max_context_len),
        L=max_context_len,
        P=page,
        clean=clean,
    )
    return out


def bytes_of(operator: str, cache: Tensor, kept: int) -> Tensor:
    """A cache as u8, the axes after the first ``kept`` folded into one. Raises NSA0515 where what they hold is not in one piece."""
    expected = 1
    for extent, stride in zip(reversed(cache.shape[kept:]), reversed(cache.stride()[kept:]), strict=True):
        if extent != 1 and stride != expected:
            where = "a page" if kept == 1 else "a token"
            raise Operands(operator).error(
                "NSA0515", f"the bytes of {where} of 'kv_cache' lie apart; it has strides {list(cache.stride())}"
            )
        expected *= extent
    folded = cache.as_strided((*cache.shape[:kept], expected), (*cache.stride()[:kept], 1))
    return folded if folded.dtype == torch.uint8 else folded.view(torch.uint8)


_paged = operator(
    "paged_mqa_logits(Tensor q, Tensor kv_cache, Tensor weights, Tensor context_lens, Tensor block_table, SymInt max_context_len, bool clean_logits, str backend)"
    " -> Tensor",
    _paged_run,
    _paged_empty,
)
