"""What is said of a violation: the sentence, and the note with sizes, instance, data and index, in the author's own names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nsalang import ir
from nsalang.base.dtypes import BOOL
from nsalang.base.source import Span
from nsalang.proof.obligations import Obligation
from nsalang.refute.evaluate import Element, Number, evaluate

_OPERATORS = {
    "add": ("+", 4), "sub": ("-", 4), "mul": ("*", 5), "floordiv": ("//", 5), "mod": ("%", 5), "and": ("&", 2), "or": ("|", 1),
    "lt": ("<", 3), "le": ("<=", 3), "gt": (">", 3), "ge": (">=", 3), "eq": ("==", 3), "ne": ("!=", 3),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One violation: where it is seen, and the values of everything in it."""

    kernel: ir.Kernel
    obligation: Obligation
    names: Mapping[str, Number]
    at: Mapping[str, int]
    other: Mapping[str, int]
    indices: tuple[int, ...]
    value: int | None
    element: Element


def plain_values(at: Mapping[str, int]) -> dict[str, int]:
    """Index variables by their names in the IR and in the source."""
    return {**{ir.plain(n): v for n, v in at.items()}, **at}


def text(node: ir.Expr, level: int = 0) -> str:
    """An integer or bool expression as an author would write it."""
    match node:
        case ir.Const():
            return str(node.value)
        case ir.Dim() | ir.Scalar() | ir.Index() | ir.Var():
            return ir.plain(node.name)
        case ir.Cast():
            return text(node.x, level)
        case ir.Load():
            return f"{node.tensor}[{', '.join(text(i) for i in node.indices)}]"
        case ir.Unary(op="neg"):
            return f"-{text(node.x, 6)}"
        case ir.Unary(op="not"):
            return f"not {text(node.x, 6)}"
        case ir.Binary(op="min" | "max"):
            return f"{node.op}imum({text(node.a)}, {text(node.b)})"
        case ir.Binary() if node.op in _OPERATORS:
            sign, own = _OPERATORS[node.op]
            inner = 3 if own <= 2 else own
            made = f"{text(node.a, inner + (own <= 3))} {sign} {text(node.b, inner + 1)}"
            return f"({made})" if own < level else made
    return f"{type(node).__name__.lower()}(…)"


def access_of(kernel: ir.Kernel, o: Obligation) -> ir.Load | ir.Store | None:
    """The access that an obligation is about."""
    for statement in kernel.body:
        for node in ir.walk(statement):
            if isinstance(node, (ir.Load, ir.Store)) and node.span is not None and node.span == o.span and node.tensor == o.tensor:
                return node
    return None


def text_of(span: Span | None) -> str:
    """What the author wrote there, on one line."""
    if span is None:
        return ""
    lines = [span.source.line(n) for n in range(span.line, span.end_line + 1)]
    lines[-1] = lines[-1][: span.end_column - 1]
    lines[0] = lines[0][span.column - 1 :]
    return " ".join(line.strip() for line in lines)


def place(written: str) -> str:
    """``y[n]`` of ``y[n] = e``; anything else unchanged."""
    found = re.match(r"(\w+\[(?:[^\[\]]|\[(?:[^\[\]]|\[[^\[\]]*\])*\])*\])\s*=[^=]", written)
    return found[1] if found else written


def sentence(kernel: ir.Kernel, o: Obligation) -> str:
    written = text_of(o.span) or o.what
    match o.kind:
        case "range":
            verb = "write" if isinstance(access_of(kernel, o), ir.Store) else "read"
            extent = kernel.tensor(o.tensor).shape[o.position]
            return f"'{place(written)}' may {verb} outside: axis {o.position} of '{o.tensor}' has {_elements(text(extent))}"
        case "divisor" if _is_split(o):
            return f"'{written}' may split a negative number, or into no parts"
        case "divisor":
            return f"the divisor of '{written}' may be 0"
        case "shift":
            return f"'{written}' may shift by less than 0 or by {_bits(o)} or more"
        case "fits":
            return f"the value of '{written}' may not fit {dtype_of(kernel, o)}"
        case "overflow" if o.position:
            return f"the axis that begins or ends at '{written}' may leave 64 bits"
        case "overflow":
            return f"'{written}' may leave 64 bits"
        case "race":
            return f"two instances may write one element of '{o.tensor}': {_two(o)}"
        case "twice":
            return f"'{place(written)}' may write one element of '{o.tensor}' twice at once"
        case "order":
            return f"an instance may read what another one writes: {_two(o)}"
        case "coverage":
            return f"an element of '{o.tensor}' may stay unwritten, and an Out is written in every element"
        case "view":
            base = kernel.memory(o.tensor)
            return f"the view '{o.tensor}' may {'reach past the end of' if o.position else 'be misaligned in'} '{base}'"
        case "overlap":
            base = kernel.memory(o.tensor)
            if " and " in o.what:
                return f"{_two(o)} may share bytes of '{base}', and one of them is written"
            return f"elements of '{o.what}' may share bytes of '{base}', and they are written"
        case "hypotheses":
            return "the requirements contradict each other"
    raise AssertionError(o.kind)


