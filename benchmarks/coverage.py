"""Every public statistic by simulation: how often its interval covers, its p-value errs, and its stated power is true.

    python benchmarks/coverage.py [--runs 400] [--seed 0] [--only NAME] [--write]

Cells: every statistic x 5, 10, 20, 50, 200 clusters x even or lognormal sizes (sigma 1, mean 20) x rates of .01 to .99 (or
shapes of numbers) x no effect or one. The grid was fixed before looking. Cells of which a function says TooFew are told apart.
"""

import argparse
import itertools
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from scipy import special
from tables import markdown_table, write_section

from mneme import stats
from mneme.measure.agreement import kappa as judge_kappa
from mneme.stats import TooFew, rates

CLUSTERS = (5, 10, 20, 50, 200)
RATES = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
SHAPES = ("normal", "heavy tails", "right-skewed", "left-skewed")
CORRELATION, BETWEEN_MODELS = 0.11, 0.7
"""Within questions: the median over published models. Between the rates of a question under two models."""
ODDS = 3.0
"""The effect on a rate, as an odds ratio towards the middle."""
Counts = tuple[np.ndarray, np.ndarray]


class Case(NamedTuple):
    """One cell."""

    clusters: int
    skewed: bool
    level: float | str
    """A rate, or the shape of the numbers."""
    effect: bool


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
    cost: int = 1
    """Runs are divided by it."""


class Cell(NamedTuple):
    """What came out of one cell; None where there is no interval or no p-value, both where it said TooFew."""

    name: str
    case: Case
    coverage: float | None
    rejected: float | None


def batches(rng: np.random.Generator, case: Case, runs: int) -> Iterator[tuple[np.ndarray, int]]:
    """(answers by cluster, runs with them): 20 each, or lognormal with that mean, drawn again for every 20 runs."""
    if not case.skewed:
        yield np.full(case.clusters, 20.0), runs
        return
    for first in range(0, runs, 20):
        drawn = np.maximum(1.0, np.round(20 * np.exp(rng.normal(-0.5, 1.0, case.clusters))))
        yield drawn, min(20, runs - first)


_PLACES = np.linspace(-5, 5, 2001)


@cache
def _quantiles(rate: float) -> np.ndarray:
    a, b = rate * (1 - CORRELATION) / CORRELATION, (1 - rate) * (1 - CORRELATION) / CORRELATION
    return np.asarray(special.betaincinv(a, b, special.ndtr(_PLACES)))


def own_rates(latent: np.ndarray, rate: float) -> np.ndarray:
    """Beta quantiles of standard normals: rates of questions with the usual correlation of answers."""
    return np.interp(latent, _PLACES, _quantiles(rate))


def moved(rate: float) -> float:
    """The rate after the effect."""
    odds = rate / (1 - rate) * (ODDS if rate <= 0.5 else 1 / ODDS)
    return odds / (1 + odds)


def pairs(rng: np.random.Generator, case: Case, runs: int, seeds: int = 1) -> tuple[np.ndarray, np.ndarray, float]:
    """(rates of the questions under base [run, 1, cluster] and tuned [run, seed, cluster], true change)."""
    rate = float(case.level)
    after = moved(rate) if case.effect else rate
    shared = rng.normal(size=(runs, 1, case.clusters))
    own = rng.normal(size=(runs, seeds, case.clusters))
    seed = np.sqrt(0.1) * rng.normal(size=(runs, seeds, 1)) if seeds > 1 else 0.0
    left = 1 - BETWEEN_MODELS**2 - (0.1 if seeds > 1 else 0.0)
    tuned = own_rates(BETWEEN_MODELS * shared + seed + np.sqrt(left) * own, after)
    return own_rates(shared, rate), tuned, after - rate


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


