"""What a syntax error means: from the token that fits nowhere and the parser's state to one sentence in the user's terms."""

from __future__ import annotations

from dataclasses import dataclass

from nsalang.base.source import NsaError, Source, Span
from nsalang.syntax.grammar import Grammar
from nsalang.syntax.lexer import CLOSERS, LAYOUT, OPENERS, Token

_HEADERS = {"FOR": "for", "IF": "if", "ELIF": "elif", "ELSE": "else", "DEF": "def"}
_KEYWORDS = frozenset("FOR IF ELIF ELSE DEF IN IS AND OR NOT RETURN PASS TRUE FALSE NONE ".split())
_OPERATORS = frozenset(
    "IN PLUS MINUS STAR DIVIDE POWER SHIFT PIPE CARET AMPERSAND TILDE AND OR NOT IS EQUAL AUGMENT LESSTHAN MORETHAN "
    "LESS_EQUAL MORE_EQUAL EQUALS UNEQUAL ".split()
)
_OPERANDS = frozenset({"NAME", "NUMBER", "STRING", "LONG_STRING", "TRUE", "FALSE", "NONE"})
_STRINGS = frozenset({"STRING", "LONG_STRING"})


def explain(source: Source, tokens: list[Token], n: int, states: list[int], grammar: Grammar) -> NsaError:
    """The error for ``tokens[n]``, which the parser in ``states`` does not take."""
    begin = n
    while begin > 0 and tokens[begin - 1].kind not in LAYOUT:
        begin -= 1
    where = _Place(source, tokens, n, begin, _accepted(grammar, states))
    for rule in (_layout, _top_level, _keyword, _python, _missing):
        error = rule(where)
        if error is not None:
            return error
    raise AssertionError("_missing explains every token")


@dataclass(frozen=True, slots=True)
class _Place:
    """``tokens[n]`` fits nowhere; its line begins with ``tokens[begin]``; ``accepted`` are the kinds that would have fitted."""

    source: Source
    tokens: list[Token]
    n: int
    begin: int
    accepted: frozenset[str]

    @property
    def token(self) -> Token:
        return self.tokens[self.n]

    @property
    def before(self) -> Token:
        return self.tokens[self.n - 1]

    @property
    def wants_value(self) -> bool:
        return "NUMBER" in self.accepted

    @property
    def open_brackets(self) -> list[Token]:
        opened: list[Token] = []
        for token in self.tokens[self.begin : self.n]:
            if token.kind in OPENERS:
                opened.append(token)
            elif token.kind in CLOSERS:
                opened.pop()
        return opened

    def at(self, token: Token) -> Span:
        return token.span(self.source)

    def after(self, token: Token) -> Span:
        """The place just behind a token, where something is missing."""
        return Span(self.source, token.end_line, token.end_column, token.end_line, token.end_column + 1)


def _accepted(grammar: Grammar, states: list[int]) -> frozenset[str]:
    """The terminals that can follow: those that are shifted after the reductions that they cause."""
    found = set()
    for kind in grammar.actions[states[-1]]:
        if not (kind.isupper() or kind == "$END"):
            continue
        stack = list(states)
        while (action := grammar.actions[stack[-1]].get(kind)) is not None:
            if action >= 0:
                found.add(kind)
                break
            rule = grammar.rules[~action]
            if rule.keep:
                del stack[-len(rule.keep) :]
            stack.append(grammar.actions[stack[-1]][rule.origin])
    return frozenset(found)


def _layout(p: _Place) -> NsaError | None:
    """Indentation, blocks and colons."""
    token = p.token
    if token.kind == "_INDENT":
        return NsaError.at("NSA0106", "this line is indented, but no header above it opens a block", p.at(p.tokens[p.n + 1]))
    if p.accepted == {"_INDENT"}:
        colon = p.tokens[p.n - 2]
        begin = p.n - 2
        while begin > 0 and p.tokens[begin - 1].kind not in LAYOUT:
            begin -= 1
        header = _HEADERS.get(p.tokens[begin].kind, "def")
        return NsaError.at(
            "NSA0105",
            f"the block of this `{header}` is missing: its lines stand below it, indented further",
            p.at(p.tokens[begin]).to(p.at(colon)),
        )
    first = p.tokens[p.begin].kind
    if (
        first in _HEADERS
        and "COLON" in p.accepted
        and not p.open_brackets
        and (token.kind == "_NEWLINE" or first == "ELSE" or p.before.kind == "RPAR" and first == "DEF")
    ):
        return NsaError.at("NSA0103", f"a `:` is missing at the end of this `{_HEADERS[first]}`", p.after(p.before))
    return None


