"""Every pass keeps the meaning: the interpreter before and after each, on real lanes before there are masks and on machine lanes from then on."""

from __future__ import annotations

import pytest
import torch
from staged import ACT_QUANT, SOFTMAX, bits, check, data, last, special, stages, typed

from nsalang import ir
from nsalang.interp.run import interpret

# -------------------------------------------------------------------------------------------------------------------- whole kernels


@pytest.mark.parametrize("shape", [(3, 13), (1, 1), (5, 8), (0, 4), (4, 0)])
def test_softmax(shape: tuple[int, int]) -> None:
    check(typed(SOFTMAX), {"M": shape[0], "N": shape[1]}, pins={"m": 2, "n": 4}, ulps=40)


@pytest.mark.parametrize("target", ["cuda:sm_90", "cuda:sm_80", "hip:gfx942", "cpu"])
@pytest.mark.parametrize("ue8m0", [False, True])
def test_act_quant(target: str, ue8m0: bool) -> None:
    kernel = typed(ACT_QUANT, target, ue8m0=ue8m0)
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(1)).mul(20).bfloat16()
    x[1, :18] = special(kernel.tensor("x").dtype, 18)
    x[2] = 0
    check(kernel, {"M": 5, "N": 96}, target=target, pins={"m": 4}, tensors={"x": x})


def test_act_quant_has_one_mask_term_and_no_selection() -> None:
    """G divides N, so columns need no guard; the rows' tail alone is masked, and a masked 0 is absmax's identity."""
    kernel = last(ACT_QUANT, G=128)
    assert kernel.schedule.length("m") == 32 and kernel.schedule.warps == 4
    accesses = [n for n in ir.walk(kernel) if isinstance(n, ir.Load | ir.Store)]
    assert {repr(n.mask) for n in accesses} == {repr(accesses[0].mask)}
    assert isinstance(accesses[0].mask, ir.Binary) and accesses[0].mask.op == "lt" and accesses[0].mask.axes == ("m",)
    assert not any(isinstance(n, ir.Where) for n in ir.walk(kernel))
    maxima = [n for n in ir.walk(kernel) if isinstance(n, ir.Binary) and n.op == "max"]
    assert len(maxima) == 2, "the floor of absmax is part of the author's maximum"


def test_softmax_reads_a_tile_once_and_needs_no_floor() -> None:
    kernel = last(SOFTMAX)
    assert len([n for n in ir.walk(kernel) if isinstance(n, ir.Load)]) == 2
    assert [n.name for n in ir.walk(kernel) if isinstance(n, ir.Assign)] == [
        "top",
        "total",
        "x_tile",
        "x_max",
        "new",
        "x_sum",
        "total",
        "top",
        "x_tile_2",
    ]
    assert len([n for n in ir.walk(kernel) if isinstance(n, ir.Binary) and n.op == "max"]) == 1


# ------------------------------------------------------------------------------------------------------------------------ reductions

REDUCTIONS = """
def reductions(x: T[M, N], s: Out[U[M]], hi: Out[T[M]], lo: Out[T[M]], far: Out[T[M]], some: Out[i32[M]], every: Out[i32[M]],
               first: Out[i32[M]], least: Out[i32[M]], T: dtype, U: dtype, K: const = 7):
    n = span(0, K, N)
    for m in grid(tile(M)):
        v = x[m, n]
        s[m], hi[m], lo[m], far[m] = U(sum(v, axis=n)), T(max(v, axis=n)), T(min(v, axis=n)), T(absmax(v, axis=n))
        some[m], every[m] = i32(any(v > 2, axis=n)), i32(all(v > -4, axis=n))
        first[m], least[m] = argmax(v, axis=n), argmin(v, axis=n)
"""


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "i32", "i8", "u32"])
@pytest.mark.parametrize("width", [3, 7])
def test_reductions(dtype: str, width: int) -> None:
    from nsalang.base.dtypes import ALL

    text = REDUCTIONS.replace("v > 2", "v > 100").replace("v > -4", "v > 3") if dtype == "u32" else REDUCTIONS
    kernel = typed(text, T=ALL[dtype], U=ALL["f32" if ALL[dtype].is_float else dtype if dtype != "i8" else "i32"])
    x = data(ALL[dtype], (22, width), 3)
    if ALL[dtype].is_float:
        x[:18] = special(ALL[dtype], 18 * width).view(18, width).clamp(-65504, 65504)
        x[18:20], x[20], x[21] = float("nan"), float("-inf"), -0.0
        x[20, 0] = float("nan")
    check(kernel, {"M": 22, "N": width}, pins={"m": 8}, tensors={"x": x})


