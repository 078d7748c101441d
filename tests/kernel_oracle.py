"""An oracle that finds by brute force what a generated kernel does wrong: its loops run for all small sizes, on sampled data that keep the
promises. Nothing here uses nsalang.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernel_runs import Emitter, Run, Stop
from kernel_trees import LIMITS, Model, Tree, nodes


def launch(model: Model, sizes: Sequence[str]) -> str:
    """Python that gives the shapes at some sizes, or None where a launch refuses them."""
    emitter = Emitter(model)

    def plain(e: Tree) -> str:
        return emitter.python(e).replace("R.divide(0, ", "DIVIDE(").replace("R.whole(0, ", "(")

    divided = {
        n[2][1]
        for n in nodes((model.body, model.tensors, model.requires, model.grid, model.spans, model.views))
        if n[0] in ("//", "%") and n[2][0] == "d"
    }
    divided |= {n[4][1] for n in nodes(model.body) if n[0] == "split" and n[4][0] == "d"}
    tests = [f"{d} > 0" for d in sorted(divided)] + [plain(r) for r in model.requires]
    shapes = [f"'{t[0]}': ({''.join(plain(e) + ', ' for e in t[2])})" for t in (*model.tensors, *model.views)]
    return "\n".join([
        f"def shapes({', '.join(sizes)}):",
        *(f"    if not {t}: return None" for t in tests),
        f"    made = {{{', '.join(shapes)}}}",
        "    return None if any(e < 0 for s in made.values() for e in s) else made",
    ]) + "\n"  # fmt: skip


def divide(a: int, b: int, mod: bool) -> int:
    return a % b if mod else a // b


def find(data: Mapping[tuple[int, ...], int], x: int) -> int:
    return sum(v <= x for v in data.values())


def loop(low: int, high: int) -> range:
    """The values of a loop; a run that takes too long for the oracle ends here."""
    if high - low > 128:
        raise Stop
    return range(low, high)


def blocks(low: int, high: int, length: int) -> Iterator[range]:
    loop(low, high)
    for start in range(low, high, length):
        yield range(start, min(start + length, high))


def block(i: int, extent: int, length: int) -> range:
    start = i // length * length
    return range(start, min(start + length, extent))


def border(n: int, parts: int, g: int) -> int:
    return g * (n // parts) + min(g, n % parts)


GLOBALS: dict[str, Any] = {"DIVIDE": divide, "RANGE": loop, "FIND": find, "BLOCKS": blocks, "BLOCK": block, "BORDER": border}


ITEM = 4
"""Bytes of an element of a view: all of them are f32."""


@dataclass
class Oracle:
    """A kernel's text and the means to run it."""

    model: Model
    text: str
    run: Callable[..., None]
    shapes: Callable[..., dict[str, tuple[int, ...]] | None]
    code: str
    dims: tuple[str, ...]
    promised: Mapping[str, frozenset[str]]

    @staticmethod
    def of(model: Model) -> Oracle:
        emitter = Emitter(model)
        emitter.kernel()
        sizes = [*model.dims, *(s[0] for s in model.scalars)]
        names = [*sizes, *(f"T_{t[0]}" for t in (*model.tensors, *model.views) if t[1] in LIMITS)]
        code = f"def run(R, B, {', '.join(names)}):\n" + "\n".join(emitter.code) + "\n" + launch(model, sizes)
        scope: dict[str, Any] = dict(GLOBALS)
        exec(compile(code, "<oracle>", "exec"), scope)
        searched = {n[1] for n in nodes(model.body) if n[0] == "find"}
        promised = {
            t[0]: frozenset(p[0] for p in model.promises if p[1] == t[0]) | (frozenset({"sorted"}) if t[0] in searched else frozenset())
            for t in model.tensors
        }
        return Oracle(model, "\n".join(emitter.lines) + "\n", scope["run"], scope["shapes"], code, model.dims, promised)

    def allowed(self, values: Mapping[str, int]) -> bool:
        """Whether a launch accepts these dimensions and scalars."""
        return self.shapes(**values) is not None

    def candidates(self, tensor: Tree, values: Mapping[str, int]) -> list[int]:
        low, high = LIMITS[tensor[1]]
        pool = {-1, 0, 1, 2, *values.values(), *(v - 1 for v in values.values()), low, high, 100}
        if "distinct" in self.promised[tensor[0]]:
            pool |= set(range(max(values.values(), default=0)))
        for promise in self.model.promises:
            if promise[0] == "each" and promise[1] == tensor[0]:
                for _, e in promise[2]:
                    bound = evaluate(e, values)
                    pool |= {bound - 1, bound, bound + 1}
        pool = {v for v in pool if low <= v <= high}
        for promise in self.model.promises:
            if promise[0] == "each" and promise[1] == tensor[0]:
                for op, e in promise[2]:
                    pool = {v for v in pool if COMPARISON[op](v, evaluate(e, values))}
        return sorted(pool)

    def data(self, values: Mapping[str, int], r: random.Random) -> dict[str, dict[tuple[int, ...], int]] | None:
        """Contents of the integer tensors that keep the promises; None where there are none."""
        made: dict[str, dict[tuple[int, ...], int]] = {}
        shapes = self.shapes(**values)
        assert shapes is not None
        for tensor in self.model.tensors:
            if tensor[1] not in LIMITS:
                continue
            shape = shapes[tensor[0]]
            places = list(itertools.product(*(range(e) for e in shape)))
            pool = self.candidates(tensor, values)
            promises = self.promised[tensor[0]]
            if len(pool) < (len(places) if "distinct" in promises else min(1, len(places))):
                return None
            chosen = r.sample(pool, len(places)) if "distinct" in promises else [r.choice(pool) for _ in places]
            if "distinct" not in promises and r.random() < 0.5 and pool:
                few = r.sample(pool, min(2, len(pool)))
                chosen = [r.choice(few) for _ in places]
            made[tensor[0]] = dict(zip(places, sorted(chosen) if "sorted" in promises else chosen, strict=True))
        return made

    def execute(self, values: Mapping[str, int], data: Mapping[str, Mapping[tuple[int, ...], int]], length: int = 10**9) -> Run:
        """One run; tiles have ``length`` lanes."""
        run = Run()
        try:
            self.run(run, length, **values, **{f"T_{n}": d for n, d in data.items()})
        except Stop:
            run.stopped = True
            run.finish()
            return run
        run.finish()
        shapes = self.shapes(**values)
        assert shapes is not None
        run.found |= self.bytes(values, shapes)
        for n, (name, _, _, role) in enumerate(self.model.tensors):
            if role == "out" and name not in self.model.partial:
                shape = shapes[name]
                written = sum(1 for k in run.writes if k[0] == name)
                count = 1
                for e in shape:
                    count *= e
                if written < count:
                    run.found.add(("coverage", -n))
        return run

    def bytes(self, values: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> set[tuple[str, int]]:
        """What is wrong with the views at some sizes: bytes outside the base, elements out of line, elements that share a byte with a written one."""
        found: set[tuple[str, int]] = set()
        if not self.model.views:
            return found
        used = {n[2] for n in nodes(self.model.body) if n[0] == "store"}
        read = {n[1] for n in nodes(self.model.body) if n[0] == "load"}
        owners: dict[tuple[str, int], list[tuple[str, tuple[int, ...]]]] = {}
        for name, _, _, _, base, offset, strides in self.model.views:
            start, steps = evaluate(offset, values), [evaluate(e, values) for e in strides]
            if any(e % ITEM or e < 0 for e in (start, *steps)):
                found.add(("view", 0))
            size = 1
            for e in shapes[base]:
                size *= e
            for place in itertools.product(*(range(e) for e in shapes[name])):
                first = start + sum(i * e for i, e in zip(place, steps, strict=True))
                if not 0 <= first <= size - ITEM:
                    found.add(("view", 0))
                if name in used | read:
                    for byte in range(first, first + ITEM):
                        owners.setdefault((base, byte), []).append((name, place))
        if any(len(who) > 1 and any(n in used for n, _ in who) for who in owners.values()):
            found.add(("overlap", 0))
        return found

    def sizes(self, bound: int) -> Iterator[dict[str, int]]:
        scalars = [s[0] for s in self.model.scalars]
        for dims in itertools.product(range(bound + 1), repeat=len(self.dims)):
            for given in itertools.product((-1, 0, 1, 3), repeat=len(scalars)):
                values = dict(zip(self.dims, dims, strict=True)) | dict(zip(scalars, given, strict=True))
                if self.allowed(values):
                    yield values

    def search(self, seed: int, bound: int = 4, budget: int = 30_000, repeat: int = 4) -> dict[tuple[str, int], tuple[dict[str, int], Any]]:
        """Every (kind, line) that is violated for some sizes up to ``bound``, with an example. ``budget``: accesses in all."""
        r = random.Random(seed)
        found: dict[tuple[str, int], tuple[dict[str, int], Any]] = {}
        sizes = list(self.sizes(bound))
        r.shuffle(sizes)
        has_data = any(t[1] in LIMITS for t in self.model.tensors)
        tiled = "BLOCK" in self.code
        for values in sizes:
            for attempt in range(repeat if has_data else 1):
                data = self.data(values, r)
                if data is None:
                    break
                for length in (10**9, 1 + attempt % 2) if tiled else (10**9,):
                    run = self.execute(values, data, length)
                    budget -= run.count + 10
                    for key in run.found:
                        found.setdefault(key, (values, data))
            if budget < 0:
                break
        return found


COMPARISON: dict[str, Callable[[int, int], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}  # fmt: skip


def evaluate(e: Tree, values: Mapping[str, int]) -> int:
    """An expression over dimensions and scalars."""
    match e:
        case ("c", value):
            return int(value)
        case ("d" | "s", name):
            return values[name]
        case ("min", a, b):
            return min(evaluate(a, values), evaluate(b, values))
        case ("max", a, b):
            return max(evaluate(a, values), evaluate(b, values))
        case ("&", a, b):
            return int(evaluate(a, values) and evaluate(b, values))
        case (op, a, b):
            x, y = evaluate(a, values), evaluate(b, values)
            if op in COMPARISON:
                return int(COMPARISON[op](x, y))
            return {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "//": lambda: x // y, "%": lambda: x % y}[op]()
    raise AssertionError(e)
