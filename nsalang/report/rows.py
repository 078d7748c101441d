"""How a report is made: the verdicts of the prover on the meaning of a variant, then the masks of its code for one target and backend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol, assert_never

from nsalang import ir
from nsalang.base.dtypes import ALL
from nsalang.base.source import Span
from nsalang.ir.intervals import conjuncts
from nsalang.ir.printer import show
from nsalang.proof.obligations import Obligation
from nsalang.report.proofs import VERDICTS, Assumption, Query, Report, Row, Totals, Verdict

if TYPE_CHECKING:
    from nsalang.build.pipeline import Choice, Meaning, Unit
    from nsalang.proof.prover import Result
    from nsalang.types.programs import Program


class KernelOf(Protocol):
    """What a report needs of what launches a kernel."""

    @property
    def unit(self) -> Unit: ...


class CallsOf(Protocol):
    """What a report needs of what launches a program: its calls, and the kernels that they are of, each under its variant."""

    @property
    def unit(self) -> Unit: ...

    def typed(self, meaning: Meaning) -> Program: ...

    def variants(self, meaning: Meaning) -> Sequence[tuple[KernelOf, Meaning]]: ...

    def pins(self, kernel: str, pinned: tuple[ir.Pin, ...]) -> tuple[ir.Pin, ...]: ...


LONGEST = 60
"""Characters of an access or a condition in a row."""


def report_on(unit: Unit, meaning: Meaning, choice: Choice, allow_unknown: bool = False) -> Report:
    """The verdicts on one variant. Raises NsaError for a kernel that is wrong in another way than by what it accesses."""
    from nsalang.build.pipeline import prepare, typed
    from nsalang.passes import simplify
    from nsalang.passes.prove import judge

    start = typed(unit, meaning)
    kernel = simplify.run(start, meaning.target)
    judged = judge(kernel)
    results = tuple(j.result for j in judged)
    rows = [row_of(r, kernel) for r in results if told(r, kernel)]
    assumptions = assumed(kernel)
    machine: tuple[str, ...] = ()
    masks: list[tuple[list[Row], int, int]] = []
    if not any(r.verdict == "REFUTED" for r in results):
        stages: dict[str, ir.Kernel] = {}
        prepare(start, meaning.target, replace(choice, exact=True, allow_unknown=True), stages.__setitem__)
        guarded, done = stages["guard"], next(reversed(stages.values()))
        masks = [mask_rows(a, guarded) for a in accesses(guarded)]
        assumptions += launch_checks(done)
        machine = choices(done)
    merged = merge([*rows, *(row for made, _, _ in masks for row in made)])
    totals = Totals(
        tuple((v, sum(r.verdict == v for r in merged)) for v in VERDICTS),
        len(masks),
        sum(could for _, could, _ in masks),
        sum(could - left for _, could, left in masks),
        sum(r.units for r in results),
        sum(r.seconds for r in results),
    )
    diagnostics = tuple(j.diagnostic for j in judged if j.diagnostic is not None and not (allow_unknown and j.result.verdict == "UNKNOWN"))
    return Report(
        unit.name, kernel.constants, str(meaning.target), choice.backend, merged, tuple(assumptions), machine, totals, diagnostics,
        allow_unknown, lambda: queries(kernel, results),
    )  # fmt: skip


def report_on_calls(launcher: CallsOf, meaning: Meaning, choice: Choice, allow_unknown: bool = False) -> Report:
    """One report of a program: those of its kernels in the order of the calls, each under the variant that the program fixes; the same variant
    once. Raises NsaError for what is wrong in the program itself."""
    program = launcher.typed(meaning)
    found: dict[tuple[str, Meaning], Report] = {}
    for kernel, variant in launcher.variants(meaning):
        name = kernel.unit.name
        if (name, variant) not in found:
            pinned = launcher.pins(name, choice.pinned)
            found[name, variant] = report_on(kernel.unit, variant, replace(choice, pinned=pinned), allow_unknown)
    calls = tuple(found.values())
    assumptions = [*assumed(program.header), *(replace(a, text=f"{c.kernel}: {a.text}") for c in calls for a in c.assumptions)]
    return Report(
        launcher.unit.name,
        program.header.constants,
        str(meaning.target),
        choice.backend,
        tuple(row for c in calls for row in c.rows),
        tuple(dict.fromkeys(assumptions)),
        tuple(f"{c.kernel}: {text}" for c in calls for text in c.machine),
        Totals.sum(c.totals for c in calls),
        tuple(dict.fromkeys(d for c in calls for d in c.diagnostics)),
        allow_unknown,
        lambda: tuple(q for c in calls for q in c.queries()),
        calls,
    )


# ------------------------------------------------------------------------------------------------------------------ the meaning


def row_of(result: Result, kernel: ir.Kernel) -> Row:
    """The row of an obligation."""
    o = result.obligation
    return Row(
        line_of(o.span), access_text(o), in_words(o, kernel), o.kind, result.verdict, result.why, result.units, result.seconds, o.span
    )  # fmt: skip


def told(result: Result, kernel: ir.Kernel) -> bool:
    """Not that 16 is not 0, nor that no requirements can hold together."""
    if result.verdict != "PROVED":
        return True
    if result.obligation.kind == "hypotheses" and result.obligation.what == "require":
        return bool(kernel.requires)
    return result.why != "constant" or result.obligation.kind not in ("divisor", "shift")


def line_of(span: Span | None) -> int:
    return 0 if span is None else span.line + span.source.first_line - 1


def access_text(o: Obligation) -> str:
    """What an obligation is about, as written: of a store its place alone."""
    match o.kind:
        case "coverage":
            return o.tensor
        case "race" | "twice" | "order" | "range":
            first = place(o.what, o.tensor)
            joint = re.search(r" and (?:atomic_add\(|scatter\()?([A-Za-z_]\w*)\[", o.what) if o.kind in ("race", "order") else None
            second = "" if joint is None else place(o.what[joint.start() :], joint[1])
            return first if second in ("", first) else f"{first} and {second}"
        case _:
            return short(o.what)


def place(text: str, tensor: str) -> str:
    """``y[m, f(n)]`` out of a statement that writes it."""
    found = re.search(rf"\b{re.escape(tensor)}\[", text)
    if found is None:
        return short(text)
    depth = 0
    for i, c in enumerate(text[found.start() :], found.start()):
        depth += (c in "([") - (c in ")]")
        if c == "]" and depth == 0:
            return short(text[found.start() : i + 1])
    return short(text[found.start() :])


def short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def indices_of(written: str) -> list[str]:
    """The indices of ``y[m, f(n)]``, as written."""
    inside = written[written.find("[") + 1 : written.rfind("]")]
    found, depth, start = [], 0, 0
    for i, c in enumerate(inside):
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            found.append(inside[start:i].strip())
            start = i + 1
    return [*found, inside[start:].strip()]


def in_words(o: Obligation, kernel: ir.Kernel) -> str:
    """What must hold."""
    match o.kind:
        case "range":
            shape = kernel.tensor(o.tensor).shape
            written = indices_of(place(o.what, o.tensor))
            index = written[o.position] if len(written) == len(shape) else f"index {o.position}"
            return f"0 <= {index} < {condition_text(shape[o.position])}"
        case "divisor":
            return said(o.goal, "the divisor is not 0")
        case "shift" | "fits":
            return between(o)
        case "overflow":
            return "stays within 64 bits"
        case "race":
            return "no two instances write one element"
        case "twice":
            return "writes no element twice at once"
        case "order":
            return "no instance reads what another writes"
        case "coverage":
            return "every element is written"
        case "hypotheses":
            return "can hold together"
        case "view":
            view = kernel.tensor(o.tensor)
            assert isinstance(view, ir.View)
            return f"lies inside {view.base}" if o.position else "is aligned, and no stride is negative"
        case "overlap":
            return "share no memory" if " and " in o.what else "no two elements share memory"
        case _:
            assert_never(o.kind)


def between(o: Obligation) -> str:
    """``0 <= s < 32`` for a shift, ``fits i32`` for an integer that is stored."""
    first, last = conjuncts(o.goal)[0], conjuncts(o.goal)[-1]
    if not (isinstance(last, ir.Binary) and isinstance(first, ir.Binary) and isinstance(last.b, ir.Const)):
        return "is within its dtype"
    if o.kind == "fits":
        known = [d for d in ("i8", "i16", "i32") if ALL[d].max == last.b.value]
        return f"fits {known[0]}" if known else "fits its dtype"
    amount = condition_text(last.a)
    return f"0 <= {amount} < {last.b.value}" if len(amount) <= LONGEST and "#" not in amount else f"the shift is below {last.b.value}"


def said(goal: ir.Expr, otherwise: str) -> str:
    """A condition where it is short and speaks of names that the author knows, else words."""
    text = condition_text(goal)
    return otherwise if len(text) > LONGEST or "#" in text or "@" in text else text


def condition_text(node: ir.Expr) -> str:
    """An expression as the author would write it: the second axis ``n`` is ``n``, not ``n.2``, and ``d[n]`` is an integer as it is."""
    text = re.sub(r"\b([A-Za-z_]\w*)\.\d+\b", r"\1", show(node))
    return re.sub(r"\bi64\((\w+\[[^\[\]()]*\])\)", r"\1", text)


def merge(rows: Iterable[Row]) -> tuple[Row, ...]:
    """In the order of the text, those of one access together; what is said twice of one place, once."""
    found: dict[tuple[object, ...], Row] = {}
    for row in rows:
        column = 0 if row.span is None else row.span.column
        key = (row.line, column, row.access, row.obligation, row.verdict, row.why)
        old = found.get(key)
        found[key] = row if old is None else replace(old, units=old.units + row.units, seconds=old.seconds + row.seconds)
    return tuple(row for _, row in sorted(found.items(), key=lambda item: (item[0][0], item[0][1], " and " in item[1].access)))


def assumed(kernel: ir.Kernel) -> list[Assumption]:
    """What the author wrote, and what that implies."""
    found = [Assumption("require", r.text, r.implied) for r in kernel.requires]
    return found + [Assumption("promise", p.text, p.implied) for p in kernel.promises]


def queries(kernel: ir.Kernel, results: Sequence[Result]) -> tuple[Query, ...]:
    """Each obligation as a question to an SMT solver, whether or not it took one: constants, facts word for word and arithmetic can be checked too."""
    from nsalang.proof import smt
    from nsalang.proof.lemmas import bare, element_types
    from nsalang.proof.prover import completed

    found = []
    for result in results:
        row, o = row_of(result, kernel), result.obligation
        text = smt.text(completed(kernel, o.facts, o.goal), bare(o.goal), element_types(kernel))
        follows = (result.verdict == "PROVED") != (o.kind == "hypotheses")
        expect: Literal["unsat", "sat", "unknown"] = "unknown" if result.verdict == "UNKNOWN" else "unsat" if follows else "sat"
        found.append(Query(row.kind, f"line {row.line}, {row.access}: {row.obligation}: {row.verdict} by {row.why}", text, expect))
    return tuple(found)


# -------------------------------------------------------------------------------------------------------------------- the code


def accesses(kernel: ir.Kernel) -> list[ir.Load | ir.Store]:
    """Every access of the text, once: of copies that a pass made of it, the one with the longest mask."""
    found: dict[tuple[object, ...], ir.Load | ir.Store] = {}
    for statement in kernel.body:
        for node in ir.walk(statement):
            if isinstance(node, ir.Load | ir.Store):
                key = (type(node), node.tensor, node.span if node.span is not None else node.indices)
                old = found.get(key)
                if old is None or len(conjuncts(node.mask)) > len(conjuncts(old.mask)):
                    found[key] = node
    return list(found.values())


def mask_rows(node: ir.Load | ir.Store, kernel: ir.Kernel) -> tuple[list[Row], int, int]:
    """What an access's mask is made of, and what a launch check saves of it; how many comparisons a compiler without a prover would make, and how
    many of them this one makes."""
    assert node.proof is not None, f"{node.tensor} at {node.span} has no verdict"
    own = conjuncts(node.guard)
    added = [c for c in conjuncts(node.mask) if c not in own]
    terms = ["as written"] * ("author" in node.proof.mask) + [short(condition_text(c)) for c in added]
    left = sum(any(set(c.axes) & set(i.axes) or any(n == i for n in ir.walk(c)) for c in added) for i in node.indices)
    text = node.span.text if node.span is not None else node.tensor

    def row(words: str, verdict: Verdict, why: str) -> Row:
        return Row(line_of(node.span), place(text, node.tensor), words, "mask", verdict, why, span=node.span)

    mask = f"mask {' & '.join(terms)}" if terms else "no mask"
    match node.proof.verdict:
        case "PROVED":
            rows = [row(mask, "PROVED", "author" if node.proof.mask else "none")]
        case "HOISTED":
            condition = " and ".join(hoists_for(node, kernel))
            kept = [row(mask, "GUARDED", "guard")] if added else [row(mask, "PROVED", "author")] if terms else []
            rows = [*kept, row(f"no {'other ' * bool(kept)}mask if {condition}", "HOISTED", "launch check")]
        case "GUARDED" | "UNKNOWN" as verdict:
            rows = [row(mask, verdict, "guard")]
        case _ as verdict:
            assert_never(verdict)
    return rows, len(node.indices), left


def hoists_for(node: ir.Load | ir.Store, kernel: ir.Kernel) -> list[str]:
    """The launch checks that save an access's tails."""
    from nsalang.passes.assume import saved

    found = saved(kernel)
    return list(dict.fromkeys(found[a].text for a in node.axes if a in found))


