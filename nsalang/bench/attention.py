"""Families of the GPU run that are limited by arithmetic: contractions, dense and sparse attention, the indexer. The sizes, the count of operations
and the way of timing are those of peers.py, so that rates can be divided by the peers' in one run."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsalang.base.source import NsaError
from nsalang.bench.families import Row, load_kernel
from nsalang.toolchain.backends import BACKENDS

if TYPE_CHECKING:
    from torch import Tensor

MATMULS = (8192, 4096)
DENSE = ((4, 16, 4096, 128), (1, 32, 16384, 128))
SPARSE = ((4096, 8192, 128, 2048), (4096, 8192, 64, 2048), (4096, 8192, 16, 2048), (64, 32768, 16, 2048))
INDEXER = ((4096, 8192, 64, 128), (8192, 65536, 64, 128), (2048, 8192, 32, 64))
DECODE = ((128, 2, 32768, 128, 2048), (16, 1, 65536, 128, 2048))
FEW_TOKENS = 256
"""Below so many tokens the split kernel is measured too."""
PARTS = (2, 4, 8)
CLOSE = 7e-6
"""1 - 2 sum(xy) / sum(x² + y²) of the rows that are compared, at most: a wrong kernel has no speed."""
SAMPLED = 8

PEERS: Mapping[str, str] = {"matmul": "ceilings", "attention": "dense", "sparse_mla": "attention", "indexer": "indexer", "decode": "decode"}
"""The family of peers.py that has our family's cases."""


def median_us(call: Callable[[], object]) -> float:
    """As peers.py times itself: CUDA events, the L2 cache emptied before each call."""
    from triton.testing import do_bench

    return float(do_bench(call, warmup=30, rep=150, return_mode="median")) * 1e3


def rates(
    family: str,
    name: str,
    case: Sequence[object],
    work: float,
    arguments: Mapping[str, Any],
    outputs: Mapping[str, Tensor],
    at: tuple[Tensor | int, ...],
    wanted: Tensor,
    note: str = "",
) -> Iterator[Row]:
    """A row for each backend. ``work``: operations of a call; the first output is compared with ``wanted`` ``at`` some rows."""
    kernel = load_kernel(name)
    for backend in BACKENDS:
        row: Row = {"family": family, "kernel": name + note, "case": list(case), "backend": backend}

        def call(backend: str = backend) -> object:
            return kernel(**arguments, **outputs, backend=backend)

        try:
            start = time.perf_counter()
            call()
            first = time.perf_counter() - start
            away = distance(next(iter(outputs.values()))[at], wanted)
            us = median_us(call)
        except NsaError as error:
            yield {**row, "ok": False, "failed": error.diagnostics[0].sentence}
            continue
        right = away <= CLOSE
        if not right:
            yield {**row, "ok": False, "failed": f"wrong: 1 - 2xy/(xx + yy) is {away:.3g}", "distance": away, "us": us}
            continue
        yield {**row, "ok": True, "distance": away, "us": us, "tflops": work / us / 1e6, "method": "do_bench", "first_call_s": first}


def distance(found: Tensor, wanted: Tensor) -> float:
    """1 - 2 sum(xy) / sum(x² + y²); 1 where anything found is not finite."""
    import torch

    x, y = found.double(), wanted.double()
    if not bool(torch.isfinite(x).all()):
        return 1.0
    return float(1 - 2 * (x * y).sum() / (x * x + y * y).sum())


def sample(count: int) -> Tensor:
    """Some rows of so many, the first and the last among them."""
    import torch

    return torch.linspace(0, count - 1, min(SAMPLED, count), device="cuda").long()


def matmul() -> Iterator[Row]:
    """2 N³ operations; torch's own at the size that peers.py does not have."""
    import torch

    for n in MATMULS:
        torch.manual_seed(0)
        a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        c, at = torch.empty_like(a), sample(n)
        yield from rates("matmul", "matmul", [n], 2.0 * n**3, {"a": a, "b": b}, {"c": c}, (at,), a[at].double() @ b.double())
        if n != MATMULS[0]:
            us = median_us(functools.partial(torch.matmul, a, b))
            own = {"of": "peers", "family": "ceilings", "peer": "torch bf16 matmul", "case": [n]}
            yield {**own, "ms": us / 1e3, "tflops": 2.0 * n**3 / us / 1e6}


