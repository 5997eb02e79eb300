"""What Ctrl-C says and how the program ends then."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mneme.cli.saying import say


@contextmanager
def stopped_with(message: str) -> Iterator[None]:
    """On Ctrl-C prints `message` to stderr and exits with 130, as a shell expects of an interrupted program."""
    try:
        yield
    except KeyboardInterrupt:
        say(err=True)
        say(f"mneme: stopped. {message}", err=True)
        raise typer.Exit(130) from None
