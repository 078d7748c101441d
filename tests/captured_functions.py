"""Functions that test_capture.py reads the text of; the lines and columns in that test are those of this file."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any

import nsalang.language as language
from nsalang.dims import G, M, N
from nsalang.language import InOut, Out, bf16, const, f32, grid, tile

EPS, COUNT, FLAG, NOTHING, TEXT, DTYPE = 1e-6, 3, True, None, "text", bf16
NOT_PLAIN = [1, 2]


class Level(enum.IntEnum):
    HIGH = 7


HIGH = Level.HIGH


def keep(*_: object, **__: object) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda function: function


@keep(
    lambda d: d,
    {"def": 1},
)
# below
# def not_this(x):
@keep()
def decorated(
    x: f32[M, N // G],
    y: Out[f32[M]] | None,
    z: InOut[bf16[2 * M + 1, -N % 3]],
    s: f32 | None = None,
    T: language.dtype = f32,
    G: const = 128,
) -> None:
    """Its docstring."""
    for m in grid(tile(M)):
        y[m] = EPS + COUNT + FLAG + NOTHING + TEXT + DTYPE + NOT_PLAIN + HIGH + math.pi


def make(length: int, other: int) -> Callable[..., Any]:
    scale = 2.5

    class Inside:
        @staticmethod
        def nested(x: f32[M, other], y: Out[f32[M]]) -> None:
            for m in grid(tile(M)):
                y[m] = scale * length + later  # noqa: F821 (deleted below, on purpose)

        found = nested

    result = Inside.found
    later = 3
    del later
    return result


def unbalanced(x: f32[M], y: Out[f32[M]]) -> None:
    for m in grid(tile(M)):
        y[m] = [x[m]]
