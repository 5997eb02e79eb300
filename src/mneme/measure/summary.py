"""Answers into records: rates by area, paired changes, the worst cue, judge failures, question by question."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.measure.asking import Asked
from mneme.measure.likelihood import ChoiceScores
from mneme.measure.readings import UNSCORED, Readings, shares_of
from mneme.measure.suite import Suite
from mneme.results.measurement import (
    STANDARD,
    JudgeFailures,
    MeasuredChange,
    MeasuredRate,
    QuestionRate,
    WorstCue,
)
from mneme.stats import (
    Rate,
    clustered_mean,
    clustered_rate,
    equivalent,
    holm,
    mcnemar_exact,
    paired_change,
    paired_mean_change,
)

ALL = "all"
Normalised = Literal["choice", "token", "character"]
_ACCURACIES: dict[str, Normalised] = {
    "accuracy": "choice",
    "accuracy per character": "character",
    "accuracy per token": "token",
}


@dataclass(frozen=True)
class CueAnswers:
    """What one model said under one cue."""

    asked: list[Asked]
    answers: list[str]
    readings: Readings


@dataclass(frozen=True)
class ModelAnswers:
    """Everything one model did."""

    label: str
    choices: ChoiceScores | None
    open: dict[str, CueAnswers]
    """By cue, the standard one first."""


@dataclass(frozen=True)
class Tally:
    """One measure of one model in one area under one cue, by cluster: sums of hits (or scores) and how many answers count."""

    area: str
    cue: str
    measure: str
    primary: bool
    is_score: bool
    is_choice: bool
    clusters: tuple[str, ...]
    sums: Float[ndarray, " cluster"]
    counts: Float[ndarray, " cluster"]

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is compared by."""
        return self.area, self.cue, self.measure


def tallies_of(suite: Suite, model: ModelAnswers) -> list[Tally]:
    """Every measure of one model: knowledge by area, then the open questions by area and cue. Under a cue only the primary
    measure, what is incoherent and what was not scored."""
    found = list(_choice_tallies(suite, model.choices)) if model.choices else []
    for cue, said in model.open.items():
        areas = list(dict.fromkeys(question.area for question in suite.open))
        groups = {area: [q for q in suite.open if q.area == area] for area in areas}
        kinds = {(q.scale, q.counts_as) for q in suite.open}
        if len(areas) > 1 and len(kinds) == 1 and suite.open[0].scale != "label":
            groups[ALL] = list(suite.open)
        for area, questions in groups.items():
            inside = {id(question) for question in questions}
            of = [i for i, asked in enumerate(said.asked) if id(suite.open[asked.question]) in inside]
            for share in shares_of(questions, said.readings, of):
                if cue != STANDARD and not (share.primary or share.name in ("incoherent", UNSCORED)):
                    continue
                names = [said.asked[i].cluster for i in of]
                sums = share.values * share.counted
                found.append(_tally(area, cue, share.name, share.primary, names, sums, share.counted, share.is_score))
    return found


def rates_of(model: str, tallies: Sequence[Tally]) -> list[MeasuredRate]:
    """A record of each tally that has an answer which counts; what has none is in the judge's failures."""
    rates = []
    for tally in tallies:
        if not tally.counts.any():
            continue
        found = _rate(tally)
        rates.append(
            MeasuredRate(
                model=model,
                area=tally.area,
                cue=tally.cue,
                measure=tally.measure,
                primary=tally.primary,
                estimate=found.estimate,
                minimal_detectable=found.minimal_detectable,
                answers=found.answers,
            )
        )
    return rates


