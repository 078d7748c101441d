"""pyproject.toml names every package and every data file; a forgotten one works from a checkout and is missing from the wheel."""

from __future__ import annotations

import fnmatch
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def files() -> list[Path]:
    """Everything under nsalang/, through the links."""
    found = []
    for folder, below, names in os.walk(ROOT / "nsalang", followlinks=True):
        below[:] = [name for name in below if name != "__pycache__"]
        found += [Path(folder, name).relative_to(ROOT) for name in names]
    return found


def test_links_are_relative() -> None:
    links = {path.name: os.readlink(path) for path in (ROOT / "nsalang").iterdir() if path.is_symlink()}
    assert links == {"passes": "../passes", "lowering": "../lowering", "kernels": "../examples"}


def test_packages(project: Any) -> None:
    there = {".".join(path.parent.parts) for path in files() if path.suffix == ".py"}
    assert there == set(project["tool"]["setuptools"]["packages"])
    assert all((ROOT / package.replace(".", "/") / "__init__.py").exists() for package in there)


def test_data(project: Any) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    left_out = [str(path) for path in files() if path.suffix != ".py" and not any(fnmatch.fnmatch(path.name, p) for p in patterns)]
    assert left_out == []
    assert (ROOT / "nsalang" / "py.typed").exists()


def test_constraints_name_no_machine() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line)] == []


def test_constraints_hold_what_is_required(project: Any) -> None:
    def plain(requirement: str) -> str:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert name
        return name[0].lower().replace("_", "-")

    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["test"], *extras["plot"]]
    held = {plain(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")}
    assert {plain(requirement) for requirement in wanted} - held == set()
