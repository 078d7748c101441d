"""A kernel of the IR: what it takes, its grid, its body, and the choices that passes make for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from nsalang.base.dtypes import DType
from nsalang.ir.nodes import Expr, Node, Stmt


@dataclass(frozen=True, slots=True)
class Tensor(Node):
    """A tensor parameter that is present in this variant. ``storage`` is the element type that the machine sees (u8 where the target lacks fp8);
    None means ``dtype``."""

    name: str
    dtype: DType
    shape: tuple[Expr, ...]
    role: Literal["in", "out", "inout"]
    storage: DType | None = None


@dataclass(frozen=True, slots=True)
class View(Node):
    """A typed view of the tensor ``base``: element ``i`` begins ``offset + sum(i * strides)`` bytes after the first of ``base``, counted in the
    row-major order of its elements wherever they lie. ``offset`` and ``strides`` are i64 over dimensions and scalars. ``storage`` as for Tensor."""

    name: str
    dtype: DType
    shape: tuple[Expr, ...]
    base: str
    offset: Expr
    strides: tuple[Expr, ...]
    role: Literal["in", "out", "inout"]
    storage: DType | None = None


@dataclass(frozen=True, slots=True)
class ScalarParam(Node):
    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class GridIndex(Node):
    """One parallel index: a scalar in 0..extent, or with ``tiled`` a block of it."""

    name: str
    extent: Expr
    tiled: bool


@dataclass(frozen=True, slots=True)
class Require(Node):
    """A condition on dimensions and scalars, checked at launch. ``because``: what implies one that the author did not write."""

    condition: Expr
    text: str
    because: str = ""

    @property
    def implied(self) -> bool:
        return self.because != ""


@dataclass(frozen=True, slots=True)
class Promise(Node):
    """What the author promises about the contents of tensors that are only read: trusted by the prover, checked under NSALANG_CHECK=1.

    kind ``each``: ``condition`` holds of every element; in it an element of a tensor is ``Load(tensor, (Index each0, Index each1, …))``, and all
    ``tensors`` have one shape. ``distinct``: no two elements of ``tensors[0]`` are equal. ``sorted``: the one axis of ``tensors[0]`` never
    descends. ``condition`` is None for these two. ``places``: ``condition`` holds of elements at places that are known at launch, or that are
    ``each0`` plus what is known, for every ``each0`` for which all of them exist. ``implied``: by a searchsorted, not written by the author.
    """

    kind: Literal["each", "places", "distinct", "sorted"]
    tensors: tuple[str, ...]
    condition: Expr | None
    text: str
    implied: bool = False


@dataclass(frozen=True, slots=True)
class Check(Node):
    """What one element of the tensor of checks says, where the code has changed it: the value that is wrong at ``span``.

    kind ``index``: an index of axis ``axis`` of ``tensor``, whose extent is ``limit``; ``divisor``: 0; ``shift``: an amount not in 0..limit.
    """

    kind: Literal["index", "divisor", "shift"]
    limit: Expr
    tensor: str = ""
    axis: int = 0


Pin: TypeAlias = tuple[str, int | str]
"""A name and what is pinned of it: the length of an axis, the place of a variable, … (see ``passes/pins.py``)."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The choices. ``lengths``: machine length of each axis (a power of two); ``order``: all axes, outermost dimension of a value first;
    ``vectors``: the tensors whose last index runs along an innermost axis, so that accesses can be vectors; ``wide``: offsets and indices
    need 64 bits; ``aligned``: of the vectors, addresses, strides and last extents divide by 16 bytes, and last strides are 1; ``exact``: what
    ``Kernel.hoists`` says holds; ``allow_unknown``: an access that the prover cannot settle is guarded; ``checked``: every access and promise
    is checked at run time (NSALANG_CHECK=1); ``classes``: grid axes whose length a launch sets to the power of two at or above their extent,
    with the least and the greatest length; ``sized``: lengths that it has set so; ``rows``: tensors whose last stride is 1 where ``aligned``,
    with addresses and other strides of any kind; ``groups``: axes that the pass ``spread`` makes, each with an axis that it is of and a number of
    lanes: its lanes are the first of each so many lanes of that axis, and so is its index."""

    backend: Literal["triton", "tilelang"] | None = None
    lengths: tuple[tuple[str, int], ...] = ()
    order: tuple[str, ...] = ()
    warps: int = 4
    stages: int = 1
    wide: bool = True
    aligned: bool = False
    pinned: tuple[Pin, ...] = ()
    why: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    exact: bool = False
    allow_unknown: bool = False
    checked: bool = False
    classes: tuple[tuple[str, int, int], ...] = ()
    sized: tuple[tuple[str, int], ...] = ()
    rows: tuple[str, ...] = ()
    groups: tuple[tuple[str, str, int], ...] = ()

    def step(self, axis: str) -> int:
        """How many lanes of another axis stand behind a lane of this one; 1 for an axis of its own."""
        return next((step for name, _, step in self.groups if name == axis), 1)

    def groups_of(self, axis: str) -> tuple[str, ...]:
        """The axes that have some of the lanes of this one."""
        return tuple(name for name, of, _ in self.groups if of == axis)

    def grouped(self, axis: str) -> str:
        """The axis of whose lanes this one has some, or itself."""
        return next((of for name, of, _ in self.groups if name == axis), axis)

    def length(self, axis: str) -> int:
        """Machine length of an axis."""
        return dict(self.lengths)[axis]


@dataclass(frozen=True, slots=True)
class Kernel(Node):
    """One variant of a kernel: constants, dtypes, the presence of optional parameters and specialised dimensions are settled.

    ``dims``: dynamic dimensions in order of first appearance. ``constants``: what was settled, for headers and keys (name, text).
    ``promises`` are no part of the tree that ``walk`` and ``rewrite`` see. ``hoists``: facts about speed that a
    launch checks; the exact variant relies on them (set by the pass ``assume``).
    ``checks``, no part of that tree either, where the pass ``check`` has run: check ``k`` is element ``k`` of the last tensor.
    """

    name: str
    tensors: tuple[Tensor, ...]
    scalars: tuple[ScalarParam, ...]
    dims: tuple[str, ...]
    requires: tuple[Require, ...]
    partial: tuple[str, ...]
    grid: tuple[GridIndex, ...]
    body: tuple[Stmt, ...]
    constants: tuple[tuple[str, str], ...] = ()
    schedule: Schedule = Schedule()
    views: tuple[View, ...] = ()
    promises: tuple[Promise, ...] = ()
    hoists: tuple[Require, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def arrays(self) -> tuple[Tensor | View, ...]:
        """The tensor parameters, then the views."""
        return (*self.tensors, *self.views)

    def tensor(self, name: str) -> Tensor | View:
        """The tensor parameter or the view of that name."""
        return next(t for t in self.arrays if t.name == name)

    def memory(self, name: str) -> str:
        """The tensor parameter in whose memory a tensor or a view lies."""
        found = self.tensor(name)
        return found.base if isinstance(found, View) else name


@dataclass(frozen=True, slots=True)
class AxisInfo:
    """Where an axis comes from: its lanes are ``start <= index < stop``; a span's ``length`` is known, a tile's is the schedule's choice.
    An axis of kind ``group`` has some lanes of another axis, with the same ends."""

    name: str
    kind: Literal["grid", "loop", "span", "group"]
    start: Expr
    stop: Expr
    length: int | None
