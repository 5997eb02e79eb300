"""Step 9 of the audit: from the areas' own words, paired answers and text of behaviours to effects, each with its verdict.

Knowledge is read at own words (`mneme.predict.knowledge`); a behaviour by paired answers where it has some that the tokenizer
can write (`mneme.predict.probes`), else where its text shows it (`mneme.predict.behaviour`).
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from mneme.audit.asking import Answered
from mneme.audit.reading import FEW, Reading, Shown
from mneme.audit.words import WordReading
from mneme.errors import EmptyMask
from mneme.predict.areas import Area
from mneme.predict.behaviour import pooled
from mneme.predict.calibration import Calibration, Curve, probability, shrunk_size
from mneme.predict.knowledge import AreaKnowledge, Knowledge, weigh
from mneme.predict.probes import probe_claim
from mneme.predict.verdicts import TAIL, Claim, JudgedClaim, Measure, judge_claims
from mneme.results import AbsentArea, Direction, Effect, Estimate, PartialEffect
from mneme.stats import student_t_quantile

MATERIAL = 0.5
"""P from which an effect counts as found: more likely than not."""
_FEW_AREAS = 3
"""Areas with a raw change below which there is no more changed half of them: all text is then the reference."""
DIGITS = 4
"""Digits of probabilities and changes in the report, far finer than their intervals."""

Source = Literal["words", "answers", "text"]
"""What an effect was read from."""


class AreaEffects(NamedTuple):
    """Every area's effect, or why it has none."""

    effects: list[Effect]
    claims: list[Claim]
    """What is judged of each effect, in their order."""
    absent: list[AbsentArea]
    found: Bool[ndarray, " passage"]
    """Passages of capabilities with P >= 0.5."""
    reference: Bool[ndarray, " passage"]
    """Passages of none of the more changed half of the areas."""
    knowledge: Knowledge


class Sources(NamedTuple):
    """Everything that effects are read from."""

    words: WordReading
    reading: Reading
    shown: Shown
    """What the models expect where behaviours show."""
    answered: dict[int, Answered]
    """Index of a behaviour among the areas -> its paired answers."""


def area_effects(sources: Sources, areas: tuple[Area, ...], calibration: Calibration) -> AreaEffects:
    """Effects of all areas: knowledge of the capabilities, and behaviours as a whole and in the text of each capability. They
    have no verdict yet: that takes the purposeless changes (`settled`)."""
    effects: list[Effect] = []
    claims: list[Claim] = []
    absent: list[AbsentArea] = []
    knowledge = weigh(sources.words.evidence())
    member = sources.reading.membership.member
    found = np.zeros(member.shape[1], dtype=bool)
    for index, area in enumerate(areas):
        try:
            effect, claim = _effect(sources, areas, index, knowledge, calibration)
        except EmptyMask as reason:
            count = int(member[index].sum())
            absent.append(AbsentArea(area=area.name, kind=area.kind, reason=str(reason), passages=count))
            continue
        if area.kind == "capability" and suspected(effect, MATERIAL):
            found = found | member[index]
        effects.append(effect)
        claims.append(claim)
    return AreaEffects(
        effects=effects, claims=claims, absent=absent, found=found, reference=_quiet(knowledge, member), knowledge=knowledge
    )


def _quiet(knowledge: Knowledge, member: Bool[ndarray, "area passage"]) -> Bool[ndarray, " passage"]:
    """Passages of none of the areas whose raw change is, in size, above the median area's."""
    sizes = np.array([abs(area.raw.estimate.value) if area.raw is not None else math.nan for area in knowledge.areas])
    if np.isfinite(sizes).sum() < _FEW_AREAS:
        return np.ones(member.shape[1], dtype=bool)
    return np.asarray(~member[sizes > np.nanmedian(sizes)].any(axis=0))


def _effect(
    sources: Sources, areas: tuple[Area, ...], index: int, knowledge: Knowledge, calibration: Calibration
) -> tuple[Effect, Claim]:
    """One area. Errors: EmptyMask, with the reason why nothing can be said about it."""
    area, member = areas[index], sources.reading.membership.member[index]
    if area.kind == "capability":
        if index in sources.reading.membership.chance:
            seeds = sources.reading.membership.seeds[index]
            raise EmptyMask(f"{seeds} passages of the text hold two of its keywords, but they are of no one subject")
        return _knowledge_effect(sources, area, knowledge.areas[index], member, calibration)
    if index in sources.answered:
        answered = sources.answered[index]
        claim = probe_claim(answered.shown)
        if claim.raw is None:
            raise EmptyMask(f"{answered.shown.shape[1]} of its paired answers could be read, too few for an interval")
        effect = _made(sources, area, member, claim.raw.estimate, calibration, "answers")
        return effect.model_copy(update={"items": answered.shown.shape[1]}), claim
    if member.sum() < FEW:
        raise EmptyMask(f"{int(member.sum())} passages of the text match it, at least {FEW} are needed")
    if index in sources.reading.silent:
        raise EmptyMask(sources.reading.silent[index])
    measure = sources.reading.change(sources.shown, index)
    effect = _made(sources, area, member, measure.estimate, calibration, "text", noise_of(measure))
    parts = [part for part, _ in partial_effects(sources, areas, index, calibration)]
    return effect.model_copy(update={"parts": parts}), Claim(measure, None, measure, int(member.sum()))


