"""Verdicts on the meaning of kernels: what is proved, and what is refuted with which counterexample."""

from __future__ import annotations

import subprocess
import sys
from bisect import bisect_right
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsalang import ir, syntax
from nsalang.base.dtypes import I32, I64
from nsalang.base.source import Source
from nsalang.proof import prover, smt
from nsalang.proof.lemmas import Book, complete, lemma_name
from nsalang.proof.prover import Result, settle, smt2
from nsalang.proof.reason import Reason
from nsalang.proof.trials import evaluate
from nsalang.syntax.parser import parse, read_source
from nsalang.types.settings import Settings
from nsalang.types.typecheck import kernel_names, signature, specialise

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.nsa"))
CASES = ROOT / "tests" / "cases" / "proofs.nsa"


@cache
def parsed(path: Path) -> syntax.File:
    return parse(read_source(path))


def kernel(path: Path, name: str) -> ir.Kernel:
    dims = dict.fromkeys(signature(parsed(path), name, {}).specialised, 64)
    return specialise(parsed(path), name, Settings(dims=dims))


def results(path: Path, name: str) -> tuple[Result, ...]:
    return settle(kernel(path, name))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_are_proved(path: Path) -> None:
    for name in kernel_names(parse(read_source(path))):
        assert {(r.obligation.what, r.verdict) for r in results(path, name) if r.verdict != "PROVED"} == set()


REFUTED: dict[str, set[tuple[str, str]]] = {
    "off": {("range", "x[m, n + 1]")},
    "gather": {("range", "x[t, n]")},
    "gather_ok": set(),
    "race": {("coverage", "y[…]"), ("race", "y[n] = x[m, n]")},
    "unwritten": {("coverage", "y[…]")},
    "halves": set(),
    "shift": {("order", "x[n] = x[n + 1] and x[n + 1]")},
    "flat": set(),
    "paged": set(),
    "search": {("fits", "y[n] = lo")},
    "quotrem": set(),
    "interleave": set(),
    "compact": set(),
    "compact_fill": set(),
    "compact_tile": set(),
    "compact_bad": {("coverage", "y[…]")},
    "topk": set(),
    "mqa": set(),
    "spanstop": {("range", "x[L - 1]")},
    "window": set(),
    "floorneg2": set(),
    "floorneg3": {("range", "x[n // -1]")},
    "zeroloop": {("range", "x[last]")},
    "lastloop": set(),
    "negloop": {("range", "x[n]")},
    "emptyrange": {("range", "x[minimum(n, N - 1)]")},
    "shortdiv": set(),
    "divzero": {("divisor", "n // d[n]")},
    "inout": {("range", "x[t[n]]")},
    "inout_ok": set(),
    "blockmax": set(),
    "blockmax_bad": {("coverage", "y[…]"), ("range", "x[idx[j]]")},
    "promised": set(),
    "promised_sentinel": {("range", "x[idx[s], d]")},
    "scattered": set(),
    "scattered_bad": {("race", "y[slot[s], d] = x[s, d]")},
    "scatter_mode": set(),
    "scatter_set": {("race", "scatter(y[slot[s], d], x[s, d]) and y[slot[s], d] = x[s, d]"), ("race", "y[slot[s], d] = x[s, d]")},
    "histogram_": set(),
    "add_read": {("order", "atomic_add(y[bin[s]], 1) and y[bin[s]]")},
    "contradictory": {("hypotheses", "0 <= idx < T, idx < 0")},
    "contradictory_dims": {("hypotheses", "require")},
    "toobig": {("hypotheses", "idx >= 4294967296")},
    "ragged": set(),
    "ragged_bad": {("range", "x[t, d]")},
    "segments": set(),
    "segments_unsorted": {("race", "y[t] = x[t] * 2")},
    "owner": set(),
    "owner_bad": {("range", "s[b]")},
    "owner_start": set(),
    "parts": set(),
    "parts_bad": {("race", "y[n] = x[n]"), ("range", "x[n]"), ("range", "y[n] = x[n]")},
    "parts_zero": {("coverage", "y[…]"), ("range", "x[n]"), ("range", "y[n] = x[n]")},
    "sortedread": set(),
    "distinct2": set(),
    "pages": set(),
    "pages_bad": {("view", "scales")},
    "pages_mis": {("view", "scales")},
    "pages_write": set(),
    "pages_over": {("overlap", "scales and values")},
    "pages_out": set(),
    "pages_unwritten": {("coverage", "cache[…]")},
    "gathermax": set(),
    "elif_": set(),
    "elif_hole": {("coverage", "y[…]")},
    "anyaxis": set(),
    "anyin": set(),
    "allin": set(),
    "allempty": {("range", "x[0]")},
    "argm": set(),
    "argm_stop": {("range", "z[a]")},
    "unsignedwrap": set(),
    "unsignedwrap_bad": {("range", "x[i64(a - 1) - i64(a) + 1]")},
    "narrow": set(),
    "narrow_ok": set(),
    "shifty": set(),
    "shifty_bad": {("shift", "a >> s")},
    "huge": set(),
    "flatgrid": set(),
    "deflat": set(),
    "heads": set(),
    "gqa": set(),
    "gqa_bad": {("range", "kv[h // (HQ // HK)]")},
    "tiles2": set(),
    "tiles2_bad": {("coverage", "y[…]")},
    "rot": set(),
    "rotneg": set(),
    "promise_empty": set(),
    "promise_empty2": {("range", "x[0]")},
    "promise_oob": {("range", "idx[s + 1]"), ("range", "x[idx[s + 1]]")},
    "nested2": set(),
    "slotname": set(),
    "twotiles": set(),
    "doublecount": {("coverage", "y[…]"), ("range", "y[m, used + r] = n")},
    "wrongmask": {("coverage", "y[…]"), ("range", "y[m, used + r] = n")},
    "inclusive": set(),
    "inclusive_bad": {("range", "y[m, used + r] = n")},
    "perlane": set(),
    "perlane_bad": {("range", "x[best]")},
    "search2": set(),
    "counter_up": set(),
    "counter_down": set(),
    "counter_two": {("range", "x[c]")},
    "permuted": set(),
    "permuted_bad": {("coverage", "y[…]")},
    "permuted_undistinct": {("coverage", "y[…]")},
    "one_lane": set(),
    "crowded": {("hypotheses", "distinct(slot), 0 <= slot < M")},
    "windows": set(),
    "windows_hole": {("coverage", "y[…]")},
}


