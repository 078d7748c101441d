"""The functions of the language: what each takes and what it gives. A new one is a handler here and a row in FUNCTIONS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from nsalang import ir, syntax
from nsalang.base.constants import Exact, negate
from nsalang.base.dtypes import BOOL, F32, I64, U8, DType
from nsalang.base.source import NsaError, Span
from nsalang.ir.operations import FUNCTIONS as OPERATIONS
from nsalang.ir.operations import REDUCTIONS, UNARY
from nsalang.types.calls import arguments, axes_argument, axis_name, flag, keyword, without
from nsalang.types.contractions import dot
from nsalang.types.expressions import (  # fmt: skip
    boolean,
    describe,
    imply_positive,
    integer,
    narrow_integer,
    operand,
    refuse_narrow,
    select,
    unify,
    value,
    wrapped,
)
from nsalang.types.scope import Operand, Scope, TensorRef, as_value

Handler = Callable[[Scope, syntax.Call], "Operand"]


PLACES: Mapping[str, str] = {
    "grid": "it is what a kernel's one parallel 'for' runs over",
    "tile": "it is what a 'for' runs over, or stands in grid(...)",
    "range": "it is what a 'for' runs over",
    "span": "it is assigned to a name alone: n = span(start, length)",
    "require": "it is a statement before the grid",
    "promise": "it is a statement before the grid",
    "partial": "it is a statement before the grid",
    "view": "it is assigned to a name alone, before the grid",
    "empty": "it belongs into a program, a def without a grid",
    "atomic_add": "it is a statement",
    "scatter": "it is a statement",
    "distinct": "it stands alone in promise(…)",
    "sorted": "it stands alone in promise(…)",
    "split": "it gives two values: lo, hi = split(n, parts, g)",
}


# -------------------------------------------------------------------------------------------------------------------- handlers


def _unary(op: ir.UnaryOp) -> Handler:
    def handler(scope: Scope, node: syntax.Call) -> Operand:
        (argument,) = arguments(node, 1, 1)
        x = operand(scope, argument)
        if isinstance(x, Exact) and op == "abs" and not x.is_bool:
            return negate(x) if x.value < 0 else x
        v = as_value(x, argument.span)
        assert isinstance(node.function, syntax.Name)
        row, name = UNARY[op], f"'{node.function.id}'"
        if not v.dtype.is_float and v.dtype not in row.takes:
            raise NsaError.at("NSA0302", f"{name} needs a float; this is {describe(v)}", argument.span, help="convert it: f32(x)")
        refuse_narrow(name, v, argument.span)
        if v.dtype not in row.takes:
            takes = " and ".join(t.name for t in row.takes if t.is_float)
            raise NsaError.at("NSA0302", f"{name} is defined for {takes}; this is {describe(v)}", argument.span, help="convert it: f32(x)")
        return ir.Unary(row.gives or v.dtype, v.axes, op, v, span=node.span)

    return handler


def _pair(op: ir.BinaryOp) -> Handler:
    def handler(scope: Scope, node: syntax.Call) -> Operand:
        left, right = arguments(node, 2, 2)
        return _extremum(scope, op, operand(scope, left), operand(scope, right), left, right, node)

    return handler


def _extremum(
    scope: Scope, op: ir.BinaryOp, a: Operand, b: Operand, a_node: syntax.Expr, b_node: syntax.Expr, node: syntax.Call
) -> Operand:
    if isinstance(a, Exact) and isinstance(b, Exact) and not a.is_bool and not b.is_bool:
        return Exact(max(a.value, b.value) if op == "max" else min(a.value, b.value), a.is_float or b.is_float)
    assert isinstance(node.function, syntax.Name)
    x, y = unify(scope, a, b, a_node, b_node, f"'{node.function.id}'", node.span)
    if x.dtype is BOOL:
        raise NsaError.at("NSA0302", f"'{node.function.id}' needs numbers; this is bool", node.span)
    refuse_narrow(f"'{node.function.id}'", x, node.span)
    return scope.binary(op, x, y, node.span)


def _clamp(scope: Scope, node: syntax.Call) -> Operand:
    x, low, high = arguments(node, 3, 3)
    lifted = _extremum(scope, "max", operand(scope, x), operand(scope, low), x, low, node)
    return _extremum(scope, "min", lifted, operand(scope, high), x, high, node)


def _fma(scope: Scope, node: syntax.Call) -> Operand:
    a, b, c = (as_f32(scope, n) for n in arguments(node, 3, 3))
    return ir.Fma(F32, scope.join(a, b, c), a, b, c, span=node.span)


def as_f32(scope: Scope, node: syntax.Expr) -> ir.Expr:
    """An f32 value; a constant becomes one. Raises NSA0302."""
    found = operand(scope, node)
    if isinstance(found, Exact):
        from nsalang.types.scope import as_dtype

        return as_dtype(found, F32, node.span)
    v = as_value(found, node.span)
    if v.dtype is not F32:
        raise NsaError.at("NSA0302", f"'fma' is defined for f32; this is {describe(v)}", node.span, help="convert it: f32(x)")
    return v


def _where(scope: Scope, node: syntax.Call) -> Operand:
    condition_node, a_node, b_node = arguments(node, 3, 3)
    condition = boolean(scope, condition_node)
    if isinstance(condition, Exact):
        return operand(scope, a_node if condition.value else b_node)
    return select(scope, condition, a_node, b_node, node.span)


def _bitcast(scope: Scope, node: syntax.Call) -> Operand:
    x, to = arguments(node, 2, 2)
    v = value(scope, x)
    dtype = operand(scope, to)
    if not isinstance(dtype, DType):
        raise NsaError.at("NSA0311", "the second argument of 'bitcast' is a dtype", to.span)
    source = narrow_integer(v)
    if source.bits != dtype.bits or BOOL in (source, dtype):
        raise NsaError.at("NSA0329", f"'bitcast' keeps the width: this is {source}, {source.bits} bits, and {dtype} has {dtype.bits}", node.span,
                          help="a computed integer is i64: convert it first, e.g. u32(x)" if source is I64 else None)  # fmt: skip
    inner = v.x if isinstance(v, ir.Cast) and source is not v.dtype else v
    made = ir.Bitcast(dtype, v.axes, inner, span=node.span)
    return ir.Cast(I64, v.axes, made, span=node.span) if dtype.kind == "signed" and dtype is not I64 else made


def _wrap(scope: Scope, node: syntax.Call) -> Operand:
    x, to = arguments(node, 2, 2)
    dtype = operand(scope, to)
    if not isinstance(dtype, DType) or not dtype.is_integer:
        raise NsaError.at("NSA0311", "the second argument of 'wrap' is an integer dtype", to.span)
    v = value(scope, x)
    if not v.dtype.is_integer:
        raise NsaError.at("NSA0329", f"'wrap' is for integers; this is {describe(v)}", x.span)
    return wrapped(v, dtype, node.span)


def _cdiv(scope: Scope, node: syntax.Call) -> Operand:
    a_node, b_node = arguments(node, 2, 2)
    a, b = operand(scope, a_node), operand(scope, b_node)
    if isinstance(a, Exact) and isinstance(b, Exact) and a.is_int and b.is_int and b.value:
        return Exact(Fraction(-(-a.value // b.value)))
    x, y = integer(scope, a_node, "an argument of 'cdiv'"), integer(scope, b_node, "an argument of 'cdiv'")
    imply_positive(scope, y, b_node)
    if _is_size(x) and (isinstance(y, ir.Dim) or (isinstance(y, ir.Const) and y.value > 0)):
        return scope.binary("floordiv", scope.binary("add", x, scope.binary("sub", y, ir.const(1), node.span), node.span), y, node.span)
    # Of data, `x + y - 1` could leave 64 bits where the quotient does not, and is wrong for y < 0.
    rest = scope.binary("ne", scope.binary("mod", x, y, node.span), ir.Const(y.dtype, (), 0), node.span)
    return scope.binary("add", scope.binary("floordiv", x, y, node.span), ir.Cast(I64, rest.axes, rest, span=node.span), node.span)


def _is_size(x: ir.Expr) -> bool:
    """Whether an integer is made of dimensions and index variables, which are far from the ends of 64 bits."""
    return all(isinstance(n, (ir.Const, ir.Dim, ir.Index, ir.Binary)) for n in ir.walk(x))


def _reduction(op: ir.ReduceOp) -> Handler:
    def handler(scope: Scope, node: syntax.Call) -> Operand:
        (argument,) = arguments(node, 1, 1, ("axis",))
        v = value(scope, argument)
        assert isinstance(node.function, syntax.Name)
        name = node.function.id
        over = axes_argument(scope, node, v, all_of_them=True)
        refuse_narrow(f"'{name}'", v, argument.span)
        row = REDUCTIONS[op]
        if BOOL in row.takes and v.dtype is not BOOL:
            raise NsaError.at("NSA0302", f"'{name}' needs bools; this is {describe(v)}", argument.span, help="compare: x != 0")
        if v.dtype is BOOL and BOOL not in row.takes and BOOL not in row.converts:
            raise NsaError.at("NSA0302", f"'{name}' needs numbers; this is {describe(v)}", argument.span)
        v = converted(op, v, name, argument.span)
        if row.picks and len(over) != 1:
            raise NsaError.at("NSA0311", f"'{name}' goes over one axis", node.span)
        return ir.Reduce(row.gives(v.dtype), without(v.axes, over), op, v, over, span=node.span)

    return handler


def converted(op: ir.ReduceOp, v: ir.Expr, name: str, span: Span) -> ir.Expr:
    """What a reduction or a scan takes: a sum adds f16 and bf16 in f32, and bool as an integer."""
    row = REDUCTIONS[op]
    if v.dtype in row.converts:
        return ir.Cast(row.converts[v.dtype], v.axes, v, span=v.span)
    if v.dtype not in row.takes:
        if not v.dtype.is_integer:
            takes = ", ".join(str(d) for d in row.takes)
            raise NsaError.at("NSA0302", f"'{name}' of {v.dtype}: it takes {takes}", span)
        raise NsaError.at("NSA0302", f"'{name}' of {v.dtype} would wrap at {v.dtype.bits} bits", span, help="convert it: i64(x) or u32(x)")
    return v


def _cumsum(scope: Scope, node: syntax.Call) -> Operand:
    (argument,) = arguments(node, 1, 1, ("axis", "exclusive", "reverse"))
    v = value(scope, argument)
    refuse_narrow("'cumsum'", v, argument.span)
    over = axes_argument(scope, node, v)
    if len(over) != 1:
        raise NsaError.at("NSA0311", "'cumsum' goes over one axis", node.span)
    v = converted("sum", v, "cumsum", argument.span)
    return ir.Scan(v.dtype, v.axes, v, over[0], flag(scope, node, "exclusive"), flag(scope, node, "reverse"), span=node.span)


def _rank(scope: Scope, node: syntax.Call) -> Operand:
    (argument,) = arguments(node, 1, 1, ("axis",))
    v = value(scope, argument)
    if v.dtype is not BOOL:
        raise NsaError.at("NSA0302", f"'rank' needs a mask of bools; this is {describe(v)}", argument.span)
    over = axes_argument(scope, node, v)
    return ir.Scan(I64, v.axes, ir.Cast(I64, v.axes, v, span=v.span), over[0], exclusive=True, span=node.span)


def _filled(scope: Scope, node: syntax.Call) -> Operand:
    assert isinstance(node.function, syntax.Name)
    full = node.function.id == "full"
    given = arguments(node, 2 if full else 1, 99, ("dtype",))
    axes = tuple(axis_name(scope, a) for a in (given[:-1] if full else given))
    dtype_node = keyword(node, "dtype")
    dtype = operand(scope, dtype_node) if dtype_node is not None else None
    if dtype is not None and not isinstance(dtype, DType):
        raise NsaError.at("NSA0311", "dtype=… must be a dtype", node.span)
    from nsalang.types.scope import as_dtype

    if full:
        found = operand(scope, given[-1])
        if isinstance(found, Exact):
            wide = dtype or (BOOL if found.is_bool else F32 if found.is_float else I64)
            fill: ir.Expr = as_dtype(found, wide, given[-1].span)
        else:
            fill = as_value(found, given[-1].span)
            if dtype is not None and fill.dtype is not dtype:
                raise NsaError.at("NSA0301", f"the value is {describe(fill)}, and dtype={dtype}", given[-1].span)
    else:
        wide = dtype or F32
        fill = ir.Const(wide, (), False if wide is BOOL else 0.0 if wide.is_float else 0, span=node.span)
    if fill.dtype.kind == "signed" and fill.dtype is not I64:
        fill = ir.Const(I64, (), fill.value, span=node.span) if isinstance(fill, ir.Const) else fill
    wanted = ir.join(axes, fill.axes, order=tuple(scope.order))
    return ir.Full(fill.dtype, wanted, fill, span=node.span)


def _searchsorted(scope: Scope, node: syntax.Call) -> Operand:
    from nsalang.types.declarations import sorted_promise

    tensor_node, value_node = arguments(node, 2, 2)
    ref = operand(scope, tensor_node)
    if not isinstance(ref, TensorRef) or len(ref.shape) != 1:
        raise NsaError.at("NSA0311", "'searchsorted' takes a tensor of one axis first", tensor_node.span)
    if ref.role == "out":
        raise NsaError.at("NSA0318", f"'{ref.name}' is an Out: it is written, not read", tensor_node.span, help="InOut[…] may be read")
    if all(p.kind != "sorted" or p.tensors != (ref.name,) for p in scope.promises):
        scope.promises.append(sorted_promise(ref, tensor_node.span, f"sorted({ref.name})", implied=True))
    element = ir.Load(I64 if ref.dtype.kind == "signed" else ref.dtype, (), ref.name, ())
    _, x = unify(scope, element, operand(scope, value_node), tensor_node, value_node, "'searchsorted'", node.span)
    if x.dtype is not element.dtype:
        raise NsaError.at("NSA0301", f"'{ref.name}' holds {ref.dtype}, and the value is {describe(x)}", value_node.span)
    return ir.Search(I64, x.axes, ref.name, x, scope.guard(x.axes), span=node.span)


def split_bounds(scope: Scope, node: syntax.Call) -> tuple[ir.Expr, ir.Expr]:
    """``lo, hi = split(n, parts, g)``: part ``g`` of ``n`` things in ``parts`` even parts."""
    n, parts, g = (integer(scope, a, "an argument of 'split'") for a in arguments(node, 3, 3))
    if isinstance(parts, ir.Const) and parts.value == 0:
        raise NsaError.at("NSA0326", "this divides by zero", node.arguments[1].span)
    imply_positive(scope, parts, node.arguments[1])
    after = scope.binary("add", g, ir.const(1, span=node.span), node.span)
    return _border(scope, n, parts, g, node.span), _border(scope, n, parts, after, node.span)


def _border(scope: Scope, n: ir.Expr, parts: ir.Expr, g: ir.Expr, span: Span) -> ir.Expr:
    if not scope.in_declarations:
        return ir.Border(I64, scope.join(n, parts, g), n, parts, g, span=span)
    # Before the grid it may become an extent, which the host computes.
    whole, rest = scope.binary("floordiv", n, parts, span), scope.binary("mod", n, parts, span)
    return scope.binary("add", scope.binary("mul", g, whole, span), scope.binary("min", g, rest, span), span)


# ------------------------------------------------------------------------------------------- typed now, lowered by a later part


def _placeholder(dtype: DType, axes: tuple[str, ...], span: Span) -> ir.Expr:
    return ir.Full(dtype, axes, ir.Const(dtype, (), False if dtype is BOOL else 0.0 if dtype.is_float else 0), span=span)


def _take(scope: Scope, node: syntax.Call) -> Operand:
    (argument,) = arguments(node, 1, 1, tuple(k.name for k in node.keywords))
    v = value(scope, argument)
    if len(node.keywords) != 1:
        raise NsaError.at("NSA0311", "'take' names one axis: take(v, n=e)", node.span)
    chosen = node.keywords[0]
    axis = axis_name(scope, syntax.Name(chosen.name, span=chosen.name_span))
    if axis not in v.axes:
        raise NsaError.at("NSA0307", f"the value has no axis '{chosen.name}': it is {describe(v)}", chosen.name_span)
    at = integer(scope, chosen.value, "a lane")
    scope.later("'take'", node.span)
    return _placeholder(v.dtype, ir.join(without(v.axes, (axis,)), at.axes, order=tuple(scope.order)), node.span)


def _rename(scope: Scope, node: syntax.Call) -> Operand:
    v_node, old_node, new_node = arguments(node, 3, 3)
    v, old, new = value(scope, v_node), axis_name(scope, old_node), axis_name(scope, new_node)
    if old not in v.axes:
        raise NsaError.at("NSA0307", f"the value has no axis '{ir.plain(old)}': it is {describe(v)}", old_node.span)
    scope.later("'rename'", node.span)
    return _placeholder(v.dtype, ir.join(without(v.axes, (old,)), (new,), order=tuple(scope.order)), node.span)


def _histogram(scope: Scope, node: syntax.Call) -> Operand:
    x_node, bin_node = arguments(node, 2, 2, ("axis", "where"))
    x = integer(scope, x_node, "a bin")
    over, bins = axes_argument(scope, node, x), axis_name(scope, bin_node)
    scope.later("'histogram'", node.span)
    return _placeholder(I64, ir.join(without(x.axes, over), (bins,), order=tuple(scope.order)), node.span)


def _pack(scope: Scope, node: syntax.Call) -> Operand:
    low, high = (value(scope, n) for n in arguments(node, 2, 2))
    scope.later("'pack'", node.span)
    return _placeholder(U8, scope.join(low, high), node.span)


FUNCTIONS: Mapping[str, Handler] = {
    **{name: _unary(name) for name in OPERATIONS},
    **{name: _reduction(name) for name in REDUCTIONS},
    "maximum": _pair("max"), "minimum": _pair("min"), "clamp": _clamp, "fma": _fma, "where": _where, "bitcast": _bitcast, "wrap": _wrap,
    "cdiv": _cdiv, "cumsum": _cumsum, "rank": _rank, "zeros": _filled, "full": _filled, "dot": dot, "searchsorted": _searchsorted,
    "take": _take, "rename": _rename, "histogram": _histogram, "pack": _pack,
}  # fmt: skip
