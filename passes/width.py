"""Give every signed integer its width in the machine, i32 or i64; until here they are mathematical.

It comes after `legalize`, which makes the last integer operations. What a schedule that is not wide promises (dimensions, and offsets with their
tiles' tails, below 2**31) makes i32 of dimensions, index variables and offsets; with `wide` these are i64, and so are indices between ends
from data that may lie beyond (`far.py`). Everything else is as narrow as intervals show it to fit: an operation is done in i32 where its operands
and its result fit i32, else in i64. A shift is done in a width above its amount, as long as the amount is one that the prover let through.
Leaves every integer with a machine's dtype, operands of an operation alike, indices of accesses all in i32 (wide: i64), and Cast(raw) between them.
"""

from __future__ import annotations

import dataclasses

from nsalang import ir
from nsalang.base.dtypes import I32, I64, DType
from nsalang.base.target import Target
from nsalang.ir.intervals import NARROW_DIM, Bounds, Interval
from nsalang.passes.far import far_axes
from nsalang.passes.hoist import expressions, same
from nsalang.passes.simplify import expression


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    body = _Width(kernel).block(kernel.body)
    return kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body)


class _Width:
    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel = kernel
        self.bounds = Bounds(kernel)
        self.address = I64 if kernel.schedule.wide else I32
        self.far = far_axes(kernel, self.bounds)

    def block(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        made = tuple(self.statement(s) for s in body)
        return body if same(made, body) else made

    def statement(self, node: ir.Stmt) -> ir.Stmt:
        # What is of a machine's dtype already (an operand of i8) stays as it is.
        sized = isinstance(node, ir.Assign) and node.value.dtype is I64
        node = expressions(node, lambda e: ir.rewrite(e, self.rule))
        match node:
            case ir.Assign() if sized:
                value = to(node.value, self.variable(node.name))
                return node if value is node.value else dataclasses.replace(node, value=value)
            case ir.Store():
                tensor = self.kernel.tensor(node.tensor)
                value = to(node.value, tensor.storage or tensor.dtype) if node.value.dtype.kind == "signed" else node.value
                return dataclasses.replace(node, value=value, indices=tuple(to(i, self.address) for i in node.indices))
            case ir.SpanAxis():
                stop = None if node.stop is None else self.bound(node.stop, node.axis)
                return dataclasses.replace(node, start=self.bound(node.start, node.axis), stop=stop)
            case ir.For():
                lo, hi = self.bound(node.lo, node.index, node.kind), self.bound(node.hi, node.index, node.kind)
                return dataclasses.replace(node, lo=lo, hi=hi, body=self.block(node.body))
            case ir.If():
                return dataclasses.replace(node, body=self.block(node.body), orelse=self.block(node.orelse))
            case _:
                return node

    def bound(self, node: ir.Expr, index: str, kind: str = "tile") -> ir.Expr:
        """An end of an axis or a loop. One of an index that fits 32 bits may itself lie beyond every dimension; cut to the largest, it still
        does. Single steps stay below it, so it needs no room for a tile."""
        if self.index(index) is I64:
            return to(node, I64)
        found, top = self.bounds.of(node), NARROW_DIM if kind == "tile" else int(I32.max)
        if found.hi > top:
            node = expression(ir.binary("min", node, ir.const(NARROW_DIM, node.dtype)))
        if found.lo < I32.min:
            node = expression(ir.binary("max", node, ir.const(int(I32.min), node.dtype)))
        return to(node, I32)

    def index(self, name: str) -> DType:
        return I64 if name in self.far else self.address

    def variable(self, name: str) -> DType:
        return narrowest(self.bounds.variables[name])

    def rule(self, node: ir.Node) -> ir.Node:
        match node:
            case ir.Load():
                indices = tuple(to(i, self.address) for i in node.indices)
                fill = None if node.fill is None else ir.Const(node.dtype, (), node.fill.value, span=node.fill.span)
                return node if same(indices, node.indices) and fill == node.fill else dataclasses.replace(node, indices=indices, fill=fill)
            case ir.Const(dtype=dtype) if dtype is I64:
                return to(node, narrowest(self.bounds.of(node)))
            case ir.Scalar(dtype=dtype) if dtype is I64:
                return dataclasses.replace(node, dtype=narrowest(self.bounds.of(node)))
            case ir.Dim(dtype=dtype) if dtype is I64:
                return dataclasses.replace(node, dtype=self.address)
            case ir.Index(dtype=dtype) if dtype is I64:
                return dataclasses.replace(node, dtype=self.index(node.name))
            case ir.Var(dtype=dtype) if dtype is I64:
                return dataclasses.replace(node, dtype=self.variable(node.name))
            case ir.Unary() if node.dtype is I64:
                dtype = self.common(node, node.x)
                return dataclasses.replace(node, dtype=dtype, x=to(node.x, dtype))
            case ir.Binary():
                return self.binary(node)
            case ir.Where() if node.dtype is I64:
                dtype = self.common(node.a, node.b)
                return dataclasses.replace(node, dtype=dtype, a=to(node.a, dtype), b=to(node.b, dtype))
            case ir.Cast() if node.x.dtype is node.dtype:
                return node.x
            case ir.Cast() if node.dtype is I64:
                return (
                    to(node.x, self.common(node)) if node.x.dtype.kind == "signed" else dataclasses.replace(node, dtype=self.common(node))
                )
            case ir.Reduce() | ir.Scan() if node.dtype is I64:
                dtype = self.common(node, node.x)
                return dataclasses.replace(node, dtype=dtype, x=to(node.x, dtype))
            case ir.Dot() if node.dtype is I64:
                acc = () if node.acc is None else (node.acc,)
                dtype = self.common(node, *acc)
                return dataclasses.replace(node, dtype=dtype, acc=None if node.acc is None else to(node.acc, dtype))
            case ir.Full() if node.dtype is I64:
                return dataclasses.replace(node, dtype=node.value.dtype)
            case ir.Spread() if node.dtype is I64:
                return dataclasses.replace(node, dtype=node.x.dtype)
            case _:
                return node

    def binary(self, node: ir.Binary) -> ir.Expr:
        if node.op in ("shl", "shr"):
            dtype = self.common(node, node.a) if node.a.dtype.kind == "signed" else node.a.dtype
            if dtype is I32 and self.bounds.of(node.b).hi >= I32.bits:
                dtype = I64
            return dataclasses.replace(node, dtype=dtype, a=to(node.a, dtype), b=to(node.b, dtype))
        if node.a.dtype.kind != "signed":
            return node
        if node.op in ir.COMPARISONS:
            dtype = self.common(node.a, node.b)
            return dataclasses.replace(node, a=to(node.a, dtype), b=to(node.b, dtype))
        dtype = self.common(node, node.a, node.b)
        return dataclasses.replace(node, dtype=dtype, a=to(node.a, dtype), b=to(node.b, dtype))

    def common(self, *nodes: ir.Expr) -> DType:
        """The width in which all these values fit."""
        return I32 if all(self.bounds.of(n).within(I32) for n in nodes) else I64


def narrowest(interval: Interval) -> DType:
    return I32 if interval.within(I32) else I64


def to(node: ir.Expr, dtype: DType) -> ir.Expr:
    """An integer in another width, its value being in range."""
    if node.dtype is dtype:
        return node
    if isinstance(node, ir.Const):
        return ir.Const(dtype, (), node.value, span=node.span)
    if isinstance(node, ir.Full):
        return dataclasses.replace(node, dtype=dtype, value=to(node.value, dtype))
    if isinstance(node, ir.Cast) and node.x.dtype.is_integer and node.dtype.bits > node.x.dtype.bits and dtype.bits >= node.x.dtype.bits:
        return to(node.x, dtype) if node.x.dtype is dtype else ir.Cast(dtype, node.axes, node.x, "raw", span=node.span)
    return expression(ir.Cast(dtype, node.axes, node, "raw", span=node.span))
