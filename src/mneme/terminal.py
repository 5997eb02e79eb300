"""The one way in which mneme writes on a terminal with colours, tables and bars: text is text, whatever stands in it."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from mneme.plain import plain


class Terminal(Console):
    """A console for text of strangers: `[red]` and `[link=…]` are no markup, `:smile:` no emoji, control characters are shown.

    Strings are made plain before they are laid out; whatever still comes in a ready-made `Text` is made plain as it is drawn.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        """Options are those of rich's Console."""
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string, also one in a cell of a table, as plain text. `markup` and `emoji` asked for in passing are not given."""
        return super().render_str(plain(text, lines=True), **(options | {"markup": False, "emoji": False}))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is drawn: the console's own control codes as they are, every text plain, links left out."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
                continue
            style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
            yield Segment(plain(segment.text, lines=True), style)
