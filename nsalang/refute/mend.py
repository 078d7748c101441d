"""What would settle a refuted obligation: two indices exchanged, or a ``require``, a ``where``, an ``if``, a ``promise`` or ``partial``, each confirmed by
the prover before it is made: with the proposal as one more fact the obligation is PROVED, and the facts can still hold together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from nsalang import ir
from nsalang.base.dtypes import ALL, BOOL, I64
from nsalang.base.source import Diagnostic
from nsalang.ir.intervals import conjuncts
from nsalang.ir.operations import ADDABLE
from nsalang.proof import smt
from nsalang.proof.claims import hypotheses
from nsalang.proof.ends import kept_by
from nsalang.proof.lemmas import Book, bare, element_types
from nsalang.proof.obligations import Obligation
from nsalang.proof.prover import completed, decide, settle
from nsalang.refute.evaluate import Element, Number, evaluate
from nsalang.refute.wording import access_of, dtype_of, text, text_of

MOST = 24
"""Proposals that are asked about, at most."""

SMALL = 8
"""A size that a bound which is worth proposing allows."""

# -------------------------------------------------------------------------------------------------------------------- proposals


def helps(kernel: ir.Kernel, o: Obligation, values: Mapping[str, Number], element: Element) -> tuple[str, ...]:
    """The first proposal that settles the obligation; none where none does. ``values``: the counterexample, which a proposal must exclude."""
    whole = not any(isinstance(n, (ir.Load, ir.Index, ir.Var)) for n in ir.walk(o.goal))
    if whole:
        parts = [c for c in conjuncts(o.goal) if evaluate(c, values, element) is not True]
        if parts and all(_written(p) for p in parts) and _settles(kernel, o, parts):
            return tuple(f"'require({text(_tidy(p))})' settles it" for p in parts)
    if o.needs is not None and (required := _required(o.needs)) and any(evaluate(c, values) is False for c in conjuncts(o.needs)):
        return required
    if o.kind == "range" and (exchanged := _exchanged(kernel, o, values, element)):
        return exchanged
    asked = islice((c for c in _requirements(kernel, o) if evaluate(c, values, element) is False), MOST)
    facts, dtypes = completed(kernel, o.facts, o.goal), element_types(kernel)
    for candidate in smt.settling(facts, bare(o.goal), list(dict.fromkeys(asked)), dtypes):
        # One that rules out every launch would settle anything.
        if smt.prove([*facts, candidate], ir.const(False, BOOL), dtypes).answer == "refuted":
            return (f"'require({text(candidate)})' settles it",)
    match o.kind:
        case "range":
            return _guarded_access(kernel, o)
        case "divisor" if text_of(o.span).startswith("split("):
            return ()  # what is split has two ends, which no where can choose
        case "divisor" | "shift":
            return _guarded_operation(kernel, o)
        case "race" | "twice" | "order" if added := _added(kernel, o):
            return added
        case "race" | "twice":
            return _distinct(kernel, o)
        case "coverage":
            return (f"'partial({o.tensor})' before the grid, if unwritten elements may stay undefined",)
        case "fits":
            return _narrowed(kernel, o)
    return ()


def bounded(kernel: ir.Kernel, o: Obligation) -> tuple[str, ...]:
    """A bound on dimensions and scalars that settles that an integer fits or stays: what its ends need, or the first on one dimension, where it is
    of the positions and counts along it."""
    if o.needs is not None and (parts := _required(o.needs)):
        return parts
    dtype = ALL.get(dtype_of(kernel, o)) if o.kind == "fits" else None
    if dtype is None:
        return ()
    for dim in kernel.dims:
        if _settles(kernel, o, [ir.binary("le", ir.Dim(I64, (), dim), ir.const(int(dtype.max)))]):
            return (f"'require({dim} <= {dtype}.max)' settles it",)
    return ()


def _required(condition: ir.Expr) -> tuple[str, ...]:
    """Each part of a condition as a ``require``; none where one cannot be written, or leaves room for the smallest sizes alone."""
    parts = list(conjuncts(condition))
    useful = kept_by(condition, (1, SMALL)) and all(_written(p) for p in parts)
    return tuple(f"'require({text(p)})' settles it" for p in parts) if useful else ()


def _narrowed(kernel: ir.Kernel, o: Obligation) -> tuple[str, ...]:
    """A conversion that only other integers use is of no use; what memory shall hold can be clamped."""
    written = re.fullmatch(r"(i(8|16|32))\((.*)\)", text_of(o.span), re.DOTALL)
    if written is None:
        return ()
    nodes = [n for s in kernel.body for n in ir.walk(s)]
    widened = [n.x for n in nodes if isinstance(n, ir.Cast) and n.dtype is I64 and isinstance(n.x, ir.Cast) and n.x.span == o.span]
    if len(widened) == sum(isinstance(n, ir.Cast) and n.span == o.span and n.dtype is not I64 for n in nodes):
        return (f"leave out '{written[1]}(…)': integers are exact, and the compiler chooses their width",)
    dtype = ALL[written[1]]
    return (f"'{written[1]}(clamp({written[3]}, {dtype.min}, {dtype.max}))' settles it",)


def _settles(kernel: ir.Kernel, o: Obligation, more: list[ir.Expr]) -> bool:
    facts, dtypes = completed(kernel, (*o.facts, *more), o.goal), element_types(kernel)
    if smt.prove(facts, bare(o.goal), dtypes).answer != "proved":
        return False
    # A proposal that rules out every launch would settle anything.
    return smt.prove(facts, ir.const(False, BOOL), dtypes).answer == "refuted"


def _written(node: ir.Expr) -> bool:
    return "…" not in text(node)


def _tidy(node: ir.Expr) -> ir.Expr:
    """``x != 0`` of what is never negative as ``x > 0``."""
    match node:
        case ir.Binary(op="ne", a=ir.Dim() as a, b=ir.Const(value=0)):
            return ir.binary("gt", a, ir.const(0))
    return node


def _requirements(kernel: ir.Kernel, o: Obligation) -> Iterator[ir.Expr]:
    """Conditions on dimensions and scalars, the likeliest first."""
    zero = ir.const(0)
    where = (o.goal, *o.facts)
    for node in dict.fromkeys(n for e in where for n in ir.walk(e)):
        match node:
            case ir.Binary(op="floordiv" | "mod", a=ir.Dim() | ir.Scalar() as a, b=ir.Dim() | ir.Scalar() | ir.Const() as b) if (
                a.dtype is I64
            ):
                yield ir.binary("eq", ir.binary("mod", a, b), zero)
    goal = _names(o.goal)
    sizes = list(dict.fromkeys([*goal, *(n for f in o.facts if _bounds(f, o.goal) for n in _names(f))]))
    for size in sizes:
        yield ir.binary("gt", size, zero)
    for one in sizes:
        for two in sizes:
            if one != two and (one in goal or two in goal):
                yield ir.binary("le", one, two)
    numbers = dict.fromkeys(
        n.value
        for f in where
        if f is o.goal or _bounds(f, o.goal)
        for n in ir.walk(f)
        if isinstance(n, ir.Const) and n.dtype is I64 and n.value > 1
    )
    for size in sizes:
        for number in numbers:
            yield ir.binary("ge", size, ir.const(number))
            yield ir.binary("le", size, ir.const(number))
            if number < 1 << 20:
                yield ir.binary("eq", ir.binary("mod", size, ir.const(number)), zero)


def _names(node: ir.Expr) -> list[ir.Dim | ir.Scalar]:
    return list(dict.fromkeys(n for n in ir.walk(node) if isinstance(n, (ir.Dim, ir.Scalar)) and n.dtype is I64))


def _bounds(fact: ir.Expr, goal: ir.Expr) -> bool:
    """Whether a fact bounds an index variable of the goal."""
    indices = {n.name for n in ir.walk(goal) if isinstance(n, ir.Index)}
    return any(isinstance(n, ir.Index) and n.name in indices for n in ir.walk(fact))


def _exchanged(kernel: ir.Kernel, o: Obligation, values: Mapping[str, Number], element: Element) -> tuple[str, ...]:
    """Whether the access is inside with this index and another one in each other's place."""
    access = access_of(kernel, o)
    if access is None or len(access.indices) < 2:
        return ()
    place, extents = (o.span, o.tensor, o.facts), kernel.tensor(o.tensor).shape
    same = [
        r for r in settle(kernel) if r.obligation.kind == "range" and (r.obligation.span, r.obligation.tensor, r.obligation.facts) == place
    ]
    goals = {r.obligation.position: list(conjuncts(r.obligation.goal)) for r in same}
    wrong = {r.obligation.position for r in same if r.verdict != "PROVED"}
    for other in goals:
        here = o.position
        if other == here or wrong - {here, other}:
            continue
        swapped = [_within(goals[other], extents[here]), _within(goals[here], extents[other])]
        if not any(evaluate(g, values, element) is False for g in swapped) and all(_proved(kernel, o, g) for g in swapped):
            written = [text_of(i.span) or text(i) for i in access.indices]
            written[here], written[other] = written[other], written[here]
            return (f"are the indices exchanged? '{o.tensor}[{', '.join(written)}]' is inside",)
    return ()


