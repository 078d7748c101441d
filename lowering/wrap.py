"""Statements of generated code that are longer than a line, broken where a formatter would break them."""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 140
_LOGIC = ((" or ",), (" and ",))
_OPERATORS = ((" | ",), (" ^ ",), (" & ",), (" << ", " >> "), (" + ", " - "), (" * ", " / ", " // ", " % "))
_COMPARISONS = (" < ", " <= ", " > ", " >= ", " == ", " != ")


def wrapped(indent: str, text: str) -> list[str]:
    """The lines of one statement (or the head of a block), each at most WIDTH long where that is possible."""
    if len(indent) + len(text) <= WIDTH:
        return [indent + text]
    tail = ":" if text.endswith(":") else ""
    body = text.removesuffix(":") if tail else text
    target, equals, value = _assignment(body)
    head = target + equals
    if tail:
        keyword, _, value = body.partition(" ")
        head = f"{keyword} "
        if keyword == "for":
            variables, _, value = value.partition(" in ")
            head = f"for {variables} in "
    opened = _last_group(value)
    if opened is not None and (
        not _top_operators(value) or (_top_operators(value) == 1 and len(indent) + len(head) + opened < WIDTH and target)
    ):
        return _broken_group(indent, head + value[: opened + 1], value[opened + 1 : -1], value[-1] + tail)
    inner = indent + "    "
    return [f"{indent}{head}(", *_broken(inner, "", value), f"{indent}){tail}"]


def _broken_group(indent: str, head: str, inside: str, end: str) -> list[str]:
    """A bracket that ends its text, its content on lines of its own: an argument a line where one line is not enough."""
    inner = indent + "    "
    if len(inner) + len(inside) <= WIDTH:
        return [indent + head, inner + inside, indent + end]
    is_call = head.endswith("(") and head[-2:-1].isidentifier()
    if not is_call and not (head.endswith("[") and len(list(_split(inside, (", ",)))) > 1):
        return [indent + head, *_broken(inner, "", inside), indent + end]
    out = [indent + head]
    for part in _split(inside, (", ",)):
        lines = _broken(inner, "", part) if len(inner) + len(part) + 1 > WIDTH else [inner + part]
        out += [*lines[:-1], lines[-1] + ","]
    return [*out, indent + end]


def _broken(indent: str, lead: str, text: str) -> list[str]:
    """An expression after ``lead``, at its loosest operators: one operand a line, the operator in front."""
    if len(indent) + len(lead) + len(text) <= WIDTH:
        return [indent + lead + text]
    for operators in (*_LOGIC, _COMPARISONS, *_OPERATORS):
        first, *others = _split(text, operators, keep=True)
        if others:
            out = _broken(indent, lead, first)
            for part in others:
                operator, operand = part.split(" ", 1)
                out += _broken(indent, f"{operator} ", operand)
            return out
    opened = _last_group(text)
    return [indent + lead + text] if opened is None else _broken_group(indent, lead + text[: opened + 1], text[opened + 1 : -1], text[-1])


def _scan(text: str) -> Iterator[tuple[int, int]]:
    """(position, how many brackets are open before it), strings skipped."""
    depth, quoted = 0, False
    for i, c in enumerate(text):
        if c == '"':
            quoted = not quoted
        elif not quoted:
            if c in ")]}":
                depth -= 1
            yield i, depth
            if c in "([{":
                depth += 1


def _assignment(text: str) -> tuple[str, str, str]:
    at = next((i for i, depth in _scan(text) if not depth and text.startswith(" = ", i)), None)
    return (text[:at], " = ", text[at + 3 :]) if at is not None else ("", "", text)


def _split(text: str, separators: tuple[str, ...], keep: bool = False) -> Iterator[str]:
    """The parts between separators outside brackets; with ``keep`` each part but the first begins with its operator."""
    start = 0
    for i, depth in _scan(text):
        found = next((s for s in separators if not depth and i >= start and text.startswith(s, i)), None)
        if found is not None and i > start:
            yield text[start:i]
            start = i + (1 if keep else len(found))
    yield text[start:]


def _top_operators(text: str) -> int:
    """How many operators a text has that bind least of all outside brackets."""
    counts = (len(list(_split(text, operators))) - 1 for operators in (*_LOGIC, _COMPARISONS, *_OPERATORS))
    return next((n for n in counts if n), 0)


def _last_group(text: str) -> int | None:
    """Where the bracket opens that closes at the end of the text."""
    if not text or text[-1] not in ")]":
        return None
    return max((i for i, depth in _scan(text) if not depth and text[i] in "(["), default=None)
