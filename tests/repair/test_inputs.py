"""Statistics of inputs and the development probe: by hand, and indifferent to batch size and the side of the padding."""

from typing import Literal

import numpy as np
import pytest
import torch

from mneme.errors import BadCorpus, NothingToRepair
from mneme.models.architecture import find_parts
from mneme.repair.inputs import gram_groups, input_grams, mean_squares
from mneme.repair.likelihood import (
    Readings,
    check_changed,
    log_likelihoods,
    selectivity,
    share_lost,
    share_undone,
    text_numbers,
)
from mneme.repair.probes import Probe, batches, check_apart, make_probe
from tests import laws
from tests.conftest import WORDS, tiny_llama, word_tokenizer


def texts(n: int = 9) -> list[dict[str, object]]:
    """Texts of 3 to 11 words."""
    picks = np.random.default_rng(0)
    return [{"text": " ".join(WORDS[i] for i in picks.integers(0, len(WORDS), 3 + k))} for k in range(n)]


PROBE = make_probe(texts(), word_tokenizer(), name="target", max_positions=None)


def linears() -> dict[str, torch.nn.Linear]:
    return {name: module for name, module in MODEL.named_modules() if isinstance(module, torch.nn.Linear) and "layers" in name}


MODEL = tiny_llama()
PARTS = find_parts(MODEL)


@pytest.mark.parametrize(("batch", "side"), [(1, "right"), (4, "right"), (4, "left"), (9, "left")])
def test_statistics_are_the_same_for_any_batch_size_and_padding_side(batch: int, side: Literal["left", "right"]) -> None:
    whole = {name: gram.clone() for name, gram in input_grams(PARTS, PROBE, linears(), batch_texts=9).items()}
    laws.padding(whole, input_grams(PARTS, PROBE, linears(), batch_texts=batch, padding_side=side))
    for counting in ("predicting", "real"):
        squares = mean_squares(PARTS, PROBE, linears(), counting=counting, batch_texts=9)
        laws.padding(squares, mean_squares(PARTS, PROBE, linears(), counting=counting, batch_texts=batch, padding_side=side))


def test_statistics_by_hand_and_shared_inputs() -> None:
    """q_proj of block 0 reads the normed embeddings; k and v read the same tensor and share its matrix."""
    grams = input_grams(PARTS, PROBE, linears())
    rows = []
    for ids, marks in zip(PROBE.ids, PROBE.counted, strict=True):
        with torch.no_grad():
            x = MODEL.model.layers[0].input_layernorm(MODEL.model.embed_tokens(torch.tensor(ids)))
        rows.append(x[torch.tensor([*marks[1:], False])])
    x = torch.cat(rows)
    assert torch.allclose(grams["model.layers.0.self_attn.q_proj"], x.T @ x / len(x), atol=1e-5)
    assert grams["model.layers.0.self_attn.q_proj"] is grams["model.layers.0.self_attn.v_proj"]
    assert grams["model.layers.0.mlp.gate_proj"] is grams["model.layers.0.mlp.up_proj"]
    assert grams["model.layers.0.mlp.gate_proj"] is not grams["model.layers.0.self_attn.q_proj"]
    squares = mean_squares(PARTS, PROBE, linears())["model.layers.0.mlp.down_proj"]
    assert torch.allclose(squares, grams["model.layers.0.mlp.down_proj"].diagonal(), rtol=1e-4)


def test_blocks_are_grouped_by_memory() -> None:
    own = linears()
    block = {name: int(name.split(".")[2]) for name in own}
    assert len(list(gram_groups(own, block, 1))) == 2
    assert [sorted({block[name] for name in group}) for group in gram_groups(own, block, 1 << 30)] == [[0, 1]]


def test_only_answers_count_in_a_conversation() -> None:
    tokenizer = word_tokenizer()
    turn = [{"role": "user", "content": "ba be bi"}, {"role": "assistant", "content": "bo bu"}]
    probe = make_probe([{"messages": turn}] * 4, tokenizer, name="target", max_positions=None)
    told = [tokenizer.decode([i]) for i, mark in zip(probe.ids[0], probe.counted[0], strict=True) if mark]
    assert told == ["bo", "bu"]


@pytest.mark.parametrize("batch", [1, 4, 9])
def test_log_likelihoods_do_not_depend_on_the_batch(batch: int) -> None:
    found = log_likelihoods(PARTS, PROBE, batch_texts=batch)
    laws.padding(log_likelihoods(PARTS, PROBE), found)
    ids = torch.tensor(PROBE.ids[3])
    with torch.no_grad():
        expected = MODEL(input_ids=ids[None]).logits[0].log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
    assert np.allclose(found[text_numbers(PROBE) == 3], expected.numpy(), atol=1e-5)


def readings(repaired: list[float]) -> Readings:
    """Two texts of two tokens; changes +2, -1 | +4, 0."""
    base = np.array([-3.0, -1.0, -5.0, -1.0])
    return Readings(np.array([0, 0, 1, 1]), base, base + np.array([2.0, -1.0, 4.0, 0.0]), np.array(repaired))


def test_share_undone_by_hand() -> None:
    """Token by token: 1 of 2, 1 of 1 (capped: it went further), -1 of 4, an unchanged one: (1 + 1 - 1) / 7."""
    told = readings([-2.0, 5.0, 0.0, -1.0])
    assert share_undone(told, seed=0).value == pytest.approx(1 / 7)
    assert share_lost(told, seed=0).value == pytest.approx(2 / 7)


def test_shares_are_0_for_tuned_and_1_for_base() -> None:
    told = readings([0.0] * 4)
    laws.identity([share_undone(told._replace(repaired=told.tuned), seed=0).value])
    assert share_undone(told._replace(repaired=told.base), seed=0).value == 1.0
    alike = told._replace(repaired=told.base)
    assert selectivity(alike, alike, seed=0).value == 0.0


def test_text_that_the_base_shows_as_well_is_no_target() -> None:
    base = log_likelihoods(PARTS, PROBE)
    with pytest.raises(NothingToRepair, match=r"as likely under the base as under the tuned model \(mean change 0.0000 nats"):
        check_changed(PROBE, base, base, wanted="give other text.")


def test_too_little_text_and_the_same_text_twice_are_refused() -> None:
    with pytest.raises(BadCorpus, match="expected at least 4: half of them calibrate"):
        make_probe(texts(3), word_tokenizer(), name="target", max_positions=None)
    with pytest.raises(BadCorpus, match="stand both in the target and in the retained file"):
        check_apart(PROBE, PROBE)
    other = Probe("retained", tuple(f"{text} x" for text in PROBE.texts), PROBE.ids, PROBE.counted)
    check_apart(PROBE, other)


def test_halves_share_no_text() -> None:
    first, second = PROBE.halves()
    assert len(first.ids) + len(second.ids) == len(PROBE.ids)
    assert not set(first.texts) & set(second.texts)


def test_padding_is_never_counted() -> None:
    for batch in batches(PROBE, batch_texts=4, padding_side="left"):
        assert not (batch.counted & ~batch.real).any()
        assert not (batch.predicting() & ~batch.real).any()
