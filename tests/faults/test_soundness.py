"""Faults S1 and S2: an integer that leaves 64 bits is REFUTED with a counterexample that a run shows, whatever operation makes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_soundness_ends import FILE as ENDS

from nsalang import ir
from nsalang.base.source import Source
from nsalang.ir.nodes import BinaryOp
from nsalang.ir.operations import REDUCTIONS, UNARY
from nsalang.passes.prove import Judgement, judge
from nsalang.syntax.parser import parse
from nsalang.types.typecheck import Settings, kernel_names, specialise

DOCS = Path(__file__).parents[2] / "docs" / "proofs.md"
WRONG = [
    pytest.param(
        """
def far_sum(x: i64[M, N], y: Out[i64[M]]):
    n = span(0, 7, N)
    for m in grid(tile(M)):
        y[m] = sum(x[m, n], axis=n)
""",
        "overflow",
        "sum(x[m, n], axis=n)",
        id="S1-far_sum",
    ),
    pytest.param(
        """
def shl1(x: u8[7], s: i32, y: Out[u8[1]]):
    require(0 <= s < 64)
    for i in grid(1):
        y[i] = x[(3 << clamp(s, 0, 63)) % 7]
""",
        "overflow",
        "3 << clamp(s, 0, 63)",
        id="S1-shl1",
    ),
    pytest.param(
        """
