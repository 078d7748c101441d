"""Expressions of the IR as text of TileLang, within a T.Parallel loop or outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import BOOL, F32, I32, I64, U8, U16, DType
from nsalang.lowering import emit
from nsalang.lowering.emit import BITAND, SUM, Arguments, Text, call, infix, number, prefix, subscript

INFIX: dict[ir.BinaryOp, str] = {**emit.INFIX, "div": "/"}
CALLS = {"min": "T.min", "max": "T.max", "tdiv": "T.truncdiv", "tmod": "T.truncmod"}
FUNCTIONS: dict[ir.UnaryOp, str] = {
    "abs": "T.abs", "exp": "T.exp", "exp2": "T.exp2", "log": "T.log", "log2": "T.log2", "sqrt": "T.sqrt", "rsqrt": "T.rsqrt",
    "floor": "T.floor", "ceil": "T.ceil",
}  # fmt: skip
IEEE: dict[ir.BinaryOp, str] = {"add": "T.ieee_add", "sub": "T.ieee_sub", "mul": "T.ieee_mul", "div": "T.ieee_fdiv"}


@dataclass(slots=True)
class Values:
    """What the text of an expression depends on.

    ``buffers``: variables that are buffers; ``scalars``: those that are not; ``bases``: where an index begins (None: at 0); ``lane``: the loop
    variable of each axis in the T.Parallel loop being printed; ``matrices``: the axes of both dimensions of a variable that lies as a matrix;
    ``versions``: which of several buffers a variable is in.
    """

    kernel: ir.Kernel
    arguments: Arguments
    buffers: dict[str, str] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    bases: dict[str, Text | None] = field(default_factory=dict)
    lane: dict[str, str] = field(default_factory=dict)
    matrices: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    versions: dict[str, Text] = field(default_factory=dict)
    _tests: tuple[tuple[bool, float | None], ...] | None = None

    def variable(self, name: str, axes: Sequence[str]) -> Text:
        """The element of a variable in the lanes being printed."""
        at = [self.versions[name]] if name in self.versions else []
        if name in self.matrices:
            return subscript(Text(self.buffers[name]), ", ".join(map(str, [*at, *map(self.flat, self.matrices[name])])))
        return self.element(self.buffers[name], axes, *at)

    def flat(self, axes: Sequence[str]) -> Text:
        """The number of the lane in several axes, the last of which runs fastest."""
        out = Text("0")
        for a in axes:
            if (length := self.kernel.schedule.length(a)) > 1 or len(axes) == 1:
                out = Text(self.lane[a]) if str(out) == "0" else infix("+", infix("*", out, number(length)), Text(self.lane[a]))
        return out

    def load(self, x: ir.Load, zero: Text | None = None) -> Text:
        """An element, or where the mask is false ``zero``, or what the load holds there."""
        element = self.access(x.tensor, x.indices)
        if x.mask is None:
            return element
        return call("T.if_then_else", self.mask(x.mask), element, zero or self.typed(x.fill or ir.Const(x.dtype, (), 0)))

    def element(self, buffer: str, axes: Sequence[str], *at: Text) -> Text:
        """The element of a buffer in the lanes being printed. ``at``: which of several buffers."""
        mine = emit.machine_axes(self.kernel, axes)
        return subscript(Text(buffer), ", ".join(map(str, [*at, *(self.lane[a] for a in mine)])) or "0")

    def access(self, tensor: str, indices: Sequence[ir.Expr]) -> Text:
        at = [self.index(i) if isinstance(i, ir.Index) else self.expr(i) for i in indices]
        return subscript(Text(self.arguments.use("tensor", tensor)), ", ".join(map(str, at)) or "0")

    def mask(self, x: ir.Expr) -> Text:
        """A mask. Where lanes end at a dimension that divides by a power of two, whole groups of so many lanes are in or out, and the first lane
        of a group decides: that shows TileLang that an access to the group can be a vector."""
        match x:
            case ir.Binary(op="and") if x.dtype is BOOL:
                return self.both(self.mask(x.a), self.mask(x.b), x)
            case ir.Binary(op="lt", a=ir.Index(axes=(axis,)), b=ir.Dim(name=dim)) if (group := self.group(axis, dim)) > 1:
                base, lane = self.bases[axis], Text(self.lane[axis])
                first = infix("*", infix("//", lane, Text(str(group))), Text(str(group)))
                return infix("<", first if base is None else infix("+", base, first), self.expr(x.b))
        return self.expr(x)

    def group(self, axis: str, dim: str) -> int:
        """How many lanes of an axis, from a multiple of that number on, are all below a dimension or none; 1 where nothing is known."""
        info = ir.axes_of(self.kernel)[axis]
        starts_at_zero = isinstance(info.start, ir.Const) and info.start.value == 0
        divisor = emit.dim_divisor(self.kernel, dim)
        return math.gcd(divisor, self.kernel.schedule.length(axis), 16) if starts_at_zero and info.kind in ("grid", "loop") else 1

    def divisor(self, x: ir.Expr) -> int:
        """A number of which an integer is seen to be a multiple."""
        match x:
            case ir.Const(value=value):
                return abs(int(value))
            case ir.Dim(name=name):
                return emit.dim_divisor(self.kernel, name)
            case ir.Binary(op="mul", a=a, b=b):
                return self.divisor(a) * self.divisor(b)
            case ir.Binary(op="add" | "sub" | "min" | "max", a=a, b=b):
                return math.gcd(self.divisor(a), self.divisor(b))
            case ir.Cast(x=inner):
                return self.divisor(inner)
            case _:
                return 1

    def index(self, x: ir.Index) -> Text:
        """An index variable: where its block begins, and the lane; of groups, the first of each."""
        base = self.base(x)
        if not x.axes:
            assert base is not None
            return base
        lane, step = Text(self.lane[x.name]), self.kernel.schedule.step(x.name)
        if step > 1:
            lane = infix("*", Text(str(lane), emit.PRODUCT), number(step))
        return lane if base is None else infix("+", base, lane)

    def base(self, x: ir.Index) -> Text | None:
        """Where the block of an index begins; groups begin where the axis does that they are of."""
        return self.bases[self.kernel.schedule.grouped(x.name)]

    def expr(self, x: ir.Expr) -> Text:
        match x:
            case ir.Const():
                return self.number(x)
            case ir.Dim():
                return Text(self.arguments.use("dim", x.name))
            case ir.Scalar():
                text = Text(self.arguments.use("scalar", x.name))
                return text if emit.is_passed_as(self.kernel, x) else self.cast(text, x.dtype)
            case ir.Index():
                text = self.index(x)
                base = self.base(x)
                narrow = x.axes and (base is None or text.level == SUM and str(base).isdigit())
                return self.cast(text, I64) if x.dtype is I64 and narrow else text
            case ir.Var():
                if x.name in self.scalars:
                    return Text(self.scalars[x.name])
                return self.variable(x.name, x.axes)
            case ir.Unary():
                return self.unary(x)
            case ir.Binary():
                return self.binary(x)
            case ir.Fma():
                return call("T.ieee_fmaf", *(self.operand(v) for v in (x.a, x.b, x.c)))
            case ir.Where():
                return call("T.if_then_else", self.expr(x.cond), self.operand(x.a), self.operand(x.b))
            case ir.Cast():
                assert x.mode != "convert", "a conversion that legalize left"
                return self.cast(self.operand(x.x), x.dtype)
            case ir.Bitcast():
                return call("T.reinterpret", self.operand(x.x), f'"{x.dtype.tilelang}"')
            case ir.Full():
                return self.operand(x.value)
            case ir.Spread():
                return self.spread(x)
            case ir.Load():
                # Of an address that is computed ahead of its loop; all others have names.
                return self.load(x)
            case ir.Dot() | ir.Reduce() | ir.Scan():
                raise AssertionError(f"flatten left a {type(x).__name__} inside an expression")
            case ir.Search() | ir.Border():
                raise AssertionError(f"expand left a {type(x).__name__}")
            case _:
                assert_never(x)

    def spread(self, x: ir.Spread) -> Text:
        """What the group of the lane being printed has."""
        before = self.lane
        self.lane = {**before, x.group: str(infix("//", Text(before[x.over]), number(self.kernel.schedule.step(x.group))))}
        found = self.expr(x.x)
        self.lane = before
        return found

    def operand(self, x: ir.Expr) -> Text:
        """An argument of a function of TileLang's: a number needs its type there."""
        return self.typed(x) if isinstance(x, ir.Const) else self.expr(x)

    def number(self, x: ir.Const) -> Text:
        """A constant beside something that has its type."""
        return number(x.value) if x.dtype in (I32, I64) or (x.dtype is F32 and math.isfinite(x.value)) else self.typed(x)

    def typed(self, x: ir.Const) -> Text:
        """A constant that has its dtype wherever it stands."""
        if x.dtype.is_float and math.isinf(x.value):
            infinity = prefix("-", call("T.infinity", '"float32"')) if x.value < 0 else call("T.infinity", '"float32"')
            return infinity if x.dtype is F32 else self.cast(infinity, x.dtype)
        return call(f"T.{x.dtype.tilelang}", number(float(x.value) if x.dtype.is_float else x.value))

    def cast(self, x: Text, dtype: DType) -> Text:
        return call("T.cast", x, f'"{dtype.tilelang}"')

    def unary(self, x: ir.Unary) -> Text:
        match x.op:
            case "neg":
                return prefix("-", self.expr(x.x))
            case "not" | "invert":
                # T.Not turns the comparison below it around, which is wrong for NaN.
                return prefix("~", self.expr(x.x))
            case _:
                return call(FUNCTIONS[x.op], self.operand(x.x))

    def binary(self, x: ir.Binary) -> Text:
        match x.op:
            case "min" | "max" | "tdiv" | "tmod":
                plain = self.operand if isinstance(x.a, ir.Const) and isinstance(x.b, ir.Const) else self.expr
                return call(CALLS[x.op], plain(x.a), plain(x.b))
            case "floordiv" | "mod":
                # Only extents of tensors: dimensions, which are not negative.
                assert not x.axes, f"legalize left '{x.op}'"
                return infix("//" if x.op == "floordiv" else "%", self.expr(x.a), self.expr(x.b))
            case "eq" | "ne" if x.a == x.b and x.a.dtype.is_float:
                is_nan = call("T.isnan", self.expr(x.a))
                return is_nan if x.op == "ne" else prefix("~", is_nan)
            case "add" | "sub" | "mul" | "div" if x.dtype.is_float and _simplified_wrongly(x):
                return call(IEEE[x.op], self.operand(x.a), self.operand(x.b))
            case "and" | "or" if x.dtype is BOOL:
                return self.both(self.expr(x.a), self.expr(x.b), x)
            case "shl" | "shr":
                amount = self.operand(x.b) if isinstance(x.b, ir.Const) else self.expr(x.b)
                if x.b.dtype is not x.dtype:
                    amount = self.typed(ir.Const(x.dtype, (), x.b.value)) if isinstance(x.b, ir.Const) else self.cast(amount, x.dtype)
                return self.wrapped(infix(INFIX[x.op], self.operand(x.a), self.amount(x, amount)), x)
            case "lt" | "le" | "gt" | "ge" if x.a.dtype.is_float and self.is_negated(x):
                # TileLang's simplifier knows the other side of a test as the test's negation, which for NaN it is not. It sees through no cast.
                test = infix(INFIX[x.op], self.expr(x.a), self.expr(x.b))
                return infix("!=", self.cast(test, I32), number(0))
            case "eq" | "ne" if x.a.dtype.is_float and not x.axes and not isinstance(x.a, ir.Const) and not isinstance(x.b, ir.Const):
                # Of two names for one value it takes this for settled.
                test, nan = infix(INFIX[x.op], self.expr(x.a), self.expr(x.b)), call("T.isnan", self.expr(x.a))
                return infix("|", test, nan) if x.op == "ne" else infix("&", test, prefix("~", nan))
            case _:
                return self.wrapped(infix(INFIX[x.op], self.expr(x.a), self.expr(x.b)), x)

    def amount(self, x: ir.Binary, amount: Text) -> Text:
        """A shift's amount within 0 .. bits - 1, where the proof has it, in a form that says so: the simplifier's bounds of a shift are wrong where its
        bounds of the amount reach below 0, and it drops the ``%`` that keeps an index inside."""
        if isinstance(x.b, ir.Const):
            return amount
        return infix("&", amount, self.typed(ir.Const(x.dtype, (), x.dtype.bits - 1)))

    def is_negated(self, x: ir.Binary) -> bool:
        """Whether another test of the kernel may be the negation of this one, were its operands real numbers."""
        less, than = _side(x)
        return sum(t == (True, None) for t in self.tests) > 1 if than is None else (not less, than) in self.tests

    @property
    def tests(self) -> tuple[tuple[bool, float | None], ...]:
        if self._tests is None:
            found = dict.fromkeys(n for s in self.kernel.body for n in ir.walk(s) if isinstance(n, ir.Binary))
            self._tests = tuple(_side(n) for n in found if n.op in _LESS and n.a.dtype.is_float)
        return self._tests

    def both(self, a: Text, b: Text, x: ir.Binary) -> Text:
        """The conjunction or disjunction ``x``. TileLang's prover spends seconds on each ``&`` and ``|`` of bools. But its simplifier folds ``and``
        and ``or`` as if one of ``a < b`` and ``b <= a`` held, which is wrong for NaN."""
        if _of_floats(x):
            return infix(INFIX[x.op], a, b)
        level = emit.AND if x.op == "and" else emit.OR
        return Text(f"{a.within(level)} {x.op} {b.within(level + 1)}", level)

    def wrapped(self, text: Text, x: ir.Binary) -> Text:
        """C computes with u8 and u16 in int, in which nothing wraps."""
        if x.dtype not in (U8, U16) or x.op not in ("add", "sub", "mul", "shl"):
            return text
        inside = infix("&", Text(f"({self.cast(text, I32)})", BITAND), number(int(x.dtype.max)))
        return self.cast(inside, x.dtype)


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


def _simplified_wrongly(x: ir.Binary) -> bool:
    """Whether TileLang's simplifier takes floats for real numbers here: it cancels ``(a + b) - a``, and folds ``x + 0``, ``x * 0``, ``0 / x``.

    It sees through names of scalars.
    """
    zero = any(isinstance(v, ir.Const) and v.value == 0 for v in (x.a, x.b))
    if x.op != "sub":
        return zero
    inside = (x.a.a, x.a.b) if isinstance(x.a, ir.Binary) and x.a.op == "add" else ()
    return not x.axes or x.a == x.b or x.b in inside
