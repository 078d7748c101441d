"""What users pin beside lengths: places of variables, stages of one loop; and each limit that refuses a pin."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from contraction_kernels import ATTENTION, CASES, INDEXER, MATMUL, SPARSE_MLA
from staged import check, last, typed
from test_contractions import WIDE_MLA, assigns, run_all

import nsalang
from nsalang import ir
from nsalang.base.source import Diagnostic, NsaError
from nsalang.base.target import parse_target
from nsalang.build.pipeline import lower
from nsalang.ir.verify import verify
from nsalang.launch.options import pins_of
from nsalang.lowering.program import Program
from nsalang.toolchain import Files, tilelang_lower
from nsalang.toolchain.backends import TileLang
from nsalang.toolchain.tilelang_compile import compile_program

Pins = Mapping[str, int | str]

SHARES = """
def shares(x: f32[M, N], y: Out[f32[M, N]]):
    for m in grid(tile(M)):
        total = zeros(m)
        for n in tile(N):
            part = x[m, n]
            total = total + sum(part, axis=n)
        for n in tile(N):
            y[m, n] = x[m, n] / total
"""
"""No contractions, and two loops of one name, of which the second has no variable."""

WEIGHTED = ATTENTION.replace("            total = total * fix", "            weight = bf16(p)\n            total = total * fix").replace(
    "dot(bf16(p)", "dot(weight"
)


def program(text: str, pins: Pins, target: str = "cuda:sm_90", **dims: int) -> Program:
    return lower(last(text, target, "tilelang", pins=pins, dims=dims), parse_target(target)).program


def loops(kernel: ir.Kernel) -> dict[str, ir.For]:
    return {n.index: n for n in ir.walk(kernel) if isinstance(n, ir.For)}


def refused(text: str, pins: Pins, backend: str = "tilelang", target: str = "cuda:sm_90", **dims: int) -> Diagnostic:
    with pytest.raises(NsaError) as error:
        last(text, target, backend, pins=pins, dims=dims)
    (found,) = error.value.diagnostics
    return found


# ---------------------------------------------------------------------------------------------------------------------- places


def test_a_place_is_in_the_ir_in_the_header_and_in_the_key() -> None:
    kernel = last(SPARSE_MLA, backend="tilelang", pins={"live": "shared", "query": "registers"})
    places = {name: s.place for name, s in assigns(kernel).items()}
    assert (places["live"], places["query"], places["keys"], places["top"]) == ("shared", "registers", "shared", None)
    assert "live: shared, pinned" in kernel.schedule.why and "query: registers, pinned" in kernel.schedule.why
    made = lower(kernel, parse_target("cuda:sm_90")).program
    assert "\nlive: shared, pinned\n" in made.source
    assert "live = T.alloc_shared((64,)" in made.source and re.search(r"query = T.alloc_fragment\(\(\d+, 32\), \"bfloat16\"\)", made.source)
    one = nsalang.load_text(SPARSE_MLA).sparse_mla
    keys = {one.compile(target="cpu", backend="tilelang", schedule=s).key for s in ({}, {"live": "shared"}, {"live": "registers"})}
    assert len(keys) == 3


def test_every_assignment_of_a_name_gets_the_place() -> None:
    """The first `score` of the loop has a name of its own after the pass, the second one keeps it."""
    kernel = last(SPARSE_MLA, backend="tilelang", pins={"score": "shared", "acc": "shared"})
    found = [n for n in ir.walk(kernel) if isinstance(n, ir.Assign) and n.place == "shared"]
    assert [n.name for n in found if n.name == "acc"] == ["acc", "acc"] and {"score", "score_2"} <= {n.name for n in found}


def test_names_of_helpers_can_be_pinned() -> None:
    text = "def doubled(v):\n    twice = v + v\n    return twice + 1\n\n\n" + SHARES.replace("x[m, n]\n", "doubled(x[m, n])\n")
    shares = nsalang.load_text(text).shares
    made = shares.compile(target="cpu", backend="tilelang", schedule={"twice": "shared"}).kernel
    assert assigns(made)["twice"].place == "shared"


CHOICES: list[tuple[str, Pins]] = [
    ("sparse MLA", {"score": "shared", "acc": "shared", "live": "shared", "h": 16}),
    ("sparse MLA", {"query": "registers", "keys": "shared", "k.stages": 3}),
    ("attention", {"query": "registers", "p": "shared", "new": "shared"}),
    ("matmul", {"acc": "shared", "k": 16, "k.stages": 4}),
    ("matmul", {"k.stages": 1}),
    ("indexer", {"score": "shared", "inside": "shared"}),
]


@pytest.mark.parametrize(("name", "pins"), CHOICES)
def test_pinned_places_and_stages_keep_the_meaning(name: str, pins: Pins) -> None:
    assert run_all(CASES[name], "tilelang", pins=pins)


@pytest.mark.parametrize(("name", "pins"), CHOICES)
def test_pinned_places_give_the_same_bits(name: str, pins: Pins) -> None:
    """As C on the CPU, against the same tiles without the pins, which the tests of TileLang compare with the interpreter."""
    case = CASES[name]
    (kernel,) = nsalang.load_text(case.text)
    arguments = {**inputs(name), **case.scalars, **case.constants}
    lengths = {n: v for n, v in pins.items() if n in ("h", "k", "t")}
    expected = kernel(**arguments, backend="tilelang", schedule=lengths)
    found = kernel(**arguments, backend="tilelang", schedule=pins)
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (expected, found)), strict=True):
        assert torch.equal(a, b)


def inputs(name: str) -> dict[str, Any]:
    from nsalang.base.dtypes import BF16

    case = CASES[name]
    made: dict[str, Any] = {}
    random = torch.Generator().manual_seed(3)
    for t in typed(case.text, dims=case.dims, **case.constants).tensors:
        shape = tuple(int(driver_size(e, case.sizes)) for e in t.shape)
        if t.role == "in":
            dtype = torch.bfloat16 if t.dtype is BF16 else torch.float8_e4m3fn if t.dtype.is_fp8 else torch.float32
            made[t.name] = case.tensors[t.name] if t.name in case.tensors else (torch.randint(-8, 8, shape, generator=random) / 8).to(dtype)
    return made


def driver_size(extent: ir.Expr, sizes: Mapping[str, int]) -> float:
    from nsalang.host.extents import evaluate

    return evaluate(extent, dict(sizes), {})


def test_a_kernel_without_contractions_reads_ahead_what_is_pinned() -> None:
    pins: Pins = {"part": "shared", "n.stages": 3, "m": 4, "n": 32}
    kernel = last(SHARES, backend="tilelang", pins=pins)
    assert {n: (s.stages, s.ahead) for n, s in loops(kernel).items()} == {"n": (3, ("part",)), "n.2": (1, ())}
    check(typed(SHARES), {"M": 5, "N": 100}, pins=pins, backends=("tilelang",), widths=(False,), ulps=40)
    x = torch.randint(1, 9, (5, 100)).float()
    shares = nsalang.load_text(SHARES).shares
    found = shares(x, backend="tilelang", schedule=pins)
    assert torch.equal(found, shares.interpret(x)) and torch.equal(found, x / x.sum(1, keepdim=True))


@pytest.mark.nvcc
@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90"])
def test_pinned_places_compile_with_nvcc(target: str) -> None:
    """What is read by lanes that others wrote stands behind a barrier, and what is read ahead is an asynchronous copy."""
    files = compile_program(program(SHARES, {"part": "shared", "n.stages": 3}, target))
    text = files["kernel.cu"].decode()
    assert files["kernel.cubin"].startswith(b"\x7fELF") and "cp_async_wait<2>" in text
    assert text.index("cp_async_wait<2>") < text.index("__syncthreads", text.index("cp_async_wait<2>")) < text.rindex("part")


@pytest.mark.nvcc
def test_a_left_operand_in_registers_compiles_with_nvcc() -> None:
    files = compile_program(program(WEIGHTED, {"weight": "registers", "fix": "shared"}, D=64))
    assert "wgmma_rs" in files["kernel.cu"].decode() and files["kernel.cubin"].startswith(b"\x7fELF")


def test_few_rows_have_warps_that_read_an_operand_from_registers() -> None:
    """16 rows for each warp: of a class of few heads, too, which a launch chooses."""
    for rows in (16, 32, 64):
        made = last(WEIGHTED, backend="tilelang", pins={"weight": "registers", "s": rows}, dims={"D": 64})
        assert made.schedule.warps == rows // 16 and assigns(made)["weight"].place == "registers"
    loaded = last(WEIGHTED, backend="tilelang", pins={"query": "registers", "s": 16}, dims={"D": 64})
    assert loaded.schedule.warps == 4  # each of them loads what it needs


@pytest.mark.parametrize(
    ("pins", "code", "line", "words"),
    [
        ({"kees": "shared"}, "NSA0409", None, "has no such variable; its variables: query, query_r, top"),
        ({"k": "shared"}, "NSA0409", None, "has no such variable: it is an axis, which has a length"),
        ({"keys": 64}, "NSA0409", None, "has no such axis: it is a variable, which has a place"),
        ({"h.stages": 2}, "NSA0409", None, "has no such loop; its loops: k"),
        ({"k.stages": 9}, "NSA0408", None, "it can be 1, 2, 3, 4, 5, 6, 7, 8"),
        ({"keys": "registers"}, "NSA0408", 12, "'keys' to registers; it holds the columns of this contraction"),
        ({"score": "shared", "h": 128, "k": 256}, "NSA0412", 12, "'score' h 128 x k 256"),
    ],
)
def test_impossible_pins_are_refused(pins: Pins, code: str, line: int | None, words: str) -> None:
    found = refused(SPARSE_MLA, pins)
    assert found.code == code and words in found.sentence, found.render()
    assert (None if found.span is None else found.span.line) == line, found.render()


def test_warps_beside_each_other_share_no_registers() -> None:
    found = refused(WEIGHTED, {"weight": "registers", "s": 16, "warps": 4}, D=64)
    assert found.code == "NSA0408" and "4 warps that read from registers what they have computed need 64 rows" in found.sentence
    assert found.span is not None and found.span.line == 15


def test_a_number_has_no_place() -> None:
    text = "def k(x: f32[N], y: Out[f32[N]]):\n    for n in grid(N):\n        v = x[n] + 1\n        y[n] = v * v\n"
    found = refused(text, {"v": "shared"})
    assert found.code == "NSA0408" and "one number" in found.sentence and found.span is not None and found.span.line == 3


def test_triton_takes_no_places() -> None:
    found = refused(SPARSE_MLA, {"keys": "shared"}, "triton")
    assert found.code == "NSA0408" and "Triton's compiler places values itself" in found.sentence and "tilelang" in found.helps[0]
    assert found.span is not None and found.span.line == 11
    with pytest.raises(NsaError, match="NSA0408.*Triton's compiler"):
        nsalang.load_text(SPARSE_MLA).sparse_mla.compile(target="cuda:sm_90", schedule={"keys": "shared"})


def test_what_is_pinned_counts_against_shared_memory() -> None:
    """Tiles are chosen around it; where nothing is left to choose, it is named."""
    free, around = (last(MATMUL, backend="tilelang", pins=p) for p in ({}, {"acc": "shared"}))
    assert assigns(around)["acc"].place == "shared" and free.schedule != around.schedule
    found = refused(SHARES, {"part": "shared", "m": 128, "n": 1024})
    assert found.code == "NSA0412" and "'part' 524288" in found.sentence and found.span is not None and found.span.line == 6


def test_backends_that_refuse_pinned_places_say_which_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(backend: TileLang, program: Program) -> Files:
        raise NsaError.at("NSA0602", "TileLang refuses the program")

    monkeypatch.setattr(TileLang, "compile", refuse)
    shares = nsalang.load_text(SHARES).shares
    for pins, told in (({"part": "shared", "m": 2}, True), ({"m": 2}, False)):
        with pytest.raises(NsaError) as error:
            _ = shares.compile(target="cpu", backend="tilelang", schedule=pins).artifact
        assert ("part=shared" in str(error.value)) == told


def test_where_tilelang_finds_no_layout_a_pin_that_settles_it_is_named() -> None:
    text = """