def scored(rng: np.random.Generator, own: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Sums of scores 0-1 whose mean is the rate of the question, spread over the scale (beta, a + b = 4)."""
    owner = np.repeat(np.arange(len(n)), n.astype(int))
    mean = np.clip(own[..., owner], 1e-6, 1 - 1e-6)
    return np.add.reduceat(rng.beta(4 * mean, 4 * (1 - mean)), np.concatenate([[0], np.cumsum(n[:-1])]).astype(int), axis=-1)


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


def noise(rng: np.random.Generator, shape: float | str, size: tuple[int, ...]) -> np.ndarray:
    """Numbers of mean 0 and the shape: normal, Student's t of 4 degrees, exponential to the right or the left."""
    if shape == "normal":
        return rng.normal(size=size)
    if shape == "heavy tails":
        return rng.standard_t(4, size=size)
    return (rng.exponential(size=size) - 1) * (1 if shape == "right-skewed" else -1)


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


def crossed(rng: np.random.Generator, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Items of `clusters` documents and half as many word types (at least 5 of them), 10 a document."""
    kinds = case.clusters, max(5, case.clusters // 2)
    weights = [np.exp(rng.normal(size=n)) if case.skewed else np.ones(n) for n in kinds]
    drawn = [rng.choice(n, 10 * case.clusters, p=w / w.sum()) for n, w in zip(kinds, weights, strict=True)]
    return drawn[0], drawn[1]


def both_ways(rng: np.random.Generator, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Normal noise of variance 1 of which a tenth belongs to the document and a tenth to the word type."""
    own = rng.normal(size=len(first)) * np.sqrt(0.8)
    for of in (first, second):
        own = own + np.sqrt(0.1) * rng.normal(size=int(of.max()) + 1)[of]
    return own


def two_way(rng: np.random.Generator, case: Case, runs: int, bound: float | None) -> Judged | None:
    """`two_way`: flips (losses at the rate; gains as many, or with an effect a quarter), or nats without a bound."""
    held, said = [], []
    for _ in range(runs):
        first, second = crossed(rng, case)
        latent = both_ways(rng, first, second)
        if bound is None:
            truth = 0.3 if case.effect else 0.0
            values = 0.5 * latent + noise(rng, case.level, (len(first),)) + truth
        else:
            lost = float(case.level)
            gained = lost / 4 if case.effect else lost
            truth = gained - lost
            values = np.where(latent < special.ndtri(lost), -1.0, np.where(latent > special.ndtri(1 - gained), 1.0, 0.0))
        found = stats.two_way(values, first, second, "", bound=bound)
        if isinstance(found, TooFew):
            continue
        held.append(found.estimate.low <= truth <= found.estimate.high)
        said.append(found.estimate.low > 0 or found.estimate.high < 0)
    return (np.array(held), np.array(said)) if held else None


def equivalence(rng: np.random.Generator, case: Case, runs: int) -> Judged | None:
    """`equivalent` where the true change lies exactly at the margin: what it claims is false."""
    said = []
    for n, some in batches(rng, case, runs):
        base, tuned, truth = pairs(rng, case, some)
        arms = [rates.arm_of(rng.binomial(n.astype(int), own).astype(float), n[None]) for own in (base, tuned)]
        joint = rates.joint_of(*arms)
        low, high = rates.change_bounds(*arms, joint, special.stdtrit(joint.degrees, 0.95))
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
    Statistic("rate", rate, RATES, (False,)),
    Statistic("change of a rate", change, RATES),
    Statistic("change of a rate, 3 seeds", partial(change, seeds=3), (0.05, 0.2, 0.5)),
    Statistic("change of a rate, one answer a question", one_answer, RATES, sizes=(False,)),
    Statistic("McNemar", mcnemar, RATES, (False,), sizes=(False,)),
    Statistic("equivalence, false claims", equivalence, (0.05, 0.2, 0.5), (True,)),
    Statistic("Cohen's kappa (items: twice the clusters)", kappa, (0.6, 0.8, 0.95), (False,), (False,), cost=2),
    Statistic("mean score", score, RATES, (False,)),
    Statistic("change of a mean score", score_change, RATES),
    Statistic("ratio of sums, p of a difference", ratio, SHAPES, cost=2),
    Statistic("flips, two ways", partial(two_way, bound=1.0), (0.01, 0.05, 0.2, 0.4), cost=3),
    Statistic("nats, two ways", partial(two_way, bound=None), SHAPES, cost=3),
)


def cells(statistic: Statistic, runs: int, seed: int) -> Iterator[Cell]:
    """Every cell of one statistic, each with random numbers of its own."""
    grid = itertools.product(CLUSTERS, statistic.sizes, statistic.levels, statistic.effects)
    for case in itertools.starmap(Case, grid):
        rng = np.random.default_rng([seed, zlib.crc32(repr((statistic.name, case)).encode())])
        held, said = statistic.run(rng, case, runs // statistic.cost) or (None, None)
        told = (None if one is None else float(one.mean()) for one in (held, said))
        yield Cell(statistic.name, case, *told)


def powers(
    runs: int, seed: int, clusters: tuple[int, ...] = (10, 20, 50), rates_of: tuple[float, ...] = (0.02, 0.1, 0.3, 0.5)
) -> Iterator[tuple[str, float, float]]:
    """(cell, stated smallest change, share of runs that find a true change of that size): to be .80.

    Stated is the median over 30 samples without an effect, which takes logit-normal rates; the truth has beta rates.
    """
    for questions, skewed, base in itertools.product(clusters, (False, True), rates_of):
        rng, case = np.random.default_rng([seed, questions, skewed, int(100 * base)]), Case(questions, skewed, base, False)
        n, _ = next(batches(rng, case, runs))
        stated = []
        for _ in range(30):
            own = pairs(rng, case, 1)[:2]
            hits = [rng.binomial(n.astype(int), each[0, 0]).astype(float) for each in own]
            found = stats.detectable_change(hits[0], n, hits[1], n)
            stated.append(1.0 - base if found is None else found)
        effect = min(float(np.median(stated)), 0.98 - base)
        shared, own_part = rng.normal(size=(2, runs, 1, questions))
        latent = BETWEEN_MODELS * shared + np.sqrt(1 - BETWEEN_MODELS**2) * own_part
        both = own_rates(shared, base), own_rates(latent, round(base + effect, 4))
        arms = [rates.arm_of(rng.binomial(n.astype(int), own).astype(float), n[None]) for own in both]
        name = f"{questions} questions, {'lognormal' if skewed else 'even'} sizes, base rate {base:g}"
        yield name, effect, float(change_of(arms[0], arms[1], 0.0)[1].mean())


def share(values: list[float], low: float, high: float) -> str:
    """How many of them lie within."""
    return f"{100 * float(np.mean([low <= value <= high for value in values])):.0f} %"


def summary(statistic: Statistic, found: list[Cell], runs: int) -> list[str]:
    """One row of the table."""
    held = [cell.coverage for cell in found if cell.coverage is not None]
    # Equivalence at its margin is a null of its own.
    null = [cell for cell in found if not cell.case.effect] or found
    false = [cell.rejected for cell in null if cell.rejected is not None]
    few = sum(cell.coverage is None and cell.rejected is None for cell in found)
    row = [statistic.name, str(len(found) - few), str(few), str(runs // statistic.cost)]
    row += [f"{min(held):.3f}-{max(held):.3f}", share(held, 0.93, 0.97), share(held, 0.93, 1.0)] if held else ["", "", ""]
    return row + ([f"{np.mean(false):.3f}", f"{max(false):.3f}"] if false else ["", ""])


def main() -> None:
    """Simulates, prints every cell, and with --write puts the summary into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the name of a statistic")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    rows = []
    for statistic in STATISTICS:
        if given.only not in statistic.name:
            continue
        found = []
        for cell in cells(statistic, given.runs, given.seed):
            found.append(cell)
            print(*cell.case, cell.coverage, cell.rejected, statistic.name, sep="\t", flush=True)
        rows.append(summary(statistic, found, given.runs))
        print("=", *rows[-1], sep="\t", flush=True)
    head = [
        "statistic",
        "cells",
        "too few",
        "runs a cell",
        "coverage",
        "within .93-.97",
        "at least .93",
        "type I, mean",
        "highest",
    ]
    table = markdown_table(head, rows)
    told = list(powers(given.runs, given.seed)) if not given.only else []
    print(*told, sep="\n", flush=True)
    power = markdown_table(["sample", "stated", "found"], [[n, f"{100 * e:.1f} points", f"{p:.2f}"] for n, e, p in told])
    grid = (
        "5, 10, 20, 50 and 200 clusters; even or lognormal sizes (mean 20); rates of .01 to .99, or shapes of numbers; no "
        "effect or one. Nominal: coverage .95, type I .05. Coverage above .97 is that of rare answers and few clusters, where "
        "an exact interval does not exist."
    )
    stated = (
        "Smallest change that a sample says it would have found with a power of .80, and how often a true change of that size "
        "is found."
    )
    text = f"{grid}\n\n{table}\n{stated}\n\n{power}"
    if given.write:
        write_section(
            "coverage", "Coverage of the intervals", f"python benchmarks/coverage.py --runs {given.runs} --write", text
        )


if __name__ == "__main__":
    main()
