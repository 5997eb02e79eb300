"""Step 2 of the audit: the survey over the whole text in pieces that survive a kill, and the table of predicted tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.activations.harvest import sink_mask
from mneme.audit.dictionary import held_out_rows
from mneme.audit.reading import Reading, Shown
from mneme.diff.survey import SurveyColumns, empty_survey, survey_rows
from mneme.errors import BadRun
from mneme.models.batching import BATCH_TOKENS, kept_tokens
from mneme.models.hooks import read_residuals
from mneme.models.pair import ModelPair, Side
from mneme.predict.effects import TokenTable, content_mask
from mneme.predict.item_reading import SIDES
from mneme.predict.watched import watched_probability
from mneme.runs import Arrays, RunFolder
from mneme.text.packing import PackedRows

_PIECE_TOKENS = 16_384
"""Tokens of one stage at most, as its arrays are held together: a round number that was never varied."""
_ALONE_TOKENS = 4096
"""Tokens of one stage where documents are read alone and padded, which is slower. Never varied."""
_BATCH_LOGITS = 1 << 26
"""Logits of a batch at most, 256 MB in float32: beyond a vocabulary of 16,384 a batch has fewer tokens. Never varied."""
_GAINING = 12
"""Tokens that gained most, on one line of the page. A round number that was never varied."""


class Survey(NamedTuple):
    """The survey of the whole text, with the table that effects are read from."""

    columns: SurveyColumns
    table: TokenTable


def batch_rows_for(row_length: int, vocab_size: int) -> int:
    """How many rows run together: about 4,096 tokens, fewer where the logits of that many would pass 256 MB."""
    tokens = min(BATCH_TOKENS, _BATCH_LOGITS // max(vocab_size, 1))
    return max(1, tokens // row_length)


def survey_corpus(
    pair: ModelPair,
    rows: PackedRows,
    run: RunFolder,
    advance: Callable[[int], None],
    *,
    layers: list[int] | None = None,
) -> Survey:
    """Survey all rows, one stage for every 16k tokens; `advance` is told how many tokens each piece was.

    With `layers` only the held-out rows, on which latents are judged, are read whole. Of the others it is found out where the
    attention sinks are at those layers; their predictions read as of probability 0, which no mask of known tokens takes in,
    and their relative change as NaN.
    """
    seq = rows.ids.shape[1]
    step = max(1, min(_PIECE_TOKENS, kept_tokens(pair.n_parameters, pair.device.type, passes=2)) // seq)
    batch = batch_rows_for(seq, pair.vocab_size)
    parts = torch.split(rows.ids, step)
    whole = np.ones(len(rows.ids), dtype=bool) if layers is None else held_out_rows(len(rows.ids))

    def compute(mine: list[int]) -> Iterator[Arrays]:
        for index in mine:
            own = torch.from_numpy(whole[index * step : index * step + len(parts[index])])
            yield _pack(_survey_some(pair, parts[index], own, layers or [], batch))
            advance(parts[index].numel())

    pieces = run.pieces([f"survey-{index:04d}" for index in range(len(parts))], compute)
    columns = _joined(pieces, len(rows.ids))
    return Survey(columns, table_of(columns, rows))


def _survey_some(
    pair: ModelPair, ids: Int[Tensor, "row seq"], whole: Bool[Tensor, " row"], layers: list[int], batch_rows: int
) -> SurveyColumns:
    """The rows `whole`, and of the others the sinks at `layers`."""
    if bool(whole.all()):
        return survey_rows(pair, ids, batch_rows=batch_rows)
    n_rows, seq = ids.shape
    found = empty_survey(n_rows, seq, pair.n_layers, pair.vocab_size)
    if bool(whole.any()):
        for name, column in survey_rows(pair, ids[whole], batch_rows=batch_rows)._asdict().items():
            if name == "mean_gain":
                found.mean_gain[:] = column
            else:
                getattr(found, name)[whole.numpy()] = column
    others = (~whole).nonzero().squeeze(1)
    for rows in torch.split(others, batch_rows):
        with pair.using("base") as parts:
            streams = read_residuals(parts, ids[rows].long(), layers)
        for layer, stream in streams.items():
            found.sink[rows.numpy(), :, layer] = sink_mask(stream.float().norm(dim=-1)).cpu().numpy()
    return found


def _joined(pieces: Iterator[Arrays], n_rows: int) -> SurveyColumns:
    """One survey of `n_rows` rows from those of its pieces, of which one at a time is in memory."""
    whole: Arrays = {}
    start = 0
    for piece in pieces:
        stop = start + len(piece["sink"])
        for name, part in piece.items():
            if name == "mean_gain":
                whole[name] = whole[name] + part if name in whole else part
            else:
                whole.setdefault(name, np.empty((n_rows, *part.shape[1:]), part.dtype))[start:stop] = part
        start = stop
    if start != n_rows:
        raise BadRun(f"The stages of the survey hold {start} rows of {n_rows}. Remove the run folder and start afresh.")
    return SurveyColumns(**whole)


class BehaviourTexts(NamedTuple):
    """Documents that have a place of a behaviour."""

    first: Int[ndarray, " text"]
    """Index of the text's first place among all places, and of its last."""
    last: Int[ndarray, " text"]
    start: Int[ndarray, " text"]
    """Where it begins in the packed text."""
    length: Int[ndarray, " text"]
    """Tokens up to its last place, which itself need not be read to be predicted."""


