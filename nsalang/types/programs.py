"""Programs: a ``def`` without a grid that allocates scratch and calls kernels of its file, typed into a sequence of calls.

Of each call is settled what makes the kernel's variant (constants, dtypes, presence, specialised dimensions). Extents of what is handed on are
compared as polynomials over the program's dimensions; where these do not tell, the call does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nsalang import ir, syntax
from nsalang.base.constants import Exact
from nsalang.base.dtypes import E2M1, E4M3, DType
from nsalang.base.source import Diagnostic, NsaError, Span
from nsalang.host import extents
from nsalang.types import typecheck
from nsalang.types.declarations import source_text
from nsalang.types.expressions import boolean, integer, operand
from nsalang.types.handed import constants_of, dims_of, matched, scalar_for, tensor_for
from nsalang.types.missing_grid import grid_meant, no_value
from nsalang.types.scope import Nothing, Operand, Poison, Poisoned, Scope, TensorRef, unknown
from nsalang.types.settings import Settings
from nsalang.types.signature import Parameter, Setting, called, functions, is_helper, is_kernel, is_program
from nsalang.types.statements import assigned_names, block


@dataclass(frozen=True, slots=True)
class Scratch:
    """A tensor that lives for one run of a program, contiguous and undefined at first. ``extents``: as written."""

    name: str
    dtype: DType
    shape: tuple[ir.Expr, ...]
    extents: tuple[str, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a kernel. ``tensors``: (parameter, what of the program is handed to it: a tensor parameter or scratch); ``scalars``: over the
    program's dimensions and scalars. ``settings`` (all of the kernel's), ``dims`` (its specialised ones) and ``present`` are its variant."""

    kernel: str
    tensors: tuple[tuple[str, str], ...]
    scalars: tuple[tuple[str, ir.Expr], ...]
    settings: tuple[tuple[str, Setting], ...]
    dims: tuple[tuple[str, int], ...]
    present: frozenset[str]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Program:
    """One variant of a program. ``header`` has its parameters, dimensions, requirements and promises, and neither grid nor body."""

    header: ir.Kernel
    scratch: tuple[Scratch, ...]
    calls: tuple[Call, ...]


@dataclass(slots=True)
class Draft:
    """A program while it is typed. ``filled``: tensors that a call has written; ``whole``: those it wrote in every element; ``partly``: the call
    that wrote the others."""

    file: syntax.File
    function: syntax.Function
    scope: Scope
    settings: Settings
    scratch: list[Scratch] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    filled: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    partly: dict[str, str] = field(default_factory=dict)

    def role(self, name: str) -> str:
        """What a tensor is, in words."""
        if any(s.name == name for s in self.scratch):
            return "scratch"
        ref = self.scope.names[name]
        assert isinstance(ref, TensorRef)
        return {"in": "an input", "out": "an Out", "inout": "an InOut"}[ref.role]


def specialise(file: syntax.File, name: str, settings: Settings) -> Program:
    """One variant of a program. Raises NsaError with everything that is wrong in it, and in the kernels that it calls."""
    function = functions(file)[name]
    scope, parameters = typecheck.scope_of(file, function, settings, lenient=False)
    draft = Draft(file, function, scope, settings)
    _block(draft, function.body)
    if not scope.problems:
        _check_outs(draft, parameters)
    if scope.problems:
        raise NsaError(*dict.fromkeys(scope.problems))
    computed = [*(e for s in draft.scratch for e in s.shape), *(e for c in draft.calls for _, e in c.scalars)]
    shared = typecheck.without_absent(typecheck.header(function, scope, parameters, settings), parameters, settings, computed)
    return Program(shared, tuple(draft.scratch), tuple(draft.calls))


