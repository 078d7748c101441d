"""The tensors of a call, checked against a signature: dtypes, ranks, devices, and the dimensions that their extents determine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsalang import ir
from nsalang.base.dtypes import E4M3, DType
from nsalang.base.source import NsaError
from nsalang.base.target import Target
from nsalang.host.extents import Number, Undefined, affine, evaluate, integer, names, solve
from nsalang.launch.arguments import from_torch, scalar, shown
from nsalang.proof.lemmas import DIMS
from nsalang.types.signature import Parameter, Setting, Signature

if TYPE_CHECKING:
    import torch

LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Missing:
    """An output that the call does not give: to be allocated, contiguous."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Bound:
    """A call's arguments, checked. ``tensors``: by name in source order, given or missing; absent optional parameters are in none of these.

    ``dims`` holds every dimension that the arguments determine; ``present`` the optional parameters that are given.
    """

    device: torch.device
    settings: dict[str, Setting]
    tensors: dict[str, torch.Tensor | Missing]
    shapes: dict[str, tuple[int, ...]]
    scalars: dict[str, Number]
    dims: dict[str, int]
    present: frozenset[str]
    returns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Solved:
    """A dimension's value and the argument that determined it, in words."""

    value: int
    source: str


def torch_dtype(dtype: DType, target: Target) -> torch.dtype:
    """torch's dtype for a parameter's on a target (``e4m3`` is fnuz where the target has only that)."""
    import torch

    found = getattr(torch, (target.facts.e4m3 if dtype is E4M3 else dtype).torch, None)
    if found is None:
        raise NsaError.at("NSA0604", f"this torch ({torch.__version__}) has no dtype for {dtype}", help="a newer torch has it")
    return found  # type: ignore[no-any-return]


def device_of(signature: Signature, values: Mapping[str, Any]) -> torch.device | None:
    """The one device on which all tensors of a call lie, None where there is none. Raises NSA0511 for several, NSA0515 for an unusable one."""
    import torch

    first: tuple[str, torch.device] | None = None
    for parameter in signature.parameters:
        value = values.get(parameter.name)
        if parameter.kind != "tensor" or not isinstance(value, torch.Tensor):
            continue
        if value.device.type not in ("cpu", "cuda"):
            raise NsaError.at(
                "NSA0515",
                f"argument '{parameter.name}' lies on device '{value.device}'; nsalang runs on cpu and cuda devices",
                parameter.span,
            )
        if first is None:
            first = (parameter.name, value.device)
        elif value.device != first[1]:
            raise NsaError.at(
                "NSA0511",
                f"argument '{parameter.name}' lies on device '{value.device}', and argument '{first[0]}' on '{first[1]}'",
                parameter.span,
            )
    return first[1] if first else None


def bind(signature: Signature, settings: dict[str, Setting], values: Mapping[str, Any], target: Target, device: torch.device) -> Bound:
    """Check a call's arguments: ``values`` by parameter name, None or missing where not given; ``settings`` are the const parameters.

    Raises NsaError NSA0503 to NSA0510 and NSA0515 to NSA0517.
    """
    settings = dict(settings)
    tensors: dict[str, torch.Tensor | Missing] = {}
    wanted: list[Parameter] = []
    scalars: dict[str, Number] = {}
    present: set[str] = set()
    for parameter in signature.parameters:
        value = values.get(parameter.name)
        if parameter.kind != "tensor":
            continue
        if parameter.role == "out" and (value is None or isinstance(value, bool)):
            if parameter.optional and value is not True:
                continue
            if isinstance(value, bool) and not parameter.optional:
                raise NsaError.at("NSA0504", f"output '{parameter.name}' takes a tensor or nothing, not {shown(value)}", parameter.span)
            wanted.append(parameter)
        elif value is None:
            if not parameter.optional:
                raise missing(signature, parameter)
            continue
        else:
            tensors[parameter.name] = _tensor(parameter, value)
        if parameter.optional:
            present.add(parameter.name)
    given = [p for p in signature.parameters if p.name in tensors]
    for parameter in given:
        _check_dtype(parameter, tensors[parameter.name], settings, target)  # type: ignore[arg-type]
    for parameter in signature.parameters:
        if parameter.kind != "scalar":
            continue
        value = values.get(parameter.name)
        if value is None:
            value = parameter.default
        if value is not None:
            scalars[parameter.name] = scalar(parameter, _dtype(parameter, settings), value)
            if parameter.optional:
                present.add(parameter.name)
        elif not parameter.optional:
            raise missing(signature, parameter)
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    solved = _solve(signature, given, shapes, scalars)
    dims = {name: s.value for name, s in solved.items()}
    _check_extents(given, shapes, solved)
    for what, extent in (
        *((f"an extent of argument '{n}'", max(s, default=0)) for n, s in shapes.items()),
        *((f"the dimension {n}", d) for n, d in dims.items()),
    ):
        if extent >= DIMS:
            raise NsaError.at(
                "NSA0505",
                f"{what} is {extent}; extents stay below 2**48",
                signature.span,
                note="the proof that integers stay within 64 bits rests on it",
            )
    for parameter in wanted:
        shape = tuple(_extent(signature, parameter, i, dims) for i in range(len(parameter.shape)))
        shapes[parameter.name] = shape
        tensors[parameter.name] = Missing(shape, torch_dtype(_dtype(parameter, settings), target))
    ordered = {p.name: tensors[p.name] for p in signature.parameters if p.name in tensors}
    returns = tuple(p.name for p in signature.parameters if p.name in ordered and p.role == "out")
    return Bound(device, settings, ordered, shapes, scalars, dims, frozenset(present), returns)


