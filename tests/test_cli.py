"""The command line: help, exit codes, errors and progress of every command, and the files that compile writes."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from command_lines import ADD, QUANT, ROOT, run

from nsalang.base.source import NsaError
from nsalang.commands import cli, fmt
from nsalang.report.files import write_files


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cli-cache"))
    monkeypatch.delenv("NSALANG_DEBUG", raising=False)


# ------------------------------------------------------------------------------------------------------------------ exit codes


def test_help_lists_every_command_and_imports_none(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "--help")
    assert (code, err) == (0, "")
    for name in cli.COMMANDS:
        assert f"\n  {name} " in out
    heavy = "[m for m in ('torch', 'triton', 'tilelang', 'z3', 'rich', 'lark') if m in sys.modules]"
    script = f"import sys; from nsalang.commands.cli import main; main(['--help']); print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help_that_begins_like_the_list_says(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, name, "--help")
    assert code == 0 and f"nsalang {name}" in out and "--error-format" in out


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    import nsalang as package

    assert run(capfd, "--version")[:2] == (0, f"nsalang, version {package.__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["compile"],
        ["compile", ADD, "vector_sub"],
        ["compile", ADD, "-D", "N"],
        ["compile", ADD, "-D", "K=1"],
        ["compile", QUANT, "-D", "G=1,G=2"],
        ["compile", QUANT, "-D", "G=many"],
        ["compile", ADD, "--pin", "n=0"],
        ["compile", ADD, "--pin", "n=global"],
        ["compile", ADD, "--backend", "cuda"],
        ["compile", ADD, "--with", "a"],
        ["show", ADD, "--pass", "nonsense"],
        ["run", ADD],
        ["run", ADD, "-D", "N=-1"],
        ["run", ADD, "--input", "q=x.npz", "-D", "N=1"],
        ["bench"],
        ["cache", "prune", "--max-bytes", "-1"],
    ],
)
def test_a_wrong_command_line_is_2(arguments: list[object], capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, *arguments)
    assert code == 2 and out == "" and "Traceback" not in err and err.strip()


def test_the_nearest_name_is_suggested(capfd: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'vector_add'?" in run(capfd, "compile", ADD, "vector_ad")[2]
    assert "did you mean 'ue8m0'?" in run(capfd, "compile", QUANT, "-D", "ue8m=true")[2]


def test_diagnostics_are_1(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.nsa"
    bad.write_text("def f(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = z[n]\n")
    code, out, err = run(capfd, "compile", bad)
    assert (code, out) == (1, "") and "error[NSA0201]" in err and f"{bad}:3:16" in err
    assert run(capfd, "compile", ADD, "--target", "cuda:sm_1")[0] == 1
    assert run(capfd, "compile", tmp_path / "none.nsa")[0] == 1


COMMANDS_ON_A_FILE = (["prove"], ["compile"], ["compile", "--emit", "ast"], ["show"], ["run"], ["bench"], ["bench", "--compile-time"])


@pytest.mark.parametrize("command", COMMANDS_ON_A_FILE, ids=" ".join)
def test_a_missing_grid_and_a_missing_kernel_are_1(command: list[str], capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "k.nsa"
    for loop, help in (
        ("gird(tile(M))", "did you mean 'grid'?"),
        ("tile(M)", "a kernel's outermost loop runs over grid(…): grid(tile(M))"),
    ):
        path.write_text(f"def f(x: f32[M], y: Out[f32[M]]):\n    for m in {loop}:\n        y[m] = x[m]\n")
        code, out, err = run(capfd, command[0], path, *command[1:])
        assert (code, out) == (1, "") and err.count("error[") == 1 and "error[NSA0314]: 'f' has no grid" in err
        assert f"{path}:2:14" in err and f"= help: {help}" in err
    path.write_text("def half(x):\n    return x / 2\n")
    code, out, err = run(capfd, command[0], path, *command[1:])
    assert (code, out) == (1, "") and err.count("error[") == 1 and f"error[NSA0207]: {path} has no kernel" in err


def test_a_program_that_calls_itself_is_found(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "p.nsa"
    path.write_text("def p(x: f32[M], y: Out[f32[M]]):\n    p(x, y=y)\n")
    code, _, err = run(capfd, "prove", path)
    assert code == 1 and "error[NSA0337]: 'p' calls itself" in err


SCALE = ROOT / "examples/residual_scale.py"


def test_a_python_file_is_taken_as_a_text_is(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capfd, "compile", SCALE, "-b", "triton")
    assert (code, err) == (0, "") and "def residual_scale" in out
    assert run(capfd, "compile", SCALE, "residual_scale", "--emit", "ast")[1].startswith("Function")
    assert "# ---- triton: typecheck" in run(capfd, "show", SCALE)[1]
    code, out, err = run(capfd, "run", SCALE, "-D", "M=3,N=20", "-t", "cpu", "-b", "tilelang")
    assert code == 0 and "60 of 60" in out, err
    code, out, err = run(capfd, "bench", SCALE, "-D", "M=3,N=20", "-t", "cpu", "-b", "tilelang", "--json")
    assert code == 0 and json.loads(out)["kernel"] == "residual_scale", err
    for arguments in (["compile", SCALE, "residual"], ["run", SCALE, "residual"], ["bench", "--compile-time", SCALE]):
        code, out, err = run(capfd, *arguments)
        assert (code, out) == (2, "") and "residual_scale" in err
    two = tmp_path / "two.py"
    two.write_text(
        SCALE.read_text().replace("def main", SCALE.read_text().split("\n\n\n")[1].replace("residual_scale", "other") + "\n\ndef main")
    )
    code, _, err = run(capfd, "run", two, "-D", "M=3,N=20", "-t", "cpu")
    assert code == 2 and "has 2 kernels: say which (residual_scale, other)" in err


def test_errors_as_json_before_or_after_the_command(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in (
        ["--error-format", "json", "compile", tmp_path / "none.nsa"],
        ["compile", tmp_path / "none.nsa", "--error-format", "json"],
    ):
        code, out, err = run(capfd, *arguments)
        found = json.loads(err)
        assert (code, out) == (1, "") and [d["code"] for d in found] == ["NSA0703"]
    code, _, err = run(capfd, "--error-format=json", "compile", ADD, "-D", "K=1")
    assert code == 2 and json.loads(err)[0]["code"] == "usage"


def _command_that(action: Callable[[], object]) -> click.Command:
    @click.command("fmt")
    def command() -> None:
        action()

    return command


def test_a_fault_of_ours_is_70_and_one_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError("this cannot be\nsecond line")

    monkeypatch.setattr(fmt, "command", _command_that(fail))
    code, out, err = run(capfd, "fmt")
    assert (code, out) == (70, "") and len(err.splitlines()) == 1 and "fault of nsalang" in err and "AssertionError: this cannot be" in err
    code, _, err = run(capfd, "--debug", "fmt")
    assert code == 70 and "Traceback" in err and "second line" in err
    monkeypatch.setenv("NSALANG_DEBUG", "1")
    assert "Traceback" in run(capfd, "fmt")[2]
    monkeypatch.delenv("NSALANG_DEBUG")
    code, _, err = run(capfd, "--error-format", "json", "fmt")
    assert code == 70 and json.loads(err)[0]["code"] == "fault"


def test_an_interrupt_is_130(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fmt, "command", _command_that(interrupt))
    assert run(capfd, "fmt") == (130, "", "interrupted\n")


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "nsalang", "--help"], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_of_a_process() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "nsalang", "fmt", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in err


# -------------------------------------------------------------------------------------------------------------------- progress


def test_progress_after_two_seconds_and_not_when_quiet(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from nsalang.report import terminal

    monkeypatch.setattr(terminal, "SHOW_AFTER", 0.05)
    for quiet, expected in ((False, "slow ...\nslower ...\n"), (True, "")):
        session = terminal.Session(quiet=quiet)
        with session.progress("quick"):
            pass
        with session.progress("slow") as say:
            time.sleep(0.3)
            say("slower")
        assert capfd.readouterr().err == expected


def test_no_colours_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capfd, "bench", "--compile-time", ADD, "--repeat", "1")
    assert "\x1b" not in out and "vector_add" in out


# --------------------------------------------------------------------------------------------------------------------- compile


def test_compile_writes_a_file_or_a_directory(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    one = tmp_path / "made.py"
    assert run(capfd, "compile", ADD, "--backend", "triton", "-o", one)[:2] == (0, "")
    assert "tl.store" in one.read_text()
    folder = tmp_path / "new/folder"
    assert run(capfd, "compile", ADD, "-o", folder)[0] == 0
    assert sorted(p.name for p in folder.iterdir()) == ["vector_add.tilelang.py", "vector_add.triton.py"]
    assert (folder / "vector_add.triton.py").read_text() == one.read_text()
    assert run(capfd, "compile", ADD, "-o", one)[0] == 2
    code, out, _ = run(capfd, "compile", ADD, "-b", "triton")
    assert (code, out) == (0, one.read_text())


def test_compile_emits_every_kind(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "vector_add" in run(capfd, "compile", ADD, "--emit", "ast")[1]
    code, out, _ = run(capfd, "compile", ADD, "--emit", "ir")
    assert code == 0 and "vector_add.triton.ir.txt" in out and "vector_add.tilelang.ir.txt" in out
    assert ".visible .entry" in run(capfd, "compile", ADD, "--emit", "ptx", "-b", "triton")[1]
    assert run(capfd, "compile", ADD, "--emit", "cubin", "-b", "triton", "-o", tmp_path / "a.cubin")[0] == 0
    assert (tmp_path / "a.cubin").read_bytes()[:4] == b"\x7fELF"
    assert "__global__" in run(capfd, "compile", ADD, "--emit", "cuda")[1]
    assert "__global__" in run(capfd, "compile", ADD, "--emit", "hip", "-t", "hip:gfx942")[1]
    assert "s_endpgm" in run(capfd, "compile", ADD, "--emit", "amdgcn", "-t", "hip:gfx942")[1]
    code, _, err = run(capfd, "compile", ADD, "--emit", "ptx", "-t", "hip:gfx942")
    assert code == 1 and "error[NSA0606]" in err


def test_compile_takes_constants_and_pins(capfd: pytest.CaptureFixture[str]) -> None:
    plain = run(capfd, "compile", QUANT, "-b", "triton")[1]
    rounded = run(capfd, "compile", QUANT, "-b", "triton", "-D", "ue8m0=true")[1]
    pinned = run(capfd, "compile", QUANT, "-b", "triton", "--pin", "m=4")[1]
    wide = run(capfd, "compile", QUANT, "-b", "triton", "--wide", "--unaligned")[1]
    assert len({plain, rounded, pinned, wide}) == 4 and "int64" in wide


def test_compile_takes_pinned_places(capfd: pytest.CaptureFixture[str]) -> None:
    softmax = ROOT / "examples/softmax.nsa"
    made = run(capfd, "compile", softmax, "-b", "tilelang", "--pin", "new=shared,m=8", "--schedule", "warps=2")[1]
    assert "new: shared, pinned" in made and "m: 8, pinned" in made and "2 warps." in made and "T.alloc_shared((8,)" in made
    code, out, err = run(capfd, "compile", softmax, "--pin", "new=shared")
    assert code == 1 and not out and "error[NSA0408]: the schedule pins 'new' to shared" in err and 'backend="tilelang"' in err
    code, out, err = run(capfd, "prove", softmax, "--backend", "tilelang", "--pin", "news=shared")
    assert code == 1 and "error[NSA0409]" in err


@pytest.mark.parametrize("command", [["run"], ["bench"], ["bench", "--compile-time", "--repeat", "1"]])
def test_run_and_bench_take_pins(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    sizes = [] if "--compile-time" in command else ["-D", "N=9", "-t", "cpu"]
    code, out, err = run(capfd, *command, ADD, *sizes, "-b", "tilelang", "--pin", "n=32")
    assert code == 0 and "tilelang" in out, err
    code, _, err = run(capfd, *command, ADD, *sizes, "-b", "tilelang", "--pin", "q=32")
    assert code == 1 and "error[NSA0409]" in err and "'q'" in err


def test_a_failed_compile_leaves_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    both = tmp_path / "both.nsa"
    both.write_text(ADD.read_text() + "\n\n" + ADD.read_text().replace("vector_add", "wrong").replace("b[n]", "b[m]"))
    out = tmp_path / "out"
    assert run(capfd, "compile", both, "-o", out)[0] == 1
    assert not out.exists()
    old = tmp_path / "old.py"
    old.write_text("old")
    assert run(capfd, "compile", both, "wrong", "-b", "triton", "-o", old)[0] == 1
    assert old.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both.nsa", "old.py"]


def test_an_output_that_cannot_be_written(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run(capfd, "compile", ADD, "-b", "triton", "-o", tmp_path / "file/below/a.py")
    assert code == 1 and "error[NSA0706]" in err and "file/below" in err


def test_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(NsaError, match="NSA0706"):
        write_files({tmp_path / "taken": b"x", tmp_path / "new/b": b"y"})
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
