"""The command line from a test: in this process, or in one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nsalang.commands import cli

ROOT = Path(__file__).parent.parent
ADD = ROOT / "examples/vector_add.nsa"
QUANT = ROOT / "examples/act_quant.nsa"
SOFTMAX = ROOT / "examples/softmax.nsa"


def nsalang(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nsalang", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False, **options)


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The command in this process: (exit code, standard output, standard error)."""
    capfd.readouterr()
    code = cli.main([str(a) for a in arguments])
    out, err = capfd.readouterr()
    return code, out, err
