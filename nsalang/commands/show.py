"""``nsalang show``: the IR after each pass."""

from __future__ import annotations

import click

from nsalang.base.target import parse_target
from nsalang.build.pipeline import Choice, prepare
from nsalang.commands.compile import backends_for
from nsalang.commands.settings import define_options, kernel_in, meaning_of, pairs, pinned, variant_options
from nsalang.report.terminal import Session, session_options
from nsalang.toolchain.backends import BACKENDS


@click.command("show")
@click.argument("file")
@click.argument("kernel", required=False)
@click.option("-t", "--target", default="cuda:sm_90", show_default=True, help="cuda:sm_90, hip:gfx942, cpu, …")
@click.option("-b", "--backend", type=click.Choice([*BACKENDS, "both"]), default="triton", show_default=True)
@click.option("--pass", "stage", metavar="NAME", help="Only after this pass ('typecheck' is before all), changed or not.")
@define_options
@variant_options
@session_options
@click.pass_obj
def command(
    session: Session, file: str, kernel: str | None, target: str, backend: str, stage: str | None, defines: tuple[str, ...],
    present: tuple[str, ...], without: tuple[str, ...], pins: tuple[str, ...], aligned: bool, wide: bool,
    exact: bool, allow: str | None,
) -> None:  # fmt: skip
    """Print the IR of KERNEL of FILE (which may be left out where there is one) after each pass that changed it; of a program, of its kernels."""
    from nsalang.ir.printer import print_kernel
    from nsalang.launch.kernel import Kernel
    from nsalang.passes import PASSES

    stages = ["typecheck", *(name for name, _ in PASSES)]
    if stage is not None and stage not in stages:
        raise click.UsageError(f"there is no pass '{stage}': there are {', '.join(stages)}")
    device = parse_target(target)
    pins_chosen = pinned(pins)
    one = kernel_in(file, kernel)
    meaning = meaning_of(one, pairs(defines, "-D"), present, without, device)
    parts = [(one.launcher, meaning)] if isinstance(one, Kernel) else one.launcher.variants(meaning)
    for each in backends_for(backend, "ir", device):
        for launcher, variant in parts:
            pinned_here = pins_chosen if isinstance(one, Kernel) else one.launcher.pins(launcher.unit.name, pins_chosen)
            found: list[tuple[str, str]] = []
            choice = Choice(each, wide, aligned, pinned_here, exact, allow is not None)
            prepare(launcher.typed(variant), device, choice, lambda name, k, found=found: found.append((name, print_kernel(k))))  # type: ignore[misc]
            last = ""
            for name, text in found:
                if name == stage or (stage is None and text != last):
                    click.secho(f"# ---- {each}: {'' if isinstance(one, Kernel) else f'{launcher.unit.name}: '}{name}", bold=True)
                    click.echo(text.rstrip("\n") + "\n")
                last = text
