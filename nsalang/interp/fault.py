"""A fault of a program that runs in the interpreter."""

from __future__ import annotations

from collections.abc import Mapping

from nsalang.base.source import NsaError, Span


class Fault(Exception):
    """A program did what it must not. ``tensor`` and ``indices`` name the access (None and () for another fault); ``at`` gives the index
    variables of the first lane concerned."""

    def __init__(
        self,
        message: str,
        span: Span | None = None,
        tensor: str | None = None,
        indices: tuple[int, ...] = (),
        at: Mapping[str, int] | None = None,
    ) -> None:
        self.message, self.span, self.tensor, self.indices, self.at = message, span, tensor, indices, dict(at or {})
        where = "" if tensor is None else f"{tensor}[{', '.join(map(str, indices))}]: "
        lane = f" at {', '.join(f'{name} = {value}' for name, value in self.at.items())}" if self.at else ""
        super().__init__(f"{f'{span}: ' if span else ''}{where}{message}{lane}")

    def error(self, kernel: str) -> NsaError:
        """NSA0520: what a caller of the kernel is told."""
        where = "" if self.tensor is None else f"{self.tensor}[{', '.join(map(str, self.indices))}], "
        lane = f", at {', '.join(f'{name} = {value}' for name, value in self.at.items())}" if self.at else ""
        return NsaError.at("NSA0520", f"with these inputs '{kernel}' does what it must not: {where}{self.message}{lane}", self.span)
