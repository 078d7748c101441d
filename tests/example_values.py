"""What a variant of each example needs beside its defaults, as ``Kernel.compile`` takes it: for the tests that go over all examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nsalang.base.dtypes import BF16, F32

VALUES: Mapping[str, Mapping[str, Any]] = {
    "attention": {"T": BF16, "D": 128},
    "combine": {"D": 512},
    "fp8_index": {"H": 64, "D": 128},
    "matmul": {"T": BF16},
    "mqa_logits": {"H": 64, "D": 128},
    "paged_mqa_logits": {"X": 1, "H": 64, "D": 128},
    "sparse_mqa_sink": {"A": F32, "D": 512},
}


def values(name: str) -> dict[str, Any]:
    return dict(VALUES.get(name, {}))