def test_every_case_is_listed() -> None:
    assert set(kernel_names(parse(read_source(CASES)))) == REFUTED.keys()


@pytest.mark.parametrize("name", REFUTED)
def test_cases(name: str) -> None:
    found = results(CASES, name)
    assert {(r.obligation.kind, " ".join(r.obligation.what.split())) for r in found if r.verdict == "REFUTED"} == REFUTED[name]
    assert all(r.verdict != "UNKNOWN" for r in found)


def test_a_counterexample_is_small_and_names_the_data() -> None:
    (wrong,) = (r for r in results(CASES, "gather") if r.verdict == "REFUTED")
    index = wrong.model[f"idx[{wrong.model['s']}]"]
    assert wrong.model["S"] <= 4 and not 0 <= index < wrong.model["T"]


COSTLY = ("interleave", "topk", "pages_out", "gqa_bad", "segments_unsorted")


def test_verdicts_and_costs_do_not_depend_on_what_was_asked_before() -> None:
    def run(names: tuple[str, ...]) -> dict[str, list[tuple[str, str, int, dict[str, int]]]]:
        prover._settle.cache_clear()
        return {n: [(r.verdict, r.why, r.units, dict(r.model)) for r in results(CASES, n)] for n in names}

    first = run(COSTLY)
    assert first == run(COSTLY) == run(tuple(reversed(COSTLY)))
    assert all(any(units for _, _, units, _ in found) for found in first.values())


