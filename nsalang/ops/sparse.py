"""Operators of sparse attention over a latent cache, for many tokens: prefill."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nsalang.base.source import NsaError
from nsalang.ops.dense import scale_of
from nsalang.ops.indexer import F32, I32
from nsalang.ops.operator import FLOATS, Operands, launch, operator, operator_with_lse, pieces, without_group

BF16 = (torch.bfloat16,)

# -------------------------------------------------------------------------------------------------------------------- sparse_mla


def sparse_mla(
    q: Tensor,
    kv: Tensor,
    indices: Tensor,
    sm_scale: float | None = None,
    d_v: int = 512,
    attn_sink: Tensor | None = None,
    topk_length: Tensor | None = None,
    *,
    causal_limit: Tensor | None = None,
    lse_base: str = "e",
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Sparse attention over a latent cache: of row t, all E values are the key and the first ``d_v`` the value.

    q: bf16 [S, H, E]; kv: bf16 [T, E] or [T, 1, E]; indices: i32 [S, K] or [S, 1, K]; attn_sink: f32 [H]; topk_length and causal_limit: i32 [S].
    With a batch: q [B, S, H, E], indices [B, S, K] or [B, S, 1, K], topk_length and causal_limit [B, S]; kv [B, T, E] or [B, T, 1, E], with one
    launch for each of B, or [T, E] for all. An index t counts where 0 <= t < T, it stands before topk_length[s], and t <= causal_limit[s]; the rows
    of others are never read. ``sm_scale`` is E ** -0.5 where left out.

    Returns o, bf16 [S, H, d_v] or [B, S, H, d_v]; with ``return_lse`` also the log-sum-exp of the scaled scores, f32 [S, H] or [B, S, H], natural or with
    ``lse_base="2"`` base 2, without the sink. The sink adds exp(attn_sink[h]) to the denominator of o. A row without an index that counts: o = 0,
    lse = +inf. Weights are rounded to bf16 before they meet the values, and not in their sum. As ``flash_mla_sparse_fwd`` of FlashMLA, and
    ``sparse_mla_fwd`` of TileLang's examples.
    """
    base = lse_unit(lse_base)
    return _sparse_mla(return_lse, q, kv, indices, sm_scale, d_v, attn_sink, topk_length, causal_limit, base, backend)


def lse_unit(base: str) -> float:
    """What a base-2 logarithm is multiplied by: ln 2 for base e, 1 for base 2. Raises NSA0516."""
    if base not in ("e", "2"):
        raise NsaError.at("NSA0516", f"lse_base takes 'e' or '2', not {base!r}")
    return math.log(2) if base == "e" else 1.0


def check_width(taken: Operands, q: Tensor, d_v: int) -> None:
    """Raises NSA0514 for a width of the values that no row of keys has."""
    if not 0 < d_v <= q.shape[-1]:
        raise taken.error("NSA0514", f"d_v is {d_v}; it lies between 1 and the width of 'q', which is {q.shape[-1]}")


def _sparse_mla_empty(
    wants_lse: bool,
    q: Tensor,
    kv: Tensor,
    indices: Tensor,
    sm_scale: float | None,
    d_v: int,
    attn_sink: Tensor | None,
    topk_length: Tensor | None,
    causal_limit: Tensor | None,
    lse_unit: float,
    backend: str,
) -> tuple[Tensor, Tensor | None]:
    taken = Operands("sparse_mla")
    leading = ("B", "S") if taken.axes("q", q, 3, 4) == 4 else ("S",)
    taken.take("q", q, (*leading, "H", "E"), BF16)
    grouped = taken.axes("indices", indices, len(leading) + 1, len(leading) + 2) > len(leading) + 1
    taken.take("indices", indices, (*leading, 1, "K") if grouped else (*leading, "K"), I32)
    taken.take("attn_sink", attn_sink, ("H",), F32)
    taken.take("topk_length", topk_length, leading, I32)
    taken.take("causal_limit", causal_limit, leading, I32)
    check_width(taken, q, d_v)
    if len(leading) == 1:
        taken.take("kv", kv, ("T", "E") if taken.axes("kv", kv, 2, 3) == 2 else ("T", 1, "E"), BF16)
    else:
        taken.take("kv", kv, {2: ("T", "E"), 3: ("B", "T", "E"), 4: ("B", "T", 1, "E")}[taken.axes("kv", kv, 2, 3, 4)], BF16)
    o = torch.empty((*q.shape[:-1], d_v), dtype=q.dtype, device=q.device)
    return o, torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device) if wants_lse else None


