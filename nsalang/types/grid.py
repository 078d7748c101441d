"""The parts of a kernel: its declarations, and the one grid after them."""

from __future__ import annotations

from nsalang import ir, syntax
from nsalang.base.dtypes import ALL, I64
from nsalang.base.source import Diagnostic, NsaError
from nsalang.types.expressions import integer
from nsalang.types.functions import FUNCTIONS, PLACES
from nsalang.types.scope import Scope, TensorRef
from nsalang.types.signature import called
from nsalang.types.statements import block


def declarations(scope: Scope, statements: tuple[syntax.Statement, ...]) -> syntax.For | None:
    """What stands before the grid; gives the grid's loop."""
    for i, statement in enumerate(statements):
        match statement:
            case syntax.For(iterable=syntax.Call(function=syntax.Name(id="grid"))):
                for extra in statements[i + 1 :]:
                    grid = isinstance(extra, syntax.For) and called(extra.iterable) == "grid"
                    helps = ("a second grid is a kernel of its own",) if grid else ()
                    scope.problems.append(Diagnostic("NSA0314", "nothing stands after the grid", extra.span, helps=helps))
                return statement
            case _:
                block(scope, (statement,))
    return None


def grid_indices(scope: Scope, loop: syntax.For) -> tuple[ir.GridIndex, ...]:
    call = loop.iterable
    assert isinstance(call, syntax.Call)
    if call.keywords:
        raise NsaError.at("NSA0311", "'grid' takes extents alone", call.keywords[0].span)
    for argument in call.arguments if len(loop.targets) > 1 else ():
        if isinstance(argument, syntax.Call) and isinstance(argument.function, syntax.Name):
            several = len(argument.arguments) == len(loop.targets)
            if several and argument.function.id == "tile":
                each = ", ".join(f"tile({a.span.text})" for a in argument.arguments)
                raise NsaError.at("NSA0311", "in a grid, 'tile' takes one extent", argument.span, help=f"write grid({each})")
    if len(call.arguments) != len(loop.targets):
        given, wanted = len(call.arguments), len(loop.targets)
        raise NsaError.at(
            "NSA0314",
            f"the grid has {given} extent{'' if given == 1 else 's'}, and {wanted} index variable{'' if wanted == 1 else 's'}",
            call.span,
        )
    made: list[ir.GridIndex] = []
    for target, argument in zip(loop.targets, call.arguments, strict=True):
        tiled = isinstance(argument, syntax.Call) and isinstance(argument.function, syntax.Name) and argument.function.id == "tile"
        node = argument
        if tiled:
            assert isinstance(argument, syntax.Call)
            if len(argument.arguments) != 1 or argument.keywords:
                help = f"lengths of tiles are chosen, or pinned from outside: schedule={{'{target.id}': 64}}"
                raise NsaError.at("NSA0311", "in a grid, 'tile' takes one extent", argument.span, help=help)
            node = argument.arguments[0]
        extent = integer(scope, node, "a grid extent")
        if any(isinstance(n, ir.Load | ir.Search | ir.Index) for n in ir.walk(extent)):
            raise NsaError.at(
                "NSA0315", "a grid extent comes from dimensions and scalar parameters: it is needed before the launch", node.span
            )
        made.append(ir.GridIndex(target.id, extent, tiled, span=target.span))
    for target, index in zip(loop.targets, made, strict=True):
        if target.id in scope.names:
            what = scope.names[target.id]
            if isinstance(what, (TensorRef, ir.Dim, ir.Scalar, ir.Index)) or target.id in scope.parameters:
                what_it_is = "a dimension" if isinstance(what, ir.Dim) else "already defined"
                raise NsaError.at("NSA0203", f"'{target.id}' is {what_it_is}", target.span, help="choose another name")
        if target.id in FUNCTIONS or target.id in PLACES or target.id in ALL:
            raise NsaError.at("NSA0206", f"'{target.id}' is a name of the language", target.span, help="choose another name")
        if index.tiled:
            scope.grid_axes.add(scope.axis(target.id, target.span))
            scope.order.insert(len(scope.grid_axes) - 1, scope.order.pop())  # the grid's axes come before the spans declared above it
        else:
            scope.taken.add(target.id)
        axes = (target.id,) if index.tiled else ()
        scope.names[target.id] = ir.Index(I64, axes, target.id, span=target.span)
    return tuple(made)
