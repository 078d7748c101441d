"""nsalang: a language for sparse-attention and quantisation kernels that compiles to TileLang and to Triton.

Names are imported when they are first used, so that ``import nsalang`` takes no time and needs neither torch nor a backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsalang import dims as dims
    from nsalang import kernels as kernels
    from nsalang import language as language
    from nsalang import ops as ops
    from nsalang.base.source import NsaError as NsaError
    from nsalang.base.target import Target as Target
    from nsalang.build.compiled import Compiled as Compiled
    from nsalang.launch.kernel import Kernel as Kernel
    from nsalang.launch.kernel import Module as Module
    from nsalang.launch.kernel import Program as Program
    from nsalang.launch.kernel import jit as jit
    from nsalang.launch.kernel import load as load
    from nsalang.launch.kernel import load_text as load_text

from nsalang.version import VERSION as __version__

_WHERE = {
    "Compiled": "nsalang.build.compiled",
    "Kernel": "nsalang.launch.kernel",
    "Module": "nsalang.launch.kernel",
    "NsaError": "nsalang.base.source",
    "Program": "nsalang.launch.kernel",
    "Target": "nsalang.base.target",
    "jit": "nsalang.launch.kernel",
    "load": "nsalang.launch.kernel",
    "load_text": "nsalang.launch.kernel",
}
__all__ = ["Compiled", "Kernel", "Module", "NsaError", "Program", "Target", "__version__", "jit", "load", "load_text"]


_PACKAGES = ("dims", "kernels", "language", "ops")
"""What a user takes names from: ``nsalang.ops.rmsnorm`` after nothing but ``import nsalang``."""


def __getattr__(name: str) -> object:
    if name not in _WHERE and name not in _PACKAGES:
        raise AttributeError(f"module 'nsalang' has no attribute '{name}'")
    import importlib

    if name in _PACKAGES:
        return importlib.import_module(f"nsalang.{name}")
    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
