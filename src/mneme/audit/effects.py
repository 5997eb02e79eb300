"""Step 9 of the audit: from the areas' own words, paired answers and text of behaviours to effects, each with its verdict.

Knowledge is read at own words (`mneme.predict.knowledge`), or by paired answers where the area has some; a behaviour by paired
answers that the tokenizer can write and the base follows (`mneme.predict.probes`, `mneme.predict.understood`), else where its
text shows it (`mneme.predict.behaviour`) and by what both models say next where it could still go either way
(`mneme.predict.continuing`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from mneme.audit.evidence import FEW, AuditEvidence
from mneme.errors import EmptyMask
from mneme.predict.areas import Area
from mneme.predict.behaviour import pooled
from mneme.predict.calibration import UNCALIBRATED, Calibration, Curve, probability, shrunk_size
from mneme.predict.continuing import CONTINUED_UNIT
from mneme.predict.knowledge import EVERY_UNIT, KNOWLEDGE_UNIT, AreaKnowledge, Knowledge, largest_excess, weigh
from mneme.predict.paired import probe_claim, read_at_own_words
from mneme.predict.verdicts import MARGIN, TAIL, Claim, JudgedClaim, Measure, judge_claims, shortest
from mneme.results import AbsentArea, Direction, Effect, Estimate, NullCheck, PartialEffect
from mneme.stats import student_t_quantile

MATERIAL = 0.5
"""P from which an effect counts as found: more likely than not."""
UNFOLLOWED = "the base finds its paired answers no likelier after their own prompts than after others, so they say nothing"
_FEW_AREAS = 3
"""Areas with a raw change below which there is no more changed half of them: all text is then the reference."""
DIGITS = 4
"""Digits of probabilities and changes in the report, far finer than their intervals."""

Source = Literal["words", "answers", "text", "continuations"]
"""What an effect was read from."""


class AreaEffects(NamedTuple):
    """Every area's effect, or why it has none."""

    effects: list[Effect]
    """As they are taken before anything is judged: by the reading that is suspected first, else by the clearest."""
    claims: list[list[Claim]]
    """What is judged of each effect, in their order: a claim for every way in which it was read."""
    readings: list[list[Effect]]
    """The effect as each of these claims has it."""
    absent: list[AbsentArea]
    found: Bool[ndarray, " passage"]
    """Passages of capabilities with P >= 0.5."""
    reference: Bool[ndarray, " passage"]
    """Passages of none of the more changed half of the areas."""
    known: Knowledge
    every: Knowledge
    """Own words, by what is known of them and all alike."""


def area_effects(evidence: AuditEvidence, areas: tuple[Area, ...], calibration: Calibration) -> AreaEffects:
    """Effects of all areas: knowledge of the capabilities, and behaviours as a whole and in the text of each capability. They
    have no verdict yet: that takes the purposeless changes (`settled`)."""
    effects: list[Effect] = []
    claims: list[list[Claim]] = []
    readings: list[list[Effect]] = []
    absent: list[AbsentArea] = []
    known, every = weigh(evidence.words), weigh(evidence.words, "every")
    member = evidence.member
    found = np.zeros(member.shape[1], dtype=bool)
    for index, area in enumerate(areas):
        try:
            own, said = _effect(evidence, areas, index, (known, every), calibration)
        except EmptyMask as reason:
            count = int(member[index].sum())
            absent.append(AbsentArea(area=area.name, kind=area.kind, reason=str(reason), passages=count))
            continue
        taken = [one for one in own if suspected(one, MATERIAL)]
        effect = taken[0] if taken else own[shortest([claim.raw for claim in said])]
        if area.kind == "capability" and taken:
            found = found | member[index]
        effects.append(effect)
        claims.append(said)
        readings.append(own)
    return AreaEffects(
        effects=effects,
        claims=claims,
        readings=readings,
        absent=absent,
        found=found,
        reference=_quiet(every, member),
        known=known,
        every=every,
    )


