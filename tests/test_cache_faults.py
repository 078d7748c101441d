"""Damaged entries, and directories and disks that refuse: a miss or one clear error, and nothing half-written."""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nsalang.base.source import NsaError
from nsalang.build.cache import Cache, key_of

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


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(NsaError) as caught:
        act()
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_link(path: Path) -> None:
    """A link to the very same bytes: still not what was published."""
    moved = path.parent.parent / f"moved-{path.name}"
    path.rename(moved)
    path.symlink_to(moved)


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def assert_damaged_then_mended(cache: Cache) -> None:
    assert cache.get(KEY) is None
    with cache.path(KEY) as directory:
        assert directory is None
    assert [damaged.key for damaged in cache.verify()] == [KEY]
    assert cache.verify()[0].reason
    cache.put(KEY, FILES, ABOUT)
    assert cache.get(KEY) == FILES
    assert cache.verify() == []
    assert inside(cache) == []


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "damage"),
        [
            *itertools.product([*FILES, "manifest.json"], [extend, Path.unlink, to_directory, to_link, to_pipe]),
            *itertools.product(["kernel.py", "kernel.cubin", "manifest.json"], [truncate, empty, flip]),
        ],
    )
    def test_each_file(self, full: Cache, name: str, damage: Callable[[Path], None]) -> None:
        damage(full.root / KEY / name)
        assert_damaged_then_mended(full)

    def test_extra_file(self, full: Cache) -> None:
        (full.root / KEY / "libcuda.so").write_bytes(b"")
        assert_damaged_then_mended(full)

    def test_every_byte_of_the_manifest(self, full: Cache) -> None:
        path = full.root / KEY / "manifest.json"
        whole = path.read_bytes()
        for i, bit in itertools.product(range(len(whole)), (1, 32)):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1 :])
            assert full.get(KEY) is None, f"byte {i} of {whole!r}"

    @pytest.mark.parametrize(
        "text", [b"{", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"files": {}, "about": {}, "made": Infinity}', b"9" * 5000]
    )
    def test_manifest_garbage(self, full: Cache, text: bytes) -> None:
        (full.root / KEY / "manifest.json").write_bytes(text)
        assert full.entries() == []
        assert_damaged_then_mended(full)

    def test_manifest_of_another_key(self, full: Cache) -> None:
        other = key_of({"kernel": "another"})
        (full.root / KEY).rename(full.root / other)
        assert full.get(other) is None
        assert [damaged.key for damaged in full.verify()] == [other]

    def test_manifest_that_leads_outside(self, full: Cache) -> None:
        (full.root / "secret").write_bytes(b"")
        path = full.root / KEY / "manifest.json"
        body = json.loads(path.read_bytes())
        body["files"]["../secret"] = body["files"]["empty"]
        path.write_bytes(json.dumps(body, sort_keys=True, indent=1).encode() + b"\n")
        assert_damaged_then_mended(full)

    def test_something_else_in_place_of_the_entry(self, full: Cache, tmp_path: Path) -> None:
        entry, moved = full.root / KEY, tmp_path / "moved"
        entry.rename(moved)
        for make in (lambda: entry.write_bytes(b"x"), lambda: entry.symlink_to(moved), lambda: entry.symlink_to("nowhere"), entry.mkdir):
            make()
            assert_damaged_then_mended(full)
            full.clear()
        assert (moved / "empty").exists(), "what a link led to was not ours to delete"

    def test_prune_deletes_only_what_has_no_manifest(self, full: Cache) -> None:
        other = key_of({"kernel": "another"})
        full.put(other, FILES, ABOUT)
        (full.root / KEY / "manifest.json").unlink()
        assert full.prune() == [KEY]
        assert [entry.key for entry in full.entries()] == [other]


