"""Prove what the author's text must fulfil, on its untiled meaning and for all sizes that its ``require``s allow.

Range on every axis of every access, divisors and shifts, integers that must fit, no element written twice by two instances or twice by one
statement, no read of what another instance writes, every element of an ``Out`` written, and hypotheses that can hold at all. Constants first,
then intervals, then one query.

``settle`` gives the verdicts, and changes nothing; the pass ``prove`` acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from nsalang import ir, smt
from nsalang.dtypes import BOOL, I64, DType
from nsalang.intervals import conjuncts
from nsalang.obligations import Access, Obligation, Ranges, Walk, described, start, substitute

Verdict = Literal["PROVED", "REFUTED", "UNKNOWN"]
Why = Literal["fact", "Z3"]


@dataclass(frozen=True, slots=True)
class Result:
    """An obligation with its verdict; ``model`` is the smallest counterexample that was found, ``units`` what the solver spent."""

    obligation: Obligation
    verdict: Verdict
    why: Why
    units: int
    model: Mapping[str, int]


def settle(kernel: ir.Kernel) -> tuple[Result, ...]:
    """The verdict on every obligation of a typed kernel, in program order."""
    dtypes = {t.name: t.dtype for t in kernel.tensors} | {s.name: s.dtype for s in kernel.scalars}
    walk = start(kernel, lambda loop, values, at: invariants(loop, at, dtypes))
    walk.block(kernel.body)
    obligations = [hypotheses(walk), *walk.obligations, *races(kernel, walk.accesses), *coverage(kernel, walk)]
    return tuple(decide(o, dtypes) for o in obligations)


def decide(obligation: Obligation, dtypes: Mapping[str, DType]) -> Result:
    """One obligation: what a fact says literally, then Z3; a refutation is made as small as it can be, so that the interpreter can run it."""
    said = {c for f in obligation.facts for c in conjuncts(f)}
    left = [c for c in conjuncts(obligation.goal) if c not in said and not (isinstance(c, ir.Const) and c.value)]
    if not left and obligation.kind != "hypotheses":
        return Result(obligation, "PROVED", "fact", 0, {})
    outcome = smt.prove(obligation.facts, left[0] if len(left) == 1 else obligation.goal, dtypes)
    if obligation.kind == "hypotheses":
        verdict: Verdict = "PROVED" if outcome.answer == "refuted" else "REFUTED" if outcome.answer == "proved" else "UNKNOWN"
        return Result(obligation, verdict, "Z3", outcome.units, {})
    if outcome.answer == "proved":
        return Result(obligation, "PROVED", "Z3", outcome.units, {})
    if outcome.answer == "unknown":
        return Result(obligation, "UNKNOWN", "Z3", outcome.units, {})
    units, model = outcome.units, outcome.model
    for bound in (4, 16, 300):
        small = smt.prove(obligation.facts, obligation.goal, dtypes, small=bound)
        units += small.units
        if small.answer == "refuted":
            model = small.model
            break
    return Result(obligation, "REFUTED", "Z3", units, model)


def hypotheses(walk: Walk) -> Obligation:
    """The requirements can hold together: otherwise they would prove anything."""
    written = tuple(r.condition for r in walk.kernel.requires)
    dims = tuple(ir.binary("ge", ir.Dim(I64, (), d), ir.const(0)) for d in walk.kernel.dims)
    return Obligation("hypotheses", "require", (*dims, *written), ir.const(False, BOOL), walk.kernel.span)


# ------------------------------------------------------------------------------------------------------------------- invariants


def invariants(loop: ir.For, walk: Walk, dtypes: Mapping[str, DType]) -> tuple[ir.Expr, ...]:
    """What holds of a loop's carried integers at the start of every iteration and after the last: of simple candidates, those that one step keeps."""
    names = [n for n in loop.carried if n in walk.values and walk.values[n].dtype is I64 and not walk.values[n].axes]
    if not names:
        return ()
    variables = {n: ir.Var(I64, (), n) for n in names}
    extents = dict.fromkeys([walk.resolve(loop.hi), *(e for t in walk.kernel.tensors for e in t.shape)])
    candidates = [ir.binary("le", ir.const(low), v) for v in variables.values() for low in (0, -1)]
    candidates += [ir.binary(op, v, e) for v in variables.values() for e in extents for op in ("le", "lt")]
    candidates += [ir.binary(op, v, w) for v, w in permutations(variables.values(), 2) for op in ("le", "lt")]
    entry = walk.known()
    kept = [c for c in candidates if smt.prove(entry, substitute(c, walk.values), dtypes).answer == "proved"]
    inside = Walk(
        walk.kernel,
        walk.invariants,
        dict(walk.values),
        list(walk.assumed),
        list(walk.facts),
        walk.loops,
        dict(walk.ranges),
        quiet=True,
        fresh=walk.fresh,
    )
    symbols = {n: inside.unknown(n, walk.values[n].dtype, walk.values[n].axes) for n in loop.carried if n in walk.values}
    inside.values.update(symbols)
    for fact in Ranges(loop.index, walk.resolve(loop.lo), walk.resolve(loop.hi)).facts():
        inside.facts.append(fact)
    inside.block(loop.body)
    while True:
        here = (*inside.known(), *(substitute(c, symbols) for c in kept))
        still = [c for c in kept if smt.prove(here, substitute(c, inside.values), dtypes).answer == "proved"]
        if len(still) == len(kept):
            return tuple(kept)
        kept = still


