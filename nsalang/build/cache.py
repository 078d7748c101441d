"""The on-disk cache of compiled kernels: one directory that any number of processes share without a server and nearly without locks.

``ROOT/<key>/`` is an entry: its files and a ``manifest.json`` with the size and SHA-256 of each. ``ROOT/staging/`` holds entries being written
and entries being deleted. An entry appears and disappears by one rename, and a reader checks every byte against the manifest, so whatever was
killed, truncated or edited is a miss. There is no fsync for the same reason: a power cut can leave an empty file, which the check finds.

The files are code that will run: share a cache only with users whom you trust. POSIX only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from nsalang.base.source import NsaError
from nsalang.build.manifest import MANIFEST, NAME, Damaged, Manifest, parse

KeyPart: TypeAlias = "str | int | float | bool | None | Sequence[KeyPart] | Mapping[str, KeyPart]"

STAGING: Final = "staging"
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_TAKEN: Final = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def cache_root() -> Path:
    """Where compiled kernels are kept: ``$NSALANG_CACHE_DIR``, else ``nsalang`` in the user's cache directory of this system."""
    if named := os.environ.get("NSALANG_CACHE_DIR"):
        try:
            return Path(named).expanduser().absolute()
        except RuntimeError as error:
            raise NsaError.at("NSA0701", f"NSALANG_CACHE_DIR is '{named}', and that user has no home directory") from error
    import platformdirs

    return Path(platformdirs.user_cache_dir("nsalang", appauthor=False))


def key_of(parts: Mapping[str, KeyPart]) -> str:
    """64 hex digits: the SHA-256 of ``parts`` as JSON with sorted keys. Equal for equal content, whatever the order, the process or the machine.

    Put everything in that the result depends on, and no path, time or counter. ``1``, ``1.0``, ``"1"`` and ``True`` are four values;
    infinities and NaN are allowed. Anything that is not a JSON value is a TypeError.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """What ``cache list`` shows. ``size`` in bytes with the manifest; ``used`` and ``made`` in seconds since 1970."""

    key: str
    about: Mapping[str, str]
    size: int
    used: float
    made: int


@dataclass(frozen=True, slots=True)
class _Whole:
    manifest: Manifest
    files: dict[str, bytes]


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _file(name: str, directory: int) -> Iterator[BinaryIO]:
    """O_NONBLOCK so that a named pipe in place of a file cannot hang us."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with open(fd, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(fd)


