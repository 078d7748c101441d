"""Calls that are refused: arguments of a wrong kind, extents that do not fit, dimensions that nothing gives, memory that overlaps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from launch_engine import Engine, K, X, engine_of, fresh, refused

import nsalang
from nsalang.host.memory import Layout, writes_twice


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return engine_of(monkeypatch)


# ----------------------------------------------------------------------------------------------------------------------- refusals


def test_unknown_argument() -> None:
    refused("NSA0501", lambda: K.add(X, X, outt=X), "'add'", "'outt'", "did you mean 'out'?")


def test_too_many_arguments() -> None:
    refused("NSA0502", lambda: K.add(X, X, X), "2 arguments by position (x, y)", "3 were given", "out=…")
    refused("NSA0502", lambda: K.add(X, X, x=X), "'x'", "by position and by name")


def test_missing_arguments() -> None:
    refused("NSA0503", lambda: K.add(X), "'y'", "kernels.nsa:2")
    refused("NSA0503", lambda: K.scale(torch.ones(2)), "'factor'")
    refused("NSA0503", lambda: K.counted(torch.ones(2), 1.0), "'size'")


@pytest.mark.parametrize("value", [3, "text", [1.0], None.__class__, {"a": 1}])
def test_no_tensor(value: object) -> None:
    refused("NSA0504", lambda: K.add(X, value), "'y'", "takes a torch tensor")


@pytest.mark.parametrize("value", ["2", torch.ones(()), [2.0], True, 1j])
def test_no_number(value: object) -> None:
    refused("NSA0504", lambda: K.scale(torch.ones(2), value), "'factor'", "scalar f32", "takes a number")


def test_scalars_of_other_kinds() -> None:
    x = torch.ones(2, dtype=torch.float8_e4m3fn)
    refused("NSA0504", lambda: K.scale(torch.ones(2), 1.0, 1.5), "'times'", "takes an integer", "1.5")
    refused("NSA0504", lambda: K.narrow(x, 1, 1), "'ok'", "True or False")
    refused("NSA0504", lambda: K.add(X, X, out=True), "'out'")


def test_scalar_out_of_range() -> None:
    refused("NSA0505", lambda: K.scale(torch.ones(2), 1.0, 2**31), "'times'", "2147483648", "i32")
    refused("NSA0505", lambda: K.scale(torch.ones(2), 1e39), "'factor'", "f32")
    refused("NSA0505", lambda: K.scale(torch.ones(2), 10**400), "'factor'", "f32")
    refused("NSA0505", lambda: K.narrow(torch.ones(2, dtype=torch.float8_e4m3fn), True, -1), "'small'", "u8")
    refused("NSA0505", lambda: K.ramp(-1), "'N'", "-1")
    endless = torch.ones(1, 1).expand(2**48, 1)
    refused("NSA0505", lambda: K.add(endless, endless, out=endless), "'x'", "2**48")


def test_wrong_dtype() -> None:
    refused("NSA0506", lambda: K.add(X, X.double()), "'y'", "torch.float64", "expected f32")
    refused("NSA0506", lambda: K.narrow(torch.ones(2), True, 1), "'x'", "expected e4m3", "float8_e4m3fn")
    refused(
        "NSA0506", lambda: K.narrow.interpret(torch.ones(2, dtype=torch.float8_e4m3fn), True, 1, target="hip:gfx942"), "float8_e4m3fnuz"
    )
    refused("NSA0506", lambda: K.cast(torch.ones(2), y=torch.ones(2).half()), "'y'", "T in this call")
    refused("NSA0506", lambda: K.cast(torch.ones(2, dtype=torch.complex64)), "'x'", "complex64")


def test_too_many_instances(engine: Engine) -> None:
    refused("NSA0507", lambda: fresh().cells(2**31), "'cells'", "2147483648")


def test_wrong_rank() -> None:
    refused("NSA0508", lambda: K.add(X, X[0]), "'y'", "1 axis", "[6]", "[M, N]")


def test_wrong_extents() -> None:
    text = refused("NSA0509", lambda: K.add(X, X[:, :5]), "axis 1 of argument 'y'", "extent 5", "expected N = 6", "axis 1 of 'x'")
    assert "kernels.nsa:2" in text
    refused("NSA0509", lambda: K.add(X, X, out=torch.empty(4, 7)), "'out'", "extent 7", "N = 6")
    refused("NSA0509", lambda: K.group(X[:, :4], s=torch.empty(4, 3)), "'s'", "extent 3", "N // G = 1")
    refused("NSA0509", lambda: K.ramp(4, y=torch.empty(5)), "'y'", "extent 5", "N = 4")
    refused("NSA0509", lambda: K.cells(1, y=torch.empty(2)), "'y'", "extent 2", "expected 1")


def test_dimensions_that_nothing_gives() -> None:
    refused("NSA0510", lambda: K.lookup(torch.zeros(0, dtype=torch.int32), torch.ones(2)), "axis 0 of argument 'cu'", "B + 1", "extent 0")
    refused("NSA0510", lambda: K.lookup(torch.zeros(2, dtype=torch.int32), torch.ones(3)), "2 * N", "extent 3")
    only = nsalang.load_text("def only(x: f32[N // 2], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = 1.0\n")
    refused("NSA0510", lambda: only.only(torch.ones(3)), "dimension N")


def test_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    refused("NSA0515", lambda: K.add(X, X.to("meta")), "'y'", "meta")
    fake = SimpleNamespace(device=torch.device("cuda", 1))

    class Elsewhere(torch.Tensor):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return fake.device

    refused("NSA0511", lambda: K.add(X, X.as_subclass(Elsewhere)), "'y'", "cuda:1", "'x'", "cpu")


def test_strides_that_write_twice() -> None:
    refused("NSA0512", lambda: K.add(X, X, out=torch.empty(1, 6).expand(4, 6)), "'out'", "[0, 1]", "axis 0")
    refused("NSA0512", lambda: K.add(X, X, out=torch.empty(40).as_strided((4, 6), (5, 1))), "'out'", "axes 0 and 1")
    refused("NSA0512", lambda: K.scale(torch.ones(1).expand(3), 1.0), "'x'")


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((4, 6), (6, 1)),
        ((2, 3), (3, 2)),
        ((3, 2), (2, 3)),
        ((4, 6), (5, 1)),
        ((2, 2, 2), (4, 2, 1)),
        ((2, 2, 2), (3, 2, 1)),
        ((1, 5), (0, 1)),
    ],
)
def test_writes_twice_never_says_no_where_elements_meet(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    offsets = [
        sum(i * s for i, s in zip(index, strides, strict=True)) for index in torch.cartesian_prod(*map(torch.arange, shape)).tolist()
    ]
    meets = len(set(offsets)) < len(offsets)
    said = writes_twice(Layout(shape, strides, 4, 0)) is not None
    assert said == meets


def test_overlapping_arguments(engine: Engine) -> None:
    kernels, buffer = fresh(), torch.zeros(100)
    x, y = buffer[:24].reshape(4, 6), buffer[24:48].reshape(4, 6)
    kernels.add(x, x, out=y)
    kernels.add(x, x, out=buffer[48:72].reshape(4, 6))
    refused("NSA0513", lambda: kernels.add(x, y, out=buffer[20:44].reshape(4, 6)), "'out'", "'x'", "written")
    refused("NSA0513", lambda: kernels.add(x, y, out=x), "'out'")
    wide = torch.zeros(4, 12)
    refused("NSA0513", lambda: kernels.add(wide[:, :6], X, out=wide[:, 6:]), "interleaved")
    refused("NSA0513", lambda: kernels.add.interpret(x, y, out=x), "'out'")


def test_overlap_is_checked_at_every_call(engine: Engine) -> None:
    kernels, buffer = fresh(), torch.zeros(96)
    place = [buffer[i : i + 24].reshape(4, 6) for i in (0, 24, 48, 12)]
    kernels.add(place[0], place[1], out=place[2])
    refused("NSA0513", lambda: kernels.add(place[0], place[1], out=place[3]), "'out'")


def test_requirements() -> None:
    refused("NSA0514", lambda: K.group(X), "N % G == 0", "N = 6", "kernels.nsa")
    refused("NSA0514", lambda: K.counted(torch.ones(2), -1.0, size=4), "low > 0.0", "low = -1.0")
    refused("NSA0514", lambda: K.counted(torch.ones(5), 1.0, size=4), "N <= size", "N = 5")
    refused("NSA0514", lambda: K.ratio(torch.ones(3, 0)), "N")


@pytest.mark.parametrize(
    ("extent", "require", "view", "grid", "line", "told"),
    [
        ("N", "1 << k < 64", "u8[N]", "1", 2, ("requires 1 << k < 64", "k = -1; it shifts by -1")),
        ("N", "N % (k + 1) == 0", "u8[N]", "1", 2, ("requires N % (k + 1) == 0", "it divides by zero")),
        ("1 << (N - 5)", "N > 0", "u8[N]", "1", 1, ("axis 0 of argument 'y' is 1 << (N - 5), which shifts by -1 here", "N = 4")),
        ("8 // (N - 4)", "N > 0", "u8[N]", "1", 1, ("axis 0 of argument 'y' is 8 // (N - 4), which divides by zero here", "N = 4")),
        ("N", "N > 0", "u8[N], offset=1 << k", "1", 3, ("the view 'v' shifts by -1 here",)),
        ("N", "N > 0", "u8[N // (k + 1)]", "1", 3, ("the view 'v' divides by zero here",)),
        ("N", "N > 0", "u8[N]", "1 << k", 4, ("the extent of 'g' in the grid shifts by -1 here", "k = -1")),
        ("N", "N > 0", "u8[N]", "N // (N - 4)", 4, ("the extent of 'g' in the grid divides by zero here", "N = 4")),
    ],
)
def test_what_has_no_value(extent: str, require: str, view: str, grid: str, line: int, told: tuple[str, ...]) -> None:
    text = f"""def f(x: f32[N], b: u8[M], k: i64, y: InOut[f32[{extent}]]):
    require({require})
    v = view(b, {view})
    for g in grid({grid}):
        y[0] = x[0] + f32(v[0])