def _is_split(o: Obligation) -> bool:
    """Whether the divisor is the number of parts of a ``split``: its goal also says that what is split is not negative."""
    return isinstance(o.goal, ir.Binary) and o.goal.op == "and"


def _two(o: Obligation) -> str:
    parts = [f"'{p}'" for p in o.what.split(" and ", 1)]
    return " and ".join(parts)


def claim(kernel: ir.Kernel, o: Obligation) -> str:
    written = text_of(o.span) or o.what
    match o.kind:
        case "range":
            return f"'{place(written)}' stays inside '{o.tensor}' along axis {o.position}"
        case "divisor" if _is_split(o):
            return f"'{written}' splits what is not negative into at least one part"
        case "divisor":
            return f"the divisor of '{written}' is never 0"
        case "shift":
            return f"'{written}' shifts by an amount in range"
        case "fits":
            return f"the value of '{written}' fits {dtype_of(kernel, o)}"
        case "overflow" if o.position:
            return f"the axis that begins or ends at '{written}' stays within 64 bits, with the lanes that pad it"
        case "overflow":
            return f"'{written}' stays within 64 bits"
        case "race":
            return f"two instances never write one element of '{o.tensor}': {_two(o)}"
        case "twice":
            return f"'{place(written)}' writes each element once"
        case "order":
            return f"no instance reads what another one writes: {_two(o)}"
        case "coverage":
            return f"every element of '{o.tensor}' is written"
        case "view":
            return f"the view '{o.tensor}' lies inside '{kernel.memory(o.tensor)}', and aligned"
        case "overlap":
            return f"{_two(o)} share no memory" if " and " in o.what else f"no two elements of '{o.what}' share memory"
        case "hypotheses":
            return "the requirements and promises can hold together"
    raise AssertionError(o.kind)


def _elements(count: str) -> str:
    return f"{count} element{'' if count == '1' else 's'}"


def _bits(o: Obligation) -> str:
    match o.goal:
        case ir.Binary(op="and", b=ir.Binary(b=ir.Const(value=bits))):
            return str(bits)
    return "its width"


def dtype_of(kernel: ir.Kernel, o: Obligation) -> str:
    for statement in kernel.body:
        for node in ir.walk(statement):
            if isinstance(node, ir.Cast) and node.span == o.span and node.mode == "convert" and node.dtype.bits < 64:
                return str(node.dtype)
    return "its dtype"


def _operand(kernel: ir.Kernel, o: Obligation) -> str:
    """The text of what is converted."""
    for statement in kernel.body:
        for node in ir.walk(statement):
            if isinstance(node, ir.Cast) and node.span == o.span and node.x.span is not None and node.x.span != o.span:
                return text_of(node.x.span)
    return "the value"


