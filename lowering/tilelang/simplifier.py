"""What TileLang's simplifier and the C that it makes get wrong, and how a program says it instead."""

from __future__ import annotations

from nsalang import ir
from nsalang.base.dtypes import BOOL, I32, U8, U16
from nsalang.lowering.text import AND, BITAND, INFIX, OR, Text, infix, number
from nsalang.lowering.tilelang.dtypes import cast
from nsalang.lowering.tilelang.state import Printer


def is_negated(p: Printer, x: ir.Binary) -> bool:
    """Whether another test of the kernel may be the negation of this one, were its operands real numbers."""
    less, than = _side(x)
    return sum(t == (True, None) for t in tests(p)) > 1 if than is None else (not less, than) in tests(p)


def tests(p: Printer) -> tuple[tuple[bool, float | None], ...]:
    """The comparisons of floats of the kernel."""
    if p.tests is None:
        found = dict.fromkeys(n for s in p.kernel.body for n in ir.walk(s) if isinstance(n, ir.Binary))
        p.tests = tuple(_side(n) for n in found if n.op in _LESS and n.a.dtype.is_float)
    return p.tests


def joined(a: Text, b: Text, x: ir.Binary) -> Text:
    """The conjunction or disjunction ``x``. TileLang's prover spends seconds on each ``&`` and ``|`` of bools. But its simplifier folds ``and``
    and ``or`` as if one of ``a < b`` and ``b <= a`` held, which is wrong for NaN."""
    if _of_floats(x):
        return infix(INFIX[x.op], a, b)
    level = AND if x.op == "and" else OR
    return Text(f"{a.within(level)} {x.op} {b.within(level + 1)}", level)


def wrapped(text: Text, x: ir.Binary) -> Text:
    """C computes with u8 and u16 in int, in which nothing wraps."""
    if x.dtype not in (U8, U16) or x.op not in ("add", "sub", "mul", "shl"):
        return text
    inside = infix("&", Text(f"({cast(text, I32)})", BITAND), number(int(x.dtype.max)))
    return cast(inside, x.dtype)


_LESS: dict[ir.BinaryOp, bool] = {"lt": True, "le": True, "gt": False, "ge": False}


def _side(x: ir.Binary) -> tuple[bool, float | None]:
    """Of a test against a constant: whether it asks for less, and than which constant. Of one of two values all that may be turned around."""
    for value, is_right in ((x.b, True), (x.a, False)):
        if isinstance(value, ir.Const):
            return _LESS[x.op] == is_right, float(value.value)
    return True, None


def _of_floats(x: ir.Expr) -> bool:
    """Whether a condition compares floats, or may be the name of one that does."""
    return any(
        (isinstance(n, ir.Binary) and n.op in ir.COMPARISONS and n.a.dtype.is_float) or (isinstance(n, ir.Var) and n.dtype is BOOL)
        for n in ir.walk(x)
    )


def simplified_wrongly(x: ir.Binary) -> bool:
    """Whether TileLang's simplifier takes floats for real numbers here: it cancels ``(a + b) - a``, and folds ``x + 0``, ``x * 0``, ``0 / x``.

    It sees through names of scalars.
    """
    zero = any(isinstance(v, ir.Const) and v.value == 0 for v in (x.a, x.b))
    if x.op != "sub":
        return zero
    inside = (x.a.a, x.a.b) if isinstance(x.a, ir.Binary) and x.a.op == "add" else ()
    return not x.axes or x.a == x.b or x.b in inside


def is_opaque(x: ir.Node) -> bool:
    """Whether TileLang gains nothing from seeing through a name of this: it would divide in every offset, and its prover takes seconds for bits."""
    return isinstance(x, ir.Bitcast) or (isinstance(x, ir.Binary) and x.op in ("tdiv", "tmod"))


def shifts_far(x: ir.Binary) -> bool:
    """Whether a shift to the right may be by more than 31."""
    return x.op == "shr" and x.dtype.bits == 64 and not (isinstance(x.b, ir.Const) and x.b.value <= 31)


def steps(amount: int) -> list[int]:
    """An amount in steps of at most 31."""
    return [31] * (amount // 31) + [amount % 31] * (amount % 31 > 0)
