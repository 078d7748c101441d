"""The least and the greatest value that an integer can have, as numbers, by the ends of its parts."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType
from nsalang.ir.intervals import LEAST, MOST
from nsalang.ir.operations import UNARY
from nsalang.proof.ends import Ranges, held
from nsalang.proof.lemmas import DIMS, element_types, values
from nsalang.proof.reason import negated


@dataclass(slots=True)
class Bounds:
    """``ranges``: the index variables; ``limits``: the ends of unknowns, before they are cut to 64 bits; ``promised``: those of elements of which a
    promise tells them."""

    kernel: ir.Kernel
    ranges: dict[str, Ranges] = field(default_factory=dict)
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    promised: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, dtype in element_types(self.kernel).items():
            if dtype.kind == "signed" and (bounds := values(self.kernel, name)):
                least, most = zip(*((self.ends(a)[0], self.ends(b)[1] - 1) for a, b in bounds), strict=True)
                self.promised[name] = max(int(dtype.min), *least), min(int(dtype.max), *most)

    def ends(self, e: ir.Expr) -> tuple[int, int]:
        """The least and the greatest value that an integer can have, not cut to 64 bits, by the ends of its parts."""
        match e:
            case ir.Const():
                return int(e.value), int(e.value)
            case ir.Dim():
                return self.required(e, (0, DIMS - 1))
            case ir.Scalar():
                dtype = next((s.dtype for s in self.kernel.scalars if s.name == e.name), e.dtype)
                return self.required(e, (0, DIMS - 1) if e.name in self.kernel.dims else (int(dtype.min), int(dtype.max)))
            case ir.Index() if e.name in self.ranges:
                r = self.ranges[e.name]
                low, high = self.ends(r.start)[0], self.ends(r.stop)[1] - 1
                return low, max(low, high)
            case ir.Load() if e.tensor in self.limits:
                return self.within(self.limits[e.tensor], e.dtype)
            case ir.Load() if e.tensor.startswith(("count of ", "total of ", "search ", "rank of ")):
                return 0, DIMS
            case ir.Load() if e.tensor in self.promised:
                return self.promised[e.tensor]
            case ir.Cast() if e.x.dtype is BOOL:
                return 0, 1
            case ir.Cast() if e.mode == "convert" and e.x.dtype.is_integer and e.dtype.kind == "signed":
                return self.within(self.ends(e.x), e.dtype)
            case ir.Where():
                a, b = held(self.ends(e.a), e.a, e.cond), held(self.ends(e.b), e.b, negated(e.cond))
                one, two = [e for e in (a, b) if e[0] <= e[1]] * 2 if (a[0] > a[1]) != (b[0] > b[1]) else (a, b)
                return min(one[0], two[0]), max(one[1], two[1])
            case ir.Binary(op="min" | "max"):
                a, b = self.ends(e.a), self.ends(e.b)
                pick = min if e.op == "min" else max
                return pick(a[0], b[0]), pick(a[1], b[1])
            case ir.Full():
                return self.ends(e.value)
            case ir.Unary() if e.dtype.kind == "signed" and (ends := UNARY[e.op].ends) is not None:
                return ends(self.within(self.ends(e.x), e.dtype) if e.x.dtype.is_integer else (0, 0))
            case ir.Binary() if e.dtype.kind == "signed":
                a, b = self.within(self.ends(e.a), e.dtype), self.within(self.ends(e.b), e.dtype)
                match e.op:
                    case "add":
                        return a[0] + b[0], a[1] + b[1]
                    case "sub":
                        return a[0] - b[1], a[1] - b[0]
                    case "mul":
                        corners = [x * y for x in a for y in b]
                        return min(corners), max(corners)
                    case "shl":
                        corners = [x << y for x in a for y in (max(0, min(b[0], 63)), max(0, min(b[1], 63)))]
                        return min(corners), max(corners)
                    case "floordiv":
                        # A quotient is extreme at a corner, with the divisors next to 0 as further corners.
                        corners = [x // y for x in a for y in (*b, -1, 1) if y and b[0] <= y <= b[1]]
                        return min(corners, default=0), max(corners, default=0)
                    case "mod":
                        # Of the divisor's sign, and nearer to 0; 0 // 0 is an obligation of its own.
                        return min(0, b[0] + 1), max(0, b[1] - 1)
                    case "shr":
                        corners = [x >> max(0, min(y, 63)) for x in a for y in b]
                        return min(corners), max(corners)
                    case "and" if a[0] >= 0 or b[0] >= 0:
                        return 0, min(high for low, high in (a, b) if low >= 0)
                    case "or" | "xor" if a[0] >= 0 and b[0] >= 0:
                        return 0, a[1] + b[1]
        dtype = e.dtype
        return (int(dtype.min), int(dtype.max)) if dtype.is_integer else (LEAST, MOST)

    def required(self, e: ir.Expr, ends: tuple[int, int]) -> tuple[int, int]:
        """Ends of a dimension or scalar, closer where a requirement compares it with a constant."""
        for r in self.kernel.requires:
            ends = held(ends, e, r.condition)
        return ends

    def within(self, ends: tuple[int, int], dtype: DType) -> tuple[int, int]:
        # What leaves its range here is an obligation of the part, or of the conversion.
        return max(ends[0], int(dtype.min)), min(max(ends[1], ends[0]), int(dtype.max))
