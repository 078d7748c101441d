"""Programs: kernels called one after the other over scratch. Typing, calls by both backends and by the interpreter, their plans and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from program_texts import BACKENDS, TEXT, K, x_of

import nsalang
from nsalang.base.source import NsaError, Source
from nsalang.launch import plans
from nsalang.launch.launcher import Launcher
from nsalang.launch.sequence import poison
from nsalang.syntax.parser import parse
from nsalang.types.check import check_text
from nsalang.types.handed import polynomial, text
from nsalang.types.programs import specialise
from nsalang.types.settings import Settings
from nsalang.types.typecheck import program_names, signature

# ----------------------------------------------------------------------------------------------------------------------- typing


def typed(name: str, **settings: Any) -> Any:
    return specialise(parse(Source(TEXT)), name, Settings(**settings))


def test_the_calls_of_a_program() -> None:
    made = typed("row_sums", constants={"P": 8}, present=frozenset({"top"}))
    assert [(s.name, s.extents) for s in made.scratch] == [("part", ("M", "P"))]
    first, second = made.calls
    assert (first.kernel, first.tensors, first.dims) == ("partial_sums", (("x", "x"), ("part", "part")), ())
    assert second.tensors == (("part", "part"), ("y", "y"), ("top", "top"))
    assert second.dims == (("P", 8),) and second.present == frozenset({"top"}) and second.settings == (("square", False),)
    assert [n for n, _ in second.scalars] == ["factor"]
    assert [r.text for r in made.header.requires] == ["N > 0"]


def test_branches_on_what_is_known_when_compiling() -> None:
    assert [c.kernel for c in typed("chain").calls] == ["twice", "add_to", "twice"]
    assert [c.kernel for c in typed("chain", constants={"times": 2}).calls] == ["twice", "twice", "add_to", "twice"]


def test_a_dimension_that_a_called_kernel_spans_is_specialised() -> None:
    text_of = """
def rows(x: f32[M, N], y: Out[f32[M]]):
    n = span(N)
    for m in grid(tile(M)):
        y[m] = sum(x[m, n], axis=n)

def both(x: f32[A, B], y: Out[f32[A]], z: Out[f32[A]]):
    t = empty(f32[A, B + 1])
    rows(x, y=y)
    rows(x, y=z)

def none(x: f32[A, B], y: Out[f32[A]], z: Out[f32[A]]):
    rows(x, y=y)
    if False:
        rows(x, y=z)
    else:
        rows(x, y=z)
