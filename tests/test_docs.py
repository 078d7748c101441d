"""What the documents show is what the tools print: blocks under ``<!-- prints: … -->``, ``<!-- errors: … -->`` and ``<!-- text: FILE -->``, tables
under ``<!-- files: FOLDER -->``.

And what they list is what there is: commands, modules, functions, links.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from nsalang import ops
from nsalang.base.target import KNOWN
from nsalang.bench.tables import markdown
from nsalang.commands import cli

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"<!-- (prints|errors|text): (.+?) -->\n\n```(\w*)\n(.*?)\n```\n", re.DOTALL)
TABLE = re.compile(r"<!-- files: (\S+) -->\n\n(?:\|.*\n)*")
DOCUMENTS = ["README.md", "docs/proofs.md"]


def shown(kind: str, what: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What stands in a block: standard output or errors of a command, or a file. Times are those of a machine."""
    if kind == "text":
        return (ROOT / what).read_text().rstrip("\n")
    capfd.readouterr()
    cli.main([*what.split()[1:], "--quiet"])
    out, err = capfd.readouterr()
    text = out if kind == "prints" else err
    return re.sub(r"\d+\.\d ms", "… ms", "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n")))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_show_what_is_printed(
    name: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / name
    text = path.read_text()
    assert BLOCK.search(text), f"{name} shows nothing"
    made = BLOCK.sub(lambda m: f"<!-- {m[1]}: {m[2]} -->\n\n```{m[3]}\n{shown(m[1], m[2], capfd)}\n```\n", text)
    if request.config.getoption("--update-golden"):
        path.write_text(made)
        return
    assert text == made, f"{name} shows something else: make golden, and read the diff"


def test_every_marker_has_its_block() -> None:
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        assert len(BLOCK.findall(text)) == len(re.findall(r"<!-- (?:prints|errors|text):", text))


def test_the_page_on_kernels_proves_every_example(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"^nsalang prove (examples/\S+)(.*)$", (ROOT / "docs/kernels.md").read_text(), re.MULTILINE)
    there = [p for p in Path("examples").iterdir() if p.suffix in (".nsa", ".py") and p.name != "__init__.py"]
    assert sorted(file for file, _ in commands) == sorted(map(str, there))
    for file, options in commands:
        code = cli.main(["prove", file, *options.split(), "--quiet"])
        out, err = capfd.readouterr()
        assert code == 0 and "PROVED" in out and "UNKNOWN" not in out, (file, err)


def test_the_page_on_kernels_says_how_long_they_are() -> None:
    lengths: list[int] = []
    for path in (ROOT / "examples").glob("*.nsa"):
        for text in re.split(r"^(?=def )", path.read_text(), flags=re.MULTILINE)[1:]:
            head = re.split(r"^(?=[A-Z#])", text, flags=re.MULTILINE)[0]
            lengths.append(sum(1 for line in head.splitlines() if line.strip() and not line.strip().startswith("#")))
    assert f"No kernel is longer than {max(lengths)} lines" in (ROOT / "docs/kernels.md").read_text()


def test_the_page_of_benchmarks_is_made_of_its_files() -> None:
    made = markdown([json.loads(p.read_text()) for p in sorted((ROOT / "docs/benchmarks").glob("*.json"))])
    assert (ROOT / "docs/benchmarks.md").read_text() == made


def files_of(folder: str) -> str:
    """A table of a folder's files, each with the first sentence of its docstring."""
    rows = []
    for path in sorted((ROOT / folder).glob("*.py")):
        if not path.stem.startswith("__"):
            told = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
            assert told, f"{path} does not say what it is"
            rows.append(f"| `{path.name}` | {re.sub(r'[.] .*', '', told).removesuffix('.').replace('|', chr(92) + '|')} |\n")
    return "| file | what |\n|--|--|\n" + "".join(rows)


def test_the_page_on_architecture_says_what_each_file_is(request: pytest.FixtureRequest) -> None:
    path = ROOT / "docs/architecture.md"
    text = path.read_text()
    made = TABLE.sub(lambda m: f"<!-- files: {m[1]} -->\n\n{files_of(m[1])}", text)
    if request.config.getoption("--update-golden"):
        path.write_text(made)
        return
    assert text == made, "the page shows other files: make golden, and read the diff"
    rooms = {p.parent for p in (ROOT / "nsalang").rglob("*.py") if not p.stem.startswith("__")} | {
        p.parent for top in ("passes", "lowering") for p in (ROOT / top).rglob("*.py") if not p.stem.startswith("__")
    }
    told = {ROOT / m[1] for m in TABLE.finditer(text)}
    assert told == {r for r in rooms if r not in (ROOT / "nsalang", ROOT / "nsalang/kernels")}


def test_the_page_on_developing_lists_the_targets() -> None:
    section = (ROOT / "docs/developing.md").read_text().split("## Targets\n")[1].split("\n## ")[0]
    assert tuple(re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)) == KNOWN


@pytest.mark.parametrize("name", ops.__all__)
def test_the_page_on_operators_has_every_argument(name: str) -> None:
    """In the order of the signature, with its defaults where they are constants; `*` before what is given by name."""
    section = (ROOT / "docs/ops.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = [cells.split(" | ")[0] for cells in re.findall(r"^\| (.*`.*) \|$", section, re.MULTILINE)]
    told = [(argument, row.startswith("* "), row) for row in rows for argument in re.findall(r"`(\w+)`", row)]
    parameters = [p for p in inspect.signature(getattr(ops, name)).parameters.values() if p.name != "backend"]
    assert [(a, by_name) for a, by_name, _ in told] == [(p.name, p.kind is p.KEYWORD_ONLY) for p in parameters]
    for (_, _, row), parameter in zip(told, parameters, strict=True):
        assert (" = " in row) == (parameter.default is not parameter.empty)
        if parameter.default not in (parameter.empty, None):
            assert f" = {parameter.default}".replace("'", '"') in row or f' = "{parameter.default}"' in row
    assert f"[`{name}`](#{name})" in (ROOT / "docs/ops.md").read_text()


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for file, _, anchor in (link.partition("#") for link in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", text)):
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), (page.name, file)
            if anchor:
                titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}, (page.name, file, anchor)
