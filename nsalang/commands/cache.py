"""``nsalang cache``: what the cache of compiled kernels holds, whether it is sound, and how to make it smaller."""

from __future__ import annotations

import json
import time
from typing import cast

import click

from nsalang.base.source import Diagnostic, NsaError
from nsalang.build.cache import Cache, cache_root
from nsalang.report.terminal import Session, session_options


@click.group("cache")
@session_options
def command() -> None:
    """The cache of compiled kernels. It lies in $NSALANG_CACHE_DIR, or in the user's cache directory."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output instead of a table.")
@session_options
@click.pass_obj
def list_entries(session: Session, as_json: bool) -> None:
    """Show the entries, the last used first."""
    cache = Cache(cache_root())
    with session.progress(f"reading {cache.root}"):
        entries = cache.entries()
    if as_json:
        rows = [{"key": e.key, "about": dict(e.about), "bytes": e.size, "used": e.used, "made": e.made} for e in entries]
        click.echo(json.dumps({"directory": str(cache.root), "entries": rows}, indent=1))
        return
    total = f"{cache.root}: {counted(len(entries), 'entry', 'entries')}, {size(sum(e.size for e in entries))}"
    if entries:
        names = sorted({name for e in entries for name in e.about})
        columns = ["key", *names, "size", "last used"]
        session.table(
            "", columns, [[e.key[:12], *(e.about.get(n, "") for n in names), size(e.size), ago(e.used)] for e in entries], right=["size"]
        )
    click.echo(total)


@command.command("verify")
@click.option("--json", "as_json", is_flag=True, help="A JSON list on standard output instead of text.")
@session_options
@click.pass_obj
def verify(session: Session, as_json: bool) -> None:
    """Compare every file with its manifest. Exit code 1 where an entry is damaged: it counts as a miss and will be replaced."""
    cache = Cache(cache_root())
    with session.progress(f"reading {cache.root}"):
        damaged = cache.verify()
    if as_json:
        click.echo(json.dumps([{"key": d.key, "reason": d.reason} for d in damaged], indent=1))
    if damaged:
        raise NsaError(*(Diagnostic("NSA0707", f"the cache entry {d.key} is damaged: {d.reason}") for d in damaged))
    if not as_json:
        click.echo(f"{cache.root}: {counted(len(cache.entries()), 'entry', 'entries')}, all sound")


class Days(click.FloatRange):
    """A number that is one: click's range lets NaN pass."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(cast(float, value), param, ctx))
        if number != number:
            self.fail("NaN is no number of days", param, ctx)
        return number


@command.command("prune")
@click.option("--max-bytes", type=click.IntRange(min=0), help="Delete the longest unused entries until at most this many bytes remain.")
@click.option("--max-age-days", type=Days(min=0), help="Delete entries not used for this many days.")
@click.option("--json", "as_json", is_flag=True, help="The keys deleted as a JSON list on standard output.")
@session_options
@click.pass_obj
def prune(session: Session, max_bytes: int | None, max_age_days: float | None, as_json: bool) -> None:
    """Delete damaged entries and leftovers, and what the options say."""
    cache = Cache(cache_root())
    with session.progress(f"pruning {cache.root}"):
        removed = cache.prune(max_bytes, max_age_days)
    click.echo(json.dumps(removed) if as_json else f"{cache.root}: {counted(len(removed), 'entry', 'entries')} deleted")


@command.command("clear")
@click.option("--json", "as_json", is_flag=True, help="How many were deleted, as JSON on standard output.")
@session_options
@click.pass_obj
def clear(session: Session, as_json: bool) -> None:
    """Delete all entries but those that somebody is loading at this moment."""
    cache = Cache(cache_root())
    with session.progress(f"clearing {cache.root}"):
        removed = cache.clear()
    click.echo(json.dumps({"deleted": removed}) if as_json else f"{cache.root}: {counted(removed, 'entry', 'entries')} deleted")


def counted(number: int, one: str, many: str) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{number} {one if number == 1 else many}"


def size(number: int) -> str:
    """Bytes for people: ``312 B``, ``4.2 kB``."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def ago(then: float) -> str:
    """How long ago a time (seconds since 1970) was."""
    seconds = max(0.0, time.time() - then)
    for limit, unit, word in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {word} ago"
    return f"{seconds / 86400:.0f} days ago"
