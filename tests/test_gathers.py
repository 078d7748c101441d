"""Gathers under guards, pages, views of bytes, scatters, atomic additions, searches and splits: both backends do what the interpreter does, bit for bit."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from staged import check as check_passes
from staged import typed

import nsalang
from nsalang import ir
from nsalang.base.target import parse_target
from nsalang.build.compiled import compile_kernel
from nsalang.build.pipeline import Choice, Meaning
from nsalang.launch import launcher as launch
from nsalang.passes import expand
from nsalang.toolchain.backends import BACKENDS

FILE = Path(__file__).parent / "cases" / "gathers.nsa"
K = nsalang.load(FILE)
Inputs = dict[str, Any]


def whole(*shape: int, low: int = -8, high: int = 9) -> torch.Tensor:
    """Whole numbers as f32, whose sums are exact in any order."""
    return torch.randint(low, high, shape).float()


def i32(*shape: int, low: int, high: int) -> torch.Tensor:
    return torch.randint(low, high, shape, dtype=torch.int32)


def far(t: torch.Tensor) -> torch.Tensor:
    """Some indices far outside, whose offsets would leave 32 and 64 bits."""
    t.view(-1)[::3] = torch.iinfo(t.dtype).max
    t.view(-1)[1::5] = torch.iinfo(t.dtype).min
    return t


def slots(count: int, of: int) -> torch.Tensor:
    found = torch.randperm(of)[:count]
    found[::4] = -1
    return found


CASES: dict[str, Callable[[], Inputs]] = {
    "gather": lambda: {"x": torch.randn(11, 70), "idx": far(i32(37, low=-1, high=12))},
    "gather_branch": lambda: {"x": torch.randn(11, 70).bfloat16(), "idx": far(i32(9, low=-1, high=12))},
    "gather_wide": lambda: {"x": whole(7, 576), "idx": torch.randint(-2, 9, (13,)) + 10**12},
    "chosen": lambda: {"p": torch.rand(13, 40) < 0.5, "x": torch.randn(13)},
    "paged": lambda: {"table": far(i32(3, 4, low=-1, high=6)), "kv": torch.randn(5, 6, 20)},
    "paged_scores": lambda: {
        "q": whole(2, 24), "table": i32(2, 5, low=-1, high=7), "kv": whole(7, 16, 24).bfloat16(), "lengths": i32(2, low=20, high=90),
    },
    "tokens": lambda: {"cache": pages(6, 8), "slots": far(torch.randint(-1, 48, (30,)))},
    "put": lambda: {"cache": pages(5, 16), "slots": slots(23, 80), "x": torch.randn(23, 128)},
    "mark": lambda: {"idx": far(i32(300, low=-1, high=40)), "flags": torch.zeros(41, dtype=torch.int32)},
    "count": lambda: {
        "idx": far(i32(9, 70, low=-1, high=14)), "bins": i32(13, low=0, high=9), "total": torch.tensor([2**40]),
    },
    "add_rows": lambda: {"x": whole(40, 70), "idx": far(i32(40, low=-1, high=9)), "y": whole(8, 70)},
    "sums": lambda: {
        "x": whole(70, 90), "rows": whole(70), "columns": whole(90), "whole": whole(1), "bits": torch.zeros(1, dtype=torch.uint32),
    },
    "segments": lambda: {"cu": torch.tensor([0, 0, 5, 5, 30, 77, 77, 100], dtype=torch.int32), "x": whole(100)},
    "places": lambda: {"edges": torch.randn(19).sort().values, "x": torch.randn(7, 50)},
    "parts": lambda: {"x": whole(100), "G": 7},
}  # fmt: skip


def pages(blocks: int, tokens: int) -> torch.Tensor:
    """Pages of e4m3 rows of 128 and, behind them, an f32 scale for each row; rows of pages are apart in memory."""
    cache = torch.zeros(blocks, tokens * 132 + 64, dtype=torch.uint8)[:, : tokens * 132]
    cache[:, : tokens * 128] = torch.randn(blocks, tokens * 128).to(torch.float8_e4m3fn).view(torch.uint8)
    cache[:, tokens * 128 :] = torch.rand(blocks, tokens).view(torch.uint8)
    return cache


def copied(inputs: Inputs) -> Inputs:
    def one(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        new = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
        return new.copy_(value)

    return {name: one(value) for name, value in inputs.items()}


def outcome(inputs: Inputs, result: Any) -> list[torch.Tensor]:
    """All that a call left: its results, and what it was given."""
    results = result if isinstance(result, tuple) else () if result is None else (result,)
    return [t for t in (*results, *inputs.values()) if isinstance(t, torch.Tensor)]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def made(name: str) -> Inputs:
    torch.manual_seed(len(name))
    return CASES[name]()


def check(name: str, inputs: Inputs, backend: str, **options: Any) -> None:
    kernel = getattr(K, name)
    meant, given = copied(inputs), copied(inputs)
    wanted = outcome(meant, kernel.interpret(*_values(kernel, meant)))
    found = outcome(given, kernel(*_values(kernel, given), backend=backend, **options))
    for a, b in zip(wanted, found, strict=True):
        assert same_bits(a, b), f"{name} by {backend}"


def _values(kernel: Any, inputs: Inputs) -> list[Any]:
    order = [p.name for p in kernel.launcher.signature_without_constants().parameters if p.name in inputs]
    return [inputs[name] for name in order]


def test_every_kernel_has_a_case() -> None:
    assert set(CASES) == set(dir(K))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_backends_do_what_is_meant(name: str, backend: str) -> None:
    check(name, made(name), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["paged", "tokens", "add_rows", "places"])
def test_offsets_of_64_bits(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "needs_wide", lambda *_: True)
    monkeypatch.setattr(sys.modules[__name__], "K", nsalang.load(FILE))
    check(name, made(name), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_short_tiles(backend: str) -> None:
    """Many instances and turns of loops, each with atomic additions of its own."""
    check("sums", made("sums"), backend, schedule={"m": 8, "n": 16})
    check("segments", made("segments"), backend, schedule={"t": 16})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("extent", [0, 1, 2, 7, 8, 9, 1000])
def test_searches_in_tensors_of_every_length(extent: int, backend: str) -> None:
    edges = whole(extent, low=-5, high=5).sort().values if extent < 100 else torch.arange(extent).float() / 100 - 5
    inputs = {"edges": edges, "x": torch.cat((edges, edges + 0.5, torch.tensor([-6.0, 0.0, 6.0])))[None, :2000].clone()}
    y, low = K.places(**inputs, backend=backend)
    assert torch.equal(y[0], torch.searchsorted(edges, inputs["x"][0], right=True))
    assert low.tolist() == [int(torch.searchsorted(edges, 0.0, right=True))]


def compiled(name: str, target: str, backend: Any, **facts: bool) -> Any:
    kernel = getattr(K, name)
    signature = kernel.launcher.signature_without_constants()
    dims = dict.fromkeys(signature.specialised, 24)
    return compile_kernel(kernel.launcher.unit, Meaning.of(parse_target(target), {}, dims, frozenset()), Choice(backend, **facts))


TARGETS = ("cuda:sm_80", "cuda:sm_90", "hip:gfx942")


@pytest.mark.parametrize("name", ["tokens", "sums", "places"])
def test_triton_compiles(name: str) -> None:
    files = compiled(name, "cuda:sm_90", "triton").artifact
    assert files["kernel.cubin"].startswith(b"\x7fELF")
    assert name != "sums" or b"relaxed.add" in files["kernel.ptx"]


@pytest.mark.nvcc
@pytest.mark.parametrize("name", ["tokens", "sums"])
def test_tilelang_compiles(name: str) -> None:
    files = compiled(name, "cuda:sm_90", "tilelang").artifact
    assert files["kernel.cubin"].startswith(b"\x7fELF")
    assert name != "sums" or b"AtomicAddx4" in files["kernel.cu"]


@pytest.mark.slow
@pytest.mark.nvcc
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_everything_compiles(name: str, target: str) -> None:
    for facts in ({}, {"wide": True}, {"aligned": False}):
        for backend in BACKENDS if target == "cuda:sm_90" or not facts else BACKENDS[:1]:
            assert compiled(name, target, backend, **facts).artifact


def test_vectors_have_at_most_four_bools() -> None:
    """TileLang has no CUDA type for more; test_everything_compiles compiles it. Where nothing is aligned there are no vectors."""
    assert "T.Parallel(16, 256, coalesced_width=T.int32(4))" in compiled("chosen", "cuda:sm_90", "tilelang").source
    assert "coalesced_width" not in compiled("chosen", "cuda:sm_90", "tilelang", aligned=False).source
    assert "coalesced_width" not in compiled("gather", "cuda:sm_90", "tilelang").source


def test_an_addition_without_axes_is_made_by_one_thread() -> None:
    source = compiled("sums", "cuda:sm_90", "tilelang").source
    assert re.search(r"for \w+ in T\.Parallel\(1\):\n +T\.atomic_add\(whole\[0\]", source), source


def test_views_of_one_tensor_are_not_taken_for_different_memory() -> None:
    assert "T.annotate_restrict_buffers(values, scales)" in compiled("put", "cuda:sm_90", "tilelang").source
    assert "annotate_restrict" not in compiled("tokens", "cuda:sm_90", "tilelang").source


def test_a_view_that_the_layout_of_the_base_does_not_allow() -> None:
    inputs = made("tokens")
    inputs["cache"] = inputs["cache"].repeat(1, 2)[:, ::2]
    for call in (K.tokens, K.tokens.interpret):
        with pytest.raises(nsalang.NsaError) as caught:
            call(**inputs)
        (found,) = caught.value.diagnostics
        assert found.code == "NSA0521" and "scales" in found.sentence


def test_a_view_at_an_odd_address() -> None:
    cache = torch.zeros(6 * 1056 + 2, dtype=torch.uint8)[2:].view(6, 1056)
    with pytest.raises(nsalang.NsaError) as caught:
        K.tokens(cache, torch.zeros(3, dtype=torch.int64))
    (found,) = caught.value.diagnostics
    assert found.code == "NSA0521" and "begins at an address" in found.sentence


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "sums" else n for n in CASES])
def test_every_pass_keeps_the_meaning(name: str) -> None:
    """On real lanes and, from the masks on, on those of a machine with short tiles, where an access outside or an unfilled lane is a fault."""
    inputs = made(name)
    text = next(t for t in FILE.read_text(encoding="utf-8").split("\n\n\n") if t.startswith(f"def {name}("))
    _, bound, _ = getattr(K, name).launcher.bind(inputs, parse_target("cpu"))
    dims = {n: v for n, v in bound.dims.items() if n in SPECIALISED.get(name, ())}
    kernel = typed(text, dims=dims)
    tensors = {n: t for n, t in inputs.items() if isinstance(t, torch.Tensor)}
    lengths = {"s": 8, "n": 16, "t": 32, "m": 4}
    pins = {a: lengths[a] for a in ir.axes_of(kernel) if a in lengths}
    check_passes(kernel, bound.dims, tensors=tensors, scalars=bound.scalars, pins=pins)


SPECIALISED = {"paged_scores": ("D",)}


def expanded(name: str) -> ir.Kernel:
    text = next(t for t in FILE.read_text(encoding="utf-8").split("\n\n\n") if t.startswith(f"def {name}("))
    return expand.run(typed(text), parse_target("cpu"))


@pytest.mark.parametrize("name", ["segments", "places", "parts"])
def test_no_search_and_no_border_is_left(name: str) -> None:
    nodes = list(ir.walk(expanded(name)))
    assert not [n for n in nodes if isinstance(n, ir.Search | ir.Border)]
    loads = [n for n in nodes if isinstance(n, ir.Load) and n.tensor in ("cu", "edges")]
    assert all(n.proof == ir.Proof("PROVED") and n.guard is not None for n in loads) and bool(loads) == (name != "parts")


def test_equal_searches_and_divisions_are_one() -> None:
    loops = [n for n in ir.walk(expanded("segments")) if isinstance(n, ir.For)]
    assert len(loops) == 1 and loops[0].kind == "range"
    divisions = [n.op for n in ir.walk(expanded("parts")) if isinstance(n, ir.Binary) and n.op in ("floordiv", "mod")]
    assert sorted(divisions) == ["floordiv", "mod"]


ONE_PROGRAM = """\
def k(x: f32[P, 16], y: Out[f32[P, 16]]):
    for p, i in grid(P, tile(16)):
        y[p, i] = x[p, i]


def k3(x: f32[P, 16, M], y: Out[f32[P, 16, M]]):
    for p, i, m in grid(P, tile(16), tile(M)):
        y[p, i, m] = x[p, i, m]
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_grid_index_with_one_program_begins_at_0(backend: str, tmp_path: Path) -> None:
    """Its extent is a constant: the number of the block is divided by 1, and nothing of it is left."""
    (tmp_path / "one.nsa").write_text(ONE_PROGRAM)
    module = nsalang.load(tmp_path / "one.nsa")
    for kernel, x in ((module.k, torch.randn(5, 16)), (module.k3, torch.randn(3, 16, 70))):
        assert same_bits(kernel(x, backend=backend), x)
