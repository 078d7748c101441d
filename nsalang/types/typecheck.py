"""From syntax to a typed kernel: what a caller must know (``signature``), and one variant of a kernel as IR (``specialise``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from nsalang import ir, syntax
from nsalang.base.constants import Exact, exact, python_value
from nsalang.base.dtypes import ALL, E4M3, I64, DType
from nsalang.base.placeholders import Outside
from nsalang.base.source import Diagnostic, NsaError, Span
from nsalang.types.declarations import source_text
from nsalang.types.dispatch import call
from nsalang.types.expressions import integer, operand
from nsalang.types.functions import FUNCTIONS, PLACES
from nsalang.types.grid import declarations, grid_indices
from nsalang.types.missing_grid import kernels_of, missing_grid
from nsalang.types.scope import Binding, Nothing, Poison, Poisoned, Scope, TensorRef, unknown
from nsalang.types.settings import Settings
from nsalang.types.signature import (  # fmt: skip
    Parameter,
    Setting,
    Signature,
    annotation_of,
    dimension_names,
    functions,
    is_helper,
    is_kernel,
    is_program,
    names_in,
    program_dims,
    specialised_names,
)
from nsalang.types.statements import block
from nsalang.types.stores import check_written


def kernel_function(file: syntax.File, name: str) -> syntax.Function:
    """The function of that name. Raises NSA0207 if there is none, NSA0314 (or NSA0335) if it is a program, a helper, or lacks its grid."""
    found = functions(file)
    if name not in found:
        names = [n for n, f in found.items() if is_kernel(f) or is_program(f)]
        span = file.items[0].span if file.items else Span(file.source, 1, 1, 1, 1)
        error = unknown("kernel", name, span, names, "NSA0207")
        raise NsaError(
            Diagnostic(
                "NSA0207",
                error.diagnostics[0].sentence + f"; the file has {', '.join(names) or 'none'}",
                None,
                (),
                error.diagnostics[0].helps,
            )
        )
    function = found[name]
    if not is_kernel(function):
        if (problem := missing_grid(function, kernels_of(file))) is not None:
            raise NsaError(problem)
        kind = "it is a helper, and" if is_helper(function) else "it is a program, and" if is_program(function) else "it is"
        raise NsaError.at("NSA0314", f"'{name}' has no grid: {kind} no kernel", function.name_span,
                          help="a kernel has one 'for … in grid(…)'")  # fmt: skip
    return function


def kernel_names(file: syntax.File) -> tuple[str, ...]:
    """The kernels of a file, in order."""
    return tuple(n for n, f in functions(file).items() if is_kernel(f))


def program_names(file: syntax.File) -> tuple[str, ...]:
    """The programs of a file, in order."""
    return tuple(n for n, f in functions(file).items() if is_program(f))


# -------------------------------------------------------------------------------------------------------------------- signature


def signature(file: syntax.File, name: str, constants: Mapping[str, Setting], captured: Mapping[str, object] | None = None) -> Signature:
    """Parameters, shapes and dimensions of a kernel or a program for given const and dtype parameters (missing ones take their defaults, or are None)."""
    function = functions(file)[name] if name in program_names(file) else kernel_function(file, name)
    scope, parameters = scope_of(file, function, Settings(constants=constants, captured=captured or {}), lenient=True)
    if scope.problems:
        raise NsaError(*scope.problems)
    return Signature(name, parameters, dimension_names(function), specialised(file, function), function.docstring, function.span)


def specialised(file: syntax.File, function: syntax.Function) -> tuple[str, ...]:
    """Dimensions whose value is part of a variant: a span of the kernel, or of a kernel that the program calls, needs it."""
    return specialised_names(function, dimension_names(function)) if is_kernel(function) else program_dims(file, function)


def scope_of(file: syntax.File, function: syntax.Function, settings: Settings, lenient: bool) -> tuple[Scope, tuple[Parameter, ...]]:
    """The scope at the start of a kernel, and its parameters. ``lenient``: a missing const leaves the extents that need it unknown."""
    names: dict[str, Binding] = {**ALL, "inf": Exact(float("inf"), is_float=True)}
    scope = Scope(settings.target, names, frozenset((*FUNCTIONS, *PLACES)), call)
    _captured(scope, settings.captured)
    _constants(scope, file)
    scope.constants = dict(names)
    scope.functions = {item.name: item for item in file.items if isinstance(item, syntax.Function)}
    for item in scope.functions.values():
        if is_helper(item) and (item.name in FUNCTIONS or item.name in PLACES or item.name in ALL):
            scope.problems.append(
                Diagnostic("NSA0206", f"'{item.name}' is a name of the language", item.name_span, helps=("choose another name",))
            )
    found: list[Parameter] = []
    seen: set[str] = set()
    for parameter in function.parameters:
        if parameter.name in seen:
            scope.problems.append(Diagnostic("NSA0204", f"parameter '{parameter.name}' is there twice", parameter.name_span))
        if parameter.name in FUNCTIONS or parameter.name in PLACES or parameter.name in ALL:
            scope.problems.append(
                Diagnostic("NSA0206", f"'{parameter.name}' is a name of the language", parameter.name_span, helps=("choose another name",))
            )
        seen.add(parameter.name)
    kinds = ("const", "dtype")
    plain = [p for p in function.parameters if not (isinstance(p.annotation, syntax.Name) and p.annotation.id in kinds)]
    for parameter in function.parameters:  # constants first: extents use them, wherever they stand
        if parameter not in plain:
            try:
                found.append(_constant_parameter(scope, parameter, settings, lenient))
            except (NsaError, Poisoned) as error:
                scope.problems.extend(error.diagnostics if isinstance(error, NsaError) else ())
                scope.names[parameter.name] = Poison()
    dims: tuple[str, ...] = ()
    try:
        dims = dimension_names(function)
    except NsaError:  # reported below, with the parameter: what it leaves unknown is not
        for parameter in plain:
            for name in _extent_names(parameter.annotation):
                scope.names.setdefault(name, Poison())
    tensors_named = {p.name for p in plain if isinstance(p.annotation, syntax.Subscript)}
    for dim in dims:
        if dim in tensors_named:
            scope.problems.append(Diagnostic("NSA0203", f"'{dim}' is a tensor and a dimension", function.name_span))
        given = settings.dims.get(dim)
        scope.names[dim] = ir.Dim(I64, (), dim) if given is None else ir.const(given)
    for parameter in plain:
        try:
            found.append(_data_parameter(scope, parameter, dims, settings))
        except NsaError as error:
            scope.problems.extend(error.diagnostics)
            scope.names[parameter.name] = Poison()
        except Poisoned:
            scope.names[parameter.name] = Poison()
    order = {p.name: i for i, p in enumerate(function.parameters)}
    scope.parameters = frozenset(order) | frozenset(dims)
    scope.taken |= scope.parameters  # a helper's own names may be the same
    return scope, tuple(sorted(found, key=lambda p: order[p.name]))


def _extent_names(annotation: syntax.Expr | None) -> list[str]:
    """The names between the brackets of a type, be it right or wrong."""
    if not isinstance(annotation, syntax.Subscript):
        return []
    inner = [name for index in annotation.indices if isinstance(index, syntax.Subscript) for name in _extent_names(index)]
    return inner or [n.id for index in annotation.indices for n in names_in(index)]


def _captured(scope: Scope, captured: Mapping[str, object]) -> None:
    for name, value in captured.items():
        if isinstance(value, DType):
            scope.names[name] = value
        elif value is None:
            scope.names[name] = Nothing()
        elif isinstance(value, (bool, int, float)):
            scope.names[name] = exact(value)
        elif isinstance(value, (Outside, str)):
            scope.outside[name] = "a string" if isinstance(value, str) else value.what


def _constants(scope: Scope, file: syntax.File) -> None:
    for item in file.items:
        if isinstance(item, syntax.Constant):
            try:
                value = operand(scope, item.value)
                if not isinstance(value, (Exact, DType)):
                    raise NsaError.at("NSA0312", f"'{item.name}' is no constant", item.value.span)
                scope.names[item.name] = value
            except NsaError as error:
                scope.problems.extend(error.diagnostics)
                scope.names[item.name] = Poison()
            except Poisoned:
                scope.names[item.name] = Poison()


def _constant_parameter(scope: Scope, parameter: syntax.Parameter, settings: Settings, lenient: bool) -> Parameter:
    assert isinstance(parameter.annotation, syntax.Name)
    is_dtype = parameter.annotation.id == "dtype"
    default: Setting | None = None
    if parameter.default is not None:
        made = operand(scope, parameter.default)
        if not isinstance(made, DType if is_dtype else Exact):
            raise NsaError.at(
                "NSA0328", f"the default of '{parameter.name}' is no {'dtype' if is_dtype else 'constant'}", parameter.default.span
            )
        default = made if isinstance(made, DType) else python_value(made)
        scope.names[parameter.name] = made
    given = settings.constants.get(parameter.name)
    if given is not None:
        if is_dtype != isinstance(given, DType):
            raise NsaError.at(
                "NSA0328", f"'{parameter.name}' is a {'dtype' if is_dtype else 'constant'}, and {given!r} is given", parameter.name_span
            )
        if isinstance(default, bool) != isinstance(given, bool) and default is not None and not is_dtype:
            kind = "a bool" if isinstance(default, bool) else "a number"
            raise NsaError.at("NSA0328", f"'{parameter.name}' is {kind}, and {given!r} is given", parameter.name_span)
        scope.names[parameter.name] = given if isinstance(given, DType) else exact(given)
    elif default is None:
        scope.names[parameter.name] = Poison()
        if not lenient:
            raise NsaError.at(
                "NSA0328", f"'{parameter.name}' has no default, and no value is given", parameter.name_span, help=f"-D {parameter.name}=…"
            )
    return Parameter(
        parameter.name, "dtype" if is_dtype else "const", None, None, "in", (), (), False, default, default is not None, parameter.name_span
    )


def _data_parameter(scope: Scope, parameter: syntax.Parameter, dims: tuple[str, ...], settings: Settings) -> Parameter:
    taken = annotation_of(parameter)
    bound = scope.names.get(taken.dtype_name)
    generic = None if taken.dtype_name in ALL else taken.dtype_name
    if isinstance(bound, Poison):
        dtype: DType | None = None
    elif isinstance(bound, DType):
        dtype = scope.target.facts.e4m3 if bound is E4M3 else bound
    else:
        raise unknown("dtype", taken.dtype_name, taken.dtype_span, list(ALL), "NSA0319")
    shape: tuple[ir.Expr, ...] = ()
    extents: tuple[str, ...] = ()
    if taken.extents is not None:
        made: list[ir.Expr] = []
        for extent in taken.extents:
            try:
                made.append(integer(scope, extent, "an extent"))
            except Poisoned:
                made.append(ir.Dim(I64, (), "?"))
        shape, extents = tuple(made), tuple(source_text(e.span) for e in taken.extents)
    elif taken.role != "in":
        raise NsaError.at("NSA0319", f"'{parameter.name}' is a scalar, and a scalar can't be written", parameter.name_span)
    default = None
    if parameter.default is not None and not isinstance(parameter.default, syntax.NoneLiteral):
        made_default = operand(scope, parameter.default)
        if taken.extents is not None or not isinstance(made_default, Exact):
            raise NsaError.at("NSA0328", f"'{parameter.name}' can't have this default", parameter.default.span)
        default = python_value(made_default)
    kind: Literal["scalar", "tensor"] = "scalar" if taken.extents is None else "tensor"
    absent = parameter.optional and parameter.name not in settings.present
    if absent:
        scope.names[parameter.name] = Nothing()
    elif kind == "tensor":
        scope.names[parameter.name] = TensorRef(parameter.name, dtype or ALL["f32"], shape, extents, taken.role)
    elif parameter.name not in dims:
        known = dtype or ALL["f32"]  # a dtype parameter without a value, where only the signature is asked for
        scope.names[parameter.name] = ir.Scalar(I64 if known.kind == "signed" else known, (), parameter.name, span=parameter.name_span)
    has_default = parameter.default is not None or (parameter.optional and taken.role != "out")
    return Parameter(
        parameter.name, kind, dtype, generic, taken.role, shape, extents, parameter.optional, default, has_default, parameter.name_span
    )


# ------------------------------------------------------------------------------------------------------------------- specialise


def specialise(file: syntax.File, name: str, settings: Settings) -> ir.Kernel:
    """One variant of a kernel as typed IR. Raises NsaError with everything that is wrong in it."""
    function = kernel_function(file, name)
    scope, parameters = scope_of(file, function, settings, lenient=False)
    grid: tuple[ir.GridIndex, ...] = ()
    body: tuple[ir.Stmt, ...] = ()
    loop = declarations(scope, function.body)
    if loop is None:
        scope.problems.append(Diagnostic("NSA0314", f"the grid of '{name}' is not reached: it must stand outermost", function.name_span))
    else:
        try:
            grid = grid_indices(scope, loop)
        except NsaError as error:
            scope.problems.extend(error.diagnostics)
            for target in loop.targets:
                scope.names[target.id] = Poison()
        except Poisoned:
            for target in loop.targets:
                scope.names[target.id] = Poison()
        scope.in_declarations = False
        block(scope, loop.body)
        body = tuple(scope.out)
        stores = [n for s in body for n in ir.walk(s) if isinstance(n, ir.Store)]
        roles = {p.name: p.role for p in parameters}
        scope.problems += check_written(stores, roles, {v.name: v.base for v in scope.views}, scope.partial)
    if scope.problems:
        raise NsaError(*dict.fromkeys(scope.problems))
    return without_absent(replace(header(function, scope, parameters, settings), grid=grid, body=body), parameters, settings)


def without_absent(kernel: ir.Kernel, parameters: tuple[Parameter, ...], settings: Settings, more: Iterable[ir.Node] = ()) -> ir.Kernel:
    """Without the dimensions that only absent parameters have and that nothing (``more`` neither) computes with, and without what is required
    of those."""
    given = {p.name for p in parameters if p.kind == "scalar" and (not p.optional or p.name in settings.present)}
    nodes = (*kernel.tensors, *kernel.views, *kernel.promises, *kernel.grid, *kernel.body, *more)
    used = given | {n.name for node in nodes for n in ir.walk(node) if isinstance(n, ir.Dim)}
    gone = set(kernel.dims) - used
    if not gone:
        return kernel
    requires = tuple(r for r in kernel.requires if not any(isinstance(n, ir.Dim) and n.name in gone for n in ir.walk(r.condition)))
    return replace(kernel, dims=tuple(d for d in kernel.dims if d not in gone), requires=requires)


def header(function: syntax.Function, scope: Scope, parameters: tuple[Parameter, ...], settings: Settings) -> ir.Kernel:
    """A kernel, or what a program shares with kernels: parameters and declarations, without grid and body."""
    present = [p for p in parameters if not p.optional or p.name in settings.present]
    dims = tuple(d for d in dimension_names(function) if d not in settings.dims)
    tensors = tuple(ir.Tensor(p.name, _known(p), p.shape, p.role, span=p.span) for p in present if p.kind == "tensor")
    scalars = tuple(
        ir.ScalarParam(p.name, _known(p), span=p.span) for p in present if p.kind == "scalar" and p.name not in dimension_names(function)
    )
    return ir.Kernel(
        function.name, tensors, scalars, dims, tuple(scope.requires), tuple(dict.fromkeys(scope.partial)), (), (),
        settled(scope, parameters, settings), views=tuple(scope.views), promises=tuple(scope.promises), span=function.span,
    )  # fmt: skip


def _known(parameter: Parameter) -> DType:
    assert parameter.dtype is not None, f"{parameter.name} has no dtype"
    return parameter.dtype


def settled(scope: Scope, parameters: tuple[Parameter, ...], settings: Settings) -> tuple[tuple[str, str], ...]:
    rows = [(p.name, str(scope.names[p.name])) for p in parameters if p.kind in ("const", "dtype")]
    rows += [(d, str(v)) for d, v in sorted(settings.dims.items())]
    rows += [(p.name, "given" if p.name in settings.present else "None") for p in parameters if p.optional]
    return tuple(rows)
