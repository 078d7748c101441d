"""The rule by which results agree, and the table made of a GPU run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nsalang import load_text
from nsalang.base.target import Target
from nsalang.bench import __main__ as bench
from nsalang.bench import compare
from nsalang.bench.compare import CODES, difference, moved
from nsalang.bench.tables import correctness, markdown, text_table, times
from nsalang.build.pipeline import typed

E4M3 = torch.float8_e4m3fn


def verdict(a: torch.Tensor, b: torch.Tensor, *, exact: bool) -> bool:
    return difference("triton", "y", a, b, exact=exact).ok


def test_bits_and_not_values_are_compared() -> None:
    a = torch.tensor([0.0, float("nan"), float("inf"), 1.0])
    assert verdict(a, a.clone(), exact=True)
    other_nan = a.view(torch.int32).clone()
    other_nan[1] += 1
    assert verdict(a, other_nan.view(torch.float32), exact=True)
    assert not verdict(a, torch.tensor([-0.0, float("nan"), float("inf"), 1.0]), exact=True)
    found = difference("triton", "y", a, torch.tensor([0.0, float("nan"), float("inf"), 1.0000001]), exact=True)
    assert (found.equal, found.elements, found.steps) == (3, 4, 1) and "the first at [3]" in found.reason


def test_the_bound_of_f32() -> None:
    a = torch.tensor([1.0, 1000.0, 1e-9])
    assert verdict(a, a * (1 + 5e-6), exact=False)
    assert verdict(a, a + torch.tensor([0, 0, 1e-6]), exact=False)
    assert not verdict(a, a + torch.tensor([1e-2, 0, 0]), exact=False)
    assert not verdict(a, torch.tensor([1.0, 1000.0, float("nan")]), exact=False)
    assert not verdict(torch.tensor([float("inf")]), torch.tensor([3e38]), exact=False)


def test_the_bound_of_bf16_and_fp8() -> None:
    a = torch.full((4000,), 1.0).bfloat16()
    assert verdict(a, torch.full((4000,), 1.0078125).bfloat16(), exact=False)
    assert not verdict(a, torch.full((4000,), 1.015625).bfloat16(), exact=False)
    codes = torch.full((4000,), 16.0)
    one_step = codes.clone()
    one_step[: int(CODES * 4000)] = 18.0
    assert verdict(codes.to(E4M3), one_step.to(E4M3), exact=False)
    assert not verdict(codes.to(E4M3), one_step.to(E4M3), exact=True)
    one_step[: int(CODES * 4000) + 1] = 18.0
    assert not verdict(codes.to(E4M3), one_step.to(E4M3), exact=False)
    two_steps = codes.clone()
    two_steps[0] = 20.0
    assert not verdict(codes.to(E4M3), two_steps.to(E4M3), exact=False)
    assert difference("t", "y", codes.to(E4M3), two_steps.to(E4M3), exact=False).steps == 2


def test_shapes_and_empty_outputs() -> None:
    assert verdict(torch.zeros(0, 4), torch.zeros(0, 4), exact=True)
    assert not verdict(torch.zeros(2, 4), torch.zeros(4, 2), exact=True)
    assert not verdict(torch.zeros(2), torch.zeros(2, dtype=torch.int32), exact=False)
    assert not verdict(torch.tensor([True]), torch.tensor([False]), exact=False)


@pytest.mark.parametrize(
    ("body", "exact"),
    [
        ("y[n] = x[n] / 3 + sqrt(x[n])", True),
        ("y[n] = exp(x[n])", False),
        ("y[n] = f32(i32(rsqrt(x[n])))", False),
    ],
)
def test_exactness_follows_from_the_kernel(body: str, exact: bool) -> None:
    kernel = load_text(f"def f(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        {body}\n").f
    assert compare.is_exact(typed(kernel.unit, kernel.meaning(Target("cpu"), {}))) is exact


@pytest.mark.parametrize(("op", "dtype", "exact"), [("sum", "f32", False), ("max", "f32", True), ("sum", "i32", True)])
def test_exactness_of_reductions(op: str, dtype: str, exact: bool) -> None:
    head = f"def f(x: {dtype}[M, N], y: Out[{dtype}[M]]):\n    for m in grid(M):\n        n = span(4)\n"
    text = f"{head}        y[m] = {dtype}({op}(x[m, n], axis=n))\n"
    kernel = load_text(text).f
    assert compare.is_exact(typed(kernel.unit, kernel.meaning(Target("cpu"), {}))) is exact


@pytest.mark.parametrize(("dtype", "options", "short"), [("e4m3", "", True), ("e4m3", ', accumulate="f32"', False), ("bf16", "", False)])
def test_only_short_sums_of_a_tensor_core_have_the_wider_bound(dtype: str, options: str, short: bool) -> None:
    head = (
        f"def f(x: {dtype}[M, 128], w: {dtype}[N, 128], y: Out[f32[M, N]]):\n    k = span(128)\n    for m, n in grid(tile(M), tile(N)):\n"
    )
    kernel = load_text(f"{head}        y[m, n] = dot(x[m, k], w[n, k], axis=k{options})\n").f
    absolute = compare.absolute(typed(kernel.unit, kernel.meaning(Target("cpu"), {})))
    assert absolute == (compare.SHORT if short else compare.ABSOLUTE)
    a = torch.tensor([1.0, 100.0])
    b = a + torch.tensor([0.1, 0])
    assert difference("triton", "y", a, b, exact=False, absolute=absolute).ok is short
    assert not difference("triton", "y", a, b * 1.01, exact=False, absolute=absolute).ok


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        ("bf16(exp(s))", 2.0**-7),
        ("bf16(p)", 2.0**-7),
        ("f16(p * 2)", 2.0**-10),
        ("bf16(s + 1)", compare.ABSOLUTE),
        ("x[m, k]", compare.ABSOLUTE),
    ],
)
def test_contracted_values_that_were_rounded_may_differ_by_a_step(value: str, bound: float) -> None:
    dtype = "f16" if "f16(p *" in value and "bf16" not in value else "bf16"
    kernel = load_text(
        f"def f(x: {dtype}[M, K], w: {dtype}[N, K], y: Out[f32[M, N]]):\n    for m, n in grid(tile(M), tile(N)):\n        acc = zeros(m, n)\n"
        "        for k in tile(K):\n            s = f32(x[m, k])\n            p = sigmoid(s)\n"
        f"            acc = acc + dot({value}, w[n, k], axis=k)\n        y[m, n] = acc\n"
    ).f
    assert compare.absolute(typed(kernel.unit, kernel.meaning(Target("cpu"), {}))) == bound


def test_moved_keeps_strides_and_values() -> None:
    base = torch.randn(9, 40)
    for view in (base[1:, 3:20], base.t(), base[::2, ::3], base[0:0], base[:1].expand(4, 40), base.to(E4M3)[2:, 5:]):
        copy = moved(view, "cpu")
        assert copy.stride() == view.stride() and copy.shape == view.shape
        assert torch.equal(copy.float(), view.float()) and (not view.numel() or copy.data_ptr() != view.data_ptr())


RESULT: dict[str, object] = {
    "date": "2026-01-02T03:04:05+00:00",
    "device": "NVIDIA H200",
    "commit": "abc",
    "command": "python -m nsalang.bench gpu --json /root/out/a.json --peers /tmp/here/peers.py",
    "versions": {"torch": "2.11"},
    "failed": [{"of": "peers", "family": "rows", "why": "exit 1"}],
    "rows": [
        {"kernel": "act_quant", "case": "(1, 128) plain", "backend": b, "output": "y", "equal": 128, "elements": 128, "max_rel": 0.0,
         "steps": 0, "exact": True, "ok": b == "triton", "reason": ""} for b in ("triton", "tilelang")
    ] + [
        {"kernel": "rmsnorm", "case": [4096, 16384], "backend": "triton", "us": 60.0, "tb_s": 4.0},
        {"kernel": "act_quant", "case": [128, 512], "backend": "triton", "us": 1.5, "tb_s": 0.1},
        {"of": "peers", "family": "quant", "peer": "by hand[grid](...)", "case": [128, 512], "graph_us": 1.4, "tb_s": 0.1},
        {"of": "peers", "family": "rows", "peer": "torch rms_norm", "case": [1, 2], "failed": "no"},
        {"of": "peers", "family": "rows", "peer": "torch rms_norm", "case": [4096, 16384], "ms": 0.5, "tb_s": 0.5},
        {"kernel": "act_quant", "case": [128, 512], "backend": "triton", "host_us": 5.0},
    ],
}  # fmt: skip


def test_a_run_becomes_tables() -> None:
    columns, rows = correctness(RESULT)
    assert rows == [["act_quant", "(1, 128) plain", "y all 128", "y all 128", "exact", "DIFFER"]]
    assert [r[0] for r in times(RESULT)[1]] == [
        "act_quant", "quant: by hand[grid](...)", "rows: torch rms_norm", "rmsnorm", "rows: torch rms_norm", "act_quant, host time of a call",
    ]  # fmt: skip
    assert len(set(map(len, text_table(columns, rows).splitlines()[:2]))) == 1


def test_the_page_is_made_of_json_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(RESULT))
    assert bench.main(["report", str(tmp_path / "a.json")]) == 0
    page = capsys.readouterr().out
    assert page == markdown([RESULT])
    assert "| act_quant | triton | [128, 512] | 1.50 | 0.10 | kept |" in page and "- Failed: peers rows: exit 1." in page
    assert "| rows: torch rms_norm | peer | [4096, 16384] | 500.00 | 0.50 | emptied |" in page
    assert "| quant: by hand[grid]\\(...) | peer |" in page
    assert "\n    python -m nsalang.bench gpu --json a.json --peers peers.py\n" in page
