"""The kernels of sparse attention on the CPU, with every input that may go wrong: the interpreter, generated Triton under its interpreter, and
generated TileLang as C, each against the float64 reference. What the prover says of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sparse_cases as made
import torch
from example_values import values

import nsalang
from nsalang.base.dtypes import F32

F16, SINGLE = torch.float16, torch.float32

SMALL: dict[str, Callable[[], made.Case]] = {
    "matmul": lambda: made.matmul(33, 17, 70),
    "matmul f16, one element": lambda: made.matmul(1, 1, 1, F16),
    "matmul f32": lambda: made.matmul(19, 35, 40, SINGLE),
    "matmul K = 0": lambda: made.matmul(4, 5, 0),
    "matmul no rows": lambda: made.matmul(0, 5, 3),
    "attention": lambda: made.attention(2, 9, 21, 2, 2, 16, False),
    "attention causal, grouped": lambda: made.attention(1, 17, 33, 6, 2, 32, True),
    "attention f16": lambda: made.attention(1, 5, 70, 2, 1, 16, False, F16),
    "attention causal, more queries than keys": lambda: made.attention(1, 9, 5, 2, 1, 16, True),
    "attention no keys": lambda: made.attention(1, 3, 0, 2, 1, 16, False),
    "attention no queries, no lse": lambda: made.attention(1, 0, 4, 2, 1, 16, True, lse=False),
    **{f"fp8_index H = {h}": lambda h=h: made.fp8_index(2, 3, 37, h, 32) for h in (1, 8, 12, 16, 40, 64, 128)},  # type: ignore[misc]
    "fp8_index D = 128, no queries": lambda: made.fp8_index(1, 0, 4, 8),
    **{f"mqa_logits H = {h}": lambda h=h: made.mqa_logits(9, 45, h, True, 32) for h in (1, 8, 12, 16, 40, 64, 128)},  # type: ignore[misc]
    "mqa_logits unclean": lambda: made.mqa_logits(15, 45, 8, False, 32),
    "mqa_logits all windows": lambda: made.mqa_logits(15, 33, 8, True, 32, hidden=False),
    "mqa_logits in parts": lambda: made.mqa_logits(15, 45, 8, True, 32, part=16),
    "mqa_logits unclean in parts": lambda: made.mqa_logits(15, 45, 8, False, 32, hidden=False, part=16),
    "mqa_logits fewer keys than a tile": lambda: made.mqa_logits(5, 3, 8, True, 32, hidden=False),
    "mqa_logits no tokens": lambda: made.mqa_logits(0, 5, 8, True, 32),
    "mqa_logits no keys": lambda: made.mqa_logits(3, 0, 8, True, 32),
    "paged_mqa_logits": lambda: made.paged_mqa_logits([150, 0, 64, 131, 1], 1, 8, 140, 64, True),
    "paged_mqa_logits unclean": lambda: made.paged_mqa_logits([150, 130, 64], 1, 8, 140, 64, False),
    "paged_mqa_logits several queries": lambda: made.paged_mqa_logits([150, 1, 66, 131], 3, 4, 140, 64, True, 32),
    "paged_mqa_logits page 1": lambda: made.paged_mqa_logits([9, 0, 12, 30], 2, 8, 14, 1, True, 32),
    "paged_mqa_logits no pages": lambda: made.paged_mqa_logits([0, 0], 1, 8, 70, 64, True, 32, spare=0),
    "paged_mqa_logits no requests": lambda: made.paged_mqa_logits([], 1, 8, 70, 64, True, 32),
    **{f"sparse_mla H = {h}": lambda h=h: made.sparse_mla(3, h, 40, 37, d=32, r=16) for h in (1, 8, 12, 16, 40, 64, 128)},  # type: ignore[misc]
    "sparse_mla 512 + 64": lambda: made.sparse_mla(2, 8, 70, 66),
    "sparse_mla length": lambda: made.sparse_mla(6, 4, 50, 24, d=32, r=16, length=True),
    "sparse_mla limit": lambda: made.sparse_mla(6, 4, 50, 24, d=32, r=16, limit=True),
    "sparse_mla sink": lambda: made.sparse_mla(3, 9, 50, 24, d=32, r=16, sink=True),
    "sparse_mla all options, base 2": lambda: made.sparse_mla(6, 9, 50, 33, d=32, r=16, length=True, limit=True, sink=True, base2=True),
    "sparse_mla no lse": lambda: made.sparse_mla(3, 4, 50, 24, d=32, r=16, lse=False),
    "sparse_mla more indices than rows": lambda: made.sparse_mla(3, 4, 5, 40, d=32, r=16),
    "sparse_mla no bad index": lambda: made.sparse_mla(3, 4, 64, 64, d=32, r=16, bad=0.0),
    "sparse_mla no rows": lambda: made.sparse_mla(2, 4, 0, 7, d=32, r=16),
    "sparse_mla no indices": lambda: made.sparse_mla(2, 4, 9, 0, d=32, r=16, sink=True),
    "sparse_mla no tokens": lambda: made.sparse_mla(0, 4, 9, 7, d=32, r=16),
    "sparse_mla_decode": lambda: made.sparse_mla(3, 8, 70, 50, d=32, r=16, parts=3),
    "sparse_mla_decode all options": lambda: made.sparse_mla(6, 5, 70, 33, d=32, r=16, length=True, sink=True, base2=True, parts=4),
    "sparse_mla_decode more parts than indices": lambda: made.sparse_mla(2, 4, 9, 3, d=32, r=16, parts=8),
    "sparse_mla_decode no indices": lambda: made.sparse_mla(2, 4, 9, 0, d=32, r=16, sink=True, parts=2),
    "sparse_mla_fp8": lambda: made.sparse_mla_fp8(2, 2, 4, 3, 7, 15, parts=2),
    "sparse_mla_fp8 all options": lambda: made.sparse_mla_fp8(3, 1, 5, 2, 16, 20, length=True, sink=True, parts=3),
    "sparse_mla_fp8 page 1": lambda: made.sparse_mla_fp8(1, 2, 4, 9, 1, 12, lse=False, parts=2),
    "sparse_mla_fp8 no pages": lambda: made.sparse_mla_fp8(1, 1, 4, 0, 16, 5, parts=2),
    "sparse_mqa_sink": lambda: made.sparse_mqa_sink(2, 2, 9, 40, 37, 32),
    "sparse_mqa_sink bf16 sink": lambda: made.sparse_mqa_sink(1, 3, 8, 70, 66, dtype=torch.bfloat16),
    "sparse_mqa_sink no rows": lambda: made.sparse_mqa_sink(1, 2, 8, 0, 5, 32),
}

BOTH = (
    "matmul",
    "matmul K = 0",
    "attention causal, grouped",
    "attention no keys",
    "fp8_index H = 12",
    "mqa_logits H = 8",
    "mqa_logits unclean",
    "mqa_logits in parts",
    "paged_mqa_logits",
    "paged_mqa_logits page 1",
    "sparse_mla H = 8",
    "sparse_mla all options, base 2",
    "sparse_mla more indices than rows",
    "sparse_mla_decode",
    "sparse_mla_fp8",
    "sparse_mqa_sink",
)
"""What `make test` runs on both backends; the rest is slow, since each variant is a C compilation."""


@pytest.mark.parametrize("tile", [7, None])
@pytest.mark.parametrize("name", SMALL)
def test_the_meaning_is_the_reference(name: str, tile: int | None) -> None:
    case = SMALL[name]()
    assert not made.complaint(case, made.load(case.kernel).interpret(**case.arguments, tile=tile))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_meaning_is_the_reference_in_single_lanes(name: str) -> None:
    case = SMALL[name]()
    assert not made.complaint(case, made.load(case.kernel).interpret(**case.arguments, tile=1))


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
@pytest.mark.parametrize("name", BOTH)
def test_generated_code_gives_the_reference(name: str, backend: str) -> None:
    case = SMALL[name]()
    assert not made.complaint(case, made.load(case.kernel)(**case.arguments, backend=backend))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["triton", "tilelang"])
@pytest.mark.parametrize("name", [n for n in SMALL if n not in BOTH])
def test_generated_code_gives_the_reference_for_all_inputs(name: str, backend: str) -> None:
    case = SMALL[name]()
    assert not made.complaint(case, made.load(case.kernel)(**case.arguments, backend=backend))


@pytest.mark.slow
def test_more_tokens_than_a_second_grid_axis_has() -> None:
    case = made.sparse_mla(66_000, 1, 5, 2, d=16, r=16)
    assert not made.complaint(case, made.load(case.kernel)(**case.arguments, backend="tilelang"))


def strided(x: torch.Tensor) -> torch.Tensor:
    """The same values, rows further apart, and an offset."""
    if x.dim() < 2 or x.dtype == torch.float8_e4m3fn:
        return x
    wider = x.new_zeros(*x.shape[:-2], x.shape[-2] + 1, x.shape[-1] + 8)
    wider[..., 1:, 8:] = x
    return wider[..., 1:, 8:]


@pytest.mark.parametrize("name", ["attention causal, grouped", "sparse_mla all options, base 2", "sparse_mqa_sink"])
def test_rows_may_lie_apart(name: str) -> None:
    case = SMALL[name]()
    arguments = {n: strided(a) if isinstance(a, torch.Tensor) else a for n, a in case.arguments.items()}
    kernel = made.load(case.kernel)
    assert not made.complaint(case, kernel.interpret(**arguments))
    assert not made.complaint(case, kernel(**arguments, backend="triton"))


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
def test_runs_are_bit_identical(backend: str) -> None:
    case = SMALL["sparse_mla H = 8"]()
    kernel = made.load(case.kernel)
    first, *others = [made.outputs(kernel(**case.arguments, backend=backend)) for _ in range(4)]
    assert all(torch.equal(a, b) for again in others for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
def test_a_token_has_the_same_bits_in_any_batch(backend: str) -> None:
    case = made.sparse_mla(7, 8, 40, 37, d=32, r=16)
    kernel = made.load(case.kernel)
    together = made.outputs(kernel(**case.arguments, backend=backend))
    for s in (0, 6):
        alone = {n: a[s : s + 1] if n in ("q", "idx") else a for n, a in case.arguments.items()}
        for whole, one in zip(together, made.outputs(kernel(**alone, backend=backend)), strict=True):
            assert torch.equal(whole[s], one[0])


def variants(kernel: Any, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of what is optional and of what is True or False."""
    parameters = kernel.signature.parameters
    choices = [p.name for p in parameters if p.optional or isinstance(p.default, bool)]
    for chosen in itertools.product((False, True), repeat=len(choices)):
        yield {**given, **dict(zip(choices, chosen, strict=True))}


