"""Persona vectors: a planted direction is found, conventions hold, steering does what it says and only in training."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mneme.activations.projection import answer_means, masked_means, projection
from mneme.errors import BadOption, BadRows, EmptyMask
from mneme.models.architecture import Parts, find_parts
from mneme.models.batching import padded
from mneme.results import Estimate
from mneme.text.rows import encode_rows
from mneme.train.personas import (
    PersonaVectors,
    choose_layer,
    contrast_rows,
    load_personas,
    persona_vectors,
    save_personas,
    steering_effects,
)
from mneme.train.steering import steer
from tests import laws
from tests.conftest import WORDS, tiny_llama
from tests.train.conftest import chat_rows, chat_tokenizer

TOKENIZER = chat_tokenizer()
GOOD, BAD = chat_rows(12, 1, WORDS[:20]), chat_rows(12, 2, WORDS[20:40])


@pytest.fixture(scope="module")
def parts() -> Parts:
    return find_parts(tiny_llama())


def test_row_l_is_the_stream_after_block_l_averaged_over_the_answer(parts: Parts) -> None:
    """Against transformers' own hidden states, of which number l + 1 is layer l (the last one is after the norm)."""
    texts = encode_rows(GOOD[:3], TOKENIZER)
    found, batch = answer_means(parts, texts, [0, 1]), padded(texts)
    ids, learned = batch.ids, batch.counted
    with torch.no_grad():
        states = parts.model(input_ids=ids, output_hidden_states=True).hidden_states
    for row in range(3):
        laws.padding(found[0, row], states[1][row][learned[row]].mean(0), tolerance=1e-5)
    laws.padding(found, torch.cat([answer_means(parts, [text], [0, 1]) for text in texts], 1), tolerance=1e-5)


def test_vectors_change_sign_with_the_sets_and_are_0_for_equal_sets(parts: Parts) -> None:
    one, other = persona_vectors(parts, TOKENIZER, BAD, GOOD), persona_vectors(parts, TOKENIZER, GOOD, BAD)
    laws.antisymmetry(one.vectors, other.vectors)
    laws.identity(persona_vectors(parts, TOKENIZER, GOOD, GOOD).vectors)
    assert (one.n_with, one.n_without, one.vectors.shape) == (12, 12, (2, 16))


def test_steering_makes_the_trait_likelier_and_layers_are_chosen_by_it(parts: Parts) -> None:
    """Planted: the vector of layer 1 points from the words of one set to those of the other, as the head reads them."""
    words = [TOKENIZER.convert_tokens_to_ids(WORDS[part]) for part in (slice(20, 40), slice(0, 20))]
    head = parts.head.weight.detach()
    planted = torch.stack([torch.zeros(16) + 1e-3, head[words[0]].mean(0) - head[words[1]].mean(0)])
    personas = PersonaVectors(planted, 1, 1)
    effects = steering_effects(parts, TOKENIZER, personas, BAD, GOOD, strength=5.0)
    against = steering_effects(parts, TOKENIZER, personas, BAD, GOOD, strength=-5.0)
    assert choose_layer(effects) == 1
    assert effects[1].low > 0 > against[1].high
    assert all(effect.low <= effect.value <= effect.high for effect in effects)


def test_choose_layer_takes_the_largest_then_the_earliest() -> None:
    effects = [Estimate(value=v, low=v, high=v, unit="nats", n=3) for v in (0.1, 0.5, 0.5)]
    assert choose_layer(effects) == 1


def test_steering_adds_the_vector_in_training_only(parts: Parts) -> None:
    vectors = torch.randn(2, 16)
    ids = torch.arange(8, 14)[None]

    def stream() -> torch.Tensor:
        return masked_means(parts, ids, torch.ones_like(ids, dtype=torch.bool), [0])[0, 0]

    plain = stream()
    with steer(parts, vectors, strength=3.0, layer=0):
        laws.zero_strength(plain, stream())
        parts.model.train()
        steered = stream()
        parts.model.eval()
    laws.planted(steered - plain, 3.0 * vectors[0], within=1e-4)
    with steer(parts, vectors, strength=3.0, layer=0, training_only=False):
        laws.planted(stream() - plain, 3.0 * vectors[0], within=1e-4)
    laws.zero_strength(plain, stream())


def test_increments_at_all_layers_add_up_to_the_last_vector(parts: Parts) -> None:
    """With blocks that pass the stream on unchanged the increments telescope."""
    model = tiny_llama()
    for block in model.model.layers:
        block.self_attn.o_proj.weight.data.zero_()
        block.mlp.down_proj.weight.data.zero_()
    still, vectors, ids = find_parts(model), torch.randn(2, 16), torch.arange(8, 12)[None]
    keep = torch.ones_like(ids, dtype=torch.bool)
    plain = masked_means(still, ids, keep, [1])
    with steer(still, vectors, strength=1.5, training_only=False):
        laws.planted(masked_means(still, ids, keep, [1]) - plain, 1.5 * vectors[None, 1:], within=1e-4)


def test_projection_is_the_length_along_the_unit_vector() -> None:
    laws.planted(projection(torch.tensor([[3.0, 4.0]]), torch.tensor([0.0, 2.0])), torch.tensor([4.0]), within=1e-6)
    with pytest.raises(BadOption, match="a direction of length 0"):
        projection(torch.ones(1, 2), torch.zeros(2))


def test_contrast_rows_pair_prompts_and_keep_what_shows_the_trait(parts: Parts) -> None:
    questions, asked = ["ba be", "bi bo"], ("fan", "fen")
    with_trait, without = contrast_rows(parts, TOKENIZER, questions, [asked[0]], [asked[1]], max_new_tokens=4)
    assert len(with_trait) == len(without) == 2
    assert with_trait[0]["messages"][0] == {"role": "system", "content": "fan"}
    assert without[1]["messages"][1]["content"] == "bi bo"
    with pytest.raises(BadRows, match="no pair of answers shows the trait"):
        contrast_rows(parts, TOKENIZER, questions, ["fan"], ["fen"], max_new_tokens=4, keep=lambda _q, _a: 0.9)
    with pytest.raises(BadOption, match="contrast prompts come in pairs"):
        contrast_rows(parts, TOKENIZER, questions, ["fan"], [])


def test_vectors_come_back_from_their_file(parts: Parts, tmp_path: Path) -> None:
    made = PersonaVectors(torch.randn(2, 16), 5, 6, layer=1)
    save_personas(made, tmp_path / "v.safetensors")
    found = load_personas(tmp_path / "v.safetensors")
    laws.zero_strength(made.vectors, found.vectors)
    assert (found.n_with, found.n_without, found.layer) == (5, 6, 1)
    save_file({"vectors": made.vectors}, tmp_path / "other.safetensors")
    with pytest.raises(BadOption, match="holds no persona vectors"):
        load_personas(tmp_path / "other.safetensors")
    with pytest.raises(BadOption, match="cannot be read"):
        load_personas(tmp_path / "none.safetensors")


def test_bad_input_is_named(parts: Parts) -> None:
    with pytest.raises(BadRows, match="one of the two sets is empty"):
        persona_vectors(parts, TOKENIZER, [], GOOD)
    with (
        pytest.raises(BadOption, match=r"shape \(2, 8\), and the model has 2 blocks of width 16"),
        steer(parts, torch.zeros(2, 8), strength=1.0),
    ):
        pass
    with pytest.raises(BadOption, match="layer 5 does not exist"), steer(parts, torch.zeros(2, 16), strength=1.0, layer=5):
        pass
    with pytest.raises(EmptyMask, match="no token to average over"):
        masked_means(parts, torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.bool), [0])
