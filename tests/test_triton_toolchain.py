"""Triton programs without a device: compiled for every target, and run by a worker process on the cpu."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from triton_programs import TORCH, program, run

from nsalang.base.source import NsaError
from nsalang.lowering.program import Argument
from nsalang.toolchain import triton_process
from nsalang.toolchain.triton_compile import compile_program, doctor, emit, load_program, version

COPY = "i = tl.arange(0, 4)\ntl.store(y + i * {step}, tl.load(x + i * {step}))"


@pytest.mark.parametrize("name", [*TORCH])
def test_dtypes_pass_through(name: str) -> None:
    bits = torch.arange(4).to(torch.uint8) if name != "bool" else torch.tensor([True, False, True, True])
    x = bits.repeat_interleave(8)[: 4 * TORCH[name].itemsize].view(TORCH[name])[:4].contiguous()
    y = torch.zeros_like(x)
    run(COPY.format(step=1), x=x, y=y)
    assert torch.equal(x.view(torch.uint8), y.view(torch.uint8))


def test_strides_offsets_and_overlap() -> None:
    base = torch.arange(40, dtype=torch.float32)
    x, y = base[3::2][:4], base[4::2][:4]
    run(COPY.format(step=2), x=x, y=y)
    assert base[:12].tolist() == [0, 1, 2, 3, 3, 5, 5, 7, 7, 9, 9, 11]
    shared = torch.arange(8, dtype=torch.float32)
    run("tl.store(y, 5.0)\ntl.store(z, tl.load(x + 1))", x=shared, y=shared[1:2], z=shared[2:3])
    assert shared[:3].tolist() == [0, 5, 5], "a write through one argument is seen through another"
    wide = torch.zeros(1, dtype=torch.float32).expand(3, 4)
    out = torch.ones(4)
    run("i = tl.arange(0, 4)\ntl.store(y + i, tl.load(x + i * 0))", x=wide, y=out)
    assert out.tolist() == [0, 0, 0, 0]
    empty = torch.zeros(0)
    run("tl.store(y, 1.0)", x=empty, y=out)
    assert out.tolist() == [1, 0, 0, 0]


def test_memory_that_is_only_read_may_be_read_only() -> None:
    import mmap

    with open("/proc/self/exe", "rb") as file:
        area = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.frombuffer(area, dtype=torch.uint8)
    y = torch.zeros(4, dtype=torch.uint8)
    run(COPY.format(step=1), x=x, y=y)
    assert bytes(y.tolist()) == b"\x7fELF"


def test_a_launch_of_nothing_starts_nothing() -> None:
    y = torch.ones(1)
    run("tl.store(y, 2.0)", grid=0, y=y)
    assert y.item() == 1


def test_faults_name_the_generated_line() -> None:
    y = torch.ones(4)
    with pytest.raises(RuntimeError, match=r"kernel.*inconsistent|shape.*line 8 of the generated source: tl.store"):
        run("i = tl.arange(0, 4)\ntl.store(y + i, tl.load(y + i) + tl.arange(0, 8))", y=y)
    with pytest.raises(RuntimeError, match="wrote outside its arguments"):
        run("tl.store(y + 4, 2.0)", y=y)
    assert y.tolist() == [1, 1, 1, 1]
    run("tl.store(y, 2.0)", y=y)
    assert y[0] == 2


@pytest.fixture
def own_worker() -> Iterator[None]:
    """These tests leave workers that are stuck or dead if they fail: no other test shall wait for such a one."""
    yield
    worker, triton_process._worker = triton_process._worker, None
    if worker is not None:
        worker.stop()


@pytest.mark.usefixtures("own_worker")
def test_a_crash_is_an_error_and_the_next_launch_works() -> None:
    y = torch.ones(4)
    with pytest.raises(RuntimeError, match="touched memory outside its arguments"):
        run("tl.store(y + 100000000000, 2.0)", y=y)
    run("tl.store(y, 2.0)", y=y)
    assert y[0] == 2
    worker = triton_process._worker
    assert worker is not None
    worker.process.kill()
    worker.process.wait()
    run("tl.store(y, 3.0)", y=y)
    assert y[0] == 3 and triton_process._worker is not worker


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("own_worker")
def test_a_worker_killed_in_the_middle_is_an_error() -> None:
    import threading

    y = torch.ones(1)
    run("tl.store(y, 2.0)", y=y)
    worker = triton_process._worker
    assert worker is not None
    threading.Timer(0.3, worker.process.kill).start()
    with pytest.raises(NsaError, match="NSA0603.*signal 9"):
        run("i = tl.load(y).to(tl.int32)\nwhile i > 0:\n    i = i + 1 - 1\n", y=y)
    assert y.item() == 2


def test_the_worker_ends_with_its_parent() -> None:
    text = (
        "import os, sys, threading, torch\n"
        "from triton_programs import run\n"
        "from nsalang.toolchain import triton_process\n"
        "y = torch.ones(1)\n"
        "run('tl.store(y, 2.0)', y=y)\n"
        "print(triton_process._worker.process.pid, flush=True)\n"
        "run('while tl.load(y) > 0:\\n    i = 1', y=y)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and Path(f"/proc/{worker}/stat").read_text().split(")")[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.05)
    parent.stdout.close()


@pytest.mark.usefixtures("own_worker")
def test_a_fork_gets_a_worker_of_its_own() -> None:
    y = torch.ones(1)
    run("tl.store(y, 2.0)", y=y)
    child = os.fork()
    if not child:
        try:
            run("tl.store(y, 3.0)", y=y)
            worker = triton_process._worker
            good = y.item() == 3 and worker is not None
            if worker is not None:
                worker.stop()
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    run("tl.store(y, tl.load(y) + 2.0)", y=y)
    assert y.item() == 4


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell's background jobs ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("own_worker", "interruptible")
def test_ctrl_c_leaves_a_usable_state() -> None:
    import threading

    y = torch.ones(1)
    run("tl.store(y, 2.0)", y=y)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run("while tl.load(y) > 0:\n    i = 1", y=y)
    run("tl.store(y, 3.0)", y=y)
    assert y.item() == 3


ACT_QUANT = """
m = tl.program_id(0).to(tl.int64)
j = tl.arange(0, 128)
v = tl.load(x + m * stride + j, mask=j < n, other=0.0).to(tl.float32)
scale = tl.maximum(tl.max(tl.abs(v), 0), 1e-4) * factor
tl.store(y + m * n + j, tl.clamp(tl.div_rn(v, tl.broadcast_to(scale, (128,))), -448.0, 448.0).to(tl.float8e4nv), mask=j < n)
tl.store(s + m, scale, mask=yes)
"""
QUANT_ARGUMENTS = (
    Argument("x", "pointer", "bf16", aligned=True), Argument("y", "pointer", "e4m3"), Argument("s", "pointer", "f32", aligned=True),
    Argument("n", "i32"), Argument("stride", "i64", aligned=True), Argument("factor", "f32"), Argument("yes", "bool"),
)  # fmt: skip


@pytest.mark.parametrize("target", ["cuda:sm_90", "cuda:sm_100", "hip:gfx942", "hip:gfx950"])
def test_compiles_for_a_device_that_is_not_here(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    body = ACT_QUANT.replace("float8e4nv", "float8e4b8") if target == "hip:gfx942" else ACT_QUANT
    made = program(body, *QUANT_ARGUMENTS, target=target)
    files = compile_program(made)
    kinds = {"ptx", "cubin"} if target.startswith("cuda") else {"amdgcn", "hsaco"}
    assert files.keys() == {"kernel.json", *(f"kernel.{kind}" for kind in kinds)} and all(files.values())
    assert compile_program(made) == files
    assert b"/" not in files["kernel.json"], "no paths of the machine that compiled"
    assert not list(tmp_path.iterdir()), "Triton's own cache stays empty"
    for kind in kinds:
        assert emit(made, kind) == (files[f"kernel.{kind}"] if kind in ("cubin", "hsaco") else files[f"kernel.{kind}"].decode())
    ir = emit(made, "ttir")
    assert isinstance(ir, str) and "tt.divisibility = 16" in ir
    with pytest.raises(NsaError, match="NSA0606"):
        emit(made, "hsaco" if "cubin" in kinds else "cubin")


def test_sm_80_without_fp8() -> None:
    made = program(COPY.format(step=1), Argument("x", "pointer", "bf16"), Argument("y", "pointer", "bf16"), target="cuda:sm_80")
    assert b"sm_80" in compile_program(made)["kernel.ptx"]
    with pytest.raises(NsaError, match=r"NSA0602.*fp8e4nv not supported"):
        compile_program(program(ACT_QUANT, *QUANT_ARGUMENTS, target="cuda:sm_80"))


def test_fusion_only_where_asked() -> None:
    from dataclasses import replace

    arguments = [Argument(name, "pointer", "f32") for name in "xyz"]
    made = program("tl.store(z, tl.load(x) * tl.load(y) + tl.load(z))", *arguments, target="cuda:sm_90")
    assert b"fma.rn" not in compile_program(made)["kernel.ptx"]
    assert b"fma.rn" in compile_program(replace(made, fp_fusion=True))["kernel.ptx"]


def test_a_refused_program_is_one_error() -> None:
    made = program("i = tl.arange(0, 4)\ntl.store(x, tl.load(x) + i)", Argument("x", "pointer", "f32"), target="cuda:sm_90")
    with pytest.raises(NsaError) as caught:
        compile_program(made)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "NSA0602" and "Value argument cannot be block type" in diagnostic.sentence
    assert diagnostic.notes == ("line 8 of the generated source: tl.store(x, tl.load(x) + i)",)


def test_a_device_program_without_a_device_is_one_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    made = program("tl.store(x, 1.0)", Argument("x", "pointer", "f32"), target="cuda:sm_90")
    with pytest.raises(NsaError, match="NSA0605"):
        load_program(made, {})


def test_doctor() -> None:
    items = dict(doctor())
    assert items["triton"] == version() and items["triton on cpu"] == "runs" and items["triton for cuda:sm_90"] == "compiles"


@pytest.mark.gpu
def test_on_a_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no device")
    major, minor = torch.cuda.get_device_capability()
    made = program(ACT_QUANT, *QUANT_ARGUMENTS, target=f"cuda:sm_{major}{minor}")
    launch = load_program(made, compile_program(made))
    x = torch.randn(64, 256, device="cuda").bfloat16()
    y, s = torch.zeros(64, 128, device="cuda", dtype=torch.float8_e4m3fn), torch.zeros(64, device="cuda")
    launch(64, [x, y, s, 128, 256, 1 / 448, True])
    v = x[:, :128].float()
    wanted = v.abs().amax(1).clamp(min=1e-4) * torch.tensor(1 / 448, device="cuda")
    assert torch.equal(s, wanted)
    assert torch.equal(y.view(torch.uint8), (v / wanted[:, None]).clamp(-448, 448).to(y.dtype).view(torch.uint8))
