"""Output files: all or none of them, each complete when it appears under its name.

A regular file is replaced in one step, with the mode and the owner that it had; a link is followed to the file that it names. Whatever
else stands there (a device, a pipe, ``/dev/stdout``, a file with a second name or one that was mounted alone) is written to as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from nsalang.base.source import NsaError


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write each file beside its place, then rename all of them; what cannot be replaced is written to last.

    Raises NSA0706, NSA0702 where the disk is full; no new file is left then that was not complete.
    """
    staged: dict[Path, tuple[Path, Path]] = {}
    through: dict[Path, bytes] = {}
    made: list[Path] = []
    target = Path()
    try:
        for target, data in files.items():
            for parent in reversed([p for p in target.parents if not p.exists()]):
                parent.mkdir()
                made.append(parent)
            place = _replaceable(target)
            if place is None or not _stage(target, place, data, staged):
                through[target] = data
        for target, (temporary, place) in list(staged.items()):
            try:
                os.replace(temporary, place)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                through[target] = files[target]  # a mount of its own
                temporary.unlink()
            del staged[target]
        for target, data in through.items():
            _write_to(target, data)
    except (OSError, ValueError) as error:
        for temporary, _ in staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
        for parent in reversed(made):
            with contextlib.suppress(OSError):  # it holds something by now
                parent.rmdir()
        raise unwritable(f"'{target}'", error) from error


def unwritable(what: str, error: OSError | ValueError) -> NsaError:
    """What an error of the system about an output means."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NsaError.at("NSA0702", f"no space left for {what}: {why}")
    return NsaError.at("NSA0706", f"cannot write {what}: {why}")


def _replaceable(target: Path) -> Path | None:
    """The file to replace, links followed; None where what stands there is to be written to."""
    if _stream(target):
        return None
    place = Path(os.path.realpath(target))
    try:
        found = os.stat(place)
    except FileNotFoundError:
        return place
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return place if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else None


def _stream(target: Path) -> bool:
    """Whether a name stands for an open file, as /dev/stdout and /dev/fd/3 do, at any step of the links that it goes through."""
    for _ in range(40):
        if os.path.realpath(target.parent).startswith("/proc/"):
            return True
        if not target.is_symlink():
            return False
        target = target.parent / os.readlink(target)
    return False


def _stage(target: Path, place: Path, data: bytes, staged: dict[Path, tuple[Path, Path]]) -> bool:
    """Write the new file beside its place; False where there can be none, and the old one can be written."""
    # Not the file's own name with something before it, which may be too long.
    temporary = place.with_name(f".nsalang-{os.urandom(8).hex()}")
    old = os.stat(place) if place.exists() else None
    if old is not None and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        with open(temporary, "xb") as file:
            staged[target] = temporary, place
            if old is not None:
                with contextlib.suppress(PermissionError):  # another's file becomes ours
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            file.write(data)
    except OSError as error:
        if old is not None and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return False  # the directory is another's, or read-only
        raise
    return True


def _write_to(target: Path, data: bytes) -> None:
    """Over what a file holds; after what an open file or anything else holds."""
    with open(os.open(target, os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=0) as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            if _stream(target):
                file.seek(0, os.SEEK_END)
            else:
                file.truncate(0)
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
