"""How progress is shown: bars on a terminal, and at least one line every half minute in a log file."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from mneme.terminal import Terminal

Track = Callable[[str, int | None], Callable[[int], None]]
"""Starts a piece of work (name, amount or None) and gives the function that moves it on by an amount."""
LINE_SECONDS = 30.0
"""A log in which nothing happened for longer than this looks like a process that hangs."""


@dataclass(frozen=True)
class Progress:
    """Where a job says what it does: `Progress()` is stderr, `Progress(Console(file=…))` any other rich console.

    ```python
    mneme.audit(base, tuned, corpus="text.txt", progress=mneme.Progress(Console(quiet=True)))
    ```
    """

    console: Console | None = None

    @property
    def shown(self) -> Console:
        """The console itself."""
        return self.console if self.console is not None else Terminal(stderr=True)

    def say(self, text: str) -> None:
        """One line, as it is: nothing in it is markup."""
        self.shown.print(text, markup=False, highlight=False)

    def say_all(self, lines: Iterable[str]) -> None:
        """Every line once."""
        for line in dict.fromkeys(lines):
            self.say(line)

    @contextmanager
    def bars(self) -> Iterator[Track]:
        """A bar for every piece of work that is tracked inside; on what is no terminal lines instead."""
        console = self.shown
        if not console.is_terminal:
            yield lambda name, total: _lines(self, name, total)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns: tuple[Any, ...] = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=console, transient=True) as bars:

            def track(name: str, total: int | None) -> Callable[[int], None]:
                task = bars.add_task(name, total=total)
                return lambda amount: bars.update(task, advance=amount)

            yield track


def _lines(progress: Progress, name: str, total: int | None) -> Callable[[int], None]:
    progress.say(name)
    started = last = time.monotonic()
    done = 0

    def advance(amount: int) -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            progress.say(f"{name}: {share_told(done, total, now - started)}")

    return advance


def share_told(done: int, total: int | None, seconds: float) -> str:
    """'40 %, about 90 s left' of `done` out of `total` after `seconds`; the amount alone where the total is not known."""
    if not total or not done:
        return f"{done:,}"
    left = seconds * (total - done) / done
    return f"{done / total:.0%}, about {left:,.0f} s left"
