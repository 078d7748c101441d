"""Accesses of one memory that different threads may make for one element have a barrier between them, on both backends."""

import dataclasses

import pytest
from machine_kernels import (
    c,
    finished,
    idx,
    m,
    op,
    two_views,
)

import nsalang
from nsalang import ir
from nsalang.base.target import parse_target
from nsalang.ir.meetings import unordered
from nsalang.ir.printer import print_kernel
from nsalang.ir.verify import barriers_order_accesses, no_barriers
from nsalang.lowering.header import shared_memory


def test_stores_to_one_memory_are_in_order() -> None:
    for first, second, mode, barriers in (("low", "high", "set", 1), ("low", "low", "scatter", 1), ("low", "high", "add", 0)):
        k = two_views(first, second, mode)
        assert len(unordered(k)) == barriers
        ordered = finished(k, parse_target("cpu"))
        barriers_order_accesses(ordered)
        assert print_kernel(ordered).count("    barrier\n") == barriers
        if barriers:
            with pytest.raises(AssertionError, match="no barrier orders the accesses of .*Store"):
                barriers_order_accesses(k)
            with pytest.raises(AssertionError, match="a barrier before there are threads"):
                no_barriers(ordered)
        assert shared_memory(k) == (("low", "high") if first != second else ())
    store = two_views("low", "high", "scatter").body[0]
    assert isinstance(store, ir.Store)
    # m + turn is one element for many lanes, each in a turn of its own; 3 * m + turn is another in each turn
    near, apart = (op("add", op("mul", c(factor), m), idx("turn", scalar=True)) for factor in (1, 3))
    for index, mode, barriers in ((near, "set", 1), (apart, "set", 0), (near, "scatter", 1), (apart, "scatter", 1), (near, "add", 0)):
        turned = dataclasses.replace(store, mode=mode, indices=(index,))  # type: ignore[arg-type]
        k = dataclasses.replace(two_views("low", "high"), body=(ir.For("turn", "range", c(0), c(3), (turned,)),))
        assert len(unordered(k)) == barriers, (index, mode)


@pytest.mark.parametrize(
    ("place", "loops", "barriers"),
    [
        ("i, s", ("for i in range(R):",), 0),
        ("i + s, 0", ("for i in range(R):",), 1),
        ("i * 24 + s, 0", ("for i in range(R):",), 0),
        ("i * 23 + s, 0", ("for i in range(R):",), 1),
        ("s - 24 * i, 0", ("for i in range(R):",), 0),
        ("i // 2, s", ("for i in range(R):",), 1),
        ("s, 0", ("for i in range(R):",), 1),
        ("0, n", ("for n in tile(R):",), 0),
        ("n, n + i", ("for i in range(R):", "for n in tile(B):"), 0),
        ("n + i, 0", ("for i in range(R):", "for n in tile(B):"), 1),
        ("n * 3 + i, 0", ("for i in range(3):", "for n in tile(B):"), 0),
        ("n * 3 + i, 0", ("for i in range(4):", "for n in tile(B):"), 1),
        ("idx[i], s", ("for i in range(R):",), 1),
    ],
)
def test_turns_that_write_one_element_are_in_order(place: str, loops: tuple[str, ...], barriers: int) -> None:
    first, second = place.split(", ")
    lines = ["for b in grid(1):", *loops, f"if (0 <= {first}) & ({first} < A) & ({second} < B):", f"y[{place}] = 1.0"]
    head = "def k(idx: i32[R], y: Out[f32[A, B]], A: i32, B: i32, R: i32):\n    partial(y)\n    s = span(24)\n"
    module = nsalang.load_text(head + "".join("    " * (depth + 1) + line + "\n" for depth, line in enumerate(lines)))
    for backend, barrier in (("triton", "tl.debug_barrier()"), ("tilelang", "T.sync_threads()")):
        assert module.k.compile(target="cuda:sm_90", backend=backend).source.count(barrier) == barriers, backend
