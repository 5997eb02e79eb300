"""`mneme card`: the section, the metadata and the badge of a finished audit, beside it or put into a model card."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

from mneme.card.badge import badge
from mneme.card.options import CardOptions
from mneme.card.section import card_metadata, card_section, with_metadata, with_section
from mneme.errors import BadOption, one_line
from mneme.options import taking
from mneme.report.reading import read_report
from mneme.runs import add_files, clear_halves, write_atomic
from mneme.text.yaml_files import read_yaml

_LARGEST = 10_000_000
"""Bytes of a model card that is mended."""


@dataclass(frozen=True)
class Card:
    """What was written."""

    section: str
    metadata: dict[str, Any]
    badge: str

    def to_markdown(self) -> str:
        """A card of its own: the metadata, then the section."""
        return f"---\n{_yaml(self.metadata)}---\n\n{self.section}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the badge and the section as text."""
        return f"<div>{self.badge}<pre>{escape(self.section)}</pre></div>"


def run_card(options: CardOptions) -> Card:
    """The model-card section of the finished audit in `run`, its metadata, and a badge: `out` gets card.md and badge.svg.

    `into`: a README.md whose section and metadata of an earlier audit are replaced; everything else in it stays, though the
    head is written anew.

    Errors: BadRun where there is no report, BadOption where `into` is no model card.
    """
    report = read_report(options.run)
    made = Card(card_section(report), card_metadata(report), badge(report))
    mended = None if options.into is None else mended_card(Path(options.into), made)
    run = Path(options.run)
    out = Path(options.out) if options.out is not None else (run if run.is_dir() else run.parent)
    add_files(out, {"card.md": made.to_markdown().encode("utf-8", "backslashreplace"), "badge.svg": made.badge.encode()})
    if options.into is not None and mended is not None:
        content = mended.encode("utf-8", "backslashreplace")
        clear_halves(Path(options.into), content)
        write_atomic(Path(options.into), content)
    return made


card = taking(CardOptions, run_card)


def mended_card(path: Path, made: Card) -> str:
    """The content of the model card at `path` with ours in it. Raises BadOption for what is no card."""
    there = path.is_symlink() or path.exists()
    fits = path.is_file() and path.stat().st_size <= _LARGEST if there else path.absolute().parent.is_dir()
    if not fits:
        raise BadOption(f"--into {path} is no model card. Name a README.md, or one that is to be written into a folder.")
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise BadOption(f"--into {path} is not UTF-8 text. Name a README.md.") from error
    head, body = _split(text, path)
    return f"---\n{_yaml(with_metadata(head, made.metadata))}---\n\n{with_section(body, made.section).lstrip()}"


def _split(text: str, path: Path) -> tuple[dict[str, Any], str]:
    text = text.replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return {}, text
    head, mark, body = text[4:].partition("\n---\n")
    if not mark:
        raise BadOption(f"--into {path} has a head that does not end: expected a second line of three hyphens.")
    try:
        found = read_yaml(head)
    except yaml.YAMLError as error:
        raise BadOption(f"--into {path} has a head that is not YAML ({one_line(error)}). Mend it and try again.") from error
    if found is not None and not isinstance(found, dict):
        raise BadOption(f"--into {path} has a head that is no mapping. Expected keys such as `license:`.")
    return found or {}, body


def _yaml(metadata: dict[str, Any]) -> str:
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=100)
