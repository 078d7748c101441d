"""Many processes in one cache, and processes that are killed in the middle of it."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsalang.build.cache import Cache, key_of

KEY = key_of({"kernel": "softmax"})
LIVE_SECONDS = 1.5
fork = multiprocessing.get_context("fork")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def inside(cache: Cache) -> list[str]:
    """What lies in the cache beside entries."""
    staging = cache.root / "staging"
    return os.listdir(staging) if staging.exists() else []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:] if data else b"x")


def version(key: str, writer: int) -> dict[str, bytes]:
    """Files that tell who wrote them, so that a mixture of two writers shows."""
    return {name: f"{key} {writer} {name}".encode() * 200 for name in ("a", "b", "c")}


def is_one_version(key: str, files: dict[str, bytes]) -> bool:
    return any(files == version(key, writer) for writer in range(4))


def run_together(acts: list[Callable[[random.Random], None]]) -> None:
    """Each act again and again in a process of its own; fails where any of them raised or none of its turns ended."""
    results: Any = fork.SimpleQueue()
    until = time.time() + LIVE_SECONDS

    def live(act: Callable[[random.Random], None], seed: int) -> None:
        rng, done = random.Random(seed), 0
        try:
            while time.time() < until:
                act(rng)
                done += 1
            results.put((done, ""))
        except BaseException as error:  # noqa: BLE001  the parent fails with it
            results.put((done, repr(error)))

    children = [fork.Process(target=live, args=(act, seed)) for seed, act in enumerate(acts)]
    for child in children:
        child.start()
    got = [results.get() for _ in children]
    for child in children:
        child.join()
    assert [failure for _, failure in got if failure] == []
    assert all(done > 0 for done, _ in got)


def test_many_processes(cache: Cache) -> None:
    keys = [key_of({"i": i}) for i in range(3)]

    def write(writer: int) -> Callable[[random.Random], None]:
        def act(rng: random.Random) -> None:
            key = rng.choice(keys)
            cache.put(key, version(key, writer), {"writer": str(writer)})

        return act

    def read(rng: random.Random) -> None:
        key = rng.choice(keys)
        files = cache.get(key)
        assert files is None or is_one_version(key, files)

    def load(rng: random.Random) -> None:
        key = rng.choice(keys)
        with cache.path(key) as directory:
            if directory is not None:
                assert is_one_version(key, {name: (directory / name).read_bytes() for name in ("a", "b", "c")})

    def look(rng: random.Random) -> None:
        assert cache.verify() == []
        assert all(entry.key in keys for entry in cache.entries())

    def delete(rng: random.Random) -> None:
        time.sleep(0.02 * rng.random())
        if rng.random() < 0.5:
            cache.clear()
        else:
            cache.prune(max_bytes=3000)

    run_together([write(0), write(1), write(2), write(3), read, read, load, load, look, delete])
    assert inside(cache) == []


def test_many_processes_mend_what_is_damaged(cache: Cache) -> None:
    """Readers never see the damage, and at the end a put has the last word."""

    def write(rng: random.Random) -> None:
        cache.put(KEY, version(KEY, rng.randrange(4)), {})

    def read(rng: random.Random) -> None:
        files = cache.get(KEY)
        assert files is None or is_one_version(KEY, files)

    def damage(rng: random.Random) -> None:
        time.sleep(0.005)
        path = cache.root / KEY / rng.choice(["a", "b", "c", "manifest.json"])
        damages: list[Callable[[Path], None]] = [truncate, flip, Path.unlink]
        with contextlib.suppress(FileNotFoundError):
            rng.choice(damages)(path)

    run_together([write, write, read, read, damage])
    cache.put(KEY, version(KEY, 0), {})
    found = cache.get(KEY)
    assert found is not None
    assert is_one_version(KEY, found)
    assert inside(cache) == []


def kill_writers(cache: Cache, times: int, seed: int) -> int:
    """Kill a process that puts and clears, at random moments; how often it left something behind."""
    rng = random.Random(seed)

    def work() -> None:
        for i in itertools.count():
            cache.put(KEY, version(KEY, i % 4), {})
            if i % 3 == 0:
                flip(cache.root / KEY / "b")
            elif i % 3 == 1:
                cache.clear()

    left = 0
    for _ in range(times):
        child = fork.Process(target=work)
        child.start()
        time.sleep(0.005 + 0.02 * rng.random())
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        files = cache.get(KEY)
        assert files is None or is_one_version(KEY, files)
        left += len(inside(cache))
        other = key_of({"i": 1})
        cache.put(other, version(other, 0), {})
        assert cache.get(other) == version(other, 0)
        cache.put(KEY, version(KEY, 0), {})
        found = cache.get(KEY)
        assert found is not None
        assert is_one_version(KEY, found)
        if rng.random() < 0.5:
            Cache(cache.root, leftovers_after=0).clear()
            assert inside(cache) == []
            assert cache.entries() == []
    return left


def test_killed_writers(cache: Cache) -> None:
    kill_writers(cache, 12, seed=0)


@pytest.mark.slow
def test_many_killed_writers(cache: Cache) -> None:
    assert kill_writers(cache, 1500, seed=1) > 0, "no kill hit a writer at work: the test shows nothing"
