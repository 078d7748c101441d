"""Kernels on this machine's GPU under `compute-sanitizer --tool memcheck`, and against the interpreter.

    PYTHONPATH=. python tests/gpu_memcheck.py [--count 2] [--files examples/softmax.nsa ...] [--only softmax ...] [--plain] [--limit 240]

By default: the examples, and bools, gathers, what was mended, scales and sparse attention of tests/cases. Variants are compiled side by side; a
kernel runs under the sanitizer as soon as its own are there, in processes that go on after a fault. A program that is told of one row too
many shows that this is caught. Exit code 1 where anything is wrong or was not run. Each tensor is an allocation of its own and ends where
that ends (PYTORCH_NO_CUDA_MEMORY_CACHING=1). Calls: contiguous and aligned; one element behind an aligned address; rows apart; last stride
2; the guarded variant forced where the exact one would run; and, for one size of each kernel, 64-bit offsets forced and checks compiled in.
``--plain``: without the sanitizer.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch
from edge_cases import LAYOUTS, Case, NoSizes, call, cases, extent_in_bytes, kernels, load

from nsalang.base.source import NsaError
from nsalang.build.compiled import compile_kernel
from nsalang.build.pipeline import Choice
from nsalang.launch import launcher as launching
from nsalang.launch.options import device_target
from nsalang.toolchain.backends import BACKENDS

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
FILES = (
    *sorted((ROOT / "examples").glob("*.nsa")),
    *(ROOT / "tests" / "cases" / f"{n}.nsa" for n in ("bools", "gathers", "mended", "scales", "sparse_lse")),
)
MODES = (*((layout, "auto") for layout in LAYOUTS), ("end", "guarded"))
ONCE = (("end", "wide"), ("end", "checked"))
"""For the first size only: each is one more variant to compile."""
SANITIZER = ("--tool", "memcheck", "--target-processes", "application-only", "--padding", "1024", "--print-limit", "2")
SANITIZERS = 4
"""Processes under the sanitizer at once."""

Job: TypeAlias = tuple[str, Path, str]
"""Kernel, file, backend."""


def jobs(files: Sequence[Path], only: Sequence[str]) -> list[Job]:
    wanted = {f.resolve() for f in files}
    found = [(n, path, b) for n, path in kernels() if path.resolve() in wanted and (not only or n in only) for b in BACKENDS]
    return sorted(found, key=lambda j: j[2] == "triton")  # TileLang's compiler is the slower one


def target() -> str:
    return str(device_target("cuda", torch.cuda.current_device()))


def modes(case: Case) -> tuple[tuple[str, str], ...]:
    return (*MODES, *(ONCE if case.number == 0 else ()))


# ---------------------------------------------------------------------------------------------------------------------- children


def compile_variants(job: Job, count: int, target: str) -> str:
    """Fill the cache with what the calls of one kernel need. Gives why there are none; empty where there are."""
    name, path, backend = job
    done = set()
    try:
        kernel = load(name, path)
        for case in cases(kernel, target, count):
            for aligned, exact, wide, checked in itertools.product((True, False), (True, False), (False, True), (False, True)):
                if (wide or checked) and (not aligned or wide and checked or case.number):
                    continue
                choice = Choice("triton" if backend == "triton" else "tilelang", wide=wide, aligned=aligned, exact=exact, checked=checked)
                compiled = compile_kernel(kernel.unit, case.variant, choice, kernel=case.meaning)
                if compiled.key not in done:
                    done.add(compiled.key)
                    compiled.artifact  # noqa: B018 (asked for, it is compiled and kept)
    except NsaError as error:
        return error.diagnostics[0].code
    except NoSizes:
        return "no sizes"
    return ""


def place(shape: tuple[int, ...], dtype: torch.dtype, strides: tuple[int, ...], shift: int) -> torch.Tensor:
    """A tensor whose last byte is the last of its allocation; it begins ``shift`` elements behind the allocation's first."""
    size = extent_in_bytes(shape, strides, dtype.itemsize)
    if not size:
        return torch.empty(shape, dtype=dtype, device="cuda")
    flat = torch.zeros(size + shift * dtype.itemsize, dtype=torch.uint8, device="cuda")
    return flat.view(dtype).as_strided(shape, strides, shift)


def serve(count: int, lie: bool) -> int:
    """Run the calls of the kernels that stdin names (kernel, backend, file, how many calls to leave out): a line before each, and one after it."""
    exact, wide = launching.is_exact, launching.needs_wide
    for line in sys.stdin:
        name, backend, skip, path = line.rstrip("\n").split(" ", 3)
        number = 0
        for case in cases(load(name, Path(path)), target(), count):
            for layout, mode in modes(case):
                number += 1
                if number <= int(skip):
                    continue
                case.kernel.launcher._plans.clear()
                launching.is_exact = (lambda *_: False) if mode == "guarded" else exact
                launching.needs_wide = (lambda *_: True) if mode == "wide" else wide
                print(f"case {number} {case.title} {backend} {layout} {mode}", flush=True)
                if lie:
                    _lie()
                print(f"done {_one(case, layout, mode, backend)}", flush=True)
        print("end", flush=True)
    return 0


