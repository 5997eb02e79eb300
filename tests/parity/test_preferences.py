"""CHES and its baselines against the authors' script; DPO, DPOP, DPO + SFT and reward calibration by hand."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from mneme.dpo.losses import band_test, calibration_factor, dpop_loss
from mneme.models.architecture import find_parts
from mneme.models.preference import dpo_loss
from mneme.screen.scoring import score_pairs
from mneme.text.pairs import encode_pairs
from tests.parity import FLOAT32, FLOAT64, authors_numbers, chat_llama, furthest, seeded, some_pairs


@pytest.mark.parametrize("score", ["ches", "ln-ches", "last-hidden"])
def test_scores_of_pairs_are_the_authors_under_a_template_that_closes_with_a_newline(score: str) -> None:
    """The template writes <|im_end|> and a newline behind an answer; the authors' script reads up to the last word."""
    model, tokenizer = chat_llama()
    bare = encode_pairs(some_pairs(), tokenizer, None, bare=True)
    found = score_pairs(find_parts(model), bare, [score])[score]
    assert furthest(found, authors_numbers("ches")[score]) <= FLOAT32


def test_edit_similarity_is_one_minus_the_authors_distance() -> None:
    model, tokenizer = chat_llama()
    bare = encode_pairs(some_pairs(), tokenizer, None, bare=True)
    found = score_pairs(find_parts(model), bare, ["edit"])["edit"]
    assert furthest(1 - found, authors_numbers("ches")["edit_distance"]) <= FLOAT64


def test_the_trained_tokens_would_give_other_scores() -> None:
    """What is trained on has the closing tokens too; a test that could not tell the two apart would show nothing."""
    model, tokenizer = chat_llama()
    trained = encode_pairs(some_pairs(), tokenizer, None)
    found = score_pairs(find_parts(model), trained, ["ln-ches", "last-hidden", "edit"])
    expected = authors_numbers("ches")
    assert furthest(found["ln-ches"], expected["ln-ches"]) > 0.01
    assert furthest(found["last-hidden"], expected["last-hidden"]) > 0.01
    assert furthest(1 - found["edit"], expected["edit_distance"]) > 0.01


def test_dpo_by_hand() -> None:
    """Rafailov et al. 2023, equation 7: -log sigmoid(beta (log-ratio of chosen - log-ratio of rejected))."""
    chosen, rejected = 3 * seeded(6, seed=1), 3 * seeded(6, seed=2)
    expected = [math.log1p(math.exp(-0.1 * float(w - x))) for w, x in zip(chosen, rejected, strict=True)]
    assert furthest(dpo_loss(chosen, rejected, 0.1), expected) <= FLOAT64


def test_dpop_by_hand() -> None:
    """Pal et al. 2024, equation 3 (abacusai/smaug 20a7fd2 holds no code): the fall max(0, log p_ref - log p) of the chosen
    answer, times lambda, is inside the sigmoid and is multiplied by beta."""
    chosen, rejected = 3 * seeded(6, seed=1), 3 * seeded(6, seed=2)
    expected = [
        -float(logsigmoid(torch.tensor(0.3 * (float(w) - float(x) - 50 * max(0.0, -float(w))), dtype=torch.float64)))
        for w, x in zip(chosen, rejected, strict=True)
    ]
    assert furthest(dpop_loss(chosen, rejected, 0.3, 50.0), expected) <= FLOAT64


def test_reward_calibration_by_hand() -> None:
    """arXiv 2604.18239: r = d_w / d_l, r* = |s_l| / |s_w|, alpha = exp((log r* - log r) / 2). A training script of the method
    that a search brought up without its repository's name has the same rule, with moving averages of the logarithms."""
    s_w, s_l = seeded(9, seed=3), 2 * seeded(9, seed=4)
    squares = float(s_w @ s_w), float(s_l @ s_l)
    pull, push = 0.7, 0.2  # as with a term that only holds the chosen answer up: d_w = d + lambda, d_l = d
    band = band_test(*squares, float(s_w @ s_l), pull, push)
    alpha = math.exp(0.5 * (math.log(math.sqrt(squares[1]) / math.sqrt(squares[0])) - math.log(pull / push)))
    assert furthest(calibration_factor(band.log_ratio, band.log_optimum), alpha) <= FLOAT64
    assert furthest(band.cosine, float(s_w @ s_l) / math.sqrt(squares[0] * squares[1])) <= FLOAT64
