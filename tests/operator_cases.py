"""The operators with arguments that they take and what they are to give, made once for tests."""

from __future__ import annotations

from typing import Any

import pytest
import references as reference
import torch
from torch import Tensor

from nsalang import ops

BF16, E4M3, U8 = torch.bfloat16, torch.float8_e4m3fn, torch.uint8
BACKEND = "tilelang"
FUNCTIONS = {name: getattr(ops, name) for name in ops.__all__}
"""Taking one defines its operator."""


def values(*shape: int, dtype: torch.dtype = BF16, seed: int = 0, scale: float = 1.0) -> Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * scale
    return made.to(dtype)


def f32(*shape: int, seed: int = 0) -> Tensor:
    return values(*shape, dtype=torch.float32, seed=seed)


def i32(*numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def chosen(*shape: int, rows: int, seed: int = 0) -> Tensor:
    return reference.indices(shape, rows, torch.Generator().manual_seed(seed))


def apart(tensor: Tensor) -> Tensor:
    """The same numbers at strides with which leading axes cannot be folded, and no two neighbours in memory."""
    wider = torch.zeros([*tensor.shape[:-1], tensor.shape[-1] + 1], dtype=tensor.dtype)
    wider = torch.zeros([wider.shape[0], wider.shape[1] + 1, *wider.shape[2:]], dtype=tensor.dtype) if tensor.dim() > 2 else wider
    held = wider[:, : tensor.shape[1], ..., : tensor.shape[-1]] if tensor.dim() > 2 else wider[..., : tensor.shape[-1]]
    held.copy_(tensor)
    assert not held.is_contiguous()
    return held


def good(found: Tensor, wanted: Tensor, bound: reference.Bound = reference.PREFILL) -> None:
    assert reference.complaint(found, wanted, bound) == ""


def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """act_quant by torch: groups of 128."""
    groups = x.float().unflatten(-1, (-1, 128))
    scales = groups.abs().amax(-1).clamp(min=1e-4) * torch.tensor(1 / 448)
    return (groups / scales[..., None]).clamp(-448, 448).to(E4M3).flatten(-2), scales


# ------------------------------------------------------------------------------------------------------------------ every operator


def act_quant() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    x = values(2, 3, 256)
    return torch.ops.nsalang.act_quant.default, (x, 128, None, BACKEND), quantised(x)


def matmul() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    a, b = values(2, 5, 16), values(16, 7)
    return torch.ops.nsalang.matmul.default, (a, b, BACKEND), (reference.matmul(a, b),)


def attention() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    q, k, v = values(2, 5, 4, 16), values(2, 9, 2, 16, seed=1), values(2, 9, 2, 16, seed=2, scale=0.1)
    return torch.ops.nsalang.attention.lse, (q, k, v, None, True, BACKEND), reference.attention(q, k, v, 0.25, True)


def fp8_index() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    q, w, k, k_scale = values(2, 3, 8, 32, dtype=E4M3), f32(2, 3, 8), values(2, 9, 32, dtype=E4M3), f32(2, 9).abs()
    return torch.ops.nsalang.fp8_index.default, (q, w, k, k_scale, BACKEND), (reference.fp8_index(q, w, k, k_scale),)


def mqa_logits() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    q, k, k_scale, w = values(3, 8, 32, dtype=E4M3), values(9, 32, dtype=E4M3), f32(9).abs(), f32(3, 8)
    first, last = i32(0, 2, 5), i32(4, 9, 5)
    wanted = reference.mqa_logits(q, k, k_scale, w, first, last)
    return torch.ops.nsalang.mqa_logits.default, (q, k, k_scale, w, first, last, True, BACKEND), (wanted,)


def index_cache(pages: int, page: int, width: int) -> Tensor:
    keys, scales = values(pages, page * width, dtype=E4M3).view(U8), f32(pages, page).abs().view(U8)
    return torch.cat([keys, scales], dim=1)


def paged_mqa_logits() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    q, cache, w = values(2, 1, 8, 32, dtype=E4M3), index_cache(3, 8, 32), f32(2, 8)
    lengths, table = i32(5, 15), i32([2, -1], [0, 1])
    wanted = reference.paged_mqa_logits(q, cache, w[:, None], lengths, table, 15, 8).flatten(0, 1)
    args = (q, cache.view(3, 8, 1, 36), w, lengths, table, 15, True, BACKEND)
    return torch.ops.nsalang.paged_mqa_logits.default, args, (wanted,)


def sparse_mla() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    q, kv, idx, sink = values(4, 8, 48), values(20, 48, scale=0.1), chosen(4, 12, rows=20), f32(8)
    length, limit = i32(12, 0, 5, 99), i32(19, 19, 10, 3)
    wanted = reference.sparse_mla(q, kv, idx, 0.2, length, limit, sink, width=32)
    args = (q, kv[:, None], idx[:, None], 0.2, 32, sink, length, limit, 0.6931471805599453, BACKEND)
    return torch.ops.nsalang.sparse_mla.lse, args, wanted


def sparse_mla_decode() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    q, kv, idx, sink, length = values(2, 2, 8, 48), values(5, 4, 1, 48, scale=0.1), chosen(2, 2, 12, rows=20), f32(8), i32(12, 5)
    wanted = reference.sparse_mla(q.flatten(0, 1), kv.view(20, 48), idx.flatten(0, 1), 0.2, i32(12, 12, 5, 5), None, sink, width=32)
    args = (q, kv, idx, 0.2, 32, sink, length, 2, 0.6931471805599453, BACKEND)
    return torch.ops.nsalang.sparse_mla_decode.lse, args, (wanted[0].view(2, 2, 8, 32), wanted[1].view(2, 2, 8).transpose(1, 2))


def sparse_mla_fp8_decode() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    q, cache, idx = values(2, 1, 4, 576), reference.packed(values(12, 576, scale=0.1)).view(3, 4, 1, 656), chosen(2, 1, 10, rows=12)
    sink, length = f32(4), i32(10, 3)
    wanted = reference.sparse_mla_fp8(q, cache.view(3, 4, 656), idx, 576**-0.5, length, sink)
    args = (q, cache, idx, None, sink, length, 2, 0.6931471805599453, BACKEND)
    return torch.ops.nsalang.sparse_mla_fp8_decode.lse, args, wanted


def sparse_mqa_sink() -> tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]:
    q, kv, sink, idx = values(2, 3, 8, 32), values(2, 20, 32, scale=0.1), f32(8), chosen(2, 3, 12, rows=20)
    return torch.ops.nsalang.sparse_mqa_sink.default, (q, kv, sink, idx, 0.2, BACKEND), (reference.sparse_mqa_sink(q, kv, idx, sink, 0.2),)


OPERATORS: list[Any] = [
    act_quant,
    matmul,
    attention,
    fp8_index,
    mqa_logits,
    paged_mqa_logits,
    sparse_mla,
    pytest.param(sparse_mla_decode, marks=pytest.mark.slow),
    pytest.param(sparse_mla_fp8_decode, marks=pytest.mark.slow),
    sparse_mqa_sink,
]


# One rounding of the output to bf16 is 1 in 256; the two tensors of act_quant are exact.
LOOSE = {
    "act_quant": reference.Bound(0.0, 0.0, 0.0),
    "matmul": reference.Bound(1e-6, 1 / 256, 5e-6),
}


q4, rows, index = values(2, 3, 4, 48), values(20, 48), chosen(2, 3, 8, rows=20)
q8, k8 = values(3, 8, 32, dtype=E4M3), values(9, 32, dtype=E4M3)
