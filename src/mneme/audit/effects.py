"""Step 9 of the audit: from the screen, the areas and the latents to effects, each with probability and evidence."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from mneme.audit.screening import Screening
from mneme.errors import EmptyMask
from mneme.predict.areas import Area, Membership, Words, presence_log_ratio
from mneme.predict.calibration import Calibration, probability
from mneme.predict.effects import knowledge_change, manner_change, reference_passages
from mneme.results import AbsentArea, Baselines, Direction, Effect, Estimate

MATERIAL = 0.5
"""P from which an effect counts as found."""
_FEW = 5


class AreaEffects(NamedTuple):
    """Every area's effect, or why it has none."""

    effects: list[Effect]
    absent: list[AbsentArea]
    found: Bool[ndarray, " passage"]
    """Passages of areas with P >= 0.5."""
    reference: Bool[ndarray, " passage"]
    """Passages of the areas that changed least (`reference_passages`)."""


def area_effects(
    screening: Screening,
    words: Words,
    areas: tuple[Area, ...],
    membership: Membership,
    relative_change: Float[ndarray, " token"],
    calibration: Calibration,
    *,
    seed: int,
) -> AreaEffects:
    """Effects of all areas, knowledge first: passages of areas whose knowledge changed are kept out of manner contrasts,
    where a lost fact would pass for an unlikely manner. `relative_change` is |q|/|h| at the predicted tokens (baseline)."""
    effects: list[Effect] = []
    absent: list[AbsentArea] = []
    found = np.zeros(screening.table.n_passages, dtype=bool)
    knowledge = np.array([area.kind == "capability" for area in areas])
    reference = reference_passages(screening.table, membership.member[knowledge])
    for kind in ("capability", "behaviour"):
        for index, area in enumerate(areas):
            if area.kind != kind:
                continue
            member = membership.member[index]
            magnitude = _magnitude(screening, words, area, member, found, reference, seed)
            if isinstance(magnitude, AbsentArea):
                absent.append(magnitude)
                continue
            chance = probability(magnitude, calibration.curve_of(kind, magnitude.value))
            if kind == "capability" and chance >= MATERIAL:
                found = found | member
            effects.append(
                Effect(
                    area=area.name,
                    kind=area.kind,
                    probability=round(chance, 4),
                    direction=direction_of(magnitude, area.kind),
                    magnitude=magnitude,
                    evidence=[],
                    baselines=baselines(screening, member, relative_change),
                    signal="likelihood" if chance >= MATERIAL else "none",
                )
            )
    return AreaEffects(effects, absent, found, reference)


def _magnitude(
    screening: Screening,
    words: Words,
    area: Area,
    member: Bool[ndarray, " passage"],
    found: Bool[ndarray, " passage"],
    reference: Bool[ndarray, " passage"],
    seed: int,
) -> Estimate | AbsentArea:
    count = int(member.sum())
    try:
        if count < _FEW:
            raise EmptyMask(f"{count} passages of the text match it, at least {_FEW} are needed")
        if area.kind == "capability" and not (screening.table.known() & member[screening.table.passage]).any():
            raise EmptyMask(f"{count} passages of the text match it, but neither model was sure of a telling word in them")
        if area.kind == "capability":
            return knowledge_change(screening.table, member, reference, seed=seed)
        return manner_change(screening.table, words, member & ~found, telling_words(words, member), ~found, seed=seed)
    except EmptyMask as reason:
        return AbsentArea(area=area.name, kind=area.kind, reason=str(reason), passages=count)


def telling_words(words: Words, member: Bool[ndarray, " passage"]) -> Bool[ndarray, " word"]:
    """Words at least e times as frequent inside the members as outside: what makes them members."""
    inside, outside = words.frequency(member), words.frequency(~member)
    ratio = presence_log_ratio(inside, int(member.sum()), outside, int((~member).sum()))
    return np.asarray((ratio > 1.0) & (inside > 0))


def direction_of(magnitude: Estimate, kind: str) -> Direction:
    """worse/better for knowledge, more/less for manner, changed where the estimate is exactly 0."""
    if magnitude.value == 0.0:
        return "changed"
    if kind == "behaviour":
        return "more" if magnitude.value > 0 else "less"
    return "better" if magnitude.value > 0 else "worse"


def baselines(screening: Screening, member: Bool[ndarray, " passage"], relative_change: Float[ndarray, " token"]) -> Baselines:
    """What the cheap signals say of the member passages: means over all their tokens."""
    table = screening.table
    inside = member[table.passage]
    if not inside.any():
        raise EmptyMask("No predicted token lies in these passages.")
    return Baselines(
        kl=float(screening.screened.kl_tuned_to_base.reshape(-1)[inside].mean(dtype=np.float64)),
        nll=float((table.logp_base - table.logp_tuned)[inside].mean()),
        activation=float(relative_change[inside].mean(dtype=np.float64)),
    )


def ranked(effects: list[Effect]) -> list[Effect]:
    """Sorted by probability, then size; ranks filled in."""
    order = sorted(effects, key=lambda e: (-e.probability, -abs(e.magnitude.value), e.area))
    return [effect.model_copy(update={"rank": place}) for place, effect in enumerate(order, start=1)]
