"""Counterexamples: what is told of a refuted obligation is what a run shows, the data keep the promises, and a help settles what it says it does.

The exact texts are in tests/errors/proofs_*.nsa; here each is held against the interpreter and the prover.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nsalang import ir
from nsalang.base.dtypes import BOOL, I64
from nsalang.base.source import Source, Span
from nsalang.interp.fault import Fault
from nsalang.interp.run import interpret
from nsalang.interp.views import views
from nsalang.proof.obligations import Obligation
from nsalang.proof.prover import Result, settle
from nsalang.refute import search as refute
from nsalang.refute.evaluate import evaluate
from nsalang.refute.models import FREE, launches, parse_element
from nsalang.refute.replay import seen
from nsalang.refute.wording import place, text_of
from nsalang.syntax.parser import parse, read_source
from nsalang.types.settings import Settings
from nsalang.types.typecheck import kernel_names, signature, specialise

ROOT = Path(__file__).parent
ERRORS = sorted((ROOT / "errors").glob("proofs_*.nsa"))
MENDED = ROOT / "cases" / "mended.nsa"


def kernels(source: Source) -> dict[str, ir.Kernel]:
    file = parse(source)
    return {
        name: specialise(file, name, Settings(dims=dict.fromkeys(signature(file, name, {}).specialised, 64))) for name in kernel_names(file)
    }


def only(text: str) -> ir.Kernel:
    (kernel,) = kernels(Source(text)).values()
    return kernel


FAULTY = {name: kernel for path in ERRORS for name, kernel in kernels(read_source(path)).items()}
SOUND = kernels(read_source(MENDED))


def refuted(kernel: ir.Kernel) -> list[Result]:
    return [r for r in settle(kernel) if r.verdict == "REFUTED"]


SHOWN = {name: [refute.diagnose(kernel, r) for r in refuted(kernel)] for name, kernel in FAULTY.items()}


def test_each_faulty_kernel_has_a_mended_twin() -> None:
    assert FAULTY.keys() == SOUND.keys()


@pytest.mark.parametrize("name", SOUND)
def test_mended_twins_are_proved(name: str) -> None:
    assert {(r.obligation.kind, r.obligation.what, r.verdict) for r in settle(SOUND[name]) if r.verdict != "PROVED"} == set()


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_kernels_are_told(name: str) -> None:
    assert SHOWN[name] and all(SHOWN[name])


@pytest.mark.parametrize("name", FAULTY)
def test_an_access_outside_faults_in_a_plain_run(name: str) -> None:
    """The launch that is shown, run by the interpreter without a watch, ends in a fault at the access."""
    kernel = FAULTY[name]
    for result in refuted(kernel):
        event = seen(kernel, result.obligation, result.model) if result.obligation.kind == "range" else None
        if event is None:
            continue
        assert event.launch is not None
        tensors = {n: t.clone() for n, t in event.launch.tensors.items()}
        with pytest.raises(Fault) as fault:
            interpret(kernel, tensors, event.launch.scalars, event.launch.dims)
        assert fault.value.span == result.obligation.span


@pytest.mark.parametrize("name", FAULTY)
def test_data_keep_the_promises(name: str) -> None:
    kernel = FAULTY[name]
    count = 0
    for result in refuted(kernel):
        for launch in launches(kernel, result.model):
            count += 1
            if result.obligation.kind == "view":
                continue  # there is no tensor that such a view could be
            assert all(evaluate(r.condition, launch.names) for r in kernel.requires)
            places = {**launch.tensors, **views(kernel, launch.tensors, launch.dims, launch.scalars)}
            for promise in kernel.promises:
                tensor = places[promise.tensors[0]]
                flat = [int(v) for v in tensor.reshape(-1)]
                if promise.kind == "sorted":
                    assert flat == sorted(flat)
                elif promise.kind == "distinct":
                    assert len(set(flat)) == len(flat)
                else:
                    assert promise.condition is not None
                    for position in range(tensor.numel()):
                        at = {n: int(places[n].reshape(-1)[position]) for n in promise.tensors}
                        assert evaluate(promise.condition, launch.names | {f"each{p}": 0 for p in range(9)}, lambda n, _, at=at: at[n])
    assert count or not kernel.promises or not any(r.model for r in refuted(kernel))


# ------------------------------------------------------------------------------------------------------------------------ helps


def changed(source: Source, span: Span, name: str, text: str) -> str | None:
    """The source of one kernel after what a help proposes; None for a help in words."""
    lines = source.text.split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith(f"def {name}("))
    after = next((i for i in range(first + 1, len(lines)) if lines[i].startswith("def ")), len(lines))
    if said := re.fullmatch(r"'((?:require|promise|partial)\(.*\))' (settles it(, where that is so)?|before the grid, .*)", text):
        lines.insert(first + 1, f"    {said[1]}")
        after += 1
    elif said := re.fullmatch(r"'((?:where|scatter|atomic_add)\(.*\))' (settles it|if it is not: .*|adds up .*)", text):
        line = lines[span.line - 1]
        lines[span.line - 1] = line[: span.column - 1] + said[1] + line[span.end_column - 1 :]
    elif said := re.fullmatch(r"are the indices exchanged\? '(.*)' is inside", text):
        line = lines[span.line - 1]
        lines[span.line - 1] = line[: span.column - 1] + line[span.column - 1 :].replace(place(text_of(span)), said[1], 1)
    elif said := re.fullmatch(r"write it under '(if .*:)'", text):
        line = lines[span.line - 1]
        indent = " " * (len(line) - len(line.lstrip()))
        lines[span.line - 1 : span.line] = [f"{indent}{said[1]}", f"    {line}"]
        after += 1
    else:
        return None
    return "\n".join(lines[first:after]) + "\n"


HELPED = [
    (path, name, index, text)
    for path in ERRORS
    for name in kernels(read_source(path))
    for index, shown in enumerate(SHOWN[name])
    if shown is not None
    for text in shown.helps
]


def test_most_faults_have_a_help() -> None:
    assert len(HELPED) >= 12


@pytest.mark.parametrize(("path", "name", "index", "text"), HELPED, ids=[f"{n}-{i}" for _, n, i, _ in HELPED])
def test_the_text_that_a_help_proposes_is_proved(path: Path, name: str, index: int, text: str) -> None:
    source = read_source(path)
    kernel = kernels(source)[name]
    result = refuted(kernel)[index]
    assert result.obligation.span is not None
    mended = changed(source, result.obligation.span, name, text)
    if mended is None:
        assert text.startswith("leave out 'i")
        return
    after = settle(only(mended))
    kind, tensor, position = result.obligation.kind, result.obligation.tensor, result.obligation.position
    about = [r for r in after if (r.obligation.kind, r.obligation.tensor, r.obligation.position) == (kind, tensor, position)]
    assert {r.verdict for r in about} <= {"PROVED"}
    assert all(r.verdict == "PROVED" for r in after if r.obligation.kind == "hypotheses")


NO_HELP = {
    "a store that does not happen leaves its element unwritten": """\
