"""Three verdicts on an area, and how much each would have seen: affected, unaffected, not enough evidence.

What is judged is a change with its interval, and where there is one its excess over the other areas. False discoveries are
controlled over all that the page claims; one word, or one prompt, may not carry an area.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.results import Estimate
from mneme.stats import (
    Conditions,
    Rate,
    Sample,
    benjamini_hochberg,
    detectable_loss,
    item_noise,
    student_t_cdf,
    student_t_quantile,
    student_t_two_sided,
)

MARGIN = 0.05
"""A change of 5 points is material; the same that the bench calls material in measured accuracy and rates. A convention, never
varied (docs/decisions/0005)."""
FALSE_DISCOVERIES = 0.05
"""Rate of false discoveries, and p of what carries an area: the usual 5 %, at which 1,000 null audits claimed nothing
(docs/log.md, the audit reads own words). Never varied."""
TAIL = 0.025
"""Of either side of a 95 % interval."""
_LEAST_ROOM = 0.1
"""Share of the margin that an estimate must be away from what would settle it for more text to be recommended: closer, the
number of passages is beyond all texts. A round number that was never varied."""
FEWEST = 8
"""Clusters of either kind from which on an interval holds (`mneme.stats.two_way`; simulated in benchmarks/coverage.py)."""

Finding = Literal["affected", "unaffected", "not enough evidence"]


class Measure(NamedTuple):
    """A number with its uncertainty."""

    estimate: Estimate
    error: float
    """Standard error of what was seen."""
    degrees: float
    p_value: float
    """Two-sided, of no change; above 5 % where the interval holds 0 (`p_with_interval`)."""
    sample: Sample | None = None
    """What it was made of, to say which loss it would have shown; None where it is not asked for that."""


class Claim(NamedTuple):
    """One way to read an area; None where there is too little for an interval."""

    raw: Measure | None
    excess: Measure | None
    """Beyond the other areas; None where nothing is compared."""
    without: Measure | None
    """raw without the word (or the prompt) that carries most of it."""
    passages: int
    bar: float = 0.0
    """The largest excess of purposeless changes, read in the same way."""
    settles: bool = True
    """False where it can show a change but not that there is none."""


class JudgedClaim(NamedTuple):
    """What is said of an area."""

    finding: Finding
    q_value: float | None
    """The smaller of those of raw and excess, false discoveries controlled over all of them; None without an interval."""
    beyond: bool
    """Affected beyond the other areas: the excess alone is a finding."""
    power: float | None
    """The loss (of a behaviour: the rise) that would have been called affected with a probability of 80 %, by simulation
    (`mneme.stats.detectable_loss`), however it comes; None where no loss would have been."""
    more_passages: int | None
    """How many passages more would settle what is not settled; None where it is, or where that cannot be told."""
    reading: int = 0
    """Which of the claims of the area says so."""
    power_singly: float | None = None
    """`power` of a loss that comes word by word, and is easier to see than one of whole words and documents."""


def as_measure(found: Rate, sample: Sample | None = None) -> Measure:
    """A change with its uncertainty, as areas are judged by it."""
    p_value = 1.0 if found.p_value is None else found.p_value
    return Measure(
        estimate=found.estimate,
        error=found.standard_error,
        degrees=found.degrees,
        p_value=p_with_interval(p_value, found.estimate, found.degrees),
        sample=sample,
    )


_UNKNOWN = JudgedClaim(finding="not enough evidence", q_value=None, beyond=False, power=None, more_passages=None)


def two_sided(value: float, error: float, degrees: float) -> float:
    """Student's two-sided p of 0; 1 where the value is exactly 0."""
    if value == 0.0 or error == 0.0:
        return 1.0 if value == 0.0 else 0.0
    return float(2 * (1 - student_t_cdf(abs(value) / error, degrees)))


def p_with_interval(p_value: float, estimate: Estimate, degrees: float) -> float:
    """p of no change that contradicts no printed 95 % interval: above 5 % where that holds 0.

    `p_value` is of what was seen, and the interval also allows for what was not. Where it holds 0, its half towards 0, taken
    for Student's quantile times a standard error, has a p of its own, and the larger of the two is the answer. p is only ever
    raised, so that no error rate grows. Ours.
    """
    half = estimate.value - estimate.low if estimate.value > 0 else estimate.high - estimate.value
    if estimate.value == 0.0 or leaves_zero_out(estimate):
        return p_value
    statistic = estimate.value / half * student_t_quantile(1 - TAIL, degrees)
    return max(p_value, student_t_two_sided(statistic, degrees))


def leaves_zero_out(estimate: Estimate) -> bool:
    """The whole interval lies on the side of the estimate."""
    return estimate.low > 0.0 if estimate.value > 0 else estimate.high < 0.0


