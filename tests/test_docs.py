"""What the documents show is what the tools print: blocks under ``<!-- prints: … -->``, ``<!-- errors: … -->`` and ``<!-- text: FILE -->``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nsalang import cli

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"<!-- (prints|errors|text): (.+?) -->\n\n```(\w*)\n(.*?)\n```\n", re.DOTALL)
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
