"""What verify lets through, and that each of its claims can fail."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

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
    scheduled,
    softmax,
    store,
    tensor,
    unary,
    var,
)

from nsalang import ir
from nsalang.base.dtypes import BF16, BOOL, E4M3, F32, I8, I32, I64, U32
from nsalang.base.source import Source, Span
from nsalang.ir.verify import STAGES, flat, verify

m, n = index("m"), index("n")
x = load("x", F32, m, n)
inside = ir.binary("lt", m, M)
LOOP = ir.For("n", "tile", ir.const(0), N, ())


def over_n(*body: ir.Stmt, carried: tuple[str, ...] = ()) -> ir.For:
    return dataclasses.replace(LOOP, body=body, carried=carried)


def with_body(*body: ir.Stmt) -> ir.Kernel:
    return kernel("k", (tensor("x", F32, "in", M, N), tensor("y", F32, "out", M, N), tensor("b", BF16, "inout", M)), (rows(),), *body)


def assign(value: ir.Expr, name: str = "v") -> ir.For:
    return over_n(ir.Assign(name, value))


@pytest.mark.parametrize("k", [softmax(), act_quant(), act_quant(64, True)], ids=lambda k: k.name)
def test_good_kernels_pass(k: ir.Kernel) -> None:
    verify(k, "typecheck")
    verify(k, "simplify")
    ordered = scheduled(k, **({"m": 8, "n": 128} | ({"n_2": 16} if k.name == "softmax" else {})))
    verify(proved(ordered), "tiles")


def test_stages_are_those_of_the_passes() -> None:
    from nsalang.passes import PASSES

    assert [s.name for s in STAGES] == ["typecheck", *(name for name, _ in PASSES)]


def test_the_message_names_the_stage_and_the_place() -> None:
    span = Span(Source("", "a.nsa"), 3, 5, 3, 9)
    bad = assign(ir.Where(F32, ("m", "n"), dataclasses.replace(x, span=span), x, x, span=span))
    with pytest.raises(AssertionError, match=re.escape("k after simplify: a.nsa:3:5: ") + "|where on f32"):
        verify(with_body(bad), "simplify")
    with pytest.raises(AssertionError, match="def k"):
        verify(with_body(bad), "simplify")
    with pytest.raises(AssertionError, match="no stage 'lower'"):
        verify(softmax(), "lower")


def proved(k: ir.Kernel) -> ir.Kernel:
    """With a proof of every access that has none: it is GUARDED by its mask, else PROVED."""

    def rule(node: ir.Node) -> ir.Node:
        if not isinstance(node, ir.Load | ir.Store) or node.proof is not None:
            return node
        return dataclasses.replace(node, proof=ir.Proof("PROVED") if node.mask is None else ir.Proof("GUARDED", ("tail",)))

    return ir.rewrite(k, rule)


def bad_add(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return ir.Binary(a.dtype, ir.join(a.axes, b.axes, order=("m", "n")), "add", a, b)


def condition() -> ir.Expr:
    return ir.binary("lt", m, n)


BREACHES: dict[str, Callable[[], ir.Stmt | tuple[ir.Stmt, ...]]] = {
    "f32 and i64 in": lambda: assign(bad_add(x, n)),
    "has axes ('n', 'm'), and its parts have ('m', 'n')": lambda: assign(ir.Binary(I64, ("n", "m"), "add", n, m)),
    "has axes ('m',), and its parts have ('m', 'n')": lambda: assign(ir.Binary(I64, ("m",), "add", m, n)),
    "i64 does not follow from the operands": lambda: assign(ir.Binary(I64, ("m", "n"), "lt", m, n)),
    "v is not defined here": lambda: assign(var("v", F32, "m"), "w"),
    "v is i64[m], and is used as f32[m]": lambda: (ir.Assign("v", m), ir.Assign("w", var("v", F32, "m"))),
    "v is i64[m] and f32[m]": lambda: (ir.Assign("v", m), ir.Assign("v", full(f32(0.0), "m"))),
    "t is not defined here": lambda: (ir.If(ir.const(True, BOOL), (ir.Assign("t", m),)), ir.Assign("v", var("t", I64, "m"))),
    "axis n does not exist here": lambda: (over_n(), ir.Assign("v", n)),
    "index i does not exist here": lambda: (
        ir.For("i", "range", ir.const(0), N, ()), ir.Assign("v", index("i", scalar=True)),
    ),
    "the loop over n carries ['v'], not []": lambda: (ir.Assign("v", m), over_n(ir.Assign("v", m))),
    "the loop over n carries [], not ['v']": lambda: over_n(ir.Assign("v", m), carried=("v",)),
    "two index variables of one name": lambda: (over_n(), over_n()),
    "a branch on bool[m]": lambda: ir.If(inside, ()),
    "a branch on i64[]": lambda: ir.If(N, ()),
    "a bound is i64[m]": lambda: dataclasses.replace(LOOP, hi=m),
    "a bound is f32[]": lambda: ir.For("i", "range", ir.const(0), f32(0.0), ()),
    "the span c has length -1": lambda: ir.SpanAxis("c", ir.const(0), -1),
    "where on i64": lambda: assign(ir.Where(F32, ("m", "n"), m, x, x)),
    "where between f32 and i64": lambda: assign(ir.Where(F32, ("m", "n"), condition(), x, n)),
    "wrap is for integers": lambda: assign(cast(I8, x, "wrap")),
    "bf16 has not the width of u32": lambda: assign(ir.Bitcast(U32, ("m",), load("b", BF16, m))),
    "fma of other than f32": lambda: assign(ir.Fma(F32, ("m", "n"), x, x, n)),
    "'not' of i64": lambda: assign(unary("not", n)),
    "'exp' of i64": lambda: assign(unary("exp", n)),
    "'neg' of bool": lambda: assign(unary("neg", condition())),
    "'add' of e4m3": lambda: assign(ir.binary("add", cast(E4M3, x), cast(E4M3, x))),
    "'floordiv' of f32": lambda: assign(ir.binary("floordiv", x, x)),
    "'div' of i64": lambda: assign(ir.binary("div", n, n)),
    "'and' of f32": lambda: assign(ir.binary("and", x, x)),
    "no proper axes": lambda: assign(reduce("max", x)),
    "an axis that is not there is reduced": lambda: assign(ir.Reduce(F32, ("m",), "max", m, ("n",))),
    "max(x[m, n], axis=n) has axes ('m', 'n')": lambda: assign(ir.Reduce(F32, ("m", "n"), "max", x, ("n",))),
    "'any' of f32": lambda: assign(reduce("any", x, "n")),
    "bf16 does not follow from the operand": lambda: assign(reduce("sum", x, "n", dtype=BF16)),
    "argmax over several axes": lambda: assign(reduce("argmax", x, "m", "n", dtype=I64)),
    "no axis n on both sides": lambda: assign(ir.Dot(F32, ("m",), x, full(f32(0.0), "m"), "n")),
    "has axes ('m', 'n'), and its parts have ('m',)": lambda: assign(ir.Dot(F32, ("m", "n"), x, x, "n")),
    "a product of f32 and bf16": lambda: assign(ir.Dot(F32, ("m",), x, cast(BF16, x), "n")),
    "a product of i64 and i64": lambda: assign(ir.Dot(I64, (), n, n, "n")),
    "bf16 does not follow from the operands of": lambda: assign(ir.Dot(BF16, ("m",), x, x, "n")),
    "tf32 of bf16": lambda: assign(ir.Dot(F32, ("m",), cast(BF16, x), cast(BF16, x), "n", precision="tf32")),
    "added up every -1 terms": lambda: assign(ir.Dot(F32, ("m",), x, x, "n", promote=-1)),
    "f32[m] is added to f32[]": lambda: assign(ir.Dot(F32, ("m",), x, x, "n", f32(0.0))),
    "('m',) are not the free axes of one side": lambda: assign(ir.Dot(F32, ("m",), x, x, "n", left=("m",))),
    "no axis m.2": lambda: assign(ir.Scan(F32, ("m", "n"), x, "m.2")),
    "there is no tensor z": lambda: assign(load("z", F32, m)),
    "x has 2 axes and 1 indices": lambda: assign(load("x", F32, m)),
    "x is indexed by f32": lambda: assign(load("x", F32, m, x)),
    "x holds f32, and is read as bf16": lambda: assign(load("x", BF16, m, n)),
    "the output y is read": lambda: assign(load("y", F32, m, n)),
    "the input x is written": lambda: over_n(store("x", x, m, n)),
    "an access of x is guarded by i64": lambda: assign(load("x", F32, m, n, guard=m)),
    "x is accessed over ('m',) and guarded by": lambda: assign(load("x", F32, m, ir.const(0), guard=condition())),
    "bf16 is stored into y": lambda: over_n(store("y", cast(BF16, x), m, n)),
    "a store to y has axes ('m',)": lambda: over_n(ir.Store("y", (m, n), x, ("m",))),
    "no dimension is K": lambda: assign(ir.Dim(I64, (), "K")),
    "no scalar parameter is s": lambda: assign(ir.Scalar(F32, (), "s")),
    "the constant 1 is f32": lambda: assign(ir.Const(F32, (), 1)),
    "the constant 300 does not fit i8": lambda: assign(cast(I64, ir.const(300, I8))),
    # What only machines have, before the pass that makes it.
    "a mask in": lambda: assign(dataclasses.replace(x, mask=inside)),
    "a raw cast in": lambda: assign(cast(BF16, x, "raw")),
    "a truncating division in": lambda: assign(ir.binary("tdiv", n, n)),
    "i32 in": lambda: assign(ir.binary("add", cast(I32, n), ir.const(1, I32))),
}  # fmt: skip


@pytest.mark.parametrize("message", BREACHES)
def test_every_kernel(message: str) -> None:
    made = BREACHES[message]()
    with pytest.raises(AssertionError, match=re.escape(message)):
        verify(with_body(*(made if isinstance(made, tuple) else (made,))), "typecheck")


def test_the_head_of_a_kernel() -> None:
    k = softmax()
    for changes, message in (
        ({"tensors": (*k.tensors, tensor("x", F32, "in", M))}, "two parameters or views of one name"),
        ({"dims": ("M", "N", "M")}, "two dimensions of one name"),
        (
            {"grid": (ir.GridIndex("m", load("s", I64, N), True),), "tensors": (*k.tensors, tensor("s", I64, "in", M))},
            "s[N] is needed before",
        ),
        ({"requires": (ir.Require(N, "N"),)}, "the condition 'N' is i64"),
        ({"partial": ("x",)}, "partial(x) names no output"),
    ):
        with pytest.raises(AssertionError, match=re.escape(message)):
            verify(dataclasses.replace(k, **changes), "typecheck")


def done() -> ir.Kernel:
    """The maximum of each row as after the last pass."""
    mask = ir.binary("and", inside, ir.binary("lt", n, N))
    tile, top = ir.Assign("x_tile", ir.Load(F32, ("m", "n"), "x", (m, n), None, mask, f32(float("-inf")))), var("top", F32, "m")
    k = kernel(
        "done", (tensor("x", F32, "in", M, N), tensor("y", F32, "out", M)), (rows(),),
        ir.Assign("top", full(f32(float("-inf")), "m")),
        over_n(
            tile, ir.Assign("new", reduce("max", var("x_tile", F32, "m", "n"), "n")),
            ir.Assign("top", ir.binary("max", top, var("new", F32, "m"))), carried=("top",),
        ),
        ir.Store("y", (m,), top, ("m",), None, inside),
    )  # fmt: skip
    return scheduled(k, m=4, n=8)


def in_loop(*body: ir.Stmt) -> Callable[[ir.Kernel], ir.Kernel]:
    def change(k: ir.Kernel) -> ir.Kernel:
        def rule(node: ir.Node) -> ir.Node:
            return dataclasses.replace(node, body=(*node.body, *body)) if isinstance(node, ir.For) else node

        return ir.rewrite(k, rule)

    return change


def schedule(**changes: object) -> Callable[[ir.Kernel], ir.Kernel]:
    return lambda k: dataclasses.replace(k, schedule=dataclasses.replace(k.schedule, **changes))  # type: ignore[arg-type]


top = var("top", F32, "m")
masked = ir.Load(F32, ("m", "n"), "x", (m, n), None, inside)
tile_max = reduce("max", var("x_tile", F32, "m", "n"), "n")


def with_c(lanes: int, *body: ir.Stmt) -> Callable[[ir.Kernel], ir.Kernel]:
    """With a span c of so many lanes."""
    return lambda k: schedule(lengths=(("m", 4), ("n", 8), ("c", lanes)), order=("m", "n", "c"))(in_loop(span, *body)(k))


def with_proof(node: ir.Load, verdict: str, *mask: str) -> ir.Load:
    return dataclasses.replace(node, proof=ir.Proof(verdict, mask))  # type: ignore[arg-type]


span = ir.SpanAxis("c", ir.const(0), 5)
LATER: list[tuple[str, str, Callable[[ir.Kernel], ir.Kernel]]] = [
    ("order", "the order ('m',) is not that of the axes", schedule(order=("m",))),
    ("order", "the order ('m', 'n', 'n') is not that", schedule(order=("m", "n", "n"))),
    ("tiles", "axis n has no machine length", schedule(lengths=(("m", 4),))),
    ("tiles", "an axis has two lengths", schedule(lengths=(("m", 4), ("n", 8), ("n", 8)))),
    ("tiles", "n has 6 lanes, which is no power of two", schedule(lengths=(("m", 4), ("n", 6)))),
    ("tiles", "no launch has so many warps", schedule(warps=3)),
    ("tiles", "c has 4 lanes for a span of 5", with_c(4)),
    ("guard", "a guard without a mask in", in_loop(ir.Assign("w", ir.Load(F32, ("m", "n"), "x", (m, n), inside)))),
    ("guard", "a guard without a mask at a store to y", in_loop(ir.Store("y", (m,), top, ("m",), inside))),
    ("guard", "a fill without a mask in", in_loop(ir.Assign("w", ir.Load(F32, ("m", "n"), "x", (m, n), None, None, f32(0.0))))),
    ("guard", "padded lanes of c are stored to y", with_c(8, ir.Store("y", (index("c"),), f32(0.0), ("c",)))),
    ("expand", "no machine has", in_loop(ir.Assign("w", ir.Border(I64, (), N, M, M)))),
    ("assume", "an exact variant of a kernel that hoists nothing", schedule(exact=True)),
    (
        "assume", "index m does not exist here",
        lambda k: dataclasses.replace(k, hoists=(ir.Require(ir.binary("eq", index("m", scalar=True), M), "m == M"),)),
    ),
    ("guard", "an access of x has a mask of ('tail',), and none", in_loop(ir.Assign("w", with_proof(x, "GUARDED", "tail")))),
    ("guard", "the mask is made of ()", in_loop(ir.Assign("w", with_proof(masked, "GUARDED")))),
    ("guard", "bounds at a PROVED access", in_loop(ir.Assign("w", with_proof(masked, "PROVED", "bounds")))),
    ("guard", "a tail at a PROVED access", in_loop(ir.Assign("w", with_proof(masked, "PROVED", "tail")))),
    ("guard", "nothing guards", in_loop(ir.Assign("w", with_proof(masked, "GUARDED", "author")))),
    ("guard", "a variant that is not exact hoists", in_loop(ir.Assign("w", with_proof(x, "HOISTED")))),
    ("legalize", "no machine has sigmoid", in_loop(ir.Assign("w", unary("sigmoid", top)))),
    ("legalize", "no machine has m // 2", in_loop(ir.Assign("w", ir.binary("floordiv", m, ir.const(2))))),
    ("legalize", "no machine has absmax", in_loop(ir.Assign("w", reduce("absmax", var("x_tile", F32, "m", "n"), "n")))),
    ("legalize", "a cast that is not raw", in_loop(ir.Assign("w", cast(BF16, top)))),
    ("legalize", "bf16 arithmetic", in_loop(ir.Assign("w", unary("exp", cast(BF16, top, "raw"))))),
    ("width", "N is i64, and offsets are i32", schedule(wide=False)),
    ("width", "i8 in", in_loop(ir.Assign("w", ir.binary("add", cast(I8, m, "raw"), ir.const(1, I8))))),
    ("width", "runs from i32 to i64", in_loop(ir.For("i", "range", ir.const(0, I32), N, ()))),
    ("flatten", "load(x[m, n], mask=m < M){guarded: tail} is part of a statement", in_loop(ir.Assign("w", unary("exp", masked)))),
    ("flatten", "is part of a statement", in_loop(ir.Store("y", (m,), tile_max, ("m",), None, inside))),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "message", "change"), LATER, ids=[message for _, message, _ in LATER])
def test_claims_of_the_passes(stage: str, message: str, change: Callable[[ir.Kernel], ir.Kernel]) -> None:
    verify(proved(done()), "flatten")
    with pytest.raises(AssertionError, match=re.escape(message)):
        verify(proved(change(done())), stage)
    with pytest.raises(AssertionError, match=re.escape(message)):
        verify(proved(change(done())), "flatten")


def test_operands_have_names() -> None:
    left, right = full(f32(0.0), "n"), full(f32(0.0), "m", "n")
    with pytest.raises(AssertionError, match="an operand of .* has no name"):
        flat(in_loop(ir.Assign("w", ir.Dot(F32, ("m",), left, right, "n")))(done()))


def test_every_access_has_a_proof() -> None:
    with pytest.raises(AssertionError, match="no proof of"):
        verify(softmax(), "prove")
    early = ir.rewrite(proved(softmax()), lambda n: dataclasses.replace(n, proof=ir.Proof("HOISTED")) if isinstance(n, ir.Load) else n)
    verify(proved(softmax()), "prove")
    with pytest.raises(AssertionError, match="HOISTED.*before there are masks"):
        verify(early, "prove")


def test_a_stage_claims_nothing_of_later_ones() -> None:
    k = proved(guarded_row_max())
    verify(k, "guard")
    with pytest.raises(AssertionError, match="is part of a statement"):
        verify(k, "flatten")
    with pytest.raises(AssertionError, match="a mask in"):
        verify(k, "tiles")


@pytest.mark.parametrize("path", sorted((Path(__file__).parent.parent / "examples").glob("*.nsa")), ids=lambda p: p.stem)
def test_examples_pass_at_every_stage(path: Path) -> None:
    from nsalang.base.target import parse_target
    from nsalang.passes import PASSES
    from nsalang.syntax.parser import parse, read_source
    from nsalang.types.settings import Settings
    from nsalang.types.typecheck import kernel_names, signature, specialise

    file = parse(read_source(path))
    for target in map(parse_target, ("cuda:sm_80", "cuda:sm_90", "hip:gfx942")):
        for name in kernel_names(file):
            dims = dict.fromkeys(signature(file, name, {}).specialised, 32)
            k = specialise(file, name, Settings(target, dims=dims))
            verify(k, "typecheck")
            for stage, run in PASSES:
                k = run(k, target)
                verify(k, stage)
