"""NSALANG_CHECK=1: broken promises and indices outside are reported with their line and their values, and nothing else changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import nsalang
from nsalang import ir
from nsalang.base.target import Target
from nsalang.build.pipeline import Choice, Meaning, prepare, typed
from nsalang.interp.run import interpret
from nsalang.launch import checks
from nsalang.passes import check, simplify
from nsalang.syntax.parser import parse, read_source
from nsalang.types.typecheck import kernel_names

TEXT = """
def gather(x: f32[T, N], idx: i32[S], y: Out[f32[S, N]]):
    promise(0 <= idx < T)
    for s, n in grid(S, tile(N)):
        t = idx[s]
        y[s, n] = x[t, n]

def sentinel(x: f32[T, N], idx: i32[S, K], y: Out[f32[S, N]]):
    promise(-1 <= idx < T)
    for s, n in grid(S, tile(N)):
        total = zeros(n)
        for k in range(K):
            t = idx[s, k]
            total = total + where(t >= 0, x[t, n], 0)
        y[s, n] = total

def place(x: f32[S, N], slot: i32[S], low: i32[S], y: InOut[f32[T, N]]):
    promise(0 <= slot < T)
    promise(distinct(slot))
    promise(low <= slot)
    for s, n in grid(S, tile(N)):
        y[slot[s], n] = x[s, n]

def find(cu: i32[B], t: i32[N], y: Out[i64[N]]):
    for n in grid(tile(N)):
        y[n] = searchsorted(cu, t[n])