def test_equal_kernels_of_two_files_name_their_own() -> None:
    text = CASES.read_text()
    for source in (Source(text, "first.nsa"), Source(text, "second.nsa"), Source(text, "second.nsa", first_line=20)):
        found = settle(specialise(parse(source), "gather", Settings(dims={})))
        assert {r.obligation.span.source for r in found if r.obligation.span} == {source}


@pytest.mark.parametrize("name", ["topk", "compact_tile", "parts", "pages_out", "search2", "deflat"])
def test_a_proof_costs_little(name: str) -> None:
    assert sum(r.units for r in results(CASES, name)) < 45_000


def test_a_simple_kernel_needs_no_solver() -> None:
    code = """
import sys
from pathlib import Path
from nsalang.syntax.parser import parse, read_source
from nsalang.proof.prover import settle
from nsalang.types.settings import Settings
from nsalang.types.typecheck import kernel_names, specialise
for path in sys.argv[1:]:
    file = parse(read_source(Path(path)))
    for name in kernel_names(file):
        assert {r.verdict for r in settle(specialise(file, name, Settings()))} == {"PROVED"}, name
assert "z3" not in sys.modules
"""
    simple = [str(ROOT / "examples" / f"{n}.nsa") for n in ("act_quant", "rmsnorm", "softmax", "swiglu_quant", "vector_add")]
    done = subprocess.run([sys.executable, "-c", code, *simple], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["interleave", "topk", "off", "contradictory_dims"])
def test_a_query_can_be_repeated(name: str) -> None:
    import z3

    found = [r for r in results(CASES, name) if r.why == "Z3"]
    assert found
    for r in found:
        text = smt2(kernel(CASES, name), r)
        assert text.startswith(f"; kernel {name}, {r.obligation.kind}: ") and text.rstrip().endswith("(check-sat)")
        solver = z3.Solver(ctx=z3.Context())
        solver.from_string(text)
        proved = solver.check() == z3.unsat
        assert proved == ((r.verdict == "PROVED") != (r.obligation.kind == "hypotheses"))


def test_what_needed_no_query_has_no_text() -> None:
    assert {smt2(kernel(CASES, "flat"), r) for r in results(CASES, "flat")} == {""}


# -------------------------------------------------------------------------------------------------- reasoning without a solver

X, Y, Z = (ir.Dim(I64, (), n) for n in "XYZ")


def comparison(op: ir.BinaryOp, a: ir.Expr, b: ir.Expr | int) -> ir.Expr:
    return ir.binary(op, a, ir.const(b) if isinstance(b, int) else b)


def linear(x: int, y: int, c: int) -> ir.Expr:
    return ir.binary("add", ir.binary("add", ir.binary("mul", X, ir.const(x)), ir.binary("mul", Y, ir.const(y))), ir.const(c))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_linear_reasoning_agrees_with_all_small_values(data: st.DataObject) -> None:
    small = st.integers(-3, 3)
    ops: st.SearchStrategy[ir.BinaryOp] = st.sampled_from(("lt", "le", "gt", "ge", "eq", "ne"))

    def term() -> ir.Expr:
        base = linear(data.draw(small), data.draw(small), data.draw(small))
        shape = data.draw(st.sampled_from(("plain", "div", "mod", "min", "max", "where")))
        if shape in ("div", "mod"):
            return ir.binary("floordiv" if shape == "div" else "mod", base, ir.const(data.draw(st.integers(1, 4))))
        if shape in ("min", "max"):
            return ir.binary("min" if shape == "min" else "max", base, linear(data.draw(small), data.draw(small), 0))
        return ir.Where(I64, (), comparison("lt", X, Y), base, X) if shape == "where" else base

    def condition() -> ir.Expr:
        return comparison(data.draw(ops), term(), term())

    facts: list[ir.Expr] = [condition() for _ in range(data.draw(st.integers(0, 3)))]
    if data.draw(st.booleans()):
        facts.append(ir.binary("or", condition(), condition()))
    goal = condition()
    if Reason(facts, {}).proves(goal):
        for x in range(9):
            for y in range(9):
                at = {"X": x, "Y": y}
                assert not all(evaluate(f, at) for f in facts) or evaluate(goal, at), (x, y)


