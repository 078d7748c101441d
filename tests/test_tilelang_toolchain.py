"""TileLang programs on the CPU round as torch does, over all bit patterns; compiled files load in another process; faults are errors with a code."""

import dataclasses
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tilelang_programs import NAMES, apply, elementwise, program

import nsalang
from nsalang.base.source import NsaError
from nsalang.toolchain.tilelang_compile import compile_program, doctor, emit, load_program
from nsalang.toolchain.tilelang_lower import compile_error

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
LARGEST = {"e4m3": 448.0, "e5m2": 57344.0}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit, but that any NaN is as good as another."""
    nan = a.float().isnan()
    return torch.equal(nan, b.float().isnan()) and torch.equal(a.view(BITS[a.itemsize])[~nan], b.view(BITS[b.itemsize])[~nan])


def rounded(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """What the language says of a conversion: torch's, but that fp8 saturates, infinity too."""
    if dtype in LARGEST:
        x = x.clamp(-LARGEST[dtype], LARGEST[dtype])
    return x.to(NAMES[dtype][1])


def all_codes(dtype: str) -> torch.Tensor:
    kind = NAMES[dtype][1]
    return torch.arange(2 ** (8 * kind.itemsize)).to(torch.uint8 if kind.itemsize == 1 else torch.int16).view(kind)


