"""Calls on a GPU: results against the interpreter, CUDA graphs, streams, offsets past 32 bits, several devices, checks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nsalang
import nsalang.launch.checks

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees")]

TEXT = """
def softmax(x: f32[M, N], y: Out[f32[M, N]]):
    for m in grid(tile(M)):
        top, total = full(m, f32.min), zeros(m)
        for n in tile(N):
            new = maximum(top, max(x[m, n], axis=n))
            total = total * exp(top - new) + sum(exp(x[m, n] - new), axis=n)
            top = new
        for n in tile(N):
            y[m, n] = exp(x[m, n] - top) / total

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

def add(x: f32[M, N], y: f32[M, N], out: Out[f32[M, N]]):
    for m, n in grid(tile(M), tile(N)):
        out[m, n] = x[m, n] + y[m, n]

def gather(x: f32[T, N], idx: i32[S], y: Out[f32[S, N]]):
    promise(0 <= idx < T)
    for s, n in grid(S, tile(N)):
        t = idx[s]
        y[s, n] = x[t, n]

def copy(x: i8[M, N], y: Out[i8[M, N]]):
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = x[m, n]
"""
K = nsalang.load_text(TEXT)
BACKENDS = ("triton", "tilelang")
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (128, 512), (131, 1000), (0, 3)])
def test_softmax(backend: str, shape: tuple[int, int]) -> None:
    x = torch.randn(shape, device="cuda")
    y = K.softmax(x, backend=backend)
    assert y.device == x.device
    torch.testing.assert_close(y, K.softmax.interpret(x), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_and_variants_bit_for_bit(backend: str) -> None:
    bias = torch.randn(64, device="cuda")
    wide = torch.randn(70, 130, device="cuda").bfloat16()
    for x in (wide[:, :64].contiguous(), wide[:64, :70].t()[:70, :64], wide[:, 1:65], wide[::2, ::2][:, :64]):
        for settings in ({}, {"G": 16}, {"half": True}, {"bias": bias}):
            found, expected = K.group(x, backend=backend, **settings), K.group.interpret(x, **settings)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), (x.stride(), settings)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cuda_graph(backend: str) -> None:
    x, y, out = (torch.randn(37, 200, device="cuda") for _ in range(3))
    K.add(x, y, out=out, backend=backend)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        K.add(x, y, out=out, backend=backend)
        K.add(out, y, out=(third := torch.empty_like(out)), backend=backend)
    x.copy_(torch.randn_like(x))
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, x + y) and torch.equal(third, x + y + y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_current_stream(backend: str) -> None:
    x = torch.zeros(1024, 1024, device="cuda")
    K.add(x, x, backend=backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x.add_(1)
        out = K.add(x, x, backend=backend)
    stream.synchronize()
    assert bool((out == 2).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_offsets_past_32_bits(backend: str) -> None:
    rows, columns = 2**16 + 3, 2**15 + 8
    if torch.cuda.mem_get_info()[0] < 3 * rows * columns:
        pytest.skip("needs 7 GB")
    x = torch.zeros(rows, columns, dtype=torch.int8, device="cuda")
    x[-2:, -5:] = 7
    x[2**15, 3] = 5
    y = K.copy(x, backend=backend)
    assert torch.equal(x, y)
    assert any(choice.wide for _, choice in K.copy.launcher._compiled)


def test_just_48_kb_of_shared_memory() -> None:
    """The driver takes 1 KB of what a block has without asking for more."""
    indexer = nsalang.load(str(EXAMPLES / "fp8_index.nsa")).fp8_index
    torch.manual_seed(0)
    q, k = (torch.randn(1, n, *h, 128, device="cuda").to(torch.float8_e4m3fn) for n, h in ((2, (64,)), (300, ())))
    w, k_scale = torch.randn(1, 2, 64, device="cuda"), torch.rand(1, 300, device="cuda")
    found = indexer(q, w, k, k_scale, backend="tilelang", schedule={"n": 256, "m": 2, "stages": 1})
    scores = torch.einsum("bmhd,bnd->bmhn", q.double(), k.double()).relu()
    wanted = torch.einsum("bmhn,bmh->bmn", scores, w.double()) * k_scale.double()[:, None]
    assert float(1 - 2 * (found * wanted).sum() / (found.double() ** 2 + wanted**2).sum()) < 5e-6


def test_devices_must_agree() -> None:
    with pytest.raises(nsalang.NsaError, match="NSA0511"):
        K.add(torch.ones(2, 2, device="cuda"), torch.ones(2, 2))
    with pytest.raises(nsalang.NsaError, match="NSA0605"):
        K.add(torch.ones(2, 2, device="cuda"), torch.ones(2, 2, device="cuda"), target="cpu")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_device_that_is_not_current(backend: str) -> None:
    x = torch.randn(5, 6, device="cuda:1")
    assert torch.equal(K.add(x, x, backend=backend), 2 * x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_checks_find_a_broken_promise_and_an_index_outside(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 300, device="cuda")
    good, bad = (torch.tensor(v, dtype=torch.int32, device="cuda") for v in ([0, 4, 3, 3], [0, 4, 5, 1]))
    plain = K.gather(x, good, backend=backend)
    monkeypatch.setenv("NSALANG_CHECK", "1")
    assert torch.equal(K.gather(x, good, backend=backend), plain)
    with pytest.raises(nsalang.NsaError) as error:
        K.gather(x, bad, backend=backend)
    assert error.value.diagnostics[0].sentence == "promise(0 <= idx < T) does not hold: idx[2] = 5, T = 5"
    # Nobody looks at the promise: to the code that is a wrong proof.
    monkeypatch.setattr(nsalang.launch.checks, "check_promises", lambda *_: None)
    y = torch.full((4, 300), 3.0, device="cuda")
    with pytest.raises(nsalang.NsaError) as error:
        K.gather(x, bad, y=y, backend=backend)
    (found,) = error.value.diagnostics
    assert found.sentence == "'x[t, n]' is outside 'x': the index of axis 0 is 5, and the extent is T = 5"
    assert found.code == "NSA0814" and found.span is not None and found.span.text == "x[t, n]"
    assert torch.equal(y[[0, 1, 3]], x[[0, 4, 1]]) and not bool(y[2].any())


@pytest.mark.parametrize("backend", BACKENDS)
def test_checks_change_no_bits(backend: str) -> None:
    x = torch.randn(131, 1000, device="cuda")
    assert torch.equal(K.softmax(x, backend=backend, check=True), K.softmax(x, backend=backend))
    wide = torch.randn(70, 130, device="cuda").bfloat16()
    for given in (wide[:, :64].contiguous(), wide[:, 1:65]):
        plain, checked = (K.group(given, backend=backend, check=c) for c in (False, True))
        assert all(torch.equal(a, b) for a, b in zip(plain, checked, strict=True))


def test_checks_are_refused_in_a_graph() -> None:
    x = torch.randn(37, 200, device="cuda")
    out = torch.empty_like(x)
    K.add(x, x, out=out, check=True)
    torch.cuda.synchronize()
    with pytest.raises(nsalang.NsaError, match="NSA0519"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        K.add(x, x, out=out, check=True)
    assert torch.equal(K.add(x, x), x + x)
