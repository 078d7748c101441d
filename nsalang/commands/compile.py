"""``nsalang compile``: from a kernel's text to a backend's source, or on to a device's code."""

from __future__ import annotations

import click

from nsalang.commands.files import deliver
from nsalang.commands.settings import define_options, kernels_of, known_to, meaning_of, pairs, pinned, variant_options
from nsalang.commands.terminal import Session, session_options
from nsalang.driver import BACKENDS, EMITS, Backend, Choice, check_emit, choose_backend, compile_kernel
from nsalang.source import NsaError
from nsalang.target import Target, parse_target

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
@click.option(
    "-t", "--target", default="cuda:sm_90", show_default=True, help="cuda:sm_80, sm_89, sm_90, sm_100, …; hip:gfx942, gfx950; cpu."
)
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
    present: tuple[str, ...], without: tuple[str, ...], pins: tuple[str, ...], aligned: bool, wide: bool, out: str | None,
) -> None:  # fmt: skip
    """Compile KERNEL of FILE, or all its kernels. Nothing is written unless everything compiles."""
    from nsalang.parser import parse, read_source

    device = parse_target(target)
    raw = pairs(defines, "-D")
    pins_chosen = pinned(pins)
    tree = parse(read_source(file))
    results: dict[str, bytes] = {}
    binary = False
    if emit == "ast":
        from nsalang.dump import dump
        from nsalang.signature import functions

        results = {f"{name}.{SUFFIXES[emit]}": dump(functions(tree)[name]).encode() for name in kernels_of(tree, kernel)}
    else:
        from nsalang.kernel import Module

        module = Module(tree)
        kernels = [getattr(module, name) for name in kernels_of(tree, kernel)]
        with session.progress(f"compiling {file}") as say:
            for each in kernels:
                name = each.unit.name
                meaning = meaning_of(each, known_to(each, raw, kernels), present, without, device)
                for chosen in backends_for(backend, emit, device):
                    say(f"compiling {name} for {device} by {chosen}")
                    made = compile_kernel(each.unit, meaning, Choice(chosen, wide, aligned, pins_chosen)).emit(emit)
                    binary |= isinstance(made, bytes)
                    results[f"{name}.{chosen}.{SUFFIXES[emit]}"] = made if isinstance(made, bytes) else made.encode()
    for path in deliver(results, out, text=not binary):
        session.note(f"wrote {path}")


def backends_for(asked: str | None, emit: str, target: Target) -> list[Backend]:
    """The backends named, or all that have such a kind of output for the target.

    Raises NSA0606 where none has it, NSA0604 where one is not installed.
    """
    if asked in BACKENDS:
        return [choose_backend(asked, target)]
    able: list[Backend] = []
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
