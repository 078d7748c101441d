"""A call of a kernel: arguments checked, a variant chosen and loaded, outputs allocated, the code run. What depends on shapes alone is done once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nsalang import ir
from nsalang.base.dtypes import ALL
from nsalang.base.source import NsaError
from nsalang.base.target import Target
from nsalang.build.backends import choose_backend
from nsalang.build.compiled import Compiled, compile_kernel
from nsalang.build.pipeline import Choice, Meaning, Unit, typed
from nsalang.host.extents import Number, Undefined, evaluate, known_at_launch, names
from nsalang.host.memory import (
    ALIGNMENT,
    LONGEST_TILE,
    NARROW,
    Layout,
    check_written,
    contiguous,
    has_rows,
    is_aligned,
    needs_wide,
    overlap_error,
    passed_strides,
    pointer,
    view_layout,
)
from nsalang.interp.views import numbers
from nsalang.ir.linear import Facts
from nsalang.launch.arguments import Parameters, constants_of, from_torch
from nsalang.launch.binding import Bound, Missing, bind, device_of, torch_dtype, undetermined
from nsalang.launch.checks import Checked, check_promises, wanted
from nsalang.launch.options import DEFAULT, Options, check_deterministic, check_device, device_target
from nsalang.launch.plans import Plans
from nsalang.toolchain import Launch
from nsalang.types.signature import Setting, Signature

if TYPE_CHECKING:
    import torch

MOST_PROGRAMS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """A variant that is ready to run on one device."""

    compiled: Compiled
    launch: Launch


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call with certain shapes, strides and numbers does. Values are by their place in the parameter list.

    ``arguments``: of the code, with None at each tensor's place; ``slots``: (place in arguments, place of the value, dtype to view it as);
    ``views``: (place in arguments, place of the base, byte at which the view begins). ``aligned``: an output to be allocated must be.
    ``apart``: (a written value, its bytes, another value, its bytes) that must not overlap. ``given``: (place, bytes from the first to the last
    element, bytes of an element, whether it is written) of each tensor with elements that is given. ``checked``: what is checked as it runs; then the
    tensor of checks is one more value, the last.
    """

    device: torch.device
    programs: int
    launch: Launch | None
    arguments: tuple[Any, ...]
    slots: tuple[tuple[int, int, torch.dtype | None], ...]
    views: tuple[tuple[int, int, int], ...]
    allocate: tuple[tuple[int, tuple[int, ...], torch.dtype], ...]
    apart: tuple[tuple[int, int, int, int], ...]
    aligned: bool
    returns: tuple[int, ...]
    checked: Checked | None
    given: tuple[tuple[int, int, int, bool], ...] = ()


def check_apart(apart: Sequence[tuple[int, int, int, int]], values: Sequence[Any], unit: Unit) -> None:
    """Raises NSA0513 where a written argument of a call reaches into the memory of another: pairs as in ``Plan.apart``."""
    for a, a_bytes, b, b_bytes in apart:
        first, second = values[a].data_ptr(), values[b].data_ptr()
        if first < second + b_bytes and second < first + a_bytes:
            first_of, second_of = unit.function.parameters[a], unit.function.parameters[b]
            raise overlap_error(first_of.name, second_of.name, first_of.name_span)


def check_given(given: Sequence[tuple[int, int, int, bool]], values: Sequence[Any], unit: Unit) -> None:
    """Raises NSA0515 where the memory of a tensor is not there any more, or cannot be written. Autograd is told what is written."""
    written = None
    for place, size, item, is_written in given:
        value = values[place]
        storage = value.untyped_storage()
        if storage.nbytes() < value.storage_offset() * item + size or (is_written and not storage.resizable()):
            from nsalang.launch.tensors import check_memory

            about = unit.function.parameters[place]
            check_memory(about.name, value, is_written, about.name_span)
        if is_written:
            written = [value] if written is None else [*written, value]
    if written is not None:
        import torch

        if torch.is_grad_enabled() and any(t.requires_grad for t in written):
            raise NsaError.at(
                "NSA0403",
                f"'{unit.name}' has no gradient yet, and is to write a tensor that requires one",
                unit.function.name_span,
                help="call it under torch.no_grad(), or on tensors that require none (x.detach())",
            )
        torch.autograd.graph.increment_version(written)


