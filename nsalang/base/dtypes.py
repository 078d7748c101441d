"""Element types: what they are called here, in torch, Triton and TileLang, and what they can hold."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NoReturn

if TYPE_CHECKING:
    from nsalang.base.placeholders import TensorType

Kind = Literal["bool", "signed", "unsigned", "float"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type. ``bits`` is its width in memory; ``max`` the largest finite value, exact."""

    name: str
    kind: Kind
    bits: int
    max: Fraction
    min: Fraction
    torch: str
    triton: str
    tilelang: str
    mantissa: int = 0
    bias: int = 0

    def __hash__(self) -> int:
        # Nodes of the IR are hashed often, and fractions hash slowly.
        return hash(self.name)

    def __reduce__(self) -> str:
        # Dtypes are compared by identity: a copy is the dtype itself.
        return "E4M3_FNUZ" if self is E4M3_FNUZ else self.name.upper()

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("signed", "unsigned")

    @property
    def is_fp8(self) -> bool:
        return self.kind == "float" and self.bits == 8

    @property
    def is_narrow_float(self) -> bool:
        """Floats whose arithmetic is done in their working dtype and rounded back: f16, bf16 (fp8 has no arithmetic at all)."""
        return self.kind == "float" and self.bits == 16

    @property
    def working(self) -> DType:
        """In which dtype arithmetic on it is done, before its own rounding, and by way of which other numbers become it: f32 for shorter floats."""
        return F32 if self.is_float and self.bits < 32 else self

    @property
    def pattern(self) -> DType:
        """The integer dtype in which the bits of a float that has arithmetic are looked at."""
        return U32 if self.bits == 32 else I64

    @property
    def bytes(self) -> int:
        return (self.bits + 7) // 8

    def __getitem__(self, extents: object) -> TensorType:
        """``f32[M, N]`` as Python evaluates it in the annotations of a decorated function; only the function's text has a meaning."""
        from nsalang.base.placeholders import TensorType

        return TensorType(self.name, extents if isinstance(extents, tuple) else (extents,))

    # Without this, __getitem__ would make a dtype an endless sequence.
    __iter__ = None

    def __or__(self, other: None) -> DType:
        """``f32 | None`` in such an annotation."""
        return self

    def __call__(self, *arguments: object) -> NoReturn:
        """``f32(x)`` is a conversion in a kernel's text, and nothing outside of it. Raises NsaError NSA0121."""
        from nsalang.base.placeholders import outside

        raise outside(self.name)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


def _integer(name: str, kind: Kind, bits: int) -> DType:
    low = -(2 ** (bits - 1)) if kind == "signed" else 0
    high = 2 ** (bits - 1) - 1 if kind == "signed" else 2**bits - 1
    long = f"int{bits}" if kind == "signed" else f"uint{bits}"
    return DType(name, kind, bits, Fraction(high), Fraction(low), long, f"tl.{long}", long)


def _float(name: str, bits: int, top: int | Fraction, torch: str, triton: str, tilelang: str, mantissa: int, bias: int) -> DType:
    return DType(name, "float", bits, Fraction(top), -Fraction(top), torch, triton, tilelang, mantissa, bias)


BOOL = DType("bool", "bool", 8, Fraction(1), Fraction(0), "bool", "tl.int1", "bool")
I8, I16, I32, I64 = (_integer(f"i{n}", "signed", n) for n in (8, 16, 32, 64))
U8, U16, U32 = (_integer(f"u{n}", "unsigned", n) for n in (8, 16, 32))
F16 = _float("f16", 16, 65504, "float16", "tl.float16", "float16", 10, 15)
BF16 = _float("bf16", 16, Fraction(255, 128) * 2**127, "bfloat16", "tl.bfloat16", "bfloat16", 7, 127)
F32 = _float("f32", 32, (2 - Fraction(1, 2**23)) * Fraction(2) ** 127, "float32", "tl.float32", "float32", 23, 127)
F64 = _float("f64", 64, (2 - Fraction(1, 2**52)) * Fraction(2) ** 1023, "float64", "tl.float64", "float64", 52, 1023)
E4M3 = _float("e4m3", 8, 448, "float8_e4m3fn", "tl.float8e4nv", "float8_e4m3fn", 3, 7)
E4M3_FNUZ = _float("e4m3", 8, 240, "float8_e4m3fnuz", "tl.float8e4b8", "float8_e4m3fnuz", 3, 8)
E5M2 = _float("e5m2", 8, 57344, "float8_e5m2", "tl.float8e5", "float8_e5m2", 2, 15)
E8M0 = _float("e8m0", 8, Fraction(2) ** 127, "float8_e8m0fnu", "tl.uint8", "uint8", 0, 127)
E2M1 = _float("e2m1", 4, 6, "uint8", "tl.uint8", "uint8", 1, 1)

ALL = {d.name: d for d in (BOOL, I8, I16, I32, I64, U8, U16, U32, F16, BF16, F32, F64, E4M3, E5M2, E8M0, E2M1)}