def attention() -> Iterator[Row]:
    """Causal: half of 4 B H S² D operations, as peers.py counts."""
    import torch

    for b, h, s, d in DENSE:
        torch.manual_seed(0)
        q, k, v = (torch.randn(b, s, h, d, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        o, at = torch.empty_like(q), sample(s)
        scores = torch.einsum("shd,thd->hst", q[0, at].double(), k[0].double()) * d**-0.5
        scores = scores.masked_fill(torch.arange(s, device="cuda") > at[:, None], float("-inf"))
        wanted = torch.einsum("hst,thd->shd", torch.softmax(scores, -1), v[0].double())
        given = {"q": q, "k": k, "v": v, "scale": d**-0.5, "causal": True}
        work = 2.0 * b * h * s * s * d
        yield from rates("attention", "attention", [b, h, s, d, "causal"], work, given, {"o": o}, (0, at), wanted)


def sparse_mla() -> Iterator[Row]:
    """2 S H K (576 + 512) operations; where tokens are few, the kernel that splits the indices too."""
    import torch

    for s, t, h, k in SPARSE:
        torch.manual_seed(0)
        q, kv = (torch.randn(*shape, 576, device="cuda", dtype=torch.bfloat16) for shape in ((s, h), (t,)))
        idx = torch.argsort(torch.rand(s, t, device="cuda"), dim=1)[:, :k].to(torch.int32).contiguous()
        o, lse, at = torch.empty(s, h, 512, device="cuda", dtype=torch.bfloat16), torch.empty(s, h, device="cuda"), sample(s)
        wanted, work = _attended(q[at], kv[idx[at].long()]), 2.0 * s * h * k * 1088
        given: dict[str, Any] = {"q": q, "kv": kv, "idx": idx, "scale": 576**-0.5}
        outputs = {"o": o, "lse": lse}
        yield from rates("sparse_mla", "sparse_mla", [s, t, h, k], work, given, outputs, (at,), wanted)
        for parts in PARTS if s < FEW_TOKENS else ():
            split = {**given, "P": parts}
            yield from rates("sparse_mla", "sparse_mla_decode", [s, t, h, k], work, split, outputs, (at,), wanted, f" P={parts}")


def _attended(q: Tensor, keys: Tensor) -> Tensor:
    """q [S, H, 576] over keys [S, K, 576], of which the first 512 are the value."""
    import torch

    scores = torch.einsum("shd,skd->shk", q.double(), keys.double()) * 576**-0.5
    return torch.einsum("shk,skd->shd", torch.softmax(scores, -1), keys[..., :512].double())


def indexer() -> Iterator[Row]:
    """2 S T H D operations, every token against every key; unclean, as the peers."""
    import torch

    for s, t, h, d in INDEXER:
        torch.manual_seed(0)
        q, k = (torch.randn(*n, d, device="cuda").to(torch.float8_e4m3fn) for n in ((s, h), (t,)))
        scale, w = torch.rand(t, device="cuda"), torch.randn(s, h, device="cuda")
        first, last = torch.zeros(s, dtype=torch.int32, device="cuda"), torch.full((s,), t, dtype=torch.int32, device="cuda")
        out, at = torch.empty(s, t, device="cuda"), sample(s)
        products = torch.einsum("shd,td->sht", q[at].float().double(), k.float().double()).relu()
        wanted = torch.einsum("sht,sh->st", products, w[at].double()) * scale.double()
        given = {"q": q, "k": k, "k_scale": scale, "w": w, "first": first, "last": last, "clean": False}
        yield from rates("indexer", "mqa_logits", [s, t, h, d], 2.0 * s * t * h * d, given, {"out": out}, (at,), wanted)


def decode() -> Iterator[Row]:
    """The 656-byte cache: 2 B X H K (576 + 512) operations, the indices in one part and in several."""
    import torch

    for b, x, t, h, k in DECODE:
        torch.manual_seed(0)
        q = torch.randn(b, x, h, 576, device="cuda", dtype=torch.bfloat16)
        cache = torch.zeros(t // 64, 64, 656, device="cuda", dtype=torch.uint8)
        values = torch.randn(t // 64, 64, 512, device="cuda").to(torch.float8_e4m3fn)
        cache[..., :512] = values.view(torch.uint8)
        cache[..., 512:528] = torch.ones(t // 64, 64, 4, device="cuda").view(torch.uint8)
        idx = torch.randint(0, t, (b, x, k), device="cuda", dtype=torch.int32)
        o, lse, at = torch.empty(b, x, h, 512, device="cuda", dtype=torch.bfloat16), torch.empty(b, h, x, device="cuda"), sample(b)
        keys = torch.nn.functional.pad(values.float().reshape(t, 512), (0, 64))
        wanted = _attended(q[at, 0], keys[idx[at, 0].long()])
        for parts in (1, *PARTS):
            given = {"q": q, "cache": cache, "idx": idx, "scale": 576**-0.5, "G": parts}
            outputs, work = {"o": o, "lse": lse}, 2.0 * b * x * h * k * 1088
            yield from rates("decode", "sparse_mla_fp8", [b, x, t, h, k], work, given, outputs, (at, 0), wanted, f" G={parts}")


FAMILIES: dict[str, Callable[[], Iterator[Row]]] = {f.__name__: f for f in (matmul, attention, sparse_mla, indexer, decode)}
