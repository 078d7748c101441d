"""The commands show, fmt, cache, doctor, run, bench and demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_lines import ADD, QUANT, ROOT, SOFTMAX, nsalang, run

from nsalang.base.target import KNOWN
from nsalang.host.memory import enough_memory
from nsalang.syntax.parser import parse, read_source
from nsalang.types.typecheck import kernel_names


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cli-cache"))
    monkeypatch.delenv("NSALANG_DEBUG", raising=False)


# ------------------------------------------------------------------------------------------------------------------ other ones


def test_show_prints_each_stage_that_changed_something(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "show", ADD)
    assert code == 0 and out.startswith("# ---- triton: typecheck\n") and "# ---- triton: guard" in out and "tilelang" not in out
    code, out, _ = run(capfd, "show", ADD, "-b", "both", "--pass", "tiles")
    assert code == 0 and out.count("# ----") == 2 and "# ---- tilelang: tiles" in out


def test_fmt(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ugly = "def f(x:f32[N],y:Out[f32[N]]):\n  for n in grid( tile(N) ):\n    y[n]=x[n]+1\n"
    file = tmp_path / "a.nsa"
    file.write_text(ugly)
    assert run(capfd, "fmt", "--check", file)[0] == 1 and file.read_text() == ugly
    code, out, _ = run(capfd, "fmt", "--diff", file)
    assert code == 1 and "+    for n in grid(tile(N)):" in out and file.read_text() == ugly
    assert run(capfd, "fmt", file)[0] == 0
    pretty = file.read_text()
    assert "    for n in grid(tile(N)):\n        y[n] = x[n] + 1\n" in pretty
    assert run(capfd, "fmt", "--check", file) == (0, "", "")
    done = nsalang("fmt", "-", input=ugly)
    assert (done.returncode, done.stdout) == (0, pretty)
    file.write_text("def f(:\n")
    assert run(capfd, "fmt", file)[0] == 1 and file.read_text() == "def f(:\n"


def test_examples_are_canonical(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "fmt", "--check", *sorted((ROOT / "examples").glob("*.nsa"))) == (0, "", "")


def test_cache_commands(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path))
    assert run(capfd, "compile", ADD, "--emit", "ptx", "-b", "triton")[0] == 0
    code, out, _ = run(capfd, "cache", "list")
    assert code == 0 and "vector_add" in out and "1 entry" in out
    entry = json.loads(run(capfd, "cache", "list", "--json")[1])["entries"][0]
    assert entry["about"]["backend"] == "triton"
    assert run(capfd, "cache", "verify")[0] == 0
    (tmp_path / entry["key"] / "kernel.ptx").write_text("spoilt")
    code, _, err = run(capfd, "cache", "verify")
    assert code == 1 and "error[NSA0707]" in err and entry["key"] in err
    assert run(capfd, "compile", ADD, "--emit", "ptx", "-b", "triton")[0] == 0
    assert run(capfd, "cache", "verify")[0] == 0
    assert json.loads(run(capfd, "cache", "prune", "--max-bytes", "0", "--json")[1]) == [entry["key"]]
    assert json.loads(run(capfd, "cache", "clear", "--json")[1]) == {"deleted": 0}


def test_doctor(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "doctor", "--json")
    found = json.loads(out)
    assert code == 0 and {"torch", "triton", "tilelang", "python"} <= set(found["versions"])
    works = {row["target"]: (row["triton"], row["tilelang"]) for row in found["works"]}
    assert tuple(works) == KNOWN
    assert works["hip:gfx942"] == ("compiles", "makes HIP source") and works["cpu"] == ("runs", "runs")


# ------------------------------------------------------------------------------------------------------------------------- run


def test_run_exactly(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "run", QUANT, "-D", "M=5,N=256", "-D", "ue8m0=true", "-t", "cpu")
    assert code == 0, err
    assert out.count("agree") == 4 and "1280 of 1280" in out and "rule: bit for bit" in out


def test_run_within_bounds(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "run", SOFTMAX, "-D", "M=3,N=70", "-t", "cpu", "-b", "tilelang")
    assert code == 0, err
    assert out.count("agree") == 1 and "rule: floats within 1e-05" in out


def test_run_with_files(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import numpy

    torch.save({"a": torch.arange(5.0), "other": torch.zeros(1)}, tmp_path / "a.pt")
    numpy.savez(tmp_path / "b.npz", b=numpy.full(5, 2, numpy.float32))
    saved = tmp_path / "out.npz"
    code, _, err = run(
        capfd, "run", ADD, "-i", tmp_path / "a.pt", "-i", f"b={tmp_path / 'b.npz'}", "-b", "tilelang", "-t", "cpu", "--save", saved
    )
    assert code == 0, err
    assert numpy.load(saved)["c"].tolist() == [2, 3, 4, 5, 6]
    numpy.savez(tmp_path / "short.npz", b=numpy.zeros(4, numpy.float32))
    code, _, err = run(capfd, "run", ADD, "-i", tmp_path / "a.pt", "-i", tmp_path / "short.npz", "-t", "cpu")
    assert code == 1 and "error[NSA05" in err and err.count("error[") == 1
    (tmp_path / "broken.pt").write_bytes(b"no tensor")
    code, _, err = run(capfd, "run", ADD, "-i", tmp_path / "broken.pt", "-D", "N=5")
    assert code == 1 and "error[NSA0704]" in err


def test_run_says_where_a_kernel_leaves_its_tensors(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.nsa"
    bad.write_text("def f(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = x[n + 1]\n")
    code, _, err = run(capfd, "run", bad, "-D", "N=8", "-t", "cpu")
    assert code == 1 and "error[NSA0520]" in err and "x[8]" in err and f"{bad}:3" in err


def test_run_takes_the_help_of_its_own_error(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sums = tmp_path / "sums.nsa"
    sums.write_text("def f(x: i64[N], y: Out[i32[1]]):\n    require(N < 1000)\n    promise(0 <= x < 9)\n    for b in grid(1):\n        s = 0\n"
                    "        for n in tile(N):\n            s = sum(x[n], axis=n) - s\n        y[b] = s\n")  # fmt: skip
    code, _, err = run(capfd, "run", sums, "-D", "N=8", "-t", "cpu")
    assert code == 1 and "--allow unknown" in err
    assert "help: u32 wraps at 2**32" in err and "help: 'wrap(…, i32)' keeps the low bits" in err
    assert err.count("stays within 64 bits") == 1  # once, not for each backend
    code, out, err = run(capfd, "run", sums, "-D", "N=8", "-t", "cpu", "--allow", "unknown")
    assert code == 0 and out.count("agree") == 2
    wrapped = sums.read_text().replace("s = 0", "s = u32(0)").replace("x[n]", "u32(x[n])").replace("] = s\n", "] = wrap(s, i32)\n")
    sums.write_text(wrapped)
    code, out, err = run(capfd, "run", sums, "-D", "N=8", "-t", "cpu")
    assert (code, out.count("agree")) == (0, 2), err


def test_a_scalar_that_is_a_dimension_has_one_value(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = tmp_path / "rows.nsa"
    rows.write_text("def f(x: f32[N], y: Out[f32[L, N]], L: i32):\n    for l, n in grid(L, tile(N)):\n        y[l, n] = x[n] * L\n")
    code, out, err = run(capfd, "run", rows, "-D", "N=8,L=3", "-t", "cpu")
    assert code == 0 and "[3, 8]" in out, err
    assert run(capfd, "run", rows, "-D", "N=8,L=-3", "-t", "cpu")[0] == 2
    assert run(capfd, "compile", rows, "-D", "L=3")[0] == 0 and run(capfd, "prove", rows, "-D", "L=3")[0] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
@pytest.mark.parametrize("command", ["run", "bench"])
@pytest.mark.parametrize("target", ["cuda:sm_90", "hip:gfx942"])
def test_a_target_that_is_not_here(command: str, target: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, command, ADD, "-D", "N=8", "-t", target)
    assert (code, out) == (1, "") and err.count("error[") == 1
    assert f"error[NSA0605]: code for {target} runs on such a device, and torch sees none here" in err


@pytest.mark.parametrize("command", ["run", "bench"])
def test_sizes_for_which_there_is_no_memory(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    for size in (10**8, 10**10):  # beyond memory, and beyond what 64 bits count
        code, out, err = run(capfd, command, SOFTMAX, "-D", f"M={size},N={size}", "-t", "cpu")
        assert (code, out) == (1, "") and err.count("error[") == 1
        assert f"error[NSA0608]: there is not enough memory for 'x', f32[{size}, {size}]: {4 * size * size:,} bytes" in err


def test_no_memory_for_what_a_kernel_makes(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "outer.nsa"
    text = "def outer(x: f32[M], w: f32[N], y: Out[f32[M, N]]):\n    for m in grid(tile(M)):\n        for n in tile(N):\n            y[m, n] = x[m] * w[n]\n"
    path.write_text(text)
    sizes = "M=10000000,N=10000000"
    code, _, err = run(capfd, "run", path, "-D", sizes, "-t", "cpu", "-b", "tilelang")
    assert code == 1 and "error[NSA0608]: there is not enough memory for what 'outer' makes by interpreter" in err
    assert "torch tried to allocate 400000000000000 bytes" in err
    code, _, err = run(capfd, "bench", path, "-D", sizes, "-t", "cpu", "-b", "tilelang")
    assert code == 1 and "error[NSA0608]: there is not enough memory for what 'outer' makes with M=10000000 N=10000000" in err


def test_other_errors_of_torch_are_not_about_memory() -> None:
    with pytest.raises(RuntimeError, match="some other fault"), enough_memory("'x'"):
        raise RuntimeError("some other fault")


def test_run_fails_when_a_backend_is_wrong(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from nsalang.launch import kernel

    right = kernel.Kernel.__call__

    def wrong(self: kernel.Kernel, *args: Any, **kwargs: Any) -> Any:
        made = right(self, *args, **kwargs)
        kwargs["c"][3] += 1
        return made

    monkeypatch.setattr(kernel.Kernel, "__call__", wrong)
    code, out, _ = run(capfd, "run", ADD, "-D", "N=9", "-t", "cpu", "-b", "tilelang")
    assert code == 1 and "DIFFER" in out and "the first at [3]" in out


def test_bench_on_the_cpu(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "bench", ADD, "-D", "N=1000", "-t", "cpu", "-b", "tilelang", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["bytes"] == 12000 and found["times"][0]["us"] > 0 and found["times"][0]["method"] == "clock"


def test_compile_time_of_every_example(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "bench", "--compile-time", "--repeat", "1", "--json")
    assert code == 0, err
    rows = json.loads(out)
    examples = (Path(__file__).parent.parent / "examples").glob("*.nsa")
    names = {n for path in examples for n in kernel_names(parse(read_source(path)))}
    assert {"vector_add", "sparse_mla", "matmul"} < names
    assert {r["kernel"] for r in rows} == names and len(rows) == 2 * len(names)


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nsalang", "demo"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DIFFER" not in done.stdout and "All agree bit for bit" in done.stdout
    assert "tl.store" in (tmp_path / "out/act_quant.triton.py").read_text()
    assert "T.prim_func" in (tmp_path / "out/act_quant.tilelang.py").read_text()
