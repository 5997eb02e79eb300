"""The statistics of benchmarks/coverage.py: what every public one says of data with a truth put in by hand."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from coverage_data import (
    CORRELATION,
    FLIPS,
    RATES,
    SHAPES,
    Case,
    batches,
    both_ways,
    crossed,
    moved,
    noise,
    own_rates,
    pairs,
    scored,
    turned,
)
from scipy import special

from mneme import stats
from mneme.measure.agreement import kappa as judge_kappa
from mneme.measure.choosing import paired
from mneme.predict.behaviour import pooled
from mneme.predict.knowledge import weighted_change
from mneme.predict.verdicts import Measure
from mneme.results import Estimate
from mneme.screen import trial
from mneme.stats import TooFew, means, rates
from mneme.stats.means import FEWEST_CLUSTERS

means.bootstrap_weights = trial.bootstrap_weights = lru_cache(maxsize=8)(stats.bootstrap_weights)
"""The draws of a seed are the same at every call: kept, a cell takes a tenth of the time."""

Judged = tuple[np.ndarray | None, np.ndarray | None]
"""(does the interval hold the truth, is the p-value at most .05) of every run; None where there is no such thing."""
Run = Callable[[np.random.Generator, Case, int], Judged | None]
"""None where the statistic says TooFew."""


class Statistic(NamedTuple):
    """What is judged, on which cells."""

    name: str
    run: Run
    levels: tuple[float | str, ...]
    effects: tuple[bool, ...] = (False, True)
    sizes: tuple[bool, ...] = (False, True)
    answers: int = 0
    """Answers (or words) a cluster, of which some are rare; 0 for numbers without a scale."""

    def clusters(self, case: Case) -> float:
        """How many clusters the cell has; of numbers without a scale, how many of equal weight they are worth (Kish 1965)."""
        return case.clusters / (np.e if case.skewed and not self.answers else 1.0)

    def rarer(self, case: Case) -> float:
        """How many independent answers of the rarer kind the cell is expected to hold, under the model that has fewer."""
        if not self.answers or not isinstance(case.level, float):
            return np.inf
        # Lognormal sizes, or weights, of sigma 1: the mean square is e times the square of the mean.
        unlike = np.e if case.skewed else 1.0
        worth = case.clusters * self.answers / (1 + (self.answers * unlike - 1) * CORRELATION)
        if self.answers == 1:
            worth = case.clusters / unlike
        after = case.level / 4 if self.levels is FLIPS else moved(case.level)
        shares = [case.level, after] if case.effect else [case.level]
        return worth * min(min(share, 1 - share) for share in shares)


class Cell(NamedTuple):
    """What came out of one cell; None where there is no interval or no p-value, both where it said TooFew."""

    name: str
    case: Case
    coverage: float | None
    rejected: float | None


def joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> Judged:
    """Of all batches."""
    return np.concatenate([held for held, _ in parts]), np.concatenate([said for _, said in parts])


def change_of(base: rates.Arm, tuned: rates.Arm, truth: float) -> tuple[np.ndarray, np.ndarray]:
    """The interval of `paired_change` in every run; p is at most .05 where it leaves out 0 (tests hold it to that)."""
    joint = rates.joint_of(base, tuned)
    low, high = rates.change_bounds(base, tuned, joint, special.stdtrit(joint.degrees, 0.975))
    return (low <= truth) & (truth <= high), (low > 0) | (high < 0)


def rate(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """The interval of `clustered_rate`."""
    held = []
    for n, some in batches(rng, case, runs):
        own = own_rates(rng.normal(size=(some, 1, len(n))), float(case.level))
        held.append(_holds(rates.arm_of(rng.binomial(n.astype(int), own).astype(float), n[None]), float(case.level)))
    return np.concatenate(held), None


def _holds(arm: rates.Arm, truth: float) -> np.ndarray:
    low, high = rates.rate_bounds(arm, special.stdtrit(arm.degrees, 0.975))
    return (low <= truth) & (truth <= high)


def change(rng: np.random.Generator, case: Case, runs: int, seeds: int = 1) -> Judged | None:
    """`paired_change`, of one training seed or several."""
    parts = []
    for n, some in batches(rng, case, runs):
        base, tuned, truth = pairs(rng, case, some, seeds)
        hits = [rng.binomial(n.astype(int), own).astype(float) for own in (base, tuned)]
        parts.append(change_of(rates.arm_of(hits[0], n[None]), rates.arm_of(hits[1], np.tile(n, (seeds, 1))), truth))
    return joined(parts)


def one_answer(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """The same where every question has one answer (choices)."""
    base, tuned, truth = pairs(rng, case, runs)
    n = np.ones((1, case.clusters))
    hits = [(rng.random(own.shape) < own).astype(float) for own in (base, tuned)]
    return change_of(rates.arm_of(hits[0], n), rates.arm_of(hits[1], n), truth)


def mcnemar(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """McNemar's exact test on the same."""
    base, tuned, _ = pairs(rng, case, runs)
    before, after = (rng.random(own.shape) < own for own in (base, tuned))
    lost, gained = (before & ~after).sum((1, 2)), (~before & after).sum((1, 2))
    return None, np.array([stats.mcnemar_exact(int(a), int(b)) <= 0.05 for a, b in zip(lost, gained, strict=True)])


