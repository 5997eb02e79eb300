"""How a command prints a line or a result: names of strangers cannot drive the terminal, the data of JSON stay the same."""

from typing import Annotated

import typer

from mneme.plain import plain, plain_json

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON to stdout; everything else goes to stderr.")]
"""The option that every command with a result has."""


def say(text: str = "", *, err: bool = False) -> None:
    """One line to stdout, with `err` to stderr: whatever stands in it, it stays one line of visible characters."""
    typer.echo(plain(text), err=err)


def say_json(text: str) -> None:
    """JSON to stdout as it is, but for characters that drive a terminal: they are written as `\\u` escapes."""
    typer.echo(plain_json(text), nl=False)
