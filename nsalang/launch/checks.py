"""What NSALANG_CHECK=1 adds to a call: promises are evaluated on the tensors before the code runs, and what the code put into its tensor of
checks (passes/check.py) is read back after it.

This module imports torch inside functions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, assert_never

from nsalang import ir
from nsalang.base.source import NsaError
from nsalang.host.extents import Number, evaluate, names
from nsalang.host.promises import elements, free_index, place

if TYPE_CHECKING:
    from torch import Tensor, device

VARIABLE = "NSALANG_CHECK"
_KEY = getattr(os.environ, "encodekey", str)(VARIABLE)
UNTOUCHED = -(2**63) + 0x6E7361
"""What an element of the tensor of checks holds until a check fails; no index is meant to be this."""


SWITCH = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("", "0", "false", "no", "off"), False)}
"""What the environment variable can be, in any case."""


def wanted(option: bool | None) -> bool:
    """Whether a call is checked: as its option says, else as the environment says at this moment. Raises NSA0519 for what it does not take."""
    if option is not None:
        return option
    table: dict[object, object] | None = getattr(os.environ, "_data", None)  # os.environ.get costs a call 1 µs
    if table is not None and _KEY not in table:
        return False
    value = os.environ.get(VARIABLE, "")
    found = SWITCH.get(value.lower())
    if found is None:
        raise NsaError.at(
            "NSA0519", f"the environment variable {VARIABLE} is '{value}'; it takes 1, true, yes or on, and 0, false, no or off"
        )
    return found


@dataclass(frozen=True, slots=True)
class Checked:
    """The checks of a plan. ``typed``: the kernel with its promises; ``checks``: what the code looks at; ``places``: tensors by their place
    in the list of values."""

    typed: ir.Kernel
    checks: tuple[ir.Check, ...]
    dims: Mapping[str, int]
    scalars: Mapping[str, Number]
    places: Mapping[str, int]

    def before(self, values: list[Any], where: device) -> Tensor:
        """Check the promises; gives the tensor that the code's checks write. Raises NSA0814, and NSA0519 while a CUDA graph is captured."""
        import torch

        if where.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise NsaError.at(
                "NSA0519",
                f"'{self.typed.name}' is called with checks while a CUDA graph is captured, and checks are read back at once",
                self.typed.span,
                help=f"capture without {VARIABLE}=1 and without check=True",
            )
        check_promises(self.typed, {n: values[p] for n, p in self.places.items()}, self.dims, self.scalars)
        return torch.full((len(self.checks),), UNTOUCHED, dtype=torch.int64, device=where)

    def after(self, found: Tensor) -> None:
        """Raises NSA0814 for the first check, in the order of the program, that failed. Waits for the device."""
        for check, value in zip(self.checks, found.tolist(), strict=True):
            if value != UNTOUCHED:
                raise violation(check, value, self.dims, self.scalars)


