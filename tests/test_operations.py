"""The rows of nsalang.ir.operations: each operation has one, its parts agree with each other, and each backend has or expands it."""

from __future__ import annotations

import itertools
import math
from types import ModuleType
from typing import get_args

import pytest

from nsalang import ir
from nsalang.base.dtypes import BOOL, F32, I64, U8, U32, DType
from nsalang.base.names import NAMES
from nsalang.interp import numerics
from nsalang.ir import kinds, printer
from nsalang.ir.operations import FUNCTIONS, REDUCTIONS, UNARY, Operator, ReduceOp
from nsalang.ir.operators import BINARY, BinaryOp
from nsalang.lowering.tilelang import blocks as tilelang_blocks
from nsalang.lowering.tilelang import expressions as tilelang
from nsalang.lowering.triton import blocks as triton_blocks
from nsalang.lowering.triton import expressions as triton
from nsalang.passes import fold
from nsalang.passes.functions import EXPANSIONS
from nsalang.types import functions

torch = pytest.importorskip("torch")

INF, NAN = math.inf, math.nan
SAMPLES = (
    NAN,
    -INF,
    -3e38,
    -200.0,
    -88.5,
    -1.5,
    -1.0,
    -0.75,
    -0.5,
    -1e-3,
    -1e-30,
    -0.0,
    0.0,
    1e-30,
    1e-3,
    0.5,
    0.75,
    1.0,
    1.5,
    2.5,
    64.0,
    100.0,
    3e38,
    INF,
)
WHOLE = (-(2**63), -(2**62), -1000, -2, -1, 0, 1, 2, 7, 255, 2**62, 2**63 - 1)
OPS = tuple(UNARY)


def single(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).float())


def test_every_unary_operation_has_a_row_and_a_name() -> None:
    assert set(UNARY) == {*FUNCTIONS, *get_args(Operator)}
    assert set(FUNCTIONS) <= set(NAMES) & set(functions.FUNCTIONS)


@pytest.mark.parametrize("table", [triton.FUNCTIONS, tilelang.FUNCTIONS], ids=["triton", "tilelang"])
def test_backends_spell_what_machines_have_and_legalize_expands_the_rest(table: dict[ir.UnaryOp, str]) -> None:
    machine = {op for op, row in UNARY.items() if row.machine}
    assert set(EXPANSIONS) == set(UNARY) - machine
    assert set(table) == machine - {*get_args(Operator)}


@pytest.mark.parametrize("op", OPS)
def test_a_row_says_what_its_dtypes_need(op: ir.UnaryOp) -> None:
    row = UNARY[op]
    floats, others = [d for d in row.takes if d.is_float], [d for d in row.takes if not d.is_float]
    gives_floats = bool(floats) and row.gives is None
    assert (row.real is not None) == bool(floats)
    assert (row.integer is not None) == bool(others)
    assert (row.kinds is not None) == (row.between is not None) == gives_floats
    assert (row.ends is not None) == (bool(others) or row.gives is not None)
    assert row.bound is None or not others
    assert row.kinds is None or set(row.kinds) == set(kinds.MEMBERS)


@pytest.mark.parametrize("op", [op for op in OPS if UNARY[op].real is not None])
def test_the_values_on_floats_agree(op: ir.UnaryOp) -> None:
    row = UNARY[op]
    assert row.real is not None
    for x in map(single, SAMPLES):
        value = row.real(x)
        given = torch.tensor([x], dtype=torch.float32 if row.bound is None else torch.float64)
        on_tensor = float(row.tensor(given)[0])
        assert math.isnan(on_tensor) if math.isnan(value) else math.isclose(on_tensor, value, rel_tol=1e-6), (op, x, value, on_tensor)
        assert math.isnan(value) or math.copysign(1.0, on_tensor) == math.copysign(1.0, value), (op, x)
        folded = fold.unary(op, x, row.gives or F32)
        assert folded is None or (row.bound is None and folded == single(value)), (op, x)
        if row.kinds is not None:
            assert kinds.kind_of(single(value)) & row.kinds[kinds.kind_of(x)], (op, x, value)


@pytest.mark.parametrize("op", [op for op in OPS if UNARY[op].between is not None])
def test_results_lie_where_the_row_says(op: ir.UnaryOp) -> None:
    row = UNARY[op]
    assert row.between is not None and row.real is not None
    numbers = sorted(single(x) for x in SAMPLES if not math.isnan(x))
    for i, j in itertools.combinations_with_replacement(range(len(numbers)), 2):
        low, high = row.between(numbers[i], numbers[j])
        for value in map(row.real, numbers[i : j + 1]):
            assert math.isnan(value) or low <= value <= high, (op, numbers[i], numbers[j], value)


