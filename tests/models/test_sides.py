"""Both models at once: the same results, each with half of the threads, and one after the other where they are one model."""

import threading
from collections.abc import Iterator

import pytest
import torch

from mneme.activations.harvest import harvest
from mneme.diff.survey import survey_rows
from mneme.models.pair import ModelPair, Side, load_pair
from mneme.models.sides import on_both
from mneme.models.threads import computing_threads
from tests.conftest import TinyPair


@pytest.fixture(scope="module")
def pair(tiny_pair: TinyPair) -> ModelPair:
    return load_pair(tiny_pair.base, tiny_pair.tuned)


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    with computing_threads(4):
        yield
        assert torch.get_num_threads() == 4  # whatever happened


def seen(side: Side) -> tuple[Side, int, int, bool]:
    return side, torch.get_num_threads(), threading.get_ident(), torch.is_grad_enabled()


def test_each_side_has_half_of_the_threads_and_the_callers_gradients(pair: ModelPair) -> None:
    with torch.no_grad():
        base, tuned = on_both(pair, seen)
    assert (base[:2], tuned[:2]) == (("base", 2), ("tuned", 2))
    assert not base[3]
    assert not tuned[3]


def test_they_run_at_the_same_time(pair: ModelPair) -> None:
    meeting = threading.Barrier(2, timeout=30)
    assert sorted(on_both(pair, lambda _side: meeting.wait())) == [0, 1]


@pytest.mark.parametrize("threads", [1, 4])
def test_one_after_the_other_with_one_thread_or_one_model(tiny_pair: TinyPair, pair: ModelPair, threads: int) -> None:
    own = pair if threads == 1 else load_pair(tiny_pair.base, tiny_pair.base)
    with computing_threads(threads):
        base, tuned = on_both(own, seen)
    assert (base[:2], tuned[:2]) == (("base", threads), ("tuned", threads))
    assert base[2] == tuned[2]


def test_results_are_those_of_one_after_the_other(pair: ModelPair) -> None:
    ids = torch.randint(3, pair.vocab_size, (6, 32), generator=torch.Generator().manual_seed(3))

    def read() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        streams = [
            side for found in harvest(pair, ids, [0, 1], batch_rows=3) for side in (*found.m.values(), *found.q.values())
        ]
        return streams, [torch.from_numpy(column) for column in survey_rows(pair, ids, batch_rows=3)]

    many, again = read(), read()
    with computing_threads(1):
        alone = read()
    for one, two, three in zip((*many[0], *many[1]), (*again[0], *again[1]), (*alone[0], *alone[1]), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, three)


def test_equal_models_differ_by_exactly_nothing(tiny_pair: TinyPair, pair: ModelPair) -> None:
    first, second = load_pair(tiny_pair.base, tiny_pair.tuned), load_pair(tiny_pair.base, tiny_pair.tuned)
    second.tuned_parts.model.load_state_dict(first.base_parts.model.state_dict())
    assert second.base_parts.model is not second.tuned_parts.model
    ids = torch.randint(3, pair.vocab_size, (6, 32), generator=torch.Generator().manual_seed(3))
    assert all(not found.q[1].any() for found in harvest(second, ids, [1], batch_rows=3))
