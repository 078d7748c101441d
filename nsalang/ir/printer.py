"""The IR as text, in a notation that reads like the source: for ``nsalang show``, ``--emit ir`` and goldens.

``f32(x)`` is a conversion, ``x.to(f32)`` a raw one; ``load(…)`` and ``store(…)`` appear where an access has a guard, a mask or a fill, else
it is ``x[m, n]``; in braces behind an access stands what is proved of it, and what its mask is made of; a bare whole number or index is i64,
or what the line ``integers`` of the head says; a bare decimal is f32; other types follow a colon. Types stand where a name is assigned, and
at an operation whose type does not follow from its operands. Kernels that differ (positions in the source apart) print differently.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import BOOL, E4M3_FNUZ, F32, I32, I64, DType
from nsalang.ir.operations import REDUCTIONS, UNARY


def print_kernel(kernel: ir.Kernel) -> str:
    """The whole kernel, ending in a newline."""
    return "\n".join(_Printer(kernel, _integers(kernel)).kernel()) + "\n"


dump = print_kernel


def show(expression: ir.Expr) -> str:
    """One expression, on one line; bare whole numbers are i64."""
    return _Printer(None, I64).at(expression, 0)


def dtype_text(dtype: DType) -> str:
    return "e4m3fnuz" if dtype is E4M3_FNUZ else dtype.name


def number(value: float, dtype: DType) -> str:
    """A float constant: its name, or the shortest decimal that is this value in its working dtype."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if abs(Fraction(value)) == dtype.max:
        return f"{dtype_text(dtype)}.{'max' if value > 0 else 'min'}"
    if dtype.working is F32 and abs(value) < F32.max and _as_f32(value) == value:
        for digits in range(1, 9):
            short = float(f"{value:.{digits}g}")
            if abs(short) < F32.max and _as_f32(short) == value:
                return repr(short)
    return repr(value)


def _as_f32(value: float) -> float:
    narrow: float = struct.unpack("f", struct.pack("f", value))[0]
    return narrow


def natural(node: ir.Expr) -> DType:
    """The dtype that follows from a node's operands; for one that no operand determines, its own."""
    match node:
        case ir.Binary():
            return BOOL if node.op in ir.COMPARISONS else node.a.dtype
        case ir.Unary():
            return UNARY[node.op].gives or node.x.dtype
        case ir.Where():
            return node.a.dtype
        case ir.Full():
            return node.value.dtype
        case ir.Spread():
            return node.x.dtype
        case ir.Reduce():
            return REDUCTIONS[node.op].gives(node.x.dtype)
        case ir.Scan():
            return REDUCTIONS["sum"].gives(node.x.dtype)
        case ir.Search() | ir.Border():
            return I64
        case ir.Fma():
            return F32
        case ir.Dot():
            return I64 if node.a.dtype.is_integer else F32
        case ir.Const() | ir.Dim() | ir.Scalar() | ir.Index() | ir.Var() | ir.Cast() | ir.Bitcast() | ir.Load():
            return node.dtype
        case _:
            assert_never(node)


def _integers(kernel: ir.Kernel) -> DType:
    """The dtype of bare indices and dimensions of the body: i32 where all are."""
    found = {n.dtype for s in kernel.body for n in ir.walk(s) if isinstance(n, (ir.Index, ir.Dim))}
    return I32 if found == {I32} else I64


_INFIX = {
    "or": ("|", 2), "xor": ("^", 3), "and": ("&", 4), "shl": ("<<", 5), "shr": (">>", 5), "add": ("+", 6), "sub": ("-", 6),
    "mul": ("*", 7), "div": ("/", 7), "floordiv": ("//", 7), "mod": ("%", 7),
    "lt": ("<", 1), "le": ("<=", 1), "gt": (">", 1), "ge": (">=", 1), "eq": ("==", 1), "ne": ("!=", 1),
}  # fmt: skip
_UNARY, _POSTFIX = 8, 9
_CALLS = {"min": "minimum", "max": "maximum", "tdiv": "tdiv", "tmod": "tmod"}


