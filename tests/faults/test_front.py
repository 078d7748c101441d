"""Kind C: what the front end, Python's side and the operators say and take."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import nsalang
from nsalang.base.source import NsaError

ROOT = Path(__file__).parent.parent.parent
PAIRS = """
def f(a: f32[N], b: f32[N], y: Out[f32[N]], z: Out[f32[N]]):
    for n in grid(tile(N)):
        {0}
        y[n], z[n] = q, p
"""


@pytest.mark.parametrize(
    "line",
    ["p, q = (a[n], b[n])", "(p, q) = a[n], b[n]", "(p, q) = (a[n], b[n])", "p, q = ((a[n], b[n]))"],
    ids=lambda t: f"C-tuple-{t}",
)
def test_parentheses_in_tuple_assignments(line: str) -> None:
    from nsalang.base.source import Source
    from nsalang.syntax.format import format_text

    text = PAIRS.format(line)
    a, b = torch.arange(3.0), torch.ones(3)
    y, z = nsalang.load_text(text).f.interpret(a, b)
    assert (y.tolist(), z.tolist()) == ([1, 1, 1], [0, 1, 2])
    assert line in format_text(Source(text))


def test_a_list_of_three_in_parentheses_is_counted() -> None:
    with pytest.raises(NsaError, match="2 names, and 3 values"):
        nsalang.load_text(PAIRS.format("p, q = (a[n], b[n], a[n])")).f.check()


@pytest.mark.parametrize(
    "text, told",
    [
        ("(x[n] > 7) & ((x[n] >> s) & 255 == 3)", "write `((x[n] >> s) & 255) == 3`"),
        ("x[n] & 1 == 0", "write `(x[n] & 1) == 0`"),
        ("a <= t & t < b", "write `(a <= t) & (t < b)`"),
        ("x[n] << 2 & y == 3", "write `(x[n] << 2 & y) == 3`, or `x[n] << 2 & (y == 3)`"),
    ],
    ids=lambda t: f"C-NSA0112-{t}",
)
def test_what_is_offered_beside_a_comparison(text: str, told: str) -> None:
    with pytest.raises(NsaError, match="NSA0112") as caught:
        nsalang.load_text(f"def f(x: i32[N]):\n    for n in grid(N):\n        y[n] = {text}\n")
    assert caught.value.diagnostics[0].helps == (told,)


HELPED = """
# a comment
def half(v):
    w = v / 2
    return w


