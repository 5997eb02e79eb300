"""Ordinary text for an audit: read from a file or a dataset, then packed into rows without padding."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadCorpus, BadOption
from mneme.models.chat import render_messages
from mneme.models.checkpoints import one_line

PASSAGE_TOKENS = 128
"""A passage, the unit of area matching and of the bootstrap, has at most so many tokens."""

_BATCH = 512


@dataclass(frozen=True)
class Documents:
    """Texts in the order of their source; `sha256` is over the texts, so that the same text has the same hash anywhere."""

    texts: tuple[str, ...]
    source: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of one document: `start_token` is the place of its first token in the packed rows, read row by row."""

    text: str
    document: int
    start_token: int


@dataclass(frozen=True)
class Rows:
    """Packed token ids (32 bits, half the memory), and the passage (index into `passages`) that every token belongs to."""

    ids: Int[Tensor, "row seq"]
    passage: Int[Tensor, "row seq"]
    passages: tuple[Passage, ...]


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


def pack_rows(
    documents: Documents,
    tokenizer: PreTrainedTokenizerBase,
    row_length: int,
    max_tokens: int | None = None,
) -> Rows:
    """Documents one after another, with the special tokens that the tokenizer itself puts around a text, cut into rows of
    `row_length` tokens without padding; what does not fill the last row is dropped.

    Deterministic. Raises BadCorpus where there is not one full row, BadOption where `max_tokens` is less than one.
    """
    if row_length < 2 or (max_tokens is not None and max_tokens < row_length):
        raise BadOption(f"{max_tokens} tokens in rows of {row_length}: give at least one row of at least 2 tokens.")
    ids: list[np.ndarray] = []  # arrays and not lists: a Python number takes 36 bytes
    passages: list[Passage] = []
    n = 0
    for document, (tokens, text, offsets) in enumerate(_tokenised(documents.texts, tokenizer)):
        for start, end in _cuts(len(tokens)):
            piece = text[offsets[start][0] : offsets[end - 1][1]] if offsets else tokenizer.decode(tokens[start:end])
            passages.append(Passage(piece.strip(), document, n + start))
        ids.append(np.array(tokens, dtype=np.int32))
        n += len(tokens)
        if max_tokens is not None and n >= max_tokens:
            break
    n_rows = min(n, max_tokens or n) // row_length
    if n_rows == 0:
        raise BadCorpus(
            f"{documents.source} has {n} tokens in {len(documents.texts)} documents, less than one row of "
            f"{row_length}. Give more text, or a shorter row."
        )
    kept = n_rows * row_length
    passages = [passage for passage in passages if passage.start_token < kept]
    starts = np.array([passage.start_token for passage in passages] + [kept])
    owners = np.repeat(np.arange(len(passages), dtype=np.int32), np.diff(starts))
    packed = torch.from_numpy(np.concatenate(ids)[:kept]).view(n_rows, row_length)
    return Rows(packed, torch.from_numpy(owners).view(n_rows, row_length), tuple(passages))


def document_pieces(rows: Rows, longest: int) -> Int[np.ndarray, "piece 2"]:
    """(start, end) of every document in the packed text, read row by row, cut every `longest` tokens: what a model reads where
    each document stands alone."""
    starts = np.array([passage.start_token for passage in rows.passages])
    document = np.array([passage.document for passage in rows.passages])
    first = starts[np.unique(document, return_index=True)[1]]
    ends = np.append(first[1:], rows.ids.numel())
    pieces = [(a, min(a + longest, end)) for start, end in zip(first, ends, strict=True) for a in range(start, end, longest)]
    return np.array(pieces, dtype=np.int64).reshape(-1, 2)


def _cuts(length: int) -> Iterator[tuple[int, int]]:
    """Near-equal pieces of at most PASSAGE_TOKENS, so that no document ends in a crumb."""
    n = -(-length // PASSAGE_TOKENS)
    for i in range(n):
        yield length * i // n, length * (i + 1) // n


def _tokenised(
    texts: tuple[str, ...], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], str, list[tuple[int, int]] | None]]:
    """(ids, text, character span of every token or None), in batches, in order. Special tokens have the nearest span."""
    for first in range(0, len(texts), _BATCH):
        batch = list(texts[first : first + _BATCH])
        coded = tokenizer(batch, return_offsets_mapping=tokenizer.is_fast, verbose=False, padding=False, truncation=False)
        spans = coded["offset_mapping"] if tokenizer.is_fast else [None] * len(batch)
        for ids, text, span in zip(coded["input_ids"], batch, spans, strict=True):
            yield list(ids), text, None if span is None else _mend(span)


def _mend(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Special tokens at the end have the span (0, 0), which would empty the last passage."""
    mended, last = [], 0
    for i, (a, b) in enumerate(spans):
        mended.append((last, last) if a == b == 0 and i else (a, b))
        last = mended[-1][1]
    return mended


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
            except TemplateError as error:
                raise BadCorpus(
                    f"{where}: the tokenizer's chat template refuses this conversation ({one_line(error)}). "
                    "Change the order of its roles, or give it as `text`."
                ) from error
    keys = sorted(record) if isinstance(record, dict) else type(record).__name__
    raise BadCorpus(
        f"{where}: neither `text` (a string) nor `messages` (a list of role and content), but {keys}. "
        "Rename the field, or leave the line out."
    )
