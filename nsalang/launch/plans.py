"""The plans that a kernel or a program keeps, each for all calls of the same shapes, strides, alignments, numbers and options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from nsalang.host.memory import ALIGNMENT
from nsalang.launch.options import Options

MOST = 4096
"""Plans kept for each kernel: calls with other shapes or scalars make others, and a server must not grow without bound."""

P = TypeVar("P")


class Plans(Generic[P]):
    """Plans by what they depend on. ``find`` needs no lock; ``keep`` is for one thread after the other."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[object, P] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        self._kept.clear()

    def find(self, values: Sequence[Any], options: Options, checked: bool) -> tuple[object, P | None]:
        """The key of a call, None where a value cannot be part of one, and the plan that is kept under it.

        The key has all of a number, and of a tensor everything but its contents and where exactly it lies.
        """
        import torch

        tensor, parameter = torch.Tensor, torch.nn.Parameter
        plain = torch._C._disabled_torch_dispatch_impl
        parts: list[object] = [options, checked]
        try:
            for value in values:
                kind = type(value)
                if kind is tensor or kind is parameter or isinstance(value, tensor):
                    if kind is not tensor and kind.__torch_dispatch__ is not plain:
                        return None, None
                    address = value.data_ptr()
                    if not address and value.numel():
                        return None, None
                    parts.append((value.shape, value.stride(), value.dtype, value.device, address % ALIGNMENT, value.is_neg()))
                elif kind is float:
                    parts.append((value if value == value else "nan", math.copysign(1.0, value)))
                else:
                    parts.append((kind, repr(value) if kind.__module__ == "numpy" else value))  # of numpy, -0.0 and 0.0 are one value
            key = tuple(parts)
            return key, self._kept.get(key)
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            # Something that has no strides, no address or no hash: making the plan says what is wrong with it.
            return None, None

    def keep(self, key: object, plan: P) -> None:
        """Keep a plan under a key of ``find``, unless that is None. Forgets all others where they are too many."""
        if key is None:
            return
        if len(self._kept) >= MOST:
            self._kept.clear()
        self._kept[key] = plan
