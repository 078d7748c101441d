"""nsalang.ops: results, folded and strided operands, what torch asks of an operator, tracing, and errors before any launch."""

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
from torch import Tensor

from nsalang import NsaError, ops

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


# One rounding of the output to bf16 is 1 in 256; the two tensors of act_quant are exact.
LOOSE = {
    "act_quant": reference.Bound(0.0, 0.0, 0.0),
    "matmul": reference.Bound(1e-6, 1 / 256, 5e-6),
}


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


# ---------------------------------------------------------------------------------------------------------------------------- GPU


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "tilelang"])
@pytest.mark.parametrize("made", [getattr(o, "values", (o,))[0] for o in OPERATORS])
def test_on_a_gpu(made: Callable[[], tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]], backend: str) -> None:
    """The same results there, in an eager call and replayed from a CUDA graph after the inputs have changed and changed back."""
    operator, args, wanted = made()
    given = [a.cuda() if isinstance(a, Tensor) else backend if a == BACKEND else a for a in args]
    bound = LOOSE.get(made.__name__, reference.PREFILL)

    def check(found: Any) -> None:
        for one, other in zip((found,) if isinstance(found, Tensor) else found, wanted, strict=True):
            good(reference.wide(one.cpu()), reference.wide(other), bound)

    check(operator(*given))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = operator(*given)
    tensors = [(t, t.clone()) for t in given if isinstance(t, Tensor)]
    for tensor, _ in tensors:
        tensor.view(U8).zero_()
    graph.replay()
    for tensor, kept in tensors:
        tensor.copy_(kept)
    graph.replay()
    torch.cuda.synchronize()
    check(captured)


# -------------------------------------------------------------------------------------------------------------------------- errors

q4, rows, index = values(2, 3, 4, 48), values(20, 48), chosen(2, 3, 8, rows=20)
q8, k8 = values(3, 8, 32, dtype=E4M3), values(9, 32, dtype=E4M3)
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
