"""Whether a model follows the prompts: what is moved where, and the test on nats that are known."""

import numpy as np
import pytest

from mneme.predict.probes import FORMS, AskedProbe
from mneme.predict.understood import PROMPTS, follows_prompts, strangers


def _asked(count: int) -> list[AskedProbe]:
    return [AskedProbe(i, shows, [100 + i, 100 + i, 200 + i, 300 + shows], 2) for i in range(count) for shows in (True, False)]


def test_answers_move_behind_another_prompt_of_the_same_form() -> None:
    asked = _asked(15)
    found = strangers(asked)
    assert len(found) == 2 * PROMPTS
    for index, moved in found:
        other = moved.ids[0] - 100
        assert other != asked[index].probe
        assert other % FORMS == asked[index].probe % FORMS
        assert moved.ids[moved.first :] == asked[index].ids[2:]
        assert moved.ids[: moved.first] == [100 + other] * 2


def test_a_lone_prompt_has_no_other() -> None:
    assert strangers(_asked(1)) == []


def test_answers_that_fit_their_prompt_are_followed_and_others_not() -> None:
    generator = np.random.default_rng(0)
    probe = np.repeat(np.arange(12), 2).tolist()
    elsewhere = -40 + generator.normal(0, 4, 24)
    assert follows_prompts(elsewhere + generator.normal(8, 6, 24), elsewhere, probe)
    rejected = [follows_prompts(elsewhere + generator.normal(0, 6, 24), elsewhere, probe) for _ in range(400)]
    assert np.mean(rejected) < 0.09


@pytest.mark.parametrize("unread", [0, 10])
def test_too_few_prompts_show_nothing(unread: int) -> None:
    probe = np.repeat(np.arange(7 + unread), 2).tolist()
    own = np.full(len(probe), -1.0)
    own[14:] = np.nan
    assert not follows_prompts(own, np.full(len(probe), -9.0), probe)


def test_equal_gains_are_followed_only_where_they_are_gains() -> None:
    probe, there = list(range(9)), np.full(9, -5.0)
    assert follows_prompts(there + 1, there, probe)
    assert not follows_prompts(there, there, probe)
