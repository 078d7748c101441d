"""The command ``nsalang``: which sub-commands there are, and how each ends.

Exit codes: 0; 1 for diagnostics (an NsaError), for disagreement, and where standard output is closed or on a full disk; 2 for a wrong
command line; 70 for a fault of nsalang; 130 after Ctrl-C; 141 where the reader of a pipe went away.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import sys
import warnings
from collections.abc import Sequence

import click

from nsalang import __version__
from nsalang.base.source import NsaError
from nsalang.report.files import unwritable
from nsalang.report.streams import give_up_output, open_streams
from nsalang.report.terminal import Session, problem, report, session_options

COMMANDS = {
    "compile": "Compile kernels for a target, which need not be here.",
    "prove": "Show for every access why it is inside, or how it is not.",
    "run": "Run a kernel by interpreter, Triton and TileLang, and compare.",
    "bench": "Time a kernel here, or with --compile-time the compiler.",
    "show": "Show the IR of a kernel after each pass that changed it.",
    "fmt": "Rewrite .nsa files in canonical form.",
    "cache": "List, verify, prune or clear the cache of compiled kernels.",
    "doctor": "Say what is installed, what the machine has, what will work.",
    "demo": "Compile act_quant by both backends, run it here, and compare.",
}


class _Group(click.Group):
    """Imports the module of a sub-command only when that one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"nsalang.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="nsalang")
@session_options
def cli() -> None:
    """nsalang: kernels in one small language, compiled to Triton and to TileLang."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    session = Session(debug=os.environ.get("NSALANG_DEBUG") == "1", error_format="json" if _wants_json(given) else "human")
    open_streams()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: session.warn(str(message))
            code = _run(given, session)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        code = 141
    except OSError as error:  # of standard output or standard error: all other files have their own errors
        with contextlib.suppress(OSError):
            report(unwritable("standard output", error), session)
        code = 1
    give_up_output()
    return code


def _run(given: list[str], session: Session) -> int:
    try:
        with cli.make_context("nsalang", given, obj=session) as context:
            cli.invoke(context)
        return 0
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.ClickException as error:
        if session.error_format == "json":
            problem("usage", error.format_message(), session)
        else:
            error.show()
        return 2 if isinstance(error, click.UsageError) else error.exit_code
    except NsaError as error:
        report(error, session)
        return 1
    except (KeyboardInterrupt, click.Abort):
        problem("interrupt", "interrupted", session)
        return 130
    except OSError as error:
        if error.filename is None:
            raise  # a stream's
        report(NsaError.at("NSA0708", f"the system refuses '{error.filename}': {error.strerror}"), session)
        return 1
    except Exception as error:  # noqa: BLE001
        if session.debug:
            import traceback

            traceback.print_exc()
        kind = f"{type(error).__name__}: {error}".splitlines()[0]
        problem("fault", f"this is a fault of nsalang, please report it (NSALANG_DEBUG=1 shows where): {kind}", session)
        return 70


def _wants_json(given: Sequence[str]) -> bool:
    """Whether ``--error-format json`` stands anywhere: click reads options only up to the first mistake, which is to be told as asked too."""
    words = list(itertools.takewhile(lambda word: word != "--", given))
    chosen = [
        v for word, after in itertools.pairwise([*words, ""]) if (v := after if word == "--error-format" else _value(word)) is not None
    ]
    return bool(chosen) and chosen[-1] == "json"


def _value(word: str) -> str | None:
    name, equals, value = word.partition("=")
    return value if equals and name == "--error-format" else None
