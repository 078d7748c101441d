"""Helpers: a ``def`` without a grid that returns values is typed anew at each call, in the place of the call.

What it takes may be values, constants, tensors, axes or dtypes; its names are its own, and the conditions around the call hold inside. It
holds assignments, ``if``s on what is known when compiling, and a ``return``; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from nsalang import ir, syntax
from nsalang.base.constants import Exact
from nsalang.base.dtypes import E4M3, I64, DType
from nsalang.base.source import NsaError, Span
from nsalang.types.expressions import boolean, describe, operand
from nsalang.types.scope import Binding, Nothing, Operand, Scope, TensorRef, as_dtype, as_value, unknown
from nsalang.types.signature import annotation_of, is_helper, is_kernel

Run = Callable[[Scope, syntax.Statement], None]
"""Types one statement (``statements`` gives it, which imports this module)."""

Define = Callable[[Scope, str, ir.Expr, Span], None]
"""Gives a value a name (``statements`` gives it too)."""


def line(span: Span) -> int:
    """The line in the user's file."""
    return span.line + span.source.first_line - 1


def helper(scope: Scope, node: syntax.Expr) -> syntax.Function | None:
    """The function of the file that a call names, unless a name in force hides it; its being a helper is for ``inlined`` to see."""
    if isinstance(node, syntax.Call) and isinstance(node.function, syntax.Name) and node.function.id not in scope.names:
        return scope.functions.get(node.function.id)
    return None


def inlined(scope: Scope, node: syntax.Call, function: syntax.Function, run: Run, define: Define) -> tuple[Operand, ...]:
    """The values that a call of a helper returns. Raises NSA0311 for wrong arguments, NSA0335 for what is no helper, and what is wrong inside."""
    here = f"'{function.name}' is defined in line {line(function.span)}"
    if is_kernel(function):
        raise NsaError.at("NSA0335", f"'{function.name}' is a kernel, and can't be called in another", node.span, note=here)
    if not is_helper(function):
        raise NsaError.at("NSA0335", f"'{function.name}' returns nothing: it is no helper", node.span, note=here)
    if function.name in scope.calls:
        way = " → ".join((*scope.calls[scope.calls.index(function.name) :], function.name))
        raise NsaError.at(
            "NSA0335", f"'{function.name}' calls itself ({way}), and a helper is written out at each call", node.span, note=here
        )
    given = _matched(function, node, here)
    values = {name: operand(scope, argument) for name, argument in given.items()}
    with _inside(scope, function):
        try:
            for parameter in sorted(function.parameters, key=_is_plain):  # constants and dtypes first: the other types may name them
                where = given.get(parameter.name, node)
                _bind(scope, parameter, values, where.span, function, here, define)
            result = _body(scope, function.body, run)
        except NsaError as error:
            called = f"'{function.name}' is called in line {line(node.span)}"
            inside = [d if d.span is None or d.notes[-1:] == (here,) else replace(d, notes=(*d.notes, called)) for d in error.diagnostics]
            raise NsaError(*inside) from None
    if result is None:
        raise NsaError.at("NSA0335", f"'{function.name}' returns nothing here", node.span, note=here)
    return result


def _matched(function: syntax.Function, node: syntax.Call, here: str) -> dict[str, syntax.Expr]:
    """The arguments by parameter. Raises NSA0311."""
    names = [p.name for p in function.parameters]
    if len(node.arguments) > len(names):
        wanted = f"{len(names)} argument{'' if len(names) == 1 else 's'}"
        raise NsaError.at("NSA0311", f"'{function.name}' takes {wanted}, and {len(node.arguments)} are given", node.span, note=here)
    given = dict(zip(names, node.arguments, strict=False))
    for keyword in node.keywords:
        if keyword.name not in names:
            raise unknown("keyword argument", keyword.name, keyword.name_span, names, "NSA0311", note=here)
        if keyword.name in given:
            raise NsaError.at("NSA0311", f"'{keyword.name}' of '{function.name}' is given twice", keyword.name_span, note=here)
        given[keyword.name] = keyword.value
    missing = [p.name for p in function.parameters if p.name not in given and p.default is None and not p.optional]
    if missing:
        raise NsaError.at("NSA0311", f"'{function.name}' needs '{missing[0]}' too", node.span, note=here)
    return given


@contextmanager
def _inside(scope: Scope, function: syntax.Function) -> Iterator[None]:
    """The scope of a helper's body: its own names beside the file's constants; the conditions, the axes and the statements of the caller."""
    saved = (scope.names, scope.ended, scope.carried, scope.parameters, scope.poisoned, scope.lanes_condition, scope.calls)
    scope.names, scope.ended, scope.carried, scope.poisoned, scope.lanes_condition = dict(scope.constants), {}, frozenset(), set(), None
    scope.parameters, scope.calls = frozenset(p.name for p in function.parameters), (*scope.calls, function.name)
    try:
        yield
    finally:
        (
            scope.names, scope.ended, scope.carried, scope.parameters, scope.poisoned, scope.lanes_condition, scope.calls,
        ) = saved  # fmt: skip


def _is_plain(parameter: syntax.Parameter) -> bool:
    return not (isinstance(parameter.annotation, syntax.Name) and parameter.annotation.id in ("const", "dtype"))


