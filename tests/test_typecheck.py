"""What types are inferred, and what becomes of each construct. Wrong texts are in tests/errors."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from nsalang import ir
from nsalang.base.constants import Exact, arithmetic, exact, round_to
from nsalang.base.dtypes import BF16, BOOL, E4M3, E4M3_FNUZ, F16, F32, I32, I64
from nsalang.base.source import NsaError, Source, Span
from nsalang.base.target import parse_target
from nsalang.host.extents import evaluate
from nsalang.syntax.parser import parse, read_source
from nsalang.types.check import check_text
from nsalang.types.settings import Settings
from nsalang.types.typecheck import kernel_names, signature, specialise

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


def test_two_bare_constants_have_one_dtype() -> None:
    choices = {
        "where(x[m, n] > 0, -2.0, 0)": F32,
        "where(x[m, n] > 0, 1, 0.5)": F32,
        "where(x[m, n] > 0, 2, 0)": I64,
        "where(x[m, n] > 0, True, False)": BOOL,
    }
    for text, dtype in choices.items():
        chosen = assigned(
            kernel(body(f"v = {text}\ny[m, n] = f32(v)" if dtype is not BOOL else f"v = {text}\ny[m, n] = where(v, 1.0, 0.0)")), "v"
        )
        assert isinstance(chosen, ir.Where) and {chosen.dtype, chosen.a.dtype, chosen.b.dtype} == {dtype}
    with pytest.raises(NsaError, match="NSA0301.*the number 0 can't be bool"):
        kernel(body("y[m, n] = where(x[m, n] > 0, True, 0)"))


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


def stores(k: ir.Kernel) -> list[ir.Store]:
    return [n for n in ir.walk(k) if isinstance(n, ir.Store)]


def view_text(lines: str, use: str = "y[n] = v[n]") -> str:
    inner = "\n".join("    " + line for line in lines.split("\n"))
    parameters = "b: u8[P, L], y: Out[f32[N]], w: InOut[i8[4 * N]], k: i32, D: const = 4"
    return f"def f({parameters}):\n{inner}\n    for n in grid(tile(N)):\n        {use}\n"


def test_a_view_is_contiguous_from_the_start_where_nothing_else_is_said() -> None:
    (v,) = kernel(view_text("v = view(b, bf16[N, P, D])", "y[n] = f32(v[n, 0, 0])")).views
    n, p = (ir.Dim(I64, (), name) for name in "NP")
    assert (v.shape, v.offset) == ((n, p, ir.const(4)), ir.const(0))
    assert v.strides == (ir.binary("mul", ir.const(8), p), ir.const(8), ir.const(2))
    assert (v.base, v.role, v.dtype) == ("b", "in", BF16)
    (v,) = kernel(view_text("v = view(b, f32[N], offset=k * L, strides=D)")).views
    assert v.offset == ir.binary("mul", ir.Scalar(I64, (), "k"), ir.Dim(I64, (), "L")) and v.strides == (ir.const(4),)


def test_a_view_has_the_role_of_its_base_and_the_targets_e4m3() -> None:
    text = view_text("v = view(w, e4m3[N])", "v[n] = e4m3(f32(v[n]) + 1)\n        y[n] = 0.0")
    k = kernel(text, target=parse_target("hip:gfx942"))
    assert (k.views[0].role, k.views[0].dtype) == ("inout", E4M3_FNUZ) and stores(k)[0].tensor == "v" and k.memory("v") == "w"


def test_a_view_of_an_optional_tensor_stands_under_its_condition() -> None:
    text = body("y[n] = 0.0\nif b is not None:\n    y[n] = v[n]", "b: u8[4 * N] | None, y: Out[f32[N]], z: f32[N]", "n in grid(tile(N))")
    text = text.replace(":\n    for", ":\n    if b is not None:\n        v = view(b, f32[N])\n    for", 1)
    check_text(Source(text))
    assert len(kernel(text, present=frozenset({"b"})).views) == 1 and kernel(text).views == ()


def promised(*lines: str, present: tuple[str, ...] = ()) -> tuple[ir.Promise, ...]:
    inner = "".join(f"    {line}\n" for line in lines)
    parameters = "i: i32[S, K], lo: i64[S, K], x: f32[S], cu: i32[B + 1], o: i32[S] | None, y: Out[f32[S]], T: i32"
    return kernel(f"def f({parameters}):\n{inner}    for s in grid(tile(S)):\n        y[s] = x[s]\n", present=frozenset(present)).promises


def test_a_promise_is_about_each_element() -> None:
    (p,) = promised("promise(-1 <= i < T)")
    element = ir.Cast(I64, (), ir.Load(I32, (), "i", (ir.Index(I64, (), "each0"), ir.Index(I64, (), "each1"))))
    low, high = ir.binary("le", ir.const(-1), element), ir.binary("lt", element, ir.Scalar(I64, (), "T"))
    assert p == ir.Promise("each", ("i",), ir.binary("and", low, high), "-1 <= i < T")
    (p,) = promised("promise(lo <= i)")
    assert p.tensors == ("lo", "i") and p.condition is not None and isinstance(p.condition.a, ir.Load)  # type: ignore[union-attr]
    assert [q.tensors for q in promised("promise(0 <= x <= 1)", "promise(i != lo)")] == [("x",), ("i", "lo")]


def test_promises_about_order_and_about_absent_tensors() -> None:
    found = promised("promise(distinct(i))", "promise(sorted(cu))", "promise(0 <= o < T)")
    assert [(p.kind, p.tensors, p.text, p.implied) for p in found] == [
        ("distinct", ("i",), "distinct(i)", False), ("sorted", ("cu",), "sorted(cu)", False)
    ]  # fmt: skip
    assert [p.tensors for p in promised("promise(0 <= o < T)", present=("o",))] == [("o",)]


def test_a_search_implies_that_its_tensor_is_sorted() -> None:
    text = body(
        "b = searchsorted(cu, n)\nc = where(n > 3, searchsorted(cu, 7), 0)\ny[n] = f32(b + c)",
        "cu: i32[B], y: Out[f32[N]]",
        "n in grid(tile(N))",
    )
    k = kernel(text)
    assert [(p.kind, p.tensors, p.implied) for p in k.promises] == [("sorted", ("cu",), True)]
    first, second = (n for n in ir.walk(k) if isinstance(n, ir.Search))
    assert first.axes == ("n",) and first.guard is None and first.x.dtype is I64
    assert second.axes == () and isinstance(second.guard, ir.Reduce) and second.guard.op == "any"
    k = kernel(text.replace(":\n    for", ":\n    promise(sorted(cu))\n    for", 1))
    assert [(p.tensors, p.implied) for p in k.promises] == [(("cu",), False)]


def test_split_gives_two_borders() -> None:
    k = kernel(body("lo, hi = split(M, 3, n)\ny[n] = hi - lo", "x: f32[M], y: Out[i64[N]]", "n in grid(tile(N))"))
    lo, hi = assigned(k, "lo"), assigned(k, "hi")
    assert isinstance(lo, ir.Border) and isinstance(hi, ir.Border) and lo.axes == hi.axes == ("n",)
    assert (lo.n, lo.parts) == (hi.n, hi.parts) == (ir.Dim(I64, (), "M"), ir.const(3)) and hi.g == ir.binary("add", lo.g, ir.const(1))
    k = kernel(body("lo, hi = split(M, N, 0)\ny[n] = hi - lo", "x: f32[M], y: Out[i64[N]]", "n in grid(tile(N))"))
    assert [(r.text, r.implied) for r in k.requires] == [("N > 0", True)]


def test_split_before_the_grid_is_an_extent() -> None:
    text = "def f(x: f32[M], y: Out[i64[M]]):\n    partial(y)\n    lo, hi = split(M, 3, 0)\n    for n in grid(tile(hi - lo)):\n        y[n] = n\n"
    extent = kernel(text).grid[0].extent
    assert evaluate(extent, {"M": 8}, {}) == 3 and evaluate(extent, {"M": 6}, {}) == 2 and evaluate(extent, {"M": 0}, {}) == 0


def test_what_is_added_may_collide_and_may_be_a_part_of_the_grid() -> None:
    parameters = "x: f32[M, N], i: i32[M], y: InOut[f32[N]], c: InOut[i32[4]]"
    k = kernel(body("atomic_add(y[n], sum(x[m, n], axis=m))\nif x[m, n] > 0:\n    atomic_add(c[i[m]], full(n, 1))\ns = sum(x[m, n], axis=(m, n))\natomic_add(y[0], s)",
                    parameters))  # fmt: skip
    first, second, third = stores(k)
    assert (first.mode, first.axes) == ("add", ("n",)) and (third.mode, third.axes) == ("add", ())
    assert second.axes == ("m", "n") and second.value.dtype is I32 and isinstance(second.guard, ir.Var)


def test_shares_of_a_sum_may_be_scaled_and_added_up() -> None:
    lines = """