def hard_floats() -> torch.Tensor:
    """A million random bit patterns, values of ordinary size, and each narrow format's values, midpoints and their neighbours."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(-(2**31), 2**31 - 1, (1 << 20,), generator=generator).to(torch.int32).view(torch.float32)
    usual = torch.randn(1 << 18, generator=generator) * torch.exp2(torch.rand(1 << 18, generator=generator) * 60 - 40)
    parts = [random, usual, torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan])]
    for dtype in ("e4m3", "e5m2", "f16", "bf16"):
        values = all_codes(dtype).float()
        values = values[values.isfinite()].sort().values
        middle = ((values[1:].double() + values[:-1].double()) / 2).float()
        parts += [values, middle, torch.nextafter(middle, torch.tensor(torch.inf)), torch.nextafter(middle, torch.tensor(-torch.inf))]
    return torch.cat(parts)


def test_f32_to_every_narrow_format() -> None:
    x = hard_floats()
    formats = ("bf16", "f16", "e4m3", "e5m2")
    made = elementwise([(f"y_{d}", d, f'T.cast(<x>, "{NAMES[d][0]}")') for d in formats], ("x", "f32"))
    for dtype, y in zip(formats, apply(made, x, outputs=4), strict=True):
        assert same(y, rounded(x, dtype)), dtype


@pytest.mark.parametrize("source", ["bf16", "f16", "e4m3", "e5m2"])
def test_every_code_of_a_narrow_format(source: str) -> None:
    x = all_codes(source)
    formats = [d for d in ("f32", "bf16", "f16", "e4m3", "e5m2") if d != source]
    made = elementwise([(f"y_{d}", d, f'T.cast(<x>, "{NAMES[d][0]}")') for d in formats], ("x", source))
    for dtype, y in zip(formats, apply(made, x, outputs=4), strict=True):
        assert same(y, rounded(x.float(), dtype)), dtype


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_narrow_arithmetic_rounds_each_operation(dtype: str) -> None:
    codes = all_codes(dtype)
    a, b = codes.repeat(4), torch.cat([codes.roll(k) for k in (1, 777, 12345, 40000)])
    operations = ("<a> + <b>", "<a> - <b>", "<a> * <b>", "<a> / <b>", "<a> * <b> + <a>")
    made = elementwise([(f"y{k}", dtype, text) for k, text in enumerate(operations)], ("a", dtype), ("b", dtype))
    for y, wanted in zip(apply(made, a, b, outputs=5), (a + b, a - b, a * b, a / b, a * b + a), strict=True):
        assert same(y, wanted)


def test_minimum_and_maximum_ignore_nan_and_order_zeros() -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan])
    a, b = (t.flatten().contiguous() for t in torch.meshgrid(values, values, indexing="ij"))
    for dtype in ("f32", "bf16"):
        made = elementwise([("low", dtype, "T.min(<a>, <b>)"), ("high", dtype, "T.max(<a>, <b>)")], ("a", dtype), ("b", dtype))
        low, high = (y.float() for y in apply(made, a.to(NAMES[dtype][1]), b.to(NAMES[dtype][1]), outputs=2))
        wanted_low, wanted_high = torch.fmin(a, b), torch.fmax(a, b)
        zeros = (a == 0) & (b == 0)
        wanted_low[zeros] = torch.where(a.signbit() | b.signbit(), -0.0, 0.0)[zeros]
        wanted_high[zeros] = torch.where(a.signbit() & b.signbit(), -0.0, 0.0)[zeros]
        assert same(low, wanted_low) and same(high, wanted_high)


def test_functions_of_f32() -> None:
    x = hard_floats()[:: 1 << 4].contiguous()
    y = x.roll(1)
    cases = {
        "T.sqrt(<x>)": torch.sqrt(x.double()).float(), "T.ieee_fdiv(<x>, <y>)": torch.div(x, y), "<x> / <y>": x / y, "T.floor(<x>)": x.floor(), "T.ceil(<x>)": x.ceil(),
        "T.trunc(<x>)": x.trunc(), "T.round(<x>)": x.round(), "T.abs(<x>)": x.abs(), "-<x>": -x, "T.ieee_add(<x>, T.float32(0))": x + 0.0,
        "T.ieee_mul(<x>, T.float32(0))": x * 0.0, "<x> * <y> + <x>": x * y + x,
        "T.ieee_fmaf(<x>, <y>, <x>)": (x.double() * y.double() + x.double()).float(),
    }  # fmt: skip
    made = elementwise([(f"z{k}", "f32", text) for k, text in enumerate(cases)], ("x", "f32"), ("y", "f32"))
    for result, (text, wanted) in zip(apply(made, x, y, outputs=len(cases)), cases.items(), strict=True):
        if "fmaf" in text:  # rounding twice through f64 differs for few of them
            assert (result.view(torch.int32) != wanted.view(torch.int32)).logical_and(~wanted.isnan()).float().mean() < 1e-3
        else:
            assert same(result, wanted), text
    close = {"T.exp(<x>)": x.exp(), "T.exp2(<x>)": x.exp2(), "T.log(<x>)": x.log(), "T.log2(<x>)": x.log2(), "T.tanh(<x>)": x.tanh()}
    made = elementwise([(f"z{k}", "f32", text) for k, text in enumerate(close)], ("x", "f32"))
    for result, (text, wanted) in zip(apply(made, x, outputs=len(close)), close.items(), strict=True):
        assert torch.allclose(result, wanted, rtol=1e-6, atol=1e-44, equal_nan=True), text


def test_constants_are_exact() -> None:
    values = [0.0022321429569274187, 3.4028234663852886e38, 1e-45, 2.0**-126, 0.1, -0.0, 16777217.0]
    made = elementwise([(f"z{k}", "f32", f"T.float32({v!r})") for k, v in enumerate(values)], ("x", "f32"))
    for result, value in zip(apply(made, torch.zeros(3), outputs=len(values)), values, strict=True):
        assert same(result, torch.full((3,), value))
    made = elementwise(
        [("inf", "f32", '-T.infinity("float32")'), ("low", "bf16", 'T.cast(-T.infinity("float32"), "bfloat16")')], ("x", "f32")
    )
    assert all(y.isneginf().all() for y in apply(made, torch.zeros(3), outputs=2))


def test_integers_bools_and_bits() -> None:
    x = torch.tensor([-7, 7, -1, 0, 2147483647, -2147483648, 12], dtype=torch.int32)
    b = x > 0
    cases = {
        "T.truncdiv(<x>, 4)": torch.div(x, 4, rounding_mode="trunc"), "<x> // 4": x // 4, "<x> % 5": x % 5, "T.truncmod(<x>, 5)": torch.fmod(x, 5),
        "<x> >> 2": x >> 2, "~<x>": ~x, "T.cast(<b>, 'int32')": b.int(), "T.cast(~<b>, 'int32')": (~b).int(),
        "T.reinterpret(T.cast(<x>, 'float32'), 'int32')": x.float().view(torch.int32), "T.min(<x>, 5)": x.clamp(max=5),
        "T.clz(<x>)": torch.tensor([0, 29, 0, 32, 1, 0, 28], dtype=torch.int32), "T.if_then_else(<b>, <x>, T.int32(3))": torch.where(b, x, 3),
    }  # fmt: skip
    made = elementwise([(f"z{k}", "i32", text) for k, text in enumerate(cases)], ("x", "i32"), ("b", "bool"))
    for result, (text, wanted) in zip(apply(made, x, b, outputs=len(cases)), cases.items(), strict=True):
        assert torch.equal(result, wanted), text


REDUCTIONS = """
    v = T.alloc_fragment((4, 32), "bfloat16")
    total = T.alloc_fragment((4,), "float32")
    top = T.alloc_fragment((4,), "float32")
    low = T.alloc_fragment((32,), "bfloat16")
    largest = T.alloc_fragment((4,), "bfloat16")
    one = T.alloc_fragment((1,), "float32")
    rows = T.alloc_shared((4, 32), "float32")
    for i, j in T.Parallel(4, 32):
        v[i, j] = x[i * 32 + j]
    T.reduce_sum(v, total, dim=1)
    T.reduce_absmax(v, top, dim=1)
    T.reduce_min(v, low, dim=0)
    T.reduce_max(v, largest, dim=1)
    T.reduce_max(top, one, dim=0)
    T.reduce_sum(v, total, dim=1, clear=False)
    for i, j in T.Parallel(4, 32):
        rows[i, j] = T.cast(v[i, j], "float32")
    T.cumsum(rows, dim=1, reverse=True)
    for i in T.Parallel(4):
        y[i] = total[i]
        y[4 + i] = top[i]
        y[8 + i] = T.cast(largest[i], "float32")
    for j in T.Parallel(32):
        y[12 + j] = T.cast(low[j], "float32")
    y[44] = one[0]
    for j in T.Parallel(32):
        y[45 + j] = rows[2, j]
