"""A counterexample as a launch: sizes, scalars and contents of tensors, from the prover's model.

The model names symbols and the elements that the obligation reads; the others are completed so that every promise holds.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64, DType
from nsalang.base.source import NsaError
from nsalang.host.promises import free_index, place
from nsalang.interp import numerics
from nsalang.interp.fault import Fault
from nsalang.interp.views import views
from nsalang.proof import smt
from nsalang.proof.encoder import Encoder
from nsalang.proof.lemmas import element_types, values
from nsalang.refute.evaluate import Number, evaluate

LARGEST = 1 << 20
"""Elements of all tensors together, at most: a larger launch is not run."""
MOST_PROMISED = 2000
"""Elements whose promises one query completes, at most."""
PATTERNS = range(9)
"""Data that the model leaves open: 0, 1, -1, counting, and random; all data are from FREE on: the model's may follow from what was made up."""
FREE = 6
EXTREMES = range(9, 12)
"""More data that the model leaves open: the greatest values, the least, and both in turn; what adds up goes furthest with them."""
EXTREME = 7
"""From here on floats are far ones: exponents at their ends, infinities, NaN."""
FLOATS = (-2.0, -1.0, 0.0, 0.5, 1.0, 3.0)
FAR = (0.0, 2.0**-126, 3e38, -3e38, float("inf"), float("-inf"), float("nan"))


@dataclass(frozen=True, slots=True)
class Launch:
    """What a kernel is called with. ``tensors`` holds the parameters."""

    dims: Mapping[str, int]
    scalars: Mapping[str, Number]
    tensors: Mapping[str, Tensor]

    @property
    def names(self) -> dict[str, Number]:
        return {**self.dims, **self.scalars}


def launches(kernel: ir.Kernel, model: Mapping[str, int], patterns: Sequence[int] = PATTERNS) -> Iterator[Launch]:
    """Launches that the model allows, the plainest first."""
    sizes = _sizes(kernel, model)
    if sizes is None:
        return
    dims, whole = sizes
    names: dict[str, Number] = {**dims, **whole}
    shapes: dict[str, tuple[int, ...]] = {}
    for t in kernel.tensors:
        extents = [evaluate(e, names) for e in t.shape]
        if any(e is None or e < 0 for e in extents):
            return
        shapes[t.name] = tuple(int(e) for e in extents if e is not None)
    if sum(math.prod(s) for s in shapes.values()) > LARGEST:
        return
    for pattern in patterns:
        scalars = {s.name: whole[s.name] if s.name in whole else (0.0, 1.0, -1.0, 0.5)[pattern % 4] for s in kernel.scalars}
        if any(evaluate(r.condition, {**dims, **scalars}) is False for r in kernel.requires):
            continue
        top = max(dims.values(), default=2)
        tensors = {t.name: _plain(t.dtype, shapes[t.name], pattern, top, n) for n, t in enumerate(kernel.tensors)}
        if pattern in EXTREMES:
            tensors |= {t.name: _extreme(kernel, t, tensors[t.name], pattern, {**dims, **scalars}) for t in kernel.tensors}
        if _fill(kernel, tensors, dims, scalars, model, pattern):
            yield Launch(dims, scalars, tensors)


def _sizes(kernel: ir.Kernel, model: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]] | None:
    """Dimensions and whole scalars: the model's, completed so that every requirement holds."""
    scalars = [s for s in kernel.scalars if s.dtype is BOOL or s.dtype.is_integer]
    known = {n: model[n] for n in (*kernel.dims, *(s.name for s in scalars)) if n in model}
    facts: list[ir.Expr] = [r.condition for r in kernel.requires]
    facts += [ir.binary("ge", ir.Dim(I64, (), d), ir.const(0)) for d in kernel.dims]
    if all(evaluate(f, known) for f in facts) and len(known) == len(kernel.dims) + len(scalars):
        found: Mapping[str, int] = known
    else:
        for d in kernel.dims:
            facts.append(_is(ir.Dim(I64, (), d), known[d]) if d in known else ir.binary("ge", ir.Dim(I64, (), d), ir.const(1)))
        facts += [_is(ir.Scalar(s.dtype, (), s.name), known[s.name]) for s in scalars if s.name in known]
        dtypes = {s.name: s.dtype for s in kernel.scalars}
        for small in (2, 16, 300, None):
            limit = None if small is None else max(small, *(abs(v) for v in known.values()), 0)
            outcome = smt.prove(facts, ir.const(False, BOOL), dtypes, small=limit)
            if outcome.answer == "refuted":
                break
        else:
            return None
        found = {**outcome.model, **known}
    dims = {d: found.get(d, 1) for d in kernel.dims}
    return dims, {s.name: bool(found.get(s.name, 0)) if s.dtype is BOOL else found.get(s.name, 1) for s in scalars}


