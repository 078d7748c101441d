"""Text -> tokens, and the layout of lines: what stands at a line's start decides about blocks, what stands in brackets does not."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsalang.base.source import NsaError, Source, Span
from nsalang.syntax.grammar import load

TRIVIA = frozenset({"COMMENT", "BLANK", "JOIN"})
LAYOUT = frozenset({"_NEWLINE", "_INDENT", "_DEDENT", "$END"})
OPENERS = {"LPAR": "RPAR", "LSQB": "RSQB"}
CLOSERS = {"RPAR": "LPAR", "RSQB": "LSQB"}

# Python's keywords that the language does not have, with what to write instead where that is certain.
REFUSED: dict[str, str | None] = {
    "while": "loop over a known range with `for i in range(lo, hi)`",
    "import": "a kernel uses the language's own names and plain constants only",
    "from": "a kernel uses the language's own names and plain constants only",
    "lambda": "write a helper `def` at the top level; it is inlined",
    "class": None,
    "with": None,
    "try": None,
    "except": None,
    "finally": None,
    "raise": "state what must hold with `require(…)` before `grid`",
    "assert": "state what must hold with `require(…)` before `grid`",
    "break": "guard the loop's body with `if`, or end the loop by its bounds",
    "continue": "guard the rest of the loop's body with `if`",
    "del": None,
    "global": None,
    "nonlocal": None,
    "yield": None,
    "async": None,
    "await": None,
}

_CHARACTERS = {
    "!": "write `not` for scalars, `!=` to compare",
    "?": "write `a if condition else b`",
    "`": None,
    "$": None,
    "\\": "a line goes on inside brackets; a `\\` must be the last character of its line",
    "“": 'strings stand in `"`',
    "”": 'strings stand in `"`',
    "‘": 'strings stand in `"`',
    "’": 'strings stand in `"`',
    "×": "write `*`",
    "÷": "write `/`",
    "−": "write `-`",
    "≤": "write `<=`",
    "≥": "write `>=`",
    "≠": "write `!=`",
}


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the text; lines and columns are 1-based, the end column is exclusive. ``start`` and ``end`` are offsets in the text."""

    kind: str
    text: str
    start: int = field(repr=False)
    line: int
    column: int
    end_line: int = field(repr=False)
    end_column: int = field(repr=False)

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    def span(self, source: Source) -> Span:
        return Span(source, self.line, self.column, self.end_line, self.end_column)


def scan(source: Source) -> list[Token]:
    """All tokens of a text as it stands, comments and blanks too. Never fails: what is no token has the kind of an error."""
    grammar = load()
    keywords, match = grammar.keywords, grammar.tokens.match
    text, tokens = source.text, []
    at, line, line_start = 0, 1, 0
    while at < len(text):
        found = match(text, at)
        assert found is not None and found.end() > at, "BAD_CHARACTER takes any character"
        kind, end = found.lastgroup or "", found.end()
        value = text[at:end]
        if kind == "NAME":
            kind = keywords.get(value, "RESERVED" if value in REFUSED else kind)
        column, first = at - line_start + 1, line
        breaks = value.count("\n") if kind in ("_NEWLINE", "LONG_STRING", "JOIN") else 0
        if breaks:
            line += breaks
            line_start = at + value.rindex("\n") + 1
        tokens.append(Token(kind, value, at, first, column, line, end - line_start + 1))
        at = end
    return tokens


def lay_out(source: Source, tokens: list[Token]) -> list[Token]:
    """The tokens that the parser takes: no trivia, ``_NEWLINE`` behind each line, ``_INDENT`` and ``_DEDENT`` around blocks, ``$END``.

    Raises NsaError for the first thing that is no token, for a bracket without its partner and for indentation that fits no block.
    """
    out: list[Token] = []
    brackets: list[Token] = []
    levels = [0]
    kept = [t for t in tokens if t.kind not in TRIVIA]
    line_open = False
    for n, token in enumerate(kept):
        kind = token.kind
        if kind == "_NEWLINE":
            if line_open and not brackets:
                out.append(token)
                line_open = False
            continue
        if not line_open:
            _indent(source, token, levels, out)
            line_open = True
        if kind in _FAULTS:
            _refuse(source, kept, n)
        if kind in OPENERS:
            brackets.append(token)
        elif kind in CLOSERS:
            _close(source, token, brackets)
        out.append(token)
    if brackets:
        raise NsaError.at("NSA0104", f"this `{brackets[-1].text}` is never closed", brackets[-1].span(source))
    last = out[-1] if out else Token("$END", "", 0, 1, 1, 1, 1)
    end = Token("$END", "", last.end, last.end_line, last.end_column, last.end_line, last.end_column)
    if line_open:
        out.append(_like(end, "_NEWLINE"))
    out += [_like(end, "_DEDENT") for _ in levels[1:]]
    out.append(end)
    return out


