"""Random reductions of products, with inf and NaN in the data: lanes that do not exist change nothing, whatever the other operand holds there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from staged import check, trusted, typed
from test_passes_random import COMMON, grow

from nsalang import ir
from nsalang.base.source import NsaError
from nsalang.base.target import parse_target
from nsalang.passes import PASSES, spread

QUICK = settings(COMMON, phases=[Phase.explicit, Phase.generate])
INF, NAN = float("inf"), float("nan")
SIZES = {"M": 3, "K": 6}

LEAVES = ["x[m, k]", "w[k]", "f32(h[m, k])", "f32(k)", "1.0", "-2.0", "0.0", "inf", "where(k < 4, x[m, k], 0)", "where(k < n[m], w[k], -inf)",
          "where(k + 1 < K, x[m, k + 1], 0)", "f32(n[m])", "x[m, k // 2]", "where(k < n[m], w[k // 2], 0)"]  # fmt: skip
ONE = [
    "(-@)",
    "abs(@)",
    "(@ * 2)",
    "where(k % 2 == 0, @, 1.0)",
    "where(k < n[m], @, 0.0)",
    "maximum(@, 0)",
    "minimum(@, 7)",
    "clamp(@, -2, 3)",
    "round(@)",
]
TWO = ["(@ + #)", "(@ - #)", "(@ * #)", "(@ * #)", "maximum(@, #)", "minimum(@, #)", "where(@ < #, @, #)"]
VALUES = grow(LEAVES, ONE, TWO).filter(lambda value: len(value) < 250)  # `where` has its operands twice

REDUCTIONS = {
    "sum": ("0.0", "acc + sum(@, axis=k)"),
    "max": ("-inf", "maximum(acc, max(@, axis=k))"),
    "min": ("inf", "minimum(acc, min(@, axis=k))"),
    "absmax": ("0.0", "maximum(acc, absmax(@, axis=k))"),
    "any": ("0.0", "maximum(acc, where(any(@ > 0, axis=k), 1.0, 0.0))"),
    "all": ("1.0", "minimum(acc, where(all(@ < 2, axis=k), 1.0, 0.0))"),
    "count": ("0.0", "acc + f32(sum(@ > 0, axis=k))"),
    "exponentials": ("0.0", "acc + sum(exp(minimum(@, 3)), axis=k)"),
}
AXES = {
    "tile": ("tile(M)", "for k in tile(K):"),
    "ragged": ("M", "for k in tile(clamp(n[m], 0, K)):"),
    "offset": ("tile(M)", "for k in tile(K // 3, K):"),
    "span": ("tile(M)", "k = span(3)"),
    "group": ("tile(M)", "k = span(2, 5, K)"),
}
PARAMETERS = "x: f32[M, K], w: f32[K], h: bf16[M, K], n: i32[M]"


@pytest.fixture(autouse=True, scope="module")
def every_load() -> Iterator[None]:
    """What is constant in groups is made once a group, however small it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spread, "LOADS", 0)
        yield


def reduced(axes: str, reduction: str, value: str, named: bool) -> str:
    grid, inner = AXES[axes]
    start, step = REDUCTIONS[reduction]
    depth = "    " * (3 if inner.startswith("for") else 2)
    lines = [f"{depth}v = {value} + where(x[m, k] == 7, 1.0, 0.0)", f"{depth}acc = {step.replace('@', 'v')}"]
    if not named:
        lines = [f"{depth}acc = {step.replace('@', f'({value} + where(x[m, k] == 7, 1.0, 0.0))')}"]
    start = start if grid == "M" else f"full(m, {start})"
    require = "    require(K >= 3)\n" if axes in ("span", "group") else ""
    return (
        f"def k({PARAMETERS}, y: Out[f32[M]]):\n" + require + f"    for m in grid({grid}):\n        acc = {start}\n        {inner}\n"
        + "\n".join(lines) + "\n        y[m] = acc\n"
    )  # fmt: skip


