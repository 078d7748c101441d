"""Counterexamples for users: a refuted obligation becomes an error, once a launch that the prover found does, when replayed, what it says.

Where a launch is too large to run (an index past 2**31), the obligation itself is evaluated in exact integers instead: facts that all hold and
a goal that doesn't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from nsalang import ir
from nsalang.base.dtypes import ALL, I64
from nsalang.base.source import Diagnostic
from nsalang.proof import smt
from nsalang.proof.lemmas import bare, border_is, element_types
from nsalang.proof.obligations import Obligation
from nsalang.proof.prover import Result, completed
from nsalang.refute import mend
from nsalang.refute.evaluate import Element, Number, evaluate
from nsalang.refute.wording import Case, claim, dtype_of, note, plain_values, sentence

MEMORY = 2**47
"""Bytes that the tensors of a launch have together, less than: a process has no more addresses."""
CODES = {
    "range": "NSA0801",
    "divisor": "NSA0802",
    "shift": "NSA0803",
    "fits": "NSA0804",
    "race": "NSA0805",
    "twice": "NSA0806",
    "order": "NSA0807",
    "coverage": "NSA0808",
    "hypotheses": "NSA0809",
    "view": "NSA0810",
    "overlap": "NSA0811",
    "overflow": "NSA0813",
}


def diagnose(kernel: ir.Kernel, result: Result) -> Diagnostic | None:
    """The error for a REFUTED result of a typed kernel; None where no replay shows it."""
    o = result.obligation
    if o.kind == "hypotheses":
        return mend.contradiction(kernel)
    case = None
    for model in _models(kernel, o, result.model):
        case = _replayed(kernel, o, model) or _evaluated(kernel, o, model)
        if case is not None:
            break
    if case is None:
        return None
    values = {**case.names, **plain_values(case.at), **{f"{k}'": v for k, v in case.other.items()}}
    helps = mend.helps(kernel, o, values, case.element)
    return Diagnostic(CODES[o.kind], sentence(kernel, o), o.span, (note(case),), helps)


def unknown(kernel: ir.Kernel, result: Result) -> Diagnostic:
    """The error for a result that the prover could not settle, or whose counterexample does not fault when replayed."""
    o = result.obligation
    spent = f"Z3 used {result.units} of its resource units" if result.units else "Z3 was not asked"
    tried = f"tried: constants, intervals, then Z3; {spent}"
    if result.model:
        tried = "no replay of the solver's counterexample shows it: it may lack a fact about a loop, a product or a float, or be too large to run"
    allow = "guards the access by its tensor's bounds" if o.kind == "range" else "trusts it"
    return Diagnostic(
        "NSA0812",
        f"it is not settled that {claim(kernel, o)}",
        o.span,
        (tried,),
        (
            *(mend.bounded(kernel, o) or ("say what it needs in a 'require', a 'promise' or a 'where'", *_wrapping(kernel, o))),
            f"'--allow unknown' (allow='unknown' in a call) {allow}",
        ),
    )


def _wrapping(kernel: ir.Kernel, o: Obligation) -> tuple[str, ...]:
    """Arithmetic that needs no proof, where it is the size of an integer made of data that is not settled, such as that of a sum."""
    if o.kind == "overflow" and not o.position and any(isinstance(n, ir.Load) for n in ir.walk(o.goal)):
        return ("u32 wraps at 2**32 and needs no bound: convert what is added up, u32(x)",)
    dtype = dtype_of(kernel, o) if o.kind == "fits" else ""
    return (f"'wrap(…, {dtype})' keeps the low bits of any value",) if dtype in ALL else ()


# ------------------------------------------------------------------------------------------------------------------- the violation


def _models(kernel: ir.Kernel, o: Obligation, model: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
    """Counterexamples to try: small ones without empty axes, which are easier to read, then the given one."""
    some = [ir.binary("ge", ir.Dim(I64, (), d), ir.const(1)) for d in kernel.dims]
    dtypes = element_types(kernel)
    facts = completed(kernel, (*o.facts, *some), o.goal)
    borders = dict.fromkeys(n for f in (*facts, bare(o.goal)) for n in ir.walk(f) if isinstance(n, ir.Load) and n.tensor == "border")
    facts = (*facts, *(border_is(b) for b in borders))
    for small in (1, 2, 4):
        outcome = smt.prove(facts, bare(o.goal), dtypes, small=small)
        if outcome.answer == "refuted":
            yield outcome.model
            break
    if possible(kernel, model):
        yield model
        return
    memory = [ir.binary("lt", _bytes(t), ir.const(MEMORY)) for t in kernel.tensors]
    outcome = smt.prove((*completed(kernel, o.facts, o.goal), *memory), bare(o.goal), dtypes)
    if outcome.answer == "refuted" and possible(kernel, outcome.model):
        yield outcome.model


def _bytes(tensor: ir.Tensor) -> ir.Expr:
    size: ir.Expr = ir.const(tensor.dtype.bytes)
    for extent in tensor.shape:
        size = ir.binary("mul", size, extent)
    return size


def possible(kernel: ir.Kernel, model: Mapping[str, int]) -> bool:
    """Whether memory could hold the tensors of a counterexample, as far as their sizes are known."""
    known = [[evaluate(e, model) for e in t.shape] for t in kernel.tensors]
    whole = [(t, [int(e) for e in extents if e is not None]) for t, extents in zip(kernel.tensors, known, strict=True)]
    return sum(prod(extents) * t.dtype.bytes for t, extents in whole if len(extents) == len(t.shape)) < MEMORY


def _replayed(kernel: ir.Kernel, o: Obligation, model: Mapping[str, int]) -> Case | None:
    if o.kind in ("view", "overlap"):
        return None
    from nsalang.refute import replay

    event = replay.seen(kernel, o, model)
    if event is None:
        return None
    assert event.launch is not None
    names = event.launch.names
    return Case(kernel, o, names, event.at, event.other, event.indices, event.value, event.element)


def _evaluated(kernel: ir.Kernel, o: Obligation, model: Mapping[str, int]) -> Case | None:
    """The obligation in exact integers: for what a launch can't show, or only one that is too large to run."""
    given = {*(t.name for t in kernel.tensors), *(v.name for v in kernel.views)}

    def element(tensor: str, indices: tuple[int, ...]) -> Number | None:
        # What the prover invented (a loop's carried value, a count) is no evidence.
        return model.get(f"{tensor}[{', '.join(map(str, indices))}]") if tensor in given else None

    if o.kind == "coverage" or evaluate(o.goal, model, element) is not False:
        return None
    if not all(evaluate(f, model, element) is True for f in o.facts):
        return None
    if any(evaluate(f, model, element) is False for f in completed(kernel, o.facts, o.goal)):
        return None
    if o.kind not in ("view", "overlap") and not _too_large(kernel, model):
        return None
    used = {g.name for g in kernel.grid} | {
        n.name.removesuffix("'") for e in (*o.facts, o.goal) for n in ir.walk(e) if isinstance(n, ir.Index)
    }
    at = {n: v for n, v in model.items() if n in used}
    other = {n[:-1]: v for n, v in model.items() if n.endswith("'") and n[:-1] in used}
    value = _exact_operand(o, model, element)
    names = {n: model[n] for n in (*kernel.dims, *(s.name for s in kernel.scalars)) if n in model}
    return Case(kernel, o, names, at, other, (), value, element)


def _too_large(kernel: ir.Kernel, model: Mapping[str, int]) -> bool:
    from nsalang.refute.models import LARGEST

    return any(abs(model.get(d, 0)) > LARGEST for d in (*kernel.dims, *(s.name for s in kernel.scalars)))


def _exact_operand(o: Obligation, names: Mapping[str, Number], element: Element) -> int | None:
    """The value that the goal bounds."""
    bounded = bounded_value(o.goal)
    value = None if bounded is None else evaluate(bounded, names, element)
    return None if value is None else int(value)


def bounded_value(goal: ir.Expr) -> ir.Expr | None:
    """``x`` of a goal ``0 <= x and x < n``, ``x != 0`` or one half of them."""
    match goal:
        case ir.Binary(op="and", a=ir.Binary(op="le", b=b), b=ir.Binary(a=a)) if a == b:
            return b
        case ir.Binary(op="ne" | "lt", a=a):
            return a
        case ir.Binary(op="le", a=ir.Const(), b=b):
            return b
        case ir.Binary(op="le", a=a):
            return a
    return None
