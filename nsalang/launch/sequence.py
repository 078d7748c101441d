"""A call of a program: its arguments checked once, scratch and outputs allocated, the plans of its kernels run one after the other."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nsalang import ir
from nsalang.base.source import NsaError
from nsalang.base.target import Target
from nsalang.build.compiled import Compiled
from nsalang.build.pipeline import Choice, Meaning, Unit, typed_program
from nsalang.host.extents import Number, Undefined, evaluate
from nsalang.launch.arguments import Parameters
from nsalang.launch.binding import Bound, Missing, torch_dtype
from nsalang.launch.checks import check_promises, wanted
from nsalang.launch.launcher import Launcher
from nsalang.launch.options import DEFAULT, Options, check_device
from nsalang.launch.places import apart_of, check_arguments, given_of, layouts_of, parts_of_calls
from nsalang.launch.plans import Apart, Fresh, Given, Plan, Plans, run_plan
from nsalang.launch.sizes import check_sizes, meaning_of, told
from nsalang.types import programs
from nsalang.types.signature import Setting, Signature, called_kernels

if TYPE_CHECKING:
    import torch

LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CompiledProgram:
    """One variant of a program: its calls in order, each with the name of its kernel and that kernel's variant."""

    name: str
    calls: tuple[tuple[str, Compiled], ...]

    @property
    def source(self) -> str:
        """The generated Python modules, one after the other, each under a line with its kernel's name."""
        return "".join(f"# ---- {self.name} {i}: {name}\n{made.source.rstrip()}\n" for i, (name, made) in enumerate(self.calls, 1))

    def __iter__(self) -> Iterator[tuple[str, Compiled]]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)


@dataclass(frozen=True, slots=True)
class ProgramPlan:
    """What a call of a program with certain shapes, strides and numbers does. Values are the parameters, then the scratch.

    ``steps``: plans of the kernels, whose places are those of the program's values; they allocate nothing, and what they are handed is apart
    because the program's arguments are.
    """

    device: torch.device
    allocate: tuple[Fresh, ...]
    apart: tuple[Apart, ...]
    returns: tuple[int, ...]
    program: programs.Program
    dims: Mapping[str, int]
    scalars: Mapping[str, Number]
    steps: tuple[Plan, ...]
    given: tuple[Given, ...] = ()


