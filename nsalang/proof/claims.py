"""What must hold of several accesses together, or of none: races, order, coverage, views and hypotheses, as obligations over symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64
from nsalang.proof.forms import ZERO, add, described, residues, sub, times
from nsalang.proof.inverse import Inverse
from nsalang.proof.lemmas import exists_at, index, substitute
from nsalang.proof.obligations import Access, Obligation
from nsalang.proof.reason import every, implies
from nsalang.proof.walk import Walk
from nsalang.proof.walk import hypotheses as launch_facts

# ------------------------------------------------------------------------------------------------------------------- hypotheses


def hypotheses(kernel: ir.Kernel) -> list[Obligation]:
    """The requirements can hold together, and so can the promises, of tensors that have an element: otherwise they would prove anything."""
    facts = tuple(launch_facts(kernel))
    found = [Obligation("hypotheses", "require", facts, ir.const(False, BOOL), kernel.span)]
    if any(not p.implied for p in kernel.promises):
        elements: dict[str, tuple[ir.Expr, ...]] = {}
        for p in kernel.promises:
            for name in p.tensors:
                rank = len(kernel.tensor(name).shape)
                elements[name] = tuple(index(f"each{i}") for i in range(rank))
        more: list[ir.Expr] = []
        for name, place in elements.items():
            element = ir.Load(kernel.tensor(name).dtype, (), name, place)
            more += [exists_at(kernel, name, place), ir.binary("eq", element, element)]
        first = next(p for p in kernel.promises if not p.implied)
        text = ", ".join(p.text for p in kernel.promises if not p.implied)
        found.append(Obligation("hypotheses", text, (*facts, *more), ir.const(False, BOOL), first.span or kernel.span))
    return found


# ------------------------------------------------------------------------------------------------------------------------ races


def races(kernel: ir.Kernel, walk: Walk) -> list[Obligation]:
    """No two instances write one element; no statement writes one twice in one execution; no instance reads what another writes.
    Scatters may collide with each other, and so may atomic additions."""
    found: list[Obligation] = []
    grid = tuple(g.name for g in kernel.grid)
    stores = [a for a in walk.accesses if a.is_store]
    for i, first in enumerate(stores):
        for second in stores[i:]:
            if first.tensor == second.tensor and not _may_collide(first, second):
                found.append(_apart("race", first, second, grid, ()))
        inner = tuple(a for a in first.axes if a not in grid)
        if inner and isinstance(first.node, ir.Store) and first.node.mode == "set":
            made = _apart("twice", first, first, inner, (*grid, *(n for n in first.loops if n not in inner)))
            found.append(replace(made, facts=(*_one_block(walk, made, inner), *made.facts)))
        for read in walk.accesses:
            if not read.is_store and read.tensor == first.tensor:
                found.append(_apart("order", first, read, grid, ()))
    return found


def _one_block(walk: Walk, made: Obligation, inner: Sequence[str]) -> list[ir.Expr]:
    """Lanes of one execution are lanes of one block: what is the same for the whole block is the same for both, and ranks in it ascend."""
    found: list[ir.Expr] = []
    for t in {n: None for f in made.facts for n in ir.walk(f) if isinstance(n, ir.Load)}:
        definition = walk.book.definitions.get(t.tensor)
        other = {n: index(f"{n}'") for n in inner if (t.tensor, n) in walk.uniform}
        if other:
            found.append(ir.binary("eq", t, substitute(t, other)))
        elif definition is not None and definition.count is not None and t.tensor.startswith("rank of "):
            count = definition.count
            later = {count.axis: index(f"{count.axis}'")}
            one, two = (t, substitute(t, later)), (substitute(t, later), t)
            for (low, high), (first, second) in (
                (one, (index(count.axis), later[count.axis])),
                (two, (later[count.axis], index(count.axis))),
            ):
                if count.axis in inner and isinstance(low, ir.Load) and count.here is not None:
                    flag, here = definition.at(low, count.flag), definition.at(low, count.here)
                    step = ir.binary("add", low, ir.Cast(I64, flag.axes, flag))
                    found.append(implies(every((here, ir.binary("lt", first, second))), ir.binary("le", step, high)))
    return found


def _may_collide(a: Access, b: Access) -> bool:
    assert isinstance(a.node, ir.Store) and isinstance(b.node, ir.Store)
    return a.node.mode == b.node.mode != "set"


def _apart(
    kind: Literal["race", "twice", "order"], first: Access, second: Access, differ: tuple[str, ...], same: tuple[str, ...]
) -> Obligation:
    """Two executions that differ in one of ``differ``, and agree in ``same``, touch different elements. The last fact says that they touch one."""
    names = {r.name for r in first.ranges} | {r.name for r in second.ranges}
    other: dict[str, ir.Expr] = {n: index(f"{n}'") for n in sorted(names) if n not in same}
    facts = (*first.facts, *(substitute(f, other) for f in second.conditions))
    equal = every(ir.binary("eq", a, substitute(b, other)) for a, b in zip(first.indices, second.indices, strict=True))
    alike = every(ir.binary("eq", index(n), other.get(n, index(n))) for n in differ)
    what = described(first.node) if first.node is second.node else f"{described(first.node)} and {described(second.node)}"
    return Obligation(kind, what, (*facts, equal), alike, first.node.span, first.tensor)


# ------------------------------------------------------------------------------------------------------------------------ views


def _address(kernel: ir.Kernel, name: str, place: Sequence[ir.Expr]) -> ir.Expr:
    """Where an element of a tensor or view begins, in bytes of the memory in row-major order."""
    tensor = kernel.tensor(name)
    if isinstance(tensor, ir.View):
        total = tensor.offset
        for i, stride in zip(place, tensor.strides, strict=True):
            total = add(total, times(i, stride))
        return total
    linear: ir.Expr = ZERO
    for i, extent in zip(place, tensor.shape, strict=True):
        linear = add(i, ZERO) if linear == ZERO else add(times(linear, extent), i)
    return times(linear, ir.const(tensor.dtype.bytes))


def _elements(tensor: ir.Tensor | ir.View, mark: str) -> tuple[ir.Index, ...]:
    return tuple(index(f"{tensor.name}@{p}{mark}") for p in range(len(tensor.shape)))


def views(kernel: ir.Kernel) -> list[Obligation]:
    """Elements of a view are aligned, and lie inside its base."""
    found: list[Obligation] = []
    facts = tuple(launch_facts(kernel))
    for view in kernel.views:
        item = ir.const(view.dtype.bytes)
        base = kernel.tensor(view.base)
        whole: ir.Expr = ir.const(base.dtype.bytes)
        for extent in reversed(base.shape):
            whole = times(extent, whole)
        aligned = [ir.binary("eq", ir.binary("mod", e, item), ZERO) for e in (view.offset, *view.strides)]
        positive = [ir.binary("le", ZERO, e) for e in (view.offset, *view.strides)]
        found.append(Obligation("view", view.name, facts, every([*aligned, *positive]), view.span, view.name))
        place = _elements(view, "")
        end = add(_address(kernel, view.name, place), item)
        inside = (*facts, exists_at(kernel, view.name, place))
        found.append(Obligation("view", view.name, inside, ir.binary("le", end, whole), view.span, view.name, 1))
    return found


def overlaps(kernel: ir.Kernel, walk: Walk) -> list[Obligation]:
    """Elements of a written view share no byte with each other, nor with what else is accessed of its base."""
    found: list[Obligation] = []
    used = list(dict.fromkeys(a.tensor for a in walk.accesses))
    stored = {a.tensor for a in walk.accesses if a.is_store}
    facts = tuple(launch_facts(kernel))
    for i, one in enumerate(used):
        for two in used[i:]:
            tensors = kernel.tensor(one), kernel.tensor(two)
            if kernel.memory(one) != kernel.memory(two) or not stored & {one, two} or not any(isinstance(t, ir.View) for t in tensors):
                continue
            a, b = _elements(tensors[0], ""), _elements(tensors[1], "'")
            first, second = _address(kernel, one, a), _address(kernel, two, b)
            near = every(
                (
                    ir.binary("lt", first, add(second, ir.const(tensors[1].dtype.bytes))),
                    ir.binary("lt", second, add(first, ir.const(tensors[0].dtype.bytes))),
                )
            )
            exist = (exists_at(kernel, one, a), exists_at(kernel, two, b))
            goal = every(ir.binary("eq", x, y) for x, y in zip(a, b, strict=True)) if one == two else ir.const(False, BOOL)
            view = next(t for t in tensors if isinstance(t, ir.View))
            sides: list[ir.Expr] = []
            for x, y in zip(a, b, strict=False):
                sides += [
                    ir.binary("or", ir.binary("lt", x, y), ir.binary("ge", x, y)),
                    ir.binary("or", ir.binary("le", x, y), ir.binary("gt", x, y)),
                ]
            what = one if one == two else f"{one} and {two}"
            found.append(Obligation("overlap", what, (*facts, *exist, *sides, near), goal, view.span, view.name))
    return found


# --------------------------------------------------------------------------------------------------------------------- coverage


def coverage(kernel: ir.Kernel, walk: Walk) -> list[Obligation]:
    """Every element of an ``Out`` is written: by inverting each store's index map, an element names the instance that writes it."""
    found: list[Obligation] = []
    for tensor in kernel.tensors:
        if tensor.role != "out" or tensor.name in kernel.partial:
            continue
        element = _elements(tensor, "")
        facts = (*walk.assumed, exists_at(kernel, tensor.name, element))
        goal: ir.Expr = ir.const(False, BOOL)
        for a in walk.accesses:
            if isinstance(a.node, ir.Store) and a.node.mode != "add" and kernel.memory(a.tensor) == tensor.name:
                written = _written(walk, a, element) if a.tensor == tensor.name else _through(kernel, walk, a, tensor, element)
                goal = written if isinstance(goal, ir.Const) else ir.binary("or", goal, written)
        found.append(Obligation("coverage", f"{tensor.name}[…]", facts, goal, tensor.span, tensor.name))
    return found


