"""``nsalang run``: one kernel on the same inputs by interpreter, Triton and TileLang, and whether they agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from nsalang.base.source import NsaError
from nsalang.base.target import parse_target
from nsalang.build.backends import choose_backend
from nsalang.commands.settings import allow_option, define_options, pin_option, pinned, seed_option
from nsalang.launch.options import check_here
from nsalang.report.terminal import Session, report, session_options
from nsalang.toolchain.backends import BACKENDS

if TYPE_CHECKING:
    from nsalang.bench.compare import Comparison


@click.command("run")
@click.argument("file")
@click.argument("kernel", required=False)
@define_options
@click.option("-i", "--input", "inputs", multiple=True, metavar="[NAME=]FILE", help="A .pt, .npz or .npy file instead of random values.")
@seed_option
@click.option("-t", "--target", help="Default: this machine's first device, or cpu.")
@click.option(
    "-b",
    "--backend",
    type=click.Choice([*BACKENDS, "both"]),
    default="both",
    show_default=True,
    help="What the interpreter is compared with.",
)
@pin_option
@allow_option
@click.option("--save", metavar="FILE", help="Write the outputs (of the last backend) to a .pt or .npz file.")
@session_options
@click.pass_obj
def command(
    session: Session, file: str, kernel: str | None, defines: tuple[str, ...], present: tuple[str, ...], without: tuple[str, ...],
    inputs: tuple[str, ...], seed: int, target: str | None, backend: str, pins: tuple[str, ...], allow: Literal["unknown"] | None, save: str | None,
) -> None:  # fmt: skip
    """Run KERNEL of FILE. -D M=128,N=512 gives sizes; what no file gives is random. Exit code 1 where the results disagree.

    A kernel without floating-point sum, scan or transcendental function must agree bit for bit, others within the bounds that the
    table's last line says.
    """
    from nsalang.bench import compare
    from nsalang.commands.inputs import case_of, save_outputs

    schedule = dict(pinned(pins))
    device = parse_target(target or here())
    check_here(device)
    engines = ["interpreter", *(choose_backend(b, device) for b in BACKENDS if backend in (b, "both"))]
    case = case_of(file, kernel, defines, present, without, inputs, seed, device)
    with session.progress(f"running {case.kernel.unit.name} for {device}") as say:
        result = compare.compare(
            case.kernel,
            case.arguments,
            target=str(device),
            exact=all(map(compare.is_exact, case.bodies)),
            absolute=max(map(compare.absolute, case.bodies)),
            outputs=case.tensors("out"),
            inout=case.tensors("inout"),
            partial=case.typed.partial,
            engines=engines,
            schedule=schedule or None,
            allow=allow,
            say=say,
        )
    show(session, result)
    failures = dict.fromkeys(d for run in result.runs if run.failure is not None for d in run.failure.diagnostics)
    if failures:  # those that do not depend on a backend are the same for both
        report(NsaError(*failures), session)
    if save is not None and (done := [run.outputs for run in result.runs if run.outputs is not None]):
        save_outputs(Path(save), done[-1])
        session.note(f"wrote {save}")
    if not result.ok:
        raise click.exceptions.Exit(1)


def here() -> str:
    """The target of this machine's first device, or cpu."""
    import torch

    from nsalang.launch.options import device_target

    return str(device_target("cuda", torch.cuda.current_device())) if torch.cuda.is_available() else "cpu"


def show(session: Session, result: Comparison) -> None:
    """A table with a row for each output and backend, what failed, and the rule."""
    from nsalang.bench import compare

    columns = ["output", "dtype", "shape", "backend", "bit-equal", "max abs", "max rel", "verdict"]
    rows: list[list[object]] = [
        [d.output, d.dtype, list(d.shape), d.engine, f"{d.equal} of {d.elements}", f"{d.max_abs:.3g}", f"{d.max_rel:.3g}",
         "agree" if d.ok else "DIFFER"]
        for d in result.differences
    ]  # fmt: skip
    rows += [["", "", "", run.engine, "", "", "", "failed"] for run in result.runs if run.failure is not None]
    session.table(f"{result.kernel} for {result.target}, against the interpreter", columns, rows, right=["bit-equal", "max abs", "max rel"])
    for d in result.differences:
        if not d.ok:
            click.echo(f"{d.output} by {d.engine}: {d.reason}")
    if result.exact:
        click.echo("rule: bit for bit, for the kernel has no floating-point sum, scan or transcendental function")
    else:
        click.echo(
            f"rule: floats within {compare.relative(result.absolute):.3g} of the value + {result.absolute:.2g} of the largest; short ones that or one "
            f"representable value; fp8 and integers one step on under {compare.CODES:.1%}"
        )
