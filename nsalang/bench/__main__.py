"""What a GPU machine is asked, in one command, and the page made of its answers.

    python -m nsalang.bench gpu --json out.json [--families …] [--peers peers.py] [--commit HASH]    each family in its own process
    python -m nsalang.bench report docs/benchmarks/*.json > docs/benchmarks.md

``gpu`` exits with 1 where a result disagrees with what it must be or a family of ours fails. Needs neither click nor rich.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nsalang.base.source import NsaError
from nsalang.bench import attention as bench_attention
from nsalang.bench import families as bench_families
from nsalang.report.files import write_files

FAMILIES = bench_families.FAMILIES | bench_attention.FAMILIES
PEERS = {"quant_times": "quant", "row_times": "rows", "launch": "launch", **bench_attention.PEERS}
"""The family of peers.py that goes with one of ours."""
LIMIT = 300
"""Seconds for one family, compiling included."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nsalang.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    gpu = commands.add_parser("gpu", help="correctness and times on this machine's GPU")
    gpu.add_argument("--json", type=Path, help="write everything here")
    gpu.add_argument("--peers", type=Path, help="peers.py, whose families are measured in the same run")
    gpu.add_argument("--peer-families", nargs="*", metavar="FAMILY", help="default: those that go with --families")
    gpu.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES), metavar="FAMILY", help=", ".join(FAMILIES))
    gpu.add_argument("--commit", help="what is measured, where git cannot say")
    gpu.add_argument("--limit", type=_seconds, default=LIMIT, help="seconds for each family")
    gpu.add_argument("--warm", action="store_true", help="run the families side by side first, for what they compile alone")
    family = commands.add_parser("family", help="one family in this process: JSON lines")
    family.add_argument("name", choices=list(FAMILIES))
    report = commands.add_parser("report", help="Markdown from the files that gpu wrote, on standard output")
    report.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "family":
        for row in FAMILIES[options.name]():
            print(json.dumps(row), flush=True)
        return 0
    if options.command == "report":
        from nsalang.bench.tables import markdown

        try:
            results = [json.loads(p.read_text()) for p in options.files]
        except (OSError, ValueError) as error:
            parser.error(f"report reads what gpu wrote: {error}")
        print(markdown(results), end="")
        return 0
    try:
        return _gpu(options)
    except NsaError as error:
        print(error, file=sys.stderr)
        return 1


def _seconds(text: str) -> float:
    """A positive number of seconds. Raises ValueError, which argparse tells."""
    found = float(text)
    if not 0 < found <= threading.TIMEOUT_MAX:
        raise ValueError
    return found


def _gpu(options: argparse.Namespace) -> int:
    import torch

    if not torch.cuda.is_available():
        print("python -m nsalang.bench gpu: torch sees no GPU here", file=sys.stderr)
        return 1
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": torch.cuda.get_device_name(),
        "commit": options.commit or _commit(),
        "command": shlex.join(["python", "-m", "nsalang.bench", *sys.argv[1:]]),
        "versions": _versions(),
        "rows": [],
        "failed": [],
    }
    if options.warm:
        _warm(options.families, options.limit)
    for name in options.families:
        _family([sys.executable, "-m", "nsalang.bench", "family", name], name, options.limit, result, "nsalang")
        _save(result, options.json)
    if options.peers is not None:
        wanted = [PEERS[n] for n in options.families if n in PEERS] if options.peer_families is None else options.peer_families
        for name in dict.fromkeys(wanted):
            _family([sys.executable, str(options.peers), "--family", name], name, options.limit, result, "peers")
            _save(result, options.json)
    _summary(result)
    wrong = any(r.get("ok") is False for r in result["rows"]) or any(f["of"] == "nsalang" for f in result["failed"])
    return 1 if wrong else 0


def _warm(names: Sequence[str], limit: float) -> None:
    """Compile what the families need, all at once: their figures are thrown away."""
    begin = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "nsalang.bench", "family", name],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        for name in names
    ]  # fmt: skip
    for process in running:
        try:
            process.wait(max(0.0, begin + limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
    print(f"== compiled in {time.monotonic() - begin:.0f} s", flush=True)


def _family(command: list[str], name: str, limit: float, result: dict[str, Any], of: str) -> None:
    """Run one family in a process of its own, in a session of its own so that all of it can be ended, and take its JSON lines."""
    print(f"== {of} {name}", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    why = ""
    try:
        out, _ = process.communicate(timeout=limit)
        why = f"exit {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, _ = process.communicate()
        why = f"not done after {limit:g} s"
    for line in out.splitlines():
        print(line, flush=True)
        if line.startswith("{"):
            row = json.loads(line)
            result["rows"].append(row if of == "nsalang" else {"of": "peers", **row})
    if why:
        print(f"FAILED: {why}", flush=True)
        result["failed"].append({"of": of, "family": name, "why": why})


def _save(result: dict[str, Any], path: Path | None) -> None:
    """After each family, so that a run that is cut off leaves what it had."""
    if path is not None:
        write_files({path: (json.dumps(result, indent=1) + "\n").encode()})


def _summary(result: dict[str, Any]) -> None:
    from nsalang.bench.tables import tables, text_table

    print()
    for title, (columns, rows) in tables(result):
        print(f"{title}: {result['device']}, {result['commit']}")
        print(text_table(columns, rows))
    for failed in result["failed"]:
        print(f"FAILED: {failed['of']} {failed['family']}: {failed['why']}")


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        )
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _versions() -> dict[str, str]:
    import torch

    found = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for package in ("torch", "triton", "tilelang"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


if __name__ == "__main__":
    raise SystemExit(main())