# ------------------------------------------------------------------------------------------------------------------------ races


def races(kernel: ir.Kernel, accesses: list[Access]) -> list[Obligation]:
    """No two instances write one element; no statement writes one twice in one execution; no instance reads what another writes."""
    found: list[Obligation] = []
    grid = tuple(g.name for g in kernel.grid)
    stores = [a for a in accesses if a.is_store]
    for i, first in enumerate(stores):
        for second in stores[i:]:
            if first.tensor == second.tensor:
                found.append(_apart("race", first, second, grid, ()))
        inner = tuple(a for a in first.axes if a not in grid)
        if inner:
            found.append(_apart("twice", first, first, inner, (*grid, *(n for n in first.loops if n not in inner))))
        for read in accesses:
            if not read.is_store and read.tensor == first.tensor:
                found.append(_apart("order", first, read, grid, ()))
    return found


def _apart(
    kind: Literal["race", "twice", "order"], first: Access, second: Access, differ: tuple[str, ...], same: tuple[str, ...]
) -> Obligation:
    """Two executions that differ in one of ``differ``, and agree in ``same``, touch different elements."""
    names = {r.name for r in first.ranges} | {r.name for r in second.ranges}
    other: dict[str, ir.Expr] = {n: ir.Index(I64, (f"{n}'",), f"{n}'") for n in names if n not in same}
    variables = {n.name for e in (*second.facts, *second.indices) for n in ir.walk(e) if isinstance(n, ir.Var)}
    other |= {
        n.name: ir.Var(n.dtype, n.axes, f"{n.name}'")
        for e in (*second.facts, *second.indices)
        for n in ir.walk(e)
        if isinstance(n, ir.Var) and n.name in variables
    }
    facts = (*first.facts, *(substitute(f, other) for f in second.facts))
    equal: ir.Expr = ir.const(True, BOOL)
    for a, b in zip(first.indices, second.indices, strict=True):
        equal = ir.binary("and", equal, ir.binary("eq", a, substitute(b, other)))
    alike: ir.Expr = ir.const(True, BOOL)
    for name in differ:
        one = ir.Index(I64, (name,), name)
        alike = ir.binary("and", alike, ir.binary("eq", one, other.get(name, one)))
    what = described(first.node) if first.node is second.node else f"{described(first.node)} and {described(second.node)}"
    return Obligation(kind, what, (*facts, equal), alike, first.node.span, first.tensor)


# --------------------------------------------------------------------------------------------------------------------- coverage


