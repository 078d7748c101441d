"""`nsalang fmt`: the tree and the comments stay, formatting twice changes nothing, and the canonical text is the intended one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsalang.base.source import NsaError, Source
from nsalang.syntax.format import WIDTH, format_text
from nsalang.syntax.lexer import scan
from nsalang.syntax.parser import parse, read_source

ROOT = Path(__file__).parent.parent
TEXTS = sorted([*(ROOT / "examples").glob("*.nsa"), *(ROOT / "tests" / "parse").glob("*.nsa"), *(ROOT / "tests" / "cases").glob("*.nsa")])


def _comments(text: str) -> list[str]:
    return [t.text.rstrip() for t in scan(Source(text)) if t.kind == "COMMENT"]


def _check(text: str) -> str:
    done = format_text(Source(text))
    assert parse(Source(done)) == parse(Source(text))
    assert format_text(Source(done)) == done
    assert _comments(done) == _comments(text)
    assert not any(line != line.rstrip() for line in done.split("\n"))
    return done


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_formatting_keeps_the_meaning_of_every_text(path: Path) -> None:
    _check(read_source(path).text)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.nsa")), ids=lambda p: p.stem)
def test_examples_are_canonical(path: Path) -> None:
    text = read_source(path).text
    assert format_text(Source(text)) == text


def test_spacing_quotes_and_numbers() -> None:
    text = """\
