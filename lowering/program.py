"""What a lowering hands on: a generated program, its arguments, and how a launch gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from nsalang import ir
from nsalang.base.source import Span

Float = Literal["f32", "f64"]
Kind = Literal["pointer", "i32", "i64", "bool", Float]
FLOAT_KINDS: dict[str, Float] = {name: name for name in get_args(Float)}
"""Floats that a launch can pass, by their dtypes' names."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One runtime argument of a generated kernel, in order.

    ``kind`` pointer: a tensor whose elements are ``dtype`` (a name of nsalang.dtypes: bf16, e4m3, i32 …). Otherwise a scalar.
    ``aligned``: a pointer whose address, or an integer whose value, is a multiple of 16 in this variant. ``divisor``: a lesser number of
    which an integer is known to be a multiple.
    """

    name: str
    kind: Kind
    dtype: str = ""
    aligned: bool = False
    divisor: int = 1


@dataclass(frozen=True, slots=True)
class Program:
    """A generated kernel: everything that the code depends on. ``source`` is a Python module in which ``entry`` is the kernel.

    backend triton: ``entry`` is a ``@triton.jit`` function that takes ``arguments`` in order, launched as ``entry[(grid,)](*args)``.
    backend tilelang: ``entry`` is a function without arguments that returns a ``T.prim_func``, called with the pointers as tensors and
    the other scalars; the grid is inside.
    """

    backend: Literal["triton", "tilelang"]
    target: str
    entry: str
    source: str
    arguments: tuple[Argument, ...]
    warps: int = 4
    stages: int = 1
    fp_fusion: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """Where the launcher takes an argument from: a tensor or a view, a dimension, the stride of ``axis`` of one (in elements), a scalar."""

    kind: Literal["tensor", "dim", "stride", "scalar"]
    name: str
    axis: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """A program and how to launch it.

    ``bindings``: one for each argument of the program, in order. ``grid``: how many programs each grid index takes, over Dim and Scalar;
    a launch has their product. ``lines``: (line of the generated source, what it was made from), sorted.
    """

    program: Program
    bindings: tuple[Binding, ...]
    grid: tuple[ir.Expr, ...]
    lines: tuple[tuple[int, Span], ...]