def online(q: f16[M, H, D], x: f16[N, D], ra: Out[f32[M]], H: const = 16, D: const = 16):
    h, d = span(H), span(D)
    for m in grid(tile(M)):
        top, acc = full(m, f32.min), zeros(m)
        for n in tile(N):
            score = where(n != 3, max(dot(q[m, h, d], x[n, d], axis=d), axis=h), -inf)
            new = maximum(top, max(score, axis=n))
            acc = acc * exp2(top - new) + sum(exp2(score - new), axis=n)
            top = new
        ra[m] = acc
"""
    online = nsalang.load_text(text).online
    with pytest.raises(NsaError, match="NSA0602") as error:
        _ = online.compile(target="cuda:sm_90", backend="tilelang").artifact
    (diagnostic,) = error.value.diagnostics
    (pin,) = [h for h in diagnostic.helps if "schedule=" in h]
    assert "with 'new' in shared memory it does not" in pin
    tilelang_lower.lower(online.compile(target="cuda:sm_90", backend="tilelang", schedule={"new": "shared"}).program)


def test_only_a_left_operand_may_be_in_registers() -> None:
    kernel = last(SPARSE_MLA, backend="tilelang", pins={"query": "registers"}, stage="flatten")
    broken = ir.rewrite(kernel, lambda n: ir.Assign(n.name, n.value, "registers") if isinstance(n, ir.Assign) and n.name == "keys" else n)
    broken = ir.rewrite(broken, lambda n: dataclasses.replace(n, stages=0, ahead=()) if isinstance(n, ir.For) else n)
    with pytest.raises(AssertionError, match="'keys' in .* is no variable of shared memory"):
        verify(broken, "flatten")


# ---------------------------------------------------------------------------------------------------------------------- stages


def test_stages_of_one_loop() -> None:
    kernel = last(WIDE_MLA, backend="tilelang", pins={"k.stages": 3, "k": 32, "h": 16})
    assert (loops(kernel)["k"].stages, loops(kernel)["k"].ahead) == (3, ("keys", "rope")) and "k.stages: 3, pinned" in kernel.schedule.why
    alone = loops(last(WIDE_MLA, backend="tilelang", pins={"k.stages": 1}))["k"]
    assert (alone.stages, alone.ahead) == (1, ())
    source = lower(last(WIDE_MLA, pins={"k.stages": 3, "k": 32}), parse_target("cuda:sm_90")).program.source
    assert (
        "in tl.range(0, K, 32, num_stages=3):" in source
        and "tl.range" not in lower(last(WIDE_MLA), parse_target("cuda:sm_90")).program.source
    )


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
def test_stages_of_one_loop_count_against_shared_memory(backend: str) -> None:
    found = refused(WIDE_MLA, {"k.stages": 6, "k": 64}, backend)
    assert found.code == "NSA0412" and "in 6 stages" in found.sentence and any("k.stages" in h for h in found.helps)


def test_a_loop_without_loads_to_read_ahead_has_no_stages() -> None:
    found = refused(SHARES, {"n.stages": 2})
    assert (
        found.code == "NSA0408" and "no load that it could read ahead" in found.sentence and found.span is not None and found.span.line == 5
    )
    assert loops(last(SHARES, pins={"n.stages": 2}))["n.2"].stages == 2  # Triton looks for itself


def test_triton_runs_a_loop_with_stages_of_its_own() -> None:
    x = torch.randint(1, 9, (3, 70)).float()
    shares = nsalang.load_text(SHARES).shares
    assert torch.equal(shares(x, backend="triton", schedule={"n.stages": 2, "n": 16}), shares.interpret(x))


# --------------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
def test_accumulators_that_no_registers_hold_are_refused(backend: str) -> None:
    for pins, warps in (({"m": 256, "n": 512, "warps": 4}, 4), ({"m": 256, "n": 512}, 8)):
        found = refused(MATMUL, {**pins, "k": 16}, backend)
        assert found.code == "NSA0412" and f"'acc' m 256 x n 512) takes 131072 registers, and {warps} warps" in found.sentence
        assert "255 a thread" in found.sentence and found.span is not None and found.span.line == 6
    assert last(MATMUL, backend=backend, pins={"m": 128, "n": 128, "k": 16, "warps": 4}).schedule.warps == 4
    assert last(MATMUL, "cuda:sm_100", "triton", pins={"m": 128, "n": 256, "k": 16, "warps": 4}).schedule.warps == 4  # tensor memory


@pytest.mark.parametrize("backend", ["triton", "tilelang"])
@pytest.mark.parametrize(("pins", "what"), [({"m": 8}, "16 rows"), ({"n": 8}, "16 columns"), ({"k": 8}, "16 of what it sums over")])
def test_tiles_below_a_tensor_core_are_refused(pins: Pins, what: str, backend: str) -> None:
    found = refused(MATMUL, pins, backend)
    assert found.code == "NSA0408" and f"at least {what}" in found.sentence


def test_fp8_sums_over_32_at_least() -> None:
    assert "at least 32 of what it sums over" in refused(MATMUL.replace("bf16", "e4m3"), {"k": 16}).sentence


def test_two_lanes_of_an_axis_on_both_sides_are_refused() -> None:
    text = MATMUL.replace("[M, K]", "[B, M, K]").replace("[K, N]", "[B, K, N]").replace("[M, N]", "[B, M, N]")
    text = text.replace("for m, n in grid(", "for i, m, n in grid(tile(B), ").replace("[m,", "[i, m,").replace("[k,", "[i, k,")
    text = text.replace("zeros(m, n)", "zeros(i, m, n)")
    assert "an axis on both sides of a contraction has 1" in refused(text, {"i": 2}).sentence


# ------------------------------------------------------------------------------------------------------------------- the option


def test_a_schedule_maps_names_to_lengths_and_places() -> None:
    assert pins_of({"m": 32, "keys": "shared", "combine": {"k.stages": 2}}) == (("combine.k.stages", 2), ("keys", "shared"), ("m", 32))
    for wrong in ({"keys": "global"}, {"keys": "32"}, {"keys": True}, {"k": {"stages": 2.0}}):
        with pytest.raises(NsaError, match="NSA0519") as error:
            pins_of(wrong)
        assert error.value.diagnostics[0].helps == ("a place is 'registers' or 'shared'",)


def test_the_kernels_of_a_program_have_pins_of_their_own() -> None:
    text = (
        SHARES
        + "\n\ndef twice(x: f32[M, N], y: Out[f32[M, N]]):\n    half = empty(f32[M, N])\n    shares(x, y=half)\n    shares(half, y=y)\n"
    )
    made = nsalang.load_text(text).twice

    def stages(schedule: Any) -> list[int]:
        return [loops(one.kernel)["n"].stages for _, one in made.compile(target="cpu", backend="tilelang", schedule=schedule)]

    assert stages({"part": "shared", "n.stages": 3}) == stages({"shares": {"part": "shared", "n.stages": 3}}) == [3, 3]
    with pytest.raises(NsaError, match=r"NSA0519.*pins 'n.3', and no kernel is called that"):
        stages({"n.3": 4})


def test_the_indexer_keeps_its_scores_where_it_is_told() -> None:
    source = program(INDEXER, {"score": "shared", "t": 64}, H=16, D=64).source
    assert "score = T.alloc_shared(" in source
