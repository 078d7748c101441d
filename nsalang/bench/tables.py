"""Tables from the JSON of a GPU run: plain text for the terminal, Markdown for docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nsalang.bench.attention import PEERS

Table = tuple[list[str], list[list[str]]]


def tables(result: dict[str, Any]) -> list[tuple[str, Table]]:
    """Every table that has rows, with its title."""
    made = (("Agreement with the interpreter", correctness(result)), ("Rates", rates(result)), ("Times", times(result)))
    return [(title, table) for title, table in made if table[1]]


def correctness(result: dict[str, Any]) -> Table:
    """One row for each kernel and case: how many values of each output equal the interpreter's, by backend."""
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in result["rows"]:
        if "ok" in row and isinstance(row["case"], str):
            found.setdefault((row["kernel"], row["case"]), {}).setdefault(row["backend"], []).append(row)
    rows = []
    for (kernel, case), backends in found.items():
        every = [r for group in backends.values() for r in group]
        rule = "exact" if all(r.get("exact") for r in every) else "bound"
        rows.append(
            [
                kernel,
                case,
                *(_cell(backends.get(b, [])) for b in ("triton", "tilelang")),
                rule,
                "agree" if all(r["ok"] for r in every) else "DIFFER",
            ]
        )
    return ["kernel", "case", "triton", "tilelang", "rule", "verdict"], rows


def _cell(rows: list[dict[str, Any]]) -> str:
    parts = []
    for r in rows:
        if "output" not in r:
            parts.append(f"failed: {r['reason'][:80]}")
        elif r["equal"] == r["elements"]:
            parts.append(f"{r['output']} all {r['elements']}")
        else:
            parts.append(f"{r['output']} {r['equal']} of {r['elements']}, max rel {r['max_rel']:.1e}, steps {r['steps']}")
    return "; ".join(parts)


def times(result: dict[str, Any]) -> Table:
    """One row for each measurement, ours and peers', cases together: microseconds, TB/s, and what was in the L2 cache.

    Calls that are repeated on the same tensors (a graph, ``measure``) find in it what fits; peers that report ``ms`` had it emptied before each call.
    """
    rows = []
    for row in result["rows"]:
        if row.get("family") in RATED:
            continue
        peer = row.get("of") == "peers"
        name = f"{row['family']}: {row['peer']}" if peer else f"{row['kernel']}"
        who = "peer" if peer else row["backend"]
        if "failed" in row:
            rows.append([name, who, str(row["case"]), f"failed: {str(row['failed'])[:80]}", "", ""])
            continue
        us = row.get("us") or row.get("graph_us") or (row["ms"] * 1e3 if "ms" in row else None)
        if us is not None:
            cache = "emptied" if peer and "ms" in row else "kept"
            rows.append([name, who, str(row["case"]), f"{us:.2f}", f"{row['tb_s']:.2f}" if "tb_s" in row else "", cache])
        elif "host_us" in row:
            rows.append([f"{name}, host time of a call", who, str(row["case"]), f"{row['host_us']:.2f}", "", ""])
    rows.sort(key=lambda r: (_group(r[0]), _numbers(r[2])))
    return ["what", "by", "case", "µs", "TB/s", "L2"], rows


RATED = frozenset((*PEERS, *PEERS.values()))
"""Families that ``rates`` shows."""


