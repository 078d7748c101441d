"""Arguments for a kernel from the command line: random tensors, or tensors from .pt, .npz and .npy files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType
from nsalang.base.source import NsaError
from nsalang.commands.settings import kernel_in, pairs, present_of, signature_under, sort_out
from nsalang.host import extents
from nsalang.host.memory import described, enough_memory
from nsalang.types.signature import Parameter, Setting, Signature

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from nsalang.base.target import Target
    from nsalang.build.pipeline import Meaning
    from nsalang.launch.kernel import Kernel, Program


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel or a program with arguments (CPU tensors) for one target. ``typed``: the variant's IR (of a program, its header); ``bodies``: the
    kernels that run; ``dims``: all dimensions."""

    kernel: Kernel | Program
    target: Target
    typed: ir.Kernel
    bodies: tuple[ir.Kernel, ...]
    arguments: dict[str, Any]
    dims: dict[str, int]

    def tensors(self, role: str) -> list[str]:
        """The names of its tensors with that role."""
        return [t.name for t in self.typed.tensors if t.role == role]

    @property
    def sizes(self) -> str:
        """Dimensions and constants, for a title."""
        named = {**self.dims, **{n: v for n, v in self.arguments.items() if isinstance(v, int | float | DType)}}
        return " ".join(f"{n}={v}" for n, v in named.items())


def case_of(
    file: str,
    name: str | None,
    defines: Sequence[str],
    present: Sequence[str],
    without: Sequence[str],
    inputs: Sequence[str],
    seed: int,
    target: Target,
) -> Case:
    """What ``run`` and ``bench`` work on, from their command line. Raises UsageError and NsaError."""
    from nsalang.launch.kernel import Program

    kernel = kernel_in(file, name)
    raw = pairs(defines, "-D")
    signature = signature_under(kernel, raw)
    given = sort_out(raw, signature)
    tensors = load_inputs(inputs, signature, given.constants)
    loaded = [n for n in tensors if (p := signature.parameter(n)) is not None and p.optional]
    chosen = present_of(signature, [*present, *loaded], without)
    dims = solve_dims(signature, tensors, given.dims)
    fixed = {d: dims[d] for d in signature.specialised}
    meaning = kernel.meaning(target, {**given.constants, **fixed, **dict.fromkeys(chosen, True)})
    if isinstance(kernel, Program):
        start, limits = kernel.launcher.typed(meaning).header, program_limits(kernel, meaning, dims, given.scalars)
        bodies = tuple(k.typed(v) for k, v in kernel.launcher.variants(meaning))
    else:
        start = kernel.launcher.typed(meaning)
        bodies, limits = (start,), index_limits(start, dims, given.scalars)
    arguments = random_arguments(signature, limits, tensors, given.constants, dims, given.scalars, chosen, seed)
    return Case(kernel, target, start, bodies, arguments, dims)


