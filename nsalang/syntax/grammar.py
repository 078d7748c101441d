"""The LALR tables of nsa.lark.

Lark builds them, which takes about 0.3 s with its import; so they are kept beside the grammar in nsa.tables.json, with the SHA-256
of the grammar that they belong to. Where that does not match (the grammar was edited), they are built again in memory.
``python -m nsalang.syntax.grammar`` writes the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_GRAMMAR = Path(__file__).with_name("nsa.lark")
_TABLES = Path(__file__).with_name("nsa.tables.json")

# Terminals that no rule uses and that the lexer reports as errors.
_LEXER_ONLY = ("BRACE", "WALRUS", "MATMUL_ASSIGN", "ELLIPSIS", "OPEN_STRING", "BAD_NUMBER", "BAD_CHARACTER")


@dataclass(frozen=True, slots=True)
class Rule:
    """One production. ``kind`` names the tree that it makes; ``keep`` tells for each symbol whether it is a child of that tree."""

    origin: str
    kind: str
    keep: tuple[bool, ...]
    inline: bool
    """The children pass to the parent: a repetition that lark made of ``*``, ``+`` or ``?``."""
    only_child: bool
    """A tree with one child is that child."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """``actions[state][symbol]``: n >= 0 shifts (or goes) to state n, n < 0 reduces by rule ``~n``."""

    tokens: re.Pattern[str]
    keywords: dict[str, str]
    rules: tuple[Rule, ...]
    actions: tuple[dict[str, int], ...]
    start: int
    end: int


class _Layout:
    """What lark asks of a post-lexer; only the names matter, since lark itself never lexes here."""

    always_accept = _LEXER_ONLY

    def process(self, stream: Iterator[Any]) -> Iterator[Any]:
        return stream


def build_tables(grammar: str) -> dict[str, Any]:
    """The tables of a grammar's text, as a JSON object. Slow: it imports lark."""
    import lark
    from lark.parsers.lalr_analysis import Shift

    made: Any = lark.Lark(grammar, parser="lalr", lexer="basic", start="file", postlex=_Layout(), maybe_placeholders=False)
    keywords = {t.pattern.value: t.name for t in made.terminals if t.pattern.type == "str" and t.pattern.value.isidentifier()}
    others = [t for t in made.terminals if not (t.pattern.type == "str" and t.pattern.value.isidentifier())]
    others.sort(key=lambda t: (-t.priority, t.pattern.type == "re", -len(t.pattern.value), t.name))
    patterns = [(t.name, re.escape(t.pattern.value) if t.pattern.type == "str" else t.pattern.value) for t in others]
    table = made.parser.parser._parse_table
    rules = list(dict.fromkeys(made.rules))
    number = {rule: n for n, rule in enumerate(rules)}
    # lark numbers states in the order of sets, which differs between processes; numbered as they are reached, the file is reproducible.
    states = [table.start_states["file"]]
    order = {states[0]: 0}
    for state in states:
        for _, (action, goal) in sorted(table.states[state].items(), key=lambda row: row[0]):
            if action is Shift and goal not in order:
                order[goal] = len(states)
                states.append(goal)
    return {
        "grammar": hashlib.sha256(grammar.encode()).hexdigest(),
        "patterns": patterns,
        "keywords": keywords,
        "rules": [
            [
                rule.origin.name,
                rule.alias or rule.origin.name,
                [not getattr(s, "filter_out", False) or bool(rule.options.keep_all_tokens) for s in rule.expansion],
                rule.origin.name.startswith("_"),
                bool(rule.options.expand1) and not rule.alias,
            ]
            for rule in rules
        ],
        "actions": [
            {
                symbol: order[arg] if action is Shift else ~number[arg]
                for symbol, (action, arg) in sorted(table.states[state].items(), key=lambda row: row[0])
            }
            for state in states
        ],
        "start": order[table.start_states["file"]],
        "end": order[table.end_states["file"]],
    }


@cache
def load() -> Grammar:
    """The grammar that the parser runs on: from the stored tables where they belong to nsa.lark, else built by lark."""
    text = _GRAMMAR.read_text(encoding="utf-8")
    tables: dict[str, Any] = {}
    if _TABLES.exists():
        tables = json.loads(_TABLES.read_text(encoding="utf-8"))
    if tables.get("grammar") != hashlib.sha256(text.encode()).hexdigest():
        tables = build_tables(text)
    groups = "|".join(f"(?P<{name}>{pattern})" for name, pattern in tables["patterns"])
    return Grammar(
        tokens=re.compile(groups),
        keywords=tables["keywords"],
        rules=tuple(Rule(origin, kind, tuple(keep), inline, only) for origin, kind, keep, inline, only in tables["rules"]),
        actions=tuple(tables["actions"]),
        start=tables["start"],
        end=tables["end"],
    )


if __name__ == "__main__":
    _TABLES.write_text(json.dumps(build_tables(_GRAMMAR.read_text(encoding="utf-8")), separators=(",", ":")) + "\n", encoding="utf-8")