"""
    file = parse(Source(text_of))
    assert signature(file, "both", {}).specialised == ("B",) and program_names(file) == ("both", "none")
    assert [c.dims for c in specialise(file, "both", Settings(dims={"B": 8})).calls] == [(("N", 8),)] * 2
    with pytest.raises(NsaError, match="NSA0518.*the dimension B of 'both'"):
        nsalang.load_text(text_of).both.compile(target="cuda:sm_90")


def test_a_file_is_checked_with_its_programs() -> None:
    check_text(Source(TEXT))
    with pytest.raises(NsaError) as caught:
        check_text(
            Source(
                "def k(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = z\n\n\ndef p(x: f32[N], y: Out[f32[N]]):\n    k(x, y=y)\n"
            )
        )
    assert [d.code for d in caught.value.diagnostics] == ["NSA0201"]  # once, not again of the program


def test_what_is_wrong_in_a_kernel_only_as_the_program_calls_it() -> None:
    made = "def k(x: f32[N], y: Out[f32[N]], G: const = 1):\n    g = span(G)\n    for n in grid(tile(N)):\n        y[n] = x[n] + f32(sum(g, axis=g))\n\n\n"
    with pytest.raises(NsaError, match=r"NSA0312.*\n.*\n.*\n.*\n.*\n.*'k' is called in line 8"):
        check_text(Source(f"{made}def p(x: f32[N], y: Out[f32[N]]):\n    k(x, y=y, G=-1)\n"))


def test_extents_as_polynomials() -> None:
    file = parse(Source("def k(a: f32[(N + 1) * 2 - N, N // 4 + N // 4, (N * 2) // (3 + 1), 9 // 2]):\n    y = empty(f32[1])\n"))
    shape = signature(file, "k", {}).parameters[0].shape
    assert [text(polynomial(e)) for e in shape] == ["N + 2", "2 * floordiv(N, 4)", "floordiv(2 * N, 4)", "4"]


# ------------------------------------------------------------------------------------------------------------------------- calls


@pytest.mark.parametrize("engine", ["interpret", *BACKENDS])
def test_a_sum_in_two_stages(engine: str) -> None:
    x, bias = x_of(5, 37), x_of(5)

    def call(*args: Any, **kwargs: Any) -> Any:
        return K.row_sums.interpret(*args, **kwargs) if engine == "interpret" else K.row_sums(*args, backend=engine, **kwargs)

    torch.testing.assert_close(call(x, scale=1.5), x.sum(1) * 3)
    y, top = call(x, bias, 0.5, top=True, P=3, square=True)
    torch.testing.assert_close(y, x.sum(1) ** 2 + bias)
    parts = torch.stack([x[:, a:b].sum(1) for a, b in ((0, 13), (13, 25), (25, 37))], 1)
    torch.testing.assert_close(top, parts.amax(1))
    given = torch.empty(5)
    assert call(x, scale=1.0, y=given) is given
    torch.testing.assert_close(given, x.sum(1) * 2)
    assert call(x_of(0, 4), scale=1.0).shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_softmax_in_two_kernels_of_any_dtype(backend: str) -> None:
    x = x_of(6, 70).t().contiguous().t()
    y = K.softmax(x, T=torch.bfloat16, backend=backend)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), torch.softmax(x, 1), rtol=2**-7, atol=0)
    torch.testing.assert_close(K.softmax(x, y=torch.empty(6, 70), backend=backend), torch.softmax(x, 1))
    torch.testing.assert_close(K.softmax.interpret(x, T="f32", tile=16), torch.softmax(x, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_scratch_of_scratch_and_tensors_that_are_read_and_written(backend: str) -> None:
    x, y = x_of(33), x_of(33) + 1
    for times, change in ((1, 2 * x), (2, -4 * x)):
        mine, its = y.clone(), y.clone()
        z = K.chain(x, mine, times=times, backend=backend)
        torch.testing.assert_close(mine, y + change)
        torch.testing.assert_close(z, 2 * (y + change))
        assert torch.equal(K.chain.interpret(x, its, times=times), z) and torch.equal(its, mine)


def test_the_interpreter_poisons_scratch_and_outputs() -> None:
    x = torch.tensor([1.0, -1.0, 2.0, 0.0])
    y = K.holes.interpret(x)
    assert y.isnan().tolist() == [False, True, False, True]
    for dtype, bad in ((torch.int32, -(2**31)), (torch.uint8, 255), (torch.bool, True)):
        t = torch.zeros(3, dtype=dtype)
        poison(t)
        assert t.tolist() == [bad] * 3
    for dtype in (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2):
        t = torch.zeros(3, dtype=dtype)
        poison(t)
        assert bool(t.float().isnan().all())


def test_a_fault_of_a_kernel_is_the_kernels() -> None:
    with pytest.raises(NsaError, match=r"NSA0520.*t|table"):
        K.doubled_gather.interpret(x_of(4), torch.tensor([0, 9], dtype=torch.int32))


# -------------------------------------------------------------------------------------------------------- arguments and plans


def wrong(code: str, match: str, *args: Any, kernel: str = "row_sums", **kwargs: Any) -> NsaError:
    for call in (getattr(K, kernel), getattr(K, kernel).interpret):
        with pytest.raises(NsaError, match=match) as caught:
            call(*args, **kwargs)
        assert caught.value.diagnostics[0].code == code
    return caught.value


def test_arguments_are_checked_as_those_of_a_kernel() -> None:
    x = x_of(5, 8)
    wrong("NSA0503", "argument 'scale' of 'row_sums' is missing", x)
    wrong("NSA0501", "'row_sums' has no parameter 'part'", x, scale=1.0, part=x)
    wrong("NSA0509", "axis 0 of argument 'bias' has extent 4; expected M = 5", x, x_of(4), 1.0)
    wrong("NSA0506", "argument 'x' has dtype torch.float64", x.double(), scale=1.0)
    wrong("NSA0514", "'row_sums' requires N > 0", x_of(5, 0), scale=1.0)
    wrong("NSA0513", "arguments 'y' and 'bias' overlap", x, bias := x_of(5), 1.0, y=bias)
    wrong("NSA0512", "argument 'y' is written", x, scale=1.0, y=torch.empty(1).expand(5))
    wrong("NSA0516", "argument 'P' is a const parameter", x, scale=1.0, P=1.5)


def test_what_a_kernel_refuses_names_the_line_that_calls_it() -> None:
    line = next(i for i, t in enumerate(TEXT.split("\n"), 1) if "partial_sums(x, part=part)" in t)
    error = wrong("NSA0514", "'partial_sums' requires P > 0", x_of(3, 4), scale=1.0, P=0)
    assert error.diagnostics[0].notes[-1] == f"'partial_sums' is called in line {line}"
    error = wrong("NSA0509", "axis 0 of argument 'y' has extent 9", x_of(8), extra=10, kernel="quarters")
    assert "'halves' is called in line" in error.diagnostics[0].notes[-1]
    wrong("NSA0509", r"axis 0 of scratch 't' would have the extent \(N \+ extra\) // 2 = -1", x_of(8), extra=-10, kernel="quarters")


@pytest.mark.parametrize(("scalar", "why"), [("N // (N - 4)", "divides by zero"), ("1 << (N - 5)", "shifts by -1")])
def test_a_scalar_that_has_no_value(scalar: str, why: str) -> None:
    module = nsalang.load_text(f"""def scaled(x: f32[N], y: Out[f32[N]], by: i64):
    for n in grid(tile(N)):
        y[n] = x[n] * f32(by)

