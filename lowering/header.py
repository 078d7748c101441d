"""The head of a generated module: the variant in words, and which memory has several names."""

from __future__ import annotations

from nsalang import ir
from nsalang.base.target import Target
from nsalang.ir.summary import machine_facts, proofs
from nsalang.lowering.text import Emitter


def facts(kernel: ir.Kernel, target: Target, backend: str) -> list[str]:
    """The variant in words, for the head of the module: constants, facts about the launch, proofs, reasons of the schedule."""
    schedule = kernel.schedule
    out = [f"{kernel.name} for {target}, in {backend}."]
    if kernel.constants:
        out.append(", ".join(f"{name} = {text}" for name, text in kernel.constants) + ".")
    size, layout, *hoists = machine_facts(kernel)
    out.append(f"{size}; {layout}.")
    out += [f"{fact}." for fact in hoists]
    out += [f"{summary}." for summary in (proofs(kernel),) if summary]
    out.append(f"{schedule.warps} warps.")
    return [*out, *schedule.why]


def docstring(out: Emitter, kernel: ir.Kernel, target: Target, backend: str, instance: str) -> None:
    """The docstring of the module. ``instance``: what the backend calls one of those that a launch has."""
    title, *rest = facts(kernel, target, backend)
    made = [
        f"{kernel.schedule.length(i.name)} {ir.plain(i.name)}"
        if i.tiled and kernel.schedule.length(i.name) > 1
        else f"one {ir.plain(i.name)}"
        for i in kernel.grid
    ]
    out.line(f'"""{title}')
    out.line()
    for line in (f"A {instance} makes {' x '.join(made) or 'everything'}; {instance}s run through the last index fastest.", *rest):
        out.out.append(line.replace("\\", "/").replace('"""', "'''"))
    out.line('"""')


def shared_memory(kernel: ir.Kernel) -> tuple[str, ...]:
    """The tensors and views that are accessed beside another name of the same memory, one of them to write."""
    accesses = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Load | ir.Store)]
    written = {kernel.memory(n.tensor) for n in accesses if isinstance(n, ir.Store)}
    names = [n for n in dict.fromkeys(n.tensor for n in accesses) if kernel.memory(n) in written]
    return tuple(n for n in names if any(kernel.memory(other) == kernel.memory(n) for other in names if other != n))
