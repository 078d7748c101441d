"""``nsalang demo``: what ``make demo`` runs. One kernel, both backends, and a table in which three implementations agree bit for bit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsalang.base.target import Target
from nsalang.build.compiled import compile_kernel
from nsalang.build.pipeline import Choice, Meaning, Unit
from nsalang.report.files import write_files
from nsalang.report.terminal import Session, session_options
from nsalang.toolchain.backends import BACKENDS

if TYPE_CHECKING:
    from torch import Tensor

KERNEL = "act_quant"
CASES = (
    (128, 512, "contiguous"),
    (256, 1024, "contiguous"),
    (37, 256, "contiguous"),
    (1, 128, "contiguous"),
    (64, 384, "strided"),
    (0, 512, "contiguous"),
)


@click.command("demo")
@click.option("-o", "--out", default="out", show_default=True, metavar="DIRECTORY", help="Where the generated sources go.")
@session_options
@click.pass_obj
def command(session: Session, out: str) -> None:
    """Compile the example act_quant by Triton and TileLang, write the sources, run them here, and compare with the interpreter."""
    from nsalang.commands.bench import examples
    from nsalang.commands.run import here
    from nsalang.syntax.parser import parse, read_source

    start = time.perf_counter()
    path = next(p for p in examples() if p.stem == KERNEL)
    unit = Unit(parse(read_source(path)), KERNEL)
    click.echo(f"The kernel, {path.name}:\n")
    click.echo(path.read_text())
    written: dict[Path, bytes] = {}
    with session.progress("compiling") as say:
        for target in (Target("cuda", "sm_90"), Target("cpu")):
            for backend in BACKENDS:
                say(f"compiling {KERNEL} for {target} by {backend}")
                made = compile_kernel(unit, Meaning(target), Choice(backend))
                where = "" if target.kind == "cuda" else ".cpu"
                written[Path(out) / f"{KERNEL}{where}.{backend}.py"] = made.source.encode()
    write_files(written)
    for file, text in written.items():
        click.echo(f"wrote {file} ({len(text.splitlines())} lines)")
    targets = ["cpu"] + ([here()] if here() != "cpu" else [])
    verdicts = [_agree(session, path, target) for target in targets]
    ok = all(verdicts)
    click.echo(f"{'All agree bit for bit' if ok else 'They DISAGREE'}; {time.perf_counter() - start:.0f} s.")
    if not ok:
        raise click.exceptions.Exit(1)


def case_input(rows: int, columns: int, layout: str, seed: int = 0) -> Tensor:
    """A bf16 input of rows of many sizes, one of zeros and one of tiny values; ``strided``: a part of wider rows."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    wide = columns + 136 if layout == "strided" else columns
    x = torch.randn(rows, wide, generator=generator) * torch.rand(rows, 1, generator=generator).mul(12).exp2()
    if rows > 2:
        x[1] = 0
        x[2] *= 1e-6
    made = x.bfloat16()
    return made[:, 64 : 64 + columns] if layout == "strided" else made


def _agree(session: Session, path: Path, target: str) -> bool:
    from nsalang import load
    from nsalang.base.source import NsaError
    from nsalang.bench import compare

    kernel = getattr(load(str(path)), KERNEL)
    rows: list[list[object]] = []
    failures: list[NsaError] = []
    reasons: list[str] = []
    ok = True
    with session.progress(f"running {KERNEL} for {target}") as say:
        for ue8m0 in (False, True):
            for m, n, layout in CASES:
                result = compare.compare(
                    kernel, {"x": case_input(m, n, layout), "ue8m0": ue8m0}, target=target, exact=True, outputs=["y", "s"],
                    say=lambda text, m=m, n=n: say(f"{text}, {m} x {n}"),  # type: ignore[misc]
                )  # fmt: skip
                ok &= result.ok
                failures += [run.failure for run in result.runs if run.failure is not None]
                reasons += [f"({m}, {n}) {d.output} by {d.engine}: {d.reason}" for d in result.differences if not d.ok]
                cells = {(d.output, d.engine): f"{d.equal} of {d.elements}" for d in result.differences}
                scale = "ue8m0" if ue8m0 else "plain"
                rows.append(
                    [
                        f"({m}, {n})",
                        layout,
                        scale,
                        *(cells.get((o, b), "failed") for o in ("y", "s") for b in BACKENDS),
                        "agree" if result.ok else "DIFFER",
                    ]
                )
    columns = ["x", "layout", "scale", "y triton", "y tilelang", "s triton", "s tilelang", "verdict"]
    session.table(f"{KERNEL} on {target}: values equal bit for bit to the interpreter's", columns, rows, right=columns[3:7])
    for reason in reasons:
        click.echo(reason)
    if failures:
        raise NsaError(*(d for f in failures for d in f.diagnostics))
    return ok