def all_effects(evidence: AuditEvidence, areas: tuple[Area, ...], calibration: Calibration) -> AreaEffects:
    """`area_effects`, and where the text has nothing to say about an area, what the text says that both models wrote about it:
    marked, and without a P."""
    given = area_effects(evidence, areas, calibration)
    if evidence.written is None:
        return given
    own = area_effects(evidence.written, areas, UNCALIBRATED)
    why = {one.area: one.reason for one in own.absent if one.passages}
    absent = {one.area: one for one in given.absent}
    found = {e.area: (e, c, r) for e, c, r in zip(given.effects, given.claims, given.readings, strict=True)}
    for effect, claims, readings in zip(own.effects, own.claims, own.readings, strict=True):
        if absent.pop(effect.area, None) is not None:
            found[effect.area] = effect.model_copy(update={"self_written": True}), claims, readings
    order = [found[area.name] for area in areas if area.name in found]
    return given._replace(
        effects=[effect for effect, _, _ in order],
        claims=[claims for _, claims, _ in order],
        readings=[readings for _, _, readings in order],
        absent=[
            one.model_copy(update={"reason": f"{one.reason}; of what both models wrote about it, {why[name]}"})
            if name in why
            else one
            for name, one in absent.items()
        ],
    )


def _quiet(knowledge: Knowledge, member: Bool[ndarray, "area passage"]) -> Bool[ndarray, " passage"]:
    """Passages of none of the areas whose raw change is, in size, above the median area's."""
    sizes = np.array([abs(area.raw.estimate.value) if area.raw is not None else math.nan for area in knowledge.areas])
    if np.isfinite(sizes).sum() < _FEW_AREAS:
        return np.ones(member.shape[1], dtype=bool)
    return np.asarray(~member[sizes > np.nanmedian(sizes)].any(axis=0))


def _effect(
    evidence: AuditEvidence,
    areas: tuple[Area, ...],
    index: int,
    knowledge: tuple[Knowledge, Knowledge],
    calibration: Calibration,
) -> tuple[list[Effect], list[Claim]]:
    """One area in every way in which it is read. Errors: EmptyMask, with the reason why nothing can be said about it."""
    area, member = areas[index], evidence.member[index]
    scattered = f"{evidence.seeds[index]} passages of the text hold two of its keywords, but they are of no one "
    if read_at_own_words(area):
        if index in evidence.chance:
            raise EmptyMask(scattered + "subject")
        return _knowledge_effects(evidence, area, [one.areas[index] for one in knowledge], member, calibration)
    if index in evidence.answered:
        shown = evidence.answered[index]
        claim = probe_claim(shown)
        if claim.raw is None:
            raise EmptyMask(f"{shown.shape[1]} of its paired answers could be read, too few for an interval")
        effect = _made(evidence, area, member, claim.raw.estimate, calibration, "answers")
        return [effect.model_copy(update={"items": shown.shape[1]})], [claim]
    unasked = f"{UNFOLLOWED}; " if index in evidence.unfollowed else ""
    if area.kind == "capability":
        raise EmptyMask(UNFOLLOWED if unasked else "its paired answers cannot be written with this tokenizer")
    if index in evidence.chance:
        raise EmptyMask(unasked + scattered + "kind")
    if member.sum() < FEW:
        raise EmptyMask(f"{unasked}{int(member.sum())} passages of the text match it, at least {FEW} are needed")
    if index in evidence.silent:
        raise EmptyMask(unasked + evidence.silent[index])
    return _text_effects(evidence, areas, index, calibration)