def _within(ends: list[ir.Expr], extent: ir.Expr) -> ir.Expr:
    """``0 <= i`` and ``i < n`` for another extent."""
    low, high = ends
    assert isinstance(high, ir.Binary)
    return ir.binary("and", low, ir.binary("lt", high.a, extent))


def _guarded_access(kernel: ir.Kernel, o: Obligation) -> tuple[str, ...]:
    access = access_of(kernel, o)
    if access is None:
        return ()
    target = kernel.tensor(o.tensor)
    if isinstance(access, ir.Store) and target.role == "out" and o.tensor not in kernel.partial:
        return ()  # a store that does not happen leaves its element unwritten
    written = text_of(access.indices[o.position].span)
    if not written or not _written(target.shape[o.position]):
        return ()
    extent = text(target.shape[o.position], 4)
    index = written if re.fullmatch(r"[\w\[\], +*/%-]+", written) else f"({written})"
    sides = dict(zip(conjuncts(o.goal), (f"0 <= {index}", f"{index} < {extent}"), strict=False))
    wanted = [c for c in sides if not _proved(kernel, o, c)]
    if not wanted or not _settles(kernel, o, wanted):
        return ()
    condition = sides[wanted[0]] if len(wanted) == 1 else " & ".join(f"({sides[c]})" for c in wanted)
    if isinstance(access, ir.Store):
        return (f"write it under 'if {condition}:'",)
    zero = "False" if target.dtype is BOOL else "0"
    return (f"'where({condition}, {text_of(access.span)}, {zero})' settles it",)


