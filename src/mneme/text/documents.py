"""Ordinary text as documents: read from a file or from a dataset."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadCorpus, TemplateRefuses, one_line
from mneme.text.chat import render_messages

_BATCH = 512


@dataclass(frozen=True)
class Documents:
    """Texts in the order of their source; `sha256` is over the texts, so that the same text has the same hash anywhere."""

    texts: tuple[str, ...]
    source: str
    sha256: str
    beside: tuple[str, ...] = ()
    """Passages of the same source that no model reads: they help to tell what the others are about."""


def read_corpus(
    source: str | Path,
    *,
    max_documents: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Documents:
    """Read text: `.txt` (a document a line; paragraphs where blank lines separate them), `.jsonl` or `.parquet` with `text` or
    `messages`, or the name of a dataset of the `datasets` library (its train split; needs `mneme-audit[datasets]`).

    Conversations are written with the tokenizer's chat template where it has one, else as "role: content" lines.
    Raises BadCorpus: missing, empty, binary, not UTF-8 (with the byte), lines without text (with the line).
    """
    path = Path(source)
    if path.is_dir():
        raise BadCorpus(f"{path} is a folder. Give a .txt, .jsonl or .parquet file, or the name of a dataset.")
    if path.is_file():
        texts = _of_file(path, tokenizer)
    elif path.suffix in {".txt", ".jsonl", ".json", ".parquet"} or path.is_absolute():
        raise BadCorpus(f"{path} does not exist. Give a .txt, .jsonl or .parquet file, or the name of a dataset.")
    else:
        texts = _of_dataset(str(source), tokenizer)
    kept = []
    for text in texts:
        if text.strip():
            kept.append(_whole_characters(text.strip()))
        if max_documents is not None and len(kept) == max_documents:
            break
    if not kept:
        raise BadCorpus(f"{source} holds no text at all. Give ordinary text, at least a few thousand words.")
    digest = hashlib.sha256()
    for text in kept:
        digest.update(text.encode())
        digest.update(b"\0")
    return Documents(tuple(kept), str(source), digest.hexdigest())


def _whole_characters(text: str) -> str:
    """The same string, or "?" for each half of a character that JSON can escape and UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _of_file(path: Path, tokenizer: PreTrainedTokenizerBase | None) -> Iterable[str]:
    if path.stat().st_size == 0:
        raise BadCorpus(f"{path} is empty. Give ordinary text, at least a few thousand words.")
    if path.suffix == ".parquet":
        return _of_parquet(path, tokenizer)
    text = _decoded(path)
    if path.suffix in {".jsonl", ".json"}:
        return _of_jsonl(path, text, tokenizer)
    if re.search(r"\S[ \t]*\n[ \t]*\n\s*\S", text):
        return re.split(r"\n[ \t]*\n", text)
    return text.splitlines()


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    if b"\0" in raw[:65536]:
        raise BadCorpus(
            f"{path} is binary (a zero byte at {raw.index(0)}) or UTF-16. Give a UTF-8 .txt or .jsonl, or a .parquet file."
        )
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadCorpus(
            f"{path} is not UTF-8: byte {raw[error.start]:#04x} at offset {error.start}. "
            f"Convert it, for instance with: iconv -f latin1 -t utf-8 {path.name}"
        ) from error


def _of_jsonl(path: Path, text: str, tokenizer: PreTrainedTokenizerBase | None) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadCorpus(
                f"{path}, line {number}: not JSON ({one_line(error)}). "
                "Each line has to be one object with `text` or `messages`."
            ) from error
        yield _text_of(record, f"{path}, line {number}", tokenizer)


def _of_parquet(path: Path, tokenizer: PreTrainedTokenizerBase | None) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise BadCorpus(
            f"{path} is not a readable parquet file ({one_line(error)}). Write it again, or give .txt or .jsonl."
        ) from error
    names = [name for name in ("text", "messages") if name in file.schema_arrow.names]
    if not names:
        raise BadCorpus(f"{path} has the columns {file.schema_arrow.names}, but neither `text` nor `messages`. Rename one.")
    row = 0
    for batch in file.iter_batches(batch_size=_BATCH, columns=names[:1]):
        for record in batch.to_pylist():
            row += 1
            yield _text_of(record, f"{path}, row {row}", tokenizer)


def _of_dataset(name: str, tokenizer: PreTrainedTokenizerBase | None) -> Iterator[str]:
    try:
        import datasets
    except ImportError as error:
        raise BadCorpus(
            f"{name} is no file, and to read it as a dataset the `datasets` library is needed: "
            "pip install 'mneme-audit[datasets]', or give a .txt, .jsonl or .parquet file."
        ) from error
    try:
        rows = datasets.load_dataset(name, split="train", streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadCorpus(
            f"{name} is neither a file here nor a dataset that can be reached with a train split ({one_line(error)}). "
            "Give a .txt, .jsonl or .parquet file, or check the name and the network."
        ) from error
    for number, record in enumerate(rows, 1):
        yield _text_of(record, f"{name}, row {number}", tokenizer)


def _text_of(record: Any, where: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
    if isinstance(record, dict):
        if isinstance(record.get("text"), str):
            return str(record["text"])
        messages = record.get("messages")
        if isinstance(messages, list) and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
        ):
            try:
                return render_messages(messages, tokenizer)
            except TemplateRefuses as error:
                raise BadCorpus(
                    f"{where}: the tokenizer's chat template refuses this conversation ({one_line(error)}). "
                    "Change the order of its roles, or give it as `text`."
                ) from error
    keys = sorted(record) if isinstance(record, dict) else type(record).__name__
    raise BadCorpus(
        f"{where}: neither `text` (a string) nor `messages` (a list of role and content), but {keys}. "
        "Rename the field, or leave the line out."
    )
