"""Masks only where needed: what is proved, hoisted or guarded, what padded lanes hold, and that nothing in them changes a result."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from staged import ACT_QUANT, SOFTMAX, check, last, stages, typed

from nsalang import ir
from nsalang.base.dtypes import F16, F32, I32, I64, DType
from nsalang.base.target import parse_target
from nsalang.ir.machine import dim_divisor
from nsalang.ir.summary import machine_facts, proofs
from nsalang.launch import sizes
from nsalang.lowering.header import facts
from nsalang.passes import assume, padding
from nsalang.passes.guard import run as guard
from nsalang.passes.simplify import expression

COPY = """
def copy(x: f32[M, N], y: Out[f32[M, N]]):
{require}    for m, n in grid(tile(M), tile(N)):
        y[m, n] = x[m, n] * 2
"""
TARGET = parse_target("cuda:sm_90")


def accesses(kernel: ir.Kernel) -> list[ir.Load | ir.Store]:
    return [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Load | ir.Store)]


def mask_axes(node: ir.Load | ir.Store) -> tuple[str, ...]:
    return () if node.mask is None else node.mask.axes


def wheres(kernel: ir.Kernel) -> int:
    return sum(isinstance(n, ir.Where) for s in kernel.body for n in ir.walk(s))


# ----------------------------------------------------------------------------------------------------------------- verdicts


def test_a_required_divisor_leaves_no_column_mask() -> None:
    for exact in (False, True):
        kernel = last(COPY.format(require="    require(N % 64 == 0)\n"), pins={"n": 64, "m": 4}, exact=exact)
        assert kernel.hoists == () and not kernel.schedule.exact
        assert {mask_axes(a) for a in accesses(kernel)} == {("m",)}
        assert {a.proof for a in accesses(kernel)} == {ir.Proof("GUARDED", ("tail",))}


def test_without_it_the_columns_are_hoisted() -> None:
    text = COPY.format(require="")
    exact, guarded = (last(text, pins={"n": 64, "m": 4}, exact=e) for e in (True, False))
    assert [h.text for h in exact.hoists] == [h.text for h in guarded.hoists] == ["N % 64 == 0"]
    assert {mask_axes(a) for a in accesses(exact)} == {("m",)} and {mask_axes(a) for a in accesses(guarded)} == {("m", "n")}
    assert {a.proof for a in accesses(exact)} == {ir.Proof("HOISTED", ("tail",))}
    assert {a.proof for a in accesses(guarded)} == {ir.Proof("GUARDED", ("tail",))}
    assert dim_divisor(exact, "N") == 64 and dim_divisor(dataclasses.replace(guarded, schedule=dataclasses.replace(
        guarded.schedule, aligned=False)), "N") == 1  # fmt: skip
    assert "A launch has checked that N % 64 == 0." in facts(exact, TARGET, "Triton")
    assert "2 accesses: 2 hoisted (N % 64 == 0)." in facts(exact, TARGET, "Triton")
    assert "2 accesses: 2 guarded by a tail." in facts(guarded, TARGET, "Triton")
    check(typed(text), {"M": 3, "N": 8}, pins={"m": 2, "n": 4})


def test_act_quant_of_any_number_of_rows_has_a_row_mask_and_no_other() -> None:
    kernel = last(ACT_QUANT, G=128, exact=True)
    assert kernel.hoists == () and {mask_axes(a) for a in accesses(kernel)} == {("m",)}
    assert proofs(kernel) == "3 accesses: 3 guarded by a tail"
    assert machine_facts(kernel)[0] == "Dimensions and offsets fit 32 bits" and len(machine_facts(kernel)) == 2


def test_what_is_hoisted() -> None:
    def hoists(text: str, **pins: int) -> list[str]:
        return [h.text for h in last(text, pins=pins).hoists]

    assert hoists(SOFTMAX, n=8, m=2) == ["N % 8 == 0"], "two loops along the columns have one check, rows never any"
    halves = "def k(x: f32[2 * H], y: Out[f32[H]]):\n    for h in grid(tile(H)):\n        y[h] = x[h] + x[H + h]\n"
    assert hoists(halves, h=16) == ["H % 16 == 0"]
    ends = """
def k(x: f32[N], lo: i32[S], y: Out[f32[S]], from_: i32):
    require(0 <= from_)
    for s in grid(S):
        first, second = 0.0, 0.0
        for n in tile(from_, N):
            first = first + sum(x[n], axis=n)
        for n in tile(maximum(lo[s], 0), N):
            second = second + sum(x[n], axis=n)
        y[s] = first + second