def violation(check: ir.Check, value: int, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> NsaError:
    """NSA0814 for a check that failed at run time."""
    from nsalang.ir.printer import show

    text = check.span.text.partition(" = ")[0] if check.span else check.tensor
    if check.kind == "divisor":
        return NsaError.at("NSA0814", f"'{text}' divides by 0", check.span, note="found at run time")
    limit = int(evaluate(check.limit, dims, scalars))
    if check.kind == "shift":
        return NsaError.at("NSA0814", f"'{text}' shifts by {value}, which is not in 0 .. {limit - 1}", check.span, note="found at run time")
    extent = show(check.limit)
    told = extent if extent == str(limit) else f"{extent} = {limit}"
    used = [f"{n} = {scalars[n] if n in scalars else dims[n]}" for n in names(check.limit)]
    notes = "found at run time" + (f", with {', '.join(used)}" if used and told != used[0] else "")
    sentence = f"'{text}' is outside '{check.tensor}': the index of axis {check.axis} is {value}, and the extent is {told}"
    return NsaError.at("NSA0814", sentence, check.span, note=notes)


# ------------------------------------------------------------------------------------------------------------------------ promises


def check_promises(kernel: ir.Kernel, tensors: Mapping[str, Tensor], dims: Mapping[str, int], scalars: Mapping[str, Number]) -> None:
    """Evaluate the promises of a typed kernel on its tensors, where they lie. Raises NSA0814 for the first that an element breaks."""
    for promise in kernel.promises:
        contents = {n: _contents(kernel, n, tensors, dims, scalars) for n in promise.tensors}
        match promise.kind:
            case "each":
                told = _broken_each(promise, contents, dims, scalars)
            case "places":
                told = _broken_places(promise, contents, dims, scalars)
            case "distinct":
                told = _broken_distinct(promise.tensors[0], contents[promise.tensors[0]])
            case "sorted":
                told = _broken_order(promise.tensors[0], contents[promise.tensors[0]])
            case _:
                assert_never(promise.kind)
        if told is not None:
            text = promise.text if promise.text.startswith("promise(") else f"promise({promise.text})"
            why = " (implied by searchsorted)" if promise.implied else ""
            raise NsaError.at("NSA0814", f"{text}{why} does not hold: {told}", promise.span)


def _contents(
    kernel: ir.Kernel, name: str, tensors: Mapping[str, Tensor], dims: Mapping[str, int], scalars: Mapping[str, Number]
) -> Tensor:
    """The elements of a tensor or a view as values: int64 for every integer."""
    import torch

    from nsalang.interp import numerics

    about = kernel.tensor(name)
    if isinstance(about, ir.Tensor):
        return numerics.from_memory(numerics.memory(tensors[name]), about.dtype)
    data = tensors[about.base].contiguous().reshape(-1).view(torch.uint8)
    shape = [int(evaluate(e, dims, scalars)) for e in about.shape]
    strides = [int(evaluate(e, dims, scalars)) for e in about.strides]
    start = data.storage_offset() + int(evaluate(about.offset, dims, scalars))
    if 0 in shape:
        return torch.empty(shape, dtype=numerics.native(about.dtype), device=data.device)
    pieces = data.as_strided([*shape, about.dtype.bytes], [*strides, 1], start).contiguous()
    elements = pieces.view(numerics.memory_dtype(about.dtype)).squeeze(-1)
    return numerics.from_memory(numerics.memory(elements), about.dtype)


def _broken_each(promise: ir.Promise, contents: Mapping[str, Tensor], dims: Mapping[str, int], scalars: Mapping[str, Number]) -> str | None:
    import torch

    assert promise.condition is not None
    first = contents[promise.tensors[0]]
    holds, lost = _evaluated(promise.condition, contents, dims, scalars, first.device)
    broken = ~holds if lost is None else ~holds | lost
    place = _first(broken.expand(first.shape))
    if place is None:
        return None
    told = [f"{n}[{', '.join(map(str, place))}] = {_shown(t[place])}" if place else f"{n} = {_shown(t)}" for n, t in contents.items()]
    for name in names(promise.condition):
        told.append(f"{name} = {_shown(torch.tensor(scalars[name] if name in scalars else dims[name]))}")
    return ", ".join(told)


def _broken_places(
    promise: ir.Promise, contents: Mapping[str, Tensor], dims: Mapping[str, int], scalars: Mapping[str, Number]
) -> str | None:
    """Every place becomes a tensor over the free index, and the condition one over these."""
    import torch

    assert promise.condition is not None
    free = free_index(promise, {n: tuple(t.shape) for n, t in contents.items()}, dims, scalars)
    if not free:
        return None
    device = contents[promise.tensors[0]].device
    gathered: dict[str, Tensor] = {}
    renamed: dict[ir.Load, ir.Load] = {}
    for number, element in enumerate(elements(promise)):
        first, second = place(element, free.start, dims, scalars), place(element, free.start + 1, dims, scalars)
        lanes = torch.arange(len(free), device=device)
        gathered[str(number)] = contents[element.tensor][tuple(a + (b - a) * lanes for a, b in zip(first, second, strict=True))]
        renamed[element] = replace(element, tensor=str(number), indices=())
    condition = ir.rewrite(promise.condition, lambda n: renamed.get(n, n) if isinstance(n, ir.Load) else n)
    holds, lost = _evaluated(condition, gathered, dims, scalars, device)
    broken = _first((~holds if lost is None else ~holds | lost).expand(len(free)))
    if broken is None:
        return None
    told = []
    for element, lane in zip(renamed, gathered.values(), strict=True):
        at = place(element, free.start + broken[0], dims, scalars)
        told.append(f"{element.tensor}[{', '.join(map(str, at))}] = {_shown(lane[broken[0]])}")
    return ", ".join(told)


def _evaluated(
    node: ir.Expr, contents: Mapping[str, Tensor], dims: Mapping[str, int], scalars: Mapping[str, Number], where: device
) -> tuple[Tensor, Tensor | None]:
    """An expression over all elements at once, and where it has no value."""
    import torch

    from nsalang.interp import numerics

    def inner(x: ir.Expr) -> tuple[Tensor, Tensor | None]:
        return _evaluated(x, contents, dims, scalars, where)

    def lost(*lanes: Tensor | None) -> Tensor | None:
        total: Tensor | None = None
        for some in lanes:
            total = some if total is None else total if some is None else total | some
        return total

    match node:
        case ir.Load():
            return contents[node.tensor], None
        case ir.Const():
            return numerics.constant(node.value, node.dtype).to(where), None
        case ir.Dim():
            return torch.tensor(dims[node.name], device=where), None
        case ir.Scalar():
            return numerics.constant(scalars[node.name], node.dtype).to(where), None
        case ir.Unary():
            x, wrong = inner(node.x)
            data, outside = numerics.unary(node.op, x, node.x.dtype, node.dtype)
            return data, lost(wrong, outside)
        case ir.Binary():
            (a, in_a), (b, in_b) = inner(node.a), inner(node.b)
            data, outside = numerics.binary(node.op, a, b, node.a.dtype)
            return data, lost(in_a, in_b, outside)
        case ir.Cast():
            x, wrong = inner(node.x)
            data, outside = numerics.cast(x, node.x.dtype, node.dtype, node.mode)
            return data, lost(wrong, outside)
        case ir.Where():
            (c, in_c), (a, in_a), (b, in_b) = inner(node.cond), inner(node.a), inner(node.b)
            return torch.where(c, a, b), lost(in_c, None if in_a is None else c & in_a, None if in_b is None else ~c & in_b)
    raise AssertionError(f"not an expression that a promise can hold: {type(node).__name__}")


def _broken_distinct(name: str, data: Tensor) -> str | None:
    import torch

    values, order = torch.sort(data.reshape(-1), stable=True)
    again = (values[1:] == values[:-1]).nonzero().reshape(-1)
    if not again.numel():
        return None
    second = order[1:][again]
    at = int(second.argmin())
    places = [_unravel(int(order[int(again[at])]), data.shape), _unravel(int(second[at]), data.shape)]
    shown = " = ".join(f"{name}[{', '.join(map(str, p))}]" for p in places)
    return f"{shown} = {_shown(data[places[0]])}"


def _broken_order(name: str, data: Tensor) -> str | None:
    place = _first(data[1:] < data[:-1])
    if place is None:
        return None
    i = place[0]
    return f"{name}[{i}] = {_shown(data[i])}, {name}[{i + 1}] = {_shown(data[i + 1])}"


def _first(lanes: Tensor) -> tuple[int, ...] | None:
    """The first place, in the order of the indices, where a condition holds."""
    if not bool(lanes.any()):
        return None
    return _unravel(int(lanes.reshape(-1).int().argmax()), lanes.shape)


def _unravel(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    out = []
    for extent in reversed(shape):
        position, at = divmod(position, extent)
        out.append(at)
    return tuple(reversed(out))


def _shown(value: Tensor) -> str:
    """One element, as the language writes it."""
    item = value.item()
    if isinstance(item, bool | int):
        return str(item)
    return "nan" if math.isnan(item) else "inf" if item == math.inf else "-inf" if item == -math.inf else f"{item:.9g}"
