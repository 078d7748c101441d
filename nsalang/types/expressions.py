"""Typing of expressions: syntax in, typed IR out. Which operand takes whose dtype, what may be mixed, and which accesses a guard protects."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from nsalang import ir, syntax
from nsalang.base.constants import Exact, arithmetic, compare, negate
from nsalang.base.dtypes import BOOL, F32, I64, DType
from nsalang.base.source import NsaError, Span
from nsalang.types.habits import OTHERWISE
from nsalang.types.scope import Nothing, Operand, Scope, TensorRef, as_dtype, as_value, unknown

ARITHMETIC: dict[str, ir.BinaryOp] = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod",
    "&": "and", "|": "or", "^": "xor", "<<": "shl", ">>": "shr",
}  # fmt: skip
COMPARISON: dict[str, ir.BinaryOp] = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}


def operand(scope: Scope, node: syntax.Expr) -> Operand:
    """What an expression is: a constant, a value, a dtype, a tensor, or None."""
    match node:
        case syntax.Number():
            return Exact(node.value, node.is_float)
        case syntax.Bool():
            return Exact(node.value)
        case syntax.NoneLiteral():
            return Nothing()
        case syntax.Name():
            return _renamed(scope.lookup(node.id, node.span), node.span)
        case syntax.Paren():
            return operand(scope, node.value)
        case syntax.Unary():
            return _unary(scope, node)
        case syntax.Binary():
            return _logic(scope, node) if node.op in ("and", "or") else _binary(scope, node)
        case syntax.Compare():
            return _compare(scope, node)
        case syntax.Conditional():
            return _conditional(scope, node)
        case syntax.Call():
            return scope.call(scope, node)
        case syntax.Subscript():
            return load(scope, node)
        case syntax.Attribute():
            return _attribute(scope, node)
        case syntax.String():
            raise NsaError.at("NSA0330", "a string has no value here", node.span)
        case syntax.Slice():
            raise NsaError.at("NSA0320", "nsalang has no slices: index with an axis", node.span, help="n = span(start, length), then x[n]")
        case syntax.Tuple():
            raise NsaError.at("NSA0325", "one value is expected here, not several", node.span)


def value(scope: Scope, node: syntax.Expr) -> ir.Expr:
    """An expression as a typed value."""
    return as_value(operand(scope, node), node.span)


def _renamed(found: Operand, span: Span) -> Operand:
    return replace(found, span=span) if isinstance(found, get_args(ir.Expr)) else found


def boolean(scope: Scope, node: syntax.Expr) -> Exact | ir.Expr:
    """A condition: a bool constant or a bool value. Raises NSA0309."""
    found = operand(scope, node)
    if isinstance(found, Exact) and found.is_bool:
        return found
    made = as_value(found, node.span)
    if made.dtype is not BOOL:
        raise NsaError.at("NSA0309", f"a condition must be bool; this is {describe(made)}", node.span, help="compare it, e.g. '!= 0'")
    return made


def integer(scope: Scope, node: syntax.Expr, what: str) -> ir.Expr:
    """An integer value, as i64. Raises NSA0304."""
    made = value(scope, node)
    if not made.dtype.is_integer:
        raise NsaError.at("NSA0304", f"{what} must be an integer; this is {describe(made)}", node.span)
    return made if made.dtype is I64 else ir.Cast(I64, made.axes, made, span=node.span)


def describe(v: ir.Expr) -> str:
    """A type in words: ``f32 over (m, n)``."""
    return f"{v.dtype} over ({', '.join(ir.plain(a) for a in v.axes)})" if v.axes else f"{v.dtype}"


# ----------------------------------------------------------------------------------------------------------- two sides, one dtype


def unify(scope: Scope, a: Operand, b: Operand, a_node: syntax.Expr, b_node: syntax.Expr, what: str, span: Span) -> tuple[ir.Expr, ir.Expr]:
    """Both sides in one dtype: a constant takes the other's, an integer beside a float becomes the float. Raises NSA0301, NSA0302, NSA0327."""
    if isinstance(a, Exact) and isinstance(b, Exact):
        # Both are bool, or neither; as_dtype refuses the rest.
        plain = as_value(a, a_node.span), as_value(b, b_node.span)
        common = plain[0].dtype if plain[0].dtype is plain[1].dtype else BOOL if a.is_bool or b.is_bool else F32
        return as_dtype(a, common, a_node.span), as_dtype(b, common, b_node.span)
    if isinstance(a, Exact):
        right = as_value(b, b_node.span)
        return _constant_beside(a, right, a_node.span)
    if isinstance(b, Exact):
        left = as_value(a, a_node.span)
        right, left = _constant_beside(b, left, b_node.span)
        return left, right
    left, right = as_value(a, a_node.span), as_value(b, b_node.span)
    if left.dtype is right.dtype:
        return left, right
    if left.dtype.is_float and right.dtype.is_integer:
        return left, ir.Cast(left.dtype, right.axes, right, span=right.span)
    if right.dtype.is_float and left.dtype.is_integer:
        return ir.Cast(right.dtype, left.axes, left, span=left.span), right
    if left.dtype.is_integer and right.dtype.is_integer:
        if right.dtype is I64 and _is_dimension(right):
            return left, ir.Cast(left.dtype, right.axes, right, "wrap", span=right.span)
        if left.dtype is I64 and _is_dimension(left):
            return ir.Cast(right.dtype, left.axes, left, "wrap", span=left.span), right
        raise NsaError.at("NSA0327", f"{what} mixes {left.dtype} with {right.dtype}: unsigned values wrap, signed ones don't", span,
                          help="convert one side, e.g. i64(x) or u32(x)")  # fmt: skip
    raise NsaError.at("NSA0301", f"{what} mixes {describe(left)} with {describe(right)}", span, help="convert one side, e.g. f32(x)")