"""


def test_reductions_into_another_dtype_and_scans() -> None:
    x = (torch.randn(128) * 4).bfloat16()
    (y,) = apply(program(REDUCTIONS, ("x", "bf16"), ("y", "f32")), x)
    v = x.view(4, 32).float()
    assert torch.allclose(y[:4], 2 * v.sum(1), atol=1e-4) and torch.equal(y[4:8], v.abs().amax(1)) and torch.equal(y[8:12], v.amax(1))
    assert torch.equal(y[12:44], v.amin(0)) and y[44] == v.abs().max()
    assert torch.allclose(y[45:77], v[2].flip(0).cumsum(0).flip(0), atol=1e-4)


def test_what_a_gpu_runs_is_what_the_cpu_runs() -> None:
    made = program(REDUCTIONS, ("x", "bf16"), ("y", "f32"), target="cuda:sm_90")
    text = str(emit(made, "cuda"))
    assert "tl::AllReduce<tl::MaxOp" in text and "__global__" in text
    assert "__global__" in str(emit(dataclasses.replace(made, target="hip:gfx942"), "hip"))


def test_another_process_loads_without_tilelang(tmp_path: Path) -> None:
    made = elementwise([("y", "bf16", "T.cast(<x>, 'bfloat16')")], ("x", "f32"))
    for name, data in compile_program(made).items():
        (tmp_path / name).write_bytes(data)
    script = """
import sys, torch
from pathlib import Path
from nsalang.lowering.program import Argument, Program
from nsalang.toolchain.tilelang_compile import load_program
arguments = (Argument("x", "pointer", "f32"), Argument("y", "pointer", "bf16"), Argument("M", "i32"))
launch = load_program(Program("tilelang", "cpu", "entry", "", arguments), {p.name: p.read_bytes() for p in Path(sys.argv[1]).iterdir()})
x, y = torch.randn(1000), torch.zeros(1000).bfloat16()
launch(8, [x, y, 1000])
assert torch.equal(y, x.bfloat16()) and "tilelang" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_a_home_that_cannot_be_written() -> None:
    script = """
import sys
from tilelang_programs import elementwise
from nsalang.toolchain.tilelang_compile import emit
assert "nsa_to_bf16" in emit(elementwise([("y", "bf16", "T.cast(<x>, 'bfloat16')")], ("x", "f32")), "c")
"""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path, "HOME": "/proc/none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr


