"""Replays of counterexamples end, and take little memory, whatever the kernel's loops and spans ask for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nsalang.base.source import Source
from nsalang.proof.prover import settle
from nsalang.refute.search import MEMORY, diagnose, possible
from nsalang.syntax.parser import parse
from nsalang.types.typecheck import Settings, kernel_names, specialise

TEXT = """
def huge_span(x: f32[N], y: Out[f32[1]]):
    for q in grid(1):
        n = span(0, 2147483648, N)
        y[q] = sum(x[n + 1], axis=n)


def far_span(x: f32[N], y: Out[f32[1]]):
    for q in grid(1):
        n = span(9223372036854775807)
        y[q] = sum(where(n < N, x[n + 1], 0), axis=n)


def far_tile(lo: i64, hi: i64, x: f32[N], y: Out[f32[N]]):
    partial(y)
    for q in grid(1):
        for t in tile(lo, hi | 4294967296):
            y[t] = x[t]


def endless(n: i32[B], y: Out[f32[M]]):
    partial(y)
    promise(0 <= n)
    for b in grid(B):
        for t in tile(n[b]):
            if t + n[b] < M:
                y[t] = 1.0


def endless64(n: i64[B], y: Out[f32[M]]):
    partial(y)
    promise(0 <= n)
    for b in grid(B):
        for t in tile(n[b]):
            if t + n[b] < M:
                y[t] = 1.0


def endless_range(n: i64[B], y: Out[f32[B]]):
    for b in grid(B):
        s = 0
        for t in range(n[b]):
            s += t
        y[b + s - s + 1] = 1.0


def rows(x: i32[B], y: Out[i32[B]]):
    for b in grid(B):
        y[b] = i32(b * 32768 * 65536)
"""
PROVE = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30)); from nsalang.commands.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(
    "name", ["huge_span", "far_span", "far_tile", "endless", "endless64", "endless_range"], ids=lambda n: f"C-replay-{n}"
)
def test_replay_ends_within_its_budget(tmp_path: Path, name: str) -> None:
    path = tmp_path / "far.nsa"
    path.write_text(TEXT)
    done = subprocess.run(
        [sys.executable, "-c", PROVE, "prove", str(path), name, "--error-format", "json"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and ("NSA0410" if name == "far_span" else "NSA08") in done.stdout + done.stderr


def test_counterexamples_are_launches_that_can_exist() -> None:
    file = parse(Source(TEXT, "far.nsa"))
    for name in kernel_names(file):
        kernel = specialise(file, name, Settings())
        for result in settle(kernel):
            shown = diagnose(kernel, result) if result.verdict == "REFUTED" else None
            if shown is not None and "B = " in shown.notes[0]:
                rows = int(shown.notes[0].split("B = ")[1].split(",")[0].split(":")[0])
                assert possible(kernel, {"B": rows}) and 4 * rows < MEMORY


def test_what_no_memory_holds_is_no_launch() -> None:
    kernel = specialise(parse(Source(TEXT, "far.nsa")), "rows", Settings())
    assert possible(kernel, {"B": 2**40}) and not possible(kernel, {"B": 2**45})