def _check_outs(draft: Draft, parameters: tuple[Parameter, ...]) -> None:
    """Every Out is written in every element, but for ``partial`` ones."""
    for parameter in parameters:
        absent = parameter.optional and parameter.name not in draft.settings.present
        if parameter.role != "out" or absent or parameter.name in draft.scope.partial or parameter.name in draft.whole:
            continue
        name = draft.function.name
        if parameter.name in draft.partly:
            what = f"'{parameter.name}' is an Out of '{name}', and '{draft.partly[parameter.name]}' writes it in part alone"
        else:
            what = f"'{parameter.name}' is an Out of '{name}', and no call writes it"
        draft.scope.problems.append(
            Diagnostic("NSA0336", what, parameter.span, helps=(f"partial({parameter.name}) says that it is not written everywhere",))
        )


# -------------------------------------------------------------------------------------------------------------------- statements


def _block(draft: Draft, statements: tuple[syntax.Statement, ...]) -> None:
    """One statement after the other; an error ends its statement alone."""
    for statement in statements:
        try:
            _statement(draft, statement)
        except NsaError as error:
            draft.scope.problems.extend(error.diagnostics)
            _poison(draft, statement)
        except Poisoned:
            _poison(draft, statement)


def _poison(draft: Draft, statement: syntax.Statement) -> None:
    """What a wrong statement would have defined or written is not reported again."""
    for name in assigned_names((statement,)):
        if not isinstance(draft.scope.names.get(name), ir.Dim | ir.Scalar | TensorRef):
            draft.scope.names[name] = Poison()
    if isinstance(statement, syntax.ExprStatement) and isinstance(statement.value, syntax.Call):
        handed = {a.id for a in (*statement.value.arguments, *(k.value for k in statement.value.keywords)) if isinstance(a, syntax.Name)}
        draft.filled |= handed
        draft.whole |= handed


def _statement(draft: Draft, node: syntax.Statement) -> None:
    scope = draft.scope
    match node:
        case syntax.ExprStatement(value=syntax.String()) | syntax.Pass():
            pass
        case syntax.ExprStatement(value=syntax.Call() as value) if called(value) not in ("require", "promise", "partial"):
            _call(draft, value)
        case syntax.ExprStatement():
            block(scope, (node,))
        case syntax.Assign(targets=(targets,), values=values) if any(called(v) == "empty" for v in _flat(values)):
            if len(targets) != len(_flat(values)):
                count = len(_flat(values))
                raise NsaError.at("NSA0325", f"{len(targets)} names, and {count} value{'' if count == 1 else 's'}", node.span)
            for target, made in zip(targets, _flat(values), strict=True):
                _scratch(draft, target, made)
        case syntax.Assign() | syntax.Augmented():
            targets = tuple(t for group in node.targets for t in group) if isinstance(node, syntax.Assign) else (node.target,)
            values = _flat(node.values) if isinstance(node, syntax.Assign) else ()
            for target in targets:
                if isinstance(target, syntax.Subscript):
                    raise NsaError.at("NSA0337", "a program writes no elements: a kernel that it calls does", target.span)
            for made in values:
                if called(made) in ("span", "view"):
                    raise NsaError.at("NSA0337", f"'{called(made)}' belongs into a kernel, and this is a program", made.span)
                kernel = scope.functions.get(called(made) or "")
                if kernel is not None and is_kernel(kernel):
                    raise NsaError(no_value(kernel, made))
            block(scope, (node,))
        case syntax.If():
            condition = boolean(scope, node.condition)
            if not isinstance(condition, Exact):
                raise NsaError.at("NSA0337", "in a program, an 'if' needs a condition that is known when compiling", node.condition.span)
            _block(draft, node.body if condition.value else node.orelse)
        case syntax.For():
            raise NsaError.at("NSA0337", "a program has no loops: its calls are known when compiling", node.span, help=grid_meant(node))
        case syntax.Return():
            raise NsaError.at("NSA0330", "a program returns nothing: the kernels that it calls write its Out parameters", node.span)


def _flat(values: tuple[syntax.Expr, ...]) -> tuple[syntax.Expr, ...]:
    return values[0].items if len(values) == 1 and isinstance(values[0], syntax.Tuple) else values