def _top_level(p: _Place) -> NsaError | None:
    first = p.tokens[p.begin]
    if p.accepted == {"AT", "DEF"}:
        return NsaError.at("NSA0101", "a `def` is needed here, below its decorator", p.at(p.token))
    inside = sum((t.kind == "_INDENT") - (t.kind == "_DEDENT") for t in p.tokens[: p.n])
    if (
        not inside
        and p.token.kind == "EQUAL"
        and [t.kind for t in p.tokens[p.begin : p.begin + 2]] == ["NAME", "EQUAL"]
        and not p.wants_value
    ):
        return NsaError.at("NSA0119", "a constant is one name: `NAME = expression`", p.at(p.token))
    if inside or first.kind in ("DEF", "AT") or p.n - p.begin > 1 or p.token.kind in LAYOUT and p.n == p.begin:
        return None
    if p.n > p.begin and (first.kind != "NAME" or p.token.kind == "EQUAL"):
        return None
    if first.kind in ("ELIF", "ELSE"):
        return None
    what = f"`{first.text}`" if first.kind in _KEYWORDS else "this"
    return NsaError.at("NSA0119", f"{what} cannot stand at the top level, which holds `def` and `NAME = expression` only", p.at(first))


def _keyword(p: _Place) -> NsaError | None:
    """A keyword where a name stands, or a name's use of one."""
    token, first = p.token, p.tokens[p.begin]
    if token.kind in ("EQUAL", "AUGMENT") and p.before.kind in _KEYWORDS and p.n - 1 == p.begin:
        return NsaError.at("NSA0114", f"`{p.before.text}` is a keyword and cannot be a name", p.at(p.before))
    if token.kind in _KEYWORDS and "NAME" in p.accepted and (p.before.kind in ("DEF", "FOR", "DOT") or not p.wants_value):
        return NsaError.at("NSA0114", f"`{token.text}` is a keyword and cannot be a name", p.at(token))
    if token.kind == "DEF":
        if p.n == p.begin:
            return NsaError.at(
                "NSA0111", "the language has no `def` inside a `def`", p.at(token), help="write the helper at the top level; it is inlined"
            )
        return NsaError.at("NSA0101", "`def` begins a line of its own", p.at(token))
    if token.kind in ("ELSE", "ELIF") and p.n == p.begin:
        return NsaError.at(
            "NSA0101",
            f"this `{token.text}` belongs to no `if`",
            p.at(token),
            help="it stands directly below the block of its `if`, indented like the `if`",
        )
    if token.kind == "EQUAL" and first.kind in ("IF", "ELIF") and not p.open_brackets:
        return NsaError.at("NSA0101", "`=` assigns, and here a condition is needed", p.at(token), help="write `==` to compare")
    if token.kind == "FOR":
        return NsaError.at(
            "NSA0111", "the language has no comprehensions", p.at(token), help="index with an axis and reduce over it: `sum(x[n], axis=n)`"
        )
    if not p.wants_value and (token.kind == "IN" or token.kind == "NOT" and p.tokens[p.n + 1].kind == "IN"):
        text = "not in" if token.kind == "NOT" else "in"
        return NsaError.at("NSA0111", f"the language has no operator `{text}`", p.at(token), help="compare: `(0 <= t) & (t < n)`")
    return None


def _python(p: _Place) -> NsaError | None:
    """What Python has and the language has not."""
    token, before, first = p.token, p.before, p.tokens[p.begin]
    kind, beside = token.kind, p.before.end == p.token.start
    if kind in _STRINGS and before.kind == "NAME" and beside and before.text.lower() in ("f", "b", "u", "rb", "br", "fr", "rf", "t"):
        what = "f-strings" if "f" in before.text.lower() else f"strings that begin with `{before.text}`"
        return NsaError.at("NSA0111", f"the language has no {what}", p.at(before).to(p.at(token)))
    if kind in _STRINGS and before.kind in _STRINGS:
        return NsaError.at("NSA0111", "strings that stand side by side are not joined", p.at(token))
    if kind == "LSQB" and p.wants_value:
        return NsaError.at("NSA0111", "the language has no lists", p.at(token), help="several axes stand in parentheses: `axis=(m, n)`")
    if kind in ("STAR", "POWER") and (p.wants_value or "NAME" in p.accepted) and before.kind in (*OPENERS, "COMMA", "EQUAL"):
        if first.kind == "DEF":
            return NsaError.at("NSA0111", f"the language has no `{token.text}` parameters", p.at(token))
        return NsaError.at("NSA0111", f"the language does not unpack with `{token.text}`", p.at(token))
    if kind == "DIVIDE" and before.kind in ("LPAR", "COMMA") and first.kind == "DEF":
        return NsaError.at("NSA0111", "the language has no `/` parameters", p.at(token))
    if kind == "AT":
        return NsaError.at("NSA0111", "the language has no `@` operator", p.at(token), help="a contraction is `dot(a, b, axis=k)`")
    if kind in ("AMPERSAND", "PIPE") and before.kind == kind and beside:
        word = "and" if kind == "AMPERSAND" else "or"
        text = token.text
        return NsaError.at(
            "NSA0111",
            f"the language has no `{text}{text}`",
            p.at(before).to(p.at(token)),
            help=f"write `{word}` for scalars, `{text}` for values with axes",
        )
    annotated = kind == "COLON" and not p.open_brackets and first.kind not in _HEADERS and first.kind != "AT"
    if annotated and before.kind in ("NAME", "RSQB"):
        return NsaError.at(
            "NSA0111", "variables have no annotations", p.at(token), help="the dtype follows from the value; convert with `f32(x)`"
        )
    if kind == "MORETHAN" and before.kind == "LESSTHAN" and beside:
        return NsaError.at("NSA0111", "the language has no `<>`", p.at(before).to(p.at(token)), help="write `!=`")
    if kind == "ARROW" and first.kind != "DEF":
        return NsaError.at("NSA0101", "`->` stands only behind the parameters of a `def`", p.at(token))
    return None