def coverage(kernel: ir.Kernel, walk: Walk) -> list[Obligation]:
    """Every element of an ``Out`` is written: by inverting each store's index map, an element names the instance that writes it."""
    found: list[Obligation] = []
    for tensor in kernel.tensors:
        if tensor.role != "out" or tensor.name in kernel.partial:
            continue
        element = tuple(ir.Index(I64, (f"{tensor.name}@{p}",), f"{tensor.name}@{p}") for p in range(len(tensor.shape)))
        facts = list(walk.assumed)
        for e, extent in zip(element, tensor.shape, strict=True):
            facts += [ir.binary("le", ir.const(0), e), ir.binary("lt", e, extent)]
        goal: ir.Expr = ir.const(False, BOOL)
        for access in walk.accesses:
            if access.is_store and access.tensor == tensor.name:
                goal = ir.binary("or", goal, _written(access, element))
        found.append(Obligation("coverage", f"{tensor.name}[…]", tuple(facts), goal, tensor.span, tensor.name))
    return found


def _written(access: Access, element: tuple[ir.Expr, ...]) -> ir.Expr:
    """That the store reaches the element, with a witness for every index variable."""
    witness: dict[str, ir.Expr] = {}
    ranges = {r.name: r for r in access.ranges}
    pending = list(zip(access.indices, element, strict=True))
    for _ in range(len(pending) + len(ranges)):
        for pair in list(pending):
            if _solve(*pair, witness, ranges):
                pending.remove(pair)
    for name, r in ranges.items():
        witness.setdefault(name, substitute(r.start, witness))
    total: ir.Expr = ir.const(True, BOOL)
    for condition in (*access.conditions, *(ir.binary("eq", i, e) for i, e in zip(access.indices, element, strict=True))):
        total = ir.binary("and", total, substitute(condition, witness))
    return total


def _solve(index: ir.Expr, target: ir.Expr, witness: dict[str, ir.Expr], ranges: Mapping[str, Ranges]) -> bool:
    """Find index variables such that ``index == target``; True when nothing is left to find in this index."""
    left = list(dict.fromkeys(n.name for n in ir.walk(index) if isinstance(n, ir.Index) and n.name in ranges and n.name not in witness))
    if not left:
        return True
    match index:
        case ir.Index():
            witness[index.name] = target
            start_of = ranges[index.name].start
            span = ir.binary("sub", ranges[index.name].stop, start_of)
            _unravel(start_of, target, span, witness, ranges)
            return True
        case ir.Binary(op="add" | "sub"):
            for one, rest, sign in ((index.a, index.b, "sub"), (index.b, index.a, "sub" if index.op == "add" else "rsub")):
                if not _open(rest, witness, ranges):
                    value = substitute(rest, witness)
                    inner = ir.binary("sub", target, value) if sign == "sub" else ir.binary("sub", value, target)
                    if index.op == "sub" and one is index.a:
                        inner = ir.binary("add", target, value)
                    return _solve(one, inner, witness, ranges)
            if index.op == "add":
                for big, small in ((index.a, index.b), (index.b, index.a)):
                    if isinstance(small, ir.Index) and small.name in ranges:
                        r = ranges[small.name]
                        if _unravel(big, target, ir.binary("sub", r.stop, r.start), witness, ranges):
                            return _solve(small, ir.binary("sub", target, substitute(big, witness)), witness, ranges)
    return False


def _open(node: ir.Expr, witness: Mapping[str, ir.Expr], ranges: Mapping[str, Ranges]) -> bool:
    return any(isinstance(n, ir.Index) and n.name in ranges and n.name not in witness for n in ir.walk(node))


def _unravel(node: ir.Expr, target: ir.Expr, span: ir.Expr, witness: dict[str, ir.Expr], ranges: Mapping[str, Ranges]) -> bool:
    """``node`` is ``g * c`` (plus what is known) and ``target`` lies within ``span`` of it: ``g`` is the quotient by ``c``."""
    match node:
        case ir.Index() if node.name in ranges and node.name not in witness:
            witness[node.name] = ir.binary("floordiv", target, span)
            return True
        case ir.Binary(op="mul"):
            for one, factor in ((node.a, node.b), (node.b, node.a)):
                if isinstance(one, ir.Index) and one.name in ranges and one.name not in witness and not _open(factor, witness, ranges):
                    witness[one.name] = ir.binary("floordiv", target, substitute(factor, witness))
                    return True
        case ir.Binary(op="add"):
            for one, rest in ((node.a, node.b), (node.b, node.a)):
                if not _open(rest, witness, ranges) and _open(one, witness, ranges):
                    return _unravel(one, ir.binary("sub", target, substitute(rest, witness)), span, witness, ranges)
    return False