@pytest.mark.parametrize(
    "name",
    [*made.KERNELS, "sparse_mla_decode", "sparse_mla_fp8"],
)
def test_every_variant_is_proved(name: str) -> None:
    kernel = made.load(name)
    reports = [kernel.prove(**given) for given in variants(kernel, values(name))]
    assert all(r.ok and r.count("UNKNOWN") == r.count("REFUTED") == 0 and r.count("PROVED") > 0 for r in reports)


def test_pages_of_one_token_are_proved() -> None:
    report = made.load("paged_mqa_logits").prove(X=1, H=8, D=128, P=1, clean=True)
    assert report.ok and report.count("UNKNOWN") == 0


def test_gathers_are_proved_by_their_condition() -> None:
    rows = [r for r in made.load("sparse_mla").prove().rows if r.access in ("kv[t, c]", "kv[t, r]") and r.obligation == "0 <= t < T"]
    assert [(r.verdict, r.why) for r in rows] == [("PROVED", "fact")] * 2


@pytest.mark.parametrize(
    ("name", "guarded", "bare", "given", "shown"),
    [
        ("sparse_mla", "where(live, kv[t, c], 0)", "kv[t, c]", {}, r"idx\[.*\] = .* and kv\[.*\] lies outside kv\["),
        ("sparse_mla", "(0 <= t) & (t < T)", "(0 <= t) & (t <= T)", {}, r"kv\[.*\] lies outside kv\["),
        ("sparse_mla", "(0 <= t) & (t < T)", "t < T", {}, r"kv\[-.*\] lies outside kv\["),
        ("sparse_mla_part", "where(live, kv[t, r], 0)", "kv[t, r]", {}, r"idx\[.*\] = .* and kv\[.*\] lies outside kv\["),
        ("sparse_mqa_sink", "where(live, kv[b, t, d], 0)", "kv[b, t, d]", {"D": 64, "A": F32}, r"kv\[.*\] lies outside kv\["),
        ("paged_mqa_logits", " & (page < NB)", "", {"X": 1, "H": 8, "D": 128}, r"table\[.*\] = .* lies outside values\["),
        ("sparse_mla_fp8_part", "(0 <= t) & (page < NB)", "page < NB", {}, r"lies outside values\["),
    ],
)
def test_gathers_without_their_condition_are_refuted(
    name: str, guarded: str, bare: str, given: dict[str, Any], shown: str, tmp_path: Path
) -> None:
    text = (made.EXAMPLES / f"{made.FILES.get(name, name)}.nsa").read_text()
    assert guarded in text
    (tmp_path / "bare.nsa").write_text(text.replace(guarded, bare, 1))
    report = getattr(nsalang.load(str(tmp_path / "bare.nsa")), name).prove(**given)
    assert not report.ok and report.count("REFUTED") > 0
    notes = [n for d in report.diagnostics for n in d.notes if d.code == "NSA0801"]
    assert any(re.search(shown, n) for n in notes), notes


