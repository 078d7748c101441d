"""The text of the IR: what it looks like, and that kernels which differ print differently."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from ir_kernels import (
    M,
    N,
    act_quant,
    cast,
    f32,
    full,
    guarded_row_max,
    index,
    kernel,
    load,
    reduce,
    rows,
    softmax,
    store,
    tensor,
    unary,
    var,
    where,
)

from nsalang import ir
from nsalang.base.dtypes import BF16, BOOL, E4M3, E4M3_FNUZ, F16, F32, I8, I32, I64, U8, U32, DType
from nsalang.base.source import Source, Span
from nsalang.ir.operations import REDUCTIONS
from nsalang.ir.printer import number, print_kernel, show

m, n = index("m"), index("n")
x = load("x", F32, m, n)


def test_softmax() -> None:
    assert (
        print_kernel(softmax())
        == """\
def softmax(x: in f32[M, N], y: out f32[M, N]):
    # dims: M, N
    for m in grid(tile(M)):
        top: f32[m] = full(m, f32.min)
        total: f32[m] = full(m, 0.0)
        for n in tile(0, N):  # carries top, total
            new: f32[m] = maximum(top, max(x[m, n], axis=n))
            total: f32[m] = total * exp(top - new) + sum(exp(x[m, n] - new), axis=n)
            top: f32[m] = new
        for n.2 in tile(0, N):
            y[m, n.2] = exp(x[m, n.2] - top) / total
"""
    )


def test_masks_and_schedule() -> None:
    assert (
        print_kernel(guarded_row_max())
        == """\
def row_max(x: in f32[M, N], y: out f32[M]):
    # dims: M, N
    # schedule: no backend, warps 4, stages 1, wide, unaligned
    # order: m, n
    # lanes: m 4, n 8
    for m in grid(tile(M)):
        top: f32[m] = full(m, -inf)
        for n in tile(0, N):  # carries top
            top: f32[m] = maximum(top, max(where(n < N, load(x[m, n], mask=(m < M) & (n < N)), -inf), axis=n))
        store(y[m], top, mask=m < M)
