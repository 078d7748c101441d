"""Say everything in what machines have: arithmetic on working dtypes (f32), plain conversions, sums, maxima and minima.

It comes after `guard`, since its intermediate values need no masks of their own, and before `width`, since divisions and conversions of integers
get their final form here. Exact operations stay exact, bit for bit. f16 and bf16 arithmetic is f32 arithmetic rounded back, which for one
operation is the correctly rounded result. tanh and sigmoid are written with exp, with an error of at most 4 and 3 units in the last place of f32
beyond that of exp. What an expansion needs twice gets a name.
Leaves of Unary what machines have (``machine`` in ir/operations), of Reduce what lowerings spell (in Triton max and min of NaN alone made the
identity), Binary without floordiv and mod, Scan without exclusive for integers, every Cast raw, and Tensor.storage set where fp8 is software.
"""

from __future__ import annotations

import dataclasses
import math

from nsalang import ir
from nsalang.base.dtypes import BOOL, I32, I64, DType
from nsalang.base.target import Target
from nsalang.ir.intervals import Bounds
from nsalang.ir.operations import REDUCTIONS
from nsalang.passes.functions import EXPANSIONS, op2, raw, real, select
from nsalang.passes.hoist import Names, Room, expressions, same
from nsalang.passes.narrow import Narrow
from nsalang.passes.reals import ANY, Real, Reals
from nsalang.passes.simplify import expression, value_of


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    narrow = Narrow(target)
    kernel = dataclasses.replace(kernel, body=tuple(ir.rewrite(s, _without_guard) for s in kernel.body))
    tensors = tuple(narrow.tensor(t) for t in kernel.tensors)
    views = tuple(narrow.tensor(v) for v in kernel.views)
    body = narrow.retype(_Legal(kernel, narrow).block(kernel.body))
    return dataclasses.replace(kernel, tensors=tensors, views=views, body=body)


def _without_guard(node: ir.Node) -> ir.Node:
    # The mask holds all that the author's guard says; from here on only the machine's predicate counts.
    return dataclasses.replace(node, guard=None) if isinstance(node, ir.Load | ir.Store) and node.guard is not None else node


