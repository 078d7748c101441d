"""Verdicts on the meaning of kernels: what is proved, and what is refuted with which counterexample."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsalang import ir, smt
from nsalang.dtypes import I32, I64
from nsalang.parser import parse, read_source
from nsalang.prover import Result, settle
from nsalang.typecheck import Settings, kernel_names, signature, specialise

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.nsa"))
CASES = ROOT / "tests" / "cases" / "proofs.nsa"


def results(path: Path, name: str) -> tuple[Result, ...]:
    file = parse(read_source(path))
    dims = dict.fromkeys(signature(file, name, {}).specialised, 64)
    return settle(specialise(file, name, Settings(dims=dims)))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_are_proved(path: Path) -> None:
    for name in kernel_names(parse(read_source(path))):
        assert {(r.obligation.what, r.verdict) for r in results(path, name) if r.verdict != "PROVED"} == set()


REFUTED = {
    "off": {("range", "x[m, n + 1]")},
    "gather": {("range", "x[t, n]")},
    "gather_ok": set(),
    "race": {("race", "y[n] = x[m, n]"), ("coverage", "y[…]")},
    "unwritten": {("coverage", "y[…]")},
    "halves": set(),
    "shift": {("order", "x[n] = x[n + 1] and x[n + 1]")},
    "flat": set(),
    "paged": set(),
    "search": {("fits", "y[n] = lo")},
}


def test_every_case_is_listed() -> None:
    assert set(kernel_names(parse(read_source(CASES)))) == REFUTED.keys()


@pytest.mark.parametrize("name", REFUTED)
def test_cases(name: str) -> None:
    found = results(CASES, name)
    assert {(r.obligation.kind, r.obligation.what) for r in found if r.verdict == "REFUTED"} == REFUTED[name]
    assert all(r.verdict != "UNKNOWN" for r in found)


def test_a_counterexample_is_small_and_names_the_data() -> None:
    (wrong,) = (r for r in results(CASES, "gather") if r.verdict == "REFUTED")
    index = wrong.model[f"idx[{wrong.model['s']}]"]
    assert wrong.model["S"] <= 4 and not 0 <= index < wrong.model["T"]


def test_verdicts_and_costs_do_not_depend_on_what_was_asked_before() -> None:
    runs = [[(r.verdict, r.units) for r in results(CASES, "flat")] for _ in range(3)]
    assert runs[0] == runs[1] == runs[2] and any(units for _, units in runs[0])


def dim(name: str) -> ir.Expr:
    return ir.Dim(I64, (), name)


@pytest.mark.parametrize(("a", "b"), [(7, -2), (-7, 2), (-7, -2), (6, -3), (5, 7)])
def test_division_floors(a: int, b: int) -> None:
    for op, wanted in (("floordiv", a // b), ("mod", a % b)):
        facts = [ir.binary("eq", dim("A"), ir.const(a)), ir.binary("eq", dim("B"), ir.const(b))]
        for divisor in (dim("B"), ir.const(b)):
            result = ir.binary(op, dim("A"), divisor)  # type: ignore[arg-type]
            assert smt.prove(facts, ir.binary("eq", result, ir.const(wanted)), {}).answer == "proved"
            assert smt.prove(facts, ir.binary("eq", result, ir.const(wanted + 1)), {}).answer == "refuted"


def test_elements_have_the_range_of_their_dtype() -> None:
    i = ir.Index(I64, ("i",), "i")
    element = ir.Cast(I64, ("i",), ir.Load(I32, ("i",), "idx", (i,)))
    goal = ir.binary("lt", element, ir.const(2**31))
    assert smt.prove([], goal, {}).answer == "proved"
    assert smt.prove([], ir.binary("lt", element, ir.const(2**31 - 1)), {}).answer == "refuted"
