"""Canonical text: `nsalang fmt`. Works on the tokens, so that comments stay where they are and the syntax tree stays the same."""

from __future__ import annotations

from dataclasses import dataclass

from nsalang.base.source import Source
from nsalang.syntax.comments import Line, logical_lines
from nsalang.syntax.lexer import CLOSERS, OPENERS, Token, scan
from nsalang.syntax.parser import parse

WIDTH = 140

_OPERAND_ENDS = frozenset({"NAME", "NUMBER", "STRING", "LONG_STRING", "TRUE", "FALSE", "NONE", "RPAR", "RSQB"})
_SIMPLE = frozenset({"NAME", "NUMBER"})


@dataclass(frozen=True, slots=True)
class Word:
    """A token as it is printed; ``space`` before it where it does not begin a line, ``line`` where it stood."""

    kind: str
    text: str
    space: bool
    line: int


def format_text(source: Source) -> str:
    """The canonical text: same syntax tree, same comments; formatting it again changes nothing. Raises what ``parse`` raises."""
    parse(source)
    out: list[str] = []
    for line in logical_lines(scan(source)):
        out += [""] * line.blank
        out += _render(line)
    return "\n".join(out) + "\n"


def _render(line: Line) -> list[str]:
    if not line.tokens:
        return [" " * 4 * line.level + line.comment]
    words = _words(line.tokens)
    parts = _parameters(words, line.level) or _broken(words, line.level)
    texts = [" " * indent + _text(part) for indent, part in parts]
    if line.comment:
        texts[-1] += "  " + line.comment
    return texts


def _text(words: list[Word]) -> str:
    out = ""
    for n, word in enumerate(words):
        if word.kind == "COMMENT":
            out += ("  " if n else "") + word.text
        else:
            out += (" " if word.space and n else "") + word.text
    return out


def _words(tokens: list[Token]) -> list[Word]:
    """The tokens of a statement with canonical spelling and spacing, without trailing commas in brackets."""
    code = [t for t in tokens if t.kind != "COMMENT"]
    words: list[Word] = []
    brackets: list[str] = []
    unary = annotated = False
    n = -1
    for token in tokens:
        if token.kind == "COMMENT":
            words.append(Word("COMMENT", token.text.rstrip(), True, token.line))
            continue
        n += 1
        before = code[n - 1] if n else None
        space = before is not None and not unary and _space(code, n, brackets, annotated)
        unary = token.kind in ("PLUS", "MINUS", "TILDE") and (before is None or before.kind not in _OPERAND_ENDS)
        if token.kind in OPENERS:
            brackets.append("def" if code[0].kind == "DEF" and not brackets else token.kind)
        elif token.kind in CLOSERS:
            brackets.pop()
        if len(brackets) == 1 and token.kind in ("COMMA", "COLON"):
            annotated = token.kind == "COLON"
        if token.kind == "COMMA" and code[n + 1 : n + 2] and code[n + 1].kind in CLOSERS and not _makes_tuple(code, n):
            continue
        words.append(Word(token.kind, _spelling(token), space, token.line))
    return words


def _space(code: list[Token], n: int, brackets: list[str], annotated: bool) -> bool:
    """Whether a space stands between ``code[n - 1]`` (which is no unary sign) and ``code[n]``."""
    before, kind = code[n - 1].kind, code[n].kind
    inside = brackets[-1] if brackets else ""
    if before in OPENERS or kind in CLOSERS or kind in ("COMMA", "SEMICOLON", "COLON", "DOT") or before in ("DOT", "AT"):
        return False
    if before == "COLON" and inside == "LSQB":
        return False
    if "EQUAL" in (before, kind) and inside:
        return inside == "def" and annotated
    if kind in OPENERS:
        return before not in _OPERAND_ENDS
    if kind == "POWER":
        return not _hugs(code, n)
    if before == "POWER":
        return not _hugs(code, n - 1)
    return True


def _hugs(code: list[Token], power: int) -> bool:
    """Whether the ``**`` stands between two plain names or numbers, and so without spaces."""
    left = power - 1
    while left >= 2 and code[left - 1].kind == "DOT" and code[left].kind == "NAME":
        left -= 2
    right = power + 1
    if code[right].kind in ("MINUS", "PLUS", "TILDE"):
        right += 1
    if code[left].kind not in _SIMPLE or code[right].kind not in _SIMPLE:
        return False
    while right + 2 < len(code) and code[right + 1].kind == "DOT":
        right += 2
    return right + 1 >= len(code) or code[right + 1].kind not in OPENERS


def _makes_tuple(code: list[Token], comma: int) -> bool:
    """Whether dropping the trailing comma would turn ``(a,)`` into ``(a)``."""
    if code[comma + 1].kind != "RPAR":
        return False
    depth, at = 0, comma - 1
    while depth or code[at].kind not in OPENERS:
        depth += (code[at].kind in CLOSERS) - (code[at].kind in OPENERS)
        if not depth and code[at].kind == "COMMA":
            return False
        at -= 1
    return at == 0 or code[at - 1].kind not in _OPERAND_ENDS


