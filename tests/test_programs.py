"""Programs: kernels called one after the other over scratch. Typing, calls by both backends and by the interpreter, proofs, the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import nsalang
from nsalang.base.source import NsaError, Source
from nsalang.commands import cli
from nsalang.dims import N
from nsalang.language import Out, f32
from nsalang.launch import plans
from nsalang.launch.launcher import Launcher
from nsalang.launch.sequence import poison
from nsalang.syntax.parser import parse
from nsalang.types.check import check_text
from nsalang.types.handed import polynomial, text
from nsalang.types.programs import specialise
from nsalang.types.settings import Settings
from nsalang.types.typecheck import program_names, signature

TEXT = '''
def partial_sums(x: f32[M, N], part: Out[f32[M, P]]):
    for m, g in grid(tile(M), P):
        lo, hi = split(N, P, g)
        total = zeros(m)
        for n in tile(lo, hi):
            total = total + sum(x[m, n], axis=n)
        part[m, g] = total


def combine(part: f32[M, P], y: Out[f32[M]], top: Out[f32[M]] | None, bias: f32[M] | None, factor: f32 = 1.0, square: const = False):
    p = span(P)
    for m in grid(tile(M)):
        total = sum(part[m, p], axis=p) * factor
        if square:
            total = total * total
        if bias is not None:
            total = total + bias[m]
        y[m] = total
        if top is not None:
            top[m] = max(part[m, p], axis=p)


def row_sums(x: f32[M, N], y: Out[f32[M]], top: Out[f32[M]] | None, bias: f32[M] | None, scale: f32, P: const = 4, square: const = False):
    """The sum of each row, in P parts."""
    require(N > 0)
    part = empty(f32[M, P])
    partial_sums(x, part=part)
    combine(part, bias, y=y, top=top, factor=scale * 2, square=square)


def stats(x: f32[M, N], top: Out[f32[M]], total: Out[f32[M]]):
    for m in grid(tile(M)):
        best, sums = full(m, f32.min), zeros(m)
        for n in tile(N):
            new = maximum(best, max(x[m, n], axis=n))
            sums = sums * exp(best - new) + sum(exp(x[m, n] - new), axis=n)
            best = new
        top[m] = best
        total[m] = sums


def normalise(x: f32[M, N], top: f32[M], total: f32[M], y: Out[T[M, N]], T: dtype):
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = T(exp(x[m, n] - top[m]) / total[m])


def softmax(x: f32[M, N], y: Out[T[M, N]], T: dtype):
    top, total = empty(f32[M]), empty(f32[M])
    stats(x, top=top, total=total)
    normalise(x, top, total, y=y)


def twice(x: f32[N], y: Out[f32[N]]):
    for n in grid(tile(N)):
        y[n] = x[n] * 2


def add_to(x: f32[N], y: InOut[f32[N]], sign: i32 = 1):
    for n in grid(tile(N)):
        y[n] = y[n] + x[n] * f32(sign)


def chain(x: f32[N], y: InOut[f32[N]], z: Out[f32[N]], times: const = 1):
    t = empty(f32[N])
    twice(x, y=t)
    if times == 2:
        u = empty(f32[N])
        twice(t, y=u)
        add_to(u, y, -1)
    else:
        add_to(t, y)
    twice(y, y=z)


def some(x: f32[N], y: Out[f32[N]]):
    partial(y)
    for n in grid(tile(N)):
        if x[n] > 0.0:
            y[n] = x[n]


def holes(x: f32[N], y: Out[f32[N]]):
    t = empty(f32[N])
    some(x, y=t)
    twice(t, y=y)


def gather(table: f32[T], slot: i32[N], y: Out[f32[N]]):
    promise(0 <= slot < T)
    for n in grid(tile(N)):
        y[n] = table[slot[n]]


def doubled_gather(table: f32[T], slot: i32[N], y: Out[f32[N]]):
    t = empty(f32[T])
    twice(table, y=t)
    gather(t, slot, y=y)


def halves(x: f32[N], y: Out[f32[N // 2]]):
    for n in grid(tile(N // 2)):
        y[n] = x[2 * n] + x[2 * n + 1]


def quarters(x: f32[N], y: Out[f32[N // 2 // 2]], extra: i32 = 0):
    t = empty(f32[(N + extra) // 2])
    halves(x, y=t)
    halves(t, y=y)


def helper(x):
    return x * 2


def nothing(x: f32[N]):
    pass
'''
K = nsalang.load_text(TEXT, "programs.nsa")
BACKENDS = ("tilelang", "triton")


def x_of(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# ----------------------------------------------------------------------------------------------------------------------- typing


def typed(name: str, **settings: Any) -> Any:
    return specialise(parse(Source(TEXT)), name, Settings(**settings))


def test_the_calls_of_a_program() -> None:
    made = typed("row_sums", constants={"P": 8}, present=frozenset({"top"}))
    assert [(s.name, s.extents) for s in made.scratch] == [("part", ("M", "P"))]
    first, second = made.calls
    assert (first.kernel, first.tensors, first.dims) == ("partial_sums", (("x", "x"), ("part", "part")), ())
    assert second.tensors == (("part", "part"), ("y", "y"), ("top", "top"))
    assert second.dims == (("P", 8),) and second.present == frozenset({"top"}) and second.settings == (("square", False),)
    assert [n for n, _ in second.scalars] == ["factor"]
    assert [r.text for r in made.header.requires] == ["N > 0"]


def test_branches_on_what_is_known_when_compiling() -> None:
    assert [c.kernel for c in typed("chain").calls] == ["twice", "add_to", "twice"]
    assert [c.kernel for c in typed("chain", constants={"times": 2}).calls] == ["twice", "twice", "add_to", "twice"]


def test_a_dimension_that_a_called_kernel_spans_is_specialised() -> None:
    text_of = """
