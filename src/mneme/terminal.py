"""The one way in which mneme writes on a terminal with colours, tables and bars: text is text, whatever stands in it."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mneme.plain import in_signs_of, plain

_GAP = 2
"""Blanks between two columns."""
_NAME_WIDTH = 24
"""Columns that a name gets before it is broken at a blank: the longest name of an area of the default list."""
_SHORTEST = 12
"""Columns of shortened text below which it says nothing, and the table is written as a list."""


class Terminal(Console):
    """A console for text of strangers: `[red]` and `[link=…]` are no markup, `:smile:` no emoji, control characters are shown.

    Strings are made plain before they are laid out; whatever still comes in a ready-made `Text` is made plain as it is drawn.
    Signs that the stream's encoding does not have are written with signs that it has.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        """Options are those of rich's Console."""
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string, also one in a cell of a table, as plain text. `markup` and `emoji` asked for in passing are not given."""
        shown = in_signs_of(plain(text, lines=True), self.encoding)
        return super().render_str(shown, **(options | {"markup": False, "emoji": False}))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is drawn: the console's own control codes as they are, every text plain, links left out."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
                continue
            style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
            yield Segment(in_signs_of(plain(segment.text, lines=True), self.encoding, same_width=True), style)


class Listing:
    """Rows of named cells: a table where it fits, else every row as a block of lines, so that no name is ever squeezed away.

    The first `names` columns say what a row is about. Those in `short` hold running text, of which the beginning will do.
    """

    def __init__(
        self, headings: Sequence[str], *, names: int = 1, left: Sequence[str] = (), short: Sequence[str] = ()
    ) -> None:
        """Columns are right-aligned but for names, shortened ones and those in `left`."""
        self.headings = list(headings)
        self.names = names
        self.left = {*self.headings[:names], *left, *short}
        self.short = set(short)
        self.rows: list[list[Text]] = []

    def add(self, *cells: str | Text) -> None:
        """One row, a cell for each heading."""
        made = [Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells]
        self.rows.append([Text(plain(cell.plain), style=cell.style) for cell in made])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        """The table, or the blocks."""
        widths = self._widths(options.max_width)
        if widths is not None:
            yield self._table(widths)
            return
        for row in self.rows:
            yield Text("  ", overflow="fold").join(row[: self.names])
            for heading, cell in zip(self.headings[self.names :], row[self.names :], strict=True):
                if cell.plain:
                    told = Text(f"{heading}: ", style="dim") if heading.strip() else Text()
                    told.append_text(cell)
                    if heading in self.short:
                        told.truncate(max(1, options.max_width - _GAP), overflow="ellipsis")
                    told.overflow = "fold"
                    yield Padding(told, (0, 0, 0, min(_GAP, options.max_width - 1)))

    def _widths(self, room: int) -> list[int] | None:
        """Columns as wide as their cells; where there is less `room`, names broken at blanks and running text shortened. None
        where that is not enough. Left to itself, rich takes the room from whatever may be broken, down to nothing."""
        whole = [self._whole(i) for i in range(len(self.headings))]
        widths = [self._least(i) for i in range(len(self.headings))]
        spare = room - sum(widths) - _GAP * (len(widths) - 1)
        if spare < 0:
            return None
        for i in sorted(range(len(widths)), key=lambda i: self.headings[i] in self.short):  # names first
            more = min(spare, whole[i] - widths[i])
            widths[i] += more
            spare -= more
        return widths

    def _whole(self, column: int) -> int:
        return max(map(cell_len, [self.headings[column], *(row[column].plain for row in self.rows)]))

    def _least(self, column: int) -> int:
        cells = [self.headings[column], *(row[column].plain for row in self.rows)]
        width = self._whole(column)
        if self.headings[column] in self.short:
            return min(width, _SHORTEST)
        if column < self.names:
            words = max((cell_len(word) for cell in cells for word in cell.split()), default=0)
            return max(min(width, _NAME_WIDTH), words)
        return width

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
        for i, heading in enumerate(self.headings):
            running = heading in self.short
            table.add_column(
                heading,
                justify="left" if heading in self.left else "right",
                no_wrap=running or i >= self.names,
                overflow="ellipsis" if running else "fold",
                width=widths[i],
                header_style="dim",
            )
        for row in self.rows:
            table.add_row(*row)
        return table
