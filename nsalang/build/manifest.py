"""The manifest of an entry of the cache: what its files are, by size and checksum, and a checksum of its own."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Final

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
"""What a file of an entry can be called."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """An entry that is not what its manifest says, and why; it counts as a miss, and the next ``put`` replaces it."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """``files``: size and SHA-256 by name; ``made``: seconds since 1970."""

    key: str
    about: dict[str, str]
    made: int
    files: dict[str, tuple[int, str]]

    def render(self) -> bytes:
        """The bytes of the file."""
        body: dict[str, object] = {
            "format": FORMAT,
            "key": self.key,
            "about": self.about,
            "made": self.made,
            "files": {name: {"size": size, "sha256": digest} for name, (size, digest) in self.files.items()},
        }
        body["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return json.dumps(body, sort_keys=True, indent=1).encode() + b"\n"


def parse(key: str, raw: bytes) -> Manifest | Damaged:
    """The manifest that the bytes hold. Whatever is coerced or ignored here makes ``render`` differ from ``raw``, so one comparison checks types, spelling and checksum."""
    try:
        body = json.loads(raw)
        files = {str(name): (int(file["size"]), str(file["sha256"])) for name, file in body["files"].items()}
        manifest = Manifest(key, {str(k): str(v) for k, v in body["about"].items()}, int(body["made"]), files)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return Damaged(key, f"{MANIFEST} is not a manifest")
    if manifest.render() != raw or not all(NAME.fullmatch(name) for name in files):
        return Damaged(key, f"{MANIFEST} was changed, or belongs to another key or version")
    return manifest
