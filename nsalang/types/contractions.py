"""Typing of ``dot``: a contraction over one axis that both values have."""

from __future__ import annotations

from nsalang import ir, syntax
from nsalang.base.dtypes import BF16, E4M3, E4M3_FNUZ, F16, F32, I8, I64
from nsalang.base.source import NsaError
from nsalang.types.calls import arguments, axes_argument, choice, keyword, without
from nsalang.types.expressions import describe, narrow_integer, value
from nsalang.types.scope import Operand, Scope


def dot(scope: Scope, node: syntax.Call) -> Operand:
    """``dot(a, b, axis=k, precision=, accumulate=)``. Raises NSA0301, NSA0302, NSA0307, NSA0311, NSA0324."""
    a_node, b_node = arguments(node, 2, 2, ("axis", "precision", "accumulate"))
    a, b = _factor(scope, a_node), _factor(scope, b_node)
    if a.dtype is not b.dtype:
        raise NsaError.at("NSA0301", f"'dot' mixes {describe(a)} with {describe(b)}", node.span, help="convert one side")
    if keyword(node, "axis") is None:
        raise NsaError.at("NSA0311", "'dot' needs axis=…: the axis that both values have and that is summed over", node.span)
    over = axes_argument(scope, node, a)
    if len(over) != 1:
        raise NsaError.at("NSA0311", "'dot' goes over one axis", node.span, help="sum(a * b, axis=(…)) goes over several")
    if over[0] not in b.axes:
        raise NsaError.at("NSA0307", f"the second value has no axis '{ir.plain(over[0])}': it is {describe(b)}", b_node.span)
    precision = choice(scope, node, "precision", ("ieee", "tf32")) or "ieee"
    if precision == "tf32" and a.dtype is not F32:
        raise NsaError.at("NSA0311", f'precision="tf32" is about f32 operands; these are {a.dtype}', node.span, help="leave it out")
    promote = 128 if choice(scope, node, "accumulate", ("f32",)) else 0
    return ir.Dot(
        I64 if a.dtype is I8 else F32, without(scope.join(a, b), over), a, b, over[0],
        precision="tf32" if precision == "tf32" else "ieee", promote=promote, span=node.span,
    )  # fmt: skip


def _factor(scope: Scope, node: syntax.Expr) -> ir.Expr:
    """An operand of a contraction; one of i8 as it was read or converted. Raises NSA0302."""
    v = value(scope, node)
    if narrow_integer(v) is I8:
        assert isinstance(v, ir.Cast)
        return v.x
    if v.dtype not in (BF16, F16, F32, E4M3, E4M3_FNUZ):
        raise NsaError.at("NSA0302", f"'dot' takes bf16, f16, f32, e4m3 or i8; this is {describe(v)}", node.span,
                          help="convert it: i8(x)" if v.dtype is I64 else "convert it: f32(x)")  # fmt: skip
    return v
