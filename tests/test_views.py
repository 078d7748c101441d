"""Where views lie in memory: offsets and strides against a byte-by-byte model, and what is refused."""

from __future__ import annotations

import itertools
import random

import pytest

import nsalang
from nsalang import ir
from nsalang.base.dtypes import F32, I64
from nsalang.host.memory import Layout, contiguous, view_layout

VIEW = ir.View("v", F32, (ir.Dim(I64, (), "N"),), "cache", ir.const(0), (ir.const(4),), "in")


def address(base: Layout, byte: int) -> int:
    """Where a byte of a tensor, counted in row-major order of its elements, lies."""
    element, within = divmod(byte, base.itemsize)
    place = within
    for extent, stride in zip(reversed(base.shape), reversed(base.strides), strict=True):
        element, at = divmod(element, extent)
        place += at * stride * base.itemsize
    return place


def model(base: Layout, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, itemsize: int) -> tuple[int, tuple[int, ...]] | None:
    """The same by trying every byte: None where no offset and strides give every element's bytes in one piece."""
    size = itemsize * base.itemsize
    for extent in base.shape:
        size *= extent
    size //= itemsize
    first = None
    steps = [0] * len(shape)
    for at in itertools.product(*map(range, shape)):
        byte = offset + sum(a * s for a, s in zip(at, strides, strict=True))
        if byte < 0 or byte + itemsize > size:
            return None
        where = address(base, byte)
        if any(address(base, byte + k) != where + k for k in range(itemsize)):
            return None
        if first is None:
            first = where
        elif sum(at) == 1:
            steps[at.index(1)] = where - first
        if where != first + sum(a * s for a, s in zip(at, steps, strict=True)):
            return None
    if first is None:
        return 0, tuple(steps)
    if (base.address + first) % itemsize or any(s % itemsize or s < 0 for s in steps):
        return None
    return first, tuple(s // itemsize for s in steps)


def test_offsets_and_strides_are_those_of_the_bytes() -> None:
    numbers = random.Random(7)
    allowed = refused = 0
    for _ in range(6000):
        item = numbers.choice((1, 1, 1, 2, 4))
        shape = tuple(numbers.choice((1, 2, 3, 4, 6, 8)) for _ in range(numbers.randint(1, 3)))
        strides = list(contiguous(shape))
        for i in range(len(shape)):
            if numbers.random() < 0.4:  # rows apart
                strides[: i + 1] = [s + numbers.choice((1, 4, 8)) for s in strides[: i + 1]]
        if numbers.random() < 0.2:
            numbers.shuffle(strides)
        base = Layout(shape, tuple(strides), item, numbers.choice((0, 0, 4, 2)))
        itemsize = numbers.choice((1, 2, 4))
        extents = tuple(numbers.choice((0, 1, 2, 3, 5)) for _ in range(numbers.randint(0, 3)))
        steps = tuple(numbers.choice((0, 1, 2, 3, 4, 8, 12, 16, 24, 32, -4)) for _ in extents)
        offset = numbers.choice((0, 0, 1, 2, 3, 4, 8, 16))
        wanted = model(base, extents, steps, offset, itemsize)
        try:
            found = view_layout(VIEW, base, extents, steps, offset, itemsize)
        except nsalang.NsaError as error:
            assert error.diagnostics[0].code == "NSA0521"
            # Refused although it could be: two steps over gaps that happen to cancel out. Never with rows that are simply apart.
            assert wanted is None or sorted(strides, reverse=True) != strides, (base, extents, steps, offset, itemsize, wanted)
            refused += 1
            continue
        assert wanted == found or 0 in extents, (base, extents, steps, offset, itemsize)
        allowed += 1
    assert allowed > 1000 and refused > 1000


def layout(shape: tuple[int, ...], strides: tuple[int, ...] | None = None, address: int = 0) -> Layout:
    return Layout(shape, strides or contiguous(shape), 1, address)


def test_a_page_with_its_scales_behind() -> None:
    # 16 tokens of 128 bytes, then 16 scales; pages are 64 bytes apart.
    pages = layout((5, 16 * 132), (16 * 132 + 64, 1))
    assert view_layout(VIEW, pages, (5, 16, 128), (16 * 132, 128, 1), 0, 1) == (0, (2176, 128, 1))
    assert view_layout(VIEW, pages, (5, 16), (16 * 132, 4), 16 * 128, 4) == (2048, (544, 1))
    assert view_layout(VIEW, pages, (1, 16), (7, 4), 16 * 128, 4) == (2048, (0, 1)), "the stride of one element does not matter"
    assert view_layout(VIEW, layout((0, 4)), (0, 3), (8, 4), 0, 4) == (0, (0, 0))


@pytest.mark.parametrize(
    ("base", "shape", "strides", "offset", "words"),
    [
        (layout((4, 128)), (4, 33), (128, 4), 0, "reaches over bytes 0 to 516 of 'cache', which has 512"),
        (layout((4, 128), (130, 1)), (128,), (4,), 0, "rows run across gaps"),
        (layout((4, 128), (130, 1)), (4,), (128,), 0, "rows 130 bytes apart"),
        (layout((4, 128)), (4,), (128,), 2, "an address that its elements of 4 bytes do not divide"),
        (layout((4, 128), None, 2), (4,), (128,), 0, "an address that its elements of 4 bytes do not divide"),
        (layout((4, 128)), (4,), (-128,), 384, "negative strides"),
        (layout((4, 128), (1, 4)), (4,), (4,), 0, "rows run across gaps"),
        (layout((0, 128)), (1,), (4,), 0, "which has 0"),
    ],
)
def test_what_is_refused(base: Layout, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, words: str) -> None:
    with pytest.raises(nsalang.NsaError) as caught:
        view_layout(VIEW, base, shape, strides, offset, 4)
    (found,) = caught.value.diagnostics
    assert found.code == "NSA0521" and words in found.sentence
