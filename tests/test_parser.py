"""The parser: programs of the language's design, exact places, several errors in one go, and files."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsalang.base.source import NsaError, Source
from nsalang.syntax import (
    Assign,
    Binary,
    Call,
    Conditional,
    Constant,
    Function,
    Name,
    Number,
    Paren,
    Slice,
    String,
    Subscript,
    Unary,
    grammar,
)
from nsalang.syntax.parser import parse, read_source

ROOT = Path(__file__).parent.parent
TEXTS = sorted([*(ROOT / "examples").glob("*.nsa"), *(ROOT / "tests" / "parse").glob("*.nsa"), *(ROOT / "tests" / "cases").glob("*.nsa")])


def _value(text: str) -> object:
    (function,) = parse(Source(f"def f(x: f32[N]):\n    v = {text}\n")).items
    assert isinstance(function, Function)
    (statement,) = function.body
    assert isinstance(statement, Assign)
    return statement.values[0]


def _kinds(value: object) -> str:
    """A tree's shape, with every operation in parentheses."""
    match value:
        case Binary(op, left, right):
            return f"({_kinds(left)} {op} {_kinds(right)})"
        case Unary(op, operand):
            return f"({op} {_kinds(operand)})"
        case Name(name):
            return name
        case Paren(inner):
            return _kinds(inner)
        case Conditional(a, b, c):
            return f"({_kinds(a)} if {_kinds(b)} else {_kinds(c)})"
        case _:
            raise AssertionError(value)


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_texts_parse_and_every_place_shows_its_node(path: Path) -> None:
    source = read_source(path)
    file = parse(source)
    names = [item.name for item in file.items]
    assert path.stem in names or path.parent.name == "cases"

    def walk(node: Any) -> None:
        if isinstance(node, tuple):
            for item in node:
                walk(item)
        elif hasattr(node, "span"):
            span = node.span
            text = source.line(span.line)
            assert span.line <= span.end_line and 1 <= span.column <= len(text), node
            if isinstance(node, Name):
                assert span.text == node.id
            if isinstance(node, (Number, String)):
                assert span.text == node.text.split("\n")[0]
            for field in node.__dataclass_fields__:
                if field not in ("span", "source"):
                    walk(getattr(node, field))

    walk(file)


def test_places_of_headers_and_expressions() -> None:
    source = Source(
        "def f(x: f32[M, N] | None, n: i32 = -1) -> None:\n"
        "    for i, j in grid(tile(M), N):  # comment\n"
        "        if i < 3 :\n"
        "            y[i, j] = where(a,\n                b)\n"
        "        elif not j:\n"
        "            z += (1 + 2)\n",
        "k.nsa",
    )
    (function,) = parse(source).items
    assert isinstance(function, Function)
    assert (function.span.text, function.name_span.text) == ("def f(x: f32[M, N] | None, n: i32 = -1) -> None", "f")
    first, second = function.parameters
    assert (first.span.text, first.name_span.text, first.optional) == ("x: f32[M, N] | None", "x", True)
    assert first.annotation is not None and first.annotation.span.text == "f32[M, N]"
    assert second.default is not None and second.default.span.text == "-1"
    (loop,) = function.body
    assert loop.span.text == "for i, j in grid(tile(M), N)"
    (branch,) = loop.body  # type: ignore[union-attr]
    assert branch.span.text == "if i < 3" and branch.orelse[0].span.text == "elif not j"  # type: ignore[union-attr]
    store = branch.body[0]  # type: ignore[union-attr]
    assert (store.span.line, store.span.column, store.span.end_line, store.span.end_column) == (4, 13, 5, 19)
    added = branch.orelse[0].body[0]  # type: ignore[union-attr]
    assert (added.op, added.value.span.text, added.value.value.op_span.column) == ("+", "(1 + 2)", 21)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a + b * c - d", "((a + (b * c)) - d)"),
        ("a - b - c", "((a - b) - c)"),
        ("-a ** -b ** c", "(- (a ** (- (b ** c))))"),
        ("a | b ^ c & d << e + f", "(a | (b ^ (c & (d << (e + f)))))"),
        ("not a and b or c", "(((not a) and b) or c)"),
        ("a // b % c / d", "(((a // b) % c) / d)"),
        ("a if b else c if d else e", "(a if b else (c if d else e))"),
        ("~a - +b", "((~ a) - (+ b))"),
    ],
)
def test_precedence(text: str, shape: str) -> None:
    assert _kinds(_value(text)) == shape


