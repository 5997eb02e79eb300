"""Every public statistic by simulation: how often its interval covers, its p-value errs, and its stated power is true.

    python benchmarks/coverage.py [--runs 400] [--seed 0] [--only NAME] [--kept FILE] [--write]

Cells (`coverage_cells.py`): every statistic x 5, 10, 20, 50, 200 clusters x even or lognormal sizes (sigma 1, mean 20) x rates
of .01 to .99 (or shapes of numbers) x no effect or one. The grid was fixed before looking. Cells of which a function says
TooFew are told apart, and so are those where an interval can be nominal: from `EXACT` clusters and `EXACT` rarer answers on.
With --kept FILE finished cells are kept there and not repeated; every cell has random numbers of its own. Null cells whose
p-values err in more than 6 % of the runs are drawn again, with 4,000 runs of the next seed: which of them are chance?
"""

import argparse
import itertools
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from coverage_cells import STATISTICS, Cell, Statistic, change_of
from coverage_data import BETWEEN_MODELS, CLUSTERS, Case, batches, logit_rates, own_rates, pairs
from scipy import special
from tables import markdown_table, write_section

from mneme import stats
from mneme.stats import rates

EXACT = 10
"""Clusters, and expected independent answers of the rarer kind, from which on an interval is claimed to be nominal (the usual
rule for the normal approximation of a count); below, at least nominal."""

AGAIN = 4000
"""Runs with which a null cell above 6 % is drawn again: its standard error is then .3 points."""
MOST_FALSE = 0.06
STATEMENTS = 100
"""Samples without an effect whose statements are drawn: their median is then known to an eighth of their spread."""
DRAWN = 2000
"""Runs at least of a true change that was stated, and of pages: the share that finds it has a standard error of .9 points."""


