"""The program `mneme`: its commands, and how every failure ends.

Exit codes: 0 done, or whoever read stdout has enough · 1 the gate said no · 2 an input or option cannot be used, one sentence
on stderr · 3 not enough evidence for the gate · 70 a fault of mneme itself, with the place of the traceback · 130 Ctrl-C.
Nothing here imports torch; a command imports what it needs when it runs.
"""

import os
import select
import sys
from typing import Annotated, Any, NoReturn, TextIO

import typer

from mneme.cli import (
    audit,
    bench,
    card,
    compare,
    compare_logs,
    dpo,
    gate,
    measure,
    organism,
    repair,
    report,
    screen,
    train,
    unlearn,
    verify,
)
from mneme.cli.endings import DONE, FAULT, STOPPED, UNUSABLE, keep_account, sentence_of
from mneme.cli.importing import quiet_libraries
from mneme.cli.saying import say
from mneme.version import __version__

_UsageError: Any = typer.BadParameter.__mro__[2]
"""What the parser raises for every wrong use (click's ClickException, which typer keeps to itself)."""

app = typer.Typer(
    name="mneme",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tells what a fine-tune did to a language model beyond its purpose, from the two models and ordinary text.",
)
app.command("audit")(audit.audit)
app.command("gate")(gate.gate)
app.command("verify")(verify.verify)
app.command("card")(card.card)
app.command("compare")(compare.compare)
app.command("compare-logs")(compare_logs.compare_logs)
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
    code: object = DONE
    try:
        with quiet_libraries():
            code = app(arguments, standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe can still be told from a fault
    except _UsageError as error:
        _refuse(f"{_sentence(error.format_message())} See: {_help_of(error)}")
        sys.exit(UNUSABLE)
    except (typer.Abort, KeyboardInterrupt):
        say("mneme: stopped before anything was written.", err=True)
        sys.exit(STOPPED)
    except SystemExit as stop:
        # rich ends with 1 where its console's pipe is closed, which here would mean that the gate said no.
        if isinstance(stop.__context__, BrokenPipeError):
            # Progress went nowhere, and the run stopped with it
            _end_quietly(FAULT if _reader_is_gone(sys.stderr) else DONE)
        raise
    except Exception as error:  # noqa: BLE001 - the one place where a fault of ours becomes a sentence
        if (sentence := sentence_of(error)) is not None:
            _refuse(sentence)
            _forget_stdout()
            sys.exit(UNUSABLE)
        file = keep_account(error)
        say(f"mneme: a fault of mneme itself ({type(error).__name__}). Its whole account is in {file}.", err=True)
        sys.exit(FAULT)
    sys.exit(code if isinstance(code, int) else DONE)


def _refuse(sentence: str) -> None:
    """`sentence` on stderr. Some list what there is, below each other and indented; a name with a line end in it cannot begin
    a line of its own."""
    for line in f"mneme: {sentence}".replace("\n  ", "\0  ").split("\0"):
        say(line, err=True)


def _sentence(message: str) -> str:
    """What the parser says, as one sentence on one line."""
    words = " ".join(message.split())
    return words if words.endswith((".", "?", "!")) else f"{words}."


def _help_of(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context is not None else 'mneme'} --help"


def _forget_stdout() -> None:
    """Where stdout takes nothing more (a full disk), what is still to be written goes nowhere: Python would try again at the
    end, and end with a traceback."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
