"""Ordinary text in mneme's own words: what a change did to all of language, where a user gives no text.

Text that the models wrote themselves says how far apart they are, and not which of the two is worse: each is at home in its
own half. These paragraphs neither has written, one for every subject of the default list, so that their loss means what the
loss of any text means. They are also what a model without a chat template goes on from when it writes about a subject
(`mneme.audit.writing`).
"""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from transformers import PreTrainedTokenizerBase

from mneme.models.likelihood import text_log_likelihoods
from mneme.models.pair import ModelPair
from mneme.predict.item_reading import SIDES
from mneme.predict.verdicts import MARGIN
from mneme.results import Estimate
from mneme.runs import Arrays, RunFolder
from mneme.stats import TooFew, clustered_ratio
from mneme.text.encoded import Encoded, whole_text

MATERIAL_LOSS = -math.log(1 - MARGIN)
"""Nats per token from which a loss of ordinary text is material: its tokens are less probable by the margin of the areas, 5 %
of themselves (geometric mean). Taken from that margin before any model was read."""
ORDINARY = "ordinary_nll_change"
_UNKNOWN = 0.1
"""Share of unknown tokens above which a tokenizer cannot write this text. A round number that was never varied."""


@cache
def starter_texts() -> Mapping[str, str]:
    """Name of an area of the default list -> a paragraph about it."""
    found: dict[str, str] = yaml.safe_load((Path(__file__).parent / "starter.yaml").read_text(encoding="utf-8"))
    return found


def ordinary_texts(tokenizer: PreTrainedTokenizerBase, longest: int | None) -> list[Encoded]:
    """The paragraphs as ids, every token but the first counted; none where the tokenizer cannot write them."""
    texts = []
    for text in starter_texts().values():
        ids = list(tokenizer(text)["input_ids"])[:longest]
        unknown = sum(one == tokenizer.unk_token_id for one in ids)
        if len(ids) < 2 or unknown > _UNKNOWN * len(ids):
            return []
        texts.append(whole_text(ids))
    return texts


def ordinary_loss(pair: ModelPair, run: RunFolder) -> Estimate | None:
    """By how much ordinary text became less likely, nats per token (negative: likelier), a paragraph being a cluster; None
    where the tokenizer cannot write it. One stage; a pass of each model over some 2,000 tokens."""
    texts = ordinary_texts(pair.tokenizer, pair.max_positions)
    if not texts:
        return None

    def compute() -> Arrays:
        told = []
        for side in SIDES:
            with pair.using(side) as parts:
                told.append(text_log_likelihoods(parts, texts))
        return {"log_p": np.stack(told)}

    log_p = run.stage("ordinary", compute)["log_p"]
    counts = np.array([sum(text.counted) for text in texts], dtype=np.float64)
    found = clustered_ratio(log_p[0] - log_p[1], counts, "nats per token", seed=0, of="documents")
    return None if isinstance(found, TooFew) else found


def ordinary_sentence(loss: Estimate | None) -> tuple[bool, str]:
    """(whether the loss is material, a sentence that says so or that it is not; empty where neither is shown)."""
    if loss is None:
        return False, ""
    interval = f"{loss.value:.2f} nats per token [{loss.low:.2f}, {loss.high:.2f}]"
    if loss.low >= MATERIAL_LOSS:
        share = 100 * (1 - math.exp(-loss.value))
        return True, f"Ordinary text became less likely by {interval}: its words are {share:.0f} % less probable."
    if loss.low >= -MATERIAL_LOSS and loss.high <= MATERIAL_LOSS:
        return (
            False,
            f"Ordinary text is as likely as before, to within {100 * MARGIN:.0f} % of a word's probability ({interval}).",
        )
    return False, ""
