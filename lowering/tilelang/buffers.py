"""The variables of a TileLang program: fragments, shared memory and registers, and the loops over their lanes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nsalang import ir
from nsalang.base.dtypes import DType
from nsalang.ir.machine import machine_axes, machine_shape
from nsalang.lowering.text import Text
from nsalang.lowering.tilelang.elements import element, variable
from nsalang.lowering.tilelang.expressions import operand
from nsalang.lowering.tilelang.state import Printer
from nsalang.passes.tilelang.products import shape as shape_of


def named(p: Printer) -> dict[str, str]:
    """Which name the place of a variable has that another sum continues: the last one's."""
    found: dict[str, str] = {}
    for after, before in reversed(p.continued.items()):
        found[before] = found.get(after, after)
    return found


def scalar(p: Printer, s: ir.Assign, value: Text, opaque: bool = False) -> None:
    """A variable of one value: an expression's name, or a register where it is assigned again or ``opaque``."""
    if s.name not in p.twice and str(value) in p.arguments.used:
        # TileLang would take it for a new name of the argument.
        p.scalars[s.name] = str(value)
        return
    if s.name not in p.scalars:
        p.scalars[s.name] = p.names.pick(ir.plain(s.name))
        if s.name in p.twice or opaque:
            p.places.line(f'{p.scalars[s.name]} = T.alloc_var("{s.value.dtype.tilelang}")')
    p.out.line(f"{p.scalars[s.name]} = {value}", s.span)


def buffer(p: Printer, s: ir.Assign, versions: int = 1) -> str:
    """The place of a variable with axes; its first assignment makes it."""
    if s.name in p.buffers:
        return p.buffers[s.name]
    name, value = ir.plain(named(p).get(s.name, s.name)), s.value
    shape = machine_shape(p.kernel, value.axes)
    if s.place == "shared":
        if s.name in p.matrices:
            p.lying[s.name] = p.matrices[s.name]
            shape = shape_of(p.kernel, p.matrices[s.name])
        # All of the dynamic part is one buffer to TileLang, which would put a barrier between an address in it and the copy of a block into it.
        part = ', scope="shared"' if s.name in p.addresses else ""
        p.buffers[s.name] = place(p, name, (versions, *shape) if versions > 1 else shape, value.dtype, "shared", part)
    elif s.name in p.continued:
        first = p.continued[s.name]
        p.buffers[s.name], p.results[s.name] = p.buffers[first], p.results[first]
    elif s.name in p.matrices:
        matrix = shape_of(p.kernel, p.matrices[s.name])
        p.results[s.name] = place(p, name if matrix == shape else f"{name}_matrix", matrix, value.dtype)
        p.buffers[s.name] = p.results[s.name] if matrix == shape else p.names.pick(name)
        if matrix != shape:
            p.places.line(f"{p.buffers[s.name]} = T.reshape({p.results[s.name]}, {tuple_of(shape)})")
    else:
        p.buffers[s.name] = place(p, name, shape, value.dtype)
    return p.buffers[s.name]


def place(p: Printer, name: str, shape: tuple[int, ...], dtype: DType, where: str = "fragment", part: str = "") -> str:
    picked = p.names.pick(name)
    p.places.line(f'{picked} = T.alloc_{where}({tuple_of(shape)}, "{dtype.tilelang}"{part})')
    return picked


@contextmanager
def parallel(p: Printer, axes: Sequence[str], s: ir.Assign | ir.Store, asynchronous: bool = False) -> Iterator[None]:
    """A loop over the lanes of ``axes``, one after the other in any order."""
    machine = machine_axes(p.kernel, axes)
    lanes = p.lanes[: len(machine)]
    before, p.lane = p.lane, dict(zip(machine, lanes, strict=True))
    shape = machine_shape(p.kernel, axes)
    options = ', annotations={"parallel_async_without_async_commit_wait": True}' if asynchronous else ""
    if len(machine) == 1 and machine[0] in s.alone:
        # TileLang does not look for the width of a vector where the innermost extent is 1.
        lanes, shape = (*lanes, "_"), (*shape, 1)
    elif s.widest:
        options += f", coalesced_width=T.int32({s.widest})"
    with p.out.block(f"for {', '.join(lanes)} in T.Parallel({', '.join(map(str, shape))}{options}):", s.span):
        yield
    p.lane = before


@contextmanager
def stored(p: Printer, s: ir.Store) -> Iterator[None]:
    """Around what a store does for each of its lanes. An addition without any: outside a parallel loop every thread would add."""
    if s.axes:
        with parallel(p, s.axes, s):
            yield
    elif s.mode == "add":
        with p.out.block(f"for {p.lanes[0]} in T.Parallel(1):", s.span):
            yield
    else:
        yield


def operand_buffer(p: Printer, x: ir.Expr, name: str, s: ir.Assign) -> str:
    """A buffer that holds ``x``: the variable's own, or a new one."""
    if isinstance(x, ir.Var) and x.name in p.buffers and x.name not in {*p.lying, *p.versions}:
        return p.buffers[x.name]
    terms = place(p, name, machine_shape(p.kernel, x.axes), x.dtype)
    with parallel(p, x.axes, s):
        p.out.line(f"{element(p, terms, x.axes)} = {operand(p, x)}", s.span)
    return terms


def start(p: Printer, s: ir.Assign, x: ir.Dot, acc: ir.Expr) -> None:
    """What a product is added to, in the place of the result."""
    if isinstance(acc, ir.Var) and acc.name == s.name:
        return
    with parallel(p, x.axes, s):
        p.out.line(f"{variable(p, s.name, x.axes)} = {operand(p, acc)}", s.span)


def through_shared(p: Printer, source: str, x: ir.Reduce, axes: Sequence[str], s: ir.Assign) -> str:
    made = place(p, f"{source}_shared", machine_shape(p.kernel, axes), x.dtype, "shared")
    with parallel(p, axes, s):
        p.out.line(f"{element(p, made, axes)} = {element(p, source, axes)}", s.span)
    return made


def tuple_of(items: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"