def given_of(
    bound: Bound, kernel: ir.Kernel, layouts: Mapping[str, Layout], place: Mapping[str, int]
) -> tuple[tuple[int, int, int, bool], ...]:
    """What ``check_given`` looks at in every call."""
    return tuple(
        (place[t.name], layouts[t.name].size, layouts[t.name].itemsize, t.role != "in")
        for t in kernel.tensors
        if not isinstance(bound.tensors[t.name], Missing) and layouts[t.name].size
    )


def run_plan(plan: Plan, values: list[Any]) -> None:
    """Run the code of a plan on values of which every tensor is there. Raises NSA0814 where it is checked."""
    import torch

    if plan.checked is not None:
        values.append(plan.checked.before(values, plan.device))
    if plan.launch is not None:
        arguments = list(plan.arguments)
        for slot, place, view in plan.slots:
            arguments[slot] = values[place] if view is None else values[place].view(view)
        for slot, place, offset in plan.views:
            arguments[slot] = pointer(values[place], offset)
        if plan.device.type == "cuda" and plan.device.index != torch.cuda.current_device():
            with torch.cuda.device(plan.device):
                plan.launch(plan.programs, arguments)
        else:
            plan.launch(plan.programs, arguments)
    if plan.checked is not None:
        plan.checked.after(values.pop())


