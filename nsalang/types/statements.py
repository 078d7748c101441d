"""Typing of statements: what is assigned, carried, stored and looped over, and what becomes of an ``if``."""

from __future__ import annotations

from collections.abc import Iterable

from nsalang import ir, syntax
from nsalang.base.constants import Exact
from nsalang.base.dtypes import BOOL, I64
from nsalang.base.source import NsaError, Span
from nsalang.types.assignments import assign_one, check_name, declare_span, define, emit, hold, reads
from nsalang.types.calls import arguments
from nsalang.types.declarations import partial, promise, require, view
from nsalang.types.expressions import boolean, describe, integer, operand
from nsalang.types.functions import split_bounds
from nsalang.types.inline import helper, inlined
from nsalang.types.scope import Operand, Poison, Poisoned, Scope, TensorRef, as_value
from nsalang.types.stores import store


def block(scope: Scope, statements: Iterable[syntax.Statement]) -> None:
    """Type statements one after the other; an error ends its statement alone, and what it would have defined is not reported again."""
    for statement in statements:
        try:
            _statement(scope, statement)
        except NsaError as error:
            scope.problems.extend(error.diagnostics)
            _poison(scope, statement)
        except Poisoned:
            _poison(scope, statement)


def _poison(scope: Scope, statement: syntax.Statement) -> None:
    for name in assigned_names((statement,)):
        if isinstance(scope.names.get(name), ir.Var):
            scope.poisoned.add(name)
        elif not isinstance(scope.names.get(name), (ir.Index, ir.Dim, ir.Scalar, TensorRef)):
            scope.names[name] = Poison()


def _statement(scope: Scope, node: syntax.Statement) -> None:
    match node:
        case syntax.Assign():
            _assign(scope, node)
        case syntax.Augmented():
            target = node.target
            combined = syntax.Binary(node.op, target, node.value, span=node.span, op_span=node.span)
            assign_one(scope, target, operand(scope, combined), node.span)
        case syntax.For():
            _for(scope, node)
        case syntax.If():
            _if(scope, node)
        case syntax.ExprStatement():
            _expression_statement(scope, node)
        case syntax.Return():
            raise NsaError.at("NSA0330", "a kernel returns nothing: it writes its Out parameters", node.span)
        case syntax.Pass():
            pass


def assigned_names(statements: Iterable[syntax.Statement]) -> dict[str, None]:
    """Names that statements assign, blocks inside included, in order."""
    found: dict[str, None] = {}
    for s in statements:
        match s:
            case syntax.Assign(targets=groups):
                found.update({t.id: None for group in groups for t in group if isinstance(t, syntax.Name)})
            case syntax.Augmented(target=syntax.Name(id=name)):
                found[name] = None
            case syntax.For(body=body):
                found.update(assigned_names(body))
            case syntax.If(body=body, orelse=orelse):
                found.update(assigned_names((*body, *orelse)))
    return found


# --------------------------------------------------------------------------------------------------------------- assignment


def _called(node: syntax.Expr) -> str | None:
    return node.function.id if isinstance(node, syntax.Call) and isinstance(node.function, syntax.Name) else None


