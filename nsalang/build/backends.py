"""Which backend, and what can be shown of a kernel with it."""

from __future__ import annotations

from nsalang.base.source import NsaError
from nsalang.base.target import Target
from nsalang.toolchain.backends import BACKEND, BACKENDS, BackendName

EMITS = ("ast", "ir", "source", "ptx", "cubin", "amdgcn", "hsaco", "cuda", "hip")
"""What can be shown of a kernel; the first three for every target and backend."""


def check_emit(kind: str, target: Target, backend: BackendName) -> None:
    """Raises NSA0606 where a kind is unknown, or not there for a target and a backend; says which are."""
    possible = (*EMITS[:3], *BACKEND[backend].code.get(target.kind, ()))
    if kind in possible:
        return
    if kind not in EMITS:
        raise NsaError.at("NSA0606", f"'{kind}' is nothing that can be emitted", help=f"there are {', '.join(EMITS)}")
    fits = [f"{b} for {t}" for t in ("cuda", "hip") for b in BACKENDS if kind in BACKEND[b].code.get(t, ())]
    raise NsaError.at(
        "NSA0606",
        f"the backend '{backend}' has no '{kind}' for the target {target}; it has {', '.join(possible)}",
        help=f"'{kind}' is made by {' and '.join(fits)}",
    )


def choose_backend(name: str, target: Target) -> BackendName:
    """``auto`` is triton on devices, where it is installed, and tilelang on the cpu, where its code is compiled C and Triton's is interpreted.

    Raises NSA0607 for an unknown name, NSA0604 where its package is not installed.
    """
    if name == "auto":
        order: tuple[BackendName, ...] = ("tilelang", "triton") if target.kind == "cpu" else ("triton", "tilelang")
        for candidate in order:
            if BACKEND[candidate].installed():
                return candidate
        raise NsaError.at(
            "NSA0604", "no backend is installed: neither the package triton nor the package tilelang", help="pip install triton tilelang"
        )
    if name not in BACKENDS:
        raise NsaError.at("NSA0607", f"unknown backend '{name}'", help="backends are triton, tilelang and auto")
    backend: BackendName = name
    if not BACKEND[backend].installed():
        other = next(b for b in BACKENDS if b != backend)
        raise NsaError.at(
            "NSA0604",
            f"the backend '{backend}' needs the package {BACKEND[backend].package}",
            help=f"pip install {BACKEND[backend].package}, or use backend='{other}'",
        )
    return backend
