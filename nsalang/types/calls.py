"""What a call in a kernel's text gives: arguments in their number, keyword arguments, axes by name."""

from __future__ import annotations

from nsalang import ir, syntax
from nsalang.base.constants import Exact
from nsalang.base.dtypes import DType
from nsalang.base.source import NsaError
from nsalang.types.expressions import describe, operand
from nsalang.types.scope import Scope, unknown


def arguments(node: syntax.Call, low: int, high: int, keywords: tuple[str, ...] = ()) -> tuple[syntax.Expr, ...]:
    """The positional arguments, their number and the keywords being right. Raises NSA0311."""
    assert isinstance(node.function, syntax.Name)
    name = node.function.id
    count = len(node.arguments)
    for keyword in node.keywords:  # first: what is given by name is missing by position
        if keyword.name not in keywords:
            known = f"'{name}' takes {', '.join(f'{k}=…' for k in keywords) or 'no keyword arguments'}"
            raise unknown("keyword argument", keyword.name, keyword.name_span, list(keywords), "NSA0311", note=known)
    if not low <= count <= high:
        wanted = f"{low}" if low == high else f"{low} to {high}"
        help = f"to combine two values element by element: {name}imum(a, b)" if name in ("max", "min") and count > 1 else None
        if name == "range" and count > high:
            help = "a loop goes in steps of 1: compute lo + i * step in it"
        given = f"{count} {'is' if count == 1 else 'are'} given"
        raise NsaError.at("NSA0311", f"'{name}' takes {wanted} argument{'' if wanted == '1' else 's'}, and {given}", node.span, help=help)
    return node.arguments


def keyword(node: syntax.Call, name: str) -> syntax.Expr | None:
    """The value of a keyword argument, if given."""
    return next((k.value for k in node.keywords if k.name == name), None)


def axes_argument(scope: Scope, node: syntax.Call, v: ir.Expr, all_of_them: bool = False) -> tuple[str, ...]:
    """``axis=n`` or ``axis=(m, n)``: axes that the value carries; without it ``all_of_them``, where that is allowed.
    Raises NSA0307, NSA0311, NSA0324."""
    given = keyword(node, "axis")
    assert isinstance(node.function, syntax.Name)
    if given is None and not all_of_them:
        raise NsaError.at("NSA0311", f"'{node.function.id}' needs axis=…", node.span, help=f"the value is {describe(v)}")
    if given is None and not v.axes:
        raise NsaError.at("NSA0307", f"'{node.function.id}' goes over axes, and this value has none: it is {describe(v)}", node.span)
    inner = given.value if isinstance(given, syntax.Paren) else given
    items = (node,) * len(v.axes) if inner is None else inner.items if isinstance(inner, syntax.Tuple) else (inner,)
    over = v.axes if inner is None else tuple(axis_name(scope, item, v) for item in items)
    for axis, item in zip(over, items, strict=True):
        if axis not in v.axes:
            raise NsaError.at("NSA0307", f"the value has no axis '{ir.plain(axis)}': it is {describe(v)}", item.span)
        if axis in scope.lanes:
            raise NsaError.at("NSA0324", f"a reduction over '{ir.plain(axis)}' can't stand under a condition that has this axis", item.span,
                              help="reduce where(condition, x, …) instead")  # fmt: skip
        for guard in scope.guards:
            if axis in guard.axes:
                raise NsaError.at(
                    "NSA0324", f"'{ir.plain(axis)}' is reduced inside, so the condition around it can't have this axis", item.span
                )
    if len(set(over)) != len(over):
        raise NsaError.at("NSA0311", "an axis is named twice", node.span if given is None else given.span)
    return over


def axis_name(scope: Scope, node: syntax.Expr, v: ir.Expr | None = None) -> str:
    """A name that stands for an axis, of the value ``v`` where there is one."""
    inner = node.value if isinstance(node, syntax.Paren) else node
    if isinstance(inner, syntax.Tuple):
        raise NsaError.at("NSA0325", "one axis is expected here, not several", node.span, help="axes stand side by side: zeros(m, n)")
    found = operand(scope, node)
    if isinstance(found, ir.Index) and found.axes:
        return found.name
    help = (
        f"the value is {describe(v)}" if v is not None else f"a dtype is given by name: dtype={found}" if isinstance(found, DType) else None
    )
    raise NsaError.at("NSA0307", "an axis is named by its index variable, a tile or a span", node.span, help=help)


def without(axes: tuple[str, ...], over: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(a for a in axes if a not in over)


def flag(scope: Scope, node: syntax.Call, name: str) -> bool:
    given = keyword(node, name)
    if given is None:
        return False
    found = operand(scope, given)
    if not isinstance(found, Exact) or not found.is_bool:
        raise NsaError.at("NSA0312", f"'{name}' must be a constant bool", given.span)
    return bool(found.value)


def choice(scope: Scope, node: syntax.Call, name: str, allowed: tuple[str, ...]) -> str | None:
    """The text of a keyword argument that names one of a few ways, if given. Raises NSA0311."""
    given = keyword(node, name)
    if given is None:
        return None
    if not isinstance(given, syntax.String) or given.value not in allowed:
        texts = " or ".join(f'"{a}"' for a in allowed)
        raise NsaError.at("NSA0311", f"'{name}' is {texts}", given.span)
    return given.value
