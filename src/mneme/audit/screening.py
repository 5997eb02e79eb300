"""Step 2 of the audit: the screen over the whole text in pieces that survive a kill, and the table of predicted tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from mneme.activations.corpus import Rows
from mneme.diff.screen import Screened, screen_rows
from mneme.models.pair import ModelPair
from mneme.predict.effects import KNOWLEDGE_UNIT, TokenTable, content_mask
from mneme.results import Estimate
from mneme.runs import Arrays, RunFolder
from mneme.stats import ratio_of_sums

_ROWS_A_PIECE_TOKENS = 32_768


class Screening(NamedTuple):
    """The screen of the whole text, with the table that effects are read from."""

    screened: Screened
    table: TokenTable


def batch_rows_for(row_length: int, vocab_size: int) -> int:
    """How many rows run together: about 4,096 tokens, fewer where the logits of that many would pass 256 MB."""
    tokens = min(4096, (1 << 26) // max(vocab_size, 1))
    return max(1, tokens // row_length)


def screen_corpus(
    pair: ModelPair, rows: Rows, run: RunFolder, advance: Callable[[int], None], watched: Sequence[Int[ndarray, " type"]] = ()
) -> Screening:
    """Screen all rows, one stage for every 32k tokens; `advance` is told how many tokens each piece was. `watched`: sets of
    token types whose probability is kept (`screen_rows`)."""
    seq = rows.ids.shape[1]
    step = max(1, _ROWS_A_PIECE_TOKENS // seq)
    batch = batch_rows_for(seq, pair.vocab_size)
    parts = torch.split(rows.ids, step)

    def compute(mine: list[int]) -> Iterator[Arrays]:
        for index in mine:
            yield _pack(screen_rows(pair, parts[index], batch_rows=batch, watched=watched))
            advance(parts[index].numel())

    pieces = run.pieces([f"screen-{index:04d}" for index in range(len(parts))], compute)
    joined = {
        name: np.sum([piece[name] for piece in pieces], axis=0)
        if name == "mean_gain"
        else np.concatenate([piece[name] for piece in pieces])
        for name in Screened._fields
    }
    screened = Screened(**joined)
    return Screening(screened, table_of(screened, rows))


def _pack(screened: Screened) -> Arrays:
    """Stored compactly: |q|/|h| in half precision, choices in 32 bits."""
    arrays = dict(screened._asdict())
    arrays["relative_change"] = arrays["relative_change"].astype(np.float16)
    for name in ("choice_base", "choice_tuned"):
        arrays[name] = arrays[name].astype(np.int32)
    return arrays


def table_of(screened: Screened, rows: Rows) -> TokenTable:
    """The flat table of predicted tokens: row by row, positions 1 to the end."""
    token = rows.ids[:, 1:].long().numpy().reshape(-1)
    passage = rows.passage[:, 1:].long().numpy().reshape(-1)
    return TokenTable(
        passage=passage,
        token=token,
        logp_base=screened.logp_base.reshape(-1).astype(np.float64),
        logp_tuned=screened.logp_tuned.reshape(-1).astype(np.float64),
        right_base=screened.right_base.reshape(-1),
        right_tuned=screened.right_tuned.reshape(-1),
        content=content_mask(token, passage),
        n_passages=len(rows.passages),
    )


def overall_figures(screening: Screening, seed: int) -> dict[str, Estimate]:
    """Whole-corpus figures, clustered by passage: KL both ways, change in NLL, accuracy on known tokens, share flipped."""
    table, screened = screening.table, screening.screened
    known = table.known().astype(np.float64)
    ones = table.per_passage(np.ones(len(table.token)))

    def mean(values: Float[ndarray, " token"], unit: str) -> Estimate:
        return ratio_of_sums(table.per_passage(values), ones, unit, seed=seed)

    figures = {
        "kl_tuned_to_base": mean(screened.kl_tuned_to_base.reshape(-1).astype(np.float64), "nats per token"),
        "kl_base_to_tuned": mean(screened.kl_base_to_tuned.reshape(-1).astype(np.float64), "nats per token"),
        "nll_change": mean(table.logp_base - table.logp_tuned, "nats per token"),
    }
    if known.any():
        gap = (table.right_tuned.astype(np.float64) - table.right_base) * known
        flips = (table.right_base & ~table.right_tuned) * known
        below = table.per_passage(known)
        figures["known_token_change"] = ratio_of_sums(table.per_passage(gap), below, KNOWLEDGE_UNIT, seed=seed)
        figures["known_tokens_flipped"] = ratio_of_sums(table.per_passage(flips), below, "share of known tokens", seed=seed)
    return figures


def top_gaining_tokens(screened: Screened, decode: Callable[[int], str], limit: int = 12) -> list[str]:
    """Tokens whose probability the change raised most over the whole text, strongest first; none where nothing rose."""
    order: Int[ndarray, " vocab"] = np.argsort(-screened.mean_gain, kind="stable")[:limit]
    return [decode(int(index)) for index in order if screened.mean_gain[index] > 0]
