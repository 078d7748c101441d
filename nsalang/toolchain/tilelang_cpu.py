"""TileLang programs for a GPU, run on the CPU: the same text becomes C++ in which every bf16, f16 and fp8 value is its bits.

Two things make that possible. ``CpuLanguage`` stands in place of ``T`` when the text is executed: every place is local memory and every
loop is serial. ``narrowed`` then rewrites the lowered functions: TileLang's C back end has no narrow floats, so each becomes an unsigned
integer, each conversion a call into narrow.h, and each operation is done in f32 and rounded back.
"""

from __future__ import annotations

import functools
import importlib.resources
import struct
import types
from dataclasses import dataclass
from typing import Any

from nsalang.ir.operations import UNARY

_FORMATS = {
    "bfloat16": ("uint16", "bf16"),
    "float16": ("uint16", "f16"),
    "float8_e4m3fn": ("uint8", "e4m3"),
    "float8_e4m3": ("uint8", "e4m3"),
    "float8_e5m2": ("uint8", "e5m2"),
}

_LIBM = {op: f"{op}f" for op, row in UNARY.items() if row.bound is not None} | {
    "sqrt": "sqrtf", "rsqrt": "nsa_rsqrt", "fabs": "fabsf", "floor": "floorf", "ceil": "ceilf", "trunc": "truncf", "round": "nearbyintf",
    "nearbyint": "nearbyintf", "pow": "powf", "copysign": "copysignf", "isnan": "nsa_isnan", "isinf": "nsa_isinf",
}  # fmt: skip
"""f32 functions of TileLang and what computes them here. The transcendental ones differ from a GPU's in the last bits."""


def header() -> str:
    """The text of narrow.h, which stands at the top of every generated C++ source."""
    return importlib.resources.files("nsalang.toolchain").joinpath("narrow.h").read_text(encoding="utf-8")


@functools.cache
def cpu_language() -> Any:
    """What stands for ``T`` when a module is executed for the CPU."""
    import tilelang.language as T

    class CpuLanguage:
        """tilelang.language with local memory and serial loops: one thread runs a whole block."""

        def __getattr__(self, name: str) -> Any:
            return getattr(T, name)

        def alloc_shared(self, shape: Any, dtype: Any, scope: str | None = None) -> Any:
            return T.alloc_local(shape, dtype)

        def alloc_fragment(self, shape: Any, dtype: Any, scope: str | None = None) -> Any:
            return T.alloc_local(shape, dtype)

        def Parallel(self, *extents: Any, **options: Any) -> Any:
            return T.grid(*extents) if len(extents) > 1 else T.serial(extents[0])

        def Pipelined(self, start: Any, stop: Any = None, **options: Any) -> Any:
            return T.serial(start) if stop is None else T.serial(start, stop)

        def vectorized(self, *extents: Any, **options: Any) -> Any:
            return T.serial(*extents)

        def use_swizzle(self, *args: Any, **options: Any) -> None:
            pass

        def annotate_layout(self, *args: Any, **options: Any) -> None:
            pass

        def annotate_restrict_buffers(self, *buffers: Any) -> None:
            pass

        def ptx_commit_group(self, *args: Any, **options: Any) -> None:
            pass

        def ptx_wait_group(self, *args: Any, **options: Any) -> None:
            pass

        def gemm(
            self, a: Any, b: Any, c: Any, transpose_A: bool = False, transpose_B: bool = False, clear_accum: bool = False, **options: Any
        ) -> None:
            _gemm(a, b, c, transpose_A, transpose_B, clear_accum)

        def sync_threads(self, *args: Any, **options: Any) -> None:
            pass

        def atomic_add(self, dst: Any, value: Any, **options: Any) -> None:
            """One thread runs everything, block after block: nothing can come between reading and writing."""
            T.buffer_store(dst.buffer, dst + value, list(dst.indices))

        def reduce_sum(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "sum")

        def reduce_max(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "max")

        def reduce_min(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "min")

        def reduce_absmax(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "absmax")

        def reduce_bitor(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "bitor")

        def reduce_bitand(self, src: Any, dst: Any, dim: int = -1, clear: bool = True, **options: Any) -> None:
            _reduce(src, dst, dim, clear, "bitand")

        def cumsum(self, src: Any, dst: Any = None, dim: int = 0, reverse: bool = False, **options: Any) -> None:
            _cumsum(src, src if dst is None else dst, dim, reverse)

    return CpuLanguage()


