"""What views, searches, splits and colliding writes mean, against torch: kernels as text, at several tile lengths."""

from __future__ import annotations

import pytest
import torch

from nsalang.base.dtypes import F32, I32, U32
from nsalang.base.source import NsaError, Source
from nsalang.interp.collisions import add_at, put
from nsalang.interp.fault import Fault
from nsalang.interp.numerics import border, search
from nsalang.interp.run import interpret
from nsalang.syntax.parser import parse
from nsalang.types.settings import Settings
from nsalang.types.typecheck import kernel_names, specialise

TILES = (1, 5, None)


def run(
    text: str,
    tensors: dict[str, torch.Tensor],
    dims: dict[str, int],
    tile: int | None = None,
    scalars: dict[str, int | float | bool] | None = None,
) -> None:
    file = parse(Source(text, "k.nsa"))
    interpret(specialise(file, kernel_names(file)[0], Settings()), tensors, scalars or {}, dims, tile=tile)


PAGES = """
def gather(cache: u8[P, 4 * L * 20], y: Out[f32[P, L, 4]], s: Out[f32[P, L]], at: i32):
    rows = view(cache, f32[P, L, 4], strides=(4 * L * 20, 16, 4))
    scales = view(cache, f32[P, L], offset=at, strides=(80 * L, 4))
    c = span(4)
    for p, l in grid(P, tile(L)):
        y[p, l, c] = rows[p, l, c]
        s[p, l] = scales[p, l]
"""


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("layout", ["contiguous", "a slice of rows", "other pages between"])
def test_typed_views_of_bytes(tile: int | None, layout: str) -> None:
    torch.manual_seed(0)
    pages, length = 3, 7
    data = torch.randn(pages, length * 20)
    base = data.view(torch.uint8)
    if layout == "a slice of rows":
        wide = torch.zeros(pages, base.shape[1] + 32, dtype=torch.uint8)
        wide[:, 16:-16] = base
        base = wide[:, 16:-16]
    elif layout == "other pages between":
        wide = torch.zeros(2 * pages, base.shape[1], dtype=torch.uint8)
        wide[1::2] = base
        base = wide[1::2]
    y, s = torch.zeros(pages, length, 4), torch.zeros(pages, length)
    run(PAGES, {"cache": base, "y": y, "s": s}, {"P": pages, "L": length}, tile, {"at": 16 * length})
    assert torch.equal(y, data[:, : 4 * length].view(pages, length, 4)) and torch.equal(s, data[:, 4 * length : 5 * length])


def test_a_view_that_is_written_changes_its_base() -> None:
    text = "def f(b: InOut[u8[4 * N]]):\n    v = view(b, i32[N])\n    for n in grid(tile(N)):\n        v[n] = v[n] + n\n"
    base = torch.tensor([5, -1, 7], dtype=torch.int32).view(torch.uint8)
    run(text, {"b": base}, {"N": 3})
    assert base.view(torch.int32).tolist() == [5, 0, 9]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("i32[N], offset=k", "reaches over bytes 4 to 20 of 'b', which has 16"),
        ("i32[N], strides=4 - 2 * k", "reaches over bytes -12 to 4 of 'b', which has 16"),
        ("i32[2], offset=k // 2", "do not begin at multiples of their 4 bytes"),
        ("i32[2], strides=k + 2", "do not begin at multiples of their 4 bytes"),
        ("i32[N - k - 1]", "an extent of -1"),
        ("i32[N // (k - 4)]", "divides by zero"),
    ],
)
def test_a_view_outside_its_base_faults(declared: str, message: str) -> None:
    text = f"def f(b: u8[4 * N], k: i32, y: Out[i32[N]]):\n    v = view(b, {declared})\n    for n in grid(tile(N)):\n        y[n] = v[0]\n"
    with pytest.raises(Fault, match=message):
        run(text, {"b": torch.zeros(16, dtype=torch.uint8), "y": torch.zeros(4, dtype=torch.int32)}, {"N": 4}, None, {"k": 4})