def behaviour_texts(reading: Reading) -> BehaviourTexts:
    """The documents that are read for behaviours, each up to its last place."""
    place = reading.places()
    owner = np.searchsorted(reading.pieces[:, 0], place, side="right") - 1
    first, last = np.unique(owner, return_index=True)[1], np.flatnonzero(np.diff(owner, append=-1))
    start = reading.pieces[owner[first], 0]
    return BehaviourTexts(first, last, start, place[last] - start)


def read_behaviours(pair: ModelPair, rows: PackedRows, reading: Reading, run: RunFolder) -> Shown:
    """Both models where behaviours show: every document that has a place alone, up to its last place, sorted by length, one
    stage for every 4k tokens."""
    stages = behaviour_stages(reading)
    if not stages:
        return shown_of(reading, [])

    def compute(mine: list[int]) -> Iterator[Arrays]:
        for number in mine:
            yield read_behaviour_stage(pair, rows, reading, stages[number])

    return shown_of(reading, list(run.pieces([f"behaviours-{number:04d}" for number in range(len(stages))], compute)))


def behaviour_stages(reading: Reading) -> list[Int[ndarray, " text"]]:
    """Documents (indices into `behaviour_texts`) that are read together: sorted by length, 4k tokens a stage."""
    if len(reading.places()) == 0:
        return []
    length = behaviour_texts(reading).length
    order = np.argsort(length, kind="stable")
    stage = np.cumsum(length[order]) // _ALONE_TOKENS
    return [order[stage == number] for number in range(int(stage[-1]) + 1)]


def read_behaviour_stage(
    pair: ModelPair, rows: PackedRows, reading: Reading, texts: Int[ndarray, " text"], sides: Sequence[Side] = SIDES
) -> Arrays:
    """`place` and `mass` [model place watched] of the documents `texts`, each read alone up to its last place."""
    place, watched = reading.places(), reading.watched()
    token = rows.ids.reshape(-1)
    first, last, start, length = behaviour_texts(reading)
    masses, places = [], []
    # A stage of texts that are all shorter than the stage can be empty.
    rows_at_once = batch_rows_for(int(length[texts[-1]]), pair.vocab_size) if len(texts) else 1
    for part in (texts[i : i + rows_at_once] for i in range(0, len(texts), rows_at_once)):
        longest = int(length[part].max())
        # Beyond its end a text repeats its last token, so that no padding token is among them.
        column = np.minimum(np.arange(longest), length[part][:, None] - 1)
        ids = token[torch.from_numpy(start[part][:, None] + column)].long()
        own = [np.arange(first[text], last[text] + 1) for text in part]
        at = [
            (row, int(place[i] - start[text])) for row, (text, these) in enumerate(zip(part, own, strict=True)) for i in these
        ]
        masses.append(watched_probability(pair, ids, torch.tensor(at), watched, sides))
        places.append(place[np.concatenate(own)])
    if not masses:
        return {"place": place[:0], "mass": np.zeros((len(sides), 0, len(watched)), dtype=np.float32)}
    return {"place": np.concatenate(places), "mass": np.concatenate(masses, axis=1)}


def shown_of(reading: Reading, stages: Sequence[Arrays]) -> Shown:
    """What all stages read, places in corpus order."""
    place = reading.places()
    if len(place) == 0:
        return Shown(place, np.zeros((2, 0, len(reading.watched()))))
    where = np.argsort(np.concatenate([one["place"] for one in stages]))
    return Shown(place, np.concatenate([one["mass"] for one in stages], axis=1)[:, where])


def _pack(columns: SurveyColumns) -> Arrays:
    """Stored compactly: |q|/|h| in half precision, choices in 32 bits."""
    arrays = dict(columns._asdict())
    arrays["relative_change"] = arrays["relative_change"].astype(np.float16)
    for name in ("choice_base", "choice_tuned"):
        arrays[name] = arrays[name].astype(np.int32)
    return arrays


def table_of(columns: SurveyColumns, rows: PackedRows) -> TokenTable:
    """The flat table of predicted tokens: row by row, positions 1 to the end."""
    token = rows.ids[:, 1:].numpy().reshape(-1)
    passage = rows.passage[:, 1:].numpy().reshape(-1)
    return TokenTable(
        passage=passage,
        token=token,
        logp_base=columns.logp_base.reshape(-1),
        logp_tuned=columns.logp_tuned.reshape(-1),
        right_base=columns.right_base.reshape(-1),
        right_tuned=columns.right_tuned.reshape(-1),
        content=content_mask(token, passage),
        n_passages=len(rows.passages),
    )


def top_gaining_tokens(gain: Float[ndarray, " vocab"], decode: Callable[[int], str], limit: int = _GAINING) -> list[str]:
    """Tokens whose probability the change raised most over the text, strongest first; none where nothing rose."""
    order: Int[ndarray, " vocab"] = np.argsort(-gain, kind="stable")[:limit]
    return [decode(int(index)) for index in order if gain[index] > 0]
