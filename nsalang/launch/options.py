"""How a call is to be run: its options, checked, and which target the device of its tensors is."""

from __future__ import annotations

import functools
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsalang import ir
from nsalang.base.source import NsaError
from nsalang.base.target import KNOWN, Target, parse_target

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Options:
    """Call options, checked. ``pinned``: (name, length, number or place), sorted. ``allow_unknown``: accesses that the prover cannot settle are
    guarded. ``deterministic``: refuse what may differ from run to run. ``check``: check every access as it runs (None: as NSALANG_CHECK says)."""

    backend: str = "auto"
    target: Target | None = None
    pinned: tuple[ir.Pin, ...] = ()
    allow_unknown: bool = False
    deterministic: bool = False
    check: bool | None = None


DEFAULT = Options()


def options_of(
    kernel: str,
    base: Options,
    backend: object,
    target: object,
    schedule: object,
    allow: object = None,
    deterministic: object = None,
    check: object = None,
) -> Options:
    """Call options over defaults; None leaves the default. Raises NSA0519 for a value of the wrong kind, NSA0601 for an unknown target."""
    if backend is not None and not isinstance(backend, str):
        raise NsaError.at("NSA0519", f"the option 'backend' of '{kernel}' takes 'triton', 'tilelang' or 'auto'")
    if target is not None and not isinstance(target, str | Target):
        raise NsaError.at("NSA0519", f"the option 'target' of '{kernel}' takes a text such as 'cuda:sm_90'")
    for name, value in (("deterministic", deterministic), ("check", check)):
        if value is not None and not isinstance(value, bool):
            raise NsaError.at("NSA0519", f"the option '{name}' of '{kernel}' takes True or False")
    found = Options(
        base.backend if backend is None else backend,
        base.target if target is None else parse_target(str(target)),
        base.pinned if schedule is None else pins_of(schedule),
        base.allow_unknown if allow is None else allows_unknown(kernel, allow),
        base.deterministic if deterministic is None else bool(deterministic),
        base.check if check is None else bool(check),
    )
    return base if found == base else found  # a call asks by identity whether these are the defaults


def allows_unknown(kernel: str, allow: object) -> bool:
    """What ``allow="unknown"`` says; None and False allow nothing. Raises NSA0519 for anything else."""
    if allow not in (None, False, "unknown"):
        raise NsaError.at(
            "NSA0519", f"the option 'allow' of '{kernel}' takes 'unknown': accesses that the prover cannot settle are guarded"
        )
    return allow == "unknown"


def check_deterministic(kernel: ir.Kernel) -> None:
    """Raises NSA0522 where a run may differ from the next: floats are added in any order, and of several writers any wins. Integers add up alike."""
    for node in ir.walk(kernel):
        if isinstance(node, ir.Store) and (node.mode == "scatter" or (node.mode == "add" and node.value.dtype.is_float)):
            what = "atomic additions to" if node.mode == "add" else "scatter into"
            raise NsaError.at(
                "NSA0522",
                f"'{kernel.name}' is called with deterministic=True, and the result of its {what} '{node.tensor}' depends on an order that no one sets",
                node.span,
                help="leave 'deterministic' out",
            )


