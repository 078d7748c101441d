"""The prover against brute force on generated kernels: what is PROVED, plain loops over all small sizes find nothing wrong with; what is REFUTED
faults when its counterexample is run (the prover sees to that), and plain loops at the same sizes find the same.

Long runs: ``python tests/test_prove_random.py --count 100000 --seed 1 --jobs 2 --out DIR`` saves what is wrong, and prints one line of JSON last.
``--start 40000`` leaves out kernels that an earlier run has seen: kernel ``i`` of a seed is always the same.
"""

from __future__ import annotations

import collections
import dataclasses
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import long_runs
import pytest
from generated_kernels import generate, kernels
from hypothesis import HealthCheck, given, settings
from kernel_oracle import Oracle
from kernel_trees import LIMITS, OPERATORS, Model, nodes

from nsalang import ir
from nsalang.base.source import NsaError, Source
from nsalang.passes.prove import Judgement, judge
from nsalang.proof.prover import Result, settle
from nsalang.syntax import parser
from nsalang.types import typecheck
from nsalang.types.settings import Settings

FEATURES = frozenset({"promise", "searchsorted", "split", "atomic_add", "scatter", "view"})
BOUND = 4
AT_LINE = ("range", "divisor", "shift", "fits", "overflow", "twice")
ANYWHERE = ("race", "order", "view", "overlap")


@dataclass
class Outcome:
    """What came of one kernel. ``verdict``: PROVED, REFUTED, UNKNOWN, or ``typing`` where the text is no kernel. ``wrong``: what must not be."""

    text: str
    verdict: str
    note: str
    wrong: list[str] = field(default_factory=list)
    confirmed: int = 0
    unconfirmed: int = 0
    seconds: float = 0.0
    kinds: list[str] = field(default_factory=list)


def typed(text: str) -> ir.Kernel:
    return typecheck.specialise(parser.parse(Source(text, "generated.nsa")), "k", Settings(dims={}))


def place(result: Result, oracle: Oracle) -> tuple[str, int]:
    """An obligation as the oracle names it."""
    o = result.obligation
    if o.kind == "coverage":
        return "coverage", -next(n for n, t in enumerate(oracle.model.tensors) if t[0] == o.tensor)
    if o.kind in AT_LINE and o.span is not None:
        return o.kind, o.span.line
    return o.kind, 0


def confirm(oracle: Oracle, key: tuple[str, int], model: dict[str, int], seed: int) -> bool | None:
    """Whether the oracle finds the violation at the sizes of a counterexample; None where they are too large for it."""
    names = [*oracle.dims, *(s[0] for s in oracle.model.scalars)]
    values = {n: model.get(n, 0) for n in names}
    if any(values[d] > BOUND + 2 for d in oracle.dims):
        return None
    if not oracle.allowed(values):
        return False
    r = random.Random(seed)
    for attempt in range(60):
        data = oracle.data(values, r)
        if data is None:
            return False
        if attempt < 40:
            for name, contents in data.items():
                for at in contents:
                    said = model.get(f"{name}[{', '.join(map(str, at))}]")
                    if said is not None:
                        contents[at] = said
                if "sorted" in oracle.promised[name]:
                    data[name] = dict(zip(contents, sorted(contents.values()), strict=True))
        for length in (10**9, 1, 2):
            run = oracle.execute(values, data, length)
            if key in run.found or (key[1] == 0 and any(k == key[0] for k, _ in run.found)):
                return True
            if run.stopped and run.found:  # what comes after another violation is not seen
                return None
    return False


def examine(model: Model, seed: int, budget: int = 10_000) -> Outcome:
    """Prove a kernel, and compare with the oracle."""
    oracle = Oracle.of(model)
    outcome = Outcome(oracle.text, "typing", model.note)
    try:
        kernel = typed(oracle.text)
    except NsaError:
        return outcome
    began = time.perf_counter()
    judged = judge(kernel)
    outcome.seconds = time.perf_counter() - began
    verdicts = {j.result.verdict for j in judged}
    outcome.verdict = next(v for v in ("REFUTED", "UNKNOWN", "PROVED") if v in verdicts)
    found = oracle.search(seed, BOUND, budget)
    outcome.kinds = sorted({k for k, _ in found})
    by_place: dict[tuple[str, int], set[str]] = {}
    for j in judged:
        by_place.setdefault(place(j.result, oracle), set()).add(j.result.verdict)
    for (kind, line), (values, data) in sorted(found.items(), key=str):
        key = (kind, 0) if kind in ANYWHERE else (kind, line)
        if by_place.get(key, {"PROVED"}) == {"PROVED"}:
            what = "has no obligation" if key not in by_place else "is PROVED"
            outcome.wrong.append(f"{kind} in line {line} {what}, and is violated at {values} with {data}")
    for j in judged:
        if j.result.verdict == "REFUTED" and j.diagnostic is not None:
            key = place(j.result, oracle)
            if key in found or (key[1] == 0 and any(k == key[0] for k, _ in found)):
                outcome.confirmed += 1
            elif key[0] != "hypotheses":
                sure = confirm(oracle, key, dict(j.result.model), seed)
                outcome.confirmed += bool(sure)
                outcome.unconfirmed += sure is None
                if sure is False and not found and not hidden(oracle, dict(j.result.model)):
                    outcome.wrong.append(f"{key} is REFUTED with {dict(j.result.model)}, and brute force at these sizes finds nothing")
    return outcome


