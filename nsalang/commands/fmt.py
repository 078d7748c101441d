"""``nsalang fmt``: canonical text."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import click

from nsalang.base.source import Diagnostic, NsaError, Source
from nsalang.report.files import write_files
from nsalang.report.terminal import Session, session_options


@click.command("fmt")
@click.argument("files", nargs=-1, required=True)
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 where a file is not canonical.")
@click.option("--diff", "show_diff", is_flag=True, help="Write nothing; print what would change, exit code 1 where something would.")
@session_options
@click.pass_obj
def command(session: Session, files: tuple[str, ...], check: bool, show_diff: bool) -> None:
    """Rewrite FILES in canonical form ('-': standard input to standard output). Files with errors are left as they are."""
    from nsalang.syntax.format import format_text
    from nsalang.syntax.parser import read_source

    changed: dict[str, bytes] = {}
    problems: list[Diagnostic] = []
    with session.progress("formatting") as say:
        for name in files:
            say(f"formatting {name}")
            try:
                source = _standard_input() if name == "-" else read_source(name)
                new = format_text(source)
            except NsaError as error:
                problems += error.diagnostics
                continue
            if new != source.text:
                changed[name] = new.encode()
            if show_diff:
                old_lines, new_lines = source.text.splitlines(keepends=True), new.splitlines(keepends=True)
                click.echo("".join(difflib.unified_diff(old_lines, new_lines, name, f"{name} (formatted)")), nl=False)
            elif name == "-" and not check:
                click.echo(new, nl=False)
    if not (check or show_diff):
        write_files({Path(name): data for name, data in changed.items() if name != "-"})
    if problems:
        raise NsaError(*problems)
    for name in changed:
        if check:
            click.echo(f"{name} is not canonical", err=True)
        elif not show_diff and name != "-":
            session.note(f"{name} rewritten")
    if changed and (check or show_diff):
        raise click.exceptions.Exit(1)


def _standard_input() -> Source:
    data = sys.stdin.buffer.read()
    try:
        return Source(data.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), "<stdin>")
    except UnicodeDecodeError as error:
        raise NsaError.at("NSA0705", f"standard input is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}") from None
