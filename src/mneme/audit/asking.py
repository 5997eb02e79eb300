"""Areas by paired answers: which of them can be asked, and what both models say, a stage for each area."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from transformers import PreTrainedTokenizerBase

from mneme.models.pair import ModelPair
from mneme.predict.areas import Area
from mneme.predict.paired import probes_of
from mneme.predict.probes import AskedProbe, probability_shown, read_asked, shares_beginnings, write_probes
from mneme.predict.understood import follows_prompts, strangers
from mneme.predict.verdicts import FEWEST
from mneme.runs import Arrays, RunFolder


class Answered(NamedTuple):
    """What both models say to the prompts of an area."""

    shown: Float[ndarray, "model probe"]
    """p(shows) of two answers, base first."""
    follows: bool = True
    """The base follows the prompts (`mneme.predict.understood`); where it does not, `shown` says nothing."""


def questions(
    areas: Sequence[Area], tokenizer: PreTrainedTokenizerBase, at_most: int | None = None
) -> dict[int, list[AskedProbe]]:
    """Index of an area -> its paired answers as ids (the first `at_most` prompts), for those that have enough which the
    tokenizer can write."""
    found = {}
    for index, area in enumerate(areas):
        few = at_most if area.kind == "behaviour" else None  # beginnings of sentences cost a tenth of a question
        asked = write_probes(probes_of(area)[:few], tokenizer)
        if len(asked) >= 2 * FEWEST:
            found[index] = asked
    return found


def answers(
    pair: ModelPair, asked: dict[int, list[AskedProbe]], run: RunFolder, advance: Callable[[int], None]
) -> dict[int, Answered]:
    """Both models over all paired answers, and the base over some behind other prompts; `advance` is told of every area."""
    order = list(asked)
    every = [one for group in asked.values() for one in group]
    forest = shares_beginnings(pair, every)

    def compute(mine: list[int]) -> Iterator[Arrays]:
        for number in mine:
            own = asked[order[number]]
            moved = [one for _, one in strangers(own)]
            elsewhere = read_asked(pair, moved, forest=forest, sides=("base",))["log_p"][0]
            yield {**read_asked(pair, own, forest=forest), "elsewhere": elsewhere}
            advance(1)

    parts = run.pieces([f"answers-{index:03d}" for index in order], compute)
    found = {}
    for index, read in zip(order, parts, strict=True):
        shown, _ = probability_shown(asked[index], read)
        own, probe = zip(*((place, one.probe) for place, one in strangers(asked[index])), strict=True)
        follows = follows_prompts(read["log_p"][0][list(own)], read["elsewhere"], probe)
        found[index] = Answered(np.asarray(shown), follows)
    return found
