"""The passes on kernels with contractions: every pass keeps the meaning, and the tiles, places and rows are as the rules say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from contraction_kernels import ATTENTION, CASES, INDEXER, MATMUL, SPARSE_MLA, Case
from staged import data, last, stages, typed

from nsalang import ir
from nsalang.base.dtypes import F16, F32, I8, DType
from nsalang.base.source import NsaError
from nsalang.base.target import KNOWN, parse_target
from nsalang.host.extents import evaluate
from nsalang.interp.run import interpret
from nsalang.ir.verify import contractions_have_two_sides, verify
from nsalang.launch.sizes import is_exact, sizes
from nsalang.passes import contract, contractions

BACKENDS = ("triton", "tilelang")


def dots(kernel: ir.Kernel) -> list[ir.Dot]:
    return [n for n in ir.walk(kernel) if isinstance(n, ir.Dot)]


def assigns(kernel: ir.Kernel) -> dict[str, ir.Assign]:
    return {n.name: n for n in ir.walk(kernel) if isinstance(n, ir.Assign)}


# ------------------------------------------------------------------------------------------------------------- meaning is kept


def run_all(case: Case, backend: str, target: str = "cuda:sm_90", pins: Mapping[str, int] | None = None, exact: bool = False) -> bool:
    """Whether the variant runs for these sizes; each stage of it must give what the kernel means."""
    kernel = typed(case.text, target, dims=case.dims, **case.constants)
    given = {}
    for seed, t in enumerate(kernel.tensors):
        shape = tuple(int(evaluate(e, dict(case.sizes), dict(case.scalars))) for e in t.shape)
        given[t.name] = case.tensors[t.name] if t.name in case.tensors else data(t.dtype, shape, seed)
        assert tuple(given[t.name].shape) == shape, t.name

    # What is rounded to bf16 depends on the largest value so far, and so on the tiles.
    def outputs(k: ir.Kernel, machine: bool) -> dict[str, torch.Tensor]:
        copies = {n: x.clone() for n, x in given.items()}
        interpret(k, copies, case.scalars, case.sizes, tile=dict(made[-1][1].schedule.lengths), machine=machine)
        return {t.name: copies[t.name] for t in kernel.tensors if t.role != "in"}

    made = stages(kernel, target, backend, False, pins or {}, exact)
    if exact and not (made[-1][1].schedule.exact and is_exact(made[-1][1], case.sizes, case.scalars)):
        return False
    expected = outputs(kernel, machine=False)
    masked = False
    for stage, k in made:
        masked = masked or stage == "guard"
        for name, found in outputs(k, masked).items():
            finite = expected[name].isfinite()
            assert torch.equal(found[~finite], expected[name][~finite]), f"{stage} ({backend}) changed {name}"
            most = float(expected[name][finite].abs().max()) if bool(finite.any()) else 0.0
            off = float((found[finite] - expected[name][finite]).abs().max()) if bool(finite.any()) else 0.0
            assert off <= case.tolerance * most, f"{stage} ({backend}) changed {name} by {off} of {most}"
    return True


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_every_pass_keeps_the_meaning(name: str, backend: str) -> None:
    assert run_all(CASES[name], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["matmul that divides", "sparse MLA, no tail", "attention of 12 values"])
def test_every_pass_keeps_the_meaning_of_exact_variants(name: str, backend: str) -> None:
    assert run_all(CASES[name], backend, exact=True)


@pytest.mark.parametrize("target", ["cuda:sm_80", "hip:gfx942"])
@pytest.mark.parametrize("name", ["indexer", "sparse MLA"])
def test_every_pass_keeps_the_meaning_on_other_targets(name: str, target: str) -> None:
    assert run_all(CASES[name], "tilelang", target)


def test_pinned_tiles_keep_the_meaning() -> None:
    assert run_all(CASES["sparse MLA"], "tilelang", pins={"h": 16, "k": 16})
    assert run_all(CASES["matmul"], "triton", pins={"m": 32, "n": 16, "k": 16})


def test_nan_and_infinity_beside_padded_lanes_change_nothing() -> None:
    """A padded lane of what is summed over is 0 in one operand, and finite in the other: 0 * NaN is NaN."""
    text = """
def k(a: bf16[M, K], b: bf16[N, K], y: Out[f32[M, N]]):
    for m, n in grid(tile(M), tile(N)):
        acc = zeros(m, n)
        for k in tile(K):
            acc = acc + dot(bf16(LEFT), bf16(RIGHT), axis=k)
        y[m, n] = acc
