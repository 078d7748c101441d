"""Lemmas, instantiated for the elements that an obligation speaks of, never quantified.

Promises about tensors, what is known of unknowns (Definition), and the lemmas of searches, borders and counts. Each is a fact about all
elements that exist, so that any choice of instances is sound; an instance is conditional on its elements existing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64, DType
from nsalang.ir.intervals import conjuncts
from nsalang.ir.places import FREE, shift
from nsalang.proof.forms import sub, tidy
from nsalang.proof.reason import Reason, every, implies
from nsalang.proof.smt import Cost
from nsalang.proof.trials import holds

DIMS = 2**48
"""No extent of a tensor reaches this."""
MOST_TERMS = 80
ROUNDS = 4
NEIGHBOURS = 1
"""Rounds in which promises about places bring in elements beside those at hand."""


@dataclass(frozen=True, slots=True)
class Count:
    """An unknown counts the lanes of ``axis`` that fulfil ``flag``. ``slot``: the unknown that gives the lane of a count (only where all lanes
    before one are counted); ``here``: the lane exists."""

    flag: ir.Expr
    axis: str
    slot: str = ""
    here: ir.Expr | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """An unknown is what ``x`` adds up to, negative ones as 0, over the lanes from ``start`` on before its last index."""

    x: ir.Expr
    start: ir.Expr


@dataclass(frozen=True, slots=True)
class Definition:
    """``facts`` hold for every value of the ``parameters``, which are the unknown's indices."""

    parameters: tuple[str, ...]
    facts: tuple[ir.Expr, ...]
    count: Count | None = None
    prefix: Prefix | None = None

    def at(self, term: ir.Load, node: ir.Expr) -> ir.Expr:
        """``node`` with the parameters replaced by the term's indices."""
        return substitute(node, dict(zip(self.parameters, term.indices, strict=True)))


@dataclass(slots=True)
class Book:
    """All that can be instantiated for one kernel. ``cost``: what finding it took of the solver. ``ascending``: see `ascending`, where it is known."""

    kernel: ir.Kernel | None = None
    definitions: dict[str, Definition] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    ascending: frozenset[str] | None = None


def index(name: str) -> ir.Index:
    """An index variable; scalar and tiled ones are the same thing to a proof."""
    return ir.Index(I64, (name,), name)


def lemma_name(name: str, dtype: DType, indices: tuple[ir.Expr, ...]) -> ir.Load:
    """A function of its arguments that has lemmas."""
    return ir.Load(dtype, ir.join(*(i.axes for i in indices)), name, indices)


def substitute(node: ir.Expr, values: Mapping[str, ir.Expr]) -> ir.Expr:
    """Variables and index variables replaced by name."""

    def rule(n: ir.Node) -> ir.Node:
        return values.get(n.name, n) if isinstance(n, (ir.Var, ir.Index)) else n

    return ir.rewrite(node, rule)


def bare(node: ir.Expr) -> ir.Expr:
    """The expression without axes: to a proof it speaks of one lane, so that equal values of different loops are equal expressions."""
    return ir.rewrite(node, lambda n: replace(n, axes=()) if isinstance(n, ir.Value) and n.axes else n)


def wide(e: ir.Expr) -> ir.Expr:
    return e if e.dtype is I64 else ir.Cast(I64, e.axes, e)


def exists(kernel: ir.Kernel, term: ir.Load) -> ir.Expr:
    """The element lies in its tensor."""
    return exists_at(kernel, term.tensor, term.indices)


def exists_at(kernel: ir.Kernel, tensor: str, indices: Sequence[ir.Expr]) -> ir.Expr:
    zero = ir.const(0)
    pairs = zip(indices, kernel.tensor(tensor).shape, strict=True)
    return every(c for i, n in pairs for c in (ir.binary("le", zero, i), ir.binary("lt", i, n)))


