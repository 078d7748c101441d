"""Kind C: commands, files, numbers and streams. Each case is an input that once ended in a crash, a lost file, or a wrong word."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nsalang.base.source import NsaError
from nsalang.commands import cli
from nsalang.report.files import write_files

ROOT = Path(__file__).parent.parent.parent
ADD = ROOT / "examples/vector_add.nsa"
TEXT = """def one(x: f32[N], y: Out[f32[N]], s: f32 = 1.0, i: i32 = 2, u: u8 = 1, k: const = 4, b: const = False):
    for n in grid(tile(N)):
        y[n] = x[n] * s * i + u + k
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cli-cache"))
    monkeypatch.delenv("NSALANG_DEBUG", raising=False)


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    code = cli.main([str(a) for a in arguments])
    out, err = capfd.readouterr()
    return code, out, err


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script in which $N is the command and $A an example."""
    known = {**os.environ, "N": f"{sys.executable} -m nsalang", "A": str(ADD), "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False, env=known)


# ---------------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "device", "twin", "mode", "chain"], ids=lambda k: f"C-out-{k}")
def test_what_stands_at_an_output_stays_what_it_is(kind: str, tmp_path: Path) -> None:
    place, other = tmp_path / "out", tmp_path / "other"
    other.write_bytes(b"old, and longer than the new text")
    match kind:
        case "link" | "dangling":
            place.symlink_to("other")
            if kind == "dangling":
                other.unlink()
        case "chain":
            (tmp_path / "middle").symlink_to("other")
            place.symlink_to("middle")
        case "fifo":
            os.mkfifo(place)
        case "device":
            place = Path("/dev/null")
        case "twin":
            os.link(other, place)
        case "mode":
            place.write_bytes(b"old")
            place.chmod(0o750)
    before = os.lstat(place)
    reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK) if kind == "fifo" else None
    write_files({place: b"new"})
    assert stat.S_IFMT(os.lstat(place).st_mode) == stat.S_IFMT(before.st_mode)
    if reader is not None:
        assert os.read(reader, 100) == b"new"
        os.close(reader)
    elif kind == "mode":
        assert place.read_bytes() == b"new" and stat.S_IMODE(os.stat(place).st_mode) == 0o750
    elif kind != "device":
        assert other.read_bytes() == place.read_bytes() == b"new"
        assert (kind == "twin") == os.path.samefile(place, other) or place.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["compile", ADD, "-b", "triton", "-o"],
        ["prove", ADD, "--smt2"],
        ["run", ADD, "-D", "N=3", "-t", "cpu", "-b", "tilelang", "--save"],
        ["demo", "-o"],
    ],
    ids=lambda a: f"C-out-{a[0]}",
)
@pytest.mark.parametrize("name", ["x" * 300 + ".npz", "a\0b.npz"], ids=["long", "nul"])
def test_a_name_that_no_file_can_have(arguments: list[object], name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if arguments[0] == "demo":
        with pytest.raises(NsaError, match="NSA0706"):
            write_files({tmp_path / name / "a": b""})
        return
    code, _, err = run(capfd, *arguments, tmp_path / name)
    assert code == 1 and err.count("error[NSA0706]") == 1, err
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == []


@pytest.mark.parametrize("suffix", [".nsa", ".py", ".npy"], ids=lambda s: f"C-in{s}")
@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "folder"])
def test_an_input_that_cannot_be_opened(suffix: str, name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / f"{name}{suffix}"
    if name == "folder":
        path.mkdir()
    arguments = ["run", ADD, "-t", "cpu", "-i", f"a={path}"] if suffix == ".npy" else ["compile", path]
    code, _, err = run(capfd, *arguments)
    assert code == 1 and err.count("error[NSA0704]") == 1, err


def test_fmt_keeps_links_and_modes(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    real, link = tmp_path / "real.nsa", tmp_path / "link.nsa"
    real.write_text("def f(x:f32[N],y:Out[f32[N]]):\n  for n in grid(tile(N)):\n    y[n]=x[n]\n")
    real.chmod(0o600)
    link.symlink_to("real.nsa")
    assert run(capfd, "fmt", link)[0] == 0
    assert link.is_symlink() and "y[n] = x[n]" in real.read_text() and stat.S_IMODE(real.stat().st_mode) == 0o600


# -------------------------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize(
    "script, code, told",
    [
        ("(sleep 1; $N prove $A) | true; exit ${PIPESTATUS[0]}", 141, ""),
        ("(sleep 1; $N prove $A --json) | true; exit ${PIPESTATUS[0]}", 141, ""),
        ("(sleep 1; $N prove nope.nsa 2>&1 >/dev/null) | true; exit ${PIPESTATUS[0]}", 141, ""),
        ("$N compile $A -b triton >&-", 1, "error[NSA0706]: cannot write standard output"),
        ("$N prove $A >/dev/full", 1, "error[NSA0702]: no space left for standard output"),
        ("$N compile $A -b triton >/dev/full", 1, "error[NSA0702]: no space left for standard output"),
        ("$N compile $A -b triton -o /dev/full", 1, "error[NSA0702]: no space left for '/dev/full'"),
        ("$N fmt --check $A >&- 2>&- <&-", 0, ""),
        ("$N prove nope.nsa 2>&-", 1, ""),
        ("$N prove nope.nsa 2>/dev/full", 1, ""),
        ("$N compile $A -b triton -o /dev/stdout | grep -c '^def vector_add'", 0, ""),
        ("$N --error-format json compile $A -b triton >/dev/full", 1, '"NSA0702"'),
    ],
    ids=lambda v: f"C-stream-{v}" if isinstance(v, str) and "$N" in v else "",
)
def test_streams_that_end_or_fail(script: str, code: int, told: str) -> None:
    done = shell(script)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr and "fault of nsalang" not in done.stderr
    assert told in done.stderr if told else not done.stderr.replace("wrote /dev/stdout\n", "")


# -------------------------------------------------------------------------------------------------------------------- numbers


NUMBERS = ("99999999999999999999", "1e999", "nan", "1.5", "1__0", "_1", "１２", "9" * 5000, "inf", "1e5", "f32")
NAMES = ("N", "i", "u", "--seed", "--pin", "--repeat", "--max-bytes")


def _taken(name: str, text: str) -> bool:
    """What click takes: digits of any script, and any number of bytes."""
    return (name in NAMES[3:] and name != "--pin" and text == "１２") or (name == "--max-bytes" and text == NUMBERS[0])


@pytest.mark.parametrize(
    "name, text", [pytest.param(n, t, id=f"C-number-{n}={t[:25]}") for n in NAMES for t in NUMBERS if not _taken(n, t)]
)
def test_a_number_that_is_none(name: str, text: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "one.nsa"
    path.write_text(TEXT)
    before = ["run", path, "-t", "cpu", "-b", "tilelang", "-D", "s=2,k=3"]
    command = {
        "--seed": [*before, "-D", "N=4", "--seed", text],
        "--pin": ["compile", path, "--pin", f"n={text}"],
        "--repeat": ["bench", "--compile-time", path, "--repeat", text],
        "--max-bytes": ["cache", "prune", "--max-bytes", text],
    }.get(name, [*before, "-D", f"{name}={text}", *([] if name == "N" else ["-D", "N=4"])])
    code, out, err = run(capfd, *command)
    assert code == 2 and out == "" and err.count("Error:") == 1, err


@pytest.mark.parametrize(
    "option", [["--seed", "-1"], ["--repeat", "0"], ["--max-age-days", "nan"], ["--max-age-days", "-1"]], ids=lambda o: f"C-number-{o[0]}"
)
def test_a_number_out_of_range(option: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    command = {"--seed": ["run", ADD], "--repeat": ["bench", "--compile-time", ADD]}.get(option[0], ["cache", "prune"])
    code, out, err = run(capfd, *command, *option)
    assert (code, out) == (2, "") and err.count("Error:") == 1


def test_a_size_and_a_file_that_contradict_each_other(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import numpy

    numpy.save(tmp_path / "x.npy", numpy.arange(5, dtype=numpy.float32))
    (tmp_path / "one.nsa").write_text(TEXT)
    code, _, err = run(capfd, "run", tmp_path / "one.nsa", "-t", "cpu", "-b", "tilelang", "-i", f"x={tmp_path / 'x.npy'}", "-D", "N=6")
    assert code == 2 and "axis 0 of 'x' has extent 5 in its file, which is not what -D N=6 says" in err


# --------------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["frobnicate", "--error-format", "json"], "usage"),
        (["--error-format=json", "frobnicate"], "usage"),
        (["compile", "--bogus", "--error-format=json"], "usage"),
        (["compile", "--error-format", "json"], "usage"),
        (["fmt", "nope.nsa", "--error-format", "json"], "NSA0703"),
    ],
    ids=lambda v: "C-json-" + v[0] if isinstance(v, list) else v,
)
def test_errors_as_json_whatever_is_wrong(arguments: list[str], code: str, capfd: pytest.CaptureFixture[str]) -> None:
    _, out, err = run(capfd, *arguments)
    assert out == "" and [d["code"] for d in json.loads(err)] == [code]


def test_an_interrupt_as_json(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "stop.py"
    path.write_text("raise KeyboardInterrupt\n")
    code, _, err = run(capfd, "prove", path, "--error-format", "json")
    assert code == 130 and json.loads(err)[0]["code"] == "interrupt"


@pytest.mark.parametrize(
    "text",
    ["import sys; sys.exit(3)", "raise SystemExit", "raise BaseException('x')", "import asyncio; raise asyncio.CancelledError"],
    ids=lambda t: f"C-exit-{t}",
)
def test_a_python_file_that_ends_itself(text: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "end.py"
    path.write_text(text + "\n")
    code, _, err = run(capfd, "prove", path)
    assert code == 1 and err.count("error[NSA0704]") == 1 and "cannot be imported" in err


@pytest.mark.parametrize("command", ["show", "prove", "run", "compile"])
@pytest.mark.parametrize(
    "value, wanted",
    [("k=1.5", "an integer"), ("k=True", "an integer"), ("b=3", "True or False"), ("k=f32", "an integer"), ("k=nan", "an integer")],
)
def test_a_constant_of_a_wrong_kind(value: str, wanted: str, command: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "one.nsa"
    file.write_text(TEXT)
    code, _, err = run(capfd, command, file, "-D", value)
    name, text = value.split("=")
    assert code == 2 and f"argument '{name}' is a const parameter and takes {wanted}, not {text}" in err