def _scratch(draft: Draft, target: syntax.Expr, node: syntax.Expr) -> None:
    """``part = empty(f32[S, P])``. Raises NSA0203, NSA0206, NSA0336."""
    scope = draft.scope
    if called(node) != "empty" or not isinstance(target, syntax.Name):
        raise NsaError.at("NSA0336", "'empty' is assigned to a name, beside other scratch alone", node.span)
    assert isinstance(node, syntax.Call)
    if target.id in scope.known or isinstance(scope.names.get(target.id), DType) or target.id == "inf":
        raise NsaError.at("NSA0206", f"'{target.id}' is a name of the language", target.span, help="choose another name")
    if target.id in scope.names or target.id in scope.parameters:
        raise NsaError.at("NSA0203", f"'{target.id}' is already defined", target.span, help="choose another name")
    if node.keywords or len(node.arguments) != 1:
        raise NsaError.at("NSA0311", "'empty' takes one argument, a tensor type", node.span, help="empty(f32[S, 4])")
    (kind,) = node.arguments
    dtype = operand(scope, kind.value) if isinstance(kind, syntax.Subscript) else None
    if not isinstance(kind, syntax.Subscript) or not isinstance(dtype, DType):
        raise NsaError.at("NSA0336", "'empty' takes a tensor type, e.g. f32[S, 4]", kind.span)
    if dtype is E2M1:
        raise NsaError.at("NSA0336", "scratch can't hold e2m1", kind.value.span, help="two of them make a u8")
    dtype = scope.target.facts.e4m3 if dtype is E4M3 else dtype
    shape = []
    for extent in kind.indices:
        made = integer(scope, extent, "an extent")
        if not extents.known_at_launch(made):
            raise NsaError.at("NSA0336", "an extent of scratch comes from dimensions, scalars and constants", extent.span)
        if isinstance(made, ir.Const) and made.value < 0:
            raise NsaError.at("NSA0336", f"an extent of scratch can't be negative; this is {made.value}", extent.span)
        shape.append(made)
    texts = tuple(source_text(e.span) for e in kind.indices)
    draft.scratch.append(Scratch(target.id, dtype, tuple(shape), texts, target.span))
    scope.names[target.id] = TensorRef(target.id, dtype, tuple(shape), texts, "inout")


# ------------------------------------------------------------------------------------------------------------------------- calls


def _callee(draft: Draft, node: syntax.Call) -> syntax.Function:
    """The kernel that a statement calls. Raises NSA0337 for anything else."""
    scope = draft.scope
    name = called(node)
    if name is None:
        raise NsaError.at("NSA0337", "a program calls kernels of its file by name", node.function.span)
    if name in scope.names:
        scope.lookup(name, node.function.span)
        raise NsaError.at("NSA0337", f"'{name}' is no kernel", node.function.span)
    function = scope.functions.get(name)
    if function is None:
        if name in scope.known:
            raise NsaError.at("NSA0337", f"'{name}' can't stand here: a program allocates scratch and calls kernels", node.span)
        raise unknown("kernel", name, node.function.span, [n for n, f in scope.functions.items() if is_kernel(f)], "NSA0337")
    if is_kernel(function):
        return function
    here = f"'{name}' is defined in line {_line(function.span)}"
    if name == draft.function.name:
        raise NsaError.at("NSA0337", f"'{name}' calls itself, and a program calls kernels", node.span)
    what = (
        "a helper, whose values nothing takes here"
        if is_helper(function)
        else "a program"
        if is_program(function)
        else "no kernel: it has no grid"
    )
    raise NsaError.at("NSA0337", f"'{name}' is {what}", node.span, note=here, help="a program calls kernels of its file")


def _line(span: Span) -> int:
    return span.line + span.source.first_line - 1


