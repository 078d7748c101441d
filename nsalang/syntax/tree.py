"""What each rule of the grammar makes: productions -> nodes of nsalang.syntax, and the faults that only a whole construct shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from nsalang import syntax as s
from nsalang.base.source import Diagnostic, Source, Span
from nsalang.syntax.grammar import Rule
from nsalang.syntax.lexer import Token

# Passes recurse over the tree; this is far beyond what a person writes and well within Python's stack.
MAX_DEPTH = 100


@dataclass(slots=True)
class Piece:
    """A value on the parser's stack: a token, a node, or what an inline or list rule makes. ``depth`` counts nodes above leaves."""

    value: Any
    first: Token | None
    last: Token | None
    depth: int


@dataclass(slots=True)
class Builder:
    """Makes nodes with spans in ``source``, and collects in ``faults`` what the grammar takes and the language does not."""

    source: Source
    faults: list[Diagnostic] = field(default_factory=list)

    def reduce(self, rule: Rule, pieces: list[Piece]) -> Piece:
        """The value of one production."""
        firsts = [p.first for p in pieces if p.first is not None]
        lasts = [p.last for p in pieces if p.last is not None]
        first, last = (firsts[0], lasts[-1]) if firsts else (None, None)
        depth = max((p.depth for p in pieces), default=0)
        children: list[Any] = []
        for (
            piece,
            keep,
        ) in zip(pieces, rule.keep, strict=True):
            if keep:
                if isinstance(piece.value, _Inline):
                    children += piece.value.items
                else:
                    children.append(piece.value)
        if rule.inline:
            return Piece(_Inline(children), first, last, depth)
        if rule.only_child and len(children) == 1:
            return Piece(children[0], first, last, depth)
        assert first is not None or rule.kind == "file", rule.kind
        place = (
            Span(self.source, 1, 1, 1, 1)
            if first is None or last is None
            else Span(self.source, first.line, first.column, last.end_line, last.end_column)
        )
        value = _MAKE[rule.kind](self, children, place)
        if isinstance(value, s.Node):
            depth += max(1, len(children) // 2) if rule.kind in _CHAINS else 1
            if depth > MAX_DEPTH:
                if not any(f.code == "NSA0120" for f in self.faults):
                    self.fault("NSA0120", f"this is nested more than {MAX_DEPTH} levels deep", place)
                depth = 0
        return Piece(value, first, last, depth)

    def fault(self, code: str, sentence: str, span: Span, help: str | None = None) -> None:
        self.faults.append(Diagnostic(code, sentence, span, helps=(help,) if help else ()))

    def at(self, token: Token) -> Span:
        return token.span(self.source)


@dataclass(slots=True)
class _Inline:
    items: list[Any]


_CHAINS = frozenset({"or", "and", "bit_or", "bit_xor", "bit_and", "shift", "sum", "term", "compare", "if"})


def _exprs(b: Builder, children: list[Any], span: Span) -> tuple[Any, ...]:
    """A list of expressions; a trailing comma stays in it as ``None``, for it makes a tuple of one."""
    return tuple(None if isinstance(c, Token) else c for c in children)


def _values(items: tuple[Any, ...]) -> tuple[s.Expr, ...]:
    return items[:-1] if items[-1] is None else items


def _one(items: tuple[Any, ...]) -> s.Expr:
    """An expression list as one expression: a Tuple where it holds a comma."""
    if len(items) == 1:
        only: s.Expr = items[0]
        return only
    values = _values(items)
    return s.Tuple(values, span=values[0].span.to(values[-1].span))


def _binary(b: Builder, children: list[Any], span: Span) -> s.Expr:
    left: s.Expr = children[0]
    for op, right in zip(children[1::2], children[2::2], strict=True):
        left = s.Binary(op.text, left, right, op_span=b.at(op), span=left.span.to(right.span))
    return left


def _unary(b: Builder, children: list[Any], span: Span) -> s.Expr:
    return s.Unary(children[0].text, children[1], span=span)


def _compare(b: Builder, children: list[Any], span: Span) -> s.Expr:
    operands = children[::2]
    bits = [o for o in operands if isinstance(o, s.Binary) and o.op in ("&", "|", "^")]
    if bits:
        b.fault(
            "NSA0112",
            f"`{bits[0].op}` binds tighter than the comparison beside it, so this needs parentheses",
            bits[0].op_span,
            _parenthesised(b, span, operands),
        )
    return s.Compare(operands[0], tuple(children[1::2]), tuple(operands[1:]), span=span)


def _parenthesised(b: Builder, span: Span, operands: list[s.Expr]) -> str | None:
    """Both readings of ``a < t & t < b``, as a help."""
    if span.line != span.end_line:
        return None
    line = b.source.line(span.line)
    cuts: list[Span] = []
    plain: list[tuple[Span, bool]] = []
    for operand in operands:
        bits: list[s.Expr] = []
        while isinstance(operand, s.Binary) and operand.op in ("&", "|", "^"):
            bits.append(operand)
            cuts.append(operand.op_span)
            operand = operand.left
        plain.append(((bits[0] if bits else operand).span, bool(bits)))
    cuts.sort(key=lambda c: c.column)
    parts, at = [], span.column
    for cut in cuts:
        parts += [line[at - 1 : cut.column - 1].strip(), line[cut.column - 1 : cut.end_column - 1]]
        at = cut.end_column
    parts.append(line[at - 1 : span.end_column - 1].strip())
    compared = [i for i in range(0, len(parts), 2) if _COMPARISON.search(_outside_brackets(parts[i]))]
    first = " ".join(f"({p})" if i in compared else p for i, p in enumerate(parts))
    second, at = "", span.column
    for place, has in plain:
        text = line[place.column - 1 : place.end_column - 1]
        second += line[at - 1 : place.column - 1] + (f"({text})" if has else text)
        at = place.end_column
    if len(compared) * 2 == len(parts) + 1:
        return f"write `{first}`"
    if any(not re.search(r"[A-Za-z_]", re.sub(r"0[xXbBoO]\w+|\bis\b", "", parts[i])) for i in compared):
        return f"write `{second}`"  # numbers alone are compared: nobody means that
    return f"write `{second}`, or `{first}`"


_COMPARISON = re.compile(r"(?<![<>])(?:[<>]=?|==|!=)(?![<>])|\bis\b")


def _outside_brackets(text: str) -> str:
    """A text without what stands in brackets."""
    while (less := re.sub(r"[(\[][^()\[\]]*[)\]]", "", text)) != text:
        text = less
    return text


def _compare_op(b: Builder, children: list[Any], span: Span) -> str:
    return " ".join(t.text for t in children)


def _conditional(b: Builder, children: list[Any], span: Span) -> s.Expr:
    return s.Conditional(children[0], children[1], children[2], span=span)


def _call(b: Builder, children: list[Any], span: Span) -> s.Expr:
    arguments: list[s.Expr] = []
    keywords: dict[str, s.Keyword] = {}
    for argument in children[1] if len(children) > 1 else ():
        if not isinstance(argument, s.Keyword):
            if keywords:
                b.fault("NSA0117", "a positional argument stands after a keyword argument", argument.span)
            arguments.append(argument)
        elif argument.name in keywords:
            b.fault("NSA0118", f"the argument `{argument.name}` is given twice", argument.name_span)
        else:
            keywords[argument.name] = argument
    return s.Call(children[0], tuple(arguments), tuple(keywords.values()), span=span)


def _slice(b: Builder, children: list[Any], span: Span) -> s.Slice:
    parts: list[s.Expr | None] = [None, None, None]
    at = 0
    for child in children:
        if isinstance(child, Token):
            at += 1
        else:
            parts[at] = child
    return s.Slice(parts[0], parts[1], parts[2], span=span)


def _number(b: Builder, children: list[Any], span: Span) -> s.Number:
    text = children[0].text
    digits = text.replace("_", "").lower()
    if digits[:2] in ("0x", "0b", "0o"):
        return s.Number(Fraction(int(digits, 0)), False, text, span=span)
    mantissa, _, exponent = digits.partition("e")
    if len(digits) > 1000 or len(exponent.lstrip("+-")) > 4:
        b.fault("NSA0115", "this number is too long or too large", span)
        return s.Number(Fraction(0), False, text, span=span)
    is_float = "." in digits or "e" in digits
    return s.Number(
        Fraction((mantissa.removesuffix(".") if mantissa != "." else "0") + ("e" + exponent if exponent else "")), is_float, text, span=span
    )


_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"', "\n": ""}


def _string(b: Builder, children: list[Any], span: Span) -> s.String:
    text = children[0].text
    raw = text[0] in "rR"
    body = text[1:] if raw else text
    body = body[3:-3] if body[:3] in ('"""', "'''") else body[1:-1]
    if raw or "\\" not in body:
        return s.String(body, text, span=span)
    out, at = [], 0
    while at < len(body):
        known = body[at] == "\\" and body[at + 1] in _ESCAPES
        out.append(_ESCAPES[body[at + 1]] if known else body[at])
        at += 2 if known else 1
    return s.String("".join(out), text, span=span)


def _parameter(b: Builder, children: list[Any], span: Span) -> s.Parameter:
    annotation: s.Expr | None = None
    default: s.Expr | None = None
    for mark, value in zip(children[1::2], children[2::2], strict=True):
        if mark.text == ":":
            annotation = value
        else:
            default = value
    optional = isinstance(annotation, s.Binary) and annotation.op == "|" and isinstance(annotation.right, s.NoneLiteral)
    if optional:
        assert isinstance(annotation, s.Binary)
        annotation = annotation.left
    return s.Parameter(children[0].text, annotation, optional, default, name_span=b.at(children[0]), span=span)


def _function(b: Builder, children: list[Any], span: Span) -> s.Function:
    decorators = tuple(c.value for c in children if isinstance(c, _Decorator))
    rest = [c for c in children if not isinstance(c, _Decorator)]
    keyword, name, before_colon, body = rest[0], rest[1], rest[-3], rest[-1]
    parameters: tuple[s.Parameter, ...] = next((c for c in rest[2:-1] if isinstance(c, tuple)), ())
    seen: set[str] = set()
    for parameter in parameters:
        if parameter.name in seen:
            b.fault("NSA0118", f"the parameter `{parameter.name}` is given twice", parameter.name_span)
        seen.add(parameter.name)
    docstring: str | None = None
    if isinstance(body[0], s.ExprStatement) and isinstance(body[0].value, s.String):
        docstring, body = body[0].value.value, body[1:]
    header = b.at(keyword).to(b.at(before_colon) if isinstance(before_colon, Token) else before_colon.span)
    return s.Function(name.text, parameters, body, docstring, decorators, name_span=b.at(name), span=header)


@dataclass(slots=True)
class _Decorator:
    value: s.Expr


def _assign(b: Builder, children: list[Any], span: Span) -> s.Assign:
    targets = tuple(_ungrouped(_values(c), alone=True) for c in children[:-1])
    for target in (t for group in targets for t in group):
        _assignable(b, target)
    values = _values(children[-1])
    return s.Assign(targets, _ungrouped(values) if len(targets[0]) > 1 else values, span=span)


def _ungrouped(values: tuple[s.Expr, ...], *, alone: bool = False) -> tuple[s.Expr, ...]:
    """``(a, b)`` as ``a, b``: parentheses around a list say nothing. ``alone``: nor do those around one name."""
    if len(values) != 1 or not isinstance(values[0], s.Paren):
        return values
    inner = values[0].value
    if isinstance(inner, s.Tuple):
        return inner.items
    return _ungrouped((inner,), alone=alone) if alone or isinstance(inner, s.Paren) else values


def _augmented(b: Builder, children: list[Any], span: Span) -> s.Augmented:
    _assignable(b, children[0])
    return s.Augmented(children[0], children[1].text[:-1], children[2], span=span)


def _assignable(b: Builder, target: s.Expr) -> None:
    if isinstance(target, (s.Name, s.Subscript)):
        return
    if isinstance(target, s.Paren):
        b.fault("NSA0116", "the names that are assigned stand without parentheses", target.span)
    elif isinstance(target, (s.Bool, s.NoneLiteral)):
        b.fault("NSA0114", f"`{target.span.text}` is a keyword and cannot be assigned", target.span)
    else:
        what = {s.Call: "a call", s.Number: "a number", s.String: "a string", s.Attribute: "an attribute"}.get(
            type(target), "an expression"
        )
        b.fault("NSA0116", f"{what} cannot be assigned: the left side is a name or an element `y[…]`", target.span)


def _if(b: Builder, children: list[Any], span: Span) -> s.If:
    """Children: keyword, condition, colon, suite, … with `else`, colon, suite last where it is there."""
    orelse: tuple[s.Statement, ...] = ()
    rest = children
    if isinstance(rest[-3], Token) and rest[-3].text == "else":
        orelse, rest = rest[-1], rest[:-3]
    for at in range(len(rest) - 4, -1, -4):
        keyword, condition, _, suite = rest[at : at + 4]
        orelse = (s.If(condition, suite, orelse, span=b.at(keyword).to(condition.span)),)
    made = orelse[0]
    assert isinstance(made, s.If)
    return made


def _for(b: Builder, children: list[Any], span: Span) -> s.For:
    keyword, targets, _, iterable, _, suite = children
    value = _one(iterable)
    return s.For(tuple(s.Name(t.text, span=b.at(t)) for t in targets), value, suite, span=b.at(keyword).to(value.span))


def _suite(b: Builder, children: list[Any], span: Span) -> tuple[s.Statement, ...]:
    return tuple(_flat(children))


def _flat(children: Iterable[Any]) -> list[s.Statement]:
    out: list[s.Statement] = []
    for child in children:
        if isinstance(child, tuple):
            out += child
        else:
            out.append(child)
    return out


def _expression(b: Builder, children: list[Any], span: Span) -> s.ExprStatement:
    return s.ExprStatement(_one(children[0]), span=span)


def _tuple(b: Builder, children: list[Any], span: Span) -> tuple[Any, ...]:
    return tuple(children)


_MAKE: dict[str, Callable[[Builder, list[Any], Span], Any]] = {
    "file": _tuple,
    "constant": lambda b, c, span: s.Constant(c[0].text, c[1], span=span),
    "function": _function,
    "decorator": lambda b, c, span: _Decorator(c[0]),
    "returns": lambda b, c, span: s.Paren(c[0], span=span),
    "parameters": _tuple,
    "parameter": _parameter,
    "suite": _suite,
    "simple_line": _tuple,
    "if": _if,
    "for": _for,
    "for_targets": _tuple,
    "assign": _assign,
    "augmented": _augmented,
    "return": lambda b, c, span: s.Return(_ungrouped(_values(c[0])) if c else (), span=span),
    "pass": lambda b, c, span: s.Pass(span=span),
    "expression": _expression,
    "exprs": _exprs,
    "conditional": _conditional,
    **dict.fromkeys(("or", "and", "bit_or", "bit_xor", "bit_and", "shift", "sum", "term", "power"), _binary),
    "not": _unary,
    "unary": _unary,
    "compare": _compare,
    "compare_op": _compare_op,
    "call": _call,
    "arguments": _tuple,
    "keyword": lambda b, c, span: s.Keyword(c[0].text, c[1], name_span=b.at(c[0]), span=span),
    "subscript": lambda b, c, span: s.Subscript(c[0], c[1], span=span),
    "indices": _tuple,
    "slice": _slice,
    "attribute": lambda b, c, span: s.Attribute(c[0], c[1].text, span=span),
    "name": lambda b, c, span: s.Name(c[0].text, span=span),
    "number": _number,
    "string": _string,
    "true": lambda b, c, span: s.Bool(True, span=span),
    "false": lambda b, c, span: s.Bool(False, span=span),
    "none": lambda b, c, span: s.NoneLiteral(span=span),
    "paren": lambda b, c, span: s.Paren(_one(c[0]), span=span),
}