def allocated(
    signature: Signature, settings: Mapping[str, Setting], values: Mapping[str, Any], target: Target, wanted: Sequence[str]
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of outputs that a call allocates, of tensors that need no memory and may have symbols for extents. Nothing is checked
    but what they need. Raises NSA0509, NSA0510, NSA0514, NSA0517."""
    import torch

    given = [p for p in signature.parameters if p.kind == "tensor" and isinstance(values.get(p.name), torch.Tensor)]
    scalars = {p.name: values.get(p.name, p.default) for p in signature.parameters if p.kind == "scalar"}
    shapes = {p.name: tuple(values[p.name].shape) for p in given}
    dims = {n: s.value for n, s in _solve(signature, given, shapes, scalars).items()}
    outputs = [p for p in signature.parameters if p.name in wanted]
    return [(tuple(_extent(signature, p, i, dims) for i in range(len(p.shape))), torch_dtype(_dtype(p, settings), target)) for p in outputs]


def missing(signature: Signature, parameter: Parameter) -> NsaError:
    """NSA0503."""
    return NsaError.at("NSA0503", f"argument '{parameter.name}' of '{signature.name}' is missing", parameter.span)


def _tensor(parameter: Parameter, value: object) -> torch.Tensor:
    """A strided tensor of the right rank. Raises NSA0504, NSA0508, NSA0515."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise NsaError.at(
            "NSA0504", f"argument '{parameter.name}' is a tensor parameter and takes a torch tensor, not {shown(value)}", parameter.span
        )
    from nsalang.launch.tensors import check_memory, check_plain

    check_plain(parameter.name, value, parameter.span)
    check_memory(parameter.name, value, parameter.role != "in", parameter.span)
    if value.dim() != len(parameter.shape):
        wanted = f"[{', '.join(parameter.extents)}]"
        raise NsaError.at(
            "NSA0508",
            f"argument '{parameter.name}' has {value.dim()} {'axis' if value.dim() == 1 else 'axes'}, shape {list(value.shape)}; expected {len(parameter.shape)}: {wanted}",
            parameter.span,
        )
    return value


def _dtype(parameter: Parameter, settings: Mapping[str, Setting]) -> DType:
    """A parameter's dtype. Raises NSA0517 where it is generic and nothing says what it is."""
    if parameter.dtype is not None:
        return parameter.dtype
    assert parameter.generic is not None
    found = settings.get(parameter.generic)
    if not isinstance(found, DType):
        raise NsaError.at(
            "NSA0517",
            f"no argument determines the dtype '{parameter.generic}' of '{parameter.name}'",
            parameter.span,
            help=f"give {parameter.generic}=…",
        )
    return found


def _check_dtype(parameter: Parameter, tensor: torch.Tensor, settings: dict[str, Setting], target: Target) -> None:
    """Raises NSA0506; a generic dtype that is not known yet is settled by the first tensor that has it."""
    if parameter.generic is not None and parameter.generic not in settings:
        found = from_torch(tensor.dtype)
        if found is None:
            raise NsaError.at(
                "NSA0506", f"argument '{parameter.name}' has dtype {tensor.dtype}, which the language does not have", parameter.span
            )
        settings[parameter.generic] = found
    dtype = _dtype(parameter, settings)
    expected = torch_dtype(dtype, target)
    if tensor.dtype is not expected:
        generic = f" ({parameter.generic} in this call)" if parameter.generic is not None else ""
        raise NsaError.at(
            "NSA0506",
            f"argument '{parameter.name}' has dtype {tensor.dtype}; expected {dtype}{generic}, which is {expected} on {target}",
            parameter.span,
        )


