"""What holds of operations, one place for all that must know it."""

from __future__ import annotations

from nsalang.base.dtypes import F32, I32, I64, U32

ADDABLE = (F32, I32, I64, U32)
"""Element types that every target adds to atomically."""
