"""Do the interpreter, Triton and TileLang agree? One kernel on the same arguments by each, and every output against the interpreter's.

A kernel without floating-point sum, scan or transcendental function must agree bit for bit (any NaN equals any NaN). For others the bound
is this, stated once here: an f32 differs by at most ``RELATIVE`` of the reference plus ``ABSOLUTE`` of the output's largest finite value;
a shorter float by that or one representable value; where all that is not fixed is computed in a longer float, both bounds shrink as its rounding does; an fp8 or an integer by at most one step, on at most ``CODES`` of the elements (or on one
element). NaN and infinities stand at the same places. Where a kernel contracts e4m3 without ``accumulate="f32"``, ``SHORT`` of the largest
takes the place of ``ABSOLUTE``: Hopper's tensor core keeps about 14 bits of such a sum and truncates every 32 products, 2**-13 of the greatest
partial sum each time, so four times over 128 products, and the greatest partial sum may be a few times the result. Where it contracts what it has
rounded itself to a shorter float, a value near the middle of two of them goes either way: then one step of that dtype, 2**-7 in bf16, of the largest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nsalang import ir
from nsalang.base.dtypes import F32, DType
from nsalang.base.source import NsaError
from nsalang.host.memory import enough_memory
from nsalang.ir.operations import REDUCTIONS, UNARY

if TYPE_CHECKING:
    from torch import Tensor

    from nsalang.launch.kernel import Entry

RELATIVE = 1e-5
ABSOLUTE = 1e-6
SHORT = 2**-9
CODES = 0.001
ENGINES = ("interpreter", "triton", "tilelang")


def is_exact(kernel: ir.Kernel) -> bool:
    """Whether the language fixes every bit of the kernel's results: no floating-point sum or scan, and no function with an error bound."""
    return not any(_rounds_freely(node) for node in ir.walk(kernel))


def _rounds_freely(node: ir.Node) -> bool:
    match node:
        case ir.Unary(op=op):
            return UNARY[op].bound is not None
        case ir.Reduce(op=op, dtype=dtype):
            return dtype.is_float and REDUCTIONS[op].rounds
        case ir.Scan(dtype=dtype) | ir.Dot(dtype=dtype):
            return dtype.is_float
    return False


def absolute(kernel: ir.Kernel) -> float:
    """The part of an output's largest finite value by which an output may differ: of what is computed in f32, ``ABSOLUTE``."""
    free = [n.x.dtype if isinstance(n, ir.Unary) else n.dtype for n in ir.walk(kernel) if isinstance(n, ir.Value) and _rounds_freely(n)]
    least = min((d.working.mantissa for d in free), default=F32.mantissa)
    dots = [n for n in ir.walk(kernel) if isinstance(n, ir.Dot)]
    short = any(n.a.dtype.is_float and n.a.dtype.bits == 8 and not n.promote for n in dots)
    steps = (2.0**-dtype.mantissa for dtype in _rounded_operands(kernel, dots))
    return max(SHORT if short else ABSOLUTE * 2.0 ** (F32.mantissa - least), *steps, 0.0)


def relative(absolute: float) -> float:
    """The part of a value by which it may differ, beside that of the largest: less than ``RELATIVE`` where all was computed in a longer float."""
    return RELATIVE * min(1.0, absolute / ABSOLUTE)


def _rounded_operands(kernel: ir.Kernel, dots: Sequence[ir.Dot]) -> set[DType]:
    """The short floats to which operands of ``dots`` were rounded from values that are not fixed bit for bit."""
    inexact: set[str] = set()
    short: dict[str, set[DType]] = {}

    def is_inexact(value: ir.Node) -> bool:
        return any(_rounds_freely(n) or isinstance(n, ir.Var) and n.name in inexact for n in ir.walk(value))

    def rounded(value: ir.Node) -> set[DType]:
        found: set[DType] = set()
        for n in ir.walk(value):
            if isinstance(n, ir.Var):
                found |= short.get(n.name, set())
            elif isinstance(n, ir.Cast) and n.dtype.is_float and n.dtype.working is not n.dtype and is_inexact(n.x):
                found.add(n.dtype)
        return found

    assigned = [n for n in ir.walk(kernel) if isinstance(n, ir.Assign)]
    grew = True
    while grew:  # a loop carries values to names above
        grew = False
        for assign in assigned:
            known, more = short.setdefault(assign.name, set()), rounded(assign.value)
            if not more <= known or is_inexact(assign.value) and assign.name not in inexact:
                known |= more
                inexact |= {assign.name} if is_inexact(assign.value) else set()
                grew = True
    return set().union(*(rounded(x) for dot in dots for x in (dot.a, dot.b)))