def _missing(p: _Place) -> NsaError:
    """Something is missing before the token, or the token is too much."""
    token, before, opened = p.token, p.before, p.open_brackets
    note = None
    if opened and opened[-1].line < token.line:
        note = f"the `{opened[-1].text}` on line {opened[-1].line + p.source.first_line - 1} is still open here"
    if "ELSE" in p.accepted and token.kind != "ELSE" and (start := _conditional(p)) is not None:
        return NsaError.at(
            "NSA0101", "the `else` of this `if` is missing: a conditional expression is `a if condition else b`", p.at(start), note=note
        )
    if p.wants_value:
        if token.kind in LAYOUT:
            return NsaError.at("NSA0101", f"a value is missing after `{before.text}`", p.at(before), note=note)
        if token.kind in CLOSERS or token.kind in ("COMMA", "COLON", "SEMICOLON", "ARROW", "DOT") or token.kind in _OPERATORS:
            place = f"between `{before.text}` and `{token.text}`" if before.kind not in LAYOUT else f"before `{token.text}`"
            return NsaError.at("NSA0101", f"a value is missing {place}", p.at(token), note=note)
        return NsaError.at("NSA0101", f"`{token.text}` is not a value, and one is needed here", p.at(token), note=note)
    text = "the end of the line" if token.kind in LAYOUT else f"`{_short(token)}`"
    span = p.after(before) if token.kind in LAYOUT else p.at(token)
    if "NAME" in p.accepted and "_NEWLINE" not in p.accepted:
        return NsaError.at("NSA0101", f"a name is needed here, not {text}", span, note=note)
    needed = [f"`{_TEXT[k]}`" for k in ("LPAR", "COLON", "EQUAL", "IN", "COMMA", "RPAR", "RSQB") if k in p.accepted]
    if p.tokens[p.begin].kind in ("DEF", "FOR") and needed and not opened:
        return NsaError.at(
            "NSA0101", f"{needed[0] if len(needed) == 1 else ' or '.join(needed)} is needed here, not {text}", span, note=note
        )
    if token.kind in _OPERANDS or token.kind in OPENERS or token.kind in ("NOT", "TILDE"):
        what = "an operator or a `,`" if opened else "an operator"
        return NsaError.at("NSA0101", f"{what} is missing between `{_short(before)}` and {text}", span, note=note)
    return NsaError.at("NSA0101", f"{text} does not belong here", span, note=note)


_TEXT = {"LPAR": "(", "RPAR": ")", "RSQB": "]", "COLON": ":", "EQUAL": "=", "IN": "in", "COMMA": ","}


def _short(token: Token) -> str:
    return token.text if len(token.text) <= 20 and "\n" not in token.text else token.text[:16].split("\n")[0] + "…"


def _conditional(p: _Place) -> Token | None:
    """The `if` of a conditional expression on this line that still lacks its `else`."""
    waiting: list[tuple[int, Token]] = []
    depth = 0
    for at in range(p.begin, p.n):
        token = p.tokens[at]
        depth += (token.kind in OPENERS) - (token.kind in CLOSERS)
        if token.kind == "IF" and at > p.begin:
            waiting.append((depth, token))
        elif token.kind == "ELSE" and waiting:
            waiting.pop()
    waiting = [(d, t) for d, t in waiting if d == depth]
    return waiting[-1][1] if waiting else None
