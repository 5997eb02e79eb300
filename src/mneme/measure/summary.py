"""Answers into records: rates by area, paired changes, the worst context, judge failures, question by question."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.measure.aggregate import question_weights
from mneme.measure.asking import Asked
from mneme.measure.likelihood import ChoiceScores
from mneme.measure.options import Aggregate
from mneme.measure.readings import UNSCORED, Readings, shares_of
from mneme.measure.suite import ALL, Suite
from mneme.results.measure import (
    STANDARD,
    JudgeFailures,
    MeasuredChange,
    MeasuredRate,
    QuestionRate,
    WorstContext,
)
from mneme.results.record import TooFew
from mneme.stats import (
    Rate,
    clustered_mean,
    clustered_rate,
    detectable_change,
    detectable_mean_change,
    equivalent,
    holm,
    mcnemar_exact,
    paired_change,
    paired_mean_change,
)

Normalised = Literal["choice", "token", "character"]
_SCALE = (0.0, 100.0)
"""Of scores."""
_ACCURACIES: dict[str, Normalised] = {
    "accuracy": "choice",
    "accuracy per character": "character",
    "accuracy per token": "token",
}


@dataclass(frozen=True)
class ContextAnswers:
    """What one model said under one context."""

    asked: list[Asked]
    answers: list[str]
    readings: Readings


@dataclass(frozen=True)
class ModelAnswers:
    """Everything one model did."""

    label: str
    choices: ChoiceScores | None
    open: dict[str, ContextAnswers]
    """By context, the standard one first."""


@dataclass(frozen=True)
class Tally:
    """One measure of one model in one area under one context, by cluster: sums of hits (or scores) and how many answers
    count."""

    area: str
    context: str
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
        return self.area, self.context, self.measure


def tallies_of(suite: Suite, model: ModelAnswers, aggregate: Aggregate = "answer") -> list[Tally]:
    """Every measure of one model: knowledge by area, then the open questions by area and context. Under a context only the
    primary measure, what is incoherent and what was not scored. `aggregate`: how answers to open questions make a share."""
    found = list(_choice_tallies(suite, model.choices)) if model.choices else []
    for context, said in model.open.items():
        areas = list(dict.fromkeys(question.area for question in suite.open))
        groups = {area: [q for q in suite.open if q.area == area] for area in areas}
        kinds = {(q.scale, q.counts_as) for q in suite.open}
        if len(areas) > 1 and len(kinds) == 1 and suite.open[0].scale != "label":
            groups[ALL] = list(suite.open)
        for area, questions in groups.items():
            inside = {id(question) for question in questions}
            of = [i for i, asked in enumerate(said.asked) if id(suite.open[asked.question]) in inside]
            for share in shares_of(questions, said.readings, of):
                if context != STANDARD and not (share.primary or share.name in ("incoherent", UNSCORED)):
                    continue
                names = [said.asked[i].cluster for i in of]
                counts = share.counted.astype(float)
                if aggregate == "question" and not share.is_score and share.name != UNSCORED:
                    counts = counts * question_weights(np.array([said.asked[i].question for i in of]), share.counted)
                key, sums = (area, context, share.name), share.values * counts
                found.append(_tally(key, names, sums, counts, primary=share.primary, is_score=share.is_score))
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
                context=tally.context,
                measure=tally.measure,
                primary=tally.primary,
                estimate=found if isinstance(found, TooFew) else found.estimate,
                minimal_detectable=_detectable(tally, [(tally.sums, tally.counts)], paired=False),
                answers=round(float(tally.counts.sum())),
            )
        )
    return rates


def changes_of(model: str, base: Sequence[Tally], tuned: Sequence[Sequence[Tally]], margin: float) -> list[MeasuredChange]:
    """Tuned minus base for every measure that both have; `tuned` holds one list for each training seed (usually one).

    `p_holm` is not corrected yet: `correct_claims` does that over all that is claimed. Where no question was answered by both,
    the estimate is TooFew of 0 questions.
    """
    first = {tally.key: tally for tally in base}
    rows = []
    for tally in tuned[0]:
        others = [next((t for t in seed if t.key == tally.key), None) for seed in tuned]
        seeds = [t for t in others if t is not None and t.counts.any()]
        before = first.get(tally.key)
        if before is not None and before.counts.any() and seeds and (len(seeds) == 1 or not tally.is_score):
            rows.append(_change(model, before, seeds, margin))
    return rows


@dataclass(frozen=True)
class ContextClaim:
    """One context of one model and area against its standard questions."""

    model: str
    plain: Tally
    in_context: Tally
    p_value: float | None
    """None where there are too few questions."""


def context_claims(model: str, tallies: Sequence[Tally]) -> list[ContextClaim]:
    """Every context against the standard questions, for every area of open questions; those without one in common are left
    out.

    Every primary rate of open questions is a share of bad answers.
    """
    found = []
    for plain in tallies:
        if not (plain.primary and plain.context == STANDARD and not plain.is_choice and plain.counts.any()):
            continue
        for in_context in tallies:
            if (
                in_context.primary
                and in_context.area == plain.area
                and in_context.context != STANDARD
                and _common(plain, [_aligned(plain, in_context)])
            ):
                beyond = paired_change(plain.sums, plain.counts, *_aligned(plain, in_context))
                found.append(ContextClaim(model, plain, in_context, beyond.p_value if isinstance(beyond, Rate) else None))
    return found


def correct_claims(
    changes: Sequence[MeasuredChange], contexts: Sequence[ContextClaim]
) -> tuple[list[MeasuredChange], list[tuple[ContextClaim, float | None]], int]:
    """(changes with Holm's p, contexts with theirs, how many claims were corrected for).

    One family is all that the page claims: primary changes of every model, area and context, and every context against the
    standard questions. The measures that are not primary, which no verdict rests on, are a family of their own.
    """
    of = [i for i, change in enumerate(changes) if change.primary and change.p_value is not None]
    asked = [i for i, context in enumerate(contexts) if context.p_value is not None]
    claimed = [p for i in of if (p := changes[i].p_value) is not None] + [
        p for i in asked if (p := contexts[i].p_value) is not None
    ]
    rest = [i for i, change in enumerate(changes) if not change.primary and change.p_value is not None]
    others = [p for i in rest if (p := changes[i].p_value) is not None]
    first, second = holm(np.array(claimed)), holm(np.array(others))
    holms = dict(zip(of, first.tolist(), strict=False)) | dict(zip(rest, second.tolist(), strict=True))
    told = [change.model_copy(update={"p_holm": holms.get(i)}) for i, change in enumerate(changes)]
    of_contexts = dict(zip(asked, first[len(of) :].tolist(), strict=True))
    return told, [(context, of_contexts.get(i)) for i, context in enumerate(contexts)], len(claimed)


def worst_contexts(contexts: Sequence[tuple[ContextClaim, float | None]]) -> list[WorstContext]:
    """For every model and area the context with the highest primary rate, against its standard questions.

    The intervals are at level 1 - 0.05 / contexts, so that they hold for the worst of them.
    """
    groups: dict[tuple[str, str], list[tuple[ContextClaim, float | None]]] = {}
    for claim, p_holm in contexts:
        groups.setdefault((claim.model, claim.plain.area), []).append((claim, p_holm))
    worst = []
    for (model, area), members in groups.items():
        level = 1 - 0.05 / len(members)
        claim, p_holm = max(members, key=lambda member: member[0].in_context.sums.sum() / member[0].in_context.counts.sum())
        plain, aligned = claim.plain, _aligned(claim.plain, claim.in_context)
        rate = clustered_rate(claim.in_context.sums, claim.in_context.counts, level=level)
        standard = clustered_rate(plain.sums, plain.counts)
        beyond = paired_change(plain.sums, plain.counts, *aligned, level=level)
        worst.append(
            WorstContext(
                model=model,
                area=area,
                measure=plain.measure,
                context=claim.in_context.context,
                rate=rate if isinstance(rate, TooFew) else rate.estimate,
                standard=standard if isinstance(standard, TooFew) else standard.estimate,
                beyond_standard=beyond if isinstance(beyond, TooFew) else beyond.estimate,
                minimal_detectable=_detectable(plain, [aligned]),
                p_holm=p_holm,
            )
        )
    return worst


def failures_of(model: str, tallies: Sequence[Tally]) -> list[JudgeFailures]:
    """Areas and contexts in which some answers have no verdict."""
    return [
        JudgeFailures(model=model, area=t.area, context=t.context, unscored=int(t.sums.sum()), answers=int(t.counts.sum()))
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
            rows.append(QuestionRate(id=question.id, area=question.area, context=STANDARD, hits=hits, answers=[1] * len(hits)))
    for context in models[0].open if models else ():
        for number, asking in enumerate(suite.open):
            hits, counts = [], []
            for model in models:
                said = model.open[context]
                of = [i for i, asked in enumerate(said.asked) if asked.question == number]
                share = next((s for s in shares_of([asking], said.readings, of) if s.primary), None)
                hits.append(0.0 if share is None else float((share.values * share.counted).sum()))
                counts.append(0 if share is None else int(share.counted.sum()))
            rows.append(QuestionRate(id=asking.id, area=asking.area, context=context, hits=hits, answers=counts))
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
            key, ones = (area, STANDARD, measure), np.ones(len(values))
            yield _tally(key, names, values, ones, primary=per == "choice", is_choice=True)


def _tally(
    key: tuple[str, str, str],
    names: Sequence[str],
    sums: ndarray,
    counts: ndarray,
    *,
    primary: bool,
    is_score: bool = False,
    is_choice: bool = False,
) -> Tally:
    """`key`: area, context, measure."""
    area, context, measure = key
    clusters = tuple(dict.fromkeys(names))
    place = {name: i for i, name in enumerate(clusters)}
    at = np.array([place[name] for name in names], dtype=np.int64)
    added = np.bincount(at, sums.astype(float), len(clusters))
    counted = np.bincount(at, counts.astype(float), len(clusters))
    return Tally(
        area=area,
        context=context,
        measure=measure,
        primary=primary,
        is_score=is_score,
        is_choice=is_choice,
        clusters=clusters,
        sums=added,
        counts=counted,
    )


def _rate(tally: Tally) -> Rate | TooFew:
    if tally.is_score:
        return clustered_mean(tally.sums, tally.counts, "score 0-100", bounds=_SCALE)
    return clustered_rate(tally.sums, tally.counts, "accuracy" if tally.is_choice else "rate")


def _detectable(base: Tally, others: Sequence[tuple[ndarray, ndarray]], *, paired: bool = True) -> float | None:
    sums, counts = _stacked(others)
    if base.is_score:
        return detectable_mean_change(base.sums, base.counts, sums, counts, bounds=_SCALE, paired=paired)
    return detectable_change(base.sums, base.counts, sums, counts, paired=paired)


def _stacked(pairs: Sequence[tuple[ndarray, ndarray]]) -> tuple[ndarray, ndarray]:
    """Sums and counts by seed, or of the only one without that axis."""
    if len(pairs) == 1:
        return pairs[0]
    return np.array([sums for sums, _ in pairs]), np.array([counts for _, counts in pairs])


def _common(base: Tally, others: Sequence[tuple[ndarray, ndarray]]) -> bool:
    """Whether any question was answered by both."""
    return bool(((base.counts > 0) & (sum(counts for _, counts in others) > 0)).any())


def _aligned(plain: Tally, other: Tally) -> tuple[ndarray, ndarray]:
    """Sums and counts of `other` in the order of the clusters of `plain`; clusters it lacks have no answers."""
    place = {name: i for i, name in enumerate(other.clusters)}
    at = [place.get(name, -1) for name in plain.clusters]
    return np.array([other.sums[i] if i >= 0 else 0.0 for i in at]), np.array([other.counts[i] if i >= 0 else 0.0 for i in at])


def _change(model: str, base: Tally, seeds: Sequence[Tally], margin: float) -> MeasuredChange:
    pairs = [_aligned(base, seed) for seed in seeds]
    sums, counts = _stacked(pairs)
    unit = "score 0-100" if base.is_score else "accuracy" if base.is_choice else "rate"
    found: Rate | TooFew = TooFew(value=None, unit=unit, n=0, needed=5, of="questions that both models answered")
    same, detectable, discordant = False, None, None
    if _common(base, pairs):
        if base.is_score:
            found = paired_mean_change(base.sums, base.counts, sums, counts, unit, bounds=_SCALE)
            inner = paired_mean_change(base.sums, base.counts, sums, counts, unit, bounds=_SCALE, level=0.90)
            wide = 100 * margin
            same = isinstance(inner, Rate) and -wide < inner.estimate.low and inner.estimate.high < wide
        else:
            found = paired_change(base.sums, base.counts, sums, counts, unit)
            same = equivalent(base.sums, base.counts, sums, counts, margin)
        detectable = _detectable(base, pairs)
        discordant = _discordant(base, sums, counts) if base.is_choice and len(seeds) == 1 else None
    told = isinstance(found, Rate)
    p_value = found.p_value if isinstance(found, Rate) else None
    return MeasuredChange(
        model=model,
        area=base.area,
        context=base.context,
        measure=base.measure,
        primary=base.primary,
        estimate=found.estimate if isinstance(found, Rate) else found,
        minimal_detectable=detectable,
        p_value=mcnemar_exact(*discordant) if told and discordant else p_value,
        p_holm=None,
        test="clustered" if discordant is None else "exact McNemar",
        lost=None if discordant is None else discordant[0],
        gained=None if discordant is None else discordant[1],
        margin=100 * margin if base.is_score else margin,
        equivalent=same,
    )


def _discordant(base: Tally, sums: ndarray, counts: ndarray) -> tuple[int, int] | None:
    """Questions lost and gained, of those that both answered once; None where some question has several answers."""
    both = (base.counts > 0) & (counts > 0)
    if not (base.counts[both] == 1).all() or not (counts[both] == 1).all():
        return None
    before, after = base.sums[both] == 1, sums[both] == 1
    return int((before & ~after).sum()), int((~before & after).sum())
