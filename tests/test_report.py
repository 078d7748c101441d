"""Reports: what they say of a kernel, in which words, and that it can be checked by others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nsalang
from nsalang import ir
from nsalang.base.dtypes import BOOL
from nsalang.base.source import NsaError
from nsalang.launch.kernel import Kernel
from nsalang.proof.obligations import Obligation
from nsalang.report.proofs import Report, Totals
from nsalang.report.rows import access_text, indices_of, place

ROOT = Path(__file__).parent.parent
QUANT = nsalang.load(ROOT / "examples/act_quant.nsa").act_quant
CASES = nsalang.load(ROOT / "tests/cases/proofs.nsa")
SPARSE = nsalang.load(ROOT / "tests/cases/sparse_lse.nsa").sparse_lse

COPY = """
def copy(x: f32[M, N], y: Out[f32[M, N]]):
    {}
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = x[m, n]
"""


def copy(require: str) -> Kernel:
    found: Kernel = nsalang.load_text(COPY.format(require)).copy
    return found


def said(report: Report, access: str) -> list[tuple[str, str, str]]:
    return [(r.obligation, r.verdict, r.why) for r in report.rows if r.access == access]


def masks(report: Report) -> dict[str, tuple[str, str]]:
    return {r.access: (r.obligation, r.verdict) for r in report.rows if r.kind == "mask"}


# ------------------------------------------------------------------------------------------------------------------------ rows


def test_rows_stand_in_the_order_of_the_text_with_their_lines() -> None:
    report = QUANT.prove()
    lines = [r.line for r in report.rows]
    assert lines == sorted(lines)
    text = (ROOT / "examples/act_quant.nsa").read_text().split("\n")
    for row in report.rows:
        if "[" in row.access:
            assert row.access in text[row.line - 1]


def test_words_of_an_access() -> None:
    found = said(QUANT.prove(), "y[m, n]")
    assert [o for o, _, _ in found] == [
        "0 <= m < M", "0 <= n < N", "no two instances write one element", "writes no element twice at once", "mask m < M",
    ]  # fmt: skip
    assert [v for _, v, _ in found] == ["PROVED"] * 4 + ["GUARDED"] and found[-1][2] == "guard"


def test_rows_of_any_number_have_a_row_mask_and_no_other() -> None:
    assert masks(QUANT.prove()) == dict.fromkeys(["x[m, n]", "y[m, n]", "s[m, g]"], ("mask m < M", "GUARDED"))


def test_columns_have_no_mask_where_the_tile_divides_them_and_a_launch_check_where_it_may() -> None:
    pins = {"m": 1, "n": 64}
    sure = copy("require(N % 64 == 0)").prove(schedule=pins)
    assert set(masks(sure).values()) == {("no mask", "PROVED")} and sure.count("HOISTED") == 0
    assert all("64" not in a.text for a in sure.assumptions if a.kind == "launch")
    open_ = copy("require(N > 0)").prove(schedule=pins)
    assert set(masks(open_).values()) == {("no mask if N % 64 == 0", "HOISTED")}
    (check,) = (a for a in open_.assumptions if "% 64" in a.text)
    assert (check.kind, check.text, check.otherwise) == ("launch", "N % 64 == 0", "masks")


def test_the_author_s_where_is_the_mask_of_a_gather() -> None:
    report = SPARSE.prove(schedule={"k": 1})
    assert report.ok
    assert masks(report)["kv[t, c]"] == ("mask as written", "PROVED")
    tiled = SPARSE.prove(schedule={"k": 4})
    assert masks(tiled)["kv[t, c]"] == ("mask as written", "PROVED")
    assert ("0 <= t < T", "PROVED") in [s[:2] for s in said(tiled, "kv[t, c]")]


def test_what_the_proofs_rest_on() -> None:
    found = {(a.kind, a.text, a.implied) for a in QUANT.prove().assumptions}
    assert ("require", "N % G == 0", False) in found
    assert any(kind == "launch" and "32 bits" in text for kind, text, _ in found)


# ---------------------------------------------------------------------------------------------------------------------- totals


def test_totals_count_the_rows_and_the_guards() -> None:
    report = copy("require(N % 64 == 0)").prove(schedule={"m": 4, "n": 64})
    totals = report.totals
    assert dict(totals.verdicts) == {v: report.count(v) for v, _ in totals.verdicts}
    assert (totals.accesses, totals.guards, totals.removed) == (2, 4, 2)  # x and y; m keeps its mask, n has none
    assert totals.units == sum(r.units for r in report.rows if r.kind != "mask")
    both = Totals.sum([totals, totals])
    assert (both.guards, both.removed, both.units) == (8, 4, 2 * totals.units)
    assert "2 of 4 guards removed" in str(totals)


def test_reports_are_the_same_in_every_run_and_order() -> None:
    names = ["flat", "paged", "halves"]
    module = [nsalang.load(ROOT / "tests/cases/proofs.nsa") for _ in range(2)]
    first = {n: getattr(module[0], n).prove() for n in names}
    second = {n: getattr(module[1], n).prove() for n in reversed(names)}
    assert first == second and all(r.ok for r in first.values())


# ---------------------------------------------------------------------------------------------------------- refuted and unknown


def test_a_refuted_kernel_has_a_report_and_raises_when_asked() -> None:
    report = CASES.gather.prove()
    (row,) = (r for r in report.rows if r.verdict == "REFUTED")
    assert not report.ok and (row.line, row.access, row.obligation) == (9, "x[t, n]", "0 <= t < T")
    assert masks(report) == {} and report.machine == () and report.totals.accesses == 0
    with pytest.raises(NsaError, match="NSA0801"):
        report.raise_for_refuted()
    CASES.gather_ok.prove().raise_for_refuted()


def test_unknown_is_no_success_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    unsettle(monkeypatch, "x[t, n]")
    report = CASES.gather_ok.prove()
    assert not report.ok and report.count("UNKNOWN") >= 1 and [d.code for d in report.diagnostics] == ["NSA0812"]
    allowed = CASES.gather_ok.prove(allow="unknown")
    assert allowed.ok and allowed.count("UNKNOWN") == report.count("UNKNOWN")
    words, verdict = masks(allowed)["x[t, n]"]
    assert verdict == "UNKNOWN" and words.startswith("mask as written")
    with pytest.raises(NsaError, match="NSA0519"):
        CASES.gather_ok.prove(allow="everything")  # type: ignore[arg-type]


def unsettle(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Let the prover not know what it is asked of the first index of an access."""
    from dataclasses import replace

    from nsalang.passes import prove

    settle = prove.settle

    def shy(kernel: ir.Kernel) -> tuple[prove.Result, ...]:
        return tuple(
            replace(r, verdict="UNKNOWN") if r.obligation.what == what and r.obligation.position == 0 else r for r in settle(kernel)
        )

    monkeypatch.setattr(prove, "settle", shy)


