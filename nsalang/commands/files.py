"""Output files: all or none of them, each complete when it appears under its name."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from nsalang.base.source import NsaError


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write each file beside its place, then rename all of them. Raises NSA0706; no new file is left then that was not complete."""
    staged: dict[Path, Path] = {}
    made: list[Path] = []
    target = Path()
    try:
        for target, data in files.items():
            for parent in reversed([p for p in target.parents if not p.exists()]):
                parent.mkdir()
                made.append(parent)
            temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
            staged[target] = temporary
            temporary.write_bytes(data)
        for target, temporary in list(staged.items()):
            if target.is_dir():
                raise IsADirectoryError(21, os.strerror(21))
            os.replace(temporary, target)
            del staged[target]
    except OSError as error:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
        for parent in reversed(made):
            with contextlib.suppress(OSError):  # it holds something by now
                parent.rmdir()
        raise NsaError.at("NSA0706", f"cannot write '{target}': {error.strerror or error}") from error


def deliver(artifacts: Mapping[str, bytes], out: str | None, *, text: bool) -> list[Path]:
    """Put artifacts (by file name) where ``-o`` says: standard output for nothing or ``-``; for a directory or several, files in it.

    Returns the paths written. Raises UsageError where ``out`` cannot hold them, NSA0706 where it cannot be written.
    """
    if out is None or out == "-":
        if not text and (len(artifacts) > 1 or sys.stdout.isatty()):
            raise click.UsageError("this is binary: say where it goes with -o FILE (or -o DIRECTORY for several)")
        if not text:
            sys.stdout.buffer.write(b"".join(artifacts.values()))
            return []
        for name, data in artifacts.items():
            if len(artifacts) > 1:
                click.echo(f"# ---- {name}")
            click.echo(data.decode(), nl=not data.endswith(b"\n"))
        return []
    place = Path(out)
    if len(artifacts) == 1 and not place.is_dir() and not out.endswith(os.sep):
        write_files({place: next(iter(artifacts.values()))})
        return [place]
    if place.exists() and not place.is_dir():
        raise click.UsageError(f"there are {len(artifacts)} results, and '{out}' is a file: -o must be a directory")
    files = {place / name: data for name, data in artifacts.items()}
    write_files(files)
    return list(files)
