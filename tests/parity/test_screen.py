"""Gradient similarity against LESS (princeton-nlp/LESS: obtain_gradients and calculate_influence_score of normalised ones),
at the level where both agree: whole gradients of the linear maps at one checkpoint, without projection and Adam's scaling."""

import pytest

from mneme.models.architecture import find_parts
from mneme.screen.gradients import gradient_similarity, mean_gradient
from mneme.text.encoded import Encoded, answer_after
from tests.parity import FLOAT32, authors_numbers, chat_llama, furthest, seeded


def encoded_rows(count: int, seed: int) -> list[Encoded]:
    """Prompts of 2 to 4 tokens with answers of 1 to 5, which count."""
    rows = []
    for i in range(count):
        ids = (8 + (seeded(12, seed=seed + i) + 1) / 2 * 60).long().tolist()
        rows.append(answer_after(ids[: 2 + i % 3], ids[5 : 6 + (2 * i) % 5]))
    return rows


ROWS, BEHAVIOUR = encoded_rows(6, 900), encoded_rows(3, 950)


@pytest.mark.parametrize("example", range(len(BEHAVIOUR)))
def test_similarity_to_one_example_is_the_influence_of_the_authors(example: int) -> None:
    parts = find_parts(chat_llama()[0])
    found = gradient_similarity(parts, ROWS, mean_gradient(parts, BEHAVIOUR[example : example + 1]))
    assert furthest(found, [row[example] for row in authors_numbers("less")["influence"]]) <= FLOAT32


def test_similarity_to_several_is_that_of_their_mean_gradient() -> None:
    """Equation 3 of the paper, from the authors' gradients before they are normalised; their code takes the mean of the
    cosines instead, which weighs every example alike and falls where the examples differ among themselves."""
    parts, expected = find_parts(chat_llama()[0]), authors_numbers("less")
    found = gradient_similarity(parts, ROWS, mean_gradient(parts, BEHAVIOUR))
    assert furthest(found, expected["of_mean_gradient"]) <= FLOAT32
    assert furthest(found, expected["mean_influence"]) > 0.01