@pytest.mark.parametrize("op", [op for op in OPS if UNARY[op].integer is not None])
def test_the_values_on_integers_agree(op: ir.UnaryOp) -> None:
    row = UNARY[op]
    assert row.integer is not None and row.ends is not None
    numbers = (0, 1) if op == "not" else WHOLE
    for x in numbers:
        value = row.integer(x)
        if op == "not":
            assert bool(row.tensor(torch.tensor(bool(x)))) == bool(value)
        elif -(2**63) <= value < 2**63:
            assert int(row.tensor(torch.tensor(x))) == value == fold.unary(op, x, I64)
        else:
            assert row.may_leave and fold.unary(op, x, I64) is None
    for a, b in itertools.combinations_with_replacement(numbers, 2):
        low, high = row.ends((a, b))
        assert all(low <= row.integer(x) <= high for x in numbers if a <= x <= b), (op, a, b)
    if op != "not":
        assert fold.unary(op, 3, U8) == row.integer(3) % 256


def test_every_integer_operation_means_something_to_z3() -> None:
    from nsalang.proof import smt

    for op, row in UNARY.items():
        for dtype in (d for d in row.takes if d.is_integer):
            x = ir.Var(dtype, (), "x")
            y = ir.Unary(dtype, (), op, x)
            assert row.integer is not None
            value = fold.unary(op, 5, dtype)
            facts = [ir.binary("eq", x, ir.const(5, dtype))]
            assert value is not None
            assert smt.prove(facts, ir.binary("eq", y, ir.const(value, dtype)), {}).answer == "proved", (op, dtype)


# ------------------------------------------------------------------------------------------------------------------ reductions

LANES = ((5,), (-7,), (0, 3), (1, 1, 1), (-1, 2, -3, 4), (2, 2, -2), (2**62, 2**62), (-(2**63), 0), (2**63 - 1, 1), (3, 0, 2**62))


def test_every_reduction_has_a_row_and_a_name() -> None:
    assert set(REDUCTIONS) == {*get_args(ReduceOp)}
    assert set(REDUCTIONS) <= set(NAMES) & set(functions.FUNCTIONS)


@pytest.mark.parametrize("table", [triton_blocks, tilelang_blocks], ids=["triton", "tilelang"])
def test_backends_spell_what_reductions_machines_have(table: ModuleType) -> None:
    assert not set(table.REDUCTIONS) & set(table.COMBINED)
    assert set(table.REDUCTIONS) | set(table.COMBINED) == {op for op, row in REDUCTIONS.items() if row.machine}


def taken(op: ir.ReduceOp) -> list[tuple[DType, tuple[tuple[int, ...], ...]]]:
    """Dtypes of integers and bools that a reduction has, and lanes of them."""
    row = REDUCTIONS[op]
    found: list[tuple[DType, tuple[tuple[int, ...], ...]]] = []
    if I64 in row.takes:
        found += [(I64, LANES), (U32, ((1, 2**32 - 1), (2**31, 2, 2), (0, 7)))]
    return [*found, (BOOL, ((0,), (1,), (0, 1, 1), (1, 1)))] if BOOL in row.takes else found


PLAIN = [op for op, row in REDUCTIONS.items() if not row.picks]


@pytest.mark.parametrize("op", PLAIN)
def test_reductions_of_integers_are_the_exact_ones(op: ir.ReduceOp) -> None:
    row = REDUCTIONS[op]
    for dtype, groups in taken(op):
        native = torch.bool if dtype is BOOL else torch.int64
        for lanes in groups:
            exact = row.integer(lanes)
            ends = row.ends((min(lanes), max(lanes)), len(lanes))
            assert ends[0] <= exact <= ends[1], (op, lanes)
            data, lost = numerics.reduce(op, torch.tensor([lanes, lanes], dtype=native), dtype, row.gives(dtype), (1,))
            beyond = dtype is I64 and not -(2**63) <= exact < 2**63
            assert (lost is not None and bool(lost.all())) == beyond, (op, lanes, exact)
            assert not beyond or row.may_leave, op
            if not beyond:
                assert data.tolist() == [exact % 2**32 if dtype is U32 else bool(exact) if dtype is BOOL else exact] * 2, (op, lanes)
        none, _ = numerics.reduce(op, torch.zeros((2, 0), dtype=native), dtype, row.gives(dtype), (1,))
        assert none.tolist() == [row.identity(row.gives(dtype))] * 2
        with_neutral = (*groups[-1], int(row.neutral(dtype)))
        assert row.integer(with_neutral) == row.integer(groups[-1]), op


