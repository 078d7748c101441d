"""Every pass keeps the meaning: the interpreter before and after each, on real lanes before there are masks and on machine lanes from then on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import product

import pytest
import torch

from nsalang import ir
from nsalang.base.dtypes import E5M2, E8M0, I64, DType
from nsalang.base.source import NsaError, Source
from nsalang.base.target import Target, parse_target
from nsalang.interp.numerics import memory, memory_dtype
from nsalang.interp.run import interpret
from nsalang.ir.verify import verify
from nsalang.launch.kernel import load_text
from nsalang.launch.sizes import is_exact
from nsalang.passes import PASSES, simplify
from nsalang.syntax import parser
from nsalang.types import typecheck
from nsalang.types.settings import Settings

SPECIAL = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.5,
    -2.5,
    0.5,
    -0.5,
    1.5,
    3.0,
    float("inf"),
    float("-inf"),
    float("nan"),
    1e30,
    -1e30,
    1e-40,
    448.0,
    -449.0,
)


def typed(
    text: str, target: str = "cuda:sm_90", *, dims: Mapping[str, int] | None = None, **constants: int | float | bool | DType
) -> ir.Kernel:
    file = parser.parse(Source(text, "test.nsa"))
    name = next(item.name for item in file.items if hasattr(item, "name"))
    settings = Settings(target=parse_target(target), constants=constants, dims=dict(dims or {}), present=frozenset(), captured={})
    return typecheck.specialise(file, name, settings)


def trusted(kernel: ir.Kernel, target: Target) -> ir.Kernel:
    """In place of the prover, for kernels that are right with the data of their test alone."""
    return ir.rewrite(kernel, lambda n: dataclasses.replace(n, proof=ir.Proof("PROVED")) if isinstance(n, ir.Load | ir.Store) else n)


def stages(
    kernel: ir.Kernel, target: str, backend: str, wide: bool, pins: Mapping[str, int], exact: bool = False, trust: bool = False
) -> list[tuple[str, ir.Kernel]]:
    schedule = dataclasses.replace(kernel.schedule, backend=backend, wide=wide, aligned=True, pinned=tuple(pins.items()), exact=exact)
    kernel = dataclasses.replace(kernel, schedule=schedule)
    made = [("typecheck", kernel)]
    for stage, run in PASSES:
        kernel = (trusted if trust and stage == "prove" else run)(kernel, parse_target(target))
        verify(kernel, stage)
        made.append((stage, kernel))
    return made


def last(text: str, target: str = "cuda:sm_90", backend: str = "triton", wide: bool = False, pins: Mapping[str, int] | None = None,
         dims: Mapping[str, int] | None = None, exact: bool = False, trust: bool = False,
         **constants: int | float | bool | DType) -> ir.Kernel:  # fmt: skip
    return stages(typed(text, target, dims=dims, **constants), target, backend, wide, pins or {}, exact, trust)[-1][1]


def data(dtype: DType, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Random numbers whose sums are exact in any order, or special values."""
    random = torch.Generator().manual_seed(seed)
    if dtype.is_float:
        values = torch.randint(-64, 64, shape, generator=random) / 8
        return values.to(memory_dtype(dtype))
    low, high = max(int(dtype.min), -100), min(int(dtype.max), 100)
    return torch.randint(low, high + 1, shape, generator=random).to(memory_dtype(dtype))


def bits(x: torch.Tensor) -> torch.Tensor:
    """Bits, with one NaN for all."""
    if x.dtype.is_floating_point:
        x = torch.where(x.float().isnan(), torch.tensor(float("nan")), x.float())
        return x.contiguous().view(torch.int32)
    return memory(x)