def rows(x: f32[M, N], y: Out[f32[M]]):
    n = span(N)
    for m in grid(tile(M)):
        y[m] = sum(x[m, n], axis=n)

def both(x: f32[A, B], y: Out[f32[A]], z: Out[f32[A]]):
    t = empty(f32[A, B + 1])
    rows(x, y=y)
    rows(x, y=z)

def none(x: f32[A, B], y: Out[f32[A]], z: Out[f32[A]]):
    rows(x, y=y)
    if False:
        rows(x, y=z)
    else:
        rows(x, y=z)
"""
    file = parse(Source(text_of))
    assert signature(file, "both", {}).specialised == ("B",) and program_names(file) == ("both", "none")
    assert [c.dims for c in specialise(file, "both", Settings(dims={"B": 8})).calls] == [(("N", 8),)] * 2
    with pytest.raises(NsaError, match="NSA0518.*the dimension B of 'both'"):
        nsalang.load_text(text_of).both.compile(target="cuda:sm_90")


def test_a_file_is_checked_with_its_programs() -> None:
    check_text(Source(TEXT))
    with pytest.raises(NsaError) as caught:
        check_text(
            Source(
                "def k(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = z\n\n\ndef p(x: f32[N], y: Out[f32[N]]):\n    k(x, y=y)\n"
            )
        )
    assert [d.code for d in caught.value.diagnostics] == ["NSA0201"]  # once, not again of the program


def test_what_is_wrong_in_a_kernel_only_as_the_program_calls_it() -> None:
    made = "def k(x: f32[N], y: Out[f32[N]], G: const = 1):\n    g = span(G)\n    for n in grid(tile(N)):\n        y[n] = x[n] + f32(sum(g, axis=g))\n\n\n"
    with pytest.raises(NsaError, match=r"NSA0312.*\n.*\n.*\n.*\n.*\n.*'k' is called in line 8"):
        check_text(Source(f"{made}def p(x: f32[N], y: Out[f32[N]]):\n    k(x, y=y, G=-1)\n"))


def test_extents_as_polynomials() -> None:
    file = parse(Source("def k(a: f32[(N + 1) * 2 - N, N // 4 + N // 4, (N * 2) // (3 + 1), 9 // 2]):\n    y = empty(f32[1])\n"))
    shape = signature(file, "k", {}).parameters[0].shape
    assert [text(polynomial(e)) for e in shape] == ["N + 2", "2 * floordiv(N, 4)", "floordiv(2 * N, 4)", "4"]


# ------------------------------------------------------------------------------------------------------------------------- calls


@pytest.mark.parametrize("engine", ["interpret", *BACKENDS])
def test_a_sum_in_two_stages(engine: str) -> None:
    x, bias = x_of(5, 37), x_of(5)

    def call(*args: Any, **kwargs: Any) -> Any:
        return K.row_sums.interpret(*args, **kwargs) if engine == "interpret" else K.row_sums(*args, backend=engine, **kwargs)

    torch.testing.assert_close(call(x, scale=1.5), x.sum(1) * 3)
    y, top = call(x, bias, 0.5, top=True, P=3, square=True)
    torch.testing.assert_close(y, x.sum(1) ** 2 + bias)
    parts = torch.stack([x[:, a:b].sum(1) for a, b in ((0, 13), (13, 25), (25, 37))], 1)
    torch.testing.assert_close(top, parts.amax(1))
    given = torch.empty(5)
    assert call(x, scale=1.0, y=given) is given
    torch.testing.assert_close(given, x.sum(1) * 2)
    assert call(x_of(0, 4), scale=1.0).shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_softmax_in_two_kernels_of_any_dtype(backend: str) -> None:
    x = x_of(6, 70).t().contiguous().t()
    y = K.softmax(x, T=torch.bfloat16, backend=backend)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), torch.softmax(x, 1), rtol=2**-7, atol=0)
    torch.testing.assert_close(K.softmax(x, y=torch.empty(6, 70), backend=backend), torch.softmax(x, 1))
    torch.testing.assert_close(K.softmax.interpret(x, T="f32", tile=16), torch.softmax(x, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_scratch_of_scratch_and_tensors_that_are_read_and_written(backend: str) -> None:
    x, y = x_of(33), x_of(33) + 1
    for times, change in ((1, 2 * x), (2, -4 * x)):
        mine, its = y.clone(), y.clone()
        z = K.chain(x, mine, times=times, backend=backend)
        torch.testing.assert_close(mine, y + change)
        torch.testing.assert_close(z, 2 * (y + change))
        assert torch.equal(K.chain.interpret(x, its, times=times), z) and torch.equal(its, mine)


def test_the_interpreter_poisons_scratch_and_outputs() -> None:
    x = torch.tensor([1.0, -1.0, 2.0, 0.0])
    y = K.holes.interpret(x)
    assert y.isnan().tolist() == [False, True, False, True]
    for dtype, bad in ((torch.int32, -(2**31)), (torch.uint8, 255), (torch.bool, True)):
        t = torch.zeros(3, dtype=dtype)
        poison(t)
        assert t.tolist() == [bad] * 3
    for dtype in (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2):
        t = torch.zeros(3, dtype=dtype)
        poison(t)
        assert bool(t.float().isnan().all())


def test_a_fault_of_a_kernel_is_the_kernels() -> None:
    with pytest.raises(NsaError, match=r"NSA0520.*t|table"):
        K.doubled_gather.interpret(x_of(4), torch.tensor([0, 9], dtype=torch.int32))


# -------------------------------------------------------------------------------------------------------- arguments and plans


def wrong(code: str, match: str, *args: Any, kernel: str = "row_sums", **kwargs: Any) -> NsaError:
    for call in (getattr(K, kernel), getattr(K, kernel).interpret):
        with pytest.raises(NsaError, match=match) as caught:
            call(*args, **kwargs)
        assert caught.value.diagnostics[0].code == code
    return caught.value


def test_arguments_are_checked_as_those_of_a_kernel() -> None:
    x = x_of(5, 8)
    wrong("NSA0503", "argument 'scale' of 'row_sums' is missing", x)
    wrong("NSA0501", "'row_sums' has no parameter 'part'", x, scale=1.0, part=x)
    wrong("NSA0509", "axis 0 of argument 'bias' has extent 4; expected M = 5", x, x_of(4), 1.0)
    wrong("NSA0506", "argument 'x' has dtype torch.float64", x.double(), scale=1.0)
    wrong("NSA0514", "'row_sums' requires N > 0", x_of(5, 0), scale=1.0)
    wrong("NSA0513", "arguments 'y' and 'bias' overlap", x, bias := x_of(5), 1.0, y=bias)
    wrong("NSA0512", "argument 'y' is written", x, scale=1.0, y=torch.empty(1).expand(5))
    wrong("NSA0516", "argument 'P' is a const parameter", x, scale=1.0, P=1.5)


def test_what_a_kernel_refuses_names_the_line_that_calls_it() -> None:
    line = next(i for i, t in enumerate(TEXT.split("\n"), 1) if "partial_sums(x, part=part)" in t)
    error = wrong("NSA0514", "'partial_sums' requires P > 0", x_of(3, 4), scale=1.0, P=0)
    assert error.diagnostics[0].notes[-1] == f"'partial_sums' is called in line {line}"
    error = wrong("NSA0509", "axis 0 of argument 'y' has extent 9", x_of(8), extra=10, kernel="quarters")
    assert "'halves' is called in line" in error.diagnostics[0].notes[-1]
    wrong("NSA0509", r"axis 0 of scratch 't' would have the extent \(N \+ extra\) // 2 = -1", x_of(8), extra=-10, kernel="quarters")


@pytest.mark.parametrize(("scalar", "why"), [("N // (N - 4)", "divides by zero"), ("1 << (N - 5)", "shifts by -1")])
def test_a_scalar_that_has_no_value(scalar: str, why: str) -> None:
    module = nsalang.load_text(f"""def scaled(x: f32[N], y: Out[f32[N]], by: i64):
    for n in grid(tile(N)):
        y[n] = x[n] * f32(by)

