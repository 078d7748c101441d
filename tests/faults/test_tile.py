"""Programs that a backend or a target refused, or took minutes for: kinds of section C, with their relatives."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from example_values import values

import nsalang
from nsalang.base.target import KNOWN
from nsalang.toolchain import tilelang_lower
from nsalang.toolchain.backends import BACKENDS

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = {k.__name__: k for p in sorted((ROOT / "examples").glob("*.nsa")) for k in nsalang.load(str(p)) if k.kind != "program"}
HIP = [t for t in KNOWN if t.startswith("hip")]
SECONDS = 20
"""Of CPU time, ours and nvcc's, from an example's text to a cubin by TileLang."""

SPANS = {
    "shifted": "where(0 <= j - 2 < 4, x[b, j - 2], 0)",
    "descending": "where(0 <= 5 - j < 8, x[b, 5 - j], 0)",
    "chosen": "where(0 <= where(j < 4, x[b, j], -1) < 8, x[b, where(j < 4, x[b, j], -1)], 0)",
    "at most": "where(0 <= j - 3 <= 4, x[b, j - 3], 0)",
    "converted": "where(j >= 2, i32(u32(j - 2)), 7)",
    "converted to bytes": "where(j >= 2, i32(u8(j - 2)), 7)",
}


@pytest.mark.parametrize("name", SPANS)
def test_numbers_of_unrolled_lanes_below_zero(name: str) -> None:
    text = f"def k(x: i32[B, 8], y: Out[i32[B, 8]]):\n    j = span(8)\n    for b in grid(tile(B)):\n        y[b, j] = {SPANS[name]}\n"
    kernel = nsalang.load_text(text).k
    assert "__global__" in str(kernel.compile(target="cuda:sm_90", backend="tilelang").emit("cuda"))
    x = torch.arange(24, dtype=torch.int32).reshape(3, 8) % 11 - 2
    assert torch.equal(kernel(x, backend="tilelang"), kernel.interpret(x))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("round(x[n])", "__fsub_rn"),
        ("fma(x[n], x[n], x[n])", "__fmaf_rn"),
        ("tanh(x[n])", "__f"),
        ("sigmoid(x[n]) - round(x[n])", "__fsub_rn"),
    ],
)
@pytest.mark.parametrize("target", HIP)
def test_operations_that_round_once_on_hip(call: str, name: str, target: str) -> None:
    kernel = nsalang.load_text(f"def k(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = {call}\n").k
    text = str(kernel.compile(target=target, backend="tilelang").emit("hip"))
    assert name in text and "ieee" not in text


def test_scans_on_hip() -> None:
    text = "def k(x: f32[M, 64], y: Out[f32[M, 64]]):\n    n = span(64)\n    for m in grid(tile(M)):\n        y[m, n] = cumsum(x[m, n], axis=n)\n"
    assert "__fadd_rn" in str(nsalang.load_text(text).k.compile(target="hip:gfx942", backend="tilelang").emit("hip"))


@pytest.mark.parametrize("name", ["sparse_mla", "sparse_mqa_sink"])
@pytest.mark.parametrize("target", HIP)
def test_no_more_warps_than_a_product_has_parts(name: str, target: str) -> None:
    compiled = EXAMPLES[name].compile(target=target, backend="tilelang", **values(name))
    assert "mfma" in str(compiled.emit("hip"))


SWEEPS = {
    "written out": ["x = x - sum(where(j == c, low, 0), axis=j) * sum(where(i == c, x, 0), axis=i)"],
    "named": ["p = sum(where(j == c, low, 0), axis=j)", "q = sum(where(i == c, x, 0), axis=i)", "x = x - p * q"],
    "exchanged": ["x = x - sum(where(i == c, x, 0), axis=i) * sum(where(j == c, low, 0), axis=j)"],
}


@pytest.mark.parametrize("name", SWEEPS)
def test_reductions_along_two_axes_beside_a_contraction(name: str) -> None:
    lines = "\n".join(f"            {line}" for line in SWEEPS[name])
    text = f"""
def k(a: f32[B, N, N], v: bf16[B, N, E], y: Out[f32[B, N, E]]):
    i, j, l = span(N), span(N), span(N)
    for b, e in grid(B, tile(E)):
        low = where(j < i, a[b, i, j], 0)
        x = where(i == l, 1.0, 0.0)
        for c in range(N):
{lines}
        y[b, i, e] = dot(bf16(x), v[b, l, e], axis=l)
"""
    kernel = nsalang.load_text(text).k
    assert "__global__" in str(kernel.compile(target="cuda:sm_90", backend="tilelang", N=32).emit("cuda"))
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 32, 32, generator=generator) * 0.1
    v = torch.randn(2, 32, 16, generator=generator).bfloat16()
    expected = kernel.interpret(a, v)
    torch.testing.assert_close(kernel(a, v, backend="tilelang"), expected, rtol=1e-2, atol=1e-2)


def test_lanes_that_part_are_no_vectors() -> None:
    """TileLang takes 30 s to find that out for paged_mqa_logits, if it is asked."""
    name = "paged_mqa_logits"
    program = EXAMPLES[name].compile(target="cuda:sm_90", backend="tilelang", **values(name)).program
    before = cpu_seconds()
    tilelang_lower.lower(program)
    assert cpu_seconds() - before < SECONDS


def cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


@pytest.mark.slow
@pytest.mark.nvcc
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_cubin_within_its_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSALANG_CACHE_DIR", os.fspath(tmp_path))
    before = cpu_seconds()
    assert EXAMPLES[name].compile(target="cuda:sm_90", backend="tilelang", **values(name)).emit("cubin")
    assert cpu_seconds() - before < SECONDS


def pairs() -> Iterator[Any]:
    for backend in BACKENDS:
        for target in (t for t in KNOWN if t != "cpu"):
            for name in EXAMPLES:
                yield pytest.param(name, target, backend, id=f"{name}-{target}-{backend}")


@pytest.mark.slow
@pytest.mark.nvcc
@pytest.mark.parametrize(("name", "target", "backend"), list(pairs()))
def test_every_example_for_every_target(name: str, target: str, backend: str) -> None:
    """As far as docs/developing.md says that the two go."""
    compiled = EXAMPLES[name].compile(target=target, backend=backend, **values(name))
    kind = ("hsaco" if backend == "triton" else "hip") if target.startswith("hip") else "cubin"
    made = compiled.emit(kind)
    assert "__global__" in made if isinstance(made, str) else made[:4] == b"\x7fELF"
