"""What must be shown of a kernel, collected from its untiled meaning: one symbolic walk that knows at each point which facts hold.

``tile(M)`` contributes one index in ``0 .. M``. Variables are replaced by what they stand for (``symbols``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64
from nsalang.base.source import Span
from nsalang.ir.intervals import LEAST, MOST, conjuncts, padding
from nsalang.ir.operations import REDUCTIONS, UNARY
from nsalang.proof.ends import Ends, Ranges, between_sizes, kept_by, symbolic
from nsalang.proof.forms import LARGEST, between, described, divided, narrowed, replace_terms, size, tidy
from nsalang.proof.invariants import entering, kept
from nsalang.proof.lemmas import DIMS, index, substitute
from nsalang.proof.loops import Carried, chain, counts, moved, moves, nests, pace, so_far, summed
from nsalang.proof.prefix import running
from nsalang.proof.reason import every, implies, negated
from nsalang.proof.smt import EXACT, is_exact
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
class Walk(Symbols):
    """A symbolic walk: also what holds here, and what was found. ``quiet``: nothing is noted; ``shallow``: nor are invariants looked for."""

    facts: list[ir.Expr] = field(default_factory=list)
    loops: tuple[str, ...] = ()
    accesses: list[Access] = field(default_factory=list)
    obligations: list[Obligation] = field(default_factory=list)
    quiet: bool = False
    shallow: bool = False

    def known(self, *about: ir.Expr, axes: tuple[str, ...] = ()) -> tuple[ir.Expr, ...]:
        """What leads here; of a span only where one of its lanes is spoken of, for it may have none."""
        return self.with_ranges(list(self.facts), set(self.scope), about, axes)

    # ----------------------------------------------------------------------------------------------------------- statements

    def block(self, statements: tuple[ir.Stmt, ...]) -> None:
        for s in statements:
            self.statement(s)

    def statement(self, s: ir.Stmt) -> None:
        match s:
            case ir.Assign():
                self.look(s.value)
                value = self.resolve(s.value)
                small = s.value.dtype is BOOL or s.value.dtype.is_integer or size(value) <= LARGEST
                self.values[s.name] = value if small else self.unknown(ir.plain(s.name), s.value.dtype, s.value.axes)
            case ir.Store():
                self._store(s)
            case ir.SpanAxis():
                self.look(s.start)
                start = self.resolve(s.start)
                if s.stop is not None:
                    self.look(s.stop)
                stop = tidy(ir.binary("add", start, ir.const(s.length)))
                if not -DIMS <= self.ends(start)[0] <= self.ends(start)[1] <= DIMS:  # else only a length that no machine has leads beyond
                    self._axis(s.start, [(stop, padding(s))])
                self.ranges[s.axis] = Ranges(s.axis, start, stop, None if s.stop is None else self.resolve(s.stop), whole=True)
            case ir.If():
                self._branch(s)
            case ir.For():
                self._loop(s)
            case ir.Barrier():
                pass
            case _:
                assert_never(s)

    def enter(self, made: Ranges) -> None:
        """An index variable of the grid or of a loop, which has a value wherever its body runs."""
        self.ranges[made.name] = made
        self.scope = (*self.scope, made.name)
        self.facts.extend(made.facts())

    def _store(self, s: ir.Store) -> None:
        count = len(self.facts)
        if s.guard is not None:
            self.look(s.guard)
            self.facts.append(self.resolve(s.guard))
        for i in s.indices:
            self.look(i)
        self.look(s.value)
        self._access(s, s.tensor, s.indices, s.axes)
        del self.facts[count:]
        self.epoch += 1

    def _branch(self, s: ir.If) -> None:
        self.look(s.cond)
        condition = self.resolve(s.cond)
        before, count, epoch = dict(self.values), len(self.facts), self.epoch
        self.facts.append(condition)
        self.block(s.body)
        then = self.values
        del self.facts[count:]
        self.values = dict(before)
        self.facts.append(negated(condition))
        self.epoch += self.epoch != epoch
        self.block(s.orelse)
        del self.facts[count:]
        self.epoch += self.epoch != epoch
        merged: dict[str, ir.Expr] = {}
        for name in before:
            a, b = then.get(name, before[name]), self.values.get(name, before[name])
            merged[name] = a if a == b else self._either(name, condition, a, b)
        self.values = merged

    def _either(self, name: str, condition: ir.Expr, a: ir.Expr, b: ir.Expr) -> ir.Expr:
        axes = ir.join(a.axes, b.axes)
        if size(a) + size(b) <= LARGEST:
            return ir.Where(a.dtype, ir.join(condition.axes, axes), condition, a, b)
        made = self.unknown(ir.plain(name), a.dtype, axes)
        if a.dtype.is_integer or a.dtype is BOOL:
            self.define(made, (implies(condition, ir.binary("eq", made, a)), implies(negated(condition), ir.binary("eq", made, b))))
        return made

    def _loop(self, s: ir.For) -> None:
        self.look(s.lo)
        self.look(s.hi)
        r = Ranges(s.index, self.resolve(s.lo), self.resolve(s.hi))
        self._axis(s.hi, [(r.stop, padding(s)), (tidy(ir.binary("sub", r.stop, r.start)), padding(s))])
        outside, count, entered, scope, loops = self.known(r.start, r.stop), len(self.facts), dict(self.values), self.scope, self.loops
        self.epoch += 1
        self.enter(r)
        self.facts += (*divided(r.start), *divided(r.stop))
        self.loops = (*loops, s.index)
        names = [n for n in s.carried if n in entered]
        symbols = {n: self.unknown(ir.plain(n), entered[n].dtype, self.own_axes(entered[n])) for n in names}
        self.uniform |= {(v.tensor, s.index) for v in symbols.values()}
        shallow = self.shallow
        self.shallow = shallow or nests(s)
        carried = self._probe(s, symbols, entered) if any(entered[n].dtype.kind == "signed" for n in names) else ()
        self.shallow = shallow
        chained = {c.name: made for c in carried if (made := chain(self, s, r, c)) is not None}
        plain = [c for c in carried if c.name not in chained]
        by = {c.name: ends for c in plain if (ends := moves(self, s, r, c)) is not None}
        rates: dict[str, Ends] = {}
        for c in plain:
            if c.name in by:
                self.limits[c.symbol.tensor] = moved(self, c.entry, by[c.name])
                rates[c.name] = pace(self, c.step, c.symbol, s.index) or Ends(None, None)
                self.reaches[c.symbol.tensor] = symbolic(self, c.entry) + rates[c.name].times(symbolic(self, r.room).high)
        before = tuple(self.facts)
        sums = {c.name: x for c in plain if (x := summed(self, s, c.symbol, c.step, self.fresh)) is not None}
        runs = {n: run for n, x in sums.items() if (run := running(self, s.index, r.start, x, before)) is not None}
        found = self._invariants(s, r, plain, symbols, entered, before) if plain else []
        gone = ir.binary("max", tidy(ir.binary("sub", index(s.index), r.start)), ir.const(0))
        for c in plain:
            here = [f for f in found if c.symbol in ir.walk(f)]
            here += _since(c.entry, c.symbol, rates.get(c.name), gone)
            if c.name in runs:
                here += so_far(self, s, runs[c.name], c, sums[c.name], r)
            self.define(c.symbol, tuple(implies(every(before), f) for f in here))
        self.values |= symbols | {n: made.inside for n, made in chained.items()}
        seen, numbers, memo = (len(self.accesses), len(self.obligations)), (self.fresh, self.epoch), dict(self.memo)
        self.block(s.body)
        changed = any(summed(self, s, symbols[n], self.values[n], numbers[0]) != sums[n] for n in runs)
        if changed or any(counts(self, s, made, self.values[n]) != made.flag for n, made in chained.items()):
            self._back(seen, numbers, memo)
            self.chains = [c for c in self.chains if c[0] != s.index]
            self.values = {**entered, **symbols}
            self.carries = [c for c in self.carries if c[0] != s.index]
            for n in (*chained, *runs):
                self.define(symbols[n], ())
            chained, runs = {}, {}
            self.block(s.body)
        self.scope, self.loops = scope, loops
        del self.facts[count:]
        self.epoch += 1
        left = {n: self.unknown(ir.plain(n), symbols[n].dtype, self.own_axes(entered[n])) for n in names if n not in chained}
        self.values = {**entered, **left, **{n: made.after for n, made in chained.items()}}
        for c in plain:
            facts = []
            if c.name in by:
                total = rates[c.name].times(symbolic(self, r.room).high)
                self.limits[left[c.name].tensor] = moved(self, c.entry, by[c.name])
                self.reaches[left[c.name].tensor] = symbolic(self, c.entry) + total
                self.changes[left[c.name].tensor] = (c.entry, by[c.name], total)
                facts += [implies(every(outside), f) for f in _since(c.entry, left[c.name], rates[c.name], r.room)]
            if c.name in runs:
                facts += [implies(every(outside), f) for f in runs[c.name].between(left[c.name], c.entry, r.stop)]
            for f in found:
                if c.symbol in ir.walk(f):
                    f = replace_terms(f, {symbols[n]: left[n] for n in left})
                    if s.kind == "range":
                        f = substitute(f, {s.index: ir.binary("max", r.start, r.stop)})
                    facts.append(implies(every(outside), f))
            self.define(left[c.name], tuple(facts))

    def _back(self, seen: tuple[int, int], numbers: tuple[int, int], memo: dict[object, ir.Expr]) -> None:
        """Forget what came after."""
        del self.accesses[seen[0] :], self.obligations[seen[1] :]
        (self.fresh, self.epoch), self.memo = numbers, memo

    def _invariants(
        self,
        s: ir.For,
        r: Ranges,
        plain: list[Carried],
        symbols: Mapping[str, ir.Load],
        entered: Mapping[str, ir.Expr],
        before: tuple[ir.Expr, ...],
    ) -> list[ir.Expr]:
        """What holds of carried integers at the start of every iteration. What loops in the body find may rest on it: then it is found for all of the
        nest, by supposing what holds on entry and giving up what an iteration does not keep."""
        if self.shallow:
            return []
        hopes = entering(self, s, r, plain, before)
        if not nests(s):
            return kept(self, r, plain, before, hopes)
        while True:
            for c in plain:
                self.define(c.symbol, tuple(implies(every(before), f) for f in hopes if c.symbol in ir.walk(f)))
            names = {c.name for c in plain}
            steps = [c for c in self._probe(s, symbols, entered) if c.name in names]
            still = kept(self, r, steps, before, hopes)
            if len(still) == len(hopes):
                return hopes
            hopes = still

    def _probe(self, s: ir.For, symbols: Mapping[str, ir.Load], entered: Mapping[str, ir.Expr]) -> tuple[Carried, ...]:
        """One iteration, run without a trace, to see what the carried variables become."""
        state = (dict(self.values), self.fresh, self.epoch, self.quiet, dict(self.memo), list(self.chains), list(self.carries))
        lengths = len(self.facts), len(self.accesses), len(self.obligations)
        self.quiet = True
        self.values.update(symbols)
        self.block(s.body)
        made = tuple(Carried(n, symbols[n], entered[n], self.values[n]) for n in symbols if symbols[n].dtype.kind == "signed")
        self.values, self.fresh, self.epoch, self.quiet, self.memo, self.chains, self.carries = state
        assert lengths == (len(self.facts), len(self.accesses), len(self.obligations))
        return made

    # ---------------------------------------------------------------------------------------------------------- expressions

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


def _since(entry: ir.Expr, symbol: ir.Expr, rate: Ends | None, count: ir.Expr) -> list[ir.Expr]:
    """A carried integer after at most ``count`` steps of at most this rate."""
    if rate is None:
        return []
    by = rate.times(count)
    found: list[ir.Expr] = [] if by.low is None else [ir.binary("le", ir.binary("add", entry, by.low), symbol)]
    return found if by.high is None else [*found, ir.binary("le", symbol, ir.binary("add", entry, by.high))]


def counts_lanes(node: ir.Node) -> bool:
    """Whether a load is guarded by what it asks of lanes that it lacks: whether any of them is looked at."""
    return isinstance(node, ir.Load) and node.guard is not None and any(isinstance(n, ir.Reduce) for n in ir.walk(node.guard))


def start(kernel: ir.Kernel) -> Walk:
    """A walk before the first statement: dimensions, requirements and the grid are known."""
    stores = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Store)]
    walk = Walk(kernel, frozenset(kernel.memory(s.tensor) for s in stores))
    walk.book.kernel = kernel
    walk.assumed += hypotheses(kernel)
    for g in kernel.grid:
        walk.enter(Ranges(g.name, ir.const(0), walk.resolve(g.extent)))
    return walk


def hypotheses(kernel: ir.Kernel) -> list[ir.Expr]:
    """What holds of every launch: dimensions and extents are not negative, and the requirements are checked."""
    zero = ir.const(0)
    found: list[ir.Expr] = [ir.binary("ge", ir.Dim(I64, (), d), zero) for d in kernel.dims]
    found += [c for r in kernel.requires for c in conjuncts(r.condition)]
    shapes = [e for t in kernel.tensors for e in t.shape]
    found += [
        ir.binary("ge", e, zero) for e in dict.fromkeys(shapes) if any(isinstance(n, ir.Binary) and n.op == "sub" for n in ir.walk(e))
    ]
    return found