def check(kernel: ir.Kernel, sizes: Mapping[str, int], *, target: str = "cuda:sm_90", pins: Mapping[str, int] | None = None,
          tensors: Mapping[str, torch.Tensor] | None = None, scalars: Mapping[str, int | float] | None = None, ulps: int = 0,
          backends: tuple[str, ...] = ("triton", "tilelang"), widths: tuple[bool, ...] = (False, True)) -> dict[str, torch.Tensor]:  # fmt: skip
    """Run a kernel at every stage; what it writes must be the same bits (``ulps``: units in the last place that f32 results may differ by).

    The exact variant runs too where the sizes allow it. The prover is not asked: it knows nothing of the test's data."""
    from nsalang.host.extents import evaluate

    given: dict[str, torch.Tensor] = {}
    for seed, t in enumerate(kernel.tensors):
        shape = tuple(int(evaluate(e, dict(sizes), dict(scalars or {}))) for e in t.shape)
        given[t.name] = (tensors or {}).get(t.name, data(t.dtype, shape, seed))
        assert tuple(given[t.name].shape) == shape, t.name

    def outputs(k: ir.Kernel, machine: bool) -> dict[str, torch.Tensor]:
        copies = {n: x.clone() for n, x in given.items()}
        interpret(k, copies, scalars or {}, sizes, machine=machine)
        return {t.name: copies[t.name] for t in kernel.tensors if t.role != "in"}

    expected = outputs(kernel, machine=False)
    for backend in backends:
        for wide, exact in product(widths, (False, True)):
            masked = False
            made = stages(kernel, target, backend, wide, pins or {}, exact, trust=True)
            if exact and not (made[-1][1].hoists and is_exact(made[-1][1], sizes, scalars or {})):
                continue
            for stage, k in made:
                masked = masked or stage == "guard"
                for name, found in outputs(k, machine=masked).items():
                    if ulps and found.dtype == torch.float32:
                        torch.testing.assert_close(found, expected[name], rtol=ulps * 2.0**-23, atol=1e-44, equal_nan=True)
                    else:
                        differ = (bits(found) != bits(expected[name])).nonzero()
                        assert not len(differ), f"{stage} ({backend}, wide={wide}, exact={exact}) changed {name} at {differ[:3].tolist()}"
    return expected