def test_a_tile_loop_of_nothing_but_nan_and_minus_inf() -> None:
    text = """
def rows(x: f32[M, N], top: Out[f32[M]], at: Out[i32[M]]):
    for m in grid(tile(M)):
        best, where_ = full(m, -inf), full(m, 0, dtype=i64)
        for n in tile(N):
            best = maximum(best, max(x[m, n], axis=n))
            where_ = where_ + argmax(x[m, n], axis=n)
        top[m] = best
        at[m] = where_
"""
    x = torch.tensor([[float("nan")] * 6, [float("-inf")] * 6, [float("nan"), float("-inf")] * 3, [1.0, float("nan"), 3.0, 3.0, -1.0, 0.0]])
    kernel = typed(text)
    for length in (4, 8):
        after = stages(kernel, "cuda:sm_90", "triton", False, {"m": 4, "n": length}, trust=True)
        results = []
        names = [stage for stage, _ in after]
        for stage, k in after[names.index("tiles") :]:
            top, at = torch.zeros(4), torch.zeros(4, dtype=torch.int32)
            interpret(
                k,
                {"x": x, "top": top, "at": at},
                {},
                {"M": 4, "N": 6},
                tile={"m": 4, "n": length},
                machine=names.index(stage) >= names.index("guard"),
            )
            results.append((top, at))
        for top, at in results:
            assert torch.equal(bits(top), bits(results[0][0])) and torch.equal(at, results[0][1])


@pytest.mark.parametrize("order", ["", ", exclusive=True", ", reverse=True", ", exclusive=True, reverse=True"])
def test_scans(order: str) -> None:
    text = f"""
def scans(x: f32[M, N], k: i32[M, N], y: Out[f32[M, K]], z: Out[i32[M, K]], r: Out[i32[M, K]], K: const = 5):
    n = span(0, K, N)
    for m in grid(tile(M)):
        y[m, n] = cumsum(x[m, n], axis=n{order})
        z[m, n] = cumsum(k[m, n], axis=n{order})
        r[m, n] = rank(k[m, n] > 0, axis=n)
"""
    x = data(typed(text).tensor("x").dtype, (3, 4), 5)
    x[0] = -0.0
    check(typed(text), {"M": 3, "N": 4}, pins={"m": 2}, tensors={"x": x})


def test_column_reductions_and_loop_carried_integers() -> None:
    text = """
def columns(x: f32[M, N], k: i32[M, N], y: Out[f32[N]], c: Out[i64[N]], t: Out[i64[N]]):
    for n in grid(tile(N)):
        total, count, big = zeros(n), full(n, 0, dtype=i64), full(n, 0, dtype=i64)
        for m in tile(M):
            total = total + sum(x[m, n], axis=m)
            count = count + sum(x[m, n] > 0, axis=m)
            big = maximum(big, max(k[m, n] * k[m, n], axis=m))
        y[n], c[n], t[n] = total, count, big
"""
    check(typed(text), {"M": 7, "N": 5}, pins={"m": 4, "n": 2})
    kernel = last(text)
    assert (kernel.schedule.length("n"), kernel.schedule.length("m")) == (64, 64)


# ------------------------------------------------------------------------------------------------------------------- indices, widths


