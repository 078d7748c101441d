"""Text -> syntax tree: reads files, runs the LALR tables over the tokens, and reports one syntax error for each top-level def."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nsalang.base.source import Diagnostic, NsaError, Source, Span
from nsalang.syntax import File, Function
from nsalang.syntax.errors import explain
from nsalang.syntax.grammar import load
from nsalang.syntax.lexer import LAYOUT, lay_out, scan
from nsalang.syntax.tree import Builder, Piece


def read_source(path: str | Path) -> Source:
    """The text of a file: UTF-8, with or without a byte order mark, with any line ends (kept as ``\\n``).

    Raises NsaError NSA0703 where there is no such file, NSA0704 where it cannot be read, NSA0705 where it is not UTF-8.
    """
    name = str(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise NsaError.at("NSA0703", f"there is no file {name}") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NsaError.at("NSA0704", f"the file {name} cannot be read: {why}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        value = data[error.start]
        raise NsaError.at(
            "NSA0705", f"the file {name} is not UTF-8: byte 0x{value:02x} at offset {error.start} begins no character"
        ) from None
    return Source(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), name)


def parse(source: Source) -> File:
    """The syntax tree of a text. Raises NsaError with the syntax errors of all its defs, one for each that the grammar does not take."""
    try:
        return _parse(source)
    except NsaError as error:
        if error.diagnostics[0].code == "NSA0110":
            raise
        whole = error
    # A fault in one def says nothing about the next, so each is parsed alone, at the lines where it stands.
    found: list[Diagnostic] = []
    for start, end in _chunks(source.text):
        before = re.sub(r"[^\n]", " ", source.text[:start])
        try:
            _items(Source(before + source.text[start:end], source.name), source)
        except NsaError as error:
            found += error.diagnostics
    raise NsaError(*found) if found else whole


def _parse(source: Source) -> File:
    items = _items(source, source)
    if not any(isinstance(item, Function) for item in items):
        what = "the text is empty: it holds no `def`" if not source.text.strip() else "the text holds no `def`"
        raise NsaError.at("NSA0110", what, Span(source, 1, 1, 1, len(source.line(1)) + 1))
    lines = source.text.split("\n")
    return File(source, items, span=Span(source, 1, 1, len(lines), len(lines[-1]) + 1))


def _items(text: Source, source: Source) -> tuple[Any, ...]:
    """Parse ``text``, with spans in ``source``, of which it is a part (at the same lines)."""
    grammar = load()
    rules, actions = grammar.rules, grammar.actions
    tokens = lay_out(source, scan(text))
    builder = Builder(source)
    states = [grammar.start]
    values: list[Piece] = []
    for n, token in enumerate(tokens):
        kind = token.kind
        while True:
            action = actions[states[-1]].get(kind)
            if action is None and kind == "$END" and states[-1] == grammar.end:
                break
            if action is None:
                raise explain(source, tokens, n, states, grammar)
            if action >= 0:
                break
            rule = rules[~action]
            size = len(rule.keep)
            # Most reductions climb the ladder of precedences with one value, which stays as it is.
            if size != 1 or not rule.only_child:
                pieces = values[len(values) - size :]
                del values[len(values) - size :]
                values.append(builder.reduce(rule, pieces))
            del states[len(states) - size :]
            states.append(actions[states[-1]][rule.origin])
        if action is None:
            break
        layout = kind in LAYOUT
        values.append(Piece(token, None if layout else token, None if layout else token, 0))
        states.append(action)
    if builder.faults:
        raise NsaError(*builder.faults)
    items: tuple[Any, ...] = values[0].value
    return items


_SPLIT = re.compile(
    r"""[rR]?(?:\"\"\"(?:[^\\]|\\[\s\S])*?(?:\"\"\"|\Z)|'''(?:[^\\]|\\[\s\S])*?(?:'''|\Z))"""
    r"""|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|\#[^\n]*"""
    r"""|^(?P<start>(?:async[ ]+)?def\b|@|(?:class|import|from)\b|[A-Za-z_]\w*[ ]*=[^=])""",
    re.MULTILINE,
)


def _chunks(text: str) -> list[tuple[int, int]]:
    """Where the top-level items of a text begin and end: split where a line begins with what can begin one, outside of strings."""
    starts, decorated = [0], False
    for found in _SPLIT.finditer(text):
        start = found.group("start")
        if start is None:
            continue
        if not decorated:
            starts.append(found.start())
        decorated = start == "@"
    ends = [*starts[1:], len(text)]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if text[a:b].strip()]