def _spelling(token: Token) -> str:
    text = token.text
    if token.kind == "NUMBER":
        lower = text.lower()
        return lower[:2] + lower[2:].upper() if lower.startswith("0x") else lower
    if token.kind in ("STRING", "LONG_STRING"):
        prefix = "r" if text[0] in "rR" else ""
        body = text[len(prefix) :]
        size = 3 if token.kind == "LONG_STRING" else 1
        inner = body[size:-size]
        if body[0] == "'" and "\\" not in inner and '"' not in inner:
            body = '"' * size + inner + '"' * size
        return prefix + body
    return text


Part = tuple[int, list[Word]]
"""A physical line: its indentation in spaces, and its words."""


def _fits(indent: int, words: list[Word]) -> bool:
    text = _text(words)
    return "\n" in text or indent + len(text) <= WIDTH


def _parameters(words: list[Word], level: int) -> list[Part] | None:
    """A parameter list that is too long for a line keeps its author's lines, where they end in commas and fit."""
    if words[0].kind != "DEF" or any(w.kind == "COMMENT" for w in words) or _fits(4 * level, words):
        return None
    opened = next(n for n, w in enumerate(words) if w.kind == "LPAR")
    closed = _partner(words, opened)
    hanging = words[opened + 1].line > words[opened].line
    lines: list[list[Word]] = []
    for n in range(opened + 1, closed):
        if not lines or words[n].line > words[n - 1].line:
            if lines and (words[n - 1].kind != "COMMA" or _depth(words[opened + 1 : n])):
                return None
            lines.append([])
        lines[-1].append(words[n])
    head, tail = words[: opened + 1], words[closed:]
    if hanging:
        last = lines[-1][-1]
        parts = [(4 * level, head), *[(4 * level + 4, line) for line in lines], (4 * level, tail)]
        parts[-2] = (4 * level + 4, [*lines[-1], Word("COMMA", ",", False, last.line)])
    else:
        column = 4 * level + len(_text(head))
        parts = [(column, line) for line in lines]
        parts[0] = (4 * level, head + lines[0])
        parts[-1] = (parts[-1][0], parts[-1][1] + tail)
    return parts if len(lines) > 1 and all(_fits(indent, part) for indent, part in parts) else None


def _depth(words: list[Word]) -> int:
    return sum((w.kind in OPENERS) - (w.kind in CLOSERS) for w in words)


def _partner(words: list[Word], opened: int) -> int:
    """The place of the bracket that closes ``words[opened]``; -1 where these words do not hold it."""
    depth = 0
    for n in range(opened, len(words)):
        depth += (words[n].kind in OPENERS) - (words[n].kind in CLOSERS)
        if depth == 0:
            return n
    return -1


def _broken(words: list[Word], level: int, indent: int | None = None) -> list[Part]:
    """The statement on as few lines as fit: broken at its longest outer bracket, first around what stands in it, then at its commas."""
    at = 4 * level if indent is None else indent
    comments = any(w.kind == "COMMENT" for w in words[:-1])
    if not comments and _fits(at, words):
        return [(at, words)]
    pairs: list[tuple[int, int]] = []
    n = 0
    while n < len(words):
        closed = _partner(words, n) if words[n].kind in OPENERS else -1
        if closed > n + 1:
            pairs.append((n, closed))
        n = max(closed, n) + 1
    holding = [p for p in pairs if any(w.kind == "COMMENT" for w in words[p[0] : p[1]])]
    if holding:
        pairs = holding
    if not pairs:
        return [(at, words)]
    opened, closed = max(pairs, key=lambda p: len(_text(words[p[0] : p[1]])))
    head, body, tail = words[: opened + 1], words[opened + 1 : closed], words[closed:]
    parts = _broken(head, level, at)
    if not any(w.kind == "COMMENT" for w in body) and _fits(at + 4, body):
        parts.append((at + 4, body))
    else:
        for item in _items(body):
            parts += _broken(item, level, at + 4)
    return parts + _broken(tail, level, at)


def _items(body: list[Word]) -> list[list[Word]]:
    """What stands in a bracket, one item a line with a comma after each; a comment ends its line or has its own."""
    lines: list[list[Word]] = [[]]
    depth, commas = 0, 0
    for n, word in enumerate(body):
        depth += (word.kind in OPENERS) - (word.kind in CLOSERS)
        if word.kind == "COMMENT" and depth == 0 and not lines[-1] and n and body[n - 1].line == word.line and len(lines) > 1:
            lines[-2].append(word)
            continue
        if word.kind == "COMMENT" and depth == 0 and lines[-1] and not (n and body[n - 1].line == word.line):
            lines.append([])
        lines[-1].append(word)
        if depth == 0 and word.kind in ("COMMA", "COMMENT"):
            commas += word.kind == "COMMA"
            lines.append([])
    lines = [line for line in lines if line]
    if commas:
        last = max(n for n, line in enumerate(lines) if any(w.kind != "COMMENT" for w in line))
        end = max(n for n, w in enumerate(lines[last]) if w.kind != "COMMENT")
        if lines[last][end].kind != "COMMA":
            lines[last].insert(end + 1, Word("COMMA", ",", False, lines[last][end].line))
    return lines
