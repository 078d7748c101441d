"""What holds of views, promises, searches, borders and stores of every mode: each breach is a fault of the compiler that names itself."""

from __future__ import annotations

import dataclasses
import re

import pytest
from ir_kernels import M, N, cast, index, kernel, load, rows, store, tensor

from nsalang import ir
from nsalang.base.dtypes import BF16, BOOL, F32, I32, I64, U8
from nsalang.ir.wellformed import check

m = index("m")
V = ir.View("v", F32, (M,), "b", ir.const(16), (ir.const(4),), "in")
ELEMENT = ir.Cast(I64, (), ir.Load(I32, (), "i", (ir.Index(I64, (), "each0"),)))
EACH = ir.Promise("each", ("i",), ir.binary("lt", ELEMENT, N), "i < N")
SEARCH = ir.Search(I64, ("m",), "i", m, ir.binary("lt", m, N))
ADD = ir.Store("y", (cast(I64, load("i", I32, m)),), load("v", F32, m), ("m",), None, None, "add", ir.Proof("PROVED"))


def made(*body: ir.Stmt, **changes: object) -> ir.Kernel:
    tensors = (tensor("b", U8, "in", N), tensor("i", I32, "in", M), tensor("y", F32, "inout", N), tensor("h", BF16, "inout", M))
    k = kernel("k", tensors, (rows(),), *(body or (ADD,)))
    return dataclasses.replace(k, **{"views": (V,), "promises": (EACH,), **changes})  # type: ignore[arg-type]


def test_what_is_right() -> None:
    check(made())
    check(
        made(
            ir.Assign("s", ir.Border(I64, ("m",), SEARCH, ir.const(3), m)),
            promises=(ir.Promise("sorted", ("i",), None, "sorted(i)", True),),
        )
    )


def view(**changes: object) -> dict[str, object]:
    return {"views": (dataclasses.replace(V, **changes),)}  # type: ignore[arg-type]


def promise(**changes: object) -> dict[str, object]:
    return {"promises": (dataclasses.replace(EACH, **changes),)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (view(name="y"), "two parameters or views of one name"),
        (view(base="z"), "the view v is of z, which is no tensor parameter"),
        (view(base="i"), "the view v is of i, which holds i32"),
        (view(role="inout"), "the view v is inout, and b is in"),
        (view(strides=()), "the view v has 1 axes and 0 strides"),
        (view(offset=cast(I64, load("i", I32, ir.const(0)))), "i64(i[0]) is needed before the kernel runs"),
        (view(offset=ir.const(4, I32)), "the view v is laid out by i32"),
        (promise(tensors=("y",)), "is about y, which is written"),
        (promise(tensors=("i", "b")), "is about tensors of several shapes"),
        (promise(tensors=("b",)), "reads i[each0]"),
        (promise(condition=None), "the promise 'i < N' is each"),
        (promise(kind="sorted", condition=None, tensors=("i", "v")), "is about several tensors"),
        (promise(condition=ELEMENT), "the promise 'i < N' is i64[]"),
        (promise(tensors=("j",)), "there is no tensor j"),
        ({"hoists": (ir.Require(N, "N"),)}, "the condition 'N' is i64"),
    ],
)
def test_views_promises_and_hoists(changes: dict[str, object], message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        check(made(**changes))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (dataclasses.replace(SEARCH, tensor="y"), "y is searched, and is inout with 1 axes"),
        (dataclasses.replace(SEARCH, x=load("v", F32, m)), "i holds i32, and is searched for f32"),
        (dataclasses.replace(SEARCH, guard=m), "an access of i is guarded by i64"),
        (dataclasses.replace(SEARCH, axes=()), "has axes (), and its parts have ('m',)"),
        (ir.Border(I64, ("m",), N, ir.const(3, I32), m), "a border of other than i64"),
        (ir.Load(F32, ("m",), "v", (m,), proof=ir.Proof("GUARDED", ("tail",))), "has a mask of ('tail',), and none"),
        (
            ir.Load(F32, ("m",), "v", (m,), None, ir.const(True, BOOL), proof=ir.Proof("GUARDED", ("tail", "tail"))),
            "has a mask of ('tail', 'tail')",
        ),
    ],
)
def test_expressions(node: ir.Expr, message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        check(made(ir.Assign("s", node)))


def test_stores() -> None:
    with pytest.raises(AssertionError, match="h holds bf16, to which nothing is added"):
        check(made(dataclasses.replace(store("h", load("h", BF16, m), m), mode="add")))
    with pytest.raises(AssertionError, match="the input v is written"):
        check(made(store("v", load("v", F32, m), m)))