acc = zeros(n)
for k in tile(K):
    acc = acc + sum(z[m, n, k], axis=(m, k)) * w[n]
s = -acc / 2 + sum(x[m, n], axis=m)
if w[n] > 0:
    s = s + acc
atomic_add(y[n], s)
atomic_add(total[0], i32(sum(x[m, n] > 0, axis=(m, n))))
"""
    parameters = "x: f32[M, N], z: f32[M, N, K], w: f32[N], y: InOut[f32[N]], total: InOut[i32[1]]"
    assert len(stores(kernel(body(lines, parameters)))) == 2
    for wrong in ("acc + w[n]", "maximum(acc, 0)", "acc * acc", "where(acc > 0, acc, 0)"):
        with pytest.raises(NsaError, match="NSA0323.*what is added depends"):
            kernel(body(lines.replace("-acc / 2", wrong), parameters))


def test_what_is_scattered_has_the_axes_of_place_and_value() -> None:
    k = kernel(body("scatter(y[i[m]], x[m, n])", "x: f32[M, N], i: i32[M], y: InOut[f32[N]]"))
    (made,) = stores(k)
    assert (made.mode, made.axes) == ("scatter", ("m", "n"))
    kernel(body("scatter(y[i[m]], x[m, n])\ny[n] = 0.0", "x: f32[M, N], i: i32[M], y: Out[f32[N]]"))


def test_what_depends_on_tiles_still_does_after_it_was_held_back() -> None:
    lines = "a, b = x[m], full(m, max(x[m], axis=m))\nb, a = a, b\ny[m] = a"
    with pytest.raises(NsaError, match="NSA0323"):
        kernel(body(lines, "x: f32[M], y: Out[f32[M]]", "m in grid(tile(M))"))


def test_a_running_sum_over_the_grid_depends_on_its_tiles() -> None:
    with pytest.raises(NsaError, match="NSA0323"):
        kernel(body("y[m] = cumsum(x[m, 0], axis=m)", "x: f32[M, N], y: Out[f32[M]]", "m in grid(tile(M))"))
