"""``nsalang prove``: the verdict on every access of the kernels of a file, with the reason, for a person, a program or CI."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import Target, parse_target
from nsalang.build.backends import choose_backend
from nsalang.build.pipeline import Choice, Meaning
from nsalang.commands.settings import (
    allow_option,
    define_options,
    kernels_in,
    known_to,
    pairs,
    pin_option,
    pinned,
    present_of,
    signature_under,
    sort_out,
)
from nsalang.report.files import write_files
from nsalang.report.proofs import JSON_VERSION, Query, Report, Row, Totals, Verdict, counted, draw, variant_text
from nsalang.report.terminal import Session, console, report, session_options
from nsalang.toolchain.backends import BACKENDS

if TYPE_CHECKING:
    from nsalang.code.check import Checked
    from nsalang.launch.kernel import Entry

MOST_VARIANTS = 16
"""Combinations of bools and optional parameters that one command proves of one kernel."""

DENIABLE: tuple[Literal["guarded", "hoisted", "unknown"], ...] = ("guarded", "hoisted", "unknown")


@dataclass(frozen=True, slots=True)
class Group:
    """Variants of one kernel whose reports say the same. ``title``: their settings; ``names``: the variants, as in the names of files."""

    report: Report
    variants: tuple[tuple[tuple[str, str], ...], ...]

    @property
    def title(self) -> str:
        """What they share, then what differs: ``G=128; ue8m0=False or True``."""
        shared = [pair for pair in self.variants[0] if all(pair in v for v in self.variants)]
        if len(self.variants) == 1:
            return variant_text(shared)
        differ = [name for name, _ in self.variants[0] if name not in dict(shared)]
        values = {n: list(dict.fromkeys(dict(v)[n] for v in self.variants)) for n in differ}
        count = 1
        for texts in values.values():
            count *= len(texts)
        if count == len(self.variants):
            return "; ".join([*[variant_text(shared)] * bool(shared), *(f"{n}={' or '.join(texts)}" for n, texts in values.items())])
        return " | ".join(variant_text(v) for v in self.variants)


@click.command("prove")
@click.argument("file")
@click.argument("kernel", required=False)
@click.option("-t", "--target", default="cuda:sm_90", show_default=True, help="cuda:sm_90, hip:gfx942, cpu, …")
@click.option("-b", "--backend", type=click.Choice([*BACKENDS, "auto"]), default="auto", show_default=True, help="Whose masks are shown.")
@define_options
@pin_option
@allow_option
@click.option(
    "--deny",
    multiple=True,
    metavar="VERDICT[,…]",
    help="Fail where an access is guarded, hoisted or unknown; several times, or with commas.",
)
@click.option("--smt2", metavar="DIR", help="Write each obligation to a file of its own, for any SMT solver to repeat.")
@click.option("--code", is_flag=True, help="Check also that each backend's code reads and writes what the program does, on small launches.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@session_options
@click.pass_obj
def command(
    session: Session, file: str, kernel: str | None, target: str, backend: str, defines: tuple[str, ...], present: tuple[str, ...],
    without: tuple[str, ...], pins: tuple[str, ...], allow: str | None, deny: tuple[str, ...], smt2: str | None, code: bool, as_json: bool,
) -> None:  # fmt: skip
    """Prove KERNEL (or program) of FILE, or all that it has, for all sizes that their requirements allow.

    Const and dtype parameters are at their defaults; bools and optional parameters are taken in every combination (at most 16) that -D, --with and
    --without leave open. Exit code 1 where an access is refuted, unknown (but see --allow) or denied.
    """
    device = parse_target(target)
    raw = pairs(defines, "-D")
    choice = Choice(choose_backend(backend, device), pinned=pinned(pins))
    denied = denials(deny)
    kernels = kernels_in(file, kernel)
    if len(kernels) > 1:
        optional = {p.name for k in kernels for p in k.signature.parameters if p.optional}
        for name in {*present, *without} - optional:
            raise click.UsageError(f"none of the kernels has an optional parameter '{name}'")
    groups: list[Group] = []
    coded: list[Checked] = []
    with session.progress(f"proving {file}") as say:
        for each in kernels:
            found = []
            for meaning in meanings(each, known_to(each, raw, kernels), present, without, device, len(kernels) > 1):
                say(f"proving {each.unit.name}")
                found.append(each.report(meaning, choice, allow == "unknown" and "UNKNOWN" not in denied))
                if code and found[-1].ok:
                    say(f"checking the code of {each.unit.name}")
                    coded += check_code(each, meaning, choice, allow == "unknown")
            groups += grouped(found)
    if smt2 is not None:
        files = query_files(groups)
        write_files({Path(smt2) / name: text.encode() for name, text in files.items()})
        session.note(f"wrote {counted(len(files), 'obligation')} to {smt2}")
    totals = Totals.sum(g.report.totals for g in groups)
    refused = (
        refusal(row, g) for g in groups for row in g.report.rows if row.verdict in denied and (row.verdict != "UNKNOWN" or g.report.ok)
    )
    wrong = (d for c in coded for d in c.found)
    problems = tuple(dict.fromkeys([*(d for g in groups for d in g.report.diagnostics), *refused, *wrong]))
    ok = not problems and all(g.report.ok for g in groups)
    if as_json:
        click.echo(json.dumps(as_data(file, device, choice.backend, groups, totals, ok), indent=2))
    else:
        show(groups, totals)
        if code:
            show_code(coded)
    if problems:
        report(NsaError(*problems), session)
    if not ok:
        raise click.exceptions.Exit(1)


# ------------------------------------------------------------------------------------------------------------------------ code


def check_code(entry: Entry, meaning: Meaning, choice: Choice, allow_unknown: bool) -> list[Checked]:
    """What the code of a kernel does, in each form that this machine can run; of a program nothing, whose kernels are checked by themselves."""
    from nsalang.code.check import check
    from nsalang.launch.kernel import Kernel

    if not isinstance(entry, Kernel):
        return []
    return [check(entry.launcher, meaning, replace(choice, allow_unknown=allow_unknown))]


def show_code(coded: Sequence[Checked]) -> None:
    """How much was compared, and what could not be."""
    runs, lost = sum(c.runs for c in coded), [x for c in coded for x in c.lost]
    variants = sum(len(c.variants) for c in coded)
    click.echo(f"code: {counted(runs, 'run')} of {counted(variants, 'variant')} compared; accesses not evaluated: {len(lost)}")
    for each in lost:
        click.echo(f"  not evaluated: {each}")


# -------------------------------------------------------------------------------------------------------------------- variants


def meanings(
    kernel: Entry, raw: dict[str, str], present: Sequence[str], without: Sequence[str], target: Target, several: bool
) -> list[Meaning]:
    """Every variant that the command line leaves open, the defaults first.

    Raises NSA0517 and NSA0518 where a dtype or a specialised dimension is missing, UsageError where there are more than 16 variants.
    """
    signature = signature_under(kernel, raw)
    given = sort_out(raw, signature)
    for parameter in signature.parameters:
        if parameter.kind == "dtype" and parameter.name not in given.constants and not parameter.has_default:
            raise NsaError.at(
                "NSA0517",
                f"the dtype '{parameter.name}' of '{signature.name}' is not given",
                parameter.span,
                help=f"-D {parameter.name}=bf16, say",
            )
    missing = [d for d in signature.specialised if d not in given.dims]
    if missing:
        kernel.check_alone(target)  # what is wrong in its text is said first
        raise NsaError.at(
            "NSA0518",
            f"the dimension {missing[0]} of '{signature.name}' is the length of a span: each value is a variant of its own",
            signature.span,
            help=f"-D {','.join(f'{d}=64' for d in missing)}, say",
        )
    dims = {d: given.dims[d] for d in signature.specialised}
    bools = [p.name for p in signature.parameters if p.kind == "const" and isinstance(p.default, bool) and p.name not in given.constants]
    optional = [p.name for p in signature.parameters if p.optional]
    if several:  # each kernel takes of --with and --without what it has
        present, without = [n for n in present if n in optional], [n for n in without if n in optional]
    chosen = present_of(signature, present, without)
    free = [n for n in optional if n not in present and n not in without]
    count = 2 ** (len(bools) + len(free))
    if count > MOST_VARIANTS:
        raise click.UsageError(
            f"'{signature.name}' has {count} variants by {', '.join([*bools, *free])}, and at most {MOST_VARIANTS} are proved at once: "
            f"settle some of them with -D, --with or --without"
        )
    found = []
    for values in itertools.product([False, True], repeat=len(bools) + len(free)):
        flags, more = dict(zip(bools, values, strict=False)), [n for n, there in zip(free, values[len(bools) :], strict=True) if there]
        settings = {**given.constants, **flags}
        found.append(kernel.meaning(target, {**settings, **dims, **dict.fromkeys([*chosen, *more], True)}))
    return found


def grouped(reports: Iterable[Report]) -> list[Group]:
    """Reports that say the same together; seconds may differ."""
    found: dict[object, Group] = {}
    for each in reports:
        key = replace(each, variant=(), totals=replace(each.totals, seconds=0.0), diagnostics=())
        old = found.get((key, each.ok))
        found[key, each.ok] = Group(each, (each.variant,)) if old is None else replace(old, variants=(*old.variants, each.variant))
    return list(found.values())


# --------------------------------------------------------------------------------------------------------------------- verdicts


def denials(values: Iterable[str]) -> frozenset[Verdict]:
    """--deny as verdicts. Raises UsageError for an unknown one."""
    found: set[Verdict] = set()
    for name in (n.strip() for v in values for n in v.split(",")):
        if name not in DENIABLE:
            raise click.UsageError(f"--deny takes {', '.join(DENIABLE)}, not '{name}'")
        found.add(name.upper())  # type: ignore[arg-type]
    return frozenset(found)


def refusal(row: Row, group: Group) -> Diagnostic:
    """What --deny says of a row."""
    return Diagnostic(
        "NSA0815", f"{row.access} of '{group.report.kernel}' is {row.verdict}, which --deny {row.verdict.lower()} refuses", row.span,
        (row.obligation,),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------- output


def show(groups: Sequence[Group], totals: Totals) -> None:
    """A table for each kernel and variant, and a last line for all."""
    out = console()
    for group in groups:
        draw(group.report, out, group.report.title(group.title))
        if len(groups) > 1:
            click.echo()
    kernels = len({g.report.kernel for g in groups})
    variants = sum(len(g.variants) for g in groups)
    if len(groups) > 1:
        click.echo(f"total: {counted(kernels, 'kernel')}, {counted(variants, 'variant')}: {totals}")


def as_data(file: str, target: Target, backend: str, groups: Sequence[Group], totals: Totals, ok: bool) -> dict[str, object]:
    """What --json prints; ``variants`` of a report are all that it stands for."""
    reports = [{**g.report.as_json(), "variants": [dict(v) for v in g.variants]} for g in groups]
    return {
        "version": JSON_VERSION, "file": file, "target": str(target), "backend": backend, "ok": ok, "totals": totals.as_json(), "reports": reports,
    }  # fmt: skip


def query_files(groups: Sequence[Group]) -> dict[str, str]:
    """A file for each query, by name: kernel, variant, number, kind."""
    found: dict[str, str] = {}
    for group in groups:
        variant = re.sub(r"[^\w=.,+-]", "_", ",".join(f"{n}={t}" for n, t in group.variants[0])) or "only"
        for number, query in enumerate(group.report.queries()):
            found[f"{group.report.kernel}.{variant}.{number:03}.{query.kind}.smt2"] = script(group, query)
    return found


def script(group: Group, query: Query) -> str:
    """A query with what it is about and what the answer was, as SMT-LIB says it."""
    lines = [f"; nsalang: {query.kind} of {group.report.kernel}: {query.about}", f"(set-info :status {query.expect})"]
    body = query.text if "(check-sat)" in query.text else f"{query.text}\n(check-sat)"
    return "\n".join([*lines, body.strip(), ""])