def f(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[n] = half(x[n]) + later(x[n])


def later(v):
    return v * 3
"""


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
def test_lines_of_helpers_are_counted_in_the_helper(backend: str) -> None:
    source = nsalang.load_text(HELPED).f.compile(target="cuda:sm_90", backend=backend).source
    assert "# half:2" in source and ":-" not in source and "# f:" in source


@pytest.mark.parametrize(
    "option",
    [{"check": True}, {"allow": "unknown"}, {"backend": "triton"}, {"schedule": {"n": 4}}],
    ids=lambda o: f"C-interpret-{next(iter(o))}",
)
def test_options_of_a_call_given_to_interpret(option: dict[str, Any]) -> None:
    kernel = nsalang.load(ROOT / "examples/vector_add.nsa").vector_add
    with pytest.raises(NsaError, match=f"NSA0519.*takes no option '{next(iter(option))}': the interpreter"):
        kernel.interpret(torch.ones(3), torch.ones(3), **option)


# --------------------------------------------------------------------------------------------------------------------- Python


def test_names_of_the_package_without_importing_torch() -> None:
    script = (
        "import sys, time; t = time.perf_counter(); import nsalang; t = time.perf_counter() - t; assert t < 0.2, t; assert 'torch' not in sys.modules;"
        "print(nsalang.ops.__name__, nsalang.kernels.__name__, nsalang.language.__name__, nsalang.dims.M)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split()[:3] == ["nsalang.ops", "nsalang.kernels", "nsalang.language"]
    with pytest.raises(AttributeError):
        nsalang.nothing  # noqa: B018


def test_everything_by_a_star() -> None:
    names: dict[str, Any] = {}
    exec("from nsalang.language import *", names)
    from nsalang.language import NAMES

    assert NAMES.keys() <= names.keys() and str(names["f32"]) == "f32" and "difflib" not in names


HEAD = "import functools\nimport nsalang\nfrom nsalang.dims import N\nfrom nsalang.language import Out, f32, grid, tile\n\nFACTOR = 2.0\n\n"
BODY = "def f(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = x[n] * FACTOR\n"


def module(text: str, path: Path) -> ModuleType:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_a_wrapped_function_is_no_kernel(tmp_path: Path) -> None:
    wrap = "def twice(g):\n    @functools.wraps(g)\n    def h(*a):\n        return g(*a)\n    return h\n\n\n"
    with pytest.raises(NsaError, match="NSA0113.*`f` is wrapped by another decorator"):
        module(f"{HEAD}{wrap}@nsalang.jit\n@twice\n{BODY}", tmp_path / "wrapped.py")


def test_a_captured_name_that_changes_later(tmp_path: Path) -> None:
    made = module(f"{HEAD}@nsalang.jit\n{BODY}", tmp_path / "later.py")
    x = torch.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made.f(x).tolist() == [2, 2]
        made.FACTOR = 2.0
        assert made.f(x).tolist() == [2, 2]
    made.FACTOR = 3.0
    with pytest.warns(RuntimeWarning, match="'f' keeps what 'FACTOR' meant when"):
        assert made.f(x).tolist() == [2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.f(x)


# ------------------------------------------------------------------------------------------------------------------ operators


@pytest.mark.parametrize(
    "batch, queries, heads, length", [(0, 2, 4, 8), (2, 0, 4, 8), (0, 0, 4, 8), (2, 1, 4, 0)], ids=lambda v: f"C-empty-{v}"
)
@pytest.mark.parametrize("flat", [True, False])
def test_paged_logits_of_nothing(batch: int, queries: int, heads: int, length: int, flat: bool) -> None:
    q = torch.zeros(batch, queries, heads, 128).to(torch.float8_e4m3fn)
    cache = torch.zeros(4, 64, 1, 132, dtype=torch.uint8)
    weights = torch.ones(batch * queries, heads) if flat else torch.ones(batch, queries, heads)
    out = nsalang.ops.paged_mqa_logits(
        q, cache, weights, torch.zeros(batch, dtype=torch.int32), torch.zeros(batch, max(1, -(-length // 64)), dtype=torch.int32), length
    )
    assert out.shape == (batch * queries, length)


# ------------------------------------------------------------------------------------------------------------------------ cost


@pytest.mark.parametrize("length, told", [(1048576, True), (4096, False)], ids=["C-cost-long", "C-cost-short"])
@pytest.mark.parametrize("backend", ["triton", "tilelang"])
def test_a_program_that_takes_minutes_is_told_before(backend: str, length: int, told: bool) -> None:
    from nsalang.base.target import Target
    from nsalang.build.cost import slow

    text = (
        f"def f(x: f32[M, {length}], y: Out[f32[M]]):\n    n = span({length})\n    for m in grid(M):\n        y[m] = sum(x[m, n], axis=n)\n"
    )
    made = nsalang.load_text(text).f.compile(target="cuda:sm_90", backend=backend)
    assert bool(slow(made.kernel, made.target)) == told and not slow(made.kernel, Target("cpu"))
    if told:
        with pytest.warns(
            RuntimeWarning, match=f"NSA0413: 'f' will take minutes to compile by {backend}: it holds values of {length} lanes"
        ):
            made._made(lambda program: b"")


def test_two_extents_in_one_tile() -> None:
    text = "def f(x: f32[M, N], y: Out[f32[M, N]]):\n    for m, n in grid(tile(M, N)):\n        y[m, n] = x[m, n]\n"
    with pytest.raises(NsaError, match="NSA0311") as caught:
        nsalang.load_text(text).f.check()
    assert caught.value.diagnostics[0].helps == ("write grid(tile(M), tile(N))",)
