"""The first half of the formatter: a text's statements and comments as lines of canonical indentation, with blank lines between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nsalang.syntax.lexer import CLOSERS, OPENERS, Token

_HEADERS = frozenset({"DEF", "FOR", "IF", "ELIF", "ELSE"})


@dataclass(frozen=True, slots=True)
class Line:
    """One statement or header, with the comments inside its brackets, or a comment alone.

    ``comment`` ends the line; ``blank`` lines stand before it.
    """

    level: int
    tokens: list[Token]
    comment: str
    blank: int


@dataclass(frozen=True, slots=True)
class _Raw:
    """A line as it stands: its column, its tokens, the comment at its end, the blank lines before it."""

    column: int
    tokens: list[Token]
    comment: str
    blank: int


def logical_lines(tokens: list[Token]) -> list[Line]:
    """The lines of a text that parses: one statement each, indented by levels, at most one blank line in a def and two around it."""
    raw = _raw_lines(tokens)
    lines: list[Line] = []
    stack = [0]
    for n, line in enumerate(raw):
        following = next((r for r in raw[n:] if r.tokens), None)
        column = following.column if following is not None else 0
        if column > stack[-1]:
            stack.append(column)
        if not line.tokens:
            level = len([c for c in stack if c <= max(line.column, column)]) - 1
            lines.append(Line(level, [], line.comment, line.blank))
            continue
        while stack[-1] > line.column:
            stack.pop()
        lines += _statements(line, len(stack) - 1)
    return _blanks(lines)


def _raw_lines(tokens: list[Token]) -> list[_Raw]:
    out: list[_Raw] = []
    current: list[Token] = []
    start = 0
    depth = newlines = 0
    blank = 0
    for token in [*tokens, Token("_NEWLINE", "\n", 0, 0, 0, 0, 0)]:
        kind = token.kind
        if kind in ("BLANK", "JOIN"):
            continue
        if kind == "_NEWLINE":
            if depth:
                continue
            newlines += 1
            if current:
                comment = current.pop().text.rstrip() if current[-1].kind == "COMMENT" else ""
                out.append(_Raw(start, current, comment, blank))
                current, newlines = [], 1
            continue
        if not current:
            start = token.column - 1
            blank = max(newlines - 1, 0) if out else 0
        depth += (kind in OPENERS) - (kind in CLOSERS)
        current.append(token)
    return out


def _statements(line: _Raw, level: int) -> list[Line]:
    """The statements of a line: a header, then what follows its colon one level deeper; what `;` separates."""
    groups: list[tuple[int, list[Token]]] = [(level, [])]
    header = line.tokens[0].kind in _HEADERS
    depth = 0
    for token in line.tokens:
        depth += (token.kind in OPENERS) - (token.kind in CLOSERS)
        if depth == 0 and token.kind == "SEMICOLON":
            groups.append((groups[-1][0], []))
            continue
        groups[-1][1].append(token)
        if depth == 0 and header and token.kind == "COLON":
            groups.append((level + 1, []))
            header = False
    groups = [g for g in groups if g[1]]
    return [
        Line(deep, tokens, line.comment if n == len(groups) - 1 else "", line.blank if n == 0 else 0)
        for n, (deep, tokens) in enumerate(groups)
    ]


def _blanks(lines: list[Line]) -> list[Line]:
    """Two blank lines around a def at the top level (its comment and decorators belong to it), else at most one, none below a header."""
    out: list[Line] = []
    after_def = False
    for n, line in enumerate(lines):
        before = lines[n - 1] if n else None
        blank = min(line.blank, 1)
        if before is None:
            blank = 0
        elif line.level == 0:
            if after_def or (_begins_def(lines, n) and not (_leads(before) and line.blank == 0)):
                blank = 2
            if before.tokens and before.tokens[0].kind == "AT":
                blank = 0
        elif before.tokens and before.tokens[0].kind in _HEADERS and before.tokens[-1].kind == "COLON":
            blank = 0
        after_def = line.level > 0
        out.append(replace(line, blank=blank))
    return out


def _leads(line: Line) -> bool:
    """A comment at the top level: what stands directly below it belongs to it."""
    return line.level == 0 and not line.tokens


def _begins_def(lines: list[Line], n: int) -> bool:
    """Whether a def begins here: with its own line, a decorator, or the comment directly above it."""
    while n < len(lines) and _leads(lines[n]):
        n += 1
        if n == len(lines) or lines[n].blank:
            return False
    return n < len(lines) and lines[n].level == 0 and bool(lines[n].tokens) and lines[n].tokens[0].kind in ("DEF", "AT")
