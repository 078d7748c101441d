"""Names that other libraries have for what the language says otherwise: the help for one that is unknown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from nsalang.base.dtypes import ALL, E2M1

DTYPES: Mapping[str, str] = {
    **{name: d.name for d in ALL.values() if d is not E2M1 for name in (d.torch, d.triton.removeprefix("tl.")) if name != d.name},
    "uint8": "u8", "half": "f16", "fp16": "f16", "fp32": "f32", "float": "f32", "int": "i32", "long": "i64", "fp8": "e4m3",
    "fp8_e4m3": "e4m3", "fp8_e5m2": "e5m2", "float8_e4m3": "e4m3", "float8_e4m3fnuz": "e4m3",
}  # fmt: skip
"""What torch, Triton and others call a dtype -> its name here."""

OTHERWISE: Mapping[str, str] = {
    "print": "a kernel prints nothing: write the value to an Out",
    "len": "an extent has a name: the M of f32[M]",
    "arange": "an index variable is a value: n = span(start, length)",
    "program_id": "an index variable of the grid is the instance's place: for m in grid(M)",
    "load": "a read is x[m, n]",
    "store": "a write is y[m, n] = v",
    "matmul": "a contraction is dot(a, b, axis=k)",
    "einsum": "a contraction is dot(a, b, axis=k)",
    "zeros_like": "zeros(m, n) has the axes m and n",
    "empty_like": "zeros(m, n) has the axes m and n",
    "ones": "full(m, n, 1.0) has the axes m and n",
    "amax": "max(x, axis=n)",
    "amin": "min(x, axis=n)",
    "mean": "sum(x, axis=n) / N, where N is the extent",
    "pow": "a product, such as x * x; exp2(x)",
    "square": "x * x",
    "relu": "maximum(x, 0)",
    "silu": "x * sigmoid(x)",
    "isnan": "x != x",
    "cast": "a conversion is f32(x)",
    "to": "a conversion is f32(x)",
    "type": "a conversion is f32(x)",
    "view_as": "bitcast(x, dtype) keeps the bits",
    "permute": "axes have names: x[n, m] reads a transposed tensor",
    "transpose": "axes have names: x[n, m] reads a transposed tensor",
    "T": "axes have names: x[n, m] reads a transposed tensor",
    "reshape": "axes have names: an index is any expression, such as x[g * G + n]",
    "unsqueeze": "values broadcast by the names of their axes",
    "expand": "values broadcast by the names of their axes",
    "cumprod": "there is no running product: a 'for i in range(…)' carries one",
    "lower_bound": "searchsorted(cu, x)",
}
"""Functions, methods and attributes of Python, torch, numpy and Triton -> what the language says instead."""


def help_for(kind: str, name: str, candidates: Iterable[str] = ()) -> str | None:
    """What to write in place of an unknown name, function, …: what the language has for it, or the nearest of the ``candidates``."""
    if kind == "function" and name in OTHERWISE:
        return OTHERWISE[name]
    if kind in ("function", "dtype") and name in DTYPES:
        return f"did you mean '{DTYPES[name]}'?"
    near = difflib.get_close_matches(name, [c for c in candidates if c != name], 1, 0.67)
    return f"did you mean '{near[0]}'?" if near else None
