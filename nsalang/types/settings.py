"""What makes a variant of a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nsalang.base.target import Target
from nsalang.types.signature import (  # fmt: skip
    Setting,
)

DEFAULT = Target("cuda", "sm_90")


@dataclass(frozen=True, slots=True)
class Settings:
    """What makes a variant: the target (it decides what e4m3 is), values of const and dtype parameters (missing ones take their defaults),
    of the dimensions that span lengths need, the optional parameters that are present, and plain names captured from Python."""

    target: Target = DEFAULT
    constants: Mapping[str, Setting] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    captured: Mapping[str, object] = field(default_factory=dict)
