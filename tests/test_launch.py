"""Calls: arguments checked and dimensions solved, facts that choose a variant, launches. Here the interpreter stands in for a backend, so that
nothing is compiled; test_jit.py goes all the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import nsalang
from nsalang import ir, language
from nsalang.base.dtypes import I64
from nsalang.build.backends import choose_backend
from nsalang.build.pipeline import Choice, Meaning, Unit
from nsalang.host.memory import Layout, is_aligned, needs_wide, pointer, writes_twice
from nsalang.interp.run import interpret
from nsalang.launch import launcher as launch
from nsalang.launch import plans
from nsalang.launch.options import DEFAULT, options_of
from nsalang.lowering.program import Argument
from nsalang.toolchain.backends import Backend

TEXT = """
def add(x: f32[M, N], y: f32[M, N], out: Out[f32[M, N]]):
    for m, n in grid(tile(M), tile(N)):
        out[m, n] = x[m, n] + y[m, n]

def scale(x: InOut[f32[N]], factor: f32, times: i32 = 1):
    for n in grid(tile(N)):
        x[n] = x[n] * factor * f32(times)

def group(x: f32[M, N], y: Out[f32[M, N]], s: Out[f32[M, N // G]], G: const = 4, mean: const = False):
    require(N % G == 0)
    for m, g in grid(tile(M), N // G):
        n = span(g * G, G)
        total = sum(x[m, n], axis=n)
        if mean:
            total = total / G
        y[m, n] = x[m, n] / 2
        s[m, g] = total

def lookup(cu: i32[B + 1], x: f32[2 * N], out: Out[f32[B]]):
    for b in grid(B):
        out[b] = x[b] + f32(cu[b])

def ramp(N: i32, y: Out[f32[N]], first: f32 = 0.5):
    for n in grid(tile(N)):
        y[n] = first + f32(n)

def options(x: f32[N], bias: f32[N] | None, factor: f32, gain: f32 | None, y: Out[f32[N]], total: Out[f32[N]] | None):
    for n in grid(tile(N)):
        v = x[n] * factor
        if bias is not None:
            v = v + bias[n]
        if gain is not None:
            v = v * gain
        y[n] = v
        if total is not None:
            total[n] = v + 1.0

def cast(x: T[N], y: Out[T[N]], z: Out[f32[N]], T: dtype):
    for n in grid(tile(N)):
        y[n] = x[n]
        z[n] = f32(x[n])

def rows(x: f32[M, D], y: Out[f32[M]]):
    d = span(D)
    for m in grid(tile(M)):
        y[m] = sum(x[m, d], axis=d)

def ratio(x: f32[M, N], y: Out[f32[M // N]]):
    for i in grid(M // N):
        y[i] = x[i, 0]

def counted(x: f32[N], low: f32, y: Out[f32[N]], size: const):
    require(low > 0.0)
    require(N <= size)
    for n in grid(tile(N)):
        y[n] = x[n] / low

def narrow(x: e4m3[N], ok: bool, small: u8, y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[n] = where(ok, f32(x[n]), f32(small))

def single(x: f32[M, N], y: Out[f32[M, N]]):
    for m, n in grid(M, N):
        y[m, n] = x[m, n]

def cells(n: i64, y: Out[f32[1]]):
    partial(y)
    for i in grid(n):
        if i == 0:
            y[i] = 1.0
"""
K = nsalang.load_text(TEXT, "kernels.nsa")


@dataclass
class Ran:
    """One launch: what was chosen, and what the code was given."""

    choice: Choice
    meaning: Meaning
    programs: int
    arguments: Sequence[Any]


@dataclass
class Engine:
    """Compiles nothing: a launch runs the interpreter. ``lengths`` are the machine lengths of all axes, for the 64-bit decision."""

    ran: list[Ran] = field(default_factory=list)
    compiled: list[tuple[Meaning, Choice]] = field(default_factory=list)
    lengths: dict[str, int] = field(default_factory=dict)
    vectors: tuple[str, ...] | None = None
    hoists: tuple[ir.Require, ...] = ()

    def compile(self, unit: Unit, meaning: Meaning, choice: Choice, after: object = None, kernel: ir.Kernel | None = None) -> Any:
        assert kernel is not None
        self.compiled.append((meaning, choice))
        axes = ir.axes_of(kernel)
        kernel = replace(_with_lengths(kernel, {a: self.lengths.get(a, 1) for a in axes}, self.vectors), hoists=self.hoists)
        bindings, arguments = [], []
        for tensor in kernel.tensors:
            bindings.append(SimpleNamespace(kind="tensor", name=tensor.name, axis=0))
            arguments.append(Argument(tensor.name, "pointer", (tensor.storage or tensor.dtype).name))
            for i in range(len(tensor.shape)):
                bindings.append(SimpleNamespace(kind="stride", name=tensor.name, axis=i))
                arguments.append(Argument(f"{tensor.name}_{i}", "i64"))
        for kind, names in (("dim", kernel.dims), ("scalar", tuple(s.name for s in kernel.scalars))):
            for name in names:
                bindings.append(SimpleNamespace(kind=kind, name=name, axis=0))
                arguments.append(Argument(name, "i64"))

        def run(programs: int, values: Sequence[Any]) -> None:
            self.ran.append(Ran(choice, meaning, programs, values))
            by = {(b.kind, b.name): v for b, v in zip(bindings, values, strict=True)}
            tensors = {t.name: by["tensor", t.name] for t in kernel.tensors}
            interpret(
                kernel, tensors, {s.name: by["scalar", s.name] for s in kernel.scalars}, {d: by["dim", d] for d in kernel.dims}, tile=4
            )

        return SimpleNamespace(
            kernel=kernel,
            target=meaning.target,
            program=SimpleNamespace(arguments=tuple(arguments)),
            generated=SimpleNamespace(bindings=tuple(bindings), grid=tuple(i.extent for i in kernel.grid)),
            load=lambda: run,
        )


def _with_lengths(kernel: ir.Kernel, lengths: dict[str, int], vectors: tuple[str, ...] | None = None) -> ir.Kernel:
    names = tuple(t.name for t in kernel.tensors) if vectors is None else vectors
    return replace(kernel, schedule=replace(kernel.schedule, lengths=tuple(lengths.items()), vectors=names))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A fresh module of kernels is needed with it: plans are kept by the kernels."""
    made = Engine()
    monkeypatch.setattr(launch, "compile_kernel", made.compile)
    yield made


def fresh() -> nsalang.Module:
    return nsalang.load_text(TEXT, "kernels.nsa")


def refused(code: str, call: Callable[[], object], *words: str) -> str:
    """The one diagnostic of a call that must fail, with all the words in it."""
    with pytest.raises(nsalang.NsaError) as caught:
        call()
    assert [d.code for d in caught.value.diagnostics] == [code], str(caught.value)
    text = str(caught.value)
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"
    return text


X = torch.arange(24, dtype=torch.float32).reshape(4, 6)


# ---------------------------------------------------------------------------------------------------------------- what a call does


def test_outputs_are_allocated_and_given_back(engine: Engine) -> None:
    out = fresh().add(X, X)
    assert torch.equal(out, 2 * X) and out.is_contiguous()


def test_given_outputs_are_written_and_are_the_results(engine: Engine) -> None:
    mine = torch.empty(6, 4).t()
    assert fresh().add(X, y=X, out=mine) is mine
    assert torch.equal(mine, 2 * X)


def test_several_outputs_come_in_order(engine: Engine) -> None:
    y, s = fresh().group(X[:, :4])
    assert torch.equal(y, X[:, :4] / 2) and torch.equal(s[:, 0], X[:, :4].sum(1))


def test_inout_is_written_and_not_returned(engine: Engine) -> None:
    x = torch.ones(5)
    assert fresh().scale(x, 2.0, 3) is None
    assert torch.equal(x, torch.full((5,), 6.0))


def test_default_of_a_scalar(engine: Engine) -> None:
    x = torch.ones(3)
    fresh().scale(x, factor=2)
    assert torch.equal(x, torch.full((3,), 2.0))


def test_const_parameters_choose_code(engine: Engine) -> None:
    kernels = fresh()
    _, s = kernels.group(X, G=2, mean=True)
    assert torch.equal(s, X.reshape(4, 3, 2).mean(2))
    _, s = kernels.group(X, G=3)
    assert torch.equal(s, X.reshape(4, 2, 3).sum(2))
    assert len({meaning for meaning, _ in engine.compiled}) == 2


def test_optional_parameters_before_required_ones(engine: Engine) -> None:
    kernels, x, b = fresh(), torch.ones(3), torch.arange(3.0)
    assert torch.equal(kernels.options(x, factor=2.0), 2 * x)
    assert torch.equal(kernels.options(x, b, 2.0), 2 * x + b)
    assert torch.equal(kernels.options(x, None, 2.0, 10.0), 20 * x)
    y, total = kernels.options(x, b, 2.0, total=True)
    assert torch.equal(total, y + 1)
    mine = torch.empty(3)
    assert kernels.options(x, factor=1.0, total=mine)[1] is mine
    assert torch.equal(kernels.options(x, factor=3.0, total=False), 3 * x)


def test_dimensions_from_affine_extents(engine: Engine) -> None:
    out = fresh().lookup(torch.arange(4, dtype=torch.int32), torch.ones(8))
    assert out.shape == (3,)


def test_dimension_from_a_scalar_of_its_name(engine: Engine) -> None:
    assert torch.equal(fresh().ramp(4), torch.tensor([0.5, 1.5, 2.5, 3.5]))


def test_dtype_parameter_is_inferred_or_given(engine: Engine) -> None:
    kernels = fresh()
    y, z = kernels.cast(torch.ones(3, dtype=torch.bfloat16))
    assert y.dtype is torch.bfloat16 and z.dtype is torch.float32
    for name in ("f16", torch.float16, language.f16):
        assert kernels.cast(torch.ones(3, dtype=torch.float16), T=name)[0].dtype is torch.float16
    text = "def fill(v: T, x: T[N], y: Out[T[N]], T: dtype):\n    for n in grid(tile(N)):\n        y[n] = x[n] + v\n"
    assert torch.equal(nsalang.load_text(text).fill(2, torch.ones(2).half()), torch.full((2,), 3.0).half())


def test_specialised_dimension_is_part_of_the_variant(engine: Engine) -> None:
    kernels = fresh()
    for width in (6, 5, 6):
        assert torch.equal(kernels.rows(X[:, :width]), X[:, :width].sum(1))
    assert {m.dims for m, _ in engine.compiled} == {(("D", 6),), (("D", 5),)}


def test_numbers_of_numpy_are_numbers(engine: Engine) -> None:
    import numpy

    x = torch.ones(2)
    fresh().scale(x, numpy.float32(2.5), numpy.int64(2))
    assert torch.equal(x, torch.full((2,), 5.0))


def test_a_float_scalar_is_rounded_to_its_dtype(engine: Engine) -> None:
    fresh().scale(torch.ones(2), 0.1)
    assert [v for v in engine.ran[-1].arguments if isinstance(v, float)] == [torch.tensor(0.1).item()]


def test_an_empty_grid_launches_nothing(engine: Engine) -> None:
    out = fresh().add(torch.empty(0, 5), torch.empty(0, 5))
    assert out.shape == (0, 5) and not engine.ran


def test_a_repeated_call_is_planned_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = fresh()
    kernels.add(X, X)
    with monkeypatch.context() as patch:
        patch.setattr(launch, "bind", lambda *a: pytest.fail("planned again"))
        for _ in range(3):
            assert torch.equal(kernels.add(X + 1, X), 2 * X + 1)
    kernels.add(X[:2], X[:2])
    assert len(kernels.add.launcher._plans) == 2 and len(engine.compiled) == len(set(engine.compiled))


def test_plans_are_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MOST", 4)
    kernels = fresh()
    for n in range(1, 11):
        kernels.ramp(n)
    assert len(kernels.ramp.launcher._plans) <= 4


@pytest.mark.parametrize(("first", "second"), [(True, 1), (1, 1.0)])
def test_equal_values_of_other_types_are_checked_anew(engine: Engine, first: object, second: object) -> None:
    kernels, x = fresh(), torch.ones(2)
    good, bad = (second, first) if first is True else (first, second)
    kernels.scale(x, 1.0, good)
    refused("NSA0504", lambda: kernels.scale(x, 1.0, bad), "times")


def test_minus_zero_is_another_scalar(engine: Engine) -> None:
    kernels = fresh()
    kernels.scale(torch.ones(2), 0.0)
    kernels.scale(torch.ones(2), -0.0)
    signs = [math.copysign(1.0, v) for ran in engine.ran for v in ran.arguments if isinstance(v, float) and v == 0]
    assert signs == [1.0, -1.0]


def test_interpret_gives_what_a_call_gives(engine: Engine) -> None:
    kernels = fresh()
    for tile in (None, 1, 3, {"m": 2, "n": 4}):
        assert torch.equal(kernels.add.interpret(X, X, tile=tile), kernels.add(X, X))
    mine = torch.empty(4, 6)
    assert kernels.add.interpret(X, X, out=mine, target="hip:gfx942") is mine


def test_threads_share_a_kernel(engine: Engine) -> None:
    from concurrent.futures import ThreadPoolExecutor

    kernels = fresh()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: kernels.add(X[:, :n], X[:, :n]), [1, 2, 3, 4, 5, 6] * 4))
    assert all(torch.equal(r, 2 * X[:, : r.shape[1]]) for r in results)


# ------------------------------------------------------------------------------------------------------------------ the two facts


def test_aligned_variant(engine: Engine) -> None:
    kernels = fresh()
    x = torch.ones(4, 8)
    kernels.add(x, x)
    assert engine.ran[-1].choice.aligned
    kernels.add(x, torch.ones(4 * 8 + 1)[1:].reshape(4, 8))
    assert not engine.ran[-1].choice.aligned, "a base address"
    kernels.add(x, torch.ones(4, 9)[:, :8])
    assert not engine.ran[-1].choice.aligned, "a row stride"
    kernels.add(x, torch.ones(8, 4).t())
    assert not engine.ran[-1].choice.aligned, "a last stride"
    kernels.add(torch.ones(4, 6), torch.ones(4, 6))
    assert not engine.ran[-1].choice.aligned, "an output to be allocated counts too"


def test_axes_of_one_element_do_not_matter() -> None:
    assert is_aligned(Layout((1, 8), (3, 1), 4, 0))
    assert is_aligned(Layout((8, 4), (4, 1), 4, 0))
    assert not is_aligned(Layout((2, 8), (3, 1), 4, 0))
    assert not is_aligned(Layout((2, 8), (8, 2), 4, 0))
    assert not is_aligned(Layout((2, 6), (8, 1), 4, 0)), "the last extent"
    assert is_aligned(Layout((0, 8), (8, 1), 4, 3))


def test_only_tensors_that_are_read_in_vectors_decide(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "vectors", ("x", "out"))
    kernels, x, odd = fresh(), torch.ones(4, 8), torch.ones(4, 9)[:, :8]
    kernels.add(x, odd)
    assert engine.ran[-1].choice.aligned
    kernels.add(odd, x)
    assert not engine.ran[-1].choice.aligned


def test_a_stride_that_does_not_matter_is_passed_as_zero(engine: Engine) -> None:
    fresh().add(torch.ones(1, 8).as_strided((1, 8), (5, 1)), torch.ones(1, 8))
    assert engine.ran[-1].choice.aligned and 5 not in [v for v in engine.ran[-1].arguments if isinstance(v, int)]


def test_wide_variant_for_offsets(engine: Engine) -> None:
    kernels = fresh()
    far = torch.empty(1).expand(3, 2**30)  # offsets up to 2**30: narrow
    meaning = Meaning.of(nsalang.Target("cpu"), {}, {}, frozenset())
    kernel = kernels.single.launcher.typed(meaning)
    dims = {"M": 3, "N": 2**30}
    assert not needs_wide(kernel, {"x": Layout((3, 2**30), tuple(far.stride()), 4, 0)}, dims)
    assert needs_wide(kernel, {"x": Layout((3, 2**30), (2**30, 1), 4, 0)}, dims)
    assert needs_wide(kernel, {}, {"M": 2**31 - 1, "N": 1})
    assert not needs_wide(kernel, {}, {"M": 2**31 - 1 - 2**17, "N": 1})


def test_tails_of_tiles_count_for_offsets() -> None:
    kernel = fresh().add.launcher.typed(Meaning.of(nsalang.Target("cpu"), {}, {}, frozenset()))
    layout = Layout((2**15, 2**16), (2**16, 1), 4, 0)
    assert not needs_wide(_with_lengths(kernel, {"m": 1, "n": 1}), {"x": layout}, {})
    assert needs_wide(_with_lengths(kernel, {"m": 2, "n": 1}), {"x": layout}, {}), "a row past the last"


def test_the_wide_variant_is_launched(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "needs_wide", lambda kernel, layouts, dims: dims["M"] > 2)
    kernels = fresh()
    kernels.add(X, X)
    kernels.add(X[:2], X[:2])
    assert [r.choice.wide for r in engine.ran] == [True, False]


# ----------------------------------------------------------------------------------------------------------------------- refusals


def test_unknown_argument() -> None:
    refused("NSA0501", lambda: K.add(X, X, outt=X), "'add'", "'outt'", "did you mean 'out'?")


def test_too_many_arguments() -> None:
    refused("NSA0502", lambda: K.add(X, X, X), "2 arguments by position (x, y)", "3 were given", "out=…")
    refused("NSA0502", lambda: K.add(X, X, x=X), "'x'", "by position and by name")


def test_missing_arguments() -> None:
    refused("NSA0503", lambda: K.add(X), "'y'", "kernels.nsa:2")
    refused("NSA0503", lambda: K.scale(torch.ones(2)), "'factor'")
    refused("NSA0503", lambda: K.counted(torch.ones(2), 1.0), "'size'")


@pytest.mark.parametrize("value", [3, "text", [1.0], None.__class__, {"a": 1}])
def test_no_tensor(value: object) -> None:
    refused("NSA0504", lambda: K.add(X, value), "'y'", "takes a torch tensor")


@pytest.mark.parametrize("value", ["2", torch.ones(()), [2.0], True, 1j])
def test_no_number(value: object) -> None:
    refused("NSA0504", lambda: K.scale(torch.ones(2), value), "'factor'", "scalar f32", "takes a number")


def test_scalars_of_other_kinds() -> None:
    x = torch.ones(2, dtype=torch.float8_e4m3fn)
    refused("NSA0504", lambda: K.scale(torch.ones(2), 1.0, 1.5), "'times'", "takes an integer", "1.5")
    refused("NSA0504", lambda: K.narrow(x, 1, 1), "'ok'", "True or False")
    refused("NSA0504", lambda: K.add(X, X, out=True), "'out'")


def test_scalar_out_of_range() -> None:
    refused("NSA0505", lambda: K.scale(torch.ones(2), 1.0, 2**31), "'times'", "2147483648", "i32")
    refused("NSA0505", lambda: K.scale(torch.ones(2), 1e39), "'factor'", "f32")
    refused("NSA0505", lambda: K.scale(torch.ones(2), 10**400), "'factor'", "f32")
    refused("NSA0505", lambda: K.narrow(torch.ones(2, dtype=torch.float8_e4m3fn), True, -1), "'small'", "u8")
    refused("NSA0505", lambda: K.ramp(-1), "'N'", "-1")
    endless = torch.ones(1, 1).expand(2**48, 1)
    refused("NSA0505", lambda: K.add(endless, endless, out=endless), "'x'", "2**48")


def test_wrong_dtype() -> None:
    refused("NSA0506", lambda: K.add(X, X.double()), "'y'", "torch.float64", "expected f32")
    refused("NSA0506", lambda: K.narrow(torch.ones(2), True, 1), "'x'", "expected e4m3", "float8_e4m3fn")
    refused(
        "NSA0506", lambda: K.narrow.interpret(torch.ones(2, dtype=torch.float8_e4m3fn), True, 1, target="hip:gfx942"), "float8_e4m3fnuz"
    )
    refused("NSA0506", lambda: K.cast(torch.ones(2), y=torch.ones(2).half()), "'y'", "T in this call")
    refused("NSA0506", lambda: K.cast(torch.ones(2, dtype=torch.complex64)), "'x'", "complex64")


def test_too_many_instances(engine: Engine) -> None:
    refused("NSA0507", lambda: fresh().cells(2**31), "'cells'", "2147483648")


def test_wrong_rank() -> None:
    refused("NSA0508", lambda: K.add(X, X[0]), "'y'", "1 axis", "[6]", "[M, N]")


def test_wrong_extents() -> None:
    text = refused("NSA0509", lambda: K.add(X, X[:, :5]), "axis 1 of argument 'y'", "extent 5", "expected N = 6", "axis 1 of 'x'")
    assert "kernels.nsa:2" in text
    refused("NSA0509", lambda: K.add(X, X, out=torch.empty(4, 7)), "'out'", "extent 7", "N = 6")
    refused("NSA0509", lambda: K.group(X[:, :4], s=torch.empty(4, 3)), "'s'", "extent 3", "N // G = 1")
    refused("NSA0509", lambda: K.ramp(4, y=torch.empty(5)), "'y'", "extent 5", "N = 4")
    refused("NSA0509", lambda: K.cells(1, y=torch.empty(2)), "'y'", "extent 2", "expected 1")


def test_dimensions_that_nothing_gives() -> None:
    refused("NSA0510", lambda: K.lookup(torch.zeros(0, dtype=torch.int32), torch.ones(2)), "axis 0 of argument 'cu'", "B + 1", "extent 0")
    refused("NSA0510", lambda: K.lookup(torch.zeros(2, dtype=torch.int32), torch.ones(3)), "2 * N", "extent 3")
    only = nsalang.load_text("def only(x: f32[N // 2], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = 1.0\n")
    refused("NSA0510", lambda: only.only(torch.ones(3)), "dimension N")


def test_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    refused("NSA0515", lambda: K.add(X, X.to("meta")), "'y'", "meta")
    fake = SimpleNamespace(device=torch.device("cuda", 1))

    class Elsewhere(torch.Tensor):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return fake.device

    refused("NSA0511", lambda: K.add(X, X.as_subclass(Elsewhere)), "'y'", "cuda:1", "'x'", "cpu")


def test_strides_that_write_twice() -> None:
    refused("NSA0512", lambda: K.add(X, X, out=torch.empty(1, 6).expand(4, 6)), "'out'", "[0, 1]", "axis 0")
    refused("NSA0512", lambda: K.add(X, X, out=torch.empty(40).as_strided((4, 6), (5, 1))), "'out'", "axes 0 and 1")
    refused("NSA0512", lambda: K.scale(torch.ones(1).expand(3), 1.0), "'x'")


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((4, 6), (6, 1)),
        ((2, 3), (3, 2)),
        ((3, 2), (2, 3)),
        ((4, 6), (5, 1)),
        ((2, 2, 2), (4, 2, 1)),
        ((2, 2, 2), (3, 2, 1)),
        ((1, 5), (0, 1)),
    ],
)
def test_writes_twice_never_says_no_where_elements_meet(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    offsets = [
        sum(i * s for i, s in zip(index, strides, strict=True)) for index in torch.cartesian_prod(*map(torch.arange, shape)).tolist()
    ]
    meets = len(set(offsets)) < len(offsets)
    said = writes_twice(Layout(shape, strides, 4, 0)) is not None
    assert said == meets


def test_overlapping_arguments(engine: Engine) -> None:
    kernels, buffer = fresh(), torch.zeros(100)
    x, y = buffer[:24].reshape(4, 6), buffer[24:48].reshape(4, 6)
    kernels.add(x, x, out=y)
    kernels.add(x, x, out=buffer[48:72].reshape(4, 6))
    refused("NSA0513", lambda: kernels.add(x, y, out=buffer[20:44].reshape(4, 6)), "'out'", "'x'", "written")
    refused("NSA0513", lambda: kernels.add(x, y, out=x), "'out'")
    wide = torch.zeros(4, 12)
    refused("NSA0513", lambda: kernels.add(wide[:, :6], X, out=wide[:, 6:]), "interleaved")
    refused("NSA0513", lambda: kernels.add.interpret(x, y, out=x), "'out'")


def test_overlap_is_checked_at_every_call(engine: Engine) -> None:
    kernels, buffer = fresh(), torch.zeros(96)
    place = [buffer[i : i + 24].reshape(4, 6) for i in (0, 24, 48, 12)]
    kernels.add(place[0], place[1], out=place[2])
    refused("NSA0513", lambda: kernels.add(place[0], place[1], out=place[3]), "'out'")


def test_requirements() -> None:
    refused("NSA0514", lambda: K.group(X), "N % G == 0", "N = 6", "kernels.nsa")
    refused("NSA0514", lambda: K.counted(torch.ones(2), -1.0, size=4), "low > 0.0", "low = -1.0")
    refused("NSA0514", lambda: K.counted(torch.ones(5), 1.0, size=4), "N <= size", "N = 5")
    refused("NSA0514", lambda: K.ratio(torch.ones(3, 0)), "N")


@pytest.mark.parametrize(
    ("extent", "require", "view", "grid", "line", "told"),
    [
        ("N", "1 << k < 64", "u8[N]", "1", 2, ("requires 1 << k < 64", "k = -1; it shifts by -1")),
        ("N", "N % (k + 1) == 0", "u8[N]", "1", 2, ("requires N % (k + 1) == 0", "it divides by zero")),
        ("1 << (N - 5)", "N > 0", "u8[N]", "1", 1, ("axis 0 of argument 'y' is 1 << (N - 5), which shifts by -1 here", "N = 4")),
        ("8 // (N - 4)", "N > 0", "u8[N]", "1", 1, ("axis 0 of argument 'y' is 8 // (N - 4), which divides by zero here", "N = 4")),
        ("N", "N > 0", "u8[N], offset=1 << k", "1", 3, ("the view 'v' shifts by -1 here",)),
        ("N", "N > 0", "u8[N // (k + 1)]", "1", 3, ("the view 'v' divides by zero here",)),
        ("N", "N > 0", "u8[N]", "1 << k", 4, ("the extent of 'g' in the grid shifts by -1 here", "k = -1")),
        ("N", "N > 0", "u8[N]", "N // (N - 4)", 4, ("the extent of 'g' in the grid divides by zero here", "N = 4")),
    ],
)
def test_what_has_no_value(extent: str, require: str, view: str, grid: str, line: int, told: tuple[str, ...]) -> None:
    text = f"""def f(x: f32[N], b: u8[M], k: i64, y: InOut[f32[{extent}]]):
    require({require})
    v = view(b, {view})
    for g in grid({grid}):
        y[0] = x[0] + f32(v[0])
"""
    kernel = nsalang.load_text(text).f
    given = torch.ones(4), torch.zeros(4, dtype=torch.uint8), -1, torch.ones(4)
    refused("NSA0514", lambda: kernel(*given), f"<string>:{line}:", *told)
    refused("NSA0514", lambda: kernel.interpret(*given), *told)


def test_unusable_memory() -> None:
    refused("NSA0515", lambda: K.add(X, X.to_sparse()), "'y'", "sparse")
    refused("NSA0515", lambda: K.scale(torch.ones(2, dtype=torch.complex64).conj().imag, 1.0), "negated")


def test_wrong_constants() -> None:
    refused("NSA0516", lambda: K.group(X, G=2.0), "'G'", "an integer", "2.0")
    refused("NSA0516", lambda: K.group(X, G=True), "'G'", "an integer")
    refused("NSA0516", lambda: K.group(X, mean=1), "'mean'", "True or False")
    refused("NSA0516", lambda: K.counted(torch.ones(2), 1.0, size="4"), "'size'", "a number or a bool")
    refused("NSA0516", lambda: K.cast(torch.ones(2), T="float33"), "'T'", "float33")


def test_dtype_parameter_that_nothing_determines() -> None:
    refused("NSA0517", lambda: K.cast.compile(target="cpu"), "'T'")
    made = nsalang.load_text("def fill(N: i32, y: Out[T[N]], T: dtype):\n    for n in grid(tile(N)):\n        y[n] = 0\n")
    refused("NSA0517", lambda: made.fill(3), "'T'", "'y'")


def test_dimensions_given_to_compile() -> None:
    refused("NSA0518", lambda: K.rows.compile(target="cpu"), "dimension D", "D=…")
    refused("NSA0518", lambda: K.rows.compile(target="cpu", D=4, M=3), "M", "dynamic")
    refused("NSA0518", lambda: K.rows.compile(target="cpu", D=-4), "D", "-4")
    refused("NSA0501", lambda: K.rows.compile(target="cpu", D=4, E=3), "'E'")
    refused("NSA0504", lambda: K.options.compile(target="cpu", bias=3), "'bias'")


BYTES = """
def rows(cache: InOut[u8[NB, 4 * P + 16]], y: Out[f32[NB, P]]):
    v = view(cache, f32[NB, P], offset=16, strides=(4 * P + 16, 4))
    for b, p in grid(NB, tile(P)):
        y[b, p] = v[b, p]
        v[b, p] = 0

def short(cache: u8[N], y: Out[f32[N // 4]]):
    v = view(cache, f32[N // 4])
    for n in grid(tile(N // 4)):
        y[n] = v[n]
"""


def test_views(engine: Engine) -> None:
    kernels = nsalang.load_text(BYTES, "views.nsa")
    for gap in (0, 4, 64):
        cache = torch.arange(3 * (36 + gap), dtype=torch.uint8).reshape(3, 36 + gap)[:, :36]
        wanted = cache[:, 16:].contiguous().view(torch.float32)
        assert torch.equal(kernels.rows(cache.clone().copy_(cache)).view(torch.int32), wanted.view(torch.int32))
        assert torch.equal(kernels.rows.interpret(cache).view(torch.int32), wanted.view(torch.int32)) and not cache[:, 16:].any()
    assert torch.equal(kernels.short(torch.zeros(0, dtype=torch.uint8)), torch.zeros(0))
    wide = torch.zeros(3, 72, dtype=torch.uint8)
    for call in (kernels.rows, kernels.rows.interpret):
        refused("NSA0521", lambda call=call: call(wide[:, ::2]), "'v'", "gaps")  # type: ignore[misc]
        refused("NSA0521", lambda call=call: call(torch.zeros(3, 38, dtype=torch.uint8)[:, :36]), "'v'", "38 bytes apart")  # type: ignore[misc]
    odd = torch.zeros(9, dtype=torch.uint8)[1:]
    refused("NSA0521", lambda: kernels.short(odd), "'v'", "begins at an address", "contiguous tensor of its own")


def test_the_address_of_a_view() -> None:
    base = torch.zeros(4, 10, dtype=torch.int16)[1:, 2:]
    assert pointer(base, 6).data_ptr() == base.data_ptr() + 6 and pointer(base, 0).numel() == 1
    assert pointer(torch.zeros(0), 4).numel() == 0


def test_views_count_for_the_facts_of_a_launch() -> None:
    kernel = nsalang.load_text(BYTES, "views.nsa").rows.launcher.typed(Meaning(nsalang.Target("cpu")))
    kernel = _with_lengths(kernel, {"p": 1024}, ("v",))
    near, far = Layout((3, 5), (5, 1), 4, 0), Layout((3, 5), (2**30, 1), 4, 0)
    cache = Layout((3, 36), (36, 1), 1, 0)
    assert not needs_wide(kernel, {"cache": cache, "v": near}, {}) and needs_wide(kernel, {"cache": cache, "v": far}, {})


def test_call_options() -> None:
    refused("NSA0519", lambda: K.add(X, X, schedule=32), "'schedule'")
    refused("NSA0519", lambda: K.add(X, X, schedule={"m": 0}), "'schedule'")
    refused("NSA0519", lambda: K.add(X, X, backend=3), "'backend'")
    refused("NSA0519", lambda: K.add(X, X, target=3), "'target'")
    refused("NSA0519", lambda: nsalang.load_text("def k(target: f32[N]):\n    for n in grid(N):\n        target[n] = 0.0\n"), "'target'")
    refused("NSA0601", lambda: K.add(X, X, target="cuda:sm_1"), "sm_1")
    refused("NSA0607", lambda: K.add(X, X, backend="cutlass"), "'cutlass'")
    refused("NSA0605", lambda: K.add(X, X, target="cuda:sm_90"), "cpu", "cuda:sm_90")
    if not torch.cuda.is_available():  # without a tensor the target says which device it is
        kernel = nsalang.load_text("def k(y: Out[f32[N]], N: i32):\n    for n in grid(tile(N)):\n        y[n] = 1.0\n").k
        refused("NSA0605", lambda: kernel(4, target="cuda:sm_90"), "cpu", "cuda:sm_90")
        assert kernel.interpret(4, target="cuda:sm_90").tolist() == [1.0] * 4
    for option in ("deterministic", "check", "allow"):
        refused("NSA0519", lambda option=option: K.add(X, X, **{option: "x"}), option)  # type: ignore[misc]
    refused("NSA0519", lambda: K.add.compile(target="cpu", allow="everything"), "allow")  # type: ignore[arg-type]
    refused("NSA0402", lambda: K.add(X, X, autotune="x"), "autotune", "not there yet")


def test_options_of_the_other_calls() -> None:
    for tile in (0, -1, True, "x", 2.0, {"m": 0}, {"m": "4"}, {3: 4}):
        refused("NSA0519", lambda tile=tile: K.add.interpret(X, X, tile=tile), "'tile'", repr(tile))  # type: ignore[misc]
    assert torch.equal(K.add.interpret(X, X, tile={"m": 1, "n": 3}), X + X)
    refused("NSA0504", lambda: nsalang.load_text(None), "load_text", "NoneType")  # type: ignore[arg-type]
    assert K.add.compile(backend="triton").key == K.add.compile(target="cuda:sm_90", backend="triton").key
    refused("NSA0601", lambda: K.add.compile(target=3), "3")  # type: ignore[arg-type]


def test_the_exact_variant_runs_where_what_it_hoists_holds(engine: Engine) -> None:
    """Two facts are one choice: all of them hold, or the guarded variant runs."""
    columns, rows = (ir.binary("mod", ir.Dim(I64, (), d), ir.const(4)) for d in "NM")
    engine.hoists = tuple(ir.Require(ir.binary("eq", r, ir.const(0)), "0") for r in (columns, rows))
    kernel = fresh().add
    for shape, exact in (((4, 8), True), ((4, 6), False), ((3, 8), False), ((0, 4), True), ((8, 12), True), ((3, 7), False)):
        x = torch.randn(shape)
        for _ in range(2):
            assert torch.equal(kernel(x, x), 2 * x)
        choices = {ran.choice.exact for ran in engine.ran}
        assert choices == ({exact} if all(shape) else set()), shape
        engine.ran.clear()
    assert {(c.exact, c.wide) for _, c in engine.compiled} == {(True, False), (False, False)}
    engine.hoists = (ir.Require(ir.binary("eq", ir.binary("mod", ir.const(4), ir.Dim(I64, (), "M")), ir.const(0)), "0"),)
    assert torch.equal(fresh().add(torch.zeros(0, 4), torch.zeros(0, 4)), torch.zeros(0, 4)), "a check that divides by 0 does not hold"


def test_what_may_be_unknown_is_part_of_the_choice(engine: Engine) -> None:
    kernel = fresh().add
    for allow in (None, "unknown"):
        kernel(X, X, allow=allow)
    assert [ran.choice.allow_unknown for ran in engine.ran] == [False, True]
    again = nsalang.Kernel(kernel.unit, options_of("add", DEFAULT, None, None, None, "unknown"))
    again(X, X)
    assert engine.ran[-1].choice.allow_unknown


ADDING = """
def count(x: i32[N], total: InOut[{dtype}[1]]):
    for n in grid(tile(N)):
        atomic_add(total[0], {dtype}(x[n]))
"""


def test_deterministic_calls_add_no_floats_atomically(engine: Engine) -> None:
    x = torch.arange(5, dtype=torch.int32)
    assert nsalang.load_text(ADDING.format(dtype="i32"), "a.nsa").count(x, torch.zeros(1, dtype=torch.int32), deterministic=True) is None
    floats = nsalang.load_text(ADDING.format(dtype="f32"), "a.nsa").count
    assert floats(x, torch.zeros(1)) is None and floats(x, torch.zeros(1), deterministic=False) is None
    refused("NSA0522", lambda: floats(x, torch.zeros(1), deterministic=True), "'total'", "deterministic=True")
    assert K.add(X, X, deterministic=True) is not None


def test_options_that_are_off_are_no_error(engine: Engine) -> None:
    assert torch.equal(fresh().add(X, X, autotune=False, check=None, allow=None, deterministic=False), 2 * X)


def test_a_failed_call_leaves_given_outputs_alone() -> None:
    out = torch.full((4, 6), 7.0)
    refused("NSA0509", lambda: K.add(X, X[:3], out=out), "M")
    assert bool((out == 7).all())


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backend, "installed", lambda backend: backend.package != "tilelang")
    refused("NSA0604", lambda: fresh().add(X, X, backend="tilelang"), "package tilelang", "pip install tilelang")
    assert choose_backend("auto", nsalang.Target("cpu")) == "triton"
    monkeypatch.setattr(Backend, "installed", lambda backend: backend.package != "triton")
    assert choose_backend("auto", nsalang.Target("cuda", "sm_90")) == "tilelang"
    monkeypatch.setattr(Backend, "installed", lambda backend: False)
    refused("NSA0604", lambda: fresh().add(X, X), "triton", "tilelang")


def test_every_code_of_this_area_is_tested() -> None:
    from pathlib import Path

    from nsalang.base.codes import CODES

    text = Path(__file__).read_text(encoding="utf-8")
    # 0520 is of `nsalang run`: test_cli.py.
    assert [c for c in CODES if c.startswith("NSA05") and f'"{c}"' not in text and c != "NSA0520"] == []
