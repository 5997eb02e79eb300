"""What the change did to the knowledge that each area's own words ask for: here, beyond elsewhere, and everywhere.

The effect at an item is the change of p(true word among four) (`cloze`), and an area's effect its mean over the items, in one
of two ways (`Counted`). *known*: each weighted by how far the better of the two models knows the word (`Scores.weight`): a
word that neither knows can be neither lost nor gained, and -0.05 is 5 points lost of what was known. *every*: all alike. A
model that puts few of the words first still expects one more than another, and loses that first: of SmolLM2-135M half of the
true words have less than 8 % among four, the weighted mean hangs on a handful, and the plain one has a tenth of its variance
(docs/decisions/0007). Both are read, and both are judged. Three numbers of either:

- *raw*: what happened in this area;
- *excess*: raw less the median of the other areas' raw: what happened here beyond the other areas' own words. The median is a
  reference that a target and its neighbours do not move; its own noise is in the interval;
- *broad*: the median of all areas: what happened to everything. A uniform loss is all broad, and a loss.

None depends on how much text was read, but for its noise. Clusters are documents and word types, both at once
(`mneme.stats.two_way`). Intervals of the excess combine those of its two parts (MOVER, Zou & Donner 2008).

Law *identity*: exactly 0 where the models are equal. *Antisymmetry*: swapping the pair flips the sign.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.predict.cloze import Scores
from mneme.predict.verdicts import TAIL, Claim, Measure, as_measure, p_with_interval, two_sided
from mneme.results import KNOWN_UNIT, Estimate, TooFew
from mneme.stats import Sample, bounded_change, student_t_quantile

KNOWLEDGE_UNIT = KNOWN_UNIT
EVERY_UNIT = "probability of the true word among four"
Counted = Literal["known", "every"]
"""How items are counted: by what is known of them, or all alike."""
_LEAST_WEIGHT = 1e-9
"""Weight, or error, that is as good as none: keeps 0 / 0 from being computed."""
_LARGEST_ODDS = math.log(99)
"""Nats beyond which a change of the odds is nothing that anybody sees (docs/decisions/0003)."""
_MAD_TO_SD = 1.4826
"""Standard deviation in median absolute deviations, for normal numbers: 1 / 0.6745 (Hampel 1974)."""
_MEDIAN_ERROR = 1.2533
"""Standard error of a median in units of that of a mean, for normal numbers: sqrt(pi / 2)."""


class WordEvidence(NamedTuple):
    """The items of some areas, with what both models say."""

    own: Bool[ndarray, "area item"]
    document: Int[ndarray, " item"]
    type: Int[ndarray, " item"]
    scores: Scores
    usable: Bool[ndarray, " item"]

    def weight(self, counted: Counted) -> Float[ndarray, " item"]:
        """What each item counts."""
        return self.scores.weight() if counted == "known" else np.ones(len(self.type))

    def change(self) -> Float[ndarray, " item"]:
        """Change of p(true among four), tuned - base."""
        return np.asarray(self.scores.p_true[1] - self.scores.p_true[0])


class AreaKnowledge(NamedTuple):
    """One area. None where there are too few items or types for any interval."""

    raw: Measure | None
    excess: Measure | None
    items: int
    types: int
    documents: int
    margin: float
    """Mean change of the margin, nats; odds beyond 99 to 1 either way are taken as 99 to 1 (docs/decisions/0003)."""
    accuracy: float
    """Mean change of accuracy among four, weighted like the effect."""
    largest_type: int | None
    """The type that carries most of the effect."""
    without: Measure | None
    """raw without that type."""
    base: float
    """Mean p(true among four) of the base."""

    def claim(self, passages: int, bar: float = 0.0) -> Claim:
        """What is judged of it. `bar`: the largest excess of purposeless changes, counted in the same way."""
        return Claim(raw=self.raw, excess=self.excess, without=self.without, passages=passages, bar=bar)


class Knowledge(NamedTuple):
    """All areas, and what happened to everything."""

    areas: list[AreaKnowledge]
    broad: Measure | None
    """None with fewer than two areas that have an interval."""


def weigh(evidence: WordEvidence, counted: Counted = "known", *, identical: bool = False) -> Knowledge:
    """Raw, excess and broad of all areas. `identical`: both models are the same, so that an interval may be [0, 0]."""
    raw = [_raw(evidence, own & evidence.usable, counted, identical) for own in evidence.own]
    areas = []
    for index, own in enumerate(evidence.own):
        others = [one for place, one in enumerate(raw) if place != index and one is not None]
        mine = raw[index]
        excess = _excess(mine, _location(others), identical) if mine is not None and len(others) >= 2 else None
        areas.append(_area(evidence, own & evidence.usable, mine, excess, counted, identical))
    known = [one for one in raw if one is not None]
    return Knowledge(areas, _broad(known, identical) if len(known) >= 2 else None)


def _raw(evidence: WordEvidence, used: Bool[ndarray, " item"], counted: Counted, identical: bool) -> Measure | None:
    """Weighted mean change of the items `used`."""
    weight = evidence.weight(counted)[used]
    if not used.any() or weight.sum() <= _LEAST_WEIGHT:
        return None
    found = weighted_change(
        evidence.change()[used],
        weight,
        evidence.document[used],
        evidence.type[used],
        room=evidence.scores.p_true[1][used],
        identical=identical,
    )
    if found is None or counted == "known":
        return found
    return found._replace(estimate=found.estimate.model_copy(update={"unit": EVERY_UNIT}))


def weighted_change(
    change: Float[ndarray, " item"],
    weight: Float[ndarray, " item"],
    document: Int[ndarray, " item"],
    type_: Int[ndarray, " item"],
    *,
    room: Float[ndarray, " item"] | None = None,
    identical: bool = False,
) -> Measure | None:
    """Weighted mean change with an interval for documents and words at once; None below 8 of either. `room`: how far each
    could fall from where it is now (below 0: rise), where the loss that would have been seen is to be said.

    The interval allows for words wholly lost or gained that stand in so few places that none of the items shows them
    (`mneme.stats.bounded_change`). Without that, changes that are all tiny would give an interval as tiny, from a handful of
    words; that they are not 0 is no less certain, so `error` and p are of what was seen.
    """
    counted = weight > 0  # an item that counts for nothing makes no cluster
    found = bounded_change(
        change[counted], document[counted], type_[counted], KNOWLEDGE_UNIT, weights=weight[counted], identical=identical
    )
    if isinstance(found, TooFew):
        return None
    if room is None or identical:
        return as_measure(found)
    side = 1.0 if room.sum() >= 0 else -1.0
    sample = Sample(values=side * change, room=side * room, weights=weight, first=document, second=type_)
    return as_measure(found, sample)


def _location(others: list[Measure]) -> Measure:
    """The median of the others, with the larger of the errors that their own intervals and their spread give it."""
    values = np.array([one.estimate.value for one in others])
    median = float(np.median(values))
    own = math.sqrt(1 / sum(1 / max(one.error, _LEAST_WEIGHT) ** 2 for one in others))
    spread = _MAD_TO_SD * float(np.median(np.abs(values - median))) / math.sqrt(len(values))
    error = _MEDIAN_ERROR * max(own, spread)
    degrees = max(1.0, len(values) - 1.0)
    half = student_t_quantile(1 - TAIL, degrees) * error
    unit = others[0].estimate.unit
    estimate = Estimate(value=median, low=median - half, high=median + half, unit=unit, n=len(values))
    return Measure(estimate=estimate, error=error, degrees=degrees, p_value=two_sided(median, error, degrees))


def _excess(mine: Measure, others: Measure, identical: bool) -> Measure:
    value = mine.estimate.value - others.estimate.value
    if identical and value == 0.0:
        return Measure(estimate=mine.estimate, error=0.0, degrees=mine.degrees, p_value=1.0)
    below = math.hypot(mine.estimate.value - mine.estimate.low, others.estimate.high - others.estimate.value)
    above = math.hypot(mine.estimate.high - mine.estimate.value, others.estimate.value - others.estimate.low)
    error = math.hypot(mine.error, others.error)
    shares = mine.error**4 / mine.degrees + others.error**4 / others.degrees
    degrees = max(1.0, error**4 / shares) if shares > 0 else mine.degrees
    estimate = mine.estimate.model_copy(update={"value": value, "low": value - below, "high": value + above})
    p_value = p_with_interval(two_sided(value, error, degrees), estimate, degrees)
    return Measure(estimate=estimate, error=error, degrees=degrees, p_value=p_value)


def _broad(known: list[Measure], identical: bool) -> Measure:
    found = _location(known)
    if identical and not any(one.estimate.value for one in known):
        return Measure(
            estimate=found.estimate.model_copy(update={"low": 0.0, "high": 0.0}),
            error=0.0,
            degrees=found.degrees,
            p_value=1.0,
        )
    return found


def _area(
    evidence: WordEvidence,
    used: Bool[ndarray, " item"],
    raw: Measure | None,
    excess: Measure | None,
    counted: Counted,
    identical: bool,
) -> AreaKnowledge:
    scores, types = evidence.scores, evidence.type[used]
    weight = evidence.weight(counted)[used]
    total = max(float(weight.sum()), _LEAST_WEIGHT)
    largest, without = None, None
    if raw is not None:
        carried = np.bincount(types, weights=weight * evidence.change()[used])
        largest = int(np.argmax(np.abs(carried)))
        without = _raw(evidence, used & (evidence.type != largest), counted, identical)
    gained = scores.right[1][used].astype(np.float64) - scores.right[0][used]
    margins = np.diff(np.clip(scores.margin[:, used], -_LARGEST_ODDS, _LARGEST_ODDS), axis=0)[0]
    return AreaKnowledge(
        raw=raw,
        excess=excess,
        items=int(used.sum()),
        types=len(np.unique(types)),
        documents=len(np.unique(evidence.document[used])),
        margin=float(margins.mean()) if used.any() else 0.0,
        accuracy=float((weight * gained).sum()) / total,
        largest_type=largest,
        without=without,
        base=float(scores.p_true[0][used].mean()) if used.any() else 0.0,
    )


def largest_excess(knowledge: Knowledge) -> float:
    """The largest excess of any area in size, each drawn towards 0 by its noise (positive-part James-Stein)."""
    sizes = [0.0]
    for area in knowledge.areas:
        if area.excess is not None and area.excess.estimate.value:
            size = abs(area.excess.estimate.value)
            sizes.append(size * max(0.0, 1 - (area.excess.error / size) ** 2))
    return max(sizes)
