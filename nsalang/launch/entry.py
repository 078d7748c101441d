"""What a kernel and a program have in common to the user who holds one: calls, options, ``interpret``, ``prove``, ``check``."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from nsalang import syntax
from nsalang.base.source import NsaError
from nsalang.base.target import Target, parse_target
from nsalang.build.backends import choose_backend
from nsalang.build.pipeline import Choice, Meaning, Unit
from nsalang.launch.arguments import constants_of, unknown_argument
from nsalang.launch.launcher import Launcher
from nsalang.launch.options import DEFAULT, Options, allows_unknown, options_of, pins_of, refuse_interpreted, refuse_later, tile_of
from nsalang.types.signature import Signature, annotation_of

if TYPE_CHECKING:
    from nsalang.launch.sequence import ProgramLauncher
    from nsalang.report.proofs import Report
    from nsalang.syntax.capture import Watched


F = TypeVar("F", bound=Callable[..., Any])

UNSET = (None,) * 6
"""The options of a call that sets none: told by one comparison, since every call asks."""


def _constant(method: F) -> F:
    """What ``torch.compiler.assume_constant_result`` does, which cannot be asked before torch is imported."""
    method._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return method


class Entry(ABC):
    """A kernel or a program. Call it with torch tensors: parameters that are no ``Out`` by position or by name, outputs by name or not at all.

    It gives the outputs in order: the tensor itself where there is one, a tuple where there are several. Outputs that are not given are
    allocated; an optional one is there only if it is given a tensor or True. Call options: ``backend`` ("triton", "tilelang", "auto"),
    ``target`` ("cuda:sm_90", …; the tensors' device where left out), ``schedule`` (lengths of axes and places of variables, such as
    {"m": 32, "keys": "shared"}), ``allow="unknown"`` (guard accesses that the prover cannot settle, and trust the rest of what it cannot),
    ``deterministic`` (True: refuse atomic additions of floats, and scatters), ``check`` (True: check accesses and promises as they run; None: as
    NSALANG_CHECK says).
    With all outputs given, a call of a kernel that has run once allocates nothing, and one of a program its scratch alone; both are safe in a CUDA
    graph. Raises NsaError.
    """

    kind = "kernel"
    _watched: tuple[Watched, ...] = ()

    def __init__(self, unit: Unit, launcher: Launcher | ProgramLauncher, options: Options = DEFAULT) -> None:
        function = unit.function
        self.unit = unit
        self.launcher = launcher
        self.__name__ = self.__qualname__ = unit.name
        self.__doc__ = function.docstring
        self.__signature__ = _python_signature(function)
        self._options = options

    def __copy__(self) -> Self:
        """Itself, as of a function: calls leave nothing behind that a copy should have of its own."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __call__(
        self,
        *args: Any,
        backend: str | None = None,
        target: str | Target | None = None,
        schedule: Mapping[str, int | str | Mapping[str, int | str]] | None = None,
        allow: Literal["unknown"] | None = None,
        deterministic: bool | None = None,
        check: bool | None = None,
        autotune: object = None,
        **kwargs: Any,
    ) -> Any:
        import torch

        if torch.compiler.is_dynamo_compiling():
            return self._traced(args, kwargs, (backend, target, schedule, allow, deterministic, check))
        options = self._options
        if self._watched and any(w.changed() for w in self._watched):
            self._warn_changed()
        if autotune is not None:
            refuse_later(self.unit.name, {"autotune": autotune})
        if (backend, target, schedule, allow, deterministic, check) != UNSET:
            options = options_of(self.unit.name, options, backend, target, schedule, allow, deterministic, check)
        return self.launcher(args, kwargs, options)

    def _traced(self, args: tuple[Any, ...], kwargs: dict[str, Any], chosen: tuple[Any, ...]) -> Any:
        """The call as ``torch.compile`` traces it: one operator of torch. What is constant in it is done by Python at once, here and in
        ``_arranged`` and ``_operator``."""
        import torch

        names = self._arranged(len(args), tuple(kwargs))
        values = {**dict(zip(names[: len(args)], args, strict=True)), **kwargs}
        kinds = dict(self._kinds())
        taken = tuple(
            n
            for n in names
            if (kinds[n] == "tensor" and isinstance(values[n], torch.Tensor)) or (kinds[n] == "scalar" and values[n] is not None)
        )
        fixed = tuple((n, int(values[n]) if isinstance(values[n], torch.SymInt) else values[n]) for n in names if n not in taken)
        operator = getattr(torch.ops.nsalang_kernels, self._operator(fixed, taken, chosen)).default
        found = operator(*[values[n] for n in taken])
        fresh = iter(found if isinstance(found, tuple | list) else (found,))
        wanted = self._outputs(fixed, taken)
        results = [values[n] if n in taken else next(fresh) for n in wanted]
        return results[0] if len(results) == 1 else tuple(results) or None

    @_constant
    def _arranged(self, count: int, by_name: tuple[str, ...]) -> tuple[str, ...]:
        """The parameters that a call gives, first those by position. Raises NSA0501 and NSA0502."""
        about = self.launcher.parameters
        about.arrange([None] * count, dict.fromkeys(by_name))
        return *(about.names[i] for i in about.positional[:count]), *by_name

    @_constant
    def _kinds(self) -> tuple[tuple[str, str], ...]:
        return tuple((p.name, p.kind) for p in self.signature.parameters)

    @_constant
    def _operator(self, fixed: tuple[tuple[str, Any], ...], taken: tuple[str, ...], chosen: tuple[Any, ...]) -> str:
        from nsalang.launch.traced import operator_of

        return operator_of(self.launcher, fixed, taken, options_of(self.unit.name, self._options, *chosen))

    @_constant
    def _outputs(self, fixed: tuple[tuple[str, Any], ...], taken: tuple[str, ...]) -> tuple[str, ...]:
        """The outputs that a call gives, in order."""
        given = dict(fixed)
        return tuple(
            p.name
            for p in self.signature.parameters
            if p.role == "out" and (p.name in taken or given.get(p.name) is True or not p.optional)
        )

    def _warn_changed(self) -> None:
        """Once: a name that was captured means something else by now, which the kernel does not see."""
        names = ", ".join(f"'{w.name}'" for w in self._watched if w.changed())
        self._watched = ()
        told = f"'{self.unit.name}' keeps what {names} meant when @nsalang.jit read it: make it a parameter (k: const), or decorate anew"
        warnings.warn(told, RuntimeWarning, stacklevel=3)

    def interpret(self, *args: Any, target: str | Target | None = None, tile: int | Mapping[str, int] | None = None, **kwargs: Any) -> Any:
        """What the call means, computed by the interpreter on the CPU for a target (the tensors' device where left out).

        ``tile``: length of every tile, or of each by its axis; None: as long as its range. Raises NsaError; NSA0520 for a kernel that
        reads or writes where it must not.
        """
        from nsalang.interp.fault import Fault

        chosen = tile_of(self.unit.name, tile)
        refuse_interpreted(self.unit.name, kwargs, [p.name for p in self.unit.function.parameters])
        try:
            return self.launcher.interpret(args, kwargs, None if target is None else parse_target(str(target)), chosen)
        except Fault as fault:
            raise fault.error(self.unit.name) from None

    def meaning(self, target: Target, values: Mapping[str, Any]) -> Meaning:
        """What ``compile`` types the kernel for: ``values`` as there."""
        base = self.signature
        settings = constants_of(base, values)
        for parameter in base.parameters:
            if parameter.kind == "dtype" and parameter.name not in settings:
                raise NsaError.at(
                    "NSA0517",
                    f"the dtype '{parameter.name}' of '{base.name}' is not given",
                    parameter.span,
                    help=f"give {parameter.name}=…",
                )
        present: set[str] = set()
        dims: dict[str, int] = {}
        optional = [p.name for p in base.parameters if p.optional]
        for name, value in values.items():
            if name in self.launcher.parameters.constants:
                continue
            if name in optional:
                if value is not None and not isinstance(value, bool):
                    raise NsaError.at("NSA0504", f"'{name}' is an optional parameter: compile takes True or False for it")
                if value:
                    present.add(name)
            elif name in base.dims:
                if name not in base.specialised:
                    raise NsaError.at(
                        "NSA0518",
                        f"the dimension {name} of '{base.name}' stays dynamic: its value is no part of a variant",
                        help="leave it out",
                    )
                if type(value) is not int or value < 0:
                    raise NsaError.at("NSA0518", f"the dimension {name} is a non-negative integer, not {value!r}")
                dims[name] = value
            else:
                raise unknown_argument(base.name, name, [*settings, *base.specialised, *optional])
        missing = [n for n in base.specialised if n not in dims]
        if missing:
            self.check(target)  # what is wrong in the text is said first
            raise NsaError.at(
                "NSA0518",
                f"the dimension {missing[0]} of '{base.name}' is the length of a span, and compiling needs its value",
                base.span,
                help=f"give {', '.join(f'{n}=…' for n in missing)}",
            )
        return Meaning.of(target, settings, dims, frozenset(present))

    def prove(
        self,
        target: str | Target | None = None,
        *,
        backend: str = "auto",
        schedule: Mapping[str, int | str | Mapping[str, int | str]] | None = None,
        allow: Literal["unknown"] | None = None,
        **values: Any,
    ) -> Report:
        """The verdict on every access and obligation of one variant, with the reason: ``print(kernel.prove())``, ``.table()``, ``.ok``.

        ``values`` as for ``compile``; ``target`` is "cuda:sm_90" where left out. ``allow="unknown"``: what the prover cannot settle counts as
        settled. A refuted kernel gives a report too, whose ``raise_for_refuted`` raises. A program's has those of its kernels (``.calls``), each
        under the variant that the program fixes. Raises NsaError for a kernel with other errors.
        """
        meaning, choice = self._variant(target, values, backend, schedule, allow)
        return self.report(meaning, choice, choice.allow_unknown)

    @abstractmethod
    def report(self, meaning: Meaning, choice: Choice, allow_unknown: bool = False) -> Report:
        """The verdicts on one variant."""

    def _variant(
        self,
        target: str | Target | None,
        values: Mapping[str, Any],
        backend: str,
        schedule: Mapping[str, int | str | Mapping[str, int | str]] | None,
        allow: Literal["unknown"] | None,
    ) -> tuple[Meaning, Choice]:
        """What ``compile`` and ``prove`` are asked for."""
        meaning = self.meaning(parse_target("cuda:sm_90" if target is None else str(target)), values)
        return meaning, Choice(
            choose_backend(backend, meaning.target),
            pinned=pins_of(schedule),
            allow_unknown=allows_unknown(self.unit.name, allow),
        )

    @property
    def signature(self) -> Signature:
        """Parameters and dimensions, const parameters at their defaults."""
        return self.launcher.signature_without_constants()

    def check(self, target: str | Target = "cuda:sm_90") -> None:
        """Type-check the whole file for a target, at defaults, with all optional parameters and with none. Raises NsaError with all errors."""
        from nsalang.types.check import check_file

        check_file(self.unit.file, parse_target(str(target)), self.unit.captured)

    def check_alone(self, target: Target) -> None:
        """As ``check``, but nothing of the file's other kernels."""
        from nsalang.types.check import check_file

        check_file(self.unit.file, target, self.unit.captured, self.unit.name)

    def __repr__(self) -> str:
        return f"<nsalang {self.kind} {self.__name__}{self.__signature__}>"


def _python_signature(function: syntax.Function) -> inspect.Signature:
    """A signature for ``help``: annotations as written; validation is off because an optional parameter may come before a required one."""
    made: list[inspect.Parameter] = []
    by_name: list[inspect.Parameter] = []
    for parameter in function.parameters:
        is_output = annotation_of(parameter).role == "out"
        default: Any = inspect.Parameter.empty
        if is_output or parameter.optional:
            default = None
        elif parameter.default is not None:
            default = _Text(parameter.default.span.text)
        kind = inspect.Parameter.KEYWORD_ONLY if is_output else inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert parameter.annotation is not None
        annotation = _Text(parameter.annotation.span.text + (" | None" if parameter.optional else ""))
        (by_name if is_output else made).append(inspect.Parameter(parameter.name, kind, default=default, annotation=annotation))
    return inspect.Signature([*made, *by_name], __validate_parameters__=False)


class _Text:
    """Source text that prints as itself."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text