def _one(case: Case, layout: str, mode: str, backend: str) -> str:
    options = {"check": True} if mode == "checked" else {}
    try:
        problems = call(
            case,
            lambda n, shape, dtype, strides: place(shape, dtype, strides, int(layout == "start")),
            layout,
            backend,
            target(),
            **options,
        )
        torch.cuda.synchronize()
    except NsaError as error:
        found = error.diagnostics[0]
        # A backend cannot lower it, or a view cannot have this layout: that is another test's matter.
        return f"skipped {found.code}" if found.code[3:5] == "04" or found.code == "NSA0521" else f"wrong {found.code} {found.sentence}"
    return f"wrong {'; '.join(problems)}" if problems else "ok"


def _lie() -> None:
    """Make the kernels' code believe in more elements than there are."""
    from nsalang.toolchain import tilelang_compile, triton_compile

    for module in (triton_compile, tilelang_compile):
        load_program = module.load_program
        if load_program.__name__ == "lying":
            continue

        def lying(program, files, load_program=load_program):  # type: ignore[no-untyped-def]
            launch = load_program(program, files)
            at = next(i for i, a in enumerate(program.arguments) if a.name == "N")
            return lambda programs, arguments: launch(programs, [v + 1 if i == at else v for i, v in enumerate(arguments)])

        module.load_program = lying


# ------------------------------------------------------------------------------------------------------------------------ parent


@dataclass(slots=True)
class Row:
    calls: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)
    done: bool = False