def _is(node: ir.Expr, value: int) -> ir.Expr:
    if node.dtype is BOOL:
        return node if value else ir.Unary(BOOL, (), "not", node)
    return ir.binary("eq", node, ir.Const(node.dtype, (), value))


def _plain(dtype: DType, shape: tuple[int, ...], pattern: int, size: int, seed: int) -> Tensor:
    """A tensor of the pattern's data, of which integers are between -1 and one past the greatest dimension."""
    count = math.prod(shape)
    chosen = random.Random(pattern * 1000 + seed)
    fixed = (0, 1, -1)
    if dtype.is_float:
        values = torch.tensor(chosen.choices(FLOATS if pattern < EXTREME else FAR, k=count))
        values = values if pattern > 3 else torch.arange(count) % 5 if pattern == 3 else torch.full((count,), fixed[pattern])
        return numerics.to_memory(values.to(numerics.native(dtype)), dtype).view(numerics.memory_dtype(dtype)).reshape(shape)
    whole = torch.tensor(chosen.choices(range(-1, size + 2), k=count), dtype=torch.int64)
    whole = whole if pattern > 3 else torch.arange(count) % max(1, size) if pattern == 3 else torch.full((count,), fixed[pattern])
    whole = whole % 2 if dtype is BOOL else whole.clamp(max(int(dtype.min), -1), min(int(dtype.max), 2**62))
    return whole.to(numerics.memory_dtype(dtype)).reshape(shape)


def _extreme(kernel: ir.Kernel, tensor: ir.Tensor, plain: Tensor, pattern: int, names: Mapping[str, Number]) -> Tensor:
    """Integers at the ends of their dtype, or of what is promised of them."""
    if not tensor.dtype.is_integer:
        return plain
    low, high = int(tensor.dtype.min), int(tensor.dtype.max)
    for least, beyond in values(kernel, tensor.name):
        a, b = evaluate(least, names), evaluate(beyond, names)
        low, high = (low if a is None else max(low, int(a))), (high if b is None else min(high, int(b) - 1))
    ends = torch.tensor([high, low] if pattern != EXTREMES[1] else [low, high], dtype=torch.int64).to(numerics.memory_dtype(tensor.dtype))
    chosen = torch.arange(plain.numel()) % 2 if pattern == EXTREMES[2] else torch.zeros(plain.numel(), dtype=torch.int64)
    return ends[chosen].reshape(plain.shape)


def everything(
    kernel: ir.Kernel, tensors: Mapping[str, Tensor], dims: Mapping[str, int], scalars: Mapping[str, Number]
) -> dict[str, Tensor] | None:
    """The tensors and the views, which share their bases' memory; None where a view does not lie within its base, or not aligned."""
    try:
        return {**tensors, **views(kernel, tensors, dims, scalars)}
    except (Fault, NsaError):
        return None


def _fill(
    kernel: ir.Kernel,
    tensors: dict[str, Tensor],
    dims: Mapping[str, int],
    scalars: Mapping[str, Number],
    model: Mapping[str, int],
    pattern: int,
) -> bool:
    """Write the model's elements, and complete those that promises are about. False: the model breaks a promise, or there is too much of it."""
    names: dict[str, Number] = {**dims, **scalars}
    places = everything(kernel, tensors, dims, scalars)
    if places is None:
        return not kernel.promises
    fixed: dict[tuple[str, tuple[int, ...]], int] = {}
    for key, value in model.items():
        if (
            pattern < FREE
            and (element := parse_element(key)) is not None
            and element[0] in places
            and inside(places[element[0]], element[1])
        ):
            fixed[element] = value
    for (name, indices), value in fixed.items():
        _put(places[name], indices, value)
    if not kernel.promises:
        return True
    promised = dict.fromkeys(n for p in kernel.promises for n in p.tensors)
    if sum(places[n].numel() for n in promised) > MOST_PROMISED:
        return False
    return _complete(kernel, places, names, fixed, promised, pattern)


def parse_element(key: str) -> tuple[str, tuple[int, ...]] | None:
    """``idx[3, 0]`` in a model."""
    said = re.fullmatch(r"(\w+)\[([-\d, ]+)\]", key)
    return None if said is None else (said[1], tuple(int(i) for i in said[2].split(",")))


