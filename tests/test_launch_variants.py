"""Facts of a launch that choose a variant, and the options of a call."""

from __future__ import annotations

import pytest
import torch
from launch_engine import Engine, K, X, _with_lengths, engine_of, fresh, refused

import nsalang
from nsalang import ir
from nsalang.base.dtypes import I64
from nsalang.build.backends import choose_backend
from nsalang.build.pipeline import Meaning
from nsalang.host.memory import Layout, is_aligned, needs_wide, pointer
from nsalang.launch import launcher as launch
from nsalang.launch.options import DEFAULT, options_of
from nsalang.toolchain.backends import Backend


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return engine_of(monkeypatch)


# ------------------------------------------------------------------------------------------------------------------ the two facts


def test_aligned_variant(engine: Engine) -> None:
    kernels = fresh()
    x = torch.ones(4, 8)
    kernels.add(x, x)
    assert engine.ran[-1].choice.aligned
    kernels.add(x, torch.ones(4 * 8 + 1)[1:].reshape(4, 8))
    assert not engine.ran[-1].choice.aligned, "a base address"
    kernels.add(x, torch.ones(4, 9)[:, :8])
    assert not engine.ran[-1].choice.aligned, "a row stride"
    kernels.add(x, torch.ones(8, 4).t())
    assert not engine.ran[-1].choice.aligned, "a last stride"
    kernels.add(torch.ones(4, 6), torch.ones(4, 6))
    assert not engine.ran[-1].choice.aligned, "an output to be allocated counts too"


def test_axes_of_one_element_do_not_matter() -> None:
    assert is_aligned(Layout((1, 8), (3, 1), 4, 0))
    assert is_aligned(Layout((8, 4), (4, 1), 4, 0))
    assert not is_aligned(Layout((2, 8), (3, 1), 4, 0))
    assert not is_aligned(Layout((2, 8), (8, 2), 4, 0))
    assert not is_aligned(Layout((2, 6), (8, 1), 4, 0)), "the last extent"
    assert is_aligned(Layout((0, 8), (8, 1), 4, 3))


def test_only_tensors_that_are_read_in_vectors_decide(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "vectors", ("x", "out"))
    kernels, x, odd = fresh(), torch.ones(4, 8), torch.ones(4, 9)[:, :8]
    kernels.add(x, odd)
    assert engine.ran[-1].choice.aligned
    kernels.add(odd, x)
    assert not engine.ran[-1].choice.aligned


def test_a_stride_that_does_not_matter_is_passed_as_zero(engine: Engine) -> None:
    fresh().add(torch.ones(1, 8).as_strided((1, 8), (5, 1)), torch.ones(1, 8))
    assert engine.ran[-1].choice.aligned and 5 not in [v for v in engine.ran[-1].arguments if isinstance(v, int)]


def test_wide_variant_for_offsets(engine: Engine) -> None:
    kernels = fresh()
    far = torch.empty(1).expand(3, 2**30)  # offsets up to 2**30: narrow
    meaning = Meaning.of(nsalang.Target("cpu"), {}, {}, frozenset())
    kernel = kernels.single.launcher.typed(meaning)
    dims = {"M": 3, "N": 2**30}
    assert not needs_wide(kernel, {"x": Layout((3, 2**30), tuple(far.stride()), 4, 0)}, dims)
    assert needs_wide(kernel, {"x": Layout((3, 2**30), (2**30, 1), 4, 0)}, dims)
    assert needs_wide(kernel, {}, {"M": 2**31 - 1, "N": 1})
    assert not needs_wide(kernel, {}, {"M": 2**31 - 1 - 2**17, "N": 1})


def test_tails_of_tiles_count_for_offsets() -> None:
    kernel = fresh().add.launcher.typed(Meaning.of(nsalang.Target("cpu"), {}, {}, frozenset()))
    layout = Layout((2**15, 2**16), (2**16, 1), 4, 0)
    assert not needs_wide(_with_lengths(kernel, {"m": 1, "n": 1}), {"x": layout}, {})
    assert needs_wide(_with_lengths(kernel, {"m": 2, "n": 1}), {"x": layout}, {}), "a row past the last"


def test_the_wide_variant_is_launched(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "needs_wide", lambda kernel, layouts, dims: dims["M"] > 2)
    kernels = fresh()
    kernels.add(X, X)
    kernels.add(X[:2], X[:2])
    assert [r.choice.wide for r in engine.ran] == [True, False]