def test_a_view_without_elements_lies_anywhere() -> None:
    text = "def f(b: u8[N], y: Out[i32[N]]):\n    v = view(b, i32[N, 2], offset=99)\n    for n in grid(tile(N)):\n        y[n] = v[n, 0]\n"
    run(text, {"b": torch.zeros(0, dtype=torch.uint8), "y": torch.zeros(0, dtype=torch.int32)}, {"N": 0})


def test_a_layout_that_allows_no_view() -> None:
    text = "def f(b: u8[4, N], y: Out[i32[N]]):\n    v = view(b, i32[N])\n    for n in grid(tile(N)):\n        y[n] = v[n]\n"
    base = torch.zeros(3, 4, dtype=torch.uint8).T
    with pytest.raises(NsaError, match="NSA0521"):
        run(text, {"b": base, "y": torch.zeros(3, dtype=torch.int32)}, {"N": 3})


@pytest.mark.parametrize("tile", TILES)
def test_atomic_adds_meet_in_one_element(tile: int | None) -> None:
    text = """
def f(x: f32[M, N], i: i32[M], y: InOut[f32[K, N]], count: InOut[i32[K]], total: InOut[f32[1]]):
    for m, n in grid(tile(M), tile(N)):
        t = i[m]
        if t >= 0:
            atomic_add(y[t, n], x[m, n])
            if n == 0:
                atomic_add(count[t], full(m, n, 1))
        atomic_add(total[0], sum(x[m, n], axis=(m, n)))
"""
    torch.manual_seed(1)
    x = torch.randint(-50, 50, (11, 7)).float()
    i = torch.tensor([0, 2, 2, -1, 2, 1, 0, -5, 2, 2, 0], dtype=torch.int32)
    y, count, total = torch.ones(3, 7), torch.zeros(3, dtype=torch.int32), torch.zeros(1)
    run(text, {"x": x, "i": i, "y": y, "count": count, "total": total}, {"M": 11, "N": 7, "K": 3}, tile)
    live = i >= 0
    assert torch.equal(y, torch.ones(3, 7).index_add(0, i[live].long(), x[live]))
    assert count.tolist() == [3, 1, 5] and total.item() == x.sum().item()


def test_a_value_without_the_places_axes_is_added_by_each_lane() -> None:
    text = "def f(x: i32[M, N], y: InOut[i32[M]]):\n    for m, n in grid(M, tile(N)):\n        atomic_add(y[m], x[m, n])\n"
    x, y = torch.arange(12, dtype=torch.int32).view(3, 4), torch.zeros(3, dtype=torch.int32)
    run(text, {"x": x, "y": y}, {"M": 3, "N": 4})
    assert y.tolist() == x.sum(1).tolist()


@pytest.mark.parametrize("tile", TILES)
def test_of_scattered_lanes_the_last_wins(tile: int | None) -> None:
    text = """
def f(x: f32[M], i: i32[M], y: InOut[f32[N]]):
    for m in grid(tile(M)):
        t = i[m]
        if t < N:
            scatter(y[t], x[m])
"""
    i = torch.tensor([3, 0, 3, 9, 3, 0, 1, 8], dtype=torch.int32)
    x, y = torch.arange(8).float(), torch.full((5,), -1.0)
    run(text, {"x": x, "i": i, "y": y}, {"M": 8, "N": 5}, tile)
    assert y.tolist() == [5.0, 6.0, -1.0, 4.0, -1.0]


def test_a_scatter_outside_faults() -> None:
    text = "def f(i: i32[M], y: InOut[f32[N]]):\n    for m in grid(tile(M)):\n        scatter(y[i[m]], 1.0)\n"
    with pytest.raises(Fault, match=r"y\[5\]: written outside.*m = 1"):
        run(text, {"i": torch.tensor([4, 5], dtype=torch.int32), "y": torch.zeros(5)}, {"M": 2, "N": 5})


