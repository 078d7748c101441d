"""Contractions in TileLang code: every form of operands on the CPU, tensor cores and asynchronous copies in the code for devices."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from lowered import TILELANG
from test_lowering_triton_dot import FORMS, product

from nsalang import ir
from nsalang.base.dtypes import BF16, E4M3, F16, F32, I8, I32, I64, DType
from nsalang.toolchain.tilelang_compile import compile_program, emit

NO_BATCH = [name for name in FORMS if name not in ("a batch", "a batch inside")]
"""TileLang's batch axes have one lane."""


def shared(k: ir.Kernel) -> ir.Kernel:
    """The operands in shared memory."""

    def rule(n: ir.Node) -> ir.Node:
        return dataclasses.replace(n, place="shared") if isinstance(n, ir.Assign) and n.name in ("a_tile", "b_tile") else n

    return ir.rewrite(k, rule)


def form(name: str) -> tuple[str, str, dict[str, int], str]:
    a, b, lengths, left, _text = FORMS[name]
    a, b = ("".join(sorted(axes, key=list(lengths).index)) for axes in (a, b))
    return a, b, lengths, left


def check(k: ir.Kernel, a: str, b: str, lengths: dict[str, int], dtype: DType, out: DType) -> None:
    """Whole numbers, of which every sum is exact."""
    g = torch.Generator().manual_seed(1)
    x, y = (torch.randint(-8, 8, [lengths[i] for i in axes], generator=g) for axes in (a, b))
    free = [i for i in lengths if i in a + b and i != "k"]
    start = torch.randint(-8, 8, [lengths[i] for i in free], generator=g)
    z = torch.full([lengths[i] for i in free], 99, dtype=getattr(torch, out.torch))
    narrow = getattr(torch, dtype.torch)
    tensors = {"a": x.float().to(narrow), "b": y.float().to(narrow), "c": start.to(z.dtype), "z": z}
    TILELANG.run(k, {t.name: tensors[t.name] for t in k.tensors}, {})
    wanted = torch.einsum(f"{a},{b}->{''.join(free)}", x, y) + (2 * start if len(k.tensors) > 3 else 0)
    assert torch.equal(z.double(), wanted.double())


@pytest.mark.parametrize("name", NO_BATCH)
def test_operands_as_they_lie(name: str) -> None:
    a, b, lengths, left = form(name)
    check(shared(product(a, b, lengths, left, acc="i" not in a)), a, b, lengths, BF16, F32)


TYPES: dict[str, tuple[DType, DType, dict[str, Any]]] = {
    "f16": (F16, F32, {}), "tf32": (F32, F32, {"precision": "tf32"}), "e4m3": (E4M3, F32, {}), "promoted": (E4M3, F32, {"promote": 32}),
    "i8": (I8, I32, {}), "i8 in i64": (I8, I64, {}),
}  # fmt: skip


@pytest.mark.parametrize("acc", [False, True])
@pytest.mark.parametrize("name", TYPES)
def test_element_types(name: str, acc: bool) -> None:
    dtype, out, how = TYPES[name]
    lengths = {"m": 16, "n": 32, "k": 64}
    check(shared(product("mk", "nk", lengths, "m", dtype, out, acc, **how)), "mk", "nk", lengths, dtype, out)


@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90", "hip:gfx942"])
def test_becomes_device_code(target: str) -> None:
    a, b, lengths, left = form("a side of two axes")
    k = shared(product(a, b, lengths, left, acc=True))
    text = str(emit(TILELANG.lower(k, target, formatted=False).program, target.split(":")[0]))
    assert ("mfma" if target.startswith("hip") else "mma") in text


@pytest.mark.nvcc
@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_the_tensor_cores_do_it(name: str) -> None:
    dtype, out, how = TYPES[name]
    k = shared(product("mk", "nk", {"m": 64, "n": 64, "k": 128}, "m", dtype, out, True, **how))
    text = compile_program(TILELANG.lower(k, "cuda:sm_90", formatted=False).program)["kernel.cu"].decode()
    # TileLang multiplies f32 by the older instruction.
    assert text.count("tl::wgmma_ss<") == {"promoted": 4, "tf32": 0}.get(name, 1)
    assert ("mma_sync<tl::DataType::kTensorFloat32" in text) == (name == "tf32")


@pytest.mark.nvcc
@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90"])
def test_every_form_compiles(target: str) -> None:
    for name in NO_BATCH:
        a, b, lengths, left = form(name)
        made = compile_program(TILELANG.lower(shared(product(a, b, lengths, left, acc=True)), target, formatted=False).program)
        assert b"mma" in made["kernel.cu"], name
