"""The standard streams of a command, which may be closed, or closed by whom they go to."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def open_streams() -> None:
    """Put something in the place of closed standard streams, so that no file that is opened later gets their numbers.

    What is written to a closed standard output fails, as it must; a closed standard error swallows what it is told.
    """
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            fd = os.open(os.devnull, flags)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
        if number:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", write_through=True))


def give_up_output() -> None:
    """The interpreter flushes the streams at its end, and would complain of what they still hold: it goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            continue
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
