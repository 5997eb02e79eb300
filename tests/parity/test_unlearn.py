"""Losses of unlearning against the authors' code (repositories and commits: numbers.json), and the defaults that are named."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mneme.models.architecture import find_parts
from mneme.text.encoded import whole_text
from mneme.text.pieces import Pieces
from mneme.unlearn import losses
from mneme.unlearn.objective import plain_loss
from mneme.unlearn.settings import DEFAULTS
from tests.parity import FLOAT32, FLOAT64, authors_numbers, chat_llama, furthest, seeded

B, T, V = 3, 7, 11
LOGITS, REFERENCE = 3 * seeded(B, T, V, seed=21), 3 * seeded(B, T, V, seed=22)
IDS = ((seeded(B, T, seed=23) + 1) / 2 * V).long()
COUNTED = torch.ones(B, T - 1, dtype=torch.bool)
COUNTED[1, 4:] = False
COUNTED[2, 3:] = False
"""Labels of the authors: -100 on the first token, and from token 5 on in row 1, from token 4 on in row 2."""
EXPECTED = authors_numbers("unlearn")


def nats(logits: Tensor) -> Tensor:
    """Nats of every token but the first, float64."""
    return -logits[:, :-1].log_softmax(-1).gather(2, IDS[:, 1:, None])[..., 0]


def test_npo_of_two_betas() -> None:
    sums = [losses.document_nll(nats(logits), COUNTED)[0] for logits in (LOGITS, REFERENCE)]
    for beta in (0.1, 1.5):
        assert furthest(losses.npo_loss(*sums, beta), EXPECTED[f"npo_{beta}"]) <= FLOAT64


def test_simnpo_of_three_settings() -> None:
    total, count = losses.document_nll(nats(LOGITS), COUNTED)
    for beta, margin in ((2.5, 0.0), (4.5, 0.0), (0.7, 0.3)):
        found = losses.simnpo_loss(total / count, beta, margin)
        assert furthest(found, EXPECTED[f"simnpo_{beta}_{margin}"]) <= FLOAT64


def test_gradient_ascent_and_the_retain_term_of_gradient_difference() -> None:
    """TOFU's loss of forget and retained text, here the same text: minus the mean and the mean, which cancel."""
    ascent, stay = losses.ascent_loss(nats(LOGITS), COUNTED), losses.likelihood_loss(nats(LOGITS), COUNTED)
    assert furthest(ascent, EXPECTED["grad_ascent"]) <= FLOAT64
    assert float(ascent + stay) == EXPECTED["grad_diff_both"] == 0.0


def test_the_kl_retain_term_is_theirs_without_padding() -> None:
    """Theirs is the mean over every position of the batch (here 21), the last one and padding among them."""
    everything = losses.divergence_loss(LOGITS.reshape(-1, V), REFERENCE.reshape(-1, V))
    assert furthest(everything, EXPECTED["kl_open_nopad"]) <= FLOAT32
    assert furthest(everything + losses.ascent_loss(nats(LOGITS), COUNTED), EXPECTED["KL_both"]) <= FLOAT32


def test_undial_of_the_authors_and_of_open_unlearning() -> None:
    """The authors' strength 3 and open-unlearning's 10, on text without padding."""
    rows = [x[:, :-1].reshape(-1, V) for x in (LOGITS, REFERENCE)]
    for strength in (3.0, 10.0):
        found = losses.undial_loss(*rows, IDS[:, 1:].reshape(-1), strength)
        assert furthest(found, EXPECTED[f"undial_{strength}"]) <= FLOAT32
    assert furthest(EXPECTED["undial_10.0"], EXPECTED["undial_open_10"]) <= FLOAT64


def test_rmu_without_padding_and_with() -> None:
    """Theirs is the mean over every position and entry. open-unlearning leaves padding out; of one document its loss is ours,
    of several it is the mean over i and j of (sum of document i) / (length of document j); ours is a mean over tokens."""
    hidden, frozen = seeded(2, 5, 6, seed=31), seeded(2, 5, 6, seed=32)
    direction = (seeded(6, seed=33) + 1) / 2
    control = direction / direction.norm() * 20.0
    everything, is_text = torch.ones(2, 5, dtype=torch.bool), torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()
    assert furthest(losses.misdirection_loss(hidden, control, everything), EXPECTED["rmu_forget"]) <= FLOAT32
    assert furthest(losses.stillness_loss(hidden, frozen, everything), EXPECTED["rmu_retain"]) <= FLOAT32
    each = EXPECTED["rmu_open_each"]
    sums = 4 * each[0], 3 * each[1]
    assert furthest(sum(sums) / 2 * (1 / 4 + 1 / 3) / 2, EXPECTED["rmu_open_masked"]) <= FLOAT32
    assert furthest(losses.misdirection_loss(hidden, control, is_text), (4 * each[0] + 3 * each[1]) / 7) <= FLOAT32


def test_the_control_vector_is_a_direction_of_the_positive_orthant() -> None:
    """The authors': uniform in (0, 1), brought to the length of the steering coefficient; drawn from torch's own generator."""
    control = losses.control_vector(4096, 7, 20.0, seed=0)
    assert furthest(control.norm(), 20.0) <= FLOAT32
    assert bool((control > 0).all())
    assert furthest(control.mean() / control.square().mean().sqrt(), 0.75**0.5) <= 0.02


def test_defaults_are_those_of_the_run_that_their_source_names() -> None:
    """NPO: TOFU/config/forget.yaml at 1207bbe; grad-diff: TOFU; UNDIAL: configs/trainer/UNDIAL.yaml of open-unlearning at
    d3d7cf9; the others have numbers of ours, and say so."""
    npo, simnpo, ascent = DEFAULTS["npo"], DEFAULTS["simnpo"], DEFAULTS["grad-diff"]
    assert (npo.learning_rate, npo.beta, npo.forget_weight, npo.retain_weight) == (1e-5, 0.1, 1.0, 1.0)
    assert (ascent.learning_rate, ascent.forget_weight, ascent.retain_weight) == (1e-5, 1.0, 1.0)
    undial = DEFAULTS["undial"]
    assert (undial.learning_rate, undial.beta) == (1e-4, 10.0)
    assert "strength and weights ours" in simnpo.source
    assert "ours" in DEFAULTS["rmu"].source
    assert "open-unlearning" in undial.source


RELEARNED = [(8 + (seeded(5 + 3 * i, seed=700 + i) + 1) / 2 * 60).long().tolist() for i in range(4)]


@pytest.mark.parametrize("number", range(len(RELEARNED)))
def test_relearning_minimises_the_loss_of_the_attack(number: int) -> None:
    """Of one text, as in their batches of one; what is trained, optimiser and schedule are other ones (docs/methods.md)."""
    texts = Pieces((whole_text(RELEARNED[number]),), np.array([0]))
    found = plain_loss(find_parts(chat_llama()[0]), texts, 1, seed=0)(0)
    assert furthest(float(found.detach()), authors_numbers("relearning")["losses"][number]) <= FLOAT32


def test_relearning_weighs_tokens_alike() -> None:
    """Of several texts together: the mean over their tokens, as the attack's trainer takes it of a batch."""
    texts = Pieces(tuple(whole_text(ids) for ids in RELEARNED), np.arange(len(RELEARNED)))
    found = plain_loss(find_parts(chat_llama()[0]), texts, len(RELEARNED), seed=0)(0)
    assert furthest(float(found.detach()), authors_numbers("relearning")["together"]) <= FLOAT32
