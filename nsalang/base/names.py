"""The names that stand in a kernel's text: functions, dtypes, the words of parameters."""

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
