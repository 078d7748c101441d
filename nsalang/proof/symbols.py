"""Expressions over symbols: what the walk over a kernel makes of variables, elements, reductions and scans.

What is no expression of dimensions, scalars, index variables and elements becomes an *unknown*: an element of an invented tensor (its name has a
``#``) whose indices are the index variables on which it may depend, so that two executions can be told apart by replacing index variables. What
is known of an unknown is its Definition; ``lemmas.complete`` puts it in for each element that occurs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64, DType
from nsalang.ir.intervals import LEAST, LONGEST_TILE, MOST
from nsalang.ir.operations import REDUCTIONS
from nsalang.proof import prefix
from nsalang.proof.bounds import Bounds
from nsalang.proof.ends import NOTHING, Ends, Ranges, symbolic
from nsalang.proof.forms import between, counted, tidy
from nsalang.proof.lemmas import Book, Count, Definition, bare, index, lemma_name, substitute, wide
from nsalang.proof.reason import every, implies, negated


@dataclass(slots=True)
class Symbols(Bounds):
    """What each variable stands for at a point of a kernel, and what is known of the unknowns. ``written``: the memory that some store writes.
    ``scope``: the index variables of the grid and of the loops here. ``uniform``: unknowns that are the same for all lanes of one block of a
    loop's axis. ``chains``: ranks that a loop's counter places (axis, predicate, how many before in the whole loop). ``reaches``: the ends of
    unknowns, before they are cut to 64 bits, as expressions; ``lanes``: an axis, and what a sum adds for one lane of it; ``changes``: a loop's result
    as what it was before and the ends of the change. ``sums``, ``carries``: see `prefix.Place`; ``supposed``: see `ends.Known`."""

    written: frozenset[str] = frozenset()
    values: dict[str, ir.Expr] = field(default_factory=dict)
    scope: tuple[str, ...] = ()
    book: Book = field(default_factory=Book)
    memo: dict[object, ir.Expr] = field(default_factory=dict)
    chains: list[tuple[str, ir.Expr, ir.Expr]] = field(default_factory=list)
    reaches: dict[str, Ends] = field(default_factory=dict)
    lanes: dict[str, tuple[str, ir.Expr]] = field(default_factory=dict)
    changes: dict[str, tuple[ir.Expr, tuple[int, int], Ends]] = field(default_factory=dict)
    uniform: set[tuple[str, str]] = field(default_factory=set)
    sums: dict[object, str] = field(default_factory=dict)
    carries: list[tuple[str, ir.Expr, ir.Expr]] = field(default_factory=list)
    assumed: list[ir.Expr] = field(default_factory=list)
    supposed: tuple[ir.Expr, ...] = ()
    fresh: int = 0
    epoch: int = 0
    counts: int = 0

    def around(self, *about: ir.Expr, axes: tuple[str, ...] = ()) -> tuple[ir.Expr, ...]:
        """What holds of every launch, and the ranges of the index variables in scope and of those that are spoken of."""
        return (*self.assumed, *self.with_ranges([], set(), about, (*self.scope, *axes)))

    def with_ranges(self, found: list[ir.Expr], seen: set[str], about: tuple[ir.Expr, ...], axes: tuple[str, ...]) -> tuple[ir.Expr, ...]:
        """Facts, and those of the ranges of what they and ``about`` speak of."""
        pending = [*axes, *(n.name for e in (*found, *about) for n in ir.walk(e) if isinstance(n, ir.Index))]
        while pending:
            name = pending.pop()
            if name not in seen and name in self.ranges:
                seen.add(name)
                made = self.ranges[name].facts()
                found.extend(made)
                pending += [n.name for e in made for n in ir.walk(e) if isinstance(n, ir.Index)]
        return tuple(found)

    def resolve(self, node: ir.Expr) -> ir.Expr:
        """An expression over symbols alone."""

        def rule(n: ir.Node) -> ir.Node:
            match n:
                case ir.Var():
                    return self.values.get(n.name, n)
                case ir.Index():
                    return index(n.name)
                case ir.Load():
                    return self._element(n)
                case ir.Search():
                    return self._search(n)
                case ir.Border():
                    return lemma_name("border", I64, (n.n, n.parts, n.g))
                case ir.Reduce():
                    return self._reduction(n)
                case ir.Scan():
                    return self._scan(n)
                case ir.Dot() if n.dtype.is_integer:
                    return self._contraction(n)
            return n

        return ir.rewrite(node, rule)

    def _element(self, n: ir.Load) -> ir.Expr:
        memory = self.kernel.memory(n.tensor)
        if memory not in self.written:
            return replace(n, guard=None)
        indices = (*n.indices, *(index(s) for s in self.scope))
        return ir.Load(n.dtype, ir.join(*(i.axes for i in indices)), f"{n.tensor}@{self.epoch}#", indices)

    def _search(self, n: ir.Search) -> ir.Expr:
        if self.kernel.memory(n.tensor) in self.written or n.x.dtype.is_float:
            extent = self.kernel.tensor(n.tensor).shape[0]
            made = self.unknown("found", I64, n.x.axes)
            self.define(made, (ir.binary("le", ir.const(0), made), ir.binary("le", made, extent)))
            return made
        return lemma_name(f"search {n.tensor}", I64, (n.x,))

    def unknown(self, name: str, dtype: DType, axes: tuple[str, ...]) -> ir.Load:
        """A new unknown, which depends on the instance, the iteration and the lane."""
        self.fresh += 1
        on = tuple(dict.fromkeys((*self.scope, *axes)))
        tensor = f"{name}#{self.fresh}"
        # The number may be a trial's, whose unknowns are gone.
        for known in (self.book.definitions, self.limits, self.reaches, self.lanes, self.changes):
            known.pop(tensor, None)
        self.uniform -= {(tensor, a) for a in self.ranges}
        return ir.Load(dtype, on, tensor, tuple(index(a) for a in on))

    def define(self, made: ir.Load, facts: tuple[ir.Expr, ...], count: Count | None = None) -> None:
        """What is known of an unknown, for all of its index variables."""
        names = tuple(i.name for i in made.indices if isinstance(i, ir.Index))
        self.book.definitions[made.tensor] = Definition(names, facts, count)

    def learn(self, made: ir.Load, facts: tuple[ir.Expr, ...]) -> None:
        """More about an unknown."""
        known = self.book.definitions[made.tensor]
        self.book.definitions[made.tensor] = replace(known, facts=(*known.facts, *facts))

    def _reduction(self, n: ir.Reduce) -> ir.Expr:
        key = (n, self.scope)
        flag = counted(n.x) if n.op == "sum" and n.dtype.kind == "signed" and len(n.over) == 1 else None
        if flag is not None and self.ranges[n.over[0]].whole:
            return self.count(self.ranges[n.over[0]], flag, n.axes)[1]
        if key not in self.memo:
            made = self.unknown(n.op, n.dtype, tuple(a for a in n.axes if a not in n.over))
            self.memo[key] = made
            self.define(made, *self._about(n, made))
            self.limits[made.tensor] = self._reduced(n)
            if n.op == "sum" and n.dtype.kind == "signed":
                self.adds(made, symbolic(self, n.x), [self.ranges[a].room for a in n.over])
                if len(n.over) == 1:
                    self._summed(n, made, self.ranges[n.over[0]])
            self.uniform |= {(made.tensor, axis) for axis in n.over}
            if n.op == "sum" and n.dtype.is_integer and len(n.over) == 1:
                self.lanes[made.tensor] = (n.over[0], n.x)
        return self.memo[key]

    def _summed(self, n: ir.Reduce, made: ir.Load, r: Ranges) -> None:
        """A sum over one axis: of one lane alone, or a running sum."""
        one = prefix.one_lane(made, n.x, r)
        if one:
            low, high = self.ends(n.x)
            self.limits[made.tensor] = min(0, low), max(0, high)
            self.reaches[made.tensor] = symbolic(self, n.x).join(NOTHING)
            self.learn(made, one)
        elif r.whole:
            self.learn(made, prefix.reduced(self, made, n.x, r))

    def adds(self, made: ir.Load, each: Ends, rooms: list[ir.Expr], here: ir.Expr | None = None) -> None:
        """An unknown is a sum of ``each`` over at most as many lanes as the rooms multiply to (where ``here`` holds)."""
        near, far = each, each
        for room in rooms:
            near, far = near.times(room), far.times(symbolic(self, room).high)
        self.reaches[made.tensor] = far
        known = self.book.definitions.get(made.tensor)
        facts = near.around(made) if here is None else tuple(implies(here, f) for f in near.around(made))
        self.define(made, (*(() if known is None else known.facts), *facts), None if known is None else known.count)

    def _contraction(self, n: ir.Dot) -> ir.Expr:
        """A contraction of integers: each of its terms is a product."""
        key = (n, self.scope)
        if key not in self.memo:
            made = self.unknown("dot", n.dtype, n.axes)
            self.memo[key] = made
            term = ir.binary("mul", wide(n.a), wide(n.b))
            low, high = self.ends(term)
            r = self.ranges[n.over]
            self.lanes[made.tensor] = (n.over, term)
            lanes = self.most_lanes(r)
            self.limits[made.tensor] = min(0, low * lanes), max(0, high * lanes)
            self.adds(made, Ends(ir.const(low), ir.const(high)), [r.room])
            self.uniform.add((made.tensor, n.over))
        if n.acc is None:
            return self.memo[key]
        return ir.binary("add", n.acc, self.memo[key])

    def most_lanes(self, r: Ranges) -> int:
        """How many lanes a reduction over an axis has at most, as a number."""
        room = self.ends(r.room)[1]
        return room if r.whole else min(LONGEST_TILE, room)

    def _reduced(self, n: ir.Reduce) -> tuple[int, int]:
        if not n.dtype.is_integer:
            return 0, 1
        over = [self.ranges[a] for a in n.over]
        row = REDUCTIONS[n.op]
        if row.picks:
            return self.ends(index(n.over[0]))
        low, high = self.ends(n.x)
        if row.orders is not None:
            if any(r.extra is not None for r in over):  # there may be no lane
                nothing = int(row.identity(n.dtype))
                return min(low, nothing), max(high, nothing)
            return low, high
        return row.ends((low, high), prod(self.most_lanes(r) for r in over))

    def _about(self, n: ir.Reduce, made: ir.Load) -> tuple[tuple[ir.Expr, ...], Count | None]:
        """Facts about a reduction. Of a tile's axis only the lanes of one block are in it, which is never empty; of a span there may be none."""
        over = [self.ranges[a] for a in n.over]
        inside = tuple(f for r in over for f in r.facts())
        here = every(inside)
        exists = every(f for r in over for f in (r.facts(r.start) if r.whole else r.facts()))
        lanes = {r.name: self.witness(made, r.name) for r in over}
        within = tuple(substitute(f, lanes) for r in over for f in r.facts())
        picked = substitute(n.x, lanes)
        zero = ir.Const(n.dtype, (), 0)
        match n.op:
            case "any" if n.dtype is BOOL:
                return (implies(made, every((*within, picked))), implies(every((here, n.x)), made)), None
            case "all" if n.dtype is BOOL:
                return (implies(every((here, made)), n.x), implies(negated(made), every((*within, negated(picked))))), None
            case "max" | "min" if n.dtype.kind == "signed":
                bound = ir.binary("le", n.x, made) if n.op == "max" else ir.binary("le", made, n.x)
                facts: tuple[ir.Expr, ...] = (implies(here, bound), implies(exists, every((*within, ir.binary("eq", picked, made)))))
                if any(r.extra is not None for r in over):  # there may be no lane
                    nothing = ir.Const(n.dtype, (), int(n.dtype.min if n.op == "max" else n.dtype.max))
                    facts += (implies(negated(exists), ir.binary("eq", made, nothing)),)
                return facts, None
            case "absmax" if n.dtype.kind == "signed":
                size = ir.Unary(n.dtype, n.x.axes, "abs", n.x)
                reached = every((*within, ir.binary("eq", substitute(size, lanes), made)))
                covers = implies(here, ir.binary("le", size, made))
                return (ir.binary("le", zero, made), covers, implies(ir.binary("lt", zero, made), reached)), None
            case "argmax" | "argmin":
                (r,) = over
                return tuple(implies(exists, f) for f in r.facts(made)), None
            case "sum" if n.dtype.kind == "signed" and len(over) == 1:
                flag = counted(n.x)
                if flag is None:
                    return (), None
                r = over[0]
                room = ir.binary("max", ir.binary("sub", r.stop, r.start), ir.const(0))
                return (ir.binary("le", zero, made), ir.binary("le", made, room)), Count(flag, r.name)
        low, high = self._reduced(n)
        if n.dtype.kind != "signed" or not LEAST <= low <= high <= MOST:
            return (), None
        return between(ir.Const(n.dtype, (), low), made, ir.Const(n.dtype, (), high)), None

    def witness(self, made: ir.Load, axis: str) -> ir.Expr:
        """An unknown lane of an axis, for a reduction."""
        found = replace(made, dtype=I64, tensor=f"{axis} of {made.tensor}")
        return found

    def _scan(self, n: ir.Scan) -> ir.Expr:
        key = (n, self.scope)
        if key in self.memo:
            return self.memo[key]
        flag = counted(n.x)
        r = self.ranges[n.over]
        made: ir.Expr
        if flag is None or n.dtype.kind != "signed":
            made = self.unknown("scan", n.dtype, n.axes)
            if n.dtype.kind == "signed":
                self._prefix(n, made, r)
        elif n.reverse:
            # The lanes behind are all but those before and the lane itself.
            one = ir.Cast(I64, flag.axes, flag)
            if r.whole:
                before, total = self.count(r, flag, tuple(a for a in n.axes if a != n.over))
                behind: ir.Expr = ir.binary("sub", total, ir.binary("add", before, one))
            else:
                behind = self.unknown("rank of ", I64, n.axes)
                last = ir.binary("sub", ir.binary("sub", r.stop, ir.const(1)), index(n.over))
                self.define(behind, tuple(implies(every(r.facts()), f) for f in between(ir.const(0), behind, last)))
            made = behind if n.exclusive else ir.binary("add", behind, one)
        else:
            exclusive = next((position for axis, p, position in self.chains if axis == n.over and p == flag), None)
            if exclusive is None and r.whole:
                exclusive = self.count(r, flag, n.axes)[0]
            if exclusive is None:
                block = self.unknown("rank of ", I64, n.axes)
                ahead = ir.binary("sub", index(n.over), r.start)
                here = every(r.facts())
                self.define(block, tuple(implies(here, f) for f in between(ir.const(0), block, ahead)), Count(flag, r.name, "", here))
                exclusive = block
            made = exclusive if n.exclusive else ir.binary("add", exclusive, ir.Cast(I64, flag.axes, flag))
        self.memo[key] = made
        return made

    def _prefix(self, n: ir.Scan, made: ir.Load, r: Ranges) -> None:
        """A running sum: of the lanes before (or behind) an index, which itself counts where it is not exclusive."""
        each = symbolic(self, n.x)
        stop = r.stop if r.extra is None else ir.binary("min", r.stop, r.extra)
        before = ir.binary("sub", stop, index(n.over)) if n.reverse else ir.binary("sub", index(n.over), r.start)
        if n.reverse == n.exclusive:
            before = ir.binary("sub" if n.reverse else "add", before, ir.const(1))
        low, high = self.ends(n.x)
        lanes = self.most_lanes(r)
        self.limits[made.tensor] = min(0, low * lanes), max(0, high * lanes)
        self.adds(made, each, [ir.binary("max", tidy(before), ir.const(0))], every(r.facts()))
        self.learn(made, prefix.scanned(self, n, made, r))

    def count(self, r: Ranges, flag: ir.Expr, axes: tuple[str, ...]) -> tuple[ir.Load, ir.Load]:
        """How many lanes of a whole range before an index fulfil ``flag``, and how many of all do. One symbol for one predicate."""
        around = tuple(dict.fromkeys(a for a in (*self.scope, *axes) if a != r.name))
        key = ("count", bare(substitute(flag, {r.name: index("·")})), bare(r.start), bare(r.stop), r.extra, around)
        if key not in self.memo:
            self.counts += 1
            outer = tuple(index(a) for a in around)
            before = ir.Load(I64, (*around, r.name), f"count of #{self.counts}", (*outer, index(r.name)))
            total = ir.Load(I64, around, f"total of #{self.counts}", outer)
            stop = r.stop if r.extra is None else ir.binary("min", r.stop, r.extra)
            room = ir.binary("max", ir.binary("sub", stop, r.start), ir.const(0))
            one = ir.Cast(I64, flag.axes, flag)
            here = every(r.facts())
            self.define(total, between(ir.const(0), total, room))
            place = index("·slot")
            slot = replace(before, tensor=f"slot of #{self.counts}", indices=(*outer, place))
            found = {r.name: slot}
            reached = every((*r.facts(slot), substitute(flag, found), ir.binary("eq", substitute(before, found), place)))
            wanted = every((ir.binary("le", ir.const(0), place), ir.binary("lt", place, total)))
            self.define(slot, (implies(wanted, reached),))
            steps = (
                ir.binary("le", ir.const(0), before),
                ir.binary("le", ir.binary("add", before, one), total),
                ir.binary("le", before, ir.binary("sub", index(r.name), r.start)),
            )
            self.define(before, tuple(implies(here, s) for s in steps), Count(flag, r.name, f"slot of #{self.counts}", here))
            self.memo[key] = before
            self.memo[(key, "total")] = total
        found_count, found_total = self.memo[key], self.memo[(key, "total")]
        assert isinstance(found_count, ir.Load) and isinstance(found_total, ir.Load)
        return replace(found_count, indices=(*found_count.indices[:-1], index(r.name))), found_total

    def own_axes(self, value: ir.Expr) -> tuple[str, ...]:
        """The index variables on which a value may depend."""
        found = (n.name for n in ir.walk(value) if isinstance(n, ir.Index) and n.name in self.ranges)
        return tuple(dict.fromkeys((*value.axes, *found)))