def _proved(kernel: ir.Kernel, o: Obligation, goal: ir.Expr) -> bool:
    return smt.prove(completed(kernel, o.facts, goal), bare(goal), element_types(kernel)).answer == "proved"


def _guarded_operation(kernel: ir.Kernel, o: Obligation) -> tuple[str, ...]:
    wanted = [c for c in conjuncts(o.goal) if not _proved(kernel, o, c)]
    said = [text(c) for c in wanted]
    if not wanted or any("…" in s or "#" in s for s in said) or not _settles(kernel, o, wanted):
        return ()
    condition = said[0] if len(said) == 1 else " & ".join(f"({s})" for s in said)
    return (f"'where({condition}, {text_of(o.span)}, 0)' settles it",)


def _distinct(kernel: ir.Kernel, o: Obligation) -> tuple[str, ...]:
    """``promise(distinct(slot))`` where two writers meet because two elements are equal."""
    equal = o.facts[-1]
    given = {
        *(t.name for t in kernel.tensors),
        *(v.name for v in kernel.views),
    }  # an element of anything else is an unknown of the prover's
    loads = [n for n in ir.walk(equal) if isinstance(n, ir.Load) and n.tensor in given]
    for name in dict.fromkeys(n.tensor for n in loads):
        if kernel.tensor(name).role != "in" or not kernel.tensor(name).dtype.is_integer:
            continue
        ours = [n for n in dict.fromkeys(loads) if n.tensor == name]
        facts: list[ir.Expr] = []
        for i, a in enumerate(ours):
            for b in ours[i + 1 :]:
                same: ir.Expr = ir.const(True, BOOL)
                for x, y in zip(a.indices, b.indices, strict=True):
                    same = ir.binary("and", same, ir.binary("eq", x, y))
                facts.append(ir.binary("or", same, ir.binary("ne", a, b)))
        if facts and _settles(kernel, o, facts):
            return (f"'promise(distinct({name}))' settles it, where that is so", *_scattered(kernel, o))
    return ()


