"""What stands before the grid beside names and spans: ``require``, ``promise``, ``partial`` and ``view``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from nsalang import ir, syntax
from nsalang.base.constants import Exact
from nsalang.base.dtypes import BOOL, E2M1, E4M3, I64, DType
from nsalang.base.source import NsaError, Span
from nsalang.ir.places import FREE, shift
from nsalang.types.calls import arguments, keyword
from nsalang.types.expressions import boolean, integer, operand
from nsalang.types.scope import Nothing, Scope, TensorRef
from nsalang.types.signature import names_in


def source_text(span: Span) -> str:
    """What the author wrote there, on one line."""
    lines = [span.source.line(n) for n in range(span.line, span.end_line + 1)]
    lines[-1] = lines[-1][: span.end_column - 1]
    lines[0] = lines[0][span.column - 1 :]
    return " ".join(line.strip() for line in lines)


def require(scope: Scope, node: syntax.Call) -> None:
    """``require(cond)``. Raises NSA0331 where the condition is not known at launch."""
    (argument,) = arguments(node, 1, 1)
    condition = boolean(scope, argument)
    if isinstance(condition, Exact):
        condition = ir.Const(BOOL, (), bool(condition.value), span=argument.span)
    if not _known_at_launch(condition):
        raise NsaError.at("NSA0331", "'require' is about dimensions and scalars, which are known at launch", argument.span,
                          help="promise(…) is about the contents of tensors")  # fmt: skip
    scope.requires.append(ir.Require(condition, source_text(argument.span), span=argument.span))


def _known_at_launch(node: ir.Expr) -> bool:
    return not any(isinstance(n, ir.Load | ir.Search | ir.Index | ir.Var) for n in ir.walk(node))


def partial(scope: Scope, node: syntax.Call) -> None:
    """``partial(out)``, of an absent one without effect. Raises NSA0311 for what is no Out parameter."""
    for argument in arguments(node, 1, 99):
        ref = operand(scope, argument)
        if isinstance(ref, Nothing):
            continue
        if not isinstance(ref, TensorRef) or ref.role != "out" or ref.base is not None:
            raise NsaError.at("NSA0311", "'partial' takes Out parameters", argument.span)
        scope.partial.append(ref.name)


# --------------------------------------------------------------------------------------------------------------------- promises


def promise(scope: Scope, node: syntax.Call) -> None:
    """``promise(-1 <= idx < T)``, ``promise(distinct(t))``, ``promise(sorted(t))``; one about an absent parameter is left out. Raises NSA0332."""
    (argument,) = arguments(node, 1, 1)
    inner = argument
    while isinstance(inner, syntax.Paren):
        inner = inner.value
    if any(isinstance(scope.names.get(n.id), Nothing) for n in names_in(argument)):
        return
    text = source_text(argument.span)
    if isinstance(inner, syntax.Call) and isinstance(inner.function, syntax.Name) and inner.function.id in ("distinct", "sorted"):
        scope.promises.append(_order_promise(scope, inner, text))
    elif placed := _placed(scope, argument):
        scope.promises.append(_places_promise(scope, argument, placed, text))
    else:
        scope.promises.append(_each_promise(scope, argument, text))


def _order_promise(scope: Scope, node: syntax.Call, text: str) -> ir.Promise:
    assert isinstance(node.function, syntax.Name)
    (argument,) = arguments(node, 1, 1)
    ref = operand(scope, argument)
    if not isinstance(ref, TensorRef):
        raise NsaError.at("NSA0332", f"'{node.function.id}' takes a tensor", argument.span)
    if node.function.id == "sorted":
        return sorted_promise(ref, argument.span, text)
    _only_read(ref, argument.span)
    if not ref.dtype.is_integer:
        raise NsaError.at("NSA0332", f"'distinct' is about integers, and '{ref.name}' holds {ref.dtype}", argument.span)
    return ir.Promise("distinct", (ref.name,), None, text, span=argument.span)


def sorted_promise(ref: TensorRef, span: Span, text: str, implied: bool = False) -> ir.Promise:
    """That a tensor never descends. Raises NSA0332 where that can't be promised of it."""
    _only_read(ref, span, f"searchsorted({ref.name}, …) implies promise(sorted({ref.name}))" if implied else None)
    if len(ref.shape) != 1:
        raise NsaError.at("NSA0332", f"a tensor of one axis can be sorted, and '{ref.name}' has {len(ref.shape)}", span)
    if ref.dtype is BOOL or ref.dtype.bits < 16 and ref.dtype.is_float:
        raise NsaError.at("NSA0332", f"'{ref.name}' holds {ref.dtype}, which has no order", span)
    return ir.Promise("sorted", (ref.name,), None, text, implied, span=span)


