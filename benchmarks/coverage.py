"""Coverage of the 95 % intervals of rates and their changes, and false claims of equivalence, by simulation.

    python benchmarks/coverage.py [--runs 1000] [--seed 0] [--write]

Answers to one question are correlated (beta-binomial with a given intra-class correlation), questions of the base and the
tuned model by a Gaussian copula (0.7), and between half and all of the samples of a question count, as after a coherence
filter. The grid is fixed here, before looking: 8, 24 or 56 questions, 10 or 50 samples, usual and rare rates, the published
median correlation (0.11), half of it, and the largest published (0.36).
"""

import argparse
import itertools
from collections.abc import Iterator

import numpy as np
import scipy.stats
from tables import markdown_table, write_section

from mneme.stats import bootstrap_weights, clustered_mean, clustered_rate, equivalent, paired_change

QUESTIONS, SAMPLES, CORRELATIONS = (8, 24, 56), (10, 50), (0.05, 0.11, 0.36)
RATES = {"usual": (0.1, 0.3, 0.6), "rare": (0.03,)}
CHANGES = {"usual": ((0.1, 0.3), (0.3, 0.35), (0.5, 0.5)), "rare": ((0.01, 0.01), (0.02, 0.1))}
CORRELATION_OF_MODELS = 0.7
Counts = tuple[np.ndarray, np.ndarray]