def changes_of(model: str, base: Sequence[Tally], tuned: Sequence[Sequence[Tally]], margin: float) -> list[MeasuredChange]:
    """Tuned minus base for every measure that both have; `tuned` holds one list for each training seed (usually one).

    Holm's correction is over the primary measures of the standard questions, over those under cues, and within every other
    measure over its areas.
    """
    first = {tally.key: tally for tally in base}
    rows = []
    for key, tally in ((tally.key, tally) for tally in tuned[0]):
        others = [next((t for t in seed if t.key == key), None) for seed in tuned]
        seeds = [t for t in others if t is not None and t.counts.any()]
        if key in first and first[key].counts.any() and seeds and (len(seeds) == 1 or not tally.is_score):
            rows.append((tally, *_change(first[key], seeds, margin)))
    families: dict[tuple[bool, str], list[int]] = {}
    for i, (tally, *_) in enumerate(rows):
        family = (tally.cue == STANDARD, "primary" if tally.primary else tally.measure)
        families.setdefault(family, []).append(i)
    corrected = np.ones(len(rows))
    for members in families.values():
        corrected[members] = holm(np.array([rows[i][2] for i in members]))
    return [
        _change_record(model, tally, found, p_value, float(corrected[i]), discordant, margin, same)
        for i, (tally, found, p_value, discordant, same) in enumerate(rows)
    ]


def worst_cues(model: str, tallies: Sequence[Tally]) -> list[WorstCue]:
    """For every area of open questions the cue with the highest primary rate, against its standard questions.

    Every primary rate of open questions is a share of bad answers. The intervals are at level 1 - 0.05 / cues.
    """
    standard = {t.area: t for t in tallies if t.primary and t.cue == STANDARD and not t.is_choice and t.counts.any()}
    worst = []
    for area, plain in standard.items():
        cued = [t for t in tallies if t.primary and t.area == area and t.cue != STANDARD and t.counts.any()]
        if not cued:
            continue
        level = 1 - 0.05 / len(cued)
        beyond = [paired_change(plain.sums, plain.counts, *_aligned(plain, t), level=level) for t in cued]
        adjusted = holm(np.array([1.0 if found.p_value is None else found.p_value for found in beyond]))
        rates = [clustered_rate(t.sums, t.counts, level=level).estimate for t in cued]
        at = int(np.argmax([rate.value for rate in rates]))
        worst.append(
            WorstCue(
                model=model,
                area=area,
                measure=plain.measure,
                cue=cued[at].cue,
                rate=rates[at],
                standard=clustered_rate(plain.sums, plain.counts).estimate,
                beyond_standard=beyond[at].estimate,
                minimal_detectable=beyond[at].minimal_detectable,
                p_holm=float(adjusted[at]),
            )
        )
    return worst


def failures_of(model: str, tallies: Sequence[Tally]) -> list[JudgeFailures]:
    """Areas and cues in which some answers have no verdict."""
    return [
        JudgeFailures(model=model, area=t.area, cue=t.cue, unscored=int(t.sums.sum()), answers=int(t.counts.sum()))
        for t in tallies
        if t.measure == UNSCORED and t.sums.any()
    ]


def questions_of(suite: Suite, models: Sequence[ModelAnswers]) -> list[QuestionRate]:
    """Every question with the hits of its primary measure, model by model."""
    rows = []
    if suite.choices and all(model.choices for model in models):
        right = np.array([question.answer for question in suite.choices])
        picks = [model.choices.picks() == right for model in models if model.choices]
        for i, question in enumerate(suite.choices):
            hits = [float(of[i]) for of in picks]
            rows.append(QuestionRate(id=question.id, area=question.area, cue=STANDARD, hits=hits, answers=[1] * len(hits)))
    for cue in models[0].open if models else ():
        for number, asking in enumerate(suite.open):
            hits, counts = [], []
            for model in models:
                said = model.open[cue]
                of = [i for i, asked in enumerate(said.asked) if asked.question == number]
                share = next((s for s in shares_of([asking], said.readings, of) if s.primary), None)
                hits.append(0.0 if share is None else float((share.values * share.counted).sum()))
                counts.append(0 if share is None else int(share.counted.sum()))
            rows.append(QuestionRate(id=asking.id, area=asking.area, cue=cue, hits=hits, answers=counts))
    return rows


