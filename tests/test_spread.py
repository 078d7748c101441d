"""What is made once a group: which values are, that they stay what they were at every stage, and what both backends make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from staged import check, last, stages, typed

import nsalang
from nsalang import ir
from nsalang.host.memory import Layout, needs_wide
from nsalang.passes import spread
from nsalang.toolchain.backends import BACKENDS

FILE = Path(__file__).parent / "cases" / "scales.nsa"
K = nsalang.load(FILE)
LANES = "    for m, n in grid(tile(M), tile(N)):\n"
HEAD = "def k(x: f32[M, N], s: f32[M, N], t: i32[N], y: Out[f32[M, N]]):\n"


@pytest.fixture
def every_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each load were worth it, however few lanes it has."""
    monkeypatch.setattr(spread, "LOADS", 0)


def groups(kernel: ir.Kernel) -> dict[str, int]:
    return {ir.plain(name): step for name, _, step in kernel.schedule.groups}


def loads(kernel: ir.Kernel, tensor: str) -> list[tuple[str, ...]]:
    return [n.axes for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Load) and n.tensor == tensor]


# ------------------------------------------------------------------------------------------------------------- what is spread


@pytest.mark.parametrize(
    ("value", "step"),
    [
        ("s[m, n // 32]", 32),
        ("s[m, (n + 64) // 32]", 32),
        ("s[m, (64 * M + n) // 32]", 32),
        ("s[m, n // 96]", 32),
        ("s[m, n // 4096]", 256),
        ("exp(s[m, n // 32]) * 2", 32),
        ("s[m, n // 32] * s[m, (n + 32) // 32]", 32),
        ("where(t[n // 16] > 3, s[m, n // 16], 1.0)", 16),
    ],
)
def test_a_value_is_made_once_a_group(value: str, step: int) -> None:
    kernel = last(f"{HEAD}{LANES}        y[m, n] = x[m, n] * ({value})\n", pins={"m": 16, "n": 256}, trust=True)
    assert groups(kernel) == {"n_first": step} and kernel.schedule.length("n_first") == 256 // step
    assert set(loads(kernel, "s")) == {("m", "n_first")} and loads(kernel, "x") == [("m", "n")]


@pytest.mark.parametrize(
    "value",
    [
        "s[m, n // 3]",  # groups of no power of two
        "s[m, (n + 5) // 32]",  # a group begins within a tile's
        "s[m, (n + m) // 32]",
        "s[m, (2 * n) // 32]",
        "s[m, (-n) // 32 + N]",
        "s[m, n % 32]",
        "s[m, n // 32 + t[n]]",
        "t[n // 32]",  # no thread has four of these
    ],
)
def test_what_varies_within_a_group_is_not(value: str) -> None:
    kernel = last(f"{HEAD}{LANES}        y[m, n] = x[m, n] * f32({value})\n", pins={"m": 16, "n": 256}, trust=True)
    assert groups(kernel) == {}


def test_a_tile_that_begins_anywhere_has_no_groups() -> None:
    text = "def k(s: f32[N], o: i32[M], y: Out[f32[M]]):\n    for m in grid(M):\n        a = 0.0\n        for n in tile(@, N):\n            a = a + sum(s[n // 32], axis=n)\n        y[m] = a\n"
    for begin, found in (("64", {"n_first": 32}), ("16", {"n_first": 16}), ("o[m]", {})):
        assert groups(last(text.replace("@", begin), pins={"n": 1024, "warps": 1}, trust=True)) == found


def test_two_steps_and_two_axes() -> None:
    text = f"{HEAD}{LANES}        y[m, n] = s[m // 4, n // 32] * s[m, n // 8] * x[m, n // 32]\n"
    kernel = last(text, pins={"m": 64, "n": 128}, trust=True)
    assert groups(kernel) == {"m_first": 4, "n_first": 32, "n_first_2": 8}
    assert loads(kernel, "s") == [("m_first", "n_first"), ("m", "n_first_2")] and loads(kernel, "x") == [("m", "n_first")]


def test_a_name_of_the_author_holds_what_is_spread() -> None:
    text = f"{HEAD}{LANES}        scale = s[m, n // 32]\n        y[m, n] = x[m, n] * scale + exp(scale)\n"
    kernel = last(text, pins={"m": 16, "n": 256}, trust=True)
    assigned = {n.name: n.value.axes for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Assign)}
    assert assigned["scale"] == ("m", "n_first")
    exps = [n.axes for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.Unary) and n.op == "exp"]
    assert exps == [("m", "n_first")]


def test_a_division_stays_under_its_where() -> None:
    """Made before it, a machine might divide by the 0 that the `where` leaves out."""
    text = (
        "def k(x: i32[M, N], s: i32[M, N], y: Out[i64[M, N]]):\n"
        + LANES
        + "        y[m, n] = where(s[m, n // 32] != 0, 100 // s[m, n // 32], x[m, n])\n"
    )
    kernel = typed(text)
    check(kernel, {"M": 3, "N": 130}, pins={"m": 2, "n": 64, "warps": 1}, tensors={"s": torch.randint(-1, 2, (3, 130), dtype=torch.int32)})


# --------------------------------------------------------------------------------------------------------- what a value is then

