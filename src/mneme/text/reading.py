"""The one reader of rows: a file, or rows given in Python, in one form, with what was read of them and what could not be.

Of a large file a few rows are always bad: up to `MOST_SKIPPED` of them are left out, counted, said, and listed in the run
folder; above that the file is refused with the first of them. Ours.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mneme.errors import BadRows
from mneme.text.files import Entry, Row, entries_of
from mneme.text.shapes import Shaped, Shaping

LOG = logging.getLogger("mneme")
MOST_SKIPPED = 0.01
"""Share of a file's rows that may be unusable. So few rows cannot carry a result, and a file with more of them is usually read
wrongly. A round number that was never varied."""
SKIPPED_ROWS = "skipped-rows.jsonl"
"""Where a run lists the rows that it left out: {"source", "place", "reason"} a line."""


@dataclass(frozen=True)
class SkippedRow:
    """A row that was left out, and why."""

    place: str
    reason: str


@runtime_checkable
class Skipping(Protocol):
    """What was read, and what of it was left out."""

    @property
    def source(self) -> str:
        """Where it was read."""

    @property
    def skipped(self) -> tuple[SkippedRow, ...]:
        """What was left out."""


@dataclass(frozen=True)
class TakenRows:
    """Rows in one form, the same as they were given, and how they were read."""

    source: str
    rows: list[Row]
    originals: list[Row] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """Where each row stands, "line 3" or "row 7"."""
    shape: str = ""
    """What the rows are, in words; several where a file mixes them."""
    columns: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """Columns that were not read."""
    skipped: tuple[SkippedRow, ...] = ()

    def without(self, bad: Mapping[int, str]) -> "TakenRows":
        """Without the rows of these indices, which are skipped for a reason. Raises BadRows where that makes too many."""
        if not bad:
            return self
        skipped = (*self.skipped, *(SkippedRow(self.places[i], reason) for i, reason in bad.items()))
        keep = [i for i in range(len(self.rows)) if i not in bad]
        _require_few(self.source, skipped, len(keep))
        return replace(
            self,
            rows=[self.rows[i] for i in keep],
            originals=[self.originals[i] for i in keep],
            places=[self.places[i] for i in keep],
            skipped=skipped,
        )

    def told(self) -> str:
        """What was read, in a sentence."""
        left = f"; not read: {', '.join(self.left)}" if self.left else ""
        lost = f"; {len(self.skipped)} bad skipped, the first at {self.skipped[0].place}" if self.skipped else ""
        return f"{self.source}: {len(self.rows):,} rows as {self.shape} ({', '.join(self.columns)}){left}{lost}."


def read_shaped(source: str | Path | Sequence[Mapping[str, Any]], shaping: Shaping, name: str) -> TakenRows:
    """The rows of a file, or those given, as `shaping` reads them. `name`: what rows that are no file are called.

    Raises BadRows: no file, no row, more bad rows than may be skipped, or rows of several forms.
    """
    if isinstance(source, str | Path):
        found = taken(str(source), entries_of(Path(source)), shaping)
    else:
        entries = (Entry(f"row {number}", dict(row)) for number, row in enumerate(source, 1))
        found = taken(name, entries, shaping)
    return one_form(found)


def taken(source: str, entries: Iterable[Entry], shaping: Shaping) -> TakenRows:
    """Every entry as `shaping` reads it, whatever mixture of forms. Raises BadRows where none or too few can be."""
    rows, originals, places = [], [], []
    skipped: list[SkippedRow] = []
    shapes: Counter[str] = Counter()
    columns: dict[str, None] = {}
    there: dict[str, None] = {}
    for entry in entries:
        shaped = _shaped(entry, shaping, skipped)
        if shaped is None or entry.row is None:
            continue
        rows.append(shaped.row)
        originals.append(entry.row)
        places.append(entry.place)
        shapes[shaped.shape] += 1
        columns |= dict.fromkeys(shaped.columns)
        there |= dict.fromkeys(map(str, entry.row))
    if not rows and not skipped:
        raise BadRows(f"{source}: no row was given. Give at least one.")
    _require_few(source, skipped, len(rows))
    left = tuple(column for column in there if column not in columns)
    shape = " and ".join(name for name, _ in shapes.most_common())
    return TakenRows(
        source=source,
        rows=rows,
        originals=originals,
        places=places,
        shape=shape,
        columns=tuple(columns),
        left=left,
        skipped=tuple(skipped),
    )


def one_form(found: TakenRows) -> TakenRows:
    """`found` without the few rows of another form than most. Raises BadRows where they are not few."""
    forms = [form_named(row) for row in found.rows]
    usual = Counter(forms).most_common(1)[0][0]
    other = {
        i: f"is of another form ({form}) than most rows ({usual}). Give all rows in one form"
        for i, form in enumerate(forms)
        if form != usual
    }
    return found.without(other)


def form_named(row: Row) -> str:
    """The form of a row, in words: conversations and texts cannot be trained on together."""
    if "messages" in row:
        return "messages"
    part = row.get("prompt")
    if part is None:
        return "text" if "text" in row else "questions"
    return "texts" if isinstance(part, str) else "messages"


def skipped_rows(*found: Skipping | None) -> dict[str, bytes]:
    """The file that lists what was skipped, by its name; none where nothing was."""
    lines = [
        json.dumps({"source": one.source, "place": row.place, "reason": row.reason}, ensure_ascii=False)
        for one in found
        if one is not None
        for row in one.skipped
    ]
    return {SKIPPED_ROWS: "".join(f"{line}\n" for line in lines).encode()} if lines else {}


def _shaped(entry: Entry, shaping: Shaping, skipped: list[SkippedRow]) -> Shaped | None:
    if entry.row is None:
        skipped.append(SkippedRow(entry.place, entry.fault))
        return None
    try:
        return shaping(entry.row)
    except BadRows as error:
        skipped.append(SkippedRow(entry.place, str(error)))
        return None


def _require_few(source: str, skipped: Sequence[SkippedRow], kept: int) -> None:
    if len(skipped) <= MOST_SKIPPED * (len(skipped) + kept):
        return
    first = skipped[0]
    total = len(skipped) + kept
    more = (
        f" {len(skipped):,} of {total:,} rows cannot be used; at most {MOST_SKIPPED:.0%} may be skipped." if total > 1 else ""
    )
    raise BadRows(f"{source}, {first.place}: {first.reason}.{more}")
