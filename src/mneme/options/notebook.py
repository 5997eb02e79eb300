"""Progress in a notebook: one output that is written over, with a bar for every piece of work, and no widget to install."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from importlib import import_module
from typing import Any

Track = Callable[[str, int | None], Callable[[int], None]]
"""Starts a piece of work (name, amount or None) and gives the function that moves it on by an amount."""
_SHOWN_EVERY = 0.25
"""Seconds between two writings of the output: as often as an eye follows, and few enough for the front end."""


def _ipython_display(*data: Any, **named: Any) -> Any:
    """IPython's, which is there wherever a notebook is."""
    return import_module("IPython.display").display(*data, **named)


@contextmanager
def in_notebook(
    display: Callable[..., Any] = _ipython_display, clock: Callable[[], float] = time.monotonic
) -> Iterator[Track]:
    """`track` for pieces of work whose bars stand under the cell while the `with` runs, and are gone afterwards. `display`:
    IPython's, or one like it (data, raw, display_id)."""
    bars = _Bars(display, clock)
    try:
        yield bars.track
    finally:
        bars.close()


class _Bars:
    def __init__(self, display: Callable[..., Any], clock: Callable[[], float]) -> None:
        self.clock, self.last = clock, clock()
        self.pieces: list[tuple[str, int, int | None, float]] = []
        self.handle = display(_nothing(), raw=True, display_id=True)

    def track(self, name: str, total: int | None) -> Callable[[int], None]:
        """A bar more."""
        place = len(self.pieces)
        self.pieces.append((name, 0, total, self.clock()))
        self.show()

        def advance(amount: int) -> None:
            name, done, total, started = self.pieces[place]
            self.pieces[place] = (name, done + amount, total, started)
            if self.clock() - self.last >= _SHOWN_EVERY or (total is not None and done + amount >= total):
                self.show()

        return advance

    def show(self) -> None:
        """Write the output over."""
        self.last = self.clock()
        told = [(name, done, total, share_told(done, total, self.last - since)) for name, done, total, since in self.pieces]
        lines = "".join(_row(*one) for one in told)
        plain = "\n".join(f"{name}: {share}" for name, _, _, share in told)
        self._update({"text/html": f"<table>{lines}</table>", "text/plain": plain})

    def close(self) -> None:
        """Nothing is left under the cell."""
        self._update(_nothing())

    def _update(self, data: dict[str, str]) -> None:
        if self.handle is not None:  # outside a kernel there is no output to write over
            self.handle.update(data, raw=True)


def _row(name: str, done: int, total: int | None, told: str) -> str:
    bar = f'<progress value="{done}" max="{total}">{told}</progress>' if total else "<progress></progress>"
    return f"<tr><td>{escape(name)}</td><td>{bar}</td><td>{told}</td></tr>"


def _nothing() -> dict[str, str]:
    return {"text/html": "", "text/plain": ""}


def share_told(done: int, total: int | None, seconds: float) -> str:
    """'40 %, about 90 s left' of `done` out of `total` after `seconds`; the amount alone where the total is not known."""
    if not total or not done:
        return f"{done:,}"
    left = seconds * (total - done) / done
    return f"{done / total:.0%}, about {left:,.0f} s left"