class Sanitized:
    """A child under the sanitizer that serves jobs; a new one where it ended."""

    def __init__(self, count: int, plain: bool, lie: bool = False) -> None:
        tool = shutil.which("compute-sanitizer") or shutil.which(
            "compute-sanitizer", path=os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin")
        )
        assert plain or tool, "compute-sanitizer is not here; --plain runs without it"
        self.command = ([] if plain or tool is None else [tool, *SANITIZER]) + [sys.executable, str(HERE), "--serve", "--count", str(count)]
        self.command += ["--lie"] if lie else []
        self.process: subprocess.Popen[str] | None = None

    def lines(self, job: Job, skip: int) -> Iterator[str]:
        """What it says of one job, the sanitizer's lines among it; the last is ``end``, or ``exit`` and its exit code."""
        if self.process is None:
            environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONUNBUFFERED": "1"}
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        name, path, backend = job
        try:
            self.process.stdin.write(f"{name} {backend} {skip} {path}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its exit code is told below
        for line in self.process.stdout:
            yield line.rstrip("\n")
            if line == "end\n":
                return
        code, self.process = self.process.wait(), None
        yield f"exit {code}"

    def run(self, job: Job, row: Row, stopped: threading.Event) -> None:
        """All calls of a job, in as many processes as faults make necessary."""
        done = 0
        while not stopped.is_set():
            begun, title, tail = done, "", [""]
            for line in self.lines(job, done):
                tail = [*tail[-5:], line]
                if line.startswith("case "):
                    done, title = int(line.split()[1]), line
                    row.calls += 1
                elif line.startswith("done wrong"):
                    row.wrong.append(f"{title}: {line[11:]}")
                elif line.startswith("done skipped"):
                    row.skipped.add(line.split()[2])
                    row.calls -= 1
                elif line.startswith(("========= Invalid", "========= Misaligned", "========= Out-of-range", "========= Illegal")):
                    row.errors.append(f"{title}: {line[10:]}")
            if tail[-1] == "end":
                row.done = True
                return
            if stopped.is_set():
                return
            row.wrong.append(f"{title or job[0]}: the process ended, {' | '.join(tail)}"[:1500])
            if done == begun:
                row.done = True
                return  # it ends before a call: once more would be the same

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()


@dataclass(slots=True)
class Check:
    """All jobs, compiled by a pool of processes and run by a few under the sanitizer."""

    count: int
    plain: bool
    begin: float = field(default_factory=time.monotonic)
    rows: dict[Job, Row] = field(default_factory=dict)
    ready: queue.Queue[Job | None] = field(default_factory=queue.Queue)
    stopped: threading.Event = field(default_factory=threading.Event)
    workers: list[Sanitized] = field(default_factory=list)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.begin:4.0f} s] {text}", flush=True)

    def compiled(self, job: Job, future: Future[str]) -> None:
        row = self.rows[job]
        if self.stopped.is_set() or future.cancelled():
            return
        if (error := future.exception()) is not None:
            row.wrong.append(f"{job[0]} {job[2]} does not compile: {type(error).__name__} {error}")
            row.done = not isinstance(error, BrokenProcessPool)
        elif why := future.result():
            # The prover refutes it, no size is legal, or a backend cannot lower it: another test's matter. All else is wrong.
            expected = why == "no sizes" or why[3:5] in ("08", "04")
            (row.skipped.add if expected else row.wrong.append)(why)
            row.done = True
            self.say(f"{job[0]} {job[2]}: {'skipped' if expected else 'WRONG'} {why}")
        else:
            self.ready.put(job)

    def worker(self, child: Sanitized) -> None:
        while not self.stopped.is_set() and (job := self.ready.get()) is not None:
            row = self.rows[job]
            child.run(job, row, self.stopped)
            self.say(f"{job[0]} {job[2]}: {row.calls} calls, {len(row.errors) + len(row.wrong)} problems")

    def run(self, wanted: Sequence[Job], limit: float) -> None:
        """Returns when all is done, or after ``limit`` seconds."""
        self.rows = {job: Row() for job in wanted}
        self.workers = [Sanitized(self.count, self.plain) for _ in range(SANITIZERS)]
        threads = [threading.Thread(target=self.worker, args=(w,), daemon=True) for w in self.workers]
        cpus = max(2, (os.cpu_count() or 2) - SANITIZERS)
        pool = ProcessPoolExecutor(cpus, mp_context=multiprocessing.get_context("spawn"))
        machine = target()
        futures = [(job, pool.submit(compile_variants, job, self.count, machine)) for job in wanted]
        for job, future in futures:
            future.add_done_callback(lambda f, job=job: self.compiled(job, f))  # type: ignore[misc]
        for thread in threads:
            thread.start()
        said = False
        while time.monotonic() - self.begin < limit and any(t.is_alive() for t in threads):
            if not said and all(f.done() for _, f in futures):
                self.say("everything is compiled")
                said = True
                for _ in threads:
                    self.ready.put(None)
            time.sleep(0.2)
        self.stopped.set()
        compilers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in compilers:
            process.kill()
        for worker in self.workers:
            worker.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2, help="sizes for each kernel")
    parser.add_argument("--files", nargs="*", type=Path, default=FILES, metavar="FILE", help="of examples and tests/cases")
    parser.add_argument("--only", nargs="*", default=[], metavar="KERNEL")
    parser.add_argument("--plain", action="store_true", help="without compute-sanitizer")
    parser.add_argument("--limit", type=float, default=240, help="seconds after which it stops and says what was not run")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--lie", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.count, options.lie)
    if not torch.cuda.is_available():
        print("tests/gpu_memcheck.py: torch sees no GPU here", file=sys.stderr)
        return 1
    check = Check(options.count, options.plain)
    lied, liar = Row(), Sanitized(1, options.plain, lie=True)
    false = threading.Thread(
        target=liar.run, args=(("vector_add", ROOT / "examples" / "vector_add.nsa", "triton"), lied, check.stopped), daemon=True
    )
    if not options.plain:
        false.start()
    wanted = jobs(options.files, options.only)
    check.run(wanted, options.limit)
    liar.stop()
    print(
        f"\n{torch.cuda.get_device_name()}, {target()}, {time.monotonic() - check.begin:.0f} s, sanitizer {'off' if options.plain else 'memcheck'}"
    )
    print(f"{'kernel':24}{'backend':10}{'calls':>6}{'memcheck':>10}{'differ':>8}  skipped")
    for (name, _, backend), row in check.rows.items():
        state = " ".join(sorted(row.skipped)) if row.done else "NOT ALL RUN"
        print(f"{name:24}{backend:10}{row.calls:6}{len(row.errors):10}{len(row.wrong):8}  {state}")
    problems = [p for row in check.rows.values() for p in (*row.errors, *row.wrong)]
    for problem in problems[:20]:
        print(problem)
    caught = sum("Invalid __global__" in e for e in lied.errors)
    if not options.plain:
        print(f"a program told of one element too many: {f'{caught} reports' if caught else 'NOT CAUGHT'}")
    left = [f"{name} {backend}" for (name, _, backend), row in check.rows.items() if not row.done]
    if left:
        print(f"not all run within {options.limit:g} s: {', '.join(left)}")
    calls = sum(r.calls for r in check.rows.values())
    print(f"{calls} calls, {len(problems)} problems")
    sys.stdout.flush()
    os._exit(1 if problems or left or not calls or (not options.plain and not caught) else 0)


if __name__ == "__main__":
    raise SystemExit(main())
