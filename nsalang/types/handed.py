"""What a program hands to a kernel: its arguments by parameter, of the right kinds, and whether extents agree, the kernel's dimensions being
polynomials over the program's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nsalang import ir, syntax
from nsalang.base.constants import Exact, python_value
from nsalang.base.dtypes import I64, DType
from nsalang.base.source import NsaError, Span
from nsalang.host.extents import affine, known_at_launch
from nsalang.ir import integers
from nsalang.ir.linear import Poly, number
from nsalang.ir.printer import show
from nsalang.types.expressions import describe, operand
from nsalang.types.scope import Nothing, Operand, Scope, TensorRef, as_dtype, as_value, unknown
from nsalang.types.signature import Parameter, Setting, annotation_of, call_arguments, dimension_names, specialised_names


def polynomial(node: ir.Expr, known: Mapping[str, Poly] | None = None) -> Poly:
    """An integer expression as a polynomial over dimensions, scalars and quotients. ``known``: dimensions by what they are; others are atoms."""
    match node:
        case ir.Const(value=int(value)):
            return number(value)
        case ir.Dim(name=name) | ir.Scalar(name=name):
            return known[name] if known is not None and name in known else Poly.of({(name,): 1})
        case ir.Cast(x=x) if x.dtype.is_integer and node.dtype.is_integer:
            return polynomial(x, known)
        case ir.Unary(op="neg", x=x):
            return number(-1) * polynomial(x, known)
        case ir.Binary(op="add" | "sub" | "mul" as op, a=a, b=b):
            left, right = polynomial(a, known), polynomial(b, known)
            return left + right if op == "add" else left - right if op == "sub" else left * right
        case ir.Binary(op="floordiv" | "mod" | "min" | "max" as op, a=a, b=b):
            left, right = polynomial(a, known), polynomial(b, known)
            found = None if left.atoms or right.atoms else integers.binary(op, value_of(left), value_of(right), node.dtype.bits)
            if found is not None:
                return number(found)
            return Poly.of({(f"{op}({text(left)}, {text(right)})",): 1})
    return Poly.of({(show(node),): 1})


def value_of(poly: Poly) -> int:
    """The value of a polynomial without atoms."""
    return sum(c for _, c in poly.terms)


def text(poly: Poly) -> str:
    """``D + 64``."""
    parts: list[str] = []
    for atoms, coefficient in sorted(poly.terms, key=lambda t: (-len(t[0]), t[0])):
        size = abs(coefficient)
        term = " * ".join([*[str(size)] * (size != 1 or not atoms), *atoms])
        sign = ("-" if coefficient < 0 else "") if not parts else ("- " if coefficient < 0 else "+ ")
        parts.append(sign + term)
    return " ".join(parts) or "0"


@dataclass(frozen=True, slots=True)
class Conflict:
    """An extent of a kernel's parameter that the program's tensor cannot have. ``told`` and ``given``: each as written, and what that is."""

    parameter: str
    tensor: str
    axis: int
    told: str
    given: str


@dataclass(frozen=True, slots=True)
class _Extent:
    wanted: ir.Expr
    wanted_text: str
    given: Poly
    given_text: str
    parameter: str
    tensor: str
    axis: int


@dataclass(slots=True)
class Shapes:
    """The extents of one call, first those of what is read; ``known``: the kernel's dimensions that they determine."""

    known: dict[str, Poly] = field(default_factory=dict)
    extents: list[_Extent] = field(default_factory=list)

    def add(self, wanted: ir.Expr, wanted_text: str, given: Poly, given_text: str, parameter: str, tensor: str, axis: int) -> None:
        """A kernel's extent and the program's tensor's."""
        self.extents.append(_Extent(wanted, wanted_text, given, given_text, parameter, tensor, axis))

    def solve(self) -> None:
        """Settle dimensions by extents that have one unknown, as a call does. Where the quotient is not to be seen, it is an unknown number."""
        progress = True
        while progress:
            progress = False
            for each in self.extents:
                form = affine(each.wanted)
                unknown = [] if form is None else [(n, c) for n, c in form.terms if n not in self.known]
                if form is None or len(unknown) != 1:
                    continue
                ((name, coefficient),) = unknown
                rest = each.given - number(form.constant)
                for other, factor in form.terms:
                    if other != name:
                        rest = rest - number(factor) * self.known[other]
                if all(c % coefficient == 0 for _, c in rest.terms):
                    self.known[name] = Poly.of({m: c // coefficient for m, c in rest.terms})
                elif rest.atoms:
                    self.known[name] = Poly.of({(f"({text(rest)}) / {coefficient}",): 1})
                else:
                    continue  # no integer
                progress = True

    def conflict(self) -> Conflict | None:
        """The first extent that is another for all sizes; one that may agree is for the call to check."""
        for each in self.extents:
            given = each.given_text if each.given_text == text(each.given) else f"{each.given_text} = {text(each.given)}"
            form = affine(each.wanted)
            if form is not None and len(form.terms) == 1 and not each.given.atoms:
                ((_, coefficient),) = form.terms
                value, left = divmod(value_of(each.given) - form.constant, coefficient)
                if left or value < 0:
                    return Conflict(each.parameter, each.tensor, each.axis, each.wanted_text, given)
            if {n.name for n in ir.walk(each.wanted) if isinstance(n, ir.Dim)} <= self.known.keys():
                wanted = polynomial(each.wanted, self.known)
                gap = wanted - each.given
                if gap.terms and not gap.atoms:
                    told = each.wanted_text if each.wanted_text == text(wanted) else f"{each.wanted_text}, which is {text(wanted)} here"
                    return Conflict(each.parameter, each.tensor, each.axis, told, given)
        return None


# --------------------------------------------------------------------------------------------------------------------- arguments


def matched(function: syntax.Function, node: syntax.Call, here: str) -> dict[str, syntax.Expr]:
    """The arguments by parameter. Raises NSA0337."""
    by_position = [p.name for p in function.parameters if annotation_of(p).role != "out"]
    names = [p.name for p in function.parameters]
    if len(node.arguments) > len(by_position):
        outs = [n for n in names if n not in by_position]
        takes = f"{len(by_position)} argument{'' if len(by_position) == 1 else 's'} by position ({', '.join(by_position)})"
        raise NsaError.at(
            "NSA0337", f"'{function.name}' takes {takes}, and {len(node.arguments)} are given", node.span, note=here,
            help=f"outputs are given by name: {', '.join(f'{n}=…' for n in outs)}" if outs else None,
        )  # fmt: skip
    for i, keyword in enumerate(node.keywords):
        if keyword.name not in names:
            raise unknown("keyword argument", keyword.name, keyword.name_span, names, "NSA0337", note=here)
        before = (*by_position[: len(node.arguments)], *(k.name for k in node.keywords[:i]))
        if keyword.name in before:
            raise NsaError.at("NSA0337", f"'{keyword.name}' of '{function.name}' is given twice", keyword.name_span, note=here)
    given = call_arguments(function, node)
    for parameter in function.parameters:
        if parameter.name in given or parameter.default is not None or parameter.optional:
            continue
        if isinstance(parameter.annotation, syntax.Name) and parameter.annotation.id == "dtype":
            continue  # a tensor's dtype says it
        kind = " (an Out: by name)" if annotation_of(parameter).role == "out" else ""
        raise NsaError.at("NSA0337", f"'{function.name}' needs '{parameter.name}' too{kind}", node.span, note=here)
    return given


def constants_of(
    scope: Scope, function: syntax.Function, values: dict[str, Operand], node: syntax.Call, spans: Mapping[str, Span], here: str
) -> dict[str, Setting]:
    """Const and dtype parameters of a kernel: as given, else as a tensor's dtype says, else at their defaults. Raises NSA0337."""
    found: dict[str, Setting] = {}
    for parameter in function.parameters:
        if not isinstance(parameter.annotation, syntax.Name) or parameter.annotation.id not in ("const", "dtype"):
            continue
        kind = parameter.annotation.id
        value = values.get(parameter.name)
        what = f"'{parameter.name}' of '{function.name}'"
        default = None
        if parameter.default is not None:
            outside = replace(scope, names=dict(scope.constants))
            default = operand(outside, parameter.default)
        if value is None and default is None and kind == "dtype":
            takers = [p.name for p in function.parameters if p.annotation is not parameter.annotation and _dtype_name(p) == parameter.name]
            value = next((v.dtype for n in takers if isinstance(v := values.get(n), TensorRef)), None)
            if value is None:
                raise NsaError.at(
                    "NSA0337", f"no tensor determines the dtype {what}", node.span, note=here, help=f"give {parameter.name}=…"
                )
        value = default if value is None else value
        span = spans.get(parameter.name, parameter.name_span)
        if kind == "dtype":
            if not isinstance(value, DType):
                raise NsaError.at("NSA0337", f"{what} is a dtype", span, note=here)
            found[parameter.name] = value
            continue
        if not isinstance(value, Exact):
            raise NsaError.at("NSA0337", f"{what} is const, and must be known when compiling", span, note=here)
        if isinstance(default, Exact):
            wanted = "True or False" if default.is_bool else "an integer" if default.is_int else "a number"
            if default.is_bool != value.is_bool or (default.is_int and value.is_float):
                raise NsaError.at("NSA0337", f"{what} is {wanted}, and this is {value}", span, note=here)
            value = Exact(value.value, True) if default.is_float else value
        found[parameter.name] = python_value(value)
    return found


def _dtype_name(parameter: syntax.Parameter) -> str:
    return annotation_of(parameter).dtype_name


def tensor_for(function: syntax.Function, parameter: Parameter, found: Operand, span: Span, here: str) -> TensorRef:
    """A tensor of the program for a tensor parameter, of its dtype and rank. Raises NSA0337."""
    what = f"'{parameter.name}' of '{function.name}'"
    kind = f"{parameter.dtype}[{', '.join(parameter.extents)}]"
    if not isinstance(found, TensorRef):
        raise NsaError.at("NSA0337", f"{what} is a tensor, {kind}, and this is none", span, note=here)
    if found.dtype is not parameter.dtype or len(found.shape) != len(parameter.shape):
        own = f"{found.dtype}[{', '.join(found.extents)}]"
        raise NsaError.at("NSA0337", f"{what} is {kind}, and '{found.name}' is {own}", span, note=here)
    return found


def scalar_for(function: syntax.Function, parameter: Parameter, found: Operand, span: Span, here: str) -> ir.Expr:
    """A value known at a launch for a scalar parameter, of its dtype. Raises NSA0337, NSA0301, NSA0313."""
    assert parameter.dtype is not None
    what = f"'{parameter.name}' of '{function.name}'"
    if isinstance(found, TensorRef | DType | Nothing):
        raise NsaError.at("NSA0337", f"{what} is a scalar {parameter.dtype}, and this is none", span, note=here)
    wanted = I64 if parameter.dtype.kind == "signed" else parameter.dtype
    if isinstance(found, Exact):
        made: ir.Expr = as_dtype(found, parameter.dtype, span)
        return ir.Const(wanted, (), made.value, span=span) if isinstance(made, ir.Const) else made
    made = as_value(found, span)
    if made.dtype is not wanted:
        raise NsaError.at(
            "NSA0337",
            f"{what} is {parameter.dtype}, and this is {describe(made)}",
            span,
            note=here,
            help=f"convert it: {parameter.dtype}(…)",
        )
    if not known_at_launch(made):
        raise NsaError.at("NSA0337", f"{what} is a scalar: it comes from dimensions, scalars and constants", span, note=here)
    return made


def dims_of(
    function: syntax.Function,
    tensors: list[tuple[Parameter, TensorRef]],
    scalars: list[tuple[str, ir.Expr]],
    node: syntax.Call,
    spans: Mapping[str, Span],
    here: str,
) -> dict[str, int]:
    """The kernel's specialised dimensions, after a look whether the extents agree. Raises NSA0337."""
    shapes = Shapes()
    for parameter, ref in [*(t for t in tensors if t[0].role != "out"), *(t for t in tensors if t[0].role == "out")]:
        for axis, extent in enumerate(parameter.shape):
            shapes.add(extent, parameter.extents[axis], polynomial(ref.shape[axis]), ref.extents[axis], parameter.name, ref.name, axis)
    names = dimension_names(function)
    for name, value in scalars:
        if name in names:
            shapes.known.setdefault(name, polynomial(value))
    shapes.solve()
    wrong = shapes.conflict()
    if wrong is not None:
        raise NsaError.at(
            "NSA0337",
            f"axis {wrong.axis} of '{wrong.parameter}' of '{function.name}' is {wrong.told}, and that of '{wrong.tensor}' is {wrong.given}",
            spans[wrong.parameter],
            note=here,
        )
    found: dict[str, int] = {}
    for name in specialised_names(function, names):
        value_of = shapes.known.get(name)
        if value_of is None:
            raise NsaError.at("NSA0337", f"no argument determines the dimension {name} of '{function.name}'", node.span, note=here)
        if value_of.atoms:
            raise NsaError.at(
                "NSA0337", f"'{function.name}' needs the value of its dimension {name} for a span, and here it is not known when compiling",
                node.span, note=here, help="make it const, or a dimension alone",
            )  # fmt: skip
        found[name] = sum(c for _, c in value_of.terms)
    return found
