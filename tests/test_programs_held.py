"""Programs as a user holds them: modules, compiled variants, reports, the command line, CUDA graphs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from program_texts import BACKENDS, TEXT, K, x_of

import nsalang
from nsalang.base.source import NsaError
from nsalang.commands import cli
from nsalang.dims import N
from nsalang.language import Out, f32

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