"""
    logarithm, square, reciprocal = "log(abs(f32(@)) + 0.0)", "f32(@) * f32(@) + 1", "1 / f32(@)"
    for left, right, wheres in ((logarithm, logarithm, 2), (logarithm, square, 1), (square, square, 1), (square, reciprocal, 0)):
        made = text.replace("LEFT", left.replace("@", "a[m, k]")).replace("RIGHT", right.replace("@", "b[n, k]"))
        factors = {name: s.value for name, s in assigns(last(made)).items() if "factor" in name}
        assert len(factors) == 2 and sum(isinstance(v, ir.Where) for v in factors.values()) == wheres, (left, right)
        ones = {"a": torch.full((3, 70), 2.0, dtype=torch.bfloat16), "b": torch.full((5, 70), 4.0, dtype=torch.bfloat16)}
        assert run_all(Case(made, {"M": 3, "N": 5, "K": 70}, tensors=ones, tolerance=1e-6), "triton")


# -------------------------------------------------------------------------------------------------------------------- contract


def contracted(text: str, backend: str = "triton", target: str = "cuda:sm_90", **constants: DType) -> ir.Kernel:
    kernel = typed(text, target, **constants)
    kernel = dataclasses.replace(kernel, schedule=dataclasses.replace(kernel.schedule, backend=backend))  # type: ignore[arg-type]
    return contract.run(kernel, parse_target(target))


def test_sums_start_at_what_is_added() -> None:
    kernel = typed(SPARSE_MLA)
    score, acc = (d for d in dots(contract.run(kernel, parse_target("cuda:sm_90"))) if d.acc is not None)
    assert isinstance(score.acc, ir.Dot) and score.acc.acc is None
    assert isinstance(acc.acc, ir.Binary) and acc.acc.op == "mul"


def test_only_f32_that_stays_exact_is_no_contraction_on_tilelang() -> None:
    for backend, dtype, count in (("triton", F32, 1), ("tilelang", F32, 0), ("tilelang", F16, 1)):
        assert len(dots(contracted(MATMUL, backend, T=dtype))) == count
    tf32 = MATMUL.replace("axis=k)", 'axis=k, precision="tf32")')
    assert len(dots(contracted(tf32, "tilelang", T=F32))) == 1


def test_a_side_without_free_axes_is_a_sum() -> None:
    kernel = contract.run(typed(INDEXER, dims={"H": 4, "D": 32}), parse_target("cuda:sm_90"))
    (dot,) = dots(kernel)
    (total,) = [n for n in ir.walk(kernel) if isinstance(n, ir.Reduce) and n.op == "sum"]
    assert dot.over == "d" and total.over == ("h",) and total.dtype is F32


def test_integers_are_summed_as_integers() -> None:
    text = "def k(a: i8[M, K], b: i8[K], y: Out[i32[M]]):\n    for m in grid(tile(M)):\n        acc = zeros(m, dtype=i64)\n        for k in tile(clamp(K, 0, 100)):\n            acc = acc + dot(a[m, k], b[k], axis=k)\n        y[m] = i32(acc)\n"
    kernel = contracted(text)
    (total,) = [n for n in ir.walk(kernel) if isinstance(n, ir.Reduce) and n.op == "sum"]
    assert not dots(kernel) and not total.dtype.is_float and all(x.dtype is not I8 for x in (total.x,))


@pytest.mark.parametrize("target", KNOWN)
def test_fp8_is_widened_where_no_tensor_core_takes_it(target: str) -> None:
    (dot,) = dots(contract.run(typed(INDEXER, target, dims={"H": 4, "D": 32}), parse_target(target)))
    assert dot.a.dtype is (F16 if target in ("cuda:sm_80", "cuda:sm_86") else parse_target(target).facts.e4m3)


@pytest.mark.parametrize(("target", "promote"), [("cuda:sm_90", 128), ("cuda:sm_100", 0), ("hip:gfx950", 0)])
def test_partial_sums_are_promoted_on_hopper_alone(target: str, promote: int) -> None:
    text = MATMUL.replace("axis=k)", 'axis=k, accumulate="f32")')
    (dot,) = dots(contract.run(typed(text, target, T=parse_target(target).facts.e4m3), parse_target(target)))
    assert dot.promote == promote and (dot.acc is None) == (promote > 0)


# ----------------------------------------------------------------------------------------------------------------------- order


def test_an_axis_that_is_summed_next_belongs_to_the_columns() -> None:
    kernel = last(INDEXER, dims={"H": 64, "D": 128})
    assert kernel.schedule.order == ("t", "s", "h", "d") and dots(kernel)[0].left == ("t",)
    assert kernel.schedule.vectors == ("q", "k") and kernel.schedule.rows == ("k_scale", "w", "first", "last", "out")


def test_rows_follow_the_accesses_where_nothing_is_reduced() -> None:
    assert dots(last(MATMUL))[0].left == ("m",)
    turned = MATMUL.replace("Out[f32[M, N]]", "Out[f32[N, M]]").replace("c[m, n]", "c[n, m]")
    kernel = last(turned)
    assert dots(kernel)[0].left == ("n",) and kernel.schedule.order.index("n") < kernel.schedule.order.index("m")


def test_rows_that_no_order_allows_are_refused() -> None:
    text = """