def special(dtype: DType, *shape: int) -> torch.Tensor:
    values = torch.tensor(SPECIAL).to(memory_dtype(dtype))
    count = 1
    for size in shape:
        count *= size
    return values.repeat(count // len(values) + 1)[:count].view(shape).clone()


EVERY_F32 = torch.cat([
    torch.tensor(SPECIAL),
    torch.randint(-(2**31), 2**31 - 1, (4000,), generator=torch.Generator().manual_seed(7)).to(torch.int32).view(torch.float32),
    torch.arange(-40, 40) / 8,
    torch.tensor([2.0**k * s for k in range(-149, 128) for s in (1.0, -1.0)]),
    torch.tensor([2.0**31, 2.0**31 - 128, -(2.0**31), 2.0**32, 2.0**63, -(2.0**63), 127.5, 128.0, -128.5, 255.5, 65535.5, 2.0**23 + 1, 8388607.5]),
])  # fmt: skip
# Quiet NaNs only: what IEEE 754-2008 says of signalling ones and maxNum, targets read differently.
EVERY_F32 = torch.where(EVERY_F32.isnan(), torch.tensor(float("nan")), EVERY_F32)


# -------------------------------------------------------------------------------------------------------------------- whole kernels

SOFTMAX = """
def softmax(x: f32[M, N], y: Out[f32[M, N]]):
    for m in grid(tile(M)):
        top, total = full(m, f32.min), zeros(m)
        for n in tile(N):
            new = maximum(top, max(x[m, n], axis=n))
            total = total * exp(top - new) + sum(exp(x[m, n] - new), axis=n)
            top = new
        for n in tile(N):
            y[m, n] = exp(x[m, n] - top) / total
"""
ACT_QUANT = """
def act_quant(x: bf16[M, N], y: Out[e4m3[M, N]], s: Out[f32[M, N // G]], G: const = 32, ue8m0: const = False):
    require(N % G == 0)
    for m, g in grid(tile(M), N // G):
        n = span(g * G, G)
        v = f32(x[m, n])
        scale = maximum(absmax(v, axis=n), 1e-4) * (1 / e4m3.max)
        if ue8m0:
            scale = pow2_ceil(scale)
        y[m, n] = e4m3(clamp(v / scale, -e4m3.max, e4m3.max))
        s[m, g] = scale
"""


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


# ------------------------------------------------------------------------------------------------------------------------ conversions


@pytest.mark.parametrize("target", ["cuda:sm_90", "cuda:sm_80", "hip:gfx942"])
@pytest.mark.parametrize("dtype", ["e4m3", "e5m2", "e8m0"])
def test_fp8_both_ways(target: str, dtype: str) -> None:
    typed_as = "e5m2" if dtype == "e8m0" else dtype  # no text converts to e8m0 yet
    text = f"""
def codes(c: {typed_as}[A], x: f32[N], h: bf16[B], back: Out[f32[A]], half: Out[bf16[A]], y: Out[{typed_as}[N]], z: Out[{typed_as}[B]]):
    for a in grid(tile(A)):
        back[a], half[a] = f32(c[a]), bf16(c[a])
        for n in tile(N):
            y[n] = {typed_as}(x[n])
        for b in tile(B):
            z[b] = {typed_as}(h[b])
"""
    kernel = typed(text, target)
    if dtype == "e8m0":
        kernel = ir.rewrite(kernel, lambda n: dataclasses.replace(n, dtype=E8M0) if getattr(n, "dtype", None) is E5M2 else n)
    c = torch.arange(256).to(torch.uint8).view(memory_dtype(kernel.tensor("c").dtype))
    decoded = c.float()
    finite = decoded[decoded.isfinite()].sort().values
    between = torch.cat([(finite[1:] + finite[:-1]) / 2, finite])
    near = torch.cat([between, torch.nextafter(between, torch.tensor(float("inf"))), torch.nextafter(between, torch.tensor(float("-inf")))])
    x = torch.cat([near, EVERY_F32])
    h = torch.arange(0, 65536, 5).to(torch.uint16).view(torch.bfloat16)
    tensors = {"c": c, "x": x, "h": h}
    sizes = {"A": 256, "N": len(x), "B": len(h)}
    check(kernel, sizes, target=target, pins={"a": 256, "n": 8192, "b": 16384}, tensors=tensors, backends=("triton",), widths=(False,))


def test_a_format_that_cannot_be_stored_yet() -> None:
    module = load_text("def f(x: e2m1[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = f32(x[n])\n")
    with pytest.raises(NsaError, match=r"NSA0411\]: 'x' can't hold e2m1"):
        module.f.compile(target="cuda:sm_90", backend="triton")


@pytest.mark.parametrize("dtype", ["i8", "u8", "i16", "u16", "i32", "u32", "i64"])
def test_floats_to_integers_saturate(dtype: str) -> None:
    text = f"""
def whole(x: f32[N], y: Out[{dtype}[N]], z: Out[{dtype}[N]]):
    for n in grid(tile(N)):
        y[n] = {dtype}(x[n])
        z[n] = {dtype}(round(clamp(x[n], 0, 100)))
"""
    check(typed(text), {"N": len(EVERY_F32)}, pins={"n": 8192}, tensors={"x": EVERY_F32})


def test_rounding_functions_are_exact() -> None:
    text = """
def rounding(x: f32[N], a: Out[f32[N]], b: Out[f32[N]], c: Out[f32[N]], d: Out[f32[N]], e: Out[f32[N]], f: Out[i32[N]]):
    for n in grid(tile(N)):
        v = x[n]
        a[n], b[n], c[n], d[n], e[n], f[n] = round(v), trunc(v), floor(v), ceil(v), pow2_ceil(v), ceil_log2(v)
"""
    check(typed(text), {"N": len(EVERY_F32)}, pins={"n": 8192}, tensors={"x": EVERY_F32})


def test_tanh_and_sigmoid_within_their_bounds() -> None:
    text = """
def curves(x: f32[N], a: Out[f32[N]], b: Out[f32[N]]):
    for n in grid(tile(N)):
        a[n], b[n] = tanh(x[n]), sigmoid(x[n])
"""
    x = torch.cat([EVERY_F32, torch.linspace(-12, 12, 20001), torch.linspace(-0.7, 0.7, 10001)])
    check(typed(text), {"N": len(x)}, pins={"n": 32768}, tensors={"x": x}, ulps=5, backends=("triton",), widths=(False,))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_narrow_arithmetic_rounds_each_operation(dtype: str) -> None:
    text = f"""
def narrow(x: {dtype}[N], y: {dtype}[N], a: Out[{dtype}[N]], b: Out[{dtype}[N]], c: Out[{dtype}[N]], d: Out[i32[N]], e: Out[{dtype}[N]]):
    for n in grid(tile(N)):
        u, v = x[n], y[n]
        a[n] = u * v + u
        b[n] = u / v - abs(v)
        c[n] = maximum(minimum(u, v), -u)
        d[n] = i32(u < v)
        e[n] = {dtype}(i64(clamp(f32(u), -1e9, 1e9)) * 4097) * 3
"""
    kernel = typed(text)
    x = (
        torch.randint(0, 65536, (5000,), generator=torch.Generator().manual_seed(3))
        .to(torch.uint16)
        .view(memory_dtype(kernel.tensor("x").dtype))
    )
    y = torch.randint(0, 65536, (5000,), generator=torch.Generator().manual_seed(4)).to(torch.uint16).view(x.dtype)
    check(kernel, {"N": 5000}, pins={"n": 4096}, tensors={"x": x, "y": y})


def test_integers_wrap_and_reinterpret() -> None:
    text = """
def integers(a: i32[N], u: u32[N], b: u8[N], x: f32[N], p: Out[i8[N]], q: Out[u8[N]], r: Out[u32[N]], s: Out[i32[N]], t: Out[u32[N]], v: Out[f32[N]],
             w: Out[i32[N]]):
    for n in grid(tile(N)):
        p[n], q[n] = wrap(a[n] * 5, i8), u8(a[n] * 3)
        r[n] = (u[n] << 3) ^ (u[n] >> 5) * 77 + u32(b[n])
        s[n] = wrap(u[n], i32) // 16
        t[n] = bitcast(x[n], u32) & 255
        v[n] = bitcast(u[n] | 1, f32)
        w[n] = bitcast(x[n], i32) >> 3
"""
    u = torch.randint(0, 2**32, (50,), generator=torch.Generator().manual_seed(1)).to(torch.uint32)
    check(typed(text), {"N": 50}, pins={"n": 32}, tensors={"u": u, "x": special(typed(text).tensor("x").dtype, 50)})


# -------------------------------------------------------------------------------------------------------------------------- simplify


def folded(expression: str, dtype: str = "f32") -> ir.Expr:
    text = f"""
def k(x: {dtype}[N], y: Out[{dtype}[N]], z: Out[i32[N]]):
    for n in grid(tile(N)):
        v = x[n]
        y[n] = {expression}
"""
    kernel = dict(stages(typed(text), "cuda:sm_90", "triton", False, {}, trust=True))["simplify"]
    return next(n.value for n in ir.walk(kernel) if isinstance(n, ir.Store))


@pytest.mark.parametrize(
    "expression",
    ["v * 0.0", "v + 0.0", "0.0 - v", "v / 3.0", "v - v", "maximum(v, -inf)", "minimum(maximum(v, 1.0), 0.5)", "v * 2.0 / 2.0"],
)
def test_what_is_not_exact_stays(expression: str) -> None:
    text = f"""
def k(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        v = x[n]
        y[n] = {expression}
"""
    check(typed(text), {"N": len(EVERY_F32)}, pins={"n": 8192}, tensors={"x": EVERY_F32}, backends=("tilelang",), widths=(False,))
    assert isinstance(folded(expression), ir.Binary)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [("v * 1.0", ir.Var), ("v - 0.0", ir.Var), ("f32(bf16(v)) * 1", ir.Cast), ("-(-v)", ir.Var), ("where(v < 0, v, v)", ir.Var)],
)
def test_identities(expression: str, kind: type) -> None:
    assert isinstance(folded(expression), kind)


