"""No generated program touches memory outside its arguments: calls of every kind of tail, on tensors between pages that no one may touch.

The programs run in a process of their own (edge_worker.py): Triton's under its interpreter, TileLang's as compiled C. That the pages catch what
they should is tested with programs that are told of one row too many, or of strides that run backwards. triton-viz, which does the same by Z3 on
the addresses, is run too where it is installed (slow; `pip install triton-viz` in a copy of the environment).
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from edge_cases import kernels

HERE = Path(__file__).parent
EXAMPLES = [f"{path}:{name}" for name, path in kernels() if path.parent.name == "examples"]
LONG = [
    n for n in EXAMPLES if n.rpartition(":")[2] in ("attention", "sparse_mla", "sparse_mla_part", "sparse_mla_fp8_part", "sparse_mqa_sink")
]
"""Their code takes a while to compile, or to run in an interpreter."""
# Those of proofs.nsa are there for their verdicts: some have no call, for a dimension that no argument determines or an extent of 2**32.
CASES = [f"{path}:{name}" for name, path in kernels() if path.parent.name == "cases" and path.stem != "proofs"]


def start(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script of this folder, in a process of its own."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


def worker(backend: str, count: int, lie: str, names: Sequence[str]) -> tuple[int, list[str], str]:
    """Its exit code, what it printed, and the last of what went wrong."""
    done = start("edge_worker.py", backend, str(count), lie, *names)
    return done.returncode, done.stdout.splitlines(), done.stderr[-2000:]


def check(backend: str, count: int, names: Sequence[str]) -> list[str]:
    """All calls end, inside their memory and with the interpreter's results; gives what was skipped."""
    code, lines, errors = worker(backend, count, "none", names)
    last = [line for line in lines if line.startswith("case")][-1:]
    assert lines[-1:] == ["end"], f"ended by {code} in: {last} {errors}"
    wrong = [f"{a}: {b}" for a, b in itertools.pairwise(lines) if b.startswith("done") and b != "done ok"]
    assert not wrong and code == 0, wrong
    return [line for line in lines if line.startswith("skip")]


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
def test_examples_stay_inside(backend: str) -> None:
    assert check(backend, 2, [n for n in EXAMPLES if n not in LONG]) == []


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["triton", "tilelang"])
@pytest.mark.parametrize("name", EXAMPLES, ids=lambda n: n.rpartition(":")[2])
def test_examples_of_many_sizes_stay_inside(name: str, backend: str) -> None:
    skipped = check(backend, 2 if name in LONG else 12, [name])
    assert all(line.endswith("NSA0412") for line in skipped), skipped  # spans too long for shared memory together


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["triton", "tilelang"])
def test_cases_stay_inside(backend: str) -> None:
    skipped = check(backend, 3, CASES)
    assert len(skipped) < len(CASES), skipped


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
@pytest.mark.parametrize("lie, layout", [("after", "end"), ("before", "start")])
def test_a_wrong_program_is_caught(lie: str, layout: str, backend: str) -> None:
    name = next(n for n in EXAMPLES if n.endswith(":vector_add"))
    code, lines, errors = worker(backend, 1, lie, [name])
    assert code == -11, (code, errors)
    assert lines[-1].startswith("case vector_add") and f" {layout} " in lines[-1]


BEYOND_TRITON_VIZ = {
    "NotImplementedError: Concretize for op": "follows no loop whose bounds are divided or come from memory",
    "RuntimeError: Unsupported const value type": "follows no loop that carries what a block was made of",
    "AssertionError: input and other must have equal ranks": "loses the shape of what a loop loads for a contraction",
}


@pytest.mark.slow
@pytest.mark.parametrize("lie", ["none", "after"])
@pytest.mark.parametrize("name", EXAMPLES, ids=lambda n: n.rpartition(":")[2])
def test_triton_viz_agrees(name: str, lie: str) -> None:
    if importlib.util.find_spec("triton_viz") is None:
        pytest.skip("triton-viz is not installed")
    done = start("triton_viz_worker.py", lie, name)
    for error, what in BEYOND_TRITON_VIZ.items():
        if error in done.stderr:
            pytest.skip(f"triton-viz {what}")
    if lie == "none":
        assert done.returncode == 0 and done.stdout.splitlines()[-1:] == ["end"], done.stdout[-2000:] + done.stderr[-2000:]
    else:
        assert done.returncode == 1 and "IMA Diagnostic Report" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
