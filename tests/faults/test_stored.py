"""Kind C: what lies on disk between two runs: entries of the cache, its directory, and folders of killed compilers."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import nsalang
from nsalang.base.source import NsaError
from nsalang.build.cache import Cache, cache_root
from nsalang.toolchain import workspace as space

ROOT = Path(__file__).parent.parent.parent
ADD = ROOT / "examples/vector_add.nsa"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path / "cache"))
    return Cache(cache_root())


# A manifest that is valid, and a file that is not what a compiler wrote.
NONSENSE = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "text": b"no json",
    "latin": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "number": b'{"symbol": 3, "parameters": 7, "threads": "x", "shared": null}',
    "parameters": b'{"symbol": "f", "parameters": [["zzz", "Q"]], "threads": 1, "shared": 0}',
    "formats": b'{"symbol": "f", "parameters": [["a", "ZZ"]], "threads": 1, "shared": 0}',
    "symbol": b'{"symbol": "other", "parameters": [["a", "Q"]], "threads": 1, "shared": 0}',
}


@pytest.mark.parametrize("what", NONSENSE, ids=lambda w: f"C-entry-{w}")
@pytest.mark.parametrize("backend", ["tilelang", "triton"])
def test_nonsense_in_a_whole_entry_is_made_anew(backend: str, what: str, cache: Cache) -> None:
    def call() -> list[float]:
        a = torch.arange(3.0)
        found: list[float] = nsalang.load(ADD).vector_add(a, a, backend=backend).tolist()
        return found

    assert call() == [0, 2, 4]
    (entry,) = cache.entries()
    right = cache.get(entry.key)
    assert right is not None
    for name in right:
        if name == "kernel.c" and what != "latin":
            continue  # a text that is only shown: any text is one
        if name == "kernel.so" and what not in ("empty", "text"):
            continue  # nothing that the rest would show of it
        cache.discard(entry.key)
        cache.put(entry.key, {**right, name: NONSENSE[what]}, {"kernel": "vector_add"})
        assert call() == [0, 2, 4], (name, what)
        assert cache.get(entry.key) == right, (name, what)


@pytest.mark.parametrize("files", [{}, {"kernel.json": b"{}"}, {"other": b"x"}], ids=["none", "one", "strange"])
def test_an_entry_with_other_files_is_made_anew(files: dict[str, bytes], cache: Cache) -> None:
    made = nsalang.load(ADD).vector_add.compile(target="cuda:sm_90", backend="triton")
    right = dict(made.artifact)
    cache.discard(made.key)
    cache.put(made.key, files, {})
    assert made.emit("ptx") == right["kernel.ptx"].decode() and cache.get(made.key) == right


def test_a_nonsense_entry_for_a_device_is_made_anew(cache: Cache) -> None:
    made = nsalang.load(ADD).vector_add.compile(target="cuda:sm_90", backend="triton")
    right = dict(made.artifact)
    about = json.loads(right["kernel.json"])
    for wrong in ({**about, "target": "x"}, {**about, "shared": "many"}, {**about, "name": 1}, {**about, "num_warps": []}, {"target": {}}):
        cache.discard(made.key)
        cache.put(made.key, {**right, "kernel.json": json.dumps(wrong).encode()}, {})
        assert made.emit("cubin") == right["kernel.cubin"] and cache.get(made.key) == right


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NSALANG_CACHE_DIR", "~/x")
    assert cache_root() == tmp_path / "x"
    monkeypatch.setenv("NSALANG_CACHE_DIR", "~nobody-of-this-name/x")
    with pytest.raises(NsaError, match="NSA0701"):
        cache_root()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_cache_that_others_can_write_to(cache: Cache) -> None:
    cache.root.mkdir(mode=0o755)
    assert cache.exposed() == ("", False)
    cache.root.chmod(0o777)
    assert cache.exposed() == ("everybody can write to it", False)
    os.chown(cache.root, 12345, 12345)
    assert cache.exposed()[1]
    made = nsalang.load(ADD).vector_add.compile(target="cpu", backend="triton")
    with pytest.warns(
        RuntimeWarning, match="NSA0709: the cache directory .* it belongs to user 12345 and everybody can write to it; it is not used"
    ):
        assert made.artifact
    assert list(cache.root.iterdir()) == []
    cache.root.chmod(0o755)
    assert cache.exposed() == ("it belongs to user 12345", False)


def test_a_cache_is_made_for_its_owner_alone_to_write(cache: Cache) -> None:
    before = os.umask(0)
    try:
        cache.put("0" * 64, {"a": b"b"}, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.root.stat().st_mode) == 0o755


# ------------------------------------------------------------------------------------------------------------ temporary files


def test_folders_of_killed_compilers_are_swept_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    long_ago = time.time() - 2 * space.LEFT_AFTER

    def folder(name: str, age: float = long_ago) -> Path:
        made = tmp_path / name
        made.mkdir()
        (made / "kernel.cu").write_text("x")
        os.utime(made, (age, age))
        return made

    left, young, strange, longer = (
        folder("nsalang-abcdefgh"),
        folder("nsalang-abcdefg1", time.time()),
        folder("other-abcdefgh"),
        folder("nsalang-abcdefghi"),
    )
    locked, foreign = folder("nsalang-abcdefg2"), folder("nsalang-abcdefg3")
    link, file = tmp_path / "nsalang-abcdefg4", tmp_path / "nsalang-abcdefg5"
    link.symlink_to("other-abcdefgh")
    file.write_text("x")
    os.utime(file, (long_ago, long_ago))
    kept = [young, strange, longer, locked, link, file]
    if os.geteuid() == 0:
        os.chown(foreign, 12345, 12345)
        kept.append(foreign)
    held = os.open(locked, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    space._sweep.cache_clear()
    with space.workspace() as here:
        (here / "x").write_text("y")
        assert not left.exists() and all(p.exists() or p.is_symlink() for p in kept)
        other = os.open(here, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
    assert not here.exists()
    os.close(held)


def test_a_killed_compiler_leaves_a_folder_that_a_later_one_sweeps(tmp_path: Path) -> None:
    script = "import os, signal\nfrom nsalang.toolchain.workspace import workspace\nwith workspace():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    (left,) = tmp_path.glob("nsalang-*")
    os.utime(left, (1, 1))
    subprocess.run([sys.executable, "-c", script.replace("os.kill(os.getpid(), signal.SIGKILL)", "pass")], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSALANG_CACHE_DIR", str(tmp_path / "cache"))
    tools = tmp_path / "bin"
    tools.mkdir()
    compiler = tools / "g++"
    compiler.write_text("#!/bin/sh\necho 'cc1plus: error: error closing /tmp/x.s: No space left on device' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    with pytest.raises(NsaError, match="NSA0702.*no space left for temporary files"):
        assert nsalang.load(ADD).vector_add.compile(target="cpu", backend="tilelang").artifact
    with pytest.raises(NsaError, match="NSA0702"), space.workspace():
        raise RuntimeError("of a library") from OSError(28, "No space left on device")
    with pytest.raises(RuntimeError, match="of a library"), space.workspace():
        raise RuntimeError("of a library") from OSError(2, "no such file")


def test_no_directory_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    with pytest.raises(NsaError, match="NSA0708"), space.workspace():
        pass