def _gemm(a: Any, b: Any, c: Any, transpose_a: bool, transpose_b: bool, clear: bool) -> None:
    """``c += a @ b``: products and sums in the type of ``c``, one term after the other. Operands may be parts of buffers."""
    import tilelang.language as T
    from tilelang.utils.language import to_buffer_region

    left, right, out = (to_buffer_region(x) for x in (a, b, c))
    (m, n), depth, dtype = (
        (int(r.extent) for r in out.region[-2:]),
        int(left.region[-2 if transpose_a else -1].extent),
        str(out.buffer.dtype),
    )

    def at(part: Any, row: Any, column: Any, transposed: bool) -> tuple[Any, ...]:
        first = [r.min for r in part.region]
        row, column = (column, row) if transposed else (row, column)
        return (*first[:-2], first[-2] + row, first[-1] + column)

    @T.macro  # type: ignore[untyped-decorator, unused-ignore]
    def run(left_buffer: Any, right_buffer: Any, out_buffer: Any) -> None:
        total = T.alloc_local((1,), dtype)
        for i, j in T.grid(m, n):
            if clear:
                total[0] = T.cast(0, dtype)
            else:
                total[0] = out_buffer[at(out, i, j, False)]
            for k in T.serial(depth):
                x = T.cast(left_buffer[at(left, i, k, transpose_a)], dtype)
                total[0] = total[0] + x * T.cast(right_buffer[at(right, k, j, transpose_b)], dtype)
            out_buffer[at(out, i, j, False)] = total[0]

    run(left.buffer, right.buffer, out.buffer)


def _initial(op: str, dtype: str) -> Any:
    """What a reduction begins with: the operation's identity in ``dtype``."""
    import tilelang.language as T
    from tilelang import tvm

    if op in ("sum", "absmax", "bitor"):
        return T.cast(0, dtype)
    if op == "bitand":
        return T.cast(-1, dtype)
    if "float" in dtype:
        return T.cast(T.float32(float("-inf") if op == "max" else float("inf")), dtype)
    return tvm.tirx.min_value(dtype) if op == "max" else tvm.tirx.max_value(dtype)


def _combined(op: str, old: Any, new: Any) -> Any:
    import tilelang.language as T

    if op == "sum":
        return old + new
    if op == "bitor":
        return old | new
    if op == "bitand":
        return old & new
    if op == "min":
        return T.min(old, new)
    return T.max(old, T.abs(new) if op == "absmax" else new)


@dataclass(frozen=True, slots=True)
class _Walk:
    """How a buffer is walked along one of its dimensions: the extents of the other dimensions, and the index of an element."""

    shape: tuple[int, ...]
    axis: int

    @property
    def outer(self) -> tuple[int, ...]:
        return (self.shape[: self.axis] + self.shape[self.axis + 1 :]) or (1,)

    def others(self, at: Any) -> tuple[Any, ...]:
        """The index in the other dimensions, as one or several loop variables give it."""
        return () if len(self.shape) == 1 else (at,) if len(self.shape) == 2 else tuple(at)

    def element(self, at: Any, k: Any) -> tuple[Any, ...]:
        return (*self.others(at)[: self.axis], k, *self.others(at)[self.axis :])

    def result(self, at: Any, rank: int) -> tuple[Any, ...]:
        """Where the reduction's result stands, in a buffer that dropped the dimension or kept it with extent 1."""
        return self.element(at, 0) if rank == len(self.shape) else self.others(at)


def _walk(buffer: Any, dim: int) -> _Walk:
    shape = tuple(int(extent) for extent in buffer.shape)
    return _Walk(shape, dim % len(shape))


def _reduce(src: Any, dst: Any, dim: int, clear: bool, op: str) -> None:
    """Reduction of a buffer along ``dim`` in the order of the indices, in the type of ``dst``; narrow floats are summed in f32."""
    import tilelang.language as T

    walk, rank, result = _walk(src, dim), len(dst.shape), str(dst.dtype)
    wide = "float32" if op == "sum" and result in _FORMATS else result
    extents, length, start = walk.outer, walk.shape[walk.axis], _initial(op, wide)

    @T.macro  # type: ignore[untyped-decorator, unused-ignore]
    def run(src: Any, dst: Any) -> None:
        total = T.alloc_local((1,), wide)
        for at in T.grid(*extents):
            if clear:
                total[0] = start
            else:
                total[0] = T.cast(dst[walk.result(at, rank)], wide)
            for k in T.serial(length):
                total[0] = _combined(op, total[0], T.cast(src[walk.element(at, k)], wide))
            dst[walk.result(at, rank)] = T.cast(total[0], result)

    run(src, dst)


