"""Every example, everywhere this machine can run or compile it: the interpreter against a float64 reference at several tile lengths, then both
backends against the interpreter, and code for every target."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sparse_cases
import torch

import nsalang
from nsalang.bench import compare

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
TARGETS = ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942", "hip:gfx950")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantized(v: torch.Tensor, ue8m0: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """act_quant of kernels.md, A1, in torch: f32 throughout."""
    groups = v.view(v.shape[0], v.shape[1] // 128, 128)
    s = groups.abs().amax(-1).clamp(min=torch.tensor(1e-4)) * torch.tensor(1 / 448, dtype=torch.float32)
    if ue8m0:
        bits = s.view(torch.int32)
        s = ((((bits >> 23) & 255) + ((bits & 0x7FFFFF) != 0).int()) << 23).view(torch.float32)
    return (groups / s[..., None]).clamp(-448, 448).reshape(v.shape).to(torch.float8_e4m3fn), s


def silu_product(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.float().chunk(2, -1)
    return gate / (1 + torch.exp(-gate)) * up


def rms(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w.double()


X = normal(37, 512).bfloat16() * 3
CASES: dict[str, tuple[str, dict[str, Any], Callable[..., Any]]] = {
    "vector_add": ("vector_add", {"a": normal(1000), "b": normal(1000, seed=1)}, lambda a, b: (a + b,)),
    "softmax": ("softmax", {"x": normal(13, 300) * 4}, lambda x: (torch.softmax(x.double(), -1),)),
    "rmsnorm": ("rmsnorm", {"x": normal(13, 300).bfloat16(), "w": normal(300, seed=1).bfloat16()}, lambda x, w: (rms(x, w),)),
    "act_quant": ("act_quant", {"x": X}, lambda x: quantized(x.float(), False)),
    "act_quant ue8m0": ("act_quant", {"x": X, "ue8m0": True}, lambda x, ue8m0: quantized(x.float(), ue8m0)),
    "swiglu_quant": ("swiglu_quant", {"x": normal(9, 512).bfloat16()}, lambda x: quantized(silu_product(x), False)),
    "swiglu_quant ue8m0": (
        "swiglu_quant",
        {"x": normal(9, 512).bfloat16(), "ue8m0": True},
        lambda x, ue8m0: quantized(silu_product(x), ue8m0),
    ),
}
EXACT = {"vector_add", "act_quant", "act_quant ue8m0"}


def kernel(name: str) -> Any:
    return getattr(nsalang.load(str(EXAMPLES / f"{name}.nsa")), name)


def tupled(result: Any) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def test_every_example_has_a_case() -> None:
    sparse = {sparse_cases.FILES.get(name, name) for name in sparse_cases.KERNELS}  # in test_kernels.py
    assert {p.stem for p in EXAMPLES.glob("*.nsa")} == {name for name, _, _ in CASES.values()} | sparse


@pytest.mark.parametrize("tile", [1, 7, None])
@pytest.mark.parametrize("case", CASES)
def test_the_meaning_is_the_reference_at_any_tile_length(case: str, tile: int | None) -> None:
    name, arguments, reference = CASES[case]
    got = tupled(kernel(name).interpret(**arguments, tile=tile))
    for g, wanted in zip(got, reference(**arguments), strict=True):
        if case in EXACT:
            assert same_bits(g, wanted)
        elif g.dtype == torch.float8_e4m3fn:
            steps = (g.view(torch.uint8).int() - wanted.view(torch.uint8).int()).abs()
            assert steps.max() <= 1 and (steps != 0).float().mean() < 1e-3
        else:
            bound = {torch.bfloat16: 2.0**-8, torch.float32: 1e-5}[g.dtype]
            assert ((g.double() - wanted.double()).abs() <= bound * wanted.double().abs() + 1e-9).all()


@pytest.mark.parametrize("case", CASES)
def test_both_backends_agree_with_the_meaning_here(case: str) -> None:
    name, arguments, _ = CASES[case]
    k = kernel(name)
    outputs = [p.name for p in k.signature.parameters if p.role == "out"]
    result = compare.compare(k, arguments, target="cpu", exact=case in EXACT, outputs=outputs)
    assert [r.failure for r in result.runs] == [None] * 3
    for d in result.differences:
        assert d.ok, f"{d.engine} {d.output}: {d.reason}"


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
@pytest.mark.parametrize("shape", [(0, 512), (1, 128), (33, 640)])
def test_act_quant_of_awkward_shapes_and_strides(shape: tuple[int, int], backend: str) -> None:
    m, n = shape
    x = normal(m, n).bfloat16() * 10
    wide = torch.zeros(m, n + 72, dtype=torch.bfloat16)
    wide[:, 3 : 3 + n] = x
    for given in (x, wide[:, 3 : 3 + n]):
        got = kernel("act_quant")(given, backend=backend)
        for g, wanted in zip(got, quantized(x.float(), False), strict=True):
            assert same_bits(g, wanted)


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "residual_scale.py"), run_name="__main__")
    assert "agrees" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("facts", [{}, {"aligned": False}, {"wide": True, "aligned": False}], ids=lambda f: "-".join(f) or "fast")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", sorted({n for n, _, _ in CASES.values()}))
def test_triton_makes_binaries_for_every_target(name: str, target: str, facts: dict[str, bool]) -> None:
    compiled = kernel(name).compile(target=target, backend="triton", **facts)
    binary = compiled.emit("cubin" if target.startswith("cuda") else "hsaco")
    assert isinstance(binary, bytes) and binary[:4] == b"\x7fELF"


@pytest.mark.slow
@pytest.mark.nvcc
@pytest.mark.parametrize("facts", [{}, {"aligned": False}, {"wide": True, "aligned": False}], ids=lambda f: "-".join(f) or "fast")
@pytest.mark.parametrize("name", sorted({n for n, _, _ in CASES.values()}))
def test_tilelang_makes_binaries_with_nvcc(name: str, facts: dict[str, bool]) -> None:
    binary = kernel(name).compile(target="cuda:sm_90", backend="tilelang", **facts).emit("cubin")
    assert isinstance(binary, bytes) and binary[:4] == b"\x7fELF"


@pytest.mark.parametrize("name", sorted({n for n, _, _ in CASES.values()}))
def test_tilelang_makes_hip_source(name: str) -> None:
    text = kernel(name).compile(target="hip:gfx942", backend="tilelang").emit("hip")
    assert isinstance(text, str) and "__global__" in text
