"""The kernels with contractions by Triton: on the CPU as the interpreter has them, and compiled for every target.

Their data are whole numbers with short sums and powers of two, so that products, sums and exponentials are exact in any order, and what is left
are single roundings.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import nsalang
from nsalang.base.source import NsaError
from nsalang.base.target import parse_target
from nsalang.bench import compare
from nsalang.build.compiled import Compiled, compile_kernel
from nsalang.build.pipeline import Choice, Meaning
from nsalang.toolchain.triton_compile import compile_program, emit

EXAMPLES = Path(__file__).parent.parent / "examples"
Inputs = dict[str, Any]


@cache
def named(name: str) -> Any:
    """A kernel of the examples."""
    (found,) = (f for f in sorted(EXAMPLES.glob("*.nsa")) if re.search(rf"^def {name}\(", f.read_text(), re.MULTILINE))
    return getattr(nsalang.load(found), name)


def unit_scale() -> float:
    """``scale`` by which a score in base e is a whole number in base 2."""
    log2e = torch.tensor(1.4426950408889634)
    near = 1 / log2e
    up, down = torch.nextafter(near, near + 1), torch.nextafter(near, near - 1)
    (exact, *_) = (x for x in (near, up, down) if x * log2e == 1)
    return float(exact)


def whole(*shape: int, low: int = -2, high: int = 3, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randint(low, high, shape).float().to(dtype)


def powers(*shape: int) -> torch.Tensor:
    return torch.exp2(torch.randint(-3, 4, shape).float())


def picks(*shape: int, keys: int) -> torch.Tensor:
    """Indices of keys; a fifth of them is none, near or far; the first row has none at all."""
    out = torch.randint(0, keys, shape, dtype=torch.int32)
    bad = torch.tensor([-1, keys, keys + 1, -(2**31), 2**31 - 1], dtype=torch.int32)
    out = torch.where(torch.rand(shape) < 0.2, bad[torch.randint(0, 5, shape)], out)
    out.view(-1, shape[-1])[0] = -1
    return out


def check(name: str, inputs: Inputs, outputs: tuple[str, ...], *, exact: bool = False, **constants: object) -> None:
    arguments = {**inputs, **constants}
    result = compare.compare(named(name), arguments, target="cpu", exact=exact, outputs=outputs, engines=("interpreter", "triton"))
    assert result.ok, [(r.engine, r.failure) for r in result.runs if r.failure] + [d for d in result.differences if not d.ok]


@pytest.mark.parametrize(("m", "n", "k"), [(70, 131, 100), (1, 1, 1), (128, 256, 64), (16, 40, 200), (5, 7, 0)])
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_matmul(m: int, n: int, k: int, dtype: str) -> None:
    torch_dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    torch.manual_seed(m)
    check("matmul", {"a": whole(m, k, dtype=torch_dtype), "b": whole(k, n, dtype=torch_dtype)}, ("c",), exact=True, T=torch_dtype)


def test_matmul_of_strided_rows() -> None:
    torch.manual_seed(0)
    a, b = whole(100, 140).T[:70], whole(131, 100).T
    check("matmul", {"a": a, "b": b}, ("c",), exact=True)


def test_sums_of_random_numbers() -> None:
    """Within what f32 sums of 300 terms in another order can differ, and one rounding to bf16."""
    torch.manual_seed(0)
    a, b = torch.randn(40, 300).bfloat16(), torch.randn(300, 50).bfloat16()
    c = named("matmul")(a, b, backend="triton", target="cpu")
    terms = a.double()[:, :, None] * b.double()[None]
    bound = 300 * 2.0**-24 * terms.abs().sum(1)
    assert ((c.double() - terms.sum(1)).abs() <= bound + 2.0**-8 * c.double().abs()).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize(("s", "length"), [(70, 70), (3, 130), (129, 65)])
def test_attention(causal: bool, lse: bool, s: int, length: int) -> None:
    torch.manual_seed(s)
    b, h, g, d = 2, 4, 2, 32
    inputs = {
        "q": whole(b, s, h, d, low=-1, high=2),
        "k": whole(b, length, g, d, low=-1, high=2),
        "v": whole(b, length, g, d),
        "scale": unit_scale(),
    }
    if lse:
        inputs["lse"] = torch.zeros(b, h, s)
    check("attention", inputs, ("o", "lse")[: 1 + lse], causal=causal)


def check_scores(name: str, inputs: Inputs) -> None:
    """Every element of a clean output, and of one that is not the same where keys are seen."""
    check(name, inputs, ("out",), exact=True, clean=True)
    clean, out = (named(name)(**inputs, clean=clean, backend="triton", target="cpu") for clean in (True, False))
    assert torch.equal(clean[clean > -torch.inf], out[clean > -torch.inf]) and (clean > -torch.inf).any()


@pytest.mark.parametrize(("s", "t", "h"), [(3, 70, 8), (5, 200, 40), (2, 128, 64), (1, 1, 1)])
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
    check_scores("mqa_logits", inputs)


@pytest.mark.parametrize(("b", "m", "n", "h"), [(2, 5, 70, 8), (1, 1, 130, 64)])
def test_fp8_index(b: int, m: int, n: int, h: int) -> None:
    torch.manual_seed(n)
    e4m3 = torch.float8_e4m3fn
    inputs = {
        "q": whole(b, m, h, 32, dtype=e4m3), "w": whole(b, m, h, dtype=torch.float32), "k": whole(b, n, 32, dtype=e4m3), "k_scale": powers(b, n)
    }  # fmt: skip
    check("fp8_index", inputs, ("out",), exact=True)


@pytest.mark.parametrize(("x", "h", "length"), [(1, 8, 100), (2, 40, 230), (3, 16, 64)])
def test_paged_mqa_logits(x: int, h: int, length: int) -> None:
    torch.manual_seed(h)
    b, d, page, pages = 2, 64, 64, 9
    cache = torch.zeros(pages, page * (d + 4), dtype=torch.uint8)
    cache[:, : page * d] = whole(pages, page * d, dtype=torch.float8_e4m3fn).view(torch.uint8)
    cache[:, page * d :] = powers(pages, page).view(torch.uint8)
    width = -(-length // page)
    inputs = {
        "q": whole(b, x, h, d, dtype=torch.float8_e4m3fn), "cache": cache, "w": whole(b, x, h, dtype=torch.float32),
        "lengths": torch.tensor([length, length // 3], dtype=torch.int32), "table": picks(b, width, keys=pages).roll(1, 0), "L": length,
    }  # fmt: skip
    check_scores("paged_mqa_logits", inputs)


def sparse(s: int, h: int, k: int, d: int, r: int, keys: int = 50) -> Inputs:
    torch.manual_seed(h + k)
    return {
        "q": whole(s, h, d + r, low=-1, high=2), "kv": whole(keys, d + r, low=-1, high=2), "idx": picks(s, k, keys=keys), "scale": unit_scale()
    }  # fmt: skip


@pytest.mark.parametrize("k", [1, 64, 100])
@pytest.mark.parametrize("h", [1, 8, 16, 40])
def test_sparse_mla(h: int, k: int) -> None:
    check("sparse_mla", {**sparse(3, h, k, 32, 16), "lse": torch.zeros(3, h)}, ("o", "lse"), D=32, R=16)


@pytest.mark.parametrize("present", [("length",), ("limit",), ("sink",), ("length", "limit", "sink")])
def test_sparse_mla_with_what_is_optional(present: tuple[str, ...]) -> None:
    optional = {
        "length": torch.tensor([-3, 100, 37, 0], dtype=torch.int32), "limit": torch.tensor([9, 20, -1, 49], dtype=torch.int32),
        "sink": torch.randint(-2, 3, (24,)) / torch.tensor(1.4426950408889634),
    }  # fmt: skip
    check("sparse_mla", {**sparse(4, 24, 100, 32, 16), **{n: optional[n] for n in present}}, ("o",), D=32, R=16)


@pytest.mark.parametrize(("h", "k", "parts"), [(8, 100, 3), (40, 30, 8), (1, 200, 2)])
def test_sparse_mla_part(h: int, k: int, parts: int) -> None:
    inputs = {**sparse(2, h, k, 32, 16), "part": torch.zeros(2, parts, h, 32), "lse": torch.zeros(2, parts, h)}
    check("sparse_mla_part", inputs, ("part", "lse"), D=32, R=16)


@pytest.mark.parametrize(("h", "k", "parts"), [(8, 90, 2), (40, 20, 3)])
def test_sparse_mla_fp8_part(h: int, k: int, parts: int) -> None:
    torch.manual_seed(h)
    b, x, pages, page = 2, 1, 3, 16
    cache = torch.zeros(pages, page, 656, dtype=torch.uint8)
    cache[..., :512] = whole(pages, page, 512, low=-1, high=2, dtype=torch.float8_e4m3fn).view(torch.uint8)
    cache[..., 512:528] = torch.ones(pages, page, 4).mul(2.0).view(torch.uint8)
    cache[..., 528:] = whole(pages, page, 64, low=-1, high=2).view(torch.uint8)
    inputs = {
        "q": whole(b, x, h, 576, low=-1, high=2), "cache": cache, "idx": picks(b, x, k, keys=pages * page), "scale": unit_scale(),
        "part": torch.zeros(b, x, parts, h, 512), "lse": torch.zeros(b, x, parts, h),
    }  # fmt: skip
    check("sparse_mla_fp8_part", inputs, ("part", "lse"))


@pytest.mark.parametrize("h", [1, 40])
def test_sparse_mqa_sink(h: int) -> None:
    two = [sparse(3, h, 70, 32, 0), sparse(3, h, 70, 32, 0)]
    inputs = {n: torch.stack([i[n] for i in two]) for n in ("q", "kv", "idx")}
    sink = torch.randint(-2, 3, (h,)) / torch.tensor(1.4426950408889634)
    check("sparse_mqa_sink", {**inputs, "sink": sink, "scale": unit_scale()}, ("o",))


DIMS: Mapping[str, Mapping[str, int]] = {
    "matmul": {}, "attention": {"D": 128}, "mqa_logits": {"H": 64, "D": 128}, "fp8_index": {"H": 64, "D": 128},
    "paged_mqa_logits": {"X": 2, "H": 64, "D": 128}, "sparse_mla": {}, "sparse_mla_part": {}, "sparse_mqa_sink": {"D": 512},
    "sparse_mla_fp8_part": {},
}  # fmt: skip


def compiled(name: str, target: str, **facts: Any) -> Compiled:
    meaning = Meaning.of(parse_target(target), {}, DIMS[name], frozenset())
    return compile_kernel(named(name).unit, meaning, Choice("triton", **facts))


def loop(ptx: str) -> str:
    """The body of the only loop."""
    (label,) = (x for x in re.findall(r"^(\$L__BB\d+_\d+):", ptx, re.MULTILINE) if f"\t{x};" in ptx[ptx.index(f"\n{x}:") :])
    start = ptx.index(f"\n{label}:")
    return ptx[start : ptx.index(f"\t{label};", start)]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["matmul", "attention", "sparse_mla"])
def test_loops_are_pipelined(name: str, exact: bool) -> None:
    """Blocks are copied to shared memory, 16 bytes at once, before the loop and in its turns after their contractions; those take them from there."""
    made = compiled(name, "cuda:sm_90", exact=exact)
    assert made.program.stages > 1
    ptx = str(made.emit("ptx"))
    body, copy = loop(ptx), "cp.async.cg.shared.global"
    assert 0 <= body.index("cp.async.wait_group") < body.index("wgmma.mma_async") < body.index(copy)
    assert ptx.count(copy) == made.program.stages * body.count(copy)
    assert "ld.global" not in body or name == "sparse_mla"


@pytest.mark.parametrize("name", ["mqa_logits", "fp8_index", "paged_mqa_logits"])
def test_indexers_multiply_fp8(name: str) -> None:
    ptx = str(compiled(name, "cuda:sm_90").emit("ptx"))
    assert "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3" in ptx


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942", "hip:gfx950"])
@pytest.mark.parametrize("name", DIMS)
def test_everything_compiles(name: str, target: str) -> None:
    """Also within the target's shared memory, or the toolchain refuses."""
    assert compiled(name, target).artifact["kernel.cubin" if target.startswith("cuda") else "kernel.hsaco"].startswith(b"\x7fELF")


