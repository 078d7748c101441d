"""Where ``-o`` puts what a command made."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from nsalang.report.files import unwritable, write_files


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
    if not out:
        raise click.UsageError("-o needs the name of a file or a directory")
    place = Path(out)
    try:
        place.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name that is none: too long, or with a NUL
        raise unwritable(f"'{out}'", error) from error
    if len(artifacts) == 1 and not place.is_dir() and not out.endswith(os.sep):
        write_files({place: next(iter(artifacts.values()))})
        return [place]
    if place.exists() and not place.is_dir():
        raise click.UsageError(f"there are {len(artifacts)} results, and '{out}' is a file: -o must be a directory")
    files = {place / name: data for name, data in artifacts.items()}
    write_files(files)
    return list(files)