def note(case: Case) -> str:
    """``with S = 1, T = 4: at s = 0, k = 0: idx[0, 0] = -1, so t = -1 and kv[-1, 0] lies outside kv[4, 576]``."""
    o, kernel = case.obligation, case.kernel
    head = f"with {_listed(sizes)}: " if (sizes := _sizes(case)) else ""
    elements = _read(case)
    match o.kind:
        case "race" | "order":
            data = f"{_joined(sorted(elements))}, so " if elements else ""
            names = [g.name for g in kernel.grid]
            pair = [{n: v[n] for n in names if n in v} for v in (case.at, case.other)]
            if o.kind == "race":
                pair.sort(key=lambda v: tuple(v.values()))
            one, two = (_listed(v) for v in pair)
            what = f"{o.tensor}[{', '.join(map(str, case.indices))}]"
            if o.kind == "race":
                return f"{head}{data}the instances {one} and {two} both write {what}"
            return f"{head}{data}the instance {one} writes {what}, and the instance {two} reads it"
        case "twice":
            differ = {n: v for n, v in case.at.items() if case.other.get(n) != v}
            one, two = _listed(differ), _listed({n: case.other[n] for n in differ if n in case.other})
            data = f"{_joined(sorted(elements))}, so " if elements else ""
            return f"{head}{data}the lanes {one} and {two} both write {o.tensor}[{', '.join(map(str, case.indices))}]"
        case "coverage":
            return f"{head}nothing writes {o.tensor}[{', '.join(map(str, case.indices))}]"
        case "view" | "overlap":
            return f"{head}{_bytes(case)}"
    here = {n: case.at[n] for n in _variables(case) if n in case.at}
    head += f"at {_listed(here)}: " if here else ""
    made = _consequence(case)
    data = f"{_joined(elements)}, " if elements else ""
    return f"{head}{data}{'so ' if elements else ''}{made}"


def _consequence(case: Case) -> str:
    o, kernel = case.obligation, case.kernel
    written = text_of(o.span)
    match o.kind:
        case "range":
            shape = [evaluate(e, case.names) for e in kernel.tensor(o.tensor).shape]
            extents = ", ".join("?" if e is None else str(e) for e in shape)
            access = access_of(kernel, o)
            index = text_of(access.indices[o.position].span) if access is not None and case.indices else ""
            value = case.indices[o.position] if case.indices else case.value
            where = f"{o.tensor}[{', '.join(map(str, case.indices))}]" if case.indices else f"index {value}"
            end = f"{where} lies outside {o.tensor}[{extents}]"
            simple = re.fullmatch(r"-?\d+", index) or index in case.at or re.fullmatch(r"\w+\[.*\]", index)
            if not index or simple:
                return end
            joint = " and " if _read(case) else ", so "
            return f"{index} = {value}{joint}{end}"
        case "divisor" if _is_split(o):
            if case.value is None:
                return "there is no part, or what is split is negative"
            return f"there are {case.value} parts" if case.value <= 0 else "what is split is negative"
        case "divisor":
            return "the divisor is 0"
        case "shift":
            return f"the amount is {case.value}"
        case "fits":
            return f"{_operand(kernel, o)} = {case.value}, which {dtype_of(kernel, o)} cannot hold"
        case "overflow" if o.position:
            return "its indices, its length or the lanes that pad it leave 64 bits"
        case "overflow":
            return f"{written} leaves 64 bits" if case.value is None else f"{written} = {case.value}, which 64 bits cannot hold"
    raise AssertionError(o.kind)


def _bytes(case: Case) -> str:
    """Where the elements of views lie."""
    o, kernel = case.obligation, case.kernel
    view, base = kernel.tensor(o.tensor), kernel.tensor(kernel.memory(o.tensor))
    size = math.prod(int(evaluate(e, case.names) or 0) for e in base.shape) * base.dtype.bytes
    if o.kind == "overlap":
        one, _, two = o.what.partition(" and ")
        first, second = _element(case, one, ""), _element(case, two or one, "'")
        return f"{first[0]} and {second[0]} share byte {max(first[1], second[1])} of {base.name}"
    assert isinstance(view, ir.View)
    if o.position:
        name, start = _element(case, view.name, "")
        return f"{name} ends at byte {start + view.dtype.bytes} of {base.name}, which has {size}"
    steps = {"offset": view.offset, **{f"stride of axis {p}": s for p, s in enumerate(view.strides)}}
    values = {what: int(evaluate(e, case.names) or 0) for what, e in steps.items()}
    what, value = next((w, v) for w, v in values.items() if v % view.dtype.bytes or v < 0)
    return f"the {what} is {value}" + ("" if value < 0 else f", and {view.dtype} has {view.dtype.bytes} bytes")


