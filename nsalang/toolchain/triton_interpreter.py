"""Triton's interpreter with the number formats of the hardware. Needs TRITON_INTERPRET=1 before triton is imported, so only the worker does.

The interpreter keeps bf16 and fp8 as bit patterns and computes on them as if they were integers, truncates where it should round, and lets
NaN through ``maximum``. :func:`install` replaces the builder's entries that touch floats, the reductions, the scans and ``range``.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.runtime import interpreter

from nsalang.toolchain.narrow_floats import F16, FORMATS, Array, fused, narrow, saturate, widen

Handle = Any
"""interpreter.TensorHandle: a numpy array and a Triton element type. The package has no types."""


def numbers(handle: Handle) -> Array:
    """What a handle holds, as numbers: narrow floats widened to float32, anything else as it is."""
    data: Array = np.asarray(handle.data)
    form = FORMATS.get(handle.dtype.scalar.name)
    return data if form is None or data.dtype == bool else widen(data, form)


def holding(values: Array, dtype: Any) -> Handle:
    """A handle of ``dtype`` for float or integer values, rounded where the type is narrower."""
    form = FORMATS.get(dtype.name)
    data = narrow(values, form) if form is not None else np.asarray(values).astype(interpreter._get_np_dtype(dtype))
    return interpreter.TensorHandle(data, dtype)


def _convert(src: Handle, dst_type: Any, rounding: Any = None) -> Handle:
    source, dtype = src.dtype.scalar, dst_type.scalar
    if source == dtype:
        return interpreter.TensorHandle(src.data, dtype)
    values = numbers(src)
    if dtype.is_floating():
        toward_zero = rounding is not None and rounding == interpreter._ir.ROUNDING_MODE.RTZ
        form = F16 if dtype == tl.float16 else FORMATS.get(dtype.name)
        if not source.is_floating():
            values = values.astype(np.float64 if dtype == tl.float64 else np.float32)
        if form is not None and toward_zero:
            data = narrow(values, form, toward_zero=True)
            return interpreter.TensorHandle(data.view(np.float16) if dtype == tl.float16 else data, dtype)
        return holding(values, dtype)
    if dtype == tl.int1:
        return interpreter.TensorHandle(values != 0, dtype)
    if source.is_floating():
        return interpreter.TensorHandle(saturate(values, dtype.primitive_bitwidth, dtype.is_int_signed()), dtype)
    return holding(values, dtype)


def _arithmetic(op: Callable[..., Array]) -> Callable[..., Handle]:
    def run(self: Any, *operands: Handle) -> Handle:
        return holding(op(*(numbers(x) for x in operands)), operands[0].dtype.scalar)

    return run


def _comparison(op: Callable[[Array, Array], Array]) -> Callable[..., Handle]:
    def run(self: Any, lhs: Handle, rhs: Handle) -> Handle:
        return interpreter.TensorHandle(op(numbers(lhs), numbers(rhs)), tl.int1)

    return run


def _maximum(a: Array, b: Array) -> Array:
    zero = np.where(np.signbit(a) & np.signbit(b), np.float32(-0.0), np.float32(0.0))
    return np.where((a == 0) & (b == 0), zero, np.fmax(a, b))


def _minimum(a: Array, b: Array) -> Array:
    zero = np.where(np.signbit(a) | np.signbit(b), np.float32(-0.0), np.float32(0.0))
    return np.where((a == 0) & (b == 0), zero, np.fmin(a, b))


def _with_nan(op: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda a, b: np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), op(a, b))


def _clamp(self: Any, x: Handle, low: Handle, high: Handle, propagate_nans: Any) -> Handle:
    value, least, most = numbers(x), numbers(low), numbers(high)
    out = _minimum(_maximum(value, least), most)
    if propagate_nans == interpreter._ir.PROPAGATE_NAN.ALL:
        out = np.where(np.isnan(value), np.float32(np.nan), out)
    return holding(out, x.dtype.scalar)


def _fma(self: Any, x: Handle, y: Handle, z: Handle) -> Handle:
    dtype = z.dtype.scalar
    if dtype == tl.float64:
        raise NotImplementedError("fma of float64 values")
    return holding(fused(numbers(x), numbers(y), numbers(z)), dtype)


def _dot(self: Any, a: Handle, b: Handle, d: Handle, input_precision: Any, max_num_imprecise_acc: Any) -> Handle:
    """Sums in float32, whatever precision is asked for: a device that has tf32 rounds the operands before."""
    dtype = d.dtype.scalar
    # The quick products of matrices are those of floats; a float64 holds any sum of products of bytes that fits in int32.
    kind = np.float64 if dtype.is_int() or dtype == tl.float64 else np.float32
    product = np.matmul(numbers(a).astype(kind), numbers(b).astype(kind))
    return holding(product + numbers(d), dtype)


def _constant(name: str) -> Callable[..., Handle]:
    dtype = tl.bfloat16 if name == "bf16" else tl.str_to_ty(name, None)
    return lambda self, value: holding(np.array([value], dtype=np.float32), dtype)


def _extreme(values: Array, axis: int | None, keep: bool, largest: bool) -> Array:
    """The largest or least of an axis: NaN only where there is nothing else, +0 above -0."""
    if not np.issubdtype(values.dtype, np.floating):
        return np.asarray((np.max if largest else np.min)(values, axis=axis, keepdims=keep))
    fold: Any = np.fmax if largest else np.fmin
    out = np.asarray(fold.reduce(values, axis=axis, keepdims=keep))
    wanted = (values == 0) & (np.signbit(values) != largest)
    seen = np.any(wanted, axis=axis, keepdims=keep)
    zero = np.where(seen == largest, 0.0, -0.0).astype(values.dtype)
    return np.where(out == 0, zero, out)


def _extreme_with_index(values: Array, axis: int | None, keep: bool, largest: bool) -> tuple[Array, Array]:
    """The extreme and the least position that holds it, NaN ignored; position 0 where there is nothing but NaN."""
    best = _extreme(values, axis, True, largest)
    position = np.argmax(values == best, axis=axis, keepdims=True)
    if keep:
        return best, position
    return (best.reshape(()), position.reshape(())) if axis is None else (best.squeeze(axis), position.squeeze(axis))


def _is_elementwise(combine: Any) -> bool:
    """Whether a combining function does the same to a block as to each element: calls of ``tl`` only, nothing that asks for a truth value."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(combine.fn)))
    for node in ast.walk(tree):
        if isinstance(node, ast.BoolOp | ast.If | ast.IfExp | ast.Not | ast.While | ast.For):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "tl"):
            return False
    return True