BYTES = """
def rows(cache: InOut[u8[NB, 4 * P + 16]], y: Out[f32[NB, P]]):
    v = view(cache, f32[NB, P], offset=16, strides=(4 * P + 16, 4))
    for b, p in grid(NB, tile(P)):
        y[b, p] = v[b, p]
        v[b, p] = 0

def short(cache: u8[N], y: Out[f32[N // 4]]):
    v = view(cache, f32[N // 4])
    for n in grid(tile(N // 4)):
        y[n] = v[n]
"""


def test_views(engine: Engine) -> None:
    kernels = nsalang.load_text(BYTES, "views.nsa")
    for gap in (0, 4, 64):
        cache = torch.arange(3 * (36 + gap), dtype=torch.uint8).reshape(3, 36 + gap)[:, :36]
        wanted = cache[:, 16:].contiguous().view(torch.float32)
        assert torch.equal(kernels.rows(cache.clone().copy_(cache)).view(torch.int32), wanted.view(torch.int32))
        assert torch.equal(kernels.rows.interpret(cache).view(torch.int32), wanted.view(torch.int32)) and not cache[:, 16:].any()
    assert torch.equal(kernels.short(torch.zeros(0, dtype=torch.uint8)), torch.zeros(0))
    wide = torch.zeros(3, 72, dtype=torch.uint8)
    for call in (kernels.rows, kernels.rows.interpret):
        refused("NSA0521", lambda call=call: call(wide[:, ::2]), "'v'", "gaps")  # type: ignore[misc]
        refused("NSA0521", lambda call=call: call(torch.zeros(3, 38, dtype=torch.uint8)[:, :36]), "'v'", "38 bytes apart")  # type: ignore[misc]
    odd = torch.zeros(9, dtype=torch.uint8)[1:]
    refused("NSA0521", lambda: kernels.short(odd), "'v'", "begins at an address", "contiguous tensor of its own")


def test_the_address_of_a_view() -> None:
    base = torch.zeros(4, 10, dtype=torch.int16)[1:, 2:]
    assert pointer(base, 6).data_ptr() == base.data_ptr() + 6 and pointer(base, 0).numel() == 1
    assert pointer(torch.zeros(0), 4).numel() == 0


def test_views_count_for_the_facts_of_a_launch() -> None:
    kernel = nsalang.load_text(BYTES, "views.nsa").rows.launcher.typed(Meaning(nsalang.Target("cpu")))
    kernel = _with_lengths(kernel, {"p": 1024}, ("v",))
    near, far = Layout((3, 5), (5, 1), 4, 0), Layout((3, 5), (2**30, 1), 4, 0)
    cache = Layout((3, 36), (36, 1), 1, 0)
    assert not needs_wide(kernel, {"cache": cache, "v": near}, {}) and needs_wide(kernel, {"cache": cache, "v": far}, {})


def test_call_options() -> None:
    refused("NSA0519", lambda: K.add(X, X, schedule=32), "'schedule'")
    refused("NSA0519", lambda: K.add(X, X, schedule={"m": 0}), "'schedule'")
    refused("NSA0519", lambda: K.add(X, X, backend=3), "'backend'")
    refused("NSA0519", lambda: K.add(X, X, target=3), "'target'")
    refused("NSA0519", lambda: nsalang.load_text("def k(target: f32[N]):\n    for n in grid(N):\n        target[n] = 0.0\n"), "'target'")
    refused("NSA0601", lambda: K.add(X, X, target="cuda:sm_1"), "sm_1")
    refused("NSA0607", lambda: K.add(X, X, backend="cutlass"), "'cutlass'")
    refused("NSA0605", lambda: K.add(X, X, target="cuda:sm_90"), "cpu", "cuda:sm_90")
    if not torch.cuda.is_available():  # without a tensor the target says which device it is
        kernel = nsalang.load_text("def k(y: Out[f32[N]], N: i32):\n    for n in grid(tile(N)):\n        y[n] = 1.0\n").k
        refused("NSA0605", lambda: kernel(4, target="cuda:sm_90"), "cpu", "cuda:sm_90")
        assert kernel.interpret(4, target="cuda:sm_90").tolist() == [1.0] * 4
    for option in ("deterministic", "check", "allow"):
        refused("NSA0519", lambda option=option: K.add(X, X, **{option: "x"}), option)  # type: ignore[misc]
    refused("NSA0519", lambda: K.add.compile(target="cpu", allow="everything"), "allow")  # type: ignore[arg-type]
    refused("NSA0402", lambda: K.add(X, X, autotune="x"), "autotune", "not there yet")


