"""Masks: no lane that does not exist is read outside, written, or reaches a reduction.

It comes after the tiles, which say where lanes are padded, and after `assume`, which says which tails a launch check saves; before the expansions of
`legalize`, whose intermediate values need no masks. An access is masked by what its author wrote and by the ends of its axes where these have a
tail; by the extents of its tensor only where the prover could not tell that it is inside, and the user allowed that.
A masked lane of a load holds what serves the reductions behind it: 0 for a sum, -inf for a maximum or for a sum of exponentials. `padding.py`
knows what becomes of it; an operand of which that is not the reduction's identity becomes `where(inside, x, identity)`. What a contraction sums over
is 0 in such lanes of one operand and finite in those of the other; its rows and columns may hold anything there. Divisors that may be 0 in
lanes that do not exist, or that a `where` around them excludes, are replaced by 1 there: machines may trap.
Leaves Load.mask, Load.fill, Store.mask and the proof of each settled, every Reduce and Scan fed by lanes that exist or by its identity (NaN for
argmax and argmin), every Dot by lanes that exist or whose product is 0, and bounds of loops and spans as expressions that mean the same in the whole body.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from nsalang import ir
from nsalang.base.dtypes import BOOL
from nsalang.base.target import Target
from nsalang.ir.intervals import conjuncts
from nsalang.passes import padding
from nsalang.passes.ends import name_bounds
from nsalang.passes.hoist import blocks, expressions, same
from nsalang.passes.padded import Padded, State, fits, is_finite, is_identity, joined, zero
from nsalang.passes.padding import Number
from nsalang.passes.simplify import expression, value_of


def run(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    named = dataclasses.replace(kernel, body=name_bounds(kernel))
    guards = _Guards(named)
    guards.settle()
    body = guards.block(named.body)
    return kernel if same(body, kernel.body) else dataclasses.replace(kernel, body=body)


# ------------------------------------------------------------------------------------------------------------- what needs more


@dataclass(slots=True)
class Found:
    """What a walk finds: by identity, the reductions and scans whose padded lanes need the identity along some axes, the contractions of which an
    operand needs a 0, the divisors that need a 1, and the accesses (with an axis) whose own guard is false in its padded lanes; and for each operand
    that needs the identity, which one."""

    cleaned: dict[int, tuple[str, ...]] = field(default_factory=dict)
    factors: dict[int, tuple[bool, bool]] = field(default_factory=dict)
    divided: set[int] = field(default_factory=set)
    spared: set[tuple[int, str]] = field(default_factory=set)
    wanted: list[tuple[ir.Expr, Number, tuple[str, ...]]] = field(default_factory=list)

    def count(self) -> int:
        """How many operands need more than their fills."""
        return len(self.cleaned) + sum(a + b for a, b in self.factors.values())


Origin: TypeAlias = Literal["author", "tail", "bounds"]
Verdict: TypeAlias = Literal["PROVED", "HOISTED", "GUARDED", "UNKNOWN"]
ORIGINS: tuple[Origin, ...] = ("author", "tail", "bounds")


class _Guards(Padded):
    def __init__(self, kernel: ir.Kernel) -> None:
        super().__init__(kernel)
        self.planted: dict[int, tuple[tuple[str, ...], Number]] = {}
        self.found = Found()

    def settle(self) -> None:
        """Choose what masked lanes of each load hold, such that few operands need more; and what then still does."""
        self.found = self.look()
        for load, value in self._candidates():
            before = self.fills.get(load)
            self.fills[load] = value
            tried = self.look()
            if tried.count() < self.found.count():
                self.found = tried
            elif before is None:
                del self.fills[load]
            else:
                self.fills[load] = before
        for statement, axes, value in self._sources():
            self.planted[id(statement)] = (axes, value)
            tried = self.look()
            if tried.count() + 1 < self.found.count():
                self.found = tried
            else:
                del self.planted[id(statement)]

    def _sources(self) -> list[tuple[ir.Assign, tuple[str, ...], Number]]:
        """Assignments of what a contraction computes on which several operands depend: the identity of one, put there, may serve all of them."""
        assigned = [n for n in ir.walk(self.kernel) if isinstance(n, ir.Assign)]
        with_dots = [n for n in assigned if any(isinstance(d, ir.Dot) for d in ir.walk(n.value))]
        made: dict[tuple[int, str], tuple[ir.Assign, tuple[str, ...], Number]] = {}
        for operand, identity, axes in self.found.wanted if self.found.count() > 1 else ():
            for n in with_dots:
                if (
                    isinstance(operand, ir.Var)
                    and n.name == operand.name
                    and set(axes) <= set(n.value.axes)
                    and fits(identity, n.value.dtype)
                ):
                    made.setdefault((id(n), repr(identity)), (n, axes, identity))
        return list(made.values())

    def _candidates(self) -> list[tuple[ir.Load, Number]]:
        """Fills that may serve a reduction better than 0 does: its identity, at the loads that its operand is made of."""
        values: dict[str, list[ir.Expr]] = {}
        for node in ir.walk(self.kernel):
            if isinstance(node, ir.Assign):
                values.setdefault(node.name, []).append(node.value)
        made: dict[tuple[ir.Load, str], tuple[ir.Load, Number]] = {}
        for operand, identity, _ in self.found.wanted:
            left, seen = [operand], set[str]()
            infinities = [-math.inf, math.inf] if operand.dtype.is_float else [identity]
            while left:
                for node in ir.walk(left.pop()):
                    if isinstance(node, ir.Var) and node.name not in seen:
                        seen.add(node.name)
                        left += values.get(node.name, [])
                    elif isinstance(node, ir.Load) and _proved(node):
                        # -1 is what an index without a meaning is: a condition on it is False.
                        for value in (*infinities, *((-1,) if node.dtype.kind == "signed" else ())):
                            if fits(value, node.dtype):
                                made.setdefault((node, repr(value)), (node, value))
        return list(made.values())

    def look(self) -> Found:
        found = Found()
        self.flow(self.kernel.body, {}, found)
        return found

    def flow(self, body: tuple[ir.Stmt, ...], state: State, found: Found | None) -> None:
        """Bring ``state`` past some statements; tell ``found`` what their expressions need."""
        for node in body:
            self.needs(node, state, found)
            match node:
                case ir.Assign():
                    axes, planted = self.planted.get(id(node), ((), None))
                    for axis in (None, *node.value.axes):
                        held = self.held(node.value, axis, state)
                        if planted is not None:
                            # Lanes that exist along this axis may be padded along the other.
                            held = padding.constant(planted) if axis in axes else held.join(padding.constant(planted))
                        state[node.name, axis] = held
                case ir.For():
                    while True:
                        after = dict(state)
                        self.flow(node.body, after, None)
                        known = joined(state, after)
                        if known == state:
                            break
                        state.clear()
                        state.update(known)
                    if found is not None:
                        self.flow(node.body, dict(state), found)
                case ir.If():
                    other = dict(state)
                    self.flow(node.body, state, found)
                    self.flow(node.orelse, other, found)
                    known = joined(state, other)
                    state.clear()
                    state.update(known)
                case _:
                    pass

    def needs(self, node: ir.Stmt, state: State, found: Found | None) -> None:
        if found is not None:
            excluded = isinstance(node, ir.Store) and node.guard is not None
            if isinstance(node, ir.Store):
                self._spare(node, state, found)
            expressions(node, lambda e: self.need(e, state, found, excluded))

    def need(self, node: ir.Expr, state: State, found: Found, excluded: bool) -> ir.Expr:
        """``excluded``: the node is computed in lanes in which its author does not look at it."""
        match node:
            case ir.Where():
                self.need(node.cond, state, found, excluded)
                self.need(node.a, state, found, True)
                self.need(node.b, state, found, True)
                return node
            case ir.Reduce() | ir.Scan():
                self._fed(node, state, found)
            case ir.Dot():
                self._multiplied(node, state, found)
            case ir.Load():
                self._spare(node, state, found)
            case ir.Binary(op="floordiv" | "mod" | "tdiv" | "tmod"):
                if 0 in self.facts.bounds.of(node.b) and (excluded or self._zero_where_padded(node.b, state)):
                    found.divided.add(id(node))
            case _:
                pass
        excluded = excluded or (isinstance(node, ir.Load) and node.guard is not None)
        excluded = excluded or (isinstance(node, ir.Binary) and node.dtype is BOOL and node.op in ("and", "or"))
        expressions(node, lambda e: self.need(e, state, found, excluded))
        return node

    def _fed(self, node: ir.Reduce | ir.Scan, state: State, found: Found) -> None:
        if isinstance(node, ir.Scan) and not node.reverse:
            return
        over = (node.over,) if isinstance(node, ir.Scan) else node.over
        identity = self.identity(node)
        axes = tuple(a for a in ir.join(over, order=self.kernel.schedule.order) if self.inside[a] is not None)
        needed = tuple(a for a in axes if not is_identity(self.held(node.x, a, state), identity))
        if needed:
            found.cleaned[id(node)] = tuple(dict.fromkeys((*found.cleaned.get(id(node), ()), *needed)))
            found.wanted.append((node.x, identity, needed))

    def _spare(self, node: ir.Load | ir.Store, state: State, found: Found) -> None:
        for axis in () if node.guard is None else node.guard.axes:
            if self.inside[axis] is not None and self.held(node.guard, axis, state).value is False:  # type: ignore[arg-type]
                found.spared.add((id(node), axis))

    def _multiplied(self, node: ir.Dot, state: State, found: Found) -> None:
        """A product is 0 only where one factor is and the other is finite: 0 * NaN is NaN."""
        if self.inside[node.over] is None:
            return
        held = [self.held(x, node.over, state) for x in (node.a, node.b)]
        (a_zero, b_zero), (a_finite, b_finite) = ([is_identity(h, 0.0) for h in held], [is_finite(h, node.a.dtype) for h in held])
        if (a_zero and b_finite) or (b_zero and a_finite):
            return
        needed = (b_zero, a_zero) if a_zero or b_zero else (not a_finite or b_finite, not b_finite)
        found.factors[id(node)] = needed
        for x, is_needed in zip((node.a, node.b), needed, strict=True):
            if is_needed:
                found.wanted.append((x, 0.0 if x.dtype.is_float else 0, (node.over,)))

    def _zero_where_padded(self, divisor: ir.Expr, state: State) -> bool:
        padded = [a for a in divisor.axes if self.inside[a] is not None]
        return any(self.held(divisor, a, state).value in (None, 0) for a in padded)

    # ------------------------------------------------------------------------------------------------------------------ rewriting

    def block(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        return tuple(self.statement(s) for s in body)

    def statement(self, node: ir.Stmt) -> ir.Stmt:
        made = expressions(node, self.rewritten)
        match made:
            case ir.Store():
                mask, proof = self.masked(made, id(node))
                return dataclasses.replace(made, mask=mask, proof=proof)
            case ir.Assign() if id(node) in self.planted:
                axes, identity = self.planted[id(node)]
                return dataclasses.replace(made, value=self.cleaned(made.value, axes, identity))
            case _:
                return blocks(made, self.block)

    def rewritten(self, node: ir.Expr) -> ir.Expr:
        made = expressions(node, self.rewritten)
        match made:
            case ir.Load():
                mask, proof = self.masked(made, id(node))
                assert isinstance(node, ir.Load)
                fill = None if mask is None else ir.const(self.fill(node), node.dtype)
                return dataclasses.replace(made, mask=mask, fill=fill, proof=proof)
            case ir.Reduce() | ir.Scan() if id(node) in self.found.cleaned:
                assert isinstance(node, ir.Reduce | ir.Scan)
                return dataclasses.replace(made, x=self.cleaned(made.x, self.found.cleaned[id(node)], self.identity(node)))
            case ir.Dot() if id(node) in self.found.factors:
                a, b = (
                    self.cleaned(x, (made.over,), zero(x.dtype)) if is_needed else x
                    for x, is_needed in zip((made.a, made.b), self.found.factors[id(node)], strict=True)
                )
                return dataclasses.replace(made, a=a, b=b)
            case ir.Binary() if id(node) in self.found.divided:
                is_zero = ir.binary("eq", made.b, ir.const(0, made.b.dtype))
                safe = ir.Where(made.b.dtype, made.b.axes, is_zero, ir.const(1, made.b.dtype), made.b, span=made.b.span)
                return dataclasses.replace(made, b=safe)
            case _:
                return made

    def cleaned(self, x: ir.Expr, axes: tuple[str, ...], identity: Number) -> ir.Expr:
        """``x`` with the identity in the lanes of some axes that do not exist."""
        condition: ir.Expr | None = None
        for axis in axes:
            inside = self.inside[axis]
            assert inside is not None, f"all lanes of {axis} exist"
            condition = ir.both(condition, inside, self.declared)
        assert condition is not None
        return expression(ir.Where(x.dtype, x.axes, condition, x, ir.const(identity, x.dtype), span=x.span))

    def masked(self, node: ir.Load | ir.Store, original: int) -> tuple[ir.Expr | None, ir.Proof]:
        """The author's guard, the tails of the access's axes that it does not imply, and the bounds where nothing was proved."""
        guard = conjuncts(node.guard)
        axes = [a for a in ir.join(node.axes, order=self.kernel.schedule.order) if (original, a) not in self.found.spared]
        tails = [t for a in axes if (t := self.inside[a]) and not self.implied(t, guard)]
        bounds = [] if _proved(node) else self.bounds(node, guard)
        total = node.guard
        for term in (*tails, *bounds):
            total = ir.both(total, term, self.declared, node.span)
        origins: tuple[Origin, ...] = tuple(o for o, terms in zip(ORIGINS, (guard, tails, bounds), strict=True) if terms)
        saved = any(a in self.saved and not self.implied(self.saved[a], guard) for a in node.axes)
        verdict: Verdict = "UNKNOWN" if not _proved(node) else "HOISTED" if saved else "GUARDED" if tails else "PROVED"
        return total, ir.Proof(verdict, origins)

    def bounds(self, node: ir.Load | ir.Store, guard: tuple[ir.Expr, ...]) -> list[ir.Expr]:
        """That every index is inside its tensor."""
        found: list[ir.Expr] = []
        for index, extent in zip(node.indices, self.kernel.tensor(node.tensor).shape, strict=True):
            low = expression(ir.binary("ge", index, ir.const(0, index.dtype), span=index.span))
            high = expression(ir.binary("lt", index, extent, span=index.span))
            found += [c for c in (low, high) if value_of(c) is not True and not self.implied(c, guard)]
        return found


def _proved(node: ir.Load | ir.Store) -> bool:
    return node.proof is not None and node.proof.verdict != "UNKNOWN"
