"""What the backends need on a machine: from a generated program to code that runs. Nothing here knows the language."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Files = Mapping[str, bytes]
"""A compiled program as files, ready for the cache: JSON, text and binaries; no pickle."""

Launch = Callable[[int, Sequence[Any]], None]
"""Run a loaded program: (number of programs in the grid, arguments in order: torch tensors and Python numbers)."""
