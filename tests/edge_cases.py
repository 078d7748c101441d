"""Calls of any kernel with sizes of every kind of tail, and with tensors at the very edge of their memory: for the sanitizers on the CPU
(test_memory_edges.py) and on a GPU (gpu_memcheck.py)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import nsalang
from nsalang import ir
from nsalang.base.dtypes import BOOL, F32, DType
from nsalang.base.source import NsaError
from nsalang.base.target import parse_target
from nsalang.build.pipeline import Meaning, typed
from nsalang.host import extents
from nsalang.host.memory import contiguous
from nsalang.interp import run as interp
from nsalang.interp.bounds import sum_error
from nsalang.launch import checks
from nsalang.launch.kernel import Kernel
from nsalang.launch.sizes import check_requires
from nsalang.types.signature import Parameter

ROOT = Path(__file__).parent.parent
TAILS = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 130, 191, 255, 256, 257, 384)
SPECIALISED = (4, 16, 8, 32, 64, 128)
LARGEST = 1 << 15
LAYOUTS = ("end", "start", "rows", "columns")
"""Contiguous with the last byte at the end of the memory, or the first byte at its start; rows further apart than they are long; and a last
stride of 2. The last two end at the end."""


@dataclass(frozen=True, slots=True)
class Case:
    """One call. ``inputs``: tensors by name, contiguous on the CPU (InOut ones too); ``outputs``: shape and dtype; ``scalars``: all other arguments."""

    kernel: Kernel
    name: str
    number: int
    dims: Mapping[str, int]
    scalars: Mapping[str, Any]
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    written: tuple[str, ...]
    compared: tuple[str, ...]
    variant: Meaning
    meaning: ir.Kernel

    @property
    def title(self) -> str:
        sizes = {**self.dims, **{n: v for n, v in self.scalars.items() if n not in self.dims}}
        return f"{self.name} #{self.number} {' '.join(f'{n}={v}' for n, v in sizes.items())}"


def strides_of(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Strides in elements of a tensor in one of LAYOUTS."""
    if not shape or layout in ("end", "start"):
        return contiguous(shape)
    if layout == "columns":
        return tuple(2 * s for s in contiguous(shape))
    return (*(s + 3 * s // max(shape[-1], 1) for s in contiguous(shape)[:-1]), 1)


def extent_in_bytes(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> int:
    """Bytes from the first element to the end of the last."""
    return 0 if 0 in shape else (sum((e - 1) * s for e, s in zip(shape, strides, strict=True)) + 1) * itemsize


def kernels() -> Iterator[tuple[str, Path]]:
    """All kernels of the examples and of tests/cases, by name and file."""
    for path in [*sorted((ROOT / "examples").glob("*.nsa")), *sorted((ROOT / "tests" / "cases").glob("*.nsa"))]:
        for kernel in nsalang.load(str(path)):
            if isinstance(kernel, Kernel):  # a program adds no access
                yield kernel.__name__, path


def load(name: str, path: Path) -> Kernel:
    kernel: Kernel = getattr(nsalang.load(str(path)), name)
    return kernel


class NoSizes(Exception):
    """No call was found that a kernel's requirements and promises allow."""


def cases(kernel: Kernel, target: str, count: int, seed: int = 0) -> list[Case]:
    """``count`` calls, the same for each seed. Raises NsaError where the kernel is wrong, and NoSizes."""
    draw = random.Random(f"{kernel.__name__} {seed}")
    made: list[Case] = []
    for largest in (LARGEST, 32 * LARGEST):  # a kernel with long constant extents has no small tensors
        for _ in range(200 * count):
            if len(made) == count:
                break
            case = _case(kernel, target, draw, len(made), largest)
            if case is not None:
                made.append(case)
        if made:
            break
    if not made:
        raise NoSizes(f"no sizes found for {kernel.__name__}")
    return made


def _case(kernel: Kernel, target: str, draw: random.Random, number: int, largest: int) -> Case | None:
    base = kernel.signature
    settings: dict[str, Any] = {}
    for p in base.parameters:
        if p.kind == "dtype":
            settings[p.name] = F32
        elif p.kind == "const" and isinstance(p.default, bool):
            settings[p.name] = draw.random() < 0.5
    signature = kernel.unit.signature(settings)
    present = [p.name for p in signature.parameters if p.optional and draw.random() < 0.5]
    dims = {d: draw.choice(SPECIALISED if d in signature.specialised else TAILS) for d in signature.dims}
    if draw.random() < 0.05 and dims:
        dims[draw.choice(sorted(set(dims) - set(signature.specialised)) or list(dims))] = 0
    fixed = {d: dims[d] for d in signature.specialised}
    wanted = parse_target(target)
    variant = Meaning.of(wanted, {**_defaults(signature.parameters), **settings}, fixed, frozenset(present))
    meaning = typed(kernel.unit, variant)
    scalars: dict[str, Any] = {}
    for p in signature.parameters:
        if p.kind == "scalar" and (not p.optional or p.name in present):
            assert p.dtype is not None
            scalars[p.name] = dims.get(p.name, 0.5 if p.dtype.is_float else True if p.dtype is BOOL else draw.choice((0, 1, 2, 5)))
    try:
        check_requires(meaning, dims, scalars)
        shapes = {
            p.name: tuple(int(extents.evaluate(e, dims, scalars)) for e in p.shape) for p in signature.parameters if p.kind == "tensor"
        }
    except (NsaError, extents.Undefined):
        return None
    sizes = [_product(s) for s in shapes.values()]
    if min((e for s in shapes.values() for e in s), default=0) < 0 or max(sizes, default=0) > largest:
        return None
    work = _product(tuple(max(int(extents.evaluate(g.extent, dims, scalars)), 0) for g in meaning.grid))
    if work > LARGEST:
        return None
    there = meaning.tensors
    generator = torch.Generator().manual_seed(draw.randrange(1 << 30))
    inputs: dict[str, torch.Tensor] = {}
    for tensor in there:
        if tensor.role != "out":
            inputs[tensor.name] = random_values(tensor.dtype, shapes[tensor.name], generator, _allowed(meaning, tensor.name, dims, scalars))
    for promise in meaning.promises:
        for name in promise.tensors:
            if name not in inputs:
                return None  # a view's contents are not made to measure
        if promise.kind == "sorted":
            inputs[promise.tensors[0]] = inputs[promise.tensors[0]].sort().values
        elif promise.kind == "distinct":
            given = inputs[promise.tensors[0]]
            choice = sorted(set(_allowed(meaning, promise.tensors[0], dims, scalars) or range(2 * max(1, given.numel()))))
            if len(choice) < given.numel():
                return None
            draw.shuffle(choice)
            inputs[promise.tensors[0]] = torch.tensor(choice[: given.numel()], dtype=given.dtype).reshape(given.shape)
    try:
        checks.check_promises(meaning, inputs, dims, scalars)
    except NsaError:
        return None
    outputs = {t.name: (shapes[t.name], getattr(torch, t.dtype.torch)) for t in there if t.role == "out"}
    written = tuple(t.name for t in there if t.role != "in")
    compared = tuple(n for n in written if n not in meaning.partial)
    return Case(kernel, kernel.__name__, number, dims, {**settings, **scalars}, inputs, outputs, written, compared, variant, meaning)


def _defaults(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    return {p.name: p.default for p in parameters if p.kind == "const" and p.default is not None}


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total


def _allowed(kernel: ir.Kernel, name: str, dims: Mapping[str, int], scalars: Mapping[str, Any]) -> list[int] | None:
    """Values of an integer tensor that its own promises allow, around the dimensions; None where nothing is promised."""
    about = kernel.tensor(name)
    alone = [p for p in kernel.promises if p.kind == "each" and p.tensors == (name,)]
    if not alone or not about.dtype.is_integer:
        return None
    top = max(dims.values(), default=1) + 3
    values = list(range(max(-3, int(about.dtype.min)), min(top, int(about.dtype.max))))
    for promise in alone:
        kept = []
        for value in values:
            one = torch.full((1,) * len(about.shape), value, dtype=getattr(torch, about.dtype.torch))
            single = ir.Kernel(kernel.name, kernel.tensors, kernel.scalars, kernel.dims, (), (), (), (), promises=(promise,))
            try:
                checks.check_promises(single, {name: one}, dims, scalars)
            except NsaError:
                continue
            kept.append(value)
        values = kept
    return values


def random_values(dtype: DType, shape: tuple[int, ...], generator: torch.Generator, allowed: list[int] | None) -> torch.Tensor:
    """Normal floats; integers among those allowed, else small ones with a few that are negative or large."""
    native = getattr(torch, dtype.torch)
    if dtype is BOOL:
        return torch.rand(shape, generator=generator) < 0.5
    if dtype.is_float:
        values = torch.randn(shape, generator=generator)
        return values.abs().to(native) if dtype.name == "e8m0" else values.to(native)
    if allowed is not None:
        pick = torch.tensor(allowed or [0])
        return pick[torch.randint(0, len(pick), shape, generator=generator)].to(native)
    low, high = (0, 130) if dtype.kind == "unsigned" else (-2, 120)
    return torch.randint(low, high, shape, generator=generator).to(native)


Place = Callable[[str, tuple[int, ...], torch.dtype, tuple[int, ...]], torch.Tensor]
"""Makes a tensor at an edge, by name, shape, dtype and strides in elements; its contents are anything."""


def call(case: Case, place: Place, layout: str, backend: str, target: str, **options: Any) -> list[str]:
    """Run a case on tensors that ``place`` makes, and compare it with the interpreter: what is wrong, in words."""
    from nsalang.bench import compare

    def put(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return place(name, shape, dtype, strides_of(shape, layout))

    placed: dict[str, torch.Tensor] = {}
    for name, values in case.inputs.items():
        placed[name] = put(name, tuple(values.shape), values.dtype)
        placed[name].copy_(values)
    for name, (shape, dtype) in case.outputs.items():
        placed[name] = put(name, shape, dtype)
        if placed[name].numel():
            placed[name].view(_BITS[dtype.itemsize]).fill_(0x55)
    reference = {n: plain(t) for n, t in placed.items()}
    case.kernel(**placed, **case.scalars, backend=backend, target=target, **options)
    found = {n: plain(placed[n]) for n in case.compared}
    case.kernel.interpret(**reference, **case.scalars, target=target)
    bound = {"exact": compare.is_exact(case.meaning), "absolute": compare.absolute(case.meaning)}
    summed = sums(case)
    differences = [compare.difference(backend, n, reference[n], found[n], **bound) for n in case.compared if n not in summed]
    apart = {n: (reference[n].double() - found[n].double()).abs() - summed[n] for n in case.compared if n in summed}
    wrong = [
        f"{n}: {float(t.max())} further apart than sums in two orders" for n, t in apart.items() if t.numel() and not bool((t <= 0).all())
    ]
    return [*(f"{d.output}: {d.reason}" for d in differences if not d.ok), *wrong]


def sums(case: Case) -> dict[str, torch.Tensor]:
    """For each output to which floats are added atomically, in any order: how far two results may be apart, element by element, by the number of
    the addends and the sum of their magnitudes, as the interpreter adds them."""
    adding = [n for s in case.meaning.body for n in ir.walk(s) if isinstance(n, ir.Store) and n.mode == "add" and n.value.dtype.is_float]
    if not adding:
        return {}
    names = {case.meaning.memory(n.tensor) for n in adding}

    def ran(change: Callable[[ir.Expr], ir.Expr], start: float | None = None) -> dict[str, torch.Tensor]:
        """The outputs where each addend is changed, and what they are added to is ``start`` or a magnitude."""

        def rule(n: ir.Node) -> ir.Node:
            return replace(n, value=change(n.value)) if n in adding and isinstance(n, ir.Store) else n

        kernel = replace(case.meaning, body=tuple(ir.rewrite(s, rule) for s in case.meaning.body))
        tensors = {n: t.clone() for n, t in case.inputs.items()}
        tensors |= {n: t.abs() if start is None else torch.full_like(t, start) for n, t in tensors.items() if n in names}
        tensors |= {n: torch.zeros(shape, dtype=dtype) for n, (shape, dtype) in case.outputs.items()}
        interp.interpret(kernel, tensors, case.scalars, case.dims)
        return tensors

    def each(v: ir.Expr, change: Callable[[ir.Expr], ir.Expr]) -> ir.Expr:
        """The terms of an addend changed, which may be the sum of a block."""
        return replace(v, x=change(v.x)) if isinstance(v, ir.Reduce) and v.op == "sum" else change(v)

    def one(v: ir.Expr) -> ir.Expr:
        assert not any(isinstance(n, ir.Reduce) for n in ir.walk(v)), "how many terms this addend has is not counted"
        return ir.Full(v.dtype, v.axes, ir.Const(v.dtype, (), 1.0))

    magnitudes = ran(lambda v: each(v, lambda x: ir.Unary(x.dtype, x.axes, "abs", x)))
    counts = ran(lambda v: each(v, one), start=1.0)
    return {n: magnitudes[n].double() * counts[n].double().apply_(lambda c: sum_error(int(c))) for n in names}


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the CPU, of last stride 1 even where there is one element alone."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
