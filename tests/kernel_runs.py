"""Kernels as trees of tuples (``kernel_trees``): the same as plain Python loops over every index value, in which a ``Run`` finds what is wrong.
Nothing here uses nsalang."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kernel_trees import LIMITS, Model, Tree, bare, said, text_of


class Stop(Exception):
    """The run has no meaning from here on."""


@dataclass
class Run:
    """What one execution finds: pairs of a kind and a line. ``stopped``: after a violation that leaves it without meaning, or a loop too long."""

    found: set[tuple[str, int]] = field(default_factory=set)
    reads: dict[Any, set[Any]] = field(default_factory=dict)
    writes: dict[Any, dict[Any, int]] = field(default_factory=dict)
    lanes: dict[Any, Any] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    stopped: bool = False

    def place(self, line: int, extents: Sequence[int], indices: Sequence[int]) -> bool:
        self.count += 1
        for i, e in zip(indices, extents, strict=True):
            if not 0 <= i < e:
                self.found.add(("range", line))
                return False
        return True

    def read(self, line: int, tensor: str, extents: Sequence[int], indices: Sequence[int], instance: Any) -> float:
        if self.place(line, extents, indices):
            self.reads.setdefault((tensor, *indices), set()).add(instance)
        return 0.0

    def integer(self, line: int, data: Mapping[Any, int], extents: Sequence[int], indices: tuple[int, ...]) -> int:
        if not self.place(line, extents, indices):
            raise Stop
        return data[indices]

    def divide(self, line: int, a: int, b: int, mod: bool) -> int:
        if b == 0:
            self.found.add(("divisor", line))
            raise Stop
        return self.whole(line, a % b if mod else a // b)

    def parts(self, line: int, n: int) -> int:
        """In how many parts a range is split."""
        self.divide(line, 0, n, False)
        return n

    def shift(self, line: int, a: int, b: int, left: bool) -> int:
        if not 0 <= b < 64:
            self.found.add(("shift", line))
            raise Stop
        return self.whole(line, a << b if left else a >> b)

    def fit(self, line: int, a: int, low: int, high: int) -> int:
        if not low <= a <= high:
            self.found.add(("fits", line))
            raise Stop
        return a

    def whole(self, line: int, a: int) -> int:
        if not -(2**63) <= a < 2**63:
            self.found.add(("overflow", line))
            raise Stop
        return a

    def write(self, line: int, mode: str, tensor: str, extents: Sequence[int], indices: Sequence[int], instance: Any, lanes: Any, execution: Any) -> None:  # fmt: skip
        if not self.place(line, extents, indices):
            return
        key = (tensor, *indices)
        writers = self.writes.setdefault(key, {})
        if mode == "set":
            for other, at in writers.items():
                if other != instance:
                    self.found |= {("race", line), ("race", at)}
            before = self.lanes.setdefault((line, key, instance, execution), lanes)
            if before != lanes:
                self.found.add(("twice", line))
        writers.setdefault(instance, line)

    def finish(self) -> None:
        for key, readers in self.reads.items():
            for instance, line in self.writes.get(key, {}).items():
                if any(r != instance for r in readers):
                    self.found.add(("order", line))


@dataclass
class Emitter:
    """Text and Python side by side."""

    model: Model
    lines: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    macros: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    carried: set[str] = field(default_factory=set)
    blocks: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    guards: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    depth: int = 1

    @property
    def line(self) -> int:
        return len(self.lines)

    def tensor(self, name: str) -> Tree:
        return next(t for t in (*self.model.tensors, *self.model.views) if t[0] == name)

    def axes(self, e: object) -> tuple[str, ...]:
        """The spans and tile loops whose lanes an expression needs."""
        found: dict[str, None] = {}

        def look(e: object, bound: frozenset[str]) -> None:
            if not isinstance(e, tuple):
                return
            if e and e[0] == "i" and e[1] in self.blocks and e[1] not in bound:
                found[e[1]] = None
            elif e and e[0] == "v" and e[1] in self.macros:
                found.update((a, None) for a in self.macros[e[1]][1] if a not in bound)
            elif e and e[0] in ("sum", "any", "fsum", "isum", "dot"):
                for part in e[1:-1]:
                    look(part, bound | {e[-1]})
            elif e and e[0] in ("rank", "scan"):
                found.update({e[2]: None} if e[2] not in bound else {})
                look(e[1], bound)
            else:
                for part in e:
                    look(part, bound)

        look(e, frozenset())
        return tuple(a for a in self.blocks if a in found)

    def python(self, e: Tree) -> str:
        p, line = self.python, self.line
        match e:
            case ("c", value):
                return f"({value})"
            case ("d" | "s" | "i", name):
                return str(name)
            case ("v", name):
                return str(name) if name in self.carried else f"({self.macros[name][0]})"
            case ("f", _):
                return "0.0"
            case ("f32", a):
                return f"float({p(a)})"
            case ("load", tensor, indices):
                at = f"({''.join(p(i) + ', ' for i in indices)})"
                _, dtype, _, role = self.tensor(tensor)[:4]
                if dtype in LIMITS:
                    return f"R.integer({line}, T_{tensor}, X_{tensor}, {at})"
                if role == "in":
                    return f"R.place({line}, X_{tensor}, {at}) * 0.0"
                return f"R.read({line}, '{tensor}', X_{tensor}, {at}, instance)"
            case ("where", c, a, b):
                return f"({p(a)} if {p(c)} else {p(b)})"
            case ("min" | "max" as op, a, b):
                return f"{op}({p(a)}, {p(b)})"
            case ("cast", dtype, a):
                low, high = LIMITS[dtype]
                return f"R.fit({line}, {p(a)}, {low}, {high})"
            case ("wrap", dtype, a):
                low, high = LIMITS[dtype]
                return f"(({p(a)} - ({low})) % {high - low + 1} + ({low}))"
            case ("abs", a):
                return f"R.whole({line}, abs({p(a)}))"
            case ("neg", a):
                return f"R.whole({line}, -{p(a)})"
            case ("clamp", a, low, high):
                return f"min(max({p(a)}, {p(low)}), {p(high)})"
            case ("cdiv", a, b):
                return f"(-R.divide({line}, -{p(a)}, {p(b)}, False))"
            case ("isum", a, axis):
                return f"R.whole({line}, sum({p(a)} for {axis} in K_{axis}))"
            case ("dot", a, b, axis):
                return f"R.whole({line}, sum({p(a)} * {p(b)} for {axis} in K_{axis}))"
            case ("scan", a, axis, exclusive, reverse):
                first = f"{axis} + {int(exclusive)}" if reverse else f"K_{axis}.start"
                last = f"K_{axis}.stop" if reverse else f"{axis} + {int(not exclusive)}"
                total = f"R.whole({line}, sum((lambda {axis}: {p(a)})(_v) for _v in range({first}, {last})))"
                return f"({p(a)}, {total})[1]" if exclusive else total  # the lane itself is computed, though nothing takes it
            case ("find", tensor, x):
                return f"FIND(T_{tensor}, {p(x)})"
            case ("sum", mask, axis):
                return f"sum(1 for {axis} in K_{axis} if {p(mask)})"
            case ("fsum", value, axis):
                return f"sum({p(value)} for {axis} in K_{axis})"
            case ("rank", mask, axis):
                return f"sum((lambda {axis}: {p(mask)})(_v) for _v in range(K_{axis}.start, {axis}))"
            case ("any", mask, axis):
                block = f"K_{axis}" if axis in self.blocks else f"BLOCK({axis}, E_{axis}, B)"
                return f"any((lambda {axis}: {p(mask)})(_v) for _v in {block})"
            case ("~", a):
                return f"(not {p(a)})"
            case ("//" | "%" as op, a, b):
                return f"R.divide({line}, {p(a)}, {p(b)}, {op == '%'})"
            case (">>" | "<<" as op, a, b):
                return f"R.shift({line}, {p(a)}, {p(b)}, {op == '<<'})"
            case ("+" | "-" | "*" as op, a, b):
                return f"R.whole({line}, {p(a)} {op} {p(b)})"
            case ("fadd", a, b):
                return f"({p(a)} + {p(b)})"
            case (op, a, b):
                return f"({p(a)} {op} {p(b)})"
        raise AssertionError(e)

    def say(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def do(self, text: str) -> None:
        self.code.append("    " * self.depth + text)

    def lanes(self, axes: tuple[str, ...], act: str) -> None:
        """A Python statement for every lane of some axes, under the guards in force."""
        extra = [a for _, needed in self.guards for a in needed]
        depth = self.depth
        for axis in (a for a in self.blocks if a in axes or a in extra):
            self.do(f"for {axis} in K_{axis}:")
            self.depth += 1
        if self.guards:
            self.do(f"if {' and '.join(g for g, _ in self.guards)}:")
            self.depth += 1
        self.do(act)
        self.depth = depth

    def statements(self, body: Tree, depth: int) -> None:
        if not body:
            self.say(depth, "pass")
            self.do("pass")
        for s in body:
            self.statement(s, depth)

    def statement(self, s: Tree, depth: int) -> None:
        match s:
            case ("let", name, e):
                self.say(depth, f"{name} = {bare(e)}")
                made = (self.python(e), self.axes(e))
                self.macros[name] = made
                self.lanes(made[1], made[0])
            case ("set", name, e):
                self.say(depth, f"{name} = {bare(e)}")
                code = self.python(e)
                self.carried.add(name)
                self.lanes(self.axes(e), f"{name} = {code}")
            case ("start", name, axes):
                self.say(depth, f"{name} = " + (f"zeros({', '.join(axes)}, dtype=i64)" if axes else "0"))
                self.carried.add(name)
                self.do(f"{name} = 0")
            case ("fstart", name, axes):
                self.say(depth, f"{name} = " + (f"zeros({', '.join(axes)})" if axes else "0.0"))
                self.carried.add(name)
                self.do(f"{name} = 0.0")
            case ("store", mode, tensor, indices, value):
                place = text_of(("load", tensor, indices))
                self.say(depth, f"{place} = {bare(value)}" if mode == "set" else f"{mode}({place}, {bare(value)})")
                axes = self.axes((indices, value) if mode != "set" else indices)
                own = f"({''.join(a + ', ' for a in axes)})"
                execution = f"({''.join(a + ', ' for a in self.loops)})"
                dtype = self.tensor(tensor)[1]
                done = self.python(value)
                if dtype in ("i8", "i32"):
                    done = f"R.fit({self.line}, {done}, {LIMITS[dtype][0]}, {LIMITS[dtype][1]})"
                at = f"({''.join(self.python(i) + ', ' for i in indices)})"
                write = f"R.write({self.line}, '{mode}', '{tensor}', X_{tensor}, {at}, instance, {own}, {execution})"
                self.lanes(self.axes((indices, value)), f"{done}; {write}")
            case ("if", c, body, orelse):
                self.say(depth, f"if {bare(c)}:")
                condition, axes = self.python(c), self.axes(c)
                if axes or self.guards:
                    for part, code in ((body, condition), (orelse, f"(not {condition})")):
                        if part:
                            if code is not condition:
                                self.say(depth, "else:")
                            self.guards.append((code, axes))
                            self.statements(part, depth + 1)
                            self.guards.pop()
                    return
                self.do(f"if {condition}:")
                self.depth += 1
                self.statements(body, depth + 1)
                self.depth -= 1
                if orelse:
                    self.say(depth, "else:")
                    self.do("else:")
                    self.depth += 1
                    self.statements(orelse, depth + 1)
                    self.depth -= 1
            case ("for", kind, index, lo, hi, body):
                self.say(depth, f"for {index} in {kind}({bare(hi) if lo == ('c', 0) else f'{bare(lo)}, {bare(hi)}'}):")
                low, high = self.python(lo), self.python(hi)
                loop = index if kind == "range" else f"K_{index}"
                self.do(f"for {loop} in " + (f"RANGE({low}, {high}):" if kind == "range" else f"BLOCKS({low}, {high}, B):"))
                self.loops.append(loop)
                self.depth += 1
                if kind == "tile":
                    self.blocks.append(index)
                self.statements(body, depth + 1)
                if kind == "tile":
                    self.blocks.remove(index)
                self.loops.pop()
                self.depth -= 1
            case ("span", *_):
                self.span(s, depth)
            case ("split", low, high, n, parts, g):
                self.say(depth, f"{low}, {high} = split({bare(n)}, {bare(parts)}, {bare(g)})")
                divisor = f"R.parts({len(self.lines)}, {self.python(parts)})"
                for name, add in ((low, "0"), (high, "1")):
                    self.macros[name] = (f"BORDER({self.python(n)}, {divisor}, {self.python(g)} + {add})", self.axes(g))
            case _:
                raise AssertionError(s)

    def span(self, s: Tree, depth: int) -> None:
        _, index, start, length, stop = s
        given = [length] if start == ("c", 0) and stop is None else [start, length] if stop is None else [start, length, stop]
        self.say(depth, f"{index} = span({', '.join(bare(e) for e in given)})")
        low, end = self.python(start), f"{self.python(start)} + {self.python(length)}"
        if stop is not None:
            end = f"min({end}, {self.python(stop)})"
        self.do(f"K_{index} = range({low}, {end})")
        self.blocks.append(index)

    def kernel(self) -> None:
        m = self.model
        parameters = []
        for name, dtype, extents, role in m.tensors:
            inner = f"{dtype}[{', '.join(bare(e) for e in extents)}]"
            parameters.append(f"{name}: " + {"in": inner, "out": f"Out[{inner}]", "inout": f"InOut[{inner}]"}[role])
        parameters += [f"{name}: {dtype}" for name, dtype in m.scalars]
        self.say(0, f"def k({', '.join(parameters)}):")
        for name in m.partial:
            self.say(1, f"partial({name})")
        for condition in m.requires:
            self.say(1, f"require({bare(condition)})")
        for promise in m.promises:
            self.say(1, f"promise({said(promise)})")
        for name, dtype, extents, _, base, offset, strides in m.views:
            inner = f"{dtype}[{', '.join(bare(e) for e in extents)}]"
            self.say(1, f"{name} = view({base}, {inner}, offset={bare(offset)}, strides=({''.join(bare(e) + ', ' for e in strides)}))")
        for name, _, extents, *_ in (*m.tensors, *m.views):
            self.do(f"X_{name} = ({''.join(self.python(e) + ', ' for e in extents)})")
        for s in m.spans:
            self.span(s, 1)
        shape = [f"tile({bare(extent)})" if tiled else bare(extent) for _, extent, tiled in m.grid]
        self.say(1, f"for {', '.join(g[0] for g in m.grid)} in grid({', '.join(shape)}):")
        for name, extent, _ in m.grid:
            self.do(f"E_{name} = {self.python(extent)}")
            self.do(f"for {name} in range(E_{name}):")
            self.depth += 1
        self.do(f"instance = ({''.join(g[0] + ', ' for g in m.grid)})")
        self.statements(m.body, 2)
