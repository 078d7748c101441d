"""Branches and loops that may not run have a barrier before them: TileLang takes what stands inside for one that always runs.

No GPU is needed to see it: the barrier must stand in TileLang's CUDA at the level of the branch, between what is written to shared memory before
and what is read behind.
"""

from __future__ import annotations

import re

import pytest

from nsalang import load_text

HEAD = "def f(q: bf16[S, 128], kv: bf16[K, 128], rows: i32[S], bias: f32[N, 128], o: Out[f32[S, 128]], flag: i32):\n    d, e = span(128), span(128)\n"
START = """    for s in grid(tile(S)):
        r = rows[s]
        here = (0 <= r) & (r < N)
        acc = zeros(s, d)
"""
ADD = """query = q[s, e]
for k in tile(K):
    p = dot(query, kv[k, e], axis=e)
    acc = acc + dot(bf16(p), kv[k, d], axis=k)
"""
END = "        o[s, d] = acc + where(here, bias[r, d], 0)\n"


def indented(text: str, depth: int) -> str:
    return "".join("    " * depth + line + "\n" for line in text.splitlines())


# Rows are read by other threads than the ones that found them, in shared memory; whether the branch is taken depends on data.
KERNELS = {
    "if": HEAD + START + "        if flag > 0:\n" + indented(ADD, 3) + END,
    "loop": HEAD + START + "        for n in range(flag):\n" + indented(ADD, 3) + END,
    "else": HEAD + START + "        if flag > 0:\n" + indented(ADD, 3) + indented(END.strip(), 3) + "        else:\n"
    "            o[s, d] = where(here, bias[r, d], 0)\n",
    "nested": HEAD + START + "        if flag > 1:\n            for n in range(flag - 3):\n" + indented(ADD, 4) + END,
    "turns": HEAD + "    for s in grid(tile(S)):\n        acc = zeros(s, d)\n        for n in range(flag):\n            r = rows[s]\n"
    "            acc = acc + where((0 <= r) & (r < N), bias[r, d], 0)\n            if n > 3:\n" + indented(ADD, 4) + "        o[s, d] = acc\n",
}  # fmt: skip


def source(name: str) -> str:
    return load_text(KERNELS[name]).f.compile(target="cuda:sm_90", backend="tilelang").source


@pytest.mark.parametrize("name", KERNELS)
def test_a_barrier_stands_right_before(name: str) -> None:
    lines = [line for line in source(name).splitlines() if line.strip()]
    heads = [
        i for i, line in enumerate(lines) if re.match(r" *(if flag|if n |for n in T.serial)", line) and (name != "turns" or "if" in line)
    ]  # all of it is in its loop
    assert heads
    for i in heads:
        indent = len(lines[i]) - len(lines[i].lstrip())
        assert re.match(rf" {{{indent}}}T\.sync_threads\(\)", lines[i - 1]), "\n".join(lines[i - 3 : i + 1])


def test_an_else_with_a_barrier_has_one_behind() -> None:
    text = (
        HEAD
        + START
        + "        if flag > 0:\n"
        + indented(ADD, 3)
        + "            r = minimum(r, 0)\n        else:\n"
        + indented(ADD, 3)
        + END
    )
    lines = load_text(text).f.compile(target="cuda:sm_90", backend="tilelang").source.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == "else:")
    indent = len(lines[start]) - len(lines[start].lstrip())
    behind = next(line for line in lines[start + 1 :] if len(line) - len(line.lstrip()) == indent)
    assert behind.strip().startswith("T.sync_threads()")


def test_nothing_is_added_where_threads_meet_in_one_place() -> None:
    text = "def f(x: f32[M, N], y: Out[f32[M]]):\n    for m in grid(M):\n        a = 0.0\n        for n in tile(N):\n            a = a + sum(x[m, n], axis=n)\n        y[m] = a\n"
    assert "sync_threads" not in load_text(text).f.compile(target="cuda:sm_90", backend="tilelang").source


@pytest.mark.slow
@pytest.mark.parametrize("name", ["if", "loop", "nested"])
def test_tilelang_keeps_it(name: str) -> None:
    """At the level of the kernel, between the rows' last write and the branch."""
    compiled = load_text(KERNELS[name]).f.compile(target="cuda:sm_90", backend="tilelang")
    lines = compiled.artifact["kernel.cu"].decode().splitlines()
    written = max(i for i, line in enumerate(lines) if re.match(r" *(\(\(bool\*\))?here\w*\)?\[.* = ", line))
    branch = next(i for i in range(written, len(lines)) if re.match(r"  (if|for) \(.*flag", lines[i]))
    assert any(line == "  __syncthreads();" for line in lines[written:branch]), "\n".join(lines[written - 3 : branch + 2])