def _cumsum(src: Any, dst: Any, dim: int, reverse: bool) -> None:
    """Running sum along ``dim``, from the end with ``reverse``."""
    import tilelang.language as T

    walk, dtype = _walk(src, dim), str(dst.dtype)
    extents, length = walk.outer, walk.shape[walk.axis]
    first, step = (length - 1, -1) if reverse else (0, 1)

    @T.macro  # type: ignore[untyped-decorator, unused-ignore]
    def run(src: Any, dst: Any) -> None:
        total = T.alloc_local((1,), dtype)
        for at in T.grid(*extents):
            total[0] = T.cast(0, dtype)
            for k in T.serial(length):
                total[0] = total[0] + T.cast(src[walk.element(at, first + step * k)], dtype)
                dst[walk.element(at, first + step * k)] = total[0]

    run(src, dst)


def pipeline(mod: Any, target: Any) -> Any:
    """TileLang's own passes for the C target, without the one that rewrites bf16 arithmetic: it drops roundings that must be made."""
    from tilelang.cpu import pipeline as stock

    class Transform:
        def __getattr__(self, name: str) -> Any:
            return getattr(stock.tirx.transform, name)

        def BF16ComputeLegalize(self) -> Any:
            return lambda mod: mod

    class Tir:
        transform = Transform()

        def __getattr__(self, name: str) -> Any:
            return getattr(stock.tirx, name)

    body = stock.CPUPassPipelineBody
    return types.FunctionType(body.__code__, {**body.__globals__, "tirx": Tir()})(mod, target)


def _f32_bits(value: float) -> int:
    try:
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    except OverflowError:
        return 0x7F800000 if value > 0 else 0xFF800000


def narrowed(function: Any) -> Any:
    """A lowered function in which narrow floats are unsigned integers and every conversion, minimum and maximum is a call into narrow.h."""
    from tilelang import tvm

    rewriter = _rewriter()()
    parameters = [rewriter.var(parameter) for parameter in function.params]
    return tvm.tirx.PrimFunc(parameters, rewriter.visit_stmt(function.body), function.ret_type, function.buffer_map, function.attrs)


