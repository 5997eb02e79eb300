"""Ordinary text as documents: read from a file or from a dataset."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadCorpus, BadRows, TemplateRefuses, one_line
from mneme.text.chat import render_messages
from mneme.text.files import TABLES, Entry, Row, entries_of, split_lines, text_of
from mneme.text.reading import SkippedRow, TakenRows, taken
from mneme.text.shapes import TEXT_COLUMNS, text_row
from mneme.text.templates import template_facts

_KINDS = "a .txt, .jsonl, .json, .parquet, .csv or .tsv file, or the name of a dataset"


@dataclass(frozen=True)
class Documents:
    """Texts in the order of their source; `sha256` is over the texts, so that the same text has the same hash anywhere."""

    texts: tuple[str, ...]
    source: str
    sha256: str
    beside: tuple[str, ...] = ()
    """Passages of the same source that no model reads: they help to tell what the others are about."""
    notes: tuple[str, ...] = ()
    """Which columns were taken, and what a chat template did with them, a sentence each; nothing of plain text."""
    skipped: tuple[SkippedRow, ...] = ()


def read_corpus(
    source: str | Path,
    *,
    max_documents: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Documents:
    """Read text: a plain file (a document a line; paragraphs where blank lines separate them), rows (`text/shapes.py`) in JSON
    lines, a JSON array, Parquet or CSV, or the name of a dataset of the `datasets` library (its train split; needs
    `mneme-audit[datasets]`).

    Conversations are written with the tokenizer's chat template where it has one, else as "role: content" lines.
    Raises BadCorpus: missing, empty, binary, in no encoding that is read (with the byte), too many rows without text (with the
    first of them).
    """
    path = Path(source)
    if path.is_dir():
        raise BadCorpus(f"{path} is a folder. Give {_KINDS}.")
    found: TakenRows | None = None
    notes: tuple[str, ...] = ()
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise BadCorpus(f"{path} is empty. Give ordinary text, at least a few thousand words.")
        if path.is_file() and path.suffix not in TABLES:
            texts = _plain_texts(path)
        else:
            found, texts, notes = _written(taken(str(source), _entries(source), text_row), tokenizer)
    except BadRows as error:
        raise BadCorpus(str(error)) from error
    kept = [_whole_characters(text.strip()) for text in texts if text.strip()][:max_documents]
    if not kept:
        raise BadCorpus(f"{source} holds no text at all. Give ordinary text, at least a few thousand words.")
    digest = hashlib.sha256()
    for text in kept:
        digest.update(text.encode())
        digest.update(b"\0")
    skipped = found.skipped if found is not None else ()
    return Documents(tuple(kept), str(source), digest.hexdigest(), notes=notes, skipped=skipped)


def row_text(row: Row, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """A row in one form as the text that a model reads. Raises TemplateRefuses."""
    if "text" in row:
        return str(row["text"])
    if "messages" in row:
        return render_messages(row["messages"], tokenizer, row.get("tools"))
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str):
        return f"{prompt}{completion}"
    return render_messages([*prompt, *completion], tokenizer, row.get("tools"))


def _written(found: TakenRows, tokenizer: PreTrainedTokenizerBase | None) -> tuple[TakenRows, list[str], tuple[str, ...]]:
    """The rows that can be written as text, these texts, and sentences about both."""
    texts, bad = [], {}
    for i, row in enumerate(found.rows):
        try:
            texts.append(row_text(row, tokenizer))
        except TemplateRefuses as error:
            bad[i] = (
                f"the tokenizer's chat template refuses this conversation ({one_line(error)}) "
                "Change the order of its roles, or give it as `text`"
            )
    found = found.without(bad)
    facts = template_facts(tokenizer, found.rows) if tokenizer is not None else ()
    return found, texts, (found.told(), *facts)


def _entries(source: str | Path) -> Iterator[Entry]:
    path = Path(source)
    if path.is_file():
        return entries_of(path, TEXT_COLUMNS)
    if path.suffix in (*TABLES, ".txt") or path.is_absolute():
        raise BadCorpus(f"{path} does not exist. Give {_KINDS}.")
    return _of_dataset(str(source))


def _plain_texts(path: Path) -> list[str]:
    text = "\n".join(split_lines(text_of(path)))
    return re.split(r"\n[ \t]*\n", text) if re.search(r"\S[ \t]*\n[ \t]*\n\s*\S", text) else text.split("\n")


def _of_dataset(name: str) -> Iterator[Entry]:
    try:
        import datasets
    except ImportError as error:
        raise BadCorpus(
            f"{name} is no file, and to read it as a dataset the `datasets` library is needed: "
            "pip install 'mneme-audit[datasets]', or give a .txt, .jsonl, .parquet or .csv file."
        ) from error
    try:
        rows = datasets.load_dataset(name, split="train", streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadCorpus(
            f"{name} is neither a file here nor a dataset that can be reached with a train split ({one_line(error)}). "
            "Give a .txt, .jsonl, .parquet or .csv file, or check the name and the network."
        ) from error
    return (Entry(f"row {number}", dict(record)) for number, record in enumerate(rows, 1))


def _whole_characters(text: str) -> str:
    """The same string, or "?" for each half of a character that JSON can escape and UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
