"""What a name stands for: variables of a block, those that a loop or a branch carries, and spans."""

from __future__ import annotations

from nsalang import ir, syntax
from nsalang.base.constants import Exact
from nsalang.base.dtypes import ALL, BOOL, I64
from nsalang.base.source import Diagnostic, NsaError, Span
from nsalang.ir import integers
from nsalang.types.calls import arguments
from nsalang.types.expressions import describe, integer, operand
from nsalang.types.functions import FUNCTIONS, PLACES
from nsalang.types.inline import may_stand_alone
from nsalang.types.scope import Nothing, Operand, Scope, TensorRef, as_dtype, as_value
from nsalang.types.stores import store


def reads(value: Operand, variable: object) -> bool:
    return (
        isinstance(variable, ir.Var)
        and isinstance(value, ir.Node)
        and any(isinstance(n, ir.Var) and n.name == variable.name for n in ir.walk(value))
    )


def hold(scope: Scope, value: Operand) -> Operand:
    if not isinstance(value, ir.Value):
        return value
    name = scope.unique("held")
    scope.taint(name, value)
    scope.out.append(ir.Assign(name, value, span=value.span))
    return ir.Var(value.dtype, value.axes, name, span=value.span)


def assign_one(scope: Scope, target: syntax.Expr, found: Operand, span: Span) -> None:
    if isinstance(target, syntax.Subscript):
        store(scope, target, found, span)
        return
    if not isinstance(target, syntax.Name):
        raise NsaError.at("NSA0325", "a target is a name or an indexed tensor", target.span)
    check_name(scope, target)
    if isinstance(found, (Nothing, TensorRef)) or not isinstance(found, (Exact, ir.Value)):
        as_value(found, span)
    old = scope.names.get(target.id)
    if isinstance(old, ir.Var) and target.id in scope.carried:
        _assign_carried(scope, target, old, found, span)
        return
    if isinstance(found, Exact) and not scope.lanes_condition:
        scope.names[target.id] = found
        return
    made = as_value(found, span)
    if scope.in_declarations or scope.calls:
        define(scope, target.id, made, span)
        return
    reuse = isinstance(old, ir.Var) and old.dtype is made.dtype and old.axes == made.axes
    name = old.name if reuse else scope.unique(target.id)  # type: ignore[union-attr]
    emit(scope, target.id, name, made, span)


def define(scope: Scope, name: str, made: ir.Expr, span: Span) -> None:
    """Give a value a name that is never assigned again: a variable, or the name alone where a variable can't be, or would lose a guard."""
    if scope.in_declarations or (scope.guards and not may_stand_alone(made)):
        scope.names[name] = made
    else:
        emit(scope, name, scope.unique(name), made, span)


def emit(scope: Scope, source_name: str, name: str, made: ir.Expr, span: Span) -> None:
    scope.taint(name, made)
    scope.out.append(ir.Assign(name, made, span=span))
    scope.names[source_name] = ir.Var(made.dtype, made.axes, name, span=span)
    scope.ended.pop(source_name, None)


def _assign_carried(scope: Scope, target: syntax.Name, old: ir.Var, found: Operand, span: Span) -> None:
    """A variable from outside the loop or branch: its dtype and axes are fixed."""
    made = as_dtype(found, old.dtype, span) if isinstance(found, Exact) and _fits(found, old) else as_value(found, span)
    extra = [ir.plain(a) for a in made.axes if a not in old.axes]
    if made.dtype is not old.dtype or extra:
        raise NsaError(
            Diagnostic(
                "NSA0308",
                f"'{target.id}' is {describe(old)} outside this block, and would become {describe(made)} here",
                span,
                helps=(
                    f"give it these axes from the start: {target.id} = full({', '.join(ir.plain(a) for a in made.axes)}, …)"
                    if extra
                    else f"start it as {made.dtype}, or convert here: {old.dtype}(…)",
                ),
            )
        )
    if scope.lanes_condition is not None:
        condition = scope.lanes_condition
        outside = [ir.plain(a) for a in condition.axes if a not in old.axes]
        if outside:
            raise NsaError.at("NSA0308", f"'{target.id}' is {describe(old)}, and the condition here has axis {outside[0]} too", span)
        made = ir.Where(made.dtype, scope.join(condition, made, old), condition, made, old, span=span)
    if made.axes != old.axes:
        made = ir.Full(made.dtype, old.axes, made, span=span)
    scope.taint(old.name, made)
    scope.out.append(ir.Assign(old.name, made, span=span))


def _fits(found: Exact, old: ir.Var) -> bool:
    return found.is_bool == (old.dtype is BOOL) and not (found.is_float and old.dtype.is_integer)


def check_name(scope: Scope, target: syntax.Name) -> None:
    old = scope.names.get(target.id)
    what = None
    if target.id in FUNCTIONS or target.id in PLACES or target.id in ALL or target.id == "inf":
        raise NsaError.at("NSA0206", f"'{target.id}' is a name of the language", target.span, help="choose another name")
    if isinstance(old, TensorRef):
        what = "a tensor"
    elif isinstance(old, (ir.Dim, ir.Scalar)) or target.id in scope.parameters:
        what = "a parameter or a dimension"
    elif isinstance(old, ir.Index):
        what = "an index variable"
    if what:
        raise NsaError.at("NSA0203", f"'{target.id}' is {what} and can't be assigned", target.span, help="choose another name")


def length_of(scope: Scope, node: syntax.Expr) -> int:
    """A span's length: an integer that is known when compiling. Raises NSA0312, NSA0321."""
    found = operand(scope, node)
    if isinstance(found, Exact):
        if not found.is_int:
            raise NsaError.at("NSA0312", "a span's length is an integer", node.span)
        length = int(found.value)
    else:
        made = as_value(found, node.span)
        folded = fold(made)
        if folded is None:
            dims = sorted({n.name for n in ir.walk(made) if isinstance(n, ir.Dim)})
            if dims:
                raise NsaError.at("NSA0321", f"a span's length must be known when compiling, and dimension '{dims[0]}' has no value", node.span,
                                  help=f"give it: -D {dims[0]}=…, or .compile(…, {dims[0]}=…)")  # fmt: skip
            raise NsaError.at("NSA0312", "a span's length must be known when compiling", node.span, help="tile(…) runs over any length")
        length = folded
    if length < 0:
        raise NsaError.at("NSA0312", f"a span's length can't be negative; this is {length}", node.span)
    return length


def fold(node: ir.Expr) -> int | None:
    """The value of an integer expression over constants, or None."""
    if isinstance(node, ir.Const):
        return int(node.value)
    if isinstance(node, ir.Binary):
        a, b = fold(node.a), fold(node.b)
        return None if a is None or b is None else integers.binary(node.op, a, b, node.a.dtype.bits)
    return None


def declare_span(scope: Scope, target: syntax.Name, node: syntax.Call) -> None:
    check_name(scope, target)
    given = arguments(node, 1, 3)
    start = ir.const(0, span=node.span) if len(given) == 1 else integer(scope, given[0], "a span's start")
    length = length_of(scope, given[0] if len(given) == 1 else given[1])
    stop = integer(scope, given[2], "a span's stop") if len(given) == 3 else None
    for part, where in ((start, given[0]), (stop, given[-1])):
        if part is not None and part.axes:
            raise NsaError.at("NSA0312", f"a span's bounds are scalars; this is {describe(part)}", where.span)
    axis = scope.axis(target.id, target.span)
    scope.out.append(ir.SpanAxis(axis, start, length, stop, span=node.span))
    scope.names[target.id] = ir.Index(I64, (axis,), axis, span=target.span)