@pytest.mark.parametrize("tile", TILES)
def test_searchsorted_counts_what_is_at_most(tile: int | None) -> None:
    text = """
def f(cu: i32[B + 1], edges: f32[E], b: Out[i32[T]], e: Out[i32[T]]):
    for t in grid(tile(T)):
        b[t] = searchsorted(cu, t) - 1
        e[t] = where(t != 2, searchsorted(edges, f32(t) / 2), 77)
"""
    cu, edges = torch.tensor([0, 3, 3, 8], dtype=torch.int32), torch.tensor([-1.0, 0.5, 0.5, 2.0])
    b, e = torch.zeros(8, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
    run(text, {"cu": cu, "edges": edges, "b": b, "e": e}, {"B": 3, "E": 4, "T": 8}, tile)
    assert b.tolist() == [0, 0, 0, 2, 2, 2, 2, 2]
    assert e.tolist() == [1, 3, 77, 3, 4, 4, 4, 4]


def test_split_cuts_evenly() -> None:
    text = """
def f(lo: Out[i32[P]], hi: Out[i32[P]], N: i32, x: f32[N]):
    for p in grid(tile(P)):
        a, b = split(N, P, p)
        lo[p], hi[p] = a, b
"""
    for parts in (1, 3, 7):
        for n in range(10):
            lo, hi = torch.zeros(parts, dtype=torch.int32), torch.zeros(parts, dtype=torch.int32)
            run(text, {"lo": lo, "hi": hi, "x": torch.zeros(n)}, {"N": n, "P": parts})
            sizes = (hi - lo).tolist()
            assert lo[0] == 0 and hi[-1] == n and torch.equal(lo[1:], hi[:-1]) and sizes == sorted(sizes, reverse=True)
            assert max(sizes) - min(sizes) <= 1


# --------------------------------------------------------------------------------------------------------------------- numerics


def test_floats_are_added_in_the_order_of_the_lanes() -> None:
    values = torch.tensor([1.0, 2.0**-24, 2.0**-24, 5.0, 2.0**-24])
    places = [torch.tensor([0, 0, 0, 1, 0])]
    for order in (torch.arange(5), torch.tensor([1, 2, 4, 0, 3])):
        target = torch.zeros(2)
        add_at(target, [places[0][order]], values[order], F32)
        expected = 0.0
        for v in values[order][places[0][order] == 0]:
            expected = (torch.tensor(expected) + v).item()
        assert target.tolist() == [expected, 5.0]


def test_integers_that_are_added_wrap() -> None:
    signed, unsigned = torch.tensor([2**31 - 1, 0], dtype=torch.int32), torch.tensor([2**32 - 1, 3], dtype=torch.uint32)
    add_at(signed, [torch.tensor([0, 0, 1])], torch.tensor([1, 1, -4]), I32)
    add_at(unsigned, [torch.tensor([0, 0, 1])], torch.tensor([1, 1, 2]), U32)
    assert signed.tolist() == [-(2**31) + 1, -4] and unsigned.tolist() == [1, 5]


def test_writes_to_a_tensor_without_axes() -> None:
    target, total = torch.tensor(0, dtype=torch.int32), torch.tensor(1.0)
    put(target, [], torch.tensor([1, 2, 3], dtype=torch.int32))
    add_at(total, [], torch.tensor([1.0, 2.0]), F32)
    assert target.item() == 3 and total.item() == 4.0


def test_borders_and_searches() -> None:
    at, wrong = border(torch.tensor([10, 10, 10, -1]), torch.tensor([3, 0, 4, 2]), torch.tensor([2, 1, 4, 0]))
    assert wrong is not None and wrong.tolist() == [False, True, False, True] and [at[0].item(), at[2].item()] == [7, 10]
    assert search(torch.tensor([1, 1, 4]), torch.tensor([[0, 1], [4, 9]])).tolist() == [[0, 2], [3, 3]]
    assert search(torch.tensor([1.0, 2.0]).bfloat16(), torch.tensor([1.5])).tolist() == [1]
