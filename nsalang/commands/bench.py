"""``nsalang bench``: how fast a kernel is on this machine, and how fast the compiler is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nsalang import ir
from nsalang.commands.settings import const_settings, define_options, kernels_of, one_kernel, pairs, present_of, sort_out
from nsalang.commands.terminal import Session, session_options
from nsalang.driver import BACKENDS, Backend, Choice, Meaning, Unit, choose_backend, lower, prepare, settings_key, typed
from nsalang.target import parse_target

STAGES = ("parse", "typecheck", "passes", "lower")


@click.command("bench", short_help="Time a kernel here, or with --compile-time the compiler.")
@click.argument("files", nargs=-1)
@define_options
@click.option("-t", "--target", help="Default: this machine's first device, or cpu. With --compile-time: cuda:sm_90.")
@click.option("-b", "--backend", type=click.Choice([*BACKENDS, "both"]), default="both", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the random inputs.")
@click.option("--events", is_flag=True, help="On a GPU: time launches by the host with CUDA events, not replays of a CUDA graph.")
@click.option("--compile-time", is_flag=True, help="Milliseconds from text to source, by stage, for each kernel of FILES (default: the examples).")
@click.option("--repeat", default=5, show_default=True, help="With --compile-time: the best of so many.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output instead of a table.")
@session_options
@click.pass_obj
def command(
    session: Session, files: tuple[str, ...], defines: tuple[str, ...], present: tuple[str, ...], without: tuple[str, ...], target: str | None,
    backend: str, seed: int, events: bool, compile_time: bool, repeat: int, as_json: bool,
) -> None:  # fmt: skip
    """nsalang bench FILE [KERNEL] -D M=4096,N=16384 times a kernel; nsalang bench --compile-time [FILES] times the compiler."""
    raw = pairs(defines, "-D")
    if compile_time:
        paths = [Path(f) for f in files] or examples()
        with session.progress("compiling") as say:
            rows = compile_times(paths, raw, target or "cuda:sm_90", [b for b in BACKENDS if backend in (b, "both")], repeat, say)
        if as_json:
            click.echo(json.dumps(rows, indent=1))
            return
        columns = ["kernel", "backend", *STAGES, "total", "first"]
        cells = [[r["kernel"], r["backend"], *(f"{r[s]:.1f}" for s in (*STAGES, "total", "first"))] for r in rows]
        session.table(f"Milliseconds from text to source, best of {repeat} ('first' with imports)", columns, cells, right=columns[2:])
        return
    if not 1 <= len(files) <= 2:
        raise click.UsageError("bench takes a FILE and a KERNEL (or --compile-time)")
    row = _bench(session, files, raw, present, without, target, backend, seed, events)
    if as_json:
        click.echo(json.dumps(row, indent=1))
        return
    cells = [[r["backend"], f"{r['us']:.2f}", f"{r['least_us']:.2f}", f"{r['gb_s']:.1f}", r["samples"], r["method"]] for r in row["times"]]
    title = f"{row['kernel']} {row['sizes']} on {row['device']} ({row['bytes'] / 1e6:.2f} MB)"
    session.table(title, ["backend", "median µs", "least µs", "GB/s", "samples", "method"], cells, right=["median µs", "least µs", "GB/s", "samples"])


def _bench(
    session: Session, files: tuple[str, ...], raw: dict[str, str], present: tuple[str, ...], without: tuple[str, ...], target: str | None,
    backend: str, seed: int, events: bool,
) -> dict[str, Any]:  # fmt: skip
    import torch

    from nsalang import load
    from nsalang.commands.inputs import random_arguments, solve_dims
    from nsalang.commands.run import here
    from nsalang.measure import bytes_of, measure
    from nsalang.parser import parse, read_source

    tree = parse(read_source(files[0]))
    unit = Unit(tree, one_kernel(tree, files[1] if len(files) == 2 else None))
    signature = unit.signature(const_settings(unit.function, raw))
    given = sort_out(raw, signature)
    target = target or here()
    device = parse_target(target)
    place = "cpu" if device.kind == "cpu" else "cuda"
    chosen = present_of(signature, present, without)
    dims = solve_dims(signature, {}, given.dims)
    kernel_ir = typed(unit, Meaning(device, settings_key(given.constants), tuple((d, dims[d]) for d in signature.specialised), chosen))
    arguments = random_arguments(signature, kernel_ir, {}, given.constants, dims, given.scalars, chosen, seed)
    arguments = {n: v.to(place) if isinstance(v, torch.Tensor) else v for n, v in arguments.items()}
    kernel = getattr(load(files[0]), unit.name)
    outputs = [t.name for t in kernel_ir.tensors if t.role == "out"]
    times: list[dict[str, Any]] = []
    tensors: dict[str, torch.Tensor] = {}
    for each in [choose_backend(b, device) for b in BACKENDS if backend in (b, "both")]:
        with session.progress(f"compiling {unit.name} by {each}") as say:
            made = kernel(**arguments, backend=each, target=target)
            filled = dict(zip(outputs, made if isinstance(made, tuple) else (made,), strict=True)) if outputs else {}
            tensors = {n: v for n, v in {**arguments, **filled}.items() if isinstance(v, torch.Tensor)}
            say(f"measuring {unit.name} by {each}")
            call = _call(kernel, {**arguments, **filled}, each, target)
            timing = measure(call, place, method="events" if events else None)
        rate = timing.gb_s(bytes_of(tensors.values()))
        times.append({"backend": each, "us": timing.us, "least_us": timing.least_us, "gb_s": rate, "samples": timing.samples, "method": timing.method})
    name = torch.cuda.get_device_name() if place == "cuda" else "cpu"
    sizes = " ".join(f"{n}={v}" for n, v in {**dims, **given.constants, **given.scalars}.items())
    return {"kernel": unit.name, "sizes": sizes, "device": name, "target": target, "bytes": bytes_of(tensors.values()), "times": times}


def _call(kernel: Any, arguments: dict[str, Any], backend: Backend, target: str) -> Callable[[], object]:
    return lambda: kernel(**arguments, backend=backend, target=target)


def examples() -> list[Path]:
    """The .nsa files that come with nsalang, shortest first."""
    from importlib.resources import as_file, files

    with as_file(files("nsalang.kernels")) as folder:
        return sorted(folder.glob("*.nsa"), key=lambda p: p.stat().st_size)


def compile_times(
    paths: list[Path], raw: dict[str, str], target: str, backends: list[Backend], repeat: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """For each kernel and backend: milliseconds of each stage in the quickest of ``repeat`` rounds, and of the whole first round."""
    from nsalang.parser import parse, read_source

    device = parse_target(target)
    rows: list[dict[str, Any]] = []
    for path in paths:
        for name in kernels_of(parse(read_source(path)), None):
            for backend in backends:
                say(f"compiling {name} by {backend}")
                rounds = [_round(path, name, raw, device, backend) for _ in range(max(1, repeat))]
                best = min(rounds, key=sum)
                rows.append({"kernel": name, "backend": backend, **dict(zip(STAGES, best, strict=True)), "total": sum(best), "first": sum(rounds[0])})
    return rows


def _round(path: Path, name: str, raw: dict[str, str], device: Any, backend: Backend) -> list[float]:
    from nsalang.parser import parse, read_source

    marks = [time.perf_counter()]
    tree = parse(read_source(path))
    marks.append(time.perf_counter())
    unit = Unit(tree, name)
    signature = unit.signature(const_settings(unit.function, raw))
    given = sort_out({n: v for n, v in raw.items() if signature.parameter(n) or n in signature.dims}, signature)
    meaning = Meaning(device, settings_key(given.constants), tuple((d, given.dims.get(d, 64)) for d in signature.specialised))
    kernel: ir.Kernel = typed(unit, meaning)
    marks.append(time.perf_counter())
    kernel = prepare(kernel, device, Choice(backend))
    marks.append(time.perf_counter())
    lower(kernel, device)
    marks.append(time.perf_counter())
    return [(b - a) * 1e3 for a, b in zip(marks, marks[1:], strict=False)]
