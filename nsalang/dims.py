"""Dimensions for decorated functions: ``from nsalang.dims import M, N`` gives any name.

Type checkers read dims.pyi, where every name is ``Any``.
"""

from __future__ import annotations

from nsalang.base.placeholders import Dimension


def __getattr__(name: str) -> Dimension:
    if name.startswith("__"):
        raise AttributeError(name)
    return Dimension(name)
