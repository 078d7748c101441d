"""What a call in a kernel gives, by what its name stands for: a function of the language, a helper of the file, a dtype."""

from __future__ import annotations

from nsalang import ir, syntax
from nsalang.base.constants import Exact
from nsalang.base.dtypes import ALL, E2M1, E4M3, I64, DType
from nsalang.base.source import NsaError
from nsalang.types import habits
from nsalang.types.calls import arguments
from nsalang.types.expressions import (  # fmt: skip
    convert,
    operand,
)
from nsalang.types.functions import FUNCTIONS, PLACES
from nsalang.types.scope import Operand, Scope, as_dtype, as_value
from nsalang.types.statements import inline


def call(scope: Scope, node: syntax.Call) -> Operand:
    """The value of a call. Raises NSA0201 for an unknown function, NSA0311 for wrong arguments."""
    if not isinstance(node.function, syntax.Name):
        raise NsaError.at("NSA0311", "only functions and dtypes can be called", node.function.span, help=_unqualified(node.function))
    name = node.function.id
    bound = scope.names.get(name)
    if bound is None and name in FUNCTIONS:
        return FUNCTIONS[name](scope, node)
    if bound is None and name in PLACES:
        raise NsaError.at("NSA0317", f"'{name}' can't stand here: {PLACES[name]}", node.span)
    if bound is None and name in scope.functions:
        found_values = inline(scope, node, scope.functions[name])
        if len(found_values) != 1:
            raise NsaError.at("NSA0325", f"one value is expected here, and '{name}' returns {len(found_values)}", node.span)
        return found_values[0]
    if bound is None and name not in scope.ended:
        dtypes = (n for n, v in scope.names.items() if isinstance(v, DType))
        raise scope.unknown("function", name, node.function.span, [*FUNCTIONS, *PLACES, *scope.functions, *dtypes])
    found = scope.lookup(name, node.function.span)
    if not isinstance(found, DType):
        raise NsaError.at("NSA0311", f"'{name}' is no function", node.function.span)
    (argument,) = arguments(node, 1, 1)
    x = operand(scope, argument)
    dtype = scope.target.facts.e4m3 if found is E4M3 else found
    if isinstance(x, Exact) and not x.is_bool and (dtype.is_float or (dtype.is_integer and not x.is_float)):
        made = as_dtype(x, dtype, node.span)
        return made if dtype.kind != "signed" else ir.Const(I64, (), made.value, span=node.span)
    if dtype in (E2M1,) or dtype.name == "e8m0":
        scope.later(f"the conversion to {dtype}", node.span)
    return convert(scope, as_value(x, argument.span), dtype, node.span)


def _unqualified(function: syntax.Expr) -> str | None:
    """What stands for ``torch.exp(…)`` and ``x[m].float()``: functions and dtypes have plain names, and are no methods."""
    if not isinstance(function, syntax.Attribute):
        return None
    if function.name in FUNCTIONS or function.name in PLACES or function.name in ALL:
        return f"functions have plain names: {function.name}(…)"
    dtype = habits.DTYPES.get(function.name)
    return f"a conversion is {dtype}(x)" if dtype is not None else habits.OTHERWISE.get(function.name)
