"""Kernels as a user makes and compiles them: from files, from functions, to source and to binaries of every target."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jit_texts import BACKENDS, GROUP, ROWS, SOFTMAX, code_of

import nsalang
from nsalang.build import compiled as build
from nsalang.build.pipeline import Choice
from nsalang.dims import M, N
from nsalang.language import Out, f32, grid, tile


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


# -------------------------------------------------------------------------------------------------------------------- from files


def test_a_file_gives_its_kernels(tmp_path: Path) -> None:
    path = tmp_path / "two.nsa"
    path.write_text("SIZE = 4\n" + SOFTMAX + GROUP + "\ndef helper(a, b):\n    return a + b\n")
    module = nsalang.load(path)
    assert dir(module) == ["group", "softmax"] and [k.__name__ for k in module] == ["softmax", "group"]
    assert module.softmax.__doc__ == "Row by row."
    assert str(inspect.signature(module.softmax)) == "(x: f32[M, N], *, y: Out[f32[M, N]] = None)"
    assert "bias: f32[N] | None = None" in str(inspect.signature(module.group)) and "G: const = 8" in repr(module.group)
    with pytest.raises(AttributeError, match=r"no kernel 'sofmax'.*did you mean 'softmax'"):
        module.sofmax  # noqa: B018
    with pytest.raises(AttributeError, match=r"'helper' .* has no grid"):
        module.helper  # noqa: B018
    assert not hasattr(module, "__wrapped__")


@pytest.mark.parametrize(("content", "code"), [(None, "NSA0703"), (b"", "NSA0110"), (b"def \xff", "NSA0705"), (b"def f(:\n", "NSA0104")])
def test_bad_files(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "bad.nsa"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(nsalang.NsaError) as caught:
        nsalang.load(path)
    assert code_of(caught.value) == code and "bad.nsa" in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- from functions

FACTOR = 3


@nsalang.jit
def scaled(x: f32[M, N], y: Out[f32[M, N]]):  # type: ignore[no-untyped-def]
    """Times FACTOR."""
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = x[m, n] * FACTOR


def test_a_function_becomes_a_kernel() -> None:
    assert isinstance(scaled, nsalang.Kernel)
    assert scaled.__doc__ == "Times FACTOR." and scaled.__module__ == __name__
    x = torch.randn(5, 7)
    assert torch.equal(scaled.interpret(x), x * 3)
    assert torch.equal(scaled(x), x * 3)


def test_captured_constants_are_those_at_the_decoration() -> None:
    size = 5

    @nsalang.jit
    def add(x: f32[N], y: Out[f32[N]]):  # type: ignore[no-untyped-def]
        for n in grid(tile(N)):
            y[n] = x[n] + size

    size = 6
    assert torch.equal(add.interpret(torch.zeros(3)), torch.full((3,), 5.0))


def test_options_of_the_decorator_are_defaults() -> None:
    @nsalang.jit(backend="nonesuch")
    def copy(x: f32[N], y: Out[f32[N]]):  # type: ignore[no-untyped-def]
        for n in grid(tile(N)):
            y[n] = x[n]

    with pytest.raises(nsalang.NsaError) as caught:
        copy(torch.ones(3))
    assert code_of(caught.value) == "NSA0607"
    assert torch.equal(copy(torch.ones(3), backend="triton"), torch.ones(3))


def test_syntax_is_checked_at_the_decoration_with_the_file_s_lines(tmp_path: Path) -> None:
    path = tmp_path / "wrong_syntax.py"
    path.write_text(
        "import nsalang\nfrom nsalang.dims import N\nfrom nsalang.language import f32, grid\nif True:\n    @nsalang.jit\n    def k(x: f32[N]):\n        for n in grid(N):\n            x[n] = yield\n"
    )
    ran = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}, check=False
    )
    assert ran.returncode == 1
    assert "wrong_syntax.py:8:" in ran.stderr and "error[NSA01" in ran.stderr, ran.stderr


def test_types_are_checked_at_the_first_use() -> None:
    module = nsalang.load_text("def k(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = x[n] + z\n")
    for use in (module.k.check, lambda: module.k(torch.ones(2)), lambda: module.k.compile(target="cuda:sm_90")):
        with pytest.raises(nsalang.NsaError) as caught:
            use()
        assert code_of(caught.value) == "NSA0201"


# ---------------------------------------------------------------------------------------------------------------------- compiling


@pytest.mark.parametrize("backend", BACKENDS)
def test_source_is_the_same_wherever_the_text_stands(backend: str) -> None:
    a = nsalang.load_text(SOFTMAX, "a.nsa").softmax.compile(target="cuda:sm_90", backend=backend)
    b = nsalang.load_text("\n\n# moved\n" + SOFTMAX, "/elsewhere/b.nsa").softmax.compile(target="cuda:sm_90", backend=backend)
    assert a.source == b.source and a.key == b.key


def test_keys_differ_where_the_code_may() -> None:
    group, rows = nsalang.load_text(GROUP).group, nsalang.load_text(ROWS).rows
    keys = [
        group.compile(target="cuda:sm_90", backend="triton").key,
        group.compile(target="cuda:sm_90", backend="tilelang").key,
        group.compile(target="cuda:sm_80", backend="triton").key,
        group.compile(target="hip:gfx942", backend="triton").key,
        group.compile(target="cuda:sm_90", backend="triton", G=16).key,
        group.compile(target="cuda:sm_90", backend="triton", half=True).key,
        group.compile(target="cuda:sm_90", backend="triton", bias=True).key,
        group.compile(target="cuda:sm_90", backend="triton", wide=True).key,
        group.compile(target="cuda:sm_90", backend="triton", aligned=False).key,
        group.compile(target="cuda:sm_90", backend="triton", schedule={"m": 2}).key,
        rows.compile(target="cuda:sm_90", backend="triton", D=8).key,
        rows.compile(target="cuda:sm_90", backend="triton", D=16).key,
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_follows_versions_and_the_code_of_nsalang(monkeypatch: pytest.MonkeyPatch) -> None:
    made = nsalang.load_text(ROWS).rows.compile(target="cuda:sm_90", backend="triton", D=8)
    before = made.key
    monkeypatch.setattr(build, "versions", lambda backend, target: {"triton": "0.0"})
    other_version = made.key
    monkeypatch.setattr(build, "code_version", lambda: "other")
    assert len({before, other_version, made.key}) == 3


@pytest.mark.parametrize(
    ("target", "backend", "kind"),
    [
        *[(t, b, k) for t in ("cuda:sm_90", "hip:gfx942", "cpu") for b in BACKENDS for k in ("ast", "ir", "source")],
        ("cuda:sm_80", "triton", "ptx"),
        ("hip:gfx950", "triton", "amdgcn"),
        ("cuda:sm_90", "tilelang", "cuda"),
        ("hip:gfx942", "tilelang", "hip"),
    ],
)
def test_text_is_emitted(target: str, backend: str, kind: str) -> None:
    made = nsalang.load_text(GROUP).group.compile(target=target, backend=backend).emit(kind)
    assert isinstance(made, str) and "group" in made


@pytest.mark.parametrize(("target", "kind"), [("cuda:sm_90", "cubin"), ("hip:gfx942", "hsaco")])
def test_binaries_are_emitted(target: str, kind: str) -> None:
    made = nsalang.load_text(GROUP).group.compile(target=target, backend="triton").emit(kind)
    assert isinstance(made, bytes) and made.startswith(b"\x7fELF")


@pytest.mark.parametrize(
    ("target", "backend", "kind", "word"),
    [
        ("cuda:sm_90", "triton", "cuda", "tilelang for cuda"),
        ("cuda:sm_90", "tilelang", "hsaco", "triton for hip"),
        ("cpu", "triton", "ptx", "triton for cuda"),
        ("cpu", "tilelang", "sass", "ast, ir, source"),
    ],
)
def test_kinds_that_do_not_exist(target: str, backend: str, kind: str, word: str) -> None:
    with pytest.raises(nsalang.NsaError, match=word) as caught:
        nsalang.load_text(GROUP).group.compile(target=target, backend=backend).emit(kind)
    assert code_of(caught.value) == "NSA0606"


def test_the_hook_sees_every_stage() -> None:
    from nsalang.build.compiled import compile_kernel
    from nsalang.build.pipeline import Meaning, Unit
    from nsalang.passes import PASSES

    seen: list[str] = []
    unit = nsalang.load_text(SOFTMAX).softmax.unit
    assert isinstance(unit, Unit)
    made = compile_kernel(unit, Meaning(nsalang.Target("cpu")), Choice("triton"), lambda stage, kernel: seen.append(stage))
    assert seen == ["typecheck", *(name for name, _ in PASSES)]
    assert made.typed is not made.kernel