def _bind(
    scope: Scope, parameter: syntax.Parameter, values: dict[str, Operand], span: Span, function: syntax.Function, here: str, define: Define
) -> None:
    """Give a parameter its argument, or its default, where the type that it may have allows it."""
    if parameter.name in values:
        found = values[parameter.name]
    elif parameter.default is not None:
        found = operand(scope, parameter.default)
    else:
        found = Nothing()
    what = f"'{parameter.name}' of '{function.name}'"
    bound: Binding
    if parameter.annotation is None or (isinstance(found, Nothing) and parameter.optional):
        bound = found
    elif not _is_plain(parameter):
        assert isinstance(parameter.annotation, syntax.Name)
        wanted, kind = (DType, "a dtype") if parameter.annotation.id == "dtype" else (Exact, "known when compiling")
        if not isinstance(found, wanted):
            raise NsaError.at("NSA0311", f"{what} must be {kind}", span, note=here)
        bound = found
    else:
        bound = _typed(scope, parameter, found, span, what, here)
    if isinstance(bound, ir.Value) and not isinstance(bound, ir.Const | ir.Dim | ir.Scalar | ir.Index | ir.Var):
        define(scope, parameter.name, bound, span)
    else:
        scope.names[parameter.name] = bound


def _typed(scope: Scope, parameter: syntax.Parameter, found: Operand, span: Span, what: str, here: str) -> Operand:
    """An argument of a parameter that names a dtype, or a tensor's shape. Raises NSA0311, NSA0319."""
    taken = annotation_of(parameter)
    if taken.role != "in":
        raise NsaError.at("NSA0335", "a helper writes nothing: it returns values", parameter.name_span)
    dtype = scope.names.get(taken.dtype_name)
    if not isinstance(dtype, DType):
        raise unknown("dtype", taken.dtype_name, taken.dtype_span, [n for n, v in scope.names.items() if isinstance(v, DType)], "NSA0319")
    dtype = scope.target.facts.e4m3 if dtype is E4M3 else dtype
    if taken.extents is not None:
        if not isinstance(found, TensorRef) or found.dtype is not dtype or len(found.shape) != len(taken.extents):
            axes = f"{len(taken.extents)} {'axis' if len(taken.extents) == 1 else 'axes'}"
            raise NsaError.at("NSA0311", f"{what} is a tensor of {dtype} with {axes}", span, note=here)
        for extent, length in zip(taken.extents, found.shape, strict=True):
            if not isinstance(extent, syntax.Name):
                raise NsaError.at("NSA0319", "in a helper, an extent is a name, which stands for the tensor's own", extent.span)
            scope.names.setdefault(extent.id, length)
        return found
    if isinstance(found, Exact):
        made: ir.Expr = as_dtype(found, dtype, span)
        return ir.Const(I64, (), made.value, span=span) if isinstance(made, ir.Const) and dtype.kind == "signed" else made
    made = as_value(found, span)
    if made.dtype is not (I64 if dtype.kind == "signed" else dtype):
        raise NsaError.at(
            "NSA0311", f"{what} is {dtype}, and the argument is {describe(made)}", span, help=f"convert it: {dtype}(…)", note=here
        )
    return made


def _body(scope: Scope, statements: tuple[syntax.Statement, ...], run: Run) -> tuple[Operand, ...] | None:
    """Type statements up to a ``return``, whose values it gives. Raises NSA0335 for what a helper can't hold."""
    for statement in statements:
        match statement:
            case syntax.Return(values=values):
                if not values:
                    raise NsaError.at("NSA0335", "a helper returns a value", statement.span)
                return tuple(operand(scope, v) for v in values)
            case syntax.If():
                condition = boolean(scope, statement.condition)
                if not isinstance(condition, Exact):
                    raise NsaError.at("NSA0335", "in a helper, an 'if' needs a condition that is known when compiling", statement.condition.span,
                                      help="where(…) chooses between values")  # fmt: skip
                result = _body(scope, statement.body if condition.value else statement.orelse, run)
                if result is not None:
                    return result
            case syntax.Assign() | syntax.Augmented():
                targets = [t for group in statement.targets for t in group] if isinstance(statement, syntax.Assign) else [statement.target]
                for target in targets:
                    if isinstance(target, syntax.Subscript):
                        raise NsaError.at("NSA0335", "a helper writes nothing: it returns values", target.span)
                run(scope, statement)
            case syntax.Pass() | syntax.ExprStatement(value=syntax.String()):
                pass
            case _:
                raise NsaError.at(
                    "NSA0335", "a helper holds assignments, 'if's on what is known when compiling, and a 'return'", statement.span
                )
    return None


PARTIAL = ("floordiv", "mod", "shl", "shr")


def may_stand_alone(value: ir.Expr) -> bool:
    """Whether a value may be computed outside the condition around it: reads carry their guards, but a division would lose it, as would an
    integer that has to fit."""
    if isinstance(value, ir.Const | ir.Dim | ir.Scalar | ir.Index | ir.Var | ir.Load | ir.Search):
        return True
    if isinstance(value, ir.Border) or (isinstance(value, ir.Binary) and value.op in PARTIAL) or value.dtype.is_integer:
        return False
    return all(may_stand_alone(child) for child in ir.children(value) if isinstance(child, ir.Value))  # type: ignore[arg-type]
