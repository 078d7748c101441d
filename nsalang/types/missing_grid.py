"""A ``def`` that would be a kernel but for its grid. Nothing calls it, so that without these errors it would pass in silence."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from nsalang import syntax
from nsalang.base.source import Diagnostic, NsaError
from nsalang.types.signature import called, functions, is_helper, is_kernel, is_program


def check_grids(file: syntax.File) -> None:
    """Raises NSA0314 and NSA0335 for each ``def`` that writes or loops, and has no grid."""
    if problems := missing_grids(file):
        raise NsaError(*problems)


def missing_grids(file: syntax.File) -> list[Diagnostic]:
    """What is wrong with each ``def`` that writes or loops, and has no grid."""
    found = (missing_grid(function, kernels_of(file)) for function in functions(file).values())
    return [d for d in found if d is not None]


def kernels_of(file: syntax.File) -> dict[str, syntax.Function]:
    """The kernels of a file by name."""
    return {name: function for name, function in functions(file).items() if is_kernel(function)}


def missing_grid(function: syntax.Function, kernels: Mapping[str, syntax.Function]) -> Diagnostic | None:
    """The error for a ``def`` without a grid that does what only a kernel may, or that takes the value of a call of one of the ``kernels`` of
    its file, which has none. What a program must not do is said where it is typed."""
    if is_kernel(function) or is_program(function):
        return None
    statements = list(_flat(function.body))
    loops = [s for s in statements if isinstance(s, syntax.For)]
    name = function.name
    for loop in loops:
        if isinstance(loop.iterable, syntax.Call) and (help := grid_meant(loop)):
            what = loop.iterable.function
            return Diagnostic("NSA0314", f"'{name}' has no grid: its loop runs over '{what.span.text}'", what.span, helps=(help,))
    outs = [p for p in function.parameters if _is_written(p)]
    stores = [target for s in statements for target in _stores(s)]
    if is_helper(function):
        if outs or stores:
            span = outs[0].name_span if outs else stores[0].span
            return Diagnostic("NSA0335", "a helper writes nothing: it returns values", span)
        if loops:
            sentence = "a helper holds assignments, 'if's on what is known when compiling, and a 'return'"
            return Diagnostic("NSA0335", sentence, loops[0].span)
        return None
    if loops:
        over = loops[0].iterable
        helps = ("a kernel's outermost loop runs over grid(…)",)
        if called(over) == "tile":
            helps = (f"a kernel's outermost loop runs over grid(…): grid({over.span.text})",)
        return Diagnostic("NSA0314", f"'{name}' has no grid: its loop runs over '{over.span.text}'", over.span, helps=helps)
    if stores:
        target = stores[0]
        wanted = "a kernel writes inside its one 'for … in grid(…)'"
        return Diagnostic("NSA0314", f"'{name}' has no grid, and writes '{target.span.text}'", target.span, helps=(wanted,))
    for call in (v for s in statements if isinstance(s, syntax.Assign) for v in s.values):
        if outs and (kernel := kernels.get(called(call) or "")):
            return no_value(kernel, call)
    if outs:
        wanted = "a kernel has one 'for … in grid(…)', and a program calls kernels"
        return Diagnostic("NSA0314", f"'{name}' has no grid, and nothing writes '{outs[0].name}'", outs[0].name_span, helps=(wanted,))
    return None


def no_value(kernel: syntax.Function, call: syntax.Expr) -> Diagnostic:
    """The error for ``part = kernel(x)``."""
    written = ", ".join(f"{p.name}=…" for p in kernel.parameters if _is_written(p))
    sentence = f"the call of a kernel has no value: '{kernel.name}' writes what it is given"
    return Diagnostic("NSA0337", sentence, call.span, helps=(f"{kernel.name}(…, {written}), with scratch from empty(…)",))


def grid_meant(loop: syntax.For) -> str | None:
    """The question to ask where a loop runs over something with a name like ``grid``."""
    function = loop.iterable.function if isinstance(loop.iterable, syntax.Call) else None
    name = function.id if isinstance(function, syntax.Name) else function.name if isinstance(function, syntax.Attribute) else ""
    return "did you mean 'grid'?" if difflib.get_close_matches(name, ["grid"], 1, 0.6) else None


def _is_written(parameter: syntax.Parameter) -> bool:
    """Whether a parameter is an Out or an InOut; a helper's may have no type at all."""
    where = parameter.annotation
    return isinstance(where, syntax.Subscript) and isinstance(where.value, syntax.Name) and where.value.id in ("Out", "InOut")


def _stores(statement: syntax.Statement) -> list[syntax.Expr]:
    """The elements that a statement writes."""
    match statement:
        case syntax.Assign(targets=groups):
            return [t for group in groups for t in group if isinstance(t, syntax.Subscript)]
        case syntax.Augmented(target=syntax.Subscript() as target):
            return [target]
        case syntax.ExprStatement(value=syntax.Call() as value) if called(value) in ("scatter", "atomic_add"):
            return list(value.arguments[:1]) or [value]
    return []


def _flat(statements: tuple[syntax.Statement, ...]) -> Iterator[syntax.Statement]:
    for statement in statements:
        yield statement
        match statement:
            case syntax.For(body=body):
                yield from _flat(body)
            case syntax.If(body=body, orelse=orelse):
                yield from _flat((*body, *orelse))