def _element(case: Case, name: str, mark: str) -> tuple[str, int]:
    """An element of a tensor or view that the model names, and the byte of the memory where it begins."""
    tensor = case.kernel.tensor(name)
    place = [case.other[f"{name}@{p}"] if mark else case.at[f"{name}@{p}"] for p in range(len(tensor.shape))]
    if isinstance(tensor, ir.View):
        start = int(evaluate(tensor.offset, case.names) or 0)
        start += sum(i * int(evaluate(s, case.names) or 0) for i, s in zip(place, tensor.strides, strict=True))
    else:
        start = 0
        for i, e in zip(place, tensor.shape, strict=True):
            start = start * int(evaluate(e, case.names) or 0) + i
        start *= tensor.dtype.bytes
    return f"{name}[{', '.join(map(str, place))}]", start


def _listed(values: Mapping[str, Number]) -> str:
    return ", ".join(f"{ir.plain(n)} = {v}" for n, v in values.items())


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def _read(case: Case) -> list[str]:
    """The integer elements that the obligation depends on, with their values; of two instances (the second's index variables have a prime), both's."""
    values: dict[str, Number] = {**case.names, **plain_values(case.at), **{f"{n}'": v for n, v in case.other.items()}}
    found: dict[str, None] = {}
    for load in _loads(case.obligation):
        indices = [evaluate(i, values, case.element) for i in load.indices]
        value = evaluate(load, values, case.element)
        if value is not None:
            shown = int(value) if load.dtype is not BOOL else bool(value)
            found[f"{load.tensor}[{', '.join(str(i) for i in indices)}] = {shown}"] = None
    return list(found)


def _about(o: Obligation) -> list[ir.Expr]:
    """What decides an obligation: its goal (for two accesses, what makes them meet), and the bounds of the index variables in it."""
    found: list[ir.Expr] = [o.goal] if o.kind not in ("race", "order", "twice") else [o.facts[-1]]
    if o.kind != "range":
        return found
    seen = {n.name for n in ir.walk(o.goal) if isinstance(n, ir.Index)}
    for fact in o.facts:
        match fact:
            case ir.Binary(op="lt" | "le", a=ir.Index(name=name), b=bound) | ir.Binary(op="lt" | "le", a=bound, b=ir.Index(name=name)):
                if name in seen and any(isinstance(n, ir.Load) for n in ir.walk(bound)):
                    found.append(bound)
    return found


def _loads(o: Obligation) -> list[ir.Load]:
    """What decides an obligation reads, innermost first."""
    found: dict[ir.Load, None] = {}

    def down(node: ir.Node) -> None:
        for child in ir.children(node):
            down(child)
        if isinstance(node, ir.Load):
            found.setdefault(node)

    for e in _about(o):
        down(e)
    return list(found)


def _variables(case: Case) -> list[str]:
    """The index variables that matter, the grid's first."""
    used = {n.name for e in (case.obligation.goal, *_about(case.obligation)) for n in ir.walk(e) if isinstance(n, ir.Index)}
    ordered = [*(g.name for g in case.kernel.grid), *case.at]
    return [n for n in dict.fromkeys(ordered) if n in used]


def _sizes(case: Case) -> dict[str, Number]:
    """Dimensions and scalars in the goal, and those that bound its index variables."""
    o = case.obligation
    used = {n.name for n in _symbols(o.goal)}
    indices = {n.name for e in (o.goal, *_about(o)) for n in ir.walk(e) if isinstance(n, ir.Index)}
    for fact in o.facts:
        match fact:
            case ir.Binary(op="lt" | "le", a=ir.Index(name=name), b=bound) if name in indices:
                used |= {n.name for n in _symbols(bound)}
    if o.tensor and o.kind in ("coverage", "race", "order", "twice", "view", "overlap"):
        tensors = {o.tensor, *([case.kernel.memory(o.tensor)] if o.kind in ("view", "overlap") else [])}
        used |= {n.name for t in tensors for e in case.kernel.tensor(t).shape for n in _symbols(e)}
    return {n: v for n, v in case.names.items() if n in used}


def _symbols(node: ir.Node) -> Iterator[ir.Dim | ir.Scalar]:
    return (n for n in ir.walk(node) if isinstance(n, (ir.Dim, ir.Scalar)))