def complete(book: Book, facts: Sequence[ir.Expr], goal: ir.Expr) -> tuple[ir.Expr, ...]:
    """The facts, and every instance of a lemma for the elements that occur in them or in the goal, a few steps deep."""
    assert book.kernel is not None
    found = dict.fromkeys(bare(f) for f in facts)
    terms: dict[ir.Load, None] = {}
    promised = promised_facts(book.kernel)
    found |= dict.fromkeys(promised)
    fresh: list[ir.Load] = list(_terms((*found, bare(goal))))
    rising = ascending(book)
    for step in range(ROUNDS):
        made: list[ir.Expr] = []
        for term in fresh:
            if term in terms or len(terms) >= MOST_TERMS:
                continue
            made += _single(book, book.kernel, term)
            if step < NEIGHBOURS:
                made += placed(book.kernel, term)
            for other in terms:
                if other.tensor == term.tensor:
                    made += _pair(book, book.kernel, other, term)
                    made += _pair(book, book.kernel, term, other)
                    if term.tensor in rising:
                        made += [*_ascend(book.kernel, other, term), *_ascend(book.kernel, term, other)]
            terms[term] = None
        if not made:
            break
        made = [bare(f) for f in made]
        found |= dict.fromkeys(made)
        fresh = list(_terms(made))
    return tuple(found)


def placed(kernel: ir.Kernel, term: ir.Load) -> list[ir.Expr]:
    """What promises about places say where one of the places is this element."""
    found: list[ir.Expr] = []
    for promise in kernel.promises:
        if promise.kind != "places" or term.tensor not in promise.tensors or promise.condition is None:
            continue
        for element in (n for n in ir.walk(promise.condition) if isinstance(n, ir.Load) and n.tensor == term.tensor):
            shifts = [(i, more) for i, p in zip(term.indices, element.indices, strict=True) if (more := shift(p)) is not None]
            found.append(placed_at(kernel, promise.condition, tidy(sub(*shifts[0])) if shifts else ir.const(0)))
    return list(dict.fromkeys(found))


def placed_at(kernel: ir.Kernel, condition: ir.Expr, free: ir.Expr) -> ir.Expr:
    """The condition of a promise about places for one value of the free index, if all of the places exist."""

    def at(n: ir.Load) -> ir.Load:
        return replace(n, indices=tuple(tidy(substitute(i, {FREE: free})) for i in n.indices))

    inside = (c for n in ir.walk(condition) if isinstance(n, ir.Load) for c in conjuncts(exists(kernel, at(n))))
    here = ir.rewrite(condition, lambda n: at(n) if isinstance(n, ir.Load) else n)
    return implies(every(c for c in dict.fromkeys(inside) if not holds(c)), here)


def ascending(book: Book) -> frozenset[str]:
    """Tensors of one axis whose elements never descend, as promises about neighbours say: ``off[b + 1] == off[b] + n[b]`` and ``n >= 0``."""
    if book.ascending is None:
        book.ascending = frozenset()
        assert book.kernel is not None
        kernel = book.kernel
        names = {n: None for p in kernel.promises if p.kind == "places" for n in p.tensors}
        book.ascending = frozenset(n for n in names if _never_descends(book, kernel, n))
    return book.ascending


def _never_descends(book: Book, kernel: ir.Kernel, name: str) -> bool:
    tensor = kernel.tensor(name)
    if len(tensor.shape) != 1 or tensor.dtype.kind != "signed":
        return False
    here = index("·")
    one, two = (wide(ir.Load(tensor.dtype, (), name, (i,))) for i in (here, ir.binary("add", here, ir.const(1))))
    both = [ir.binary("le", ir.const(0), here), ir.binary("lt", ir.binary("add", here, ir.const(1)), tensor.shape[0])]
    goal = ir.binary("le", one, two)
    sizes = [ir.binary("ge", ir.Dim(I64, (), d), ir.const(0)) for d in kernel.dims]
    steps = [placed_at(kernel, p.condition, here) for p in kernel.promises if p.kind == "places" and p.condition is not None]
    more = [f for term in _terms(steps) for f in _single(book, kernel, term)]
    known = [bare(f) for f in (*sizes, *(c for r in kernel.requires for c in conjuncts(r.condition)), *both, *steps, *more)]
    return Reason(known, element_types(kernel)).proves(bare(goal))


