"""Decorated Python functions: their text with the places of the Python file, what they capture, and the names that Python evaluates."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import captured_functions as functions
import pytest

from nsalang import dims, language
from nsalang.base.dtypes import BF16, F32
from nsalang.base.source import NsaError
from nsalang.syntax import Function
from nsalang.syntax.capture import capture, captures, source_of
from nsalang.syntax.parser import parse

FILE = Path(functions.__file__)
LINES = FILE.read_text().split("\n")


def _line(text: str) -> int:
    return next(n for n, line in enumerate(LINES, 1) if text in line)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_decorators_above_and_below_are_left_out() -> None:
    source = source_of(functions.decorated)
    assert (source.name, source.first_line, source.indent) == (str(FILE), _line("def decorated("), 0)
    (function,) = parse(source).items
    assert isinstance(function, Function) and function.name == "decorated" and function.docstring == "Its docstring."
    assert [p.name for p in function.parameters] == ["x", "y", "z", "s", "T", "G"]
    assert [p.optional for p in function.parameters] == [False, True, False, True, False, False]


def test_nested_function_keeps_the_places_of_the_file() -> None:
    source = source_of(functions.make(4, 5))
    assert (source.first_line, source.indent) == (_line("def nested"), 8)
    (function,) = parse(source).items
    assert str(function.body[0].span) == f"{FILE}:{_line('def nested') + 1}:13"  # type: ignore[union-attr]


def test_a_syntax_error_is_shown_at_its_place_in_the_python_file() -> None:
    with pytest.raises(NsaError) as caught:
        capture(functions.unbalanced)
    line = _line("y[m] = [x[m]]")
    assert [str(d.span) for d in caught.value.diagnostics] == [f"{FILE}:{line}:16"]
    assert f"{line} |         y[m] = [x[m]]" in str(caught.value)


def test_captured_values_are_plain() -> None:
    found = captures(functions.decorated)
    assert found == {"EPS": 1e-6, "COUNT": 3, "FLAG": True, "NOTHING": None, "TEXT": "text", "DTYPE": BF16, "HIGH": 7}
    assert type(found["HIGH"]) is int and type(found["FLAG"]) is bool


def test_closures_are_captured_and_so_are_extents_of_annotations() -> None:
    # `later` has no value any more; `other` stands in an annotation only, which this file does not evaluate.
    assert captures(functions.make(4, 5)) == {"scale": 2.5, "length": 4}


CRLF = """\
import functools
from nsalang.dims import M
from nsalang.language import Out, f32, grid, tile

def outer(extent):
\tdef f(x: f32[M, extent], y: Out[f32[M]] | None) -> None:
\t\tpass

\tdef g(x: f32[M, extent], y: Out[f32[M // 2, extent + 1]]) -> None:
\t  for m in grid(tile(M)):
\t    y[m] = x[m,
  0] + unknown +
\treturn f

def h(x: f32[M, 3], y: Out[f32[M]]) -> None:
    for m in grid(tile(M)):
        y[m] = x[m, 0]

k = lambda x: x
""".replace("  0] + unknown +\n", "  0] + unknown\n")


def test_windows_line_ends_and_tabs(tmp_path: Path) -> None:
    path = tmp_path / "windows.py"
    path.write_bytes(CRLF.replace("\n", "\r\n").encode())
    module = _module(path)
    source = source_of(module.h)
    assert "\r" not in source.text and source.first_line == 15
    assert isinstance(parse(source).items[0], Function)
    with pytest.raises(NsaError, match="NSA0108"):
        capture(module.outer(5))


def test_an_extent_that_only_an_annotation_uses(tmp_path: Path) -> None:
    path = tmp_path / "annotated.py"
    path.write_text(CRLF.replace("\t", "    "))
    assert captures(_module(path).outer(5)) == {"extent": 5}


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "changed.py"
    path.write_text("from nsalang.language import f32\n\n\ndef f(x: f32) -> None:\n    pass\n")
    module = _module(path)
    path.write_text("# another\n# file\n\n\n\nA = 3\n")
    with pytest.raises(NsaError, match="NSA0113"):
        source_of(module.f)


def test_functions_without_a_text() -> None:
    scope: dict[str, object] = {}
    exec("def made(x): pass", scope)
    for value in (scope["made"], lambda x: x, len, Function, 3):
        with pytest.raises(NsaError) as caught:
            source_of(value)  # type: ignore[arg-type]
        assert caught.value.diagnostics[0].code == "NSA0113"


def test_names_of_the_language_say_where_they_belong() -> None:
    from nsalang.dims import M
    from nsalang.language import Out, f32, grid, tile

    assert repr(f32[M, M // 2 + 1] | None) == "f32[M, ((M // 2) + 1)]" and repr(Out[f32[M]]) == "Out[f32[M]]"
    assert f32 is F32
    uses: list[Callable[[], object]] = [
        lambda: grid(tile(M)),
        lambda: f32(3),
        lambda: tile + 1,
        lambda: int(M),
        lambda: range(M),
        lambda: Out(M),
        lambda: bool(M),
    ]
    for use in uses:
        with pytest.raises(NsaError, match="NSA0121"):
            use()
    for value in (f32, Out):
        with pytest.raises(TypeError):
            iter(value)
    with pytest.raises(ImportError):
        exec("from nsalang.language import softmax")
    with pytest.raises(AttributeError, match="did you mean `maximum`"):
        language.maximun  # noqa: B018
    with pytest.raises(AttributeError):
        dims.__path__  # noqa: B018


def test_language_has_every_name_of_the_type_check() -> None:
    from nsalang.types.functions import FUNCTIONS, PLACES

    assert {*FUNCTIONS, *PLACES} <= language.NAMES.keys()


@pytest.mark.slow
def test_decorated_functions_pass_mypy(tmp_path: Path) -> None:
    path = tmp_path / "typed.py"
    path.write_text(
        "from nsalang.dims import G, M, N\n"
        "from nsalang.language import InOut, Out, bf16, const, dtype, f32, grid, sum, tile, where\n\n\n"
        "def f(x: f32[M, N // 2], y: Out[f32[M, 3]], z: InOut[bf16[2 * M + 1, N // G]] | None, s: f32, T: dtype, G: const = 128) -> None:\n"
        "    for m in grid(tile(M)):\n"
        "        v = where(m > 3, x[m, 0], -s)\n"
        "        if s > 3:\n"
        "            v = sum(v, axis=m)\n"
        "        y[m, 0] = T(v)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(path)],
        capture_output=True,
        text=True,
        cwd=FILE.parent.parent,
    )
    assert ran.returncode == 0, ran.stdout
