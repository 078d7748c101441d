"""Folders for what compilers read and write: locked while in use, deleted after it, and those that a killed process left are swept."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nsalang.base.source import NsaError

PREFIX = "nsalang-"
LEFT_AFTER = 3600.0
"""Seconds after which a folder that nobody has locked was left: a compiler may outlive the process that started it, but not for so long."""

_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A new folder in the directory for temporary files. Raises NSA0702 where its disk is full, NSA0708 where there is no such directory."""
    folder: Path | None = None
    lock = -1
    try:
        try:
            place = Path(tempfile.gettempdir())
            _sweep(place)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # a file system without locks: age alone protects the folder
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _FULL:
                raise no_space(error.strerror) from error
            raise NsaError.at(
                "NSA0708",
                f"there is no directory for temporary files: {error.strerror or error}",
                help="set TMPDIR to one that can be written",
            ) from error
        try:
            yield folder
        except Exception as error:
            if not isinstance(error, NsaError) and disk_is_full(error):
                raise no_space(os.strerror(errno.ENOSPC)) from error
            raise
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if lock >= 0:
            os.close(lock)


def no_space(why: str | None) -> NsaError:
    """The error of a full disk under the directory for temporary files."""
    return NsaError.at(
        "NSA0702",
        f"no space left for temporary files in '{tempfile.gettempdir()}': {why or 'the disk is full'}",
        help="free space there, or set TMPDIR to a directory on another disk",
    )


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is that of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def tells_of_full_disk(said: str) -> bool:
    """Whether a compiler says (under LC_ALL=C) that it could not write for lack of space."""
    return any(os.strerror(code) in said for code in _FULL)


@functools.cache
def _sweep(place: Path) -> None:
    """Once a process: delete our own old folders that nobody has locked. What is another user's, a link or no folder stays."""
    for name in os.listdir(place):
        if not _NAME.fullmatch(name):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(place / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(fd)
                if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode) or time.time() - found.st_mtime < LEFT_AFTER:
                    continue
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place / name, ignore_errors=True)
            finally:
                os.close(fd)
