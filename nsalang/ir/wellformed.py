"""What holds of every kernel at every stage: types and axes follow from the parts, and all that is used exists where it is used.

A breach is a fault of the compiler: an AssertionError that names the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

from nsalang import ir
from nsalang.base.dtypes import BF16, BOOL, E4M3, E4M3_FNUZ, F16, F32, I8, I32, I64, DType
from nsalang.ir.operations import ADDABLE, REDUCTIONS, UNARY
from nsalang.ir.operators import BINARY
from nsalang.ir.places import FREE
from nsalang.ir.printer import natural, show


def check(kernel: ir.Kernel) -> None:
    """Raises AssertionError."""
    _Checker(kernel).kernel()


def body_nodes(kernel: ir.Kernel) -> Iterator[ir.Node]:
    """All nodes of the statements, in program order."""
    for statement in kernel.body:
        yield from ir.walk(statement)


def text_of(node: ir.Node) -> str:
    """Where a node stands, and what it is."""
    where = f"{node.span}: " if node.span else ""
    return where + (show(node) if isinstance(node, ir.Value) else type(node).__name__)  # type: ignore[arg-type]


FACTORS = (BF16, F16, F32, E4M3, E4M3_FNUZ, I8)


@dataclass(slots=True)
class _Checker:
    """A walk through a kernel that knows which variables and index variables exist where it is."""

    program: ir.Kernel
    order: tuple[str, ...] = ()
    axes: set[str] = field(default_factory=set)
    scalars: set[str] = field(default_factory=set)
    variables: dict[str, ir.Expr] = field(default_factory=dict)
    types: dict[str, ir.Expr] = field(default_factory=dict)

    def kernel(self) -> None:
        k = self.program
        self.order = tuple(ir.axes_of(k))
        parameters = [t.name for t in k.tensors] + [v.name for v in k.views] + [s.name for s in k.scalars]
        assert len(set(parameters)) == len(parameters), f"two parameters or views of one name in {parameters}"
        assert len(set(k.dims)) == len(k.dims), f"two dimensions of one name in {k.dims}"
        early = {id(s) for n in body_nodes(k) if isinstance(n, ir.For) for s in n.early}  # its axes are the body's
        declared = [n.axis for n in body_nodes(k) if isinstance(n, ir.SpanAxis) and id(n) not in early] + [
            n.index for n in body_nodes(k) if isinstance(n, ir.For)
        ]
        declared += [g.name for g in k.grid]
        declared += [name for name, _, _ in k.schedule.groups]
        assert len(set(declared)) == len(declared), f"two index variables of one name in {sorted(declared)}"
        for expression in [
            *(e for t in k.tensors for e in t.shape),
            *(g.extent for g in k.grid),
            *(r.condition for r in (*k.requires, *k.hoists)),
        ]:
            self.host(expression)
        for v in k.views:
            self.view(v)
        for p in k.promises:
            self.promise(p)
        for r in (*k.requires, *k.hoists):
            assert r.condition.dtype is BOOL, f"the condition '{r.text}' is {r.condition.dtype}"
        for name in k.partial:
            assert any(t.name == name and t.role != "in" for t in k.tensors), f"partial({name}) names no output"
        for g in k.grid:
            if g.tiled:
                self.axes |= self.with_groups(g.name)
            else:
                self.scalars.add(g.name)
        self.block(k.body)

    def host(self, node: ir.Expr) -> None:
        """An expression that is evaluated at launch."""
        self.expression(node)
        assert not node.axes, f"{text_of(node)} has axes"
        for part in ir.walk(node):
            early = not isinstance(part, ir.Load | ir.Search | ir.Border | ir.Var | ir.Index)
            assert early, f"{text_of(node)} is needed before the kernel runs"

    def view(self, node: ir.View) -> None:
        base = next((t for t in self.program.tensors if t.name == node.base), None)
        assert base is not None, f"the view {node.name} is of {node.base}, which is no tensor parameter"
        assert base.dtype.is_integer and base.dtype.bytes == 1, f"the view {node.name} is of {node.base}, which holds {base.dtype}"
        assert node.role == base.role, f"the view {node.name} is {node.role}, and {node.base} is {base.role}"
        assert len(node.strides) == len(node.shape), f"the view {node.name} has {len(node.shape)} axes and {len(node.strides)} strides"
        for expression in (*node.shape, node.offset, *node.strides):
            self.host(expression)
            assert expression.dtype is I64, f"the view {node.name} is laid out by {expression.dtype}: {text_of(expression)}"

    def promise(self, node: ir.Promise) -> None:
        assert node.tensors, f"the promise '{node.text}' is about no tensor"
        tensors = [self.tensor(name) for name in node.tensors]
        for t in tensors:
            assert t.role == "in", f"the promise '{node.text}' is about {t.name}, which is written"
            assert node.kind == "places" or t.shape == tensors[0].shape, f"the promise '{node.text}' is about tensors of several shapes"
        assert (node.condition is None) == (node.kind in ("distinct", "sorted")), f"the promise '{node.text}' is {node.kind}"
        assert node.kind != "sorted" or len(tensors[0].shape) == 1, f"{tensors[0].name} is sorted, and has {len(tensors[0].shape)} axes"
        if node.condition is None:
            assert len(tensors) == 1, f"the promise '{node.text}' is about several tensors"
            return
        self.scalars = {FREE} if node.kind == "places" else {f"each{i}" for i in range(len(tensors[0].shape))}
        self.expression(node.condition)
        self.scalars = set()
        assert node.condition.dtype is BOOL and not node.condition.axes, f"the promise '{node.text}' is {_type(node.condition)}"
        for part in ir.walk(node.condition):
            assert not isinstance(part, ir.Load) or part.tensor in node.tensors, f"the promise '{node.text}' reads {text_of(part)}"

    # ------------------------------------------------------------------------------------------------------------- statements

    def block(self, body: tuple[ir.Stmt, ...], axis: str | None = None, scalar: str | None = None) -> None:
        """Check a scope, in which ``axis`` or ``scalar`` is new; what it defines ends with it."""
        before, scalars, variables = self.axes, self.scalars, self.variables
        self.axes, self.scalars, self.variables = (
            before | (self.with_groups(axis) if axis else set()),
            scalars | ({scalar} if scalar else set()),
            dict(variables),
        )
        for statement in body:
            self.statement(statement)
        self.axes, self.scalars, self.variables = before, scalars, variables

    def with_groups(self, axis: str) -> set[str]:
        """An axis and those that have some of its lanes."""
        return {axis, *self.program.schedule.groups_of(axis)}

    def statement(self, node: ir.Stmt) -> None:
        match node:
            case ir.Assign():
                self.expression(node.value)
                old = self.types.setdefault(node.name, node.value)
                same = old.dtype is node.value.dtype and old.axes == node.value.axes
                assert same, f"{node.name} is {_type(old)} and {_type(node.value)}"
                self.variables[node.name] = node.value
            case ir.Store():
                self.store(node)
            case ir.SpanAxis():
                self.integer(node.start)
                if node.stop is not None:
                    self.integer(node.stop)
                assert node.length >= 0, f"the span {node.axis} has length {node.length}"
                self.axes |= self.with_groups(node.axis)
            case ir.For():
                self.integer(node.lo)
                self.integer(node.hi)
                assigned = {n.name for s in node.body for n in ir.walk(s) if isinstance(n, ir.Assign)}
                carried = assigned & set(self.variables)
                assert sorted(node.carried) == sorted(carried), (
                    f"the loop over {node.index} carries {sorted(carried)}, not {sorted(node.carried)}"
                )
                tiled = node.kind == "tile"
                self.block((*node.early, *node.body), node.index if tiled else None, None if tiled else node.index)
            case ir.If():
                self.expression(node.cond)
                assert node.cond.dtype is BOOL and not node.cond.axes, f"a branch on {_type(node.cond)}: {text_of(node.cond)}"
                self.block(node.body)
                self.block(node.orelse)
            case ir.Barrier():
                pass
            case _:
                assert_never(node)

    def integer(self, node: ir.Expr) -> None:
        self.expression(node)
        assert node.dtype.is_integer and not node.axes, f"a bound is {_type(node)}: {text_of(node)}"

    def store(self, node: ir.Store) -> None:
        tensor = self.access(node)
        assert tensor.role != "in", f"the input {tensor.name} is written"
        self.expression(node.value)
        element = tensor.storage or tensor.dtype
        fits = node.value.dtype is element or (node.value.dtype.kind == "signed" and element.kind == "signed")
        assert fits, f"{node.value.dtype} is stored into {tensor.name}, which holds {element}"
        assert node.mode != "add" or element in ADDABLE, f"{tensor.name} holds {element}, to which nothing is added atomically"
        parts = [i.axes for i in node.indices] + [node.value.axes] + ([node.guard.axes] if node.guard is not None else [])
        self.has(node.axes, self.joined(*parts), f"a store to {tensor.name}")

    def tensor(self, name: str) -> ir.Tensor | ir.View:
        names = [t.name for t in self.program.tensors] + [v.name for v in self.program.views]
        assert name in names, f"there is no tensor {name}"
        return self.program.tensor(name)

    def access(self, node: ir.Load | ir.Store) -> ir.Tensor | ir.View:
        tensor = self.tensor(node.tensor)
        assert len(node.indices) == len(tensor.shape), f"{node.tensor} has {len(tensor.shape)} axes and {len(node.indices)} indices"
        for i in node.indices:
            self.expression(i)
            assert i.dtype.is_integer, f"{node.tensor} is indexed by {i.dtype}: {text_of(i)}"
        for condition in (node.guard, node.mask):
            self.guard(node, condition)
        if node.proof is not None:
            assert not node.proof.mask or node.mask is not None, f"an access of {node.tensor} has a mask of {node.proof.mask}, and none"
            assert len(set(node.proof.mask)) == len(node.proof.mask), f"an access of {node.tensor} has a mask of {node.proof.mask}"
        return tensor

    def guard(self, node: ir.Load | ir.Store | ir.Search, condition: ir.Expr | None) -> None:
        if condition is None:
            return
        self.expression(condition)
        assert condition.dtype is BOOL, f"an access of {node.tensor} is guarded by {condition.dtype}: {text_of(condition)}"
        assert set(condition.axes) <= set(node.axes), f"{node.tensor} is accessed over {node.axes} and guarded by {text_of(condition)}"

    def search(self, node: ir.Search) -> None:
        tensor = self.tensor(node.tensor)
        assert tensor.role == "in" and len(tensor.shape) == 1, (
            f"{tensor.name} is searched, and is {tensor.role} with {len(tensor.shape)} axes"
        )
        self.over(node, node.x)
        element = I64 if tensor.dtype.kind == "signed" else tensor.dtype
        assert node.x.dtype is element, f"{tensor.name} holds {tensor.dtype}, and is searched for {node.x.dtype}"
        self.guard(node, node.guard)

    # ------------------------------------------------------------------------------------------------------------ expressions

    def joined(self, *groups: tuple[str, ...]) -> tuple[str, ...]:
        return ir.join(*groups, order=self.order)

    def has(self, axes: tuple[str, ...], expected: tuple[str, ...], what: str) -> None:
        assert axes == expected, f"{what} has axes {axes}, and its parts have {expected}"

    def over(self, node: ir.Expr, *parts: ir.Expr) -> None:
        """The node has the axes of its parts together, in the order of declaration."""
        for part in parts:
            self.expression(part)
        self.has(node.axes, self.joined(*(p.axes for p in parts)), text_of(node))

    def expression(self, node: ir.Expr) -> None:
        for axis in node.axes:
            assert axis in self.axes, f"axis {axis} does not exist here: {text_of(node)}"
        if not (isinstance(node, ir.Unary) and UNARY[node.op].gives) and not isinstance(node, ir.Reduce | ir.Scan | ir.Dot):
            assert node.dtype is natural(node), f"{node.dtype} does not follow from the operands of {text_of(node)}"
        match node:
            case ir.Const():
                self.constant(node)
            case ir.Dim():
                assert node.name in self.program.dims and node.dtype in (I64, I32) and not node.axes, f"no dimension is {text_of(node)}"
            case ir.Scalar():
                found = [s.dtype for s in self.program.scalars if s.name == node.name]
                assert found and not node.axes, f"no scalar parameter is {text_of(node)}"
                assert found[0] is node.dtype or found[0].kind == node.dtype.kind == "signed", (
                    f"{node.name} is {found[0]}, not {node.dtype}"
                )
            case ir.Index():
                assert node.dtype in (I64, I32), f"the index {node.name} is {node.dtype}"
                assert node.name in (self.axes if node.axes else self.scalars), f"index {node.name} does not exist here"
                self.has(node.axes, (node.name,) if node.axes else (), f"index {node.name}")
            case ir.Var():
                assert node.name in self.variables, f"{node.name} is not defined here"
                old = self.variables[node.name]
                assert old.dtype is node.dtype and old.axes == node.axes, f"{node.name} is {_type(old)}, and is used as {_type(node)}"
            case ir.Unary():
                self.over(node, node.x)
                self.unary(node)
            case ir.Binary():
                self.over(node, node.a, node.b)
                self.binary(node)
            case ir.Fma():
                self.over(node, node.a, node.b, node.c)
                assert node.a.dtype is node.b.dtype is node.c.dtype is F32, f"fma of other than f32: {text_of(node)}"
            case ir.Where():
                self.over(node, node.cond, node.a, node.b)
                assert node.cond.dtype is BOOL, f"where on {node.cond.dtype}: {text_of(node)}"
                assert node.a.dtype is node.b.dtype, f"where between {node.a.dtype} and {node.b.dtype}: {text_of(node)}"
            case ir.Cast():
                self.over(node, node.x)
                assert node.mode != "wrap" or (node.dtype.is_integer and node.x.dtype.is_integer), f"wrap is for integers: {text_of(node)}"
            case ir.Bitcast():
                self.over(node, node.x)
                assert node.dtype.bits == node.x.dtype.bits, f"{node.x.dtype} has not the width of {node.dtype}: {text_of(node)}"
            case ir.Load():
                self.load(node)
            case ir.Search():
                self.search(node)
            case ir.Border():
                self.over(node, node.n, node.parts, node.g)
                assert node.n.dtype is node.parts.dtype is node.g.dtype is I64, f"a border of other than i64: {text_of(node)}"
            case ir.Dot():
                self.dot(node)
            case ir.Reduce():
                self.reduce(node)
            case ir.Scan():
                self.over(node, node.x)
                assert node.over in node.x.axes, f"no axis {node.over} in {text_of(node)}"
                assert _counts_as(node.dtype, natural(node)), f"{node.dtype} does not follow from the operand of {text_of(node)}"
            case ir.Full():
                self.expression(node.value)
                self.has(node.axes, self.joined(node.axes, node.value.axes), text_of(node))
            case ir.Spread():
                self.spread(node)
            case _:
                assert_never(node)

    def constant(self, node: ir.Const) -> None:
        assert not node.axes, f"the constant {node.value} has axes"
        kind = bool if node.dtype is BOOL else float if node.dtype.is_float else int
        assert type(node.value) is kind, f"the constant {node.value!r} is {node.dtype}"
        if node.dtype.is_integer:
            assert node.dtype.min <= node.value <= node.dtype.max, f"the constant {node.value} does not fit {node.dtype}"

    def unary(self, node: ir.Unary) -> None:
        row = UNARY[node.op]
        assert node.x.dtype in row.takes, f"'{node.op}' of {node.x.dtype}: {text_of(node)}"
        if row.gives is not None:
            assert node.dtype.kind == row.gives.kind, f"{node.op} gives {row.gives}: {text_of(node)}"

    def binary(self, node: ir.Binary) -> None:
        a, b, op = node.a.dtype, node.b.dtype, node.op
        assert a is b or (op in ("shl", "shr") and b.is_integer), f"{a} and {b} in {text_of(node)}"
        assert a in BINARY[op].takes, f"'{op}' of {a}: {text_of(node)}"

    def load(self, node: ir.Load) -> None:
        tensor = self.access(node)
        assert tensor.role != "out", f"the output {tensor.name} is read"
        element = tensor.storage or tensor.dtype
        assert node.dtype is element, f"{tensor.name} holds {element}, and is read as {node.dtype}"
        self.has(node.axes, self.joined(*(i.axes for i in node.indices)), text_of(node))
        if node.fill is not None:
            self.expression(node.fill)
            assert node.fill.dtype is node.dtype, f"{node.dtype} is filled with {node.fill.dtype}: {text_of(node)}"

    def spread(self, node: ir.Spread) -> None:
        self.expression(node.x)
        assert node.group in self.program.schedule.groups_of(node.over), f"no groups {node.group} of {node.over}: {text_of(node)}"
        assert node.group in node.x.axes and node.over not in node.x.axes, f"{_type(node.x)} has no lane for each group: {text_of(node)}"
        self.has(node.axes, self.joined(tuple(node.over if a == node.group else a for a in node.x.axes)), text_of(node))

    def dot(self, node: ir.Dot) -> None:
        self.expression(node.a)
        self.expression(node.b)
        a, b = (tuple(x for x in part.axes if x != node.over) for part in (node.a, node.b))
        assert node.over in node.a.axes and node.over in node.b.axes, f"no axis {node.over} on both sides of {text_of(node)}"
        self.has(node.axes, self.joined(a, b), text_of(node))
        assert node.a.dtype is node.b.dtype in FACTORS, f"a product of {node.a.dtype} and {node.b.dtype}: {text_of(node)}"
        assert _counts_as(node.dtype, natural(node)), f"{node.dtype} does not follow from the operands of {text_of(node)}"
        assert node.precision == "ieee" or node.a.dtype is F32, f"tf32 of {node.a.dtype}: {text_of(node)}"
        assert node.promote >= 0, f"added up every {node.promote} terms: {text_of(node)}"
        if node.acc is not None:
            self.expression(node.acc)
            same = node.acc.dtype is node.dtype and node.acc.axes == node.axes
            assert same, f"{_type(node)} is added to {_type(node.acc)}: {text_of(node)}"
        if node.left is not None:
            free = {frozenset(a) - frozenset(b), frozenset(b) - frozenset(a)}
            assert frozenset(node.left) in free, f"{node.left} are not the free axes of one side of {text_of(node)}"

    def reduce(self, node: ir.Reduce) -> None:
        self.expression(node.x)
        assert node.over and len(set(node.over)) == len(node.over), f"no proper axes to reduce over: {text_of(node)}"
        assert set(node.over) <= set(node.x.axes), f"an axis that is not there is reduced: {text_of(node)}"
        self.has(node.axes, tuple(a for a in node.x.axes if a not in node.over), text_of(node))
        assert _counts_as(node.dtype, natural(node)), f"{node.dtype} does not follow from the operand of {text_of(node)}"
        row, x = REDUCTIONS[node.op], node.x.dtype
        assert x in row.takes or x in row.converts, f"'{node.op}' of {x}: {text_of(node)}"
        assert not row.picks or len(node.over) == 1, f"{node.op} over several axes: {text_of(node)}"


def _calculates(dtype: DType) -> bool:
    """Whether there is arithmetic on a dtype: not on bool, and not on fp8."""
    return dtype.is_integer or (dtype.is_float and not dtype.is_fp8)


def _counts_as(dtype: DType, expected: DType) -> bool:
    """Whether a result has its dtype; a count may have any signed width."""
    return dtype is expected or dtype.kind == expected.kind == "signed"


def _type(node: ir.Expr) -> str:
    return f"{node.dtype}[{', '.join(node.axes)}]"