def inside(tensor: Tensor, indices: tuple[int, ...]) -> bool:
    return len(indices) == tensor.dim() and all(0 <= i < e for i, e in zip(indices, tensor.shape, strict=True))


def _put(tensor: Tensor, indices: tuple[int, ...], value: int) -> None:
    if not tensor.dtype.is_floating_point:
        tensor[indices] = torch.tensor(value, dtype=torch.int64).to(tensor.dtype)


def _complete(
    kernel: ir.Kernel,
    places: Mapping[str, Tensor],
    names: Mapping[str, Number],
    fixed: Mapping[tuple[str, tuple[int, ...]], int],
    promised: Mapping[str, None],
    pattern: int,
) -> bool:
    """Elements that fulfil every promise: the pattern's values where they may stay, and what one query finds elsewhere."""
    import z3

    context = z3.Context()
    dtypes = element_types(kernel)
    encoder = Encoder(context, dtypes, linear=False)
    symbols: dict[tuple[str, tuple[int, ...]], ir.Var] = {}
    for name in promised:
        if dtypes[name].is_integer or dtypes[name] is BOOL:
            for indices in itertools.product(*(range(e) for e in places[name].shape)):
                symbols[name, indices] = ir.Var(dtypes[name], (), f"{name}[{', '.join(map(str, indices))}]")
    values = {key: int(places[key[0]][key[1]]) for key in symbols}
    clauses = [encoder.boolean(c) for p in kernel.promises for c in _instances(p, places, names, symbols)]
    solver = z3.Solver(ctx=context)
    solver.set("rlimit", smt.LIMIT)
    solver.set("random_seed", 0)
    for clause in (*clauses, *encoder.definitions()):
        solver.add(clause)
    wanted = {key: encoder.boolean(_is(symbol, values[key])) for key, symbol in symbols.items()}
    solver.add(*(clause for key, clause in wanted.items() if key in fixed), *encoder.facts)
    rest = [key for key in symbols if key not in fixed]
    if solver.check(*(wanted[key] for key in rest)) != z3.sat:
        kept: list[object] = []
        for key in rest[:64]:
            if solver.check(*kept, wanted[key]) == z3.sat:
                kept.append(wanted[key])
        if solver.check(*kept) != z3.sat:
            return False
    solution = solver.model()
    for key, symbol in symbols.items():
        term = encoder.boolean(symbol) if symbol.dtype is BOOL else encoder.integer(symbol)
        got = solution.eval(term, model_completion=True)
        _put(places[key[0]], key[1], int(z3.is_true(got)) if z3.is_bool(got) else got.as_long())
    return True


def _instances(
    promise: ir.Promise, places: Mapping[str, Tensor], names: Mapping[str, Number], symbols: Mapping[tuple[str, tuple[int, ...]], ir.Var]
) -> Iterator[ir.Expr]:
    """What a promise says of each element, or pair of elements."""
    if promise.kind == "places":
        assert promise.condition is not None
        dims, scalars = {n: int(v) for n, v in names.items()}, names
        for free in free_index(promise, {n: tuple(t.shape) for n, t in places.items()}, dims, scalars):

            def at_place(n: ir.Node, free: int = free) -> ir.Node:
                key = (n.tensor, place(n, free, dims, scalars)) if isinstance(n, ir.Load) else None
                return symbols[key] if key is not None and key in symbols else _known(n, names)

            yield ir.rewrite(promise.condition, at_place)
        return
    name = promise.tensors[0]
    elements = list(itertools.product(*(range(e) for e in places[name].shape)))
    if promise.condition is None:
        here = [symbols[name, i] for i in elements]
        pairs = itertools.pairwise(here) if promise.kind == "sorted" else itertools.combinations(here, 2)
        yield from (ir.binary("le" if promise.kind == "sorted" else "ne", a, b) for a, b in pairs)
        return
    for indices in elements:

        def rule(n: ir.Node, indices: tuple[int, ...] = indices) -> ir.Node:
            if isinstance(n, ir.Load) and (n.tensor, indices) in symbols:
                return symbols[n.tensor, indices]
            return _known(n, names)

        yield ir.rewrite(promise.condition, rule)


def _known(n: ir.Node, names: Mapping[str, Number]) -> ir.Node:
    if isinstance(n, (ir.Dim, ir.Scalar)) and n.name in names and n.dtype.is_integer:
        return ir.Const(n.dtype, (), names[n.name])
    return n
