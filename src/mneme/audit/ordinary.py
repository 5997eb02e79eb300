"""Ordinary text in mneme's own words: what a change did to all of language, where a user gives no text.

Text that the models wrote themselves says how far apart they are, and not which of the two is worse: each is at home in its
own half. These paragraphs neither has written, one for every subject of the default list, so that their loss means what the
loss of any text means. They are also what a model without a chat template goes on from when it writes about a subject
(`mneme.audit.writing`).
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from transformers import PreTrainedTokenizerBase

from mneme.audit.evidence import OrdinaryText
from mneme.models.likelihood import text_log_likelihoods
from mneme.models.pair import ModelPair
from mneme.predict.item_reading import SIDES
from mneme.runs import Arrays, RunFolder
from mneme.text.encoded import Encoded, whole_text

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


def read_ordinary(pair: ModelPair, run: RunFolder) -> OrdinaryText | None:
    """Both models over ordinary text; None where the tokenizer cannot write it. One stage; a pass of each model over some
    2,000 tokens."""
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
    return OrdinaryText(log_p, np.array([sum(text.counted) for text in texts]))
