"""Kernels for tests of calls, and an engine in which the interpreter stands in for a backend: nothing is compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import nsalang
from nsalang import ir
from nsalang.build.pipeline import Choice, Meaning, Unit
from nsalang.interp.run import interpret
from nsalang.launch import launcher as launch
from nsalang.lowering.program import Argument

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


def engine_of(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """What calls run on from now on. A fresh module of kernels is needed with it: plans are kept by the kernels."""
    made = Engine()
    monkeypatch.setattr(launch, "compile_kernel", made.compile)
    return made


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
