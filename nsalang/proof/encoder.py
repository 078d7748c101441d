"""IR in Z3's terms: integers are mathematical, and what cannot be expressed is an unknown of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, assert_never

from nsalang import ir
from nsalang.base.dtypes import BOOL, DType
from nsalang.proof.reason import bit_facts

if TYPE_CHECKING:
    import z3

EXACT = "exact "
"""Begins the name of an integer that may lie outside its dtype: what an obligation is about when it says that it does not."""


def is_exact(node: ir.Expr) -> bool:
    """Whether an operation of mathematical integers is said to Z3 as what it is, and not as an unknown in the range of its dtype."""
    match node:
        case ir.Unary():
            return node.op in ("neg", "abs", "invert")
        case ir.Binary():
            return node.op in ("add", "sub", "mul", "shl", "shr", "floordiv", "mod", "min", "max")
        case _:
            return False


SPELLINGS = str.maketrans({" ": "!", "#": "$", "'": "~", "·": "^"})


def spelled(name: str) -> str:
    """A name as a simple symbol of SMT-LIB; different names stay different."""
    found = name.translate(SPELLINGS)
    return "".join(c if c.isascii() and (c.isalnum() or c in "~!@$%^&*_-+=<>.?/") else f"%{ord(c):x}%" for c in found)


class Encoder:
    """IR to Z3 in one context. ``linear``: a product of two unknowns is a new unknown, and lemmas order such products."""

    def __init__(self, context: z3.Context, dtypes: Mapping[str, DType], linear: bool) -> None:
        self.context = context
        self.dtypes = dtypes
        self.linear = linear
        self.integers: dict[str, Any] = {}
        self.booleans: dict[str, Any] = {}
        self.functions: dict[str, Any] = {}
        self.elements: dict[ir.Expr, Any] = {}
        self.opaque: dict[ir.Expr, Any] = {}
        self.products: dict[tuple[str, str], tuple[Any, Any, Any]] = {}
        self.quotients: dict[ir.Expr, tuple[Any, Any]] = {}
        self.facts: list[Any] = []
        self.encoded: dict[ir.Expr, Any] = {}

    def solver(self, limit: int) -> Any:
        """A solver with a resource limit for each check, and a fixed seed."""
        import z3

        made = z3.Solver(ctx=self.context)
        made.set("rlimit", limit)
        made.set("random_seed", 0)
        return made

    # ------------------------------------------------------------------------------------------------------------- symbols

    def symbol(self, name: str) -> Any:
        import z3

        if name not in self.integers:
            self.integers[name] = z3.Int(spelled(name), self.context)
        return self.integers[name]

    def flag(self, name: str) -> Any:
        import z3

        if name not in self.booleans:
            self.booleans[name] = z3.Bool(spelled(name), self.context)
        return self.booleans[name]

    def unknown(self, node: ir.Expr) -> Any:
        """A value of which no more than its dtype is known; equal expressions are equal unknowns."""
        if node not in self.opaque:
            name = f"?{len(self.opaque)}"
            self.opaque[node] = self.encoded[node] = self.flag(name) if node.dtype is BOOL else self._ranged(self.symbol(name), node.dtype)
            self.facts += [self.boolean(f) for f in bit_facts(node)]
        return self.opaque[node]

    def alone(self, node: ir.Load) -> Any:
        """An element of a tensor without indices."""
        return self.flag(node.tensor) if node.dtype is BOOL else self.symbol(node.tensor)

    def _ranged(self, symbol: Any, dtype: DType) -> Any:
        if dtype.is_integer:
            self.facts += [symbol >= int(dtype.min), symbol <= int(dtype.max)]
        return symbol

    def _number(self, value: int) -> Any:
        import z3

        return z3.IntVal(value, self.context)

    # --------------------------------------------------------------------------------------------------------- expressions

    def boolean(self, node: ir.Expr) -> Any:
        """A bool expression."""
        if node not in self.encoded:
            self.encoded[node] = self._boolean(node)
        return self.encoded[node]

    def integer(self, node: ir.Expr) -> Any:
        """An integer expression."""
        if node not in self.encoded:
            self.encoded[node] = self._integer(node)
        return self.encoded[node]

    def _boolean(self, node: ir.Expr) -> Any:
        import z3

        assert node.dtype is BOOL, node
        match node:
            case ir.Const():
                return z3.BoolVal(bool(node.value), self.context)
            case ir.Var() | ir.Scalar():
                return self.flag(node.name)
            case ir.Unary(op="not"):
                return z3.Not(self.boolean(node.x))
            case ir.Where():
                return z3.If(self.boolean(node.cond), self.boolean(node.a), self.boolean(node.b))
            case ir.Binary() if node.a.dtype is BOOL and node.op in ("and", "or", "xor", "eq", "ne"):
                a, b = self.boolean(node.a), self.boolean(node.b)
                return {"and": z3.And, "or": z3.Or, "xor": z3.Xor, "ne": z3.Xor}[node.op](a, b) if node.op != "eq" else a == b
            case ir.Binary() if node.op in ir.COMPARISONS and node.a.dtype.is_integer:
                a, b = self.integer(node.a), self.integer(node.b)
                table = {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b, "eq": a == b, "ne": a != b}
                return table[node.op]
            case ir.Load():
                return self.element(node)
            case ir.Full():
                return self.boolean(node.value)
        return self.unknown(node)

    def _integer(self, node: ir.Expr) -> Any:
        import z3

        match node:
            case ir.Const():
                return self._number(int(node.value))
            case ir.Dim() | ir.Index():
                return self.symbol(node.name)
            case ir.Var():
                return self._ranged(self.symbol(node.name), node.dtype)
            case ir.Scalar():
                return self._ranged(self.symbol(node.name), self.dtypes.get(node.name, node.dtype))
            case ir.Load():
                return self.element(node)
            case ir.Full():
                return self.integer(node.value)
            case ir.Where():
                return z3.If(self.boolean(node.cond), self.integer(node.a), self.integer(node.b))
            case ir.Unary() if node.x.dtype.is_integer:
                return self._unary(node)
            case ir.Bitcast() if node.x.dtype.is_integer:
                return self._wrapped(self.integer(node.x), node.dtype)
            case ir.Binary():
                return self._binary(node)
            case ir.Cast() if node.x.dtype is BOOL:
                return z3.If(self.boolean(node.x), self._number(1), self._number(0))
            case ir.Cast() if node.x.dtype.is_integer:
                x = self.integer(node.x)
                return x if node.mode != "wrap" and node.dtype.kind == "signed" else self._wrapped(x, node.dtype)
        return self.unknown(node)

    def _unary(self, node: ir.Unary) -> Any:
        import z3

        x = self.integer(node.x)
        match node.op:
            case "neg":
                return self._wrapped(-x, node.dtype) if node.dtype.kind == "unsigned" else -x
            case "abs":
                return z3.If(x < 0, -x, x) if node.dtype.kind == "signed" else x
            case "invert":
                return -1 - x if node.dtype.kind == "signed" else int(node.dtype.max) - x
            case _:
                raise AssertionError(f"what '{node.op}' of an integer is, is not said here")

    def _wrapped(self, x: Any, dtype: DType) -> Any:
        low, size = int(dtype.min), 2**dtype.bits
        return (x - low) % size + low

    def _binary(self, node: ir.Binary) -> Any:
        import z3

        a, b = self.integer(node.a), self.integer(node.b)
        constant = node.b.value if isinstance(node.b, ir.Const) else None
        result: Any
        match node.op:
            case "add":
                result = a + b
            case "sub":
                result = a - b
            case "mul":
                result = self._product(a, b)
            case "min":
                return z3.If(a < b, a, b)
            case "max":
                return z3.If(a < b, b, a)
            case "floordiv":
                return self._quotient(node, a, b)[0]
            case "mod":
                return self._quotient(node, a, b)[1]
            case "shl" if isinstance(constant, int) and 0 <= constant < 64:
                result = a * 2**constant
            case "shr" if isinstance(constant, int) and 0 <= constant < 64:
                return a / self._number(2**constant)
            case "shl":
                result = self._scaled(a, b, node.dtype.bits)
            case "shr":
                return self._halved(a, b, node.dtype.bits)
            case "and" if isinstance(constant, int) and constant >= 0 and (constant & (constant + 1)) == 0:
                return a % self._number(constant + 1)
            case "and" | "or" | "xor" | "tdiv" | "tmod":
                return self.unknown(node)
            case "div" | "lt" | "le" | "gt" | "ge" | "eq" | "ne":
                raise AssertionError(f"{node.op} gives no integer")
            case _:
                assert_never(node.op)
        return self._wrapped(result, node.dtype) if node.dtype.kind == "unsigned" else result

    def _product(self, a: Any, b: Any) -> Any:
        import z3

        a, b = z3.simplify(a), z3.simplify(b)
        if z3.is_int_value(a) or z3.is_int_value(b) or not self.linear:
            return a * b
        key = (str(a), str(b)) if str(a) <= str(b) else (str(b), str(a))
        if key not in self.products:
            x, y = (a, b) if str(a) <= str(b) else (b, a)
            self.products[key] = (x, y, self.symbol(f"{key[0]}*{key[1]}"))
        return self.products[key][2]

    def _scaled(self, a: Any, b: Any, bits: int) -> Any:
        """``a * 2**b`` for an amount within its bounds, which is an obligation of its own; no unknown, so that what is said of it is true of it."""
        import z3

        result = a
        for amount in range(1, bits):
            result = z3.If(b >= amount, a * self._number(2**amount), result)
        return result

    def _halved(self, a: Any, b: Any, bits: int) -> Any:
        """``a // 2**b``."""
        import z3

        made = self.symbol(f"halved{len(self.facts)}")
        self.facts.append(z3.Implies(z3.And(b >= 0, a >= 0), z3.And(made >= 0, made <= a)))
        self.facts.append(z3.Implies(z3.And(b >= 0, a < 0), z3.And(made >= a, made < 0)))
        for amount in range(bits):
            self.facts.append(z3.Implies(b == amount, made == a / self._number(2**amount)))
        return made

    def _quotient(self, node: ir.Binary, a: Any, b: Any) -> tuple[Any, Any]:
        """Floor division and its remainder."""
        import z3

        if z3.is_int_value(b) and b.as_long() > 0:
            return a / b, a % b
        key = ir.binary("floordiv", node.a, node.b)
        if key not in self.quotients:
            n = len(self.quotients)
            q, r = self.symbol(f"quotient{n}"), self.symbol(f"remainder{n}")
            self.facts.append(z3.Implies(b != 0, a == self._product(b, q) + r))
            self.facts.append(z3.Implies(b > 0, z3.And(r >= 0, r < b)))
            self.facts.append(z3.Implies(b < 0, z3.And(b < r, r <= 0)))
            self.quotients[key] = (q, r)
        return self.quotients[key]

    def element(self, node: ir.Load) -> Any:
        """An element of a tensor: a function of its indices, so that equal indices give equal elements."""
        import z3

        if node not in self.elements:
            if node.dtype is not BOOL and not node.dtype.is_integer:
                return self.unknown(node)
            sort = z3.BoolSort(self.context) if node.dtype is BOOL else z3.IntSort(self.context)
            indices = [self.integer(i) for i in node.indices]
            if node.tensor not in self.functions:
                self.functions[node.tensor] = z3.Function(spelled(node.tensor), *[z3.IntSort(self.context)] * len(indices), sort)
            made = self.functions[node.tensor](*indices) if indices else self.alone(node)
            ranged = node.dtype is not BOOL and not node.tensor.startswith(EXACT)
            self.elements[node] = self._ranged(made, node.dtype) if ranged else made
        return self.elements[node]

    # --------------------------------------------------------------------------------------------------------------- lemmas

    def definitions(self) -> list[Any]:
        """Ranges and quotients, and the lemmas that order the named products."""
        import z3

        found = list(self.facts)
        if not self.linear:
            return found
        rows = list(self.products.values())
        for x, y, xy in rows:
            found += [z3.Implies(z3.And(x >= 0, y >= 0), xy >= 0), z3.Implies(z3.Or(x == 0, y == 0), xy == 0)]
            found += [z3.Implies(x == 1, xy == y), z3.Implies(y == 1, xy == x)]
            found += [z3.Implies(z3.And(x >= 0, y >= 1), xy >= x), z3.Implies(z3.And(y >= 0, x >= 1), xy >= y)]
        for i, first in enumerate(rows):
            for second in rows[i + 1 :]:
                for a, c, ac in ((first[0], first[1], first[2]), (first[1], first[0], first[2])):
                    for b, d, bd in ((second[0], second[1], second[2]), (second[1], second[0], second[2])):
                        if c.eq(d):
                            found += [
                                z3.Implies(z3.And(c >= 0, a + 1 <= b), ac + c <= bd),
                                z3.Implies(z3.And(c >= 0, b + 1 <= a), bd + c <= ac),
                                z3.Implies(a == b, ac == bd),
                            ]
        return found

    def read(self, model: Any) -> dict[str, int]:
        """The symbols' values in a model, and the elements that were read."""
        import z3

        def value(term: Any) -> int:
            got = model.eval(term, model_completion=True)
            return int(z3.is_true(got)) if z3.is_bool(got) else got.as_long()

        found = {name: value(symbol) for name, symbol in (*self.integers.items(), *self.booleans.items())}
        for node, term in self.elements.items():
            assert isinstance(node, ir.Load)
            found[f"{node.tensor}[{', '.join(str(value(self.integer(i))) for i in node.indices)}]"] = value(term)
        return found
