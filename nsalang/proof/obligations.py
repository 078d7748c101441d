"""What must be shown of expressions, where it is known which facts hold: of each operation what docs/proofs.md says, and of each access."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from nsalang import ir
from nsalang.base.dtypes import I64
from nsalang.base.source import Span
from nsalang.ir.intervals import LEAST, MOST
from nsalang.ir.operations import REDUCTIONS, UNARY
from nsalang.proof.encoder import EXACT, is_exact
from nsalang.proof.ends import Ranges, between_sizes, kept_by
from nsalang.proof.forms import between, described, divided, narrowed, tidy
from nsalang.proof.lemmas import DIMS
from nsalang.proof.reason import every, negated
from nsalang.proof.symbols import Symbols

Kind = Literal["range", "divisor", "shift", "fits", "overflow", "race", "twice", "order", "coverage", "hypotheses", "view", "overlap"]


@dataclass(frozen=True, slots=True)
class Obligation:
    """``facts`` must imply ``goal``. ``what``: the access or expression as written; ``position``: the axis of the tensor, for a range; 1 for
    an overflow of the axis that begins or ends at ``what``.
    ``unguarded``: what holds of a load without what its author asks, where that is about lanes that it lacks (see `counts_lanes`). ``needs``: a condition on dimensions and scalars that lets the goal follow; ``bound``: the same, where a launch may check it unasked."""

    kind: Kind
    what: str
    facts: tuple[ir.Expr, ...]
    goal: ir.Expr
    span: Span | None
    tensor: str = ""
    position: int = 0
    unguarded: tuple[ir.Expr, ...] | None = None
    bound: ir.Expr | None = None
    needs: ir.Expr | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """A read or write with everything replaced down to symbols.

    ``assumed`` holds of the kernel, ``conditions`` are what leads here (ranges, branches, guards): an access happens for every choice of index
    variables that fulfils them. ``loops``: the sequential index variables around it. ``axes``: those of one execution of the statement.
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