def _call(draft: Draft, node: syntax.Call) -> None:
    """Type a call, and note what it reads and writes."""
    scope = draft.scope
    function = _callee(draft, node)
    here = f"'{function.name}' is defined in line {_line(function.span)}"
    given = matched(function, node, here)
    values: dict[str, Operand] = {}
    for name, argument in given.items():
        found = operand(scope, argument)
        if not isinstance(found, Nothing):
            values[name] = found
    spans = {n: a.span for n, a in given.items()}
    constants = constants_of(scope, function, values, node, spans, here)
    present = frozenset(p.name for p in function.parameters if p.optional and p.name in values)
    start = Settings(scope.target, constants, {}, present, draft.settings.captured)
    inside, parameters = typecheck.scope_of(draft.file, function, start, lenient=True)
    if inside.problems:
        raise _inside(NsaError(*inside.problems), function, node)
    tensors: list[tuple[Parameter, TensorRef]] = []
    scalars: list[tuple[str, ir.Expr]] = []
    for parameter in parameters:
        if parameter.kind in ("const", "dtype"):
            continue
        if parameter.name not in values:
            if parameter.name in given and not parameter.optional and parameter.default is None:
                raise NsaError.at("NSA0337", f"'{parameter.name}' of '{function.name}' must be given, and this is absent here",
                                  spans[parameter.name], note=here)  # fmt: skip
            continue
        if parameter.kind == "tensor":
            tensors.append((parameter, tensor_for(function, parameter, values[parameter.name], spans[parameter.name], here)))
        else:
            scalars.append((parameter.name, scalar_for(function, parameter, values[parameter.name], spans[parameter.name], here)))
    dims = dims_of(function, tensors, scalars, node, spans, here)
    for parameter, ref in tensors:
        _check_role(draft, function, parameter, ref, tensors, spans[parameter.name])
    try:
        kernel = typecheck.specialise(draft.file, function.name, replace(start, dims=dims))
    except NsaError as error:
        raise _inside(error, function, node) from None
    for parameter, ref in tensors:
        if parameter.role != "in":
            draft.filled.add(ref.name)
        if parameter.role == "out":
            if parameter.name in kernel.partial:
                draft.partly.setdefault(ref.name, function.name)
            else:
                draft.whole.add(ref.name)
    draft.calls.append(
        Call(
            function.name, tuple((p.name, r.name) for p, r in tensors), tuple(scalars), tuple(constants.items()), tuple(dims.items()), present,
            node.span,
        )
    )  # fmt: skip


def _inside(error: NsaError, function: syntax.Function, node: syntax.Call) -> NsaError:
    """An error of a kernel, under a variant that a call asks for."""
    called_here = f"'{function.name}' is called in line {_line(node.span)}"
    return NsaError(*(replace(d, notes=(*d.notes, called_here)) for d in error.diagnostics))


def _check_role(
    draft: Draft, function: syntax.Function, parameter: Parameter, ref: TensorRef, tensors: list[tuple[Parameter, TensorRef]], span: Span
) -> None:
    """What is read has been written, and what is written may be, alone. Raises NSA0336, NSA0337."""
    what = draft.role(ref.name)
    if parameter.role != "in" and ref.role == "in":
        raise NsaError.at(
            "NSA0337", f"'{ref.name}' is an input of '{draft.function.name}', and '{function.name}' writes its '{parameter.name}'", span,
            help=f"declare it InOut[…], or hand scratch to '{function.name}'",
        )  # fmt: skip
    if parameter.role != "out" and what in ("scratch", "an Out") and ref.name not in draft.filled:
        raise NsaError.at("NSA0336", f"'{ref.name}' is {what}, and '{function.name}' reads it before any call wrote it", span)
    for other, same in tensors:
        if other is not parameter and same.name == ref.name and parameter.role != "in":
            raise NsaError.at(
                "NSA0337", f"'{ref.name}' is handed to '{other.name}' and to '{parameter.name}' of '{function.name}', which writes it", span
            )


__all__ = ["Call", "Program", "Scratch", "specialise"]