def scanned(value: str) -> str:
    """Scans and positions along a span, of which the machine has more lanes."""
    return f"""def k({PARAMETERS}, y: Out[f32[M, 5]], z: Out[f32[M, 5]], at: Out[i64[M]]):
    require(K >= 6)
    k = span(5)
    for m in grid(tile(M)):
        v = {value} + where(x[m, k] == 7, 1.0, 0.0)
        y[m, k] = cumsum(v, axis=k)
        z[m, k] = cumsum(v, axis=k, exclusive=True, reverse=True)
        at[m] = argmax(v, axis=k) * 100 + argmin(v, axis=k)
"""


def data() -> dict[str, torch.Tensor]:
    """Sums and products of a few of these are exact in any order."""
    return {
        "x": torch.tensor([[1.0, INF, -2.0, 0.5, NAN, -INF], [-0.0, 0.0, 3.0, -1.0, 0.5, 2.0], [NAN, -INF, INF, 1.0, -1.0, 0.0]]),
        "w": torch.tensor([INF, NAN, 2.0, -0.5, -INF, 1.0]),
        "h": torch.tensor([[0.0, -1.0, 0.5, INF, 2.0, NAN], [1.0, 2.0, -3.0, 0.5, 0.0, -0.0], [-INF, 0.5, 1.0, -1.0, NAN, INF]]).bfloat16(),
        "n": torch.tensor([2, 9, -1], dtype=torch.int32),
    }


def compare(text: str, ulps: int = 0) -> None:
    try:
        kernel = typed(text)
    except NsaError as error:
        assume([d.code for d in error.diagnostics] != ["NSA0326"])  # constants alone that give no number, such as inf - inf
        raise
    used = {t.name for t in kernel.tensors}
    given = {n: t for n, t in data().items() if n in used}
    pins = {n: length for n, length in (("m", 2), ("k", 4)) if n == "k" and "for k" in text or n == "m" and "tile(M)" in text}
    check(kernel, SIZES, pins=pins, tensors=given, backends=("triton",), widths=(True,), ulps=ulps)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@settings(QUICK, max_examples=6)
@given(value=VALUES, axes=st.sampled_from(list(AXES)), named=st.booleans())
def test_reductions(reduction: str, value: str, axes: str, named: bool) -> None:
    compare(reduced(axes, reduction, value, named), ulps=8 if reduction == "exponentials" else 0)


@settings(QUICK, max_examples=6)
@given(value=VALUES)
def test_scans_and_positions(value: str) -> None:
    compare(scanned(value))


@pytest.mark.slow
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "scan"])
@settings(QUICK, max_examples=150)
@given(value=VALUES, axes=st.sampled_from(list(AXES)), named=st.booleans())
def test_many(reduction: str, value: str, axes: str, named: bool) -> None:
    if reduction == "scan":
        compare(scanned(value))
    else:
        compare(reduced(axes, reduction, value, named), ulps=8 if reduction == "exponentials" else 0)


def test_guards_walk_a_large_kernel_a_few_times() -> None:
    """What a pass does for each node must not walk the kernel: this one has 15,000 nodes once its terms are expanded."""

    def twice(a: str, b: str) -> str:
        return f"where({a} < {b}, {a}, {b})"

    value = twice(twice("where(k < n[m], w[k], -inf)", "where(k < n[m], w[k // 2], 0)"), "minimum(where(k < n[m], w[k], -inf), 7)")
    kernel = typed(reduced("tile", "sum", value, named=False))
    target, children, visits = parse_target("cuda:sm_90"), ir.children, 0

    def counted(node: ir.Node) -> Iterator[ir.Node]:
        nonlocal visits
        visits += 1
        return children(node)

    for stage, run in PASSES:
        if stage == "guard":
            break
        kernel = (trusted if stage == "prove" else run)(kernel, target)  # the prover would drop most guards, and with them the size
    size = sum(1 for _ in ir.walk(kernel))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ir, "children", counted)
        run(kernel, target)
    assert size > 10_000 and visits < 100 * size, (size, visits)