def _combined(op: Any, left: Sequence[Array], right: Sequence[Array], dtypes: Sequence[Any]) -> list[Array]:
    sides = [op.to_tensor(data, dtype) for side in (left, right) for data, dtype in zip(side, dtypes, strict=True)]
    out = op.combine_fn.fn(*sides)
    return [np.asarray(x.handle.data) for x in (out if isinstance(out, tuple) else (out,))]


def _reduce(self: Any, input: tuple[Any, ...]) -> Any:
    """In place of ReduceOps.apply_impl."""
    standard, combine = tl.standard, self.combine_fn
    dtypes = [x.dtype.scalar for x in input]
    rank = len(input[0].shape)
    axis = None if self.axis is None else self.axis % rank
    values = numbers(input[0].handle)

    def tensor(data: Array, dtype: Any) -> Any:
        data = np.asarray(data)
        form = FORMATS.get(dtype.name)
        return self.to_tensor(narrow(data, form) if form is not None else data, dtype)

    for largest, names in ((True, "max"), (False, "min")):
        if combine is getattr(standard, f"_elementwise_{names}"):
            return tensor(_extreme(values, axis, self.keep_dims, largest), dtypes[0])
        if combine in (getattr(standard, f"_arg{names}_combine_tie_break_left"), getattr(standard, f"_arg{names}_combine_tie_break_fast")):
            value, index = _extreme_with_index(values, axis, self.keep_dims, largest)
            return tensor(value, dtypes[0]), self.to_tensor(index, tl.int32)
    if combine is standard._sum_combine:
        return tensor(np.asarray(np.sum(values, axis=axis, keepdims=self.keep_dims, dtype=values.dtype)), dtypes[0])
    if axis is None or not _is_elementwise(combine):
        return self.generic_reduce(input)
    data = [np.moveaxis(np.asarray(x.handle.data), axis, -1) for x in input]
    while data[0].shape[-1] > 1:
        data = _combined(self, [d[..., 0::2] for d in data], [d[..., 1::2] for d in data], dtypes)
    shaped = [np.moveaxis(d, -1, axis) if self.keep_dims else d[..., 0] for d in data]
    return tuple(self.to_tensor(d, dtype) for d, dtype in zip(shaped, dtypes, strict=True))


def _scan(self: Any, input: tuple[Any, ...]) -> Any:
    """In place of ScanOps.apply_impl."""
    standard, combine = tl.standard, self.combine_fn
    dtypes = [x.dtype.scalar for x in input]
    axis = self.axis % len(input[0].shape)
    flip: Callable[[Array], Array] = (lambda x: np.flip(x, axis)) if self.reverse else (lambda x: x)
    if combine in (standard._sum_combine, standard._prod_combine):
        values = flip(numbers(input[0].handle))
        total = (np.cumsum if combine is standard._sum_combine else np.cumprod)(values, axis=axis, dtype=values.dtype)
        handle = holding(flip(total), dtypes[0])
        return [self.to_tensor(handle.data, dtypes[0])]
    data = [flip(np.asarray(x.handle.data)) for x in input]
    if not _is_elementwise(combine):
        out = self.generic_scan(tuple(self.to_tensor(d, dtype) for d, dtype in zip(data, dtypes, strict=True)))
        return [self.to_tensor(flip(np.asarray(x.handle.data)), dtype) for x, dtype in zip(out, dtypes, strict=True)]
    data = [np.moveaxis(d, axis, -1) for d in data]
    steps = [[d[..., :1] for d in data]]
    for i in range(1, data[0].shape[-1]):
        steps.append(_combined(self, steps[-1], [d[..., i : i + 1] for d in data], dtypes))
    joined = [flip(np.moveaxis(np.concatenate([step[j] for step in steps], axis=-1), -1, axis)) for j in range(len(data))]
    return [self.to_tensor(d, dtype) for d, dtype in zip(joined, dtypes, strict=True)]


