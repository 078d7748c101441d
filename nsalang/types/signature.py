"""What a caller of a kernel must know: its parameters with dtypes, shapes and roles, before any variant is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from nsalang import ir, syntax
from nsalang.base.dtypes import ALL, DType
from nsalang.base.source import Diagnostic, NsaError, Span

Setting: TypeAlias = "int | float | bool | DType"
"""The value of a const parameter or of a dtype parameter."""

RESERVED_ANNOTATIONS = ("const", "dtype")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. ``dtype`` is None for ``const`` and ``dtype`` parameters, and where it is the generic dtype parameter ``generic``."""

    name: str
    kind: Literal["tensor", "scalar", "const", "dtype"]
    dtype: DType | None
    generic: str | None
    role: Literal["in", "out", "inout"]
    shape: tuple[ir.Expr, ...]
    extents: tuple[str, ...]
    optional: bool
    default: Setting | None
    has_default: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Signature:
    """``dims``: dimensions in order of appearance; ``specialised``: those that a span length needs, whose value is part of a variant."""

    name: str
    parameters: tuple[Parameter, ...]
    dims: tuple[str, ...]
    specialised: tuple[str, ...]
    docstring: str | None
    span: Span

    def parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.parameters if p.name == name), None)


def is_kernel(function: syntax.Function) -> bool:
    """Whether a ``def`` holds a ``grid``: others are helpers or programs."""
    return any(_has_grid(s) for s in function.body)


def is_helper(function: syntax.Function) -> bool:
    """Whether a ``def`` is written out where it is called: it has no grid, and returns values."""
    return not is_kernel(function) and any(_returns(s) for s in function.body)


def is_program(function: syntax.Function) -> bool:
    """Whether a ``def`` calls kernels: it has no grid, returns nothing, and holds a call or scratch."""
    return not is_kernel(function) and not is_helper(function) and any(_calls(s) for s in function.body)


def called(node: syntax.Expr) -> str | None:
    """The name that a call calls."""
    return node.function.id if isinstance(node, syntax.Call) and isinstance(node.function, syntax.Name) else None


def called_kernels(statements: tuple[syntax.Statement, ...]) -> tuple[str, ...]:
    """What a program's statements call, under any condition, in order."""
    found: dict[str, None] = {}
    for statement in statements:
        match statement:
            case syntax.ExprStatement(value=value):
                found |= dict.fromkeys(n for n in (called(value),) if n is not None)
            case syntax.If(body=body, orelse=orelse):
                found |= dict.fromkeys(called_kernels((*body, *orelse)))
    return tuple(found)


def _calls(statement: syntax.Statement) -> bool:
    match statement:
        case syntax.ExprStatement(value=value):
            return called(value) not in (None, "require", "promise", "partial", "scatter", "atomic_add")
        case syntax.Assign(values=values):
            return any(called(v) == "empty" for group in values for v in (group.items if isinstance(group, syntax.Tuple) else (group,)))
        case syntax.For(body=body):
            return any(_calls(s) for s in body)
        case syntax.If(body=body, orelse=orelse):
            return any(_calls(s) for s in (*body, *orelse))
    return False


def _returns(statement: syntax.Statement) -> bool:
    match statement:
        case syntax.Return(values=values):
            return bool(values)
        case syntax.For(body=body):
            return any(_returns(s) for s in body)
        case syntax.If(body=body, orelse=orelse):
            return any(_returns(s) for s in (*body, *orelse))
    return False


def _has_grid(statement: syntax.Statement) -> bool:
    match statement:
        case syntax.For(iterable=syntax.Call(function=syntax.Name(id="grid"))):
            return True
        case syntax.For(body=body):
            return any(_has_grid(s) for s in body)
        case syntax.If(body=body, orelse=orelse):
            return any(_has_grid(s) for s in (*body, *orelse))
    return False