def rates(result: dict[str, Any]) -> Table:
    """Arithmetic: one row for each kernel of ours, case and backend, with its rate as a ratio to each peer's in the same run, and what each peer did."""
    ours = [r for r in result["rows"] if r.get("of") != "peers" and r.get("family") in PEERS]
    theirs = [r for r in result["rows"] if r.get("of") == "peers" and r.get("family") in PEERS.values()]
    rows: list[list[str]] = []
    for case in dict.fromkeys((r["family"], str(r["case"])) for r in ours):
        own = [r for r in ours if (r["family"], str(r["case"])) == case]
        peers = [r for r in theirs if (r["family"], str(r["case"])) == (PEERS[case[0]], case[1])]
        best = {r["peer"]: float(r["tflops"]) for r in peers if "tflops" in r}
        for r in own:
            if "tflops" not in r:
                rows.append([r["kernel"], r["backend"], case[1], "", "", f"failed: {r['failed'][:120]}"])
                continue
            ratios = "; ".join(f"{r['tflops'] / rate:.2f} × {name}" for name, rate in best.items())
            rows.append([r["kernel"], r["backend"], case[1], f"{r['us']:.1f}", f"{r['tflops']:.1f}", ratios])
        for r in peers:
            if "tflops" in r:
                rows.append([r["peer"], "peer", case[1], f"{r['ms'] * 1e3:.1f}" if "ms" in r else "", f"{r['tflops']:.1f}", ""])
            else:
                rows.append([r["peer"], "peer", case[1], "", "", f"failed: {str(r.get('failed'))[:120]}"])
    return ["what", "by", "case", "µs", "TFLOP/s", "ratio of rates"], rows


GROUPS = (("act_quant", "quant"), ("swiglu",), ("rms",), ("softmax",), ("add",))


def _group(name: str) -> int:
    """Ours and the peers' figures for one thing stand together."""
    if "host time" in name or name.startswith("launch"):
        return len(GROUPS) + 1
    if name.startswith("swiglu"):
        return 1
    return next((i for i, words in enumerate(GROUPS) if any(w in name for w in words)), len(GROUPS))


def _numbers(case: str) -> list[int]:
    return [int(part) for part in case.strip("[]()").split(",") if part.strip().isdigit()]


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by spaces."""
    widths = [max(len(r[i]) for r in (columns, *rows)) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (columns, *rows)]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]]) + "\n"


def portable(command: str) -> str:
    """A command line without the folders of the machine on which it ran."""
    return re.sub(r"(?<=\s)/\S*/", "", command)


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """docs/benchmarks.md from the JSON of one or several runs, the last run first."""
    out = [
        "# Benchmarks",
        "",
        "Made by `python -m nsalang.bench report docs/benchmarks/*.json > docs/benchmarks.md`; don't edit. To run it again: developing.md.",
        "Peers are measured in the same run on the same machine.",
        "",
        "**Rates**: as peers.py counts operations and times, medians of CUDA events with the L2 cache emptied before each call, of the peers too;",
        "ours where some rows agree with float64 within 1 - 2Σxy/Σ(x² + y²) < 7e-6. A ratio above 1 is in favour of nsalang.",
        "",
        "**Times**: medians. L2 `kept`: replays of a CUDA graph of several calls on the same tensors, which find in the L2 cache what fits there, so that small cases",
        "are faster than memory; L2 `emptied`: CUDA events, the cache emptied before each call. Compare rows of one kind, or cases far larger than the cache.",
        "TB/s counts each element of each argument once. The peers `rows: …` of peers.py are bf16, as our rmsnorm is; our softmax is f32, beside which `softmax f32`",
        "is torch's own, and `rows: torch softmax` moves half the bytes.",
        "",
    ]
    for result in sorted(results, key=lambda r: str(r["date"]), reverse=True):
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        out += [
            f"## {result['device']}, {result['date'][:10]}",
            "",
            f"Commit `{result['commit']}`; {versions}.",
            "",
            f"    {portable(result['command'])}",
            "",
        ]
        for title, (columns, rows) in tables(result):
            out += [f"### {title}", "", f"| {' | '.join(columns)} |", f"|{'--|' * len(columns)}"]
            out += [f"| {' | '.join(row)} |".replace("](", "]\\(") for row in rows]  # kernel[grid](...) is no link
            out += [""]
        out += [f"- Failed: {f['of']} {f['family']}: {f['why']}." for f in result["failed"]]
        if result["failed"]:
            out += [""]
    return "\n".join(out).rstrip("\n") + "\n"
