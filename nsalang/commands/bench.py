"""``nsalang bench``: how fast a kernel is on this machine, and how fast the compiler is."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from nsalang import ir
from nsalang.base.target import Target, parse_target
from nsalang.build.backends import choose_backend
from nsalang.build.pipeline import Choice, Unit, lower, prepare, typed
from nsalang.commands.python_files import no_kernel
from nsalang.commands.settings import allow_option, define_options, meaning_of, pairs, pin_option, pinned, seed_option
from nsalang.host.memory import enough_memory
from nsalang.launch.options import check_here
from nsalang.report.terminal import Session, session_options
from nsalang.toolchain.backends import BACKENDS, BackendName

if TYPE_CHECKING:
    from nsalang.commands.inputs import Case

STAGES = ("parse", "typecheck", "passes", "lower")


@click.command("bench")
@click.argument("files", nargs=-1)
@define_options
@click.option("-t", "--target", help="Default: this machine's first device, or cpu. With --compile-time: cuda:sm_90.")
@click.option("-b", "--backend", type=click.Choice([*BACKENDS, "both"]), default="both", show_default=True)
@pin_option
@allow_option
@seed_option
@click.option("--events", is_flag=True, help="On a GPU: time launches by the host with CUDA events, not replays of a CUDA graph.")
@click.option(
    "--compile-time", is_flag=True, help="Milliseconds from text to source, by stage, for each kernel of FILES (default: the examples)."
)
@click.option("--repeat", type=click.IntRange(1, 1_000_000), default=5, show_default=True, help="With --compile-time: the best of so many.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output instead of a table.")
@session_options
@click.pass_obj
def command(
    session: Session, files: tuple[str, ...], defines: tuple[str, ...], present: tuple[str, ...], without: tuple[str, ...],
    target: str | None, backend: str, pins: tuple[str, ...], allow: Literal["unknown"] | None, seed: int, events: bool, compile_time: bool, repeat: int, as_json: bool,
) -> None:  # fmt: skip
    """nsalang bench FILE [KERNEL] -D M=4096,N=16384 times a kernel; nsalang bench --compile-time [FILES] times the compiler."""
    raw = pairs(defines, "-D")
    schedule = pinned(pins)
    if compile_time:
        if python := [f for f in files if f.endswith(".py")]:
            raise click.UsageError(f"--compile-time begins with the text of a .nsa file, and {python[0]} is a Python file")
        paths = [Path(f) for f in files] or examples()
        with session.progress("compiling") as say:
            rows = compile_times(
                paths,
                raw,
                target or "cuda:sm_90",
                [b for b in BACKENDS if backend in (b, "both")],
                repeat,
                say,
                schedule,
                allow is not None,
            )
        if as_json:
            click.echo(json.dumps(rows, indent=1))
            return
        columns = ["kernel", "backend", *STAGES, "total", "first"]
        cells = [[r["kernel"], r["backend"], *(f"{r[s]:.1f}" for s in (*STAGES, "total", "first"))] for r in rows]
        session.table(f"Milliseconds from text to source, best of {repeat} ('first' with imports)", columns, cells, right=columns[2:])
        return
    if not 1 <= len(files) <= 2:
        raise click.UsageError("bench takes a FILE and a KERNEL (or --compile-time)")
    from nsalang.commands.inputs import case_of
    from nsalang.commands.run import here

    device = parse_target(target or here())
    check_here(device)
    case = case_of(files[0], files[1] if len(files) == 2 else None, defines, present, without, (), seed, device)
    with enough_memory(f"what '{case.kernel.unit.name}' makes with {case.sizes}"):
        row = _bench(
            session,
            case,
            [choose_backend(b, device) for b in BACKENDS if backend in (b, "both")],
            events,
            {"schedule": dict(schedule) or None, "allow": allow},
        )
    if as_json:
        click.echo(json.dumps(row, indent=1))
        return
    cells = [[r["backend"], f"{r['us']:.2f}", f"{r['least_us']:.2f}", f"{r['gb_s']:.1f}", r["samples"], r["method"]] for r in row["times"]]
    title = f"{row['kernel']} {row['sizes']} on {row['device']} ({row['bytes'] / 1e6:.2f} MB)"
    session.table(
        title, ["backend", "median µs", "least µs", "GB/s", "samples", "method"], cells, right=["median µs", "least µs", "GB/s", "samples"]
    )


def _bench(session: Session, case: Case, backends: list[BackendName], events: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    from nsalang.bench.measure import bytes_of, measure

    place = "cpu" if case.target.kind == "cpu" else "cuda"
    name = case.kernel.unit.name
    arguments: dict[str, Any] = {n: v.to(place) if isinstance(v, torch.Tensor) else v for n, v in case.arguments.items()}
    outputs = case.tensors("out")
    times: list[dict[str, Any]] = []
    moved = 0
    for each in backends:
        with session.progress(f"compiling {name} by {each}") as say:
            made = case.kernel(**arguments, backend=each, target=case.target, **options)
            filled = dict(zip(outputs, made if isinstance(made, tuple) else (made,), strict=True)) if outputs else {}
            moved = bytes_of(v for v in {**arguments, **filled}.values() if isinstance(v, torch.Tensor))
            say(f"measuring {name} by {each}")
            timing = measure(_call(case, {**arguments, **filled}, each, options), place, method="events" if events else None)
        figures = {
            "us": timing.us,
            "least_us": timing.least_us,
            "gb_s": timing.gb_s(moved),
            "samples": timing.samples,
            "method": timing.method,
        }
        times.append({"backend": each, **figures})
    device = torch.cuda.get_device_name() if place == "cuda" else "cpu"
    return {"kernel": name, "sizes": case.sizes, "device": device, "target": str(case.target), "bytes": moved, "times": times}


def _call(case: Case, arguments: dict[str, Any], backend: BackendName, options: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: case.kernel(**arguments, backend=backend, target=case.target, **options)


def examples() -> list[Path]:
    """The .nsa files that come with nsalang, shortest first."""
    from importlib.resources import as_file, files

    with as_file(files("nsalang.kernels")) as folder:
        return sorted(folder.glob("*.nsa"), key=lambda p: p.stat().st_size)


def compile_times(
    paths: list[Path],
    raw: dict[str, str],
    target: str,
    backends: list[BackendName],
    repeat: int,
    say: Callable[[str], None],
    pins: tuple[ir.Pin, ...] = (),
    allow: bool = False,
) -> list[dict[str, Any]]:
    """For each kernel and backend: milliseconds of each stage in the quickest of ``repeat`` rounds, and of the whole first round."""
    from nsalang.syntax.parser import parse, read_source
    from nsalang.types.missing_grid import check_grids
    from nsalang.types.typecheck import kernel_names

    device = parse_target(target)
    rows: list[dict[str, Any]] = []
    for path in paths:
        tree = parse(read_source(path))
        check_grids(tree)
        if not (names := kernel_names(tree)):
            raise no_kernel(str(path), "a kernel is a def with one 'for … in grid(…)'")
        for name in names:
            for backend in backends:
                say(f"compiling {name} by {backend}")
                rounds = [_round(path, name, raw, device, backend, pins, allow) for _ in range(repeat)]
                best = min(rounds, key=sum)
                rows.append(
                    {
                        "kernel": name,
                        "backend": backend,
                        **dict(zip(STAGES, best, strict=True)),
                        "total": sum(best),
                        "first": sum(rounds[0]),
                    }
                )
    return rows


def _round(
    path: Path, name: str, raw: dict[str, str], device: Target, backend: BackendName, pins: tuple[ir.Pin, ...], allow: bool
) -> list[float]:
    from nsalang.launch.kernel import Kernel
    from nsalang.syntax.parser import parse, read_source

    marks = [time.perf_counter()]
    tree = parse(read_source(path))
    marks.append(time.perf_counter())
    kernel = Kernel(Unit(tree, name))
    signature = kernel.signature
    sizes = {d: str(32) for d in signature.specialised}
    given = {n: v for n, v in raw.items() if signature.parameter(n) is not None or n in signature.specialised}
    start = typed(kernel.unit, meaning_of(kernel, {**sizes, **given}, (), (), device))
    marks.append(time.perf_counter())
    done = prepare(start, device, Choice(backend, pinned=pins, allow_unknown=allow))
    marks.append(time.perf_counter())
    lower(done, device)
    marks.append(time.perf_counter())
    return [(b - a) * 1e3 for a, b in itertools.pairwise(marks)]
