"""``nsalang prove``: what it prints where, its exit codes, variants, queries and denials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_report import unsettle

from nsalang.commands import cli

ROOT = Path(__file__).parent.parent
QUANT = ROOT / "examples/act_quant.nsa"
CASES = ROOT / "tests/cases/proofs.nsa"
SPARSE = ROOT / "tests/cases/sparse_lse.nsa"


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """``nsalang prove`` in this process: (exit code, standard output, standard error)."""
    capfd.readouterr()
    code = cli.main(["prove", *(str(a) for a in arguments)])
    out, err = capfd.readouterr()
    return code, out, err


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ---------------------------------------------------------------------------------------------------------------------- tables


def test_a_table_for_variants_that_say_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, QUANT)
    assert (code, err) == (0, "") and "\x1b" not in out
    assert out.splitlines()[0].startswith("act_quant (G=128; ue8m0=False or True) for cuda:sm_90")
    assert out.count("mask m < M") == 3 and "guards removed; solver" in out.splitlines()[-1]


def test_every_combination_of_bools_and_optional_parameters(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = json.loads(run(capfd, SPARSE, "--json")[1])
    assert sorted(v["length"] for r in found["reports"] for v in r["variants"]) == ["None", "given"]
    for option, value in (("--with", "given"), ("--without", "None")):
        found = json.loads(run(capfd, SPARSE, option, "length", "--json")[1])
        assert [v["length"] for r in found["reports"] for v in r["variants"]] == [value]
    found = json.loads(run(capfd, QUANT, "-D", "ue8m0=true", "--json")[1])
    assert [r["variants"] for r in found["reports"]] == [[{"G": "128", "ue8m0": "True"}]]
    flags = ", ".join(f"f{i}: const = False" for i in range(5))
    many = write(tmp_path / "many.nsa", f"def f(x: f32[N], y: Out[f32[N]], {flags}):\n    for n in grid(tile(N)):\n        y[n] = x[n]\n")
    code, out, err = run(capfd, many)
    assert (code, out) == (2, "") and "32 variants by f0, f1, f2, f3, f4" in err and "-D" in err
    code, out, _ = run(capfd, many, "-D", "f3=true")
    assert code == 0 and "f0=False or True" in out and len(out.splitlines()) < 40


def test_all_kernels_of_a_file_and_a_last_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    both = write(tmp_path / "both.nsa", QUANT.read_text() + "\n\n" + (ROOT / "examples/softmax.nsa").read_text())
    code, out, _ = run(capfd, both)
    assert code == 0 and "softmax for" in out and out.splitlines()[-1].startswith("total: 2 kernels, 3 variants: ")
    assert run(capfd, both, "-D", "G=64")[0] == 0 and run(capfd, both, "-D", "Q=64")[0] == 2
    assert run(capfd, both, "softmaks")[0] == 2 and run(capfd, both, "--with", "bias")[0] == 2
    found = json.loads(run(capfd, both, "--json")[1])
    assert found.keys() == {"version", "file", "target", "backend", "ok", "totals", "reports"} and found["ok"]
    assert sum(r["totals"]["guards"] for r in found["reports"]) == found["totals"]["guards"] > 0


def test_what_must_be_given_is_named_with_its_option(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    generic = write(tmp_path / "g.nsa", "def f(x: T[N], y: Out[T[N]], T: dtype):\n    for n in grid(tile(N)):\n        y[n] = x[n]\n")
    code, out, err = run(capfd, generic)
    assert (code, out) == (1, "") and "error[NSA0517]" in err and "-D T=" in err
    assert run(capfd, generic, "-D", "T=bf16")[0] == 0
    generic.write_text(generic.read_text().replace("T: dtype", "T: dtype = f16"))
    for given, shown in (((), "f16"), (("-D", "T=bf16"), "bf16")):
        code, out, _ = run(capfd, generic, *given)
        assert code == 0 and out.startswith(f"f (T={shown}) for cuda:sm_90")
    text = "def f(x: f32[N, D], y: Out[f32[N, D]]):\n    d = span(D)\n    for n in grid(N):\n        y[n, d] = x[n, d]\n"
    spans = write(tmp_path / "s.nsa", text)
    code, out, err = run(capfd, spans)
    assert (code, out) == (1, "") and "error[NSA0518]" in err and "-D D=" in err
    assert run(capfd, spans, "-D", "D=64")[0] == 0
    code, _, err = run(capfd, spans, "-D", "D=64,N=4")
    assert code == 0 or "error[NSA0518]" in err


def test_python_files_are_imported_and_not_run_as_scripts(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capfd, ROOT / "examples/residual_scale.py")
    assert (code, err) == (0, "") and out.startswith("residual_scale")
    assert run(capfd, ROOT / "examples/residual_scale.py", "nothing")[0] == 2
    broken = write(tmp_path / "broken.py", "raise ValueError('no')\n")
    code, _, err = run(capfd, broken)
    assert code == 1 and "error[NSA0704]" in err and "ValueError: no" in err
    assert run(capfd, tmp_path / "none.py")[0] == 1
    code, out, err = run(capfd, write(tmp_path / "empty.py", "x = 1\n"))
    assert (code, out) == (1, "") and "empty.py has no kernel" in err and "@nsalang.jit" in err


def test_targets_and_backends(capfd: pytest.CaptureFixture[str]) -> None:
    assert "for hip:gfx942, tilelang" in run(capfd, QUANT, "-t", "hip:gfx942", "-b", "tilelang")[1]
    assert run(capfd, QUANT, "-t", "cuda:sm_1")[0] == 1 and run(capfd, QUANT, "-b", "cuda")[0] == 2
    assert "mask m < M" not in run(capfd, QUANT, "--pin", "m=1")[1]


# ---------------------------------------------------------------------------------------------------------------------- errors


def test_refuted_is_1_with_the_error_beside_the_table(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, CASES, "gather")
    assert code == 1 and "REFUTED" in out and "error[NSA0801]" in err and "proofs.nsa:9:19" in err and "error" not in out
    code, out, err = run(capfd, CASES, "gather", "--json", "--error-format", "json")
    found = json.loads(out)
    assert code == 1 and not found["ok"] and [d["code"] for d in json.loads(err)] == ["NSA0801"]
    assert found["reports"][0]["diagnostics"] == json.loads(err)


def test_unknown_is_1_unless_allowed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    unsettle(monkeypatch, "x[t, n]")
    code, out, err = run(capfd, CASES, "gather_ok")
    assert code == 1 and "UNKNOWN" in out and "error[NSA0812]" in err
    code, out, err = run(capfd, CASES, "gather_ok", "--allow", "unknown")
    assert (code, err) == (0, "") and "UNKNOWN" in out
    code, _, err = run(capfd, CASES, "gather_ok", "--allow", "unknown", "--deny", "unknown")
    assert code == 1 and "error[NSA0812]" in err


def test_denials(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capfd, QUANT, "--deny", "guarded")
    assert code == 1 and "mask m < M" in out and err.count("error[NSA0815]") == 3 and "x[m, n] of 'act_quant' is GUARDED" in err
    assert run(capfd, QUANT, "--deny", "guarded", "--pin", "m=1")[0] == 0
    assert run(capfd, QUANT, "--deny", "hoisted,unknown")[0] == 0
    text = "def f(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = x[n]\n"
    flat = write(tmp_path / "flat.nsa", text)
    code, _, err = run(capfd, flat, "--deny", "unknown", "--deny", "hoisted")
    assert code == 1 and "is HOISTED, which --deny hoisted refuses" in err and "N % " in err
    assert run(capfd, QUANT, "--deny", "proved")[0] == 2
    # What a launch check leaves of a mask is not hidden behind what it saves.
    text = "def f(x: f32[M, N], y: Out[f32[M, N]]):\n    for m, n in grid(tile(M), tile(N)):\n        y[m, n] = x[m, n]\n"
    code, out, err = run(capfd, write(tmp_path / "copy.nsa", text), "--deny", "guarded", "--pin", "n=64")
    assert code == 1 and err.count("is GUARDED, which --deny guarded refuses") == 2
    assert out.count("mask m < M") == 2 and out.count("no other mask if N % 64 == 0") == 2


# --------------------------------------------------------------------------------------------------------------------- queries


def test_queries_as_files_that_any_solver_can_repeat(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import z3

    folder = tmp_path / "new/queries"
    assert run(capfd, CASES, "halves", "--smt2", folder)[0] == 0
    before = len(list(folder.iterdir()))
    code, _, err = run(capfd, CASES, "gather", "--smt2", folder)
    files = sorted(folder.iterdir())
    assert code == 1 and f"wrote {len(files) - before} obligations to {folder}" in err and 0 < before < len(files)
    statuses = set()
    for file in files:
        text = file.read_text()
        name, variant, number, kind, suffix = file.name.split(".")
        assert text.startswith(f"; nsalang: {kind} of {name}: line ") and variant == "only" and number.isdecimal() and suffix == "smt2"
        (status,) = [line.split()[-1].rstrip(")") for line in text.splitlines() if line.startswith("(set-info :status")]
        assert text.rstrip().endswith("(check-sat)")
        statuses.add(status)
        solver = z3.Solver(ctx=z3.Context())
        solver.from_string(text)
        assert str(solver.check()) == status, file.name
    assert statuses == {"sat", "unsat"}


def test_queries_are_written_together_or_not_at_all(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    taken = write(tmp_path / "taken", "")
    code, out, err = run(capfd, CASES, "flat", "--smt2", taken / "below")
    assert (code, out) == (1, "") and "error[NSA0706]" in err and taken.read_text() == ""
