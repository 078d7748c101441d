"""Which variables and buffers of a device function its addresses and predicates depend on: only these are evaluated."""

from __future__ import annotations

from typing import Any

ATOMIC, COPY, POINTER = "atomic_add", "ptx_cp_async", "tvm_access_ptr"


def kind_of(node: Any) -> str:
    """The class of a node of TVM's."""
    return type(node).__name__


def name_of(call: Any) -> str:
    """What a call calls, without the dialect's name."""
    return str(getattr(call.op, "name", call.op)).split(".")[-1]


def visit(node: Any, look: Any) -> None:
    from tvm import tirx

    tirx.stmt_functor.post_order_visit(node, look)


def pointed(pointer: Any) -> tuple[Any, Any, str] | None:
    """A pointer's data, the element at which it points, and the type of elements; None of what is no pointer, or is one that is not understood."""
    if kind_of(pointer) == "Call" and name_of(pointer) == POINTER:
        return pointer.args[1], pointer.args[2], str(pointer.args[0].dtype)
    if kind_of(pointer) == "Call" and name_of(pointer) == "address_of":
        load = pointer.args[0]
        return load.buffer.data, load.indices[0], str(load.buffer.dtype)
    return None


class Slice:
    """``needed``: variables, and the variables of buffers' data, whose values matter. ``roots``: pointers by what they are derived from, with the
    offset in bytes. ``parameters``: the pointers that the function is given."""

    def __init__(self, function: Any) -> None:
        self.parameters = {p for p in function.params if str(p.dtype) == "handle"}
        self.roots: dict[Any, tuple[Any, int]] = {}
        self.needed: set[Any] = set()
        self._sources: list[tuple[Any, list[Any]]] = []
        visit(function.body, self._pointers)
        self._statement(function.body, [])
        self._close()

    def root(self, pointer: Any) -> tuple[Any, int]:
        return self.roots.get(pointer, (pointer, 0))

    def is_global(self, pointer: Any) -> bool:
        return self.root(pointer)[0] in self.parameters

    def has_global(self, expr: Any) -> bool:
        """Whether the caller's memory is read in an expression."""
        found: list[bool] = []
        visit(expr, lambda n: found.append(True) if kind_of(n) == "BufferLoad" and self.is_global(n.buffer.data) else None)
        return bool(found)

    def _pointers(self, node: Any) -> None:
        if kind_of(node) == "Bind" and str(node.var.dtype) == "handle":
            value = node.value
            if kind_of(value) == "Call" and name_of(value) == "handle_add_byte_offset":
                root, offset = self.root(value.args[0])
                self.roots[node.var] = root, offset + int(value.args[1])
            elif kind_of(value) == "Var":
                self.roots[node.var] = self.root(value)

    def names(self, expr: Any) -> set[Any]:
        """What the value of an expression depends on."""
        found: set[Any] = set()

        def look(node: Any) -> None:
            if kind_of(node) == "Var":
                found.add(self.root(node)[0])
            elif kind_of(node) == "BufferLoad":
                found.add(self.root(node.buffer.data)[0])

        visit(expr, look)
        return found

    def _wants(self, expr: Any, around: list[Any]) -> None:
        """An access happens with this address, under these conditions."""
        for part in (expr, *around):
            self.needed |= self.names(part)

    def _reads(self, expr: Any, around: list[Any]) -> None:
        """The accesses to the caller's memory in an expression, with the choices above them."""
        if not self.has_global(expr):
            return
        kind = kind_of(expr)
        if kind == "BufferLoad":
            for index in expr.indices:
                if self.is_global(expr.buffer.data):
                    self._wants(index, around)
                self._reads(index, around)
            return
        if kind == "Select":
            parts, condition = [expr.true_value, expr.false_value], expr.condition
        elif kind == "Call" and name_of(expr) == "if_then_else":
            parts, condition = list(expr.args[1:]), expr.args[0]
        elif kind in ("And", "Or"):
            parts, condition = [expr.b], expr.a
        else:
            for child in children(expr):
                self._reads(child, around)
            return
        self._reads(condition, around)
        for part in parts:
            self._reads(part, [*around, condition])

    def _statement(self, node: Any, around: list[Any]) -> None:
        match kind_of(node):
            case "SeqStmt":
                for part in node.seq:
                    self._statement(part, around)
            case "For":
                self._reads(node.min, around)
                self._reads(node.extent, around)
                self._sources.append((node.loop_var, [node.min, node.extent]))
                self._statement(node.body, [*around, node.extent, node.min])
            case "While":
                self._reads(node.condition, around)
                self._statement(node.body, [*around, node.condition])
            case "IfThenElse":
                self._reads(node.condition, around)
                for part in (node.then_case, node.else_case):
                    if part is not None:
                        self._statement(part, [*around, node.condition])
            case "BufferStore":
                for index in node.indices:
                    self._reads(index, around)
                self._reads(node.value, around)
                if self.is_global(node.buffer.data):
                    for index in node.indices:
                        self._wants(index, around)
                self._sources.append((self.root(node.buffer.data)[0], [*node.indices, node.value, *around]))
            case "Bind":
                if str(node.var.dtype) != "handle":
                    self._reads(node.value, around)
                    self._sources.append((node.var, [node.value]))
            case "Evaluate":
                self._call(node.value, around)
            case _:
                if hasattr(node, "body"):
                    self._statement(node.body, around)

    def _call(self, call: Any, around: list[Any]) -> None:
        if kind_of(call) != "Call":
            return
        found = [pointed(a) for a in call.args]
        wanted = list(call.args[3:]) if name_of(call) == COPY else []
        for argument, place in zip(call.args, found, strict=True):
            if place is None:
                if kind_of(argument) != "StringImm":
                    self._reads(argument, around)
                continue
            if self.is_global(place[0]):
                for part in (place[1], *wanted):
                    self._wants(part, around)
            self._reads(place[1], around)
        # What it writes, wherever that is, comes from all that it is given.
        for written in call.args:
            for name in self.names(written) if kind_of(written) in ("Var", "Call", "BufferLoad") else ():
                if str(name.dtype) == "handle":
                    self._sources.append((name, [*call.args, *around]))

    def _close(self) -> None:
        """What is needed for what is needed."""
        sources = [(target, set().union(*(self.names(e) for e in parts))) for target, parts in self._sources]
        grown = True
        while grown:
            before = len(self.needed)
            for target, names in sources:
                if target in self.needed:
                    self.needed |= names
            grown = len(self.needed) > before


def children(expr: Any) -> list[Any]:
    """The operands of an expression."""
    match kind_of(expr):
        case "Call":
            return [a for a in expr.args if kind_of(a) not in ("StringImm",)]
        case "Cast" | "Broadcast":
            return [expr.value]
        case "Ramp":
            return [expr.base, expr.stride]
        case "Not":
            return [expr.a]
        case "Select":
            return [expr.condition, expr.true_value, expr.false_value]
        case "Let":
            return [expr.value, expr.body]
        case "BufferLoad":
            return list(expr.indices)
        case "Shuffle":
            return [*expr.vectors, *expr.indices]
        case "Var" | "IntImm" | "FloatImm" | "StringImm":
            return []
        case _:
            return [expr.a, expr.b]