def neg(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = -a[n]
""",
        "overflow",
        "-a[n]",
        id="S1-neg",
    ),
    pytest.param(
        """
def abs_(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = abs(a[n])
""",
        "overflow",
        "abs(a[n])",
        id="S1-abs",
    ),
    pytest.param(
        """
def shl(a: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = a[n] << 1
""",
        "overflow",
        "a[n] << 1",
        id="S1-shl",
    ),
    pytest.param(
        """
def scan(x: i64[M, 7], y: Out[i64[M, 7]]):
    n = span(0, 7)
    for m in grid(M):
        y[m, n] = cumsum(x[m, n], axis=n)
""",
        "overflow",
        "cumsum(x[m, n], axis=n)",
        id="S1-scan",
    ),
    pytest.param(
        """
def absm(x: i64[M, 7], y: Out[i64[M]]):
    n = span(0, 7)
    for m in grid(M):
        y[m] = absmax(x[m, n], axis=n)
""",
        "overflow",
        "absmax(x[m, n], axis=n)",
        id="S1-absmax",
    ),
    pytest.param(
        """
def mul(x: i64[N], z: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = x[n] * z[n]
""",
        "overflow",
        "x[n] * z[n]",
        id="S1-mul",
    ),
    pytest.param(
        """
def carried(x: i64[N], y: Out[i64[1]]):
    for q in grid(1):
        t = 0
        for n in range(N):
            t = t + x[n]
        y[q] = t
""",
        "overflow",
        "t + x[n]",
        id="S1-carried",
    ),
    pytest.param(
        """
def far(x: u8[T], a: i64[1], y: Out[u8[1]]):
    require(T > 0)
    promise(a <= 0)
    for q in grid(1):
        t = a[0] // -1
        y[q] = x[minimum(t, T - 1)]
""",
        "overflow",
        "a[0] // -1",
        id="S2-far",
    ),
    pytest.param(
        """
def div(a: i64[N], b: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = where(b[n] != 0, a[n] // b[n], 0)
""",
        "overflow",
        "a[n] // b[n]",
        id="S2-floordiv",
    ),
    pytest.param(
        """
def spanend(a: i64[1], y: Out[i32[8]]):
    for q in grid(1):
        n = span(a[0], 8)
        y[n - a[0]] = 1
""",
        "overflow",
        "a[0]",
        id="S2-span",
    ),
    pytest.param(
        """
def absi32(x: i32[M], y: Out[i32[M]]):
    for m in grid(M):
        y[m] = abs(x[m])
""",
        "fits",
        "y[m] = abs(x[m])",
        id="P-abs_min",
    ),
    pytest.param(
        """
def amin(x: i64[M], y: Out[i64[M]]):
    for m in grid(M):
        y[m] = abs(minimum(x[m], 0))
""",
        "overflow",
        "abs(minimum(x[m], 0))",
        id="P-abs_of_min",
    ),
    pytest.param(
        """
def emptypart(x: u8[N], y: Out[u8[P]]):
    require(N > 0)
    require(P > 0)
    for p in grid(P):
        lo, hi = split(N, P, p)
        y[p] = x[lo]
""",
        "range",
        "x[lo]",
        id="P-split_empty",
    ),
    pytest.param(
        """
def bc(table: u8[128], x: u8[N], y: Out[u8[N]]):
    for n in grid(N):
        y[n] = table[bitcast(x[n], i8)]
""",
        "range",
        "table[bitcast(x[n], i8)]",
        id="P-bitcast",
    ),
    pytest.param(
        """
def big(x: u8[N], y: Out[u8[N]]):
    for n in grid(N):
        y[n] = x[n + 4294967297]
""",
        "range",
        "x[n + 4294967297]",
        id="P-far_index",
    ),
]
RIGHT = [
    pytest.param(
        """
def wraps(x: u32[N], y: Out[u32[N]]):
    for n in grid(N):
        y[n] = (x[n] * 3 + 1) << 5
""",
        id="S1-unsigned_wraps",
    ),
    pytest.param(
        """
def half(x: i64[N], y: Out[i64[N]]):
    for n in grid(N):
        y[n] = x[n] // 2 + x[n] % -1
""",
        id="S2-no_quotient_of_minus_one",
    ),
    pytest.param(
        """
def few(x: i32[M, 7], y: Out[i64[M]]):
    n = span(0, 7)
    for m in grid(M):
        y[m] = sum(x[m, n], axis=n)
""",
        id="S1-sum_of_i32",
    ),
    pytest.param(
        """
def bounded(x: i64[N], y: Out[i64[N]]):
    promise(-4 <= x <= 4)
    for n in grid(N):
        y[n] = (-x[n]) << 2
""",
        id="S1-promised",
    ),
    pytest.param(
        """
def span_sum(x: i32[M, 64], y: Out[i32[M]]):
    promise(0 <= x <= 10)
    n = span(64)
    for m in grid(M):
        y[m] = sum(x[m, n], axis=n)
""",
        id="P-sums_span_sum",
    ),
    pytest.param(
        """
def dots64(a: i8[M, 64], b: i8[64, N], y: Out[i32[M, N]]):
    k = span(64)
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = i32(dot(a[m, k], b[k, n], axis=k))
""",
        id="P-sums_dots64",
    ),
    pytest.param(
        """
def tilesum(x: i32[M, N], y: Out[i32[M]]):
    require(N <= 1000)
    promise(0 <= x <= 10)
    for m in grid(M):
        used = 0
        for n in tile(N):
            used = used + sum(x[m, n], axis=n)
        y[m] = used
""",
        id="P-sums_tilesum",
    ),
    pytest.param(
        """
def rangesum(x: i32[M, N], y: Out[i32[M]]):
    require(N <= 1000)
    promise(0 <= x <= 10)
    for m in grid(M):
        used = 0
        for n in range(N):
            used = used + x[m, n]
        y[m] = used
""",
        id="P-sums_rangesum",
    ),
    pytest.param(
        """
def scan(x: i32[M, 64], y: Out[i32[M, 64]]):
    promise(0 <= x <= 10)
    n = span(64)
    for m in grid(M):
        y[m, n] = cumsum(x[m, n], axis=n, reverse=True)
""",
        id="P-sums_scan",
    ),
    pytest.param(
        """
def cumcount(x: i32[M, 64], y: Out[i32[M, 64]]):
    n = span(64)
    for m in grid(M):
        y[m, n] = i32(cumsum(x[m, n] > 0, axis=n, reverse=True, exclusive=True) + 1)
""",
        id="P-sums_cumcount",
    ),
    pytest.param(
        """
def gemm(a: i8[M, K], b: i8[K, N], y: Out[i32[M, N]]):
    require(K <= 4096)
    for m, n in grid(tile(M), tile(N)):
        acc = zeros(m, n, dtype=i64)
        for k in tile(K):
            acc = acc + dot(a[m, k], b[k, n], axis=k)
        y[m, n] = i32(acc)
""",
        id="P-sums_gemm",
    ),
]


def judged(text: str) -> tuple[Judgement, ...]:
    file = parse(Source(text.strip() + "\n"))
    return judge(specialise(file, kernel_names(file)[0], Settings()))


@pytest.mark.parametrize(("text", "kind", "what"), WRONG)
def test_refuted(text: str, kind: str, what: str) -> None:
    found = [j for j in judged(text) if j.result.verdict != "PROVED" and j.result.obligation.kind == kind]
    assert [j.result.verdict for j in found if j.result.obligation.what == what] == ["REFUTED"]
    assert all(j.diagnostic is not None and j.diagnostic.notes for j in found if j.result.verdict == "REFUTED")


@pytest.mark.parametrize("text", RIGHT)
def test_proved(text: str) -> None:
    assert [j.result.obligation.what for j in judged(text) if j.result.verdict != "PROVED"] == []


def test_a_sum_past_its_dtype_is_not_proved() -> None:
    text = """
def toomuch(x: i32[M, 64], y: Out[i32[M]]):
    promise(0 <= x <= 100000000)
    n = span(64)
    for m in grid(M):
        y[m] = sum(x[m, n], axis=n)
"""
    assert any(j.result.verdict != "PROVED" and j.result.obligation.kind == "fits" for j in judged(text))


def table() -> list[list[str]]:
    text = DOCS.read_text(encoding="utf-8")
    lines = text[text.index("## Integer operations") :].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][1:]


def test_the_table_names_every_integer_operation() -> None:
    named = {name for row in table() for name in re.findall(r"`(\w+)`", row[0])}
    operations = {*BinaryOp.__args__, *REDUCTIONS, *(op for op, row in UNARY.items() if row.ends is not None)} - {"div"}
    nodes = {kind.__name__ for kind in (*ir.Expr.__args__, *ir.Stmt.__args__)} - {
        "Unary",
        "Binary",
        "Reduce",
        "Fma",
        "Assign",
        "If",
        "Barrier",
    }
    assert operations | nodes <= named, sorted((operations | nodes) - named)


def test_the_table_names_tests_that_exist() -> None:
    ids = {p.id for p in (*WRONG, *RIGHT)} | set(kernel_names(ENDS))
    for row in table():
        cases, files = re.findall(r"`([\w-]+)`", row[3]), re.findall(r"tests/[\w/]+\.py", row[3])
        assert cases or files, row
        assert set(cases) <= ids, sorted(set(cases) - ids)
        assert all((DOCS.parents[1] / f).exists() for f in files), files


HELPED = {
    "y[w] = W * P": ("def far(x: u8[W, P], y: Out[i8[W]]):\n    for w in grid(W):\n        y[w] = W * P\n", "require(W * P <= 127)"),
    "y[w] = t + w": (
        "def far(x: u8[W, P], y: Out[i8[W]]):\n    for w in grid(W):\n        t = 0\n        for p in range(P):\n            t = t + W\n        y[w] = t + w\n",
        "require(P * W + W <= 128)",
    ),
}


@pytest.mark.parametrize("what", HELPED)
def test_help_is_the_bound_on_sizes(what: str) -> None:
    """It is proposed where it settles the obligation, and with it the kernel is PROVED."""
    text, proposed = HELPED[what]
    (found,) = [j for j in judged(text) if j.diagnostic is not None]
    assert found.result.obligation.what == what
    assert found.diagnostic is not None and found.diagnostic.helps == (f"'{proposed}' settles it",)
    head, body = text.split("\n", 1)
    assert all(j.result.verdict == "PROVED" for j in judged(f"{head}\n    {proposed}\n{body}"))