def _ascend(kernel: ir.Kernel, a: ir.Load, b: ir.Load) -> list[ir.Expr]:
    both = (exists(kernel, a), exists(kernel, b), ir.binary("le", a.indices[0], b.indices[0]))
    return [implies(every(both), ir.binary("le", a, b))]


def promised_facts(kernel: ir.Kernel) -> list[ir.Expr]:
    """What promises say of sizes: the first element of a tensor keeps them, and distinct elements are no more than the values that they can have."""
    found: list[ir.Expr] = []
    for promise in kernel.promises:
        if promise.kind == "each":
            for name in promise.tensors:
                tensor = kernel.tensor(name)
                element = ir.Load(tensor.dtype, (), name, tuple(ir.const(0) for _ in tensor.shape))
                found.append(ir.binary("eq", element, element))
        elif (
            promise.kind == "places"
            and promise.condition is not None
            and not any(isinstance(n, ir.Index) for n in ir.walk(promise.condition))
        ):
            found.append(bare(placed_at(kernel, promise.condition, ir.const(0))))
        elif promise.kind == "distinct":
            name = promise.tensors[0]
            shape = kernel.tensor(name).shape
            count = reduce(lambda a, b: ir.binary("mul", a, b), shape)
            empty = [ir.binary("le", extent, ir.const(0)) for extent in shape]
            for low, high in values(kernel, name):
                few = ir.binary("le", count, ir.binary("sub", high, low))
                found.append(bare(reduce(lambda a, b: ir.binary("or", a, b), empty, few)))
    return found


def values(kernel: ir.Kernel, name: str) -> list[tuple[ir.Expr, ir.Expr]]:
    """Bounds ``low <= element < high`` that promises give."""
    lows: list[ir.Expr] = []
    highs: list[ir.Expr] = []
    for promise in kernel.promises:
        if promise.kind != "each" or promise.tensors != (name,) or promise.condition is None:
            continue
        for part in conjuncts(promise.condition):
            if isinstance(part, ir.Binary) and part.op in ("le", "lt", "ge", "gt") and part.a.dtype is I64:
                small, great = (part.a, part.b) if part.op in ("le", "lt") else (part.b, part.a)
                strict = part.op in ("lt", "gt")
                if _element(great, name) and not _loads(small):
                    lows.append(ir.binary("add", small, ir.const(1)) if strict else small)
                elif _element(small, name) and not _loads(great):
                    highs.append(great if strict else ir.binary("add", great, ir.const(1)))
    return [(low, high) for low in lows for high in highs]


def _element(e: ir.Expr, name: str) -> bool:
    while isinstance(e, ir.Cast) and e.mode == "convert" and e.dtype.kind == "signed":
        e = e.x
    return isinstance(e, ir.Load) and e.tensor == name and e.dtype.kind == "signed"


def _loads(e: ir.Expr) -> bool:
    return any(isinstance(n, ir.Load) for n in ir.walk(e))


def preimage(kernel: ir.Kernel, term: ir.Load) -> list[ir.Expr]:
    """As many distinct elements as there are values: each value is an element."""
    name, value = term.tensor.removeprefix("preimage "), term.indices[0]
    tensor = kernel.tensor(name)
    extent = tensor.shape[0]
    here = wide(ir.Load(tensor.dtype, term.axes, name, (term,)))
    found: list[ir.Expr] = []
    for low, high in values(kernel, name):
        full = ir.binary("eq", extent, ir.binary("sub", high, low))
        inside = every((full, ir.binary("le", low, value), ir.binary("lt", value, high)))
        reached = (ir.binary("le", ir.const(0), term), ir.binary("lt", term, extent), ir.binary("eq", here, value))
        found.append(implies(inside, every(reached)))
    return found


