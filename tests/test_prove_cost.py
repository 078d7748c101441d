"""What a proof costs and that it repeats: the same verdicts and units in any order, in any process, and a bound for every example."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nsalang import ir
from nsalang.proof.prover import settle
from nsalang.syntax.parser import parse, read_source
from nsalang.types.settings import Settings
from nsalang.types.typecheck import kernel_names, signature, specialise

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.nsa"))
CASES = ROOT / "tests" / "cases" / "proofs.nsa"

UNITS = 60_000
"""Solver units for one kernel, at most: 0.1 s of solver time is about three times as much."""


def kernels(path: Path) -> dict[str, ir.Kernel]:
    file = parse(read_source(path))
    found = {}
    for name in kernel_names(file):
        shape = signature(file, name, {})
        optional = frozenset(p.name for p in shape.parameters if p.optional)
        found[name] = specialise(file, name, Settings(dims=dict.fromkeys(shape.specialised, 64), present=optional))
    return found


def told(kernel: ir.Kernel) -> list[tuple[str, str, str, int]]:
    return [(r.obligation.kind, r.obligation.what, r.verdict, r.units) for r in settle(kernel)]


ASK = """
import json, random, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_prove_cost import CASES, EXAMPLES, kernels, told
files = [*EXAMPLES, CASES]
random.Random(int(sys.argv[1])).shuffle(files)
found = {}
for path in files:
    made = list(kernels(path).items())
    random.Random(int(sys.argv[1])).shuffle(made)
    for name, kernel in made:
        found[f"{path.stem}.{name}"] = told(kernel)
print(json.dumps(found, sort_keys=True))
"""


def in_a_process(order: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(order)], cwd=ROOT, capture_output=True, text=True, env={"PYTHONHASHSEED": str(order), "PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_verdicts_and_costs_repeat_in_any_order() -> None:
    """Five processes, each with its own order of files and kernels and its own hash seed."""
    with ThreadPoolExecutor(2) as pool:
        runs = [json.loads(text) for text in pool.map(in_a_process, range(5))]
    assert any(units for kernel in runs[0].values() for *_, units in kernel)
    for run in runs[1:]:
        assert {k: v for k, v in run.items() if v != runs[0][k]} == {}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_are_cheap(path: Path) -> None:
    for name, kernel in kernels(path).items():
        assert sum(r.units for r in settle(kernel)) <= UNITS, name


def test_simple_kernels_need_no_solver() -> None:
    """What constants, facts and linear reasoning settle does not load Z3."""
    ask = "import sys; sys.path.insert(0, 'tests'); from test_prove_cost import EXAMPLES, kernels, settle\n" \
          "[settle(k) for p in EXAMPLES if p.stem in ('vector_add', 'softmax', 'rmsnorm') for k in kernels(p).values()]\n" \
          "print('z3' in sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stdout + done.stderr