def test_division_by_a_power_of_two_is_a_product() -> None:
    made = folded("v / 8")
    assert isinstance(made, ir.Binary) and made.op == "mul" and isinstance(made.b, ir.Const) and made.b.value == 0.125


def test_nested_maxima_become_one() -> None:
    made = folded("maximum(2, maximum(maximum(v, 0), 1))")
    assert isinstance(made, ir.Binary) and isinstance(made.b, ir.Const) and made.b.value == 2.0 and isinstance(made.a, ir.Var)


def test_borders_that_are_known() -> None:
    text = """
def k(y: Out[i64[N]]):
    for p, n in grid(4, tile(N)):
        first, second = split(N, 4, 0)
        third, last = split(N, 4, 3)
        lo, hi = split(10, 4, 1)
        some, more = split(N, 4, p)
        y[n] = first + second + third + last + lo + hi + some + more
"""
    kernel = simplify.run(typed(text), parse_target("cpu"))
    found = {n.name: n.value for n in ir.walk(kernel) if isinstance(n, ir.Assign)}
    known = {name: n.value for name, n in found.items() if isinstance(n, ir.Const)}
    assert known == {"first": 0, "lo": 3, "hi": 6} and found["last"] == ir.Dim(I64, (), "N")
    assert {name for name, n in found.items() if isinstance(n, ir.Border)} == {"second", "third", "some", "more"}