def _terms(nodes: Iterable[ir.Expr]) -> Iterator[ir.Load]:
    seen: dict[ir.Load, None] = {}
    for node in nodes:
        for n in ir.walk(node):
            if isinstance(n, ir.Load):
                seen[n] = None
    return iter(seen)


def _single(book: Book, kernel: ir.Kernel, term: ir.Load) -> list[ir.Expr]:
    """What is known of one element."""
    if term.tensor in book.definitions:
        definition = book.definitions[term.tensor]
        return [definition.at(term, f) for f in definition.facts]
    if term.tensor.startswith("search "):
        return search(kernel, term)
    if term.tensor.startswith("preimage "):
        return preimage(kernel, term)
    if term.tensor == "border":
        return border(term)
    if term.tensor == "owner":
        n, parts, x = term.indices
        low, high = (lemma_name("border", I64, (n, parts, g)) for g in (term, ir.binary("add", term, ir.const(1))))
        lies = every((ir.binary("le", ir.const(0), x), ir.binary("lt", x, n), ir.binary("lt", ir.const(0), parts)))
        inside = (ir.binary("le", ir.const(0), term), ir.binary("lt", term, parts), ir.binary("le", low, x), ir.binary("lt", x, high))
        return [implies(lies, every(inside))]
    found: list[ir.Expr] = []
    for promise in kernel.promises:
        if promise.kind == "each" and term.tensor in promise.tensors and promise.condition is not None:
            here = substitute(promise.condition, {f"each{p}": i for p, i in enumerate(term.indices)})
            found.append(implies(exists(kernel, term), here))
    return found


def search(kernel: ir.Kernel, term: ir.Load) -> list[ir.Expr]:
    """``r`` elements of a sorted tensor are at most x: the one before r is, the one at r is not."""
    name, x = term.tensor.removeprefix("search "), term.indices[0]
    tensor = kernel.tensor(name)
    zero, one, extent = ir.const(0), ir.const(1), tensor.shape[0]

    def at(i: ir.Expr) -> ir.Expr:
        return wide(ir.Load(tensor.dtype, i.axes, name, (i,)))

    found: list[ir.Expr] = [ir.binary("le", zero, term), ir.binary("le", term, extent)]
    if x.dtype.is_integer and tensor.dtype.kind == "signed":
        found.append(implies(ir.binary("gt", term, zero), ir.binary("le", at(ir.binary("sub", term, one)), wide(x))))
        found.append(implies(ir.binary("lt", term, extent), ir.binary("lt", wide(x), at(term))))
    return found


def border_is(term: ir.Load) -> ir.Expr:
    """What a border is: a product, which is more than most proofs want to know."""
    n, parts, g = term.indices
    whole = ir.binary("mul", g, ir.binary("floordiv", n, parts))
    return ir.binary("eq", term, ir.binary("add", whole, ir.binary("min", g, ir.binary("mod", n, parts))))


def border(term: ir.Load) -> list[ir.Expr]:
    """Borders of an even partition: 0 first, n last, in between never outside; and how long the part at a border is."""
    n, parts, g = term.indices
    zero, one = ir.const(0), ir.const(1)
    sane = every((ir.binary("le", zero, n), ir.binary("lt", zero, parts)))
    inner = every((sane, ir.binary("le", zero, g), ir.binary("le", g, parts)))
    outside = every((sane, ir.binary("or", ir.binary("lt", g, zero), ir.binary("lt", parts, g))))
    return [
        implies(outside, border_is(term)),
        implies(every((sane, ir.binary("eq", g, zero))), ir.binary("eq", term, zero)),
        implies(every((sane, ir.binary("eq", g, parts))), ir.binary("eq", term, n)),
        implies(inner, every((ir.binary("le", zero, term), ir.binary("le", term, n)))),
        implies(every((inner, ir.binary("eq", parts, one), ir.binary("eq", g, one))), ir.binary("eq", term, n)),
    ]


