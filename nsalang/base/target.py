"""What code is made for: a device family and its architecture, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from nsalang.base.dtypes import E4M3, E4M3_FNUZ, DType
from nsalang.base.source import NsaError

KNOWN = ("cuda:sm_80", "cuda:sm_86", "cuda:sm_89", "cuda:sm_90", "cuda:sm_100", "cuda:sm_120", "hip:gfx942", "hip:gfx950", "cpu")


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
    def e4m3(self) -> DType:
        """The format that ``e4m3`` means here: fnuz on gfx942, which has no other."""
        return E4M3_FNUZ if self.arch == "gfx942" else E4M3

    @property
    def has_fp8(self) -> bool:
        """Whether conversions to and from fp8 are instructions. Where not, they are done in software."""
        return self.kind != "cuda" or self.capability >= 89

    @property
    def warp(self) -> int:
        """Threads that run in step: 64 on HIP, else 32."""
        return 64 if self.kind == "hip" else 32

    @property
    def warp_tile(self) -> tuple[int, int]:
        """Rows and columns that a warp makes at least of a matrix product in TileLang: an MMA of CUDA's makes 8 columns, an MFMA 16."""
        return (16, 16) if self.kind == "hip" else (16, 8)

    @property
    def registers(self) -> int:
        """Registers of 32 bits that one thread can have."""
        return 512 if self.kind == "hip" else 255

    @property
    def shared_memory(self) -> int:
        """Bytes of shared memory that one block can have."""
        if self.kind == "cuda":
            return {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}.get(self.capability, 48) * 1024
        return 160 * 1024 if self.arch == "gfx950" else 64 * 1024


def parse_target(text: str) -> Target:
    """``cuda:sm_90``, ``hip:gfx942`` or ``cpu``. Raises NSA0601 for anything else."""
    if text == "cpu":
        return Target("cpu")
    if text in KNOWN:
        return Target(*text.split(":"))
    raise NsaError.at("NSA0601", f"unknown target '{text}'", help="known targets: " + ", ".join(KNOWN))