def functions(file: syntax.File) -> dict[str, syntax.Function]:
    """The functions of a file by name. Raises NSA0204 where a name is defined twice."""
    found: dict[str, syntax.Function] = {}
    problems = []
    for item in file.items:
        if isinstance(item, syntax.Function):
            if item.name in found:
                problems.append(Diagnostic("NSA0204", f"'{item.name}' is defined twice", item.name_span))
            found[item.name] = item
    if problems:
        raise NsaError(*problems)
    return found


@dataclass(frozen=True, slots=True)
class Annotation:
    """A parameter's annotation taken apart; ``extents`` is None for a scalar."""

    role: Literal["in", "out", "inout"]
    dtype_name: str
    dtype_span: Span
    extents: tuple[syntax.Expr, ...] | None


def annotation_of(parameter: syntax.Parameter) -> Annotation:
    """Take ``Out[f32[M, N]]`` apart. Raises NSA0319 for anything that isn't a type."""
    where = parameter.annotation
    hint = "a parameter is a tensor (f32[M, N], Out[...], InOut[...]), a scalar (f32, i32, ...), const or dtype"
    if where is None:
        raise NsaError.at("NSA0319", f"parameter '{parameter.name}' has no type", parameter.name_span, help=hint)
    role: Literal["in", "out", "inout"] = "in"
    node = where
    if isinstance(node, syntax.Subscript) and isinstance(node.value, syntax.Name) and node.value.id in ("Out", "InOut"):
        role = "out" if node.value.id == "Out" else "inout"
        if len(node.indices) != 1:
            raise NsaError.at("NSA0319", f"'{node.value.id}' takes one tensor type", node.span, help=hint)
        node = node.indices[0]
    if isinstance(node, syntax.Name):
        return Annotation(role, node.id, node.span, None)
    if isinstance(node, syntax.Subscript) and isinstance(node.value, syntax.Name):
        return Annotation(role, node.value.id, node.value.span, node.indices)
    named = node.value if isinstance(node, syntax.Subscript) else node
    if isinstance(named, syntax.Attribute) and (named.name in ALL or named.name in ("Out", "InOut")):
        hint = f"names of the language stand alone: {named.name}"
    raise NsaError.at("NSA0319", f"the type of parameter '{parameter.name}' can't be understood", where.span, help=hint)


def dimension_names(function: syntax.Function) -> tuple[str, ...]:
    """Names in tensor extents that are no const parameters, in order of appearance."""
    constants = {p.name for p in function.parameters if isinstance(p.annotation, syntax.Name) and p.annotation.id in RESERVED_ANNOTATIONS}
    found: dict[str, None] = {}
    for parameter in function.parameters:
        if parameter.annotation is None or (
            isinstance(parameter.annotation, syntax.Name) and parameter.annotation.id in RESERVED_ANNOTATIONS
        ):
            continue
        for extent in annotation_of(parameter).extents or ():
            for name in names_in(extent):
                if name.id not in constants:
                    found[name.id] = None
    return tuple(found)


def names_in(node: syntax.Expr) -> list[syntax.Name]:
    """Every name of a value in an expression, in order: not those of functions that it calls."""
    match node:
        case syntax.Name():
            return [node]
        case syntax.Paren(value=value) | syntax.Unary(value=value) | syntax.Attribute(value=value):
            return names_in(value)
        case syntax.Binary(left=left, right=right):
            return names_in(left) + names_in(right)
        case syntax.Compare(first=first, rest=rest):
            return [n for e in (first, *rest) for n in names_in(e)]
        case syntax.Conditional(value=value, condition=condition, other=other):
            return names_in(value) + names_in(condition) + names_in(other)
        case syntax.Call(arguments=arguments, keywords=keywords):
            return [n for e in (*arguments, *(k.value for k in keywords)) for n in names_in(e)]
        case syntax.Subscript(value=value, indices=indices):
            return names_in(value) + [n for e in indices for n in names_in(e)]
        case syntax.Tuple(items=items):
            return [n for e in items for n in names_in(e)]
    return []


