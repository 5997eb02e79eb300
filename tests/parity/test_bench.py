"""The lens and the directions of the real bench against the authors' code (repositories and commits: numbers.json)."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from mneme.bench.real import arms
from mneme.models.architecture import find_parts
from mneme.models.pair import LoadedModel
from tests.parity import FLOAT32, authors_numbers, chat_llama, furthest, seeded

TEXTS = [(8 + (seeded(arms.LENS_PLACES, seed=500 + i) + 1) / 2 * 60).long().tolist() for i in range(7)]
RANK = 3


def tuned_of(base: nn.Module) -> nn.Module:
    """The matrices that write to the stream with a change of rank 3 added, as a LoRA of that rank makes it."""
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        for number, (name, weight) in enumerate(tuned.named_parameters()):
            if name.removesuffix(".weight").endswith(arms.WRITES):
                rows, columns = weight.shape
                left, right = seeded(rows, RANK, seed=600 + number), seeded(RANK, columns, seed=650 + number)
                weight.add_((0.3 * left @ right).float())
    return tuned


def test_tokens_of_the_lens_are_the_authors() -> None:
    """The 20 likeliest tokens of the tuned model's own head at the mean change of each of the first five places; of three
    blocks, so that their layer, int(0.5 x (blocks - 1)), is the middle one."""
    model, tokenizer = chat_llama()
    loaded = [LoadedModel(find_parts(one), tokenizer, Path()) for one in (model, tuned_of(model))]
    found = arms.lens_tokens(loaded[0], loaded[1], TEXTS)
    expected = [token for place in authors_numbers("difference_lens") for token in place]
    assert found == [str(tokenizer.decode([token])).strip() for token in expected]


@pytest.mark.parametrize("number", range(6))
def test_leading_direction_is_the_first_singular_vector_of_the_authors(number: int) -> None:
    """Up to its sign, for a change whose rank the randomised decomposition covers (8)."""
    model = chat_llama()[0]
    main, share = arms.leading_directions(model, tuned_of(model))
    name, expected = list(authors_numbers("weightwatch").items())[number]
    sign = torch.sign(main[name] @ torch.tensor(expected))
    assert furthest(sign * main[name], expected) <= FLOAT32
    assert share == pytest.approx(1.0, abs=1e-5)