def rising(definition: Definition, prefix: Prefix, a: ir.Load, b: ir.Load) -> list[ir.Expr]:
    """Two values of one running sum."""
    i, j = a.indices, b.indices
    same = [ir.binary("eq", x, y) for x, y in zip(i[:-1], j[:-1], strict=True) if x != y]
    lane = every((*same, ir.binary("le", definition.at(a, prefix.start), i[-1]), ir.binary("lt", i[-1], j[-1])))
    return [
        implies(every((*same, ir.binary("le", i[-1], j[-1]))), ir.binary("le", a, b)),
        implies(lane, ir.binary("le", ir.binary("add", a, definition.at(a, prefix.x)), b)),
    ]


def element_types(kernel: ir.Kernel) -> dict[str, DType]:
    found = {t.name: t.dtype for t in kernel.tensors} | {v.name: v.dtype for v in kernel.views}
    return found | {s.name: s.dtype for s in kernel.scalars}


def _pair(book: Book, kernel: ir.Kernel, a: ir.Load, b: ir.Load) -> list[ir.Expr]:
    """What is known of two elements in this order."""
    i, j = a.indices, b.indices
    definition = book.definitions.get(a.tensor)
    if definition is not None:
        if definition.prefix is not None:
            return rising(definition, definition.prefix, a, b)
        count = definition.count
        if count is None or not count.slot or count.here is None:
            return []
        same = [ir.binary("eq", x, y) for x, y in zip(i[:-1], j[:-1], strict=True) if x != y]
        both = (definition.at(a, count.here), definition.at(b, count.here))
        flag = definition.at(a, count.flag)
        step = ir.binary("add", a, ir.Cast(I64, flag.axes, flag))
        return [implies(every((*same, *both, ir.binary("lt", i[-1], j[-1]))), ir.binary("le", step, b))]
    if a.tensor.startswith("search "):
        if not (i[0].dtype.is_integer and j[0].dtype is i[0].dtype):
            return []
        return [implies(ir.binary("le", i[0], j[0]), ir.binary("le", a, b))]
    if a.tensor == "border":
        if i[:2] != j[:2]:
            return []
        n, parts, g = i
        zero, one = ir.const(0), ir.const(1)
        ordered = every((ir.binary("le", zero, n), ir.binary("lt", zero, parts), ir.binary("le", zero, g), ir.binary("le", j[2], parts)))
        least = ir.binary("floordiv", n, parts)
        step = ir.binary("add", a, least)
        longest = ir.binary("add", step, one)
        return [
            implies(every((ordered, ir.binary("le", g, j[2]))), ir.binary("le", a, b)),
            implies(every((ordered, ir.binary("lt", g, j[2]))), ir.binary("le", step, b)),
            implies(every((ordered, ir.binary("eq", ir.binary("add", g, one), j[2]))), ir.binary("le", b, longest)),
        ]
    if a.tensor == "owner" or "#" in a.tensor or a.tensor.startswith("preimage "):
        return []
    found: list[ir.Expr] = []
    for promise in kernel.promises:
        if promise.tensors and promise.tensors[0] == a.tensor and promise.kind in ("sorted", "distinct"):
            both_exist = (exists(kernel, a), exists(kernel, b))
            if promise.kind == "sorted" and a.dtype is not BOOL:
                found.append(implies(every((*both_exist, ir.binary("le", i[0], j[0]))), ir.binary("le", a, b)))
            elif promise.kind == "distinct":
                alike = every(ir.binary("eq", x, y) for x, y in zip(i, j, strict=True))
                found.append(implies(every((*both_exist, ir.binary("eq", a, b))), alike))
    return found