@dataclass(frozen=True, slots=True)
class _Printer:
    program: ir.Kernel | None
    integers: DType

    # ----------------------------------------------------------------------------------------------------------------- kernel

    def kernel(self) -> Iterator[str]:
        k = self.program
        assert k is not None
        # Shapes, extents and conditions are the host's, where integers are i64.
        head = _Printer(k, I64)
        parameters = [head.tensor(t) for t in k.tensors] + [f"{s.name}: {dtype_text(s.dtype)}" for s in k.scalars]
        yield f"def {k.name}({', '.join(parameters)}):"
        if k.dims:
            yield f"    # dims: {', '.join(k.dims)}"
        if k.constants:
            yield f"    # constants: {', '.join(f'{name} = {text}' for name, text in k.constants)}"
        if self.integers is not I64:
            yield f"    # integers: {self.integers}"
        yield from (f"    # {line}" for line in schedule(k.schedule))
        for r in k.requires:
            condition = head.at(r.condition, 0)
            notes = [f'"{r.text}"'] * (r.text != condition) + [f"implied by {r.because}"] * r.implied
            yield f"    require({condition})" + (f"  # {', '.join(notes)}" if notes else "")
        for h in k.hoists:
            condition = head.at(h.condition, 0)
            notes = [f'"{h.text}"'] * (h.text != condition) + [f"implied by {h.because}"] * h.implied
            yield f"    hoisted({condition})" + (f"  # {', '.join(notes)}" if notes else "")
        for p in k.promises:
            yield f"    {head.promise(p)}"
        yield from (f"    partial({name})" for name in k.partial)
        for c in k.checks:
            yield f"    check({c.kind} {c.tensor}[{c.axis}], {head.at(c.limit, 0)})"
        for v in k.views:
            yield f"    {head.view(v)}"
        indent = "    "
        if k.grid:
            extents = [head.at(g.extent, 0) for g in k.grid]
            texts = [f"tile({e})" if g.tiled else e for g, e in zip(k.grid, extents, strict=True)]
            yield f"    for {', '.join(g.name for g in k.grid)} in grid({', '.join(texts)}):"
            indent = "        "
        yield from self.block(k.body, indent)

    def tensor(self, t: ir.Tensor) -> str:
        return f"{t.name}: {t.role} {self.kind(t)}"

    def kind(self, t: ir.Tensor | ir.View) -> str:
        storage = "" if t.storage is None else f" as {dtype_text(t.storage)}"
        return f"{dtype_text(t.dtype)}[{self.list(t.shape)}]{storage}"

    def view(self, v: ir.View) -> str:
        strides = f"({self.list(v.strides)}{',' * (len(v.strides) == 1)})"
        return f"{v.name} = view({v.base}, {v.role} {self.kind(v)}, offset={self.at(v.offset, 0)}, strides={strides})"

    def promise(self, p: ir.Promise) -> str:
        condition = "" if p.condition is None else f", {self.at(p.condition, 0)}"
        notes = [f'"{p.text}"'] + ["implied"] * p.implied
        return f"promise({p.kind} {', '.join(p.tensors)}{condition})  # {', '.join(notes)}"

    # ------------------------------------------------------------------------------------------------------------- statements

    def block(self, body: tuple[ir.Stmt, ...], indent: str) -> Iterator[str]:
        if not body:
            yield f"{indent}pass"
        for statement in body:
            yield from self.statement(statement, indent)

    def statement(self, node: ir.Stmt, indent: str) -> Iterator[str]:
        match node:
            case ir.Assign():
                axes = f"[{', '.join(node.value.axes)}]" if node.value.axes else ""
                lies = "" if node.place is None else f" in {node.place}"
                yield f"{indent}{node.name}: {dtype_text(node.value.dtype)}{axes}{lies} = {self.at(node.value, 0)}{_lanes(node)}"
            case ir.Store():
                place = f"{node.tensor}[{self.list(node.indices)}]"
                if node.mode == "set" and node.guard is None and node.mask is None:
                    yield f"{indent}{place}{proof(node.proof)} = {self.at(node.value, 0)}{_lanes(node)}"
                else:
                    called = {"set": "store", "add": "atomic_add"}.get(node.mode, node.mode)
                    extra = self.named(guard=node.guard, mask=node.mask)
                    yield f"{indent}{called}({place}, {self.at(node.value, 0)}{extra}){proof(node.proof)}{_lanes(node)}"
            case ir.SpanAxis():
                stop = "" if node.stop is None else f", {self.at(node.stop, 0)}"
                yield f"{indent}{node.axis} = span({self.at(node.start, 0)}, {node.length}{stop})"
            case ir.For():
                notes = [f"carries {', '.join(node.carried)}"] if node.carried else []
                notes += [f"stages {node.stages}"] if node.stages else []
                notes += [f"ahead {', '.join(node.ahead)}"] if node.ahead else []
                notes += ["long"] if node.long else []
                carried = f"  # {'; '.join(notes)}" if notes else ""
                yield f"{indent}for {node.index} in {node.kind}({self.at(node.lo, 0)}, {self.at(node.hi, 0)}):{carried}"
                if node.early:
                    yield f"{indent}    early:"
                    yield from self.block(node.early, indent + "        ")
                yield from self.block(node.body, indent + "    ")
            case ir.If():
                yield f"{indent}if {self.at(node.cond, 0)}:"
                yield from self.block(node.body, indent + "    ")
                if node.orelse:
                    yield f"{indent}else:"
                    yield from self.block(node.orelse, indent + "    ")
            case ir.Barrier():
                yield f"{indent}barrier"
            case _:
                assert_never(node)

    # ------------------------------------------------------------------------------------------------------------ expressions

    def list(self, nodes: tuple[ir.Expr, ...]) -> str:
        return ", ".join(self.at(n, 0) for n in nodes)

    def named(self, **parts: ir.Expr | None) -> str:
        """Keyword arguments that follow others."""
        return "".join(f", {name}={self.at(part, 0)}" for name, part in parts.items() if part is not None)

    def at(self, node: ir.Expr, strength: int) -> str:
        """The text of an expression, in parentheses where its operator binds less than ``strength``."""
        text, binds = self.bound(node)
        if node.dtype is not natural(node):
            text, binds = f"typed({text}, {dtype_text(node.dtype)})", _POSTFIX
        return f"({text})" if binds < strength else text

    def bound(self, node: ir.Expr) -> tuple[str, int]:
        """The text of an expression, and how strongly its outermost operator binds."""
        match node:
            case ir.Const():
                return self.constant(node)
            case ir.Dim() | ir.Index():
                return (node.name if node.dtype is self.integers else f"{node.name}:{node.dtype}"), _POSTFIX
            case ir.Scalar():
                # A dimension may be given by the scalar parameter of its name.
                both = self.program is not None and node.name in self.program.dims
                return (f"scalar({node.name})" if both else node.name), _POSTFIX
            case ir.Var():
                return node.name, _POSTFIX
            case ir.Unary(op="neg"):
                inner = self.at(node.x, _UNARY)
                return f"-({inner})" if isinstance(node.x, ir.Const) else f"-{inner}", _UNARY
            case ir.Unary(op="not") | ir.Unary(op="invert"):
                return f"~{self.at(node.x, _UNARY)}", _UNARY
            case ir.Unary():
                return f"{node.op}({self.at(node.x, 0)})", _POSTFIX
            case ir.Binary():
                if node.op in _CALLS:
                    return f"{_CALLS[node.op]}({self.list((node.a, node.b))})", _POSTFIX
                sign, binds = _INFIX[node.op]
                left = binds + 1 if node.op in ir.COMPARISONS else binds
                return f"{self.at(node.a, left)} {sign} {self.at(node.b, binds + 1)}", binds
            case ir.Fma():
                return f"fma({self.list((node.a, node.b, node.c))})", _POSTFIX
            case ir.Where():
                return f"where({self.list((node.cond, node.a, node.b))})", _POSTFIX
            case ir.Cast(mode="convert"):
                return f"{dtype_text(node.dtype)}({self.at(node.x, 0)})", _POSTFIX
            case ir.Cast(mode="wrap"):
                return f"wrap({self.at(node.x, 0)}, {dtype_text(node.dtype)})", _POSTFIX
            case ir.Cast():
                return f"{self.at(node.x, _POSTFIX)}.to({dtype_text(node.dtype)})", _POSTFIX
            case ir.Bitcast():
                return f"bitcast({self.at(node.x, 0)}, {dtype_text(node.dtype)})", _POSTFIX
            case ir.Load():
                return self.load(node), _POSTFIX
            case ir.Search():
                return f"searchsorted({node.tensor}, {self.at(node.x, 0)}{self.named(guard=node.guard)})", _POSTFIX
            case ir.Border():
                return f"border({self.list((node.n, node.parts, node.g))})", _POSTFIX
            case ir.Dot():
                ways = ', precision="tf32"' * (node.precision == "tf32") + f", promote={node.promote}" * (node.promote > 0)
                ways += "" if node.left is None else f", left=({', '.join(node.left)})"
                ways += "" if node.warps is None else f", warps={node.warps}"
                return f"dot({self.list((node.a, node.b))}, axis={node.over}{self.named(acc=node.acc)}{ways})", _POSTFIX
            case ir.Reduce():
                axis = node.over[0] if len(node.over) == 1 else f"({', '.join(node.over)})"
                return f"{node.op}({self.at(node.x, 0)}, axis={axis})", _POSTFIX
            case ir.Scan():
                flags = ", exclusive" * node.exclusive + ", reverse" * node.reverse
                return f"cumsum({self.at(node.x, 0)}, axis={node.over}{flags})", _POSTFIX
            case ir.Full():
                return f"full({', '.join(node.axes)}, {self.at(node.value, 0)})", _POSTFIX
            case ir.Spread():
                return f"spread({self.at(node.x, 0)}, {node.group}, {node.over})", _POSTFIX
            case _:
                assert_never(node)

    def load(self, node: ir.Load) -> str:
        place = f"{node.tensor}[{self.list(node.indices)}]"
        if self.program is not None:
            elements = {t.name: t.storage or t.dtype for t in self.program.tensors} | {
                v.name: v.storage or v.dtype for v in self.program.views
            }
            if node.dtype is not elements.get(node.tensor):
                place = f"typed({place}, {dtype_text(node.dtype)})"
        extra = self.named(guard=node.guard, mask=node.mask, fill=node.fill)
        return (f"load({place}{extra})" if extra else place) + proof(node.proof)

    def constant(self, node: ir.Const) -> tuple[str, int]:
        if node.dtype is BOOL:
            return str(bool(node.value)), _POSTFIX
        text = number(float(node.value), node.dtype) if node.dtype.is_float else str(int(node.value))
        bare = node.dtype in (F32, self.integers) or text.startswith(node.dtype.name)
        return (text if bare else f"{text}:{dtype_text(node.dtype)}"), _UNARY


