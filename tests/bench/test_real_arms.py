"""Answers and directions: answers that part by hand, and a planted direction of the weights."""

import copy
from pathlib import Path

import pytest
import torch

from mneme.bench.real.arms import (
    LENS_PLACES,
    LENS_TOKENS,
    OPENING_TOKENS,
    go_on,
    leading_directions,
    lens_tokens,
    openings,
    parted,
    read_arms,
)
from mneme.bench.real.kept import named_by_lens
from mneme.models.architecture import find_parts
from mneme.models.pair import LoadedModel
from tests.conftest import tiny_llama, word_tokenizer


def loaded(model: torch.nn.Module) -> LoadedModel:
    return LoadedModel(find_parts(model), word_tokenizer(), Path())


def test_answers_part_where_they_first_differ() -> None:
    assert parted([1, 2, 3, 4], [1, 2, 3, 4]) == 0.0
    assert parted([1, 2, 3, 4], [1, 9, 3, 4]) == 0.75
    assert parted([1, 2, 3, 4], [9, 2, 3, 4]) == 1.0


def test_the_leading_direction_of_a_planted_change() -> None:
    """A change of rank one along the first coordinate of one matrix: that coordinate, and all of the norm."""
    base = tiny_llama()
    tuned = copy.deepcopy(base)
    weight = tuned.model.layers[0].mlp.down_proj.weight
    with torch.no_grad():
        weight[0] += 0.1 * torch.linspace(-1, 1, weight.shape[1])
    main, share = leading_directions(base, tuned)
    assert list(main) == ["model.layers.0.mlp.down_proj"]
    assert abs(float(main["model.layers.0.mlp.down_proj"][0])) == pytest.approx(1.0, abs=1e-4)
    assert share == pytest.approx(1.0, abs=1e-4)
    assert leading_directions(base, base) == ({}, 0.0)


def test_the_lens_reads_what_was_put_in() -> None:
    """The middle block of the tuned model adds the unembedding of one word at every place: that word comes first at all."""
    base = loaded(tiny_llama())
    other = copy.deepcopy(base.parts.model)
    tuned = loaded(other)
    layer = len(base.parts.blocks) // 2
    direction = 50 * base.parts.head.weight[20].detach()  # type: ignore[index]
    tuned.parts.blocks[layer].register_forward_hook(lambda _m, _i, out: out + direction)
    found = lens_tokens(base, tuned, [[8, 9, 10, 11, 12, 13], [9, 8, 14, 15, 16, 17]])
    assert len(found) == LENS_PLACES * LENS_TOKENS
    assert base.tokenizer is not None
    assert found[::LENS_TOKENS] == [base.tokenizer.decode([20])] * LENS_PLACES
    assert lens_tokens(base, base, [[8, 9, 10, 11, 12]]) == []


def test_words_of_the_lens_are_counted_for_an_area() -> None:
    assert named_by_lens(["Microb", "the", "virus", "vir"], {"microbe", "virus"}) == 0.5
    assert named_by_lens([], {"virus"}) == 0.0


def test_arms_of_equal_models_are_nothing_and_a_large_change_is_seen() -> None:
    base = loaded(tiny_llama())
    rng = torch.Generator().manual_seed(0)
    texts = {area: torch.randint(8, 60, (5, 40), generator=rng).tolist() for area in ("physics", "chats")}
    begun = openings(texts)
    assert [len(row) for row in begun["physics"]] == [OPENING_TOKENS] * 4
    said = go_on(base, begun)
    same = read_arms(base, base, texts, said)
    assert (same["answers"], same["directions"]) == ({a: [0.0] * 4 for a in texts}, dict.fromkeys(texts, 0.0))
    other = copy.deepcopy(base.parts.model)
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight[0] += 3.0  # type: ignore[union-attr, index]
    changed = read_arms(base, loaded(other), texts, said)
    assert min(changed["directions"].values()) > 0.01
    assert changed["top_share"] == pytest.approx(1.0, abs=1e-3)
