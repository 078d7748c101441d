"""The code that runs is checked against the IR: right code passes, and a device function that is spoilt in one place is caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from example_values import values

import nsalang
from nsalang.base.target import parse_target
from nsalang.build.pipeline import Choice
from nsalang.code.check import Checked, check
from nsalang.code.forms import FORMS, Codes, Form
from nsalang.syntax.parser import parse, read_source
from nsalang.types.typecheck import kernel_names

TEXT = """
def rotate(x: f32[N], y: Out[f32[N]]):
    for n in grid(N):
        y[n] = x[(n + 3) % N]

def tailed(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[n] = x[n] + 1.0

def gathered(idx: i32[N], x: f32[T], y: Out[f32[N]]):
    for n in grid(tile(N)):
        t = idx[n]
        y[n] = where((0 <= t) & (t < T), x[t], 0)

def counted(idx: i32[N], y: InOut[f32[B]]):
    for n in grid(tile(N)):
        t = idx[n]
        if (0 <= t) & (t < B):
            atomic_add(y[t], 1.0)

def remainder(v: u8[N], x: u8[7], y: Out[u8[N]]):
    for n in grid(N):
        y[n] = x[(i64(v[n]) >> (n % 8)) % 7]
"""
KERNELS = nsalang.load_text(TEXT)


def checked(name: str, form: Form, spoil: Callable[[Any], Any] | None = None) -> Checked:
    kernel = getattr(KERNELS, name)
    meaning = kernel.meaning(parse_target("cuda:sm_90"), {})
    return check(kernel.launcher, meaning, Choice("triton"), [form], codes=Codes(spoil), count=3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["rotate", "tailed", "gathered", "counted", "remainder"])
def test_right_code_passes(name: str, form: Form) -> None:
    result = checked(name, form)
    assert result.runs >= 2 and result.found == [] and result.lost == []


def changed(rule: Callable[[Any], Any], kinds: list[str]) -> Callable[[Any], Any]:
    """A device function with every node of some kinds put through a rule; None leaves a node as it is."""

    def spoil(function: Any) -> Any:
        from tvm import tirx

        done: list[Any] = []

        def once(node: Any) -> Any:
            new = rule(node)
            done.extend([] if new is None else [new])
            return new

        made = function.with_body(tirx.stmt_functor.ir_transform(function.body, None, once, kinds), span=function.span)
        assert done, "nothing was spoilt"
        return made

    return spoil


def is_global(buffer: Any, name: str) -> bool:
    return str(buffer.data.name) == name


def later(node: Any) -> Any:
    from tvm import tirx

    return tirx.BufferStore(node.buffer, node.value, [node.indices[0] + 1]) if is_global(node.buffer, "y") else None


def dropped(node: Any) -> Any:
    from tvm import tirx

    return tirx.Evaluate(0) if is_global(node.buffer, "y") else None


def twice(node: Any) -> Any:
    from tvm import tirx

    if not is_global(node.buffer, "y"):
        return None
    return tirx.SeqStmt([node, tirx.BufferStore(node.buffer, node.value, [node.indices[0] + 4096])])


def unmasked(node: Any) -> Any:
    return node.args[1] if str(getattr(node.op, "name", "")).endswith("if_then_else") else None


def unguarded(node: Any) -> Any:
    return node.then_case


def undivided(node: Any) -> Any:
    """What a simplifier made of this very kernel: the remainder that keeps its index inside is dropped."""
    return node.a


@pytest.mark.parametrize(
    ("name", "rule", "kinds", "word"),
    [
        ("tailed", later, ["tirx.BufferStore"], "writes"),
        ("tailed", dropped, ["tirx.BufferStore"], "does not write"),
        ("tailed", twice, ["tirx.BufferStore"], "writes"),
        ("gathered", unmasked, ["tirx.Call"], "reads"),
        ("counted", unguarded, ["tirx.IfThenElse"], "writes"),
        ("remainder", undivided, ["tirx.Mod"], "reads"),
    ],
    ids=["index-off-by-one", "dropped-store", "extra-store", "dropped-mask", "dropped-guard", "S4-dropped-remainder"],
)
def test_a_spoilt_device_function_is_caught(name: str, rule: Callable[[Any], Any], kinds: list[str], word: str) -> None:
    result = checked(name, "tilelang-cuda", changed(rule, kinds))
    assert any(word in d.sentence for d in result.found), result
    assert all(d.code == "NSA0816" and d.span is not None for d in result.found)


EXAMPLES = [
    pytest.param(path, name, id=name)
    for path in sorted((Path(__file__).parents[1] / "examples").glob("*.nsa"))
    for name in kernel_names(parse(read_source(path)))
]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("path", "name"), EXAMPLES)
def test_every_access_of_an_example_is_evaluated_and_right(path: Path, name: str, form: Form) -> None:
    kernel = getattr(nsalang.load(path), name)
    meaning = kernel.meaning(parse_target("cuda:sm_90"), values(name))
    result = check(kernel.launcher, meaning, Choice("triton"), [form], count=2)
    assert result.runs and result.found == [] and result.lost == []