def _constant_beside(constant: Exact, other: ir.Expr, span: Span) -> tuple[ir.Expr, ir.Expr]:
    if constant.is_float and other.dtype.is_integer:
        return as_dtype(constant, F32, span), ir.Cast(F32, other.axes, other, span=other.span)
    return as_dtype(constant, other.dtype, span), other


def _is_dimension(v: ir.Expr) -> bool:
    return all(isinstance(n, (ir.Dim, ir.Const, ir.Binary)) for n in ir.walk(v))


def refuse_narrow(what: str, v: ir.Expr, span: Span) -> None:
    """fp8 values must be converted before any arithmetic. Raises NSA0302."""
    if v.dtype.is_float and v.dtype.bits < 16:
        raise NsaError.at("NSA0302", f"{what} is not defined for {v.dtype}", span, help="convert it first: f32(x)")


def _binary(scope: Scope, node: syntax.Binary) -> Operand:
    a, b = operand(scope, node.left), operand(scope, node.right)
    if isinstance(a, Exact) and isinstance(b, Exact):
        return arithmetic(node.op, a, b, node.op_span)
    if node.op == "**":
        raise NsaError.at("NSA0312", "'**' is for constant expressions", node.op_span, help="exp2(x), or a product")
    op = ARITHMETIC[node.op]
    if op in ("shl", "shr"):
        left, amount = as_value(a, node.left.span), as_value(b, node.right.span)
        if not left.dtype.is_integer or not amount.dtype.is_integer:
            raise NsaError.at("NSA0302", f"'{node.op}' needs integers; this is {describe(left)} and {describe(amount)}", node.op_span)
        amount = amount if amount.dtype in (I64, left.dtype) else ir.Cast(I64, amount.axes, amount, span=amount.span)
        return scope.binary(op, left, amount, node.span)
    left, right = unify(scope, a, b, node.left, node.right, f"'{node.op}'", node.op_span)
    kind = left.dtype.kind
    if op in ("and", "or", "xor"):
        if kind == "float":
            raise NsaError.at("NSA0302", f"'{node.op}' needs bools or integers; this is {describe(left)}", node.op_span)
        return scope.binary(op, left, right, node.span)
    if kind == "bool":
        raise NsaError.at("NSA0302", f"'{node.op}' needs numbers; this is bool", node.op_span, help="i64(x) makes 0 or 1 of it")
    refuse_narrow(f"'{node.op}'", left, node.op_span)
    if op == "div" and kind in ("signed", "unsigned"):
        left, right = (ir.Cast(F32, v.axes, v, span=v.span) for v in (left, right))
    if op in ("floordiv", "mod"):
        if kind == "float":
            raise NsaError.at("NSA0302", f"'{node.op}' needs integers; this is {left.dtype}", node.op_span, help="floor(x / y)")
        if isinstance(right, ir.Const) and right.value == 0:
            raise NsaError.at("NSA0326", "this divides by zero", node.op_span)
        imply_positive(scope, right, node.right)
    return scope.binary(op, left, right, node.span)


