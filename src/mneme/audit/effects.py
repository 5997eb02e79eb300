"""Step 9 of the audit: from the screen, the areas and the latents to effects, each with probability and evidence."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from mneme.audit.reading import FEW, Reading
from mneme.audit.screening import Screening
from mneme.errors import EmptyMask
from mneme.predict.areas import Area
from mneme.predict.calibration import Calibration, probability
from mneme.predict.effects import knowledge_change, reference_passages
from mneme.predict.manner import pooled
from mneme.results import AbsentArea, Baselines, Direction, Effect, Estimate, PartialEffect

MATERIAL = 0.5
"""P from which an effect counts as found."""


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
    reading: Reading,
    areas: tuple[Area, ...],
    relative_change: Float[ndarray, " token"],
    calibration: Calibration,
    *,
    seed: int,
) -> AreaEffects:
    """Effects of all areas: knowledge of the capabilities, and behaviours as a whole and in the text of each capability.
    `relative_change` is |q|/|h| at the predicted tokens (baseline)."""
    effects: list[Effect] = []
    absent: list[AbsentArea] = []
    found = np.zeros(screening.table.n_passages, dtype=bool)
    knowledge = np.array([area.kind == "capability" for area in areas])
    membership = reading.membership
    reference = reference_passages(screening.table, membership.member[knowledge])
    for index, area in enumerate(areas):
        member = membership.member[index]
        try:
            magnitude = _magnitude(screening, reading, areas, index, reference, seed)
        except EmptyMask as reason:
            absent.append(AbsentArea(area=area.name, kind=area.kind, reason=str(reason), passages=int(member.sum())))
            continue
        chance = probability(magnitude, calibration.curve_of(area.kind, magnitude.value))
        if area.kind == "capability" and chance >= MATERIAL:
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
                parts=_parts(screening, reading, areas, index, relative_change, calibration, seed),
            )
        )
    return AreaEffects(effects, absent, found, reference)


def _magnitude(
    screening: Screening,
    reading: Reading,
    areas: tuple[Area, ...],
    index: int,
    reference: Bool[ndarray, " passage"],
    seed: int,
) -> Estimate:
    member = reading.membership.member[index]
    count = int(member.sum())
    if count < FEW:
        raise EmptyMask(f"{count} passages of the text match it, at least {FEW} are needed")
    if areas[index].kind == "behaviour":
        if index in reading.silent:
            raise EmptyMask(reading.silent[index])
        return reading.change(screening.shown, index, seed=seed)
    if not (screening.table.known() & member[screening.table.passage]).any():
        raise EmptyMask(f"{count} passages of the text match it, but neither model was sure of a telling word in them")
    return knowledge_change(screening.table, member, reference, seed=seed)


def _parts(
    screening: Screening,
    reading: Reading,
    areas: tuple[Area, ...],
    index: int,
    relative_change: Float[ndarray, " token"],
    calibration: Calibration,
    seed: int,
) -> list[PartialEffect]:
    """A behaviour in the text of each capability, drawn towards their mean (`pooled`); those with fewer than 5 passages that
    show it are left out."""
    if areas[index].kind != "behaviour":
        return []
    text = reading.manners[index].text
    found: list[tuple[int, Estimate]] = []
    for other, area in enumerate(areas):
        if area.kind != "capability":
            continue
        try:
            found.append((other, reading.change(screening.shown, index, reading.membership.member[other], seed=seed)))
        except EmptyMask:
            continue
    parts = []
    for (other, _), magnitude in zip(found, pooled([own for _, own in found]), strict=True):
        chance = probability(magnitude, calibration.curve_of("behaviour", magnitude.value))
        within = reading.membership.member[other] & (text.member | text.other)
        parts.append(
            PartialEffect(
                area=areas[other].name,
                probability=round(chance, 4),
                direction=direction_of(magnitude, "behaviour"),
                magnitude=magnitude,
                baselines=baselines(screening, within, relative_change),
            )
        )
    return parts


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
        nll=float(table.nll_change()[inside].mean()),
        activation=float(relative_change[inside].mean(dtype=np.float64)),
    )


def ranked(effects: list[Effect]) -> list[Effect]:
    """Sorted by probability, then size; ranks filled in."""
    order = sorted(effects, key=lambda e: (-e.probability, -abs(e.magnitude.value), e.area))
    return [effect.model_copy(update={"rank": place}) for place, effect in enumerate(order, start=1)]
