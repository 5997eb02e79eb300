"""Whether a model can be asked by paired answers at all: an answer must be likelier after its own prompt than after another.

A model that does not follow the prompts, for instance of another language or of a world of its own, gives either answer some
probability as it gives any text some, and no fine-tune moves that: it would read as a certain "unaffected". The pointwise
mutual information of prompt and answer (Church & Hanks 1990) tells the two apart: for SmolLM2-135M 8 to 20 nats an
answer, 5 to 13 standard errors from 0 over 20 to 24 prompts of every default area (docs/log.md); for a model that does not
follow, 0.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.predict.probes import FORMS, AskedProbe
from mneme.predict.verdicts import FALSE_DISCOVERIES, FEWEST
from mneme.stats import student_t_cdf

PROMPTS = 12
"""Of an area, that are asked for this: at the smallest figure above (5.1 standard errors over 20) the test is passed in 98 %,
and it costs a tenth of the paired answers. A round number that was never varied."""


def strangers(asked: Sequence[AskedProbe]) -> list[tuple[int, AskedProbe]]:
    """Answers behind another prompt of the same area, in the same form where there is one: (index in `asked` of the answer
    behind its own prompt, the same answer elsewhere), of the first `PROMPTS` prompts."""
    own = {(one.probe, one.shows): index for index, one in enumerate(asked)}
    prompts = list(dict.fromkeys(one.probe for one in asked))[:PROMPTS]
    found = []
    for place, probe in enumerate(prompts):
        after = [*prompts[place + 1 :], *prompts[:place]]
        other = next((one for one in after if one % FORMS == probe % FORMS), after[0] if after else None)
        for shows in (True, False):
            if other is None:
                continue
            index, before = own[probe, shows], asked[own[other, shows]]
            answer = asked[index].ids[asked[index].first :]
            moved = AskedProbe(probe, shows, [*before.ids[: before.first], *answer], before.first)
            found.append((index, moved))
    return found


def follows_prompts(own: Float[ndarray, " answer"], elsewhere: Float[ndarray, " answer"], probe: Sequence[int]) -> bool:
    """True where answers are likelier behind their own prompt: Student's t over prompts, one-sided, at 5 %.

    `own`, `elsewhere`: nats of whole answers; NaN where one was too long to be read. False below 8 prompts: nothing is shown.
    """
    gain: dict[int, list[float]] = {}
    for number, here, there in zip(probe, own.tolist(), elsewhere.tolist(), strict=True):
        if math.isfinite(here) and math.isfinite(there):
            gain.setdefault(number, []).append(here - there)
    mean = np.array([np.mean(each) for each in gain.values()])
    if len(mean) < FEWEST:
        return False
    error = float(mean.std(ddof=1)) / math.sqrt(len(mean))
    if error == 0:
        return bool(mean[0] > 0)
    return 1 - student_t_cdf(float(mean.mean()) / error, len(mean) - 1.0) < FALSE_DISCOVERIES