def answers(rng: np.random.Generator, latent: np.ndarray, samples: int, rate: float, correlation: float) -> Counts:
    """(hits, counts) of every question, whose own rate is the beta quantile of its standard normal `latent`."""
    a, b = rate * (1 - correlation) / correlation, (1 - rate) * (1 - correlation) / correlation
    own = scipy.stats.beta.ppf(scipy.stats.norm.cdf(latent), a, b)
    counts = rng.integers(max(1, samples // 2), samples + 1, size=latent.shape)
    return rng.binomial(counts, own).astype(float), counts.astype(float)


def pairs(
    rng: np.random.Generator, questions: int, samples: int, rates: tuple[float, float], correlation: float, seeds: int = 1
) -> tuple[Counts, Counts]:
    """One simulated measurement: base and tuned (seed x question); seeds add an effect of their own on the latent scale."""
    shared = rng.normal(size=questions)
    base = CORRELATION_OF_MODELS * shared + np.sqrt(1 - CORRELATION_OF_MODELS**2) * rng.normal(size=questions)
    seed = np.sqrt(0.1) * rng.normal(size=(seeds, 1)) if seeds > 1 else 0.0
    own = rng.normal(size=(seeds, questions))
    left = 1 - CORRELATION_OF_MODELS**2 - (0.1 if seeds > 1 else 0.0)
    tuned = CORRELATION_OF_MODELS * shared + seed + np.sqrt(left) * own
    return answers(rng, base, samples, rates[0], correlation), answers(rng, tuned, samples, rates[1], correlation)


def rate_cells(kind: str, runs: int, rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    """(cell, coverage) of the interval of one model's rate."""
    for questions, samples, rate, correlation in itertools.product(QUESTIONS, SAMPLES, RATES[kind], CORRELATIONS):
        held = 0
        for _ in range(runs):
            interval = clustered_rate(*answers(rng, rng.normal(size=questions), samples, rate, correlation)).estimate
            held += interval.low <= rate <= interval.high
        yield f"{questions} x {samples}, rate {rate:g}, ICC {correlation:g}", held / runs


def change_cells(kind: str, runs: int, rng: np.random.Generator) -> Iterator[tuple[str, float, float | None]]:
    """(cell, coverage, share of false claims of equivalence within exactly the true change, None where that is 0)."""
    for questions, samples, rates, correlation in itertools.product(QUESTIONS, SAMPLES, CHANGES[kind], CORRELATIONS):
        held = claimed = 0
        change = rates[1] - rates[0]
        for _ in range(runs):
            (base, tuned) = pairs(rng, questions, samples, rates, correlation)
            interval = paired_change(*base, tuned[0][0], tuned[1][0]).estimate
            held += interval.low <= change <= interval.high
            claimed += bool(change) and equivalent(*base, tuned[0][0], tuned[1][0], change)
        name = f"{questions} x {samples}, {rates[0]:g} to {rates[1]:g}, ICC {correlation:g}"
        yield name, held / runs, claimed / runs if change else None


def seed_cells(runs: int, rng: np.random.Generator) -> Iterator[tuple[str, float, float]]:
    """(cell, coverage over training seeds, coverage of a percentile bootstrap of seeds and questions on the same data)."""
    for seeds, questions, rates in itertools.product((3, 6), (8, 24, 56), CHANGES["usual"]):
        held = resampled = 0
        for run in range(runs):
            base, tuned = pairs(rng, questions, 20, rates, 0.11, seeds)
            change = rates[1] - rates[0]
            interval = paired_change(*base, *tuned).estimate
            held += interval.low <= change <= interval.high
            low, high = bootstrap_of_seeds(base, tuned, run)
            resampled += low <= change <= high
        yield f"{seeds} seeds, {questions} x 20, {rates[0]:g} to {rates[1]:g}", held / runs, resampled / runs


def bootstrap_of_seeds(base: Counts, tuned: Counts, seed: int) -> tuple[float, float]:
    """The usual recipe, for comparison: resample seeds, then questions, 300 times; 2.5 and 97.5 % of the changes."""
    outer, inner = bootstrap_weights(len(tuned[0]), 300, seed), bootstrap_weights(tuned[0].shape[1], 300, seed + 1)
    hits, counts = ((outer @ part * inner).sum(1) for part in tuned)
    changes = hits / counts - (inner @ base[0]) / (inner @ base[1])
    low, high = np.quantile(changes, [0.025, 0.975])
    return float(low), float(high)


def score_cells(runs: int, rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    """(cell, coverage) of the interval of a mean score 0-100."""
    for questions, samples, correlation in itertools.product(QUESTIONS, SAMPLES, CORRELATIONS):
        held = 0
        for _ in range(runs):
            scores = 70 + 15 * (
                np.sqrt(correlation) * rng.normal(size=(questions, 1))
                + np.sqrt(1 - correlation) * rng.normal(size=(questions, samples))
            )
            interval = clustered_mean(scores.sum(1), np.full(questions, float(samples))).estimate
            held += interval.low <= 70 <= interval.high
        yield f"{questions} x {samples}, ICC {correlation:g}", held / runs


def summary(name: str, coverages: list[float], runs: int) -> list[str]:
    """One row: mean over the cells with its simulation error, range, share of cells within 93-97 %."""
    mean, error = float(np.mean(coverages)), 1.96 * np.sqrt(0.95 * 0.05 / (runs * len(coverages)))
    within = np.mean([0.93 <= value <= 0.97 for value in coverages])
    return [
        name,
        str(len(coverages)),
        f"{100 * mean:.1f} % ± {100 * error:.1f}",
        f"{100 * min(coverages):.1f}-{100 * max(coverages):.1f} %",
        f"{100 * within:.0f} %",
    ]


def main() -> None:
    """Simulates, prints every cell, and with --write puts the summary into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    rng, runs = np.random.default_rng(given.seed), given.runs
    rows, claims = [], []
    for kind in ("usual", "rare"):
        cells = list(rate_cells(kind, runs, rng))
        rows.append(summary(f"rate, {kind}", [value for _, value in cells], runs))
        print(*(f"rate   {name}: {100 * value:.1f} %" for name, value in cells), sep="\n", flush=True)
        changes = list(change_cells(kind, runs, rng))
        rows.append(summary(f"paired change, {kind}", [value for _, value, _ in changes], runs))
        claims += [(name, claim) for name, _, claim in changes if claim is not None]
        print(*(f"change {name}: {100 * held:.1f} %, claims {claim}" for name, held, claim in changes), sep="\n", flush=True)
    seeds = list(seed_cells(runs, rng))
    print(*(f"seeds  {name}: {100 * a:.1f} % (bootstrap {100 * b:.1f} %)" for name, a, b in seeds), sep="\n", flush=True)
    rows.append(summary("paired change over training seeds", [value for _, value, _ in seeds], runs))
    rows.append(summary("  the same by percentile bootstrap of seeds and questions", [value for *_, value in seeds], runs))
    scores = list(score_cells(runs, rng))
    print(*(f"score  {name}: {100 * value:.1f} %" for name, value in scores), sep="\n", flush=True)
    rows.append(summary("mean score", [value for _, value in scores], runs))
    table = markdown_table(["95 % interval of", "cells", "coverage", "range of cells", "cells within 93-97 %"], rows)
    worst = max(claims, key=lambda claim: claim[1])
    mean = float(np.mean([claim for _, claim in claims]))
    text = (
        f"{runs:,} runs a cell. Rare: rates of 1-3 % (or 2 % against 10 %), whose intervals rest on a handful of answers.\n\n"
        f"{table}\nEquivalence (two one-sided tests at 5 %) with the true change exactly at the margin: false claims in "
        f"{100 * mean:.1f} % of runs on average over {len(claims)} cells, {100 * worst[1]:.1f} % in the worst ({worst[0]}); "
        f"simulation error of a cell ± {100 * 1.96 * np.sqrt(0.05 * 0.95 / runs):.1f}."
    )
    print(text)
    if given.write:
        write_section("coverage", "Coverage of the intervals", f"python benchmarks/coverage.py --runs {runs} --write", text)


if __name__ == "__main__":
    main()