def test_gather_under_a_guard_is_masked_once() -> None:
    text = """
def gather(x: f32[T, D], idx: i32[S, K], y: Out[f32[S, D]], D: const = 6):
    c = span(D)
    for s in grid(S):
        total = zeros(c)
        for k in tile(K):
            t = idx[s, k]
            live = (0 <= t) & (t < T)
            total = total + sum(where(live, x[t, c], 0), axis=k)
        y[s, c] = total
"""
    idx = torch.tensor([[0, -1, 2, 9, 3], [4, 4, 5, 1, -7], [-1, -1, -1, -1, -1]], dtype=torch.int32)
    check(typed(text), {"T": 5, "S": 3, "K": 5}, pins={"k": 4}, tensors={"idx": idx})
    load = next(n for n in ir.walk(last(text)) if isinstance(n, ir.Load) and n.tensor == "x")
    parts = {repr(p) for p in _terms(load.mask)}
    assert len(parts) == 3 and len(_terms(load.mask)) == 3, "live, k's tail, and c's tail (6 of 8 lanes)"


WINDOW = """
def window(x: f32[T], first: i32[S], last: i32[S], at: i32[T], y: Out[f32[S, T]], C: const = 8):
    for s, c in grid(tile(S), cdiv(T, C)):
        begin, end = c * C, minimum(c * C + C, T)
        lo = clamp(min(first[s], axis=s), begin, end)
        hi = clamp(max(last[s], axis=s), lo, end)
        for t in tile(lo, hi):
            y[s, t] = where((first[s] <= t) & (t < last[s]), READ, -1)
        for t in tile(begin, lo):
            y[s, t] = -1
        for t in tile(hi, end):
            y[s, t] = -1
"""


@pytest.mark.parametrize(
    ("read", "guards"),
    [
        ("x[t]", {"x": False}),
        ("x[clamp(t + last[s], 0, T - 1)]", {"x": True}),  # it has the lanes that the guard is about
        ("where((0 <= at[t]) & (at[t] < T), x[at[t]], 0)", {"x": True, "at": False}),
        ("x[clamp(t, 0, T - 1)] + f32(s)", {"x": False}),
    ],
)
def test_a_guard_that_counts_lanes_goes_where_the_access_is_inside_anyway(read: str, guards: dict[str, bool]) -> None:
    """A row of x is read by a block of rows of y, some of which look at it: TileLang has no layout for that question."""
    text = WINDOW.replace("READ", read)
    first, last_ = torch.tensor([0, 9, 30, -5, 7], dtype=torch.int32), torch.tensor([4, 21, 2, 50, 7], dtype=torch.int32)
    at = torch.tensor([-1, 40, *range(21)], dtype=torch.int32)
    check(typed(text), {"T": 23, "S": 5}, pins={"s": 2, "t": 4}, tensors={"first": first, "last": last_, "at": at})
    found = {n.tensor: n.guard for n in ir.walk(stages(typed(text), "cuda:sm_90", "triton", False, {})[2][1]) if isinstance(n, ir.Load)}
    assert {name: found[name] is not None for name in guards} == guards


def _terms(mask: ir.Expr | None) -> list[ir.Expr]:
    if isinstance(mask, ir.Binary) and mask.op == "and":
        return _terms(mask.a) + _terms(mask.b)
    return [] if mask is None else [mask]


@pytest.mark.parametrize(
    ("asked", "comparisons"),
    [
        ("(0 <= t) & (t < T)", ["u32(t) lt u32(T)"]),
        ("(t < T) & (t < most) & (0 <= t)", ["t lt most", "u32(t) lt u32(T)"]),
        ("(0 <= t) & (t <= T - 1)", ["0 le t", "t le (T sub 1)"]),  # T may be 0
        ("(0 <= t) & (t < least) & (t < T)", ["u32(t) lt u32(T)", "t lt least"]),
        ("(0 <= t) & (t < least)", ["0 le t", "t lt least"]),  # which may be negative
        ("(1 <= t) & (t < T)", ["1 le t", "t lt T"]),
    ],
)
def test_a_range_from_0_is_one_comparison(asked: str, comparisons: list[str]) -> None:
    text = f"""
def marks(idx: i32[S, K], x: f32[T], y: Out[i32[S, K]], most: i32, least: i32):
    for s in grid(S):
        for k in tile(K):
            t = idx[s, k]
            y[s, k] = where({asked}, 1, 0)
"""
    idx = torch.tensor([[0, -1, 2, 9, 3], [4, 5, 2**31 - 1, -(2**31), -7], [1, 3, -(2**31) + 1, 6, 4]], dtype=torch.int32)
    for least in (-3, 4):
        check(typed(text), {"T": 5, "S": 3, "K": 5}, pins={"k": 4}, tensors={"idx": idx}, scalars={"most": 4, "least": least})
    live = next(n.cond for n in ir.walk(last(text)) if isinstance(n, ir.Where))
    assert [_said(c) for c in _terms(live) if isinstance(c, ir.Binary) and "k" not in _said(c).split()] == comparisons