def imply_positive(scope: Scope, divisor: ir.Expr, node: syntax.Expr) -> None:
    """Dividing by a dimension implies ``require(N > 0)``."""
    if isinstance(divisor, ir.Dim):
        condition = ir.binary("gt", divisor, ir.const(0), span=node.span)
        if all(r.condition != condition for r in scope.requires):
            scope.requires.append(ir.Require(condition, f"{divisor.name} > 0", because="a division", span=node.span))


def _unary(scope: Scope, node: syntax.Unary) -> Operand:
    if node.op == "not":
        condition = boolean(scope, node.value)
        if isinstance(condition, Exact):
            return Exact(not condition.value)
        if condition.axes:
            raise NsaError.at("NSA0310", f"'not' is for scalars; this is {describe(condition)}", node.span, help="~x, element by element")
        return scope.negation(condition)
    found = operand(scope, node.value)
    if isinstance(found, Exact):
        if found.is_bool:
            raise NsaError.at("NSA0302", f"'{node.op}' has no meaning for a bool constant", node.span)
        if node.op == "~":
            return arithmetic("-", Exact(-found.value), Exact(type(found.value)(1)), node.span)  # ~x is -x - 1
        return negate(found) if node.op == "-" else found
    v = as_value(found, node.value.span)
    refuse_narrow(f"'{node.op}'", v, node.span)
    if node.op == "~":
        if v.dtype.is_float:
            raise NsaError.at("NSA0302", f"'~' needs bools or integers; this is {describe(v)}", node.span)
        if v.dtype.kind == "signed":
            return scope.binary("sub", ir.const(-1, I64, node.span), v, node.span)
        return ir.Unary(v.dtype, v.axes, "not" if v.dtype is BOOL else "invert", v, span=node.span)
    if v.dtype is BOOL:
        raise NsaError.at("NSA0302", f"'{node.op}' needs a number; this is bool", node.span)
    return ir.Unary(v.dtype, v.axes, "neg", v, span=node.span) if node.op == "-" else v


def _logic(scope: Scope, node: syntax.Binary) -> Operand:
    left = boolean(scope, node.left)
    if isinstance(left, Exact):
        decides = left.value if node.op == "or" else not left.value
        return left if decides else boolean(scope, node.right)
    with scope.under(left if node.op == "and" else scope.negation(left)):
        right = boolean(scope, node.right)
    for v, where in ((left, node.left), (right, node.right)):
        if not isinstance(v, Exact) and v.axes:
            symbol = "&" if node.op == "and" else "|"
            raise NsaError.at(
                "NSA0310", f"'{node.op}' is for scalars; this is {describe(v)}", where.span, help=f"(a) {symbol} (b), element by element"
            )
    return scope.binary("and" if node.op == "and" else "or", left, as_value(right, node.right.span), node.span)


