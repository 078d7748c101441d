"""One symbolic walk over a kernel's untiled meaning, which knows at each point which facts hold, and collects what must be shown.

``tile(M)`` contributes one index in ``0 .. M``. Variables are replaced by what they stand for (``symbols``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64
from nsalang.ir.intervals import conjuncts, padding
from nsalang.proof.ends import Ends, Ranges, symbolic
from nsalang.proof.forms import LARGEST, divided, replace_terms, size, tidy
from nsalang.proof.invariants import entering, kept
from nsalang.proof.lemmas import DIMS, index, substitute
from nsalang.proof.loops import Carried, chain, counts, moved, moves, nests, pace, so_far, summed
from nsalang.proof.obligations import Look
from nsalang.proof.prefix import running
from nsalang.proof.reason import every, implies, negated


@dataclass(slots=True)
class Walk(Look):
    """The walk over statements. ``shallow``: invariants are not looked for."""

    shallow: bool = False

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


def _since(entry: ir.Expr, symbol: ir.Expr, rate: Ends | None, count: ir.Expr) -> list[ir.Expr]:
    """A carried integer after at most ``count`` steps of at most this rate."""
    if rate is None:
        return []
    by = rate.times(count)
    found: list[ir.Expr] = [] if by.low is None else [ir.binary("le", ir.binary("add", entry, by.low), symbol)]
    return found if by.high is None else [*found, ir.binary("le", symbol, ir.binary("add", entry, by.high))]


def start(kernel: ir.Kernel) -> Walk:
    """A walk before the first statement: dimensions, requirements and the grid are known."""
    stores = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Store)]
    walk = Walk(kernel, written=frozenset(kernel.memory(s.tensor) for s in stores))
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