TEXTS = {
    "masks": f"{HEAD}{LANES}        y[m, n] = where(n < t[m], s[m, n // 4], x[m, n]) + where(t[n // 2] > 0, s[m // 2, n // 2], 1.0)\n",
    "reductions": HEAD.replace("y: Out[f32[M, N]]", "y: Out[f32[M]]")
    + "    for m in grid(tile(M)):\n        a, b = full(m, -inf), zeros(m)\n        for n in tile(N):\n            scale = s[m, n // 4]\n"
    "            a = maximum(a, max(x[m, n] * scale, axis=n))\n            b = b + sum(scale, axis=n)\n        y[m] = a + b\n",
    "spans": HEAD + "    require(N >= 14)\n    for m in grid(tile(M)):\n        n = span(2, 12)\n"
    "        y[m, n] = cumsum(x[m, n // 2] * s[m, (n + 2) // 4], axis=n) + f32(argmax(s[m, n // 4], axis=n))\n        partial(y)\n",
    "branches": f"{HEAD}    for m, n in grid(M, tile(N)):\n        v = full(n, 0.0)\n        if t[m] > 0:\n            v = s[m, n // 4] * x[m, n]\n"
    "        for i in range(2):\n            scale = x[m, (n // 8) * i]\n            v = v * scale + scale\n        y[m, n] = v\n",
    "pages": f"{HEAD}{LANES}        page = t[n // 4]\n        y[m, n] = where((0 <= page) & (page < N), x[m, clamp(page, 0, N - 1)] * s[m, n % 4], -1)\n",
}  # fmt: skip


@pytest.mark.parametrize("n", [14, 16, 23])
@pytest.mark.parametrize("name", TEXTS)
def test_every_stage_keeps_the_value(name: str, n: int, every_load: None) -> None:
    text = TEXTS[name].replace("        partial(y)\n", "").replace("):\n", "):\n    partial(y)\n" if name == "spans" else "):\n", 1)
    kernel = typed(text)
    pins = {"m": 2, "n": 8, "warps": 1} if "tile(M)" in text and "tile(N)" in text else {"n": 8} if "tile(N)" in text else {"m": 2}
    made = stages(kernel, "cuda:sm_90", "triton", True, pins, trust=True)[-1][1]
    assert groups(made), "nothing is spread"
    t = torch.randint(-1, 9, (n,), dtype=torch.int32)
    check(kernel, {"M": 5, "N": n}, pins=pins, tensors={"t": t})


# ------------------------------------------------------------------------------------------------------------------- backends


def inputs(name: str) -> dict[str, Any]:
    torch.manual_seed(len(name))
    e4m3 = torch.float8_e4m3fn
    return {
        "rows": lambda: {"x": torch.randn(37, 96).to(e4m3), "s": torch.rand(37, 3)},
        "ragged": lambda: {
            "x": torch.randn(21, 275).bfloat16(), "s": torch.rand(21, 18), "z": torch.randint(0, 9, (3, 5), dtype=torch.uint8),
        },
        "lengths": lambda: {
            "x": torch.randint(-8, 9, (35, 96)).bfloat16(), "s": torch.randint(-4, 5, (35, 4)).float(),
            "length": torch.randint(-1, 99, (35,), dtype=torch.int32),
        },
        "product": lambda: {
            "a": torch.randint(-4, 5, (40, 150)).bfloat16(), "w": torch.randint(-4, 5, (70, 150)).to(e4m3),
            "s": torch.randint(1, 4, (3, 3)).float(),
        },
        "pages": lambda: {
            "q": torch.randint(-4, 5, (20, 64)).bfloat16(), "kv": torch.randint(-4, 5, (7, 16, 64)).to(e4m3),
            "s": torch.randint(1, 4, (7, 2)).float(), "table": torch.randint(-1, 9, (9,), dtype=torch.int32),
        },
    }[name]()  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", dir(K))
def test_backends_do_what_is_meant(name: str, backend: str) -> None:
    kernel, given = getattr(K, name), inputs(name)
    assert kernel.compile(target="cuda:sm_90", backend=backend).kernel.schedule.groups, "nothing is spread"
    wanted, found = kernel.interpret(**given), kernel(**given, backend=backend)
    for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (wanted, found)), strict=True):
        assert torch.equal(a.view(torch.int32), b.view(torch.int32)) or torch.allclose(a, b, rtol=1e-6, atol=0), name


@pytest.mark.parametrize("target", ["cuda:sm_90", "cuda:sm_80", "hip:gfx942"])
def test_triton_reads_a_scale_once_a_group(target: str) -> None:
    """A value of 64 x 512 with 4 scales a row: as many loads as without groups would be 128 a thread."""
    compiled = nsalang.load(FILE).rows.compile(target=target, backend="triton", schedule={"m": 64, "n": 512})
    assert compiled.kernel.schedule.length("n_first") == 16
    if target == "cuda:sm_90":
        ptx = compiled.emit("ptx")
        assert isinstance(ptx, str) and ptx.count("ld.global.b32") + ptx.count("ld.global.f32") < 16


def test_groups_are_told() -> None:
    kernel = last(f"{HEAD}{LANES}        y[m, n] = x[m, n] * s[m, n // 32]\n", pins={"m": 16, "n": 256}, trust=True)
    assert "n_first: 8, the first of every 32 of n" in kernel.schedule.why


def test_a_group_reaches_as_far_as_its_tile() -> None:
    """Offsets of lanes that are padded count too, and those of a group's first lane are as large as its tile's but for one group."""
    kernel = last(f"{HEAD}{LANES}        y[m, n] = x[m, n] * s[m, n // 32 * 32]\n", pins={"m": 16, "n": 256}, trust=True)
    assert set(loads(kernel, "s")) == {("m", "n_first")}
    assert needs_wide(kernel, {"s": Layout((1, 2), (1, 2**23), 4, 0)}, {"M": 1, "N": 2})
    assert not needs_wide(kernel, {"s": Layout((1, 2), (1, 2**22), 4, 0)}, {"M": 1, "N": 2})