def proof(p: ir.Proof | None) -> str:
    """What is known of an access, to stand behind it: ``{guarded: tail, author}``."""
    return "" if p is None else f"{{{p.verdict.lower()}{': ' if p.mask else ''}{', '.join(p.mask)}}}"


def schedule(s: ir.Schedule) -> Iterator[str]:
    """The choices, one line each kind; nothing where none is made."""
    if s == ir.Schedule():
        return
    facts = [f"warps {s.warps}", f"stages {s.stages}", "wide" if s.wide else "narrow", "aligned" if s.aligned else "unaligned"]
    facts += ["exact"] * s.exact + ["unknown allowed"] * s.allow_unknown + ["checked"] * s.checked
    yield f"schedule: {', '.join([s.backend or 'no backend', *facts])}"
    if s.order:
        yield f"order: {', '.join(s.order)}"
    if s.vectors:
        yield f"vectors: {', '.join(s.vectors)}"
    if s.rows:
        yield f"rows: {', '.join(s.rows)}"
    if s.lengths:
        yield f"lanes: {', '.join(f'{axis} {length}' for axis, length in s.lengths)}"
    if s.groups:
        yield f"groups: {', '.join(f'{axis} every {step} of {of}' for axis, of, step in s.groups)}"
    if s.pinned:
        yield f"pinned: {', '.join(f'{axis} {length}' for axis, length in s.pinned)}"
    if s.classes:
        yield f"classes: {', '.join(f'{axis} {least} to {most}' for axis, least, most in s.classes)}"
    if s.sized:
        yield f"sized: {', '.join(f'{axis} {length}' for axis, length in s.sized)}"
    yield from (f"why: {line}" for line in s.why)


def _lanes(node: ir.Assign | ir.Store) -> str:
    """Which lanes of a statement go side by side in a vector, where that is decided."""
    notes = [f"alone {', '.join(node.alone)}"] if node.alone else []
    notes += [f"widest {node.widest}"] if node.widest else []
    return f"  # {'; '.join(notes)}" if notes else ""
