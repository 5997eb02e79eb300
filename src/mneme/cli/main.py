"""The program `mneme`: its commands, and how every failure ends.

Exit codes: 0 done · 1 `--fail-on` was reached · 2 an input cannot be used, one sentence on stderr · 130 stopped by Ctrl-C.
Nothing here imports torch; a command imports what it needs when it runs.
"""

import sys
from typing import Annotated, Any

import typer
from typer.rich_utils import rich_abort_error, rich_format_error

from mneme.cli import audit, bench, dpo, measure, organism, repair, report, screen, train, unlearn
from mneme.cli.saying import say
from mneme.errors import MnemeError
from mneme.plain import plain
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
    """Runs the program; a deliberate error is one sentence on stderr and exit code 2, never a traceback."""
    try:
        code = app(arguments, standalone_mode=False)
    except MnemeError as error:
        # Some list what there is, below each other and indented; a name with a line end in it cannot begin a line of its own.
        for line in f"mneme: {error}".replace("\n  ", "\0  ").split("\0"):
            say(line, err=True)
        sys.exit(2)
    except _UsageError as error:
        error.message = plain(error.message)  # it repeats what was typed: names of files among it
        rich_format_error(error)
        sys.exit(error.exit_code)
    except typer.Abort:
        rich_abort_error()
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