def twice(x: f32[N], y: Out[f32[N]]):
    scaled(x, {scalar}, y=y)
""")
    for call in (module.twice, module.twice.interpret):
        with pytest.raises(NsaError) as caught:
            call(x_of(4))
        (found,) = caught.value.diagnostics
        assert found.code == "NSA0514" and found.span is not None and found.span.line == 6
        assert found.sentence == f"argument 'by' of 'scaled' {why} here" and found.notes == ("N = 4",)


def test_a_plan_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[str] = []
    original = Launcher.plan

    def plan(self: Launcher, values: Sequence[Any], options: Any, checked: bool) -> Any:
        planned.append(self.unit.name)
        return original(self, values, options, checked)

    monkeypatch.setattr(Launcher, "plan", plan)
    module = nsalang.load_text(TEXT)
    for _ in range(3):
        module.chain(x_of(16), x_of(16), backend="tilelang")
    assert planned == ["twice", "add_to", "twice"]
    module.chain(x_of(17), x_of(17), backend="tilelang")
    assert len(planned) == 6


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MOST", 2)
    row_sums = nsalang.load_text(TEXT).row_sums
    for n in range(1, 6):
        row_sums(x_of(4, 8), scale=float(n), backend="tilelang")
        assert 0 < len(row_sums.launcher._plans) <= 2


def test_scratch_is_fresh_and_outputs_are_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    x = x_of(4, 8)
    K.row_sums(x, scale=1.0, backend="tilelang")
    made: list[tuple[int, ...]] = []
    empty = torch.empty

    def counted(shape: Any, **more: Any) -> torch.Tensor:
        made.append(tuple(shape))
        return empty(shape, **more)

    monkeypatch.setattr(torch, "empty", counted)
    K.row_sums(x, scale=1.0, backend="tilelang")
    assert made == [(4,), (4, 4)]
    made.clear()
    K.row_sums(x, scale=1.0, y=empty(4), backend="tilelang")
    assert [m for m in made if m == (4, 4)] == [(4, 4)]


def test_an_allocator_that_aligns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = x_of(4, 8)
    K.row_sums(x, scale=1.0, backend="tilelang")
    empty = torch.empty

    def odd(shape: Any, **more: Any) -> torch.Tensor:
        count = 1
        for extent in shape:
            count *= extent
        return empty(count + 1, **more)[1:].view(shape)

    monkeypatch.setattr(torch, "empty", odd)
    torch.testing.assert_close(K.row_sums(x, scale=1.0, backend="tilelang"), x.sum(1) * 2)


def test_options_reach_the_kernels() -> None:
    x = x_of(4, 8)
    torch.testing.assert_close(K.row_sums(x, scale=1.0, backend="tilelang", schedule={"m": 2}), x.sum(1) * 2)
    torch.testing.assert_close(K.row_sums(x, scale=1.0, backend="tilelang", schedule={"combine": {"m": 4}}), x.sum(1) * 2)
    with pytest.raises(NsaError, match="NSA0409"):
        K.row_sums(x, scale=1.0, backend="tilelang", schedule={"combine": {"q": 4}})
    with pytest.raises(NsaError, match=r"NSA0519.*pins 'combin.m', and no kernel is called that(.|\n)*did you mean 'combine.m'\?"):
        K.row_sums(x, scale=1.0, backend="tilelang", schedule={"combin": {"m": 4}})
    with pytest.raises(NsaError, match="NSA0519.*pins 'other.m'") as error:
        K.row_sums(x, scale=1.0, backend="tilelang", schedule={"other": {"m": 4}})
    assert error.value.diagnostics[0].helps == ()
    with pytest.raises(NsaError, match="NSA0519"):
        K.row_sums(x, scale=1.0, schedule={"combine": {"m": "4"}})
    with pytest.raises(NsaError, match="NSA0607"):
        K.row_sums(x, scale=1.0, backend="tritn")


@pytest.mark.parametrize("backend", BACKENDS)
def test_checks_reach_the_kernels(backend: str) -> None:
    table, slot = x_of(4), torch.tensor([3, 0], dtype=torch.int32)
    torch.testing.assert_close(K.doubled_gather(table, slot, check=True, backend=backend), 2 * table[slot])
    with pytest.raises(NsaError, match=r"NSA0814.*promise\(0 <= slot < T\) does not hold"):
        K.doubled_gather(table, slot + 1, check=True, backend=backend)
