"""The judge that stays: benchmarks/coverage.py on a part of its cells. The whole table is in docs/benchmarks.md."""

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special

from mneme.stats import Rate, paired_change, rates

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RUNS = 600
"""A coverage of .95 is then measured to .9 points (one standard error): .92 is 3.4 of them away."""


@pytest.fixture(scope="module")
def judge() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("coverage")
    finally:
        sys.path.remove(str(BENCHMARKS))


CELLS = [
    ("rate", (5, False, 0.5, False)),
    ("rate", (20, True, 0.2, False)),
    ("rate", (50, True, 0.05, False)),
    ("rate", (200, False, 0.01, False)),
    ("change of a rate", (10, False, 0.5, True)),
    ("change of a rate", (20, True, 0.2, False)),
    ("change of a rate", (50, False, 0.05, False)),
    ("change of a rate, 3 seeds", (20, False, 0.2, False)),
    ("mean score", (20, True, 0.5, False)),
    ("change of a mean score", (50, True, 0.8, False)),
    ("ratio of sums, p of a difference", (20, False, "right-skewed", False)),
    ("ratio of sums, p of a difference", (50, True, "left-skewed", True)),
    ("numbers, two ways", (20, False, "normal", False)),
    ("audit: own words", (200, False, 0.2, False)),
    ("audit: behaviour in text", (200, True, 0.4, False)),
    ("repair: difference of two shares", (50, False, "right-skewed", False)),
    ("measure: paired margins", (50, True, "normal", False)),
]
RARE = [
    ("change of a rate, one answer a question", (20, False, 0.05, False)),
    ("audit: own words", (10, True, 0.05, False)),
    ("audit: behaviour in text", (10, False, 0.05, True)),
    ("audit: behaviour in text", (50, True, 0.05, False)),
    ("audit: behaviour in an area unlike the others", (20, False, 0.2, True)),
]
"""Where an interval cannot be exact it must hold all the same."""


@pytest.mark.parametrize(("name", "case"), CELLS)
def test_coverage_and_type_one_error(judge: Any, name: str, case: tuple[Any, ...]) -> None:
    """Coverage in [.92, .98] where answers are not rare, type I error at most .07."""
    statistic = next(one for one in judge.STATISTICS if one.name == name)
    found = statistic.run(np.random.default_rng(7), judge.Case(*case), RUNS)
    assert found is not None
    held, said = found
    assert 0.92 <= held.mean() <= (0.99 if case[0] == 5 else 0.98)
    if said is not None and not case[3]:
        assert said.mean() <= 0.07


@pytest.mark.parametrize(("name", "case"), RARE)
def test_intervals_of_what_is_rare_hold_at_least(judge: Any, name: str, case: tuple[Any, ...]) -> None:
    statistic = next(one for one in judge.STATISTICS if one.name == name)
    found = statistic.run(np.random.default_rng(7), judge.Case(*case), RUNS)
    assert found is not None
    held, said = found
    assert held.mean() >= 0.92
    if said is not None and not case[3]:
        assert said.mean() <= 0.07


def test_one_family_of_claims_errs_once_in_twenty_pages(judge: Any) -> None:
    """Holm over the 60 or 120 claims of a page on which nothing is true; within a model alone it was .18 and .34."""
    false = [share for _, share in itertools.islice(judge.pages(300, 0), 2)]
    assert max(false) <= 0.08


def test_too_few_is_said_and_not_hidden(judge: Any) -> None:
    statistic = next(one for one in judge.STATISTICS if one.name.startswith("ratio"))
    assert statistic.run(np.random.default_rng(0), judge.Case(5, False, "normal", False), 2) is None


def test_batches_say_what_the_public_function_says(judge: Any) -> None:
    """The table draws many samples at once; the bounds are those of `paired_change`, and p < .05 where they leave out 0."""
    rng, n = np.random.default_rng(3), np.array([5.0, 20, 8, 40, 11, 3, 9])
    base, tuned = rng.binomial(n.astype(int), 0.2, (2, 30, 1, 7)).astype(float)
    one, two = (rates.arm_of(hits, n[None]) for hits in (base, tuned))
    joint = rates.joint_of(one, two)
    low, high = rates.change_bounds(one, two, joint, special.stdtrit(joint.degrees, 0.975))
    for i in range(30):
        found = paired_change(base[i, 0], n, tuned[i, 0], n)
        assert isinstance(found, Rate)
        assert (found.estimate.low, found.estimate.high) == pytest.approx((low[i], high[i]))
        assert found.p_value is not None
        assert (found.p_value < 0.05) == bool(low[i] > 0 or high[i] < 0)
