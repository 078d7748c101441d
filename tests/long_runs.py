"""Long runs of generated tests, by hand: chunks of them in processes of their own, so that one that dies or hangs loses no more than itself."""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS = 1800
"""That a chunk may take."""


def arguments(out: str, counts: str) -> argparse.ArgumentParser:
    """The options of a long run; more may be added. ``counts``: what --count counts."""
    options = argparse.ArgumentParser()
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--start", type=int, default=0, help=f"the first {counts}; --count counts those before it too")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--first", type=int, default=None, help="one chunk alone, in this process")
    options.add_argument("--out", type=Path, default=Path(out))
    return options


def run(
    script: str,
    given: argparse.Namespace,
    numbers: range,
    size: int,
    chunk: Callable[[int, int], dict[str, int | float]],
    more: Sequence[str] = (),
) -> None:
    """``chunk(first, count)`` of all ``numbers``, ``size`` at a time, by ``script`` itself under --first; prints what they add up to."""
    given.out.mkdir(parents=True, exist_ok=True)
    if given.first is not None:
        print(json.dumps(chunk(given.first, given.count)))
        return
    began = time.time()
    total: collections.Counter[str] = collections.Counter()

    def part(first: int) -> dict[str, int]:
        count = min(size, numbers.stop - first)
        options = {"--first": first, "--count": count, "--seed": given.seed, "--out": given.out}
        command = [sys.executable, script, *(str(x) for pair in options.items() for x in pair), *more]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return {"chunks lost": 1, f"lost at {first}": 1}
        if ended.returncode:
            (given.out / f"lost_{given.seed}_{first}.txt").write_text(f"{ended.returncode}\n{ended.stderr}")
            return {"chunks lost": 1, f"lost at {first}": 1}
        made: dict[str, int] = json.loads(ended.stdout.splitlines()[-1])
        return made

    with ThreadPoolExecutor(given.jobs) as pool:
        for found in pool.map(part, numbers[::size]):
            total.update(found)
            print(f"{time.time() - began:7.0f} s  {dict(total)}", flush=True)
    print(json.dumps({"seed": given.seed, "start": given.start, "count": given.count, "seconds": round(time.time() - began), **total}))
