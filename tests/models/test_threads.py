"""Several computations at once: results in order, threads shared out, errors that come out."""

import threading
from functools import partial

import pytest
import torch

from mneme.models.threads import at_once, computing_threads


def test_results_come_in_order_and_threads_are_shared_out() -> None:
    def job(number: int) -> tuple[int, int]:
        return number, torch.get_num_threads()

    jobs = [partial(job, number) for number in range(3)]
    for threads, each in ((1, 1), (2, 1), (3, 1), (6, 2), (7, 2)):
        with computing_threads(threads):
            assert at_once(jobs) == [(0, each), (1, each), (2, each)]
            assert torch.get_num_threads() == threads


def test_a_single_job_has_all_threads() -> None:
    with computing_threads(4):
        assert at_once([torch.get_num_threads]) == [4]
        assert at_once([]) == []


def test_threads_that_begin_later_compute_with_as_many_as_before() -> None:
    found: list[int] = []
    with computing_threads(4):
        at_once([torch.get_num_threads] * 2)
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
    assert found == [4]


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_comes_out_when_all_have_ended(bad: int) -> None:
    ended: list[int] = []

    def job(number: int) -> None:
        if number == bad:
            raise KeyError(number)
        ended.append(number)

    with computing_threads(2), pytest.raises(KeyError, match=str(bad)):
        at_once([lambda: job(0), lambda: job(1)])
    assert ended == [1 - bad]