"""
    assert hoists(ends, n=32) == ["(N - from_) % 32 == 0"], "what depends on data is no launch's to check"
    assert hoists("def k(x: f32[40], y: Out[f32[40]]):\n    for n in grid(tile(40)):\n        y[n] = x[n]\n", n=32) == [], (
        "a constant is known"
    )
    assert hoists(halves, h=1) == []


def test_an_access_that_is_not_settled_is_guarded_by_its_bounds() -> None:
    text = """
def gather(x: f32[T], idx: i64[K], y: Out[f32[K]]):
    for k in grid(tile(K)):
        y[k] = x[idx[k]]
"""
    kernel = dict(stages(typed(text), "cuda:sm_90", "triton", False, {"k": 4}, trust=True))["assume"]
    unknown = ir.rewrite(kernel, lambda n: dataclasses.replace(n, proof=ir.Proof("UNKNOWN")) if getattr(n, "tensor", "") == "x" else n)
    found = {a.tensor: a for a in accesses(guard(unknown, TARGET))}
    assert found["x"].proof == ir.Proof("UNKNOWN", ("tail", "bounds")) and found["idx"].proof == ir.Proof("GUARDED", ("tail",))
    assert isinstance(found["x"], ir.Load) and found["x"].fill == ir.const(0.0, F32)
    ops = [n.op for n in ir.walk(found["x"].mask) if isinstance(n, ir.Binary)] if found["x"].mask else []
    assert ops.count("ge") == 1 and ops.count("lt") >= 2


def test_a_64_bit_index_is_compared_before_it_is_narrowed() -> None:
    text = """
def gather(x: f32[T], idx: i64[K], y: Out[f32[K]]):
    for k in grid(tile(K)):
        t = idx[k]
        y[k] = where((0 <= t) & (t < T), x[t], 0)
"""
    kernel = last(text, pins={"k": 4})
    load = next(a for a in accesses(kernel) if a.tensor == "x")
    assert load.proof == ir.Proof("GUARDED", ("author", "tail")) and load.indices[0].dtype is I32
    compared = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Binary) and n.op in ("le", "lt")]
    on_data = [c for c in compared if any(isinstance(n, ir.Var) for n in ir.walk(c))]
    assert len(on_data) >= 2 and {c.a.dtype for c in on_data} == {I64}
    far = torch.tensor([2**32, -(2**32), 2**32 + 1, 3, -1, 4])
    check(typed(text), {"T": 4, "K": 6}, pins={"k": 4}, tensors={"idx": far})


def test_masks_of_long_axes_are_computed_in_64_bits() -> None:
    wide = last(COPY.format(require=""), wide=True)
    for node in ir.walk(accesses(wide)[0].mask or ir.const(0)):
        assert not isinstance(node, ir.Binary) or node.a.dtype in (I64,) or node.op == "and"
    kernel = typed("def k(x: f32[K], y: Out[f32[M]]):\n    require(K > 0)\n    for m in grid(M):\n        total = 0.0\n"
                   "        for t in range(M * M):\n            total = total + x[t % K]\n        y[m] = total\n")  # fmt: skip
    assert sizes.has_long_ranges(kernel, {"K": 4, "M": 2**16}, {}) and not sizes.has_long_ranges(kernel, {"K": 4, "M": 2**15}, {})


# ----------------------------------------------------------------------------------------------------- what padded lanes hold


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("max(v, axis=n)", 0), ("min(v, axis=n)", 0), ("sum(v, axis=n)", 0), ("absmax(v, axis=n)", 0), ("max(-abs(f32(f16(v))), axis=n)", 0),
        ("max(-v, axis=n)", 0), ("sum(exp(v - 1), axis=n)", 0), ("sum(exp2(v) * 2, axis=n)", 0), ("sum(v * w[n], axis=n)", 0),
        ("sum(exp(v) * w[n], axis=n)", 0), ("sum(v * f32(n), axis=n)", 0), ("sum(v + 1, axis=n)", 1), ("sum(log(v) * 0, axis=n)", 1),
        ("sum(where(n < N, v, 0), axis=n)", 0), ("sum(exp(v - w[n]), axis=n)", 0),
    ],
)  # fmt: skip
def test_fills_serve_reductions(expression: str, expected: int) -> None:
    text = f"""
def k(x: f32[M, N], w: f32[N], y: Out[f32[M]]):
    require(N > 0)
    for m in grid(tile(M)):
        total = zeros(m)
        for n in tile(N):
            v = x[m, n]
            total = maximum(total, {expression})
        y[m] = total + 0 * w[0]