def _through(kernel: ir.Kernel, walk: Walk, access: Access, base: ir.Tensor, element: Sequence[ir.Expr]) -> ir.Expr:
    """That a store through a view reaches every byte of an element of its base: the view's index is found stride by stride."""
    view = kernel.tensor(access.tensor)
    assert isinstance(view, ir.View)
    bytes_: list[ir.Expr] = []
    first = _address(kernel, base.name, element)
    for k in range(base.dtype.bytes):
        left = sub(add(first, ir.const(k)), view.offset)
        place: list[ir.Expr] = []
        for stride in view.strides:
            place.append(ir.binary("floordiv", left, stride))
            left = ir.binary("mod", left, stride)
        start = _address(kernel, view.name, place)
        at = add(first, ir.const(k))
        touches = (ir.binary("le", start, at), ir.binary("lt", at, add(start, ir.const(view.dtype.bytes))))
        bytes_ += [*touches, exists_at(kernel, view.name, place), _written(walk, access, place)]
    return every(bytes_)


def _written(walk: Walk, access: Access, element: Sequence[ir.Expr]) -> ir.Expr:
    """That the store reaches the element, with a witness for every index variable."""
    inverse = Inverse(walk, {r.name: r for r in access.ranges})
    inverse.solve([(i, e) for i, e in zip(access.indices, element, strict=True)])
    reached = [*access.conditions, *(ir.binary("eq", i, e) for i, e in zip(access.indices, element, strict=True))]
    return every(residues(substitute(c, inverse.witness)) for c in reached)