def test_options_of_the_other_calls() -> None:
    for tile in (0, -1, True, "x", 2.0, {"m": 0}, {"m": "4"}, {3: 4}):
        refused("NSA0519", lambda tile=tile: K.add.interpret(X, X, tile=tile), "'tile'", repr(tile))  # type: ignore[misc]
    assert torch.equal(K.add.interpret(X, X, tile={"m": 1, "n": 3}), X + X)
    refused("NSA0504", lambda: nsalang.load_text(None), "load_text", "NoneType")  # type: ignore[arg-type]
    assert K.add.compile(backend="triton").key == K.add.compile(target="cuda:sm_90", backend="triton").key
    refused("NSA0601", lambda: K.add.compile(target=3), "3")  # type: ignore[arg-type]


def test_the_exact_variant_runs_where_what_it_hoists_holds(engine: Engine) -> None:
    """Two facts are one choice: all of them hold, or the guarded variant runs."""
    columns, rows = (ir.binary("mod", ir.Dim(I64, (), d), ir.const(4)) for d in "NM")
    engine.hoists = tuple(ir.Require(ir.binary("eq", r, ir.const(0)), "0") for r in (columns, rows))
    kernel = fresh().add
    for shape, exact in (((4, 8), True), ((4, 6), False), ((3, 8), False), ((0, 4), True), ((8, 12), True), ((3, 7), False)):
        x = torch.randn(shape)
        for _ in range(2):
            assert torch.equal(kernel(x, x), 2 * x)
        choices = {ran.choice.exact for ran in engine.ran}
        assert choices == ({exact} if all(shape) else set()), shape
        engine.ran.clear()
    assert {(c.exact, c.wide) for _, c in engine.compiled} == {(True, False), (False, False)}
    engine.hoists = (ir.Require(ir.binary("eq", ir.binary("mod", ir.const(4), ir.Dim(I64, (), "M")), ir.const(0)), "0"),)
    assert torch.equal(fresh().add(torch.zeros(0, 4), torch.zeros(0, 4)), torch.zeros(0, 4)), "a check that divides by 0 does not hold"


def test_what_may_be_unknown_is_part_of_the_choice(engine: Engine) -> None:
    kernel = fresh().add
    for allow in (None, "unknown"):
        kernel(X, X, allow=allow)
    assert [ran.choice.allow_unknown for ran in engine.ran] == [False, True]
    again = nsalang.Kernel(kernel.unit, options_of("add", DEFAULT, None, None, None, "unknown"))
    again(X, X)
    assert engine.ran[-1].choice.allow_unknown


ADDING = """
def count(x: i32[N], total: InOut[{dtype}[1]]):
    for n in grid(tile(N)):
        atomic_add(total[0], {dtype}(x[n]))
"""


def test_deterministic_calls_add_no_floats_atomically(engine: Engine) -> None:
    x = torch.arange(5, dtype=torch.int32)
    assert nsalang.load_text(ADDING.format(dtype="i32"), "a.nsa").count(x, torch.zeros(1, dtype=torch.int32), deterministic=True) is None
    floats = nsalang.load_text(ADDING.format(dtype="f32"), "a.nsa").count
    assert floats(x, torch.zeros(1)) is None and floats(x, torch.zeros(1), deterministic=False) is None
    refused("NSA0522", lambda: floats(x, torch.zeros(1), deterministic=True), "'total'", "deterministic=True")
    assert K.add(X, X, deterministic=True) is not None


def test_options_that_are_off_are_no_error(engine: Engine) -> None:
    assert torch.equal(fresh().add(X, X, autotune=False, check=None, allow=None, deterministic=False), 2 * X)


def test_a_failed_call_leaves_given_outputs_alone() -> None:
    out = torch.full((4, 6), 7.0)
    refused("NSA0509", lambda: K.add(X, X[:3], out=out), "M")
    assert bool((out == 7).all())


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backend, "installed", lambda backend: backend.package != "tilelang")
    refused("NSA0604", lambda: fresh().add(X, X, backend="tilelang"), "package tilelang", "pip install tilelang")
    assert choose_backend("auto", nsalang.Target("cpu")) == "triton"
    monkeypatch.setattr(Backend, "installed", lambda backend: backend.package != "triton")
    assert choose_backend("auto", nsalang.Target("cuda", "sm_90")) == "tilelang"
    monkeypatch.setattr(Backend, "installed", lambda backend: False)
    refused("NSA0604", lambda: fresh().add(X, X), "triton", "tilelang")
