"""A decorated Python function -> its text as the parser takes it, and the constants of the enclosing Python scope that the text uses."""

from __future__ import annotations

import inspect
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import CellType, FunctionType, ModuleType
from typing import Any, TypeAlias

from nsalang import syntax
from nsalang.base.dtypes import DType
from nsalang.base.names import NAMES
from nsalang.base.placeholders import Dimension, Outside, Placeholder, Role, TensorType
from nsalang.base.source import NsaError, Source
from nsalang.syntax.parser import parse

Captured: TypeAlias = "bool | int | float | str | DType | None"
Found: TypeAlias = "Captured | Outside"


def capture(function: Callable[..., Any]) -> tuple[Source, dict[str, Found]]:
    """``source_of`` and ``captures`` in one, with what cannot be captured as ``Outside``. Raises NsaError for a function without a text, and
    for wrong syntax."""
    source = source_of(function)
    return source, _captured(_plain(function), parse(source))


def captures(function: Callable[..., Any]) -> Mapping[str, Captured]:
    """The plain constants that a function's text uses and the enclosing scope holds, with their values now.

    These are numbers, bools, strings, dtypes and None. Modules, functions, tensors and other objects are left out: the type check reports
    them as unknown names where they are used.
    """
    return {name: value for name, value in capture(function)[1].items() if not isinstance(value, Outside)}


@dataclass(frozen=True, slots=True)
class Watched:
    """A captured name where it stands in Python, and the object that it named when the kernel was made."""

    name: str
    place: Mapping[str, object] | CellType
    value: object

    def changed(self) -> bool:
        """Whether the name stands for something else now."""
        if isinstance(self.place, CellType):
            try:
                now = self.place.cell_contents
            except ValueError:
                return True
        else:
            now = self.place.get(self.name, self.value)
        return now is not self.value and (type(now) is not type(self.value) or now != self.value)


def watched(function: Callable[..., Any], names: Iterable[str]) -> tuple[Watched, ...]:
    """The captured names, to be looked at again when the kernel is called."""
    plain = _plain(function)
    cells = dict(zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True))
    found: list[Watched] = []
    for name in names:
        if name in cells:
            found.append(Watched(name, cells[name], cells[name].cell_contents))
        elif name in plain.__globals__:
            found.append(Watched(name, plain.__globals__, plain.__globals__[name]))
    return tuple(found)


def source_of(function: Callable[..., Any]) -> Source:
    """The text of a Python function from its ``def`` on, dedented, with lines and columns that lead back to the Python file.

    Raises NsaError NSA0113 where there is no text: a function typed into an interpreter or made by ``exec``, a lambda, a class, a builtin.
    """
    plain = _plain(function)
    name, file = plain.__name__, plain.__code__.co_filename
    try:
        lines, first = inspect.getsourcelines(plain)
    except (OSError, TypeError, SyntaxError, IndexError):
        raise NsaError.at(
            "NSA0113",
            f"the source text of `{name}` is not there to be read (it was made in {file})",
            help="put the function into a file, or the text through `nsalang.load_text`",
        ) from None
    # co_firstlineno is the first decorator's line.
    skip, prefix = _definition(lines)
    found = lines[skip][len(prefix) :].split("(")[0].split() if skip is not None else []
    if skip is None or found[-1:] != [name] and not any(f"def {name}" in line for line in lines):
        raise NsaError.at(
            "NSA0113", f"the file {file} does not hold `{name}` on line {first} any more: it was changed after Python read it"
        )
    text = "".join(_dedent(line, prefix) for line in lines[skip:])
    return Source(text.rstrip() + "\n", file, first + skip, len(prefix))


