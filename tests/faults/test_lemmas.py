"""What lemmas prove: right kernels are PROVED whole, and their twins that are off by one are REFUTED by a counterexample that was run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from nsalang import ir, syntax
from nsalang.proof.prover import settle
from nsalang.refute.search import diagnose
from nsalang.syntax.parser import parse, read_source
from nsalang.types.typecheck import Settings, kernel_names, signature, specialise

CASES = Path(__file__).parent.parent / "cases" / "lemmas.nsa"

REFUTED: dict[str, tuple[str, set[str]]] = {
    "block_of_one": ("P-one", set()),
    "block_of_one_off": ("P-one", {"coverage"}),
    "instances_of_one": ("P-one", set()),
    "instances_of_one_off": ("P-one", {"coverage"}),
    "from_the_end": ("P-from-the-end", set()),
    "blocks_from_the_end": ("P-from-the-end", set()),
    "blocks_from_the_end_off": ("P-from-the-end", {"range", "coverage"}),
    "blocks_counted_down": ("P-from-the-end", set()),
    "blocks_from_the_end_by_lanes": ("P-from-the-end", set()),
    "digits_from_the_end": ("P-from-the-end", set()),
    "digits_from_the_end_of_rows": ("P-from-the-end", set()),
    "ones_from_the_end": ("P-from-the-end", set()),
    "rotated": ("P-permuted", set()),
    "rotated_back": ("P-permuted", set()),
    "rotated_blocks": ("P-permuted", set()),
    "rotated_off": ("P-permuted", {"range", "coverage"}),
    "reflected": ("P-permuted", set()),
    "transposed": ("P-permuted", set()),
    "transposed_rows": ("P-permuted", set()),
    "transposed_off": ("P-permuted", {"range", "race", "coverage"}),
    "strides_of_two": ("P-permuted", set()),
    "strides_downwards": ("P-permuted", set()),
    "strides_of_two_off": ("P-permuted", {"coverage"}),
    "exponent": ("P-interval-ceil_log2", set()),
    "exponent_u8": ("P-interval-ceil_log2", set()),
    "exponent_off": ("P-interval-ceil_log2", {"fits"}),
    "exponent_table": ("P-interval-ceil_log2", set()),
    "exponent_table_off": ("P-interval-ceil_log2", {"range"}),
    "reversed_scan": ("P-interval-reverse", set()),
    "reversed_exclusive": ("P-interval-reverse", set()),
    "reversed_slots": ("P-interval-reverse", set()),
    "reversed_slots_all": ("P-interval-reverse", set()),
    "reversed_slots_off": ("P-interval-reverse", {"range"}),
    "masked": ("P-interval-bits", set()),
    "masked_off": ("P-interval-bits", {"range"}),
    "shifted_by_data": ("P-interval-bits", set()),
    "inverted": ("P-interval-bits", set()),
    "inverted_off": ("P-interval-bits", {"range"}),
    "bytes_unsigned": ("P-interval-bits", set()),
    "bytes_signed_off": ("P-interval-bits", {"range"}),
    "bytes_unsigned_off": ("P-interval-bits", {"range"}),
    "product_of_signs": ("P-interval-prod", set()),
    "product_of_signs_off": ("P-interval-prod", {"fits"}),
    "either_bits": ("P-interval-bits", set()),
}


@cache
def file() -> syntax.File:
    return parse(read_source(CASES))


def kernel(name: str) -> ir.Kernel:
    return specialise(file(), name, Settings(dims=dict.fromkeys(signature(file(), name, {}).specialised, 64)))


def test_every_case_is_listed() -> None:
    assert set(kernel_names(file())) == REFUTED.keys()


@pytest.mark.parametrize("name", [pytest.param(n, id=f"{kind}-{n}") for n, (kind, _) in REFUTED.items()])
def test_proved_or_refuted(name: str) -> None:
    made = kernel(name)
    wrong = [r for r in settle(made) if r.verdict != "PROVED"]
    assert {(r.obligation.kind, r.verdict) for r in wrong} == {(kind, "REFUTED") for kind in REFUTED[name][1]}
    assert all(diagnose(made, r) is not None for r in wrong)