def _locked(directory: int, how: int) -> bool:
    """False where another process holds it. A file system without locks counts as locked: then deleting what is being loaded is possible."""
    try:
        fcntl.flock(directory, how)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _same(fd: int, path: Path) -> bool:
    """Whether what is open is still what stands at ``path``."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False


def _discard(path: Path, to: Path) -> bool:
    """Take ``path`` away in one step, then delete it. False where somebody else took it first."""
    trash = to / f"trash-{os.urandom(8).hex()}"
    try:
        os.rename(path, trash)
    except FileNotFoundError:
        return False
    if trash.is_dir() and not trash.is_symlink():
        shutil.rmtree(trash, ignore_errors=True)
    else:
        trash.unlink(missing_ok=True)
    return True


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache in the directory ``root``, which is made by the first ``put``. ``leftovers_after``: seconds until what a killed writer left is deleted."""

    root: Path
    leftovers_after: float = 3600.0

    def exposed(self) -> tuple[str, bool]:
        """Why others may put code of theirs into the directory ("" where nobody can), and whether that forbids to use it at all."""
        try:
            found = os.stat(self.root)
        except OSError:
            return "", False
        foreign, open_to_all = found.st_uid not in (os.geteuid(), 0), bool(found.st_mode & stat.S_IWOTH)
        reasons = [f"it belongs to user {found.st_uid}"] * foreign + ["everybody can write to it"] * open_to_all
        return " and ".join(reasons), foreign and open_to_all

    def discard(self, key: str) -> None:
        """Delete an entry whose files are not what they must be, whole or not; one that somebody is loading stays."""
        with contextlib.suppress(OSError):
            self._remove(key)

    def get(self, key: str) -> dict[str, bytes] | None:
        """The files of ``key``, each checked, or None: an entry or a directory that cannot be read is a miss, never an error."""
        loaded = self._load(key)
        if not isinstance(loaded, _Whole):
            return None
        self._touch(key)
        return loaded.files

    def put(self, key: str, files: Mapping[str, bytes], about: Mapping[str, str]) -> None:
        """Publish ``files`` (plain names) under ``key``. ``about`` says what they are, for ``entries``. A whole entry is left as it is.

        Raises NSA0701 where the directory cannot be written, NSA0702 where the disk is full; nothing half-written remains then.
        """
        entry = self._entry(key)
        if wrong := [name for name in files if not NAME.fullmatch(name) or name == MANIFEST]:
            raise ValueError(f"not a file name for the cache: {wrong[0]!r}")
        digests = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
        manifest = Manifest(key, dict(about), int(time.time()), digests).render()
        with self._reported("write to"):
            self._sweep(self.leftovers_after)
            for last in (False, False, True):
                try:
                    self._publish(entry, {**files, MANIFEST: manifest})
                    return
                except FileNotFoundError:
                    # Somebody cleared the cache, or deleted its directory, while this was being staged.
                    if last:
                        raise

    @contextlib.contextmanager
    def path(self, key: str) -> Iterator[Path | None]:
        """The directory with the files of ``key``, checked, for libraries that want a path; None for a miss.

        Within the ``with`` block no ``prune`` or ``clear`` of any process takes it away. Write nothing there.
        """
        entry = self._entry(key)
        with contextlib.ExitStack() as stack:
            whole = False
            for _ in range(8):
                try:
                    directory = stack.enter_context(_directory(entry))
                except OSError:
                    break
                _locked(directory, fcntl.LOCK_SH)
                if _same(directory, entry):
                    whole = isinstance(self._check(key, directory), _Whole)
                    break
            if whole:
                self._touch(key)
            yield entry if whole else None

    def entries(self) -> list[Entry]:
        """All entries with a sound manifest, the last used first. Files are not read: ``verify`` does that. Raises NSA0701."""
        found = [entry for key in self._keys() if isinstance(entry := self._inspect(key), Entry)]
        return sorted(found, key=lambda entry: (-entry.used, entry.key))

    def verify(self) -> list[Damaged]:
        """Read everything; the damaged entries. Raises NSA0701 where the directory cannot be read."""
        return [loaded for key in self._keys() if isinstance(loaded := self._load(key), Damaged)]

    def prune(self, max_bytes: int | None = None, max_age_days: float | None = None) -> list[str]:
        """Delete entries not used for ``max_age_days``, then the longest unused until at most ``max_bytes`` remain; the keys deleted.

        Deletes entries without a sound manifest, and old leftovers, in any case. Leaves entries that somebody is loading. Raises NSA0701.
        """
        removed: list[str] = []
        with self._reported("delete from"):
            self._sweep(self.leftovers_after)
            removed += [key for key in self._keys() if isinstance(self._inspect(key), Damaged) and self._remove(key, only_damaged=True)]
            kept = self.entries()
            total = sum(entry.size for entry in kept)
            oldest = time.time() - max_age_days * 86400 if max_age_days is not None else None
            for entry in reversed(kept):
                due = (oldest is not None and entry.used < oldest) or (max_bytes is not None and total > max_bytes)
                if due and self._remove(entry.key):
                    removed.append(entry.key)
                    total -= entry.size
        return removed

    def clear(self) -> int:
        """Delete all entries but those that somebody is loading at this moment; how many. Files that are not the cache's stay. Raises NSA0701."""
        with self._reported("delete from"):
            self._sweep(min(self.leftovers_after, 60.0))  # not sooner: a slow writer would be robbed of what it is about to publish
            return sum(self._remove(key) for key in self._keys())

    def _entry(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a cache key: {key!r}")
        return self.root / key

    def _keys(self) -> list[str]:
        with self._reported("read"):
            try:
                return sorted(name for name in os.listdir(self.root) if _KEY.fullmatch(name))
            except FileNotFoundError:
                return []

    def _touch(self, key: str) -> None:
        with contextlib.suppress(OSError):  # the time of use only orders prune; a read-only cache does without
            os.utime(self.root / key / MANIFEST)

    def _load(self, key: str) -> _Whole | Damaged | None:
        """All reads go through one descriptor of the directory, so that they see one entry even while another takes its place."""
        entry = self._entry(key)
        for _ in range(8):
            try:
                with _directory(entry) as directory:
                    loaded = self._check(key, directory)
                    # An entry that was taken away meanwhile may have lost files to its deletion: that is no damage.
                    if isinstance(loaded, _Whole) or _same(directory, entry):
                        return loaded
            except FileNotFoundError:
                return None
            except OSError as error:
                return Damaged(key, f"not a readable directory: {error.strerror}") if os.path.lexists(entry) else None
        return None

    def _check(self, key: str, directory: int) -> _Whole | Damaged:
        name = MANIFEST
        try:
            with _file(MANIFEST, directory) as file:
                manifest = parse(key, file.read())
            if isinstance(manifest, Damaged):
                return manifest
            files = dict.fromkeys(manifest.files, b"")
            if extra := sorted(set(os.listdir(directory)) - files.keys() - {MANIFEST}):
                return Damaged(key, f"{extra[0]} does not belong to it")
            for name, (size, digest) in manifest.files.items():
                with _file(name, directory) as file:
                    if (found := os.fstat(file.fileno()).st_size) != size:
                        return Damaged(key, f"{name} has {found} bytes instead of {size}")
                    files[name] = file.read()
                if hashlib.sha256(files[name]).hexdigest() != digest:
                    return Damaged(key, f"{name} was changed")
        except OSError as error:
            return Damaged(key, f"{name}: {error.strerror}")
        return _Whole(manifest, files)

    def _inspect(self, key: str) -> Entry | Damaged | None:
        """What the manifest alone tells."""
        try:
            with _directory(self.root / key) as directory, _file(MANIFEST, directory) as file:
                raw, used = file.read(), os.fstat(file.fileno()).st_mtime
        except OSError as error:
            return Damaged(key, f"{MANIFEST}: {error.strerror}") if os.path.lexists(self.root / key) else None
        manifest = parse(key, raw)
        if isinstance(manifest, Damaged):
            return manifest
        return Entry(key, manifest.about, len(raw) + sum(size for size, _ in manifest.files.values()), used, manifest.made)

    def _publish(self, entry: Path, files: Mapping[str, bytes]) -> None:
        """Stage and rename. Of two writers the first wins: both have what the key stands for.

        A damaged entry is taken away first; where that fails (a process holds its path) nothing is published, which is only a later miss.
        """
        staging = self.root / STAGING
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)  # whatever the umask: what lies here will run
        staging.mkdir(mode=0o755, exist_ok=True)
        stage = staging / f"stage-{os.urandom(8).hex()}"
        os.mkdir(stage)
        try:
            for name, data in files.items():
                with open(stage / name, "xb") as file:
                    file.write(data)
            for _ in range(8):
                try:
                    os.rename(stage, entry)
                    return
                except OSError as error:
                    if error.errno not in _TAKEN:
                        raise
                if isinstance(self._load(entry.name), _Whole):
                    return
                self._remove(entry.name, only_damaged=True)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _remove(self, key: str, *, only_damaged: bool = False) -> bool:
        """Delete an entry unless somebody holds its ``path``. The lock dies with its process, so nobody can be left waiting for it."""
        entry = self.root / key
        with contextlib.ExitStack() as stack:
            try:
                directory = stack.enter_context(_directory(entry))
            except FileNotFoundError:
                return False
            except OSError:
                pass  # a file or a link in its place, which nobody can be loading
            else:
                if not _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB) or not _same(directory, entry):
                    return False
            if only_damaged and isinstance(self._load(key), _Whole):
                return False
            (self.root / STAGING).mkdir(exist_ok=True)
            return _discard(entry, self.root / STAGING)

    def _sweep(self, age: float) -> None:
        """Delete what has lain in the staging directory for ``age`` seconds: its writer was killed, or it starts again when it finds it gone."""
        staging = self.root / STAGING
        try:
            names = os.listdir(staging)
        except FileNotFoundError:
            return
        for name in names:
            with contextlib.suppress(FileNotFoundError, PermissionError):  # gone already, or another user's to delete
                if time.time() - os.lstat(staging / name).st_mtime >= age:
                    _discard(staging / name, staging)

    @contextlib.contextmanager
    def _reported(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _FULL:
                raise NsaError.at(
                    "NSA0702",
                    f"no space left for the cache in '{self.root}': {reason}",
                    help="free space with `nsalang cache prune`, or set NSALANG_CACHE_DIR to a directory on another disk",
                ) from error
            raise NsaError.at(
                "NSA0701",
                f"cannot {doing} the cache directory '{self.root}': {reason}",
                help="set NSALANG_CACHE_DIR to a directory that you can write to",
            ) from error