"""
    after = dict(stages(typed(text), "cuda:sm_90", "triton", False, {"m": 4, "n": 8}, trust=True))
    written = wheres(after["assume"])
    assert wheres(after["guard"]) - written == expected
    special = torch.tensor([math.inf, -math.inf, math.nan, 1.0, -2.0, 0.0, -0.0]).repeat(15).view(5, 21)
    w = torch.tensor([1.0, math.nan, math.inf]).repeat(7)
    check(typed(text), {"M": 5, "N": 21}, pins={"m": 4, "n": 8}, tensors={"x": special, "w": w}, backends=("triton",), ulps=40)


@pytest.mark.parametrize("hostile", [math.inf, -math.inf, math.nan])
def test_padded_lanes_with_inf_and_nan_in_the_other_operand_change_nothing(hostile: float) -> None:
    """w's rows beyond a segment are read, and hold what a product with a padded 0 would not survive."""
    text = """
def k(x: f32[S, K], w: f32[T], y: Out[f32[S]], K: const = 5):
    require(T >= 8)
    k = span(0, K)
    for s in grid(tile(S)):
        y[s] = sum(x[s, k] * w[k], axis=k)
"""
    w = torch.full((8,), hostile)
    w[:5] = 1.0
    kernel = typed(text)
    check(kernel, {"S": 3, "T": 8}, pins={"s": 2}, tensors={"w": w})
    load = next(a for a in accesses(last(text)) if a.tensor == "w")
    assert load.mask is not None, "an unmasked factor would leak"


def test_softmax_selects_nothing() -> None:
    kernel = last(SOFTMAX)
    assert wheres(kernel) == 0
    first, second = (a for a in accesses(kernel) if isinstance(a, ir.Load))
    assert first.fill is not None and second.fill is not None and (first.fill.value, second.fill.value) == (-math.inf, 0.0)


@pytest.mark.parametrize("dtype", [F32, F16])
def test_kinds_contain_what_is_computed(dtype: DType) -> None:
    samples = [math.nan, -math.inf, -1e30, -3.0, -1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0, 2.5, 1e30, math.inf]
    for a in samples:
        for op in ("neg", "abs", "exp", "exp2", "log", "log2", "sqrt", "rsqrt", "sigmoid", "tanh", "floor", "ceil", "trunc", "round"):
            made = getattr(torch, op)(torch.tensor(a)).item()
            assert padding.kind_of(made) & padding.unary(op, padding.kind_of(a)), (op, a, made)  # type: ignore[arg-type]
        for b in samples:
            for op in ("add", "sub", "mul", "div"):
                made = getattr(torch, op)(torch.tensor(a), torch.tensor(b)).item()
                assert padding.kind_of(made) & padding.binary(op, padding.kind_of(a), padding.kind_of(b)), (op, a, b, made)  # type: ignore[arg-type]
        narrow = torch.tensor(a).to(torch.float16).item() if dtype is F16 else a
        assert padding.kind_of(narrow) & padding.cast(padding.kind_of(a), F32, dtype)
    one, zero = padding.kind_of(1.0), padding.ZERO
    assert (
        padding.binary("mul", padding.PZERO, padding.ALL) & padding.NAN
        and padding.binary("mul", zero, one) == padding.PZERO | padding.NZERO
    )
    assert padding.unary("exp", padding.binary("sub", padding.NINF, padding.ALL & ~(padding.NAN | padding.NINF))) == padding.PZERO


# -------------------------------------------------------------------------------------------------------------------- divisors


def test_a_divisor_is_replaced_only_where_nobody_has_proved_it() -> None:
    text = """
def k(a: i32[M, N], b: i32[M, N], y: Out[i32[M, N]], z: Out[i32[M, N]], q: i32):
    require(q != 0)
    promise(b != 0)
    for m, n in grid(M, tile(N)):
        y[m, n] = wrap(i64(a[m, n]) // b[m, n] + m % q, i32)
        z[m, n] = wrap(where(a[m, n] != 0, n // a[m, n], 0), i32)
"""
    for exact, expected in ((True, 1), (False, 2)):
        kernel = dict(stages(typed(text), "cuda:sm_90", "triton", False, {"n": 4}, exact, trust=True))["guard"]
        safe = [
            n.b
            for s in kernel.body
            for n in ir.walk(s)
            if isinstance(n, ir.Binary) and n.op in ("floordiv", "mod") and isinstance(n.b, ir.Where)
        ]
        assert len(safe) == expected, "the excluded lanes of 'where', and b's padded lanes where there are any"
    assert assume.saved(kernel)["n"].text == "N % 4 == 0" and expression(ir.const(0)) == ir.const(0)
