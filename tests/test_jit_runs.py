"""Kernels that are compiled and run, by both backends, and what processes find in the cache on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch
from jit_texts import BACKENDS, GROUP, ROWS, SOFTMAX

import nsalang
from nsalang.build.cache import Cache
from nsalang.build.pipeline import Choice
from nsalang.toolchain.backends import Triton


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ------------------------------------------------------------------------------------------------------------------------ running


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 64), (7, 130), (0, 3)])
def test_softmax_runs(backend: str, shape: tuple[int, int]) -> None:
    kernel = nsalang.load_text(SOFTMAX).softmax
    x = torch.randn(shape)
    y = kernel(x, backend=backend)
    torch.testing.assert_close(y, kernel.interpret(x), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(y, x.softmax(1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_strides_any_alignment_any_const(backend: str) -> None:
    kernel = nsalang.load_text(GROUP).group
    x = torch.randn(6, 32).bfloat16()
    bias = torch.randn(32)
    inputs = [x, torch.randn(32, 6).bfloat16().t(), torch.randn(6, 33).bfloat16()[:, 1:], torch.randn(12, 64).bfloat16()[::2, ::2]]
    for given in inputs:
        for settings in ({}, {"G": 16}, {"half": True}, {"bias": bias}, {"bias": bias.repeat(2)[::2]}):
            y = torch.full((6, 64), 7.0).bfloat16()[:, ::2]
            found = kernel(given, y=y, backend=backend, **settings)
            expected = kernel.interpret(given, **settings)
            assert found[0] is y and torch.equal(y, expected[0]) and torch.equal(found[1], expected[1]), settings


@pytest.mark.parametrize("backend", BACKENDS)
def test_wide_variant_gives_the_same(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from nsalang.launch import launcher as launch

    monkeypatch.setattr(launch, "needs_wide", lambda kernel, layouts, dims: True)
    x = torch.randn(5, 40).bfloat16()
    kernel = nsalang.load_text(GROUP).group
    y, s = kernel(x, backend=backend)
    assert torch.equal(y, x) and torch.equal(s, kernel.interpret(x)[1])
    tried, taken = (choice for _, choice in kernel.launcher._compiled)
    assert taken.wide and tried == Choice(taken.backend, exact=True), "the fastest variant says whether it fits"


def test_pinned_tiles_give_the_same() -> None:
    x = torch.randn(5, 40)
    kernel = nsalang.load_text(ROWS).rows
    expected = x.max(1).values
    for m in (1, 2, 8):
        assert torch.equal(kernel(x, backend="tilelang", schedule={"m": m}), expected)
        made = kernel.compile(target="cpu", backend="tilelang", schedule={"m": m}, D=40)
        assert made.kernel.schedule.length("m") == m


# -------------------------------------------------------------------------------------------------------------------------- cache

PROCESS = """
import sys, torch, nsalang
from nsalang.toolchain import tilelang_compile
made = []
real = tilelang_compile.compile_program
tilelang_compile.compile_program = lambda program: made.append(program.entry) or real(program)
kernel = nsalang.load(sys.argv[1]).rows
assert torch.equal(kernel(torch.eye(4), backend="tilelang"), torch.ones(4))
print(len(made), "tilelang" in sys.modules)
"""


def _process(path: Path, cache: Path) -> str:
    env = {**os.environ, "NSALANG_CACHE_DIR": str(cache), "PYTHONPATH": os.getcwd()}
    ran = subprocess.run([sys.executable, "-c", PROCESS, str(path)], capture_output=True, text=True, env=env, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_a_second_process_finds_what_the_first_compiled(tmp_path: Path, own_cache: Path) -> None:
    first, second = tmp_path / "a" / "rows.nsa", tmp_path / "b" / "other.nsa"
    for path in (first, second):
        path.parent.mkdir()
        path.write_text(ROWS)
    assert _process(first, own_cache) == "1 True"
    # Another file of another name with the same kernel; TileLang is not even imported.
    assert _process(second, own_cache) == "0 False"
    entry = Cache(own_cache).entries()[0]
    assert entry.about["kernel"] == "rows" and entry.about["backend"] == "tilelang"


def test_a_damaged_entry_is_compiled_again(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = Triton.compile
    monkeypatch.setattr(Triton, "compile", lambda self, program: made.append(program.entry) or real(self, program))
    compiled = nsalang.load_text(ROWS).rows.compile(target="cpu", backend="triton", D=4)
    files = compiled.artifact
    assert compiled.artifact == files and len(made) == 1
    for path in (own_cache / compiled.key).iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert compiled.artifact == files and len(made) == 2
    assert compiled.artifact == files and len(made) == 2


def test_a_cache_that_cannot_be_written_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(blocked / "cache"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for width in (3, 4):
            x = torch.randn(2, width)
            assert torch.equal(nsalang.load_text(ROWS).rows(x, backend="triton"), x.max(1).values)
    ours = [str(w.message) for w in seen if "NSALANG_CACHE_DIR" in str(w.message)]
    assert len(ours) == 1 and str(blocked / "cache") in ours[0]


def test_artifacts_are_json_text_and_binaries(own_cache: Path) -> None:
    nsalang.load_text(ROWS).rows(torch.ones(2, 3), backend="tilelang")
    (entry,) = Cache(own_cache).entries()
    for path in (own_cache / entry.key).iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            assert path.suffix in (".so", ".c", ".cu", ".cubin"), path


# ------------------------------------------------------------------------------------------------------------------------- package


def test_importing_brings_no_library() -> None:
    text = "import sys, nsalang; nsalang.__version__; dir(nsalang); print([m for m in ('torch', 'triton', 'tilelang', 'z3', 'lark', 'numpy') if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert ran.stdout.strip() == "[]"


def test_parsing_and_compiling_to_source_need_no_torch() -> None:
    text = f"""
    import sys, nsalang
    made = nsalang.load_text({ROWS!r}).rows.compile(target="cuda:sm_90", backend="triton", D=8)
    assert "rows" in made.source
    print([m for m in ("torch", "triton", "tilelang") if m in sys.modules])
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert ran.stdout.strip() == "[]", ran.stderr


def test_names_of_the_package() -> None:
    import nsalang.launch.kernel

    assert all(hasattr(nsalang, name) for name in nsalang.__all__)
    with pytest.raises(AttributeError, match="nonesuch"):
        nsalang.nonesuch  # type: ignore[attr-defined]  # noqa: B018
    assert callable(nsalang.jit)
