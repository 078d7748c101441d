"""Random expressions over data, right by construction: each knows the ends between which its value is, and is kept within 64 bits by its operands.

They are for comparing machines, not for the prover: a kernel stores many of them, or reads and writes at the places that they give.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch

LEAST, MOST = -(2**63), 2**63 - 1
NAN, INF = float("nan"), float("inf")
INTEGERS = (-(2**62), -(2**31) - 1, -(2**31), -(2**31) + 1, -256, -129, -128, -7, -2, -1, 0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256,
            2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**62 + 1)  # fmt: skip
FAR = (LEAST, LEAST + 1, -(2**62), 2**62, MOST - 1, MOST)
FLOATS = (NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, 6.999999, 7.0, 127.5, 255.0, 255.5, -128.5, 32768.0, 2147483520.0, 2147483648.0,
          -2147483648.0, -2147483904.0, 9.223371487098962e18, 9.223372036854775808e18, -9.223372036854775808e18, 1e30, -1e30, 1e-40, 3.4028235e38)  # fmt: skip
RANGES = {"i8": (-128, 127), "i16": (-(2**15), 2**15 - 1), "i32": (-(2**31), 2**31 - 1), "i64": (LEAST, MOST), "u8": (0, 255)}
DATA = {"s": "i8", "w": "i32", "v": "i32", "l": "i64", "m": "i64", "u": "u8", "q": "u8", "f": "f32", "g": "f32"}
TABLE = 7
"""Elements of the tensor that is read at places from expressions: none of a power of two."""


@dataclass(frozen=True)
class Number:
    """A signed integer: what it is written as, and between which ends it lies."""

    text: str
    lo: int
    hi: int


def fits(lo: int, hi: int) -> bool:
    return lo >= LEAST and hi <= MOST


def written(value: int) -> str:
    return f"({value})" if value < 0 else str(value)


@dataclass
class Expressions:
    """What makes expressions. ``r`` decides everything; ``names`` are values that the kernel has already."""

    r: random.Random
    size: int
    names: list[Number] = field(default_factory=list)

    def odds(self, p: float) -> bool:
        return self.r.random() < p

    # ------------------------------------------------------------------------------------------------------- signed integers

    def number(self, depth: int) -> Number:
        if depth == 0 or self.odds(0.12):
            return self.leaf()
        make = self.r.choice(
            [self.sum, self.sum, self.product, self.quotient, self.quotient, self.rest, self.rest, self.rest, self.shifted, self.shifted, self.bits,
             self.extremum, self.extremum, self.clamped, self.chosen, self.converted, self.converted, self.sign, self.ceiling]
        )  # fmt: skip
        return make(depth - 1)

    def leaf(self) -> Number:
        kind = self.r.randrange(10)
        if kind < 6:
            name = self.r.choice(["s", "w", "w", "v", "l", "m"])
            return Number(f"{name}[n]", *RANGES[DATA[name]])
        if kind == 6 and self.names:
            return self.r.choice(self.names)
        if kind == 7:
            return Number("n", 0, self.size - 1)
        if kind == 8:
            return Number(f"i64({self.r.choice('uq')}[n])", 0, 255)
        value = self.r.choice(INTEGERS)
        return Number(written(value), value, value)

    def known(self, value: int) -> Number:
        return Number(written(value), value, value)

    def open(self, depth: int) -> Number:
        """A number that is no constant: constants alone are computed before any machine sees them."""
        x = self.number(depth)
        return Number("w[n]", *RANGES["i32"]) if x.lo == x.hi else x

    def narrowed(self, x: Number) -> Number:
        """Something like ``x`` between nearer ends."""
        kind = self.r.randrange(4)
        if kind == 0:
            lo, hi = sorted(self.r.sample([-(2**31), -100, -1, 0, 1, 50, 255, 2**15, 2**31 - 1], 2))
            return Number(f"clamp({x.text}, {written(lo)}, {written(hi)})", lo, hi)
        if kind == 1:
            by = self.r.choice([2, 3, 7, 10, 64, 1000, 2**20 + 1, 2**31 - 1])
            return Number(f"({x.text} % {by})", 0, by - 1)
        if kind == 2:
            dtype = self.r.choice(["i8", "i16", "i32"])
            return Number(f"i64(wrap({x.text}, {dtype}))", *RANGES[dtype])
        by = self.r.choice([32, 33, 40, 47, 62, 63])
        return Number(f"({x.text} >> {by})", x.lo >> by, x.hi >> by)

    def sum(self, depth: int) -> Number:
        a, b = self.open(depth), self.number(depth)
        while True:
            for op, lo, hi in self.r.sample([("+", a.lo + b.lo, a.hi + b.hi), ("-", a.lo - b.hi, a.hi - b.lo)], 2):
                if fits(lo, hi):
                    return Number(f"({a.text} {op} {b.text})", lo, hi)
            a, b = (self.narrowed(a), b) if a.hi - a.lo > b.hi - b.lo else (a, self.narrowed(b))

    def product(self, depth: int) -> Number:
        a, b = self.open(depth), self.number(depth)
        while True:
            ends = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
            if fits(min(ends), max(ends)):
                return Number(f"({a.text} * {b.text})", min(ends), max(ends))
            a, b = (self.narrowed(a), b) if a.hi - a.lo > b.hi - b.lo else (a, self.narrowed(b))

    def divisor(self, depth: int) -> Number:
        if self.odds(0.5):
            value = self.r.choice([v for v in (*INTEGERS, LEAST, MOST) if v])
            return self.known(value)
        b = self.open(depth)
        kind = self.r.randrange(4)
        if kind == 0:
            return Number(f"maximum({b.text}, 1)", 1, max(b.hi, 1))
        if kind == 1:
            return Number(f"minimum({b.text}, -1)", min(b.lo, -1), -1)
        if kind == 2:
            return Number(f"({b.text} | 1)", min(b.lo, -1) if b.lo < 0 else 1, max(b.hi + 1, 1) if b.hi < MOST else MOST)
        return Number(f"where({b.text} != 0, {b.text}, 1)", min(b.lo, 1), max(b.hi, 1))

    def quotient(self, depth: int) -> Number:
        a, b = self.open(depth), self.divisor(depth)
        if b.lo <= -1 <= b.hi and a.lo == LEAST:
            a = Number(f"maximum({a.text}, {written(-MOST)})", -MOST, max(a.hi, -MOST))
        most = max(abs(a.lo), abs(a.hi))
        if self.odds(0.2) and (most < 2**62 or b.lo > 0):
            return Number(f"cdiv({a.text}, {b.text})", max(-most, LEAST), min(most + 1, MOST))
        return Number(f"({a.text} // {b.text})", max(-most - 1, LEAST), min(most, MOST))

    def rest(self, depth: int) -> Number:
        a, b = self.open(depth), self.divisor(depth)
        made = Number(f"({a.text} % {b.text})", min(b.lo + 1, 0), max(b.hi - 1, 0))
        if self.odds(0.3):
            d = self.open(depth)
            end = max(abs(d.lo), abs(d.hi)) - 1
            return Number(f"where({d.text} != 0, {a.text} % {d.text}, 0)", min(-end, 0) if d.lo < 0 else 0, max(end, 0))
        return made

    def amount(self, depth: int, most: int) -> Number:
        kind = self.r.randrange(5)
        if kind < 2:
            return self.known(self.r.choice([k for k in (0, 1, 2, 7, 8, 31, 32, 33, 40, 62, 63) if k <= most]))
        b = self.open(depth)
        if kind == 2:
            return Number(f"clamp({b.text}, 0, {most})", 0, most)
        if kind == 3:
            return Number(f"({b.text} % {most + 1})", 0, most)
        mask = 2 ** ((most + 1).bit_length() - 1) - 1
        return Number(f"({b.text} & {mask})", 0, mask)

    def shifted(self, depth: int) -> Number:
        a = self.open(depth)
        if self.odds(0.6):
            b = self.amount(depth, 63)
            ends = [x >> y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
            return Number(f"({a.text} >> {b.text})", min(ends), max(ends))
        a = self.narrowed(a)
        room = 63 - max(abs(a.lo), abs(a.hi)).bit_length()
        b = self.amount(depth, room)
        ends = [x << y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
        return Number(f"({a.text} << {b.text})", min(ends), max(ends))

    def bits(self, depth: int) -> Number:
        a, b = self.open(depth), self.number(depth)
        op = self.r.choice("&|^")
        if op == "&" and b.lo >= 0:
            return Number(f"({a.text} & {b.text})", 0, b.hi)
        wide = max((x if x >= 0 else ~x).bit_length() for x in (a.lo, a.hi, b.lo, b.hi))
        if self.odds(0.2):
            return Number(f"(~{a.text})", ~a.hi, ~a.lo)
        return Number(f"({a.text} {op} {b.text})", 0 if min(a.lo, b.lo) >= 0 else -(2**wide), 2**wide - 1)

    def extremum(self, depth: int) -> Number:
        a, b = self.open(depth), self.number(depth)
        if self.odds(0.5):
            return Number(f"maximum({a.text}, {b.text})", max(a.lo, b.lo), max(a.hi, b.hi))
        return Number(f"minimum({a.text}, {b.text})", min(a.lo, b.lo), min(a.hi, b.hi))

    def clamped(self, depth: int) -> Number:
        x = self.open(depth)
        lo, hi = sorted(self.r.sample((*INTEGERS, *FAR), 2))
        return Number(f"clamp({x.text}, {written(lo)}, {written(hi)})", lo, hi)

    def chosen(self, depth: int) -> Number:
        a, b = self.number(depth), self.number(depth)
        return Number(f"where({self.test(depth)}, {a.text}, {b.text})", min(a.lo, b.lo), max(a.hi, b.hi))

    def converted(self, depth: int) -> Number:
        kind = self.r.randrange(7)
        if kind == 0:
            return Number(f"i64({self.byte(depth)})", 0, 255)
        if kind == 1:
            return Number(f"i64({self.test(depth)})", 0, 1)
        if kind in (2, 3):
            dtype = self.r.choice(["i8", "i16", "i32", "i64"])
            return Number(f"{dtype}({self.real(depth)})", *RANGES[dtype])
        if kind == 4:
            return Number("bitcast(f[n], i32)", *RANGES["i32"])
        if kind == 5:
            return Number(f"ceil_log2({self.real(depth)})", -127, 128)
        dtype = self.r.choice(["i8", "i16", "i32", "u8", "u16", "u32"])
        ends = RANGES.get(dtype) or (0, 2 ** int(dtype[1:]) - 1)
        x = self.open(depth)
        return Number(f"i64(wrap({x.text}, {dtype}))", *ends)

    def sign(self, depth: int) -> Number:
        x = self.open(depth)
        if x.lo == LEAST:
            x = Number(f"maximum({x.text}, {written(-MOST)})", -MOST, max(x.hi, -MOST))
        if self.odds(0.5):
            return Number(f"(-{x.text})", -x.hi, -x.lo)
        return Number(f"abs({x.text})", 0 if x.lo <= 0 <= x.hi else min(abs(x.lo), abs(x.hi)), max(abs(x.lo), abs(x.hi)))

    def ceiling(self, depth: int) -> Number:
        return self.number(depth)

    # ------------------------------------------------------------------------------------------------- bytes, floats, conditions

    def byte(self, depth: int) -> str:
        if depth <= 0 or self.odds(0.2):
            return self.r.choice(["u[n]", "q[n]"])
        kind = self.r.randrange(7)
        a = self.byte(depth - 1)
        b = self.byte(depth - 1) if self.odds(0.6) else str(self.r.choice([1, 2, 3, 7, 128, 255]))
        if kind < 2:
            return f"({a} {self.r.choice(['+', '-', '*', '&', '|', '^'])} {b})"
        if kind == 2:
            return f"({a} {self.r.choice(['//', '%'])} {b if b.isdigit() else f'maximum({b}, 1)'})"
        if kind == 3:
            amount = str(self.r.randrange(8)) if b.isdigit() else f"({b} & 7)" if self.odds(0.5) else f"({b} % 8)"
            return f"({a} {self.r.choice(['<<', '>>'])} {amount})"
        if kind == 4:
            return f"{self.r.choice(['minimum', 'maximum'])}({a}, {b})"
        if kind == 5:
            return f"u8({self.real(depth - 1)})"
        return f"wrap({self.open(depth - 1).text}, u8)"

    def real(self, depth: int) -> str:
        if depth <= 0 or self.odds(0.2):
            return self.r.choice(["f[n]", "g[n]"])
        kind = self.r.randrange(7)
        a = self.real(depth - 1)
        b = self.real(depth - 1) if self.odds(0.6) else self.r.choice(["0.0", "1.0", "-1.0", "0.5", "2147483648.0", "1e30"])
        if kind < 2:
            return f"({a} {self.r.choice(['+', '-', '*'])} {b})"
        if kind == 2:
            return f"{self.r.choice(['minimum', 'maximum'])}({a}, {b})"
        if kind == 3:
            return f"{self.r.choice(['abs', 'floor', 'ceil', 'trunc', 'round'])}({a})"
        if kind == 4:
            return f"where({self.test(depth - 1)}, {a}, {b})"
        if kind == 5:
            return f"(-{a})"
        return f"f32({self.open(depth - 1).text})"

    def test(self, depth: int) -> str:
        kind = self.r.randrange(6)
        op = self.r.choice(["<", "<=", ">", ">=", "==", "!="])
        if kind == 0 and depth > 0:
            return f"(({self.test(depth - 1)}) {self.r.choice(['&', '|'])} ({self.test(depth - 1)}))"
        if kind == 1 and depth > 0:
            return f"(~{self.test(depth - 1)})"
        if kind == 2:
            return f"({self.byte(depth - 1)} {op} {self.byte(depth - 1)})"
        if kind < 5:
            b = self.real(depth - 1) if self.odds(0.4) else self.r.choice(["0.0", "1.0", "-1.0", "2147483648.0", "-2147483648.0"])
            return f"({self.real(depth - 1)} {op} {b})"
        return f"({self.open(max(depth - 1, 0)).text} {op} {self.number(max(depth - 1, 0)).text})"


@dataclass(frozen=True)
class Made:
    """A kernel of expressions: its text, and how many it has."""

    text: str
    count: int


SIZE = 61
HEAD = ("s: i8[N], w: i32[N], v: i32[N], l: i64[N], m: i64[N], u: u8[N], q: u8[N], f: f32[N], g: f32[N], t: i32[7], c: i32[8]")  # fmt: skip


def made(seed: str, count: int) -> Made:
    """A kernel of ``count`` expressions, always the same of a seed."""
    r = random.Random(seed)
    e = Expressions(r, SIZE)
    lines = []
    for at in range(count):
        x = e.open(r.choice([1, 1, 2, 2, 2, 3]))
        kind = r.randrange(8)
        if kind == 0:
            lines.append(f"y[{at}, n] = t[{x.text} % {TABLE}]")
        elif kind == 1:
            lines.append(f"y[{at}, n] = t[clamp({x.text}, 0, {TABLE - 1})]")
        elif kind == 2:
            lines += [f"e{at} = {x.text}", f"y[{at}, n] = where((0 <= e{at}) & (e{at} < {TABLE}), t[e{at}], -1)"]
            e.names.append(Number(f"e{at}", x.lo, x.hi))
        elif kind == 3:
            lines.append(f"y[{at}, n] = c[{x.text} & 7]")
        elif kind == 4:
            lines += [f"e{at} = {x.text}", f"if {e.test(1)}:", f"    y[{at}, n] = e{at}", "else:", f"    y[{at}, n] = {e.open(1).text}"]
            e.names.append(Number(f"e{at}", x.lo, x.hi))
        elif kind == 5:
            lines.append(f"y[{at}, n] = i64({e.byte(3)})")
        else:
            lines += [f"e{at} = {x.text}", f"y[{at}, n] = e{at}"]
            e.names.append(Number(f"e{at}", x.lo, x.hi))
    grid = r.choice(["N", "tile(N)", "tile(N)"])
    text = [
        f"def k({HEAD}, y: Out[i64[{count}, N]]):",
        f"    require(N <= {SIZE})",
        f"    for n in grid({grid}):",
        *(f"        {line}" for line in lines),
    ]
    return Made("\n".join(text) + "\n", count)


def inputs(seed: str) -> tuple[torch.Tensor, ...]:
    """Data from the ends of every type."""
    r = random.Random(seed)
    dtypes = {"i8": torch.int8, "i32": torch.int32, "i64": torch.int64, "u8": torch.uint8, "f32": torch.float32}

    def one(dtype: str) -> float:
        if dtype == "f32":
            return r.choice(FLOATS) if r.random() < 0.7 else r.uniform(-300, 300)
        lo, hi = RANGES[dtype]
        edges = [x for x in (*INTEGERS, *FAR, lo, lo + 1, hi - 1, hi) if lo <= x <= hi]
        return (
            r.choice(edges) if r.random() < 0.7 else r.randint(lo, hi) >> r.choice([0, 0, 1, 8, 30]) if dtype != "u8" else r.randint(lo, hi)
        )

    data = [torch.tensor([one(d) for _ in range(SIZE)], dtype=dtypes[d]) for d in DATA.values()]
    return (*data, torch.arange(10, 10 + TABLE, dtype=torch.int32), torch.arange(100, 108, dtype=torch.int32))
