"""The packages of nsalang stand in the order in which a kernel walks through them: each imports only from those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = (
    "base", "syntax", "ir", "host", "types", "interp", "proof", "refute", "passes", "lowering", "toolchain", "build", "report", "launch", "code", "ops",
    "bench", "commands",
)  # fmt: skip
FRONT = ("nsalang", "nsalang.dims", "nsalang.language", "nsalang.__main__")
"""The root may import anything, and only commands, benchmarks and operators import it; ``nsalang.version`` is for all."""
MOST = 400


def files() -> dict[str, Path]:
    """The modules of nsalang by name; kernels in ``examples`` are no part of it."""
    top = [p for p in sorted((ROOT / "nsalang").rglob("*.py")) if not {"kernels", "passes", "lowering"} & set(p.relative_to(ROOT).parts)]
    linked = [p for name in ("passes", "lowering") for p in sorted((ROOT / name).rglob("*.py"))]
    named = {(p.relative_to(ROOT) if p in top else Path("nsalang") / p.relative_to(ROOT)): p for p in [*top, *linked]}
    return {".".join(n.with_suffix("").parts).removesuffix(".__init__"): p for n, p in named.items()}


MODULES = files()


def imported(path: Path) -> Iterator[tuple[str, int, bool]]:
    """The modules of nsalang that a file imports: name, line, whether for type checkers alone."""
    tree = ast.parse(path.read_text())
    checking = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    typing = {id(n) for c in checking for n in ast.walk(c)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [n if (n := f"{node.module}.{a.name}") in MODULES else node.module for a in node.names]
        yield from ((n, node.lineno, id(node) in typing) for n in names if n.split(".")[0] == "nsalang")  # type: ignore[attr-defined]


def package(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ORDER else ""


def backwards(module: str, other: str) -> bool:
    """Whether ``module`` imports from a room behind its own."""
    if package(module) == "" or other == "nsalang.version":
        return False
    if package(other) == "":
        return other in FRONT and package(module) not in ("ops", "bench", "commands", "launch")
    return ORDER.index(package(other)) > ORDER.index(package(module))


@pytest.mark.parametrize("module", MODULES)
def test_a_package_imports_only_from_those_before_it(module: str) -> None:
    path = MODULES[module]
    wrong = [f"{path.relative_to(ROOT)}:{line} imports {other}" for other, line, _ in imported(path) if backwards(module, other)]
    assert not wrong


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {m: {o for o, _, typing in imported(p) if o in MODULES and o != m and not typing} for m, p in MODULES.items() if package(m)}
    for module in graph:
        graph[module] -= {o for o in graph[module] if module.startswith(f"{o}.")}  # the package that it is part of
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle: {' -> '.join(error.args[1])}") from None


def test_every_package_is_in_the_order() -> None:
    assert {p.name for p in (ROOT / "nsalang").iterdir() if (p / "__init__.py").exists() and p.name != "kernels"} == set(ORDER)


def test_no_file_is_too_long() -> None:
    own = [*MODULES.values(), *sorted((ROOT / "tests").rglob("*.py"))]
    lengths = {
        p.relative_to(ROOT).as_posix(): p.read_text().count("\n") for p in own if "goldens" not in p.parts and "golden" not in p.parts
    }
    assert not {n for n, lines in lengths.items() if lines > MOST}
