"""What holds after each pass, beside what always holds (wellformed.py). A breach is a fault of the compiler: an AssertionError.

``STAGES`` is the one list of stages and of their claims: a claim of a stage holds from there on, one ``until`` a stage holds before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nsalang import ir
from nsalang.base.dtypes import I32, I64, DType
from nsalang.ir.meetings import unordered
from nsalang.ir.operations import REDUCTIONS, UNARY
from nsalang.ir.operators import BINARY
from nsalang.ir.printer import print_kernel
from nsalang.ir.wellformed import body_nodes, check, text_of

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
        if isinstance(node, ir.Dim | ir.Index | ir.Unary | ir.Binary | ir.Dot | ir.Reduce | ir.Scan):
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


def every_access_has_a_proof(kernel: ir.Kernel) -> None:
    for node in ir.walk(kernel):
        assert not isinstance(node, ir.Load | ir.Store) or node.proof is not None, f"no proof of {text_of(node)}"


def proofs_are_of_the_meaning(kernel: ir.Kernel) -> None:
    """Until there are masks, an access is PROVED or UNKNOWN."""
    for node in ir.walk(kernel):
        if isinstance(node, ir.Load | ir.Store) and node.proof is not None:
            assert node.proof in (ir.Proof("PROVED"), ir.Proof("UNKNOWN")), f"{node.proof} before there are masks: {text_of(node)}"


def proofs_fit_the_masks(kernel: ir.Kernel) -> None:
    for node in ir.walk(kernel):
        if not isinstance(node, ir.Load | ir.Store):
            continue
        proof = node.proof
        assert proof is not None, f"no proof of {text_of(node)}"
        assert bool(proof.mask) == (node.mask is not None), f"the mask is made of {proof.mask} in {text_of(node)}"
        assert node.guard is None or "author" in proof.mask, f"the author's guard is none of {proof.mask} in {text_of(node)}"
        assert "bounds" not in proof.mask or proof.verdict == "UNKNOWN", f"bounds at a {proof.verdict} access: {text_of(node)}"
        assert "tail" in proof.mask or proof.verdict != "GUARDED", f"nothing guards {text_of(node)}"
        assert "tail" not in proof.mask or proof.verdict != "PROVED", f"a tail at a {proof.verdict} access: {text_of(node)}"
        assert proof.verdict != "HOISTED" or kernel.schedule.exact, f"a variant that is not exact hoists {text_of(node)}"


def no_groups(kernel: ir.Kernel) -> None:
    assert not kernel.schedule.groups, f"groups before there are tiles: {kernel.schedule.groups}"


def groups_fit_their_axes(kernel: ir.Kernel) -> None:
    """The groups of an axis have all of its lanes, and lie behind it in the order."""
    order = kernel.schedule.order
    for node in body_nodes(kernel):
        assert not isinstance(node, ir.Spread) or isinstance(node.x, ir.Var | ir.Spread), f"no variable is spread: {text_of(node)}"
    for group, of, step in kernel.schedule.groups:
        assert step > 1 and _is_power(step), f"{group} has every {step} of {of}"
        assert kernel.schedule.length(group) * step == kernel.schedule.length(of), f"the groups {group} are not all of {of}"
        between = order[order.index(of) + 1 : order.index(group)]
        assert order.index(of) < order.index(group), f"{group} lies before {of}"
        assert set(between) <= set(kernel.schedule.groups_of(of)), f"{between} is in the way"


def exact_relies_on_hoists(kernel: ir.Kernel) -> None:
    assert kernel.hoists or not kernel.schedule.exact, "an exact variant of a kernel that hoists nothing"


def contractions_have_two_sides(kernel: ir.Kernel) -> None:
    for node in ir.walk(kernel):
        if isinstance(node, ir.Dot):
            a, b = set(node.a.axes), set(node.b.axes)
            assert a - b and b - a, f"a side without free axes: {text_of(node)}"


def contractions_have_rows(kernel: ir.Kernel) -> None:
    """The order puts batch axes, then rows, then columns, and does not split a side of an operand by the axis that is summed over."""
    order = kernel.schedule.order
    for node in ir.walk(kernel):
        if isinstance(node, ir.Dot):
            assert node.left is not None, f"no rows: {text_of(node)}"
            a, b = (x.axes for x in (node.a, node.b))
            batch = [x for x in order if x in a and x in b and x != node.over]
            columns = [x for x in order if x in node.axes and x not in node.left and x not in batch]
            ordered = [x for x in order if x in node.axes]
            assert ordered == [*batch, *node.left, *columns], f"{ordered} mixes rows and columns of {text_of(node)}"
            for side in (node.left, columns):
                assert len({order.index(x) < order.index(node.over) for x in side}) == 1, f"{node.over} splits {side} in {text_of(node)}"


def operands_are_placed(kernel: ir.Kernel) -> None:
    """TileLang: each operand of a contraction, and what is spread, is a variable in shared memory with one assignment; a left operand may be one that
    is pinned to registers. What is read ahead is a load into shared memory."""
    assigned: dict[str, list[ir.Assign]] = {}
    for node in ir.walk(kernel):
        if isinstance(node, ir.Assign):
            assigned.setdefault(node.name, []).append(node)
    spread = {n.x.name for n in body_nodes(kernel) if isinstance(n, ir.Spread) and isinstance(n.x, ir.Var)}
    if kernel.schedule.backend != "tilelang":
        assert all(n.place is None for many in assigned.values() for n in many), "Triton chooses places itself"
        return
    for name in spread:
        assert [n.place for n in assigned[name]] == ["shared"], f"'{name}' is spread, and is no variable of shared memory"
    for node in ir.walk(kernel):
        if isinstance(node, ir.Dot):
            for x in (node.a, node.b):
                assert isinstance(x, ir.Var), f"an operand of {text_of(node)} has no name"
                places = [n.place for n in assigned[x.name]]
                kept = places == ["registers"] and node.left is not None and set(node.left) <= set(x.axes)
                assert places == ["shared"] or kept, f"'{x.name}' in {text_of(node)} is no variable of shared memory"
        elif isinstance(node, ir.For):
            direct = {s.name: s for s in (*node.early, *node.body) if isinstance(s, ir.Assign)}
            assert bool(node.ahead) == (node.stages > 1), f"{node.stages} stages for {node.ahead} in the loop over {node.index}"
            for name in node.ahead:
                found = direct.get(name)
                assert found is not None and found.place == "shared" and len(assigned[name]) == 1, (
                    f"'{name}' is read ahead, and is not in the body"
                )
                load = found.value
                assert _is_made_of_loads(load, node, direct), f"'{name}' is read ahead, and is no load, nor made of loads"
                if isinstance(load, ir.Load):
                    assert load.mask is None or (load.fill is not None and load.fill.value == 0), f"masked lanes of '{name}' are not 0"


def _is_made_of_loads(x: ir.Expr, loop: ir.For, direct: dict[str, ir.Assign]) -> bool:
    """Whether a value of a loop's body depends on nothing that its steps change but the index."""
    often = [n.name for n in ir.walk(loop) if isinstance(n, ir.Assign)]
    for n in ir.walk(x):
        if isinstance(n, ir.Dot | ir.Reduce | ir.Scan):
            return False
        if isinstance(n, ir.Var) and n.name in often:
            here = direct.get(n.name)
            if here is None or often.count(n.name) > 1 or not _is_made_of_loads(here.value, loop, direct):
                return False
    return True


