"""nsalang: a language for sparse-attention and quantisation kernels that compiles to TileLang and to Triton.

Names are imported when they are first used, so that ``import nsalang`` takes no time and needs neither torch nor a backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsalang.driver import Compiled as Compiled
    from nsalang.kernel import Kernel as Kernel
    from nsalang.kernel import Module as Module
    from nsalang.kernel import Program as Program
    from nsalang.kernel import jit as jit
    from nsalang.kernel import load as load
    from nsalang.kernel import load_text as load_text
    from nsalang.source import NsaError as NsaError
    from nsalang.target import Target as Target

from nsalang.version import VERSION as __version__

_WHERE = {
    "Compiled": "nsalang.driver",
    "Kernel": "nsalang.kernel",
    "Module": "nsalang.kernel",
    "NsaError": "nsalang.source",
    "Program": "nsalang.kernel",
    "Target": "nsalang.target",
    "jit": "nsalang.kernel",
    "load": "nsalang.kernel",
    "load_text": "nsalang.kernel",
}
__all__ = ["Compiled", "Kernel", "Module", "NsaError", "Program", "Target", "__version__", "jit", "load", "load_text"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'nsalang' has no attribute '{name}'")
    import importlib

    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
