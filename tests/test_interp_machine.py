"""The interpreter in machine mode: the lanes that a schedule pads, masks, and widths of integers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from ir_kernels import (
    M,
    N,
    cast,
    f32,
    full,
    guarded_row_max,
    index,
    kernel,
    reduce,
    rows,
    scheduled,
    store,
    tensor,
    where,
)

from nsalang import ir
from nsalang.base.dtypes import F32, I32, I64
from nsalang.interp.fault import Fault
from nsalang.interp.run import interpret

TILES = (1, 7, None)
SHAPES = ((13, 37), (1, 1), (8, 0), (0, 5), (7, 14))
INF, NAN = float("inf"), float("nan")
m, n = index("m"), index("n")


@pytest.mark.parametrize(("rows_", "width"), [(13, 37), (4, 8), (1, 1), (3, 0), (0, 3)])
def test_machine_lanes_give_the_same(rows_: int, width: int) -> None:
    torch.manual_seed(4)
    x, y, z = torch.randn(rows_, width) - 9, torch.empty(rows_), torch.empty(rows_)
    interpret(guarded_row_max(), {"x": x, "y": y}, {}, {"M": rows_, "N": width}, machine=True)
    interpret(guarded_row_max(), {"x": x, "y": z}, {}, {"M": rows_, "N": width}, tile=5)
    assert torch.equal(y, z) and torch.equal(y, x.amax(1) if width else torch.full((rows_,), -INF))


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("fill", "a lane of x is used that the mask leaves undefined"),
        ("load", "read outside"),
        ("store", "a lane of m that does not exist is written"),
        ("half", "read outside"),
    ],
)
def test_machine_mode_faults_without(variant: str, message: str) -> None:
    """No fill where a reduction sees the lane; no mask; a mask that forgets an axis."""
    k = guarded_row_max(without=variant)
    x = torch.randn(13, 37)
    interpret(k, {"x": x[:12, :32], "y": torch.empty(12)}, {}, {"M": 12, "N": 32}, machine=True)
    with pytest.raises(Fault, match=message):
        interpret(k, {"x": x, "y": torch.empty(13)}, {}, {"M": 13, "N": 37}, machine=True)


def test_machine_writes_no_lane_past_a_span_even_inside_the_tensor() -> None:
    body = (ir.SpanAxis("n", ir.const(0), 5), store("y", full(f32(1.0), "n"), n))
    k = scheduled(kernel("span", (tensor("y", F32, "out", N),), (), *body, dims="N"), n=8)
    with pytest.raises(Fault, match="a lane of n that does not exist is written"):
        interpret(k, {"y": torch.zeros(9)}, {}, {"N": 9}, machine=True)
    masked = dataclasses.replace(body[1], mask=ir.binary("lt", n, ir.const(5)))
    y = torch.zeros(9)
    interpret(dataclasses.replace(k, body=(body[0], masked)), {"y": y}, {}, {"N": 9}, machine=True)
    assert y.tolist() == [1] * 5 + [0] * 4


def test_machine_argmax_of_nan_alone_ignores_padded_lanes() -> None:
    x = ir.Load(F32, ("n",), "x", (n,), None, ir.binary("lt", n, ir.const(5)), None)
    wrapped = where(ir.binary("lt", n, ir.const(5)), x, f32(-INF))
    k = kernel(
        "arg", (tensor("x", F32, "in", ir.const(5)), tensor("y", I64, "out", ir.const(1))), (),
        ir.SpanAxis("n", ir.const(0), 5), store("y", reduce("argmax", wrapped, "n", dtype=I64), ir.const(0)), dims="",
    )  # fmt: skip
    y = torch.full((1,), 99)
    interpret(scheduled(k, n=8), {"x": torch.full((5,), NAN), "y": y}, {}, {}, machine=True)
    assert y.tolist() == [0]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_undefined_from_the_first_undefined_lane_on(reverse: bool) -> None:
    """Padded lanes come last: a forward scan does not meet them, one from the end does."""
    mask = ir.binary("lt", n, ir.const(5))
    total = ir.Scan(F32, ("n",), ir.Load(F32, ("n",), "x", (n,), None, mask, None), "n", False, reverse)
    k = kernel(
        "scan", (tensor("x", F32, "in", ir.const(5)), tensor("y", F32, "out", ir.const(5))), (),
        ir.SpanAxis("n", ir.const(0), 5), ir.Store("y", (n,), total, ("n",), None, mask), dims="",
    )  # fmt: skip
    y = torch.zeros(5)
    if reverse:
        with pytest.raises(Fault, match="a lane of x is used that the mask leaves undefined"):
            interpret(scheduled(k, n=8), {"x": torch.ones(5), "y": y}, {}, {}, machine=True)
    else:
        interpret(scheduled(k, n=8), {"x": torch.ones(5), "y": y}, {}, {}, machine=True)
        assert y.tolist() == [1, 2, 3, 4, 5]


def product(limit: int) -> ir.Kernel:
    """y[m] = where(m < limit, m * 2**30, 0) in 32 bits, stored in 64"""
    i = index("m", dtype=I32)
    inside = ir.binary("lt", i, ir.Dim(I32, (), "M"))
    value = where(ir.binary("lt", i, ir.const(limit, I32)), ir.binary("mul", i, ir.const(2**30, I32)), ir.const(0, I32))
    out = ir.Store("y", (i,), cast(I64, value, "raw"), ("m",), None, inside)
    return scheduled(kernel("product", (tensor("y", I64, "out", M),), (rows(),), out, dims="M"), m=8)


def test_32_bits_must_suffice_on_the_lanes_that_are_used() -> None:
    y = torch.zeros(3, dtype=torch.int64)
    interpret(product(2), {"y": y}, {}, {"M": 3}, machine=True)
    assert y.tolist() == [0, 2**30, 0]
    # On a machine of 8 lanes those from 2 on overflow; with M = 2 none of them exists.
    interpret(product(100), {"y": y[:2]}, {}, {"M": 2}, machine=True)
    for machine in (False, True):
        with pytest.raises(Fault, match="does not fit i32"):
            interpret(product(100), {"y": y}, {}, {"M": 3}, machine=machine)


def test_a_mask_may_read_lanes_that_another_part_of_it_excludes() -> None:
    """`inside & (idx[m] < 4)`: idx is undefined outside, which does not matter there; without `inside` it does."""
    inside = ir.binary("lt", m, M)
    t = cast(I64, ir.Load(I32, ("m",), "idx", (m,), None, inside, None))
    live = ir.binary("lt", t, ir.const(4))
    for mask, faults in ((ir.binary("and", inside, live), False), (ir.binary("and", live, inside), False), (live, True)):
        x = ir.Load(F32, ("m",), "x", (t,), live, mask, f32(0.0))
        k = scheduled(
            kernel(
                "masked", (tensor("x", F32, "in", ir.const(4)), tensor("idx", I32, "in", M), tensor("y", F32, "out", M)), (rows(),),
                ir.Store("y", (m,), x, ("m",), None, inside), dims="M",
            ), m=8,
        )  # fmt: skip
        given = {"x": torch.arange(4.0) + 1, "idx": torch.tensor([3, 9, 0], dtype=torch.int32), "y": torch.empty(3)}
        if faults:
            with pytest.raises(Fault, match="a lane of idx is used that the mask leaves undefined"):
                interpret(k, given, {}, {"M": 3}, machine=True)
        else:
            interpret(k, given, {}, {"M": 3}, machine=True)
            assert given["y"].tolist() == [4.0, 0.0, 1.0]
