"""``nsalang compile``: from a kernel's text to a backend's source, or on to a device's code."""

from __future__ import annotations

import click

from nsalang.commands.files import deliver
from nsalang.commands.settings import const_settings, define_options, kernels_of, pairs, present_of, sort_out
from nsalang.commands.terminal import Session, session_options
from nsalang.driver import BACKENDS, EMITS, Backend, Choice, Meaning, Unit, check_emit, choose_backend, compile_kernel, settings_key
from nsalang.source import NsaError
from nsalang.target import Target, parse_target

SUFFIXES = {"ast": "ast.txt", "ir": "ir.txt", "source": "py", "cuda": "cu", "hip": "hip", "ptx": "ptx", "cubin": "cubin", "amdgcn": "s", "hsaco": "hsaco"}


@click.command("compile", short_help="Compile kernels for a target, which need not be here.")
@click.argument("file")
@click.argument("kernel", required=False)
@click.option("-t", "--target", default="cuda:sm_90", show_default=True, help="cuda:sm_80, sm_89, sm_90, sm_100, …; hip:gfx942, gfx950; cpu.")
@click.option("-b", "--backend", type=click.Choice([*BACKENDS, "both"]), help="Default: every backend that can emit what is asked for.")
@click.option("--emit", type=click.Choice(EMITS), default="source", show_default=True, help="What to write.")
@define_options
@click.option("--pin", "pins", multiple=True, metavar="AXIS=LENGTH", help="Pin the machine length of an axis (a power of two).")
@click.option("--aligned/--unaligned", default=True, show_default=True, help="Addresses and strides divide by 16 bytes, last strides are 1.")
@click.option("--wide/--narrow", default=False, show_default=True, help="Offsets need 64 bits.")
@click.option("-o", "--out", metavar="OUT", help="A file, or a directory where there are several results; '-' is standard output (the default).")
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
    pinned = tuple((axis, integer(text, f"--pin {axis}")) for axis, text in pairs(pins, "--pin").items())
    tree = parse(read_source(file))
    results: dict[str, bytes] = {}
    binary = False
    with session.progress(f"compiling {file}") as say:
        for name in kernels_of(tree, kernel):
            unit = Unit(tree, name)
            if emit == "ast":
                from nsalang.dump import dump

                results[f"{name}.ast.txt"] = dump(unit.function).encode()
                continue
            signature = unit.signature(const_settings(unit.function, raw))
            given = sort_out(raw, signature)
            if loose := [d for d in given.dims if d not in signature.specialised]:
                raise click.UsageError(f"the dimension {loose[0]} of '{name}' stays dynamic: one binary serves all its values")
            meaning = Meaning(device, settings_key(given.constants), tuple(given.dims.items()), present_of(signature, present, without))
            for each in backends_for(backend, emit, device):
                say(f"compiling {name} for {device} by {each}")
                made = compile_kernel(unit, meaning, Choice(each, wide, aligned, pinned)).emit(emit)
                binary |= isinstance(made, bytes)
                results[f"{name}.{each}.{SUFFIXES[emit]}"] = made if isinstance(made, bytes) else made.encode()
    for path in deliver(results, out, text=not binary):
        session.note(f"wrote {path}")


def integer(text: str, what: str) -> int:
    """An integer from the command line."""
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f"{what} must be an integer, not '{text}'") from None


def backends_for(asked: str | None, emit: str, target: Target) -> list[Backend]:
    """The backends named, or all that have such a kind of output for the target. Raises NSA0606 where none has it, NSA0604 where one is missing."""
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