def _compare(scope: Scope, node: syntax.Compare) -> Operand:
    total: Operand | None = None
    left_node, left = node.first, operand(scope, node.first)
    for op, right_node in zip(node.ops, node.rest, strict=True):
        right = operand(scope, right_node)
        if op in ("is", "is not"):
            if not isinstance(right, Nothing):
                raise NsaError.at("NSA0311", "'is' is only for 'is None' and 'is not None'", right_node.span)
            one: Operand = Exact(isinstance(left, Nothing) == (op == "is"))
        elif isinstance(left, Exact) and isinstance(right, Exact):
            one = Exact(compare(op, left, right))
        elif isinstance(left, DType) and isinstance(right, DType):
            one = Exact((left is right) == (op == "=="))
        else:
            a, b = unify(scope, left, right, left_node, right_node, f"'{op}'", node.span)
            if a.dtype is BOOL and op not in ("==", "!="):
                raise NsaError.at("NSA0302", f"'{op}' needs numbers; this is bool", node.span)
            refuse_narrow(f"'{op}'", a, left_node.span)
            one = scope.binary(COMPARISON[op], a, b, node.span)
        if total is None:
            total = one
        elif isinstance(total, Exact) and isinstance(one, Exact):
            total = Exact(bool(total.value) and bool(one.value))
        else:
            total = scope.binary("and", as_value(total, node.span), as_value(one, node.span), node.span)
        left_node, left = right_node, right
    assert total is not None
    return total


def select(scope: Scope, condition: ir.Expr, a_node: syntax.Expr, b_node: syntax.Expr, span: Span) -> ir.Expr:
    """``where(condition, a, b)``: what is written inside ``a`` is guarded by the condition, what is inside ``b`` by its negation."""
    with scope.under(condition):
        a = operand(scope, a_node)
    with scope.under(scope.negation(condition)):
        b = operand(scope, b_node)
    left, right = unify(scope, a, b, a_node, b_node, "the choice", span)
    return ir.Where(left.dtype, scope.join(condition, left, right), condition, left, right, span=span)


def _conditional(scope: Scope, node: syntax.Conditional) -> Operand:
    condition = boolean(scope, node.condition)
    if isinstance(condition, Exact):
        return operand(scope, node.value if condition.value else node.other)
    return select(scope, condition, node.value, node.other, node.span)


def _attribute(scope: Scope, node: syntax.Attribute) -> Operand:
    base = operand(scope, node.value)
    if isinstance(base, DType) and node.name in ("max", "min"):
        limit = base.max if node.name == "max" else base.min
        if base is BOOL:
            raise NsaError.at("NSA0205", "bool has no limits", node.span)
        if base.name == "e4m3":
            limit = scope.target.facts.e4m3.max if node.name == "max" else scope.target.facts.e4m3.min
        return Exact(limit, base.is_float)
    if isinstance(base, DType):
        raise unknown("attribute", node.name, node.span, ["max", "min"], "NSA0205")
    if isinstance(base, TensorRef):
        if node.name in ("shape", "size", "ndim"):
            help: str | None = f"the extents of '{base.name}' have names: {', '.join(base.extents)}"
        else:
            help = OTHERWISE.get(node.name)
        raise NsaError.at("NSA0205", f"'{base.name}' has no attribute '{node.name}'", node.span, help=help)
    raise NsaError.at("NSA0205", f"this has no attribute '{node.name}'", node.span, help="only dtypes have: f32.max, f32.min")


# ---------------------------------------------------------------------------------------------------------------------- accesses


