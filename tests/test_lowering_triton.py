"""Triton code from hand-built kernels as they are after all passes: it runs on the cpu as torch does, compiles for every target, and reads well."""

import dataclasses

import pytest
import torch
from lowered import TRITON
from machine_kernels import (
    COLUMNS,
    INSIDE,
    ROWS,
    M,
    N,
    act_quant,
    c,
    elementwise,
    fn,
    kernel,
    let,
    load,
    m,
    n,
    op,
    softmax,
    store,
    tensor,
    tile,
    var,
    vector_add,
    widened,
)

from nsalang import ir
from nsalang.base.dtypes import F32
from nsalang.toolchain.triton_compile import compile_program


@pytest.mark.parametrize("target", ["cuda:sm_90", "cuda:sm_100", "hip:gfx942", "hip:gfx950"])
def test_compiles_for_every_target(target: str) -> None:
    for k in (vector_add(), widened(softmax()), act_quant(240.0 if target == "hip:gfx942" else 448.0)):
        files = compile_program(TRITON.lower(k, target).program)
        fast = compile_program(TRITON.lower(dataclasses.replace(k, schedule=dataclasses.replace(k.schedule, aligned=True)), target).program)
        if target.startswith("cuda") and k.schedule.length("n") == 128:
            assert b"ld.global.v4" not in files["kernel.ptx"] and b".v4" in fast["kernel.ptx"], "aligned variants access 16 bytes at once"


def test_sm_80() -> None:
    assert compile_program(TRITON.lower(softmax(), "cuda:sm_80").program)["kernel.cubin"]


def test_division_and_square_root_are_ieee() -> None:
    x = var("x_tile", F32, "m", "n")
    k = kernel(
        [tensor("x", F32, "inout", M, N)], [ROWS, COLUMNS], let("x_tile", load("x", F32, m, n, mask=INSIDE)),
        store("x", op("div", fn("sqrt", x), op("add", op("mul", x, x), c(1.5, F32))), m, n, mask=INSIDE), m=4, n=32,
    )  # fmt: skip
    ptx = compile_program(TRITON.lower(k, "cuda:sm_90").program)["kernel.ptx"]
    assert b"div.rn.f32" in ptx and b"sqrt.rn.f32" in ptx and b"fma.rn" not in ptx and b".approx" not in ptx
    for target in ("hip:gfx942", "hip:gfx950"):
        assert compile_program(TRITON.lower(k, target).program)["kernel.hsaco"]


def test_long_statements_are_broken() -> None:
    value: ir.Expr = tile("x", F32)
    for i in range(12):
        value = op("add", op("mul", value, c(1.0 + i, F32)), op("max", tile("x", F32), c(0.123456789 * i, F32)))
    x = torch.randn(200)
    z = TRITON.apply(elementwise(F32, value, ("x", F32)), torch.zeros(200), x=x)
    wanted = x
    for i in range(12):
        wanted = wanted * (1.0 + i) + torch.maximum(x, torch.tensor(0.123456789 * i))
    assert torch.equal(z, wanted)
