"""What both lowerings print with: expressions with precedence, names, lines with indentation and the source lines that they come from."""

from __future__ import annotations

import builtins
import keyword
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nsalang import ir
from nsalang.base.source import Span, function_at
from nsalang.lowering.wrap import WIDTH, wrapped

# Python's precedence, loosest first.
TERNARY, OR, AND, NOT, COMPARE, BITOR, BITXOR, BITAND, SHIFT, SUM, PRODUCT, SIGN, ATOM = range(13)
LEVELS = {
    "<": COMPARE, "<=": COMPARE, ">": COMPARE, ">=": COMPARE, "==": COMPARE, "!=": COMPARE, "|": BITOR, "^": BITXOR, "&": BITAND,
    "<<": SHIFT, ">>": SHIFT, "+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "%": PRODUCT,
}  # fmt: skip


INFIX: dict[ir.BinaryOp, str] = {
    "add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
"""The operators that both languages have, with the same meaning."""


@dataclass(frozen=True, slots=True)
class Text:
    """Python text of an expression, and how tightly its outermost operator binds."""

    text: str
    level: int = ATOM

    def __str__(self) -> str:
        return self.text

    def within(self, level: int) -> str:
        """The text where an operand of ``level`` or tighter is needed."""
        return self.text if self.level >= level else f"({self.text})"


def infix(op: str, a: Text, b: Text) -> Text:
    """``a op b``. All operators group to the left; comparisons do not chain."""
    level = LEVELS[op]
    return Text(f"{a.within(level + (level == COMPARE))} {op} {b.within(level + 1)}", level)


def prefix(op: str, x: Text) -> Text:
    return Text(f"{op}{x.within(SIGN)}", SIGN)


def call(function: str, *arguments: Text | str, **named: Text | str) -> Text:
    parts = [str(a) for a in arguments] + [f"{name}={value}" for name, value in named.items()]
    return Text(f"{function}({', '.join(parts)})")


def method(x: Text, name: str, *arguments: Text | str, **named: Text | str) -> Text:
    return call(f"{x.within(ATOM)}.{name}", *arguments, **named)


def subscript(x: Text, inside: str) -> Text:
    return Text(f"{x.within(ATOM)}[{inside}]")


def number(value: float | bool) -> Text:
    """A literal of exactly this value."""
    if isinstance(value, bool | int):
        return Text(repr(value), SIGN if value < 0 else ATOM)
    if not math.isfinite(value):
        return Text(f'float("{value}")')
    return Text(repr(value).replace("e+", "e"), SIGN if math.copysign(1.0, value) < 0 else ATOM)


@dataclass(slots=True)
class Names:
    """Identifiers of one module: the source's where they are free, else with a number behind."""

    taken: set[str]

    @staticmethod
    def avoiding(*others: str) -> Names:
        """No name that Python, its builtins or ``others`` have."""
        return Names({*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *others})

    def pick(self, wanted: str) -> str:
        """A free name like ``wanted``, which is taken from now on."""
        name, number = wanted, 2
        while name in self.taken:
            name, number = f"{wanted}_{number}" if wanted[-1].isdigit() else f"{wanted}{number}", number + 1
        self.taken.add(name)
        return name


@dataclass(slots=True)
class Emitter:
    """Lines of a module, each with the span that it was made from. Notes ``# kernel:line`` where another line of the source begins."""

    kernel: ir.Kernel
    out: list[str] = field(default_factory=list)
    spans: list[tuple[int, Span]] = field(default_factory=list)
    depth: int = 0
    noted: tuple[str, int] = ("", 0)

    def line(self, text: str = "", span: Span | None = None) -> None:
        """One statement, broken where it is too long."""
        indent = " " * (4 * self.depth)
        note = self._note(span)
        first = len(self.out) + 1
        lines = wrapped(indent, text) if text else [""]
        if note and len(lines[-1]) + 2 + len(note) <= WIDTH:
            lines[-1] += f"  {note}"
        elif note:
            lines.insert(0, indent + note)
        self.out += lines
        if span is not None:
            self.spans += [(number, span) for number in range(first, len(self.out) + 1)]

    def _note(self, span: Span | None) -> str:
        if span is None or self.kernel.span is None:
            return ""
        # A helper's lines are counted from its own def.
        place = function_at(span) or (self.kernel.name, span.line - self.kernel.span.line + 1)
        if place == self.noted:
            return ""
        self.noted = place
        return f"# {place[0]}:{place[1]}"

    @contextmanager
    def block(self, head: str, span: Span | None = None) -> Iterator[None]:
        """``head`` and its indented body, which must not be empty."""
        self.line(head, span)
        self.depth += 1
        before = len(self.out)
        yield
        if len(self.out) == before:
            self.line("pass")
        self.depth -= 1

    def source(self) -> str:
        return "\n".join(self.out) + "\n"


def arms(s: ir.If, text: Callable[[ir.Expr], Text]) -> Iterator[tuple[str, Span | None, tuple[ir.Stmt, ...]]]:
    """The parts of a branch in order: the head of each, where it comes from, and its body. An ``if`` that stands alone in an ``else`` is an
    ``elif``."""
    word = "if"
    while True:
        yield f"{word} {text(s.cond)}:", s.span, s.body
        match s.orelse:
            case ():
                return
            case (ir.If() as other,):
                s, word = other, "elif"
            case _:
                yield "else:", None, s.orelse
                return
