"""Narrow floats in TileLang's code for the CPU: its C back end has none, so each becomes an unsigned integer of its bits, each conversion a call into
narrow.h, and each operation is done in f32 and rounded back."""

from __future__ import annotations

import functools
import struct
from typing import Any

from nsalang.ir.operations import UNARY

FORMATS = {
    "bfloat16": ("uint16", "bf16"),
    "float16": ("uint16", "f16"),
    "float8_e4m3fn": ("uint8", "e4m3"),
    "float8_e4m3": ("uint8", "e4m3"),
    "float8_e5m2": ("uint8", "e5m2"),
}

FUNCTIONS: dict[str, dict[str, str]] = {
    "float32": {
        **{op: f"{op}f" for op, row in UNARY.items() if row.bound is not None},
        "sqrt": "sqrtf", "rsqrt": "nsa_rsqrt", "fabs": "fabsf", "floor": "floorf", "ceil": "ceilf", "trunc": "truncf", "round": "nearbyintf",
        "nearbyint": "nearbyintf", "pow": "powf", "copysign": "copysignf", "isnan": "nsa_isnan", "isinf": "nsa_isinf",
        "Max": "nsa_max", "Min": "nsa_min", "ieee_fmaf": "fmaf", "ieee_fsqrt": "sqrtf",
        # As operators the simplifier would fold them; they are calls so that it doesn't.
        "ieee_add": "nsa_add", "ieee_sub": "nsa_sub", "ieee_mul": "nsa_mul", "ieee_fdiv": "nsa_div",
    },
    "float64": {
        **{op: op for op, row in UNARY.items() if row.bound is not None},
        "sqrt": "sqrt", "rsqrt": "nsa_rsqrt64", "fabs": "fabs", "floor": "floor", "ceil": "ceil", "isnan": "nsa_isnan64", "Max": "nsa_max64",
        "Min": "nsa_min64", "ieee_add": "nsa_add64", "ieee_sub": "nsa_sub64", "ieee_mul": "nsa_mul64", "ieee_fdiv": "nsa_div64",
    },
}  # fmt: skip
"""TileLang's functions of each float that C has, and what computes them here. The transcendental ones differ from a GPU's in the last bits."""

OPERANDS = {"ieee_fmaf": 3, "ieee_fsqrt": 1, "ieee_add": 2, "ieee_sub": 2, "ieee_mul": 2, "ieee_fdiv": 2}
"""How many arguments of a function are operands, where others follow them."""

BITS = {
    ("uint32", "float32"): "nsa_bits", ("float32", "uint32"): "nsa_float",
    ("int32", "float32"): "nsa_signed_bits", ("float32", "int32"): "nsa_signed_float",
    ("int64", "float64"): "nsa_bits64", ("float64", "int64"): "nsa_double",
}  # fmt: skip


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

    def form(dtype: Any) -> tuple[str, str] | None:
        return FORMATS.get(str(dtype))

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
                    new = tirx.Var(v.name, PointerType(PrimType(FORMATS[str(kind.element_type.dtype)][0]), kind.storage_scope))
                elif form(v.dtype):
                    new = tirx.Var(v.name, FORMATS[str(v.dtype)][0])
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
            if str(op.dtype) == "float64" and struct.pack("<d", op.value) != struct.pack("<d", float(f"{op.value:e}")):
                return call("float64", "nsa_double", tirx.IntImm("int64", *struct.unpack("<q", struct.pack("<d", op.value))))
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
            functions = FUNCTIONS.get("float32" if form(values[0].dtype) else str(values[0].dtype), {}) if values else {}
            if name in functions:
                result = call("float32" if kind else str(op.dtype), functions[name], *(self.wide(a) for a in args[: OPERANDS.get(name)]))
            elif name == "bitwise_not" and str(op.dtype) == "bool":
                # C's ~ makes true of both; and the simplifier turns a negation that it knows into the opposite comparison, wrong for NaN.
                result = call("bool", "nsa_not", self.visit_expr(args[0]))
            elif name == "reinterpret" and (str(op.dtype), str(args[0].dtype)) in BITS:
                result = call(str(op.dtype), BITS[str(op.dtype), str(args[0].dtype)], self.visit_expr(args[0]))
            elif name == "clz":
                result = call("int32", f"nsa_clz{tvm.DataType(args[0].dtype).bits}", self.visit_expr(args[0]))
            elif kind or any(form(a.dtype) for a in values):
                result = tirx.Call("float32" if kind else op.dtype, op.op, [self.wide(a) for a in args])
            else:
                return tirx.Call(op.dtype, op.op, [self.visit_expr(a) for a in args])
            return rounded(result, kind) if kind else result

        def binary(self, op: Any) -> Any:
            kind, a, b = form(op.dtype), self.wide(op.a), self.wide(op.b)
            function = FUNCTIONS.get(str(a.dtype), {}).get(type(op).__name__)
            result = type(op)(a, b) if function is None else call(str(a.dtype), function, a, b)
            return rounded(result, kind) if kind else result

        visit_add_ = visit_sub_ = visit_mul_ = visit_div_ = visit_min_ = visit_max_ = binary
        visit_eq_ = visit_ne_ = visit_lt_ = visit_le_ = visit_gt_ = visit_ge_ = binary

    return Narrow
