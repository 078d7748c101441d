"""The operators of nsalang.ops against references in torch: every form of their operands, tracing, autograd, errors."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references as reference
import torch
from operator_cases import (
    BACKEND,
    BF16,
    E4M3,
    FUNCTIONS,
    LOOSE,
    OPERATORS,
    U8,
    apart,
    attention,
    fp8_index,
    good,
    i32,
    index,
    paged_mqa_logits,
    q4,
    rows,
    sparse_mla,
    sparse_mla_decode,
    sparse_mla_fp8_decode,
    values,
)
from torch import Tensor

from nsalang import NsaError, ops


@pytest.fixture
def comparable(monkeypatch: pytest.MonkeyPatch) -> None:
    """opcheck looks by ``torch.allclose`` whether inputs have changed, which torch does not have for fp8: bytes compare instead."""
    plain = torch.allclose

    def allclose(a: Tensor, b: Tensor, *args: Any, **options: Any) -> bool:
        return torch.equal(a.view(U8), b.view(U8)) if a.dtype == E4M3 else plain(a, b, *args, **options)

    monkeypatch.setattr(torch, "allclose", allclose)


@pytest.mark.usefixtures("comparable")
@pytest.mark.parametrize("made", OPERATORS)
def test_operator(made: Callable[[], tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]]) -> None:
    operator, args, wanted = made()
    found = operator(*args)
    found = (found,) if isinstance(found, Tensor) else found
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        good(reference.wide(one), reference.wide(other), LOOSE.get(made.__name__, reference.PREFILL))
    assert set(torch.library.opcheck(operator, args).values()) == {"SUCCESS"}


def test_names() -> None:
    assert set(ops.__all__) == {getattr(o, "values", (o,))[0].__name__ for o in OPERATORS}
    assert all(function.__doc__ for function in FUNCTIONS.values())
    with pytest.raises(AttributeError, match="no attribute 'softmax'"):
        _ = ops.softmax  # type: ignore[attr-defined]


def test_import_is_lazy() -> None:
    code = "import sys, nsalang.ops; assert 'torch' not in sys.modules; from nsalang.ops import act_quant; assert 'tilelang' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# ------------------------------------------------------------------------------------------------------------ folded, strided, cut


def test_act_quant_of_any_axes() -> None:
    x = values(2, 3, 4, 256)
    y, s = ops.act_quant(x, backend=BACKEND)
    for other in (apart(x), x.transpose(0, 1).contiguous().transpose(0, 1), x[..., :256]):
        y2, s2 = ops.act_quant(other, backend=BACKEND)
        assert torch.equal(y2.view(U8), y.view(U8)) and torch.equal(s2, s)
    row = ops.act_quant(x[0, 0, 0], backend=BACKEND)
    assert torch.equal(row[0].view(U8), y[0, 0, 0].view(U8)) and row[1].shape == (2,)
    assert ops.act_quant(x[:0], backend=BACKEND)[1].shape == (0, 3, 4, 2)
    rounded = ops.act_quant(x, scale_fmt="ue8m0", backend=BACKEND)[1]
    assert torch.equal(rounded, torch.exp2(torch.ceil(torch.log2(s.double()))).float())


def test_matmul_of_batches_and_transposes() -> None:
    a, b = values(2, 5, 16), values(2, 16, 7)
    wanted = reference.matmul(a, b)
    for left, right in ((a, b), (apart(a), b), (a, b.transpose(1, 2).contiguous().transpose(1, 2))):
        good(ops.matmul(left, right, backend=BACKEND), wanted, LOOSE["matmul"])
    good(ops.matmul(apart(a), b[0], backend=BACKEND), reference.matmul(a, b[0]), LOOSE["matmul"])


def test_indexer_without_and_with_a_batch() -> None:
    _, (q, w, k, k_scale, _), (wanted,) = fp8_index()
    assert reference.logits_complaint(ops.fp8_index(q[1], w[1], k[1], k_scale[1], backend=BACKEND), wanted[1]) == ""
    first, last = i32([0, 2, 5], [1, 1, 1]), i32([4, 9, 5], [9, 2, 0])
    each = torch.stack([reference.mqa_logits(q[b], k[b], k_scale[b], w[b], first[b], last[b]) for b in (0, 1)])
    assert reference.logits_complaint(ops.mqa_logits(q, (k, k_scale), w, first, last, backend=BACKEND), each) == ""
    shared = torch.stack([reference.mqa_logits(q[b], k[0], k_scale[0], w[b], first[b], last[b]) for b in (0, 1)])
    for queries in (q, apart(q.view(U8)).view(E4M3)):
        found = ops.mqa_logits(queries, (k[0], k_scale[0]), w, first, last, backend=BACKEND)
        assert reference.logits_complaint(found, shared) == ""


def test_forms_of_a_paged_cache() -> None:
    _, args, (wanted,) = paged_mqa_logits()
    q, cache, w, lengths, table, *_ = args
    padded = torch.zeros(3, 400, dtype=U8)
    padded[:, :288] = cache.view(3, 288)
    for form in (
        cache.view(3, 288),
        cache.view(3, 8, 36),
        cache.view(E4M3),
        cache.view(torch.int8),
        padded[:, :288],
        padded[:, :288].view(3, 8, 1, 36),
    ):
        found = ops.paged_mqa_logits(q[:, 0], form, w, lengths, table, 15, True, backend=BACKEND)
        assert found.shape == (2, 15) and reference.logits_complaint(found, wanted) == ""


@pytest.mark.slow
def test_sparse_mla_of_batches() -> None:
    _, (q, kv, idx, scale, width, sink, length, limit, *_), _ = sparse_mla()
    queries, cut, ends, last = q.view(2, 2, 8, 48), idx.view(2, 2, 12), length.view(2, 2), limit.view(2, 2)
    options: dict[str, Any] = {"return_lse": True, "backend": BACKEND, "causal_limit": last}
    wanted = reference.sparse_mla(q, kv[:, 0], idx[:, 0], scale, length, limit, sink, width=width)
    for some in (queries, apart(queries)):
        o, lse = ops.sparse_mla(some, kv[:, 0], cut, scale, width, sink, ends, **options)
        good(o, wanted[0].view(2, 2, 8, 32))
        good(lse, wanted[1].view(2, 2, 8), reference.LSE)
    many = torch.stack([kv, kv.flip(0)])
    o, lse = ops.sparse_mla(queries, many, cut[:, :, None], scale, width, sink, ends, **options)
    for b in (0, 1):
        each = reference.sparse_mla(queries[b], many[b, :, 0], cut[b], scale, ends[b], last[b], sink, width=width)
        good(o[b], each[0])
        good(lse[b], each[1], reference.LSE)
    base2 = ops.sparse_mla(queries, many, cut, scale, width, sink, ends, lse_base="2", **options)[1]
    assert torch.allclose(base2 * 0.6931471805599453, lse)


@pytest.mark.slow
def test_decode_of_one_token() -> None:
    _, (q, kv, idx, scale, width, sink, length, *_), (o, lse) = sparse_mla_decode()
    first = ops.sparse_mla_decode(
        q[:, 0], kv.view(20, 48), idx[:, 0], scale, width, sink, length, num_splits=2, return_lse=True, backend=BACKEND
    )
    good(first[0], o[:, 0])
    good(first[1], lse[:, :, 0], reference.LSE)
    with pytest.raises(NsaError, match="lie apart"):
        ops.sparse_mla_decode(q, apart(kv), idx, scale, width, sink, length, num_splits=2, backend=BACKEND)
    assert ops.sparse_mla_decode(q, kv, idx, scale, width, backend=BACKEND).shape == (2, 2, 8, 32)


@pytest.mark.slow
def test_an_fp8_cache_with_gaps() -> None:
    """Pages and tokens lie at any strides that keep f32 aligned."""
    operator, (q, cache, *rest), wanted = sparse_mla_fp8_decode()
    for token, page in ((656, 4 * 656 + 16), (672, 4 * 672), (700, 4 * 700)):
        held = torch.zeros(3 * page, dtype=U8).as_strided((3, 4, 1, 656), (page, token, 656, 1)).copy_(cache)
        for found, other in zip(operator(q, held, *rest), wanted, strict=True):
            good(reference.wide(found), reference.wide(other))
    odd = torch.zeros(3 * 4 * 657, dtype=U8).as_strided((3, 4, 1, 656), (4 * 657, 657, 657, 1))
    with pytest.raises(NsaError, match="NSA0521"):
        operator(q, odd, *rest)


# ------------------------------------------------------------------------------------------------------------------------ tracing


def test_compiled() -> None:
    _, (q, k, v, *_), (o, lse) = attention()

    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=True)
    def step(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        found, sums = ops.attention(q, k, v, causal=True, return_lse=True, backend=BACKEND)
        return found * 2, sums

    for count in (5, 4):
        found, sums = step(q[:, 5 - count :], k, v)
        good(found / 2, o[:, 5 - count :])
        good(sums, lse[:, :, 5 - count :], reference.LSE)


def test_shapes_without_memory() -> None:
    bf16: dict[str, Any] = {"dtype": BF16, "device": "meta"}
    ints: dict[str, Any] = {"dtype": torch.int32, "device": "meta"}
    q, kv = torch.empty(4096, 128, 576, **bf16), torch.empty(8192, 1, 576, **bf16)
    o, lse = ops.sparse_mla(q, kv, torch.empty(4096, 1, 2048, **ints), return_lse=True)
    assert o.shape == (4096, 128, 512) and lse.shape == (4096, 128) and o.dtype == BF16 and o.device.type == "meta"
    cache = torch.empty(10, 64, 1, 656, dtype=U8, device="meta")
    o, lse = ops.sparse_mla_fp8_decode(torch.empty(2, 3, 16, 576, **bf16), cache, torch.empty(2, 3, 64, **ints), return_lse=True)
    assert o.shape == (2, 3, 16, 512) and lse.shape == (2, 16, 3)
    o, lse = ops.sparse_mla_decode(torch.empty(2, 3, 16, 576, **bf16), kv, torch.empty(2, 3, 64, **ints), return_lse=True)
    assert lse.shape == (2, 16, 3) and lse.stride() == (48, 1, 16)


@pytest.mark.parametrize("made", [attention, sparse_mla, sparse_mla_decode, sparse_mla_fp8_decode])
def test_an_lse_is_allocated_only_if_asked_for(
    made: Callable[[], tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_lse, args, _ = made()
    meta = [a.to("meta") if isinstance(a, Tensor) else a for a in args]
    plain, allocated = torch.empty, []

    def empty(*shape: Any, **options: Any) -> Tensor:
        allocated.append(plain(*shape, **options))
        return allocated[-1]

    monkeypatch.setattr(torch, "empty", empty)
    o = getattr(torch.ops.nsalang, made.__name__).default(*meta)
    assert [a.shape for a in allocated] == [o.shape] and with_lse(*meta)[0].shape == o.shape
    assert len(allocated) == 3


def test_whole_graphs() -> None:
    """Every public function traces without a break; on meta tensors, so that nothing is compiled but the graph."""

    def all_of_them(x: Tensor, q: Tensor, q8: Tensor, cache: Tensor, indices: Tensor, w: Tensor, lengths: Tensor) -> list[Tensor]:
        o, lse = ops.sparse_mla(q, q[0, :, 0], indices, return_lse=True, lse_base="2")
        decoded = ops.sparse_mla_fp8_decode(q, cache, indices, topk_length=lengths)
        again, _ = ops.sparse_mla_decode(q, q[0, :, 0], indices, attn_sink=w[0, 0], return_lse=True)
        key, scales = ops.act_quant(x, 64, "ue8m0")
        logits = ops.mqa_logits(q8, (key[0], scales[0, :, 0]), w, lengths[:, None].expand(w.shape[:2]), indices[:, :, 0])
        paged = ops.paged_mqa_logits(q8, cache[:, :, 0, :68], w.flatten(0, 1), lengths, indices[:, 0], 40)
        batched = ops.fp8_index(q8, w, key, scales[..., 0])
        sunk = ops.sparse_mqa_sink(q, q[:, :, 0], w[0, 0], indices)
        product = ops.matmul(x, x.transpose(1, 2))
        dense = ops.attention(q, q, q, causal=True)
        return [o, lse, decoded, again, logits, paged, batched, sunk, product, dense]

    meta: dict[str, Any] = {"device": "meta"}
    args = (
        torch.empty(2, 3, 64, dtype=BF16, **meta),
        torch.empty(2, 3, 4, 576, dtype=BF16, **meta),
        torch.empty(2, 3, 4, 64, dtype=E4M3, **meta),
        torch.empty(5, 8, 1, 656, dtype=U8, **meta),
        torch.empty(2, 3, 16, dtype=torch.int32, **meta),
        torch.empty(2, 3, 4, **meta),
        torch.empty(2, dtype=torch.int32, **meta),
    )
    wanted = all_of_them(*args)
    for dynamic in (False, True):
        found = torch.compile(all_of_them, fullgraph=True, backend="aot_eager", dynamic=dynamic)(*args)
        assert [(f.shape, f.stride(), f.dtype) for f in found] == [(w.shape, w.stride(), w.dtype) for w in wanted]


def test_numbers_of_other_kinds() -> None:
    """Whatever torch takes for a number is taken."""
    found = ops.sparse_mla(q4, rows, index, np.float64(0.2), np.int64(32))
    assert isinstance(found, Tensor) and torch.equal(found, ops.sparse_mla(q4, rows, index, 0.2, 32))


@pytest.mark.parametrize("return_lse", [False, True])
def test_there_is_no_gradient_yet(return_lse: bool) -> None:
    q = values(1, 3, 2, 16).requires_grad_()
    found = ops.attention(q, q, q, return_lse=return_lse)
    loss = found[1].sum() if isinstance(found, tuple) else found.float().sum()
    with pytest.raises(NsaError, match=r"NSA0403\]: nsalang\.ops\.attention has no gradient yet"):
        loss.backward()
    with torch.no_grad():
        assert isinstance(plain := ops.attention(q, q, q), Tensor) and not plain.requires_grad


# ------------------------------------------------------------------------------------------------------------------------- README


def test_readme() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    block = re.search(r"## Operators\n.*?```python\n(.*?)```", text, re.DOTALL)
    assert block
    names: dict[str, Any] = {}
    exec(block[1], names)
    good(names["o"], reference.sparse_mla(names["q"], names["kv"][:, 0], names["indices"][:, 0], 96**-0.5, width=64)[0])
    assert names["y"].dtype == E4M3 and names["s"].shape == (4, 4)
    assert all(name in text for name in ops.__all__)
