"""Run-time checks, compiled in: what `prove` says about indices, divisors and shifts is not trusted, it is looked at (NSALANG_CHECK=1).

It comes after the verdicts, which it leaves alone, and before the tiles, whose padded lanes must not be checked.
The kernel gets one more tensor of i64, and before each access a scatter into it of an index that is outside, if one is. The access itself happens
only inside, so that checked code touches no memory outside whatever was proved or promised.
Leaves Kernel.checks, one for each element of that tensor, in the order of the program; a kernel whose schedule is not `checked` as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from nsalang import ir
from nsalang.base.dtypes import I64
from nsalang.base.target import Target
from nsalang.passes.hoist import Names, blocks

PROVED = ir.Proof("PROVED")
Key: TypeAlias = tuple[Hashable, ...]


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    if not kernel.schedule.checked:
        return kernel
    names = Names(kernel)
    names.taken.update(v.name for v in kernel.views)
    checks = _Checks(kernel, names, names.fresh("checks"), tuple(ir.axes_of(kernel)))
    body = checks.block(kernel.body)
    if not checks.found:
        return kernel
    tensor = ir.Tensor(checks.name, I64, (ir.const(len(checks.found)),), "inout", span=kernel.span)
    return dataclasses.replace(kernel, body=body, tensors=(*kernel.tensors, tensor), checks=tuple(c for _, c in checks.found.values()))


@dataclass(slots=True)
class _Checks:
    """``found``: the checks with their numbers, by what they look at: a condition that stands in several guards has one.
    ``made``: the statements before the one that is being checked; ``looked`` and ``named``: what they look at and name already."""

    kernel: ir.Kernel
    names: Names
    name: str
    order: tuple[str, ...]
    found: dict[Key, tuple[int, ir.Check]] = field(default_factory=dict)
    made: list[ir.Stmt] = field(default_factory=list)
    looked: set[tuple[Key, ir.Expr | None]] = field(default_factory=set)
    named: dict[ir.Expr, ir.Expr] = field(default_factory=dict)

    def block(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        out: list[ir.Stmt] = []
        for node in body:
            self.made, self.looked, self.named = [], set(), {}
            done, before = self.statement(node), self.made
            out += [*before, self.inner(done)]
        return tuple(out)

    def inner(self, node: ir.Stmt) -> ir.Stmt:
        return blocks(node, self.block)

    def statement(self, node: ir.Stmt) -> ir.Stmt:
        """A statement with its own expressions checked."""
        match node:
            case ir.Assign():
                return dataclasses.replace(node, value=self.value(node.value, None))
            case ir.Store():
                guard = None if node.guard is None else self.guard(node.guard)
                indices = tuple(self.index(i, guard) for i in node.indices)
                value = self.value(node.value, guard)
                guard = ir.both(guard, self.inside(node, indices, guard), self.order)
                return dataclasses.replace(node, indices=indices, value=value, guard=guard)
            case ir.SpanAxis():
                stop = None if node.stop is None else self.value(node.stop, None)
                return dataclasses.replace(node, start=self.value(node.start, None), stop=stop)
            case ir.For():
                return dataclasses.replace(node, lo=self.value(node.lo, None), hi=self.value(node.hi, None))
            case ir.If():
                return dataclasses.replace(node, cond=self.value(node.cond, None))
            case ir.Barrier():
                return node
            case _:
                assert_never(node)

    # -------------------------------------------------------------------------------------------------------------- expressions

    def value(self, node: ir.Expr, path: ir.Expr | None) -> ir.Expr:
        """An expression with everything in it checked. ``path``: the conditions written around it in the expression, themselves checked."""
        match node:
            case ir.Load():
                guard = None if node.guard is None else self.guard(node.guard)
                indices = tuple(self.index(i, guard) for i in node.indices)
                inside = self.inside(node, indices, guard)
                return dataclasses.replace(node, indices=indices, guard=ir.both(guard, inside, self.order))
            case ir.Where():
                cond = self.value(node.cond, path)
                a = self.value(node.a, ir.both(path, cond, self.order))
                otherwise = ir.Unary(cond.dtype, cond.axes, "not", cond, span=cond.span)
                b = self.value(node.b, ir.both(path, otherwise, self.order))
                return dataclasses.replace(node, cond=cond, a=a, b=b)
            case ir.Binary(op="floordiv" | "mod") if node.dtype.is_integer:
                a, b = self.value(node.a, path), self.value(node.b, path)
                if not isinstance(b, ir.Dim) and not (isinstance(b, ir.Const) and b.value):
                    b = self.held(b, "divisor")
                    wrong = ir.binary("eq", b, ir.const(0, b.dtype))
                    self.look(("divisor", *_place(node), node), ir.Check("divisor", ir.const(0), span=node.span), b, wrong, path)
                    b = ir.Where(b.dtype, b.axes, wrong, ir.const(1, b.dtype), b, span=b.span)
                return dataclasses.replace(node, a=a, b=b)
            case ir.Binary(op="shl" | "shr"):
                a, b = self.value(node.a, path), self.value(node.b, path)
                if not isinstance(b, ir.Const):
                    b = self.held(b, "amount")
                    limit = ir.const(a.dtype.bits)
                    beyond = self.outside(_signed(b), limit)
                    self.look(("shift", *_place(node), node), ir.Check("shift", limit, span=node.span), b, beyond, path)
                    b = ir.Where(b.dtype, b.axes, beyond, ir.const(0, b.dtype), b, span=b.span)
                return dataclasses.replace(node, a=a, b=b)
            case _:
                changes: dict[str, object] = {}
                for f in dataclasses.fields(node):
                    old = getattr(node, f.name)
                    if isinstance(old, ir.Value):
                        new = self.value(old, path)  # type: ignore[arg-type]
                        if new is not old:
                            changes[f.name] = new
                return dataclasses.replace(node, **changes) if changes else node  # type: ignore[arg-type]

    def guard(self, node: ir.Expr) -> ir.Expr:
        """A guard: what its last condition says was written within the conditions before."""
        if isinstance(node, ir.Binary) and node.op == "and":
            a = self.guard(node.a)
            return dataclasses.replace(node, a=a, b=self.value(node.b, a))
        return self.value(node, None)

    def index(self, node: ir.Expr, guard: ir.Expr | None) -> ir.Expr:
        return self.held(self.value(node, guard), "index")

    def held(self, node: ir.Expr, base: str) -> ir.Expr:
        """A value that is written several times: named, where computing it reads memory or combines lanes."""
        if not any(isinstance(n, ir.Load | ir.Search | ir.Dot | ir.Reduce | ir.Scan) for n in ir.walk(node)):
            return node
        if node not in self.named:
            name = self.names.fresh(base)
            self.made.append(ir.Assign(name, node, span=node.span))
            self.named[node] = ir.Var(node.dtype, node.axes, name, span=node.span)
        return self.named[node]

    def inside(self, node: ir.Load | ir.Store, indices: tuple[ir.Expr, ...], guard: ir.Expr | None) -> ir.Expr | None:
        """The condition under which an access is inside its tensor; None where its indices are constants that say so."""
        total: ir.Expr | None = None
        for axis, (index, extent) in enumerate(zip(indices, self.kernel.tensor(node.tensor).shape, strict=True)):
            if isinstance(index, ir.Const) and isinstance(extent, ir.Const) and 0 <= index.value < extent.value:
                continue
            wide = _signed(index)
            check = ir.Check("index", extent, node.tensor, axis, span=node.span)
            self.look(("index", *_place(node), node, axis), check, index, self.outside(wide, extent), guard)
            total = ir.both(total, ir.binary("ge", wide, ir.const(0), span=index.span), self.order)
            total = ir.both(total, ir.binary("lt", wide, extent, self.order, span=index.span), self.order)
        return total

    def outside(self, index: ir.Expr, extent: ir.Expr) -> ir.Expr:
        return ir.binary("or", ir.binary("lt", index, ir.const(0)), ir.binary("ge", index, extent, self.order), self.order)

    def look(self, key: Key, check: ir.Check, value: ir.Expr, wrong: ir.Expr, path: ir.Expr | None) -> None:
        """Before the statement: put ``value`` down where it is wrong and ``path`` leads there."""
        number, _ = self.found.setdefault(key, (len(self.found), check))
        if (key, path) in self.looked:
            return
        self.looked.add((key, path))
        guard = ir.both(path, wrong, self.order)
        assert guard is not None
        wide = _signed(value)
        axes = ir.join(wide.axes, guard.axes, order=self.order)
        self.made.append(ir.Store(self.name, (ir.const(number),), wide, axes, guard, mode="scatter", proof=PROVED, span=check.span))


def _signed(value: ir.Expr) -> ir.Expr:
    return value if value.dtype is I64 else ir.Cast(I64, value.axes, value, span=value.span)


def _place(node: ir.Node) -> tuple[int, int]:
    return (node.span.line, node.span.column) if node.span else (0, 0)
