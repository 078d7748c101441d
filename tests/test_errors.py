"""Every diagnostic: position, code and sentence, against what tests/errors/*.nsa say under the faulty lines.

A line `#      ^^^^ NSA0104: the sentence` stands below the line that it is about; the carets are the columns of the span.
`#<^^^^` is a span of that length from column 1.
Where a span covers several lines, the carets go to the end of its first one.

The files ``proofs_*.nsa`` go through the pass ``prove`` too. There the lines ``# note: …`` and ``# help: …`` below an expectation are the whole
of the notes and helps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsalang.base.codes import CODES
from nsalang.base.source import Diagnostic, NsaError, Source
from nsalang.passes import prove, simplify
from nsalang.syntax.parser import parse, read_source
from nsalang.types.check import check_text
from nsalang.types.settings import DEFAULT, Settings
from nsalang.types.typecheck import kernel_names, signature, specialise

FILES = sorted((Path(__file__).parent / "errors").glob("*.nsa"))
_EXPECTED = re.compile(r"#(?P<left><)?(?P<blank> *)(?P<carets>\^+) (?P<code>NSA\d{4}): (?P<sentence>.*)")

BACKEND_LIMITS = {code for code in CODES if code.startswith("NSA04") and code != "NSA0401"}
"""They depend on a target or a schedule, which a text alone does not have: see the tests of the passes and of the driver."""

Fault = tuple[int, int, int, str, str, tuple[str, ...]]
"""Line, column, end column, code, sentence; for the prover's, notes and helps."""


def proved(path: Path) -> bool:
    return path.stem.startswith("proofs_")


def check(source: Source, proofs: bool) -> Iterator[Diagnostic]:
    """What all stages say that a text goes through before anything is chosen."""
    try:
        check_text(source)
    except NsaError as error:
        yield from error.diagnostics
        return
    if not proofs:
        return
    file = parse(source)
    for name in kernel_names(file):
        kernel = specialise(file, name, Settings(dims=dict.fromkeys(signature(file, name, {}).specialised, 64)))
        try:
            prove.run(simplify.run(kernel, DEFAULT), DEFAULT)
        except NsaError as error:
            yield from error.diagnostics


def expected(text: str) -> list[Fault]:
    found: list[Fault] = []
    about = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith(("# note: ", "# help: ")) and found:
            found[-1] = (*found[-1][:5], (*found[-1][5], line[2:]))
            continue
        said = _EXPECTED.fullmatch(line)
        if said is None:
            assert not re.search(r"NSA\d{4}", line), f"line {number} looks like an expectation and is none"
            about = number
            continue
        column = 1 if said["left"] else 2 + len(said["blank"])
        found.append((about, column, column + len(said["carets"]), said["code"], said["sentence"], ()))
    return found


def reported(source: Source, proofs: bool) -> list[Fault]:
    found: list[Fault] = []
    for d in check(source, proofs):
        assert d.span is not None, d
        line = source.line(d.span.line)
        end = d.span.end_column if d.span.end_line == d.span.line else len(line) + 1
        more = (*(f"note: {n}" for n in d.notes), *(f"help: {h}" for h in d.helps)) if proofs else ()
        found.append((d.span.line, d.span.column, end, d.code, d.sentence, more))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_diagnostic_of_a_file(path: Path) -> None:
    source = read_source(path)
    wanted = expected(source.text)
    assert wanted, "an error file says what it expects"
    assert sorted(reported(source, proved(path))) == sorted(wanted)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_codes_are_in_the_table(path: Path) -> None:
    assert {code for *_, code, _, _ in expected(path.read_text(encoding="utf-8"))} <= CODES.keys()


def test_every_code_of_the_types_has_an_error_file() -> None:
    shown = {code for path in FILES for *_, code, _, _ in expected(path.read_text(encoding="utf-8"))}
    # 0207 and 0321 are about what a caller asks for: their tests are in test_typecheck.py.
    assert {code for code in CODES if code[:5] in ("NSA02", "NSA03", "NSA04")} - {"NSA0207", "NSA0321"} - BACKEND_LIMITS <= shown


def test_every_code_of_the_syntax_has_an_error_file() -> None:
    shown = {code for path in FILES for *_, code, _, _ in expected(path.read_text(encoding="utf-8"))}
    # 0113 and 0121 are about Python, and have their tests in test_capture.py.
    assert {code for code in CODES if code.startswith("NSA01")} - {"NSA0113", "NSA0121"} <= shown


def test_every_code_of_the_proofs_has_an_error_file() -> None:
    shown = {code for path in FILES for *_, code, _, _ in expected(path.read_text(encoding="utf-8"))}
    # 0812 is for what the prover happens not to settle (test_refute.py); 0814 is found at run time, and 0815 is what a caller asks for.
    assert {code for code in CODES if code.startswith("NSA08")} - {"NSA0812", "NSA0814", "NSA0815", "NSA0816"} == {
        c for c in shown if c.startswith("NSA08")
    }


ROOT = Path(__file__).parent.parent


def test_codes_that_are_used_are_in_the_table_and_in_a_test() -> None:
    code = "".join(
        p.read_text(encoding="utf-8")
        for folder in ("nsalang", "passes", "lowering")
        for p in (ROOT / folder).rglob("*.py")
        if p.name != "codes.py"
    )
    # This file names codes that have no file under errors/, which tests nothing.
    files = [p for p in (ROOT / "tests").rglob("*") if p.suffix in (".py", ".nsa") and p != Path(__file__)]
    tests = "".join(p.read_text(encoding="utf-8") for p in files)
    assert set(re.findall(r"NSA\d{4}", code)) == CODES.keys()
    assert {c for c in CODES if c not in tests} == set()
