"""All variants of a run compiled side by side, each in a process of its own under a time limit."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from gpu_data import Case
from gpu_runs import BATCHES, has_batches, kernel, rows_of

from nsalang.base.source import NsaError
from nsalang.launch import launcher as launching
from nsalang.launch import sequence


def compile_only(compiled: list[str]) -> None:
    """From here on a call compiles, and runs nothing: tensors may be on the CPU whatever the target."""
    load = launching.Launcher._load

    def _load(self: Any, meaning: Any, choice: Any, device: Any) -> Any:
        made = self.compiled(meaning, choice)
        if made.key not in compiled:
            made.artifact  # noqa: B018 (asked for, it is compiled and kept)
            compiled.append(made.key)
        return launching.Loaded(made, lambda *_: None)

    assert load is not _load
    launching.Launcher._load = _load  # type: ignore[method-assign]
    launching.check_device = sequence.check_device = lambda *_: None


def compile_group(group: Sequence[Case], backend: str, target: str, folder: Path, out: str) -> None:
    """In a process of its own: what the group's calls need. Writes what is wrong with it."""
    os.setsid()
    said_by_tools = os.open(f"{out}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said_by_tools, 1)
    os.dup2(said_by_tools, 2)
    code = 1
    try:
        compile_calls(group, backend, target, folder, out)
        code = 0
    finally:
        if code:
            traceback.print_exc()
            sys.stderr.flush()
        # What the parent wants done at its end is not this process's to do.
        os._exit(code)


def compile_calls(group: Sequence[Case], backend: str, target: str, folder: Path, out: str) -> None:
    torch.set_num_threads(1)
    compile_only([])
    loaded: dict[str, Any] = {}
    said: dict[str, str] = {}
    for case in group:
        try:
            for batch in (None, *(BATCHES if has_batches(case) else ())):
                arguments = case.empty() if batch is None else rows_of(case, case.empty(), batch)
                pins = {"schedule": dict(case.pins)} if batch and case.pins else {}
                kernel(case, folder, loaded)(**arguments, backend=backend, target=target, **pins)
        except NsaError as error:
            said[case.name] = f"{error.diagnostics[0].code} {error.diagnostics[0].sentence}"
        Path(out).write_text(json.dumps(said))


def compile_all(
    cases: Sequence[Case], backends: Sequence[str], target: str, folder: Path, limit: float, until: float
) -> dict[tuple[str, str], str]:
    """Fill the cache. Gives the cases that could not be compiled in time, by backend."""
    groups: dict[tuple[str, str, str, str], list[Case]] = {}
    for case in cases:
        for backend in backends:
            groups.setdefault((backend, case.kernel, case.variant, case.layout), []).append(case)
    context = multiprocessing.get_context("fork")
    late: dict[tuple[str, str], str] = {}
    temporary = Path(os.environ.get("TMPDIR", "/tmp")) / f"gpu_kernels.{os.getpid()}"
    temporary.mkdir(exist_ok=True)

    def work(item: tuple[int, tuple[tuple[str, str, str, str], list[Case]]]) -> None:
        number, (key, group) = item
        out = temporary / f"{number}.json"
        left = min(limit * (1 + len(group) // 4), until - time.monotonic())
        if left <= 0:
            return
        process = context.Process(target=compile_group, args=(group, key[0], target, folder, str(out)))
        process.start()
        if not ended(process, left):
            for end in (lambda: os.killpg(process.pid or 0, signal.SIGKILL), process.kill):
                try:
                    end()
                except (ProcessLookupError, PermissionError):
                    continue
            process.join()
            late.update({(c.name, key[0]): f"not compiled within {left:.0f} s" for c in group})
        elif process.exitcode:
            tail = Path(f"{out}.txt").read_text().strip()[-300:].replace("\n", " | ")
            late.update({(c.name, key[0]): f"the compiler ended with {process.exitcode}: {tail}" for c in group})
        said = json.loads(out.read_text()) if out.exists() else {}
        for name, sentence in said.items():
            print(f"  {key[0]} {name}: {sentence[:300]}", flush=True)

    # The slow backend first, so that the last to end are short.
    order = sorted(groups.items(), key=lambda g: g[0][0] != "tilelang")
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        list(pool.map(work, enumerate(order)))
    shutil.rmtree(temporary, ignore_errors=True)
    return late


def ended(process: multiprocessing.process.BaseProcess, seconds: float) -> bool:
    """Whether a process ended in time. A thread that starts another process asks after all of them, so that a wait beside it can come back with nothing
    before the time is up."""
    until = time.monotonic() + seconds
    while process.exitcode is None and (left := until - time.monotonic()) > 0:
        process.join(left)
        time.sleep(0.05)
    return process.exitcode is not None
