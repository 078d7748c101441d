"""What nsalang changes in what TileLang 0.1.15 does: two faults of its passes that the text of a program cannot avoid, the digits of numbers in its code
for HIP, its exponentials, and that it parses its own macros again at each use."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import math
import os
import re
import struct
from collections.abc import Iterator
from typing import Any

PROGRAMS = "nsalang_program_"
"""How the names of the modules begin that generated programs are executed as."""

MOST_BOOLS = 4
"""Lanes of a vector of bools for which TileLang has a type in CUDA's code."""

IEEE_ON_HIP = {
    ("float32", "ieee_add"): "__fadd_rn", ("float32", "ieee_sub"): "__fsub_rn", ("float32", "ieee_mul"): "__fmul_rn",
    ("float32", "ieee_fdiv"): "__fdiv_rn", ("float32", "ieee_fmaf"): "__fmaf_rn",
    ("float64", "ieee_add"): "__dadd_rn", ("float64", "ieee_sub"): "__dsub_rn", ("float64", "ieee_mul"): "__dmul_rn",
    ("float64", "ieee_fdiv"): "__ddiv_rn",
}  # fmt: skip
"""HIP's own functions that round once, for TileLang's, of which its printer for HIP knows none. Their last argument, the rounding, goes."""

_EXPONENTIALS = """
// The instruction alone, as Triton has it: exp2f takes four more for results below 2**-126, which may be 0 (nsalang/bounds.py).
__device__ __forceinline__ float nsalang_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float nsalang_exp(float x) { return nsalang_exp2(__fmul_rn(x, 1.4426950408889634f)); }

"""


def with_exponentials(text: str) -> str:
    """CUDA's code with exponentials of one instruction."""
    head, kernel, body = text.partition('extern "C" __global__')
    found = re.sub(r"\b(exp2?)f\(", r"nsalang_\1(", body)
    return text if found == body else head + _EXPONENTIALS + kernel + found


_EXTREMES = """
// TileLang has these of float alone: of two zeros that threads have, the first would stay whatever its sign.
namespace tl {
template <> TL_DEVICE double fast_max(double a, double b) { return fmax(a, b); }
template <> TL_DEVICE double fast_min(double a, double b) { return fmin(a, b); }
}  // namespace tl

"""


def for_cuda(text: str) -> str:
    """CUDA's code, mended."""
    return with_extremes(with_exponentials(text))


def with_extremes(text: str) -> str:
    """CUDA's code in which the extremes of doubles know zeros apart."""
    head, kernel, body = text.partition('extern "C" __global__')
    return head + _EXTREMES + kernel + body if re.search(r"\bdouble\b", body) and re.search(r"<tl::M(ax|in)Op\b", body) else text


def with_all_digits(function: Any) -> Any:
    """A lowered function that HIP's printer, which writes seven digits of a number, prints as it is: other numbers are said by their bits."""
    rewriter = _digits()()
    return function.with_body(rewriter.visit_stmt(function.body))


@functools.cache
def _digits() -> Any:
    from tvm import tirx

    forms = {"float32": ("<f", "<i", "int32", "__int_as_float"), "float64": ("<d", "<q", "int64", "__longlong_as_double")}

    @tirx.functor.mutator  # type: ignore[untyped-decorator, unused-ignore]
    class Digits(tirx.PyStmtExprMutator):  # type: ignore[misc, name-defined, unused-ignore]
        def visit_float_imm_(self, op: Any) -> Any:
            if str(op.dtype) not in forms or not math.isfinite(op.value):
                return op
            form, whole, bits, function = forms[str(op.dtype)]
            said = struct.pack(form, op.value)
            if said == struct.pack(form, float(f"{op.value:e}")):
                return op
            return tirx.call_pure_extern(op.dtype, function, tirx.IntImm(bits, *struct.unpack(whole, said)))

    return Digits


@contextlib.contextmanager
def mended() -> Iterator[None]:
    """TileLang without both faults and with macros that are parsed once, as long as the block runs."""
    _name_ieee_on_hip()
    with _guarded_loads_stay(), _bools_in_short_vectors(), _macros_parsed_once():
        yield


_closures: dict[tuple[int, tuple[str, ...]], tuple[Any, Any]] = {}
"""By the id of a macro's code and the names that have values: that code, which so stays alive, and what makes the macro's generator of the values that its names have."""


@contextlib.contextmanager
def _macros_parsed_once() -> Iterator[None]:
    """TileLang's reductions and products are macros that are defined anew wherever a program uses one, and each definition is read from its file,
    parsed, rewritten and printed: a second of a program's time. Kept is what depends on the text alone. A program itself is read once anyway."""
    builder: Any = importlib.import_module("tilelang.language.eager.builder")
    language: Any = importlib.import_module("tilelang.language.eager.ast")
    tools: Any = importlib.import_module("tilelang.language.eager.utils")
    before = builder.mutate

    def parsed(function: Any) -> Any:
        code, names = function.__code__, tools.get_func_nonlocals(function)
        if function.__module__.startswith(PROGRAMS):
            return before(function)
        key = (id(code), tuple(names))
        if key not in _closures:
            file = inspect.getsourcefile(function) or inspect.getfile(function)
            rewriter = language.DSLMutator(names, function.__globals__, os.path.abspath(file))
            tree = rewriter.visit(tools.get_ast(function))
            if rewriter.extra_type_hints:
                # They come from the values of names.
                return before(function)
            _closures[key] = (code, tools.get_compiled_object(tree, "make_closure", file, function.__globals__))
        return language.IRGenerator(gen=_closures[key][1](**names), source="")

    builder.mutate = parsed
    try:
        yield
    finally:
        builder.mutate = before


