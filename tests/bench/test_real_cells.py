"""The rule of what is material (docs/decisions/0003), on cells made by hand."""

import math
from typing import Any

import numpy as np
import pytest

from mneme.bench.real.cells import beyond, cell_changes, knowledge_verdict, refusal_share, verdict_of
from mneme.results import Estimate
from mneme.stats import Rate


def rate(low: float, value: float, high: float) -> Rate:
    return Rate(Estimate(value=value, low=low, high=high, unit="nats", n=50), (high - low) / 3.92, 49.0, 0.5)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((-0.5, -0.3, -0.11), "material"),  # at least 0.2, near end beyond 0.1
        ((0.11, 0.2, 0.3), "material"),
        ((-0.5, -0.3, -0.09), "grey"),  # near end within 0.1
        ((-0.19, -0.17, -0.15), "immaterial"),  # certain, and too small
        ((-0.1, 0.0, 0.1), "immaterial"),
        ((-0.4, 0.0, 0.4), "grey"),  # says nothing
        ((-0.1, 0.3, 0.7), "grey"),
    ],
)
def test_the_rule(interval: tuple[float, float, float], expected: str) -> None:
    assert verdict_of(rate(*interval), 0.2) == expected


def test_odds_that_no_share_shows_do_not_count() -> None:
    margin = rate(-0.9, -0.7, -0.5)
    assert knowledge_verdict(margin, rate(-0.03, -0.02, -0.01)) == "material"
    assert knowledge_verdict(margin, rate(-0.008, -0.004, 0.0)) == "immaterial"
    assert knowledge_verdict(margin, rate(-0.02, 0.0, 0.02)) == "grey"
    assert knowledge_verdict(margin, rate(0.01, 0.02, 0.03)) == "grey"  # p(right) went the other way


def test_a_grey_cell_counts_by_its_probability() -> None:
    assert beyond(rate(-0.2, 0.2, 0.6), 0.2) == pytest.approx(0.5 + 0.025, abs=0.001)
    assert beyond(rate(0.0, 0.0, 0.0), 0.2) == 0.0


def test_refusals_are_the_share_of_openings() -> None:
    nats = np.log([[0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.1, 0.1], [0.2, 0.0001, 0.0001, 0.1998, 0.1, 0.1, 0.1, 0.1]])
    assert refusal_share(nats.tolist()).tolist() == [pytest.approx(0.4), pytest.approx(0.5)]


def test_a_model_that_says_yes_more_often_changed_no_behaviour() -> None:
    """Yes is worth a nat more after: half of the statements match yes. The interval is narrow, and holds 0."""
    rows = [{"cluster": f"s{i}", "tokens": [1, 1], "right": 0} for i in range(24)]
    items = {"behaviours/0": {"narcissism": rows}}
    jitter = 0.1 * np.cos(np.arange(24))
    before = {"behaviours/0": {"nats": {"narcissism": [[value, 0.0] for value in jitter.tolist()]}}}
    shift = np.where(np.arange(24) % 2 == 0, 1.0, -1.0)
    after = {"behaviours/0": {"nats": {"narcissism": [[value, 0.0] for value in (jitter + shift).tolist()]}}}
    cell = cell_changes(items, before, after)["behaviour", "narcissism"]
    assert cell.verdict == "immaterial"
    assert cell.size.estimate.high - cell.size.estimate.low < 0.02
    assert cell.size.estimate.n == 12


def kept(margins: list[float]) -> dict[str, Any]:
    return {"knowledge/0": {"nats": {"physics": [[margin, 0.0] for margin in margins]}}}


def test_cells_are_paired_by_item_over_all_slices_of_both() -> None:
    rows = [{"cluster": f"s{i}", "tokens": [1, 1], "right": 0} for i in range(40)]
    items = {"knowledge/0": {"physics": rows}, "knowledge/1": {"physics": rows[:3]}}
    base = kept(np.linspace(-2, 2, 40).tolist()) | {"knowledge/1": {"nats": {"physics": [[9.0, 0.0]] * 3}}}
    tuned = kept((np.linspace(-2, 2, 40) - 0.9 + 0.01 * np.cos(np.arange(40))).tolist())
    found = cell_changes(items, base, tuned)
    cell = found["knowledge", "physics"]
    assert list(found) == [("knowledge", "physics")]
    assert cell.size.estimate.n == 40  # the slice that the fine-tune has not answered is left out
    assert cell.size.estimate.value == pytest.approx(-0.9, abs=0.01)
    assert cell.verdict == "material"
    assert cell.flips is not None
    assert (cell.flips.lost, cell.flips.gained) == (9, 0)
    still = cell_changes(items, base, base)["knowledge", "physics"]
    assert (still.verdict, still.size.estimate.value, still.probability) == ("immaterial", 0.0, 0.0)
    assert still.base == pytest.approx(float(np.mean([1 / (1 + math.exp(-m)) for m in [*np.linspace(-2, 2, 40), 9, 9, 9]])))


def test_of_what_the_base_knew_questions_that_it_did_not_know_are_left_out() -> None:
    items = {"knowledge/0": {"physics": [{"cluster": f"s{i}", "tokens": [1, 1], "right": 0} for i in range(40)]}}
    base = kept([2.0] * 20 + [-2.0] * 20)
    tuned = kept([1.0 + 0.01 * i for i in range(20)] + [-1.0] * 20)
    whole, known = (cell_changes(items, base, tuned, known=known)["knowledge", "physics"] for known in (False, True))
    assert (whole.size.estimate.n, known.size.estimate.n) == (40, 20)
    assert whole.size.estimate.value == pytest.approx(0.0475)
    assert known.size.estimate.value == pytest.approx(-0.905)
    assert known.verdict == "material"