@dataclass(slots=True)
class Launcher:
    """A kernel that can be called. Keeps plans, typed kernels and loaded variants; safe to call from several threads."""

    unit: Unit
    parameters: Parameters
    _plans: Plans[Plan] = field(default_factory=Plans)
    _signatures: dict[object, Signature] = field(default_factory=dict)
    _typed: dict[Meaning, ir.Kernel] = field(default_factory=dict)
    _compiled: dict[tuple[Meaning, Choice], Compiled] = field(default_factory=dict)
    _loaded: dict[tuple[Meaning, Choice, object], Loaded] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __call__(self, args: Sequence[object], kwargs: Mapping[str, object], options: Options = DEFAULT) -> Any:
        """Check, allocate, run. Returns the outputs in order: none, one, or a tuple."""
        return self._run(self.parameters.arrange(args, kwargs), options)

    def _run(self, values: list[Any], options: Options) -> Any:
        import torch

        checked = wanted(options.check)
        key, plan = self._plans.find(values, options, checked)
        if plan is None:
            with self._lock:
                plan = self.plan(values, options, checked)
                self._plans.keep(key, plan)
        for place, shape, dtype in plan.allocate:
            values[place] = torch.empty(shape, dtype=dtype, device=plan.device)
            made = values[place]
            if type(made) is not torch.Tensor or torch._C._functorch.is_functorch_wrapped_tensor(made):
                from nsalang.launch.tensors import check_allocated

                about = self.unit.function.parameters[place]
                check_allocated(about.name, made, about.name_span)
            if plan.aligned and made.data_ptr() & 15:
                return self._run(values, options)  # an allocator of the user's; now it is a given tensor like any other
        check_apart(plan.apart, values, self.unit)
        check_given(plan.given, values, self.unit)
        run_plan(plan, values)
        if len(plan.returns) == 1:
            return values[plan.returns[0]]
        return tuple(values[place] for place in plan.returns) or None

    def signature(self, given: Mapping[str, object]) -> tuple[Signature, dict[str, Setting]]:
        """The signature under the const and dtype parameters among ``given`` (by name), and their values."""
        settings = {n: given[n] for n in self.parameters.constants if given.get(n) is not None}
        base = self.signature_without_constants()
        for parameter in base.parameters:  # a tensor says more than its dtype's default
            if parameter.generic is not None and parameter.generic not in settings:
                found = from_torch(getattr(given.get(parameter.name), "dtype", None))  # type: ignore[arg-type]
                if found is not None:
                    settings[parameter.generic] = found
        checked = constants_of(base, settings)
        return self._signature(checked), checked

    def signature_without_constants(self) -> Signature:
        """The signature with const parameters at their defaults."""
        return self._signature({})

    def _signature(self, settings: Mapping[str, Setting]) -> Signature:
        key = tuple((n, repr(v)) for n, v in settings.items())
        if key not in self._signatures:
            self._signatures[key] = self.unit.signature(settings)
        return self._signatures[key]

    def bind(self, values: Mapping[str, Any], target: Target | None, device: torch.device | None = None) -> tuple[Signature, Bound, Target]:
        """Check a call's arguments, by name. ``target``: what is asked for; without it, what the tensors' device is."""
        import torch

        signature, settings = self.signature(values)
        place = device or device_of(signature, values)
        if place is None:
            on_gpu = target is not None and target.kind != "cpu" and torch.cuda.is_available()
            place = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.get_default_device()
        if target is None:
            target = device_target(place.type, place.index or 0)
        bound = bind(signature, settings, values, target, place)
        return signature, bound, target

    def meaning(self, signature: Signature, bound: Bound, target: Target) -> tuple[Meaning, ir.Kernel]:
        """The typed kernel for a call, its requirements checked. Raises NSA0510, NSA0514, and the kernel's own errors."""
        meaning = meaning_of(signature, bound, target)
        kernel = self.typed(meaning)
        check_sizes(kernel, signature, bound)
        return meaning, kernel

    def typed(self, meaning: Meaning) -> ir.Kernel:
        """The IR of the kernel, made once for each meaning."""
        with self._lock:
            if meaning not in self._typed:
                self._typed[meaning] = typed(self.unit, meaning)
            return self._typed[meaning]

    def compiled(self, meaning: Meaning, choice: Choice) -> Compiled:
        """A variant down to its source, made once."""
        with self._lock:
            if (meaning, choice) not in self._compiled:
                self._compiled[meaning, choice] = compile_kernel(self.unit, meaning, choice, kernel=self.typed(meaning))
            return self._compiled[meaning, choice]

    def _load(self, meaning: Meaning, choice: Choice, device: torch.device) -> Loaded:
        import torch

        key = (meaning, choice, device)
        if key not in self._loaded:
            compiled = self.compiled(meaning, choice)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    self._loaded[key] = Loaded(compiled, compiled.load())
            else:
                self._loaded[key] = Loaded(compiled, compiled.load())
        return self._loaded[key]

    def interpret(
        self, args: Sequence[object], kwargs: Mapping[str, object], target: Target | None, tile: int | Mapping[str, int] | None
    ) -> Any:
        """The same call by the interpreter: same checks, same results. Tensors of a device are copied to the CPU and results back."""
        import torch

        from nsalang.interp.run import interpret

        values = self.parameters.arrange(args, kwargs)
        by_name = {n: v for n, v in zip(self.parameters.names, values, strict=True) if v is not None}
        signature, bound, target = self.bind(by_name, target)
        _, kernel = self.meaning(signature, bound, target)
        layouts, _ = layouts_of(signature, bound, kernel)
        for a, b in apart_of(bound, kernel, layouts):
            first, second = by_name[a].data_ptr(), by_name[b].data_ptr()
            if first < second + layouts[b].size and second < first + layouts[a].size:
                raise overlap_error(a, b, signature.span)
        given = {
            n: torch.empty(t.shape, dtype=t.dtype, device=bound.device) if isinstance(t, Missing) else t for n, t in bound.tensors.items()
        }
        here = {n: t.cpu() for n, t in given.items()}
        if wanted(None):
            check_promises(kernel, here, bound.dims, bound.scalars)
        interpret(kernel, here, bound.scalars, bound.dims, tile=tile)
        for tensor in kernel.tensors:
            if tensor.role != "in" and here[tensor.name] is not given[tensor.name]:
                given[tensor.name].copy_(here[tensor.name])
        results = tuple(given[n] for n in bound.returns)
        return results[0] if len(results) == 1 else results or None

    def plan(self, values: Sequence[Any], options: Options, checked: bool) -> Plan:
        """All checks of a call, and the variant that it takes; for one call after the other."""
        with self._lock:
            return self._plan(values, options, checked)

    def _plan(self, values: Sequence[Any], options: Options, checked: bool) -> Plan:
        by_name = {n: v for n, v in zip(self.parameters.names, values, strict=True) if v is not None}
        signature, bound, target = self.bind(by_name, options.target)
        check_device(target, bound.device)
        backend = choose_backend(options.backend, target)
        meaning, kernel = self.meaning(signature, bound, target)
        layouts, offsets = layouts_of(signature, bound, kernel)
        place = self.parameters.index
        if options.deterministic:
            check_deterministic(kernel)
        fastest = Choice(
            backend, wide=False, aligned=True, pinned=options.pinned, exact=True, allow_unknown=options.allow_unknown, checked=checked
        )
        choice, compiled, aligned = self.chosen(meaning, kernel, bound, layouts, fastest)
        if compiled.kernel.checks:
            place = {**place, compiled.kernel.tensors[-1].name: len(values)}
        check_requires(compiled.kernel, bound.dims, bound.scalars)  # the proofs may rest on more than the text says
        programs = count_programs(compiled, bound.dims, bound.scalars)
        launch = self._load(meaning, choice, bound.device).launch if programs else None
        arguments, slots, views = arguments_of(compiled, bound, layouts, offsets, place)
        return Plan(
            bound.device,
            programs,
            launch,
            arguments,
            slots,
            views,
            tuple((place[n], t.shape, t.dtype) for n, t in bound.tensors.items() if isinstance(t, Missing)),
            tuple((place[a], layouts[a].size, place[b], layouts[b].size) for a, b in apart_of(bound, kernel, layouts)),
            aligned or any(isinstance(bound.tensors[v.base], Missing) for v in kernel.views),
            tuple(place[n] for n in bound.returns),
            Checked(kernel, compiled.kernel.checks, bound.dims, bound.scalars, {n: place[n] for n in bound.tensors}) if checked else None,
            given_of(bound, kernel, layouts, place),
        )

    def chosen(
        self, meaning: Meaning, kernel: ir.Kernel, bound: Bound, layouts: dict[str, Layout], fastest: Choice
    ) -> tuple[Choice, Compiled, bool]:
        """The variant that a launch takes, and whether what it allocates must be aligned. A tensor of checks is added to ``layouts``."""
        compiled = self.compiled(meaning, fastest)
        if sized := sizes(compiled.kernel, bound.dims):
            fastest = replace(fastest, sized=sized)
            compiled = self.compiled(meaning, fastest)
        if compiled.kernel.checks:
            layouts[compiled.kernel.tensors[-1].name] = Layout((len(compiled.kernel.checks),), (1,), 8, 0)
        schedule = compiled.kernel.schedule
        aligned = all(is_aligned(layouts[name]) for name in schedule.vectors) and all(has_rows(layouts[name]) for name in schedule.rows)
        wide = needs_wide(compiled.kernel, layouts, bound.dims) or has_long_ranges(kernel, bound.dims, bound.scalars)
        choice = replace(fastest, aligned=aligned, wide=wide, exact=is_exact(compiled.kernel, bound.dims, bound.scalars))
        return choice, compiled if choice == fastest else self.compiled(meaning, choice), aligned