def launch_checks(kernel: ir.Kernel) -> list[Assumption]:
    """What the host checks before it runs this variant."""
    found = [Assumption("launch", r.text, otherwise="masks") for r in kernel.hoists]
    if not kernel.schedule.wide:
        found.append(Assumption("launch", "indices and offsets fit 32 bits", otherwise="64-bit ones"))
    if kernel.schedule.aligned and kernel.schedule.vectors:
        names = ", ".join(kernel.schedule.vectors)
        found.append(Assumption("launch", f"addresses, strides and rows of {names} divide by 16 bytes", otherwise="shorter accesses"))
    if kernel.schedule.aligned and kernel.schedule.rows:
        found.append(
            Assumption("launch", f"elements of a row of {', '.join(kernel.schedule.rows)} lie side by side", otherwise="any strides")
        )
    if written := [t.name for t in kernel.tensors if t.role != "in"]:
        found.append(
            Assumption(
                "launch", f"no element of {' and '.join(written)} shares memory with another or with an argument", otherwise="an error"
            )
        )
    return found


def choices(kernel: ir.Kernel) -> tuple[str, ...]:
    """What masks follow from: tile lengths; and the number of warps."""
    schedule = kernel.schedule
    lengths = ", ".join(dict.fromkeys(f"{n} for {ir.plain(a)}" for a, n in schedule.lengths if schedule.step(a) == 1))
    return (f"tiles of {lengths}" if lengths else "no tiles", f"{schedule.warps} warps")