def no_searches_and_borders(kernel: ir.Kernel) -> None:
    for node in ir.walk(kernel):
        assert not isinstance(node, ir.Search | ir.Border), f"no machine has {text_of(node)}"


def only_machine_operations(kernel: ir.Kernel) -> None:
    for node in body_nodes(kernel):
        match node:
            case ir.Unary():
                assert UNARY[node.op].machine, f"no machine has {text_of(node)}"
            case ir.Binary():
                assert BINARY[node.op].machine, f"no machine has {text_of(node)}"
            case ir.Reduce():
                assert REDUCTIONS[node.op].machine, f"no machine has {text_of(node)}"
            case ir.Cast():
                same_bits = (
                    node.mode == "wrap" and node.dtype.is_integer and node.x.dtype.is_integer and node.dtype.bytes == node.x.dtype.bytes
                )
                assert node.mode == "raw" or same_bits, f"a cast that is not raw: {text_of(node)}"
            case _:
                pass
        if isinstance(node, ir.Unary | ir.Binary) and node.op not in ir.COMPARISONS:
            assert node.dtype.working is node.dtype, f"{node.dtype} arithmetic: {text_of(node)}"


def integers_have_machine_widths(kernel: ir.Kernel) -> None:
    """Dimensions, indices of accesses and so every offset have one width, and so has an index of 32 bits; no signed arithmetic is narrower than i32."""
    width = I64 if kernel.schedule.wide else I32
    indices: dict[str, DType] = {}
    for node in body_nodes(kernel):
        if isinstance(node, ir.Index):
            assert indices.setdefault(node.name, node.dtype) is node.dtype in (width, I64), f"{text_of(node)} is {node.dtype}"
        elif isinstance(node, ir.Dim):
            assert node.dtype is width, f"{text_of(node)} is {node.dtype}, and offsets are {width}"
        elif isinstance(node, ir.Load | ir.Store):
            assert all(i.dtype is width for i in node.indices), f"an index of {text_of(node)} is not {width}"
        elif isinstance(node, ir.Unary | ir.Binary | ir.Dot | ir.Reduce | ir.Scan):
            assert node.dtype.kind != "signed" or node.dtype in (I32, I64), f"{node.dtype} in {text_of(node)}"
        elif isinstance(node, ir.For):
            assert node.lo.dtype is node.hi.dtype, f"the loop over {node.index} runs from {node.lo.dtype} to {node.hi.dtype}"


