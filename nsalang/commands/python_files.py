"""Kernels of a Python file: those under ``@nsalang.jit`` that it defines. The file is imported, that is, run."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsalang.base.source import NsaError
from nsalang.launch.kernel import Kernel
from nsalang.syntax.parser import read_source

if TYPE_CHECKING:
    from nsalang.launch.kernel import Kernel

MODULE = "nsalang_file"
"""The name under which the file is imported: never ``__main__``, so that what it does as a script stays undone."""


def python_kernels(path: str, name: str | None) -> list[Kernel]:
    """The kernel named, or all, in the order of the file.

    Raises NSA0207 where there is none, what reading a text raises, NSA0704 where importing it raises, UsageError for an unknown name.
    """
    place = Path(path)
    read_source(place)
    spec = importlib.util.spec_from_file_location(MODULE, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    sys.path.insert(0, str(place.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (NsaError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a user's file raises; sys.exit ends it and not us
        raise NsaError.at("NSA0704", f"the file {path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        del sys.modules[MODULE], sys.path[0]
    found = {k.unit.name: k for k in vars(module).values() if isinstance(k, Kernel) and k.__module__ == MODULE}
    if not found:
        raise no_kernel(path, "@nsalang.jit makes a kernel of a function")
    if name is None:
        return list(found.values())
    if name not in found:
        near = difflib.get_close_matches(name, found, 1, 0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(found)}"
        raise click.UsageError(f"{path} has no kernel '{name}': {hint}")
    return [found[name]]


def no_kernel(file: str, help: str) -> NsaError:
    """The error for a file that has nothing to work on."""
    return NsaError.at("NSA0207", f"{file} has no kernel", help=help)
