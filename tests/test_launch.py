"""Calls: what they allocate, write and give back, and the plans that they keep. Here the interpreter stands in for a backend, so that
nothing is compiled; test_jit.py goes all the way."""

from __future__ import annotations

import math

import pytest
import torch
from launch_engine import Engine, X, engine_of, fresh, refused

import nsalang
from nsalang import language
from nsalang.launch import launcher as launch
from nsalang.launch import plans


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return engine_of(monkeypatch)


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
