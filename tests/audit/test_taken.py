"""The passages by which a reader sees what was taken for an area."""

import numpy as np

from mneme.audit.taken import examples_of
from mneme.predict.matching import Membership
from mneme.text.packing import Passage


def test_the_likeliest_the_middle_and_the_least_likely_are_shown_and_cut() -> None:
    passages = [Passage(f"text {number} " + "word " * 100, number, number) for number in range(7)]
    odds = np.array([[5.0, 1.0, -np.inf, 3.0, 2.0, 4.0, 9.0]])
    member = np.array([[True, True, False, True, True, True, False]])
    shown = examples_of(passages, Membership(member, odds, np.array([5])), 0)
    assert [one.split()[1] for one in shown] == ["0", "3", "1"]
    assert all(len(one) <= 280 and one.endswith("…") for one in shown)


def test_no_more_are_shown_than_there_are() -> None:
    passages = [Passage("one", 0, 0), Passage("two", 1, 4)]
    none = Membership(np.zeros((1, 2), dtype=bool), np.zeros((1, 2)), np.array([0]))
    both = Membership(np.ones((1, 2), dtype=bool), np.zeros((1, 2)), np.array([2]))
    assert examples_of(passages, none, 0) == []
    assert examples_of(passages, both, 0) == ["one", "two"]
