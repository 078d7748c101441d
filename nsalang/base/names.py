"""The names that stand in a kernel's text: functions, dtypes, the words of parameters."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from nsalang.base.dtypes import ALL
from nsalang.base.placeholders import Placeholder, Role

Function: TypeAlias = Literal[
    "abs", "exp", "exp2", "log", "log2", "sqrt", "rsqrt", "sigmoid", "tanh", "pow2_ceil", "ceil_log2", "floor", "ceil", "trunc", "round", "erf",
]  # fmt: skip
"""Functions of one value: what each means is its row in nsalang.ir.operations."""

Reduction: TypeAlias = Literal["sum", "prod", "max", "min", "absmax", "any", "all", "argmax", "argmin"]
"""Reductions over axes: what each means is its row there, too."""

# Word for word the other functions and forms that nsalang.types knows; a test compares.
_FUNCTIONS = (
    "atomic_add bitcast cdiv clamp cumsum distinct dot empty fma full grid histogram maximum "
    "minimum pack partial promise range rank rename require scatter searchsorted sorted span split take tile view "
    "where wrap zeros "
).split()

_WORDS = ("const", "dtype")

NAMES: dict[str, object] = {
    **ALL,
    **{name: Placeholder(name) for name in (*get_args(Function), *get_args(Reduction), *_FUNCTIONS, *_WORDS)},
    "Out": Role("Out"),
    "InOut": Role("InOut"),
    "inf": float("inf"),
}