def _sparse_mla_run(
    o: Tensor,
    lse: Tensor | None,
    q: Tensor,
    kv: Tensor,
    indices: Tensor,
    sm_scale: float | None,
    d_v: int,
    attn_sink: Tensor | None,
    topk_length: Tensor | None,
    causal_limit: Tensor | None,
    lse_unit: float,
    backend: str,
) -> None:
    if q.dim() == 4 and kv.dim() > 2:
        for b in range(q.shape[0]):
            length, limit = None if topk_length is None else topk_length[b], None if causal_limit is None else causal_limit[b]
            lse_b = None if lse is None else lse[b]
            _sparse_mla_run(o[b], lse_b, q[b], kv[b], indices[b], sm_scale, d_v, attn_sink, length, limit, lse_unit, backend)
        return
    leading = q.dim() - 2
    cache = without_group(kv, 1, 3)
    chosen = without_group(indices, leading, leading + 2)
    scale = scale_of(sm_scale, q)
    for q_part, chosen_part, o_part, lse_part, length, limit in pieces(leading, q, chosen, o, lse, topk_length, causal_limit):
        launch(
            "sparse_mla",
            "sparse_mla",
            backend,
            q=q_part,
            kv=cache,
            idx=chosen_part,
            o=o_part,
            lse=lse_part,
            length=length,
            limit=limit,
            sink=attn_sink,
            scale=scale,
            D=d_v,
            R=q.shape[-1] - d_v,
            lse_unit=lse_unit,
        )


_sparse_mla = operator_with_lse(
    "sparse_mla(Tensor q, Tensor kv, Tensor indices, float? sm_scale, SymInt d_v, Tensor? attn_sink, Tensor? topk_length, Tensor? causal_limit,"
    " float lse_unit, str backend)",
    _sparse_mla_empty,
    _sparse_mla_run,
)

# --------------------------------------------------------------------------------------------------------------- sparse_mqa_sink


def sparse_mqa_sink(
    q: Tensor, kv: Tensor, attn_sink: Tensor, topk_idxs: Tensor, softmax_scale: float | None = None, *, backend: str = "auto"
) -> Tensor:
    """Sparse attention with a sink, key and value being one row of the cache.

    q: bf16 [B, S, H, D]; kv: bf16 [B, T, D]; topk_idxs: i32 [B, S, K]; all of them without B too; attn_sink: f32, bf16 or f16 [H], which is not
    scaled. An index t counts where 0 <= t < T; the rows of others are never read. ``softmax_scale`` is D ** -0.5 where left out. Returns o, as q:
    Σ exp(score) kv / (Σ exp(score) + exp(attn_sink[h])), and 0 for a row without an index that counts. As ``sparse_attn`` of DeepSeek-V4's
    inference code.
    """
    found: Tensor = _sink(q, kv, attn_sink, topk_idxs, softmax_scale, backend)
    return found


def _sink_empty(q: Tensor, kv: Tensor, attn_sink: Tensor, topk_idxs: Tensor, softmax_scale: float | None, backend: str) -> Tensor:
    taken = Operands("sparse_mqa_sink")
    batch = ("B",) if taken.axes("q", q, 3, 4) == 4 else ()
    taken.take("q", q, (*batch, "S", "H", "D"), BF16)
    taken.take("kv", kv, (*batch, "T", "D"), BF16)
    taken.take("attn_sink", attn_sink, ("H",), (*F32, *FLOATS))
    taken.take("topk_idxs", topk_idxs, (*batch, "S", "K"), I32)
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def _sink_run(q: Tensor, kv: Tensor, attn_sink: Tensor, topk_idxs: Tensor, softmax_scale: float | None, backend: str) -> Tensor:
    o = _sink_empty(q, kv, attn_sink, topk_idxs, softmax_scale, backend)
    scale, tensors = scale_of(softmax_scale, q), (q, kv, topk_idxs, o)
    q_all, kv_all, idx_all, o_all = (t[None] for t in tensors) if q.dim() == 3 else tensors
    launch("sparse_mqa_sink", "sparse_mqa_sink", backend, q=q_all, kv=kv_all, idx=idx_all, sink=attn_sink, o=o_all, scale=scale)
    return o


_sink = operator(
    "sparse_mqa_sink(Tensor q, Tensor kv, Tensor attn_sink, Tensor topk_idxs, float? softmax_scale, str backend) -> Tensor",
    _sink_run,
    _sink_empty,
)