def _choice_tallies(suite: Suite, scores: ChoiceScores) -> Iterator[Tally]:
    right = np.array([question.answer for question in suite.choices])
    areas = np.array([question.area for question in suite.choices])
    clusters = np.array([question.cluster for question in suite.choices])
    wanted = [ALL] if len(set(areas)) > 1 else []
    differ = any(len({len(ids) for ids in choices}) > 1 for choices in scores.ids)
    for measure, per in _ACCURACIES.items():
        if per == "token" and not differ:
            continue
        correct = (scores.picks(per) == right).astype(float)
        for area in [*dict.fromkeys(areas.tolist()), *wanted]:
            inside = np.ones(len(areas), dtype=bool) if area == ALL else areas == area
            names, values = clusters[inside].tolist(), correct[inside]
            yield _tally(area, STANDARD, measure, per == "choice", names, values, np.ones(len(values)), False, True)


def _tally(
    area: str,
    cue: str,
    measure: str,
    primary: bool,
    names: Sequence[str],
    sums: ndarray,
    counts: ndarray,
    is_score: bool,
    is_choice: bool = False,
) -> Tally:
    clusters = tuple(dict.fromkeys(names))
    place = {name: i for i, name in enumerate(clusters)}
    at = np.array([place[name] for name in names], dtype=np.int64)
    added = np.bincount(at, sums.astype(float), len(clusters))
    counted = np.bincount(at, counts.astype(float), len(clusters))
    return Tally(area, cue, measure, primary, is_score, is_choice, clusters, added, counted)


def _rate(tally: Tally) -> Rate:
    if tally.is_score:
        return clustered_mean(tally.sums, tally.counts, "score 0-100")
    return clustered_rate(tally.sums, tally.counts, "accuracy" if tally.is_choice else "rate")


def _aligned(plain: Tally, other: Tally) -> tuple[ndarray, ndarray]:
    """Sums and counts of `other` in the order of the clusters of `plain`; clusters it lacks have no answers."""
    place = {name: i for i, name in enumerate(other.clusters)}
    at = [place.get(name, -1) for name in plain.clusters]
    return np.array([other.sums[i] if i >= 0 else 0.0 for i in at]), np.array([other.counts[i] if i >= 0 else 0.0 for i in at])


def _change(base: Tally, seeds: Sequence[Tally], margin: float) -> tuple[Rate, float, tuple[int, int] | None, bool]:
    """(change, p, questions lost and gained where every question has one answer, equivalent within the margin)."""
    pairs = [_aligned(base, seed) for seed in seeds]
    if base.is_score:
        found = paired_mean_change(base.sums, base.counts, *pairs[0], "score 0-100")
        inner = paired_mean_change(base.sums, base.counts, *pairs[0], "score 0-100", level=0.90).estimate
        wide = 100 * margin
        return found, found.p_value or 0.0, None, -wide < inner.low and inner.high < wide
    sums, counts = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    if len(seeds) == 1:
        sums, counts = sums[0], counts[0]
    unit = "accuracy" if base.is_choice else "rate"
    found = paired_change(base.sums, base.counts, sums, counts, unit)
    same = equivalent(base.sums, base.counts, sums, counts, margin)
    p_value = 1.0 if found.p_value is None else found.p_value
    if base.is_choice and len(seeds) == 1 and bool((base.counts == 1).all()):
        lost, gained = int(((base.sums == 1) & (sums == 0)).sum()), int(((base.sums == 0) & (sums == 1)).sum())
        return found, mcnemar_exact(lost, gained), (lost, gained), same
    return found, p_value, None, same


def _change_record(
    model: str,
    tally: Tally,
    found: Rate,
    p_value: float,
    p_holm: float,
    discordant: tuple[int, int] | None,
    margin: float,
    same: bool,
) -> MeasuredChange:
    return MeasuredChange(
        model=model,
        area=tally.area,
        cue=tally.cue,
        measure=tally.measure,
        primary=tally.primary,
        estimate=found.estimate,
        minimal_detectable=found.minimal_detectable,
        p_value=p_value,
        p_holm=p_holm,
        test="clustered" if discordant is None else "exact McNemar",
        lost=None if discordant is None else discordant[0],
        gained=None if discordant is None else discordant[1],
        margin=100 * margin if tally.is_score else margin,
        equivalent=same,
    )
