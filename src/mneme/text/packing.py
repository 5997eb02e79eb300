"""Documents packed into rows of token ids without padding: what an audit reads."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadCorpus, BadOption
from mneme.text.documents import Documents

PASSAGE_TOKENS = 128
"""A passage, the unit of area matching and of the bootstrap, has at most so many tokens."""

_BATCH = 512


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of one document: `start_token` is the place of its first token in the packed rows, read row by row."""

    text: str
    document: int
    start_token: int


@dataclass(frozen=True)
class PackedRows:
    """Packed token ids (32 bits, half the memory), and the passage (index into `passages`) that every token belongs to."""

    ids: Int[Tensor, "row seq"]
    passage: Int[Tensor, "row seq"]
    passages: tuple[Passage, ...]


def pack_rows(
    documents: Documents,
    tokenizer: PreTrainedTokenizerBase,
    row_length: int,
    max_tokens: int | None = None,
) -> PackedRows:
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
    return PackedRows(packed, torch.from_numpy(owners).view(n_rows, row_length), tuple(passages))


def document_pieces(rows: PackedRows, longest: int) -> Int[np.ndarray, "piece 2"]:
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
