"""What code is made for: a device family and its architecture, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nsalang.base.dtypes import E4M3, E4M3_FNUZ, DType
from nsalang.base.source import NsaError


@dataclass(frozen=True, slots=True)
class Facts:
    """What a target is like. ``shared_memory``: bytes that one block can have; ``warp``: threads that run in step; ``registers``: of 32 bits,
    that one thread can have; ``e4m3``: the format of that name; ``fp8``: whether conversions to and from fp8 are instructions (where not, they are
    done in software); ``clamps_fp8``: a value beyond the greatest must be clamped before they convert it; ``short_fp8``: contractions of fp8 add up with few bits;
    ``tf32``: whether operands of a contraction can be rounded to tf32; ``asynchronous``: whether blocks are copied to shared memory while others
    are used; ``from_shared``: whether contractions read operands from shared memory (wgmma, tcgen05); ``tensor_memory``: whether they have a
    memory of their own for results (tcgen05)."""

    shared_memory: int
    warp: int = 32
    registers: int = 255
    e4m3: DType = E4M3
    fp8: bool = True
    clamps_fp8: bool = False
    short_fp8: bool = False
    tf32: bool = True
    asynchronous: bool = True
    from_shared: bool = False
    tensor_memory: bool = False


KIB = 1024
_HIP = Facts(64 * KIB, warp=64, registers=512, clamps_fp8=True, tf32=False, asynchronous=False)
FACTS: Mapping[str, Facts] = {
    "cuda:sm_80": Facts(163 * KIB, fp8=False),
    "cuda:sm_86": Facts(99 * KIB, fp8=False),
    "cuda:sm_89": Facts(99 * KIB),
    "cuda:sm_90": Facts(227 * KIB, short_fp8=True, from_shared=True),
    "cuda:sm_100": Facts(227 * KIB, from_shared=True, tensor_memory=True),
    "cuda:sm_120": Facts(99 * KIB),
    "hip:gfx942": replace(_HIP, e4m3=E4M3_FNUZ, tf32=True),
    "hip:gfx950": replace(_HIP, shared_memory=160 * KIB),
    "cpu": Facts(64 * KIB, clamps_fp8=True),
}
"""The targets that code is made for, one row each."""
KNOWN = tuple(FACTS)
_OTHERS: Mapping[str, Facts] = {"cuda": Facts(48 * KIB, fp8=False), "hip": _HIP}
"""Devices that no code is made for, which a caller's tensors can be on."""

WARP_ROWS, WARP_COLUMNS = 16, 8
"""The least part of a contraction's result that a warp makes."""


@dataclass(frozen=True, slots=True)
class Target:
    """``kind`` is cuda, hip or cpu; ``arch`` is sm_90, gfx942, … or empty."""

    kind: str
    arch: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.arch}" if self.arch else self.kind

    @property
    def capability(self) -> int:
        """90 for sm_90; 0 where the target is no CUDA device."""
        return int(self.arch.removeprefix("sm_")) if self.kind == "cuda" else 0

    @property
    def facts(self) -> Facts:
        """The target's row."""
        return FACTS.get(str(self)) or _OTHERS[self.kind]

    @property
    def warp_tile(self) -> tuple[int, int]:
        """Rows and columns that a warp makes at least of a matrix product in TileLang: an MMA of CUDA's makes 8 columns, an MFMA 16."""
        return (WARP_ROWS, 16 if self.kind == "hip" else WARP_COLUMNS)


def parse_target(text: str) -> Target:
    """``cuda:sm_90``, ``hip:gfx942`` or ``cpu``. Raises NSA0601 for anything else."""
    if text == "cpu":
        return Target("cpu")
    if text in KNOWN:
        return Target(*text.split(":"))
    raise NsaError.at("NSA0601", f"unknown target '{text}'", help="known targets: " + ", ".join(KNOWN))