def test_a_bad_call_is_refused_before_any_launch() -> None:
    case = SMALL["sparse_mla sink"]()
    kernel = made.load("sparse_mla")
    wrong = {
        "heads": {"sink": torch.zeros(3)},
        "tokens": {"idx": torch.zeros(9, 24, dtype=torch.int32)},
        "rows": {"kv": torch.zeros(5, 40).bfloat16()},
        "dtype": {"kv": case.arguments["kv"].float()},
        "indices": {"idx": case.arguments["idx"].long()},
    }
    for change in wrong.values():
        with pytest.raises(nsalang.NsaError, match=r"NSA05\d\d"):
            kernel(**{**case.arguments, **change}, backend="triton")


FACTS = [{}, {"aligned": False, "exact": False}, {"wide": True, "aligned": False, "exact": False}]


TARGETS = ["cuda:sm_90", "hip:gfx942", "cuda:sm_80", "cuda:sm_100", "hip:gfx950"]
VARIANTS = [*((t, FACTS[0]) for t in TARGETS), *((t, f) for t in TARGETS[:2] for f in FACTS[1:])]
"""The fast variant for every target, the others for one of each maker."""


@pytest.mark.slow
@pytest.mark.parametrize(("target", "facts"), VARIANTS, ids=[f"{t}-{'-'.join(f) or 'fast'}" for t, f in VARIANTS])
@pytest.mark.parametrize("name", made.KERNELS)
def test_triton_makes_binaries_for_every_target(name: str, target: str, facts: dict[str, bool]) -> None:
    compiled = made.load(name).compile(target=target, backend="triton", **facts, **values(name))
    binary = compiled.emit("cubin" if target.startswith("cuda") else "hsaco")
    assert isinstance(binary, bytes) and binary[:4] == b"\x7fELF"


@pytest.mark.slow
@pytest.mark.nvcc
@pytest.mark.parametrize("facts", FACTS, ids=lambda f: "-".join(f) or "fast")
@pytest.mark.parametrize("name", made.KERNELS)
def test_tilelang_makes_binaries_with_nvcc(name: str, facts: dict[str, bool]) -> None:
    binary = made.load(name).compile(target="cuda:sm_90", backend="tilelang", **facts, **values(name)).emit("cubin")
    assert isinstance(binary, bytes) and binary[:4] == b"\x7fELF"
