"""What the last passes decide for threads stands in the IR: it is printed, and what is missing or does not fit is a fault at its stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from machine_kernels import c, finished, kernel, let, load, op, store, tensor, var

import nsalang
from nsalang import ir
from nsalang.base.dtypes import BF16, I32
from nsalang.base.target import parse_target
from nsalang.ir.printer import print_kernel
from nsalang.ir.verify import products_have_warps, verify, what_is_ahead_is_early

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def matmul() -> ir.Kernel:
    return nsalang.load(str(EXAMPLES / "matmul.nsa")).matmul.compile(target="cuda:sm_90", backend="tilelang", T=BF16).kernel


def change(kernel: ir.Kernel, rule: Callable[[ir.For], ir.For]) -> ir.Kernel:
    return ir.rewrite(kernel, lambda n: rule(n) if isinstance(n, ir.For) and n.ahead else n)


def test_what_is_read_ahead_is_printed_before_the_body(matmul: ir.Kernel) -> None:
    verify(matmul, "fetch")
    lines = [line.strip() for line in print_kernel(matmul).splitlines()]
    at = next(i for i, line in enumerate(lines) if line.startswith("for ") and "ahead" in line)
    loop = next(n for s in matmul.body for n in ir.walk(s) if isinstance(n, ir.For) and n.ahead)
    assert lines[at + 1] == "early:"
    assert [line.split(":")[0] for line in lines[at + 2 : at + 2 + len(loop.ahead)]] == [*loop.ahead]


def test_what_is_early_is_checked(matmul: ir.Kernel) -> None:
    for message, rule in (
        ("are read ahead in the loop over", lambda n: dataclasses.replace(n, early=n.early[1:])),
        ("are early, and are assigned in the body", lambda n: dataclasses.replace(n, body=(*n.early, *n.body))),
    ):
        with pytest.raises(AssertionError, match=message):
            what_is_ahead_is_early(change(matmul, rule))
    with pytest.raises(AssertionError, match="something early before there are addresses"):
        verify(matmul, "warps")


def test_lanes_that_part_are_alone_in_a_vector() -> None:
    """A gather's lanes go ways of their own; a copy's do not."""
    text = "def k(x: i32[N], at: i32[N], y: Out[i32[N]], z: Out[i32[N]]):\n    for n in grid(tile(N)):\n        y[n] = where((at[n] >= 0) & (at[n] < N), x[at[n]], 0)\n        z[n] = x[n]\n"
    kernel = nsalang.load_text(text).k.compile(target="cuda:sm_90", backend="tilelang").kernel
    alone = {n.tensor: n.alone for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Store)}
    gathers = [
        n.alone
        for s in kernel.body
        for n in ir.walk(s)
        if isinstance(n, ir.Assign) and isinstance(n.value, ir.Load) and n.value.tensor == "x"
    ]
    assert ("n",) in gathers and "# alone n" in print_kernel(kernel)
    assert alone["z"] == () and alone["y"] == ("n",)
    with pytest.raises(AssertionError, match="lanes before there are threads"):
        verify(kernel, "around")
    wrong = ir.rewrite(kernel, lambda n: dataclasses.replace(n, alone=("q",)) if isinstance(n, ir.Store) else n)
    with pytest.raises(AssertionError, match="lanes of .*q.* are alone, and there are none"):
        verify(wrong, "lanes")


def test_products_say_how_warps_share_them(matmul: ir.Kernel) -> None:
    assert "warps=rows" in print_kernel(matmul) or "warps=columns" in print_kernel(matmul)
    assert matmul.schedule.backend == "tilelang"
    with pytest.raises(AssertionError, match="warps of a product before its operands have names"):
        verify(matmul, "turns")
    bare = ir.rewrite(matmul, lambda n: dataclasses.replace(n, warps=None) if isinstance(n, ir.Dot) else n)
    with pytest.raises(AssertionError, match="warps None of"):
        products_have_warps(bare)


@pytest.mark.parametrize(("lo", "long"), [(var("lo", I32), True), (c(0), False)])
def test_a_loop_that_may_end_far_below_its_beginning_is_long(lo: ir.Expr, long: bool) -> None:
    loop = ir.For("i", "range", lo, var("hi", I32), (let("n", op("add", var("n", I32), c(1))),), ("n",))
    first, last = let("lo", load("x", I32, c(0))), let("hi", load("x", I32, c(1)))
    k = kernel(
        [tensor("x", I32, "in", c(2)), tensor("z", I32, "out", c(1))],
        [], first, last, let("n", c(0)), loop, store("z", var("n", I32), c(0)), dims="",
    )  # fmt: skip
    k = finished(dataclasses.replace(k, schedule=dataclasses.replace(k.schedule, backend="tilelang")), parse_target("cuda:sm_90"))
    (made,) = (n for s in k.body for n in ir.walk(s) if isinstance(n, ir.For))
    assert made.long == long and ("; long" in print_kernel(k)) == long
