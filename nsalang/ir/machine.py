"""What the machine form of a kernel says, after the passes that chose it: dimensions of values, what is read, what integers divide by."""

from __future__ import annotations

import math
from collections.abc import Iterable

from nsalang import ir
from nsalang.base.dtypes import I64


def machine_axes(kernel: ir.Kernel, axes: Iterable[str]) -> tuple[str, ...]:
    """The dimensions of a value with these axes, outermost first."""
    have = set(axes)
    return tuple(a for a in kernel.schedule.order if a in have)


def machine_shape(kernel: ir.Kernel, axes: Iterable[str]) -> tuple[int, ...]:
    return tuple(kernel.schedule.length(a) for a in machine_axes(kernel, axes))


def used_indices(kernel: ir.Kernel) -> dict[str, bool]:
    """The index variables that the code reads, by name: whether as 64-bit integers."""
    return {n.name: n.dtype is I64 for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Index)}


def read_axes(kernel: ir.Kernel, name: str) -> tuple[str, ...]:
    """An index variable and the groups of its lanes, of these those that the code reads."""
    used = used_indices(kernel)
    return tuple(n for n in (name, *kernel.schedule.groups_of(name)) if n in used)


def address_names(kernel: ir.Kernel) -> frozenset[str]:
    """Variables with axes that say where or whether a tensor is accessed."""
    accesses = [n for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Load | ir.Store)]
    parts = [n for access in accesses for p in ir.address(access) for n in ir.walk(p)]
    return frozenset(n.name for n in parts if isinstance(n, ir.Var) and n.axes)


def assigned_twice(kernel: ir.Kernel) -> frozenset[str]:
    """Variables with several assignments: a backend must give the first the type of the others."""
    seen: set[str] = set()
    twice: set[str] = set()
    for statement in kernel.body:
        for node in ir.walk(statement):
            if isinstance(node, ir.Assign):
                (twice if node.name in seen else seen).add(node.name)
    return frozenset(twice)


def dim_divisor(kernel: ir.Kernel, name: str) -> int:
    """What a dimension is a multiple of, by what the kernel requires and by the facts of the variant; else 1."""
    divisor = 1
    for tensor in kernel.arrays:
        if tensor.shape and isinstance(tensor.shape[-1], ir.Dim) and tensor.shape[-1].name == name:
            divisor = math.lcm(divisor, stride_divisor(kernel, tensor))
    for require in (*kernel.requires, *(kernel.hoists if kernel.schedule.exact else ())):
        match require.condition:
            case ir.Binary(op="eq", a=ir.Binary(op="mod" | "tmod", a=ir.Dim(name=found), b=ir.Const(value=value)), b=ir.Const(value=0)) if (
                found == name
            ):
                divisor = math.lcm(divisor, int(value))
            case _:
                pass
    return divisor


def stride_divisor(kernel: ir.Kernel, tensor: ir.Tensor | ir.View) -> int:
    """What every stride that is an argument is a multiple of, in elements."""
    aligned = kernel.schedule.aligned and tensor.name in kernel.schedule.vectors
    return max(16 // (tensor.storage or tensor.dtype).bytes, 1) if aligned else 1