# ---------------------------------------------------------------------------------------------------------------- text and data


def test_text_is_plain_and_says_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = QUANT.prove()
    text = str(report)
    assert "\x1b" not in text and max(map(len, text.split("\n"))) <= 160
    assert text.startswith("act_quant (G=128, ue8m0=False) for cuda:sm_90")
    assert "require       N % G == 0" in text and text.split("\n")[-1] == f"act_quant: {report.totals}"
    report.table()
    assert [line.rstrip() for line in capsys.readouterr().out.rstrip().split("\n")] == [line.rstrip() for line in text.split("\n")]


def test_json_has_the_documented_keys() -> None:
    found = json.loads(CASES.gather.prove().to_json())
    assert found["version"] == 1 and found["ok"] is False
    assert found.keys() == {
        "version", "kernel", "variant", "target", "backend", "ok", "rows", "assumptions", "machine", "totals", "diagnostics",
    }  # fmt: skip
    assert found["rows"][0].keys() == {"line", "column", "access", "obligation", "kind", "verdict", "why", "units", "seconds"}
    assert found["assumptions"] == [] or found["assumptions"][0].keys() == {"kind", "text", "implied", "otherwise"}
    assert found["totals"].keys() == {"verdicts", "accesses", "guards", "guards_removed", "units", "seconds"}
    documented = (ROOT / "docs/proofs.md").read_text()
    for key in {*found, *found["rows"][0], *found["totals"]}:
        assert f"`{key}`" in documented or f".{key}`" in documented or f".{key}[]`" in documented, key


def test_places_are_cut_out_of_statements() -> None:
    assert place("y[m, f(n)[0]] = x[m]", "y") == "y[m, f(n)[0]]"
    assert place("atomic_add(y[m], v)", "y") == "y[m]"
    assert indices_of("y[m, min(n, 2), t[a, b]]") == ["m", "min(n, 2)", "t[a, b]"]
    both = Obligation("race", "y[i] = x[i + D // 2] and y[i + D // 2] = x[i]", (), ir.const(True, BOOL), None, "y")
    assert access_text(both) == "y[i] and y[i + D // 2]"


# --------------------------------------------------------------------------------------------------------------------- queries


@pytest.mark.parametrize("name", ["paged", "gather", "unwritten", "halves", "race", "shift", "topk"])
def test_queries_can_be_repeated(name: str) -> None:
    import z3

    report = getattr(CASES, name).prove()
    queries = report.queries()
    assert len(queries) >= sum(r.kind != "mask" for r in report.rows)
    for query in queries:
        solver = z3.Solver(ctx=z3.Context())
        solver.from_string(query.text)
        assert str(solver.check()) == query.expect, query.about