@dataclass(slots=True)
class ProgramLauncher:
    """A program that can be called. ``kernels``: the launchers of its file's kernels, which keep compiled code; safe to call from several threads."""

    unit: Unit
    parameters: Parameters
    kernels: Mapping[str, Launcher]
    front: Launcher = field(init=False)
    _plans: Plans[ProgramPlan] = field(default_factory=Plans)
    _typed: dict[Meaning, programs.Program] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.front = Launcher(self.unit, self.parameters)

    def __call__(self, args: Sequence[object], kwargs: Mapping[str, object], options: Options = DEFAULT) -> Any:
        """Check, allocate, run. Returns the outputs in order: none, one, or a tuple."""
        values = self.parameters.arrange(args, kwargs)
        parts, checked = parts_of_calls(), wanted(options.check)
        key, plan, addresses = parts.find(self._plans.kept, values, options, checked)
        fresh = plan is None
        if plan is None:
            plan = self._plan(values, options)
        parts.check(plan.apart, plan.given, values, addresses, self.unit)
        values += [None] * len(plan.program.scratch)
        odd = not parts.allocate(plan.allocate, values, plan.device, self.unit)
        steps = plan.steps
        if fresh or odd:  # odd: by an allocator of the user's; such addresses are no part of the key
            steps = self._steps(plan, values, options, checked)
            if not odd:
                with self._lock:
                    self._plans.keep(key, replace(plan, steps=steps))
        for step in steps:
            run_plan(step, values)
        if len(plan.returns) == 1:
            return values[plan.returns[0]]
        return tuple(values[place] for place in plan.returns) or None

    def signature(self, given: Mapping[str, object]) -> tuple[Signature, dict[str, Setting]]:
        """The signature under the const and dtype parameters among ``given`` (by name), and their values."""
        return self.front.signature(given)

    def signature_without_constants(self) -> Signature:
        """The signature with const parameters at their defaults."""
        return self.front.signature_without_constants()

    def typed(self, meaning: Meaning) -> programs.Program:
        """The calls of the program, made once for each meaning."""
        with self._lock:
            if meaning not in self._typed:
                self._typed[meaning] = typed_program(self.unit, meaning)
            return self._typed[meaning]

    def variants(self, meaning: Meaning) -> list[tuple[Launcher, Meaning]]:
        """The kernels that are called, in order, each under the variant that the program fixes."""
        return [
            (self.kernels[c.kernel], Meaning.of(meaning.target, dict(c.settings), dict(c.dims), c.present))
            for c in self.typed(meaning).calls
        ]

    def compiled(self, meaning: Meaning, choice: Choice) -> CompiledProgram:
        """Every kernel of a variant down to its source."""
        made = [
            (kernel.unit.name, kernel.compiled(variant, replace(choice, pinned=self.pins(kernel.unit.name, choice.pinned))))
            for kernel, variant in self.variants(meaning)
        ]
        return CompiledProgram(self.unit.name, tuple(made))

    def interpret(
        self, args: Sequence[object], kwargs: Mapping[str, object], target: Target | None, tile: int | Mapping[str, int] | None
    ) -> Any:
        """The same call by the interpreter: scratch and outputs begin as NaN and extreme integers, so that reading what nothing wrote shows."""
        import torch

        values = self.parameters.arrange(args, kwargs)
        program, signature, bound, target = self._bound(values, target)
        layouts, _ = layouts_of(signature, bound, program.header)
        check_arguments(self.unit, bound, program.header, layouts, self.parameters.index, values)
        given: dict[str, torch.Tensor] = {}
        for name, found in bound.tensors.items():
            given[name] = torch.empty(found.shape, dtype=found.dtype, device=bound.device) if isinstance(found, Missing) else found
            if isinstance(found, Missing):
                poison(given[name])
        here = {n: t.cpu() for n, t in given.items()}
        for name, shape, dtype in scratch_of(program, bound, target):
            here[name] = torch.empty(shape, dtype=dtype)
            poison(here[name])
        if wanted(None):
            check_promises(program.header, here, bound.dims, bound.scalars)
        for call in program.calls:
            arguments = {p: here[n] for p, n in call.tensors}
            numbers = scalars_of(call, bound.dims, bound.scalars)
            try:
                self.kernels[call.kernel].interpret((), {**arguments, **numbers, **dict(call.settings)}, target, tile)
            except NsaError as error:
                raise _inside(error, call) from None
        for tensor in program.header.tensors:
            if tensor.role != "in" and here[tensor.name] is not given[tensor.name]:
                given[tensor.name].copy_(here[tensor.name])
        results = tuple(given[n] for n in bound.returns)
        return results[0] if len(results) == 1 else results or None

    def _bound(self, values: Sequence[Any], target: Target | None) -> tuple[programs.Program, Signature, Bound, Target]:
        """The arguments of a call, checked, and the program's variant for them."""
        by_name = {n: v for n, v in zip(self.parameters.names, values, strict=True) if v is not None}
        signature, bound, target = self.front.bind(by_name, target)
        program = self.typed(meaning_of(signature, bound, target))
        check_sizes(program.header, signature, bound)
        return program, signature, bound, target

    def _plan(self, values: Sequence[Any], options: Options) -> ProgramPlan:
        """Everything of a call but the plans of its kernels, which need the tensors."""
        program, signature, bound, target = self._bound(values, options.target)
        check_device(target, bound.device)
        layouts, _ = layouts_of(signature, bound, program.header)
        place = self.parameters.index
        outputs = [(place[n], t.shape, t.dtype) for n, t in bound.tensors.items() if isinstance(t, Missing)]
        scratch = [(len(place) + i, shape, dtype) for i, (_, shape, dtype) in enumerate(scratch_of(program, bound, target))]
        return ProgramPlan(
            bound.device,
            (*outputs, *scratch),
            apart_of(bound, program.header, layouts, place),
            tuple(place[n] for n in bound.returns),
            program,
            bound.dims,
            bound.scalars,
            (),
            given_of(bound, program.header, layouts, place),
        )

    def _steps(self, plan: ProgramPlan, values: Sequence[Any], options: Options, checked: bool) -> tuple[Plan, ...]:
        """The plans of the kernels for these tensors. Raises what a call of a kernel raises, with the line that calls it."""
        index = {**self.parameters.index, **{s.name: len(self.parameters.names) + i for i, s in enumerate(plan.program.scratch)}}
        found = []
        for call in plan.program.calls:
            kernel = self.kernels[call.kernel]
            tensors = {p: index[n] for p, n in call.tensors}
            numbers = scalars_of(call, plan.dims, plan.scalars)
            fixed: dict[str, Any] = {**numbers, **dict(call.settings)}
            given = [values[tensors[n]] if n in tensors else fixed.get(n) for n in kernel.parameters.names]
            try:
                made = kernel.plan(given, replace(options, pinned=self.pins(call.kernel, options.pinned)), checked)
            except NsaError as error:
                raise _inside(error, call) from None
            places = [tensors.get(n, 0) for n in kernel.parameters.names] + [len(values)]
            found.append(moved(made, places))
        return tuple(found)

    def pins(self, kernel: str, pinned: tuple[ir.Pin, ...]) -> tuple[ir.Pin, ...]:
        """What is pinned of one kernel: ``combine.h`` for it alone, ``h`` and ``k.stages`` for all. Raises NSA0519 where no such kernel is in the file."""
        common: dict[str, int | str] = {}
        own: dict[str, int | str] = {}
        for name, value in pinned:
            first, _, rest = name.partition(".")
            if first in self.kernels and rest:
                own.update({rest: value} if first == kernel else {})
            elif not rest or rest == "stages":
                common[name] = value
            else:
                near = difflib.get_close_matches(first, called_kernels(self.unit.function.body), 1, 0.6)
                raise NsaError.at(
                    "NSA0519",
                    f"the option 'schedule' of '{self.unit.name}' pins '{name}', and no kernel is called that",
                    help=f"did you mean '{near[0]}.{rest}'?" if near else None,
                )
        return tuple(sorted((common | own).items()))


