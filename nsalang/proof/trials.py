"""Integer and bool expressions evaluated on given symbols: what is constant needs no reasoning, and what is satisfiable often has a small witness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType
from nsalang.ir import integers
from nsalang.ir.operations import UNARY

SMALL = (1, 0, 2, 64, 128, 512, 1024, 3, 4096, 65536)
MOST_TRIALS = 4000


class Open(Exception):
    """The value depends on what is not given, or there is none."""


def evaluate(e: ir.Expr, values: Mapping[str, int]) -> int:
    """The value of an integer or bool expression, bools as 0 and 1; a tensor's value is that of its elements. Raises Open."""
    match e:
        case ir.Const() if not e.dtype.is_float:
            return int(e.value)
        case ir.Dim() | ir.Scalar() if e.name in values:
            return values[e.name]
        case ir.Load(tensor=name) if name in values and e.dtype.kind != "float":
            return values[name]
        case ir.Index() if e.name.startswith("each") and values:
            return 0
        case ir.Full():
            return evaluate(e.value, values)
        case ir.Unary() if e.dtype.kind in ("signed", "bool") and (integer := UNARY[e.op].integer) is not None:
            return integer(evaluate(e.x, values))
        case ir.Where():
            return evaluate(e.a if evaluate(e.cond, values) else e.b, values)
        case ir.Cast(mode="convert") if (e.dtype.kind == "signed") and (e.x.dtype.is_integer or e.x.dtype is BOOL):
            return evaluate(e.x, values)
        case ir.Binary(op="and" | "or") if e.dtype is BOOL:
            a = evaluate(e.a, values)
            return evaluate(e.b, values) if bool(a) == (e.op == "and") else a
        case ir.Binary() if e.a.dtype.kind in ("signed", "bool"):
            a, b = evaluate(e.a, values), evaluate(e.b, values)
            found = integers.compare(e.op, a, b) if e.op in ir.COMPARISONS else integers.binary(e.op, a, b, e.dtype.bits)
            if found is not None:
                return int(found)
    raise Open


def holds(e: ir.Expr) -> bool:
    """Whether a bool is true whatever the symbols are, as far as evaluation tells."""
    try:
        return bool(evaluate(e, {}))
    except Open:
        return False


def satisfied(facts: Sequence[ir.Expr], dtypes: Mapping[str, DType]) -> bool:
    """Whether some small sizes fulfil the facts, with tensors of which all elements are equal and with index variables of 0."""
    nodes = [n for f in facts for n in ir.walk(f)]
    names = list(dict.fromkeys(n.name for n in nodes if isinstance(n, (ir.Dim, ir.Scalar))))
    tensors = list(dict.fromkeys(n.tensor for n in nodes if isinstance(n, ir.Load)))
    choices = [[c for c in SMALL if n not in dtypes or dtypes[n].min <= c <= dtypes[n].max] for n in names]
    choices += [[c for c in (0, 1, -1) if t not in dtypes or dtypes[t].min <= c] for t in tensors]
    names += tensors
    for trial, chosen in enumerate(product(*choices)):
        if trial >= MOST_TRIALS:
            break
        values = dict(zip(names, chosen, strict=True))
        try:
            if all(evaluate(f, values) for f in facts):
                return True
        except Open:
            return False
    return False
