"""Random expressions over data (`index_expressions`), up to twenty in one kernel: what the interpreter gives, both backends give on the CPU, and the
code of every form reads and writes what the interpreter does.

Long runs: ``python tests/test_index_expressions.py --count 20000 --seed 1 --jobs 2 --out DIR`` saves each kernel that differs, and prints one line of
JSON last. ``--start 4000`` leaves out what an earlier run has seen: kernel ``i`` of a seed is always the same. ``--code`` also checks the code's accesses.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from index_expressions import Made, inputs, made

import nsalang
from nsalang import ir
from nsalang.base.target import parse_target
from nsalang.build.pipeline import Choice
from nsalang.passes import prove
from nsalang.proof.prover import Result
from nsalang.proof.walk import start

EACH = 20
BACKENDS = ("triton", "tilelang")
QUICK = (6,)
"""Kernels that TileLang compiles in seconds: of the others its simplifier makes a minute and more."""
CODE_FORMS = ("triton", "tilelang-c", "tilelang-cuda")


@contextmanager
def trusted() -> Iterator[None]:
    """Kernels that are right by construction are compiled as if they were proved: a proof of twenty expressions takes longer than all the rest."""

    def judge(kernel: ir.Kernel) -> tuple[prove.Judgement, ...]:
        walk = start(kernel)
        walk.block(kernel.body)
        return tuple(prove.Judgement(Result(o, "PROVED", "interval", 0, 0.0, {}), None) for o in walk.obligations)

    usual, prove.judge = prove.judge, judge
    try:
        yield
    finally:
        prove.judge = usual


def differences(kernel: Made, data: tuple[torch.Tensor, ...], backends: Sequence[str] = BACKENDS, code: bool = False) -> list[str]:
    """Where a machine gives something else than the interpreter: one line for each expression, with the first such place."""
    found = []
    with trusted():
        loaded = nsalang.load_text(kernel.text).k
        right = loaded.interpret(*data)
        for backend in backends:
            given = loaded(*data, backend=backend)
            for row in sorted({int(at[0]) for at in (given != right).nonzero()}):
                at = int((given[row] != right[row]).nonzero()[0])
                lines = [line.strip() for line in kernel.text.splitlines() if f"y[{row}, n]" in line or f" e{row} = " in line]
                found.append(f"{backend}: row {row} at {at}: {given[row, at]} and not {right[row, at]}: {lines}")
        if code:
            from nsalang.code.check import check

            meaning = loaded.meaning(parse_target("cuda:sm_90"), {})
            result = check(loaded.launcher, meaning, Choice("triton"), CODE_FORMS, count=2)
            found += [f"code: {d.sentence}" for d in result.found] + [f"code: not evaluated: {x}" for x in result.lost]
    return found


@pytest.mark.parametrize("number", [pytest.param(n, marks=() if n < 13 else pytest.mark.slow) for n in range(25)])
def test_expressions_give_the_same_in_triton(number: int) -> None:
    kernel = made(f"ci/{number}", EACH)
    assert differences(kernel, inputs(f"ci/{number}"), ("triton",)) == [], kernel.text


@pytest.mark.parametrize("number", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in range(25)])
def test_expressions_give_the_same_in_tilelang(number: int) -> None:
    kernel = made(f"ci/{number}", EACH)
    assert differences(kernel, inputs(f"ci/{number}"), ("tilelang",)) == [], kernel.text


def test_a_wrong_machine_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = made("ci/0", EACH)
    with trusted():
        loaded = nsalang.load_text(kernel.text).k
    right = type(loaded).interpret
    monkeypatch.setattr(
        type(loaded), "interpret", lambda self, *args, **named: right(self, *args, **named) + (torch.arange(EACH) == 3)[:, None]
    )
    (found,) = differences(kernel, inputs("ci/0"), ("triton",))
    assert "row 3 at 0" in found


# ------------------------------------------------------------------------------------------------------------------ long runs


def chunk(seed: int, first: int, count: int, out: Path, code: bool) -> dict[str, int]:
    total: collections.Counter[str] = collections.Counter()
    for i in range(first, first + count):
        kernel = made(f"{seed}/{i}", EACH)
        path = out / f"running_{seed}_{i}.nsa"  # what ends the process is what it was at
        path.write_text(kernel.text)
        try:
            wrong = differences(kernel, inputs(f"{seed}/{i}"), code=code)
        except Exception as error:  # noqa: BLE001 - the run goes on: the file tells
            wrong = [f"{type(error).__name__}: {error}"]
        if wrong:
            (out / f"wrong_{seed}_{i}.nsa").write_text("".join(f"# {line}\n" for w in wrong for line in w.splitlines()) + kernel.text)
        path.unlink()
        total.update({"kernels": 1, "expressions": EACH, "wrong": bool(wrong)})
    return dict(total)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--count", type=int, default=2000, help="expressions, twenty in a kernel")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--start", type=int, default=0, help="the first expression; --count counts those before it too")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--code", action="store_true", help="check the accesses of the code too")
    options.add_argument("--first", type=int, default=None, help="one chunk alone, in this process: its first kernel")
    options.add_argument("--out", type=Path, default=Path("/tmp/index_expressions"))
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.first is not None:
        print(json.dumps(chunk(given.seed, given.first, given.count, given.out, given.code)))
        return
    size, began = 5, time.time()
    total: collections.Counter[str] = collections.Counter()
    numbers = range(given.start // EACH, -(-given.count // EACH))

    def run(first: int) -> dict[str, int]:
        count = min(size, numbers.stop - first)
        command = [
            sys.executable,
            __file__,
            "--first",
            str(first),
            "--count",
            str(count),
            "--seed",
            str(given.seed),
            "--out",
            str(given.out),
        ]
        try:
            ended = subprocess.run(command + ["--code"] * given.code, capture_output=True, text=True, timeout=1800)
        except subprocess.TimeoutExpired:
            return {"chunks lost": 1, f"lost at {first}": 1}
        if ended.returncode:
            (given.out / f"lost_{given.seed}_{first}.txt").write_text(f"{ended.returncode}\n{ended.stderr}")
            return {"chunks lost": 1, f"lost at {first}": 1}
        found: dict[str, int] = json.loads(ended.stdout.splitlines()[-1])
        return found

    with ThreadPoolExecutor(given.jobs) as pool:
        for part in pool.map(run, numbers[::size]):
            total.update(part)
            print(f"{time.time() - began:7.0f} s  {dict(total)}", flush=True)
    print(json.dumps({"seed": given.seed, "start": given.start, "seconds": round(time.time() - began), **total}))


if __name__ == "__main__":
    main()