def test_dead_code_goes_also_carried() -> None:
    text = """
def k(x: f32[M, N], y: Out[f32[M]], never: const = False):
    c = span(64)
    for m in grid(tile(M)):
        total, unused = zeros(m), zeros(m)
        for n in tile(N):
            unused = unused + sum(x[m, n], axis=n)
            total = total + max(x[m, n], axis=n)
        for n in tile(0, 0):
            total = total + sum(x[m, n], axis=n)
        y[m] = total
"""
    kernel = dict(stages(typed(text), "cuda:sm_90", "triton", False, {}, trust=True))["simplify"]
    loops = [n for n in ir.walk(kernel) if isinstance(n, ir.For)]
    assert [loop.carried for loop in loops] == [("total",)]
    assert not any(isinstance(n, ir.SpanAxis) for n in ir.walk(kernel))


# ------------------------------------------------------------------------------------------------------------------- order and tiles


def test_a_transpose_gets_square_tiles() -> None:
    kernel = last("def t(x: f32[M, N], y: Out[f32[N, M]]):\n    for m, n in grid(tile(M), tile(N)):\n        y[n, m] = x[m, n]\n")
    assert kernel.schedule.order == ("m", "n") and dict(kernel.schedule.lengths) == {"m": 64, "n": 64}


def test_order_follows_the_accesses() -> None:
    text = "def t(x: f32[M, N], y: Out[f32[M, N]]):\n    for n, m in grid(tile(N), tile(M)):\n        y[m, n] = x[m, n]\n"
    assert last(text).schedule.order == ("m", "n")
    check(typed(text), {"M": 3, "N": 6}, pins={"m": 2, "n": 4})


def test_a_length_divides_what_a_require_says() -> None:
    text = """
def k(x: f32[M, N], y: Out[f32[M]]):
    require(N % 192 == 0)
    for m in grid(tile(M)):
        total = zeros(m)
        for n in tile(N):
            total = maximum(total, max(x[m, n], axis=n))
        y[m] = total
"""
    kernel = last(text)
    assert dict(kernel.schedule.lengths) == {"m": 64, "n": 64}
    load = next(n for n in ir.walk(kernel) if isinstance(n, ir.Load))
    assert load.mask is not None and load.mask.axes == ("m",)
    check(typed(text), {"M": 3, "N": 192})


@pytest.mark.parametrize(
    ("pins", "code"),
    [
        ({"q": 8}, "NSA0409"),
        ({"n": 3}, "NSA0408"),
        ({"n": 131072}, "NSA0408"),
        ({"c": 4}, "NSA0408"),
        ({"m": 4096, "n": 512}, "NSA0408"),
        ({"warps": 3}, "NSA0408"),
        ({"stages": 9}, "NSA0408"),
    ],
)
def test_wrong_pins(pins: dict[str, int], code: str) -> None:
    text = """
def k(x: f32[M, N], w: f32[8], y: Out[f32[M, N]]):
    c = span(8)
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = x[m, n] + sum(w[c], axis=c)
"""
    with pytest.raises(NsaError) as error:
        last(text, pins=pins)
    assert [d.code for d in error.value.diagnostics] == [code]


def test_what_makes_a_value_too_large_is_blamed_once() -> None:
    with pytest.raises(NsaError) as error:
        last(SOFTMAX, pins={"m": 65536})
    (found,) = error.value.diagnostics
    assert found.code == "NSA0408" and found.helps == ("pin a shorter length",) and found.span is not None
    assert found.sentence.startswith("the schedule pins 'm' to 65536, and a value over m 65536 x n 64 has more than 1048576 elements")
    with pytest.raises(NsaError) as error:
        last(SOFTMAX, pins={"m": 2048, "n.2": 1024, "n": 64})
    (found,) = error.value.diagnostics
    assert found.code == "NSA0408" and "pins 'm' to 2048 and 'n.2' to 1024, and a value over m 2048 x n 1024" in found.sentence
    spans = "def k(x: f32[N, 2048], y: Out[f32[N, 2048, 1024]]):\n    c, d = span(2048), span(1024)\n    for n in grid(N):\n        y[n, c, d] = x[n, c]\n"
    for pins in ({}, {"c": 2048}):
        with pytest.raises(NsaError) as error:
            last(spans, pins=pins)
        (found,) = error.value.diagnostics
        assert found.code == "NSA0410" and found.helps == ("use tile(…) for a long axis",)


def test_warps_and_stages_can_be_pinned() -> None:
    schedule = last(SOFTMAX, pins={"warps": 8, "stages": 3, "n": 2048}).schedule
    assert (schedule.warps, schedule.stages, schedule.length("n"), schedule.length("n.2"), schedule.length("m")) == (8, 3, 2048, 2048, 2)


