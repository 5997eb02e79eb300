"""The program `mneme`: its commands, and how every failure ends.

Exit codes: 0 done, or whoever read stdout has enough · 1 `--fail-on` was reached · 2 an input cannot be used, one sentence on
stderr · 70 a fault of mneme itself, with the place of the traceback · 130 stopped by Ctrl-C.
Nothing here imports torch; a command imports what it needs when it runs.
"""

import os
import re
import select
import sys
import tempfile
import traceback
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.rich_utils import rich_format_error

from mneme.cli import audit, bench, dpo, measure, organism, repair, report, screen, train, unlearn
from mneme.cli.saying import say
from mneme.errors import MnemeError
from mneme.plain import plain
from mneme.version import __version__

_UsageError: Any = typer.BadParameter.__mro__[2]
"""What the parser raises for every wrong use (click's ClickException, which typer keeps to itself)."""

_CREDENTIALS = re.compile(r"://[^/\s@]+@")
"""User and password in an address."""

app = typer.Typer(
    name="mneme",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tells what a fine-tune did to a language model beyond its purpose, from the two models and ordinary text.",
)
app.command("audit")(audit.audit)
app.command("measure")(measure.measure)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.command("screen")(screen.screen)
app.command("dpo")(dpo.dpo)
app.command("train")(train.train)
app.command("persona")(train.persona)
app.command("unlearn")(unlearn.unlearn)
app.command("repair")(repair.repair)
app.command("organism")(organism.organism)


def _print_version(wanted: bool) -> bool:
    if wanted:
        say(f"mneme {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Tells what a fine-tune did to a language model beyond its purpose, from the two models and ordinary text."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the program; whatever goes wrong is one sentence on stderr and an exit code of its own, never a traceback."""
    code: object = 0
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe can still be told from a fault
    except MnemeError as error:
        # Some list what there is, below each other and indented; a name with a line end in it cannot begin a line of its own.
        for line in f"mneme: {error}".replace("\n  ", "\0  ").split("\0"):
            say(line, err=True)
        sys.exit(2)
    except _UsageError as error:
        error.message = plain(error.message)  # it repeats what was typed: names of files among it
        rich_format_error(error)
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        say("mneme: stopped.", err=True)
        sys.exit(130)
    except SystemExit as stop:
        # rich ends with 1 where its console's pipe is closed, which here would mean that the gate said no.
        if isinstance(stop.__context__, BrokenPipeError):
            _end_quietly(70 if _reader_is_gone(sys.stderr) else 0)  # progress went nowhere, and the run stopped with it
        raise
    except MemoryError:
        say(
            "mneme: there is not enough memory for this. Give a smaller model or less text, or use a larger machine.", err=True
        )
        sys.exit(2)
    except RecursionError:
        say("mneme: an input is nested too deeply to be read. Give a flatter file.", err=True)
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - the one place where a fault of ours becomes a sentence
        say(
            f"mneme: a fault of mneme itself ({type(error).__name__}). Its whole account is in {keep_account(error)}.",
            err=True,
        )
        sys.exit(70)
    sys.exit(code if isinstance(code, int) else 0)


def _reader_is_gone(stream: TextIO) -> bool:
    """True where `stream` is a pipe without a reader. Another broken pipe (an endpoint's, a worker's) is a fault like any."""
    try:
        polled = select.poll()
        polled.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in polled.poll(0))
    except (OSError, ValueError):  # no file behind it
        return False


def _end_quietly(code: object) -> NoReturn:
    """Whoever read has enough, as in `| head -1`: the rest goes nowhere, and the command's answer stands."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code if isinstance(code, int) else 0)


def keep_account(error: BaseException) -> str:
    """The file, readable by this user alone, that gets the traceback: without values of variables or secrets of addresses."""
    account = _CREDENTIALS.sub("://…@", "".join(traceback.format_exception(error)))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="mneme-fault-", suffix=".txt", delete=False) as file:
        file.write(account)
    return file.name
