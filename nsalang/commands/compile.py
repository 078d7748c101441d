"""``nsalang compile``: from a kernel's text to a backend's source, or on to a device's code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsalang.base.source import NsaError
from nsalang.base.target import KNOWN, Target, parse_target
from nsalang.build.backends import EMITS, check_emit, choose_backend
from nsalang.build.compiled import Compiled, compile_kernel
from nsalang.build.pipeline import Choice, Meaning
from nsalang.commands.files import deliver
from nsalang.commands.settings import define_options, kernels_in, known_to, meaning_of, pairs, pinned, variant_options
from nsalang.report.terminal import Session, session_options
from nsalang.toolchain.backends import BACKENDS, BackendName

if TYPE_CHECKING:
    from nsalang.launch.kernel import Kernel, Program

SUFFIXES = {
    "ast": "ast.txt",
    "ir": "ir.txt",
    "source": "py",
    "cuda": "cu",
    "hip": "hip",
    "ptx": "ptx",
    "cubin": "cubin",
    "amdgcn": "s",
    "hsaco": "hsaco",
}


@click.command("compile")
@click.argument("file")
@click.argument("kernel", required=False)
@click.option("-t", "--target", default="cuda:sm_90", show_default=True, help=", ".join(KNOWN) + ".")
@click.option("-b", "--backend", type=click.Choice([*BACKENDS, "both"]), help="Default: every backend that can emit what is asked for.")
@click.option("--emit", type=click.Choice(EMITS), default="source", show_default=True, help="What to write.")
@define_options
@variant_options
@click.option(
    "-o", "--out", metavar="OUT", help="A file, or a directory where there are several results; '-' is standard output (the default)."
)
@session_options
@click.pass_obj
def command(
    session: Session, file: str, kernel: str | None, target: str, backend: str | None, emit: str, defines: tuple[str, ...],
    present: tuple[str, ...], without: tuple[str, ...], pins: tuple[str, ...], aligned: bool, wide: bool,
    exact: bool, allow: str | None, out: str | None,
) -> None:  # fmt: skip
    """Compile KERNEL (or program) of FILE, or all that it has. Nothing is written unless everything compiles.

    Of a program each call is a result of its own, in order.
    """
    device = parse_target(target)
    raw = pairs(defines, "-D")
    pins_chosen = pinned(pins)
    kernels = kernels_in(file, kernel)
    results: dict[str, bytes] = {}
    binary = False
    if emit == "ast":
        from nsalang.syntax.dump import dump

        results = {f"{each.unit.name}.{SUFFIXES[emit]}": dump(each.unit.function).encode() for each in kernels}
    else:
        with session.progress(f"compiling {file}") as say:
            for each in kernels:
                name = each.unit.name
                meaning = meaning_of(each, known_to(each, raw, kernels), present, without, device)
                for chosen in backends_for(backend, emit, device):
                    say(f"compiling {name} for {device} by {chosen}")
                    choice = Choice(chosen, wide, aligned, pins_chosen, exact, allow is not None)
                    for part, compiled in parts_of(each, meaning, choice):
                        made = compiled.emit(emit)
                        binary |= isinstance(made, bytes)
                        results[f"{part}.{chosen}.{SUFFIXES[emit]}"] = made if isinstance(made, bytes) else made.encode()
    for path in deliver(results, out, text=not binary):
        session.note(f"wrote {path}")


def parts_of(entry: Kernel | Program, meaning: Meaning, choice: Choice) -> list[tuple[str, Compiled]]:
    """A kernel's code under its name; a program's in the order of its calls, under names such as ``decode.2.combine``."""
    from nsalang.launch.kernel import Program

    name = entry.unit.name
    if isinstance(entry, Program):
        return [(f"{name}.{i}.{part}", made) for i, (part, made) in enumerate(entry.launcher.compiled(meaning, choice), 1)]
    return [(name, compile_kernel(entry.unit, meaning, choice))]


def backends_for(asked: str | None, emit: str, target: Target) -> list[BackendName]:
    """The backends named, or all that have such a kind of output for the target.

    Raises NSA0606 where none has it, NSA0604 where one is not installed.
    """
    if asked in BACKENDS:
        return [choose_backend(asked, target)]
    able: list[BackendName] = []
    refusals: list[NsaError] = []
    for backend in BACKENDS:
        try:
            check_emit(emit, target, backend)
            able.append(backend)
        except NsaError as error:
            refusals.append(error)
    if refusals and (asked == "both" or not able):
        raise refusals[0]
    return [choose_backend(backend, target) for backend in able]
