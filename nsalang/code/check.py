"""The check of a kernel's code, form by form, on small launches; what is wrong becomes a diagnostic.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from nsalang import ir
from nsalang.base.source import Diagnostic, NsaError, Span
from nsalang.base.target import parse_target
from nsalang.build.compiled import Compiled
from nsalang.build.pipeline import Choice, Meaning
from nsalang.code.accesses import Difference, Place, differences
from nsalang.code.expected import TooLong, expected
from nsalang.code.forms import FORMS, Call, Codes, Form, run
from nsalang.code.launches import Launch, launches
from nsalang.interp.fault import Fault
from nsalang.launch.binding import bind
from nsalang.launch.launcher import Launcher
from nsalang.launch.places import arguments_of, layouts_of
from nsalang.launch.sizes import count_programs


@dataclass(slots=True)
class Checked:
    """What a check did. ``runs``: launches of variants in some form; ``skipped``: launches on whose data the program itself goes wrong or does not
    end; ``seen``, ``lost``: accesses in texts whose addresses were evaluated, and descriptions of those that could not be."""

    runs: int = 0
    skipped: int = 0
    seen: int = 0
    variants: set[tuple[Form, Choice]] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    found: list[Diagnostic] = field(default_factory=list)

    def __iadd__(self, other: Checked) -> Checked:
        self.runs, self.skipped, self.seen = self.runs + other.runs, self.skipped + other.skipped, self.seen + other.seen
        self.variants |= other.variants
        self.lost += [x for x in other.lost if x not in self.lost]
        self.found += other.found
        return self


def check(
    launcher: Launcher, meaning: Meaning, choice: Choice, forms: Iterable[Form] = FORMS, *, seed: int = 0, count: int = 4, codes: Codes | None = None
) -> Checked:  # fmt: skip
    """Check one meaning of a kernel in some forms: ``count`` launches in the variants that they take, and in the slower ones that are right for
    every launch. ``choice``: what is pinned and allowed. Raises what compiling raises."""
    total, made = Checked(), codes or Codes()
    for form in forms:
        total += _check_form(launcher, meaning, choice, form, seed, count, made)
    return total


def _check_form(launcher: Launcher, meaning: Meaning, choice: Choice, form: Form, seed: int, count: int, codes: Codes) -> Checked:
    target = parse_target("cpu") if form == "tilelang-c" or meaning.target.kind == "hip" and form != "triton" else meaning.target
    if form == "tilelang-cuda" and meaning.target.kind != "cuda":
        target = parse_target("cuda:sm_90")
    mine = replace(meaning, target=target)
    fastest = replace(choice, backend="triton" if form == "triton" else "tilelang", exact=True, aligned=True, wide=False)
    typed = launcher.typed(mine)
    final = launcher.compiled(mine, fastest).kernel
    result = Checked()
    reported: set[tuple[str, str]] = set()
    for number, launch in enumerate(launches(typed, final, dict(mine.dims), seed, count)):
        usual = call_of(launcher, mine, fastest, launch)
        calls = [usual]
        if number == 1 or count == 1:
            calls += [call_of(launcher, mine, fastest, launch, **{name: value}) for name, value in SLOWER]
        tried: set[object] = set()
        for call in calls:
            if call.compiled.program in tried:
                continue
            tried.add(call.compiled.program)
            _compare(call, form, codes, result, reported)
    return result


SLOWER: tuple[tuple[str, bool], ...] = (("wide", True), ("aligned", False), ("exact", False))
"""What a variant may be without being wrong for any launch."""


def call_of(launcher: Launcher, meaning: Meaning, fastest: Choice, launch: Launch, **forced: bool) -> Call:
    """A launch in the variant that it takes, or with some facts taken to be worse than they are."""
    signature, settings = launcher.signature({**dict(meaning.settings), **launch.tensors})
    sizes = {p.name: launch.dims[p.name] for p in signature.parameters if p.kind == "scalar" and p.name in launch.dims}
    bound = bind(signature, settings, {**launch.tensors, **launch.scalars, **sizes}, meaning.target, torch.device("cpu"))
    kernel = launcher.typed(meaning)
    layouts, offsets = layouts_of(signature, bound, kernel)
    choice, compiled, _ = launcher.chosen(meaning, kernel, bound, layouts, fastest)
    if forced:
        choice = replace(choice, **forced)  # type: ignore[arg-type]
        compiled = launcher.compiled(meaning, choice)
    names = [t.name for t in kernel.tensors]
    place = {name: i for i, name in enumerate(names)}
    values = [launch.tensors[n] for n in names]
    arguments, slots, views = arguments_of(compiled, bound, layouts, offsets, place)
    given = list(arguments)
    from nsalang.host.memory import pointer

    for slot, at, view in slots:
        given[slot] = values[at] if view is None else values[at].view(view)
    for slot, at, offset in views:
        given[slot] = pointer(values[at], offset)
    places = {n: Place(n, launch.tensors[n].data_ptr(), layouts[n].shape, layouts[n].strides, layouts[n].itemsize) for n in names}
    for v in kernel.views:
        address = launch.tensors[v.base].data_ptr() + offsets[v.name]
        places[v.name] = Place(v.name, address, layouts[v.name].shape, layouts[v.name].strides, layouts[v.name].itemsize)
    return Call(compiled, launch, tuple(given), count_programs(compiled, bound.dims, bound.scalars), places)


def _compare(call: Call, form: Form, codes: Codes, result: Checked, reported: set[tuple[str, str]]) -> None:
    compiled, launch = call.compiled, call.launch
    if not call.programs:
        return
    try:
        right = expected(compiled.typed, compiled.kernel, launch.tensors, launch.scalars, launch.dims)
    except (Fault, TooLong):
        result.skipped += 1
        return
    found, lines = run(call, form, codes)
    result.runs += 1
    result.seen += len(found.seen)
    result.variants.add((form, compiled.choice))
    result.lost += [f"{compiled.kernel.name}: {x}" for x in sorted(found.lost) if f"{compiled.kernel.name}: {x}" not in result.lost]
    for difference in differences(right, found, call.places):
        if (difference.tensor, difference.what) not in reported:
            reported.add((difference.tensor, difference.what))
            result.found.append(_diagnostic(call, form, difference, lines))


def _diagnostic(call: Call, form: Form, difference: Difference, lines: Mapping[tuple[str, int, int], int]) -> Diagnostic:
    compiled, tensor = call.compiled, difference.tensor
    if difference.element is not None:
        where = f"{tensor}[{', '.join(map(str, difference.element))}]"
    else:
        where = (
            f"{abs(difference.beyond)} bytes {'before' if difference.beyond < 0 else 'after'} the first element of '{tensor}', outside it"
        )
    more = f", and {difference.count - 1} more" if difference.count > 1 else ""
    place = call.places[tensor]
    line = lines.get((difference.kind, difference.block, place.address + difference.beyond))
    return Diagnostic(
        "NSA0816",
        f"the code of '{compiled.kernel.name}' for {form} {difference.what}: {where}",
        _span(compiled, difference, line),
        (f"with {call.launch.title}: in block {difference.block}{more}", f"variant: {variant(compiled)}"),
        ("a fault of the backend or of nsalang: please report it; the proof does not hold for this code",),
    )


def variant(compiled: Compiled) -> str:
    """The facts that chose a variant, in words."""
    choice = compiled.choice
    words = [f"{'' if getattr(choice, n) else 'not '}{n}" for n in ("wide", "aligned", "exact")]
    sized = [f"{a}={n}" for a, n in choice.sized]
    return ", ".join([*words, *sized])


def _span(compiled: Compiled, difference: Difference, line: int | None) -> Span | None:
    """Where the access stands: by the line of the generated text, else the first access to the tensor of its kind."""
    if line is not None:
        known: list[Span | None] = [span for number, span in compiled.generated.lines if number <= line]
        if known:
            return known[-1]
    wanted = ir.Load if difference.kind == "read" else ir.Store
    found: Sequence[Span | None] = [
        n.span for s in compiled.typed.body for n in ir.walk(s) if isinstance(n, wanted) and n.tensor == difference.tensor
    ]
    return next((s for s in found if s is not None), compiled.kernel.span)


def raise_for(checked: Checked) -> None:
    """Raises NsaError with all that was found."""
    if checked.found:
        raise NsaError(*checked.found)