@functools.cache
def _name_ieee_on_hip() -> None:
    """Tell TVM, once, what it is to print for TileLang's functions that round once in HIP's code."""
    from tvm import tirx
    from tvm.ir import register_intrin_lowering

    def rule(name: str) -> Any:
        return lambda call: tirx.call_pure_extern(call.dtype, IEEE_ON_HIP[str(call.dtype), name], *call.args[:-1])

    for name in {name for _, name in IEEE_ON_HIP}:
        register_intrin_lowering(f"tl.{name}", target="hip", f=rule(name))


@contextlib.contextmanager
def _guarded_loads_stay() -> Iterator[None]:
    """TileLang's pass DecoupleTypeCast reads what a statement with a cast loads into registers first, also what stands under an `if_then_else`: the
    load leaves its guard, and a mask that compares 64-bit integers has such a cast. It must not see these statements."""
    module: Any = importlib.import_module("tilelang.transform.decouple_type_cast")
    from tvm import ir, tirx

    had_cast = module._has_cast
    choice = ir.Op.get("tirx.if_then_else")

    def loads(expression: Any) -> bool:
        found: list[bool] = []
        tirx.stmt_functor.post_order_visit(
            expression,
            lambda n: found.append(True) if isinstance(n, tirx.BufferLoad) and module.is_global_or_shared_buffer(n.buffer) else None,
        )
        return bool(found)

    def has_cast(statement: Any) -> bool:
        guarded: list[bool] = []

        def look(node: Any) -> None:
            if isinstance(node, tirx.Call) and node.op.same_as(choice) and (loads(node.args[1]) or loads(node.args[2])):
                guarded.append(True)

        tirx.stmt_functor.post_order_visit(statement, look)
        return had_cast(statement) and not guarded

    module._has_cast = has_cast
    try:
        yield
    finally:
        module._has_cast = had_cast


@contextlib.contextmanager
def _bools_in_short_vectors() -> Iterator[None]:
    """TileLang makes vectors of as many lanes as have 16 bytes, of bools and of comparisons of bytes too, and then has no type for them. Behind
    the last pass that plans vectors, a loop of more than MOST_BOOLS lanes that computes bools becomes several of so many."""
    transform: Any = importlib.import_module("tilelang.transform")
    from tvm import tirx

    before = transform.LegalizeVectorizedLoop

    def after() -> Any:
        from tvm.ir.transform import Sequential

        return Sequential([before(), tirx.transform.prim_func_pass(_shorten, opt_level=0, name="nsalang.ShortVectorsOfBools")])

    transform.LegalizeVectorizedLoop = after
    try:
        yield
    finally:
        transform.LegalizeVectorizedLoop = before


def _shorten(function: Any, module: Any, context: Any) -> Any:
    from tvm import tirx

    def split(loop: Any) -> Any:
        wide = loop.kind == tirx.ForKind.VECTORIZED and int(loop.extent) > MOST_BOOLS and int(loop.extent) % MOST_BOOLS == 0
        if not wide or not _computes_bools(loop):
            return None
        part, lane = (tirx.Var(f"{loop.loop_var.name}_{what}", loop.loop_var.dtype) for what in ("part", "lane"))
        body = tirx.stmt_functor.substitute(loop.body, {loop.loop_var: part * MOST_BOOLS + lane})
        inner = tirx.For(lane, 0, MOST_BOOLS, tirx.ForKind.VECTORIZED, body, annotations=loop.annotations)
        return tirx.For(part, 0, int(loop.extent) // MOST_BOOLS, tirx.ForKind.UNROLLED, inner)

    return function.with_body(tirx.stmt_functor.ir_transform(function.body, None, split, ["tirx.For"]), span=function.span)


def _computes_bools(loop: Any) -> bool:
    """Whether the lanes of a loop have bools of their own. A condition is the same for all lanes: TileLang plans its vectors so."""
    from tvm import ir, tirx

    choice, copy = ir.Op.get("tirx.if_then_else"), ir.Op.get("tl.ptx_cp_async")
    conditions: list[Any] = []
    bools: list[Any] = []

    def look(node: Any) -> None:
        if isinstance(node, tirx.IfThenElse | tirx.Select):
            conditions.append(node.condition)
        elif isinstance(node, tirx.Call) and node.op.same_as(choice):
            conditions.append(node.args[0])
        elif isinstance(node, tirx.Call) and node.op.same_as(copy):
            conditions.extend(node.args[3:])
        value = node.value if isinstance(node, tirx.BufferStore) else node
        if isinstance(value, tirx.PrimExpr) and value.dtype == "bool":
            bools.append(value)

    tirx.stmt_functor.post_order_visit(loop.body, look)
    uniform: set[Any] = set()
    for condition in conditions:
        tirx.stmt_functor.post_order_visit(condition, uniform.add)
    return any(b not in uniform for b in bools)
