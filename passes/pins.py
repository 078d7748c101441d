"""What a schedule pins, by the names that its author sees: lengths of axes, warps and stages of the kernel, stages of a loop, places of variables.

A number pins the length of an axis, or ``warps`` or ``stages``; ``k.stages`` is about the loops over ``k``. A place pins every variable of that name.
"""

from __future__ import annotations

from dataclasses import dataclass

from nsalang import ir
from nsalang.base.source import Diagnostic, NsaError

OPTIONS = {"warps": (1, 2, 4, 8, 16, 32), "stages": (1, 2, 3, 4, 5, 6, 7, 8)}
"""What can be pinned beside the lengths of axes, and the values it can have. An axis of such a name goes first."""
LONGEST = 65536


@dataclass(frozen=True, slots=True)
class Pins:
    """What is pinned, by names of the IR: ``lengths`` by axis, ``options`` (warps, stages), ``stages`` by the index of a loop, ``places`` by variable."""

    lengths: dict[str, int]
    options: dict[str, int]
    stages: dict[str, int]
    places: dict[str, ir.Place]


def pins_of(kernel: ir.Kernel) -> Pins:
    """A source name pins everything of that name, a name of the IR (``n.2``) wins. Raises NSA0408, NSA0409, all at once."""
    return _Reader(kernel).read()


def power_above(n: int) -> int:
    """The least power of two that is not below ``n``."""
    return 1 << max(0, n - 1).bit_length()


class _Reader:
    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel = kernel
        self.axes = {name: axis for name, axis in ir.axes_of(kernel).items() if axis.kind != "group"}
        nodes = [n for s in kernel.body for n in ir.walk(s)]
        self.loops = [n.index for n in nodes if isinstance(n, ir.For)]
        self.variables: dict[str, ir.Assign] = {}
        for n in nodes:
            if isinstance(n, ir.Assign):
                self.variables.setdefault(n.name, n)
        self.pins = Pins({}, {}, {}, {})
        self.problems: list[Diagnostic] = []

    def read(self) -> Pins:
        for name, value in sorted(self.kernel.schedule.pinned, key=lambda pin: "." in pin[0]):
            if isinstance(value, str):
                self.place(name, value)
            elif meant := _meant(name, self.axes):
                self.length(name, value, meant)
            elif name in OPTIONS:
                self.pins.options[name] = self.option(name, value, OPTIONS[name])
            elif name.endswith(".stages"):
                self.stages(name, value)
            else:
                what = ": it is a variable, which has a place" if _meant(name, self.variables) else ""
                self.unknown(name, f"no such axis{what}; its axes", self.axes)
        if self.problems:
            raise NsaError(*self.problems)
        return self.pins

    def length(self, name: str, length: int, axes: list[str]) -> None:
        if length < 1 or length > LONGEST or length & (length - 1):
            self.refuse(f"the schedule pins '{name}' to {length}; a length is a power of two from 1 to {LONGEST}")
            return
        for axis in axes:
            fixed = self.axes[axis].length
            if fixed is not None and length != power_above(fixed):
                self.refuse(f"the schedule pins '{name}' to {length}; it is a span of {fixed}, whose length is always {power_above(fixed)}")
            self.pins.lengths[axis] = length

    def option(self, name: str, value: int, allowed: tuple[int, ...]) -> int:
        if value not in allowed:
            self.refuse(f"the schedule pins '{name}' to {value}; it can be {', '.join(map(str, allowed))}")
        return value

    def stages(self, name: str, value: int) -> None:
        meant = _meant(name.removesuffix(".stages"), self.loops)
        if not meant:
            self.unknown(name, "no such loop; its loops", self.loops)
        for loop in meant:
            self.pins.stages[loop] = self.option(name, value, OPTIONS["stages"])

    def place(self, name: str, value: str) -> None:
        place = next((p for p in ir.PLACES if p == value), None)
        meant = _meant(name, self.variables)
        tiles = [v for v in meant if self.variables[v].value.axes]
        if place is None:
            self.refuse(f"the schedule pins '{name}' to '{value}'; a place is {' or '.join(ir.PLACES)}")
        elif not meant:
            what = ": it is an axis, which has a length" if _meant(name, self.axes) else ""
            self.unknown(name, f"no such variable{what}; its variables", self.variables)
        elif not tiles:
            sentence = f"the schedule pins '{name}' to {value}; it is one number, which has no place of its own"
            self.refuse(sentence, self.variables[meant[0]])
        elif self.kernel.schedule.backend == "triton":
            sentence = f"the schedule pins '{name}' to {value}, and Triton's compiler places values itself"
            self.refuse(sentence, self.variables[tiles[0]], 'backend="tilelang" (-b tilelang) takes places')
        else:
            self.pins.places.update(dict.fromkeys(tiles, place))

    def refuse(self, sentence: str, node: ir.Node | None = None, *helps: str) -> None:
        self.problems.append(Diagnostic("NSA0408", sentence, None if node is None else node.span, helps=helps))

    def unknown(self, name: str, what: str, known: list[str] | dict[str, ir.AxisInfo] | dict[str, ir.Assign]) -> None:
        names = ", ".join(dict.fromkeys(known)) or "none"
        sentence = f"the schedule pins '{name}', and the kernel '{self.kernel.name}' has {what}: {names}"
        self.problems.append(Diagnostic("NSA0409", sentence))


def _meant(name: str, known: list[str] | dict[str, ir.AxisInfo] | dict[str, ir.Assign]) -> list[str]:
    return [n for n in known if n == name or ("." not in name and ir.plain(n) == name)]