def judge_claims(areas: Sequence[Sequence[Claim]], *, margin: float = MARGIN) -> list[JudgedClaim]:
    """What is said of every area, each read in one way or in several; none: an area about which nothing can be said.

    One claim is *affected* where raw, or the excess where it is larger than the claim's bar, is at least `margin` and not 0
    beyond a false-discovery rate of 5 % over raw and excess of all claims of all areas, and still of that sign without the
    type that carries most of it, whose p is then below 5 %; the interval of raw leaves 0 out, and the excess has its sign. It
    is *unaffected* where the whole interval of raw lies inside the margin, for a claim that settles this. An area is affected
    by the first of its claims that is; otherwise, of those that settle, the one with the shortest interval speaks, and it is
    unaffected if that one is. Else *not enough evidence*.
    """
    measures = [[one for claim in claims for one in (claim.raw, claim.excess) if one is not None] for claims in areas]
    p_values = np.array([one.p_value for own in measures for one in own])
    adjusted = iter(benjamini_hochberg(p_values).tolist() if len(p_values) else [])
    judged = []
    for claims in areas:
        said = []
        for number, claim in enumerate(claims):
            q_raw = next(adjusted) if claim.raw is not None else None
            q_excess = next(adjusted) if claim.excess is not None else None
            said.append(_judged(claim, q_raw, q_excess, margin)._replace(reading=number))
        affected = [one for one in said if one.finding == "affected"]
        if not said:
            judged.append(_UNKNOWN)
        else:
            speaks = shortest([claim.raw if claim.settles else None for claim in claims])
            judged.append(affected[0] if affected else said[speaks])
    noise, first, powered = _noise(areas, judged), 0, []
    for one, claims, own in zip(judged, areas, measures, strict=True):
        raw = claims[one.reading].raw if claims else None
        if raw is not None and raw.sample is not None:
            mine = 1 if claims[one.reading].excess is None else 2
            asked = Conditions(_largest_p(p_values, slice(first, first + len(own)), mine), margin, FALSE_DISCOVERIES)
            found = detectable_loss(raw.sample, asked, noise=noise.get(raw.estimate.unit, 0.0))
            one = one._replace(power=found.surely, power_singly=found.singly)
        powered.append(one)
        first += len(own)
    return powered


def _noise(areas: Sequence[Sequence[Claim]], judged: Sequence[JudgedClaim]) -> dict[str, float]:
    """By unit, the mean noise of an independent item in areas that are not affected: one area alone seldom shows all of it."""
    found: dict[str, list[float]] = {}
    for claims, one in zip(areas, judged, strict=True):
        for raw in (claim.raw for claim in claims if one.finding != "affected"):
            if raw is not None and raw.sample is not None:
                found.setdefault(raw.estimate.unit, []).append(item_noise(raw.sample))
    return {unit: float(np.mean(seen)) for unit, seen in found.items()}


def _largest_p(p_values: Float[ndarray, " claim"], own: slice, count: int) -> float:
    """The largest p at which `count` of the claims `own` of one area would have been found, had they had it and the rest of
    them nothing: as large as the others' false-discovery rate leaves it (Benjamini & Hochberg 1995)."""
    others = np.sort(np.delete(p_values, own))
    for further in range(len(others), 0, -1):
        if others[further - 1] <= FALSE_DISCOVERIES * (count + further) / len(p_values):
            return FALSE_DISCOVERIES * float(count + further) / len(p_values)
    return FALSE_DISCOVERIES * float(count) / len(p_values)


def shortest(measures: Sequence[Measure | None]) -> int:
    """Which of them has the shortest interval; the first where none has one."""
    widths = [math.inf if one is None else one.estimate.high - one.estimate.low for one in measures]
    return int(np.argmin(widths))


def _judged(area: Claim, q_raw: float | None, q_excess: float | None, margin: float) -> JudgedClaim:
    if area.raw is None or q_raw is None:
        return _UNKNOWN
    carried = area.without is not None and area.without.p_value <= FALSE_DISCOVERIES
    carried &= area.without is not None and area.without.estimate.value * area.raw.estimate.value > 0
    # What is printed of an area is raw: an excess of the other sign, or one whose raw may be 0, is no change of this area.
    carried &= leaves_zero_out(area.raw.estimate)
    here = q_raw <= FALSE_DISCOVERIES and abs(area.raw.estimate.value) >= margin and carried
    beyond = (
        area.excess is not None
        and q_excess is not None
        and q_excess <= FALSE_DISCOVERIES
        and abs(area.excess.estimate.value) >= max(margin, area.bar)
        and area.excess.estimate.value * area.raw.estimate.value > 0
        and carried
    )
    q_value = min(q_raw, 1.0 if q_excess is None else q_excess)
    if here or beyond:
        return JudgedClaim(finding="affected", q_value=q_value, beyond=beyond, power=None, more_passages=None)
    estimate = area.raw.estimate
    if area.settles and -margin < estimate.low and estimate.high < margin:
        return JudgedClaim(finding="unaffected", q_value=q_value, beyond=False, power=None, more_passages=None)
    return JudgedClaim(
        finding="not enough evidence",
        q_value=q_value,
        beyond=False,
        power=None,
        more_passages=_more(area.raw, area.passages, margin),
    )


def _more(raw: Measure, passages: int, margin: float) -> int | None:
    """Passages more with which the interval, as wide as 1 / sqrt(passages), would lie inside the margin or leave 0 out."""
    value = abs(raw.estimate.value)
    half = max(raw.estimate.value - raw.estimate.low, raw.estimate.high - raw.estimate.value)
    room = max(margin - value, value if value >= margin else 0.0)
    if room <= _LEAST_ROOM * margin:
        return None
    return max(1, math.ceil(passages * ((half / room) ** 2 - 1)))
