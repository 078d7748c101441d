"""The names that stand in a kernel's text, for import by a Python file with decorated functions.

``from nsalang.language import Out, bf16, const, e4m3, f32, grid, span, tile``. Dtypes
are :class:`nsalang.base.dtypes.DType`; ``f32[M, N]``, ``Out[…]`` and ``… | None`` may be evaluated; everything else raises NSA0121 where
Python computes with it. Type checkers read language.pyi, where every name is ``Any``.
"""

from __future__ import annotations

from nsalang.base.dtypes import ALL
from nsalang.base.placeholders import Placeholder, Role

# Word for word the functions and forms that nsalang.types knows; a test compares.
_FUNCTIONS = (
    "abs absmax all any argmax argmin atomic_add bitcast cdiv ceil ceil_log2 clamp cumsum distinct dot empty exp "
    "exp2 floor fma full grid histogram log log2 max maximum min minimum pack partial pow2_ceil promise range rank "
    "rename require round rsqrt scatter searchsorted sigmoid sorted span split sqrt sum take tanh tile trunc view "
    "where wrap zeros "
).split()
_WORDS = ("const", "dtype")

NAMES: dict[str, object] = {
    **ALL,
    **{name: Placeholder(name) for name in (*_FUNCTIONS, *_WORDS)},
    "Out": Role("Out"),
    "InOut": Role("InOut"),
    "inf": float("inf"),
}


__all__ = list(NAMES)


def __getattr__(name: str) -> object:
    try:
        return NAMES[name]
    except KeyError:
        import difflib

        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise AttributeError(f"the language has no `{name}`{hint}") from None


def __dir__() -> list[str]:
    return sorted(NAMES)