@pytest.mark.parametrize(
    ("text", "value", "is_float"),
    [
        ("1e-4", Fraction(1, 10000), True),
        ("0x1F", 31, False),
        ("1_000", 1000, False),
        (".5", Fraction(1, 2), True),
        ("2.", 2, True),
        ("0.1", Fraction(1, 10), True),
        ("00", 0, False),
        ("0b1_0", 2, False),
        ("3E2", 300, True),
        ("1.e1", 10, True),
    ],
)
def test_numbers_are_exact(text: str, value: Fraction, is_float: bool) -> None:
    number = _value(text)
    assert isinstance(number, Number) and (number.value, number.is_float, number.text) == (value, is_float, text)


def test_calls_keywords_slices_and_strings() -> None:
    call = _value("dot(a, b, axis=(m, n), precision='ieee',)")
    assert isinstance(call, Call) and [k.name for k in call.keywords] == ["axis", "precision"] and call.keywords[0].name_span.text == "axis"
    sliced = _value("x[1:, :, ::2, i]")
    assert isinstance(sliced, Subscript) and [isinstance(i, Slice) for i in sliced.indices] == [True, True, True, False]
    assert isinstance(sliced.indices[2], Slice) and sliced.indices[2].step is not None and sliced.indices[2].stop is None
    assert _value(r"'a\n\'b\\\d'") == String("a\n'b\\\\d", "", span=call.span)
    assert _value(r"r'\n'") == String("\\n", "", span=call.span)


def test_a_file_holds_constants_decorators_and_docstrings() -> None:
    file = parse(
        Source('# A file.\nA = 1 << 3\n@jit\n@nsalang.jit(schedule=x)\ndef f(x: f32[N]): "Doc."; y = 1;\n\n\ndef g(): return\n# end')
    )
    constant, first, second = file.items
    assert isinstance(constant, Constant) and constant.name == "A"
    assert isinstance(first, Function) and (first.docstring, len(first.decorators), len(first.body)) == ("Doc.", 2, 1)
    assert isinstance(second, Function) and second.parameters == ()


def test_line_ends_and_joined_lines_do_not_matter() -> None:
    text = "def f(x: f32[N]):\n    # comment\n\n    y = 1 + \\\n  2\n    z = (1,\n\n# in brackets\n2)\n"
    assert parse(Source(text)) == parse(Source(text.replace("\n", "\r\n"))) == parse(Source(text.rstrip("\n")))
    with pytest.raises(NsaError, match=r"NSA0101.*\n --> <string>:2:7"):
        parse(Source("def f(x: f32[N]):\r\n    y = \r\n"))


def test_one_error_for_each_def_and_none_for_right_ones() -> None:
    text = (
        "def a(x)\n    y = 1\n\n\ndef b(x):\n    '''\ndef not_here(\n'''\n    y = 1\n\n\n"
        "@jit\ndef c(x):\n    y = (1\n\n\nK = 1 +\ndef d(\n    x: f32,\n):\n    y = [1]\n"
    )
    with pytest.raises(NsaError) as caught:
        parse(Source(text))
    assert [(d.code, d.span.line) for d in caught.value.diagnostics if d.span] == [
        ("NSA0103", 1),
        ("NSA0104", 14),
        ("NSA0101", 17),
        ("NSA0111", 21),
    ]