def _only_read(ref: TensorRef, span: Span, note: str | None = None) -> None:
    if ref.role != "in":
        kind = ("a view of " if ref.base else "") + ("an Out" if ref.role == "out" else "an InOut")
        raise NsaError.at(
            "NSA0332",
            f"'{ref.name}' is {kind}: what the kernel writes there could break the promise, so only an input's contents can be promised",
            span,
            note=note,
        )


def _subscripts(node: object) -> Iterator[syntax.Subscript]:
    if isinstance(node, syntax.Subscript):
        yield node
    if isinstance(node, tuple):
        for part in node:
            yield from _subscripts(part)
    elif isinstance(node, syntax.Node):
        for field in dataclasses.fields(node):
            yield from _subscripts(getattr(node, field.name))


def _placed(scope: Scope, node: syntax.Expr) -> list[syntax.Subscript]:
    """The elements of tensors that an expression names by their places."""
    return [n for n in _subscripts(node) if isinstance(n.value, syntax.Name) and isinstance(scope.names.get(n.value.id), TensorRef)]


def _places_promise(scope: Scope, argument: syntax.Expr, placed: list[syntax.Subscript], text: str) -> ir.Promise:
    """``promise(off[b + 1] == off[b] + n[b])``: a name that is new stands for every index for which all the elements exist."""
    outside = scope.names
    refs: dict[str, TensorRef] = {}
    free: dict[str, syntax.Name] = {}
    for element in placed:
        assert isinstance(element.value, syntax.Name)
        ref = outside[element.value.id]
        assert isinstance(ref, TensorRef)
        _only_read(ref, element.value.span)
        refs[ref.name] = ref
        free |= {n.id: n for index in element.indices for n in names_in(index) if n.id not in outside and n.id not in free}
    if len(free) > 1:
        first, second = list(free.values())[:2]
        raise NsaError.at("NSA0332", f"a promise has one free index, and here are '{first.id}' and '{second.id}'", second.span)
    scope.names = outside | {name: ir.Index(I64, (), FREE) for name in free}
    try:
        condition = boolean(scope, argument)
    except NsaError as error:
        first_error = error.diagnostics[0]
        if first_error.code not in ("NSA0303", "NSA0322") or any(first_error.span == e.span for e in placed):
            raise
        raise NsaError.at("NSA0332", "a promise speaks of each element of a tensor, or of elements at places, not of both", first_error.span,
                          help="a bare tensor name stands for each of its elements") from None  # fmt: skip
    finally:
        scope.names = outside
    assert not isinstance(condition, Exact)
    for load in (n for n in ir.walk(condition) if isinstance(n, ir.Load)):
        for index in load.indices:
            try:
                shift(index)
            except ValueError:
                raise NsaError.at("NSA0332", "a place in a promise is known at launch, or the free index plus what is", index.span or argument.span,
                                  help="e.g. promise(off[b + 1] == off[b] + n[b]), promise(cu[0] == 0)") from None  # fmt: skip
    return ir.Promise("places", tuple(refs), condition, text, span=argument.span)


def _each_promise(scope: Scope, argument: syntax.Expr, text: str) -> ir.Promise:
    outside = scope.names
    tensors: dict[str, TensorRef] = {}
    for word in names_in(argument):
        ref = outside.get(word.id)
        if isinstance(ref, TensorRef) and word.id not in tensors:
            _only_read(ref, word.span)
            tensors[word.id] = ref
    scope.names = outside | {name: _element(ref) for name, ref in tensors.items()}
    try:
        condition = boolean(scope, argument)
    except NsaError as error:
        first = error.diagnostics[0]
        if first.code != "NSA0303":
            raise
        raise NsaError.at("NSA0332", "in a promise a bare tensor name stands for each of its elements", first.span) from None
    finally:
        scope.names = outside
    if isinstance(condition, Exact) or not any(isinstance(n, ir.Load) for n in ir.walk(condition)):
        raise NsaError.at("NSA0332", "a promise is about the contents of tensors, and this is about none", argument.span,
                          help="require(…) is about dimensions and scalars, and is checked at launch")  # fmt: skip
    if condition.axes or any(isinstance(n, ir.Index) and n.axes for n in ir.walk(condition)):
        raise NsaError.at("NSA0332", "a promise holds of each element alone: no axis can stand in it", argument.span,
                          help="a bare tensor name stands for each of its elements: promise(0 <= idx < T)")  # fmt: skip
    used = {n.tensor for n in ir.walk(condition) if isinstance(n, ir.Load)}
    names = tuple(name for name in tensors if name in used)
    one = tensors[names[0]]
    for name in names[1:]:
        if tensors[name].shape != one.shape:
            shapes = " and ".join(f"'{r.name}' is [{', '.join(r.extents)}]" for r in (one, tensors[name]))
            raise NsaError.at("NSA0332", f"tensors in one promise are of one shape, and {shapes}", argument.span)
    return ir.Promise("each", names, condition, text, span=argument.span)


