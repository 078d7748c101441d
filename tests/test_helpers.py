"""Helpers: what a ``def`` that returns values means where it is called. Its errors are in tests/errors/wrong_helper.nsa."""

from __future__ import annotations

import pytest
import torch

import nsalang
from nsalang import ir
from nsalang.base.source import NsaError, Source
from nsalang.base.target import Target
from nsalang.interp.run import interpret
from nsalang.ir.verify import verify
from nsalang.passes import prove, simplify
from nsalang.syntax.format import format_text
from nsalang.syntax.parser import parse
from nsalang.types.check import check_file
from nsalang.types.settings import Settings
from nsalang.types.typecheck import kernel_names, specialise

TARGET = Target("cuda", "sm_90")


def typed(text: str, settings: Settings | None = None) -> ir.Kernel:
    file = parse(Source(text, "k.nsa"))
    (name,) = kernel_names(file)
    kernel = specialise(file, name, settings or Settings())
    verify(kernel, "typecheck")
    return kernel


def without_prover_errors(kernel: ir.Kernel) -> ir.Kernel:
    return prove.run(simplify.run(kernel, TARGET), TARGET)


SOFTCAP = '''
LIMIT = 30.0


def capped(x: f32, top: const = LIMIT):
    """Bends x so that it stays below the limit."""
    part = x / top
    return top * tanh(part)


def shifted(x, by):
    x2 = x + by
    return capped(x2, top=4.0), x2


def softcap(x: f32[M, N], y: Out[f32[M, N]]):
    for m in grid(tile(M)):
        for n in tile(N):
            y[m, n], part = 0.0, x[m, n] * 2
            a, b = shifted(part, 1)
            y[m, n] = capped(a) + b
'''


def test_a_call_means_the_body_in_its_place() -> None:
    kernel = typed(SOFTCAP)
    x, y = torch.randn(3, 5), torch.zeros(3, 5)
    interpret(kernel, {"x": x, "y": y}, {}, {"M": 3, "N": 5}, tile=2)
    b = x * 2 + 1
    a = 4 * torch.tanh(b / 4)
    assert (y - (30 * torch.tanh(a / 30) + b)).abs().max() < 1e-5
    assert kernel_names(parse(Source(SOFTCAP))) == ("softcap",)
    assert [k.unit.name for k in nsalang.load_text(SOFTCAP)] == ["softcap"]


GATHER = """
def row(v: f32[A, B], at, c):
    part = at // 1
    return v[part, c]


def ratio(a, b):
    whole = a // b
    return f32(whole + a % b)


def gather(v: f32[T, 8], idx: i32[M], y: Out[f32[M, 8]], z: Out[f32[M]]):
    c = span(8)
    for m in grid(tile(M)):
        t = idx[m]
        y[m, c] = where((0 <= t) & (t < T), row(v, t, c), -1.0)
        z[m] = ratio(12, t) if t != 0 else 0.5
"""


def test_conditions_around_a_call_hold_inside() -> None:
    kernel = typed(GATHER)
    without_prover_errors(kernel)
    v, idx = torch.randn(4, 8), torch.tensor([-3, 0, 3, 4, 2**31 - 1, -(2**31)], dtype=torch.int32)
    y, z = torch.zeros(6, 8), torch.zeros(6)
    interpret(kernel, {"v": v, "idx": idx, "y": y, "z": z}, {}, {"T": 4, "M": 6}, tile=4)
    assert torch.equal(y[2], v[3]) and torch.equal(y[1], v[0]) and bool((y[[0, 3, 4, 5]] == -1).all())
    assert z.tolist()[:4] == [-4.0, 0.5, 4.0, 3.0]
    with pytest.raises(NsaError) as caught:
        without_prover_errors(typed(GATHER.replace("where((0 <= t) & (t < T), row(v, t, c), -1.0)", "row(v, t, c)")))
    (first, *_) = caught.value.diagnostics
    assert first.code == "NSA0801" and first.span is not None and first.span.line == 4  # where the helper reads