@functools.cache
def _rewriter() -> Any:
    from tilelang import tvm
    from tvm import tirx
    from tvm.ir import PointerType, PrimType

    # As operators the simplifier would fold them; they are calls so that it doesn't.
    ieee = {"ieee_add": "nsa_add", "ieee_sub": "nsa_sub", "ieee_mul": "nsa_mul", "ieee_fdiv": "nsa_div"}

    bits = {
        ("uint32", "float32"): "nsa_bits", ("float32", "uint32"): "nsa_float",
        ("int32", "float32"): "nsa_signed_bits", ("float32", "int32"): "nsa_signed_float",
    }  # fmt: skip

    def form(dtype: Any) -> tuple[str, str] | None:
        return _FORMATS.get(str(dtype))

    def call(dtype: str, name: str, *args: Any) -> Any:
        return tirx.call_pure_extern(dtype, name, *args)

    def rounded(value: Any, kind: tuple[str, str]) -> Any:
        return call(kind[0], f"nsa_to_{kind[1]}", value)

    @tirx.functor.mutator  # type: ignore[untyped-decorator, unused-ignore]
    class Narrow(tirx.PyStmtExprMutator):  # type: ignore[misc, name-defined, unused-ignore]
        """A visited expression of a narrow type has the unsigned type of its bits; ``wide`` gives its value in f32."""

        def __init__(self) -> None:
            super().__init__()
            self.variables: dict[Any, Any] = {}
            self.buffers: dict[Any, Any] = {}

        def var(self, v: Any) -> Any:
            if v not in self.variables:
                kind, new = v.type_annotation, v
                if isinstance(kind, PointerType) and isinstance(kind.element_type, PrimType) and form(kind.element_type.dtype):
                    new = tirx.Var(v.name, PointerType(PrimType(_FORMATS[str(kind.element_type.dtype)][0]), kind.storage_scope))
                elif form(v.dtype):
                    new = tirx.Var(v.name, _FORMATS[str(v.dtype)][0])
                self.variables[v] = new
            return self.variables[v]

        def buffer(self, b: Any) -> Any:
            if b not in self.buffers:
                data, kind = self.var(b.data), form(b.dtype)
                new = b
                if kind or not data.same_as(b.data):
                    new = tirx.decl_buffer(
                        b.shape, kind[0] if kind else b.dtype, b.name, data, b.strides, b.elem_offset,
                        data_alignment=b.data_alignment, offset_factor=b.offset_factor,
                    )  # fmt: skip
                self.buffers[b] = new
            return self.buffers[b]

        def wide(self, e: Any) -> Any:
            new, kind = self.visit_expr(e), form(e.dtype)
            return call("float32", f"nsa_from_{kind[1]}", new) if kind else new

        def visit_var_(self, op: Any) -> Any:
            return self.var(op)

        def visit_float_imm_(self, op: Any) -> Any:
            kind = form(op.dtype)
            if kind:
                return rounded(call("float32", "nsa_float", tirx.IntImm("uint32", _f32_bits(op.value))), kind)
            # The C printer writes seven digits, and neither inf nor NaN.
            if str(op.dtype) == "float32" and struct.pack("<I", _f32_bits(op.value)) != struct.pack("<f", float(f"{op.value:e}")):
                return call("float32", "nsa_float", tirx.IntImm("uint32", _f32_bits(op.value)))
            return op

        def visit_cast_(self, op: Any) -> Any:
            source, kind = form(op.value.dtype), form(op.dtype)
            if source is None and kind is None:
                return tirx.Cast(op.dtype, self.visit_expr(op.value))
            if source is not None and source == kind:
                return self.visit_expr(op.value)
            value = self.wide(op.value)
            if kind is None:
                return value if str(op.dtype) == "float32" else tirx.Cast(op.dtype, value)
            return rounded(value if str(value.dtype) == "float32" else tirx.Cast("float32", value), kind)

        def visit_buffer_load_(self, op: Any) -> Any:
            return tirx.BufferLoad(self.buffer(op.buffer), [self.visit_expr(i) for i in op.indices])

        def visit_buffer_store_(self, op: Any) -> Any:
            return tirx.BufferStore(self.buffer(op.buffer), self.visit_expr(op.value), [self.visit_expr(i) for i in op.indices])

        def visit_alloc_buffer_(self, op: Any) -> Any:
            return tirx.AllocBuffer(self.buffer(op.buffer), op.annotations)

        def visit_decl_buffer_(self, op: Any) -> Any:
            return tirx.DeclBuffer(self.buffer(op.buffer))

        def visit_bind_(self, op: Any) -> Any:
            return tirx.Bind(self.var(op.var), self.visit_expr(op.value))

        def visit_let_(self, op: Any) -> Any:
            return tirx.Let(self.var(op.var), self.visit_expr(op.value), self.visit_expr(op.body))

        def visit_select_(self, op: Any) -> Any:
            return tirx.Select(self.visit_expr(op.condition), self.visit_expr(op.true_value), self.visit_expr(op.false_value))

        def visit_call_(self, op: Any) -> Any:
            name = getattr(op.op, "name", "").split(".")[-1]
            args, kind = list(op.args), form(op.dtype)
            values = [a for a in args if isinstance(a, tirx.PrimExpr)]
            if name in ("reinterpret", "if_then_else") and (kind or any(form(a.dtype) for a in values)):
                new = [self.visit_expr(a) for a in args]
                dtype = kind[0] if kind else str(op.dtype)
                return new[0] if name == "reinterpret" and str(new[0].dtype) == dtype else tirx.Call(dtype, op.op, new)
            if name in ieee:
                result = call("float32", ieee[name], self.wide(args[0]), self.wide(args[1]))
            elif name == "ieee_fmaf":
                result = call("float32", "fmaf", *(self.wide(a) for a in args[:3]))
            elif name == "ieee_fsqrt":
                result = call("float32", "sqrtf", self.wide(args[0]))
            elif name == "bitwise_not" and str(op.dtype) == "bool":
                # C's ~ makes true of both; and the simplifier turns a negation that it knows into the opposite comparison, wrong for NaN.
                result = call("bool", "nsa_not", self.visit_expr(args[0]))
            elif name == "reinterpret" and (str(op.dtype), str(args[0].dtype)) in bits:
                result = call(str(op.dtype), bits[str(op.dtype), str(args[0].dtype)], self.visit_expr(args[0]))
            elif name == "clz":
                result = call("int32", f"nsa_clz{tvm.DataType(args[0].dtype).bits}", self.visit_expr(args[0]))
            elif name in _LIBM and str(args[0].dtype) in ("float32", *_FORMATS):
                result = call("float32" if kind else str(op.dtype), _LIBM[name], *(self.wide(a) for a in args))
            elif kind or any(form(a.dtype) for a in values):
                result = tirx.Call("float32" if kind else op.dtype, op.op, [self.wide(a) for a in args])
            else:
                return tirx.Call(op.dtype, op.op, [self.visit_expr(a) for a in args])
            return rounded(result, kind) if kind else result

        def binary(self, op: Any) -> Any:
            kind, a, b = form(op.dtype), self.wide(op.a), self.wide(op.b)
            if isinstance(op, (tirx.Max, tirx.Min)) and str(a.dtype) == "float32":
                result = call("float32", "nsa_max" if isinstance(op, tirx.Max) else "nsa_min", a, b)
            else:
                result = type(op)(a, b)
            return rounded(result, kind) if kind else result

        visit_add_ = visit_sub_ = visit_mul_ = visit_div_ = visit_min_ = visit_max_ = binary
        visit_eq_ = visit_ne_ = visit_lt_ = visit_le_ = visit_gt_ = visit_ge_ = binary

    return Narrow