@pytest.fixture
def tiny_disk() -> Iterator[Callable[[str], Path]]:
    """Mounts a file system with the given options; needs root."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="nsalang-test-"))
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, text=True, check=False)
        if done.returncode:
            directory.rmdir()
            pytest.skip("needs the right to mount: " + done.stderr.strip())
        mounted.append(directory)
        return directory

    yield mount
    for directory in mounted:
        subprocess.run(["umount", str(directory)], check=True)
        directory.rmdir()


class TestBadDirectories:
    @pytest.mark.parametrize("below", ["", "cache"])
    def test_a_file_in_its_place(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").write_text("mine")
        cache = Cache(tmp_path / "file" / below)
        assert cache.get(KEY) is None
        with pytest.raises(NsaError, match=f"NSA0701.*cache directory '{cache.root}'"):
            cache.put(KEY, FILES, ABOUT)
        for act in (cache.entries, cache.verify, cache.clear, lambda: cache.prune(max_bytes=0)):
            assert code_of(act) == "NSA0701"
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_dangling_link(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        cache = Cache(tmp_path / "link")
        assert cache.get(KEY) is None
        assert code_of(lambda: cache.put(KEY, FILES, ABOUT)) == "NSA0701"

    def test_of_somebody_else(self) -> None:
        """Another user reads our cache and cannot write to it. As root we become nobody; else we take our own right away."""
        with tempfile.TemporaryDirectory(prefix="nsalang-test-") as name:
            os.chmod(name, 0o755)
            cache = Cache(Path(name) / "cache")
            cache.put(KEY, FILES, ABOUT)
            for path in (cache.root, cache.root / "staging", cache.root / KEY):
                path.chmod(0o555)
            verdict: Any = fork.SimpleQueue()

            def other() -> None:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                try:
                    hit = cache.get(KEY) == FILES
                    with cache.path(KEY) as directory:
                        hit = hit and directory is not None
                    codes = [code_of(lambda: cache.put(key_of({"i": 1}), FILES, ABOUT)), code_of(cache.clear)]
                    verdict.put((hit, codes))
                except BaseException as error:  # noqa: BLE001  the parent fails with it
                    verdict.put(repr(error))

            child = fork.Process(target=other)
            child.start()
            assert verdict.get() == (True, ["NSA0701", "NSA0701"])
            child.join()
            for path in (cache.root, cache.root / "staging", cache.root / KEY):
                path.chmod(0o755)
            assert cache.get(KEY) == FILES
            assert inside(cache) == []

    def test_read_only_disk(self, tiny_disk: Callable[[str], Path]) -> None:
        root = tiny_disk("size=1m")
        Cache(root).put(KEY, FILES, ABOUT)
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        cache = Cache(root)
        assert cache.get(KEY) == FILES
        with cache.path(KEY) as directory:
            assert directory is not None
        assert code_of(lambda: cache.put(key_of({"i": 1}), FILES, ABOUT)) == "NSA0701"
        assert code_of(cache.clear) == "NSA0701"

    @pytest.mark.parametrize("options", ["size=64k", "nr_inodes=7"])
    def test_full_disk(self, tiny_disk: Callable[[str], Path], options: str) -> None:
        cache = Cache(tiny_disk(options) / "cache")
        keys = [key_of({"i": i}) for i in range(20)]
        written = 0
        with pytest.raises(NsaError, match=f"NSA0702.*'{cache.root}'"):
            for key in keys:
                cache.put(key, FILES, ABOUT)
                written += 1
        assert inside(cache) == []
        assert [cache.get(key) == FILES for key in keys] == [i < written for i in range(20)]
        assert cache.verify() == []
        cache.clear()
        cache.put(keys[-1], FILES, ABOUT) if written else cache.put(keys[-1], {"small": b"1"}, ABOUT)
        assert cache.get(keys[-1]) is not None

    @pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "NSA0702"), (errno.EDQUOT, "NSA0702"), (errno.EIO, "NSA0701")])
    @pytest.mark.parametrize("damaged", [False, True])
    def test_each_call_to_the_system_fails_once(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int, code: str, damaged: bool
    ) -> None:
        """The first call that changes the directory fails, then the second, and so on until ``put`` passes."""
        for failing in itertools.count():
            cache.clear()
            if damaged:
                cache.put(KEY, FILES, ABOUT)
                flip(cache.root / KEY / "kernel.cubin")
            calls = itertools.count()

            def breaking(real: Callable[..., Any], calls: Iterator[int] = calls, failing: int = failing) -> Callable[..., Any]:
                def call(*args: Any, **kwargs: Any) -> Any:
                    if next(calls) == failing:
                        raise OSError(number, os.strerror(number))
                    return real(*args, **kwargs)

                return call

            with monkeypatch.context() as patch:
                patch.setattr(os, "mkdir", breaking(os.mkdir))
                patch.setattr(os, "rename", breaking(os.rename))
                patch.setattr("nsalang.build.cache.open", breaking(open), raising=False)
                try:
                    cache.put(KEY, FILES, ABOUT)
                    whole = True
                except NsaError as error:
                    assert [diagnostic.code for diagnostic in error.diagnostics] == [code]
                    whole = False
            assert inside(cache) == []
            assert cache.get(KEY) == (FILES if whole else None)
            if next(calls) <= failing:
                assert whole
                assert failing > 6
                break