def test_notes_and_helps() -> None:
    def only(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        with pytest.raises(NsaError) as caught:
            parse(Source(text))
        (diagnostic,) = caught.value.diagnostics
        return diagnostic.notes, diagnostic.helps

    assert only("def f(a):\n    y = a <= t & t < b\n") == ((), ("write `(a <= t) & (t < b)`",))
    assert only("def f(a):\n    y = a == 1 | a == 2 | a == 3\n") == ((), ("write `(a == 1) | (a == 2) | (a == 3)`",))
    assert only("def f(a):\n    y = x & 1 == 0\n") == ((), ("write `(x & 1) == 0`",))
    assert only("def f(a):\n    y = maximum(a,\n      b c)\n") == (("the `(` on line 2 is still open here",), ())
    assert only("def f(a):\n        y = 1\n    z = 2\n") == (("the blocks around it are indented by 0",), ())
    assert only("\n\n") == ((), ())


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.nsa"
    path.write_bytes(b"\xef\xbb\xbfdef f(x: f32[N]):\r\n    y = 1\r\n")
    source = read_source(path)
    assert source == Source("def f(x: f32[N]):\n    y = 1\n", str(path))
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(NsaError, match=r"NSA0705.*0xe9 at offset 5"):
        read_source(path)
    with pytest.raises(NsaError, match="NSA0703"):
        read_source(tmp_path / "none.nsa")
    for odd in (tmp_path, "a\0b"):
        with pytest.raises(NsaError, match="NSA0704"):
            read_source(odd)


def test_tables_belong_to_the_grammar() -> None:
    root = Path(grammar.__file__).parent
    made = grammar.build_tables((root / "nsa.lark").read_text(encoding="utf-8"))
    stored = json.loads((root / "nsa.tables.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(made)) == stored, "run `python -m nsalang.syntax.grammar`"


def test_parsing_needs_no_heavy_import() -> None:
    code = "import sys; from nsalang.syntax.parser import Source, parse; parse(Source('def f(): pass')); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert not {"lark", "torch", "triton", "tilelang", "z3", "rich"} & set(loaded)


_PIECES = st.sampled_from(
    [
        "def f(x: f32[N]):\n",
        "    ",
        "\n",
        "for ",
        "if ",
        " in ",
        "else",
        "elif ",
        ":",
        "x",
        "1",
        "(",
        ")",
        "[",
        "]",
        ",",
        "=",
        "+",
        "*",
        "<",
        "not ",
        "is ",
        "'",
        '"""',
        "#",
        "\\\n",
    ]
    + ["@", "!", "{", "lambda ", "while ", "return ", "08", ".", "->", "\t", "\r", ";", "é", "|", "None", "def ", "**", ":=", "..."]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_PIECES, max_size=25).map("".join))
def test_any_text_parses_or_gets_placed_errors(text: str) -> None:
    source = Source(text)
    try:
        parse(source)
    except NsaError as error:
        lines = text.split("\n")
        for diagnostic in error.diagnostics:
            assert diagnostic.span is not None
            assert 1 <= diagnostic.span.line <= len(lines)
            assert 1 <= diagnostic.span.column <= len(lines[diagnostic.span.line - 1]) + 2
            diagnostic.render()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TEXTS), st.data())
def test_a_damaged_text_is_reported_not_crashed_on(path: Path, data: st.DataObject) -> None:
    text = read_source(path).text
    at = data.draw(st.integers(0, len(text) - 1))
    size = data.draw(st.integers(0, 6))
    damaged = text[:at] + data.draw(st.sampled_from(["", "(", "]", ":", "\n", " ", "=", "'", "x y", "if"])) + text[at + size :]
    try:
        parse(Source(damaged))
    except NsaError as error:
        assert all(d.span is not None and d.code in grammar_codes() for d in error.diagnostics)


def grammar_codes() -> set[str]:
    from nsalang.base.codes import CODES

    return {code for code in CODES if code.startswith("NSA01")}
