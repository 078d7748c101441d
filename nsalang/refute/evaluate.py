"""Integer and bool IR in Python's integers: exact at any size, None where a value is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, assert_never

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType
from nsalang.ir import integers
from nsalang.ir.operations import UNARY

Number: TypeAlias = "int | float | bool"
Element: TypeAlias = Callable[[str, tuple[int, ...]], "Number | None"]


def no_element(tensor: str, indices: tuple[int, ...]) -> Number | None:
    """Of no element is the value known."""
    return None


def evaluate(node: ir.Expr, names: Mapping[str, Number], element: Element = no_element) -> Number | None:
    """The value of an expression. ``names``: dimensions, scalars, index variables and variables; ``element``: the contents of tensors.

    None: it depends on something unknown, on floating-point arithmetic, or it has no value (a division by 0).
    """
    match node:
        case ir.Const():
            return node.value
        case ir.Dim() | ir.Scalar() | ir.Index() | ir.Var():
            return names.get(node.name)
        case ir.Full():
            return evaluate(node.value, names, element)
        case ir.Load():
            indices = [evaluate(i, names, element) for i in node.indices]
            known = tuple(int(i) for i in indices if i is not None)
            return element(node.tensor, known) if len(known) == len(indices) else None
        case ir.Where():
            cond = evaluate(node.cond, names, element)
            return None if cond is None else evaluate(node.a if cond else node.b, names, element)
        case ir.Unary():
            x, row = evaluate(node.x, names, element), UNARY[node.op]
            if node.op == "neg" and isinstance(x, float):
                return -x
            if x is None or row.integer is None or isinstance(x, float) or node.dtype.is_float:
                return None
            return bool(row.integer(int(x))) if node.dtype is BOOL else _wrapped(row.integer(int(x)), node.dtype)
        case ir.Cast() if node.x.dtype is BOOL or node.x.dtype.is_integer:
            x = evaluate(node.x, names, element)
            if x is None or node.dtype.is_float:
                return None
            return _wrapped(int(x), node.dtype, node.mode == "wrap")
        case ir.Bitcast() if node.x.dtype.is_integer:
            x = evaluate(node.x, names, element)
            return None if x is None else _wrapped(int(x), node.dtype, wraps=True)
        case ir.Border():
            n, parts, g = (evaluate(e, names, element) for e in (node.n, node.parts, node.g))
            if n is None or parts is None or g is None or parts == 0:
                return None
            return int(g) * (int(n) // int(parts)) + min(int(g), int(n) % int(parts))
        case ir.Binary():
            a, b = evaluate(node.a, names, element), evaluate(node.b, names, element)
            return _binary(node, a, b)
        case ir.Cast() | ir.Bitcast():
            return None  # from floats
        case ir.Fma() | ir.Search() | ir.Dot() | ir.Reduce() | ir.Scan() | ir.Spread():
            return None
        case _:
            assert_never(node)


def _binary(node: ir.Binary, a: Number | None, b: Number | None) -> Number | None:
    if node.dtype is BOOL and node.op in ("and", "or"):
        decides = node.op == "or"
        if a is decides or b is decides:
            return decides
    if a is None or b is None:
        return None
    if node.op in ir.COMPARISONS:
        return integers.compare(node.op, a, b)
    if node.dtype is BOOL:
        exact = integers.binary(node.op, int(a), int(b), 1)
        return None if exact is None else bool(exact)
    if node.dtype.is_float or isinstance(a, float) or isinstance(b, float):
        return None
    result = integers.binary(node.op, int(a), int(b), node.dtype.bits)
    return None if result is None else _wrapped(result, node.dtype)


def _wrapped(value: Number, dtype: DType, wraps: bool = False) -> Number:
    if dtype.kind != "unsigned" and not wraps:
        return value
    low = int(dtype.min)
    return (int(value) - low) % (1 << dtype.bits) + low
