"""What a call's sizes and scalars decide and what they break: the variant, the requirements, the number of instances."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nsalang import ir
from nsalang.base.source import NsaError
from nsalang.base.target import Target
from nsalang.build.compiled import Compiled
from nsalang.build.pipeline import Meaning
from nsalang.host.extents import Number, Undefined, evaluate, known_at_launch, names
from nsalang.host.memory import LONGEST_TILE, NARROW
from nsalang.ir.linear import Facts
from nsalang.launch.binding import Bound, undetermined
from nsalang.types.signature import Signature

MOST_PROGRAMS = 2**31 - 1


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


def check_requires(kernel: ir.Kernel, dims: Mapping[str, int], scalars: Mapping[str, Number], checked: Collection[ir.Require] = ()) -> None:
    """Evaluate what the kernel requires of dimensions and scalars, but for what is ``checked``. Raises NSA0514 for the first that fails."""
    # Implied ones first: they say that a divisor in another is not 0.
    for require in sorted((r for r in kernel.requires if r not in checked), key=lambda r: not r.implied):
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
