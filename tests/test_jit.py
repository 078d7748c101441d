"""Kernels from files and from Python functions, compiled by both backends for the CPU and others, and found again in the cache."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch

import nsalang
from nsalang.build import compiled as build
from nsalang.build.cache import Cache
from nsalang.build.pipeline import Choice
from nsalang.dims import M, N
from nsalang.language import Out, f32, grid, tile
from nsalang.toolchain.backends import Triton

SOFTMAX = '''
def softmax(x: f32[M, N], y: Out[f32[M, N]]):
    """Row by row."""
    for m in grid(tile(M)):
        top, total = full(m, f32.min), zeros(m)
        for n in tile(N):
            new = maximum(top, max(x[m, n], axis=n))
            total = total * exp(top - new) + sum(exp(x[m, n] - new), axis=n)
            top = new
        for n in tile(N):
            y[m, n] = exp(x[m, n] - top) / total
'''
GROUP = """
def group(x: bf16[M, N], bias: f32[N] | None, y: Out[bf16[M, N]], s: Out[f32[M, N // G]], G: const = 8, half: const = False):
    require(N % G == 0)
    for m, g in grid(tile(M), N // G):
        n = span(g * G, G)
        v = f32(x[m, n])
        if bias is not None:
            v = v + bias[n]
        if half:
            v = v / 2
        y[m, n] = bf16(v)
        s[m, g] = absmax(v, axis=n)
"""
ROWS = """
def rows(x: f32[M, D], y: Out[f32[M]]):
    d = span(D)
    for m in grid(tile(M)):
        y[m] = max(x[m, d], axis=d)
"""
BACKENDS = ("triton", "tilelang")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def code_of(error: BaseException) -> str:
    assert isinstance(error, nsalang.NsaError)
    return error.diagnostics[0].code


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
    from nsalang.build.pipeline import Choice, Meaning, Unit
    from nsalang.passes import PASSES

    seen: list[str] = []
    unit = nsalang.load_text(SOFTMAX).softmax.unit
    assert isinstance(unit, Unit)
    made = compile_kernel(unit, Meaning(nsalang.Target("cpu")), Choice("triton"), lambda stage, kernel: seen.append(stage))
    assert seen == ["typecheck", *(name for name, _ in PASSES)]
    assert made.typed is not made.kernel


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