A=1E-4
def  f( x:f32 [M,N//G],y : Out[ f32[M,] ]|None=None, k : const=-1,G=0Xff ) :
  'Doc.'
  require( N%G==0 ) ;partial (y)
  for m ,g in grid( tile( M ),N//G ):
        v=- x[m,g]** 2+2 ** k*x.y ** - 1-f(m) ** g # why
        if not(v<3)and m is  not None : y[m]=sum( x[m,g] ,axis=(m,g,),accumulate='f32' )
        elif  k: pass
        else: y [m]+=a if b else(c,)
"""
    assert (
        _check(text)
        == """\
A = 1e-4


def f(x: f32[M, N // G], y: Out[f32[M]] | None = None, k: const = -1, G=0xFF):
    "Doc."
    require(N % G == 0)
    partial(y)
    for m, g in grid(tile(M), N // G):
        v = -x[m, g] ** 2 + 2**k * x.y**-1 - f(m) ** g  # why
        if not (v < 3) and m is not None:
            y[m] = sum(x[m, g], axis=(m, g), accumulate="f32")
        elif k:
            pass
        else:
            y[m] += a if b else (c,)
"""
    )


def test_blank_lines_and_comments() -> None:
    text = """\

# About the file.



# About A.
A = 1
B = 2
# About f.
@jit

def f(x: f32[M]):

    # First.


    y = 1
    for m in grid(tile(M)):
        y = 2
        # In the loop.
      # Still in the loop.
    # Behind the loop.

    z = 3

# Between.
def g(x: f32[M]):
    y = (
        1  # one
        + 2
        # last
    )
C = 3
# The end.
"""
    assert (
        _check(text)
        == """\
# About the file.

# About A.
A = 1
B = 2


# About f.
@jit
def f(x: f32[M]):
    # First.

    y = 1
    for m in grid(tile(M)):
        y = 2
        # In the loop.
    # Still in the loop.
    # Behind the loop.

    z = 3


# Between.
def g(x: f32[M]):
    y = (
        1  # one
        + 2
        # last
    )


C = 3
# The end.
"""
    )


def test_long_lines() -> None:
    long = ", ".join(f"argument_{n}[index, another]" for n in range(4))
    more = ", ".join(f"argument_{n}[index, another]" for n in range(6))
    text = f"""\
def f(x: f32[M], y: f32[M]):
    result = maximum({long}, limit=3)
    result = maximum({more},
       limit=3)
"""
    lines = "".join(f"        argument_{n}[index, another],\n" for n in range(6))
    assert (
        _check(text)
        == f"""\
def f(x: f32[M], y: f32[M]):
    result = maximum(
        {long}, limit=3
    )
    result = maximum(
{lines}        limit=3,
    )
"""
    )


def test_parameters_keep_their_lines_when_they_are_too_long_for_one() -> None:
    path = ROOT / "tests" / "parse" / "mqa_logits.nsa"
    text = read_source(path).text
    assert _check(text) == text
    short = "def f(x: f32[M],\n      y: f32[M]):\n    pass\n"
    assert _check(short) == "def f(x: f32[M], y: f32[M]):\n    pass\n"
    names = [f"parameter_{n}: f32[M, N]" for n in range(9)]
    hanging = f"def f(\n    {', '.join(names[:4])},\n    {', '.join(names[4:])},\n):\n    pass\n"
    assert _check(hanging) == hanging
    one = f"def f({', '.join(names)}):\n    pass\n"
    assert max(map(len, _check(one).split("\n"))) <= WIDTH


def test_a_text_that_does_not_parse_is_refused() -> None:
    with pytest.raises(NsaError, match="NSA0104"):
        format_text(Source("def f(x:\n    pass\n"))


_NAMES = st.sampled_from(["x", "y", "scale", "top", "a_rather_long_name_of_a_value", "f32.min"])
_ATOMS = _NAMES | st.sampled_from(["0", "1.5", "1e-4", "0x1F", "True", "None", "'f32'", '"a"'])
_GAPS = st.sampled_from(["", " ", "  "])
_BREAKS = st.sampled_from(["", " ", "\n", "\n   ", "  # why\n", "\n# above\n  ", "\n\n"])


@st.composite
def _grown(draw: st.DrawFn, children: st.SearchStrategy[str]) -> str:
    kind = draw(st.sampled_from(["binary", "compare", "unary", "call", "index", "paren", "tuple", "if", "not"]))
    gap = draw(_GAPS)

    def around(text: str) -> str:
        return draw(_BREAKS) + text + draw(_BREAKS)

    match kind:
        case "binary":
            op = draw(st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "<<", " and ", " or "]))
            return f"({around(draw(children))}{op}{around(draw(children))})"
        case "compare":
            return f"({draw(children)}{gap}{draw(st.sampled_from(['<', '<=', '==', '!=', ' is ', ' is not ']))}{gap}{draw(children)})"
        case "unary":
            return f"({draw(st.sampled_from('-+~'))}{gap}{draw(children)})"
        case "not":
            return f"(not {draw(children)})"
        case "if":
            return f"({draw(children)} if {draw(children)} else {draw(children)})"
        case "paren":
            return f"({around(draw(children))})"
        case "tuple":
            return f"({','.join(around(draw(children)) for _ in range(draw(st.integers(1, 3))))},{draw(_BREAKS)})"
        case "index":
            items = ",".join(around(draw(children)) for _ in range(draw(st.integers(1, 3))))
            return f"x{gap}[{items}{draw(st.sampled_from(['', ',', ', # last' + chr(10)]))}]"
        case _:
            items = ",".join(around(draw(children)) for _ in range(draw(st.integers(0, 4))))
            comma = "," if items else ""
            return f"f{gap}({items}{draw(st.sampled_from(['', comma + 'axis' + gap + '=' + gap + 'm', comma]))})"


_EXPRESSIONS = st.recursive(_ATOMS, lambda children: _grown(children), max_leaves=8)


@st.composite
def _block(draw: st.DrawFn, indent: int, depth: int) -> str:
    out = ""
    for _ in range(draw(st.integers(1, 3))):
        out += draw(st.sampled_from(["", "\n", "\n\n\n", " " * indent + "# a comment\n", "# at the left\n"]))
        start = " " * indent
        kind = draw(st.sampled_from(["assign", "store", "add", "expression", "for", "if"] if depth else ["assign", "store", "return"]))
        value = draw(_EXPRESSIONS)
        match kind:
            case "for" | "if":
                inner = indent + draw(st.integers(1, 5))
                head = f"for m,n in {value}" if kind == "for" else f"if {value}"
                out += f"{start}{head}:  # head\n{draw(_block(inner, depth - 1))}"
                if kind == "if" and draw(st.booleans()):
                    out += f"{start}else:\n{draw(_block(indent + 2, depth - 1))}"
                out += draw(st.sampled_from(["", " " * inner + "# behind\n"]))
            case "store":
                out += f"{start}y[m]={value};z=1  # end\n"
            case "add":
                out += f"{start}y+={value}\n"
            case "expression":
                out += f"{start}{value}\n"
            case "return":
                out += f"{start}return {value},{draw(_EXPRESSIONS)}\n"
            case _:
                out += f"{start}a,b={value},{draw(_EXPRESSIONS)}\n"
    return out


@settings(max_examples=60, deadline=None)
@given(st.lists(_block(3, 2), min_size=1, max_size=2), _EXPRESSIONS)
def test_formatting_keeps_the_meaning_of_any_text(bodies: list[str], value: str) -> None:
    text = f"K = {value}\n" + "".join(f"# about\ndef f{n}(x: f32[M], k: const={value}) -> None:\n{body}" for n, body in enumerate(bodies))
    _check(text)