"""
    )


def b(op: ir.BinaryOp, left: ir.Expr, right: ir.Expr) -> ir.Binary:
    return ir.binary(op, left, right)


i, j, k = (ir.Scalar(I64, (), name) for name in "ijk")


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (b("sub", i, b("sub", j, k)), "i - (j - k)"),
        (b("sub", b("sub", i, j), k), "i - j - k"),
        (b("mul", b("add", i, j), k), "(i + j) * k"),
        (b("floordiv", i, b("mod", j, k)), "i // (j % k)"),
        (b("and", b("lt", i, j), b("or", b("eq", j, k), b("ne", i, k))), "(i < j) & ((j == k) | (i != k))"),
        (b("eq", b("lt", i, j), b("lt", j, k)), "(i < j) == (j < k)"),
        (b("shl", b("add", i, j), k), "i + j << k"),
        (b("add", i, b("shl", j, k)), "i + (j << k)"),
        (unary("neg", ir.const(1)), "-(1)"),
        (ir.const(-1), "-1"),
        (unary("neg", b("mul", i, j)), "-(i * j)"),
        (b("mul", unary("neg", i), j), "-i * j"),
        (unary("not", b("lt", i, j)), "~(i < j)"),
        (b("tdiv", i, j), "tdiv(i, j)"),
        (b("max", i, j), "maximum(i, j)"),
        (cast(F32, i), "f32(i)"),
        (cast(F32, b("add", i, j), "raw"), "(i + j).to(f32)"),
        (cast(U8, i, "wrap"), "wrap(i, u8)"),
        (ir.Bitcast(U32, (), f32(1.0)), "bitcast(1.0, u32)"),
        (cast(BF16, f32(1.0)), "bf16(1.0)"),
        (ir.const(1.0, BF16), "1.0:bf16"),
        (ir.const(1, I32), "1:i32"),
        (ir.const(True, BOOL), "True"),
        (f32(0.10000000149011612), "0.1"),
        (f32(float("-inf")), "-inf"),
        (index("n", dtype=I32), "n:i32"),
        (reduce("sum", x, "m", "n"), "sum(x[m, n], axis=(m, n))"),
        (reduce("sum", b("lt", x, x), "n", dtype=I32), "typed(sum(x[m, n] < x[m, n], axis=n), i32)"),
        (ir.Scan(F32, ("m", "n"), x, "n", True, True), "cumsum(x[m, n], axis=n, exclusive, reverse)"),
        (ir.Dot(F32, ("m",), x, x, "n"), "dot(x[m, n], x[m, n], axis=n)"),
        (
            ir.Dot(F32, ("m",), x, x, "n", full(f32(0.0), "m"), "tf32", 128, ("m",)),
            'dot(x[m, n], x[m, n], axis=n, acc=full(m, 0.0), precision="tf32", promote=128, left=(m))',
        ),
        (ir.Dot(I32, (), load("i", I8, m), load("i", I8, m), "m"), "typed(dot(i[m], i[m], axis=m), i32)"),
        (where(b("lt", m, n), x, f32(0.0)), "where(m < n, x[m, n], 0.0)"),
        (ir.Fma(F32, (), f32(1.0), f32(2.0), f32(-3.0)), "fma(1.0, 2.0, -3.0)"),
        (load("x", F32, m, guard=b("lt", m, M)), "load(x[m], guard=m < M)"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_expressions(node: ir.Expr, text: str) -> None:
    assert show(node) == text


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (float(F32.max), F32, "f32.max"), (float(F32.min), F32, "f32.min"), (65504.0, F16, "f16.max"), (448.0, E4M3, "e4m3.max"),
        (240.0, E4M3_FNUZ, "e4m3fnuz.max"), (float("inf"), F32, "inf"), (float("nan"), F32, "nan"), (-0.0, F32, "-0.0"),
        (2.0**-149, F32, "1e-45"), (16777216.0, F32, "16777216.0"), (0.0022321429569274187, F32, "0.002232143"),
        (3.4028232635611926e38, F32, "3.4028233e+38"),
    ],
)  # fmt: skip
def test_numbers_are_short_and_exact(value: float, dtype: DType, text: str) -> None:
    assert number(value, dtype) == text


def test_32_bit_integers_are_said_once() -> None:
    i32 = index("m", dtype=I32)
    body = ir.Store("y", (i32,), cast(F32, ir.binary("add", i32, ir.const(1, I32)), "raw"), ("m",))
    text = print_kernel(kernel("narrow", (tensor("y", F32, "out", M),), (rows(),), body, dims="M"))
    assert "    # integers: i32\n" in text and "y[m] = (m + 1).to(f32)\n" in text
    mixed = dataclasses.replace(body, value=cast(F32, ir.binary("add", m, ir.const(1)), "raw"))
    text = print_kernel(kernel("mixed", (tensor("y", F32, "out", M),), (rows(),), mixed, dims="M"))
    assert "y[m:i32] = (m + 1).to(f32)\n" in text


# ------------------------------------------------------------------------------------------------------- differences show in the text


def everything() -> ir.Kernel:
    """A kernel with every node and every optional part; it need not be well typed."""
    c = var("c", I64)
    span = ir.SpanAxis("c", ir.const(0), 5, N)
    masked = ir.Load(F32, ("m", "n"), "x", (m, n), b("lt", m, M), b("lt", n, N), f32(0.0), ir.Proof("HOISTED", ("author", "tail")))
    body = (
        span,
        ir.Assign("v", ir.Fma(F32, ("m", "n"), masked, f32(2.0), where(b("ge", m, n), x, f32(-1.0)))),
        ir.Assign("c", cast(I64, ir.Bitcast(U32, (), ir.Scalar(F32, (), "eps")))),
        ir.For("i", "range", ir.const(1), c, (ir.Assign("c", b("floordiv", c, index("i", scalar=True))),), ("c",)),
        ir.If(b("lt", c, ir.const(4)), (ir.Assign("t", ir.Full(F32, ("m",), f32(1.0))),), (ir.Assign("u", ir.const(2)),)),
        ir.Assign("z", ir.Scan(F32, ("m", "n"), var("v", F32, "m", "n"), "n", True, True)),
        ir.Assign("d", ir.Dot(F32, ("m",), x, x, "n", full(f32(1.0), "m"), "tf32", 64, ("m",)), "shared"),
        ir.For("j", "tile", ir.const(0), N, (ir.Assign("l", load("x", F32, m, n)),), (), 2, ("l", "r")),
        ir.Assign("s", ir.Border(I64, ("m",), ir.Search(I64, ("m",), "cu", m, b("lt", m, M)), ir.const(3), index("i", scalar=True))),
        ir.Store("y", (m, n), load("w", F32, m), ("m", "n"), mode="add", proof=ir.Proof("PROVED")),
        ir.Store("y", (m, n), x, ("m", "n"), mode="scatter"),
        ir.Store(
            "y",
            (m, n),
            unary("exp", var("z", F32, "m", "n")),
            ("m", "n"),
            b("lt", m, M),
            b("lt", n, N),
            proof=ir.Proof("GUARDED", ("tail",)),
        ),
    )
    element = ir.Load(I64, (), "cu", (ir.Index(I64, (), "each0"),))
    made = kernel(
        "all",
        (tensor("x", F32, "in", M, N), tensor("cu", I64, "in", M), tensor("y", F32, "out", M, N)),
        (rows(), ir.GridIndex("n", N, False)),
        *body,
    )
    return dataclasses.replace(
        made,
        scalars=(ir.ScalarParam("eps", F32),),
        requires=(ir.Require(b("gt", N, ir.const(0)), "N > 0", True),),
        partial=("y",),
        constants=(("G", "128"),),
        views=(ir.View("w", F32, (M,), "x", ir.const(64), (ir.const(4),), "in"),),
        promises=(
            ir.Promise("each", ("cu",), b("lt", element, M), "cu < M"),
            ir.Promise("sorted", ("cu",), None, "sorted(cu)", True),
            ir.Promise("distinct", ("cu",), None, "distinct(cu)"),
        ),
        hoists=(ir.Require(b("eq", b("mod", N, ir.const(8)), ir.const(0)), "N % 8 == 0"),),
        checks=(ir.Check("index", N, "x", 1), ir.Check("divisor", ir.const(0))),
        schedule=ir.Schedule(
            "triton",
            (("m", 4), ("n", 8)),
            ("m", "n"),
            8,
            2,
            False,
            True,
            (("m", 4),),
            ("m: pinned",),
            classes=(("m", 16, 64),),
            sized=(("m", 16),),
            rows=("x",),
        ),
    )


# Types and axes of these follow from elsewhere; verify holds them to it.
DERIVED = {"dtype": (ir.Var, ir.Load, ir.Scalar), "axes": (ir.Value, ir.Store)}


def changed(value: object) -> Iterator[object]:
    """Values of the same kind as ``value``, but different."""
    match value:
        case bool():
            yield not value
        case "range" | "tile":
            yield "tile" if value == "range" else "range"
        case "ieee" | "tf32":
            yield "tf32" if value == "ieee" else "ieee"
        case "shared":
            yield None
        case "set" | "scatter" | "add":
            yield from {"set", "scatter", "add"} - {value}
        case ir.Proof():
            yield from (None, ir.Proof("UNKNOWN", value.mask), ir.Proof(value.verdict, ("bounds", *value.mask)))
        case "convert" | "raw" | "wrap":
            yield from {"convert", "raw", "wrap"} - {value}
        case str():
            yield value + "_"
        case int():
            yield value + 1
        case float():
            yield value / 2 + 0.25 if abs(value) < 1e30 else 0.25
        case DType():
            yield BF16 if value is not BF16 else F16
        case tuple():
            if value:
                yield value[1:]
        case None:
            yield b("eq", ir.const(7), ir.const(8))
        case _:
            pass


def other_ops(node: ir.Node) -> tuple[str, ...]:
    if isinstance(node, ir.Binary):
        return tuple(o for o in ("add", "sub", "lt", "ge", "min", "tdiv", "xor") if o != node.op)
    if isinstance(node, ir.Reduce):
        return tuple(o for o in REDUCTIONS if o != node.op)
    return ("log", "neg", "not")


def variants(node: ir.Node) -> Iterator[ir.Node]:
    for part in dataclasses.fields(node):
        if part.name == "span" or (isinstance(node, DERIVED.get(part.name, ())) and not isinstance(node, ir.Full)):
            continue
        old = getattr(node, part.name)
        if old == () and part.name in ("carried", "partial", "dims"):
            yield dataclasses.replace(node, **{part.name: ("more",)})  # type: ignore[arg-type]
        if isinstance(old, ir.Schedule):
            yield from (dataclasses.replace(node, schedule=s) for s in replaced(old))  # type: ignore[call-arg]
            continue
        if part.name in ("promises", "checks"):  # walk does not see them
            for i, inner in enumerate(old):
                yield from (dataclasses.replace(node, **{part.name: (*old[:i], v, *old[i + 1 :])}) for v in variants(inner))  # type: ignore[arg-type]
        candidates = other_ops(node) if part.name == "op" else changed(old)
        for new in candidates:
            if part.name == "storage" and old is None:
                new = U8
            if part.name == "fill":
                new = f32(5.0)
            if isinstance(node, ir.Tensor | ir.View) and part.name == "role":
                new = "inout"
            if part.name == "proof" and old is None:
                new = ir.Proof("PROVED")
            yield dataclasses.replace(node, **{part.name: new})  # type: ignore[arg-type]
        if old is not None and part.name in ("guard", "mask", "fill", "stop"):
            yield dataclasses.replace(node, **{part.name: None})


def replaced(s: ir.Schedule) -> Iterator[ir.Schedule]:
    for part in dataclasses.fields(s):
        for new in changed(getattr(s, part.name)):
            yield dataclasses.replace(s, **{part.name: "tilelang" if part.name == "backend" else new})  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [everything, softmax, act_quant, guarded_row_max])
def test_every_change_shows(make: object) -> None:
    k: ir.Kernel = make()  # type: ignore[operator]
    seen = {print_kernel(k): "the kernel itself"}
    nodes = list(ir.walk(k))
    for position, node in enumerate(nodes):
        for variant in variants(node):
            if isinstance(node, ir.Kernel):
                text = print_kernel(variant)  # type: ignore[arg-type]
            else:
                text = print_kernel(_replace(k, position, variant))
            assert text not in seen, f"{variant} prints like {seen[text]}:\n{text}"
            seen[text] = f"{node} at {position}"
    assert len(seen) > 60


def _replace(k: ir.Kernel, position: int, variant: ir.Node) -> ir.Kernel:
    """``k`` with the node at a position of ``walk`` replaced; a node may stand in several places, so the way is by position."""
    count = iter(range(10**6))

    def visit(node: ir.Node) -> ir.Node:
        if next(count) == position:
            for _ in list(ir.walk(node))[1:]:
                next(count)
            return variant
        changes: dict[str, object] = {}
        for part in dataclasses.fields(node):
            old = getattr(node, part.name)
            if part.name in ("span", "schedule", "promises", "checks"):
                continue
            if isinstance(old, ir.Node):
                changes[part.name] = visit(old)
            elif isinstance(old, tuple) and old and isinstance(old[0], ir.Node):
                changes[part.name] = tuple(visit(o) for o in old)
        return dataclasses.replace(node, **changes)  # type: ignore[arg-type]

    found = visit(k)
    assert isinstance(found, ir.Kernel)
    return found


def test_positions_do_not_show() -> None:
    span = Span(Source("elsewhere"), 3, 1, 3, 4)
    moved = ir.rewrite(softmax(), lambda node: dataclasses.replace(node, span=span))
    assert print_kernel(moved) == print_kernel(softmax())
    assert not store("y", x, m, n).span