def _plain(function: Callable[..., Any]) -> FunctionType:
    """The function below its wrappers."""
    found: object = function.__func__ if isinstance(function, (staticmethod, classmethod)) else function
    if hasattr(found, "__wrapped__"):
        raise NsaError.at(
            "NSA0113",
            f"`{getattr(found, '__name__', 'the function')}` is wrapped by another decorator, and a kernel is made of its text alone: what the "
            "decorator does would be lost",
            help="leave that decorator out, or put it above `@nsalang.jit`",
        )
    if not isinstance(found, FunctionType):
        raise NsaError.at("NSA0113", f"a kernel is made of a Python function, not of {_what(found)}")
    if found.__name__ == "<lambda>":
        raise NsaError.at("NSA0113", "a kernel is made of a `def`, not of a lambda")
    return found


def _what(value: object) -> str:
    if isinstance(value, (ModuleType, FunctionType)):
        return "a module" if isinstance(value, ModuleType) else "a function"
    return f"the class `{value.__name__}`" if isinstance(value, type) else f"a value of type {type(value).__name__}"


def _definition(lines: list[str]) -> tuple[int | None, str]:
    """The line (from 0) on which the ``def`` below the decorators begins, and the whitespace before it."""
    rest = iter(lines)
    depth = 0
    begins = True
    try:
        for token in tokenize.generate_tokens(lambda: next(rest, "")):
            if token.type == tokenize.OP:
                depth += (token.string in "([{") - (token.string in ")]}")
            if token.type == tokenize.NAME and begins and depth == 0 and token.string in ("def", "async"):
                line, column = token.start
                return line - 1, lines[line - 1][:column]
            begins = (
                token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT) or begins and token.type == tokenize.COMMENT
            )
    except (tokenize.TokenError, SyntaxError):
        return None, ""
    return None, ""


def _dedent(line: str, prefix: str) -> str:
    """A line without the indentation of the def; lines in brackets and strings may have less, and lose what they have."""
    if line.startswith(prefix):
        return line[len(prefix) :]
    return line.lstrip(" \t") if line.strip() else "\n"


def _captured(function: FunctionType, file: syntax.File) -> dict[str, Found]:
    kernel = file.items[0]
    assert isinstance(kernel, syntax.Function)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    out: dict[str, Found] = {}
    own = {p.name for p in kernel.parameters}
    for name in dict.fromkeys(_names(kernel)):
        if name in own:
            continue
        if name in cells:
            try:
                value = cells[name].cell_contents
            except ValueError:  # assigned after the decorator runs
                continue
        elif name in function.__globals__:
            value = function.__globals__[name]
        else:
            continue
        if name in NAMES and value is NAMES[name]:
            continue
        if value is None or isinstance(value, DType):
            out[name] = value
        elif isinstance(value, (bool, int, float, str)):
            # Subclasses (enumerations, numpy's float64) become what they stand for.
            kind = next(k for k in (bool, int, float, str) if isinstance(value, k))
            out[name] = kind(value)
        elif not isinstance(value, (Placeholder, Role, Dimension)):
            out[name] = Outside(_what(value))
    try:
        annotations: Mapping[str, object] = function.__annotations__
    except NameError:  # Python 3.14 evaluates them now, and the language has names of its own
        annotations = {}
    for parameter in kernel.parameters:
        _from_annotation(parameter.annotation, annotations.get(parameter.name), own, out)
    return out


def _from_annotation(written: syntax.Expr | None, value: object, own: set[str], out: dict[str, Found]) -> None:
    """Extents that Python evaluated to a number: a variable of an enclosing function has no cell if only an annotation uses it."""
    if isinstance(written, syntax.Subscript) and isinstance(value, TensorType) and len(written.indices) == len(value.items):
        for index, item in zip(written.indices, value.items, strict=True):
            if isinstance(index, syntax.Name) and isinstance(item, int) and index.id not in own:
                out.setdefault(index.id, item)
            else:
                _from_annotation(index, item, own, out)


def _names(node: object) -> Iterator[str]:
    """The names in a tree, in order of appearance."""
    if isinstance(node, syntax.Name):
        yield node.id
    elif isinstance(node, tuple):
        for item in node:
            yield from _names(item)
    elif isinstance(node, syntax.Node):
        for field in fields(node):
            if field.name != "span":
                yield from _names(getattr(node, field.name))
