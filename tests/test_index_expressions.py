"""Random expressions over data (`index_expressions`), up to twenty in one kernel: what the interpreter gives, both backends give on the CPU, and the
code of every form reads and writes what the interpreter does.

Long runs: ``python tests/test_index_expressions.py --count 20000 --seed 1 --jobs 2 --out DIR`` saves each kernel that differs, and prints one line of
JSON last. ``--start 4000`` leaves out what an earlier run has seen: kernel ``i`` of a seed is always the same. ``--code`` also checks the code's accesses.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import long_runs
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


def chunk(seed: int, first: int, count: int, out: Path, code: bool) -> dict[str, int | float]:
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
    options = long_runs.arguments("/tmp/index_expressions", "expression")
    options.add_argument("--code", action="store_true", help="check the accesses of the code too")
    given = options.parse_args()
    numbers = range(given.start // EACH, -(-given.count // EACH))  # kernels
    more = ["--code"] * given.code
    long_runs.run(__file__, given, numbers, 5, lambda first, count: chunk(given.seed, first, count, given.out, given.code), more)


if __name__ == "__main__":
    main()