def _solve(
    signature: Signature, given: Sequence[Parameter], shapes: Mapping[str, tuple[int, ...]], scalars: Mapping[str, Number]
) -> dict[str, Solved]:
    """The dimensions that follow from affine extents of the inputs, then from scalars of their names, then from outputs that are given."""
    solved: dict[str, Solved] = {}
    for parameters in ([p for p in given if p.role != "out"], given):
        pending = [(p, i, form) for p in parameters for i, e in enumerate(p.shape) if (form := affine(e)) is not None and form.terms]
        progress = True
        while progress:
            progress = False
            for parameter, i, form in pending:
                extent = shapes[parameter.name][i]
                found = solve(form, extent, {n: s.value for n, s in solved.items()})
                if found is None:
                    continue
                name, value = found
                if value is None:
                    known = ", ".join(f"{n} = {solved[n].value}" for n, _ in form.terms if n in solved)
                    raise NsaError.at(
                        "NSA0510",
                        f"axis {i} of argument '{parameter.name}' is {parameter.extents[i]}, and its extent {extent} is that for no {name} >= 0",
                        parameter.span,
                        note=known or None,
                    )
                solved[name] = Solved(value, f"axis {i} of '{parameter.name}'")
                progress = True
        for name in signature.dims:
            number = scalars.get(name)
            if name not in solved and number is not None and not isinstance(number, bool | float):
                if number < 0:
                    raise NsaError.at("NSA0505", f"argument '{name}' is {number}, and a dimension is never negative")
                solved[name] = Solved(number, f"argument '{name}'")
    for name, dim in solved.items():
        if name in scalars and scalars[name] != dim.value:
            raise NsaError.at("NSA0509", f"argument '{name}' is {scalars[name]}, and {dim.source} says that {name} = {dim.value}")
    return solved


def _check_extents(given: Sequence[Parameter], shapes: Mapping[str, tuple[int, ...]], solved: Mapping[str, Solved]) -> None:
    """Every extent against its value. Raises NSA0509."""
    dims = {name: s.value for name, s in solved.items()}
    for parameter in given:
        for i, (expr, extent) in enumerate(zip(parameter.shape, shapes[parameter.name], strict=True)):
            used = names(expr)
            if any(n not in dims for n in used):
                continue  # nothing determines it: an error where the kernel needs it, see `undetermined`
            try:
                expected = evaluate(expr, dims, {})
            except Undefined as error:
                raise _undefined(parameter, i, expr, solved, error) from None
            if expected != extent:
                text = parameter.extents[i]
                told = text if text == str(expected) else f"{text} = {expected}"
                raise NsaError.at(
                    "NSA0509",
                    f"axis {i} of argument '{parameter.name}' has extent {extent}; expected {told}",
                    parameter.span,
                    note=", ".join(f"{n} = {dims[n]} from {solved[n].source}" for n in used) or None,
                )


def _undefined(parameter: Parameter, i: int, expr: ir.Expr, solved: Mapping[str, Solved], error: Undefined) -> NsaError:
    return NsaError.at(
        "NSA0514",
        f"axis {i} of argument '{parameter.name}' is {parameter.extents[i]}, which {error} here",
        parameter.span,
        note=", ".join(f"{n} = {solved[n].value} from {solved[n].source}" for n in names(expr)) or None,
    )


def _extent(signature: Signature, parameter: Parameter, i: int, dims: Mapping[str, int]) -> int:
    """An extent of an output to be allocated. Raises NSA0510 where a dimension of it is not determined, NSA0509 where it is negative."""
    expr = parameter.shape[i]
    for name in names(expr):
        if name not in dims:
            raise undetermined(signature, name)
    try:
        value = integer(evaluate(expr, dims, {}))
    except Undefined as error:
        raise _undefined(parameter, i, expr, {n: Solved(v, "the other arguments") for n, v in dims.items()}, error) from None
    if not 0 <= value <= LARGEST:
        told = ", ".join(f"{n} = {dims[n]}" for n in names(expr))
        raise NsaError.at(
            "NSA0509",
            f"axis {i} of output '{parameter.name}' would have the extent {parameter.extents[i]} = {value}",
            parameter.span,
            note=told,
        )
    return value


def undetermined(signature: Signature, name: str) -> NsaError:
    """NSA0510 for a dimension that no argument of the call determines."""
    uses = [p for p in signature.parameters for e in p.shape if name in names(e)]
    span = uses[0].span if uses else signature.span
    where = [f"'{p.name}'" for p in uses if p.optional and p.role != "out" and any(_determines(e, name) for e in p.shape)]
    hint = (
        f"give {' or '.join(where)}, which has it as an extent"
        if where
        else f"an extent such as {name} or {name} + 1 of an input determines it, or a parameter {name}: i32"
    )
    return NsaError.at("NSA0510", f"no argument of '{signature.name}' determines the dimension {name}", span, help=hint)


def _determines(expr: ir.Expr, name: str) -> bool:
    form = affine(expr)
    return form is not None and any(n == name for n, _ in form.terms)
