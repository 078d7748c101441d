"""What the code of a variant relies on and what its accesses cost, in words: for the head of generated code and for reports."""

from __future__ import annotations

from nsalang import ir


def machine_facts(kernel: ir.Kernel) -> tuple[str, ...]:
    """Facts about a launch that chose this variant, a phrase each: the width of offsets, alignment, and what it hoists. ``kernel`` has its schedule."""
    schedule = kernel.schedule
    width = "Offsets take 64 bits" if schedule.wide else "Dimensions and offsets fit 32 bits"
    if schedule.aligned and schedule.vectors:
        layout = f"addresses, strides and rows of {listed(schedule.vectors)} divide by 16 bytes, last strides are 1"
    else:
        layout = "any strides and alignment"
    if schedule.aligned and schedule.rows:
        layout += f"{', and also those' if schedule.vectors else '; last strides are 1, those'} of {listed(schedule.rows)}"
    if not schedule.exact:
        return width, layout
    return width, layout, f"A launch has checked that {listed([h.text for h in kernel.hoists])}"


def accesses(kernel: ir.Kernel) -> list[ir.Load | ir.Store]:
    """Every access of a kernel. What addresses of early loads are made of may stand in several of them, and in the body too: it counts once."""
    nodes = [n for s in kernel.body for n in ir.walk(s)]
    early = {id(n) for loop in nodes if isinstance(loop, ir.For) for s in loop.early for n in ir.walk(s)}
    found = [n for n in nodes if isinstance(n, ir.Load | ir.Store) and id(n) not in early]
    known = {(n.tensor, n.span) for n in found}
    for n in nodes:
        if isinstance(n, ir.Load) and id(n) in early and (n.tensor, n.span) not in known:
            known.add((n.tensor, n.span))
            found.append(n)
    return found


def proofs(kernel: ir.Kernel) -> str:
    """Why the accesses of a kernel on which `guard` has run are inside their tensors, in one line; empty where it has none."""
    found = [n.proof for n in accesses(kernel) if n.proof is not None]
    counts = {verdict: sum(p.verdict == verdict for p in found) for verdict in ("PROVED", "HOISTED", "GUARDED", "UNKNOWN")}
    words = {
        "PROVED": "proved",
        "HOISTED": f"hoisted ({listed([h.text for h in kernel.hoists])})",
        "GUARDED": "guarded by a tail",
        "UNKNOWN": "unknown and guarded by bounds",
    }
    parts = [f"{n} {words[verdict]}" for verdict, n in counts.items() if n]
    return f"{len(found)} access{'es' * (len(found) != 1)}: {', '.join(parts)}" if found else ""


def listed(names: tuple[str, ...] | list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