def division(a: i32[N], b: i32[N], y: Out[i32[N]], P: i32):
    for n in grid(tile(N)):
        d = b[n]
        q = where(d > 0, a[n] // d, 0)
        y[n] = i32(where((0 <= q) & (q < N) & (0 < P), a[q], -1))

def softmax(x: f32[M, N], y: Out[f32[M, N]]):
    for m in grid(tile(M)):
        top, total = full(m, f32.min), zeros(m)
        for n in tile(N):
            new = maximum(top, max(x[m, n], axis=n))
            total = total * exp(top - new) + sum(exp(x[m, n] - new), axis=n)
            top = new
        for n in tile(N):
            y[m, n] = exp(x[m, n] - top) / total

def loose(x: f32[T, N], a: i32[S], b: i32[S], c: i32[S], y: Out[f32[S, N]]):
    promise(-200000 <= a <= 200000)
    promise(-200000 <= b <= 200000)
    promise(-200000 <= c <= 200000)
    for s, n in grid(S, tile(N)):
        u, v, w = i64(a[s]), i64(b[s]), i64(c[s])
        t = 0
        if u * u * u + v * v * v + w * w * w == 39:
            t = T
        if T > 0:
            y[s, n] = x[t, n]
        else:
            y[s, n] = 0
"""
K = nsalang.load_text(TEXT, "checks.nsa")
BACKENDS = ("triton", "tilelang")


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def told(error: pytest.ExceptionInfo[nsalang.NsaError]) -> tuple[str, str, int]:
    (found,) = error.value.diagnostics
    assert found.span is not None
    return found.code, found.sentence, found.span.line


CALLS: dict[str, tuple[Any, ...]] = {
    "gather": (torch.randn(5, 70), ints(0, 4, 3, 3)),
    "sentinel": (torch.randn(5, 70), torch.tensor([[-1, 4], [2, -1], [0, 0]], dtype=torch.int32)),
    "find": (ints(0, 3, 3, 9), ints(-1, 0, 2, 3, 8, 9, 10)),
    "division": (ints(5, 4, 9, 7, 1), ints(2, 0, 3, -1, 9), 1),
    "softmax": (torch.randn(37, 133),),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CALLS)
def test_right_calls_give_the_same_bits(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, arguments = getattr(K, name), CALLS[name]
    plain = kernel(*arguments, backend=backend)
    assert torch.equal(kernel(*arguments, backend=backend, check=True), plain)
    monkeypatch.setenv("NSALANG_CHECK", "1")
    assert torch.equal(kernel(*arguments, backend=backend), plain)
    assert torch.equal(kernel(*arguments, backend=backend, check=False), plain)
    meant = kernel.interpret(*arguments)
    torch.testing.assert_close(plain, meant, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("engine", [*BACKENDS, "interpreter"])
def test_promises_are_checked(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, *arguments: Any) -> None:
        kernel = getattr(K, name)
        if engine == "interpreter":
            kernel.interpret(*arguments)
        else:
            kernel(*arguments, backend=engine)

    monkeypatch.setenv("NSALANG_CHECK", "1")
    x = torch.randn(5, 7)
    with pytest.raises(nsalang.NsaError) as error:
        run("gather", x, ints(0, 5, 7))
    assert told(error) == ("NSA0814", "promise(0 <= idx < T) does not hold: idx[1] = 5, T = 5", 3)
    with pytest.raises(nsalang.NsaError) as error:
        run("sentinel", x, torch.tensor([[0, 0], [-1, 4], [-2, 9]], dtype=torch.int32))
    assert told(error) == ("NSA0814", "promise(-1 <= idx < T) does not hold: idx[2, 0] = -2, T = 5", 9)
    y = torch.zeros(9, 7)
    with pytest.raises(nsalang.NsaError) as error:
        run("place", x, ints(3, 1, 0, 1, 3), ints(0, 0, 0, 0, 0), y)
    assert told(error) == ("NSA0814", "promise(distinct(slot)) does not hold: slot[1] = slot[3] = 1", 19)
    with pytest.raises(nsalang.NsaError) as error:
        run("place", x, ints(3, 1, 0, 2, 4), ints(0, 1, 2, 3, 4), y)
    assert told(error) == ("NSA0814", "promise(low <= slot) does not hold: low[2] = 2, slot[2] = 0", 20)
    assert not y.any(), "promises are checked before anything is written"
    with pytest.raises(nsalang.NsaError) as error:
        run("find", ints(0, 3, 2, 9), ints(1))
    code, sentence, line = told(error)
    assert (code, line) == ("NSA0814", 26)
    assert "(implied by searchsorted) does not hold: cu[1] = 3, cu[2] = 2" in sentence


def test_promises_about_places_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSALANG_CHECK", "1")
    text = """def f(off: i32[B + 1], n: i32[B], y: Out[i32[B]]):
    promise(off[b + 1] == off[b] + n[b])
    promise(off[0] == 0)
    promise(off[B] <= 9)
    promise(n[b - 2] <= n[b])
    for b in grid(B):
        y[b] = n[b]
"""
    kernel = nsalang.load_text(text, "places.nsa").f
    for off, n, wrong in (
        (ints(0, 2, 5), ints(2, 3), None),
        (ints(0), ints(), None),
        (ints(0, 2, 4), ints(2, 3), ("promise(off[b + 1] == off[b] + n[b]) does not hold: off[2] = 4, off[1] = 2, n[1] = 3", 2)),
        (ints(1, 3, 6), ints(2, 3), ("promise(off[0] == 0) does not hold: off[0] = 1", 3)),
        (ints(0, 2, 10), ints(2, 8), ("promise(off[B] <= 9) does not hold: off[2] = 10", 4)),
        (ints(0, 3, 4, 6), ints(3, 1, 2), ("promise(n[b - 2] <= n[b]) does not hold: n[0] = 3, n[2] = 2", 5)),
    ):
        if wrong is None:
            assert torch.equal(kernel.interpret(off, n), n)
            assert torch.equal(kernel(off, n, backend="triton"), n)
            continue
        for call in (kernel.interpret, lambda *a: kernel(*a, backend="triton")):
            with pytest.raises(nsalang.NsaError) as error:
                call(off, n)
            assert told(error) == ("NSA0814", *wrong)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_outside_is_reported_whatever_was_proved(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise is broken and nobody looks at it: to the code that is a wrong proof."""
    monkeypatch.setattr(checks, "check_promises", lambda *_: None)
    x, y = torch.randn(5, 70), torch.full((4, 70), 3.0)
    with pytest.raises(nsalang.NsaError) as error:
        K.gather(x, ints(0, 4, 5, 1), y=y, backend=backend, check=True)
    assert told(error) == ("NSA0814", "'x[t, n]' is outside 'x': the index of axis 0 is 5, and the extent is T = 5", 6)
    assert torch.equal(y[[0, 1, 3]], x[[0, 4, 1]]) and not y[2].any(), "what is outside is not read"
    with pytest.raises(nsalang.NsaError) as error:
        K.gather(x, ints(0, -(2**31), 2**31 - 1, 1)[:2], backend=backend, check=True)
    assert "index of axis 0 is -2147483648" in told(error)[1]
    base = torch.zeros(9, 7)
    with pytest.raises(nsalang.NsaError) as error:
        K.place(torch.ones(2, 7), ints(3, 9), ints(0, 0), base, backend=backend, check=True)
    assert told(error) == ("NSA0814", "'y[slot[s], n]' is outside 'y': the index of axis 0 is 9, and the extent is T = 9", 22)
    assert int(base.sum()) == 7 and bool((base[3] == 1).all()), "what is outside is not written"


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_prover_could_not_settle(backend: str) -> None:
    x, a, b, c = torch.randn(5, 7), ints(134476, 134476), ints(117367, 117367), ints(159380, 1)
    with pytest.raises(nsalang.NsaError, match="NSA0812"):
        K.loose(x, a, b, c, backend=backend)
    good = K.loose(x, a, b, c, backend=backend, allow="unknown")
    assert torch.equal(good, x[[0, 0]])
    assert torch.equal(K.loose(x, a, b, c, backend=backend, allow="unknown", check=True), good)
    c[0] = -159380
    assert not K.loose(x, a, b, c, backend=backend, allow="unknown")[0].any(), "guarded"
    with pytest.raises(nsalang.NsaError) as error:
        K.loose(x, a, b, c, backend=backend, allow="unknown", check=True)
    assert told(error) == ("NSA0814", "'x[t, n]' is outside 'x': the index of axis 0 is 5, and the extent is T = 5", 54)


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off", "1", "true", "Yes", "ON"])
def test_the_environment_says_yes_or_no(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSALANG_CHECK", value)
    assert checks.wanted(None) == (value in ("1", "true", "Yes", "ON"))
    assert checks.wanted(True) and not checks.wanted(False)


def test_the_environment_says_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSALANG_CHECK", "maybe")
    slot = ints(1, 0)
    for call in (K.place, K.place.interpret):
        with pytest.raises(nsalang.NsaError, match="NSA0519.*NSALANG_CHECK is 'maybe'; it takes 1, true, yes or on"):
            call(torch.ones(2, 7), slot, slot, torch.zeros(9, 7))
    assert checks.wanted(True) and not checks.wanted(False)


def test_nothing_is_checked_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NSALANG_CHECK", raising=False)
    fresh = nsalang.load_text(TEXT, "checks.nsa")
    slot = ints(1, 0)
    fresh.place(torch.ones(2, 7), slot, ints(5, 5), torch.zeros(9, 7), backend="tilelang")  # low <= slot is broken
    fresh.place.interpret(torch.ones(2, 7), slot, ints(5, 5), torch.zeros(9, 7))
    assert all(not c.checked and not k.kernel.checks for (_, c), k in fresh.place.launcher._compiled.items())
    monkeypatch.setenv("NSALANG_CHECK", "0")
    fresh.place(torch.ones(2, 7), slot, ints(5, 5), torch.zeros(9, 7), backend="tilelang")
    monkeypatch.setenv("NSALANG_CHECK", "1")
    with pytest.raises(nsalang.NsaError, match="NSA0814"):
        fresh.place(torch.ones(2, 7), slot, ints(5, 5), torch.zeros(9, 7), backend="tilelang")
    plain, checked = (
        fresh.place.launcher.compiled(m, dataclasses.replace(c, checked=on))
        for on in (False, True)
        for m, c in list(fresh.place.launcher._compiled)[:1]
    )
    assert plain.key != checked.key and "checks" not in plain.source


def test_empty_tensors_keep_every_promise() -> None:
    y = K.gather(torch.randn(0, 7), torch.empty(0, dtype=torch.int32), backend="tilelang", check=True)
    assert y.shape == (0, 7)


# ---------------------------------------------------------------------------------------------------------------- the pass alone


def instrumented(name: str) -> ir.Kernel:
    cpu = Target("cpu")
    kernel = simplify.run(typed(getattr(K, name).unit, Meaning(cpu)), cpu)
    assert check.run(kernel, cpu) is kernel
    return check.run(dataclasses.replace(kernel, schedule=dataclasses.replace(kernel.schedule, checked=True)), cpu)


def test_checks_are_in_the_order_of_the_program() -> None:
    kernel = instrumented("sentinel")
    seen = [(c.span.text.partition(" = ")[0] if c.span else "", c.tensor, c.axis) for c in kernel.checks]
    assert seen == [
        ("idx[s, k]", "idx", 0),
        ("idx[s, k]", "idx", 1),
        ("x[t, n]", "x", 0),
        ("x[t, n]", "x", 1),
        ("y[s, n]", "y", 0),
        ("y[s, n]", "y", 1),
    ]
    assert kernel.tensors[-1].name == "checks" and kernel.tensors[-1].shape == (ir.const(6),)


def test_divisors_are_checked_where_they_divide() -> None:
    text = """
def f(a: i32[N], b: i32[N], y: Out[i32[N]]):
    for n in grid(tile(N)):
        d = b[n]
        y[n] = i32(where(a[n] > 0, 100 // d, 0) + where(a[n] > 0, a[n] % 3, 0))
"""
    cpu = Target("cpu")
    kernel = simplify.run(typed(nsalang.load_text(text).f.unit, Meaning(cpu)), cpu)
    kernel = check.run(dataclasses.replace(kernel, schedule=dataclasses.replace(kernel.schedule, checked=True)), cpu)
    (position,) = [i for i, c in enumerate(kernel.checks) if c.kind == "divisor"]
    for a, b, fails in (([1, 0], [4, 0], False), ([1, 1], [4, 0], True)):
        found = torch.full((len(kernel.checks),), checks.UNTOUCHED)
        given = {"a": ints(*a), "b": ints(*b), "y": torch.zeros(2, dtype=torch.int32), kernel.tensors[-1].name: found}
        interpret(kernel, given, {}, {"N": 2})
        assert found.tolist().index(0) == position if fails else bool((found == checks.UNTOUCHED).all())


def test_every_stage_is_well_formed() -> None:
    from nsalang.ir.verify import verify

    cpu = Target("cpu")
    for name in CALLS:
        start = typed(getattr(K, name).unit, Meaning(cpu))
        for backend in ("triton", "tilelang"):
            prepare(start, cpu, Choice("triton" if backend == "triton" else "tilelang", checked=True), lambda s, k: verify(k, s))


def test_the_name_of_the_tensor_is_free() -> None:
    text = """
def f(checks: f32[N], checks_2: Out[f32[N]]):
    for n in grid(tile(N)):
        checks_2[n] = checks[n] * 2
"""
    x = torch.randn(70)
    assert torch.equal(nsalang.load_text(text).f(x, check=True), 2 * x)


def test_the_option_takes_a_bool() -> None:
    with pytest.raises(nsalang.NsaError, match="NSA0519"):
        K.softmax(torch.randn(2, 2), check="yes")


SLOW = {"attention", "sparse_mla", "sparse_mla_part", "sparse_mla_fp8_part", "sparse_mqa_sink"}
"""Their checked code takes minutes to compile."""
EXAMPLES = [
    pytest.param(name, path, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
    for path in sorted((Path(__file__).parent.parent / "examples").glob("*.nsa"))
    for name in kernel_names(parse(read_source(path)))
]


@pytest.mark.parametrize(("name", "path"), EXAMPLES)
def test_checked_examples_give_the_same_bits(name: str, path: Path) -> None:
    from edge_cases import NoSizes, cases, load, plain

    try:
        made = cases(load(name, path), "cpu", 2)
    except NoSizes:
        pytest.skip("small random sizes do not fulfil what it requires")
    for case in made:
        found = []
        for checked in (False, True):
            outputs = {n: torch.zeros(shape, dtype=dtype) for n, (shape, dtype) in case.outputs.items()}
            case.kernel(**{n: plain(t) for n, t in case.inputs.items()}, **outputs, **case.scalars, backend="tilelang", check=checked)
            found.append(outputs)
        for n, t in found[0].items():
            same = (t.view(torch.uint8) == found[1][n].view(torch.uint8)).view(*t.shape, t.element_size()).all(-1)
            assert bool((same | (t.float().isnan() & found[1][n].float().isnan())).all()), (case.title, n)