class _Legal:
    def __init__(self, kernel: ir.Kernel, narrow: Narrow) -> None:
        self.kernel = kernel
        self.triton = kernel.schedule.backend == "triton"
        self.narrow = narrow
        self.names = Names(kernel)
        self.bounds = Bounds(kernel)
        self.reals = Reals(self.bounds)
        self.room = Room(self.names)
        self.starts = {n.axis: n.start for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.SpanAxis)}

    def block(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        made: list[ir.Stmt] = []
        for node in body:
            self.room = Room(self.names)
            node = expressions(node, lambda e: ir.rewrite(e, self.rule))
            made += self.room.made
            match node:
                case ir.Assign():
                    self.reals.variables[node.name] = self.reals.of(node.value) if node.value.dtype.is_float else ANY
                case ir.For() | ir.If():
                    assigned = {n.name for n in ir.walk(node) if isinstance(n, ir.Assign)}
                    parts = (("body", node.body),) if isinstance(node, ir.For) else (("body", node.body), ("orelse", node.orelse))
                    if isinstance(node, ir.For):
                        self.carry(node.body, assigned)
                    before = dict(self.reals.variables)
                    for field, part in parts:
                        self.reals.variables = dict(before)
                        inner = self.block(part)
                        node = node if same(inner, part) else dataclasses.replace(node, **{field: inner})  # type: ignore[arg-type]
                    self.reals.variables = before
                    self.forget(assigned)
                case _:
                    pass
            made.append(node)
        return tuple(made)

    def carry(self, body: tuple[ir.Stmt, ...], assigned: set[str]) -> None:
        """What stays true of variables however often a loop's body runs: that they are no NaN. Assume it, and drop what does not follow."""
        entry = self.reals.variables
        held = {name for name in assigned if name in entry and not entry[name].nan}
        while True:
            self.reals.variables = {n: f for n, f in entry.items() if n not in assigned} | {name: Real(nan=False) for name in held}
            kept = set(self.reals.variables)
            lost = set()
            for node in (n for s in body for n in ir.walk(s) if isinstance(n, ir.Assign) and n.value.dtype.is_float):
                fact = self.reals.of(node.value)
                if node.name not in held:
                    self.reals.variables[node.name] = fact if node.name not in self.reals.variables else ANY
                elif fact.nan:
                    lost.add(node.name)
            self.reals.variables = {n: f for n, f in self.reals.variables.items() if n in kept}
            if not lost:
                return
            held -= lost

    def forget(self, names: set[str]) -> None:
        for name in names:
            self.reals.variables.pop(name, None)

    def hold(self, value: ir.Expr, base: str) -> ir.Expr:
        """A value that is needed more than once."""
        held = self.room.hold(value, base)
        if isinstance(held, ir.Var) and held is not value:
            if value.dtype.is_integer:
                self.bounds.variables[held.name] = self.bounds.of(value)
            elif value.dtype.is_float:
                self.reals.variables[held.name] = self.reals.of(value)
        return held

    def rule(self, node: ir.Node) -> ir.Node:
        match node:
            case ir.Unary():
                return self.unary(node)
            case ir.Binary():
                return self.binary(node)
            case ir.Cast():
                return self.cast(node)
            case ir.Reduce():
                return self.reduce(node)
            case ir.Scan():
                return self.scan(node)
            case ir.Fma() | ir.Where() | ir.Full():
                return expression(node)
            case _:
                return node

    # ------------------------------------------------------------------------------------------------------------- arithmetic

    def unary(self, node: ir.Unary) -> ir.Expr:
        x = node.x
        if x.dtype.is_narrow_float:
            wide = self.unary(ir.Unary(x.dtype.working, x.axes, node.op, raw(x.dtype.working, x), span=node.span))
            return raw(node.dtype, wide)
        expansion = EXPANSIONS.get(node.op)
        if expansion is None:
            return expression(node)
        made = expansion(x, self)
        return self.reals.give(made, self.reals.of(node)) if node.dtype.is_float else made

    def binary(self, node: ir.Binary) -> ir.Expr:
        a, b = node.a, node.b
        if a.dtype.is_narrow_float:
            working = a.dtype.working
            dtype = BOOL if node.op in ir.COMPARISONS else working
            wide = expression(ir.Binary(dtype, node.axes, node.op, raw(working, a), raw(working, b), span=node.span))
            return wide if dtype is BOOL else raw(node.dtype, wide)
        if node.op == "floordiv" or node.op == "mod":
            return self.division(node)
        if node.op in ("min", "max") and node.dtype.is_float:
            return expression(self.without_end(node))
        return expression(node)

    def without_end(self, node: ir.Binary) -> ir.Binary:
        """``max(a, max(r, -inf))`` where a is no NaN: what made r's NaN -inf is not needed."""
        end = math.inf if node.op == "min" else -math.inf
        for a, b in ((node.a, node.b), (node.b, node.a)):
            if isinstance(b, ir.Binary) and b.op == node.op and value_of(b.b) == end and not self.reals.of(a).nan:
                return dataclasses.replace(node, a=a, b=b.a)
        return node

    def division(self, node: ir.Binary) -> ir.Expr:
        """Flooring division from truncating one: they differ where the remainder and the divisor have opposite signs."""
        quotient = node.op == "floordiv"
        a, b = node.a, node.b
        tdiv, tmod = (dataclasses.replace(node, op=op) for op in ("tdiv", "tmod"))
        low, divisor = self.bounds.of(a).lo, self.bounds.of(b)
        if node.dtype.kind == "unsigned" or (low >= 0 and divisor.lo >= 0):
            return expression(tdiv if quotient else tmod)
        known = value_of(b)
        if isinstance(known, int) and known > 0 and known & (known - 1) == 0:
            op: ir.BinaryOp = "shr" if quotient else "and"
            amount = ir.const(known.bit_length() - 1 if quotient else known - 1, span=b.span)
            return expression(ir.Binary(node.dtype, node.axes, op, a, amount, span=node.span))
        a, b = self.hold(a, "dividend"), self.hold(b, "divisor")
        zero = ir.const(0)
        left = self.hold(ir.Binary(I64, node.axes, "tmod", a, self.without_trap("tmod", a, b), span=node.span), "remainder")
        if divisor.lo >= 0:
            wrong = op2("lt", left, zero)
        else:
            opposite = ir.Binary(BOOL, node.axes, "ne", op2("lt", left, zero), op2("lt", b, zero), span=node.span)
            wrong = op2("and", op2("ne", left, zero), opposite)
        if not quotient:
            return select(wrong, ir.Binary(I64, node.axes, "add", left, b, span=node.span), left)
        whole = ir.Binary(I64, node.axes, "tdiv", a, self.without_trap("tdiv", a, b), span=node.span)
        return op2("sub", whole, raw(I64, wrong))

    def without_trap(self, op: ir.BinaryOp, a: ir.Expr, b: ir.Expr) -> ir.Expr:
        """A divisor that no machine traps on: the least integer by -1 is beyond the largest, and what asks for the remainder traps like the quotient.
        That remainder is the one by 1. In 64 bits the prover lets no such quotient through, but lanes at which nobody looks compute it too; one that
        does not fit 32 bits is computed in 64."""
        dividend, divisor = self.bounds.of(a), self.bounds.of(b)
        narrow = dividend.within(I32) and divisor.within(I32)
        if -1 not in divisor or (narrow and (op == "tdiv" or int(I32.min) not in dividend)):
            return b
        traps = op2("eq", b, ir.const(-1))
        if op == "tdiv":
            traps = op2("and", traps, op2("eq", a, ir.const(int(I64.min))))
        return select(traps, ir.const(1), b)

    # ------------------------------------------------------------------------------------------------------------ conversions

    def cast(self, node: ir.Cast) -> ir.Expr:
        x, dtype = node.x, node.dtype
        source = x.dtype
        if source is dtype:
            return x
        if dtype is BOOL:
            return op2("ne", x, ir.const(0.0 if source.is_float else 0, source))
        if node.mode == "raw":
            return node
        if source.is_float and source.working is not source:
            return self.cast(ir.Cast(dtype, x.axes, self.narrow.widen(x, self), node.mode, span=node.span))
        if dtype.is_float:
            wide = raw(dtype.working, x)
            if dtype.working is dtype:
                return wide
            return self.narrow.shrink(wide, dtype, self) if dtype.bits < 16 else raw(dtype, wide)
        if source.is_float:
            return self.truncated(x, dtype)
        return self.integer(x, dtype, node.mode == "wrap" or source.kind == dtype.kind == "unsigned")

    def integer(self, x: ir.Expr, dtype: DType, wraps: bool) -> ir.Expr:
        """From integer to integer; where the value may not fit, what is too much is cut off first, so that the conversion is plain."""
        if not wraps or self.bounds.of(x).within(dtype) or x.dtype.kind == dtype.kind == "unsigned":
            return raw(dtype, x)
        x = raw(I64, x)
        if dtype is I64:
            return x
        low = op2("and", x, ir.const((1 << dtype.bits) - 1))
        if dtype.kind == "unsigned":
            return raw(dtype, low)
        half = ir.const(1 << (dtype.bits - 1))
        return raw(dtype, op2("sub", op2("xor", low, half), half))

    def truncated(self, x: ir.Expr, dtype: DType) -> ir.Expr:
        """A float to an integer: towards zero, ends saturate, NaN gives 0."""
        fact = self.reals.of(x)
        lo, hi = int(dtype.min), int(dtype.max)
        if dtype.bits <= 16:
            if not (fact.within(lo, hi) and not fact.nan):
                x = self.hold(x, "value")
                fitting = x if fact.lo >= lo and not fact.nan else op2("max", x, real(lo, x))
                fitting = fitting if fact.hi <= hi else op2("min", fitting, real(hi, x))
                # An unsigned type's lower end is the 0 that NaN gives, and max ignores NaN.
                x = fitting if lo == 0 or not fact.nan else select(op2("eq", x, x), fitting, real(0.0, x))
            return raw(dtype, x)
        # The upper end may be no float; the first number above it is one.
        above = real(float(hi + 1), x)
        x = self.hold(x, "value")
        if lo == 0:
            x = self.hold(op2("max", x, real(0.0, x)), "value")
            inside = op2("lt", x, above)
            return select(inside, raw(dtype, select(inside, x, real(0.0, x))), ir.const(hi, dtype))
        below = op2("lt", x, real(float(lo), x))
        inside = op2("and", op2("ge", x, real(float(lo), x)), op2("lt", x, above))
        whole = raw(dtype, select(inside, x, real(0.0, x)))
        return select(op2("ge", x, above), ir.const(hi, dtype), select(below, ir.const(lo, dtype), whole))

    # -------------------------------------------------------------------------------------------------------------- reductions

    def reduce(self, node: ir.Reduce) -> ir.Expr:
        x = node.x
        match node.op:
            case "any" | "all":
                op: ir.ReduceOp = "max" if node.op == "any" else "min"
                return op2("ne", ir.Reduce(I64, node.axes, op, raw(I64, x), node.over, span=node.span), ir.const(0))
            case "argmax" | "argmin":
                return self.first_extreme(node)
        if x.dtype.is_narrow_float:
            working = x.dtype.working
            wide = self.reduce(ir.Reduce(working, node.axes, node.op, raw(working, x), node.over, span=node.span))
            return raw(node.dtype, wide)
        if node.op == "absmax":
            size = expression(ir.Unary(x.dtype, x.axes, "abs", x, span=x.span))
            fact = self.reals.of(size)
            made = ir.Reduce(node.dtype, node.axes, "max", size, node.over, span=node.span)
            return op2("max", made, real(0.0, made)) if x.dtype.is_float and fact.nan else made
        if not x.dtype.is_float:
            return node
        fact = self.reals.of(x)
        if node.op == "sum":
            return self.from_plus_zero(node, fact) if self.triton else node
        orders = REDUCTIONS[node.op].orders
        if self.triton and fact.nan and orders is not None:
            return ir.Binary(node.dtype, node.axes, orders, node, real(-math.inf if orders == "max" else math.inf, node), span=node.span)
        return node

    def from_plus_zero(self, node: ir.Reduce | ir.Scan, fact: Real) -> ir.Expr:
        """A sum that starts from +0 is never -0, unlike that of a backend which starts from the first element."""
        return op2("add", node, real(0.0, node)) if fact.minus_zero else node

    def first_extreme(self, node: ir.Reduce) -> ir.Expr:
        """The least index at which the extreme stands; the least of all where there is nothing but NaN."""
        (axis,) = node.over
        op: ir.ReduceOp = "max" if node.op == "argmax" else "min"
        x, ignored = node.x, None
        if isinstance(x, ir.Where) and isinstance(x.b, ir.Const) and x.b.value != x.b.value:
            ignored, x = x.cond, x.a
        if x.dtype.is_narrow_float:
            x = raw(x.dtype.working, x)
        x = self.hold(x, "value")
        may_be_nan = x.dtype.is_float and self.reals.of(x).nan
        best: ir.Expr = x
        if ignored is not None:
            ignored = self.hold(ignored, "inside")
            best = expression(ir.Where(x.dtype, node.x.axes, ignored, x, real(-math.inf if op == "max" else math.inf, x), span=x.span))
        top = ir.Reduce(x.dtype, node.axes, op, best, node.over, span=node.span)
        found = ir.Binary(BOOL, node.x.axes, "eq", x, top, span=node.span)
        if ignored is not None:
            found = ir.Binary(BOOL, node.x.axes, "and", ignored, found, span=node.span)
        index = ir.Index(I64, (axis,), axis, span=node.span)
        beyond = ir.const(min(self.bounds.of(index).hi + 1, int(I64.max)))
        key = ir.Where(I64, node.x.axes, found, index, beyond, span=node.span)
        least = ir.Reduce(I64, node.axes, "min", key, node.over, span=node.span)
        if not may_be_nan:
            return least
        held = self.hold(least, "first")
        start = self.starts.get(axis)
        if start is None or not isinstance(start, ir.Const):
            start = ir.Reduce(I64, (), "min", index, node.over, span=node.span)
        return expression(ir.Where(I64, node.axes, op2("eq", held, beyond), start, held, span=node.span))

    def scan(self, node: ir.Scan) -> ir.Expr:
        if node.dtype.is_float:
            return self.from_plus_zero(node, self.reals.of(node.x))
        if not node.exclusive:
            return node
        x = self.hold(node.x, "value")
        return op2("sub", dataclasses.replace(node, x=x, exclusive=False), x)
