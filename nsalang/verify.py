"""What holds after each pass, beside what always holds (wellformed.py). A breach is a fault of the compiler: an AssertionError.

``STAGES`` is the one list of stages and of their claims: a claim of a stage holds from there on, one ``until`` a stage holds before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nsalang import ir
from nsalang.dtypes import F32, I32, I64
from nsalang.printer import print_kernel
from nsalang.wellformed import body_nodes, check, text_of

# ---------------------------------------------------------------------------------------------------------------------- stages

Claim = Callable[[ir.Kernel], None]


def verify(kernel: ir.Kernel, stage: str) -> None:
    """Check a kernel as it is after ``stage`` (``typecheck`` or the name of a pass). Raises AssertionError."""
    names = [s.name for s in STAGES]
    assert stage in names, f"no stage '{stage}': there are {', '.join(names)}"
    reached = names.index(stage)
    try:
        check(kernel)
        for i, s in enumerate(STAGES):
            for claim in s.until if i > reached else s.claims:
                claim(kernel)
    except AssertionError as error:
        raise AssertionError(f"{kernel.name} after {stage}: {error}\n{print_kernel(kernel)}") from None


@dataclass(frozen=True, slots=True)
class Stage:
    """``claims`` hold from this stage on; ``until`` are those that hold only before it, as it makes what they forbid."""

    name: str
    claims: tuple[Claim, ...] = ()
    until: tuple[Claim, ...] = ()


def no_masks(kernel: ir.Kernel) -> None:
    for node in ir.walk(kernel):
        assert not isinstance(node, ir.Load) or (node.mask is None and node.fill is None), f"a mask in {text_of(node)}"
        assert not isinstance(node, ir.Store) or node.mask is None, f"a mask at a store to {node.tensor}"


def no_machine_operations(kernel: ir.Kernel) -> None:
    for node in ir.walk(kernel):
        assert not (isinstance(node, ir.Cast) and node.mode == "raw"), f"a raw cast in {text_of(node)}"
        assert not (isinstance(node, ir.Binary) and node.op in ("tdiv", "tmod")), f"a truncating division in {text_of(node)}"
        assert not isinstance(node, ir.Tensor) or node.storage is None, f"{text_of(node)} has a storage type"


def signed_is_i64(kernel: ir.Kernel) -> None:
    """Arithmetic on signed integers is mathematical. (Loads, and casts on the way to a store, have a tensor's width.)"""
    for node in ir.walk(kernel):
        if isinstance(node, ir.Dim | ir.Index | ir.Unary | ir.Binary | ir.Reduce | ir.Scan):
            assert node.dtype.kind != "signed" or node.dtype is I64, f"{node.dtype} in {text_of(node)}"


def all_axes_ordered(kernel: ir.Kernel) -> None:
    order, axes = kernel.schedule.order, ir.axes_of(kernel)
    assert sorted(order) == sorted(axes), f"the order {order} is not that of the axes {tuple(axes)}"


def all_axes_have_lengths(kernel: ir.Kernel) -> None:
    lengths = dict(kernel.schedule.lengths)
    assert len(lengths) == len(kernel.schedule.lengths), "an axis has two lengths"
    for name, axis in ir.axes_of(kernel).items():
        assert name in lengths, f"axis {name} has no machine length"
        assert _is_power(lengths[name]), f"{name} has {lengths[name]} lanes, which is no power of two"
        assert axis.length is None or lengths[name] >= axis.length, f"{name} has {lengths[name]} lanes for a span of {axis.length}"
    assert _is_power(kernel.schedule.warps) and kernel.schedule.stages >= 1, "no launch has so many warps or stages"


def guards_became_masks(kernel: ir.Kernel) -> None:
    """An author's guard is in the mask, a store has a mask over each span that the machine pads, and only masks need fills."""
    spans = {n.axis: n for n in ir.walk(kernel) if isinstance(n, ir.SpanAxis)}
    for node in ir.walk(kernel):
        if isinstance(node, ir.Load):
            assert node.guard is None or node.mask is not None, f"a guard without a mask in {text_of(node)}"
            assert node.fill is None or node.mask is not None, f"a fill without a mask in {text_of(node)}"
        elif isinstance(node, ir.Store):
            assert node.guard is None or node.mask is not None, f"a guard without a mask at a store to {node.tensor}"
            for axis in node.axes:
                padded = axis in spans and (spans[axis].stop is not None or spans[axis].length < kernel.schedule.length(axis))
                assert not padded or (node.mask is not None and axis in node.mask.axes), (
                    f"padded lanes of {axis} are stored to {node.tensor}"
                )


UNARY = ("neg", "not", "invert", "abs", "exp", "exp2", "log", "log2", "sqrt", "rsqrt", "floor", "ceil")
BINARY = ("add", "sub", "mul", "div", "tdiv", "tmod", "and", "or", "xor", "shl", "shr", "min", "max", *ir.COMPARISONS)


def only_machine_operations(kernel: ir.Kernel) -> None:
    for node in body_nodes(kernel):
        match node:
            case ir.Unary():
                assert node.op in UNARY, f"no machine has {text_of(node)}"
            case ir.Binary():
                assert node.op in BINARY, f"no machine has {text_of(node)}"
            case ir.Reduce():
                assert node.op in ("sum", "max", "min"), f"no machine has {text_of(node)}"
            case ir.Cast():
                assert node.mode == "raw", f"a cast that is not raw: {text_of(node)}"
            case _:
                pass
        if isinstance(node, ir.Unary | ir.Binary) and node.op not in ir.COMPARISONS:
            assert not node.dtype.is_float or node.dtype is F32, f"{node.dtype} arithmetic: {text_of(node)}"


def integers_have_machine_widths(kernel: ir.Kernel) -> None:
    """Dimensions, indices and so every offset have one width; no signed arithmetic is narrower than i32."""
    width = I64 if kernel.schedule.wide else I32
    for node in body_nodes(kernel):
        if isinstance(node, ir.Dim | ir.Index):
            assert node.dtype is width, f"{text_of(node)} is {node.dtype}, and offsets are {width}"
        elif isinstance(node, ir.Unary | ir.Binary | ir.Reduce | ir.Scan):
            assert node.dtype.kind != "signed" or node.dtype in (I32, I64), f"{node.dtype} in {text_of(node)}"
        elif isinstance(node, ir.For):
            assert node.lo.dtype is node.hi.dtype, f"the loop over {node.index} runs from {node.lo.dtype} to {node.hi.dtype}"


def flat(kernel: ir.Kernel) -> None:
    tops = {id(n.value) for n in body_nodes(kernel) if isinstance(n, ir.Assign)}
    for node in body_nodes(kernel):
        if isinstance(node, ir.Load | ir.Reduce | ir.Scan):
            assert id(node) in tops, f"{text_of(node)} is part of a statement"


STAGES = (
    Stage("typecheck"),
    Stage("simplify"),
    Stage("order", (all_axes_ordered,)),
    Stage("tiles", (all_axes_have_lengths,)),
    Stage("guard", (guards_became_masks,), (no_masks,)),
    Stage("legalize", (only_machine_operations,), (no_machine_operations,)),
    Stage("width", (integers_have_machine_widths,), (signed_is_i64,)),
    Stage("flatten", (flat,)),
)


def _is_power(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0
