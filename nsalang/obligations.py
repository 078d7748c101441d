"""What must be shown of a kernel, collected from its untiled meaning: one symbolic walk that knows at each point which facts hold.

``tile(M)`` contributes one index in ``0 .. M``. Variables are replaced by what they stand for; what a loop carries becomes an unknown with the
invariants that were found for it (``passes/prove.py``). Facts and goals are IR expressions over dimensions, scalars, index variables and
elements of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from nsalang import ir
from nsalang.dtypes import BOOL, I64, DType
from nsalang.source import Span

Kind = Literal["range", "divisor", "shift", "fits", "race", "twice", "order", "coverage", "hypotheses"]


@dataclass(frozen=True, slots=True)
class Obligation:
    """``facts`` must imply ``goal``. ``what``: the access or expression as written; ``place``: which index or pair it is about."""

    kind: Kind
    what: str
    facts: tuple[ir.Expr, ...]
    goal: ir.Expr
    span: Span | None
    tensor: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class Ranges:
    """The facts about one index variable."""

    name: str
    start: ir.Expr
    stop: ir.Expr
    extra: ir.Expr | None = None

    def facts(self) -> tuple[ir.Expr, ...]:
        here = ir.Index(I64, (self.name,), self.name)
        made = (ir.binary("le", self.start, here), ir.binary("lt", here, self.stop))
        return made if self.extra is None else (*made, ir.binary("lt", here, self.extra))


@dataclass(frozen=True, slots=True)
class Access:
    """A read or write with everything replaced down to symbols.

    ``assumed`` holds of the kernel (requirements, invariants), ``conditions`` are what leads here (ranges, branches, guards): an access happens
    for every choice of index variables that fulfils them. ``loops``: the sequential index variables around it.
    """

    node: ir.Load | ir.Store
    tensor: str
    indices: tuple[ir.Expr, ...]
    assumed: tuple[ir.Expr, ...]
    conditions: tuple[ir.Expr, ...]
    loops: tuple[str, ...]
    axes: tuple[str, ...]
    ranges: tuple[Ranges, ...]

    @property
    def facts(self) -> tuple[ir.Expr, ...]:
        """Everything that holds where the access runs."""
        return (*self.assumed, *self.conditions)

    @property
    def is_store(self) -> bool:
        return isinstance(self.node, ir.Store)


Invariants = Callable[[ir.For, Mapping[str, ir.Expr], "Walk"], tuple[ir.Expr, ...]]


@dataclass(slots=True)
class Walk:
    """The symbolic state: what each variable stands for, and what holds here."""

    kernel: ir.Kernel
    invariants: Invariants
    values: dict[str, ir.Expr] = field(default_factory=dict)
    assumed: list[ir.Expr] = field(default_factory=list)
    facts: list[ir.Expr] = field(default_factory=list)
    loops: tuple[str, ...] = ()
    ranges: dict[str, Ranges] = field(default_factory=dict)
    accesses: list[Access] = field(default_factory=list)
    obligations: list[Obligation] = field(default_factory=list)
    quiet: bool = False
    fresh: list[int] = field(default_factory=lambda: [0])

    # --------------------------------------------------------------------------------------------------------------- values

    def resolve(self, node: ir.Expr) -> ir.Expr:
        """An expression over symbols alone."""

        def rule(n: ir.Node) -> ir.Node:
            if isinstance(n, ir.Var):
                return self.values.get(n.name, n)
            if isinstance(n, ir.Index) and not n.axes:
                return replace(n, axes=(n.name,))  # scalar and tiled indices are the same thing to a proof
            if isinstance(n, ir.Load) and n.guard is not None:
                return replace(n, guard=None)
            return n

        return ir.rewrite(node, rule)

    def unknown(self, name: str, dtype: DType, axes: tuple[str, ...]) -> ir.Var:
        self.fresh[0] += 1
        return ir.Var(dtype, axes, f"{name}#{self.fresh[0]}")

    def known(self) -> tuple[ir.Expr, ...]:
        """All that holds here."""
        return (*self.assumed, *self.facts)

    # ----------------------------------------------------------------------------------------------------------- statements

    def block(self, statements: tuple[ir.Stmt, ...]) -> None:
        for s in statements:
            self.statement(s)

    def statement(self, s: ir.Stmt) -> None:
        match s:
            case ir.Assign():
                self.look(s.value)
                known = s.value.dtype is BOOL or s.value.dtype.is_integer
                self.values[s.name] = self.resolve(s.value) if known else self.unknown(s.name, s.value.dtype, s.value.axes)
            case ir.Store():
                self._store(s)
            case ir.SpanAxis():
                self.look(s.start)
                start = self.resolve(s.start)
                if s.stop is not None:
                    self.look(s.stop)
                stop = ir.binary("add", start, ir.const(s.length))
                self._declare(Ranges(s.axis, start, stop, None if s.stop is None else self.resolve(s.stop)))
            case ir.If():
                self._branch(s)
            case ir.For():
                self._loop(s)

    def _declare(self, made: Ranges) -> None:
        self.ranges[made.name] = made
        self.facts.extend(made.facts())

    def _store(self, s: ir.Store) -> None:
        count = len(self.facts)
        if s.guard is not None:
            self.look(s.guard)
            self.facts.append(self.resolve(s.guard))
        for index in s.indices:
            self.look(index)
        self.look(s.value)
        self._access(s, s.tensor, s.indices, s.axes)
        del self.facts[count:]

    def _branch(self, s: ir.If) -> None:
        self.look(s.cond)
        condition = self.resolve(s.cond)
        before, count = dict(self.values), len(self.facts)
        self.facts.append(condition)
        self.block(s.body)
        then = self.values
        del self.facts[count:]
        self.values = dict(before)
        self.facts.append(ir.Unary(BOOL, (), "not", condition))
        self.block(s.orelse)
        del self.facts[count:]
        merged: dict[str, ir.Expr] = {}
        for name in before:
            a, b = then.get(name, before[name]), self.values.get(name, before[name])
            merged[name] = a if a == b else ir.Where(a.dtype, ir.join(a.axes, b.axes), condition, a, b)
        self.values = merged

    def _loop(self, s: ir.For) -> None:
        self.look(s.lo)
        self.look(s.hi)
        found = self.invariants(s, dict(self.values), self)
        count = len(self.facts)
        entered = dict(self.values)
        symbols = {n: self.unknown(n, self.values[n].dtype, self.values[n].axes) for n in s.carried if n in self.values}
        self.values.update(symbols)
        self.assumed.extend(substitute(f, symbols) for f in found)
        self._declare(Ranges(s.index, self.resolve(s.lo), self.resolve(s.hi)))
        outer = self.loops
        self.loops = (*outer, s.index)
        self.block(s.body)
        self.loops = outer
        del self.facts[count:]
        after = {n: self.unknown(n, v.dtype, v.axes) for n, v in symbols.items()}
        self.values = {**entered, **after}
        self.assumed.extend(substitute(f, after) for f in found)

    # ---------------------------------------------------------------------------------------------------------- expressions

    def look(self, node: ir.Expr) -> None:
        """The obligations of an expression: what is inside ``where`` has its condition as a fact."""
        match node:
            case ir.Where():
                self.look(node.cond)
                condition = self.resolve(node.cond)
                self._under(condition, node.a)
                self._under(ir.Unary(BOOL, condition.axes, "not", condition), node.b)
                return
            case ir.Load():
                count = len(self.facts)
                for index in node.indices:
                    self.look(index)
                if node.guard is not None:
                    self.facts.append(self.resolve(node.guard))
                self._access(node, node.tensor, node.indices, node.axes)
                del self.facts[count:]
                return
            case ir.Binary(op="floordiv" | "mod"):
                self._oblige("divisor", node, ir.binary("ne", self.resolve(node.b), ir.Const(node.b.dtype, (), 0)))
            case ir.Binary(op="shl" | "shr"):
                amount = self.resolve(node.b)
                zero, bits = ir.Const(amount.dtype, (), 0), ir.Const(amount.dtype, (), node.dtype.bits)
                self._oblige("shift", node, ir.binary("and", ir.binary("le", zero, amount), ir.binary("lt", amount, bits)))
            case ir.Cast() if (
                node.mode == "convert" and node.dtype.kind == "signed" and node.x.dtype.is_integer and node.dtype.bits < node.x.dtype.bits
            ):
                x = self.resolve(node.x)
                low, high = (ir.Const(x.dtype, (), int(v)) for v in (node.dtype.min, node.dtype.max))
                self._oblige("fits", node, ir.binary("and", ir.binary("le", low, x), ir.binary("le", x, high)))
        for child in ir.children(node):
            self.look(child)  # type: ignore[arg-type]

    def _under(self, condition: ir.Expr, node: ir.Expr) -> None:
        self.facts.append(condition)
        self.look(node)
        self.facts.pop()

    def _oblige(self, kind: Kind, node: ir.Expr, goal: ir.Expr) -> None:
        if not self.quiet:
            self.obligations.append(Obligation(kind, described(node), self.known(), goal, node.span))

    def _access(self, node: ir.Load | ir.Store, tensor: str, indices: tuple[ir.Expr, ...], axes: tuple[str, ...]) -> None:
        if self.quiet:
            return
        resolved = tuple(self.resolve(i) for i in indices)
        self.accesses.append(
            Access(node, tensor, resolved, tuple(self.assumed), tuple(self.facts), self.loops, axes, tuple(self.ranges.values()))
        )
        for position, (index, extent) in enumerate(zip(resolved, self.kernel.tensor(tensor).shape, strict=True)):
            goal = ir.binary("and", ir.binary("le", ir.const(0), index), ir.binary("lt", index, extent))
            self.obligations.append(Obligation("range", described(node), self.known(), goal, node.span, tensor, position))


def substitute(node: ir.Expr, values: Mapping[str, ir.Expr]) -> ir.Expr:
    """Variables and index variables replaced by name."""

    def rule(n: ir.Node) -> ir.Node:
        return values.get(n.name, n) if isinstance(n, (ir.Var, ir.Index)) else n

    return ir.rewrite(node, rule)


def described(node: ir.Node) -> str:
    """The text of a node, as the author wrote it."""
    return node.span.text if node.span is not None else type(node).__name__.lower()


def start(kernel: ir.Kernel, invariants: Invariants) -> Walk:
    """A walk before the first statement: dimensions, requirements and the grid are known."""
    walk = Walk(kernel, invariants)
    walk.assumed += [ir.binary("ge", ir.Dim(I64, (), d), ir.const(0)) for d in kernel.dims]
    walk.assumed += [walk.resolve(r.condition) for r in kernel.requires]
    for index in kernel.grid:
        walk._declare(Ranges(index.name, ir.const(0), walk.resolve(index.extent)))
    return walk