_WRITTEN = re.compile(r"(?P<place>.+?\])\s*(?P<adds>\+?)=(?!=)\s*(?P<value>.+)")


def _scattered(kernel: ir.Kernel, o: Obligation) -> tuple[str, ...]:
    """A ``scatter`` of the store, where its tensor need not be written everywhere: it may collide."""
    written = _WRITTEN.fullmatch(text_of(o.span))
    if written is None or written["adds"] or (kernel.tensor(o.tensor).role == "out" and o.tensor not in kernel.partial):
        return ()
    return (f"'scatter({written['place']}, {written['value']})' if it is not: one of those that meet wins, each element for itself",)


def _added(kernel: ir.Kernel, o: Obligation) -> tuple[str, ...]:
    """An ``atomic_add`` for a ``+=`` that meets others, if it may stand there: what it adds is added once, not once a tile."""
    written, store = _WRITTEN.fullmatch(text_of(o.span)), access_of(kernel, o)
    if written is None or not written["adds"] or not isinstance(store, ir.Store) or kernel.tensor(o.tensor).dtype not in ADDABLE:
        return ()
    loops = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.For) and n.kind == "tile"]
    around = {g.name for g in kernel.grid if g.tiled} | {n.index for n in loops if any(s is store for s in ir.walk(n))}
    if not around <= set(store.axes):
        return ()
    return (f"'atomic_add({written['place']}, {written['value']})' adds up what meets there",)


# --------------------------------------------------------------------------------------------------------------- contradictions


def contradiction(kernel: ir.Kernel) -> Diagnostic | None:
    """The error for requirements and promises that no launch fulfils: the fewest of them that contradict each other."""
    dtypes = element_types(kernel)

    def contradict(some: Sequence[ir.Require | ir.Promise]) -> bool:
        requires = tuple(s for s in some if isinstance(s, ir.Require))
        twin = replace(kernel, requires=requires, promises=tuple(s for s in some if isinstance(s, ir.Promise)))
        return any(decide(o, dtypes, Book(twin)).verdict == "REFUTED" for o in hypotheses(twin))

    kept: list[ir.Require | ir.Promise] = [*kernel.requires, *kernel.promises]
    if not contradict(kept):
        return None
    for one in list(kept):
        rest = [k for k in kept if k is not one]
        if contradict(rest):
            kept = rest
    shown = [f"'{'promise' if isinstance(k, ir.Promise) else 'require'}({k.text})'" for k in kept]
    spans = [k.span for k in kept if k.span is not None and not (isinstance(k, ir.Require) and k.implied)]
    kind = "promises" if all(isinstance(k, ir.Promise) for k in kept) else "requirements"
    if any(isinstance(k, ir.Promise) for k in kept) and kind == "requirements":
        kind = "requirements and promises"
    listed = f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else ""
    crowded = next((f" where '{k.tensors[0]}' has an element" for k in kept if isinstance(k, ir.Promise) and k.kind == "distinct"), "")
    note = f"{listed} cannot hold together{crowded}" if listed else f"{shown[0]} holds for no launch" if shown else ""
    return Diagnostic(
        "NSA0809",
        f"no launch fulfils these {kind}: they would prove anything",
        spans[-1] if spans else kernel.span,
        (note,) if note else (),
    )
