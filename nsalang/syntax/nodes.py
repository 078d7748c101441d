"""The abstract syntax: what the parser makes of a text, one frozen dataclass a construct, and nothing decided yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

from nsalang.base.source import Source, Span


@dataclass(frozen=True, slots=True)
class Node:
    """Every node knows where it stands; positions are not compared, so that two texts with one meaning are equal."""

    span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Name(Node):
    id: str


@dataclass(frozen=True, slots=True)
class Number(Node):
    """``value`` is exact: ``1e-4`` is 1/10000. ``is_float`` tells ``1.0`` from ``1``. ``text`` is as written."""

    value: Fraction
    is_float: bool
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Bool(Node):
    value: bool


@dataclass(frozen=True, slots=True)
class NoneLiteral(Node):
    pass


@dataclass(frozen=True, slots=True)
class String(Node):
    value: str
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Tuple(Node):
    """``a, b`` without parentheses of its own (a target list, a return list, an axis list inside ``Paren``)."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Paren(Node):
    """``( … )``: kept, because ``a <= t & t < b`` and ``(a <= t) & (t < b)`` must be told apart, and for fmt."""

    value: Expr


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """``op`` is one of ``- + ~ not``."""

    op: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """``op`` is one of ``+ - * / // % ** & | ^ << >> and or``; left associative but ``**``."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """A chain ``first ops[0] rest[0] ops[1] rest[1] …``; an op is one of ``< <= > >= == != is "is not"``."""

    first: Expr
    ops: tuple[str, ...]
    rest: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Conditional(Node):
    """``value if condition else other``."""

    value: Expr
    condition: Expr
    other: Expr


@dataclass(frozen=True, slots=True)
class Keyword(Node):
    """``name=value`` in a call. ``name_span`` is the name's own place."""

    name: str
    value: Expr
    name_span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Call(Node):
    function: Expr
    arguments: tuple[Expr, ...]
    keywords: tuple[Keyword, ...]


@dataclass(frozen=True, slots=True)
class Subscript(Node):
    value: Expr
    indices: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """Parsed only to be refused with a good message: nsalang indexes with axes."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True, slots=True)
class Attribute(Node):
    """``value.name``, e.g. ``f32.min``."""

    value: Expr
    name: str


Expr: TypeAlias = (
    Name
    | Number
    | Bool
    | NoneLiteral
    | String
    | Tuple
    | Paren
    | Unary
    | Binary
    | Compare
    | Conditional
    | Call
    | Subscript
    | Slice
    | Attribute
)


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """``a, b = x, y``: ``targets`` are names or subscripts. Chained ``a = b = e`` is parsed as Assign with two target lists."""

    targets: tuple[tuple[Expr, ...], ...]
    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Augmented(Node):
    """``target op= value``, ``op`` without the ``=``."""

    target: Expr
    op: str
    value: Expr


@dataclass(frozen=True, slots=True)
class ExprStatement(Node):
    """``require(…)``, ``partial(out)``, a docstring, …"""

    value: Expr


@dataclass(frozen=True, slots=True)
class Return(Node):
    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Pass(Node):
    pass


@dataclass(frozen=True, slots=True)
class If(Node):
    """``elif`` is an If alone in ``orelse``. ``span`` is the line of the condition, not the block."""

    condition: Expr
    body: tuple[Statement, ...]
    orelse: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class For(Node):
    """``for targets in iterable``. ``span`` is the header, not the block."""

    targets: tuple[Name, ...]
    iterable: Expr
    body: tuple[Statement, ...]


Statement: TypeAlias = Assign | Augmented | ExprStatement | Return | Pass | If | For


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """``name: annotation = default``; ``optional`` where the annotation ends in ``| None``. ``name_span``: the name alone."""

    name: str
    annotation: Expr | None
    optional: bool
    default: Expr | None
    name_span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Function(Node):
    """A ``def`` at top level: a kernel (it has a ``grid``), a helper, or a program. ``span`` is the header line. The docstring is not in ``body``."""

    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    docstring: str | None
    decorators: tuple[Expr, ...]
    name_span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """``NAME = expression`` at top level."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class File(Node):
    """``nsalang.syntax.parser.parse`` makes this. ``source`` is the whole text."""

    source: Source = field(compare=False, repr=False)
    items: tuple[Function | Constant, ...]