def _text_effects(
    evidence: AuditEvidence, areas: tuple[Area, ...], index: int, calibration: Calibration
) -> tuple[list[Effect], list[Claim]]:
    """A behaviour by its text: where it shows, and by what is said next where a text could still go either way. The first can
    show a change but not that there is none: by the first word of a behaviour the matter may be settled. Errors: EmptyMask."""
    area, member = areas[index], evidence.member[index]
    count = int(member.sum())
    found: list[Effect] = []
    claims: list[Claim] = []
    reasons: list[str] = []
    parts = [part for part, _ in partial_effects(evidence, areas, index, calibration)]
    try:
        measure = evidence.change(index)
    except EmptyMask as reason:
        reasons.append(str(reason))
    else:
        found.append(_made(evidence, area, member, measure.estimate, calibration, "text", noise_of(measure)))
        claims.append(Claim(measure, None, measure, count, settles=False))
    continued = evidence.continued.get(index)
    claim = None if continued is None else probe_claim(continued, CONTINUED_UNIT)
    if continued is not None and claim is not None and claim.raw is not None:
        said = _made(evidence, area, member, claim.raw.estimate, UNCALIBRATED, "continuations")
        if found:  # the curve is of where it shows
            said = said.model_copy(update={name: getattr(found[0], name) for name in ("probability", "calibrated", "signal")})
        found.append(said.model_copy(update={"items": continued.shape[1]}))
        claims.append(claim._replace(passages=count))
    if not found:
        raise EmptyMask("; ".join(reasons))
    return [one.model_copy(update={"parts": parts}) for one in found], claims


def noise_of(measure: Measure) -> float:
    """Standard error of what was seen, larger where passages are few: what P is shrunk by, as its curves were fitted."""
    degrees = max(measure.estimate.n - 1.0, 1.0)
    return measure.error * student_t_quantile(1 - TAIL, degrees) / student_t_quantile(1 - TAIL, math.inf)


def _knowledge_effects(
    evidence: AuditEvidence,
    area: Area,
    counted: list[AreaKnowledge],
    member: Bool[ndarray, " passage"],
    calibration: Calibration,
) -> tuple[list[Effect], list[Claim]]:
    """By what is known and by every word; ways in which there are too few words for an interval are left out."""
    count = int(member.sum())
    if count < FEW:
        raise EmptyMask(f"{count} passages of the text match it, at least {FEW} are needed")
    known, every = counted
    if known.raw is None and every.raw is None:
        raise EmptyMask(f"{count} passages of the text match it, with {known.types} words of its own, too few to judge")
    types = evidence.types
    # The curve is of what is known; where nothing is said by that, P has none.
    words = None if known.raw is None else _made(evidence, area, member, known.raw.estimate, calibration, "words")
    found: list[Effect] = []
    for own in counted:
        if own.raw is None:
            continue
        update = {
            "probability": None if words is None else words.probability,
            "calibrated": words is not None and words.calibrated,
            "signal": "none" if words is None else words.signal,
            "excess": None if own.excess is None else own.excess.estimate,
            "items": own.items,
            "types": own.types,
            "margin_change": round(own.margin, DIGITS),
            "accuracy_change": round(own.accuracy, DIGITS),
            "largest_word": "" if own.largest_type is None else types[own.largest_type],
        }
        found.append(_made(evidence, area, member, own.raw.estimate, UNCALIBRATED, "words").model_copy(update=update))
    return found, [own.claim(count) for own in counted if own.raw is not None]


