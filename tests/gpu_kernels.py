"""Every kernel of sparse attention on this machine's GPU, on both backends, against the float64 references.

    PYTHONPATH=. python tests/gpu_kernels.py [--only sparse_mla "H64"] [--limit 500] [--json FILE [--resume]]

Each case: the outputs against the reference at its tolerance, with spoiled inputs (gpu_cases.py); 20 runs with the same bits, outputs filled with
NaN before each; and where a case has 64 rows, a row's bits alone, among 7 and among 64. First all variants are compiled side by side, each in a
process of its own under a time limit, then the cases run in a few processes, the most important first; a case that faults or hangs ends its
process alone. Prints a table last; exit code 1 where anything is wrong or was not run. ``--device cpu --list tiny`` tries the script itself.

    PYTHONPATH=. python tests/gpu_kernels.py --sanitizer memcheck        (or racecheck, initcheck, synccheck)

The small cases under NVIDIA's compute-sanitizer, each tensor an allocation of its own, one run each, the references on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_compile import compile_all
from gpu_data import Case
from gpu_lists import LISTS
from gpu_runs import Row, run_case

from nsalang.toolchain.backends import BACKENDS

HERE = Path(__file__).resolve()
FOLDER = HERE.parent.parent / "examples"
FILES = {"sparse_mla_decode": "sparse_mla_decode", "sparse_mla_fp8": "sparse_mla_fp8"}
SANITIZER = ("--target-processes", "application-only", "--report-api-errors", "no", "--print-limit", "20")
REPORT = re.compile(
    r"Invalid|Misaligned|Out-of-range|Illegal|Race reported|hazard|Uninitialized|Barrier error|Internal|ERROR SUMMARY: [1-9]"
)


def chosen(options: argparse.Namespace) -> list[Case]:
    """Cases of which the name has one of the words of ``--only``."""
    found = {c.name: c for c in LISTS[options.list]()}
    return [c for c in found.values() if not options.only or any(w in c.name for w in options.only)]


def worker(options: argparse.Namespace) -> int:
    """Names of cases on standard input, a line of JSON for each backend on standard output, and an empty line after each case."""
    cases, loaded = {c.name: c for c in chosen(options)}, {}
    torch.set_num_threads(2)
    for line in sys.stdin:
        name, _, backends = line.rstrip("\n").partition("\t")
        try:
            for row in run_case(cases[name], backends.split(), options.device, options.folder, loaded, options.sanitizer is not None):
                print(json.dumps(row), flush=True)
        except torch.cuda.OutOfMemoryError as error:
            print(json.dumps({"memory": str(error)}), flush=True)
        except RuntimeError as error:
            # A fault of the GPU ends what this process can do.
            print(json.dumps({"fault": f"{type(error).__name__}: {str(error)[:300]}"}), flush=True)
            os._exit(3)
        if options.device == "cuda":
            torch.cuda.empty_cache()
        print(flush=True)
    return 0


# ----------------------------------------------------------------------------------------------------------------------------- parent


def sanitizer() -> str:
    found = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin")
    )
    assert found is not None, "compute-sanitizer is not here"
    return found


class Worker:
    """A process that runs cases, started again when one ends it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.command = [
            sys.executable, str(HERE), "--worker", "--list", options.list, "--device", options.device, "--folder", str(options.folder),
        ]  # fmt: skip
        self.environment = dict(os.environ)
        if options.sanitizer is not None:
            tool = sanitizer()
            self.command = [tool, "--tool", options.sanitizer, *SANITIZER, *self.command, "--sanitizer", options.sanitizer]
            self.environment |= {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
            if options.sanitizer == "memcheck":
                self.command[3:3] = ["--padding", "1024"]
        self.process: subprocess.Popen[str] | None = None
        self.buffer = ""
        self.reports: list[str] = []

    def line(self, until: float) -> str | None:
        """The next line; None where the process ends, or too late. What the sanitizer says is kept apart."""
        while (line := self.any_line(until)) is not None and line.startswith("========="):
            if REPORT.search(line):
                self.reports.append(line[9:].strip())
        return line

    def any_line(self, until: float) -> str | None:
        assert self.process is not None and self.process.stdout is not None
        while "\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 1 << 16).decode() if ready else ""
            if not more:
                return None
            self.buffer += more
        line, _, self.buffer = self.buffer.partition("\n")
        return line

    def run(self, case: Case, backends: Sequence[str], limit: float) -> list[Row]:
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
                env=self.environment,
            )  # fmt: skip
            self.buffer = ""
        assert self.process.stdin is not None
        print(f"{case.name}\t{' '.join(backends)}", file=self.process.stdin, flush=True)
        rows: list[Row] = []
        until = time.monotonic() + limit
        while (line := self.line(until)) != "":
            row: Row = {} if line is None else json.loads(line)
            reports, self.reports = self.reports, []
            told = f"{len(reports)} reports: {' | '.join(dict.fromkeys(reports))}"[:1500] if reports else ""
            if "backend" in row:
                rows.append(row | {"ok": False, "why": "; ".join(filter(None, (row["why"], told)))} if told else row)
                continue
            late = line is None and self.process.poll() is None
            why = (
                row.get("fault")
                or (f"out of memory: {row['memory']}" if "memory" in row else "")
                or (f"not done after {limit:.0f} s" if late else f"the process ended with {self.process.wait()}")
            )
            why = "; ".join(filter(None, (why, told)))
            left = [b for b in backends if b not in {r["backend"] for r in rows}]
            rows.append({"kernel": case.kernel, "case": case.name, "backend": left[0], "ok": False, "worst": None, "why": why})
            if "memory" not in row:
                self.end()
                return rows + (self.run(case, left[1:], limit) if left[1:] else [])
        return rows

    def end(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="WORDS", help="cases whose name has one of these")
    parser.add_argument("--list", choices=LISTS, help="default: all, with --sanitizer small")
    parser.add_argument("--sanitizer", choices=("memcheck", "racecheck", "initcheck", "synccheck"))
    parser.add_argument("--names", action="store_true", help="print the names of the cases and end")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the kernels are")
    parser.add_argument("--backends", nargs="*", default=list(BACKENDS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--target", help="for --compile-only: another than this machine's")
    parser.add_argument("--compile-only", action="store_true", help="fill the cache, and run nothing")
    parser.add_argument("--limit", type=float, default=500, help="seconds for all; no case starts after them")
    parser.add_argument("--compile-limit", type=float, default=60, help="seconds for a variant to compile")
    parser.add_argument("--compile-share", type=float, default=0.6, help="of --limit, at most, for compiling")
    parser.add_argument("--case-limit", type=float, default=60, help="seconds for a case")
    parser.add_argument("--workers", type=int, default=min(6, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true", help="leave out what is right in --json")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.list = options.list or ("small" if options.sanitizer else "all")
    if options.worker:
        return worker(options)
    cases = chosen(options)
    if options.names:
        print("\n".join(c.name for c in cases))
        return 0
    begin = time.monotonic()
    target, device = machine(options)
    rows: list[Row] = []
    if options.resume and options.json is not None and options.json.exists():
        rows = [r for r in json.loads(options.json.read_text())["rows"] if r["ok"]]
    right = {(r["case"], r["backend"]) for r in rows}
    todo = [(c, [b for b in options.backends if (c.name, b) not in right]) for c in cases]
    todo = [(c, b) for c, b in todo if b]
    late = compile_all(
        [c for c, _ in todo], options.backends, target, options.folder, options.compile_limit, begin + options.limit * options.compile_share
    )
    compiled = time.monotonic() - begin
    print(f"compiled in {compiled:.0f} s", flush=True)
    if options.compile_only:
        for (name, backend), why in late.items():
            print(f"{name} {backend}: {why}")
        return 1 if late else 0
    missing = run_all(options, todo, late, rows, begin + options.limit)
    about = {
        "device": device,
        "target": target,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": time.monotonic() - begin,
        "sanitizer": options.sanitizer,
    }
    save(options.json, {**about, "compile_seconds": compiled, "not_run": missing, "rows": rows})
    return summary(rows, missing, about)


def machine(options: argparse.Namespace) -> tuple[str, str]:
    """The target and the device's name, asked in another process: this one forks."""
    if options.target or options.device == "cpu":
        return options.target or "cpu", options.device
    code = "import torch; from nsalang.launch.options import device_target; print(device_target('cuda', 0), torch.cuda.get_device_name(), sep='\\n')"
    target, device = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()[-2:]
    return target, device


def run_all(
    options: argparse.Namespace, todo: Sequence[tuple[Case, list[str]]], late: Mapping[tuple[str, str], str], rows: list[Row], until: float
) -> list[str]:
    """Run the cases, and add their rows. Gives the names of those that were not run."""
    waiting: queue.SimpleQueue[tuple[Case, list[str]]] = queue.SimpleQueue()
    for case, backends in todo:
        rows += [
            {"kernel": case.kernel, "case": case.name, "backend": b, "ok": False, "worst": None, "why": late[case.name, b]}
            for b in backends
            if (case.name, b) in late
        ]
        if left := [b for b in backends if (case.name, b) not in late]:
            waiting.put((case, left))
    missing: list[str] = []
    lock = threading.Lock()

    def serve() -> None:
        runner = Worker(options)
        while True:
            try:
                case, backends = waiting.get_nowait()
            except queue.Empty:
                break
            if time.monotonic() > until:
                with lock:
                    missing.append(case.name)
                continue
            found = runner.run(case, backends, options.case_limit)
            with lock:
                rows.extend(found)
                for r in found:
                    if not r["ok"]:
                        print(f"  {r['backend']} {r['case']}: {r['why'][:400]}", flush=True)
                save(options.json, {"rows": rows})
        runner.end()

    threads = [threading.Thread(target=serve) for _ in range(options.workers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return missing


def save(path: Path | None, result: Mapping[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(json.dumps(result, indent=1) + "\n")
        temporary.replace(path)


def summary(rows: Sequence[Row], missing: Sequence[str], about: Mapping[str, Any]) -> int:
    """One line for each kernel and backend; every case that is wrong."""
    wrong = [r for r in rows if not r["ok"]]
    print(f"\n{about['device']}, {about['target']}, {about['seconds']:.0f} s, sanitizer {about['sanitizer'] or 'off'}")
    print(f"{'kernel':20}{'backend':10}{'cases':>6}{'right':>6}{'runs':>6}{'batches':>9}  worst error / bound, in case")
    for name, backend in dict.fromkeys((r["kernel"], r["backend"]) for r in rows):
        own = [r for r in rows if (r["kernel"], r["backend"]) == (name, backend)]
        worst = max((r for r in own if r["worst"] is not None), key=lambda r: r["worst"], default=None)
        told = "" if worst is None else f"{worst['worst']:.3f}, {worst['case'].partition(' ')[2]}"
        right, runs, batched = sum(r["ok"] for r in own), sum(r.get("runs", 0) for r in own), sum("batches" in r for r in own)
        print(f"{name:20}{backend:10}{len(own):6}{right:6}{runs:6}{batched:9}  {told}")
    for r in wrong[:30]:
        print(f"WRONG {r['backend']} {r['case']}: {r['why'][:300]}")
    if missing:
        print(f"not run for want of time: {len(missing)}: {', '.join(missing[:5])} …")
    print(f"{len(rows)} cases, {len(wrong)} wrong, {len(missing)} not run")
    return 1 if wrong or missing or not rows else 0


if __name__ == "__main__":
    raise SystemExit(main())