@dataclass(slots=True)
class Look(Symbols):
    """What is asked of the expressions at a point of a kernel: what holds there, and what was found. ``quiet``: nothing is noted."""

    facts: list[ir.Expr] = field(default_factory=list)
    loops: tuple[str, ...] = ()
    accesses: list[Access] = field(default_factory=list)
    obligations: list[Obligation] = field(default_factory=list)
    quiet: bool = False

    def known(self, *about: ir.Expr, axes: tuple[str, ...] = ()) -> tuple[ir.Expr, ...]:
        """What leads here; of a span only where one of its lanes is spoken of, for it may have none."""
        return self.with_ranges(list(self.facts), set(self.scope), about, axes)

    def look(self, node: ir.Expr) -> None:
        """The obligations of an expression: what is inside ``where`` has its condition as a fact."""
        match node:
            case ir.Where():
                self.look(node.cond)
                condition = self.resolve(node.cond)
                self._under(condition, node.a)
                self._under(negated(condition), node.b)
            case ir.Load() | ir.Search():
                count = len(self.facts)
                if node.guard is not None:
                    self.facts.append(self.resolve(node.guard))
                if isinstance(node, ir.Search):
                    self.look(node.x)
                else:
                    for i in node.indices:
                        self.look(i)
                    self._access(node, node.tensor, node.indices, node.axes)
                del self.facts[count:]
            case _:
                self._operation(node)
                for child in ir.children(node):
                    self.look(child)  # type: ignore[arg-type]

    def _operation(self, node: ir.Expr) -> None:
        """What must hold of an operation's operands, and of its result. docs/proofs.md has a row for each."""
        match node:
            case ir.Binary():
                self._binary(node)
            case ir.Unary():
                if UNARY[node.op].may_leave:
                    self._stays(node)
            case ir.Reduce():
                if REDUCTIONS[node.op].may_leave:
                    self._stays(node)
            case ir.Scan() | ir.Dot():
                self._stays(node)
            case ir.Border():
                n, parts, g = self.resolve(node.n), self.resolve(node.parts), self.resolve(node.g)
                zero = ir.const(0)
                self._oblige("divisor", node, every((ir.binary("le", zero, n), ir.binary("lt", zero, parts))))
                part = every((ir.binary("le", zero, g), ir.binary("le", g, parts)))
                whole = ir.binary("mul", g, ir.binary("floordiv", n, parts))
                beyond = every(between(ir.const(LEAST), ir.binary("add", whole, ir.binary("min", g, n)), ir.const(MOST)))
                most = max(abs(e) for e in self.ends(g)) * (self.ends(n)[1] + 1)
                if most > MOST:
                    self._oblige("overflow", node, ir.binary("or", part, beyond), self._huge())
            case ir.Cast():
                self._conversion(node)
            case ir.Const() | ir.Dim() | ir.Scalar() | ir.Index() | ir.Var() | ir.Full() | ir.Spread():
                pass  # a value that is there already
            case ir.Bitcast() | ir.Fma():
                pass  # a value for every operand
            case ir.Where() | ir.Load() | ir.Search():
                raise AssertionError(node)
            case _:
                assert_never(node)

    def _binary(self, node: ir.Binary) -> None:
        match node.op:
            case "floordiv" | "mod" | "tdiv" | "tmod":
                self._oblige("divisor", node, ir.binary("ne", self.resolve(node.b), ir.Const(node.b.dtype, (), 0)))
                if node.op in ("floordiv", "tdiv"):
                    self._stays(node)
            case "shl" | "shr":
                amount = self.resolve(node.b)
                zero, bits = ir.Const(amount.dtype, (), 0), ir.Const(amount.dtype, (), node.dtype.bits)
                self._oblige("shift", node, ir.binary("and", ir.binary("le", zero, amount), ir.binary("lt", amount, bits)))
                if node.op == "shl":
                    self._stays(node)
            case "add" | "sub" | "mul":
                self._stays(node)
            case "div" | "and" | "or" | "xor" | "min" | "max" | "lt" | "le" | "gt" | "ge" | "eq" | "ne":
                pass  # of a float, or never beyond its operands
            case _:
                assert_never(node.op)

    def _conversion(self, node: ir.Cast) -> None:
        """A signed result must fit; an unsigned one wraps, a float saturates."""
        if node.mode != "convert" or node.dtype.kind != "signed" or not node.x.dtype.is_integer:
            return
        low, high = int(node.dtype.min), int(node.dtype.max)
        x = self.resolve(node.x)
        if (low <= node.x.dtype.min and node.x.dtype.max <= high) or narrowed(x, node.dtype):
            return
        if x.dtype.kind == "unsigned":
            fits: ir.Expr = ir.binary("le", x, ir.Const(x.dtype, (), high))
        else:
            fits = every(between(ir.Const(x.dtype, (), low), x, ir.Const(x.dtype, (), high)))
        self._oblige("fits", node, fits, ends=(x, low, high))

    def _stays(self, node: ir.Expr) -> None:
        """A mathematical integer stays within 64 bits: an obligation where the ends of what it is made of, as exact integers, do not show it.

        It is about the exact result. An unknown in the result's place would lie within its dtype by definition, and settle what it is about.
        """
        if node.dtype is not I64:
            return
        made = self.resolve(node)
        low, high = self.limits.get(made.tensor, (0, DIMS)) if isinstance(made, ir.Load) else self.ends(made)
        if low >= LEAST and high <= MOST:
            return
        parts = (made.a, made.b) if isinstance(made, ir.Binary) else ()
        beyond = [p for p in parts if self.ends(p)[0] < LEAST or self.ends(p)[1] > MOST]
        stay = tuple(f for p in beyond for f in between(ir.const(LEAST), p, ir.const(MOST)))
        result = (
            self._exact(made)
            if isinstance(made, ir.Load)
            else made
            if is_exact(made)
            else replace(self.unknown(EXACT, I64, made.axes), tensor=f"{EXACT}{self.fresh}")
        )
        goal = every(between(ir.const(LEAST), result, ir.const(MOST)))
        self._oblige("overflow", node, goal, (*self._huge(), *stay), ends=(made, LEAST, MOST))

    def _exact(self, made: ir.Load) -> ir.Load:
        """The mathematical integer that an unknown is: the same facts, but not its dtype's range."""
        exact = replace(made, tensor=EXACT + made.tensor)
        known = self.book.definitions[made.tensor]

        def rule(n: ir.Node) -> ir.Node:
            return replace(n, tensor=exact.tensor) if isinstance(n, ir.Load) and n.tensor == made.tensor else n

        facts = tuple(ir.rewrite(f, rule) for f in known.facts)
        self.book.definitions[exact.tensor] = replace(known, facts=facts)
        return exact

    def _axis(self, at: ir.Expr, reached: list[tuple[ir.Expr, int]]) -> None:
        """What a machine computes of the ends of an axis, to look whether a lane exists and where a loop ends, stays within 64 bits: each of
        these, with so much more for lanes that pad it."""
        parts: list[ir.Expr] = []
        for e, more in reached:
            low, high = self.ends(e)
            parts += [] if high <= MOST - more else [ir.binary("le", e, ir.const(MOST - more))]
            parts += [] if low >= LEAST else [ir.binary("le", ir.const(LEAST), e)]
        if parts:
            self._oblige("overflow", at, every(parts), self._huge(), position=1)

    def _huge(self) -> tuple[ir.Expr, ...]:
        """No extent reaches 2**48: memory is smaller, and the launch refuses it where strides of 0 would allow it."""
        extents = [ir.Dim(I64, (), d) for d in self.kernel.dims]
        extents += [e for t in self.kernel.tensors for e in t.shape if not isinstance(e, (ir.Dim, ir.Const))]  # type: ignore[misc]
        return tuple(ir.binary("lt", e, ir.const(DIMS)) for e in extents)

    def _under(self, condition: ir.Expr, node: ir.Expr) -> None:
        self.facts.append(condition)
        self.look(node)
        self.facts.pop()

    def _oblige(
        self,
        kind: Kind,
        node: ir.Expr,
        goal: ir.Expr,
        more: tuple[ir.Expr, ...] = (),
        ends: tuple[ir.Expr, int, int] | None = None,
        position: int = 0,
    ) -> None:
        """``ends``: a value, and between which numbers the goal wants it."""
        if not self.quiet:
            sane = () if kind == "divisor" else divided(goal)
            facts = (*self.assumed, *more, *sane, *self.known(goal, axes=node.axes))
            self.supposed = tuple(self.facts)
            needs = None if ends is None else between_sizes(self, *ends)
            self.supposed = ()
            bound = needs if needs is not None and kept_by(needs) else None
            made = Obligation(kind, described(node), facts, goal, node.span, position=position, bound=bound, needs=needs)
            if made not in self.obligations[-4:]:  # both ends of one split ask the same
                self.obligations.append(made)

    def _access(self, node: ir.Load | ir.Store, tensor: str, indices: tuple[ir.Expr, ...], axes: tuple[str, ...]) -> None:
        if self.quiet:
            return
        resolved = tuple(tidy(self.resolve(i)) for i in indices)
        conditions = (*self.known(*resolved, axes=axes), *(f for i in resolved for f in divided(i)))
        made = Access(node, tensor, resolved, tuple(self.assumed), conditions, self.loops, axes, tuple(self.ranges.values()))
        self.accesses.append(made)
        unguarded = (*self.assumed, *self.with_ranges([], set(), resolved, axes)) if counts_lanes(node) else None
        for position, (i, extent) in enumerate(zip(resolved, self.kernel.tensor(tensor).shape, strict=True)):
            goal = ir.binary("and", ir.binary("le", ir.const(0), i), ir.binary("lt", i, extent))
            self.obligations.append(Obligation("range", described(node), made.facts, goal, node.span, tensor, position, unguarded))


def counts_lanes(node: ir.Node) -> bool:
    """Whether a load is guarded by what it asks of lanes that it lacks: whether any of them is looked at."""
    return isinstance(node, ir.Load) and node.guard is not None and any(isinstance(n, ir.Reduce) for n in ir.walk(node.guard))
