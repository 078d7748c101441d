"""What must hold of several accesses together, or of none: races, order, coverage, views and hypotheses, as obligations over symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64
from nsalang.proof.ends import Ranges
from nsalang.proof.forms import described
from nsalang.proof.lemmas import exists_at, index, lemma_name, substitute, wide
from nsalang.proof.obligations import Access, Obligation, Walk
from nsalang.proof.obligations import hypotheses as launch_facts
from nsalang.proof.reason import every, implies

ZERO, ONE = ir.const(0), ir.const(1)


def add(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return b if a == ZERO else a if b == ZERO else ir.binary("add", a, b)


def sub(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return a if b == ZERO else ir.binary("sub", a, b)


def times(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return b if a == ONE else a if b == ONE else ir.binary("mul", a, b)


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
    return every(substitute(c, inverse.witness) for c in reached)


@dataclass(slots=True)
class Inverse:
    """Index variables for which index expressions have given values: a guess, which the goal then verifies."""

    walk: Walk
    ranges: Mapping[str, Ranges]
    witness: dict[str, ir.Expr] = field(default_factory=dict)

    def solve(self, pairs: list[tuple[ir.Expr, ir.Expr]]) -> None:
        pairs = self._joined(pairs)
        for _ in range(len(pairs) + len(self.ranges)):
            for pair in list(pairs):
                if self._one(*pair):
                    pairs.remove(pair)
        for name, r in reversed(list(self.ranges.items())):
            if name in self.witness and self.open(r.start):
                self._start(r, self.witness[name])
        for name, r in self.ranges.items():
            self.witness.setdefault(name, substitute(r.start, self.witness))

    def _joined(self, pairs: list[tuple[ir.Expr, ir.Expr]]) -> list[tuple[ir.Expr, ir.Expr]]:
        """A quotient and a remainder of one number by one divisor give the number."""
        found = list(pairs)
        for one in pairs:
            for two in pairs:
                match one[0], two[0]:
                    case ir.Binary(op="floordiv", a=a, b=b), ir.Binary(op="mod", a=c, b=d) if (
                        a == c and b == d and one in found and two in found
                    ):
                        found.remove(one)
                        found.remove(two)
                        found = self._joined([*found, (a, add(times(one[1], b), two[1]))])
        return found

    def open(self, node: ir.Expr) -> bool:
        """Whether an index variable in it has no witness yet."""
        return any(isinstance(n, ir.Index) and n.name in self.ranges and n.name not in self.witness for n in ir.walk(node))

    def closed(self, node: ir.Expr) -> ir.Expr:
        return substitute(node, self.witness)

    def _one(self, node: ir.Expr, target: ir.Expr) -> bool:
        """Find index variables such that ``node == target``; True when nothing is left to find in it."""
        if not self.open(node):
            return True
        match node:
            case ir.Index():
                self.witness[node.name] = target
                self._start(self.ranges[node.name], target)
                return True
            case ir.Cast() if node.x.dtype.is_integer:
                return self._one(node.x, target)
            case ir.Unary(op="neg"):
                return self._one(node.x, sub(ZERO, target))
            case ir.Binary(op="sub") if not self.open(node.b):
                return self._one(node.a, add(target, self.closed(node.b)))
            case ir.Binary(op="sub") if not self.open(node.a):
                return self._one(node.b, sub(self.closed(node.a), target))
            case ir.Binary(op="add") if not self.open(node.b):
                return self._one(node.a, sub(target, self.closed(node.b)))
            case ir.Binary(op="add") if not self.open(node.a):
                return self._one(node.b, sub(target, self.closed(node.a)))
            case ir.Binary(op="mul") if not self.open(node.b):
                return self._one(node.a, ir.binary("floordiv", target, self.closed(node.b)))
            case ir.Binary(op="mul") if not self.open(node.a):
                return self._one(node.b, ir.binary("floordiv", target, self.closed(node.a)))
            case ir.Binary(op="floordiv") if not self.open(node.b):
                return self._one(node.a, times(target, self.closed(node.b)))
            case ir.Binary(op="mod") if not self.open(node.b):
                return self._one(node.a, target)
            case ir.Load() if (d := self.walk.book.definitions.get(node.tensor)) is not None and d.count is not None and d.count.slot:
                if any(self.open(i) for i in node.indices[:-1]) or not isinstance(node.indices[-1], ir.Index):
                    return False
                slot = ir.Load(I64, node.axes, d.count.slot, (*(self.closed(i) for i in node.indices[:-1]), target))
                return self._one(node.indices[-1], slot)
            case ir.Load(indices=(place,)) if self._distinct(node.tensor):
                return self._one(place, lemma_name(f"preimage {node.tensor}", I64, (wide(target),)))
            case ir.Binary(op="add"):
                sides = ((node.a, node.b), (node.b, node.a))
                if any(self._digits(big, small, target) for big, small in sides):
                    return True
                short = sorted(sides, key=lambda s: not (isinstance(s[0], ir.Index) and isinstance(self.ranges[s[0].name].stop, ir.Const)))
                return any(self._alone(one, rest, target) for one, rest in short)
        return False

    def _distinct(self, tensor: str) -> bool:
        return any(p.kind == "distinct" and p.tensors[0] == tensor for p in self.walk.kernel.promises)

    def _alone(self, one: ir.Expr, rest: ir.Expr, target: ir.Expr) -> bool:
        """A sum of which one side is put at its start."""
        if not isinstance(one, ir.Index) or self.open(self.ranges[one.name].start):
            return False
        self.witness[one.name] = self.closed(self.ranges[one.name].start)
        return self._one(rest, sub(target, self.witness[one.name]))

    def _digits(self, big: ir.Expr, small: ir.Expr, target: ir.Expr) -> bool:
        """``big == x * factor`` and ``small`` below ``factor``: a quotient and a remainder."""
        if isinstance(big, ir.Binary) and big.op == "add" and isinstance(small, ir.Index):
            # x * a + (y * b + z): the last digit goes first
            orders = ((big.a, big.b), (big.b, big.a))
            return any(self._digits(high, ir.binary("add", middle, small), target) for high, middle in orders)
        if not isinstance(big, ir.Binary) or big.op != "mul":
            return False
        for x, factor in ((big.a, big.b), (big.b, big.a)):
            if self.open(factor):
                continue
            lowest = self.ranges[small.name].start if isinstance(small, ir.Index) and small.name in self.ranges else ZERO
            if self.open(lowest) or not self._smaller(small, factor):
                continue
            rest = sub(target, self.closed(lowest))
            if self._one(x, ir.binary("floordiv", rest, self.closed(factor))):
                return self._one(small, sub(target, self.closed(big)))
        return False

    def _smaller(self, small: ir.Expr, factor: ir.Expr) -> bool:
        """Whether a digit plausibly stays below a factor: an index variable always, a product only where the factor is that much greater."""
        if isinstance(small, ir.Index):
            return True
        inner = [n for n in ir.walk(small) if isinstance(n, ir.Binary) and n.op == "mul"]
        for n in inner:
            for part in (n.a, n.b):
                if part == factor:
                    return False
                if isinstance(part, ir.Const) and isinstance(factor, ir.Const) and part.value >= factor.value:
                    return False
        return True

    def _start(self, r: Ranges, target: ir.Expr) -> None:
        """``target`` lies in the range: which range it is, where ranges begin at multiples, at borders of parts, or at sorted elements.
        A start that is clamped lies where its bounds do."""
        start = r.start
        if not self.open(start):
            return
        if isinstance(start, ir.Binary) and start.op in ("min", "max"):
            for side in (start.a, start.b):
                self._start(replace(r, start=side), target)
            return
        span = sub(r.stop, start)
        rest: ir.Expr = target
        while isinstance(start, ir.Binary) and start.op == "add" and (self.open(start.a) != self.open(start.b)):
            fixed, start = (start.b, start.a) if self.open(start.a) else (start.a, start.b)
            rest = sub(rest, self.closed(fixed))
        match start:
            case ir.Index() if not self.open(span):
                self._one(start, ir.binary("floordiv", rest, self.closed(span)))
            case ir.Binary(op="mul"):
                for x, factor in ((start.a, start.b), (start.b, start.a)):
                    if self.open(x) and not self.open(factor):
                        self._one(x, ir.binary("floordiv", rest, self.closed(factor)))
                        return
            case ir.Load(tensor="border", indices=(n, parts, ir.Index() as g)) if not self.open(n) and not self.open(parts):
                self._one(g, lemma_name("owner", I64, (self.closed(n), self.closed(parts), rest)))
            case ir.Cast(x=ir.Load() as element) | (ir.Load() as element):
                sorted_ = {p.tensors[0] for p in self.walk.kernel.promises if p.kind == "sorted"}
                if element.tensor in sorted_ and isinstance(element.indices[0], ir.Index):
                    found = lemma_name(f"search {element.tensor}", I64, (wide(rest),))
                    self._one(element.indices[0], sub(found, ONE))
