"""What calls and commands say where an optional parameter brings a dimension of its own, and where another kernel of the file is wrong."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nsalang
import nsalang.ops

OPTIONAL = """
def alone(x: f32[N], y: Out[f32[N]], t: i32[B] | None):
    require(B > 0)
    for n in grid(tile(N)):
        y[n] = x[n] if t is None else x[n] + f32(t[B - 1])


def computed(x: f32[N], y: Out[f32[N]], t: i32[B] | None):
    for n in grid(tile(N)):
        y[n] = x[n] * f32(B)


def program(x: f32[N], y: Out[f32[N]], t: i32[B] | None):
    alone(x, t, y=y)
"""
FILE = """
def right(x: f32[N, B], y: Out[f32[N, B]]):
    n = span(B)
    for m in grid(N):
        y[m, n] = x[m, n]


def wrong(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[0] = sum(x[n], axis=n)
"""
NO_GRID = """

def no_grid(x: f32[N], y: Out[f32[N]]):
    for n in range(N):
        y[n] = x[n]
"""
LOGS = """
def logs(z: f32, e: Out[i64[8]]):
    for i in grid(1):
        e[0] = ceil_log2(0.0)
        e[1] = ceil_log2(3.0)
        e[2] = ceil_log2(-4.0)
        e[3] = ceil_log2(inf)
        e[4] = ceil_log2(-0.0)
        e[5] = ceil_log2(1e-40)
        e[6] = ceil_log2(3.4e38)
        e[7] = ceil_log2(z)
"""


@pytest.mark.parametrize("backend", ["triton", "tilelang", "interpreter"], ids=lambda b: f"P-optional-dimension-{b}")
@pytest.mark.parametrize("name", ["alone", "program"])
def test_an_absent_parameter_has_no_dimension(name: str, backend: str) -> None:
    entry = getattr(nsalang.load_text(OPTIONAL), name)
    x, t = torch.arange(5.0), torch.tensor([1, 2], dtype=torch.int32)
    run = entry.interpret if backend == "interpreter" else lambda *a: entry(*a, backend=backend)
    assert torch.equal(run(x), x) and torch.equal(run(x, t), x + 2)
    with pytest.raises(nsalang.NsaError) as error:
        run(x, t[:0])
    assert [d.code for d in error.value.diagnostics] == ["NSA0514"]


def test_a_dimension_that_is_computed_with_is_still_asked_for() -> None:
    with pytest.raises(nsalang.NsaError) as error:
        nsalang.load_text(OPTIONAL).computed(torch.ones(4), backend="tilelang")
    assert [d.code for d in error.value.diagnostics] == ["NSA0510"]


@pytest.mark.parametrize(
    ("more", "name", "code"),
    [("", "right", "NSA0518"), ("", "wrong", "NSA0323"), (NO_GRID, "right", "NSA0518"), (NO_GRID, "no_grid", "NSA0314")],
)
def test_the_error_is_that_of_the_kernel_asked_for(tmp_path: Path, more: str, name: str, code: str) -> None:
    path = tmp_path / "file.nsa"
    path.write_text(FILE + more)
    done = subprocess.run([sys.executable, "-m", "nsalang", "prove", str(path), name], capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and {c for c in ("NSA0518", "NSA0323", "NSA0314") if c in said} == {code}


@pytest.mark.parametrize("z", [0.0, math.nan, math.inf, 3.4e38, 1e-45], ids=lambda z: f"P-interval-ceil_log2({z})")
def test_ceil_log2_is_one_function_everywhere(z: float) -> None:
    logs = nsalang.load_text(LOGS).logs
    last = {"0.0": -127, "nan": 128, "inf": 128, "3.4e+38": 128, "1e-45": -126}[str(z)]
    found = [logs.interpret(z), logs(z, backend="triton"), logs(z, backend="tilelang")]
    assert [f.tolist() for f in found] == [[-127, 2, 2, 128, -127, -126, 128, last]] * 3


@pytest.mark.parametrize("block", [1, 2], ids=lambda b: f"P-one-act_quant-{b}")
def test_act_quant_of_short_blocks(block: int) -> None:
    x = torch.linspace(-3, 3, 16).to(torch.bfloat16).reshape(2, 8)
    y, s = nsalang.ops.act_quant(x, block_size=block)
    again = y.float() * s.repeat_interleave(block, dim=-1)
    assert s.shape == (2, 8 // block) and torch.allclose(again, x.float(), rtol=1 / 16)
