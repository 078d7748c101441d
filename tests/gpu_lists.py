"""The calls that are tried on a GPU: all of them, small ones for a sanitizer, tiny ones to try the scripts themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from gpu_cases import attention, fp8_index, matmul, mqa_logits, paged_mqa_logits, sparse_mla, sparse_mla_fp8, sparse_mqa_sink
from gpu_data import BF16, F16, F32, Case

HEADS = (1, 8, 16, 40, 64, 128)
TAILS = ((128, 128), (256, 256), (512, 512), (592, 128), (1840, 256), (1592, 384), (1521, 512), (95, 128), (153, 256), (114, 384))
CORNERS = ((1, 128, 128), (1234, 4321, 4096), (4096, 2048, 2048), (62, 32, 2048), (62, 64, 8192))
"""Tokens, rows, indices."""
FP8_SIZES = (
    (512, 64, 2),
    (512, 64, 64),
    (512, 64, 69),
    (1024, 576, 2),
    (1024, 576, 61),
    (2046, 2048, 2),
    (2046, 2048, 64),
    (2046, 2048, 576),
)


def cases() -> Iterator[Case]:
    """The most important first: each kernel once, then all heads, tails, options, the great sizes, layouts."""
    yield sparse_mla(64, 128, 592, 128)
    yield mqa_logits(130, 1111, 64)
    yield matmul(1000, 520, 392)
    yield attention(64, 77, 150, 8, 2, 128, True)
    yield sparse_mla(64, 16, 1521, 512, parts=8)
    yield sparse_mla_fp8(64, 1, 128, 512, 64, 64)
    yield fp8_index(64, 3, 700, 64)
    yield paged_mqa_logits(64, 1, 64, 1500)
    yield sparse_mqa_sink(1, 512, 8, 1024, 256, dtype=BF16)
    yield sparse_mqa_sink(64, 5, 64, 700, 100)
    # 64 rows each: their bits in batches.
    yield matmul(64, 520, 392)
    yield matmul(64, 300, 4096, F16)
    yield mqa_logits(64, 1111, 64)
    yield mqa_logits(64, 600, 8, clean=False)
    yield sparse_mla(64, 16, 592, 200, length=True, limit=True, sink=True, base2=True)
    yield sparse_mla(64, 40, 592, 200)
    yield sparse_mla(64, 128, 592, 200, length=True, sink=True, base2=True, parts=8)
    yield sparse_mla_fp8(64, 1, 16, 512, 64, 64, length=True, sink=True)
    yield fp8_index(64, 2, 300, 8)
    yield paged_mqa_logits(64, 2, 32, 500, clean=False)
    yield attention(64, 33, 70, 4, 1, 64, False)
    yield sparse_mqa_sink(64, 3, 8, 300, 130, dtype=BF16)
    for h in (64, 16, 1, 8, 40):
        yield sparse_mla(62, h, 1521, 512)
    for t, k in TAILS:
        yield sparse_mla(62, 128, t, k)
    yield sparse_mla(4096, 128, 8192, 2048, bad=0.0)
    yield mqa_logits(2048, 8192, 32, 64, clean=False, full=True)
    for h in (1, 8, 16, 40, 128):
        yield mqa_logits(61, 600, h)
        yield fp8_index(2, 33, 517, h)
        yield sparse_mla(5, h, 700, 300, parts=4)
        yield sparse_mla_fp8(4, 3, h, 1024, 61, 576)
        yield paged_mqa_logits(7, 1, h, 500)
        yield sparse_mqa_sink(2, 9, h, 300, 130, 512)
    for h in (1, 8, 16, 64):
        yield attention(2, 130, 130, h, 1, 64, True)
    for h in (16, 128):
        yield sparse_mla(62, h, 592, 200, length=True)
        yield sparse_mla(62, h, 592, 200, limit=True)
        yield sparse_mla(62, h, 592, 200, sink=True)
        yield sparse_mla(62, h, 592, 200, length=True, limit=True, sink=True, base2=True)
        yield sparse_mla(62, h, 592, 200, lse=False)
        yield sparse_mla(62, h, 592, 200, length=True, sink=True, base2=True, parts=8)
        yield sparse_mla_fp8(74, 1, h, 512, 64, 64, length=True, sink=True)
    for rows, k, page in FP8_SIZES:
        yield sparse_mla_fp8(4, 3, 128, rows, page, k)
    yield sparse_mla_fp8(74, 3, 64, 1024, 61, 576)
    yield sparse_mla_fp8(321, 1, 64, 2046, 64, 2048, length=True)
    yield sparse_mla_fp8(4, 1, 128, 512, 64, 64, bad=1.0)
    for s, t, k in CORNERS:
        yield sparse_mla(s, 128, t, k)
    for s, h in ((1, 64), (213, 64), (213, 128), (1, 8)):
        yield sparse_mla(s, h, 1840, 256)
    yield sparse_mla(70_000, 16, 300, 100)
    for s, t, k in ((0, 9, 7), (2, 0, 7), (2, 9, 0), (3, 5, 40)):
        yield sparse_mla(s, 16, t, k)
        yield sparse_mla(s, 16, t, k, parts=4)
    yield sparse_mla_fp8(2, 1, 16, 0, 64, 5)
    yield sparse_mla_fp8(0, 1, 16, 64, 64, 5)
    yield mqa_logits(300, 700, 64, clean=False)
    yield mqa_logits(70, 5001, 64)
    yield mqa_logits(70, 5001, 8, clean=False, hidden=False)
    yield mqa_logits(300, 700, 64, hidden=False)
    yield mqa_logits(5, 3, 64)
    yield mqa_logits(0, 5, 64)
    yield mqa_logits(3, 0, 64)
    yield paged_mqa_logits(7, 2, 64, 1000)
    yield paged_mqa_logits(7, 2, 32, 1000, clean=False)
    yield paged_mqa_logits(9, 2, 64, 300, page=1)
    yield paged_mqa_logits(0, 1, 64, 100)
    yield fp8_index(16, 1, 5000, 64)
    yield fp8_index(1, 0, 64, 64)
    yield matmul(1, 1, 1)
    yield matmul(333, 257, 100, F16)
    yield matmul(130, 70, 90, F32)
    yield matmul(4, 5, 0)
    yield matmul(0, 5, 3)
    yield matmul(4096, 4096, 4096)
    yield attention(1, 300, 77, 6, 2, 128, False)
    yield attention(1, 200, 333, 4, 4, 128, True, F16)
    yield attention(1, 90, 50, 4, 1, 64, True)
    yield attention(1, 3, 0, 2, 1, 64, False)
    yield attention(1, 0, 4, 2, 1, 64, True)
    yield attention(4, 4096, 4096, 16, 16, 128, True)
    for layout in ("apart", "odd"):
        for case in (
            sparse_mla(62, 128, 592, 200), sparse_mla(62, 16, 592, 200), sparse_mla(5, 16, 700, 300, parts=4), mqa_logits(61, 600, 64),
            fp8_index(2, 33, 517, 64), attention(2, 77, 150, 8, 2, 128, True), matmul(300, 520, 392), sparse_mqa_sink(2, 9, 64, 300, 130),
            sparse_mla_fp8(4, 3, 64, 1024, 61, 576), paged_mqa_logits(7, 1, 64, 500),
        ):  # fmt: skip
            yield replace(case, layout=layout)
    yield mqa_logits(4096, 8192, 64, clean=False, full=True)
    yield mqa_logits(8192, 65536, 64, hidden=False)
    yield paged_mqa_logits(256, 1, 64, 8192)
    yield paged_mqa_logits(256, 2, 32, 8192)
    yield sparse_mqa_sink(1, 4096, 128, 8192, 1024, 512)
    yield sparse_mla_fp8(128, 2, 128, 32768, 64, 2048)


def small() -> Iterator[Case]:
    """For a sanitizer: every kernel with tails, and once without, few tokens; the variants are those of ``cases``."""
    yield sparse_mla(3, 16, 95, 70)
    yield mqa_logits(9, 70, 64)
    yield sparse_mla_fp8(2, 1, 16, 90, 61, 70)
    yield sparse_mla(3, 16, 95, 70, parts=8)
    yield paged_mqa_logits(3, 1, 64, 150)
    yield sparse_mqa_sink(1, 3, 8, 70, 66, dtype=BF16)
    yield attention(1, 70, 45, 4, 2, 128, True)
    yield fp8_index(2, 3, 37, 64)
    yield matmul(33, 17, 70)
    yield sparse_mla(2, 40, 114, 128)
    yield sparse_mla(2, 128, 64, 192, bad=0.0)
    yield sparse_mla(6, 16, 95, 70, length=True, limit=True, sink=True, base2=True)
    yield sparse_mla(6, 40, 95, 70, length=True, sink=True, base2=True, parts=8)
    yield sparse_mla_fp8(2, 1, 128, 90, 61, 70, length=True, sink=True)
    yield mqa_logits(66, 256, 64, clean=False)
    yield mqa_logits(5, 3, 8)
    yield fp8_index(2, 3, 130, 8)
    yield paged_mqa_logits(3, 2, 64, 150)
    yield sparse_mqa_sink(2, 3, 40, 70, 66, 512)
    yield attention(1, 128, 128, 4, 4, 128, False)
    yield matmul(128, 256, 192)
    yield matmul(33, 17, 70, F32)
    yield sparse_mla(2, 16, 0, 7)
    for case in (sparse_mla(3, 16, 95, 70), mqa_logits(9, 70, 64), attention(1, 70, 45, 4, 2, 128, True), matmul(33, 17, 70)):
        yield replace(case, layout="odd")


def tiny() -> Iterator[Case]:
    """The same in sizes for an interpreter, to try the script itself."""
    yield sparse_mla(64, 8, 40, 37, d=32, r=16)
    yield sparse_mla(6, 4, 40, 24, d=32, r=16, length=True, limit=True, sink=True, base2=True)
    yield sparse_mla(3, 8, 70, 50, d=32, r=16, parts=3)
    yield sparse_mla_fp8(3, 2, 4, 20, 7, 15, parts=2, length=True, sink=True)
    yield sparse_mqa_sink(2, 2, 9, 40, 37, 32)
    yield mqa_logits(9, 45, 8, 32)
    yield mqa_logits(64, 45, 8, 32, clean=False)
    yield fp8_index(2, 3, 37, 12, 32)
    yield paged_mqa_logits(5, 2, 4, 140, d=32)
    yield attention(2, 17, 33, 6, 2, 32, True)
    yield matmul(65, 17, 70)
    yield matmul(64, 17, 70)
    yield replace(sparse_mla(3, 9, 40, 37, d=32, r=16), layout="apart")
    yield replace(matmul(33, 17, 70), layout="odd")


LISTS: dict[str, Callable[[], Iterator[Case]]] = {"all": cases, "small": small, "tiny": tiny}