def _all_ones(self: Any, type: Any) -> Handle:
    kind = interpreter._get_np_dtype(type.scalar)
    return interpreter.TensorHandle(np.array([True] if kind.kind == "b" else [-1]).astype(kind), type.scalar)


def scalar(value: float, dtype: Any) -> Any:
    """A scalar tensor, as a kernel sees its arguments and loop variables."""
    return tl.tensor(interpreter.TensorHandle(np.array([value], dtype=interpreter._get_np_dtype(dtype)), dtype), dtype)


def loop(first: Any, last: Any = None, step: Any = 1, **_options: Any) -> Iterator[Any]:
    """``range`` in a kernel: its variable is a tensor, as in compiled code, so that ``i.to(tl.int64)`` works."""
    bounds = (0, first, step) if last is None else (first, last, step)
    wide = any(isinstance(x, tl.tensor) and x.dtype == tl.int64 for x in bounds)
    for i in range(*(x.__index__() for x in bounds)):
        yield scalar(i, tl.int64 if wide else tl.int32)


def _index(self: Any) -> int:
    return int(np.asarray(self.handle.data).reshape(-1)[0])


def install() -> None:
    """Mend the interpreter of this process, for good. Every kernel of the process runs with it."""
    assert triton.knobs.runtime.interpret, "TRITON_INTERPRET must be set before triton is imported"
    builder = interpreter.InterpreterBuilder
    replaced: dict[str, Callable[..., Any]] = {
        "create_clampf": _clamp,
        "create_fma": _fma,
        "create_dot": _dot,
        "get_all_ones_value": _all_ones,
    }
    for name in ("si_to_fp", "ui_to_fp", "fp_to_si", "fp_to_ui", "fp_ext", "fp_trunc"):
        replaced[f"create_{name}"] = lambda self, src, dst_type: _convert(src, dst_type)
    replaced["cast_impl"] = lambda self, src, dst_type: _convert(src, dst_type)
    replaced["create_int_cast"] = lambda self, src, dst_type, is_signed: _convert(src, dst_type)
    replaced["create_fp_to_fp"] = lambda self, src, dst_type, rounding: _convert(src, dst_type, rounding)
    arithmetic: dict[str, Callable[..., Any]] = {
        "fadd": np.add, "fsub": np.subtract, "fmul": np.multiply, "fdiv": np.divide, "precise_divf": np.divide, "frem": np.fmod,
        "maxnumf": _maximum, "minnumf": _minimum, "maximumf": _with_nan(_maximum), "minimumf": _with_nan(_minimum),
        "floor": np.floor, "ceil": np.ceil, "sqrt": np.sqrt, "precise_sqrt": np.sqrt, "exp": np.exp, "exp2": np.exp2, "log": np.log,
        "log2": np.log2, "sin": np.sin, "cos": np.cos, "rsqrt": lambda x: 1 / np.sqrt(x),
    }  # fmt: skip
    replaced |= {f"create_{name}": _arithmetic(op) for name, op in arithmetic.items()}
    ordered = {"LT": np.less, "GT": np.greater, "LE": np.less_equal, "GE": np.greater_equal, "EQ": np.equal}
    inverse = {"LT": np.greater_equal, "GT": np.less_equal, "LE": np.greater, "GE": np.less}
    for name, op in ordered.items():
        replaced[f"create_fcmpO{name}"] = _comparison(op)
        for sign in ("S", "U") if name != "EQ" else ("",):
            replaced[f"create_icmp{sign}{name}"] = _comparison(op)
    for name, op in inverse.items():
        replaced[f"create_fcmpU{name}"] = _comparison(lambda a, b, op=op: ~op(a, b))  # type: ignore[misc]
    replaced["create_fcmpUEQ"] = _comparison(lambda a, b: ~((a < b) | (a > b)))
    replaced["create_fcmpONE"] = _comparison(lambda a, b: (a < b) | (a > b))
    replaced["create_fcmpUNE"] = replaced["create_icmpNE"] = _comparison(np.not_equal)
    for name, function in replaced.items():
        assert hasattr(builder, name), f"Triton's interpreter has no {name}"
        setattr(builder, name, function)
    for name in FORMATS:
        setattr(builder, f"get_{name}", _constant(name))
    interpreter.ReduceOps.apply_impl = _reduce
    interpreter.ScanOps.apply_impl = _scan
    # Wrapping u32 arithmetic is meant; the check would call it a fault.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)

    # The interpreter swaps these entries in and out at every launch and every call of a helper; once is enough, and far quicker.
    interpreter._patch_lang(types.SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter.InterpretedFunction.__call__ = lambda self, *args, **kwargs: self.rewrite()(*args, **kwargs)
    tl.tensor.__index__ = _index
    tl.dtype.to_ir = lambda self, builder: self
    tl.range = tl.core.range = loop