@dataclass(frozen=True, slots=True)
class Difference:
    """How one output of one engine differs from the interpreter's. ``equal`` counts elements equal bit for bit; ``steps`` is the largest
    distance in representable values; ``reason`` says what is wrong, or is empty."""

    engine: str
    output: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    equal: int
    max_abs: float
    max_rel: float
    steps: int
    reason: str

    @property
    def ok(self) -> bool:
        return not self.reason


@dataclass(frozen=True, slots=True)
class Run:
    """What one engine gave: its outputs by name on the CPU, or why it could not run."""

    engine: str
    outputs: Mapping[str, Tensor] | None
    seconds: float
    failure: NsaError | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    kernel: str
    target: str
    exact: bool
    absolute: float
    runs: tuple[Run, ...]
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        return all(run.failure is None for run in self.runs) and all(d.ok for d in self.differences)


def difference(engine: str, output: str, reference: Tensor, found: Tensor, *, exact: bool, absolute: float = ABSOLUTE) -> Difference:
    """Compare two CPU tensors of one output by the rule above; ``absolute`` is what the function of that name gives."""
    import torch

    name = str(reference.dtype).removeprefix("torch.")
    count = reference.numel()

    def made(equal: int, worst: float, most: float, steps: int, reason: str) -> Difference:
        return Difference(engine, output, name, tuple(reference.shape), count, equal, worst, most, steps, reason)

    if reference.dtype != found.dtype or reference.shape != found.shape:
        return made(
            0, 0.0, 0.0, 0, f"{found.dtype} of shape {tuple(found.shape)} instead of {reference.dtype} of shape {tuple(reference.shape)}"
        )
    if not count:
        return made(0, 0.0, 0.0, 0, "")
    if torch.equal(reference.contiguous().view(torch.uint8), found.contiguous().view(torch.uint8)):
        return made(count, 0.0, 0.0, 0, "")
    a, b = _ordered(reference), _ordered(found)
    same = a == b
    if reference.is_floating_point():
        wide_a, wide_b = reference.double(), found.double()
        none = wide_a.isnan() & wide_b.isnan()
        same |= none
    equal = int(same.sum())
    if equal == count:
        return made(equal, 0.0, 0.0, 0, "")
    differs = ~same
    distance = (a[differs] - b[differs]).abs()
    steps = int(distance.max())
    if not reference.is_floating_point():
        worst = float(steps)
        reason = (
            _codes_reason(int(differs.sum()), count, steps)
            if not exact and reference.dtype != torch.bool
            else _exact_reason(same, reference, found)
        )
        return made(equal, worst, worst / max(1.0, float(a[differs].abs().max())), steps, reason)
    x, y = wide_a[differs], wide_b[differs]
    finite = x.isfinite() & y.isfinite()
    gap = (x - y).abs()[finite]
    worst = float(gap.max()) if gap.numel() else float("inf")
    size = x.abs()[finite].clamp_min(torch.finfo(torch.float32).tiny)
    most = float((gap / size).max()) if gap.numel() else float("inf")
    if exact:
        return made(equal, worst, most, steps, _exact_reason(same, reference, found))
    if not bool(finite.all()):
        return made(equal, worst, most, steps, "a NaN or an infinity stands elsewhere")
    if reference.element_size() == 1:
        return made(equal, worst, most, steps, _codes_reason(int(differs.sum()), count, steps))
    top = wide_a[wide_a.isfinite()].abs().max()
    near = relative(absolute)
    over = gap > near * x.abs() + absolute * top
    if torch.finfo(reference.dtype).eps > torch.finfo(torch.float32).eps * near / RELATIVE:
        over &= distance > 1
    reason = f"{int(over.sum())} values differ by more than {near:g} of the value + {absolute:g} of the largest" if bool(over.any()) else ""
    return made(equal, worst, most, steps, reason)


def _exact_reason(same: Tensor, reference: Tensor, found: Tensor) -> str:
    where = tuple(int(i) for i in (~same).nonzero()[0])
    a, b = reference[where].item(), found[where].item()
    return f"{int((~same).sum())} values differ and none may; the first at {list(where)}: {b!r} instead of {a!r}"


def _codes_reason(differing: int, count: int, steps: int) -> str:
    if steps > 1:
        return f"values differ by {steps} steps, and 1 is allowed"
    if differing > max(1, int(CODES * count)):
        return f"{differing} of {count} values differ, and {CODES:.1%} may"
    return ""


