"""A call of a kernel: arguments checked, a variant chosen and loaded, outputs allocated, the code run. What depends on shapes alone is done once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nsalang import ir
from nsalang.base.target import Target
from nsalang.build.backends import choose_backend
from nsalang.build.compiled import Compiled, compile_kernel
from nsalang.build.pipeline import Choice, Meaning, Unit, typed
from nsalang.host.memory import Layout, has_rows, is_aligned, needs_wide
from nsalang.launch.arguments import Parameters, constants_of, from_torch
from nsalang.launch.binding import Bound, Missing, bind, device_of
from nsalang.launch.checks import Checked, check_promises, wanted
from nsalang.launch.options import DEFAULT, Options, check_deterministic, check_device, device_target
from nsalang.launch.places import apart_of, arguments_of, check_arguments, given_of, layouts_of, parts_of_calls
from nsalang.launch.plans import Plan, Plans, run_plan
from nsalang.launch.sizes import check_requires, check_sizes, count_programs, has_long_ranges, is_exact, meaning_of, sizes
from nsalang.toolchain import Launch
from nsalang.types.signature import Setting, Signature

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Loaded:
    """A variant that is ready to run on one device."""

    compiled: Compiled
    launch: Launch


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
        call, checked = parts_of_calls(), wanted(options.check)
        key, plan, addresses = call.find(self._plans.kept, values, options, checked)
        if plan is None:
            with self._lock:
                plan = self.plan(values, options, checked)
                self._plans.keep(key, plan)
        if plan.allocate and not call.allocate(plan.allocate, values, plan.device, self.unit) and plan.aligned:
            return self._run(values, options)  # an allocator of the user's; now it is a given tensor like any other
        call.check(plan.apart, plan.given, values, addresses, self.unit)
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
        check_arguments(self.unit, bound, kernel, layouts, self.parameters.index, values)
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
        # The proofs may rest on more than the text says.
        check_requires(compiled.kernel, bound.dims, bound.scalars, kernel.requires)
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
            apart_of(bound, kernel, layouts, place),
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