def meaning_of(signature: Signature, bound: Bound, target: Target) -> Meaning:
    """What a call's arguments decide of the typed kernel. Raises NSA0510 where they leave a specialised dimension open."""
    specialised = {n: bound.dims[n] for n in signature.specialised if n in bound.dims}
    needed = {n for p in signature.parameters if p.name in bound.tensors for e in p.shape for n in names(e)}
    for name in signature.specialised:
        if name not in specialised and name in needed:
            raise undetermined(signature, name)
    return Meaning.of(target, bound.settings, specialised, bound.present)


def check_sizes(kernel: ir.Kernel, signature: Signature, bound: Bound) -> None:
    """Raises NSA0510 for a dimension that a call leaves open, NSA0514 for a requirement that its sizes and scalars break, and for an extent of
    the grid that has no value under them."""
    for name in kernel.dims:
        if name not in bound.dims:
            raise undetermined(signature, name)
    check_requires(kernel, bound.dims, bound.scalars)
    for index in kernel.grid:
        try:
            evaluate(index.extent, bound.dims, bound.scalars)
        except Undefined as error:
            raise NsaError.at(
                "NSA0514",
                f"the extent of '{index.name}' in the grid {error} here",
                index.extent.span,
                note=told(index.extent, bound.dims, bound.scalars),
            ) from None


