"""The kernels with contractions by TileLang: on the CPU as the interpreter has them, and compiled for devices.

The data are those of the tests of Triton: whole numbers with short sums and powers of two, of which every sum is exact.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from test_contractions_triton import DIMS, Inputs, named, picks, powers, sparse, unit_scale, whole

import nsalang
from nsalang import ir
from nsalang.base.target import parse_target
from nsalang.bench import compare
from nsalang.build.compiled import Compiled, compile_kernel
from nsalang.build.pipeline import Choice, Meaning
from nsalang.toolchain.tilelang_compile import emit


def check(name: str, inputs: Inputs, outputs: tuple[str, ...], *, exact: bool = False, **constants: object) -> None:
    arguments = {**inputs, **constants}
    result = compare.compare(named(name), arguments, target="cpu", exact=exact, outputs=outputs, engines=("interpreter", "tilelang"))
    assert result.ok, [(r.engine, r.failure) for r in result.runs if r.failure] + [d for d in result.differences if not d.ok]


@pytest.mark.parametrize(
    ("m", "n", "k", "dtype"), [(70, 131, 100, torch.bfloat16), (128, 256, 64, torch.float16), (5, 8, 200, torch.bfloat16)]
)
def test_matmul(m: int, n: int, k: int, dtype: torch.dtype) -> None:
    torch.manual_seed(m)
    check("matmul", {"a": whole(m, k, dtype=dtype), "b": whole(k, n, dtype=dtype)}, ("c",), exact=True, T=dtype)


def test_no_terms() -> None:
    """A loop without a step, whose first block would be read ahead."""
    check("matmul", {"a": torch.zeros(5, 0).bfloat16(), "b": torch.zeros(0, 7).bfloat16()}, ("c",), exact=True)


def test_sums_of_random_numbers() -> None:
    """Within what f32 sums of 300 terms in another order can differ, and one rounding to bf16."""
    torch.manual_seed(0)
    a, b = torch.randn(40, 300).bfloat16(), torch.randn(300, 50).bfloat16()
    c = named("matmul")(a, b, backend="tilelang", target="cpu")
    terms = a.double()[:, :, None] * b.double()[None]
    bound = 300 * 2.0**-24 * terms.abs().sum(1)
    assert ((c.double() - terms.sum(1)).abs() <= bound + 2.0**-8 * c.double().abs()).all()


@pytest.mark.parametrize(("causal", "s", "length"), [(False, 70, 70), (True, 129, 65)])
def test_attention(causal: bool, s: int, length: int) -> None:
    torch.manual_seed(s)
    b, h, g, d = 2, 4, 2, 32
    inputs = {"q": whole(b, s, h, d, low=-1, high=2), "k": whole(b, length, g, d, low=-1, high=2), "v": whole(b, length, g, d)}
    check("attention", {**inputs, "scale": unit_scale(), "lse": torch.zeros(b, h, s)}, ("o", "lse"), causal=causal)


@pytest.mark.parametrize(("s", "t", "h"), [(5, 200, 40), (3, 128, 16)])
def test_mqa_logits(s: int, t: int, h: int) -> None:
    torch.manual_seed(t)
    first = torch.randint(0, t, (s,), dtype=torch.int32)
    last = torch.minimum(first + torch.randint(1, t + 1, (s,), dtype=torch.int32), torch.tensor(t, dtype=torch.int32))
    last[1:2] = first[1:2]
    e4m3 = torch.float8_e4m3fn
    inputs = {
        "q": whole(s, h, 64, dtype=e4m3), "k": whole(t, 64, dtype=e4m3), "k_scale": powers(t), "w": whole(s, h, dtype=torch.float32),
        "first": first, "last": last,
    }  # fmt: skip
    check("mqa_logits", inputs, ("out",), exact=True, clean=True)


def test_paged_mqa_logits() -> None:
    torch.manual_seed(0)
    b, x, h, length, d, page, pages = 2, 2, 40, 230, 64, 64, 9
    cache = torch.zeros(pages, page * (d + 4), dtype=torch.uint8)
    cache[:, : page * d] = whole(pages, page * d, dtype=torch.float8_e4m3fn).view(torch.uint8)
    cache[:, page * d :] = powers(pages, page).view(torch.uint8)
    inputs = {
        "q": whole(b, x, h, d, dtype=torch.float8_e4m3fn), "cache": cache, "w": whole(b, x, h, dtype=torch.float32),
        "lengths": torch.tensor([length, length // 3], dtype=torch.int32), "table": picks(b, -(-length // page), keys=pages).roll(1, 0), "L": length,
    }  # fmt: skip
    check("paged_mqa_logits", inputs, ("out",), exact=True, clean=True)


@pytest.mark.parametrize("k", [1, 64, 100])
@pytest.mark.parametrize("h", [1, 8, 16, 40])
def test_sparse_mla(h: int, k: int) -> None:
    check("sparse_mla", {**sparse(3, h, k, 32, 16), "lse": torch.zeros(3, h)}, ("o", "lse"), D=32, R=16)


def test_sparse_mla_with_what_is_optional() -> None:
    optional = {
        "length": torch.tensor([-3, 100, 37, 0], dtype=torch.int32), "limit": torch.tensor([9, 20, -1, 49], dtype=torch.int32),
        "sink": torch.randint(-2, 3, (24,)) / torch.tensor(1.4426950408889634),
    }  # fmt: skip
    check("sparse_mla", {**sparse(4, 24, 100, 32, 16), **optional}, ("o",), D=32, R=16)


@pytest.mark.parametrize(("h", "k", "parts"), [(40, 30, 8), (1, 200, 2)])
def test_sparse_mla_part(h: int, k: int, parts: int) -> None:
    inputs = {**sparse(2, h, k, 32, 16), "part": torch.zeros(2, parts, h, 32), "lse": torch.zeros(2, parts, h)}
    check("sparse_mla_part", inputs, ("part", "lse"), D=32, R=16)


@pytest.mark.slow
def test_sparse_mla_fp8_part() -> None:
    torch.manual_seed(0)
    b, x, h, k, parts, pages, page = 2, 1, 8, 90, 2, 3, 16
    cache = torch.zeros(pages, page, 656, dtype=torch.uint8)
    cache[..., :512] = whole(pages, page, 512, low=-1, high=2, dtype=torch.float8_e4m3fn).view(torch.uint8)
    cache[..., 512:528] = torch.ones(pages, page, 4).mul(2.0).view(torch.uint8)
    cache[..., 528:] = whole(pages, page, 64, low=-1, high=2).view(torch.uint8)
    inputs = {
        "q": whole(b, x, h, 576, low=-1, high=2), "cache": cache, "idx": picks(b, x, k, keys=pages * page), "scale": unit_scale(),
        "part": torch.zeros(b, x, parts, h, 512), "lse": torch.zeros(b, x, parts, h),
    }  # fmt: skip
    check("sparse_mla_fp8_part", inputs, ("part", "lse"))


def compiled(name: str, target: str, **facts: Any) -> Compiled:
    meaning = Meaning.of(parse_target(target), {}, DIMS[name], frozenset())
    return compile_kernel(named(name).unit, meaning, Choice("tilelang", **facts))


def test_gathered_rows_are_copied_ahead() -> None:
    """Keys go to shared memory while the step before computes; nothing is copied twice, and the sum goes on in the place where it is scaled."""
    made = compiled("sparse_mla", "cuda:sm_90", exact=True)
    source = made.program.source
    assert "Pipelined" not in source and source.count("parallel_async_without_async_commit_wait") == 4
    loop = source[source.index("T.serial(") :]
    order = ["if k + 64 < K:", "keys[(k_block + 1) % 2, i, j] = ", "ptx_commit_group()", "ptx_wait_group(1)", "sync_threads()", "T.gemm("]
    assert sorted(order, key=loop.index) == order
    assert "acc[i, j] = acc[i, j] * fix[i]" in source and source.count("T.alloc_fragment((64, 512)") == 1
    assert re.search(r"T\.gemm\(p_\w+, keys\[k_block % 2, :, :\], acc, policy=", source) and source.count("clear_accum=True") == 1
    cuda = str(made.emit("cuda"))
    assert (
        cuda.count("tl::cp_async_gs_conditional<16>") == 4 and cuda.count("tl::wgmma_ss<") == 3 and cuda.count("tl::cp_async_commit()") == 2
    )
    assert cuda.index("tl::cp_async_wait<1>") < cuda.index("tl::fence_proxy_async") < cuda.index("tl::wgmma_ss<")


def chained(keys: int) -> Compiled:
    meaning = Meaning.of(parse_target("cuda:sm_90"), {}, {"D": 64}, frozenset())
    return compile_kernel(named("sparse_mqa_sink").unit, meaning, Choice("tilelang", pinned=(("h", 32), ("k", keys))))


@pytest.mark.parametrize(("keys", "policy"), [(16, "FullRow"), (64, "FullCol")])
def test_a_row_has_the_same_warps_in_chained_products(keys: int, policy: str) -> None:
    """A maximum over the columns of one scales the rows of the other, which TileLang refuses where other warps have them."""
    made = chained(keys)
    assert made.kernel.schedule.warps == 4 and made.source.count(f"policy=T.GemmWarpPolicy.{policy})") == 2


@pytest.mark.slow
def test_tilelang_takes_chained_products_of_few_columns() -> None:
    assert "tl::mma_sync<" in str(emit(chained(16).program, "cuda"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "cuda:sm_120"])
@pytest.mark.parametrize("width", [4, 32, 512])
def test_tilelang_takes_every_class_of_rows(width: int, target: str) -> None:
    """What the rule chooses, for few heads and narrow rows too."""
    meaning = Meaning.of(parse_target(target), {}, {"D": width}, frozenset())
    unit = named("sparse_mqa_sink").unit
    ((axis, least, most),) = compile_kernel(unit, meaning, Choice("tilelang")).kernel.schedule.classes
    for length in (n for n in (16, 32, 64) if least <= n < most):
        made = compile_kernel(unit, meaning, Choice("tilelang", exact=True, sized=((axis, length),)))
        assert made.kernel.schedule.length(axis) == length and "__global__" in str(emit(made.program, "cuda"))


def test_what_an_operand_is_computed_from_is_copied_ahead() -> None:
    """Values and their scales are copied while the step before computes; page and slot of a row are divided out once, before the copies."""
    made = compiled("sparse_mla_fp8_part", "cuda:sm_90")
    (loop,) = [n for n in ir.walk(made.kernel) if isinstance(n, ir.For)]
    assert loop.ahead == ("page", "slot", "live", "scales_group", "values_tile") and loop.stages == 2
    few = compiled("sparse_mla_fp8_part", "cuda:sm_90", sized=(("h", 16),))
    assert [n.ahead for n in ir.walk(few.kernel) if isinstance(n, ir.For)] == [(*loop.ahead, "rope")], "there is room for all of it"
    source = made.program.source[made.program.source.index("T.serial(") :]
    order = [
        "page[(k_block + 1) % 2, i] =",
        "T.sync_threads()",
        "values_tile[(k_block + 1) % 2, i, j] =",
        "ptx_wait_group(1)",
        "keys[i, j] =",
        "T.gemm(",
    ]
    assert sorted(order, key=source.index) == order and source.count("T.truncdiv(t[i], P)") == 1
    cuda = str(made.emit("cuda"))
    step = cuda[cuda.index("++k_block") :]
    copies = step[step.index("cp_async_gs_conditional<4>") : step.index("cp_async_commit")]
    assert "cp_async_gs_conditional<16>" in copies and "__syncthreads" not in copies
    rows = re.search(r"for \(int i_\d+ = 0; i_\d+ < (\d+); \+\+i_\d+\) \{\s*tl::cp_async_gs_conditional<16>", copies)
    assert rows is not None and int(rows[1]) == 64 * 512 // 16 // 256, "each thread copies its own part of the block"


@pytest.mark.nvcc
@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90"])
@pytest.mark.parametrize("name", DIMS)
def test_everything_compiles(name: str, target: str) -> None:
    assert compiled(name, target, exact=True).artifact["kernel.cubin"].startswith(b"\x7fELF")


@pytest.mark.nvcc
@pytest.mark.slow
@pytest.mark.parametrize("facts", [{"wide": True}, {"aligned": False}, {"sized": (("h", 16),)}])
def test_every_variant_compiles(facts: dict[str, Any]) -> None:
    assert compiled("sparse_mla", "cuda:sm_90", **facts).artifact["kernel.cubin"].startswith(b"\x7fELF")


@pytest.mark.nvcc
@pytest.mark.parametrize("operand", ["a[m, k]", "i8(f32(a[m, k]) * 2)"])
def test_operands_of_i8_stay_i8(operand: str) -> None:
    text = f"""
def k(a: i8[M, K], b: i8[N, K], c: Out[f32[M, N]]):
    for m, n in grid(tile(M), tile(N)):
        acc = zeros(m, n)
        for k in tile(K):
            acc = acc + f32(dot({operand}, b[n, k], axis=k))
        c[m, n] = acc
"""
    kernel = nsalang.load_text(text).k
    a, b = (torch.randint(-60, 60, shape, dtype=torch.int8) for shape in ((20, 300), (70, 300)))
    found = compare.compare(kernel, {"a": a, "b": b}, target="cpu", exact=True, outputs=("c",), engines=("interpreter", "tilelang"))
    assert found.ok, found.differences
    assert kernel.compile(target="cuda:sm_90", backend="tilelang").emit("cubin")