def program_limits(program: Program, meaning: Meaning, dims: Mapping[str, int], scalars: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """``index_limits`` of every kernel that a program calls, by the names of the program's tensors."""
    found: dict[str, tuple[int, int]] = {}
    typed = program.launcher.typed(meaning)
    shapes = {t.name: t.shape for t in typed.header.tensors} | {s.name: s.shape for s in typed.scratch}
    for call, (kernel, variant) in zip(typed.calls, program.launcher.variants(meaning), strict=True):
        body = kernel.typed(variant)
        handed = dict(call.tensors)
        inner = {p: int(extents.evaluate(e, dims, scalars)) for p, e in call.scalars if p in body.dims}
        for _ in body.dims:
            for tensor in body.tensors:
                for expr, outer in zip(tensor.shape, shapes[handed[tensor.name]], strict=True):
                    form = extents.affine(expr)
                    solved = extents.solve(form, int(extents.evaluate(outer, dims, scalars)), inner) if form is not None else None
                    if solved is not None and solved[1] is not None:
                        inner[solved[0]] = solved[1]
        numbers = {
            p: extents.evaluate(e, dims, scalars) for p, e in call.scalars if all(n in dims or n in scalars for n in extents.names(e))
        }
        for name, limit in index_limits(body, inner, numbers).items():
            old = found.get(handed[name], limit)
            found[handed[name]] = (max(limit[0], old[0]), min(limit[1], old[1]))
    return found


RANGES = {"i8": (-128, 128), "u8": (0, 256), "signed": (-1000, 1001), "unsigned": (0, 1001)}


def dtype_of(parameter: Parameter, constants: Mapping[str, Setting]) -> DType:
    """The element type of a tensor or scalar parameter. Raises UsageError where a dtype parameter is not given."""
    if parameter.dtype is not None:
        return parameter.dtype
    found = constants.get(parameter.generic or "")
    if not isinstance(found, DType):
        raise click.UsageError(f"say what the dtype {parameter.generic} is: -D {parameter.generic}=bf16")
    return found


def load_inputs(values: Sequence[str], signature: Signature, constants: Mapping[str, Setting]) -> dict[str, Tensor]:
    """``--input x=FILE`` (one tensor) and ``--input FILE`` (a tensor for each name in it). Raises UsageError, NSA0703, NSA0704."""
    found: dict[str, Tensor] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not equals:
            name, path = "", value
        if name and signature.parameter(name) is None:
            raise click.UsageError(f"'{signature.name}' has no parameter '{name}'")
        held = _read(Path(path))
        if not name:
            found |= {n: t for n, t in held.items() if signature.parameter(n) is not None}
            continue
        if name not in held and len(held) != 1:
            raise NsaError.at("NSA0704", f"the file {path} holds {', '.join(held) or 'nothing'}, and no tensor '{name}'")
        found[name] = held[name] if name in held else next(iter(held.values()))
    return {n: _as_dtype(t, signature.parameter(n), constants) for n, t in found.items()}


def _as_dtype(tensor: Tensor, parameter: Parameter | None, constants: Mapping[str, Setting]) -> Tensor:
    """numpy has neither bf16 nor fp8: f32 stands for them in a file. Any other wrong dtype is left for the call to refuse."""
    import torch

    if parameter is None or parameter.kind != "tensor":
        return tensor
    wanted = dtype_of(parameter, constants)
    native: torch.dtype = getattr(torch, wanted.torch)
    return tensor.to(native) if tensor.dtype == torch.float32 and wanted.is_float and wanted.bits < 32 else tensor


def _read(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        path.stat()
        if path.suffix == ".pt":
            held = torch.load(path, map_location="cpu", weights_only=True)
            held = held if isinstance(held, dict) else {path.stem: held}
        elif path.suffix in (".npz", ".npy"):
            import numpy

            raw = numpy.load(path, allow_pickle=False)
            held = {n: torch.from_numpy(raw[n]) for n in raw.files} if path.suffix == ".npz" else {path.stem: torch.from_numpy(raw)}
        else:
            raise click.UsageError(f"'{path}': inputs are .pt, .npz or .npy files")
    except click.UsageError:
        raise
    except FileNotFoundError as error:
        raise NsaError.at("NSA0703", f"there is no file {path}") from error
    except Exception as error:  # whatever torch and numpy raise about a file that is not what its name says
        raise NsaError.at(
            "NSA0704", f"the file {path} cannot be read as {path.suffix}: {(str(error) or type(error).__name__).splitlines()[0][:120]}"
        ) from error
    return {str(n): t for n, t in held.items() if isinstance(t, torch.Tensor)}


def save_outputs(path: Path, outputs: Mapping[str, Tensor]) -> None:
    """Write tensors to a .pt or .npz file (there bf16 and fp8 as the f32 of the same value). Raises UsageError, NSA0706."""
    import io

    from nsalang.report.files import write_files

    buffer = io.BytesIO()
    if path.suffix == ".pt":
        import torch

        torch.save(dict(outputs), buffer)
    elif path.suffix == ".npz":
        import numpy

        plain = {
            n: t.float() if t.is_floating_point() and str(t.dtype) not in ("torch.float16", "torch.float64") else t
            for n, t in outputs.items()
        }
        arrays: dict[str, Any] = {n: t.contiguous().numpy() for n, t in plain.items()}
        numpy.savez(buffer, **arrays)
    else:
        raise click.UsageError(f"--save '{path}': .pt or .npz")
    write_files({path: buffer.getvalue()})


def solve_dims(signature: Signature, given: Mapping[str, Tensor], dims: Mapping[str, int]) -> dict[str, int]:
    """Dimensions from -D and from the shapes of given tensors. Raises UsageError naming those that nothing says."""
    known = dict(dims)
    for _ in signature.dims:
        for parameter in signature.parameters:
            tensor = given.get(parameter.name)
            if tensor is None or tensor.ndim != len(parameter.shape):
                continue
            for expr, extent in zip(parameter.shape, tensor.shape, strict=True):
                form = extents.affine(expr)
                solved = extents.solve(form, extent, known) if form is not None else None
                if solved is not None and solved[1] is not None:
                    known.setdefault(solved[0], solved[1])
    if missing := [d for d in signature.dims if d not in known]:
        raise click.UsageError(
            f"say how large {', '.join(missing)} {'is' if len(missing) == 1 else 'are'}: -D {','.join(d + '=256' for d in missing)}"
        )
    for parameter in signature.parameters:
        tensor = given.get(parameter.name)
        if tensor is None or tensor.ndim != len(parameter.shape):
            continue
        for axis, (expr, extent) in enumerate(zip(parameter.shape, tensor.shape, strict=True)):
            said = {n: dims[n] for n in extents.names(expr) if n in dims}
            if said and int(extents.evaluate(expr, known, known)) != extent:
                text = ",".join(f"{n}={v}" for n, v in said.items())
                raise click.UsageError(
                    f"axis {axis} of '{parameter.name}' has extent {extent} in its file, which is not what -D {text} says"
                )
    return known


def random_arguments(
    signature: Signature,
    limits: Mapping[str, tuple[int, int]],
    given: Mapping[str, Any],
    constants: Mapping[str, Setting],
    dims: Mapping[str, int],
    scalars: Mapping[str, int | float | bool],
    present: frozenset[str],
    seed: int,
) -> dict[str, Any]:
    """Arguments by name, ``given`` ones as they are: normal floats; integers within small ranges, or within the extent that they index."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Any] = dict(constants)
    for parameter in signature.parameters:
        if parameter.name in given:
            found[parameter.name] = given[parameter.name]
        elif parameter.kind == "tensor" and parameter.role != "out":
            if not parameter.optional or parameter.name in present:
                shape = tuple(int(extents.evaluate(e, dims, scalars)) for e in parameter.shape)
                if min(shape, default=0) < 0:
                    raise click.UsageError(f"with these sizes '{parameter.name}' would have the shape {list(shape)}")
                dtype = dtype_of(parameter, constants)
                with enough_memory(described(parameter.name, dtype.name, shape, dtype.bytes)):
                    found[parameter.name] = random_tensor(dtype, shape, generator, limits.get(parameter.name))
        elif parameter.kind == "scalar":
            dtype = dtype_of(parameter, constants)
            if parameter.name in scalars:
                found[parameter.name] = scalars[parameter.name]
            elif parameter.name in dims:
                found[parameter.name] = dims[parameter.name]
            elif not (parameter.has_default or parameter.optional) or parameter.name in present:
                found[parameter.name] = random_tensor(dtype, (), generator, (0, 17) if dtype.is_integer else None).float().item()
                if dtype.is_integer:
                    found[parameter.name] = int(found[parameter.name])
        elif parameter.kind == "tensor" and parameter.optional and parameter.name in present:
            found[parameter.name] = True
    return found


def random_tensor(dtype: DType, shape: tuple[int, ...], generator: Generator, limits: tuple[int, int] | None = None) -> Tensor:
    """A random CPU tensor: N(0, 1) for floats, ``limits`` (half open) or a range of RANGES for integers."""
    import torch

    native: torch.dtype = getattr(torch, dtype.torch)
    if dtype is BOOL:
        return torch.rand(shape, generator=generator) < 0.5
    if dtype.name == "e8m0":
        return torch.randint(120, 135, shape, generator=generator, dtype=torch.uint8).view(native)
    if dtype.is_float:
        return torch.randn(shape, generator=generator).to(native)
    low, high = limits or RANGES.get(dtype.name) or RANGES[dtype.kind]
    return torch.randint(low, max(high, low + 1), shape, generator=generator, dtype=torch.int64).to(native)


def index_limits(kernel: ir.Kernel, dims: Mapping[str, int], scalars: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """For each tensor whose elements index another one, or bound a loop: the half-open range within which that is sensible."""
    holds: dict[str, set[str]] = {}
    limits: dict[str, tuple[int, int]] = {}

    def sources(expr: ir.Expr) -> set[str]:
        found = set()
        for node in ir.walk(expr):
            if isinstance(node, ir.Load):
                found.add(node.tensor)
            elif isinstance(node, ir.Var):
                found |= holds.get(node.name, set())
        return found

    def limit(expr: ir.Expr, top: int) -> None:
        for name in sources(expr):
            limits[name] = (0, min(top, limits.get(name, (0, top))[1]))

    for statement in kernel.body:
        for node in ir.walk(statement):
            match node:
                case ir.Assign(name=name, value=value) if value.dtype.is_integer:
                    holds[name] = holds.get(name, set()) | sources(value)
                case ir.For(lo=lo, hi=hi):
                    limit(lo, max(dims.values(), default=1))
                    limit(hi, max(dims.values(), default=1))
    for node in ir.walk(kernel):
        if isinstance(node, ir.Load | ir.Store):
            for index, extent in zip(node.indices, kernel.tensor(node.tensor).shape, strict=True):
                limit(index, int(extents.evaluate(extent, dims, scalars)))
    return limits
