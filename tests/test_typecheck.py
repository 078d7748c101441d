"""What types are inferred, and what becomes of each construct. Wrong texts are in tests/errors."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from nsalang import ir
from nsalang.constants import Exact, arithmetic, exact, round_to
from nsalang.dtypes import BF16, BOOL, E4M3, E4M3_FNUZ, F16, F32, I64
from nsalang.parser import parse, read_source
from nsalang.source import NsaError, Source, Span
from nsalang.target import parse_target
from nsalang.typecheck import Settings, check_text, kernel_names, signature, specialise

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.nsa"))
NOWHERE = Span(Source(""), 1, 1, 1, 1)


def kernel(text: str, **settings: object) -> ir.Kernel:
    file = parse(Source(text))
    return specialise(file, kernel_names(file)[0], Settings(**settings))  # type: ignore[arg-type]


def body(lines: str, parameters: str = "x: f32[M, N], y: Out[f32[M, N]]", grid: str = "m, n in grid(tile(M), tile(N))") -> str:
    inner = "\n".join("        " + line for line in lines.strip("\n").split("\n"))
    return f"def f({parameters}):\n    for {grid}:\n{inner}\n"


def assigned(k: ir.Kernel, name: str) -> ir.Expr:
    return next(n.value for n in ir.walk(k) if isinstance(n, ir.Assign) and n.name == name)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_are_well_typed(path: Path) -> None:
    check_text(read_source(path))


def test_constants_are_exact_and_rounded_once() -> None:
    k = kernel(body("y[m, n] = x[m, n] * (1 / 3 * 3) + (0.1 + 0.2)"))
    constants = [n.value for n in ir.walk(k) if isinstance(n, ir.Const) and n.dtype is F32]
    assert constants == [1.0, round_to(Fraction(3, 10), F32)]


@pytest.mark.parametrize(
    ("value", "dtype", "wanted"),
    [
        (Fraction(1, 3), F32, 0.3333333432674408),
        (Fraction(2**24 + 1), F32, float(2**24)),
        (Fraction(1, 2**149), F32, 2.0**-149),
        (Fraction(1, 2**150), F32, 0.0),
        (Fraction(3, 2**150), F32, 2.0**-148),
        (Fraction(2) ** 128, F32, float("inf")),
        (Fraction(65519), F16, 65504.0),
        (Fraction(65520), F16, float("inf")),
        (Fraction(1000), E4M3, 448.0),
        (Fraction(-1000), E4M3_FNUZ, -240.0),
        (Fraction(257, 256), BF16, 1.0),
    ],
)
def test_rounding_of_constants(value: Fraction, dtype: object, wanted: float) -> None:
    assert round_to(value, dtype) == wanted  # type: ignore[arg-type]


def test_constant_arithmetic() -> None:
    assert arithmetic("//", exact(-7), exact(2), NOWHERE) == Exact(Fraction(-4))
    assert arithmetic("/", exact(1), exact(448), NOWHERE) == Exact(Fraction(1, 448), is_float=True)
    assert arithmetic("**", exact(2), exact(-3), NOWHERE).value == Fraction(1, 8)
    assert arithmetic("<<", exact(1), exact(40), NOWHERE).value == 2**40
    assert arithmetic("+", exact(float("inf")), exact(1.0), NOWHERE).value == float("inf")


def test_signed_integers_are_i64_whatever_their_storage() -> None:
    k = kernel(body("t = i[n]\ny[n] = t + 1", "i: i32[N], y: Out[i32[N]]", "n in grid(tile(N))"))
    assert assigned(k, "t").dtype is I64
    store = next(n for n in ir.walk(k) if isinstance(n, ir.Store))
    assert isinstance(store.value, ir.Cast) and store.value.dtype.name == "i32" and store.value.mode == "convert"


def test_integer_division_and_mixing() -> None:
    k = kernel(body("a = m / 2\nb = m + 0.5\nc = squares(m)\ny[m, n] = x[m, n]".replace("c = squares(m)\n", "")))
    assert assigned(k, "a").dtype is F32 and assigned(k, "b").dtype is F32


def test_bf16_arithmetic_keeps_its_dtype_and_sums_are_f32() -> None:
    k = kernel(body("a = x[m, n] * 2 + 1\nb = sum(a, axis=n)\nc = max(a, axis=n)\ny[m] = b", "x: bf16[M, N], y: Out[f32[M]]", "m in grid(tile(M))").replace(
        "    for m", "    n = span(8)\n    for m"))  # fmt: skip
    assert assigned(k, "a").dtype is BF16 and assigned(k, "b").dtype is F32 and assigned(k, "c").dtype is BF16


def test_axes_are_joined_by_name_in_the_order_of_declaration() -> None:
    k = kernel(body("a = n + m\nb = a > 3\ny[m, n] = x[m, n]"))
    assert assigned(k, "a").axes == ("m", "n") and assigned(k, "b").dtype is BOOL


def test_a_later_loop_has_an_axis_of_its_own() -> None:
    k = specialise(parse(read_source(EXAMPLES[0].parent / "softmax.nsa")), "softmax", Settings())
    loops = [n for n in ir.walk(k) if isinstance(n, ir.For)]
    assert [loop.index for loop in loops] == ["n", "n.2"] and loops[0].carried == ("top", "total")
    assert ir.plain("n.2") == "n" and list(ir.axes_of(k)) == ["m", "n", "n.2"]


def test_a_condition_with_axes_becomes_a_choice_and_a_guard() -> None:
    k = kernel(body("v = full(m, n, 1.0)\nif x[m, n] > 0:\n    v = x[m, n]\n    y[m, n] = v"), present=frozenset())
    store = next(n for n in ir.walk(k) if isinstance(n, ir.Store))
    assert isinstance(store.guard, ir.Var) and store.guard.name == "condition"
    assert not any(isinstance(n, ir.If) for n in ir.walk(k))


def test_a_condition_known_when_compiling_picks_code() -> None:
    text = body("if b is not None:\n    y[n] = x[n] + b[n]\nelif R:\n    y[n] = 0.0\nelse:\n    y[n] = x[n]",
                "x: f32[N], y: Out[f32[N]], b: f32[N] | None, R: const = False", "n in grid(tile(N))")  # fmt: skip
    reads = [{n.tensor for n in ir.walk(kernel(text, present=p, constants=c)) if isinstance(n, ir.Load)} for p, c in
             ((frozenset({"b"}), {}), (frozenset(), {}), (frozenset(), {"R": True}))]  # fmt: skip
    assert reads == [{"x", "b"}, {"x"}, set()]


def test_where_guards_what_is_written_inside_it() -> None:
    k = kernel(body("t = i[n]\nlive = (0 <= t) & (t < T)\ny[n] = where(live, x[t], 0) + where(t > 3, 1.0, x[0])",
                    "i: i32[N], x: f32[T], y: Out[f32[N]]", "n in grid(tile(N))"))  # fmt: skip
    first, second = (n for n in ir.walk(k) if isinstance(n, ir.Load) and n.tensor == "x")
    assert isinstance(first.guard, ir.Var) and first.guard.name == "live"
    assert isinstance(second.guard, ir.Reduce) and second.guard.op == "any"  # the condition's axis is not the access's


def test_tuple_assignment_is_simultaneous() -> None:
    k = kernel(body("a = x[m, n]\nb = a + 1\na, b = b, a\ny[m, n] = a - b"))
    names = [n.name for n in ir.walk(k) if isinstance(n, ir.Assign)]
    assert names == ["a", "b", "held", "a", "b"]


def test_dividing_by_a_dimension_implies_that_it_is_positive() -> None:
    k = kernel(body("y[m, n] = x[m, n] + f32(m // N)"))
    assert [(r.text, r.implied) for r in k.requires] == [("N > 0", True)]


def test_generic_dtypes_and_targets() -> None:
    text = body("y[n] = T(f32(x[n]) + e4m3.max)", "x: T[N], y: Out[T[N]], T: dtype", "n in grid(tile(N))")
    k = kernel(text, constants={"T": BF16}, target=parse_target("hip:gfx942"))
    assert k.tensor("x").dtype is BF16 and any(isinstance(n, ir.Const) and n.value == 240.0 for n in ir.walk(k))
    assert (
        kernel(body("y[n] = e4m3(x[n])", "x: f32[N], y: Out[e4m3[N]]", "n in grid(tile(N))"), target=parse_target("hip:gfx942"))
        .tensor("y")
        .dtype
        is E4M3_FNUZ
    )


def test_signature_of_act_quant() -> None:
    s = signature(parse(read_source(EXAMPLES[0].parent / "act_quant.nsa")), "act_quant", {})
    assert s.dims == ("M", "N") and s.specialised == () and [p.kind for p in s.parameters] == ["tensor"] * 3 + ["const"] * 2
    assert s.parameters[2].extents == ("M", "N // G") and s.parameters[3].default == 128


def test_span_lengths_specialise_their_dimensions() -> None:
    text = "def f(q: bf16[S, D + R], y: Out[f32[S]], R: const = 64):\n    d, e = span(D), span(D, R)\n    for s in grid(tile(S)):\n        y[s] = sum(f32(q[s, d]), axis=d)\n"
    assert signature(parse(Source(text)), "f", {}).specialised == ("D",)
    with pytest.raises(NsaError, match=r"NSA0321.*dimension 'D' has no value"):
        kernel(text)
    assert kernel(text, dims={"D": 128}).dims == ("S",)


def test_unknown_kernel() -> None:
    with pytest.raises(NsaError, match=r"NSA0207.*unknown kernel 'softmx'(.|\n)*did you mean 'softmax'"):
        specialise(parse(read_source(EXAMPLES[0].parent / "softmax.nsa")), "softmx", Settings())


def test_several_errors_are_reported_at_once_in_order() -> None:
    with pytest.raises(NsaError) as caught:
        check_text(Source(body("a = nothing\nb = a + 1\ny[m, n] = x[m] + b\ny[m, n] = exp(m)")))
    assert [d.code for d in caught.value.diagnostics] == ["NSA0201", "NSA0303", "NSA0302"]
