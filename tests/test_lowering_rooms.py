"""The two lowerings are read side by side: files of one name hold the same functions in the same order, and what one backend alone needs has a file of its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

LOWERING = Path(__file__).resolve().parent.parent / "lowering"
BOTH = ("module", "statements", "expressions", "blocks")


def functions(room: str, name: str) -> list[str]:
    return [n.name for n in ast.parse((LOWERING / room / f"{name}.py").read_text()).body if isinstance(n, ast.FunctionDef)]


def names(room: str) -> set[str]:
    return {p.stem for p in (LOWERING / room).glob("*.py") if p.stem != "__init__"}


def test_both_rooms_have_the_files_of_what_both_do() -> None:
    assert names("triton") & names("tilelang") >= {*BOTH}


@pytest.mark.parametrize("name", sorted(names("triton") & names("tilelang")))
def test_functions_stand_in_one_order(name: str) -> None:
    assert functions("triton", name) == functions("tilelang", name)


@pytest.mark.parametrize("room", ("triton", "tilelang"))
def test_statements_and_expressions_are_told_apart_in_one_place(room: str) -> None:
    """One match over the nodes each, that mypy holds to have every one of them."""
    for file, function in (("statements", "statement"), ("expressions", "expr")):
        tree = ast.parse((LOWERING / room / f"{file}.py").read_text())
        found = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
        (match,) = [n for n in found.body if isinstance(n, ast.Match)]
        assert ast.unparse(match.cases[-1].body[0]).startswith("assert_never(")