@pytest.mark.parametrize("op", [op for op in PLAIN if F32 in REDUCTIONS[op].takes])
def test_reductions_of_floats_lie_where_the_row_says(op: ir.ReduceOp) -> None:
    row = REDUCTIONS[op]
    numbers = [single(x) for x in (-INF, -3.0, -0.5, -0.0, 0.0, 0.5, 3.0, INF)]
    for count in (0, 1, 2, 3):
        for lanes in itertools.product(numbers, repeat=count):
            value = float(numerics.reduce(op, torch.tensor(lanes, dtype=torch.float32), F32, F32, (0,))[0])
            held = 0
            for x in lanes:
                held |= kinds.kind_of(x)
            assert kinds.kind_of(value) & row.kinds(held), (op, lanes, value)
            if lanes and not math.isnan(value):
                low, high = row.between(min(lanes), max(lanes))
                assert low <= value <= high, (op, lanes, value)
            more = float(numerics.reduce(op, torch.tensor([*lanes, row.neutral(F32)]), F32, F32, (0,))[0])
            assert more == value or (math.isnan(more) and math.isnan(value)), (op, lanes, value, more)


# ------------------------------------------------------------------------------------------------------------------- operators

SMALL = (-9, -8, -3, -1, 0, 1, 2, 5, 8, 63)
PAIRS = [*itertools.product((-INF, -3.0, -0.5, -0.0, 0.0, 0.25, 3.0, 1e30, INF), repeat=2)]


def test_every_binary_operator_has_a_row_and_a_sign() -> None:
    found = {op for part in get_args(BinaryOp) for op in (get_args(part) or (part,))}
    assert set(BINARY) == found
    assert set(ir.COMPARISONS) == {op for op, row in BINARY.items() if row.compares is not None}
    machine = {op for op, row in BINARY.items() if row.machine}
    assert machine <= {*triton.INFIX, *triton.CALLS} & {*tilelang.INFIX, *tilelang.CALLS}
    assert set(BINARY) == {*printer._INFIX, *printer._CALLS}


@pytest.mark.parametrize("op", BINARY)
def test_a_row_says_what_the_dtypes_of_an_operator_need(op: ir.BinaryOp) -> None:
    row = BINARY[op]
    numbers, floats = any(not d.is_float for d in row.takes), any(d.is_float for d in row.takes)
    if row.compares is not None:
        assert row.integer is row.ends is row.real is None
        return
    assert (row.integer is not None) == (row.ends is not None) == numbers
    assert (row.real is not None) == floats


@pytest.mark.parametrize("op", [op for op, row in BINARY.items() if row.integer is not None])
def test_operators_on_integers_agree(op: ir.BinaryOp) -> None:
    row = BINARY[op]
    assert row.integer is not None and row.ends is not None
    for a, b in itertools.product((*SMALL, 2**40, -(2**63), 2**63 - 1), SMALL):
        exact = row.integer(a, b, 64)
        data, lost = numerics.binary(op, torch.tensor([a]), torch.tensor([b]), I64)
        fits = exact is not None and -(2**63) <= exact < 2**63
        assert (lost is None or not bool(lost.any())) == fits, (op, a, b, exact)
        assert not fits or data.tolist() == [exact], (op, a, b)
        assert fold.binary(op, a, b, I64) == (exact if fits else None), (op, a, b)
    for low, high in itertools.combinations_with_replacement(SMALL, 2):
        for least, most in itertools.combinations_with_replacement(SMALL, 2):
            ends = row.ends((low, high), (least, most))
            for a, b in itertools.product((x for x in SMALL if low <= x <= high), (x for x in SMALL if least <= x <= most)):
                exact = row.integer(a, b, 64)
                assert ends is None or exact is None or ends[0] <= exact <= ends[1], (op, low, high, least, most, a, b)
    if BOOL in row.takes:
        for a, b in itertools.product((False, True), repeat=2):
            made = bool(numerics.binary(op, torch.tensor(a), torch.tensor(b), BOOL)[0])
            assert made == bool(row.integer(a, b, 1)) == fold.binary(op, a, b, BOOL)


@pytest.mark.parametrize("op", [op for op, row in BINARY.items() if row.real is not None or row.compares is not None])
def test_operators_on_floats_agree(op: ir.BinaryOp) -> None:
    row = BINARY[op]
    for a, b in PAIRS:
        a, b = single(a), single(b)
        data = numerics.binary(op, torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32), F32)[0]
        folded = fold.binary(op, a, b, F32)
        if row.compares is not None:
            assert bool(data) == row.compares(a, b) == folded
            continue
        assert row.real is not None
        value = row.real(a, b)
        assert math.isnan(value) == math.isnan(float(data)) == (folded is None), (op, a, b)
        if not math.isnan(value):
            assert float(data) == single(value) == folded, (op, a, b)
            assert math.copysign(1.0, float(data)) == math.copysign(1.0, value) == math.copysign(1.0, folded), (op, a, b)  # type: ignore[arg-type]