"""
    kernel = nsalang.load_text(text).f
    given = torch.ones(4), torch.zeros(4, dtype=torch.uint8), -1, torch.ones(4)
    refused("NSA0514", lambda: kernel(*given), f"<string>:{line}:", *told)
    refused("NSA0514", lambda: kernel.interpret(*given), *told)


def test_unusable_memory() -> None:
    refused("NSA0515", lambda: K.add(X, X.to_sparse()), "'y'", "sparse")
    refused("NSA0515", lambda: K.scale(torch.ones(2, dtype=torch.complex64).conj().imag, 1.0), "negated")


def test_wrong_constants() -> None:
    refused("NSA0516", lambda: K.group(X, G=2.0), "'G'", "an integer", "2.0")
    refused("NSA0516", lambda: K.group(X, G=True), "'G'", "an integer")
    refused("NSA0516", lambda: K.group(X, mean=1), "'mean'", "True or False")
    refused("NSA0516", lambda: K.counted(torch.ones(2), 1.0, size="4"), "'size'", "a number or a bool")
    refused("NSA0516", lambda: K.cast(torch.ones(2), T="float33"), "'T'", "float33")


def test_dtype_parameter_that_nothing_determines() -> None:
    refused("NSA0517", lambda: K.cast.compile(target="cpu"), "'T'")
    made = nsalang.load_text("def fill(N: i32, y: Out[T[N]], T: dtype):\n    for n in grid(tile(N)):\n        y[n] = 0\n")
    refused("NSA0517", lambda: made.fill(3), "'T'", "'y'")


def test_dimensions_given_to_compile() -> None:
    refused("NSA0518", lambda: K.rows.compile(target="cpu"), "dimension D", "D=…")
    refused("NSA0518", lambda: K.rows.compile(target="cpu", D=4, M=3), "M", "dynamic")
    refused("NSA0518", lambda: K.rows.compile(target="cpu", D=-4), "D", "-4")
    refused("NSA0501", lambda: K.rows.compile(target="cpu", D=4, E=3), "'E'")
    refused("NSA0504", lambda: K.options.compile(target="cpu", bias=3), "'bias'")


def test_every_code_of_this_area_is_tested() -> None:
    from pathlib import Path

    from nsalang.base.codes import CODES

    text = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_launch*.py"))
    # 0520 is of `nsalang run`: test_cli_commands.py.
    assert [c for c in CODES if c.startswith("NSA05") and f'"{c}"' not in text and c != "NSA0520"] == []
