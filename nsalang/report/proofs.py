"""What the prover says of a kernel, as rows that a person and a program can read: ``nsalang prove`` and ``Kernel.prove``.

A report has a row for each obligation of the meaning (indices, divisors, races, coverage, …) and, where nothing is refuted, a row for each
access that says what its mask is made of in the code for one target and backend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from nsalang.base.source import Diagnostic, NsaError, Span

if TYPE_CHECKING:
    from rich.console import Console

Verdict: TypeAlias = Literal["PROVED", "HOISTED", "GUARDED", "REFUTED", "UNKNOWN"]
VERDICTS: tuple[Verdict, ...] = ("PROVED", "HOISTED", "GUARDED", "REFUTED", "UNKNOWN")
JSON_VERSION = 1
"""Of the form of ``as_json``: raised when a key is taken away or changes its meaning, not when one is added."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that had to be shown.

    ``line``: of the file; ``access``: what it is about, as written; ``obligation``: in words; ``kind``: as in obligations.Kind, or ``mask``.
    ``why``: what settled it: constant, interval, fact, lemma or Z3; of a mask: ``none`` (there is none), ``author`` (it is what the author
    wrote), ``guard`` (the compiler's), ``launch check``. ``units``: Z3's resource units, the same in every run; ``seconds`` are not.
    """

    line: int
    access: str
    obligation: str
    kind: str
    verdict: Verdict
    why: str
    units: int = 0
    seconds: float = field(default=0.0, compare=False)
    span: Span | None = field(default=None, compare=False, repr=False)

    def as_json(self) -> dict[str, object]:
        column = None if self.span is None else self.span.column + self.span.source.indent
        return {
            "line": self.line, "column": column, "access": self.access, "obligation": self.obligation, "kind": self.kind,
            "verdict": self.verdict, "why": self.why, "units": self.units, "seconds": round(self.seconds, 6),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Assumption:
    """What the proofs rest on. kind ``require`` and ``promise``: written, or with ``implied`` by what is written; ``launch``: a check that the
    host makes, ``otherwise`` saying what runs where it fails."""

    kind: Literal["require", "promise", "launch"]
    text: str
    implied: bool = False
    otherwise: str = ""

    def as_json(self) -> dict[str, object]:
        return {"kind": self.kind, "text": self.text, "implied": self.implied, "otherwise": self.otherwise}

    def __str__(self) -> str:
        notes = ["implied"] * self.implied + [f"else {self.otherwise}"] * bool(self.otherwise)
        return self.text + (f" ({', '.join(notes)})" if notes else "")


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over the rows. ``guards``: the comparisons with an extent that a compiler without a prover would make, one an access and axis of its
    tensor; ``removed``: those that this kernel does not make. ``accesses`` are those of the code, none where something is refuted."""

    verdicts: tuple[tuple[Verdict, int], ...]
    accesses: int
    guards: int
    removed: int
    units: int
    seconds: float = field(compare=False)

    def as_json(self) -> dict[str, object]:
        return {
            "verdicts": dict(self.verdicts), "accesses": self.accesses, "guards": self.guards, "guards_removed": self.removed,
            "units": self.units, "seconds": round(self.seconds, 6),
        }  # fmt: skip

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {v}" for v, n in self.verdicts if n)
        masks = f"; {self.removed} of {counted(self.guards, 'guard')} removed" if self.accesses else ""
        return f"{counts or 'nothing to prove'}{masks}; solver {self.seconds * 1000:.1f} ms, {self.units} units"

    @staticmethod
    def sum(parts: Iterable[Totals]) -> Totals:
        """Of several kernels together."""
        found = list(parts)
        verdicts = Counter({v: sum(dict(t.verdicts).get(v, 0) for t in found) for v in VERDICTS})
        return Totals(
            tuple((v, verdicts[v]) for v in VERDICTS),
            sum(t.accesses for t in found),
            sum(t.guards for t in found),
            sum(t.removed for t in found),
            sum(t.units for t in found),
            sum(t.seconds for t in found),
        )


@dataclass(frozen=True, slots=True)
class Query:
    """An obligation as a question to an SMT solver, as SMT-LIB. ``about``: place, access, obligation, verdict; ``expect``: the answer."""

    kind: str
    about: str
    text: str
    expect: Literal["unsat", "sat", "unknown"]


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The verdicts on one variant of a kernel, for one target and backend; or of a program, ``calls`` being the reports of its kernels, of which the
    rows are.

    ``variant``: const and dtype parameters, specialised dimensions and optional parameters, as (name, text). ``machine``: choices for the code (tiles, warps)
    in words; none where something is refuted. ``diagnostics``: an error for what is refuted, and for what
    is unknown and not allowed. ``allowed``: whether UNKNOWN is allowed.
    """

    kernel: str
    variant: tuple[tuple[str, str], ...]
    target: str
    backend: str
    rows: tuple[Row, ...]
    assumptions: tuple[Assumption, ...]
    machine: tuple[str, ...]
    totals: Totals
    diagnostics: tuple[Diagnostic, ...] = field(default=(), repr=False)
    allowed: bool = False
    source: Callable[[], tuple[Query, ...]] = field(default=tuple, repr=False, compare=False)
    calls: tuple[Report, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything is settled: nothing is REFUTED, and nothing UNKNOWN that is not allowed."""
        return not any(r.verdict == "REFUTED" or (r.verdict == "UNKNOWN" and not self.allowed) for r in self.rows)

    def raise_for_refuted(self) -> None:
        """Raises NsaError with every diagnostic, unless ``ok``."""
        if not self.ok:
            raise NsaError(*self.diagnostics)

    def count(self, verdict: Verdict) -> int:
        """How many rows have a verdict."""
        return sum(r.verdict == verdict for r in self.rows)

    def queries(self) -> tuple[Query, ...]:
        """Each obligation as a question to an SMT solver, in the order of the program; they are made anew."""
        return self.source()

    def title(self, variant: str | None = None) -> str:
        """One line: the kernel, its variant, the target."""
        chosen = variant_text(self.variant) if variant is None else variant
        return f"{self.kernel}{f' ({chosen})' if chosen else ''} for {self.target}, {self.backend}"

    def table(self) -> None:
        """Print the report: coloured on a terminal and as wide as it, plain text elsewhere."""
        from nsalang.report.terminal import console

        draw(self, console())

    def as_json(self) -> dict[str, object]:
        """The report as plain data; docs/proofs.md says what each key means."""
        return {
            "kernel": self.kernel, "variant": dict(self.variant), "target": self.target, "backend": self.backend, "ok": self.ok,
            "rows": [r.as_json() for r in self.rows], "assumptions": [a.as_json() for a in self.assumptions],
            "machine": list(self.machine), "totals": self.totals.as_json(), "diagnostics": [d.as_json() for d in self.diagnostics],
            **({"calls": [c.as_json() for c in self.calls]} if self.calls else {}),
        }  # fmt: skip

    def to_json(self) -> str:
        """``as_json`` as a text."""
        import json

        return json.dumps({"version": JSON_VERSION, **self.as_json()}, indent=2)

    def __repr__(self) -> str:
        return f"<nsalang report on {self.title()}: {self.totals}>"

    def __str__(self) -> str:
        """The report as plain text."""
        import io

        from rich.console import Console

        out = io.StringIO()
        draw(self, Console(file=out, width=160, color_system=None, highlight=False, markup=False))
        return out.getvalue().rstrip("\n")


def counted(count: int, what: str) -> str:
    """``1 guard``, ``2 guards``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def variant_text(variant: Sequence[tuple[str, str]]) -> str:
    """``G=128, ue8m0=False``."""
    return ", ".join(f"{name}={text}" for name, text in variant)


_STYLES: dict[Verdict, str] = {"PROVED": "green", "HOISTED": "cyan", "GUARDED": "yellow", "REFUTED": "bold red", "UNKNOWN": "bold red"}


_NAMES = {"require": "require", "promise": "promise", "launch": "launch check"}


def draw(report: Report, out: Console, title: str | None = None) -> None:
    """Print a report: a row for each obligation, those of one access together; then what the proofs rest on, and the totals. Of a program: those
    of its kernels, then its own requirements and the totals."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if report.calls:
        out.print(Text(f"program {report.title() if title is None else title}", style="bold"))
        for call in report.calls:
            out.print()
            draw(call, out)
        out.print()
        own = {f"{c.kernel}: {a}" for c in report.calls for a in c.assumptions}
        for assumption in (a for a in report.assumptions if str(a) not in own):
            out.print(Text(f"{_NAMES[assumption.kind]:<14}{assumption}"))
        out.print(Text(f"{report.kernel}: {report.totals}"))
        return
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("line", justify="right")
    made.add_column("access", overflow="fold")
    made.add_column("obligation", overflow="fold")
    made.add_column("verdict")
    made.add_column("why")
    made.add_column("units", justify="right")
    before: tuple[int, str] | None = None
    for row in report.rows:
        here = (row.line, row.access)
        shown = ("", "") if here == before else (str(row.line), row.access)
        cells = (*shown, row.obligation, row.verdict, row.why, str(row.units) if row.units else "")
        made.add_row(*(Text(c, style=_STYLES[row.verdict] if c == row.verdict else "") for c in cells))
        before = here
    out.print(Text(report.title() if title is None else title, style="bold"))
    out.print(made)
    for assumption in report.assumptions:
        out.print(Text(f"{_NAMES[assumption.kind]:<14}{assumption}"))
    if report.machine:
        out.print(Text(f"{'code':<14}{'; '.join(report.machine)}"))
    out.print(Text(f"{report.kernel}: {report.totals}"))
