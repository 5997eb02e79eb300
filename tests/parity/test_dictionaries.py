"""Latent scaling, norm difference, BatchTopK and AuxK against the authors' code (repositories and commits: numbers.json)."""

import math

import pytest
import torch

from mneme.audit.records import label_of, norm_difference
from mneme.dictionaries.crosscoder import Dictionary
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.topk import SparseCodes, batch_topk
from mneme.dictionaries.training import Trainer
from mneme.diff.scoring import LatentScores, latent_scores, latent_sums
from tests.parity import FLOAT32, FLOAT64, authors_numbers, furthest, seeded

TOKENS, LATENTS, WIDTH = 60, 7, 5


def scored(dtype: torch.dtype) -> LatentScores:
    """A crosscoder whose codes, decoders and bias are given, on activations that it reconstructs in part."""
    f = torch.relu(seeded(TOKENS, LATENTS, seed=81, dtype=dtype)) * (seeded(TOKENS, LATENTS, seed=82) > 0).to(dtype)
    decoders = seeded(2, LATENTS, WIDTH, seed=83, dtype=dtype)
    bias = 0.1 * seeded(2, WIDTH, seed=84, dtype=dtype)
    x = torch.einsum("nl,mld->nmd", f, decoders) + bias + 0.3 * seeded(TOKENS, 2, WIDTH, seed=85, dtype=dtype)
    zeros = torch.zeros(2 * WIDTH, dtype=dtype)
    dictionary = Dictionary(
        kind="batchtopk",
        w_enc=torch.zeros(2 * WIDTH, LATENTS, dtype=dtype),
        w_dec=torch.cat([decoders[0], decoders[1]], dim=1),
        b_enc=torch.zeros(LATENTS, dtype=dtype),
        b_dec=bias.reshape(-1),
        threshold=0.0,
        mean=zeros,
        scale=zeros + 1,
        k=2.0,
        d_model=WIDTH,
        seed=0,
    )
    token, latent = f.nonzero(as_tuple=True)
    m, q = (x[:, 0] + x[:, 1]) / math.sqrt(2), (x[:, 1] - x[:, 0]) / math.sqrt(2)
    return latent_scores(dictionary, latent_sums(dictionary, SparseCodes(token, latent, f[token, latent]), m, q))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.float64, FLOAT64)])
def test_latent_scaling_in_one_pass_is_the_closed_form_of_the_authors(dtype: torch.dtype, tolerance: float) -> None:
    """beta of both models for the target activation; nu of the targets error and reconstruction."""
    scores, expected = scored(dtype), authors_numbers(f"scaling_{str(dtype).removeprefix('torch.')}")
    of = {name: torch.tensor(values, dtype=torch.float64) for name, values in expected.items()}
    assert scores.nu_error is not None
    assert scores.nu_reconstruction is not None
    assert furthest(scores.beta_activation[:, 0], of["base_activation"]) <= tolerance
    assert furthest(scores.beta_activation[:, 1], of["chat_activation"]) <= tolerance
    assert furthest(scores.nu_error, of["base_error"] / of["chat_error"]) <= tolerance
    assert furthest(scores.nu_reconstruction, of["base_reconstruction"] / of["chat_reconstruction"]) <= tolerance


def test_labels_cut_the_authors_norm_difference() -> None:
    """1/2 (1 + (|d_tuned| - |d_base|) / larger), from our relative norm; theirs has base minus tuned, so it is mirrored. Their
    cuts at .1 and .9 lie at 1/6 and 5/6 of our relative norm."""
    expected = [1 - value for value in authors_numbers("scaling_float64")["dec_norm_diff"]]
    norms = scored(torch.float64).relative_norm.tolist()
    assert furthest([norm_difference(norm) for norm in norms], expected) <= FLOAT64
    assert furthest([norm_difference(norm) for norm in (1 / 6, 0.5, 5 / 6)], [0.1, 0.5, 0.9]) <= FLOAT64
    assert [label_of(norm) for norm in (0.16, 0.17, 0.5, 0.83, 0.84)] == [
        "base-only",
        "suppressed",
        "shared",
        "amplified",
        "tuned-only",
    ]
    assert (norm_difference(0.0), norm_difference(1.0)) == (0.0, 1.0)


def test_batchtopk_keeps_the_entries_that_the_authors_keep() -> None:
    """k x tokens of the largest activations of the batch; the authors' rank by the activation alone, so every size is 1."""
    expected = authors_numbers("batchtopk")
    products = seeded(12, 16, seed=91, dtype=torch.float32)
    found = batch_topk(products, torch.zeros(16), torch.ones(16), 36)
    assert found.flat_index.tolist() == expected["flat"]
    assert furthest(float(found.code.double().sum()), expected["sum"]) <= FLOAT32


AUX_TOKENS, AUX_LATENTS, DEAD = 12, 14, 8
"""More dead latents than half the input has numbers, so that AuxK chooses among them."""


def aux_inputs() -> dict[str, torch.Tensor]:
    """An input of ten numbers a token, what a dictionary left of it, and the dictionary's rows and encoder bias."""
    f32 = torch.float32
    return {
        "x": seeded(AUX_TOKENS, 2 * WIDTH, seed=101, dtype=f32),
        "left": 0.5 * seeded(AUX_TOKENS, 2 * WIDTH, seed=102, dtype=f32) + 0.1,
        "encoder": seeded(AUX_LATENTS, 2 * WIDTH, seed=103, dtype=f32),
        "decoder": torch.nn.functional.normalize(seeded(AUX_LATENTS, 2 * WIDTH, seed=104, dtype=f32), dim=1),
        "bias": 0.2 * seeded(AUX_LATENTS, seed=105, dtype=f32),
    }


def test_gradient_of_auxk_is_the_authors() -> None:
    """Of 1/32 x the normalised AuxK loss of Gao et al., as in both trainers; the best five of eight dead latents a token."""
    given, expected = aux_inputs(), authors_numbers("auxk")
    settings = Settings("rotated", WIDTH, AUX_LATENTS, (1.0,), (0,), n_steps=10, batch_size=AUX_TOKENS)
    trainer = Trainer(settings, torch.zeros(2 * WIDTH), torch.ones(2 * WIDTH))
    own = {"encoder": trainer._encoder, "decoder": trainer._decoder, "bias": trainer._encoder_bias}
    for name, parameter in own.items():
        parameter.copy_(given[name])
        parameter.grad = torch.zeros_like(parameter)
    trainer._silent_tokens[:DEAD] = 10**6
    trainer._add_aux(given["x"], -given["left"][None])
    for name, parameter in own.items():
        assert furthest(parameter.grad, expected[name]) <= FLOAT32
