"""Tensors that are no memory, each one error that names the parameter; and what a call tells autograd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import nsalang

TEXT = """
def add(x: f32[N], y: f32[N], out: Out[f32[N]]):
    for n in grid(tile(N)):
        out[n] = x[n] + y[n]

def scale(x: InOut[f32[N]], factor: f32):
    for n in grid(tile(N)):
        x[n] = x[n] * factor

def twice(x: f32[N], y: f32[N], out: Out[f32[N]]):
    t = empty(f32[N])
    add(x, y, out=t)
    add(t, t, out=out)
"""


def _fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.ones(6)


def _shrunk(size: int, *shape: int) -> torch.Tensor:
    found = torch.ones(shape or 6)
    found.untyped_storage().resize_(size)
    return found


class Wrapper(torch.Tensor):
    @staticmethod
    def __new__(cls) -> torch.Tensor:
        return torch.Tensor._make_wrapper_subclass(cls, (6,), dtype=torch.float32)  # type: ignore[attr-defined,no-any-return]

    @classmethod
    def __torch_dispatch__(cls, *args: object) -> object:
        raise NotImplementedError


ODD: dict[str, Callable[[], torch.Tensor]] = {
    "fake": _fake,
    "wrapper": Wrapper,
    "freed": lambda: _shrunk(0),
    "shrunk": lambda: _shrunk(8),
    "meta": lambda: torch.ones(6, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "sparse": lambda: torch.ones(6).to_sparse(),
    "negated": lambda: torch._neg_view(torch.ones(6)),
    "zero": lambda: torch._efficientzerotensor((6,)),
    "lazy": lambda: torch.nn.UninitializedParameter(),
}


@pytest.mark.parametrize("after", [False, True], ids=["first", "planned"])
@pytest.mark.parametrize("name", ODD)
def test_no_memory(name: str, after: bool) -> None:
    kernel, x = nsalang.load_text(TEXT).add, torch.ones(6)
    if after:
        kernel(x, x)
    for call in (kernel, kernel.interpret):
        with pytest.raises(nsalang.NsaError, match="'y'") as caught:
            call(x, ODD[name]())
        assert [d.code for d in caught.value.diagnostics] == ["NSA0515"]
    assert torch.equal(kernel(x, x), 2 * x)


@pytest.mark.parametrize("transform", ["vmap", "grad", "functionalize", "mode"])
@pytest.mark.parametrize("after", [False, True], ids=["first", "planned"])
def test_transforms(transform: str, after: bool) -> None:
    kernel, x = nsalang.load_text(TEXT).add, torch.ones(6)
    if after:
        kernel(x, x)
    with pytest.raises(nsalang.NsaError, match="'x'|'out'"):
        if transform == "vmap":
            torch.vmap(lambda v: kernel(v, x))(torch.ones(2, 6))
        elif transform == "grad":
            torch.func.grad(lambda v: kernel(v, x).sum())(x)
        elif transform == "functionalize":
            torch.func.functionalize(lambda v: kernel(v, x))(x)
        else:
            with FakeTensorMode():
                kernel(x, x)


def test_memory_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(numpy.ones(6, numpy.float32).tobytes())
    kernel = nsalang.load_text(TEXT).scale
    kernel(torch.ones(6), 2.0)
    with pytest.warns(UserWarning):
        mapped = torch.from_numpy(numpy.memmap(path, numpy.float32, "r"))
    with pytest.raises(nsalang.NsaError, match="'x' is written, and its memory is read-only"):
        kernel(mapped, 2.0)
    assert torch.equal(mapped, torch.ones(6))


def test_autograd_sees_what_is_written() -> None:
    kernel, w = nsalang.load_text(TEXT).scale, torch.ones(4, requires_grad=True)
    x = torch.ones(4)
    loss = (w * x).sum()
    kernel(x, 2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_written_tensor_that_requires_a_gradient() -> None:
    kernel, w = nsalang.load_text(TEXT).scale, torch.ones(4, requires_grad=True)
    with pytest.raises(nsalang.NsaError, match="NSA0403"):
        kernel(w, 2.0)
    with torch.no_grad():
        kernel(w, 2.0)
    assert torch.equal(w, torch.full((4,), 2.0))


@pytest.mark.parametrize("kind", ["kernel", "program"])
def test_an_argument_that_requires_a_gradient(kind: str) -> None:
    """It would give a detached result: a gradient without what goes through the kernel."""
    call = getattr(nsalang.load_text(TEXT), "add" if kind == "kernel" else "twice")
    x, y = torch.ones(6), torch.ones(6, requires_grad=True)
    call(x, x)
    with pytest.raises(nsalang.NsaError, match=rf"NSA0403.*'{call.__name__}' has no gradient yet, and is given a tensor 'y'"):
        call(x, y)
    for quiet in (torch.no_grad, torch.inference_mode):
        with quiet():
            assert not call(x, y).requires_grad
    with forward_ad.dual_level():
        call(x, x)
        with pytest.raises(nsalang.NsaError, match="NSA0403.*'x' has a tangent"):
            call(forward_ad.make_dual(x, x), x)  # type: ignore[no-untyped-call]


def test_what_is_written_has_a_new_version() -> None:
    module, x = nsalang.load_text(TEXT), torch.ones(6)
    out = torch.empty(6)
    before = x._version, out._version
    module.add(x, x, out=out)
    assert (x._version, out._version) == (before[0], before[1] + 1)
    module.twice(x, x, out=out)
    assert out._version == before[1] + 2


OPERATORS: dict[str, tuple[str, Callable[[], object]]] = {
    **{
        name: ("NSA0515", lambda make=make: nsalang.ops.matmul(make(), SQUARE))  # type: ignore[misc]
        for name, make in {
            "nested": lambda: torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2)]),
            "jagged": lambda: torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2)], layout=torch.jagged),
            "sparse": lambda: SQUARE.to_sparse(),
            "fake": lambda: FakeTensorMode().from_tensor(SQUARE),
            "lazy": torch.nn.UninitializedParameter,
            "wrapper": Wrapper,
            "freed": lambda: _shrunk(0, 2, 2),
        }.items()
    },
    "grad": ("NSA0403", lambda: torch.func.grad(lambda a: nsalang.ops.matmul(a, SQUARE).sum())(SQUARE)),
    "jvp": ("NSA0403", lambda: torch.func.jvp(lambda a: nsalang.ops.matmul(a, SQUARE), (SQUARE,), (SQUARE,))),
    "backward": ("NSA0403", lambda: nsalang.ops.matmul(SQUARE.clone().requires_grad_(), SQUARE).sum().backward()),
}
SQUARE = torch.ones(2, 2)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    code, call = OPERATORS[name]
    with pytest.raises(nsalang.NsaError) as caught:
        call()
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_tangents_of_operators() -> None:
    with forward_ad.dual_level(), pytest.raises(nsalang.NsaError, match="NSA0403"):
        nsalang.ops.matmul(forward_ad.make_dual(SQUARE, SQUARE), SQUARE)  # type: ignore[no-untyped-call]
