"""The kernels of the road map as users wrote them, and forms of them without work-arounds: ``nsalang prove`` ends with 0, for each at its sizes.

``DRAFTS`` gives each kernel the values of ``-D``: at least two of each dimension that is specialised, one of them no power of two. Where a number of
data is summed, the text has the promise that bounds it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nsalang.commands import cli
from nsalang.syntax.parser import parse, read_source
from nsalang.types.signature import functions, is_helper
from nsalang.types.typecheck import kernel_names, signature

FOLDER = Path(__file__).parent / "cases/drafts"
NO_SIZES = ("",)

DRAFTS: dict[str, dict[str, tuple[str, ...]]] = {
    "bwd": dict.fromkeys(("delta", "bwd"), NO_SIZES),
    "casts": dict.fromkeys(
        ("cast", "cast_channel", "cast_expand", "cast_int8", "cast_mxfp4", "back_mxfp4", "cast_packed", "back", "back_packed"), NO_SIZES
    ),
    "conv": {"conv_prefill": NO_SIZES, "conv_update": ("X=1 L=3", "X=3 L=4", "X=8 L=6")},
    "decode": {
        "gqa_part": ("HG=8 D=128 DV=128", "HG=5 D=96 DV=80"),
        "gqa_combine": ("HG=8 DV=128", "HG=5 DV=80"),
        "gqa_paged_decode": ("HG=8 D=128 DV=128", "HG=5 D=96 DV=80"),
        "mla_part": NO_SIZES,
        "mla_combine": ("D=512", "D=96"),
        "mla_paged_decode": NO_SIZES,
    },
    "dsa": {"mqa_logits": ("H=64 D=128", "H=12 D=96"), **dict.fromkeys(("topk", "sparse_mla", "quant_q", "quant_k"), NO_SIZES), "dsa": ("H=64", "H=12")},
    "gdn": {
        **dict.fromkeys(("gdn_recurrent", "gdn_verify", "gdn_states", "gdn_out"), ("DK=128", "DK=96")),
        "gdn_cumsum": NO_SIZES,
        **dict.fromkeys(("gdn_wy", "gdn_chunk"), ("DK=128 DV=64", "DK=96 DV=80")),
    },
    "gdn3": {
        **dict.fromkeys(("gdn_recurrent", "gdn_verify", "gdn_states", "gdn_out", "gdn_kk"), ("DK=128", "DK=96")),
        **dict.fromkeys(("gdn_cumsum", "gdn_inverse"), NO_SIZES),
        **dict.fromkeys(("gdn_wu", "gdn_chunk"), ("DK=128 DV=64", "DK=96 DV=80")),
    },
    "gemm": {"gemm": NO_SIZES},
    "hisa": {"mean_pool": ("D=128", "D=96"), **dict.fromkeys(("pool_logits", "block_logits"), ("H=64 D=128", "H=12 D=96")), "positions": NO_SIZES},
    "kv": {
        **dict.fromkeys(("assign", "update", "update_cu", "alloc_extend", "alloc_extend_cu", "running_sum", "running_sum_each"), NO_SIZES),
        **dict.fromkeys(("assign_u32", "update_u32"), NO_SIZES),
        "store_valid": ("D=128", "D=96"),
    },
    "kvcache": dict.fromkeys(("quantize_kv", "dequantize_kv", "dequantize_paged", "set_index", "get_index", "store_index"), NO_SIZES),
    "lora": {**dict.fromkeys(("bgmv_shrink", "bgmv_expand"), ("R=16", "R=24")), **dict.fromkeys(("sgemmv_shrink", "sgemmv_expand"), NO_SIZES)},
    "meta": {
        **dict.fromkeys(("offsets_bounded", "offsets", "fill", "fill_linear", "fill_binary", "metadata"), NO_SIZES),
        "fill_cumsum": ("B=64", "B=7"),
    },
    "mla": dict.fromkeys(("norm_quant", "matmul_i8", "store_latent", "absorb", "rope", "mla_preprocess"), NO_SIZES),
    "mm": {
        **dict.fromkeys(("bmm_transpose", "matmul_i8", "matmul_i8_long", "matmul_i8_f32", "dequant_i4"), NO_SIZES),
        **dict.fromkeys(("quant_i8", "softmax_span"), ("N=1024", "N=600")),
    },
    "natural": {
        **dict.fromkeys(("gemm_i8", "offsets_i32", "alloc_one", "alloc_range", "blocks_of_one", "slots", "positions", "counter_axes"), NO_SIZES),
        **dict.fromkeys(("counting_sort", "walk", "strided"), NO_SIZES),
        **dict.fromkeys(("offsets_on_chip", "alloc_span", "alloc_cumsum"), ("B=64", "B=7")),
        "gqa_part": ("HG=8 D=128 DV=128", "HG=5 D=96 DV=80"),
    },
    "norm": {
        **dict.fromkeys(("add_rmsnorm_bias", "add_rmsnorm_bias_i8", "split_qkv"), NO_SIZES),
        **dict.fromkeys(("add_rmsnorm_span", "layernorm"), ("N=1024", "N=600")),
    },
    "nsa": {"pool": ("D=128", "D=96"), **dict.fromkeys(("compressed", "importance", "selected"), ("R=16 D=128", "R=12 D=96")), "block_topk": NO_SIZES},
    "spec": {"build_tree": ("N=64", "N=7"), **dict.fromkeys(("full_mask", "full_mask_cu", "verify_greedy"), NO_SIZES)},
    "swiglu": {
        **dict.fromkeys(("swiglu", "swiglu_oai", "swiglu_i8_grouped", "grouped_matmul"), NO_SIZES),
        **dict.fromkeys(("swiglu_i8", "swiglu_i8_row"), ("E=64", "E=7")),
        "swiglu_i8_span": ("E=64 H=1024", "E=7 H=600"),
    },
    "topk": dict.fromkeys(("topk_bits", "topk_radix"), NO_SIZES),
    "topkp": {"topk_paged": NO_SIZES},
    "topks": {"topk_span": ("", "L=1000")},
    "topkw": {"topk_w": ("", "W=8")},
    "tri": {
        **dict.fromkeys(("tri_inv", "tri_inv_mem", "tri_inv_rows", "tri_inv_doubling"), ("N=64", "N=24")),
        **dict.fromkeys(("tri_diag", "tri_merge", "tri_zero", "tri_inv_blocks"), NO_SIZES),
    },
}  # fmt: skip

SLOW = {
    *("topk_paged", "topk_w", "topk_radix", "topk_bits", "conv_prefill", "full_mask", "full_mask_cu", "gdn_chunk", "gdn_states", "swiglu_i8", "update"),
    *("verify_greedy", "alloc_extend", "sgemmv_expand", "gdn_recurrent", "swiglu_i8_row", "sparse_mla", "dsa", "gdn_wy", "tri_inv_blocks"),
    *("conv_update", "gdn_wu", "gdn_out"),
}  # fmt: skip
OPEN: set[tuple[str, str]] = set()
"""What is not proved yet; what is proved has to leave."""


def refused(capfd: pytest.CaptureFixture[str], file: str, kernel: str, sizes: str) -> str:
    """What ``nsalang prove`` has against a kernel."""
    options = [word for size in sizes.split() for word in ("-D", size)]
    capfd.readouterr()
    code = cli.main(["prove", str(FOLDER / f"{file}.nsa"), kernel, "--json", *options])
    out, errors = capfd.readouterr()
    verdicts = json.loads(out)["totals"]["verdicts"] if out else {"UNKNOWN": 1}
    assert (code == 0) == (not verdicts["UNKNOWN"] and not verdicts.get("REFUTED")), (code, errors)
    return errors if code else ""


CASES = [(file, kernel, sizes) for file, kernels in DRAFTS.items() for kernel, settings in kernels.items() for sizes in settings]


@pytest.mark.parametrize(
    ("file", "kernel", "sizes"), [pytest.param(*c, marks=[pytest.mark.slow] if c[1] in SLOW else [], id=" ".join(c).strip()) for c in CASES]
)
def test_proved(file: str, kernel: str, sizes: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert bool(refused(capfd, file, kernel, sizes)) == ((file, kernel) in OPEN)


def test_every_draft_has_its_sizes() -> None:
    assert {f.stem for f in FOLDER.glob("*.nsa")} == DRAFTS.keys()
    for name, kernels in DRAFTS.items():
        file = parse(read_source(FOLDER / f"{name}.nsa"))
        assert {n for n, f in functions(file).items() if not is_helper(f)} == kernels.keys()
        for kernel in set(kernel_names(file)) & kernels.keys():
            for dim in signature(file, kernel, {}).specialised:
                values = {int(s.partition("=")[2]) for sizes in kernels[kernel] for s in sizes.split() if s.startswith(f"{dim}=")}
                assert len(values) >= 2 and any(v & (v - 1) for v in values), (kernel, dim)
