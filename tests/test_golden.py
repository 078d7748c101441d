"""What the compiler prints for each example: the code of both backends, and the IR after each pass that changed it. `make golden` writes them anew; read the diff."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from example_values import values

import nsalang
from nsalang.base.target import parse_target
from nsalang.build.pipeline import Choice, prepare, typed
from nsalang.ir.printer import print_kernel
from nsalang.toolchain.backends import BACKENDS

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.nsa"))
TARGET = "cuda:sm_90"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_source(path: Path, backend: str, golden: Callable[[str, str], None]) -> None:
    for kernel in nsalang.load(str(path)):
        if kernel.kind == "program":
            continue
        name = kernel.__name__
        exact, guarded = (kernel.compile(target=TARGET, backend=backend, exact=e, **values(name)) for e in (True, False))
        golden(f"{name}.{backend}.py", exact.source)
        assert (exact.key != guarded.key) == (exact.source != guarded.source) == bool(exact.kernel.hoists)
        if exact.kernel.hoists:
            golden(f"{name}.guarded.{backend}.py", guarded.source)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_passes(path: Path, golden: Callable[[str, str], None]) -> None:
    for kernel in nsalang.load(str(path)):
        if kernel.kind == "program":
            continue
        name, target = kernel.__name__, parse_target(TARGET)
        stages: list[tuple[str, str]] = []
        prepare(
            typed(kernel.unit, kernel.meaning(target, values(name))),
            target,
            Choice("triton"),
            lambda s, k: stages.append((s, print_kernel(k))),  # noqa: B023
        )
        text, last = "", ""
        for stage, shown in stages:
            if shown != last:
                text += f"# ---- {stage}\n{shown.rstrip()}\n\n"
            last = shown
        golden(f"{name}.passes.txt", text)


def test_the_source_does_not_depend_on_where_the_file_lies(tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.nsa"
    moved.write_text("# a comment above\n\n\n" + EXAMPLES[0].read_text())
    for backend in BACKENDS:
        one, two = (nsalang.load(str(p)) for p in (EXAMPLES[0], moved))
        (name,) = dir(one)
        first, second = (getattr(m, name).compile(target=TARGET, backend=backend) for m in (one, two))
        assert first.source == second.source and first.key == second.key


def test_generated_code_is_clean() -> None:
    files = sorted(str(p) for p in (Path(__file__).parent / "golden").glob("*.py"))
    assert len(files) >= 2 * len(EXAMPLES)
    for command in (["check", "--line-length", "140"], ["format", "--check", "--line-length", "140"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "--isolated", *files], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