def _assign(scope: Scope, node: syntax.Assign) -> None:
    if len(node.targets) != 1:
        raise NsaError.at("NSA0325", "assign to one target list at a time", node.span)
    (targets,) = node.targets
    values = node.values
    if scope.in_declarations and len(targets) == len(values) == 1 and _called(values[0]) == "view":
        (target,) = targets
        assert isinstance(values[0], syntax.Call)
        if not isinstance(target, syntax.Name):
            raise NsaError.at("NSA0317", "'view' is assigned to a name", values[0].span)
        check_name(scope, target)
        scope.names[target.id] = view(scope, target, values[0])
        scope.taken.add(target.id)
        return
    if len(targets) == 2 and len(values) == 1 and _called(values[0]) == "split":
        assert isinstance(values[0], syntax.Call)
        for target, made in zip(targets, split_bounds(scope, values[0]), strict=True):
            assign_one(scope, target, made, node.span)
        return
    called = helper(scope, values[0]) if len(targets) > 1 and len(values) == 1 else None
    if called is not None:
        assert isinstance(values[0], syntax.Call)
        returned = inline(scope, values[0], called)
        if len(returned) != len(targets):
            raise NsaError.at("NSA0325", f"{len(targets)} names, and '{called.name}' returns {len(returned)}", node.span)
        for target, one in zip(targets, returned, strict=True):
            assign_one(scope, target, one, node.span)
        return
    if len(values) == 1 and isinstance(values[0], syntax.Tuple):
        values = values[0].items
    if len(targets) != len(values):
        raise NsaError.at("NSA0325", f"{len(targets)} names, and {len(values)} value{'' if len(values) == 1 else 's'}", node.span)
    if any(_called(v) == "span" for v in values):
        for target, v in zip(targets, values, strict=True):
            if _called(v) != "span" or not isinstance(target, syntax.Name):
                raise NsaError.at("NSA0317", "'span' is assigned to a name, beside other spans alone", v.span)
            assert isinstance(v, syntax.Call)
            declare_span(scope, target, v)
        return
    found = [operand(scope, v) for v in values]
    for i, target in enumerate(targets):
        clobbered = isinstance(target, syntax.Name) and any(reads(w, scope.names.get(target.id)) for w in found[i + 1 :])
        if clobbered:  # tuple assignment is simultaneous: keep what a later value still reads
            for j in range(i + 1, len(found)):
                found[j] = hold(scope, found[j])
        assign_one(scope, target, found[i], node.span)


def inline(scope: Scope, node: syntax.Call, function: syntax.Function) -> tuple[Operand, ...]:
    """The values that a call of a function of the file returns. Raises NSA0335 if it is no helper."""
    return inlined(scope, node, function, _statement, define)


# ------------------------------------------------------------------------------------------------------------ axes and loops


def _for(scope: Scope, node: syntax.For) -> None:
    kind = _called(node.iterable)
    if kind == "grid":
        raise NsaError.at("NSA0314", "a kernel has one grid, outermost", node.iterable.span)
    if kind not in ("range", "tile"):
        raise NsaError.at("NSA0317", "a 'for' runs over grid(…), tile(…) or range(…)", node.iterable.span)
    assert isinstance(node.iterable, syntax.Call)
    if scope.in_declarations:
        raise NsaError.at("NSA0316", "a loop stands inside the grid", node.span)
    if len(node.targets) != 1:
        raise NsaError.at("NSA0325", f"'{kind}' gives one index variable", node.span)
    if scope.lanes:
        raise NsaError.at("NSA0324", "a loop can't stand under a condition that has axes", node.span, help="use where(…) inside the loop")
    (target,) = node.targets
    check_name(scope, target)
    given = arguments(node.iterable, 1, 2)
    bounds = [integer(scope, a, "a loop bound") for a in given]
    for bound, where in zip(bounds, given, strict=True):
        if bound.axes:
            raise NsaError.at(
                "NSA0304", f"a loop bound is a scalar; this is {describe(bound)}", where.span, help="reduce it, e.g. max(…, axis=…)"
            )
    lo, hi = (ir.const(0, span=node.iterable.span), bounds[0]) if len(bounds) == 1 else bounds
    carried, outer = _enter(scope, node.body)
    name = scope.axis(target.id, target.span) if kind == "tile" else scope.unique(target.id)
    scope.names[target.id] = ir.Index(I64, (name,) if kind == "tile" else (), name, span=target.span)
    around = scope.open_loops
    if kind == "tile":
        scope.loop_axes.add(name)
        scope.open_loops = (*around, name)
    body = _inside(scope, node.body)
    scope.open_loops = around
    _leave(scope, outer, f"it belongs to the loop in line {_line(node.span)}")
    scope.out.append(ir.For(name, "tile" if kind == "tile" else "range", lo, hi, body, carried, span=node.span))


def _line(span: Span) -> int:
    return span.line + span.source.first_line - 1


def _enter(scope: Scope, *bodies: tuple[syntax.Statement, ...]) -> tuple[tuple[str, ...], dict[str, object]]:
    """Before a block: names that it assigns and that live outside become variables with a fixed type. Gives their IR names, and the outer names."""
    assigned = assigned_names(s for b in bodies for s in b)
    names = [n for n in scope.names if n in assigned]
    carried = []
    for name in names:
        old = scope.names[name]
        if isinstance(old, Exact) or (isinstance(old, ir.Value) and not isinstance(old, (ir.Var, ir.Dim, ir.Scalar, ir.Index))):
            span = bodies[0][0].span
            made = as_value(old, span)
            emit(scope, name, scope.unique(name), made, span)
        now = scope.names[name]
        if isinstance(now, ir.Var):
            carried.append(now.name)
    outer: dict[str, object] = {"names": dict(scope.names), "carried": scope.carried}
    scope.carried = scope.carried | frozenset(names)
    return tuple(carried), outer


