"""What every command that writes a run folder shares: how Ctrl-C ends it, and what `--overwrite` means."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mneme.cli.saying import say

OVERWRITE = "Remove another finished run from --out (only files that mneme wrote), and work beside files of others."
"""Help of `--overwrite`, the same for every command."""


@contextmanager
def stopped_with(message: str) -> Iterator[None]:
    """On Ctrl-C prints `message` to stderr and exits with 130, as a shell expects of an interrupted program."""
    try:
        yield
    except KeyboardInterrupt:
        say(err=True)
        say(f"mneme: stopped. {message}", err=True)
        raise typer.Exit(130) from None
