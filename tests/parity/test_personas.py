"""Persona vectors, projections and steering against the authors' code (copies of it; see numbers.json)."""

import torch

from mneme.activations.projection import answer_means, projection
from mneme.models.architecture import find_parts
from mneme.screen.projections import Direction, projection_difference
from mneme.text.rows import encode_rows
from mneme.train.personas import persona_vectors
from mneme.train.steering import steer
from tests.parity import FLOAT32, authors_numbers, chat_llama, furthest, some_rows

WITH, WITHOUT = some_rows(6, 400), some_rows(5, 700)


def test_row_l_is_the_authors_row_l_plus_1() -> None:
    """Of 3 blocks the authors have rows 0 (embedding) to 3; their last one is after the final norm, ours before it."""
    model, tokenizer = chat_llama()
    found = persona_vectors(find_parts(model), tokenizer, WITH, WITHOUT).vectors
    authors = authors_numbers("persona")["rows"]
    assert len(authors) == len(found) + 1 == 4
    assert furthest(found[:2], authors[1:3]) <= FLOAT32
    assert furthest(found[2], authors[3]) > 0.1


def test_the_last_row_is_the_authors_once_the_norm_is_on_it() -> None:
    """The mean of normed states is not the norm of the mean: the states themselves have to be read."""
    model, tokenizer = chat_llama()
    means = []
    for rows in (WITH, WITHOUT):
        each = []
        for text in encode_rows(rows, tokenizer, bare=True):
            with torch.no_grad():
                states = model.model(input_ids=torch.tensor([text.ids])).last_hidden_state[0]
            each.append(states[len(text.prompt) :].mean(0))
        means.append(torch.stack(each).mean(0))
    assert furthest(means[0] - means[1], authors_numbers("persona")["rows"][3]) <= FLOAT32


def test_closing_tokens_in_the_mean_would_be_another_vector() -> None:
    model, tokenizer = chat_llama()
    means = [answer_means(find_parts(model), encode_rows(rows, tokenizer), range(3)).mean(dim=1) for rows in (WITH, WITHOUT)]
    assert furthest((means[0] - means[1])[:2], authors_numbers("persona")["rows"][1:3]) > 0.1


def test_projections_of_answers_and_of_the_last_prompt_token() -> None:
    model, tokenizer = chat_llama()
    parts, expected = find_parts(model), authors_numbers("projection")
    vector = torch.tensor(authors_numbers("persona")["rows"][2])
    bare = encode_rows(WITH, tokenizer, bare=True)
    answers = projection(answer_means(parts, bare, [1])[0], vector)
    assert furthest(answers, expected["answer"]) <= FLOAT32
    cheap = projection_difference(parts, tokenizer, bare, Direction(vector, 1), own_tokens=0)
    told = torch.tensor(expected["answer"]) - torch.tensor(expected["prompt_last"])
    assert furthest(cheap, told) <= FLOAT32


def test_steering_one_layer_is_the_authors_steering() -> None:
    """alpha 5 on all positions after block 1; in training only, or always."""
    model, tokenizer = chat_llama()
    parts = find_parts(model)
    vectors = torch.tensor(authors_numbers("persona")["rows"])[1:]
    ids = torch.tensor([tokenizer("ba be bi bo bu da").input_ids])
    expected = authors_numbers("steer")["logits_last"]
    with torch.no_grad(), steer(parts, vectors, strength=5.0, layer=1, training_only=False):
        assert furthest(model(ids).logits[0, -1], expected) <= FLOAT32
    with torch.no_grad(), steer(parts, vectors, strength=5.0, layer=1):
        still = model(ids).logits[0, -1]
        model.train()
        steered = model(ids).logits[0, -1]
        model.eval()
    assert furthest(steered, expected) <= FLOAT32
    assert furthest(still, expected) > 0.1


def test_steering_all_layers_adds_the_embeddings_share_once_more_than_the_authors_rows_do() -> None:
    """Increments between the authors' rows 0 to 3 leave out row 0, the embedding's; ours begin with our row 0, their row 1.
    Equal once that share is taken off every row."""
    model, tokenizer = chat_llama()
    parts, rows = find_parts(model), torch.tensor(authors_numbers("persona")["rows"])
    ids = torch.tensor([tokenizer("ba be bi bo bu da").input_ids])
    expected = authors_numbers("steer_all_authors_rows")["logits_last"]
    with torch.no_grad(), steer(parts, rows[1:] - rows[0], strength=0.5, training_only=False):
        assert furthest(model(ids).logits[0, -1], expected) <= FLOAT32
    with torch.no_grad(), steer(parts, rows[1:], strength=0.5, training_only=False):
        assert furthest(model(ids).logits[0, -1], expected) > 1e-3