class Kept:
    """What was simulated before: a line of tab-separated fields for every cell or sample, with the number of its runs."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.found: dict[tuple[str, ...], tuple[int, list[str]]] = {}
        for *name, seed, runs, one, two in (line.split("\t") for line in lines):
            self.found[*name, seed] = int(runs), [one, two]

    def two(
        self, key: tuple[object, ...], runs: int, make: Callable[[], tuple[float | None, float | None]]
    ) -> list[float | None]:
        """The two numbers of `key`, made where they are missing or of fewer runs."""
        name = tuple(str(part) for part in key)
        if self.found.get(name, (0, []))[0] < runs:
            self.found[name] = runs, [str(number) for number in make()]
            if self.path is not None:
                with self.path.open("a") as file:
                    print(*name, runs, *self.found[name][1], sep="\t", file=file)
        return [None if number == "None" else float(number) for number in self.found[name][1]]


def cells(statistic: Statistic, runs: int, seed: int, kept: Kept) -> Iterator[Cell]:
    """Every cell of one statistic, each with random numbers of its own."""
    grid = itertools.product(CLUSTERS, statistic.sizes, statistic.levels, statistic.effects)
    for case in itertools.starmap(Case, grid):
        yield Cell(
            statistic.name, case, *kept.two((statistic.name, *case, seed), runs, partial(_one, statistic, case, runs, seed))
        )


def _one(statistic: Statistic, case: Case, runs: int, seed: int) -> tuple[float | None, float | None]:
    rng = np.random.default_rng([seed, zlib.crc32(repr((statistic.name, case)).encode())])
    held, said = statistic.run(rng, case, runs) or (None, None)
    return None if held is None else float(held.mean()), None if said is None else float(said.mean())


def powers(runs: int, seed: int, kept: Kept) -> Iterator[tuple[str, float, float, float]]:
    """(cell, stated smallest change, share of runs that find a true change of that size where the rates of questions are beta,
    and where they are logit-normal): to be .80.

    Stated is the median over samples without an effect of beta rates, which the statement takes, too; the rest it has to see.
    """
    runs = max(runs, DRAWN)
    for questions, skewed, base in itertools.product((10, 20, 50), (False, True), (0.02, 0.1, 0.3, 0.5)):
        case = Case(questions, skewed, base, False)
        effect, _ = kept.two(("stated", *case, seed), STATEMENTS, partial(_stated, case, seed))
        beta, logits = kept.two(("power", *case, seed), runs, partial(_power, case, effect or 0.0, runs, seed))
        name = f"{questions} questions, {'lognormal' if skewed else 'even'} sizes, base rate {base:g}"
        yield name, effect or 0.0, beta or 0.0, logits or 0.0


def _sizes(case: Case, seed: int) -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng([seed, case.clusters, case.skewed, int(100 * float(case.level))])
    return rng, next(batches(rng, case, 1))[0]


def _stated(case: Case, seed: int) -> tuple[float, None]:
    rng, n = _sizes(case, seed)
    base, stated = float(case.level), []
    for _ in range(STATEMENTS):
        own = pairs(rng, case, 1)[:2]
        hits = [rng.binomial(n.astype(int), each[0, 0]).astype(float) for each in own]
        found = stats.detectable_change(hits[0], n, hits[1], n)
        stated.append(1.0 - base if found is None else found)
    return min(float(np.median(stated)), 0.98 - base), None


def _power(case: Case, effect: float, runs: int, seed: int) -> tuple[float, float]:
    rng, n = _sizes(case, seed)
    base, found = float(case.level), []
    for rates_of in (own_rates, logit_rates):
        shared, own = rng.normal(size=(2, runs, 1, case.clusters))
        latent = BETWEEN_MODELS * shared + np.sqrt(1 - BETWEEN_MODELS**2) * own
        both = rates_of(shared, base), rates_of(latent, round(base + effect, 4))
        arms = [rates.arm_of(rng.binomial(n.astype(int), own).astype(float), n[None]) for own in both]
        found.append(float(change_of(arms[0], arms[1], 0.0)[1].mean()))
    return found[0], found[1]


def pages(runs: int, seed: int) -> Iterator[tuple[str, float]]:
    """(page, share of pages with any false claim): `runs` pages of measure with 5 or 10 models that changed nothing, 12 areas.

    Holm over m claims makes one where the smallest p is at most .05 / m: where an interval at the level 1 - .05 / m leaves out
    0. The models are compared with one base, so that claims depend on each other."""
    base = 0.2
    for models, questions, skewed in itertools.product((5, 10), (10, 30), (False, True)):
        rng = np.random.default_rng([seed, models, questions, skewed])
        claims, false = 12 * models, np.zeros(runs, dtype=bool)
        for _ in range(12):
            n = next(batches(rng, Case(questions, skewed, base, False), runs))[0]
            shared = rng.normal(size=(runs, 1, questions))
            before = rates.arm_of(rng.binomial(n.astype(int), own_rates(shared, base)).astype(float), n[None])
            for _ in range(models):
                own = BETWEEN_MODELS * shared + np.sqrt(1 - BETWEEN_MODELS**2) * rng.normal(size=shared.shape)
                after = rates.arm_of(rng.binomial(n.astype(int), own_rates(own, base)).astype(float), n[None])
                joint = rates.joint_of(before, after)
                low, high = rates.change_bounds(before, after, joint, special.stdtrit(joint.degrees, 1 - 0.025 / claims))
                false |= (low > 0) | (high < 0)
        sizes = "lognormal" if skewed else "even"
        yield f"{models} models x 12 areas, {questions} questions, {sizes} sizes, rate {base:g}", float(false.mean())


def again(cells: list[Cell], seed: int, kept: Kept) -> Iterator[tuple[Cell, float]]:
    """(null cell above 6 %, how often it errs in `AGAIN` runs of the next seed)."""
    for cell in cells:
        if cell.rejected is not None and cell.rejected > MOST_FALSE:
            statistic = next(one for one in STATISTICS if one.name == cell.name)
            make = partial(_one, statistic, cell.case, AGAIN, seed + 1)
            yield cell, kept.two((cell.name, *cell.case, seed + 1), AGAIN, make)[1] or 0.0


def _null(found: list[Cell]) -> list[Cell]:
    """Cells in which what is claimed is false; equivalence at its margin is a null of its own."""
    return [cell for cell in found if not cell.case.effect] or found


def share(values: list[float], low: float, high: float) -> str:
    """How many of them lie within."""
    return f"{100 * float(np.mean([low <= value <= high for value in values])):.0f} %" if values else ""


def summary(statistic: Statistic, found: list[Cell], runs: int) -> list[str]:
    """One row of the table."""
    held = [cell.coverage for cell in found if cell.coverage is not None]
    exact = [cell.coverage for cell in found if cell.coverage is not None and nominal(statistic, cell.case)]
    false = [cell.rejected for cell in _null(found) if cell.rejected is not None]
    few = sum(cell.coverage is None and cell.rejected is None for cell in found)
    row = [statistic.name, str(len(found) - few), str(few), str(runs)]
    if held:
        row += [f"{min(held):.3f}-{max(held):.3f}", share(held, 0.93, 1.0), str(len(exact)), share(exact, 0.93, 0.97)]
        row += [f"{100 * by_chance(runs):.0f} %"]
    else:
        row += ["", "", "", "", ""]
    return row + ([f"{np.mean(false):.3f}", f"{max(false):.3f}"] if false else ["", ""])


def by_chance(runs: int) -> float:
    """How many of cells that cover exactly .95 so many runs would put within .93-.97."""
    return float(special.bdtr(np.floor(0.97 * runs), runs, 0.95) - special.bdtr(np.ceil(0.93 * runs) - 1, runs, 0.95))


def nominal(statistic: Statistic, case: Case) -> bool:
    """Whether an interval is claimed to be nominal there."""
    return statistic.clusters(case) >= EXACT and statistic.rarer(case) >= EXACT


HEAD = (
    "statistic",
    "cells",
    "too few",
    "runs a cell",
    "coverage",
    "at least .93",
    "nominal cells",
    "of them .93-.97",
    "were all .95",
    "type I, mean",
    "highest",
)
GRID = (
    "5, 10, 20, 50 and 200 clusters; even or lognormal sizes (mean 20); rates of .01 to .99, or shapes of numbers; no "
    "effect or one. Wanted: coverage .95, type I .05. An interval of rare answers cannot be exact: of 20 questions with one "
    "answer each at a rate of .01 four fifths show nothing, and every interval that holds what they show covers at least as "
    f"often. Nominal is claimed where at least {EXACT} clusters (of numbers without a scale: "
    f"what is worth so many of equal weight) and {EXACT} independent answers of the rarer kind are to be "
    "expected; elsewhere at least nominal."
)
STATED = (
    "Smallest change that a sample says it would have found with a power of .80, and how often a true change of that size "
    "is found."
)
FAMILY = (
    "Pages on which nothing is true, and how many of them claim anything after Holm over all their claims; wanted: .05 at "
    "most."
)


def main() -> None:
    """Simulates, prints every cell, and with --write puts the summary into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the name of a statistic")
    parser.add_argument("--kept", type=Path, help="a file in which finished cells are kept")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    rows, held, exact, null, kept = [], [], [], [], Kept(given.kept)
    for statistic in STATISTICS:
        if given.only not in statistic.name:
            continue
        found = []
        for cell in cells(statistic, given.runs, given.seed, kept):
            found.append(cell)
            print(*cell.case, cell.coverage, cell.rejected, statistic.name, sep="\t", flush=True)
            if cell.coverage is not None:
                held.append(cell.coverage)
                exact += [cell.coverage] if nominal(statistic, cell.case) else []
        null += [cell for cell in _null(found) if cell.rejected is not None]
        rows.append(summary(statistic, found, given.runs))
        print("=", *rows[-1], sep="\t", flush=True)
    whole = (
        f"All together: {len(held)} cells with an interval, lowest coverage {min(held, default=0):.3f}, at least .93 in "
        f"{share(held, 0.93, 1.0)}, at least .90 in {share(held, 0.9, 1.0)}; {len(exact)} nominal cells, .93-.97 in "
        f"{share(exact, 0.93, 0.97)}."
    )
    second = list(again(null, given.seed, kept))
    real = [
        f"{cell.name}, {cell.case.clusters} clusters{', lognormal' * cell.case.skewed}, {cell.case.level}: {false:.3f}"
        for cell, false in second
        if false > MOST_FALSE
    ]
    chance = 1 - float(special.bdtr(np.floor(MOST_FALSE * given.runs), given.runs, 0.05))
    errs = (
        f"{len(null)} cells have a p-value of something that is not so; in {len(second)} it is at most .05 in more than "
        f"{MOST_FALSE:.0%} of the runs (of cells that err exactly .05 of the time {chance:.0%} would be). Drawn again with "
        f"{AGAIN:,} runs of other random numbers, {len(real)} of them are{': ' + '; '.join(real) if real else ''}."
    )
    told = list(powers(given.runs, given.seed, kept)) if not given.only else []
    families = list(pages(max(given.runs, DRAWN), given.seed)) if not given.only else []
    print(whole, errs, *told, *families, sep="\n", flush=True)
    close = [sum(abs(one[way] - 0.8) <= 0.05 for one in told) for way in (2, 3)]
    near = f"Within 5 points are {close[0]} of {len(told)} where rates are beta, {close[1]} where they are logit-normal."
    power = markdown_table(
        ["sample", "stated", "found, beta", "found, logit-normal"],
        [[n, f"{100 * e:.1f} points", f"{p:.2f}", f"{q:.2f}"] for n, e, p, q in told],
    )
    page = markdown_table(["page of measure, nothing changed", "any false claim"], [[n, f"{p:.3f}"] for n, p in families])
    text = f"{GRID}\n\n{whole}\n\n{markdown_table(HEAD, rows)}\n{errs}\n\n{STATED} {near}\n\n{power}\n{FAMILY}\n\n{page}"
    if given.write:
        command = f"python benchmarks/coverage.py --runs {given.runs} --write"
        write_section("coverage", "Coverage of the intervals", command, text)


if __name__ == "__main__":
    main()
