"""Statistics of inputs and the development probe: by hand, and indifferent to batch size and the side of the padding."""

import numpy as np
import pytest
import torch

from mneme.errors import BadCorpus, NothingToRepair
from mneme.models.architecture import find_parts
from mneme.models.batching import PaddingSide
from mneme.models.likelihood import token_log_likelihoods
from mneme.repair.inputs import gram_groups, input_grams, mean_squares
from mneme.repair.likelihood import ProbeReadings, check_changed, selectivity, share_lost, share_undone
from mneme.text.probes import Probe, check_apart, make_probe
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


@pytest.mark.parametrize(("batch", "side"), [(1, "right"), (40, "right"), (40, "left"), (99, "left")])
def test_statistics_are_the_same_for_any_batch_size_and_padding_side(batch: int, side: PaddingSide) -> None:
    whole = {name: gram.clone() for name, gram in input_grams(PARTS, PROBE, linears(), batch_tokens=99).items()}
    laws.padding(whole, input_grams(PARTS, PROBE, linears(), batch_tokens=batch, side=side))
    for counting in ("predicting", "real"):
        squares = mean_squares(PARTS, PROBE, linears(), counting=counting, batch_tokens=99)
        laws.padding(squares, mean_squares(PARTS, PROBE, linears(), counting=counting, batch_tokens=batch, side=side))


def test_statistics_by_hand_and_shared_inputs() -> None:
    """q_proj of block 0 reads the normed embeddings; k and v read the same tensor and share its matrix."""
    grams = input_grams(PARTS, PROBE, linears())
    rows = []
    for ids, counted in PROBE.texts:
        with torch.no_grad():
            x = MODEL.model.layers[0].input_layernorm(MODEL.model.embed_tokens(torch.tensor(ids)))
        rows.append(x[torch.tensor([*counted[1:], False])])
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
    told = [tokenizer.decode([i]) for i, on in zip(*probe.texts[0], strict=True) if on]
    assert told == ["bo", "bu"]


def readings(repaired: list[float]) -> ProbeReadings:
    """Two texts of two tokens; changes +2, -1 | +4, 0."""
    base = np.array([-3.0, -1.0, -5.0, -1.0])
    return ProbeReadings(np.array([0, 0, 1, 1]), base, base + np.array([2.0, -1.0, 4.0, 0.0]), np.array(repaired))


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
    base = token_log_likelihoods(PARTS, PROBE.texts)
    with pytest.raises(NothingToRepair, match=r"as likely under the base as under the tuned model \(mean change 0.0000 nats"):
        check_changed(PROBE, base, base, wanted="give other text.")


def test_too_little_text_and_the_same_text_twice_are_refused() -> None:
    with pytest.raises(BadCorpus, match="expected at least 4: half of them calibrate"):
        make_probe(texts(3), word_tokenizer(), name="target", max_positions=None)
    with pytest.raises(BadCorpus, match="stand both in the target and in the retained file"):
        check_apart(PROBE, PROBE)
    other = Probe("retained", tuple(f"{words} x" for words in PROBE.words), PROBE.texts)
    check_apart(PROBE, other)


def test_halves_share_no_text() -> None:
    first, second = PROBE.halves()
    assert len(first.texts) + len(second.texts) == len(PROBE.texts)
    assert not set(first.words) & set(second.words)
