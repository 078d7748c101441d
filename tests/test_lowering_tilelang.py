"""TileLang code from hand-built kernels as they are after all passes: it runs on the cpu as torch does, compiles for every target, and reads well."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lowered import TILELANG
from machine_kernels import (
    COLUMNS,
    INSIDE,
    ROWS,
    M,
    N,
    act_quant,
    additions,
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
    two_views,
    var,
    vector_add,
    widened,
)

import nsalang
from nsalang import ir
from nsalang.base.dtypes import F32, I32, I64, U8, U32, DType
from nsalang.toolchain.tilelang_compile import compile_program, emit, load_program

ALL = (vector_add(), widened(softmax()), act_quant())


def with_vectors(k: ir.Kernel, *names: str) -> ir.Kernel:
    return dataclasses.replace(k, schedule=dataclasses.replace(k.schedule, aligned=True, vectors=names))


COMPILED = {"cuda:sm_80": ALL[1:2], "cuda:sm_90": ALL[1:], "cuda:sm_100": ALL[1:]}
"""What nvcc is given. Where it compiles a kernel, nobody needs to see apart from that that there is code for it."""


@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942", "hip:gfx950"])
def test_becomes_device_code_for_every_target(target: str) -> None:
    for k in ALL[:2] if target in ("cuda:sm_80", "hip:gfx942") else ALL:
        if k not in COMPILED.get(target, ()):
            assert "__global__" in str(emit(TILELANG.lower(k, target).program, target.split(":")[0]))


@pytest.mark.nvcc
@pytest.mark.parametrize("target", COMPILED)
def test_compiles_with_nvcc(target: str) -> None:
    for k in COMPILED[target]:
        files = compile_program(TILELANG.lower(k, target).program)
        assert b"__global__" in files["kernel.cu"]
        assert files["kernel.cubin"].startswith(b"\x7fELF") and set(files) == {"kernel.cu", "kernel.cubin", "kernel.json"}


def test_aligned_variants_access_16_bytes_at_once() -> None:
    k = act_quant()
    plain, fast = (str(emit(TILELANG.lower(v, "cuda:sm_90").program, "cuda")) for v in (k, with_vectors(k, "x", "y")))
    assert "*(uint4*)" not in plain and "*(uint4*)(x +" in fast and "*(fp8_e4_8_t*)(y +" in fast  # 8 elements for each of 128 threads
    # Guarded loads stay behind their guards.
    assert re.search(r"if \(.*< M\)+ \{\n *condval = \*\(uint4\*\)\(x", fast)
    # A division of 64 bits in every offset would cost more than the rest.
    assert not re.search(r"[/%] \(*\(int64_t\)", fast)


@pytest.mark.nvcc
def test_division_and_square_root_are_ieee() -> None:
    x = var("x_tile", F32, "m", "n")
    k = kernel(
        [tensor("x", F32, "inout", M, N)], [ROWS, COLUMNS], let("x_tile", load("x", F32, m, n, mask=INSIDE)),
        store("x", op("div", fn("sqrt", x), op("add", op("mul", x, x), c(1.5, F32))), m, n, mask=INSIDE), m=4, n=32,
    )  # fmt: skip
    ptx = str(emit(TILELANG.lower(k, "cuda:sm_90").program, "ptx"))
    assert "div.rn.f32" in ptx and "sqrt.rn.f32" in ptx and "fma.rn.f32" not in ptx and ".approx" not in ptx


def test_each_lane_adds_once_whatever_the_threads() -> None:
    """Also what many threads hold alike: a sum over rows in the threads of each row, and what has no axes in all of them."""
    source = str(emit(TILELANG.lower(additions(F32), "cuda:sm_90", formatted=False).program, "cuda"))
    lines = source.splitlines()
    guards = [lines[i - 1].strip() for i, line in enumerate(lines) if "AtomicAdd((&(count" in line]
    assert guards == ["if (((int)threadIdx.x) < 1) {"]
    assert re.search(r"if \(\(\(int\)threadIdx\.x\) == 0\) \{\n( *if \(.*\) \{\n)? *AtomicAdd\(\(&\(all", source), source


def test_views_that_are_written_are_not_restricted() -> None:
    source = str(emit(TILELANG.lower(two_views("low", "high"), "cuda:sm_90").program, "cuda"))
    assert "int* low" in source and "int* high" in source


@pytest.mark.nvcc
@pytest.mark.parametrize("dtype", [F32, I32, I64, U32])
def test_atomic_additions_compile(dtype: DType) -> None:
    assert compile_program(TILELANG.lower(additions(dtype), "cuda:sm_90", formatted=False).program)["kernel.cubin"].startswith(b"\x7fELF")


def test_long_statements_are_broken() -> None:
    # Where a statement begins or ends with a bracket, ruff breaks inside that one, and we at the operators around it: this one does neither.
    value: ir.Expr = tile("x", F32)
    for i in range(9):
        value = op("add", value, op("mul", op("max", tile("x", F32), c(0.123456789 * i, F32)), c(1.0 + i, F32)))
    x = torch.randn(200)
    z = TILELANG.apply(elementwise(F32, value, ("x", F32)), torch.zeros(200), x=x)
    wanted = x
    for i in range(9):
        wanted = wanted + torch.maximum(x, torch.tensor(0.123456789 * i)) * (1.0 + i)
    assert torch.equal(z, wanted)


def test_what_the_simplifier_must_not_see() -> None:
    """TileLang's simplifier takes floats for real numbers and turns negated comparisons around."""
    x, y = tile("x", F32), tile("y", F32)
    less = fn("not", op("lt", x, y))
    cases: list[tuple[ir.Expr, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = [
        (op("sub", op("add", x, y), x), lambda a, b: (a + b) - a),
        (op("sub", op("add", x, y), y), lambda a, b: (a + b) - b),
        (op("sub", x, x), lambda a, b: a - a),
        (op("mul", x, c(0.0, F32)), lambda a, b: a * 0.0),
        (op("add", x, c(0.0, F32)), lambda a, b: a + 0.0),
        (op("div", c(0.0, F32), x), lambda a, b: torch.zeros(7) / a),
        (
            ir.Where(F32, ("m",), op("or", op("lt", x, y), op("le", y, x)), x, c(2.0, F32)),
            lambda a, b: torch.where((a < b) | (b <= a), a, 2.0),
        ),
        (ir.Where(F32, ("m",), less, x, y), lambda a, b: torch.where(~(a < b), a, b)),
        (ir.Where(F32, ("m",), op("ne", x, x), c(1.0, F32), y), lambda a, b: torch.where(a != a, 1.0, b)),
        (ir.Where(F32, ("m",), op("eq", x, x), c(1.0, F32), y), lambda a, b: torch.where(a == a, 1.0, b)),
    ]
    a = torch.tensor([1.0, -0.0, torch.inf, torch.nan, 3e38, 1e-40, -1.0])
    b = torch.tensor([1e-9, 0.0, torch.nan, 1.0, 3e38, 1.0, torch.inf])
    made = torch.zeros(len(cases), 7)
    for z, (value, _) in zip(made, cases, strict=True):
        TILELANG.apply(elementwise(F32, value, ("x", F32), ("y", F32)), z, x=a, y=b)
    wanted = torch.stack([meaning(a, b) for _, meaning in cases])
    assert torch.equal(made.nan_to_num(7.0), wanted.nan_to_num(7.0)) and torch.equal(made.isnan(), wanted.isnan())
    assert torch.equal(made.signbit() & ~made.isnan(), wanted.signbit() & ~wanted.isnan())


def test_unsigned_bytes_wrap_inside_expressions() -> None:
    x = torch.tensor([250, 3, 255], dtype=torch.uint8)
    wrapped = ir.Where(I32, ("m",), op("lt", op("add", tile("x", U8), c(10, U8)), c(20, U8)), c(1), c(0))
    z = TILELANG.apply(elementwise(I32, wrapped, ("x", U8)), torch.zeros(3, dtype=torch.int32), x=x)
    assert z.tolist() == [1, 1, 1]


@pytest.mark.gpu
def test_runs_on_the_device() -> None:
    capability = "".join(map(str, torch.cuda.get_device_capability()))
    made = TILELANG.lower(with_vectors(act_quant(), "x", "y"), f"cuda:sm_{capability}", formatted=False)
    launch = load_program(made.program, compile_program(made.program))
    x = (torch.randn(21, 384, device="cuda") * 8).bfloat16()
    y, s = torch.zeros(21, 384, device="cuda").to(torch.float8_e4m3fn), torch.zeros(21, 3, device="cuda")
    tensors = {"x": x, "y": y, "s": s}
    values = [
        tensors[b.name] if b.kind == "tensor" else tensors[b.name].stride(b.axis) if b.kind == "stride" else {"M": 21, "N": 384}[b.name]
        for b in made.bindings
    ]
    launch(9, values)
    v = x.float().view(21, 3, 128)
    scale = v.abs().amax(2).clamp(min=1e-4) * torch.tensor(1 / 448, device="cuda")
    assert torch.equal(s, scale)
    assert torch.equal(y.view(torch.uint8), (v / scale[..., None]).view(21, 384).to(y.dtype).view(torch.uint8))


@pytest.mark.parametrize("name", ["softmax", "rmsnorm"])
def test_no_load_leaves_its_guard(name: str) -> None:
    """TileLang's DecoupleTypeCast reads ahead of a mask whose comparison is in 64 bits; the toolchain keeps it from that."""
    kernel = getattr(nsalang.load(Path(__file__).parent.parent / "examples" / f"{name}.nsa"), name)
    text = str(emit(kernel.compile(target="cuda:sm_90", backend="tilelang", wide=True, exact=False).program, "cuda"))
    assert re.search(r"float4|uint4|uint2", text) and not re.search(r"\b(x|w)_local_cast", text)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("end = N\n        for n in tile(end):\n            y[n] = x[n]", [0, 1, 2, 3, 4, 5]),
        ("for n in grid(tile(N)):\n        f = a\n        b = on\n        y[n] = where(b, x[n] * f, f)", [0, 2, 4, 6, 8, 10]),
        (
            "for m in grid(1):\n        e = N\n        d = span(e, 4)\n        for n in tile(e):\n            y[n] = sum(f32(d), axis=d)",
            [30] * 6,
        ),
    ],
)
def test_a_variable_may_be_an_argument(body: str, wanted: list[int]) -> None:
    """TileLang takes `end = N` for a new name of the argument."""
    grid = "" if "grid" in body else "for m in grid(1):\n        "
    kernel = nsalang.load_text(f"def k(x: f32[N], a: f32, on: bool, y: Out[f32[N]]):\n    {grid}{body}\n").k
    assert kernel(torch.arange(6.0), a=2.0, on=True, backend="tilelang", target="cpu").tolist() == wanted
    assert b"__global__" in kernel.compile(target="cuda:sm_90", backend="tilelang").emit("cuda").encode()


def test_a_loop_may_begin_or_end_far_below_zero() -> None:
    """Its end minus its beginning may take 33 bits."""
    text = """
def k(first: i32[S], last: i32[S], turns: Out[f32[S]], T: i32):
    for s in grid(S):
        made = 0
        for t in tile(minimum(first[s], T), minimum(last[s], T)):
            made = made + 1
        turns[s] = f32(made)
"""
    first, last = [3000, -(2**31), 0, -5, 4000], [-(2**31), 4000, -(2**31), 2050, 4000]
    kernel = nsalang.load_text(text).k
    given = [torch.tensor(x, dtype=torch.int32) for x in (first, last)]
    found = kernel(*given, T=5000, backend="tilelang", target="cpu", schedule={"t": 2048})
    assert found.tolist() == [max(0, -((lo - hi) // 2048)) for lo, hi in zip(first, last, strict=True)]
