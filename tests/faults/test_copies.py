"""Kernels, modules, programs, operators and errors copied, pickled, and handed to another process."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from typing import Any

import pytest
import torch

import nsalang
import nsalang.ops.operator
from nsalang.base.dtypes import ALL, E4M3_FNUZ
from nsalang.language import Out, bf16, f32, grid, tile

TEXT = """
def add(x: f32[N], y: f32[N], out: Out[f32[N]]):
    for n in grid(tile(N)):
        out[n] = x[n] + y[n]

def twice(x: f32[N], y: f32[N], out: Out[f32[N]]):
    t = empty(f32[N])
    add(x, y, out=t)
    add(t, t, out=out)
"""
FACTOR = 3
KIND = bf16


@nsalang.jit(deterministic=True)
def scaled(x: f32[N], y: Out[f32[N]]):  # type: ignore[no-untyped-def,valid-type]  # noqa: F821
    for n in grid(tile(N)):  # type: ignore[attr-defined]  # noqa: F821
        y[n] = f32(KIND(x[n])) * FACTOR


MODULE = nsalang.load_text(TEXT, "text.nsa")
X = torch.ones(5)
OBJECTS: dict[str, Any] = {
    "kernel": MODULE.add, "program": MODULE.twice, "jit": scaled, "module": MODULE, "packaged": nsalang.ops.operator.entry("act_quant", "act_quant"),
    "operator": nsalang.ops.matmul, "target": nsalang.Target("cuda", "sm_90"),
}  # fmt: skip


def results(value: Any) -> list[Any]:
    """What the object computes."""
    match value:
        case nsalang.Module():
            return [entry.interpret(X, X) for entry in value]
        case nsalang.Kernel() | nsalang.Program() if len(value.launcher.parameters.positional) == 2:
            return [value.interpret(X, X)]
        case nsalang.Kernel() if value.__name__ == "scaled":
            return [value.interpret(X)]
    return [str(value)] if not callable(value) else [value.__name__]


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle", "pickle-2"])
@pytest.mark.parametrize("name", OBJECTS)
def test_copies(name: str, how: str) -> None:
    value = OBJECTS[name]
    made = {
        "copy": copy.copy,
        "deepcopy": lambda v: copy.deepcopy({"inside": [v]})["inside"][0],
        "pickle": lambda v: pickle.loads(pickle.dumps(v)),
        "pickle-2": lambda v: pickle.loads(pickle.dumps(v, protocol=2)),
    }[how](value)
    assert type(made) is type(value) and repr(made) == repr(value)
    for a, b in zip(results(made), results(value), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    if isinstance(value, nsalang.Kernel | nsalang.Program):
        assert (made.__name__, made.__qualname__, made.__module__, made.__doc__) == (
            value.__name__,
            value.__qualname__,
            value.__module__,
            value.__doc__,
        )
        assert made._options == value._options and made.unit.captured == value.unit.captured
        assert (made._options is value._options) == (name != "jit" or "copy" in how)


def test_a_module_of_torch_that_holds_a_kernel() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add = MODULE.add

    assert torch.equal(copy.deepcopy(Layer()).add.interpret(X, X), 2 * X)


def test_dtypes_are_themselves() -> None:
    for dtype in (*ALL.values(), E4M3_FNUZ):
        assert copy.deepcopy(dtype) is dtype and pickle.loads(pickle.dumps(dtype)) is dtype


def test_errors_of_workers() -> None:
    """A pool that could not read an error of its worker would wait for ever."""
    with pytest.raises(nsalang.NsaError) as caught:
        MODULE.add.interpret(X, X[:3])
    caught.value.add_note("seen")
    for made in (pickle.loads(pickle.dumps(caught.value)), copy.deepcopy(caught.value)):
        assert made.diagnostics == caught.value.diagnostics and str(made) == str(caught.value) and made.__notes__ == ["seen"]
        assert made.diagnostics[0].span is not None and made.diagnostics[0].span.source.name == "text.nsa"


def work(item: tuple[Any, ...]) -> list[torch.Tensor]:
    return [value.interpret(X, X) for value in item]


@pytest.mark.slow
def test_spawned_processes() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for found in pool.apply_async(work, ((MODULE.add, MODULE.twice),)).get(timeout=300):
            assert found.shape == X.shape
        with pytest.raises(nsalang.NsaError, match="NSA0501|NSA0502|NSA0504"):
            pool.apply_async(work, ((scaled,),)).get(timeout=300)
