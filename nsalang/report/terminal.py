"""What the commands share at the terminal: the session's switches, tables, and progress that shows only when something takes long."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from nsalang.base.source import NsaError

if TYPE_CHECKING:
    from rich.console import Console

SHOW_AFTER = 2.0
"""Seconds after which progress is shown."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Session:
    """The switches that every command takes. Made by ``main``, filled in by click, so that errors are shown as asked wherever they are."""

    quiet: bool = False
    debug: bool = False
    error_format: Literal["human", "json"] = "human"

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
        """Print a table to standard output. Cells are shown by ``str``; ``right`` names the columns aligned right."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            made.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            made.add_row(*(Text(str(cell), style=_STYLES.get(str(cell), "")) for cell in row))
        out = console()
        if title:
            # Not the table's own title, which is folded to the width of the table.
            out.print(Text(title, style="bold"))
        out.print(made)

    def note(self, text: str) -> None:
        """A line about what was done, on standard error; not under ``--quiet``."""
        if not self.quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """A warning, on standard error; not under ``--quiet``, nor where that is JSON."""
        if self.error_format == "human":
            self.note(f"warning: {text}")

    @contextlib.contextmanager
    def progress(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Say on standard error what the block does once it has taken two seconds. Yields a function that changes what it says."""
        if self.quiet or self.error_format == "json":
            yield lambda text: None
            return
        line = _Progress(doing)
        try:
            yield line.say
        finally:
            line.end()


_STYLES = {"yes": "green", "no": "red", "agree": "green", "DIFFER": "bold red", "exact": "green", "failed": "bold red"}


class _Progress:
    """A spinner on a terminal; elsewhere a line at most every two seconds. Starts by a timer of its own."""

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self.lock = threading.Lock()
        self.status: Any = None
        self.shown = self.ended = False
        self.last = 0.0
        self.timer = threading.Timer(SHOW_AFTER, self._show)
        self.timer.daemon = True
        self.timer.start()

    def _show(self) -> None:
        with self.lock:
            if self.ended:
                return
            self.shown = True
            if sys.stderr.isatty():
                self.status = console(stderr=True).status(self.doing)
                self.status.start()
            else:
                self._line(self.doing)

    def say(self, doing: str) -> None:
        with self.lock:
            if self.shown and self.status is None and time.monotonic() - self.last >= SHOW_AFTER:
                self._line(doing)
            self.doing = doing
            if self.status is not None:
                self.status.update(doing)

    def _line(self, doing: str) -> None:
        self.last = time.monotonic()
        click.echo(f"{doing} ...", err=True)

    def end(self) -> None:
        with self.lock:
            self.ended = True
            self.timer.cancel()
            if self.status is not None:
                self.status.stop()


def console(*, stderr: bool = False) -> Console:
    """A rich console: colours on a terminal only and not under NO_COLOR; wide where there is no terminal, so that nothing is cut."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Rich would leave with 1; ``main`` says how a command ends whose reader went away."""
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    return Plain(stderr=stderr, highlight=False, markup=False, width=None if stream.isatty() else 180)


def report(error: NsaError, session: Session) -> None:
    """Show the diagnostics on standard error, as text or as a JSON list."""
    if session.error_format == "json":
        click.echo(json.dumps([d.as_json() for d in error.diagnostics]), err=True)
        return
    text = str(error)
    count = len(error.diagnostics)
    if count > 1:
        text += f"\n\n{count} errors"
    if not sys.stderr.isatty():
        click.echo(text, err=True)
        return
    from rich.text import Text

    shown = Text(text)
    shown.highlight_regex(r"(?m)^error\[\w+\]", "bold red")
    shown.highlight_regex(r"(?m)^ *\|.*\^+$", "red")
    shown.highlight_regex(r"(?m)^ *(= help:|= note:|-->)", "cyan")
    console(stderr=True).print(shown)


def problem(code: str, sentence: str, session: Session) -> None:
    """Show what is no diagnostic of a text: a wrong command line, an interrupt, or a fault of ours."""
    if session.error_format == "json":
        click.echo(json.dumps([{"code": code, "sentence": sentence, "notes": [], "helps": []}]), err=True)
    else:
        click.echo(sentence, err=True)


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            setattr(ctx.ensure_object(Session), name, value)

    return callback


def session_options(function: F) -> F:
    """The options that stand before or after the name of a command alike."""
    for decorate in (
        click.option("--debug", is_flag=True, expose_value=False, callback=_set("debug"), help="Show the traceback of a fault of nsalang."),
        click.option(
            "--error-format", type=click.Choice(["human", "json"]), expose_value=False, callback=_set("error_format"), is_eager=True,
            help="How errors are shown on standard error (default: human).",
        ),
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_set("quiet"), help="No progress and no notes."),
    ):  # fmt: skip
        function = decorate(function)
    return function
