"""Which texts go together and how they are padded: by hand; a pass over a batch against the texts alone."""

import pytest
import torch

from mneme.models.architecture import find_parts
from mneme.models.batching import PaddingSide, batches, epoch_batch, length_batches, padded, predicting, run_blocks
from mneme.models.hooks import read
from mneme.text.encoded import Encoded, answer_after, whole_text
from tests import laws
from tests.conftest import tiny_llama

TEXTS = [Encoded((5, 6, 7), (False, True, True)), Encoded((8,), (False,))]


def test_padding_by_hand_on_either_side() -> None:
    right, left = padded(TEXTS, pad_id=9), padded(TEXTS, "left", numbers=[3, 1])
    assert right.ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert right.real.tolist() == [[True, True, True], [True, False, False]]
    assert right.counted.tolist() == [[False, True, True], [False, False, False]]
    assert right.predicting().tolist() == [[True, True, False], [False, False, False]]
    assert (right.positions().tolist(), right.texts) == ([[0, 1, 2], [0, 0, 0]], (0, 1))
    assert left.ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert left.real.tolist() == [[True, True, True], [False, False, True]]
    assert (left.positions().tolist(), left.texts) == ([[0, 1, 2], [0, 0, 0]], (3, 1))


def test_values_of_counted_tokens_go_where_they_stand_and_come_apart() -> None:
    batch = padded([answer_after((1, 2), (3,)), whole_text((4, 5, 6))])
    values = torch.tensor([1.0, 2.0, 3.0])
    assert batch.spread(values).tolist() == [[0.0, 0.0, 1.0], [0.0, 2.0, 3.0]]
    assert [own.tolist() for own in batch.apart(values)] == [[1.0], [2.0, 3.0]]


def test_batches_are_sorted_by_length_and_keep_to_their_budget() -> None:
    # The longest text exceeds the budget and goes alone; then two of 4 tokens fit into 8, a third would not.
    assert length_batches([4, 9, 1, 4, 4], 8) == [[1], [0, 3], [4, 2]]
    assert length_batches([], 8) == []
    texts = [whole_text(range(n)) for n in (4, 9, 1, 4, 4)]
    assert [batch.texts for batch in batches(texts, batch_tokens=8)] == [(1,), (0, 3), (4, 2)]


def test_a_counted_token_is_predicted_one_place_before() -> None:
    counted = torch.tensor([[True, False, True, True]])  # nothing predicts the first
    assert predicting(counted).tolist() == [[False, True, True, False]]


def test_every_text_comes_once_an_epoch_in_another_order() -> None:
    order = [number for step in range(10) for number in epoch_batch(5, 2, step, seed=1).tolist()]
    assert [sorted(order[i : i + 5]) for i in range(0, 20, 5)] == [[0, 1, 2, 3, 4]] * 4
    assert order[:5] != order[5:10]


@pytest.mark.parametrize("side", ["left", "right"])
def test_company_and_side_of_the_padding_do_not_matter(side: PaddingSide) -> None:
    parts, texts = find_parts(tiny_llama()), [whole_text(range(10, 10 + n)) for n in (7, 2, 5)]

    def streams(chosen: list[Encoded], side: PaddingSide) -> list[torch.Tensor]:
        batch = padded(chosen, side)
        with torch.no_grad(), read(parts, [1]) as found:
            run_blocks(parts, batch)
        return [found[1][row][batch.real[row]] for row in range(len(chosen))]

    alone = [streams([text], "right")[0] for text in texts]
    for together, own in zip(streams(texts, side), alone, strict=True):
        laws.padding(together, own)
