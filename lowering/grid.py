"""How many programs a launch has."""

from __future__ import annotations

from nsalang import ir


def grid_of(kernel: ir.Kernel) -> tuple[ir.Expr, ...]:
    """The number of programs of each grid index, for the launcher."""
    return tuple(programs(kernel, index) for index in kernel.grid)


def programs(kernel: ir.Kernel, index: ir.GridIndex) -> ir.Expr:
    """``extent``, or with tiles ``cdiv(extent, length)``."""
    length = kernel.schedule.length(index.name) if index.tiled else 1
    if length == 1:
        return index.extent
    match index.extent:
        case ir.Const(value=value, dtype=dtype):
            return ir.Const(dtype, (), -(-int(value) // length))
        case extent:
            dtype = extent.dtype
            above = ir.Binary(dtype, (), "add", extent, ir.Const(dtype, (), length - 1))
            return ir.Binary(dtype, (), "tdiv", above, ir.Const(dtype, (), length))


def never_negative(x: ir.Expr) -> bool:
    """Whether it shows that an extent is not negative."""
    match x:
        case ir.Dim():
            return True
        case ir.Const(value=value):
            return value >= 0
        case ir.Binary(op="add" | "mul" | "floordiv" | "mod" | "min" | "max", a=a, b=b):
            return never_negative(a) and never_negative(b)
        case _:
            return False
