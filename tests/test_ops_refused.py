"""What the operators of nsalang.ops refuse, each with its code and its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from operator_cases import E4M3, U8, f32, i32, index, k8, q4, q8, rows, values

from nsalang import NsaError, ops

ERRORS: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "dtype": ("NSA0506", "'x' has dtype torch.float32; expected torch.bfloat16", lambda: ops.act_quant(f32(3, 128))),
    "group": ("NSA0514", "no multiple of block_size = 128", lambda: ops.act_quant(values(3, 100))),
    "inner": (
        "NSA0509",
        "axis 0 of 'b', which is [K, N], has extent 8; expected K = 16, as 'a' has it",
        lambda: ops.matmul(values(5, 16), values(8, 7)),
    ),
    "mixed": (
        "NSA0506",
        "'b' has dtype torch.float16; expected torch.bfloat16",
        lambda: ops.matmul(values(5, 16), values(16, 7, dtype=torch.float16)),
    ),
    "device": ("NSA0511", "'b' lies on device 'meta', and 'a' on 'cpu'", lambda: ops.matmul(values(5, 16), values(16, 7).to("meta"))),
    "heads": (
        "NSA0514",
        "'q' has 4 heads, and 'k' has 3",
        lambda: ops.attention(values(2, 5, 4, 16), values(2, 5, 3, 16), values(2, 5, 3, 16)),
    ),
    "values": ("NSA0509", "axis 1 of 'v'", lambda: ops.attention(values(2, 5, 4, 16), values(2, 5, 4, 16), values(2, 6, 4, 16))),
    "rank": (
        "NSA0508",
        "'q' has 2 axes, shape [5, 16]; expected 3 or 4",
        lambda: ops.attention(values(5, 16), values(5, 16), values(5, 16)),
    ),
    "index width": ("NSA0509", "axis 1 of 'k'", lambda: ops.fp8_index(q8, f32(3, 8), values(9, 16, dtype=E4M3), f32(9))),
    "weights": ("NSA0509", "expected H = 8", lambda: ops.mqa_logits(q8, (k8, f32(9)), f32(3, 4), i32(0, 0, 0), i32(9, 9, 9))),
    "pair": ("NSA0504", "'kv' is the pair of keys and their scales", lambda: ops.mqa_logits(q8, k8, f32(3, 8), i32(0, 0, 0), i32(9, 9, 9))),
    "long indices": ("NSA0506", "torch.int64; expected torch.int32", lambda: ops.sparse_mla(q4, rows, index.long(), d_v=32)),
    "indices": (
        "NSA0509",
        "axis 1 of 'indices', which is [B, S, K], has extent 2; expected S = 3",
        lambda: ops.sparse_mla(q4, rows, index[:, :2], d_v=32),
    ),
    "cache": (
        "NSA0509",
        "axis 1 of 'kv', which is [T, E], has extent 40; expected E = 48",
        lambda: ops.sparse_mla(q4, rows[:, :40], index, d_v=32),
    ),
    "value width": ("NSA0514", "d_v is 512", lambda: ops.sparse_mla(q4, rows, index)),
    "sink": ("NSA0509", "axis 0 of 'attn_sink'", lambda: ops.sparse_mla(q4, rows, index, d_v=32, attn_sink=f32(5))),
    "base": ("NSA0516", "lse_base takes 'e' or '2'", lambda: ops.sparse_mla(q4, rows, index, d_v=32, lse_base="10")),
    "splits": ("NSA0514", "num_splits is 0", lambda: ops.sparse_mla_decode(q4, rows, index, d_v=32, num_splits=0)),
    "length": ("NSA0509", "expected B = 2", lambda: ops.sparse_mla_decode(q4, rows, index, d_v=32, topk_length=i32(1, 2, 3))),
    "fp8 width": ("NSA0509", "expected 576", lambda: ops.sparse_mla_fp8_decode(q4, torch.zeros(2, 4, 1, 656, dtype=U8), index)),
    "fp8 token": (
        "NSA0509",
        "expected 656",
        lambda: ops.sparse_mla_fp8_decode(values(2, 3, 4, 576), torch.zeros(2, 4, 1, 576, dtype=U8), index),
    ),
    "page": (
        "NSA0509",
        "no multiple of the 36 of a token",
        lambda: ops.paged_mqa_logits(
            q8[:, None], torch.zeros(2, 100, dtype=U8), f32(3, 8), i32(1, 1, 1), torch.zeros(3, 1, dtype=torch.int32), 4
        ),
    ),
    "context": (
        "NSA0514",
        "max_context_len is 9",
        lambda: ops.paged_mqa_logits(
            q8[:, None], torch.zeros(2, 8, 1, 36, dtype=U8), f32(3, 8), i32(1, 1, 1), torch.zeros(3, 1, dtype=torch.int32), 9
        ),
    ),
    "array": (
        "NSA0504",
        "'a' is a value of type ndarray; expected a tensor",
        lambda: ops.matmul(values(5, 16).float().numpy(), values(16, 7)),
    ),
    "list": ("NSA0504", "'kv' is a value of type list; expected a tensor", lambda: ops.sparse_mla(q4, [rows], index, d_v=32)),
    "none": ("NSA0504", "'attn_sink' is None; expected a tensor", lambda: ops.sparse_mqa_sink(q4, rows[None], None, index)),
    "optional": ("NSA0504", "'topk_length' is a value of type int", lambda: ops.sparse_mla(q4, rows, index, d_v=32, topk_length=8)),
    "scale": ("NSA0504", "'sm_scale' is a value of type str; expected a number", lambda: ops.sparse_mla(q4, rows, index, "e")),
    "flag": ("NSA0504", "'causal' is a value of type str; expected True or False", lambda: ops.attention(q4, q4, q4, None, "no")),
    "scales": (
        "NSA0504",
        "'kv' is the pair of keys and their scales, two tensors",
        lambda: ops.mqa_logits(q8, (k8, 1.0), f32(3, 8), i32(0, 0, 0), i32(9, 9, 9)),
    ),
    "backend": ("NSA0607", "unknown backend 'cuda'", lambda: ops.matmul(values(5, 16), values(16, 7), backend="cuda")),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    code, sentence, call = ERRORS[name]
    with pytest.raises(NsaError) as raised:
        call()
    (found,) = raised.value.diagnostics
    assert found.code == code and sentence in found.sentence