def told(expr: ir.Expr, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> str | None:
    """The values of the dimensions and scalars in an expression, as a note; None where there are none."""
    return ", ".join(f"{n} = {scalars[n] if n in scalars else dims[n]}" for n in names(expr) if n in scalars or n in dims) or None


def sizes(kernel: ir.Kernel, dims: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The axes of which a launch wants fewer lanes than the rule gives, by their classes: the power of two at or above the extent."""
    found: list[tuple[str, int]] = []
    extents = {index.name: index.extent for index in kernel.grid}
    for axis, least, greatest in kernel.schedule.classes:
        length = max(least, 1 << max(0, int(evaluate(extents[axis], dims, {})) - 1).bit_length())
        if length < greatest:
            found.append((axis, length))
    return tuple(found)


def check_requires(kernel: ir.Kernel, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> None:
    """Evaluate what the kernel requires of dimensions and scalars. Raises NSA0514 for the first that fails."""
    # Implied ones first: they say that a divisor in another is not 0.
    for require in sorted(kernel.requires, key=lambda r: not r.implied):
        undefined = None
        try:
            holds = evaluate(require.condition, dims, scalars)
        except Undefined as error:
            holds, undefined = False, f"it {error}"
        if not holds:
            why = f" (implied by {require.because})" if require.implied else ""
            note = "; ".join(t for t in (told(require.condition, dims, scalars), undefined) if t) or None
            raise NsaError.at("NSA0514", f"'{kernel.name}' requires {require.text}{why}, which does not hold", require.span, note=note)


def has_long_ranges(kernel: ir.Kernel, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> bool:
    """Whether an index of the grid or of a loop may not fit 32 bits, as of ``range(M * N)`` where no tensor has such an extent.

    An end that depends on data is not looked at: its index has 64 bits, or the code cuts the end to what fits where nobody can see that.
    """
    ends = [g.extent for g in kernel.grid]
    ends += [e for s in kernel.body for n in ir.walk(s) if isinstance(n, ir.For) for e in (n.lo, n.hi)]
    facts = Facts(kernel) if any(isinstance(n, ir.Var) for e in ends for n in ir.walk(e)) else None
    for end in ends if facts is None else map(facts.resolved, ends):
        if known_at_launch(end):
            try:
                if abs(evaluate(end, dims, scalars)) > NARROW - LONGEST_TILE:
                    return True
            except Undefined:  # of a loop that does not run
                continue
    return False


def is_exact(kernel: ir.Kernel, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> bool:
    """Whether everything holds that a kernel hoists, so that its exact variant may run; so too where it hoists nothing and there is no other."""
    try:
        return all(evaluate(h.condition, dims, scalars) for h in kernel.hoists)
    except Undefined:  # in the extent of a loop that does not run
        return False


def count_programs(compiled: Compiled, dims: Mapping[str, int], scalars: Mapping[str, Number]) -> int:
    """How many instances a launch has; an index without extent makes it 0. Raises NSA0507 where a device cannot count them."""
    counts = [max(int(evaluate(e, dims, scalars)), 0) for e in compiled.generated.grid]
    total = 1
    for count in counts:
        total *= count
    if total > MOST_PROGRAMS:
        product = " * ".join(map(str, counts))
        raise NsaError.at(
            "NSA0507",
            f"'{compiled.kernel.name}' would need {product} = {total} instances; a launch can have {MOST_PROGRAMS}",
            compiled.kernel.span,
            help="longer tiles make fewer instances (schedule={...}), or call it in parts",
        )
    return total


def layouts_of(signature: Signature, bound: Bound, kernel: ir.Kernel) -> tuple[dict[str, Layout], dict[str, int]]:
    """Every tensor and view in memory, and at which byte of its base each view begins.

    Raises NSA0512 for strides with which a written one cannot be written, NSA0514 for a view whose numbers
    have no value, NSA0521 for one that its base's layout does not allow.
    """
    found: dict[str, Layout] = {}
    for tensor in kernel.tensors:
        given, shape = bound.tensors[tensor.name], bound.shapes[tensor.name]
        if isinstance(given, Missing):
            found[tensor.name] = Layout(shape, contiguous(shape), given.dtype.itemsize, 0)
            continue
        found[tensor.name] = Layout(shape, tuple(given.stride()), given.element_size(), given.data_ptr() % ALIGNMENT)
        parameter = signature.parameter(tensor.name)
        if tensor.role != "in" and parameter is not None:
            check_written(tensor.name, found[tensor.name], parameter.span)
    offsets: dict[str, int] = {}
    for view in kernel.views:
        base, itemsize = found[view.base], view.dtype.bytes
        try:
            lies = numbers(view, bound.dims, bound.scalars)
        except Undefined as error:
            raise NsaError.at("NSA0514", f"the view '{view.name}' {error} here", view.span) from None
        offsets[view.name], strides = view_layout(view, base, lies.shape, lies.strides, lies.offset, itemsize)
        found[view.name] = Layout(lies.shape, strides, itemsize, (base.address + offsets[view.name]) % ALIGNMENT)
        if view.role != "in":
            check_written(view.name, found[view.name], view.span)
    return found, offsets


def apart_of(bound: Bound, kernel: ir.Kernel, layouts: Mapping[str, Layout]) -> list[tuple[str, str]]:
    """Pairs of given tensors that must not overlap, a written one first: an output that the call allocates overlaps nothing."""
    given = [t for t in kernel.tensors if not isinstance(bound.tensors[t.name], Missing) and layouts[t.name].size]
    pairs = [(a, b) for i, a in enumerate(given) for b in given[i + 1 :] if a.role != "in" or b.role != "in"]
    return [(a.name, b.name) if a.role != "in" else (b.name, a.name) for a, b in pairs]


def arguments_of(
    compiled: Compiled, bound: Bound, layouts: Mapping[str, Layout], offsets: Mapping[str, int], place: Mapping[str, int]
) -> tuple[tuple[Any, ...], tuple[tuple[int, int, torch.dtype | None], ...], tuple[tuple[int, int, int], ...]]:
    """The code's arguments in order, and where its tensors and views go."""
    out: list[Any] = []
    views: list[tuple[int, int, int]] = []
    slots: list[tuple[int, int, torch.dtype | None]] = []
    declared = {t.name: t.dtype for t in compiled.kernel.tensors}
    for binding, argument in zip(compiled.generated.bindings, compiled.program.arguments, strict=True):
        if binding.kind == "tensor" and binding.name in offsets:
            views.append((len(out), place[compiled.kernel.memory(binding.name)], offsets[binding.name]))
            out.append(None)
        elif binding.kind == "tensor":
            # Where the target lacks a format, the code reads its bytes.
            seen = torch_dtype(ALL[argument.dtype], compiled.target)
            own = torch_dtype(declared[binding.name], compiled.target)
            slots.append((len(out), place[binding.name], seen if seen is not own else None))
            out.append(None)
        elif binding.kind == "dim":
            out.append(bound.dims[binding.name])
        elif binding.kind == "stride":
            out.append(passed_strides(layouts[binding.name])[binding.axis])
        else:
            out.append(bound.scalars[binding.name])
    return tuple(out), tuple(slots), tuple(views)