def _element(ref: TensorRef) -> ir.Expr:
    """What a bare tensor name stands for in a promise."""
    indices = tuple(ir.Index(I64, (), f"each{i}") for i in range(len(ref.shape)))
    made = ir.Load(ref.dtype, (), ref.name, indices)
    return ir.Cast(I64, (), made) if ref.dtype.kind == "signed" and ref.dtype is not I64 else made


# ------------------------------------------------------------------------------------------------------------------------ views


def view(scope: Scope, target: syntax.Name, node: syntax.Call) -> TensorRef:
    """``v = view(cache, f32[NB, P], offset=…, strides=…)``, in bytes: offset 0 and contiguous where not given. Raises NSA0333."""
    given = arguments(node, 2, 2, ("offset", "strides"))
    base = operand(scope, given[0])
    if isinstance(base, Nothing):
        raise NsaError.at("NSA0322", "this optional parameter is absent here", given[0].span,
                          help="declare the view under 'if … is not None:'")  # fmt: skip
    if not isinstance(base, TensorRef):
        raise NsaError.at("NSA0333", "'view' takes a tensor first", given[0].span)
    if base.base is not None:
        raise NsaError.at("NSA0333", f"'{base.name}' is a view itself", given[0].span, help=f"make the view of '{base.base}'")
    if not base.dtype.is_integer or base.dtype.bits != 8:
        raise NsaError.at("NSA0333", f"a view is made of a tensor of bytes, u8 or i8, and '{base.name}' holds {base.dtype}", given[0].span)
    kind = given[1]
    if not isinstance(kind, syntax.Subscript):
        raise NsaError.at("NSA0333", "'view' takes a tensor type second, e.g. f32[N, 4]", kind.span)
    dtype = operand(scope, kind.value)
    if not isinstance(dtype, DType):
        raise NsaError.at("NSA0333", "'view' takes a tensor type second, e.g. f32[N, 4]", kind.span)
    if dtype in (BOOL, E2M1):
        raise NsaError.at("NSA0333", f"there is no view of {dtype} in bytes", kind.value.span, help="view it as u8, and compare or unpack")
    dtype = scope.target.facts.e4m3 if dtype is E4M3 else dtype
    shape = tuple(_bytes(scope, e, "an extent") for e in kind.indices)
    offset_node = keyword(node, "offset")
    offset = ir.const(0, span=node.span) if offset_node is None else _bytes(scope, offset_node, "'offset'")
    strides = _strides(scope, node, shape, dtype)
    scope.taken.add(target.id)
    scope.views.append(ir.View(target.id, dtype, shape, base.name, offset, strides, base.role, span=node.span))
    return TensorRef(target.id, dtype, shape, tuple(source_text(e.span) for e in kind.indices), base.role, base.name)


def _strides(scope: Scope, node: syntax.Call, shape: tuple[ir.Expr, ...], dtype: DType) -> tuple[ir.Expr, ...]:
    """One a axis, in bytes: as given, or contiguous."""
    given = keyword(node, "strides")
    if given is None:
        steps: list[ir.Expr] = [ir.const(dtype.bytes, span=node.span)]
        for extent in reversed(shape[1:]):
            step = steps[-1]
            if isinstance(step, ir.Const) and isinstance(extent, ir.Const):
                steps.append(ir.const(int(step.value) * int(extent.value), span=node.span))
            else:
                steps.append(scope.binary("mul", step, extent, node.span))
        return tuple(reversed(steps))
    inner = given.value if isinstance(given, syntax.Paren) else given
    items = inner.items if isinstance(inner, syntax.Tuple) else (inner,)
    if len(items) != len(shape):
        raise NsaError.at(
            "NSA0333",
            f"the view has {len(shape)} {'axis' if len(shape) == 1 else 'axes'}, and {len(items)} stride{' is' if len(items) == 1 else 's are'} given",
            given.span,
        )
    return tuple(_bytes(scope, item, "a stride") for item in items)


def _bytes(scope: Scope, node: syntax.Expr, what: str) -> ir.Expr:
    """An integer of a view: known at launch, and not negative where it is a constant. Raises NSA0304, NSA0333."""
    made = integer(scope, node, f"{what} of a view")
    if not _known_at_launch(made):
        raise NsaError.at("NSA0333", f"{what} of a view comes from dimensions, scalars and constants", node.span)
    if isinstance(made, ir.Const) and made.value < 0:
        raise NsaError.at("NSA0333", f"{what} of a view can't be negative; this is {made.value}", node.span)
    return made
