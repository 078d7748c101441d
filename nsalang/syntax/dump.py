"""The syntax tree as text: one node a line, indented by depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from nsalang import syntax


def dump(node: syntax.Node) -> str:
    """A tree as text, the same for every text that means the same: without positions. Ends in a newline."""
    return "\n".join(_lines("", node, 0)) + "\n"


def _lines(label: str, value: object, depth: int) -> Iterator[str]:
    head = f"{'  ' * depth}{label}: " if label else "  " * depth
    if isinstance(value, syntax.Node):
        shown = [f for f in dataclasses.fields(value) if f.compare]
        plain = {f.name: getattr(value, f.name) for f in shown if not _is_tree(getattr(value, f.name))}
        yield head + type(value).__name__ + "".join(f" {n}={v!s}" if isinstance(v, int) else f" {n}={v!r}" for n, v in plain.items())
        for f in shown:
            if f.name not in plain:
                yield from _lines(f.name, getattr(value, f.name), depth + 1)
    elif isinstance(value, tuple):
        if value:
            yield head.rstrip(" ")
            for item in value:
                yield from _lines("-", item, depth + 1)
    else:
        yield f"{head}{value!r}"


def _is_tree(value: object) -> bool:
    return isinstance(value, syntax.Node) or (isinstance(value, tuple) and any(_is_tree(v) for v in value)) or value == ()
