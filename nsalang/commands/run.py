"""``nsalang run``: one kernel on the same inputs by interpreter, Triton and TileLang, and whether they agree."""

from __future__ import annotations

from pathlib import Path

import click

from nsalang.commands.settings import Given, const_settings, define_options, one_kernel, pairs, present_of, sort_out
from nsalang.commands.terminal import Session, report, session_options
from nsalang.driver import BACKENDS, Meaning, Unit, choose_backend, settings_key, typed
from nsalang.target import parse_target


@click.command("run", short_help="Run a kernel by interpreter, Triton and TileLang, and compare.")
@click.argument("file")
@click.argument("kernel", required=False)
@define_options
@click.option("-i", "--input", "inputs", multiple=True, metavar="[NAME=]FILE", help="A .pt, .npz or .npy file instead of random values.")
@click.option("--seed", default=0, show_default=True, help="Of the random inputs.")
@click.option("-t", "--target", help="Default: this machine's first device, or cpu.")
@click.option("-b", "--backend", type=click.Choice([*BACKENDS, "both"]), default="both", show_default=True, help="What the interpreter is compared with.")
@click.option("--save", metavar="FILE", help="Write the outputs (of the last backend) to a .pt or .npz file.")
@session_options
@click.pass_obj
def command(
    session: Session, file: str, kernel: str | None, defines: tuple[str, ...], present: tuple[str, ...], without: tuple[str, ...],
    inputs: tuple[str, ...], seed: int, target: str | None, backend: str, save: str | None,
) -> None:  # fmt: skip
    """Run KERNEL of FILE. -D M=128,N=512 gives sizes; what no file gives is random. Exit code 1 where the results disagree.

    A kernel without floating-point sum, scan or transcendental function must agree bit for bit, others within the bounds that the
    table's last line says.
    """
    from nsalang import compare, load
    from nsalang.commands.inputs import load_inputs, random_arguments, save_outputs, solve_dims
    from nsalang.parser import parse, read_source

    tree = parse(read_source(file))
    unit = Unit(tree, one_kernel(tree, kernel))
    raw = pairs(defines, "-D")
    signature = unit.signature(const_settings(unit.function, raw))
    given: Given = sort_out(raw, signature)
    target = target or here()
    device = parse_target(target)
    engines = ["interpreter", *((choose_backend(b, device)) for b in BACKENDS if backend in (b, "both"))]
    tensors = load_inputs(inputs, signature, given.constants)
    chosen = present_of(signature, (*present, *(n for n in tensors if (p := signature.parameter(n)) and p.optional)), without)
    dims = solve_dims(signature, tensors, given.dims)
    meaning = Meaning(device, settings_key(given.constants), tuple((d, dims[d]) for d in signature.specialised), chosen)
    kernel_ir = typed(unit, meaning)
    arguments = random_arguments(signature, kernel_ir, tensors, given.constants, dims, given.scalars, chosen, seed)
    with session.progress(f"running {unit.name} for {target}") as say:
        result = compare.compare(
            getattr(load(file), unit.name), arguments, target=target, exact=compare.is_exact(kernel_ir),
            outputs=[t.name for t in kernel_ir.tensors if t.role == "out"], inout=[t.name for t in kernel_ir.tensors if t.role == "inout"],
            partial=kernel_ir.partial, engines=engines, say=say,
        )  # fmt: skip
    show(session, result)
    failures = [run.failure for run in result.runs if run.failure is not None]
    for failure in failures:
        report(failure, session)
    if save is not None and (done := [run.outputs for run in result.runs if run.outputs is not None]):
        save_outputs(Path(save), done[-1])
        session.note(f"wrote {save}")
    if not result.ok:
        raise click.exceptions.Exit(1)


def here() -> str:
    """The target of this machine's first device, or cpu."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    if torch.version.hip:
        return "hip:" + str(torch.cuda.get_device_properties(0).gcnArchName).split(":")[0]
    major, minor = torch.cuda.get_device_capability()
    return f"cuda:sm_{major}{minor}"


def show(session: Session, result: object) -> None:
    """A table with a row for each output and backend, what failed, and the rule."""
    from nsalang import compare

    assert isinstance(result, compare.Comparison)
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
            f"rule: f32 within {compare.RELATIVE:g} of the value + {compare.ABSOLUTE:g} of the largest; bf16 and f16 one representable value more; "
            f"fp8 and integers one step on under {compare.CODES:.1%}"
        )