@pytest.mark.slow
@pytest.mark.parametrize("facts", [{"wide": True}, {"aligned": False}, {"exact": True}])
@pytest.mark.parametrize("name", DIMS)
def test_every_variant_compiles(name: str, facts: Mapping[str, bool]) -> None:
    assert compiled(name, "cuda:sm_90", **facts).artifact["kernel.cubin"].startswith(b"\x7fELF")


@pytest.mark.parametrize(
    ("target", "form", "instruction"), [("hip:gfx942", "f8E4M3FNUZ", "_fp8_fp8"), ("hip:gfx950", "f8E4M3FN", "_f8f6f4")]
)
def test_fp8_on_amd(target: str, form: str, instruction: str) -> None:
    """Matrix cores take the format that the device has."""
    program = compiled("fp8_index", target).program
    assert set(re.findall(r"f8E4M3\w*", str(emit(program, "ttir")))) == {form}
    assert f"{instruction} " in str(emit(program, "amdgcn"))


def test_what_shared_memory_cannot_hold_is_refused() -> None:
    program = dataclasses.replace(compiled("matmul", "cuda:sm_90").program, stages=9)
    with pytest.raises(NsaError, match="bytes of shared memory for 'matmul', and a block on cuda:sm_90 can have 232448"):
        compile_program(program)
