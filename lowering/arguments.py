"""What the code of a kernel can be given, and in which types."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nsalang import ir
from nsalang.base.dtypes import BOOL, I32, DType
from nsalang.ir.machine import dim_divisor, stride_divisor
from nsalang.lowering.program import FLOAT_KINDS, Argument, Binding, Kind
from nsalang.lowering.text import Names


def index_type(kernel: ir.Kernel) -> Kind:
    """How dimensions, strides and offsets are passed and computed."""
    return "i64" if kernel.schedule.wide else "i32"


@dataclass(slots=True)
class Arguments:
    """What the code of a kernel can be given, in order. ``used``: the names of those that it names."""

    given: list[tuple[Binding, Argument]]
    names: dict[tuple[str, str, int], str] = field(init=False)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names = {(b.kind, b.name, b.axis): a.name for b, a in self.given}

    def use(self, kind: str, name: str, axis: int = 0) -> str:
        """The name of an argument, which the code names."""
        found = self.names[kind, name, axis]
        self.used.add(found)
        return found

    def has_stride(self, tensor: str, axis: int) -> bool:
        """Whether a stride is an argument; else it is 1."""
        return ("stride", tensor, axis) in self.names

    def passed(self) -> list[tuple[Binding, Argument]]:
        """The tensors, and of the rest what the code names."""
        return [(b, a) for b, a in self.given if b.kind == "tensor" or a.name in self.used]


def arguments(kernel: ir.Kernel, names: Names) -> Arguments:
    """Everything that a kernel can be given: tensors, views, dimensions, strides, scalars."""
    index = index_type(kernel)
    aligned = kernel.schedule.vectors if kernel.schedule.aligned else ()
    rows = (*aligned, *kernel.schedule.rows) if kernel.schedule.aligned else ()
    out: list[tuple[Binding, Argument]] = []
    for tensor in kernel.arrays:
        stored = tensor.storage or tensor.dtype
        out.append((Binding("tensor", tensor.name), Argument(names.pick(tensor.name), "pointer", stored.name, tensor.name in aligned)))
    for dim in kernel.dims:
        divisor = dim_divisor(kernel, dim)
        out.append((Binding("dim", dim), Argument(names.pick(dim), index, aligned=divisor % 16 == 0, divisor=math.gcd(divisor, 16))))
    for tensor in kernel.arrays:
        for axis in range(len(tensor.shape) - (tensor.name in rows)):
            name = names.pick(f"{tensor.name}_stride{axis}")
            divisor = stride_divisor(kernel, tensor)
            out.append((Binding("stride", tensor.name, axis), Argument(name, index, aligned=divisor % 16 == 0, divisor=divisor)))
    for scalar in kernel.scalars:
        out.append((Binding("scalar", scalar.name), Argument(names.pick(scalar.name), passed_as(scalar.dtype))))
    return Arguments(out)


def passed_as(dtype: DType) -> Kind:
    """How a scalar parameter reaches the code: in the least type that holds it and that a launch can pass."""
    if dtype is BOOL:
        return "bool"
    if dtype.is_float:
        return FLOAT_KINDS[dtype.working.name]
    return "i32" if I32.min <= dtype.min and dtype.max <= I32.max else "i64"


def is_passed_as(kernel: ir.Kernel, x: ir.Scalar) -> bool:
    """Whether a scalar's argument has the dtype with which the code reads it."""
    return passed_as(next(p.dtype for p in kernel.scalars if p.name == x.name)) == x.dtype.name
