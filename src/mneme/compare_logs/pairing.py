"""Two logs paired item by item, and what the pairs say: McNemar, clustered paired intervals, flips, equivalence, power.

McNemar 1947 (exact) where every item is one yes or no in both logs and is a cluster of its own; else the clustered paired
interval of `mneme.stats` (`paired_change`; scores on a scale `paired_mean_change`, numbers without one `clustered_ratio` of
the differences). Ours: a cluster whose items are not independent is one question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from mneme.compare_logs.reading import LogItem
from mneme.results import Estimate, TooFew
from mneme.results.compare_logs import Flip, JudgeAgreement, LogChange
from mneme.stats import (
    Rate,
    clustered_ratio,
    detectable_change,
    detectable_mean_change,
    detectable_shift,
    holm,
    mcnemar_exact,
    paired_change,
    paired_mean_change,
    paired_test,
)

LOWER_IS_BETTER = (
    "perplexity",
    "bits_per_byte",
    "loss",
    "brier",
    "ter",
    "wer",
    "cer",
    "error",
    "toxicity",
    "misaligned",
    "harm",
)
"""Parts of names of measures of which less is better; every other is taken as more is better."""
_SCALES = ((0.0, 1.0), (0.0, 10.0), (0.0, 100.0))
"""Scales that scores are given on: shares, marks up to ten, marks up to a hundred. Scores outside have none."""
Key = tuple[str, str]
"""(task, id)."""


@dataclass(frozen=True)
class Pairs:
    """The items of one task that both logs have."""

    task: str
    first: tuple[LogItem, ...]
    second: tuple[LogItem, ...]

    def measures(self) -> list[str]:
        """Those that some pair has in both logs, in the order of the first log."""
        named = dict.fromkeys(name for item in self.first for name in item.scores)
        return [name for name in named if any(self.have(name))]

    def have(self, measure: str) -> list[bool]:
        """Which pairs have this measure in both logs."""
        return [measure in one.scores and measure in two.scores for one, two in zip(self.first, self.second, strict=True)]

    def values(self, measure: str) -> tuple[Float[ndarray, " pair"], Float[ndarray, " pair"], list[str]]:
        """The numbers of both logs and the cluster of every pair that has them."""
        both = [(a, b) for a, b, has in zip(self.first, self.second, self.have(measure), strict=True) if has]
        first = np.array([a.scores[measure] for a, _ in both], dtype=np.float64)
        second = np.array([b.scores[measure] for _, b in both], dtype=np.float64)
        return first, second, [a.cluster or f"\0{number}" for number, (a, _) in enumerate(both)]


def pair_logs(first: Sequence[LogItem], second: Sequence[LogItem]) -> tuple[list[Pairs], dict[str, int]]:
    """The pairs of every task, in the order of the first log, and how many items of a task only one log has. An id that a log
    has several times is paired in the order in which it comes."""
    one, two = _numbered(first), _numbered(second)
    tasks = dict.fromkeys(task for (task, _), _ in one)
    pairs = []
    for task in tasks:
        keys = [key for key in one if key[0][0] == task and key in two]
        if keys:
            pairs.append(Pairs(task, tuple(one[key] for key in keys), tuple(two[key] for key in keys)))
    alone: dict[str, int] = {}
    for (task, _), _ in one.keys() ^ two.keys():
        alone[task] = alone.get(task, 0) + 1
    return pairs, dict(sorted(alone.items()))


def _numbered(items: Sequence[LogItem]) -> dict[tuple[Key, int], LogItem]:
    seen: dict[Key, int] = {}
    found = {}
    for item in items:
        key = (item.task, item.id)
        found[key, seen.get(key, 0)] = item
        seen[key] = seen.get(key, 0) + 1
    return found


def log_changes(pairs: Sequence[Pairs], margin: float) -> list[LogChange]:
    """Every measure of every task; of each task the first is primary, and those share one family (Holm)."""
    changes = []
    for one in pairs:
        for number, measure in enumerate(one.measures()):
            first, second, clusters = one.values(measure)
            changes.append(_change(one.task, measure, first, second, clusters, margin=margin, primary=number == 0))
    told = [i for i, change in enumerate(changes) if change.primary and change.p_value is not None]
    corrected = holm(np.array([changes[i].p_value for i in told], dtype=np.float64)).tolist() if told else []
    of = dict(zip(told, corrected, strict=True))
    return [change.model_copy(update={"p_holm": of.get(i)}) for i, change in enumerate(changes)]


def _change(
    task: str,
    measure: str,
    first: Float[ndarray, " pair"],
    second: Float[ndarray, " pair"],
    clusters: Sequence[str],
    *,
    margin: float,
    primary: bool,
) -> LogChange:
    names, place = np.unique(np.array(clusters), return_inverse=True)
    sums = [np.bincount(place, weights=values, minlength=len(names)) for values in (first, second)]
    counts = np.bincount(place, minlength=len(names)).astype(np.float64)
    higher = not any(part in measure.lower() for part in LOWER_IS_BETTER)
    everything = np.concatenate([first, second])
    scale = next((one for one in _SCALES if everything.min() >= one[0] and everything.max() <= one[1]), None)
    binary = bool(np.isin(everything, (0.0, 1.0)).all())
    compared = _Compared(sums[0], sums[1], counts, scale, binary=binary)
    change, p_value, detectable = compared.change(), compared.p_value(), compared.detectable()
    lost = int(((first == 1) & (second == 0)).sum()) if binary else None
    gained = int(((first == 0) & (second == 1)).sum()) if binary else None
    alone = binary and len(names) == len(first)
    if alone and lost is not None and gained is not None:
        p_value = mcnemar_exact(lost, gained)
    width = 1.0 if scale is None else scale[1] - scale[0]
    wide = compared.change(level=0.90)
    inside = isinstance(wide, Estimate) and -margin * width < wide.low and wide.high < margin * width
    worse_end = None if isinstance(wide, TooFew) else wide.low if higher else -wide.high
    return LogChange(
        task=task,
        measure=measure,
        primary=primary,
        higher_is_better=higher,
        items=len(first),
        first=float(first.mean()),
        second=float(second.mean()),
        change=change,
        test="exact McNemar" if alone else "clustered",
        p_value=p_value,
        p_holm=None,
        lost=lost,
        gained=gained,
        detectable=detectable,
        margin=margin * (100 if scale == (0.0, 1.0) else width),
        equivalent=inside if scale is not None else False,
        not_worse=scale is not None and worse_end is not None and worse_end > -margin * width,
    )


@dataclass(frozen=True)
class _Compared:
    """Sums of both logs over clusters, and how they are compared."""

    first: Float[ndarray, " cluster"]
    second: Float[ndarray, " cluster"]
    counts: Float[ndarray, " cluster"]
    scale: tuple[float, float] | None
    binary: bool

    def _paired(self, level: float) -> Rate | TooFew | None:
        if self.binary:
            return paired_change(self.first, self.counts, self.second, self.counts, "accuracy", level=level)
        if self.scale is None:
            return None
        unit = "share" if self.scale == (0.0, 1.0) else f"score 0-{self.scale[1]:.0f}"
        return paired_mean_change(self.first, self.counts, self.second, self.counts, unit, bounds=self.scale, level=level)

    def change(self, level: float = 0.95) -> Estimate | TooFew:
        """Mean of the second log minus that of the first."""
        found = self._paired(level)
        if found is None:
            same = not (self.second - self.first).any()
            return clustered_ratio(
                self.second - self.first, self.counts, "units of the score", level=level, identical=same, of="items"
            )
        return found if isinstance(found, TooFew) else found.estimate

    def p_value(self) -> float | None:
        """Two-sided, of no change; None where there are too few clusters."""
        found = self._paired(0.95)
        if found is None:
            tested = paired_test(self.second - self.first, self.counts, of="items")
            return None if isinstance(tested, TooFew) else tested
        return None if isinstance(found, TooFew) else found.p_value

    def detectable(self) -> float | None:
        """The true change that would have been shown with a probability of 80 %."""
        if self.binary:
            return detectable_change(self.first, self.counts, self.second, self.counts)
        if self.scale is None:
            return detectable_shift(self.second - self.first, self.counts)
        return detectable_mean_change(self.first, self.counts, self.second, self.counts, bounds=self.scale)


def flips_of(pairs: Sequence[Pairs]) -> list[Flip]:
    """Every item whose primary measure is 1 in one log and 0 in the other, lost ones of a task first."""
    found = []
    for one in pairs:
        measures = one.measures()
        for a, b in zip(one.first, one.second, strict=True):
            scores = (a.scores.get(measures[0]), b.scores.get(measures[0])) if measures else (None, None)
            if scores in ((1.0, 0.0), (0.0, 1.0)):
                found.append(
                    Flip(
                        task=one.task,
                        id=a.id,
                        lost=scores == (1.0, 0.0),
                        prompt=a.prompt or b.prompt,
                        target=a.target or b.target,
                        before=a.answer,
                        after=b.answer,
                    )
                )
    place = {one.task: number for number, one in enumerate(pairs)}
    return sorted(found, key=lambda flip: (place[flip.task], not flip.lost))


def judges_of(pairs: Sequence[Pairs]) -> list[JudgeAgreement]:
    """Every two yes-or-no measures of a task on the answers that both have judged (Cohen 1960)."""
    found = []
    for one in pairs:
        items = [*one.first, *one.second]
        said = {name: [item.scores.get(name) for item in items] for name in one.measures()}
        yes_no = [name for name, values in said.items() if set(values) - {None} <= {0.0, 1.0}]
        for first, second in combinations(yes_no, 2):
            both = [(a, b) for a, b in zip(said[first], said[second], strict=True) if a is not None and b is not None]
            if both:
                a, b = (np.array(part, dtype=np.float64) == 1.0 for part in zip(*both, strict=True))
                found.append(_agreement(one.task, (first, second), a, b))
    return found


def _agreement(task: str, names: tuple[str, str], a: Bool[ndarray, " answer"], b: Bool[ndarray, " answer"]) -> JudgeAgreement:
    same = float((a == b).mean())
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    kappa = None if chance >= 1.0 or a.all() or b.all() or not a.any() or not b.any() else (same - chance) / (1 - chance)
    return JudgeAgreement(task=task, first=names[0], second=names[1], answers=len(a), same=same, kappa=kappa)


def sides(changes: Sequence[LogChange], areas: Mapping[str, tuple[Estimate, str]]) -> list[LogChange]:
    """The primary changes with what an audit forecast of the area whose words all stand in the name of the task."""
    told = []
    for change in changes:
        words = set(_words(change.task))
        area = next((name for name in areas if set(_words(name)) <= words), None) if change.primary else None
        update = {} if area is None else {"forecast": areas[area][0], "forecast_said": f"{area}: {areas[area][1]}"}
        told.append(change.model_copy(update=update))
    return told


def _words(name: str) -> list[str]:
    return "".join(sign if sign.isalnum() else " " for sign in name.casefold()).split()
