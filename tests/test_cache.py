"""The cache never hands out anything but what was put, whatever happens to the directory, the disk and the other processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsalang.build.cache import Cache, cache_root, key_of

KEY = key_of({"kernel": "softmax"})
FILES = {"kernel.py": b"def kernel(): pass\n", "kernel.cubin": bytes(range(256)) * 64, "empty": b""}
ABOUT = {"kernel": "softmax", "target": "cuda:sm_90", "backend": "triton"}
fork = multiprocessing.get_context("fork")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "deep" / "cache")


@pytest.fixture
def full(cache: Cache) -> Cache:
    cache.put(KEY, FILES, ABOUT)
    return cache


def inside(cache: Cache) -> list[str]:
    """What lies in the cache beside entries."""
    staging = cache.root / "staging"
    return sorted(os.listdir(staging)) if staging.exists() else []


class TestKey:
    VALUES = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )

    @given(st.dictionaries(st.text(), VALUES), st.randoms())
    def test_order_does_not_matter(self, parts: dict[str, Any], rng: random.Random) -> None:
        def shuffled(value: Any) -> Any:
            if isinstance(value, dict):
                items = list(value.items())
                rng.shuffle(items)
                return {name: shuffled(item) for name, item in items}
            return [shuffled(item) for item in value] if isinstance(value, list) else value

        assert key_of(shuffled(parts)) == key_of(parts)

    @given(st.dictionaries(st.text(), st.integers()), st.text(), st.integers())
    def test_content_matters(self, parts: dict[str, int], name: str, value: int) -> None:
        changed = {**parts, name: value}
        assert (key_of(changed) == key_of(parts)) == (changed == parts)

    def test_types_matter(self) -> None:
        values: list[Any] = [1, 1.0, "1", True, "True", None, "null", [1], {"1": 1}, 0.0, -0.0, float("inf"), float("-inf"), float("nan")]
        assert len({key_of({"x": value}) for value in values}) == len(values)

    def test_is_the_same_in_every_process_and_version(self) -> None:
        assert key_of({"b": [1, 2.5, None], "a": "é"}) == hashlib.sha256(rb'{"a":"\u00e9","b":[1,2.5,null]}').hexdigest()

    def test_refuses_what_is_not_json(self) -> None:
        with pytest.raises(TypeError):
            key_of({"x": Path("/tmp")})  # type: ignore[dict-item]


class TestPutAndGet:
    def test_miss_hit_and_first_wins(self, cache: Cache) -> None:
        assert cache.get(KEY) is None
        assert not cache.root.exists(), "a miss makes no directory"
        cache.put(KEY, FILES, ABOUT)
        assert cache.get(KEY) == FILES
        cache.put(KEY, {"other": b"x"}, {})
        assert Cache(cache.root).get(KEY) == FILES
        assert inside(cache) == []

    def test_path(self, full: Cache) -> None:
        with full.path(KEY) as directory:
            assert directory is not None
            assert {name: (directory / name).read_bytes() for name in FILES} == FILES
        with full.path("0" * 64) as directory:
            assert directory is None

    @pytest.mark.parametrize("key", ["", "abc", "../" + "0" * 61, "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", "staging", "/etc/passwd"])
    def test_refuses_keys_that_are_none(self, cache: Cache, key: str) -> None:
        for act in (lambda: cache.get(key), lambda: cache.put(key, FILES, ABOUT), lambda: cache.path(key).__enter__()):
            with pytest.raises(ValueError, match="not a cache key"):
                act()

    @pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/x", ".hidden", "manifest.json", "a\0b", "x" * 201])
    def test_refuses_names_that_are_none(self, cache: Cache, name: str) -> None:
        with pytest.raises(ValueError, match="not a file name"):
            cache.put(KEY, {name: b""}, ABOUT)
        assert not cache.root.exists()

    def test_root(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path / "here"))
        assert cache_root() == tmp_path / "here"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("NSALANG_CACHE_DIR", "relative")
        assert cache_root() == tmp_path / "relative"
        monkeypatch.setenv("NSALANG_CACHE_DIR", "")
        assert cache_root().name == "nsalang"

    def test_readable_by_others(self, cache: Cache) -> None:
        before = os.umask(0o022)
        try:
            cache.put(KEY, FILES, ABOUT)
        finally:
            os.umask(before)
        assert (cache.root / KEY).stat().st_mode & 0o777 == 0o755
        assert {path.stat().st_mode & 0o777 for path in (cache.root / KEY).iterdir()} == {0o644}


class TestHousekeeping:
    def test_entries(self, full: Cache) -> None:
        before = time.time()
        (entry,) = full.entries()
        assert (entry.key, entry.about) == (KEY, ABOUT)
        assert entry.size == sum(path.stat().st_size for path in (full.root / KEY).iterdir())
        assert abs(entry.made - before) < 60

    def test_use_is_noticed(self, full: Cache) -> None:
        os.utime(full.root / KEY / "manifest.json", (0, 0))
        assert full.entries()[0].used == 0
        full.get(KEY)
        assert full.entries()[0].used > 0

    def fill(self, cache: Cache, count: int) -> list[str]:
        """Entry i was last used i days ago."""
        keys = [key_of({"i": i}) for i in range(count)]
        for i, key in enumerate(keys):
            cache.put(key, {"data": bytes(1000)}, {})
            then = time.time() - i * 86400
            os.utime(cache.root / key / "manifest.json", (then, then))
        return keys

    def test_prune_by_age(self, cache: Cache) -> None:
        keys = self.fill(cache, 5)
        assert sorted(cache.prune(max_age_days=2.5)) == sorted(keys[3:])
        assert [entry.key for entry in cache.entries()] == keys[:3]
        assert cache.get(keys[2]) is not None

    def test_prune_by_size(self, cache: Cache) -> None:
        keys = self.fill(cache, 5)
        size = cache.entries()[0].size
        assert cache.prune(max_bytes=2 * size) == [keys[4], keys[3], keys[2]]
        assert cache.prune(max_bytes=2 * size) == []
        assert cache.prune(max_bytes=0) == [keys[1], keys[0]]
        assert inside(cache) == []

    def test_clear_leaves_what_is_not_ours(self, full: Cache) -> None:
        (full.root / "notes.txt").write_text("mine")
        stage = full.root / "staging" / "stage-0"
        stage.mkdir()
        os.utime(stage, (time.time() - 100, time.time() - 100))
        assert full.clear() == 1
        assert full.entries() == []
        assert sorted(os.listdir(full.root)) == ["notes.txt", "staging"]
        assert inside(full) == []

    def test_of_a_directory_that_is_not_there(self, cache: Cache) -> None:
        assert (cache.entries(), cache.verify(), cache.prune(max_bytes=0), cache.clear()) == ([], [], [], 0)

    def test_leftovers_of_killed_writers(self, full: Cache) -> None:
        old, new = full.root / "staging" / "stage-old", full.root / "staging" / "stage-new"
        for stage in (old, new):
            stage.mkdir()
            (stage / "half").write_bytes(b"x")
        os.utime(old, (0, 0))
        full.put(key_of({"i": 1}), FILES, ABOUT)
        assert inside(full) == ["stage-new"]

    def test_what_is_being_loaded_stays(self, full: Cache) -> None:
        with full.path(KEY) as directory, Cache(full.root).path(KEY) as again:
            assert directory == again
            assert directory is not None
            assert full.clear() == 0
            assert full.prune(max_bytes=0) == []
            assert (directory / "empty").exists()
        assert full.clear() == 1

    def test_a_killed_loader_holds_nothing(self, full: Cache) -> None:
        ready = fork.Event()

        def hold() -> None:
            with full.path(KEY):
                ready.set()
                time.sleep(60)

        child = fork.Process(target=hold)
        child.start()
        assert ready.wait(30)
        assert full.clear() == 0
        child.kill()
        child.join()
        assert full.clear() == 1
