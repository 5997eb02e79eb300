"""How progress is shown: bars on a terminal, and at least one line every half minute in a log file."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from mneme.options.notebook import Track as Track
from mneme.options.notebook import in_notebook, share_told
from mneme.terminal import Terminal

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
        """A bar for every piece of work that is tracked inside, in a notebook too; on what is no terminal lines instead."""
        console = self.shown
        if console.is_jupyter:
            with in_notebook() as track:
                yield track
            return
        if not console.is_terminal:
            with _Lines(self).beating() as track:
                yield track
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


class _Lines:
    """Lines of a log: one where a piece of work begins, and one after every half minute, whether the work moved on or not."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.lock = threading.Lock()
        self.last = time.monotonic()
        self.state: Callable[[], str] | None = None

    @contextmanager
    def beating(self) -> Iterator[Track]:
        """`track`, while a thread watches that the log does not fall silent."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), daemon=True)
        thread.start()
        try:
            yield self.track
        finally:
            over.set()
            thread.join()

    def track(self, name: str, total: int | None) -> Callable[[int], None]:
        """Says the name, and gives the function that moves this piece of work on."""
        started, done = time.monotonic(), 0
        self._say(name)

        def state() -> str:
            return f"{name}: {share_told(done, total, time.monotonic() - started)}"

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            self.state = state
            self._say_late()

        self.state = state
        return advance

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(LINE_SECONDS / 10):
            self._say_late()

    def _say_late(self) -> None:
        with self.lock:
            if self.state is None or time.monotonic() - self.last < LINE_SECONDS:
                return
            line, self.last = self.state(), time.monotonic()
        self.progress.say(line)

    def _say(self, line: str) -> None:
        with self.lock:
            self.last = time.monotonic()
        self.progress.say(line)


def counted(count: int, one: str, many: str = "") -> str:
    """'1 tensor', '2 tensors', '1,200 texts'; `many` where the plural is not made with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