def k(a: bf16[P, Q, D], b: bf16[R, D], c: bf16[P, D], e: bf16[Q, R, D], y: Out[f32[P, Q, R]]):
    p, q, r, d = span(P), span(Q), span(R), span(D)
    for i in grid(1):
        y[p, q, r] = dot(a[p, q, d], b[r, d], axis=d) + dot(c[p, d], e[q, r, d], axis=d)
"""
    dims = {"P": 4, "Q": 4, "R": 16, "D": 16}
    assert [d.left for d in dots(last(text, dims=dims))] == [("p", "q"), ("p",)]
    third = text.replace("y: Out", "f: bf16[Q, D], g: bf16[P, R, D], y: Out").replace(
        "axis=d)\n", "axis=d) + dot(f[q, d], g[p, r, d], axis=d)\n"
    )
    with pytest.raises(NsaError) as error:
        last(third, dims=dims)
    assert error.value.diagnostics[0].code == "NSA0412" and "no order of the axes" in error.value.diagnostics[0].sentence


# ----------------------------------------------------------------------------------------------------------------------- tiles

WIDE_MLA = SPARSE_MLA.replace("D: const = 32, R: const = 16", "D: const = 512, R: const = 64")


@cache
def wide(backend: str) -> ir.Kernel:
    """Sparse MLA at its real widths, after all passes."""
    return last(WIDE_MLA, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiles_of_sparse_mla_are_those_measured(backend: str) -> None:
    schedule = wide(backend).schedule
    assert dict(schedule.lengths) == {"h": 64, "k": 64, "c": 512, "r": 64}
    assert (schedule.warps, schedule.stages) == (8, 2) and schedule.classes == (("h", 16, 64),)


@pytest.mark.parametrize(("backend", "tokens", "keys"), [("triton", 2, 256), ("tilelang", 1, 128)])
def test_tiles_of_the_indexer_are_those_measured(backend: str, tokens: int, keys: int) -> None:
    schedule = last(INDEXER, backend=backend, dims={"H": 64, "D": 128}).schedule
    assert dict(schedule.lengths) == {"s": tokens, "t": keys, "h": 64, "d": 128} and (schedule.warps, schedule.stages) == (4, 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("target", KNOWN)
def test_blocks_fit_every_target(target: str, backend: str) -> None:
    for text, dims in ((WIDE_MLA, {}), (MATMUL, {}), (ATTENTION, {"D": 128}), (ATTENTION, {"D": 256}), (INDEXER, {"H": 64, "D": 128})):
        kernel = last(text, target, backend, dims=dims)
        blocks = [s for s in assigns(kernel).values() if s.place == "shared"]
        ahead = {name for n in ir.walk(kernel) if isinstance(n, ir.For) for name in n.ahead}
        lengths = dict(kernel.schedule.lengths)
        need = 0
        for s in blocks:
            size = s.value.dtype.bytes * (kernel.schedule.stages if s.name in ahead else 1)
            for a in s.value.axes:
                size *= lengths[a]
            need += size
        assert need <= contractions.budget(parse_target(target)) and bool(blocks) == (backend == "tilelang")


def test_few_heads_and_short_spans_are_padded_to_what_a_tensor_core_takes() -> None:
    schedule = last(INDEXER, dims={"H": 3, "D": 24}).schedule
    assert dict(schedule.lengths)["d"] == 32 and dict(schedule.lengths)["s"] * dict(schedule.lengths)["h"] >= 16
    text = INDEXER.replace("grid(tile(S), tile(T))", "grid(S, tile(T))")
    lengths = dict(last(text, dims={"H": 3, "D": 24}).schedule.lengths)
    assert lengths["h"] == 16


def test_pins_win_and_impossible_ones_are_refused() -> None:
    schedule = last(WIDE_MLA, pins={"h": 32, "k": 32, "warps": 4, "stages": 1}).schedule
    assert (schedule.length("h"), schedule.length("k"), schedule.warps, schedule.stages) == (32, 32, 4, 1) and schedule.classes == ()
    for pins, code, word in (({"k": 8}, "NSA0408", "at least 16"), ({"h": 8}, "NSA0408", "16 rows"), ({"k": 256}, "NSA0412", "shared memory"),
                             ({"stages": 6, "k": 64}, "NSA0412", "in 6 stages")):  # fmt: skip
        for backend in BACKENDS:
            with pytest.raises(NsaError, match=word) as error:
                last(WIDE_MLA, backend=backend, pins=pins)
            assert error.value.diagnostics[0].code == code


def test_tilelang_needs_work_for_each_warp() -> None:
    assert last(WIDE_MLA, backend="tilelang", pins={"h": 16, "k": 16, "warps": 2}).schedule.warps == 2
    with pytest.raises(NsaError, match="16 rows and 16 columns has work for 2") as error:
        last(WIDE_MLA, backend="tilelang", pins={"h": 16, "k": 16, "warps": 4})
    assert error.value.diagnostics[0].code == "NSA0408"
    assert last(WIDE_MLA, backend="triton", pins={"h": 16, "k": 16, "warps": 4}).schedule.warps == 4


@pytest.mark.parametrize(("heads", "rows"), [(1, 16), (16, 16), (17, 32), (40, 64), (128, 64)])
def test_heads_are_cut_to_their_class(heads: int, rows: int) -> None:
    kernel = wide("triton")
    sized = sizes(kernel, {"H": heads, "S": 1, "T": 1, "K": 1})
    assert sized == ((("h", rows),) if rows < 64 else ())
    start = typed(WIDE_MLA)
    start = dataclasses.replace(start, schedule=dataclasses.replace(start.schedule, sized=sized))
    schedule = stages(start, "cuda:sm_90", "triton", False, {})[-1][1].schedule
    assert schedule.length("h") == rows and schedule.classes == (("h", 16, 64),)
    assert not sized or any(f"for an extent of at most {rows}" in line for line in schedule.why)


@pytest.mark.parametrize(("backend", "hoisted"), [("triton", ["H % 16 == 0", "K % 64 == 0"]), ("tilelang", ["K % 64 == 0"])])
def test_tiles_of_few_heads_are_worth_a_launch_check_on_triton(backend: str, hoisted: list[str]) -> None:
    start = typed(WIDE_MLA)
    for sized, pins, expected in (((("h", 16),), {}, hoisted), ((), {"h": 16}, hoisted), ((), {}, ["K % 64 == 0"])):
        schedule = dataclasses.replace(start.schedule, sized=sized)
        kernel = stages(dataclasses.replace(start, schedule=schedule), "cuda:sm_90", backend, False, pins, exact=True)[-1][1]
        assert sorted(r.text for r in kernel.hoists) == expected
        masks = [n.mask for n in ir.walk(kernel) if isinstance(n, ir.Load) and n.tensor == "q"]
        assert all((m is None) == (len(expected) == 2) for m in masks)


@pytest.mark.parametrize(
    ("backend", "heads", "depth", "queries", "keys"),
    [("triton", 64, 128, 2, 64), ("tilelang", 64, 128, 2, 64), ("triton", 32, 64, 4, 64), ("tilelang", 32, 64, 2, 128)],
)
def test_tiles_of_keys_that_a_loop_walks_are_those_measured(backend: str, heads: int, depth: int, queries: int, keys: int) -> None:
    text = (Path(__file__).parent.parent / "examples" / "fp8_index.nsa").read_text()
    schedule = last(text, backend=backend, dims={"H": heads, "D": depth}).schedule
    assert dict(schedule.lengths) == {"m": queries, "n": keys, "h": heads, "d": depth} and (schedule.warps, schedule.stages) == (4, 3)


# ------------------------------------------------------------------------------------------------------------- masks and places


def test_gathered_rows_need_no_mask_beside_their_own() -> None:
    """A masked index is -1, so that `live` is false there: no tail at the rows, and no `where` in the sums."""
    kernel = wide("triton")
    values = assigns(kernel)
    index, keys = values["t"].value, values["keys"].value
    assert isinstance(index, ir.Load) and index.fill is not None and index.fill.value == -1
    assert isinstance(keys, ir.Load) and isinstance(keys.mask, ir.Var) and keys.mask.name == "live"
    (loop,) = [n for n in ir.walk(kernel) if isinstance(n, ir.For)]
    assert sum(isinstance(n, ir.Where) for n in ir.walk(loop)) == 1


def test_one_where_serves_all_that_comes_from_a_contraction() -> None:
    (loop,) = [n for n in ir.walk(last(ATTENTION, dims={"D": 64})) if isinstance(n, ir.For)]
    assert sum(isinstance(n, ir.Where) for n in ir.walk(loop)) == 1
    (loop,) = [n for n in ir.walk(last(ATTENTION, dims={"D": 64}, exact=True)) if isinstance(n, ir.For)]
    assert not any(isinstance(n, ir.Where) for n in ir.walk(loop)) and all(n.mask is None for n in ir.walk(loop) if isinstance(n, ir.Load))


def test_loops_over_gathered_rows_hoist_their_tail() -> None:
    assert [h.text for h in wide("triton").hoists] == ["K % 64 == 0"]
    assert [h.text for h in last(ATTENTION, dims={"D": 64}).hoists] == ["L % 64 == 0"]


def test_reads_of_a_whole_block_ask_for_no_lane() -> None:
    kernel = last(INDEXER, dims={"H": 64, "D": 128})
    (weights,) = [n for n in ir.walk(kernel) if isinstance(n, ir.Load) and n.tensor == "w"]
    assert not any(isinstance(n, ir.Var) for n in ir.walk(weights))


def test_operands_lie_in_shared_memory_and_gathers_are_read_ahead() -> None:
    kernel = wide("tilelang")
    (loop,) = [n for n in ir.walk(kernel) if isinstance(n, ir.For)]
    assert (loop.stages, loop.ahead) == (2, ("keys", "rope"))
    assert {name for name, s in assigns(kernel).items() if s.place == "shared"} == {"query", "query_r", "keys", "rope", "p_factor"}


def test_a_condition_made_in_two_steps_is_read_ahead() -> None:
    text = WIDE_MLA.replace("            keys, rope", "            live = live & (t <= s)\n            keys, rope")
    (loop,) = [n for n in ir.walk(last(text, backend="tilelang")) if isinstance(n, ir.For)]
    assert loop.ahead == ("keys", "rope")
    narrow = SPARSE_MLA.replace("            keys, rope", "            live = live & (t <= s + 20)\n            keys, rope")
    case = CASES["sparse MLA"]
    assert run_all(dataclasses.replace(case, text=narrow), "tilelang")


BREACHES: list[tuple[str, Callable[[ir.Node], ir.Node]]] = [
    ("no rows", lambda n: dataclasses.replace(n, left=None) if isinstance(n, ir.Dot) else n),
    ("mixes rows and columns", lambda n: dataclasses.replace(n, left=("k",)) if isinstance(n, ir.Dot) and n.over == "c" else n),
    (
        "is no variable of shared memory",
        lambda n: dataclasses.replace(n, place=None) if isinstance(n, ir.Assign) and n.name == "p_factor" else n,
    ),
    ("stages for", lambda n: dataclasses.replace(n, stages=1) if isinstance(n, ir.For) else n),
    ("is not in the body", lambda n: dataclasses.replace(n, ahead=("query",)) if isinstance(n, ir.For) else n),
    ("is no load", lambda n: dataclasses.replace(n, ahead=("p_factor",)) if isinstance(n, ir.For) else n),
]


@pytest.mark.parametrize(("message", "change"), BREACHES, ids=[message for message, _ in BREACHES])
def test_claims_about_contractions(message: str, change: Callable[[ir.Node], ir.Node]) -> None:
    kernel = last(WIDE_MLA, backend="tilelang", stage="flatten")
    broken = ir.rewrite(kernel, change)
    with pytest.raises(AssertionError, match=message):
        verify(broken, "flatten")


def test_a_contraction_has_two_sides() -> None:
    kernel = typed(INDEXER, dims={"H": 4, "D": 32})
    with pytest.raises(AssertionError, match="a side without free axes"):
        contractions_have_two_sides(kernel)


def test_what_is_written_or_carried_is_not_read_ahead() -> None:
    text = """
def k(a: bf16[M, K], b: InOut[bf16[K, N]], c: Out[f32[M, N]], p: i32[K]):
    n = span(N)
    for m in grid(tile(M)):
        acc = zeros(m, n)
        last = 0
        for k in tile(K):
            acc = acc + dot(a[m, k], b[k, n], axis=k)
            last = max(p[k], axis=k)
        c[m, n] = acc
        if last == 77777:
            scatter(b[0, n], bf16(1))
"""
    kernel = typed(text, dims={"N": 32})
    made = stages(kernel, "cuda:sm_90", "tilelang", False, {}, trust=True)[-1][1]
    (loop,) = [n for n in ir.walk(made) if isinstance(n, ir.For)]
    assert loop.ahead == ("a_tile",)