def noise_of(measure: Measure) -> float:
    """Standard error of what was seen, larger where passages are few: what P is shrunk by, as its curves were fitted."""
    degrees = max(measure.estimate.n - 1.0, 1.0)
    return measure.error * student_t_quantile(1 - TAIL, degrees) / student_t_quantile(1 - TAIL, math.inf)


def _knowledge_effect(
    sources: Sources, area: Area, own: AreaKnowledge, member: Bool[ndarray, " passage"], calibration: Calibration
) -> tuple[Effect, Claim]:
    count = int(member.sum())
    if count < FEW:
        raise EmptyMask(f"{count} passages of the text match it, at least {FEW} are needed")
    if own.raw is None:
        raise EmptyMask(
            f"{count} passages of the text match it, with {own.types} words of its own that a model knows, too few to judge"
        )
    effect = _made(sources, area, member, own.raw.estimate, calibration, "words")
    types = sources.words.layout.plan.table.types
    update = {
        "excess": None if own.excess is None else own.excess.estimate,
        "items": own.items,
        "types": own.types,
        "margin_change": round(own.margin, DIGITS),
        "accuracy_change": round(own.accuracy, DIGITS),
        "largest_word": "" if own.largest_type is None else types[own.largest_type],
    }
    return effect.model_copy(update=update), own.claim(count)


def _made(
    sources: Sources,
    area: Area,
    member: Bool[ndarray, " passage"],
    magnitude: Estimate,
    calibration: Calibration,
    source: Source,
    noise: float | None = None,
) -> Effect:
    chance = _chance(magnitude, calibration.curve_of(source, magnitude.value), noise)
    return Effect(
        area=area.name,
        kind=area.kind,
        probability=chance,
        direction=direction_of(magnitude, area.kind),
        magnitude=magnitude,
        evidence=[],
        baselines=sources.words.baselines(member),
        signal="likelihood" if chance is not None and chance >= MATERIAL else "none",
        calibrated=chance is not None,
        source=source,
    )


def _chance(magnitude: Estimate, curve: Curve | None, noise: float | None) -> float | None:
    """P of an effect; None where no curve was fitted for such evidence."""
    return None if curve is None else round(probability(magnitude, curve, noise), 4)


def suspected(effect: Effect, level: float) -> bool:
    """P is at least `level`; where P is uncalibrated, the interval leaves 0 out. For what is looked into before verdicts are
    given."""
    if effect.probability is None:
        return effect.magnitude.low > 0 or effect.magnitude.high < 0
    return effect.probability >= level


def settled(effects: list[Effect], judged: list[JudgedClaim]) -> list[Effect]:
    """The effects with what is said of each."""
    return [
        effect.model_copy(
            update={
                "finding": said.finding,
                "beyond": said.beyond,
                "q_value": said.q_value,
                "power": said.power,
                "more_passages": said.more_passages,
                "signal": "likelihood" if said.finding == "affected" and effect.signal == "none" else effect.signal,
            }
        )
        for effect, said in zip(effects, judged, strict=True)
    ]


def findings_of(found: AreaEffects, bar: float) -> list[Effect]:
    """The effects with their verdicts; `bar` is the largest excess of purposeless changes."""
    return settled(found.effects, judge_claims(found.claims, bar=bar))


def partial_effects(
    sources: Sources, areas: tuple[Area, ...], index: int, calibration: Calibration
) -> list[tuple[PartialEffect, float]]:
    """A behaviour in the text of each capability, drawn towards their mean (`pooled`), and the shrunk size that its P was read
    at; those with fewer than 8 passages that show it are left out."""
    text = sources.reading.behaviours[index].text
    membership = sources.reading.membership
    found: list[tuple[int, Measure]] = []
    for other, area in enumerate(areas):
        if area.kind != "capability":
            continue
        try:
            found.append((other, sources.reading.change(sources.shown, index, membership.member[other])))
        except EmptyMask:
            continue
    parts = []
    for (other, _), measure in zip(found, pooled([own for _, own in found]), strict=True):
        within = membership.member[other] & (text.member | text.other)
        magnitude, noise = measure.estimate, noise_of(measure)
        part = PartialEffect(
            area=areas[other].name,
            probability=_chance(magnitude, calibration.curve_of("text", magnitude.value), noise),
            direction=direction_of(magnitude, "behaviour"),
            magnitude=magnitude,
            baselines=sources.words.baselines(within),
        )
        parts.append((part, shrunk_size(magnitude, noise)))
    return parts


def direction_of(magnitude: Estimate, kind: str) -> Direction:
    """worse/better for knowledge, more/less for behaviour, changed where the estimate is exactly 0."""
    if magnitude.value == 0.0:
        return "changed"
    if kind == "behaviour":
        return "more" if magnitude.value > 0 else "less"
    return "better" if magnitude.value > 0 else "worse"


def ranked(effects: list[Effect]) -> list[Effect]:
    """Sorted by probability (`Effect.standing`), then size; ranks filled in."""
    order = sorted(effects, key=lambda e: (-e.standing, -abs(e.magnitude.value), e.area))
    return [effect.model_copy(update={"rank": place}) for place, effect in enumerate(order, start=1)]