def flat(kernel: ir.Kernel) -> None:
    tops = {id(n.value) for n in body_nodes(kernel) if isinstance(n, ir.Assign)}
    early = {id(n) for loop in body_nodes(kernel) if isinstance(loop, ir.For) for s in loop.early for n in ir.walk(s)}
    for node in body_nodes(kernel):
        if id(node) in early:
            continue  # an address there is one expression
        if isinstance(node, ir.Load | ir.Dot | ir.Reduce | ir.Scan):
            assert id(node) in tops, f"{text_of(node)} is part of a statement"
        if isinstance(node, ir.Dot):
            assert isinstance(node.a, ir.Var) and isinstance(node.b, ir.Var), f"an operand of {text_of(node)} has no name"


def no_barriers(kernel: ir.Kernel) -> None:
    assert not any(isinstance(n, ir.Barrier) for n in body_nodes(kernel)), "a barrier before there are threads"


def barriers_order_accesses(kernel: ir.Kernel) -> None:
    for statement in unordered(kernel):
        raise AssertionError(f"no barrier orders the accesses of {text_of(statement)}")


def no_long_loops(kernel: ir.Kernel) -> None:
    assert not any(isinstance(n, ir.For) and n.long for n in body_nodes(kernel)), "a long loop before there are widths"


def no_warps(kernel: ir.Kernel) -> None:
    assert all(n.warps is None for n in body_nodes(kernel) if isinstance(n, ir.Dot)), "warps of a product before its operands have names"


def products_have_warps(kernel: ir.Kernel) -> None:
    for node in body_nodes(kernel):
        if isinstance(node, ir.Dot):
            assert (node.warps is not None) == (kernel.schedule.backend == "tilelang"), f"warps {node.warps} of {text_of(node)}"


def nothing_early(kernel: ir.Kernel) -> None:
    assert not any(isinstance(n, ir.For) and n.early for n in body_nodes(kernel)), "something early before there are addresses"


def what_is_ahead_is_early(kernel: ir.Kernel) -> None:
    """What a loop reads ahead is made before its body, of nothing that the body assigns; what addresses there are made of has a barrier behind it."""
    for loop in body_nodes(kernel):
        if not isinstance(loop, ir.For) or kernel.schedule.backend != "tilelang":
            continue
        made = [s.name for s in loop.early if isinstance(s, ir.Assign)]
        assert set(loop.ahead) <= set(made), f"{loop.ahead} are read ahead in the loop over {loop.index}, and {tuple(made)} are early"
        inside = {n.name for s in loop.body for n in ir.walk(s) if isinstance(n, ir.Assign)}
        assert inside.isdisjoint(made), (
            f"{sorted(inside & set(made))} are early, and are assigned in the body of the loop over {loop.index}"
        )
        behind = (
            loop.early[[*map(type, loop.early)].index(ir.Barrier) :] if any(isinstance(s, ir.Barrier) for s in loop.early) else loop.early
        )
        for s in behind:
            assert not isinstance(s, ir.Assign) or isinstance(s.value, ir.Load), f"'{s.name}' is early, and is no load"
        read = {n.name for s in loop.early for n in ir.walk(s) if isinstance(n, ir.Var)}
        assert read.isdisjoint(inside), (
            f"{sorted(read & inside)} are read early, and are assigned in the body of the loop over {loop.index}"
        )


def no_lanes(kernel: ir.Kernel) -> None:
    for node in body_nodes(kernel):
        assert not isinstance(node, ir.Assign | ir.Store) or not (node.alone or node.widest), (
            f"lanes before there are threads: {text_of(node)}"
        )


def lanes_have_axes(kernel: ir.Kernel) -> None:
    for node in body_nodes(kernel):
        if isinstance(node, ir.Assign | ir.Store):
            axes = {a for n in ir.walk(node) if isinstance(n, ir.Value | ir.Store) for a in n.axes}
            assert set(node.alone) <= axes, f"lanes of {node.alone} are alone, and there are none: {text_of(node)}"
            assert _is_power(node.widest) or not node.widest, f"{node.widest} lanes side by side, which is no power of two: {text_of(node)}"


STAGES = (
    Stage("typecheck"),
    Stage("simplify"),
    Stage("prove", (every_access_has_a_proof,)),
    Stage("check"),
    Stage("expand", (no_searches_and_borders,)),
    Stage("contract", (contractions_have_two_sides,)),
    Stage("order", (all_axes_ordered, contractions_have_rows)),
    Stage("tiles", (all_axes_have_lengths,)),
    Stage("spread", (groups_fit_their_axes,), (no_groups,)),
    Stage("assume", (exact_relies_on_hoists,)),
    Stage("guard", (guards_became_masks, proofs_fit_the_masks), (no_masks, proofs_are_of_the_meaning)),
    Stage("place", (operands_are_placed,)),
    Stage("legalize", (only_machine_operations,), (no_machine_operations,)),
    Stage("width", (integers_have_machine_widths,), (signed_is_i64,)),
    Stage("ranges"),
    Stage("flatten", (flat,)),
    Stage("barriers", (barriers_order_accesses,), (no_barriers,)),
    Stage("around"),
    Stage("lanes", (lanes_have_axes,), (no_lanes,)),
    Stage("turns", (), (no_long_loops,)),
    Stage("warps", (products_have_warps,), (no_warps,)),
    Stage("fetch", (what_is_ahead_is_early,), (nothing_early,)),
)


def _is_power(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0
