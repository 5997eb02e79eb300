"""How a command prints a line or a result: names of strangers cannot drive the terminal, the data of JSON stay the same."""

import sys
from typing import Annotated

import typer

from mneme.plain import in_signs_of, plain, plain_json

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON to stdout; everything else goes to stderr.")]
"""The option that every command with a result has."""


def say(text: str = "", *, err: bool = False) -> None:
    """One line to stdout, with `err` to stderr: whatever stands in it, it stays one line of visible characters."""
    typer.echo(in_signs_of(plain(text), _encoding(err=err)), err=err)


def say_json(text: str) -> None:
    """JSON to stdout as it is, but for characters that drive a terminal or that stdout lacks: those as `\\u` escapes."""
    typer.echo(plain_json(text, _encoding(err=False)), nl=False)


def _encoding(*, err: bool) -> str:
    return getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
