"""Which order, tiles, warps and stages the passes choose, and what pins are refused."""

from __future__ import annotations

import sys

import pytest
from staged import SOFTMAX, check, last, typed

from nsalang import ir
from nsalang.base.source import NsaError
from nsalang.passes import PASSES


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
    assert repr(last(SOFTMAX)) == repr(last(SOFTMAX))
    for _, run in PASSES:
        doc = sys.modules[run.__module__].__doc__
        assert doc is not None and "\nLeaves " in doc