def twice(x: f32[N], y: Out[f32[N]]):
    scaled(x, {scalar}, y=y)
""")
    for call in (module.twice, module.twice.interpret):
        with pytest.raises(NsaError) as caught:
            call(x_of(4))
        (found,) = caught.value.diagnostics
        assert found.code == "NSA0514" and found.span is not None and found.span.line == 6
        assert found.sentence == f"argument 'by' of 'scaled' {why} here" and found.notes == ("N = 4",)


def test_a_plan_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[str] = []
    original = Launcher.plan

    def plan(self: Launcher, values: Sequence[Any], options: Any, checked: bool) -> Any:
        planned.append(self.unit.name)
        return original(self, values, options, checked)

    monkeypatch.setattr(Launcher, "plan", plan)
    module = nsalang.load_text(TEXT)
    for _ in range(3):
        module.chain(x_of(16), x_of(16), backend="tilelang")
    assert planned == ["twice", "add_to", "twice"]
    module.chain(x_of(17), x_of(17), backend="tilelang")
    assert len(planned) == 6


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MOST", 2)
    row_sums = nsalang.load_text(TEXT).row_sums
    for n in range(1, 6):
        row_sums(x_of(4, 8), scale=float(n), backend="tilelang")
        assert 0 < len(row_sums.launcher._plans) <= 2


def test_scratch_is_fresh_and_outputs_are_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    x = x_of(4, 8)
    K.row_sums(x, scale=1.0, backend="tilelang")
    made: list[tuple[int, ...]] = []
    empty = torch.empty

    def counted(shape: Any, **more: Any) -> torch.Tensor:
        made.append(tuple(shape))
        return empty(shape, **more)

    monkeypatch.setattr(torch, "empty", counted)
    K.row_sums(x, scale=1.0, backend="tilelang")
    assert made == [(4,), (4, 4)]
    made.clear()
    K.row_sums(x, scale=1.0, y=empty(4), backend="tilelang")
    assert [m for m in made if m == (4, 4)] == [(4, 4)]


def test_an_allocator_that_aligns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = x_of(4, 8)
    K.row_sums(x, scale=1.0, backend="tilelang")
    empty = torch.empty

    def odd(shape: Any, **more: Any) -> torch.Tensor:
        count = 1
        for extent in shape:
            count *= extent
        return empty(count + 1, **more)[1:].view(shape)

    monkeypatch.setattr(torch, "empty", odd)
    torch.testing.assert_close(K.row_sums(x, scale=1.0, backend="tilelang"), x.sum(1) * 2)


def test_options_reach_the_kernels() -> None:
    x = x_of(4, 8)
    torch.testing.assert_close(K.row_sums(x, scale=1.0, backend="tilelang", schedule={"m": 2}), x.sum(1) * 2)
    torch.testing.assert_close(K.row_sums(x, scale=1.0, backend="tilelang", schedule={"combine": {"m": 4}}), x.sum(1) * 2)
    with pytest.raises(NsaError, match="NSA0409"):
        K.row_sums(x, scale=1.0, backend="tilelang", schedule={"combine": {"q": 4}})
    with pytest.raises(NsaError, match=r"NSA0519.*pins 'combin.m', and no kernel is called that(.|\n)*did you mean 'combine.m'\?"):
        K.row_sums(x, scale=1.0, backend="tilelang", schedule={"combin": {"m": 4}})
    with pytest.raises(NsaError, match="NSA0519.*pins 'other.m'") as error:
        K.row_sums(x, scale=1.0, backend="tilelang", schedule={"other": {"m": 4}})
    assert error.value.diagnostics[0].helps == ()
    with pytest.raises(NsaError, match="NSA0519"):
        K.row_sums(x, scale=1.0, schedule={"combine": {"m": "4"}})
    with pytest.raises(NsaError, match="NSA0607"):
        K.row_sums(x, scale=1.0, backend="tritn")


@pytest.mark.parametrize("backend", BACKENDS)
def test_checks_reach_the_kernels(backend: str) -> None:
    table, slot = x_of(4), torch.tensor([3, 0], dtype=torch.int32)
    torch.testing.assert_close(K.doubled_gather(table, slot, check=True, backend=backend), 2 * table[slot])
    with pytest.raises(NsaError, match=r"NSA0814.*promise\(0 <= slot < T\) does not hold"):
        K.doubled_gather(table, slot + 1, check=True, backend=backend)


# ---------------------------------------------------------------------------------------------- modules, sources, reports, commands


def test_a_module_has_kernels_and_programs() -> None:
    assert {"row_sums", "combine", "softmax"} <= set(dir(K)) and "helper" not in dir(K)
    assert (
        repr(K.row_sums).startswith("<nsalang program row_sums(x: f32[M, N], ") and K.row_sums.__doc__ == "The sum of each row, in P parts."
    )
    assert [k.kind for k in K if k.unit.name in ("combine", "row_sums")] == ["kernel", "program"]
    K.row_sums.check()
    with pytest.raises(AttributeError, match="'helper' of programs.nsa has no grid: it is a helper, which returns values"):
        K.helper  # noqa: B018
    with pytest.raises(AttributeError, match="'nothing' of programs.nsa has no grid: it calls no kernel either"):
        K.nothing  # noqa: B018


def test_compiling_gives_the_kernels_in_order() -> None:
    made = K.row_sums.compile(target="cuda:sm_90", backend="triton", P=2, top=True)
    assert [name for name, _ in made] == ["partial_sums", "combine"] and len(made) == 2
    assert dict(made)["combine"].typed.constants == (("square", "False"), ("P", "2"), ("top", "given"), ("bias", "None"))
    assert made.source.startswith("# ---- row_sums 1: partial_sums\n") and "# ---- row_sums 2: combine\n" in made.source
    assert all(c.source in made.source for _, c in made)
    assert dict(made)["combine"] == K.combine.compile(target="cuda:sm_90", backend="triton", P=2, top=True)


def test_one_report_with_those_of_the_calls() -> None:
    report = K.row_sums.prove(P=2)
    assert report.ok and [c.kernel for c in report.calls] == ["partial_sums", "combine"]
    assert report.rows == tuple(r for c in report.calls for r in c.rows)
    assert dict(report.calls[1].variant)["P"] == "2" and report.totals.accesses == sum(c.totals.accesses for c in report.calls)
    assert [str(a) for a in report.assumptions if not str(a).startswith(("partial_sums: ", "combine: "))] == ["N > 0"]
    printed = str(report)
    assert "program row_sums (P=2, square=False, top=None, bias=None) for cuda:sm_90" in printed and "\nrequire       N > 0\n" in printed
    assert report.queries() and [c["kernel"] for c in report.as_json()["calls"]] == ["partial_sums", "combine"]  # type: ignore[attr-defined]


def test_a_refuted_kernel_refutes_the_program() -> None:
    module = nsalang.load_text(TEXT.replace("    promise(0 <= slot < T)\n", ""))
    report = module.doubled_gather.prove()
    assert not report.ok and [d.code for d in report.diagnostics] == ["NSA0801"]
    with pytest.raises(NsaError, match="NSA0801"):
        module.doubled_gather.compile(target="cuda:sm_90")
    assert K.doubled_gather.prove().ok
    assert "gather: 0 <= slot < T" in [str(a) for a in K.doubled_gather.prove().assumptions]


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.nsa"
    path.write_text(TEXT[: TEXT.index("def stats")])
    return path


def test_the_command_line(sums: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compile", str(sums), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    names = ["row_sums.1.partial_sums", "row_sums.2.combine"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{n}.{b}.py" for n in names for b in sorted(BACKENDS)]
    assert cli.main(["prove", str(sums), "--json", "-D", "square=false", "--without", "bias"]) == 0
    reports = json.loads(capfd.readouterr().out)["reports"]
    assert [r["kernel"] for r in reports] == ["row_sums"] * 2 and all(len(r["calls"]) == 2 for r in reports)
    assert cli.main(["show", str(sums), "--pass", "guard", "--quiet"]) == 0
    assert "# ---- triton: partial_sums: guard" in (shown := capfd.readouterr().out) and "# ---- triton: combine: guard" in shown
    assert cli.main(["run", str(sums), "-D", "M=6,N=40,scale=0.5", "-b", "tilelang", "--with", "top", "--quiet"]) == 0
    assert capfd.readouterr().out.count("agree") == 2
    assert cli.main(["compile", str(sums), "combine", "-D", "P=4", "-b", "triton", "--quiet"]) == 0
    assert cli.main(["compile", str(sums), "row_sum"]) == 2
    assert "did you mean 'row_sums'?" in capfd.readouterr().err


def test_indices_of_a_program_are_drawn_within_what_its_kernels_index(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "all.nsa"
    path.write_text(TEXT)
    assert cli.main(["run", str(path), "doubled_gather", "-D", "T=5,N=300", "-b", "tilelang", "--quiet"]) == 0


def called(x: f32[N], y: Out[f32[N]]) -> None:
    twice(x, y=y)  # type: ignore[name-defined]  # noqa: F821


def test_a_decorated_function_is_no_program() -> None:
    kernel = nsalang.jit(called)
    with pytest.raises(NsaError, match="NSA0337.*unknown kernel 'twice'"):
        kernel.check()
    with pytest.raises(NsaError, match="NSA0314.*'called' has no grid: it is a program, and no kernel"):
        kernel(x_of(4))


# ---------------------------------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_in_a_cuda_graph(backend: str) -> None:
    x, y = x_of(37, 300).cuda(), torch.empty(37, device="cuda")
    K.row_sums(x, scale=1.0, y=y, backend=backend)
    K.softmax(x, T="f32", backend=backend)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        K.row_sums(x, scale=1.0, y=y, backend=backend)
        z = K.softmax(x, T="f32", backend=backend)
    for seed in (2, 3):
        x.copy_(torch.randn(37, 300, generator=torch.Generator().manual_seed(seed)))
        graph.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(y, x.sum(1) * 2, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(z, torch.softmax(x, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_on_the_current_stream(backend: str) -> None:
    x = torch.zeros(1024, 64, device="cuda")
    K.row_sums(x, scale=1.0, backend=backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x.add_(1)
        out = K.row_sums(x, scale=1.0, backend=backend)
    stream.synchronize()
    assert bool((out == 128).all())