def test_two_processes_compile_at_once() -> None:
    script = """
import hashlib
from tilelang_programs import elementwise
from nsalang.toolchain.tilelang_compile import compile_program
files = compile_program(elementwise([("y", "bf16", "T.cast(<x>, 'bfloat16')")], ("x", "f32")))
print(hashlib.sha256(files["kernel.c"] + files["kernel.json"] + files["kernel.so"]).hexdigest())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])}
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    said = {p.communicate()[0] for p in running}
    assert len(said) == 1 and len(said.pop().strip()) == 64


def test_no_programs_no_launch() -> None:
    made = elementwise([("y", "f32", "<x>")], ("x", "f32"))
    x, y = torch.ones(4), torch.zeros(4)
    load_program(made, compile_program(made))(0, [x, y, 4])
    assert not y.any()


def code_of(error: pytest.ExceptionInfo[NsaError]) -> str:
    return error.value.diagnostics[0].code


def test_a_program_that_tilelang_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    made = program("for i in T.Parallel(128):\n    y[m + i] = T.no_such_function(m)", ("y", "f32"))
    with pytest.raises(NsaError) as error:
        compile_program(made)
    assert code_of(error) == "NSA0602" and "no_such_function" in str(error.value)
    assert "generated line 11: y[m + i] = T.no_such_function(m)" in error.value.diagnostics[0].notes[0]
    shown = capfd.readouterr()
    assert not shown.out and not shown.err


def test_an_error_is_told_by_its_sentence_and_not_by_what_is_below_it() -> None:
    made = elementwise([("y", "f32", "<x>")], ("x", "f32"))
    said = "Traceback:\n  File a.cc, line 3\nGet different layout for keys\n current layout: Layout(2)\n  --> /somewhere:7:1"
    (found,) = compile_error(made, ValueError(said)).diagnostics
    assert found.sentence == "TileLang refuses the program for cpu: Get different layout for keys"


def test_missing_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    made = elementwise([("y", "f32", "<x>")], ("x", "f32"))
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    for target, tool in (("cpu", "g++"), ("cuda:sm_90", "nvcc")):
        with pytest.raises(NsaError) as error:
            compile_program(dataclasses.replace(made, target=target))
        assert code_of(error) == "NSA0605" and tool in str(error.value)
    assert ("g++ (TileLang for the CPU)", "missing") in doctor()


def test_kinds_and_targets_without_a_device(capfd: pytest.CaptureFixture[str]) -> None:
    made = elementwise([("y", "f32", "<x>")], ("x", "f32"))
    with pytest.raises(NsaError) as error:
        emit(made, "cubin")
    assert code_of(error) == "NSA0603"
    files = compile_program(dataclasses.replace(made, target="hip:gfx950"))
    assert set(files) == {"kernel.hip", "kernel.json"} and not capfd.readouterr().err
    with pytest.raises(NsaError) as error:
        load_program(dataclasses.replace(made, target="hip:gfx950"), files)
    assert code_of(error) == "NSA0604"


@pytest.mark.nvcc
def test_nothing_is_contracted_on_the_device() -> None:
    made = elementwise([("y", "f32", "<x> * <x> + <x>"), ("z", "f32", "T.ieee_fmaf(<x>, <x>, <x>)")], ("x", "f32"))
    made = dataclasses.replace(made, target="cuda:sm_90")
    ptx = str(emit(made, "ptx"))
    assert ptx.count("fma.rn.f32") == 1 and "mul.rn.f32" in ptx and "add.rn.f32" in ptx
    launch = json.loads(compile_program(made)["kernel.json"])
    assert launch["symbol"] == "kernel_kernel" and launch["threads"] == 128 and launch["shared"] == 0
    assert sorted(name for name, _ in launch["parameters"]) == ["M", "x", "y", "z"]


@pytest.mark.gpu
def test_the_device_rounds_as_torch_does() -> None:
    x = hard_floats()
    capability = "".join(map(str, torch.cuda.get_device_capability()))
    formats = ("bf16", "f16", "e4m3", "e5m2")
    made = elementwise([(f"y_{d}", d, f'T.cast(<x>, "{NAMES[d][0]}")') for d in formats], ("x", "f32"))
    made = dataclasses.replace(made, target=f"cuda:sm_{capability}")
    outputs = [torch.zeros(x.numel(), dtype=NAMES[d][1], device="cuda") for d in formats]
    load_program(made, compile_program(made))(-(-x.numel() // 128), [x.cuda(), *outputs, x.numel()])
    for dtype, y in zip(formats, outputs, strict=True):
        assert same(y.cpu(), rounded(x, dtype)), dtype


@pytest.mark.gpu
def test_launches_in_a_cuda_graph_on_another_stream() -> None:
    capability = "".join(map(str, torch.cuda.get_device_capability()))
    made = dataclasses.replace(elementwise([("y", "f32", "<x> + 1.0")], ("x", "f32")), target=f"cuda:sm_{capability}")
    launch = load_program(made, compile_program(made))
    x, y = torch.randn(1000, device="cuda"), torch.zeros(1000, device="cuda")
    launch(8, [x, y, 1000])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch(8, [x, y, 1000])
        launch(8, [y, x, 1000])
    before = x.clone()
    graph.replay()
    assert torch.equal(x, before + 1.0 + 1.0)


def test_constants_keep_their_digits_on_hip() -> None:
    """HIP's printer writes seven, and a third of f32 has nine."""
    text = "def f(x: f32[N], y: Out[f32[N]]):\n    for n in grid(tile(N)):\n        y[n] = x[n] / 3 + 0.5 + x[n] * (1 / 3)\n"
    made = str(emit(nsalang.load_text(text).f.compile(target="hip:gfx942", backend="tilelang").program, "hip"))
    assert (
        f"__int_as_float({struct.unpack('<i', struct.pack('<f', 1 / 3))[0]})" in made
        and "5.000000e-01f" in made
        and "3.333333e-01" not in made
    )
