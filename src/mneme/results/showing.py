"""Results in a notebook: a table of their main rows as HTML, and the same as a data frame. No style, no script."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mneme.errors import BadOption
from mneme.plain import plain
from mneme.results.record import Estimate, Record, TooFew

_MOST = 200
"""Rows that a notebook shows; the frame has all."""


def flat(record: Record, only: Sequence[str] = ()) -> dict[str, Any]:
    """The plain fields of a record (`only` these): of an estimate its value, `_low`, `_high`, `_unit` and `_n`; lists,
    mappings and records within it are left out."""
    row: dict[str, Any] = {}
    for name in only or type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, Estimate):
            row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
            row |= {f"{name}_unit": value.unit, f"{name}_n": value.n}
        elif isinstance(value, TooFew):
            row |= {
                name: value.value,
                f"{name}_low": None,
                f"{name}_high": None,
                f"{name}_unit": value.unit,
                f"{name}_n": value.n,
            }
        elif value is None or isinstance(value, str | int | float):
            row[name] = value
    return row


def frame_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A pandas data frame. Raises BadOption where pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise BadOption("A data frame needs pandas. Run: pip install 'mneme-audit[notebook]'.") from error
    return pandas.DataFrame(list(rows))


def table_html(headline: str, reason: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A headline, a sentence and a table; everything in them is text."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{_text(name.replace('_', ' '))}</th>" for name in names)
    lines = ["".join(f"<td>{_text(_shown(row.get(name)))}</td>" for name in names) for row in rows[:_MOST]]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    more = f"<p>{len(rows) - _MOST} more rows: to_frame() has all.</p>" if len(rows) > _MOST else ""
    return (
        f"<div><p><strong>{_text(headline)}</strong></p><p>{_text(reason)}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}</div>"
    )


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _text(value: str) -> str:
    return escape(plain(value))
