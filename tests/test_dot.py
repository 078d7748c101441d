"""What contractions mean, at several tile lengths and in the lanes of a machine, and what the typed kernel says of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nsalang import ir
from nsalang.base.dtypes import ALL, BF16, F32, I8, I64
from nsalang.base.source import Source
from nsalang.base.target import Target
from nsalang.interp.fault import Fault
from nsalang.interp.numerics import dot
from nsalang.interp.run import interpret
from nsalang.ir.intervals import Bounds
from nsalang.ir.verify import verify
from nsalang.passes import flatten
from nsalang.syntax.parser import parse
from nsalang.types.settings import Settings
from nsalang.types.typecheck import kernel_names, specialise

TILES = (1, 3, None)
TARGET = Target("cuda", "sm_90")


def typed(text: str, **constants: object) -> ir.Kernel:
    file = parse(Source(text, "k.nsa"))
    kernel = specialise(file, kernel_names(file)[0], Settings(constants=constants))  # type: ignore[arg-type]
    verify(kernel, "typecheck")
    return kernel


def dots(kernel: ir.Kernel) -> list[ir.Dot]:
    return [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Dot)]


MATMUL = """
def matmul(a: T[M, K], b: T[K, N], c: Out[f32[M, N]], T: dtype = f32):
    for m, n in grid(tile(M), tile(N)):
        acc = zeros(m, n)
        for k in tile(K):
            acc = acc + dot(a[m, k], b[k, n], axis=k)
        c[m, n] = acc
"""


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "e4m3"])
def test_products_of_matrices(name: str, tile: int | None) -> None:
    torch.manual_seed(0)
    kernel = typed(MATMUL, T=ALL[name])
    dtype = getattr(torch, ALL[name].torch)
    a, b, c = torch.randn(5, 7).to(dtype), torch.randn(7, 4).to(dtype), torch.full((5, 4), 9.0)
    interpret(kernel, {"a": a, "b": b, "c": c}, {}, {"M": 5, "K": 7, "N": 4}, tile=tile)
    exact = a.float().double() @ b.float().double()
    assert (c.double() - exact).abs().max() <= 1e-6 * exact.abs().max()
    (node,) = dots(kernel)
    assert node.dtype is F32 and node.a.dtype is ALL[name] and node.over == "k" and node.acc is None and node.promote == 0


MANY = """
def many(q: bf16[B, S, H, 8], k: bf16[B, T, 8], w: f32[S, H], y: Out[f32[B, S, T]]):
    h, d = span(H), span(8)
    for b, s, t in grid(tile(B), tile(S), tile(T)):
        y[b, s, t] = dot(maximum(dot(q[b, s, h, d], k[b, t, d], axis=d), 0), w[s, h], axis=h)
"""


@pytest.mark.parametrize("tile", TILES)
def test_free_and_batch_axes_on_both_sides(tile: int | None) -> None:
    torch.manual_seed(0)
    file = parse(Source(MANY, "k.nsa"))
    kernel = specialise(file, "many", Settings(dims={"H": 3}))
    inner, outer = sorted(dots(kernel), key=lambda d: d.over)
    assert inner.axes == ("b", "s", "t", "h") and outer.axes == ("b", "s", "t") and outer.a.dtype is F32
    q, k, w = torch.randn(2, 3, 3, 8).bfloat16(), torch.randn(2, 4, 8).bfloat16(), torch.randn(3, 3)
    y = torch.zeros(2, 3, 4)
    interpret(kernel, {"q": q, "k": k, "w": w, "y": y}, {}, {"B": 2, "S": 3, "T": 4}, tile=tile)
    scores = torch.einsum("bshd,btd->bsth", q.double(), k.double()).relu()
    exact = torch.einsum("bsth,sh->bst", scores, w.double())
    assert (y.double() - exact).abs().max() < 1e-5


BYTES = """
def bytes(a: i8[M, K], b: i8[N, K], y: Out[i32[M, N]], K: const = 100):
    k = span(K)
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = dot(a[m, k], i8(where(n > 0, b[n, k], 0)), axis=k)
"""


def test_bytes_are_exact_integers() -> None:
    kernel = typed(BYTES, K=1000)
    (node,) = dots(kernel)
    assert node.dtype is I64 and node.a.dtype is node.b.dtype is I8
    inside = Bounds(dataclasses.replace(kernel, schedule=ir.Schedule(lengths=(("k", 1024),)))).of(node)
    assert (inside.lo, inside.hi) == (-1024 * 128 * 127, 1024 * 128 * 128)
    a, b, y = (
        torch.full((2, 1000), -128, dtype=torch.int8),
        torch.full((2, 1000), -128, dtype=torch.int8),
        torch.zeros(2, 2, dtype=torch.int32),
    )
    interpret(kernel, {"a": a, "b": b, "y": y}, {}, {"M": 2, "N": 2})
    assert y.tolist() == [[0, 16_384_000]] * 2


def test_rounding_is_once_and_infinities_are_ieee() -> None:
    # The exact sum, rounded once: 2**24 + 1 + 1 is not lost one by one.
    a = torch.tensor([[2.0**24, 1.0, 1.0]])
    assert dot(a, torch.ones(1, 3), ([0, 2], [1, 2], [0, 1]), None, F32)[0].item() == 2.0**24 + 2
    inf = float("inf")
    cases = [
        ([inf, 1.0], [0.0, 1.0], "nan"),
        ([inf, 1.0], [1.0, 1.0], "inf"),
        ([inf, inf], [1.0, -1.0], "nan"),
        ([3e38, 3e38], [1.0, 1.0], "inf"),
    ]
    for x, y, expected in cases:
        assert str(dot(torch.tensor(x), torch.tensor(y), ([0], [0], []), None, F32)[0].item()) == expected
    nothing, _ = dot(torch.zeros(2, 0), torch.zeros(0), ([0, 1], [1], [0]), None, F32)
    assert nothing.tolist() == [0.0, 0.0]
    minus, _ = dot(torch.tensor([-0.0]), torch.tensor([1.0]), ([0], [0], []), None, F32)
    assert str(minus.item()) == "0.0"
    added, _ = dot(torch.tensor([2.0**-30]), torch.tensor([1.0]), ([0], [0], []), torch.tensor(1.0), F32)
    assert added.item() == 1.0


def test_ways_of_adding_up() -> None:
    text = """