def _ordered(tensor: Tensor) -> Tensor:
    """int64 in the order of the values, neighbours one apart; -0.0 is just below +0.0."""
    import torch

    if not tensor.is_floating_point():
        return tensor.to(torch.int64)
    bits = tensor.contiguous().view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]).to(torch.int64)
    magnitude = bits & (2 ** (8 * tensor.element_size() - 1) - 1)
    return torch.where(bits < 0, -magnitude - 1, magnitude)


def moved(tensor: Tensor, device: str) -> Tensor:
    """A copy on ``device`` with the same strides, and at the same offset within 16 elements, also where a tensor is not dense."""
    import torch

    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    shift = tensor.storage_offset() % 16
    base = torch.empty(extent + shift, dtype=tensor.dtype, device=device)
    if extent:
        flat = tensor.as_strided((extent,), (1,), tensor.storage_offset())
        base[shift:].view(torch.uint8).copy_(flat.view(torch.uint8)) if tensor.element_size() == 1 else base[shift:].copy_(flat)
    return base.as_strided(tensor.shape, tensor.stride(), shift)


def compare(
    kernel: Entry,
    arguments: Mapping[str, Any],
    *,
    target: str,
    exact: bool,
    absolute: float = ABSOLUTE,
    outputs: Sequence[str],
    inout: Sequence[str] = (),
    partial: Sequence[str] = (),
    engines: Sequence[str] = ENGINES,
    schedule: Mapping[str, int | str] | None = None,
    allow: Literal["unknown"] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Run a kernel or a program (what ``nsalang.load`` gives) by each engine, and compare ``outputs`` and ``inout`` tensors with the first engine's.

    ``arguments`` by parameter name: CPU tensors, numbers, constants; they are not changed. The first engine allocates its outputs; the
    others get tensors full of garbage, so that an element that is not written shows, but zeros for outputs in ``partial``.
    An engine that raises an NsaError is listed with it; a fault of the program in the interpreter is NSA0520, and ends the comparison.
    ``schedule``: what is pinned of the code that backends make; ``allow``: as for a call. ``say`` is told what is being done.
    """
    import torch

    device = "cuda" if target.startswith(("cuda", "hip")) else "cpu"
    runs: list[Run] = []
    shapes: Mapping[str, Tensor] | None = None
    for engine in engines:
        say(f"running {kernel.unit.name} by {engine} for {target}")
        place = "cpu" if engine == "interpreter" else device
        given: dict[str, Any] = dict(arguments)
        start = time.perf_counter()
        failure: NsaError | None = None
        try:
            with enough_memory(f"what '{kernel.unit.name}' makes by {engine}"):
                given |= {n: moved(v, place) for n, v in arguments.items() if isinstance(v, torch.Tensor)}
                if shapes is not None:
                    for name in outputs:
                        given[name] = _garbage(shapes[name], place)
                        if name in partial:
                            given[name].zero_()
                start = time.perf_counter()
                if engine == "interpreter":
                    result = kernel.interpret(**given, target=target)
                else:
                    result = kernel(**given, backend=engine, target=target, schedule=schedule, allow=allow)
        except NsaError as error:
            failure = error
        if failure is not None:
            runs.append(Run(engine, None, time.perf_counter() - start, failure))
            if shapes is None:
                # Without a meaning there is nothing to compare with, and what faults in the interpreter may crash elsewhere.
                break
            continue
        results = result if isinstance(result, tuple) else (result,) if result is not None else ()
        found = {n: given[n] for n in (*outputs, *inout) if isinstance(given.get(n), torch.Tensor)}
        if shapes is None:
            found |= dict(zip(outputs, results, strict=True))
            shapes = found
        assert shapes is not None
        runs.append(Run(engine, {n: t.cpu() for n, t in found.items()}, time.perf_counter() - start))
    done = [run for run in runs if run.outputs is not None]
    differences = [
        difference(run.engine, name, done[0].outputs[name], run.outputs[name], exact=exact, absolute=absolute)  # type: ignore[index]
        for run in done[1:]
        for name in (*outputs, *inout)
    ]
    return Comparison(kernel.unit.name, target, exact, absolute, tuple(runs), tuple(differences))


def _garbage(like: Tensor, device: str) -> Tensor:
    import torch

    made = torch.empty(like.shape, dtype=like.dtype, device=device)
    made.view(torch.uint8).fill_(0x55) if made.numel() and made.dtype != torch.bool else made.fill_(True)
    return made