def test_linear_reasoning_sees_products() -> None:
    i, j = ir.Index(I64, (), "i"), ir.Index(I64, (), "j")
    facts = [comparison("le", ir.const(0), i), comparison("lt", i, X), comparison("le", ir.const(0), j), comparison("lt", j, Y)]
    flat = ir.binary("add", ir.binary("mul", i, Y), j)
    assert Reason(facts, {}).proves(comparison("lt", flat, ir.binary("mul", X, Y)))
    assert not Reason(facts, {}).proves(comparison("lt", ir.binary("add", flat, ir.const(1)), ir.binary("mul", X, Y)))


# ----------------------------------------------------------------------------------------------------------------------- lemmas


def borders(n: int, parts: int) -> dict[int, int]:
    return {g: g * (n // parts) + min(g, n % parts) for g in range(parts + 1)}


def truth(e: ir.Expr, terms: Mapping[ir.Expr, int], names: Mapping[str, int]) -> int:
    """The value of a lemma: its elements by ``terms``, its symbols by ``names``."""

    def rule(n: ir.Node) -> ir.Node:
        if isinstance(n, ir.Load):
            arguments = tuple(evaluate(i, names) for i in n.indices)
            return ir.const(terms[ir.Load(I64, (), n.tensor, tuple(ir.const(a) for a in arguments))])
        return n

    return evaluate(ir.rewrite(e, rule), names)


def test_border_lemmas_hold() -> None:
    book = Book(kernel(CASES, "parts"))
    i, j = ir.Dim(I64, (), "i"), ir.Dim(I64, (), "j")
    a, b = (lemma_name("border", I64, (X, Y, g)) for g in (i, j))
    lemmas = complete(book, (), ir.binary("eq", a, b))
    assert len(lemmas) >= 10
    for n in range(9):
        for parts in range(1, 5):
            table = borders(n, parts)
            terms: dict[ir.Expr, int] = {
                lemma_name("border", I64, (ir.const(n), ir.const(parts), ir.const(g))): v for g, v in table.items()
            }
            for g in table:
                for h in table:
                    assert all(truth(f, terms, {"X": n, "Y": parts, "i": g, "j": h}) for f in lemmas)


def test_search_lemmas_hold() -> None:
    k = kernel(CASES, "owner_start")
    a, b = (lemma_name("search cu", I64, (x,)) for x in (X, Y))
    lemmas = [
        f for f in complete(Book(k), (), ir.binary("eq", a, b)) if not any(isinstance(n, ir.Dim) and n.name == "T" for n in ir.walk(f))
    ]
    for cu in ([0], [0, 0], [0, 2, 2, 5], [1, 1, 4]):
        terms: dict[ir.Expr, int] = {}
        for x in range(-2, 8):
            terms[lemma_name("search cu", I64, (ir.const(x),))] = bisect_right(cu, x)
        for place in range(-1, len(cu) + 1):
            terms[ir.Load(I64, (), "cu", (ir.const(place),))] = cu[place] if 0 <= place < len(cu) else 99
        for x in range(-2, 8):
            for y in range(-2, 8):
                assert all(truth(f, terms, {"X": x, "Y": y, "B": len(cu) - 1}) for f in lemmas), (cu, x, y)


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


@pytest.mark.parametrize("value", ["where(x[m, n] > 0, x[m, n], -inf)", "minimum(x[m, n], inf)", "full(n, inf)"])
def test_sums_of_infinities_have_no_ends(value: str) -> None:
    text = f"""
def k(x: f32[M, N], y: Out[f32[M]]):
    for m in grid(M):
        total = 0.0
        for n in tile(N):
            total = total + sum({value}, axis=n)
        y[m] = total
"""
    found = settle(specialise(parse(Source(text, "k.nsa")), "k", Settings()))
    assert {r.verdict for r in found} == {"PROVED"}