def score(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`clustered_mean` on a scale."""
    held = []
    for n, some in batches(rng, case, runs):
        sums = scored(rng, own_rates(rng.normal(size=(some, 1, len(n))), float(case.level)), n)
        held.append(_holds(rates.arm_of(sums, n[None], binary=False), float(case.level)))
    return np.concatenate(held), None


def score_change(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`paired_mean_change`."""
    parts = []
    for n, some in batches(rng, case, runs):
        base, tuned, truth = pairs(rng, case, some)
        arms = [rates.arm_of(scored(rng, own, n), n[None], binary=False) for own in (base, tuned)]
        parts.append(change_of(arms[0], arms[1], truth))
    return joined(parts)


def ratio(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`clustered_ratio` and `paired_test`; the effect is half a standard deviation of a cluster."""
    held, said = [], []
    for n, some in batches(rng, case, runs):
        spread = np.sqrt(CORRELATION * n**2 + (1 - CORRELATION) * n)
        truth = 0.5 * float(np.sqrt(CORRELATION + (1 - CORRELATION) / 20)) if case.effect else 0.0
        for above in spread * noise(rng, case.level, (some, len(n))) + truth * n:
            found = stats.clustered_ratio(above, n, "nats")
            if isinstance(found, TooFew):
                return None
            held.append(found.low <= truth <= found.high)
            said.append(found.low > 0 or found.high < 0)
    return np.array(held), np.array(said)


Told = tuple[float, Estimate, float | None]
"""(truth, interval, p)."""


def judged_each(
    rng: np.random.Generator, case: Case, runs: int, one: Callable[[np.random.Generator, Case], Told | None]
) -> Judged | None:
    """Run by run. Where the function gives no p, 0 outside the interval is taken for a claim."""
    held, said = [], []
    for _ in range(runs):
        found = one(rng, case)
        if found is not None:
            truth, estimate, p_value = found
            held.append(estimate.low <= truth <= estimate.high)
            said.append(p_value <= 0.05 if p_value is not None else not estimate.low <= 0 <= estimate.high)
    return (np.array(held), np.array(said)) if held else None


def two_way(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`two_way` of numbers without a bound; as many word types as half of the documents."""
    return judged_each(rng, case, runs, _numbers_two_ways)


def _numbers_two_ways(rng: np.random.Generator, case: Case) -> Told | None:
    first, second = crossed(rng, case, max(5, case.clusters // 2))
    truth = 0.3 if case.effect else 0.0
    values = 0.5 * both_ways(rng, first, second) + noise(rng, case.level, (len(first),)) + truth
    found = stats.two_way(values, first, second, "")
    return None if isinstance(found, TooFew) else (truth, found.estimate, found.p_value)


def own_words(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`weighted_change`, the audit's effect on knowledge: as many word types as documents, at least 8."""
    return judged_each(rng, case, runs, _words)


def _words(rng: np.random.Generator, case: Case) -> Told | None:
    first, second = crossed(rng, case, max(8, case.clusters))
    change, truth = turned(both_ways(rng, first, second), case, rng)
    found = weighted_change(change, rng.uniform(0.3, 1.0, len(first)), first, second)
    return None if found is None else (truth, found.estimate, found.p_value)


def behaviour(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """The same of a behaviour in text, one place a passage; places of unequal weight where sizes are skewed."""
    return judged_each(rng, case, runs, _behaviour)


def _places(rng: np.random.Generator, case: Case) -> tuple[float, Measure | None]:
    change, truth = turned(rng.normal(size=case.clusters), case, rng)
    weight = np.exp(rng.normal(size=case.clusters)) if case.skewed else np.ones(case.clusters)
    each = np.arange(case.clusters)
    return truth, weighted_change(change, weight, each, each)


def _behaviour(rng: np.random.Generator, case: Case) -> Told | None:
    truth, found = _places(rng, case)
    return None if found is None else (truth, found.estimate, found.p_value)


def unlike(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`pooled`: one area of six that changes where five do not (or, without an effect, one of six that do not). The five are
    drawn from a hundred that were made for the cell."""
    others = [found for _ in range(100) if (found := _places(rng, case._replace(effect=False))[1]) is not None]
    return judged_each(rng, case, runs, partial(_unlike, others)) if others else None


def _unlike(others: list[Measure], rng: np.random.Generator, case: Case) -> Told | None:
    truth, found = _places(rng, case)
    known = [others[i] for i in rng.choice(len(others), 5, replace=False)]
    return None if found is None else (truth, pooled([found, *known])[0].estimate, None)


def two_texts(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`difference_of_ratios` of two sets of texts, as in repair's selectivity."""
    return judged_each(rng, case, runs, _two_texts)


def _two_texts(rng: np.random.Generator, case: Case) -> Told | None:
    truth = 0.5 if case.effect else 0.0
    sets = []
    for shift in (truth, 0.0):
        size = np.exp(rng.normal(size=case.clusters)) if case.skewed else np.ones(case.clusters)
        sets.append((size * (shift + noise(rng, case.level, (case.clusters,))), size))
    found = stats.difference_of_ratios(sets[0], sets[1], "")
    return None if isinstance(found, TooFew) else (truth, found, None)


def paired_means(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`measure.choosing.paired`: the change of a margin, 20 questions a section or lognormal with that mean."""
    if case.clusters < FEWEST_CLUSTERS:
        return None
    return judged_each(rng, case, runs, _paired_means)


def _paired_means(rng: np.random.Generator, case: Case) -> Told | None:
    sizes = next(batches(rng, case, 1))[0].astype(int)
    owner = np.repeat(np.arange(case.clusters), sizes)
    truth = 0.2 if case.effect else 0.0
    own = np.sqrt(CORRELATION) * noise(rng, case.level, (case.clusters,))[owner]
    change = truth + own + np.sqrt(1 - CORRELATION) * noise(rng, case.level, (len(owner),))
    found = paired(np.zeros(len(owner)), change, [str(one) for one in owner], "nats")
    return truth, found.estimate, None


def trial_shift(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`screen.trial.shift_estimates`: unwanted less wanted answers, as many of either as clusters."""
    return judged_each(rng, case, runs, _trial_shift)


def _trial_shift(rng: np.random.Generator, case: Case) -> Told | None:
    truth = 0.5 if case.effect else 0.0
    unwanted, wanted = truth + noise(rng, case.level, (case.clusters,)), noise(rng, case.level, (case.clusters,))
    return truth, trial.shift_estimates([(unwanted, wanted)], "nats", 0)[0][0], None


def equivalence(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`equivalent` where the true change lies exactly at the margin: what it claims is false."""
    said = []
    for n, some in batches(rng, case, runs):
        base, tuned, truth = pairs(rng, case, some)
        arms = [rates.arm_of(rng.binomial(n.astype(int), own).astype(float), n[None]) for own in (base, tuned)]
        joint = rates.joint_of(arms[0], arms[1])
        low, high = rates.change_bounds(arms[0], arms[1], joint, special.stdtrit(joint.degrees, 0.95))
        said.append((-abs(truth) < low) & (high < abs(truth)))
    return None, np.concatenate(said)


def kappa(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """Cohen's kappa of a judge that is right of half-bad items in `level` of the bad and 0.9 of the good ones."""
    bad, right = np.arange(case.clusters * 2) % 2 == 0, float(case.level)
    called = 0.5 * right + 0.5 * 0.1
    agreed, by_chance = 0.5 * right + 0.5 * 0.9, 0.5 * called + 0.5 * (1 - called)
    truth, held = (agreed - by_chance) / (1 - by_chance), []
    for _ in range(runs):
        found = judge_kappa(rng.random(len(bad)) < np.where(bad, right, 0.1), bad)
        held.append(found.low <= truth <= found.high)
    return np.array(held), None


STATISTICS = (
    Statistic("rate", rate, RATES, (False,), answers=20),
    Statistic("change of a rate", change, RATES, answers=20),
    Statistic("change of a rate, 3 seeds", partial(change, seeds=3), (0.05, 0.2, 0.5), answers=20),
    Statistic("change of a rate, one answer a question", one_answer, RATES, sizes=(False,), answers=1),
    Statistic("McNemar", mcnemar, RATES, (False,), sizes=(False,), answers=1),
    Statistic("equivalence, false claims", equivalence, (0.05, 0.2, 0.5), (True,), answers=20),
    Statistic("Cohen's kappa (items: twice the clusters)", kappa, (0.6, 0.8, 0.95), (False,), (False,)),
    Statistic("mean score", score, RATES, (False,), answers=20),
    Statistic("change of a mean score", score_change, RATES, answers=20),
    Statistic("ratio of sums, p of a difference", ratio, SHAPES),
    Statistic("numbers, two ways", two_way, SHAPES),
    Statistic("audit: own words", own_words, FLIPS, answers=10),
    Statistic("audit: behaviour in text", behaviour, FLIPS, answers=1),
    Statistic("audit: behaviour in an area unlike the others", unlike, FLIPS, answers=1),
    Statistic("repair: difference of two shares", two_texts, SHAPES),
    Statistic("measure: paired margins", paired_means, SHAPES),
    Statistic("screen: shift of a trial training", trial_shift, SHAPES, sizes=(False,)),
)