def f(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[n + 1] = x[n]
""",
    "an order has no simple help": """\
def f(x: InOut[f32[N]]):
    for n in grid(tile(N)):
        if n > 0:
            x[n] = x[n - 1]
""",
    "a shift that is too far at any size": """\
def f(x: u32[N], y: Out[u32[N]]):
    for n in grid(tile(N)):
        y[n] = x[n] >> 32
""",
}


@pytest.mark.parametrize("why", NO_HELP)
def test_no_help_where_none_is_sure(why: str) -> None:
    kernel = only(NO_HELP[why])
    shown = [d for r in refuted(kernel) if r.obligation.kind != "coverage" for d in [refute.diagnose(kernel, r)]]
    assert shown and all(d is not None and d.helps == () for d in shown)


# -------------------------------------------------------------------------------------------------------------------- no false alarm


@pytest.mark.parametrize("name", SOUND)
def test_a_spurious_model_is_not_told(name: str) -> None:
    """What is proved is never confirmed as a violation, whatever a model says."""
    kernel = SOUND[name]
    for result in settle(kernel):
        if result.obligation.kind == "hypotheses":
            assert refute.diagnose(kernel, replace(result, verdict="REFUTED")) is None
            continue
        model = dict.fromkeys((*kernel.dims, *(s.name for s in kernel.scalars)), 2) | {g.name: 1 for g in kernel.grid}
        made = {} if name == "longer" else {**model, **{f"{g.name}'": 0 for g in kernel.grid}}
        assert refute.diagnose(kernel, replace(result, verdict="REFUTED", model=made)) is None


def test_a_model_that_breaks_a_promise_gives_no_launch() -> None:
    kernel = FAULTY["sentinel_end"]
    bound = range(FREE)
    assert list(launches(kernel, {"T": 4, "S": 1, "K": 2, "idx[0, 0]": -1}, bound)) == []
    assert [int(made.tensors["idx"][0, 0]) for made in launches(kernel, {"T": 4, "S": 1, "K": 2, "idx[0, 0]": 4}, bound)] == [4] * FREE


def test_an_obligation_that_has_no_counterexample_in_exact_integers() -> None:
    zero = ir.const(0)
    goal = ir.binary("le", ir.Dim(I64, (), "N"), ir.const(2**40))
    wrong = Obligation("view", "v", (ir.binary("le", zero, ir.Dim(I64, (), "N")),), goal, SOUND["longer"].span)
    unknown = replace(wrong, facts=(*wrong.facts, ir.Load(BOOL, (), "left open#1", ())))
    kernel = SOUND["longer"]
    assert refute.diagnose(kernel, Result(wrong, "REFUTED", "Z3", 0, 0.0, {"N": 2**40})) is None
    assert refute.diagnose(kernel, Result(unknown, "REFUTED", "Z3", 0, 0.0, {"N": 2**40 + 1})) is None


# ----------------------------------------------------------------------------------------------------------------------------- text


def told(text: str, kind: str) -> str:
    kernel = only(text)
    (shown,) = (refute.diagnose(kernel, r) for r in refuted(kernel) if r.obligation.kind == kind)
    assert shown is not None
    return shown.render()


def test_a_gather_is_told_with_sizes_instance_data_and_index() -> None:
    text = "def f(kv: f32[T, 576], idx: i32[S, K], y: Out[f32[S, K, 576]]):\n    c = span(576)\n    for s, k in grid(S, tile(K)):\n"
    text += "        t = idx[s, k]\n        y[s, k, c] = kv[t, c]\n"
    assert told(text, "range") == (
        "error[NSA0801]: 'kv[t, c]' may read outside: axis 0 of 'kv' has T elements\n"
        " --> <string>:5:22\n"
        "  |\n"
        "5 |         y[s, k, c] = kv[t, c]\n"
        "  |                      ^^^^^^^^\n"
        "  = note: with T = 1, S = 1, K = 1: at s = 0, k = 0: idx[0, 0] = -1, so t = -1 and kv[-1, 0] lies outside kv[1, 576]\n"
        "  = help: 'where((0 <= t) & (t < T), kv[t, c], 0)' settles it"
    )


def test_a_path_that_floats_decide_is_found() -> None:
    """With zeros and with ones the access does not happen."""
    text = "def f(x: f32[N], w: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = where(w[n] < 0, x[n + 1], 0)\n"
    assert "x[1] lies outside x[1]" in told(text, "range")


def test_an_index_variable_of_a_second_loop_has_its_own_name() -> None:
    text = "def f(x: f32[M, N], y: Out[f32[M, N]]):\n    for m in grid(M):\n        total = 0.0\n        for n in tile(N):\n"
    text += "            total = total + sum(x[m, n], axis=n)\n        for n in tile(N):\n            y[m, n] = x[m, n + 1] * total\n"
    assert "with N = 1: at n = 0: n + 1 = 1, so x[0, 1] lies outside x[1, 1]" in told(text, "range")


def test_both_instances_of_a_race_are_told() -> None:
    text = "def f(x: f32[M, N], y: InOut[f32[N]]):\n    for m, n in grid(M, tile(N)):\n        y[n] = x[m, n]\n"
    assert re.search(r"with M = 2, N = \d: the instances m = 0, n = 0 and m = 1, n = 0 both write y\[0\]", told(text, "race"))


def test_what_the_prover_could_not_settle() -> None:
    kernel = FAULTY["sentinel"]
    (wrong,) = refuted(kernel)
    tried = refute.unknown(kernel, replace(wrong, verdict="UNKNOWN", model={}, units=1_000_000))
    assert tried.code == "NSA0812"
    assert tried.sentence == "it is not settled that 'kv[t, c]' stays inside 'kv' along axis 0"
    assert tried.notes == ("tried: constants, intervals, then Z3; Z3 used 1000000 of its resource units",)
    assert tried.helps[1] == "'--allow unknown' (allow='unknown' in a call) guards the access by its tensor's bounds"


COUNT = """\
def f(x: f32[M, N], y: Out[i32[M]]):
    for m in grid(tile(M)):
        count = zeros(m, dtype=i64)
        for n in tile(N):
            count += sum(x[m, n] > 0, axis=n)
        y[m] = count
"""
PLACE = """\
def f(x: f32[M, N], y: Out[i32[M]]):
    for m in grid(tile(M)):
        place = zeros(m, dtype=i64)
        for n in tile(N):
            place = maximum(place, argmax(x[m, n], axis=n))
        y[m] = place
"""


@pytest.mark.parametrize("text", [COUNT, PLACE])
def test_what_may_not_fit_is_told_the_bound_that_settles_it(text: str) -> None:
    kernel = only(text)
    (result,) = (r for r in settle(kernel) if r.verdict != "PROVED")
    assert result.obligation.kind == "fits" and refute.diagnose(kernel, result) is None
    assert refute.unknown(kernel, result).helps[0] == "'require(N <= i32.max)' settles it"
    mended = only(text.replace("    for m in", "    require(N <= i32.max)\n    for m in"))
    assert {r.verdict for r in settle(mended)} == {"PROVED"}


def test_views_that_are_not_settled_are_told_as_one_and_as_two() -> None:
    text = """\
def f(b: InOut[u8[8 * N]]):
    v = view(b, f32[N])
    w = view(b, f32[N], offset=4 * N)
    for n in grid(tile(N)):
        v[n] = 0
        w[n] = 0
"""
    kernel = only(text)
    results = [replace(r, verdict="UNKNOWN") for r in settle(kernel) if r.obligation.kind == "overlap"]
    assert {refute.unknown(kernel, r).sentence for r in results} == {
        "it is not settled that no two elements of 'v' share memory",
        "it is not settled that no two elements of 'w' share memory",
        "it is not settled that 'v' and 'w' share no memory",
    }


def test_elements_in_a_model() -> None:
    assert parse_element("idx[3, 0]") == ("idx", (3, 0))
    assert parse_element("lo#2[1]") is None and parse_element("N") is None


# ------------------------------------------------------------------------------------------------------- what no plain tensor is


def test_a_counter_is_no_tensor_that_a_promise_could_be_about() -> None:
    """Two instances meet at elements that a carried count names, and the prover's unknown for it is no tensor of the kernel's."""
    kernel = only("""\
def f(sel: i32[M, M], y: Out[i64[M, M]]):
    for a in grid(M):
        used = 0
        for k in tile(M):
            live = sel[a, k] > 0
            to = used + rank(live, axis=k)
            if live:
                y[a, to] = k
            used = used + sum(live, axis=k)
        for k in tile(used, M):
            y[a + 1, k] = (-1)
""")
    races = [r for r in refuted(kernel) if r.obligation.kind == "race"]
    assert races
    for result in races:
        shown = refute.diagnose(kernel, result)
        assert shown is None or (shown.code == "NSA0805" and not any("#" in h for h in shown.helps))


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("split(S, M % 3, a)", "with S = 1, M = 3: there are 0 parts"),
        ("split(S, p[a], a)", "with S = 1, M = 1: at a = 0: p[0] = 0, so there are 0 parts"),
        ("split(p[a], 2, 0)", "with M = 1: at a = 0: p[0] = -1, so what is split is negative"),
    ],
)
def test_a_split_into_no_parts_is_shown(text: str, note: str) -> None:
    kernel = only(f"""\
def f(x: f32[S], y: Out[f32[S]], p: i32[M]):
    partial(y)
    require(M > 0)
    for a in grid(M):
        lo, hi = {text}
        for k in tile(lo, minimum(hi, S)):
            scatter(y[k], x[k])
""")
    (result,) = [r for r in refuted(kernel) if r.obligation.kind == "divisor"]
    shown = refute.diagnose(kernel, result)
    assert shown is not None and shown.code == "NSA0802" and all(h.startswith("'require(") for h in shown.helps)
    assert (shown.sentence, shown.notes) == (f"'{text}' may split a negative number, or into no parts", (note,))


@pytest.mark.parametrize("shape", ["2 * M", "2, M", "M + 1"])
def test_more_distinct_elements_than_values_contradict_each_other(shape: str) -> None:
    kernel = only(f"""\
def f(slot: i32[{shape}], y: Out[f32[M]], x: f32[M]):
    require(M > 0)
    promise(distinct(slot))
    promise(0 <= slot < M)
    for m in grid(tile(M)):
        y[m] = x[m]
""")
    (result,) = refuted(kernel)
    shown = refute.diagnose(kernel, result)
    assert shown is not None and shown.code == "NSA0809"
    assert shown.notes == ("'promise(distinct(slot))' and 'promise(0 <= slot < M)' cannot hold together where 'slot' has an element",)