def _made(
    evidence: AuditEvidence,
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
        baselines=evidence.baselines(member),
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


_READ = ("source", "items", "magnitude", "direction", "excess", "probability", "calibrated", "accuracy_change", "largest_word")
"""What is one reading's own."""


def settled(effects: list[Effect], readings: list[list[Effect]], judged: list[JudgedClaim]) -> list[Effect]:
    """The effects with what is said of each, by the reading that says it. A P that was made of another reading, and is below
    one half, says nothing of an area that is affected; where the evidence is not enough, there is no P."""
    found = []
    for effect, own, said in zip(effects, readings, judged, strict=True):
        chosen, affected = own[said.reading], said.finding == "affected"
        low = chosen.probability is not None and chosen.probability < MATERIAL
        other = low and affected and said.reading > 0
        update = {name: getattr(chosen, name) for name in _READ}
        update |= {"probability": None, "calibrated": False} if other else {}
        if said.finding == "not enough evidence":  # a P, small or large, would say what the evidence does not
            update["probability"] = None
        update |= {
            "finding": said.finding,
            "beyond": said.beyond,
            "q_value": said.q_value,
            "power": said.power,
            "power_singly": said.power_singly,
            "more_passages": said.more_passages,
            "signal": "likelihood" if affected and effect.signal == "none" else effect.signal,
        }
        found.append(effect.model_copy(update=update))
    return found


def purposeless(evidence: AuditEvidence | None) -> list[tuple[Knowledge, Knowledge]]:
    """What changes without a purpose did, by what is known and by every word; nothing where there is no evidence."""
    return [] if evidence is None else [(weigh(one), weigh(one, "every")) for one in evidence.null]


def null_checks(null: list[tuple[Knowledge, Knowledge]]) -> list[NullCheck]:
    """What the report says of changes without a purpose; nothing where nothing is compared."""
    if not any(area.excess is not None for one in null for way in one for area in way.areas):
        return []
    return [
        NullCheck(
            name="same size, no purpose",
            description="changes of every weight tensor with rows and columns shuffled: same norm, rank and spectrum",
            statistic=f"largest change of an area beyond the others{of}, of {len(null)} such changes, noise taken off",
            value=max(largest_excess(one[way]) for one in null),
            threshold=MARGIN,
        )
        for way, of in enumerate((", of what is known", ", every word alike"))
    ]


def findings_of(
    found: AreaEffects,
    null: Sequence[tuple[Knowledge, Knowledge]],
    written: Sequence[tuple[Knowledge, Knowledge]] = (),
) -> list[Effect]:
    """The effects with their verdicts. `null`: `purposeless`; what is beyond the other areas has to be more than the largest
    excess of such changes. `written`: the same in text that the models wrote, of the areas that are read there."""
    given, own = _bars(null), _bars(written)
    claims = [
        [_with_bar(claim, own if effect.self_written else given) for claim in claims]
        for effect, claims in zip(found.effects, found.claims, strict=True)
    ]
    return settled(found.effects, found.readings, judge_claims(claims))


def _bars(null: Sequence[tuple[Knowledge, Knowledge]]) -> dict[str, float]:
    """By unit, the largest excess of changes without a purpose."""
    return {
        unit: max((largest_excess(one[way]) for one in null), default=0.0)
        for way, unit in enumerate((KNOWLEDGE_UNIT, EVERY_UNIT))
    }


def _with_bar(claim: Claim, bars: Mapping[str, float]) -> Claim:
    return claim if claim.raw is None else claim._replace(bar=bars.get(claim.raw.estimate.unit, 0.0))


def claims_of(found: AreaEffects) -> int:
    """How many claims are judged together."""
    measures = (one for own in found.claims for claim in own for one in (claim.raw, claim.excess))
    return sum(one is not None for one in measures)


def partial_effects(
    evidence: AuditEvidence, areas: tuple[Area, ...], index: int, calibration: Calibration
) -> list[tuple[PartialEffect, float]]:
    """A behaviour in the text of each capability, drawn towards their mean (`pooled`), and the shrunk size that its P was read
    at; those with fewer than 8 passages that show it are left out."""
    text = evidence.behaviours[index].text
    found: list[tuple[int, Measure]] = []
    for other, area in enumerate(areas):
        if area.kind != "capability":
            continue
        try:
            found.append((other, evidence.change(index, evidence.member[other])))
        except EmptyMask:
            continue
    parts = []
    for (other, _), measure in zip(found, pooled([own for _, own in found]), strict=True):
        within = evidence.member[other] & text
        magnitude, noise = measure.estimate, noise_of(measure)
        part = PartialEffect(
            area=areas[other].name,
            probability=_chance(magnitude, calibration.curve_of("text", magnitude.value), noise),
            direction=direction_of(magnitude, "behaviour"),
            magnitude=magnitude,
            baselines=evidence.baselines(within),
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