def test_passes_are_deterministic_and_end_in_leaves() -> None:
    import importlib

    assert repr(last(SOFTMAX)) == repr(last(SOFTMAX))
    for stage, _ in PASSES:
        doc = importlib.import_module(f"nsalang.passes.{stage}").__doc__
        assert doc is not None and "\nLeaves " in doc


# ------------------------------------------------------------------------------------------------------- control flow and odd lanes


def test_branches_ranges_and_in_place() -> None:
    text = """
def steps(x: f32[N + 1], y: Out[f32[N]], z: InOut[f32[N]], limit: i32):
    for i in grid(N):
        v = x[i + 1] - x[i]
        if i < limit:
            y[i] = v
            z[i] = z[i] + 1
        else:
            total = 0.0
            for j in range(i, N):
                total = total + x[j + 1]
            y[i] = total
        z[i] = z[i] * 2
"""
    check(typed(text), {"N": 6}, scalars={"limit": 3})
    accesses = [n for n in ir.walk(last(text)) if isinstance(n, ir.Load | ir.Store)]
    assert all(n.mask is None for n in accesses), "every index is inside for plain reasons"
    assert len([n for n in accesses if isinstance(n, ir.Load) and n.tensor == "z"]) == 2, "z is read again after it was written"


def test_spans_that_stop_early_and_start_anywhere() -> None:
    text = """
def windows(x: f32[T], start: i32[S], y: Out[f32[S, K]], s: Out[f32[S]], a: Out[i32[S]], K: const = 6):
    partial(y)
    for i in grid(S):
        n = span(start[i], K, T)
        k = span(0, K, T - start[i])
        s[i] = sum(x[n], axis=n)
        a[i] = argmax(x[n], axis=n)
        y[i, k] = x[start[i] + k]
"""
    start = torch.tensor([0, 3, 5, 8, 9], dtype=torch.int32)
    check(typed(text), {"T": 9, "S": 5}, tensors={"start": start})


def test_divisors_of_lanes_that_do_not_exist() -> None:
    text = """
def ratios(a: i32[M, N], b: i32[M, N], c: i32[M], y: Out[i32[M]], z: Out[i32[M, N]]):
    for m in grid(tile(M)):
        total = full(m, 0, dtype=i64)
        for n in tile(N):
            total = total + sum(a[m, n] // b[m, n] + a[m, n] % c[m], axis=n)
            z[m, n] = where(a[m, n] != 0, b[m, n] // a[m, n], -1)
        y[m] = total
"""
    a = torch.tensor([[5, -7, 0], [9, 100, -3]], dtype=torch.int32)
    b, c = torch.tensor([[2, 3, -4], [1, -9, 5]], dtype=torch.int32), torch.tensor([3, -4], dtype=torch.int32)
    check(typed(text), {"M": 2, "N": 3}, pins={"m": 4, "n": 4}, tensors={"a": a, "b": b, "c": c})


def test_conditions_over_a_tile_of_the_grid() -> None:
    text = """
def banded(x: f32[S, T], lo: i32[S], hi: i32[S], y: Out[f32[S, T]]):
    for s, t in grid(tile(S), tile(T)):
        inside = (lo[s] <= t) & (t < hi[s])
        if any(inside, axis=(s, t)):
            y[s, t] = where(inside, sqrt(abs(x[s, t])), -inf)
        else:
            y[s, t] = -inf
"""
    lo, hi = torch.tensor([0, 2, 5, 1, 3], dtype=torch.int32), torch.tensor([3, 2, 7, 9, 4], dtype=torch.int32)
    check(typed(text), {"S": 5, "T": 9}, pins={"s": 2, "t": 4}, tensors={"lo": lo, "hi": hi})


def test_bool_and_half_tensors_and_branches_on_lanes() -> None:
    text = """
def masked(x: f16[M, N], keep: bool[M, N], y: Out[f16[M, N]], n_kept: Out[i32[M]], flag: Out[bool[M]]):
    for m in grid(tile(M)):
        count = full(m, 0, dtype=i64)
        for n in tile(N):
            v, k = x[m, n], keep[m, n]
            count = count + sum(k, axis=n)
            if k:
                v = v * 2
                y[m, n] = v
            else:
                y[m, n] = -v
        n_kept[m] = count
        flag[m] = count > 2
"""
    check(typed(text), {"M": 3, "N": 6}, pins={"m": 2, "n": 4})