def _like(token: Token, kind: str) -> Token:
    return Token(kind, "", token.start, token.line, token.column, token.line, token.column)


def _indent(source: Source, token: Token, levels: list[int], out: list[Token]) -> None:
    before = source.text[token.start - token.column + 1 : token.start]
    if "\t" in before:
        tab = before.index("\t") + 1
        width = len(before) - len(before.lstrip("\t")) if tab == 1 else 1
        what = "indentation is made of spaces, and this line begins with a tab" if tab == 1 else "a tab among the spaces of indentation"
        raise NsaError.at("NSA0108", what, Span(source, token.line, tab, token.line, tab + width))
    level = len(before)
    if level > levels[-1]:
        levels.append(level)
        out.append(_like(token, "_INDENT"))
    while level < levels[-1]:
        levels.pop()
        out.append(_like(token, "_DEDENT"))
    if level != levels[-1]:
        known = ", ".join(str(n) for n in levels)
        what = f"this line is indented by {level} spaces, which no block around it is"
        raise NsaError.at("NSA0107", what, token.span(source), note=f"the blocks around it are indented by {known}")


def _close(source: Source, token: Token, brackets: list[Token]) -> None:
    wanted = CLOSERS[token.kind]
    if not any(b.kind == wanted for b in brackets):
        opener = {"LPAR": "(", "LSQB": "["}[wanted]
        raise NsaError.at("NSA0104", f"this `{token.text}` closes nothing: there is no `{opener}` before it", token.span(source))
    opened = brackets.pop()
    if opened.kind != wanted:
        note = f"the next bracket to close is `{token.text}` on line {token.line + source.first_line - 1}"
        raise NsaError.at("NSA0104", f"this `{opened.text}` is never closed", opened.span(source), note=note)


_FAULTS = frozenset({"BAD_CHARACTER", "BAD_NUMBER", "OPEN_STRING", "BRACE", "WALRUS", "MATMUL_ASSIGN", "ELLIPSIS", "RESERVED"})


def _refuse(source: Source, tokens: list[Token], n: int) -> None:
    """Raise for a token that no rule takes."""
    token = tokens[n]
    span, text = token.span(source), token.text
    match token.kind:
        case "BAD_CHARACTER":
            name = f"`{text}`" if text.isprintable() else f"U+{ord(text):04X}"
            raise NsaError.at("NSA0102", f"the character {name} has no meaning here", span, help=_CHARACTERS.get(text))
        case "BAD_NUMBER":
            raise NsaError.at("NSA0115", _why_no_number(text), span)
        case "OPEN_STRING":
            rest = source.line(token.line)[token.column - 1 :].rstrip("\r")
            whole = Span(source, token.line, token.column, token.line, token.column + len(rest))
            where = "before the end of the text" if len(text) >= 3 else "on its line"
            raise NsaError.at("NSA0109", f"this string is not closed {where}", span if len(text) >= 3 else whole)
        case "BRACE":
            raise NsaError.at("NSA0111", "the language has no dicts and no sets", span)
        case "WALRUS":
            raise NsaError.at("NSA0111", "the language has no `:=`", span, help="assign on a line of its own")
        case "MATMUL_ASSIGN":
            raise NsaError.at("NSA0111", "the language has no `@=`", span, help="a contraction is `dot(a, b, axis=k)`")
        case "ELLIPSIS":
            raise NsaError.at(
                "NSA0111", "the language has no `...`", span, help="an empty block is `pass`; every axis of an access is written"
            )
        case _:
            before, after = tokens[n - 1].kind if n else "", tokens[n + 1].kind if n + 1 < len(tokens) else ""
            named = before in ("DEF", "FOR", "DOT") or after in ("EQUAL", "AUGMENT")
            named = named or (text != "lambda" and before in ("COMMA", "LPAR") and after in ("COLON", "COMMA", "RPAR"))
            if named:
                raise NsaError.at("NSA0114", f"`{text}` is a keyword of Python and cannot be a name", span)
            raise NsaError.at("NSA0111", f"the language has no `{text}`", span, help=REFUSED[text])


def _why_no_number(text: str) -> str:
    digits = text.lower()
    if digits[:1] == "0" and digits.strip("0123456789_") == "" and digits.strip("0_"):
        return f"`{text}` is not a number: a decimal integer does not begin with 0"
    if "__" in digits or digits.endswith("_") or "_." in digits or "._" in digits:
        return f"`{text}` is not a number: a `_` stands between two digits"
    if digits.endswith("j"):
        return f"`{text}` is not a number: the language has no complex numbers"
    return f"`{text}` is not a number"
