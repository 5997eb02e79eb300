"""Every public statistic by simulation: how often its interval covers, its p-value errs, and its stated power is true.

    python benchmarks/coverage.py [--runs 400] [--seed 0] [--only NAME] [--cells] [--write]

Cells: every statistic x 5, 10, 20, 50, 200 clusters x even or lognormal sizes (sigma 1, mean 20) x rates of .01 to .99 (or shapes of
numbers) x no effect or one. The grid was fixed before looking. Where a function says TooFew, the cell is marked so and not counted.
"""

import argparse
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import special
from tables import markdown_table, write_section

from mneme import stats
from mneme.stats import Rate, TooFew

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


class Outcome(NamedTuple):
    """One run: None where the statistic has no such thing."""

    covers: bool | None = None
    rejects: bool | None = None


Run = Callable[[np.random.Generator, Case], Outcome | TooFew]


class Statistic(NamedTuple):
    """What is judged, on which cells."""

    name: str
    run: Run
    levels: tuple[float | str, ...]
    effects: tuple[bool, ...] = (False, True)
    clusters: tuple[int, ...] = CLUSTERS
    sizes: tuple[bool, ...] = (False, True)


class Cell(NamedTuple):
    """What came out of one cell; `few` is the share of runs that said TooFew."""

    name: str
    case: Case
    coverage: float | None
    rejected: float | None
    few: float


def sizes(rng: np.random.Generator, case: Case) -> np.ndarray:
    """Answers by cluster: 20 each, or lognormal with that mean."""
    if not case.skewed:
        return np.full(case.clusters, 20.0)
    return np.maximum(1.0, np.round(20 * np.exp(rng.normal(-0.5, 1.0, case.clusters))))


def own_rates(latent: np.ndarray, rate: float) -> np.ndarray:
    """Beta quantiles of standard normals: rates of questions with the usual correlation of answers."""
    a, b = rate * (1 - CORRELATION) / CORRELATION, (1 - rate) * (1 - CORRELATION) / CORRELATION
    return np.asarray(special.betaincinv(a, b, special.ndtr(latent)))


def moved(rate: float) -> float:
    """The rate after the effect."""
    odds = rate / (1 - rate) * (ODDS if rate <= 0.5 else 1 / ODDS)
    return odds / (1 + odds)