def place(scope: Scope, node: syntax.Subscript) -> tuple[TensorRef, tuple[ir.Expr, ...]]:
    """The tensor and the indices of an access. Raises NSA0303, NSA0304, NSA0320."""
    base = operand(scope, node.value)
    if isinstance(base, Nothing):
        raise NsaError.at("NSA0322", "this optional parameter is absent here", node.value.span, help="test it with 'is not None' first")
    if not isinstance(base, TensorRef):
        raise NsaError.at("NSA0303", "only tensors can be indexed", node.value.span)
    for index in node.indices:
        if isinstance(index, syntax.Slice):
            operand(scope, index)
    if len(node.indices) != len(base.shape):
        axes = ", ".join(base.extents)
        raise NsaError.at(
            "NSA0303",
            f"'{base.name}' has {len(base.shape)} axes [{axes}], and {len(node.indices)} {'index is' if len(node.indices) == 1 else 'indices are'} given",
            node.span,
        )
    return base, tuple(_index(scope, i, extent) for i, extent in zip(node.indices, base.extents, strict=True))


def _index(scope: Scope, node: syntax.Expr, extent: str) -> ir.Expr:
    """One index of an access, on an axis of that extent."""
    if isinstance(node, syntax.NoneLiteral):
        raise NsaError.at("NSA0304", "None is no index", node.span, help="leave it out: values broadcast by the names of their axes")
    try:
        return integer(scope, node, "an index")
    except NsaError as error:
        first = error.diagnostics[0]
        if isinstance(node, syntax.Name) and first.code == "NSA0201" and not first.notes and not first.helps:
            help = f"an axis is made by a loop or a span: 'for {node.id} in tile({extent}):', '{node.id} = span({extent})'"
            raise NsaError.at(first.code, first.sentence, first.span, help=help) from None
        raise


def load(scope: Scope, node: syntax.Subscript) -> ir.Expr:
    """A read ``x[i, j]``; signed integers come as i64."""
    ref, indices = place(scope, node)
    if ref.role == "out":
        what = f"a view of the Out '{ref.base}'" if ref.base else "an Out"
        raise NsaError.at("NSA0318", f"'{ref.name}' is {what}: it is written, not read", node.span, help="InOut[…] may be read")
    axes = scope.join(*indices)
    made = ir.Load(ref.dtype, axes, ref.name, indices, scope.guard(axes), span=node.span)
    if ref.dtype.kind == "signed" and ref.dtype is not I64:
        return ir.Cast(I64, axes, made, span=node.span)
    return made


def convert(scope: Scope, v: ir.Expr, dtype: DType, span: Span) -> ir.Expr:
    """``dtype(v)``; the result of a signed dtype is i64 again, having been checked or saturated to its range."""
    if v.dtype is dtype and dtype is not I64:
        return v
    if dtype is BOOL:
        raise NsaError.at("NSA0329", f"{v.dtype} can't be converted to bool", span, help="compare it: x != 0")
    if v.dtype is BOOL and dtype.is_float and dtype.bits < 16:
        raise NsaError.at("NSA0329", f"bool can't be converted to {dtype}", span)
    if dtype.kind == "signed":
        if dtype is I64:
            return v if v.dtype is I64 else ir.Cast(I64, v.axes, v, span=span)
        return ir.Cast(I64, v.axes, ir.Cast(dtype, v.axes, v, span=span), span=span)
    return ir.Cast(dtype, v.axes, v, "wrap" if dtype.kind == "unsigned" and v.dtype.is_integer else "convert", span=span)


def wrapped(v: ir.Expr, dtype: DType, span: Span) -> ir.Expr:
    """``wrap(v, dtype)``: modulo 2**bits."""
    made = ir.Cast(dtype, v.axes, v, "wrap", span=span)
    return ir.Cast(I64, v.axes, made, span=span) if dtype.kind == "signed" and dtype is not I64 else made


def narrow_integer(v: ir.Expr) -> DType:
    """The dtype in which a signed value was stored or converted last: i32 for a read of an i32 tensor, else i64."""
    if isinstance(v, ir.Cast) and v.dtype is I64 and v.x.dtype.kind == "signed":
        return v.x.dtype
    return v.dtype