def refuse_later(kernel: str, options: Mapping[str, object]) -> None:
    """Raises NSA0402 for an option that this version lacks, unless it is off."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise NsaError.at("NSA0402", f"the option '{name}' of '{kernel}' is not there yet; leave it out")


_OF_CALLS = {
    "check": "the interpreter checks every access of itself",
    "allow": "the interpreter proves nothing: it stops where an access lies outside",
    "backend": "the interpreter is none of the backends",
    "schedule": "the interpreter has no schedule: 'tile' gives the lengths of its tiles",
    "deterministic": "the interpreter always adds in one order",
    "autotune": "the interpreter has no schedule",
}


def refuse_interpreted(kernel: str, arguments: Mapping[str, object], parameters: Container[str]) -> None:
    """Raises NSA0519 for an option of calls that means nothing to ``interpret``."""
    for name in arguments:
        if name in _OF_CALLS and name not in parameters:
            raise NsaError.at("NSA0519", f"'{kernel}.interpret' takes no option '{name}': {_OF_CALLS[name]}", help=f"leave '{name}' out")


def pins_of(schedule: object) -> tuple[ir.Pin, ...]:
    """``schedule={"m": 32, "keys": "shared"}`` as sorted pairs; of a program's kernel alone, ``{"combine": {"m": 32}}``, which is ``combine.m``.
    Raises NSA0519 unless it maps names to positive integers and places."""
    if schedule is None:
        return ()
    pairs: dict[object, object] = {}
    for name, value in schedule.items() if isinstance(schedule, Mapping) else ():
        pairs.update({f"{name}.{n}": v for n, v in value.items()} if isinstance(value, Mapping) else {name: value})
    fits = all(isinstance(n, str) and ((type(v) is int and v > 0) or (isinstance(v, str) and v in ir.PLACES)) for n, v in pairs.items())
    if not isinstance(schedule, Mapping) or not fits:
        raise NsaError.at(
            "NSA0519",
            "the option 'schedule' takes a mapping from names of axes to lengths and from names of variables to places, such as "
            "{'m': 32, 'keys': 'shared'}",
            help=f"a place is {' or '.join(map(repr, ir.PLACES))}",
        )
    return tuple(sorted((str(n), v) for n, v in pairs.items() if isinstance(v, int | str)))


def tile_of(kernel: str, tile: object) -> int | dict[str, int] | None:
    """The option ``tile`` of ``interpret``: one length, or one for each axis. Raises NSA0519 for anything else."""
    if tile is None or (type(tile) is int and tile > 0):
        return tile
    if isinstance(tile, Mapping) and all(isinstance(n, str) and type(v) is int and v > 0 for n, v in tile.items()):
        return dict(tile)
    raise NsaError.at("NSA0519", f"the option 'tile' of '{kernel}' takes a positive integer, or one for each axis by name, not {tile!r}")


@functools.cache
def device_target(kind: str, index: int) -> Target:
    """The target that a device is. Raises NSA0605 for a device that no known target fits."""
    if kind == "cpu":
        return Target("cpu")
    import torch

    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        arch = properties.gcnArchName.split(":")[0]
        if f"hip:{arch}" in KNOWN:
            return Target("hip", arch)
        raise NsaError.at(
            "NSA0605", f"device {index} ({properties.name}, {arch}) is none of the known targets", help="known targets: " + ", ".join(KNOWN)
        )
    capability = properties.major * 10 + properties.minor
    # Code for an architecture runs on later members of its family.
    known = [t.capability for t in map(parse_target, KNOWN) if t.kind == "cuda"]
    fits = [c for c in known if c // 10 == properties.major and c <= capability]
    if not fits:
        raise NsaError.at(
            "NSA0605",
            f"device {index} ({properties.name}, sm_{capability}) is none of the known targets",
            help="known targets: " + ", ".join(KNOWN),
        )
    return Target("cuda", f"sm_{max(fits)}")


def check_here(target: Target) -> None:
    """Raises NSA0605 where this machine has no device on which code for a target runs."""
    if target.kind == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise NsaError.at(
            "NSA0605",
            f"code for {target} runs on such a device, and torch sees none here",
            help=f"target cpu runs here; 'nsalang compile --target {target}' makes code without running it",
        )
    check_device(target, torch.device("cuda", torch.cuda.current_device()))


def check_device(target: Target, device: torch.device) -> None:
    """Raises NSA0605 where code for a target cannot run on the device on which the arguments lie."""
    here = device_target(device.type, device.index or 0)
    family = here.kind == target.kind == "cuda" and target.capability < 90 and here.capability // 10 == target.capability // 10
    if here != target and not (family and target.capability <= here.capability):
        raise NsaError.at(
            "NSA0605",
            f"the arguments lie on device '{device}', which is {here}, and code for {target} does not run there",
            help=f"leave 'target' out; .compile(target='{target}') makes code without running it, .interpret(target='{target}') computes what it would give",
        )