def pair(rng: np.random.Generator, case: Case, seeds: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(rates of the questions under base and under tuned by seed, sizes, true change)."""
    rate = float(case.level)
    after = moved(rate) if case.effect else rate
    shared = rng.normal(size=case.clusters)
    own = rng.normal(size=(seeds, case.clusters))
    seed = np.sqrt(0.1) * rng.normal(size=(seeds, 1)) if seeds > 1 else 0.0
    left = 1 - BETWEEN_MODELS**2 - (0.1 if seeds > 1 else 0.0)
    tuned = own_rates(BETWEEN_MODELS * shared + seed + np.sqrt(left) * own, after)
    return own_rates(shared, rate), tuned, sizes(rng, case), after - rate


def judged(found: Rate | TooFew, truth: float) -> Outcome | TooFew:
    """Whether the interval holds the truth, and whether the p-value of 0 is at most .05."""
    if isinstance(found, TooFew):
        return found
    inside = found.estimate.low <= truth <= found.estimate.high
    return Outcome(bool(inside), None if found.p_value is None else found.p_value <= 0.05)


def rate(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """The interval of one model's rate."""
    n = sizes(rng, case)
    hits = rng.binomial(n.astype(int), own_rates(rng.normal(size=len(n)), float(case.level)))
    return judged(stats.clustered_rate(hits.astype(float), n), float(case.level))


def change(rng: np.random.Generator, case: Case, seeds: int = 1) -> Outcome | TooFew:
    """A paired change of a rate."""
    base, tuned, n, truth = pair(rng, case, seeds)
    hits = [rng.binomial(n.astype(int), rates).astype(float) for rates in (base, tuned)]
    return judged(stats.paired_change(hits[0], n, hits[1], np.tile(n, (seeds, 1))), truth)


def change_of_seeds(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """The same over three training seeds."""
    return change(rng, case, 3)


def scored(rng: np.random.Generator, rates: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Sums of scores 0-100 whose mean is 100 times the rate of the question, spread over the scale (beta, a + b = 4)."""
    clusters = np.repeat(np.arange(len(n)), n.astype(int))
    own = np.clip(rates[clusters], 1e-6, 1 - 1e-6)
    return np.bincount(clusters, weights=100 * rng.beta(4 * own, 4 * (1 - own)), minlength=len(n))


def score(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """The interval of a mean score on a scale."""
    n = sizes(rng, case)
    sums = scored(rng, own_rates(rng.normal(size=len(n)), float(case.level)), n)
    return judged(stats.clustered_mean(sums, n, bounds=(0, 100)), 100 * float(case.level))


def score_change(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """A paired change of a mean score."""
    base, tuned, n, truth = pair(rng, case)
    sums = scored(rng, base, n), scored(rng, tuned[0], n)
    return judged(stats.paired_mean_change(sums[0], n, sums[1], n, bounds=(0, 100)), 100 * truth)


def noise(rng: np.random.Generator, shape: float | str, size: tuple[int, ...]) -> np.ndarray:
    """Numbers of mean 0 and the shape: normal, Student's t of 4 degrees, exponential to the right or the left."""
    if shape == "normal":
        return rng.normal(size=size)
    if shape == "heavy tails":
        return rng.standard_t(4, size=size)
    return (rng.exponential(size=size) - 1) * (1 if shape == "right-skewed" else -1)


def numbers(rng: np.random.Generator, case: Case) -> tuple[np.ndarray, np.ndarray, float]:
    """(sums, counts, true mean) of clustered numbers: half a standard deviation of a cluster where there is an effect."""
    n = sizes(rng, case)
    spread = np.sqrt(CORRELATION * n**2 + (1 - CORRELATION) * n)
    truth = 0.5 * float(np.sqrt(CORRELATION + (1 - CORRELATION) / 20)) if case.effect else 0.0
    return spread * noise(rng, case.level, (len(n),)) + truth * n, n, truth


def ratio(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """A ratio of sums of numbers, and the p-value that belongs to it."""
    above, below, truth = numbers(rng, case)
    found = stats.clustered_ratio(above, below, "nats")
    p_value = stats.paired_test(above, below)
    if isinstance(found, TooFew) or isinstance(p_value, TooFew):
        return found if isinstance(found, TooFew) else TooFew(value=None, unit="", n=0, needed=0)
    return Outcome(found.low <= truth <= found.high, p_value <= 0.05)


def mean(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """A mean of numbers without a scale."""
    sums, counts, truth = numbers(rng, case)
    return judged(stats.clustered_mean(sums, counts), truth)


def crossed(rng: np.random.Generator, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Items of `clusters` documents and half as many word types (at least 5 of them), about 10 a document."""
    kinds = case.clusters, max(5, case.clusters // 2)
    weights = [np.exp(rng.normal(size=n)) if case.skewed else np.ones(n) for n in kinds]
    drawn = [rng.choice(n, 10 * case.clusters, p=w / w.sum()) for n, w in zip(kinds, weights, strict=True)]
    return drawn[0], drawn[1]


def both_ways(rng: np.random.Generator, first: np.ndarray, second: np.ndarray, shape: float | str) -> np.ndarray:
    """Noise of variance 1 of which a tenth belongs to the document and a tenth to the word type."""
    own = noise(rng, shape, (len(first),)) * np.sqrt(0.8)
    for of in (first, second):
        own = own + np.sqrt(0.1) * rng.normal(size=int(of.max()) + 1)[of]
    return own


def flips(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """Flips in documents and word types: losses at the rate, gains as many (no effect) or a quarter of them."""
    first, second = crossed(rng, case)
    lost = float(case.level)
    gained = lost / 4 if case.effect else lost
    latent = both_ways(rng, first, second, "normal")
    values = np.where(latent < special.ndtri(lost), -1.0, np.where(latent > special.ndtri(1 - gained), 1.0, 0.0))
    return judged(stats.two_way(values, first, second, "flips", bound=1.0), gained - lost)


def margins(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """Nats in documents and word types, without a bound."""
    first, second = crossed(rng, case)
    truth = 0.3 if case.effect else 0.0
    scale = np.std(noise(np.random.default_rng(0), case.level, (10_000,)))
    values = both_ways(rng, first, second, "normal") * 0.5 + noise(rng, case.level, (len(first),)) / scale + truth
    return judged(stats.two_way(values, first, second, "nats"), truth)


def discordant(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """McNemar's exact test of one answer a question."""
    base, tuned, _, _ = pair(rng, case)
    right = rng.random(len(base)) < base, rng.random(len(base)) < tuned[0]
    p_value = stats.mcnemar_exact(int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum()))
    return Outcome(None, p_value <= 0.05)


def one_answer(rng: np.random.Generator, case: Case) -> Outcome | TooFew:
    """The paired change where every question has one answer (choices)."""
    base, tuned, _, truth = pair(rng, case)
    n = np.ones(len(base))
    hits = [(rng.random(len(base)) < rates).astype(float) for rates in (base, tuned[0])]
    return judged(stats.paired_change(hits[0], n, hits[1], n), truth)


STATISTICS = (
    Statistic("rate", rate, RATES, (False,)),
    Statistic("change of a rate", change, RATES),
    Statistic("change of a rate, 3 seeds", change_of_seeds, (0.05, 0.2, 0.5)),
    Statistic("change of a rate, one answer a question", one_answer, RATES, sizes=(False,)),
    Statistic("McNemar", discordant, RATES, (False,), sizes=(False,)),
    Statistic("mean score", score, RATES, (False,)),
    Statistic("change of a mean score", score_change, RATES),
    Statistic("mean of numbers", mean, SHAPES, (False,)),
    Statistic("ratio of sums and its p-value", ratio, SHAPES),
    Statistic("flips, two ways", flips, (0.01, 0.05, 0.2, 0.4)),
    Statistic("nats, two ways", margins, SHAPES),
)


def cells(statistic: Statistic, runs: int, seed: int) -> Iterator[Cell]:
    """Every cell of one statistic, each with random numbers of its own."""
    for clusters in statistic.clusters:
        for skewed in statistic.sizes:
            for level in statistic.levels:
                for effect in statistic.effects:
                    case = Case(clusters, skewed, level, effect)
                    yield cell(statistic, case, runs, seed)


def cell(statistic: Statistic, case: Case, runs: int, seed: int) -> Cell:
    """One cell."""
    rng = np.random.default_rng([seed, zlib.crc32(repr((statistic.name, case)).encode())])
    found = [statistic.run(rng, case) for _ in range(runs)]
    told = [one for one in found if isinstance(one, Outcome)]
    few = 1 - len(told) / runs
    if few > 0.5:
        return Cell(statistic.name, case, None, None, few)
    held, said = ([one[i] for one in told if one[i] is not None] for i in (0, 1))
    return Cell(statistic.name, case, float(np.mean(held)) if held else None, float(np.mean(said)) if said else None, few)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    for st in STATISTICS:
        if given.only not in st.name: continue
        found = list(cells(st, given.runs, given.seed))
        for c in found:
            print(f"{c.name:40} {c.case.clusters:4} {'skew' if c.case.skewed else 'even'} {c.case.level!s:12} {'effect' if c.case.effect else 'null':6} cov {'-' if c.coverage is None else f'{c.coverage:.3f}'} rej {'-' if c.rejected is None else f'{c.rejected:.3f}'} few {c.few:.2f}", flush=True)
        cov=np.array([c.coverage for c in found if c.coverage is not None])
        rej=np.array([c.rejected for c in found if c.rejected is not None and not c.case.effect])
        if len(cov): print("==",st.name,"cells",len(cov),"within",np.mean((cov>=.93)&(cov<=.97)).round(2),"min",cov.min(),"max",cov.max(),"below .93",(cov<.93).sum(),"<.9",(cov<.9).sum())
        if len(rej): print("== type I max",rej.max(),"mean",rej.mean().round(3),">.06",(rej>.06).sum())


if __name__ == "__main__":
    main()