def hidden(oracle: Oracle, model: dict[str, int]) -> bool:
    """Whether the counterexample is about numbers that the oracle's runs end at: loops of more than a hundred steps."""
    names = {f"{t[0]}[" for t in oracle.model.tensors if t[1] in LIMITS}
    return any(abs(v) > 100 for n, v in model.items() if any(n.startswith(t) for t in names) or n in dict(oracle.model.scalars))


def summary(outcomes: list[Outcome]) -> dict[str, int | float]:
    count = collections.Counter(o.verdict for o in outcomes)
    return {
        "kernels": len(outcomes) - count["typing"],
        "no kernel": count["typing"],
        **{v: count[v] for v in ("PROVED", "REFUTED", "UNKNOWN")},
        "wrong": sum(bool(o.wrong) for o in outcomes),
        "confirmed": sum(o.confirmed for o in outcomes),
        "beyond the oracle": sum(o.unconfirmed for o in outcomes),
        "seconds of proof": round(sum(o.seconds for o in outcomes), 2),
    }


def batch(count: int, seed: int) -> list[Outcome]:
    return [examine(generate(random.Random(f"{seed}/{i}"), FEATURES), i) for i in range(count)]


def demand(outcomes: list[Outcome]) -> None:
    """What the issue asks of the prover."""
    for o in outcomes:
        assert not o.wrong, f"{o.wrong}\n{o.text}"
    made = summary(outcomes)
    kernels = made["kernels"]
    assert made["PROVED"] >= kernels / 4 and made["REFUTED"] >= kernels / 4, made
    unknown = [o.text for o in outcomes if o.verdict == "UNKNOWN"]
    assert len(unknown) <= kernels / 50, "\n".join([str(made), *unknown])
    assert made["no kernel"] <= len(outcomes) / 20, made


def test_a_batch() -> None:
    demand(batch(300, 7))


@pytest.mark.slow
def test_many() -> None:
    demand(batch(2000, 8))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(model=kernels(FEATURES))
def test_a_failing_kernel_becomes_small(model: Model) -> None:
    outcome = examine(model, 0)
    assert not outcome.wrong, f"{outcome.wrong}\n{outcome.text}"


def test_a_prover_that_proves_everything_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def credulous(kernel: ir.Kernel) -> list[Judgement]:
        return [Judgement(dataclasses.replace(r, verdict="PROVED"), None) for r in settle(kernel)]

    monkeypatch.setattr(sys.modules[__name__], "judge", credulous)
    assert sum(bool(o.wrong) for o in batch(40, 5)) >= 5


def test_the_oracle_finds_every_kind_of_violation() -> None:
    found: collections.Counter[str] = collections.Counter()
    for i in range(800):
        model = generate(random.Random(f"kinds/{i}"), FEATURES)
        if model.note:
            found.update({kind for kind, _ in Oracle.of(model).search(i, BOUND, 4000)})
    assert {"range", "coverage", "race", "order", "twice", "divisor", "shift", "fits", "view", "overlap"} <= found.keys(), found


# ------------------------------------------------------------------------------------------------------------------ long runs


def chunk(seed: int, first: int, count: int, out: Path) -> dict[str, int | float]:
    """Kernels ``first .. first + count`` of a seed; what is wrong with one goes to a file of its own."""
    total: collections.Counter[str] = collections.Counter()
    for i in range(first, first + count):
        model = generate(random.Random(f"{seed}/{i}"), FEATURES)
        try:
            outcome = examine(model, i)
        except Exception as error:  # noqa: BLE001 - the run goes on: the file tells
            outcome = Outcome(Oracle.of(model).text, "crashed", model.note, [f"{type(error).__name__}: {error}"])
        if outcome.wrong:
            (out / f"wrong_{seed}_{i}.nsa").write_text("".join(f"# {w}\n" for w in outcome.wrong) + outcome.text)
        elif outcome.verdict == "UNKNOWN":
            (out / f"{'spoilt' if model.note else 'right'}_unknown_{seed}_{i}.nsa").write_text(outcome.text)
        total.update(
            {
                "done": 1,
                outcome.verdict: 1,
                "wrong": bool(outcome.wrong),
                "confirmed": outcome.confirmed,
                "beyond the oracle": outcome.unconfirmed,
            }
        )
        total.update({f"violated {k}": 1 for k in outcome.kinds})
        total.update({f"has {op}": 1 for op in {n[0] for n in nodes(model.body)} & set(OPERATORS)})
        total.update({f"has {dtype}": 1 for dtype in {t[1] for t in model.tensors}})
        if not model.note:
            total.update({f"right by construction, {outcome.verdict}": 1})
        total["milliseconds"] += round(outcome.seconds * 1000)
    return dict(total)


def main() -> None:
    options = long_runs.arguments("/tmp/generated_kernels", "kernel").parse_args()
    numbers = range(options.start, options.count)
    long_runs.run(__file__, options, numbers, 500, lambda first, count: chunk(options.seed, first, count, options.out))


if __name__ == "__main__":
    main()