def _inside(scope: Scope, statements: tuple[syntax.Statement, ...]) -> tuple[ir.Stmt, ...]:
    saved, scope.out = scope.out, []
    block(scope, statements)
    made, scope.out = tuple(scope.out), saved
    return made


def _leave(scope: Scope, outer: dict[str, object], why: str) -> None:
    before = outer["names"]
    assert isinstance(before, dict)
    for name in scope.names:
        if name not in before:
            scope.ended[name] = why
    scope.names = dict(before)
    carried = outer["carried"]
    assert isinstance(carried, frozenset)
    scope.carried = carried


# ------------------------------------------------------------------------------------------------------------------ conditions


def _if(scope: Scope, node: syntax.If) -> None:
    condition = boolean(scope, node.condition)
    if isinstance(condition, Exact):
        block(scope, node.body if condition.value else node.orelse)
        return
    if scope.in_declarations:
        raise NsaError.at("NSA0316", "before the grid, an 'if' needs a condition that is known when compiling", node.condition.span)
    _, outer = _enter(scope, node.body, node.orelse)
    why = f"it belongs to the 'if' in line {_line(node.span)}"
    if not condition.axes and not scope.lanes:
        body = _inside(scope, node.body)
        _leave(scope, outer, why)
        _, outer = _enter(scope, node.body, node.orelse)
        orelse = _inside(scope, node.orelse)
        _leave(scope, outer, why)
        scope.out.append(ir.If(condition, body, orelse, span=node.span))
        return
    held = _held_condition(scope, condition, node.condition.span)
    for part, chosen in ((node.body, held), (node.orelse, scope.negation(held))):
        if not part:
            continue
        saved = (scope.lanes, scope.lanes_condition)
        scope.lanes = ir.join(scope.lanes, chosen.axes)
        scope.lanes_condition = ir.both(saved[1], chosen, tuple(scope.order))
        with scope.under(chosen):
            block(scope, part)
        scope.lanes, scope.lanes_condition = saved
        for name in list(scope.names):  # names first assigned under a condition end with it
            if name not in outer["names"]:  # type: ignore[operator]
                del scope.names[name]
                scope.ended[name] = why
    scope.carried = outer["carried"]  # type: ignore[assignment]


def _held_condition(scope: Scope, condition: ir.Expr, span: Span) -> ir.Expr:
    """The condition as a variable, since the block may change what it was computed from."""
    if isinstance(condition, ir.Var) and condition.name not in scope.carried:
        return condition
    name = scope.unique("condition")
    scope.taint(name, condition)
    scope.out.append(ir.Assign(name, condition, span=span))
    return ir.Var(BOOL, condition.axes, name, span=span)


# ----------------------------------------------------------------------------------------------------- statements that are calls


def _expression_statement(scope: Scope, node: syntax.ExprStatement) -> None:
    name = _called(node.value)
    call = node.value
    if name == "atomic_add" or name == "scatter":
        assert isinstance(call, syntax.Call)
        target, v = arguments(call, 2, 2)
        if not isinstance(target, syntax.Subscript):
            raise NsaError.at("NSA0334", f"'{name}' takes an element first: {name}(y[i], value)", target.span)
        store(scope, target, operand(scope, v), node.span, "add" if name == "atomic_add" else "scatter")
        return
    if name in ("require", "promise", "partial") and not scope.in_declarations:
        raise NsaError.at("NSA0316", f"'{name}' stands before the grid", node.span)
    match name:
        case "require":
            assert isinstance(call, syntax.Call)
            require(scope, call)
        case "promise":
            assert isinstance(call, syntax.Call)
            promise(scope, call)
        case "partial":
            assert isinstance(call, syntax.Call)
            partial(scope, call)
        case _:
            if isinstance(call, syntax.String):
                return
            operand(scope, call)
            raise NsaError.at("NSA0316", "this value is not used", node.span, help="assign it to a name, or leave it out")