def specialised_names(function: syntax.Function, dims: tuple[str, ...]) -> tuple[str, ...]:
    """Dimensions that a span length uses, through local names too."""
    meaning: dict[str, set[str]] = {d: {d} for d in dims}
    needed: set[str] = set()

    def look(node: syntax.Expr) -> set[str]:
        return set().union(*(meaning.get(n.id, set()) for n in names_in(node)), set())

    def visit(statements: tuple[syntax.Statement, ...]) -> None:
        for s in statements:
            match s:
                case syntax.Assign(targets=targets, values=values):
                    flat = [v for group in values for v in (group.items if isinstance(group, syntax.Tuple) else (group,))]
                    for value in flat:
                        if isinstance(value, syntax.Call) and isinstance(value.function, syntax.Name) and value.function.id == "span":
                            lengths = value.arguments[:1] if len(value.arguments) == 1 else value.arguments[1:2]
                            for length in lengths:
                                needed.update(look(length))
                    for group in targets:
                        values_of = flat * len(group) if len(flat) == 1 else flat  # lo, hi = split(…)
                        for target, value in zip(group, values_of, strict=False):
                            if isinstance(target, syntax.Name) and target.id not in dims:
                                meaning[target.id] = look(value) | meaning.get(target.id, set())
                case syntax.For(body=body):
                    visit(body)
                case syntax.If(body=body, orelse=orelse):
                    visit(body)
                    visit(orelse)

    visit(function.body)
    return tuple(d for d in dims if d in needed)


def call_arguments(function: syntax.Function, node: syntax.Call) -> dict[str, syntax.Expr]:
    """The arguments of a kernel's call by parameter: positional ones are the parameters that are no Out, in order. What fits nowhere is left out."""
    by_position = [p.name for p in function.parameters if annotation_of(p).role != "out"]
    known = {p.name for p in function.parameters}
    return dict(zip(by_position, node.arguments, strict=False)) | {k.name: k.value for k in node.keywords if k.name in known}


def program_dims(file: syntax.File, function: syntax.Function) -> tuple[str, ...]:
    """Dimensions of a program whose value a kernel that it calls needs for a span: its own, in the extents of what it hands on there."""
    dims = dimension_names(function)
    kernels = {n: f for n, f in functions(file).items() if is_kernel(f)}
    meaning: dict[str, set[str]] = {d: {d} for d in dims}
    extents = {p.name: annotation_of(p).extents or () for p in function.parameters}
    needed: set[str] = set()

    def look(node: syntax.Expr) -> set[str]:
        return set().union(*(meaning.get(n.id, set()) for n in names_in(node)), set())

    def call(node: syntax.Call) -> None:
        kernel = kernels.get(called(node) or "")
        if kernel is None:
            return
        wanted = specialised_names(kernel, dimension_names(kernel))
        given = call_arguments(kernel, node)
        for parameter in kernel.parameters:
            argument = given.get(parameter.name)
            if argument is None:
                continue
            if parameter.name in wanted:
                needed.update(look(argument))
            if isinstance(argument, syntax.Name):
                theirs = annotation_of(parameter).extents or ()
                for own, extent in zip(extents.get(argument.id, ()), theirs, strict=False):
                    if any(n.id in wanted for n in names_in(extent)):
                        needed.update(look(own))

    def visit(statements: tuple[syntax.Statement, ...]) -> None:
        for s in statements:
            match s:
                case syntax.Assign(targets=(targets,), values=values):
                    flat = [v for group in values for v in (group.items if isinstance(group, syntax.Tuple) else (group,))]
                    for target, value in zip(targets, flat, strict=False):
                        if isinstance(target, syntax.Name) and isinstance(value, syntax.Call) and called(value) == "empty":
                            extents[target.id] = next((a.indices for a in value.arguments if isinstance(a, syntax.Subscript)), ())
                        elif isinstance(target, syntax.Name) and target.id not in dims:
                            meaning[target.id] = look(value) | meaning.get(target.id, set())
                case syntax.ExprStatement(value=syntax.Call() as value):
                    call(value)
                case syntax.If(body=body, orelse=orelse):
                    visit(body)
                    visit(orelse)

    visit(function.body)
    return tuple(d for d in dims if d in needed)
