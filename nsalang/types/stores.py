"""Typing of what writes memory: ``y[i] = v``, ``scatter(y[i], v)`` and ``atomic_add(y[i], v)``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from nsalang import ir, syntax
from nsalang.base.constants import Exact
from nsalang.base.dtypes import I64
from nsalang.base.source import Diagnostic, NsaError, Span
from nsalang.ir.operations import ADDABLE
from nsalang.types.expressions import describe, place
from nsalang.types.scope import Operand, Scope, TensorRef, as_dtype, as_value


def store(scope: Scope, target: syntax.Subscript, found: Operand, span: Span, mode: Literal["set", "scatter", "add"] = "set") -> None:
    """Write ``found`` to an element. Raises NSA0305, NSA0306, NSA0316, NSA0318, NSA0323, NSA0334."""
    ref, indices = place(scope, target)
    if scope.in_declarations:
        raise NsaError.at("NSA0316", "a tensor is written inside the grid", span)
    if ref.role == "in":
        what = f"'{ref.name}' is a view of the input '{ref.base}'" if ref.base else f"'{ref.name}' is an input"
        raise NsaError.at("NSA0318", f"{what} and can't be written", target.span, help="declare it Out[…] or InOut[…]")
    if mode == "add" and ref.dtype not in ADDABLE:
        raise NsaError.at("NSA0334", f"'atomic_add' is for f32, i32, i64 and u32, and '{ref.name}' holds {ref.dtype}", target.span)
    made = _value(ref, found, span)
    axes = scope.join(*indices) if mode == "set" else scope.join(*indices, made)
    extra = [ir.plain(a) for a in made.axes if a not in axes]
    if extra:
        raise NsaError.at("NSA0306", f"the value has axis '{extra[0]}', and the place doesn't: many lanes would write one element", span,
                          help=f"index with {extra[0]}, or reduce over it")  # fmt: skip
    guard = scope.guard(axes)
    if mode == "add":
        _same_for_all_tiles(scope, axes, made, span)
    for part in indices if mode == "add" else (*indices, made, guard):
        if scope.is_tainted(part):
            raise NsaError.at("NSA0323", "this depends on how the grid is cut into tiles: a reduction over a tile of the grid may feed only loop "
                              "bounds, scalar conditions and sums that atomic_add adds", span,
                              help="such as atomic_add(y[m], sum(x[m, n], axis=n)) over grid(tile(M), tile(N)); or loop over the axis")  # fmt: skip
    scope.out.append(ir.Store(ref.name, indices, made, axes, guard, mode=mode, span=span))


def _value(ref: TensorRef, found: Operand, span: Span) -> ir.Expr:
    """What is written, in the tensor's dtype. Raises NSA0305."""
    if isinstance(found, Exact):
        return as_dtype(found, ref.dtype, span)
    made = as_value(found, span)
    if ref.dtype.kind == "signed" and made.dtype is I64:
        return made if ref.dtype is I64 else ir.Cast(ref.dtype, made.axes, made, span=span)
    if made.dtype is not ref.dtype:
        raise NsaError.at(
            "NSA0305", f"'{ref.name}' holds {ref.dtype}, and the value is {describe(made)}", span, help=f"convert it: {ref.dtype}(…)"
        )
    return made


def _same_for_all_tiles(scope: Scope, axes: tuple[str, ...], made: ir.Expr, span: Span) -> None:
    """What the tiles of the grid, and of loops around, add must not depend on their number and their borders, which are a choice.
    Raises NSA0323, NSA0334."""
    tiles = scope.grid_axes.union(scope.open_loops)
    missing = [a for a in scope.order if a in tiles and a not in axes and a not in scope.taints(made)]
    if missing:
        name = ir.plain(missing[0])
        raise NsaError.at(
            "NSA0334", f"this is added once for each tile of {name}, and how many there are is the schedule's choice", span,
            help=f"give the value this axis, e.g. full({name}, …), or sum over it",
        )  # fmt: skip
    if scope.is_tainted(made) and not scope.is_share(made):
        raise NsaError.at(
            "NSA0323",
            "what is added depends on how the grid is cut into tiles: only sums over a tile, scaled and added up, do not",
            span,
            help="such as atomic_add(y[m], sum(x[m, n], axis=n)) over grid(tile(M), tile(N))",
        )


def check_written(
    stores: Iterable[ir.Store], roles: dict[str, Literal["in", "out", "inout"]], bases: dict[str, str], partial: Iterable[str]
) -> list[Diagnostic]:
    """An Out into which elements are only scattered or added needs ``partial``, as nothing else writes it: NSA0334 for each other."""
    first: dict[str, ir.Store] = {}
    whole: set[str] = set(partial)
    for node in stores:
        name = bases.get(node.tensor, node.tensor)
        if node.mode == "set":
            whole.add(name)
        else:
            first.setdefault(name, node)
    return [
        Diagnostic(
            "NSA0334",
            f"'{name}' is an Out, which is written in every element, and here it is only {'added to' if node.mode == 'add' else 'scattered into'}",
            node.span,
            helps=(
                f"declare it InOut[…], so that there is something to add to, or say partial({name})"
                if node.mode == "add"
                else f"say partial({name}) before the grid, or declare it InOut[…]",
            ),
        )
        for name, node in first.items()
        if roles[name] == "out" and name not in whole
    ]
