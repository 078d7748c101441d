"""Contractions in Triton code: as they lie in hand-built kernels, on every target; the wgmma and cp.async of the real ones."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lowered import TRITON
from machine_kernels import c, idx, kernel, let, load, op, tensor, var

from nsalang import ir
from nsalang.base.dtypes import ALL, BF16, E4M3, F16, F32, I8, I32, I64, DType
from nsalang.toolchain.triton_compile import compile_program

PLAIN: dict[str, Any] = {}
TF32: dict[str, Any] = {"precision": "tf32"}
PROMOTED: dict[str, Any] = {"promote": 128}


def product(
    a: str, b: str, lengths: Mapping[str, int], left: str, dtype: DType = BF16, out: DType = F32, acc: bool = False, **how: Any
) -> ir.Kernel:
    """``a`` and ``b`` are the axes of the operands, ``k`` the one that is summed over, ``lengths`` the order of all of them. With ``acc``, twice
    the tensor ``c`` is the start."""
    free = tuple(i for i in lengths if i in a + b and i != "k")
    start = op("mul", var("c_tile", out, *free), c(2, out)) if acc else None
    if start is not None:
        start = dataclasses.replace(start, axes=free)
    dot = ir.Dot(out, free, var("a_tile", dtype, *a), var("b_tile", dtype, *b), "k", start, left=tuple(left), **how)

    def whole(name: str, dtype: DType, role: str, axes: tuple[str, ...]) -> ir.Tensor:
        return tensor(name, dtype, role, *(c(lengths[i]) for i in axes))

    tensors = [whole("a", dtype, "in", tuple(a)), whole("b", dtype, "in", tuple(b)), whole("z", out, "out", free)]
    store = ir.Store("z", tuple(map(idx, free)), var("total", out, *free), free)
    return kernel(
        [*tensors, whole("c", out, "in", free)] if acc else tensors, [], *(ir.SpanAxis(i, c(0), length) for i, length in lengths.items()),
        let("a_tile", load("a", dtype, *map(idx, a))), let("b_tile", load("b", dtype, *map(idx, b))),
        *([let("c_tile", load("c", out, *map(idx, free)))] if acc else []), let("total", dot), store, dims="", **dict[str, Any](lengths),
    )  # fmt: skip


def check(k: ir.Kernel, a: str, b: str, lengths: Mapping[str, int], dtype: DType, out: DType) -> None:
    """Whole numbers, of which every sum is exact."""
    g = torch.Generator().manual_seed(1)
    x, y = (torch.randint(-8, 8, [lengths[i] for i in axes], generator=g) for axes in (a, b))
    free = [i for i in lengths if i in a + b and i != "k"]
    start = torch.randint(-8, 8, [lengths[i] for i in free], generator=g)
    z = torch.full([lengths[i] for i in free], 99, dtype=getattr(torch, out.torch))
    narrow = getattr(torch, dtype.torch)
    tensors = {"a": x.float().to(narrow), "b": y.float().to(narrow), "c": start.to(z.dtype), "z": z}
    TRITON.run(k, {t.name: tensors[t.name] for t in k.tensors}, {})
    wanted = torch.einsum(f"{a},{b}->{''.join(free)}", x, y) + (2 * start if len(k.tensors) > 3 else 0)
    assert torch.equal(z.double(), wanted.double())


FORMS = {
    "plain": ("mk", "kn", {"m": 16, "k": 32, "n": 64}, "m", "tl.dot(a_tile, b_tile)"),
    "columns lie across": ("mk", "nk", {"m": 16, "n": 64, "k": 32}, "m", "tl.dot(a_tile, tl.trans(b_tile))"),
    "rows lie across": ("km", "kn", {"k": 32, "m": 16, "n": 64}, "m", "tl.dot(tl.trans(a_tile), b_tile)"),
    "both lie across": ("km", "nk", {"n": 64, "k": 32, "m": 16}, "n", "tl.dot(b_tile, a_tile)"),
    "rows from b": ("mk", "nk", {"n": 64, "m": 16, "k": 32}, "n", "tl.dot(b_tile, tl.trans(a_tile))"),
    "a side of two axes": (
        "sik", "tk", {"t": 32, "s": 2, "i": 16, "k": 32}, "t",
        "tl.reshape(tl.dot(b_tile, tl.trans(tl.reshape(a_tile, (32, 32)))), (32, 2, 16))",
    ),
    "rows of two axes": ("sik", "kn", {"s": 4, "i": 8, "k": 16, "n": 16}, "si", "tl.reshape(tl.dot(tl.reshape(a_tile, (32, 16)), b_tile), (4, 8, 16))"),
    "two axes and four": (
        "sik", "tjk", {"s": 4, "i": 8, "t": 8, "j": 4, "k": 16}, "si",
        "tl.reshape(tl.dot(tl.reshape(a_tile, (32, 16)), tl.trans(tl.reshape(b_tile, (32, 16)))), (4, 8, 8, 4))",
    ),
    "a batch of one": (
        "bmk", "bnk", {"b": 1, "m": 16, "n": 32, "k": 16}, "m",
        "tl.reshape(tl.dot(tl.reshape(a_tile, (16, 16)), tl.trans(tl.reshape(b_tile, (32, 16)))), (1, 16, 32))",
    ),
    "a batch": ("bmk", "bnk", {"b": 4, "m": 16, "n": 32, "k": 16}, "m", "tl.dot(a_tile, tl.trans(b_tile, 0, 2, 1))"),
    "a batch inside": ("kbm", "bnk", {"k": 16, "b": 4, "m": 16, "n": 32}, "m", None),
}  # fmt: skip


@pytest.mark.parametrize("acc", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_operands_as_they_lie(form: str, acc: bool) -> None:
    a, b, lengths, left, text = FORMS[form]
    a, b = ("".join(sorted(axes, key=list(lengths).index)) for axes in (a, b))
    k = product(a, b, lengths, left, acc=acc)
    if text is not None and not acc:
        assert f"total = {text}" in re.sub(r"\s*\n\s*", "", TRITON.lower(k).program.source)
    check(k, a, b, lengths, BF16, F32)


@pytest.mark.parametrize("acc", [False, True])
@pytest.mark.parametrize("name", ["f32", "tf32", "f16", "bf16", "e4m3", "promoted", "i8", "i8 in i64"])
def test_element_types(name: str, acc: bool) -> None:
    dtype = {"tf32": F32, "promoted": E4M3, "i8 in i64": I8}.get(name) or ALL[name]
    out = I64 if name == "i8 in i64" else I32 if dtype is I8 else F32
    how = {"tf32": TF32, "promoted": PROMOTED}.get(name, PLAIN)
    lengths = {"m": 16, "n": 32, "k": 64}
    k = product("mk", "nk", lengths, "m", dtype, out, acc, **how)
    check(k, "mk", "nk", lengths, dtype, out)
    source = TRITON.lower(k).program.source
    assert ('input_precision="tf32"' in source) == (name == "tf32") and ('input_precision="ieee"' in source) == (name == "f32")
    assert ("max_num_imprecise_acc=64" in source) == (name == "promoted")


def compiled(k: ir.Kernel, target: str) -> Mapping[str, bytes]:
    return compile_program(TRITON.lower(k, target).program)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942", "hip:gfx950"])
def test_every_form_compiles_for_every_target(target: str) -> None:
    for a, b, lengths, left, _text in FORMS.values():
        a, b = ("".join(sorted(axes, key=list(lengths).index)) for axes in (a, b))
        assert len(compiled(product(a, b, lengths, left, acc=True), target)) == 3
    for dtype, out, how in ((F32, F32, PLAIN), (F32, F32, TF32), (F16, F32, PLAIN), (I8, I32, PLAIN), (E4M3, F32, PLAIN)):
        if not (dtype is E4M3 and target == "cuda:sm_80"):
            assert len(compiled(product("mk", "nk", {"m": 16, "n": 16, "k": 32}, "m", dtype, out, True, **how), target)) == 3


def test_the_tensor_cores_do_it() -> None:
    lengths = {"m": 64, "n": 64, "k": 128}
    for dtype, out, kind, how in (
        (BF16, F32, "m64n64k16.f32.bf16.bf16", PLAIN),
        (E4M3, F32, "m64n64k32.f32.e4m3.e4m3", PLAIN),
        (I8, I32, "m64n64k32.s32.s8.s8", PLAIN),
        (F32, F32, "m64n64k8.f32.tf32.tf32", TF32),
    ):
        ptx = compiled(product("mk", "nk", lengths, "m", dtype, out, **how), "cuda:sm_90")["kernel.ptx"].decode()
        assert f"wgmma.mma_async.sync.aligned.{kind}" in ptx, dtype
    ieee = compiled(product("mk", "nk", {"m": 16, "n": 16, "k": 16}, "m", F32), "cuda:sm_90")["kernel.ptx"].decode()
    assert "mma" not in ieee and "fma.rn.f32" in ieee


def test_promoting_adds_in_registers() -> None:
    """A tensor core sums up 128 terms of each element; 64 x 64 elements are 32 registers of 128 threads."""
    for promote, additions in ((0, 0), (128, 32)):
        k = product("mk", "nk", {"m": 64, "n": 64, "k": 256}, "m", E4M3, promote=promote)
        ptx = compiled(k, "cuda:sm_90")["kernel.ptx"].decode()
        assert (ptx.count("wgmma.mma_async"), ptx.count("add.rn.f32")) == (8, additions)
