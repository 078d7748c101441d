"""Bools in the lanes of a tile: both backends do what the interpreter does, and TileLang's code for CUDA compiles (see toolchain/tilelang_mends.py)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nsalang
from nsalang.toolchain import tilelang_lower
from nsalang.toolchain.backends import BACKENDS

CASES = Path(__file__).parent / "cases"
K = nsalang.load(CASES / "bools.nsa")


def few(*shape: int) -> torch.Tensor:
    return torch.randint(0, 100, shape, dtype=torch.uint8)


def coins(count: int) -> torch.Tensor:
    return torch.rand(count) < 0.5


INPUTS: dict[str, Callable[[int], list[torch.Tensor]]] = {
    "in_range": lambda n: [few(n)],
    "by_place": lambda n: [few(n)],
    "found": lambda n: [few(23, n)],
    "implied": lambda n: [coins(n), coins(n)],
    "next_of_three": lambda n: [torch.randn(n), torch.zeros(n)],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", INPUTS)
def test_backends_do_what_is_meant(name: str, backend: str) -> None:
    kernel = getattr(K, name)
    for count in (1024, 2000, 77):
        torch.manual_seed(count)
        meant = INPUTS[name](count)
        given = [x.clone() for x in meant]
        wanted, found = (kernel.interpret(*meant), *meant), (kernel(*given, backend=backend), *given)
        for a, b in zip(wanted, found, strict=True):
            assert a is b is None or torch.equal(a, b), f"{name} of {count} by {backend}"


def compiled(name: str, **facts: Any) -> nsalang.Compiled:
    kernel = getattr(K, name) if name in INPUTS else getattr(nsalang.load(CASES / "mended.nsa"), name)
    made: nsalang.Compiled = kernel.compile(target="cuda:sm_90", backend="tilelang", **facts)
    return made


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", [*INPUTS, "store_past"])
def test_vectors_of_bools_are_short_enough(name: str, exact: bool) -> None:
    assert re.search(r"for \(int \w+_part\w* = 0;", tilelang_lower.lower(compiled(name, exact=exact).program).text)


def test_vectors_of_other_values_stay_long() -> None:
    """Also where a mask guards them, which is a bool that all lanes share."""
    kernel = nsalang.load(CASES.parent.parent / "examples" / "act_quant.nsa").act_quant
    text = tilelang_lower.lower(kernel.compile(target="cuda:sm_90", backend="tilelang", exact=False).program).text
    assert re.search(r"if \(.*< M\)+ \{\n *condval = \*\(uint4\*\)\(x", text) and "_part" not in text


@pytest.mark.nvcc
@pytest.mark.parametrize("name", ["by_place", "store_past"])
def test_compiles_with_nvcc(name: str) -> None:
    assert compiled(name, exact=False).artifact["kernel.cubin"].startswith(b"\x7fELF")


@pytest.mark.nvcc
def test_guarded_copies_stay_whole() -> None:
    kernel = nsalang.load(Path(__file__).parent.parent / "examples" / "sparse_mla.nsa").sparse_mla
    text = kernel.compile(target="cuda:sm_90", backend="tilelang").artifact["kernel.cu"].decode()
    assert "cp_async_gs_conditional<16>" in text and not re.search(r"cp_async_gs_conditional<(?!16)", text)