def test_names_are_the_helpers_own() -> None:
    kernel = typed(
        """
def f(x, y):
    n = x + y
    s = n * n
    return s

def k(x: f32[N], y: Out[f32[N]], s: f32):
    for n in grid(tile(N)):
        acc = x[n] * s
        y[n] = f(acc, 1) + f(f(acc, 2), acc)
"""
    )
    names = [n.name for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Assign)]
    assert len(names) == len(set(names)) and not {"x", "y", "s", "n"}.intersection(names)
    x, y = torch.arange(5.0), torch.zeros(5)
    interpret(kernel, {"x": x, "y": y}, {"s": 2.0}, {"N": 5})
    a = 2 * x
    assert torch.equal(y, (a + 1) ** 2 + ((a + 2) ** 2 + a) ** 2)


def test_tensors_axes_dtypes_and_absent_parameters_can_be_passed() -> None:
    text = """
def total(v: T[A, B], i, axis, scale: f32[A] | None, T: dtype = f32):
    s = sum(v[i, axis], axis=axis)
    if scale is not None:
        return s * scale[i]
    return s

def k(x: bf16[M, 8], z: f32[M, 4], scale: f32[M] | None, y: Out[f32[M]]):
    c = span(8)
    for m in grid(tile(M)):
        d = span(4)
        y[m] = total(x, m, c, scale, T=bf16) + total(z, m, d, None)
"""
    x, z, scale = torch.randn(3, 8).bfloat16(), torch.randn(3, 4), torch.randn(3)
    for present in (frozenset[str](), frozenset({"scale"})):
        kernel = typed(text, Settings(present=present))
        tensors = {"x": x, "z": z, "y": torch.zeros(3)} | ({"scale": scale} if present else {})
        interpret(kernel, tensors, {}, {"M": 3})
        expected = x.double().sum(1) * (scale.double() if present else 1) + z.double().sum(1)
        assert (tensors["y"].double() - expected).abs().max() < 1e-5


def test_a_contraction_in_a_helper() -> None:
    text = """
def scores(q, k, s, t, d):
    return dot(q[s, d], k[t, d], axis=d)

def k(q: bf16[S, 16], k: bf16[T, 16], y: Out[f32[S, T]]):
    d = span(16)
    for s, t in grid(tile(S), tile(T)):
        if s >= t:
            y[s, t] = scores(q, k, s, t, d)
        else:
            y[s, t] = -inf
"""
    kernel = typed(text)
    without_prover_errors(kernel)
    q, k, y = torch.randn(4, 16).bfloat16(), torch.randn(3, 16).bfloat16(), torch.zeros(4, 3)
    interpret(kernel, {"q": q, "k": k, "y": y}, {}, {"S": 4, "T": 3}, tile=2)
    full = (q.double() @ k.double().T).masked_fill(torch.arange(4)[:, None] < torch.arange(3), -torch.inf)
    assert torch.equal(y.isinf(), full.isinf()) and (y.double() - full)[~full.isinf()].abs().max() < 1e-5


def test_what_a_wrong_call_says() -> None:
    text = """
def twice(x):
    return x + x

def k(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[n] = twice(x[n], 2)
"""
    with pytest.raises(NsaError) as caught:
        check_file(parse(Source(text)))
    (found,) = caught.value.diagnostics
    assert found.span is not None and found.span.line == 7 and found.notes == ("'twice' is defined in line 2",)
    inside = text.replace("x + x", "x + z").replace(", 2", "")
    with pytest.raises(NsaError) as caught:
        check_file(parse(Source(inside)))
    (found,) = caught.value.diagnostics
    assert found.span is not None and found.span.line == 3 and found.notes == ("'twice' is called in line 7",)


def test_a_helper_keeps_its_text_under_fmt() -> None:
    assert format_text(Source(SOFTCAP.lstrip())) == SOFTCAP.lstrip()
