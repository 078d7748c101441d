"""Source text, positions in it, and the one error type that users see.

Everything that a user can cause ends in an :class:`NsaError` with one or more :class:`Diagnostic`; a fault of the compiler is an assertion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Source:
    """A text with a name. ``first_line`` is the line of the file at which the text begins (decorated functions), ``indent`` what was dedented."""

    text: str
    name: str = "<string>"
    first_line: int = 1
    indent: int = 0

    def line(self, number: int) -> str:
        """The text of a line (1 is the first of ``text``), without its newline."""
        lines = self.text.split("\n")
        return lines[number - 1] if 0 < number <= len(lines) else ""


@dataclass(frozen=True, slots=True)
class Span:
    """Where something stands: 1-based lines and columns within ``source.text``; the end column is exclusive."""

    source: Source = field(repr=False, compare=False)
    line: int
    column: int
    end_line: int
    end_column: int

    def to(self, other: Span) -> Span:
        """From the start of this span to the end of ``other``."""
        return Span(self.source, self.line, self.column, other.end_line, other.end_column)

    @property
    def text(self) -> str:
        """What stands there, up to the end of the first line."""
        line = self.source.line(self.line)
        return line[self.column - 1 : self.end_column - 1 if self.end_line == self.line else None]

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line + self.source.first_line - 1}:{self.column + self.source.indent}"


_DEF = re.compile(r"def[ \t]+(\w+)")


def function_at(span: Span) -> tuple[str, int] | None:
    """The ``def`` in whose text a span lies, and the line of it, from 1."""
    lines = span.source.text.split("\n")
    for number in range(min(span.line, len(lines)), 0, -1):
        if (found := _DEF.match(lines[number - 1])) is not None:
            return found[1], span.line - number + 1
    return None


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error: a stable code, one sentence, where, and what helps."""

    code: str
    sentence: str
    span: Span | None = None
    notes: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()

    def render(self) -> str:
        """The message as rustc would print it, without colours."""
        out = [f"error[{self.code}]: {self.sentence}"]
        if self.span is not None:
            span = self.span
            number = str(span.line + span.source.first_line - 1)
            pad = " " * len(number)
            text = span.source.line(span.line)
            end = span.end_column if span.end_line == span.line else len(text) + 1
            out += [f"{pad}--> {span}", f"{pad} |", f"{number} | {' ' * span.source.indent}{text}"]
            out += [f"{pad} | {' ' * (span.source.indent + span.column - 1)}{'^' * max(1, end - span.column)}"]
        else:
            pad = ""
        out += [f"{pad} = note: {note}" for note in self.notes] + [f"{pad} = help: {text}" for text in self.helps]
        return "\n".join(out)

    def as_json(self) -> dict[str, object]:
        """The message as a JSON object: code, sentence, file, lines, columns, notes, helps."""
        where: dict[str, object] = {}
        if self.span is not None:
            span, shift, indent = self.span, self.span.source.first_line - 1, self.span.source.indent
            where = {"file": span.source.name, "line": span.line + shift, "column": span.column + indent,
                     "end_line": span.end_line + shift, "end_column": span.end_column + indent}  # fmt: skip
        return {"code": self.code, "sentence": self.sentence, **where, "notes": list(self.notes), "helps": list(self.helps)}


class NsaError(Exception):
    """What a user did wrong: one or more diagnostics, sorted by position."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        self.diagnostics = tuple(
            sorted(diagnostics, key=lambda d: (d.span.source.name, d.span.line, d.span.column) if d.span else ("", 0, 0))
        )
        super().__init__("\n\n".join(d.render() for d in self.diagnostics))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.diagnostics, {n: v for n, v in self.__dict__.items() if n != "diagnostics"}

    @classmethod
    def at(cls, code: str, sentence: str, span: Span | None = None, *, note: str | None = None, help: str | None = None) -> NsaError:
        """The usual case: one diagnostic."""
        return cls(Diagnostic(code, sentence, span, (note,) if note else (), (help,) if help else ()))