def moved(plan: Plan, places: Sequence[int]) -> Plan:
    """A kernel's plan over a program's values: ``places`` says where each of the kernel's values is; nothing is allocated or returned."""
    checked = plan.checked
    return replace(
        plan,
        slots=tuple((slot, places[place], view) for slot, place, view in plan.slots),
        views=tuple((slot, places[place], offset) for slot, place, offset in plan.views),
        allocate=(),
        apart=(),
        given=(),
        returns=(),
        checked=None if checked is None else replace(checked, places={n: places[p] for n, p in checked.places.items()}),
    )


def scratch_of(program: programs.Program, bound: Bound, target: Target) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    """Name, shape and dtype of each scratch tensor of a call. Raises NSA0509 for a negative extent, NSA0514 for one that has no value."""
    return [
        (s.name, tuple(_extent(s, i, bound.dims, bound.scalars) for i in range(len(s.shape))), torch_dtype(s.dtype, target))
        for s in program.scratch
    ]


def _extent(scratch: programs.Scratch, axis: int, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> int:
    expr = scratch.shape[axis]
    note = told(expr, dims, scalars)
    try:
        value = int(evaluate(expr, dims, scalars))
    except Undefined as error:
        raise NsaError.at(
            "NSA0514",
            f"axis {axis} of scratch '{scratch.name}' is {scratch.extents[axis]}, which {error} here",
            scratch.span,
            note=note,
        ) from None
    if not 0 <= value <= LARGEST:
        raise NsaError.at(
            "NSA0509",
            f"axis {axis} of scratch '{scratch.name}' would have the extent {scratch.extents[axis]} = {value}",
            scratch.span,
            note=note,
        )
    return value


def scalars_of(call: programs.Call, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> dict[str, Number]:
    """The scalars that a program hands to a kernel. Raises NSA0514 for one that has no value."""
    found: dict[str, Number] = {}
    for name, expr in call.scalars:
        try:
            found[name] = evaluate(expr, dims, scalars)
        except Undefined as error:
            raise NsaError.at(
                "NSA0514", f"argument '{name}' of '{call.kernel}' {error} here", expr.span or call.span, note=told(expr, dims, scalars)
            ) from None
    return found


def _inside(error: NsaError, call: programs.Call) -> NsaError:
    """An error of a kernel's call, with the line of the program."""
    line = call.span.line + call.span.source.first_line - 1
    return NsaError(*(replace(d, notes=(*d.notes, f"'{call.kernel}' is called in line {line}")) for d in error.diagnostics))


def poison(tensor: torch.Tensor) -> None:
    """Fill a contiguous tensor with what no kernel should read: NaN, the integers furthest from 0, True."""
    import torch

    if tensor.dtype == torch.bool:
        tensor.fill_(True)
    elif not tensor.is_floating_point():
        info = torch.iinfo(tensor.dtype)
        tensor.fill_(info.min or info.max)
    elif tensor.numel():
        # All bits set are NaN in every format but fnuz.
        tensor.reshape(-1).view(torch.uint8).fill_(0x80 if "fnuz" in str(tensor.dtype) else 0xFF)


__all__ = ["CompiledProgram", "ProgramLauncher"]
