"""The families of the GPU run: each yields JSON rows, correctness (``ok``) or times (``us``)."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsalang.base.source import NsaError
from nsalang.toolchain.backends import BACKENDS

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]

QUANT_SHAPES = ((128, 512), (256, 1024), (512, 2048), (1024, 4096), (2048, 8192), (4096, 16384), (4001, 7168), (0, 512))
QUANT_TIMES = ((128, 512), (1024, 4096), (4096, 16384), (16384, 7168))
ROW_TIMES = ((8192, 4096), (4096, 16384), (32768, 7168))


def _target() -> str:
    import torch

    from nsalang.launch.options import device_target

    return str(device_target("cuda", torch.cuda.current_device()))


@functools.cache
def load_kernel(name: str) -> Any:
    """A kernel or program of the examples, by the name that its file has too."""
    from importlib.resources import as_file, files

    import nsalang

    with as_file(files("nsalang.kernels") / f"{name}.nsa") as path:
        return getattr(nsalang.load(str(path)), name)


def _normal(*shape: int, seed: int = 42) -> Tensor:
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _strided(tensor: Tensor) -> Tensor:
    """The same values in rows that are further apart than they are long, from an odd offset."""
    import torch

    wide = torch.zeros(tensor.shape[0], tensor.shape[1] + 72, dtype=tensor.dtype)
    wide[:, 3 : 3 + tensor.shape[1]] = tensor
    return wide[:, 3 : 3 + tensor.shape[1]]


def _checked(name: str, case: str, arguments: Mapping[str, Any], outputs: Sequence[str], *, exact: bool) -> Iterator[Row]:
    from nsalang.bench import compare

    result = compare.compare(load_kernel(name), arguments, target=_target(), exact=exact, outputs=outputs)
    for run in result.runs:
        if run.failure is not None:
            yield {"kernel": name, "case": case, "backend": run.engine, "ok": False, "reason": run.failure.diagnostics[0].sentence}
    for d in result.differences:
        yield {
            "kernel": name, "case": case, "backend": d.engine, "output": d.output, "equal": d.equal, "elements": d.elements,
            "max_abs": d.max_abs, "max_rel": d.max_rel, "steps": d.steps, "exact": exact, "ok": d.ok, "reason": d.reason,
        }  # fmt: skip


def act_quant() -> Iterator[Row]:
    """Bit for bit, both scale formats, contiguous and strided."""
    for m, n in QUANT_SHAPES:
        x = _normal(m, n).bfloat16()
        for ue8m0 in (False, True):
            for layout, given in (("contiguous", x), ("strided", _strided(x))):
                case = f"({m}, {n}) {'ue8m0' if ue8m0 else 'plain'} {layout}"
                yield from _checked("act_quant", case, {"x": given, "ue8m0": ue8m0}, ["y", "s"], exact=True)


def vector_add() -> Iterator[Row]:
    for n in (0, 1, 1000, 1 << 20, (1 << 24) + 3):
        yield from _checked("vector_add", f"({n},)", {"a": _normal(n), "b": _normal(n, seed=1)}, ["c"], exact=True)


def softmax() -> Iterator[Row]:
    for m, n in ((1, 1), (7, 33), (128, 1000), (1024, 4096), (4096, 16384), (0, 5)):
        yield from _checked("softmax", f"({m}, {n})", {"x": _normal(m, n) * 4}, ["y"], exact=False)


def rmsnorm() -> Iterator[Row]:
    for m, n in ((1, 1), (7, 33), (128, 1000), (1024, 4096), (4096, 16384)):
        yield from _checked(
            "rmsnorm", f"({m}, {n})", {"x": _normal(m, n).bfloat16(), "w": _normal(n, seed=1).bfloat16()}, ["y"], exact=False
        )


def swiglu_quant() -> Iterator[Row]:
    for m, h in ((1, 128), (33, 512), (1024, 2048), (4001, 7168)):
        yield from _checked("swiglu_quant", f"({m}, {h})", {"x": _normal(m, 2 * h).bfloat16()}, ["y", "s"], exact=False)


def _timed(
    name: str, shape: Sequence[int], arguments: Mapping[str, Tensor], outputs: Mapping[str, Tensor], note: str = "", **constants: object
) -> Iterator[Row]:
    from nsalang.bench.measure import bytes_of, measure

    kernel, target = load_kernel(name), _target()
    moved = bytes_of([*arguments.values(), *outputs.values()])
    for backend in BACKENDS:
        row: Row = {"kernel": name + note, "case": list(shape), "backend": backend, "bytes": moved}
        try:
            start = time.perf_counter()
            kernel(**arguments, **outputs, **constants, backend=backend, target=target)
            first = time.perf_counter() - start
            timing = measure(_call(kernel, backend=backend, target=target, **arguments, **outputs, **constants), "cuda")
        except NsaError as error:
            yield {**row, "ok": False, "reason": error.diagnostics[0].sentence}
            continue
        yield {
            **row,
            "us": timing.us,
            "least_us": timing.least_us,
            "method": timing.method,
            "tb_s": moved / timing.us / 1e6,
            "first_call_s": first,
        }


def _call(function: Callable[..., object], **arguments: object) -> Callable[[], object]:
    return lambda: function(**arguments)


def _torch_timed(name: str, shape: Sequence[int], moved: int, call: Callable[[], object]) -> Row:
    from nsalang.bench.measure import measure

    timing = measure(call, "cuda")
    return {"of": "torch", "kernel": name, "case": list(shape), "backend": "torch", "us": timing.us, "tb_s": moved / timing.us / 1e6}


def quant_times() -> Iterator[Row]:
    """act_quant beside peers.py's family quant, and swiglu_quant."""
    import torch

    for m, n in QUANT_TIMES:
        x = _normal(m, n).bfloat16().cuda()
        y, s = torch.empty(m, n, device="cuda", dtype=torch.float8_e4m3fn), torch.empty(m, n // 128, device="cuda")
        yield from _timed("act_quant", (m, n), {"x": x}, {"y": y, "s": s})
        yield from _timed("act_quant", (m, n), {"x": x}, {"y": y, "s": s}, " ue8m0", ue8m0=True)
    for m, h in ((1024, 2048), (16384, 7168)):
        x = _normal(m, 2 * h).bfloat16().cuda()
        y, s = torch.empty(m, h, device="cuda", dtype=torch.float8_e4m3fn), torch.empty(m, h // 128, device="cuda")
        yield from _timed("swiglu_quant", (m, h), {"x": x}, {"y": y, "s": s})


def row_times() -> Iterator[Row]:
    """rmsnorm beside peers.py's family rows; softmax (ours is f32) and vector_add beside torch's own, measured here."""
    import torch

    for m, n in ROW_TIMES:
        x, w = torch.randn(m, n, device="cuda", dtype=torch.bfloat16), torch.randn(n, device="cuda", dtype=torch.bfloat16)
        yield from _timed("rmsnorm", (m, n), {"x": x, "w": w}, {"y": torch.empty_like(x)})
        f = torch.randn(m, n, device="cuda")
        out = torch.empty_like(f)
        yield from _timed("softmax", (m, n), {"x": f}, {"y": out})
        yield _torch_timed("softmax f32", (m, n), 8 * m * n, _call(torch.softmax, input=f, dim=-1, out=out))
    a, b = torch.randn(1 << 28, device="cuda"), torch.randn(1 << 28, device="cuda")
    c = torch.empty_like(a)
    yield from _timed("vector_add", (1 << 28,), {"a": a, "b": b}, {"c": c})
    yield _torch_timed("add", (1 << 28,), 12 << 28, _call(torch.add, input=a, other=b, out=c))


def launch() -> Iterator[Row]:
    """Microseconds of the host for one call with given outputs."""
    import torch

    x = torch.randn(128, 512, device="cuda").bfloat16()
    y, s = torch.empty(128, 512, device="cuda", dtype=torch.float8_e4m3fn), torch.empty(128, 4, device="cuda")
    kernel = load_kernel("act_quant")
    for backend in BACKENDS:
        for _ in range(50):
            kernel(x, y=y, s=s, backend=backend)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(2000):
            kernel(x, y=y, s=s, backend=backend)
        spent = (time.perf_counter() - start) / 2000 * 1e6
        torch.cuda.synchronize()
        yield {"kernel": "act_quant", "case": [128, 512], "backend": backend, "host_us": spent}


def guards() -> Iterator[Row]:
    """The same kernel with the launch facts that it hoists, and with a mask for each: at sizes at which both are right, on the same tensors.

    Rows are named after the variant; ``masked`` counts its accesses that have a mask, of ``accesses``.
    """
    import torch

    for n in (1 << 20, 1 << 28):
        a, b, c = (torch.randn(n, device="cuda") for _ in range(3))
        yield from _both_variants("vector_add", {"a": a, "b": b, "c": c}, {"N": n})
    for m, n in ((1024, 4096), (8192, 4096), (4096, 16384)):
        x, y = torch.randn(m, n, device="cuda"), torch.empty(m, n, device="cuda")
        yield from _both_variants("softmax", {"x": x, "y": y}, {"M": m, "N": n})
        h, w = x.bfloat16(), torch.randn(n, device="cuda", dtype=torch.bfloat16)
        yield from _both_variants("rmsnorm", {"x": h, "w": w, "y": torch.empty_like(h)}, {"M": m, "N": n}, eps=1e-6)
        q, s = torch.empty(m, n, device="cuda", dtype=torch.float8_e4m3fn), torch.empty(m, n // 128, device="cuda")
        yield from _both_variants("act_quant", {"x": h, "y": q, "s": s}, {"M": m, "N": n})


def _both_variants(name: str, tensors: Mapping[str, Tensor], dims: Mapping[str, int], **scalars: float) -> Iterator[Row]:
    """Times of the exact variant and of the guarded one, launched beneath the call that would choose the exact one; contiguous tensors."""
    import torch

    from nsalang.bench import compare
    from nsalang.bench.measure import bytes_of, measure
    from nsalang.ir.summary import accesses
    from nsalang.launch.sizes import count_programs, is_exact

    kernel, target, moved = load_kernel(name), _target(), bytes_of(tensors.values())
    outputs = [p.name for p in kernel.signature.parameters if p.role == "out"]
    for backend in BACKENDS:
        found: list[list[Tensor]] = []
        for exact in (True, False):
            compiled = kernel.compile(target=target, backend=backend, exact=exact)
            note = "exact" if exact else "guarded"
            made = accesses(compiled.kernel)
            row: Row = {
                "kernel": f"{name} {note}", "case": list(dims.values()), "backend": backend, "bytes": moved,
                "accesses": len(made), "masked": sum(n.mask is not None for n in made),
            }  # fmt: skip
            assert not exact or is_exact(compiled.kernel, dims, scalars), "the exact variant must not run at these sizes"
            launch, programs = compiled.load(), count_programs(compiled, dims, scalars)
            arguments: list[Any] = []
            for binding in compiled.generated.bindings:
                if binding.kind == "tensor":
                    arguments.append(tensors[binding.name])
                elif binding.kind == "stride":
                    arguments.append(tensors[binding.name].stride(binding.axis))
                else:
                    arguments.append(dims[binding.name] if binding.kind == "dim" else scalars[binding.name])
            launch(programs, arguments)
            torch.cuda.synchronize()
            found.append([tensors[o].clone() for o in outputs])
            timing = measure(functools.partial(launch, programs, arguments), "cuda")
            yield {**row, "us": timing.us, "least_us": timing.least_us, "method": timing.method, "tb_s": moved / timing.us / 1e6}
        bitwise, absolute = compare.is_exact(compiled.typed), compare.absolute(compiled.typed)
        for output, first, second in zip(outputs, *found, strict=True):
            d = compare.difference("guarded", output, first.cpu(), second.cpu(), exact=bitwise, absolute=absolute)
            yield {
                "kernel": f"{name} guarded as exact", "case": str(tuple(dims.values())), "backend": backend, "output": output, "equal": d.equal,
                "elements": d.elements, "max_abs": d.max_abs, "max_rel": d.max_rel, "steps": d.steps,
                "exact": bitwise, "ok": d.ok, "reason": d.reason,
            }  # fmt: skip


FAMILIES: dict[str, Callable[[], Iterator[Row]]] = {
    f.__name__: f for f in (act_quant, vector_add, softmax, rmsnorm, swiglu_quant, quant_times, row_times, guards, launch)
}
