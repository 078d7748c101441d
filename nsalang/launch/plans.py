"""Plans: what a call does, kept for all calls of the same shapes, strides, alignments, numbers and options. Their key is made in call.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from nsalang.host.memory import pointer
from nsalang.launch.checks import Checked
from nsalang.toolchain import Launch

if TYPE_CHECKING:
    import torch

Fresh: TypeAlias = "tuple[int, tuple[int, ...], torch.dtype]"
"""What a call allocates: the place of the value, its shape and dtype."""
Apart: TypeAlias = tuple[int, int, int, int]
"""(A written value, its bytes, another value, its bytes) that must not overlap."""
Given: TypeAlias = tuple[int, int, int, bool, bool]
"""A tensor that is given: its place, bytes from the first to the last element, bytes of an element, whether it is written, and whether its memory
may then be memory that torch did not allocate."""

MOST = 4096
"""Plans kept for each kernel: calls with other shapes or scalars make others, and a server must not grow without bound."""

P = TypeVar("P")


class Plans(Generic[P]):
    """Plans by what they depend on. Reading ``kept`` needs no lock; ``keep`` is for one thread after the other."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept: dict[object, P] = {}

    def __len__(self) -> int:
        return len(self.kept)

    def clear(self) -> None:
        self.kept.clear()

    def keep(self, key: object, plan: P) -> None:
        """Keep a plan under a key, unless that is None. Forgets all others where they are too many."""
        if key is None:
            return
        if len(self.kept) >= MOST:
            self.kept.clear()
        self.kept[key] = plan


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call with certain shapes, strides and numbers does. Values are by their place in the parameter list.

    ``arguments``: of the code, with None at each tensor's place; ``slots``: (place in arguments, place of the value, dtype to view it as);
    ``views``: (place in arguments, place of the base, byte at which the view begins). ``aligned``: an output to be allocated must be.
    ``checked``: what is checked as it runs; then the tensor of checks is one more value, the last.
    """

    device: torch.device
    programs: int
    launch: Launch | None
    arguments: tuple[Any, ...]
    slots: tuple[tuple[int, int, torch.dtype | None], ...]
    views: tuple[tuple[int, int, int], ...]
    allocate: tuple[Fresh, ...]
    apart: tuple[Apart, ...]
    aligned: bool
    returns: tuple[int, ...]
    checked: Checked | None
    given: tuple[Given, ...] = ()


def run_plan(plan: Plan, values: list[Any]) -> None:
    """Run the code of a plan on values of which every tensor is there. Raises NSA0814 where it is checked."""
    if plan.checked is not None:
        values.append(plan.checked.before(values, plan.device))
    if plan.launch is not None:
        arguments = list(plan.arguments)
        for slot, place, view in plan.slots:
            arguments[slot] = values[place] if view is None else values[place].view(view)
        for slot, place, offset in plan.views:
            arguments[slot] = pointer(values[place], offset)
        if plan.device.index is None:  # the CPU
            plan.launch(plan.programs, arguments)
        else:
            _run_there(plan.launch, plan, arguments)
    if plan.checked is not None:
        plan.checked.after(values.pop())


def _run_there(launch: Launch, plan: Plan, arguments: list[Any]) -> None:
    import torch

    if plan.device.index != torch.cuda.current_device():
        with torch.cuda.device(plan.device):
            launch(plan.programs, arguments)
    else:
        launch(plan.programs, arguments)