def ways(a: f32[M, 8], b: e4m3[M, 8], y: Out[f32[M]]):
    c = span(8)
    for m in grid(tile(M)):
        y[m] = dot(a[m, c], a[m, c], axis=c, precision="tf32") + dot(b[m, c], b[m, c], axis=c, accumulate="f32")
"""
    first, second = dots(typed(text))
    assert (first.precision, first.promote) == ("tf32", 0) and (second.precision, second.promote) == ("ieee", 128)


def lanes(over: int, *body: ir.Stmt) -> ir.Kernel:
    """A kernel over 5 rows in 8 lanes, and 3 terms in ``over`` lanes."""
    kernel = typed(
        """
def lanes(x: f32[M, 3], w: f32[3], y: Out[f32[M]]):
    c = span(3)
    for m in grid(tile(M)):
        y[m] = dot(x[m, c], w[c], axis=c)
"""
    )
    schedule = ir.Schedule(order=("m", "c"), lengths=(("m", 8), ("c", over)))
    return dataclasses.replace(kernel, schedule=schedule)


def test_lanes_of_a_machine_count_unless_they_are_zero() -> None:
    kernel = lanes(4)
    m, c, rows = ir.Index(I64, ("m",), "m"), ir.Index(I64, ("c",), "c"), ir.Dim(I64, (), "M")
    inside = ir.binary("lt", c, ir.const(3))

    def masked(fill: ir.Const | None) -> ir.Kernel:
        def rule(n: ir.Node) -> ir.Node:
            if isinstance(n, ir.Load):
                within = ir.binary("and", ir.binary("lt", m, rows), inside, ("m", "c")) if n.tensor == "x" else inside
                return dataclasses.replace(n, mask=within, fill=fill)
            return dataclasses.replace(n, mask=ir.binary("lt", m, rows)) if isinstance(n, ir.Store) else n

        return ir.rewrite(kernel, rule)

    x, w, y = torch.randn(5, 3), torch.randn(3), torch.zeros(5)
    interpret(masked(ir.const(0.0, F32)), {"x": x, "w": w, "y": y}, {}, {"M": 5}, machine=True)
    assert (y - x @ w).abs().max() < 1e-6
    with pytest.raises(Fault, match="a lane of [xw] is used that the mask leaves undefined"):
        interpret(masked(None), {"x": x, "w": w, "y": y}, {}, {"M": 5}, machine=True)


def test_operands_get_names() -> None:
    kernel = typed(MATMUL.replace("dot(a[m, k]", "dot(T(a[m, k] * 2)"), T=BF16)
    proved = ir.rewrite(kernel, lambda n: dataclasses.replace(n, proof=ir.Proof("PROVED")) if isinstance(n, ir.Load | ir.Store) else n)
    flat = flatten.run(proved, TARGET)
    (node,) = dots(flat)
    assert isinstance(node.a, ir.Var) and isinstance(node.b, ir.Var) and node.b.name == "b_tile"
    assert {n.value for s in flat.body for n in ir.walk(s) if isinstance(n, ir.Assign)} >= {node}


def test_reductions_without_axis_go_over_all() -> None:
    text = """
def every(x: f32[M, 6], y: Out[f32[M]], n: i32):
    c, d = span(3), span(2)
    for m in grid(tile(M)):
        if any(x[m, c] > 0):
            y[m] = sum(where(c < n, x[m, c + 3 * d], 0), axis=(c, d))
        else:
            y[m] = f32(max(c + 3 * d))
"""
    kernel = typed(text)
    over = [n.over for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Reduce)]
    assert over == [("m", "c"), ("c", "d"), ("c", "d")]
    x, y = torch.arange(12.0).reshape(2, 6) - 6, torch.zeros(2)
    interpret(kernel, {"x": x, "y": y}, {"n": 2}, {"M": 2}, tile=1)
    assert y.tolist() == [5.0, 0.0 + 1 + 3 + 4]


def test_a_share_of_a_sum_may_be_added_atomically() -> None:
    text = """
def total(x: f32[M], w: f32[M], y: InOut[f32[1]]):
    for m in grid(tile(M)):
        atomic_add(y[0], dot(x[m], w[m], axis=m))
"""
    kernel = typed(text)
    x, w = torch.arange(7.0), torch.ones(7)
    for tile in TILES:
        y = torch.zeros(1)
        interpret(kernel, {"x": x, "w": w, "y": y}, {}, {"M": 7}, tile=tile)
        assert y.item() == 21.0