def _said(x: ir.Expr) -> str:
    """A comparison of the test above in words."""
    match x:
        case ir.Binary(op=op, a=a, b=b):
            words = f"{_said(a)} {op} {_said(b)}"
            return f"({words})" if op not in ir.COMPARISONS else words
        case ir.Cast(dtype=dtype, x=inner):
            return f"{dtype.name}({_said(inner)})"
        case ir.Const(value=value):
            return str(value)
        case _:
            return ir.plain(x.name)  # type: ignore[union-attr]


def test_bounds_from_data_become_names() -> None:
    text = """
def ragged(x: f32[T], lo: i32[S], hi: i64[S], y: Out[f32[S]]):
    for s in grid(S):
        total = 0.0
        for t in tile(lo[s], hi[s]):
            total = total + sum(x[t], axis=t)
        y[s] = total
"""
    lo, hi = torch.tensor([0, 3, 5], dtype=torch.int32), torch.tensor([7, 3, 9])
    check(typed(text), {"T": 9, "S": 3}, pins={"t": 4}, tensors={"lo": lo, "hi": hi})
    loads = [n for n in ir.walk(last(text, trust=True)) if isinstance(n, ir.Load)]
    assert [n.tensor for n in loads] == ["lo", "hi", "x"]


def test_divisions_floor() -> None:
    text = """
def divisions(a: i32[N], b: i32[N], u: u32[N], q: Out[i32[N]], r: Out[i32[N]], p: Out[i32[N]], z: Out[i32[N]], w: Out[u32[N]], h: Out[i32[N]]):
    for n in grid(tile(N)):
        q[n], r[n] = a[n] // b[n], a[n] % b[n]
        p[n], z[n] = a[n] // 8, a[n] % 8
        w[n] = u[n] // 7 + u[n] % 7
        h[n] = a[n] // 7 * 100 + a[n] % 7
"""
    a = torch.arange(-40, 41, dtype=torch.int32)
    b = torch.tensor([3, -3, 1, -1, 7, -8, 100, -100, 2], dtype=torch.int32).repeat(9)
    check(typed(text), {"N": 81}, pins={"n": 32}, tensors={"a": a, "b": b})
    used = {n.op for s in last(text, trust=True).body for n in ir.walk(s) if isinstance(n, ir.Binary)}
    assert not used & {"floordiv", "mod"} and {"tdiv", "tmod", "shr"} <= used


def test_index_arithmetic_is_exact() -> None:
    text = """
def pages(cache: f32[P, 64], table: i32[S, B], y: Out[f32[S, 64 * B]], k: Out[i64[S, B]]):
    for s, t in grid(S, tile(64 * B)):
        page = table[s, t // 64]
        y[s, t] = cache[page, t % 64]
        k[s, t // 64] = i64(page) * 8448 * 1000000
"""
    table = torch.tensor([[1, 0, 3], [2, 2, 1]], dtype=torch.int32)
    check(typed(text), {"P": 4, "S": 2, "B": 3}, pins={"t": 128}, tensors={"table": table})


def test_narrow_schedules_have_i32_indices_and_wide_ones_i64() -> None:
    text = """
def halves(x: f32[M, 2 * H], y: Out[f32[M, H]]):
    for m, h in grid(tile(M), tile(H)):
        y[m, h] = x[m, h] * x[m, H + h]
"""
    check(typed(text), {"M": 3, "H": 5}, pins={"m": 2, "h": 4})
    for wide, name in ((False, "i32"), (True, "i64")):
        kernel = last(text, wide=wide)
        indices = [i for n in ir.walk(kernel) if isinstance(n, ir.Load | ir.Store) for i in n.indices]
        assert {str(i.dtype) for i in indices} == {name}
        assert not any(isinstance(n, ir.Cast) for n in ir.walk(kernel)), "2 * H is an extent, so H + h fits"
